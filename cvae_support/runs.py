"""The folder of a training run: checked before the first step, kept to one process, and what an error leaves in it."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from cvae_support.checkpoints import load_record, save_checkpoint
from cvae_support.config import Config
from cvae_support.data import Dataset


class TrainingError(RuntimeError):
    """Training cannot start or go on."""


def check_writable(folder: Path) -> None:
    """Raise TrainingError if no checkpoint could be written in folder: better now than after the first epoch."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(f"no checkpoint can be written in {folder}: {error}. Choose another --folder") from error


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep folder to this run until it ends or is killed. Raises TrainingError where another one is at work."""
    with open(folder / "lock", "ab") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise TrainingError(f"another process is training in {folder}: wait for it, or choose another") from error
        except OSError:
            pass  # a file system that knows no locks
        yield


def last_good(last: Path) -> str:
    """Which checkpoint an error leaves behind."""
    if not last.is_file():
        return "there is no checkpoint yet"
    return f"the last good checkpoint, {last}, is of epoch {len(load_record(last)['history'])}"


def again(last: Path) -> str:
    """What to do after an interruption."""
    return "go on with --resume" if last.is_file() else "start again"


def save(path: Path, tensors: dict[str, Tensor], config: Config, data: Dataset, history: list, made_on: str) -> None:
    """Write a checkpoint of the run. Raises TrainingError, with the older checkpoint untouched."""
    try:
        save_checkpoint(
            path, tensors, config,
            data=data.checksum, classes=data.classes, history=history, made_on=made_on,
        )  # fmt: skip
    except OSError as error:
        raise TrainingError(
            f"epoch {len(history)} could not be saved: {error}; {last_good(path.with_name('last.json'))}. "
            f"Make room there and {again(path.with_name('last.json'))}"
        ) from error
