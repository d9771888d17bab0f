"""Build the site into _site/: with Quarto where it is to be had, else as a page made from the notebook.

Quarto is looked for on PATH and in this virtual environment; where it is neither, `pip install quarto-cli` is tried
once. Nothing is done when nothing changed since the last build.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from fetch_runtime import bring_runtime

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_site"
STAMP = ".stamp"
INPUTS = (
    "_*.yml", "*.qmd", "references.bib", "requirements.*", "pyproject.toml", "posts/**/*", "assets/**/*",
    "cvae_support/**/*", "tools/*.py", "tools/qmd/*.py", "tools/page_template/*",
)  # fmt: skip
MADE = ("cvae_support/**/*.pyc", "posts/**/*.html", "posts/**/.quarto/**/*")  # results, not inputs


def digest(builder: str) -> str:
    """Of everything the site is made from, and of what makes it."""
    result = hashlib.sha256(builder.encode())
    inputs, made = ({path for pattern in patterns for path in ROOT.glob(pattern)} for patterns in (INPUTS, MADE))
    for path in sorted(inputs - made):
        if path.is_file():
            result.update(path.relative_to(ROOT).as_posix().encode())
            result.update(path.read_bytes())
    return result.hexdigest()


def find_quarto() -> str | None:
    """The quarto command, after one attempt to install it."""
    here = Path(sys.executable).parent
    search = os.pathsep.join([str(here), os.environ.get("PATH", "")])
    if quarto := shutil.which("quarto", path=search):
        return quarto
    tried = here.parent / ".quarto-tried"  # an attempt takes long where the download is not to be had
    if not tried.exists():
        print("Quarto is not installed; trying pip install quarto-cli", flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "quarto-cli"]
        subprocess.run(command, capture_output=True)
        tried.touch()
    return shutil.which("quarto", path=search)


def main() -> int:
    quarto = find_quarto()
    made_from = digest(quarto or "without quarto")
    if (SITE / STAMP).is_file() and (SITE / STAMP).read_text() == made_from:
        bring_runtime(SITE)  # if it could not be had then
        print(f"Nothing changed since the last build: {SITE / 'index.html'}")
        return 0
    (SITE / STAMP).unlink(missing_ok=True)  # a build that is interrupted must not pass for the one before
    if quarto:
        environment = os.environ | {"QUARTO_PYTHON": sys.executable}
        done = subprocess.run([quarto, "render", str(ROOT)], env=environment).returncode
    else:
        import build_page

        done = build_page.main()
    if done:
        return done
    (SITE / STAMP).write_text(made_from)
    print(f"The site is built: open {SITE / 'index.html'}, or, for the decoder that runs in the page,")
    print(f"{sys.executable} -m http.server --directory {SITE}, then http://localhost:8000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
