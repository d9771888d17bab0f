"""Where files are kept, and how they are written: whole or not at all."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Where data and training runs are kept.

    CVAE_CACHE if set, else .cache in the checkout this package lies in, else the user's cache folder; for an account
    without a home, the folder for temporary files.
    """
    if os.environ.get("CVAE_CACHE"):
        return Path(os.path.expanduser(os.environ["CVAE_CACHE"]))  # a notebook's %env leaves ~ as it is
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return checkout / ".cache"
    try:
        return Path.home() / ".cache" / "cvae_support"
    except RuntimeError:  # an account without a home, as in some containers
        return Path(tempfile.gettempdir()) / "cvae_support"


def write_atomically(path: Path, content: bytes) -> None:
    """Write content so that path, whose folder is made, holds the old bytes or all the new ones, never a part.

    Raises OSError, with the old bytes untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # on the disk before the rename makes it the real one
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
