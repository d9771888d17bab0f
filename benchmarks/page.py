"""Time whole commands, as a stranger would run them, in a fresh clone with an empty home.

    python benchmarks/page.py            # or: make benchmark

The clone is of the last commit. pip's cache is the one thing shared with the account that runs this.
"""

import gzip
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
POST = Path("posts/class_conditional_vae")
EXECUTE = """
import time, nbformat
from nbclient import NotebookClient
notebook = nbformat.read("class_conditional_vae.ipynb", 4)
start = time.perf_counter()
NotebookClient(notebook, kernel_name="python3", timeout=3600).execute()
print(time.perf_counter() - start)
"""


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Seconds a command takes; stops this script, with what it printed, if it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def page_files(site: Path) -> list[Path]:
    """The post and every file of the site that it names, style sheets and fonts among them."""
    page = site / POST / "class_conditional_vae.html"
    found, queue = {page}, [page]
    while queue:
        file = queue.pop()
        if file.suffix not in (".html", ".css"):
            continue
        text = file.read_text(encoding="utf-8")
        # Scripts, style sheets and pictures; links to other pages are not loaded.
        names = re.findall(r'<(?:script|img)[^>]+src="([^":]+)"|<link[^>]+href="([^":]+)"|url\(["\']?([^"\'):]+)', text)
        for name in {part.split("?")[0].split("#")[0] for group in names for part in group if part}:
            target = (file.parent / name).resolve()
            if target.is_file() and target.suffix != ".html" and target not in found:
                found.add(target)
                queue.append(target)
    return sorted(found)


def weight(files: list[Path]) -> str:
    """Of the files together, as they are and compressed."""
    size = sum(file.stat().st_size for file in files)
    packed = sum(len(gzip.compress(file.read_bytes())) for file in files)
    return f"{size / 1e6:.2f} MB ({packed / 1e6:.2f} MB compressed)"


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        clone, home = Path(scratch) / "clone", Path(scratch) / "home"
        home.mkdir()
        pip_cache = subprocess.run(
            [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True
        ).stdout.strip()
        own = ("CVAE_", "QUARTO", "FASHION_", "VIRTUAL_ENV", "PYTHON", "XDG_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        environment |= {"HOME": str(home), "PIP_CACHE_DIR": pip_cache}
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)

        make_site = ["make", "site"]
        rows.append(("`make site`, fresh clone, pip cache warm", f"{timed(make_site, clone, environment):.0f} s"))
        rows.append(("`make site` again, nothing changed", f"{timed(make_site, clone, environment):.1f} s"))

        python = clone / ".venv" / "bin" / "python"
        done = subprocess.run(
            [python, "-c", EXECUTE], cwd=clone / POST, env=environment, capture_output=True, text=True, check=True
        )
        rows.append(("executing the notebook from shipped weights", f"{float(done.stdout.split()[-1]):.0f} s"))
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
        rows.append(("peak memory of the largest process", f"{peak / 1e9:.1f} GB"))

        files = page_files(clone / "_site")
        page = clone / "_site" / POST / "class_conditional_vae.html"
        rows.append(("the page's HTML", weight([page])))
        rows.append((f"the page and all it loads ({len(files)} files)", weight(files)))
    print("| What | Measured |\n|:---|---:|")
    print("\n".join(f"| {what} | {value} |" for what, value in rows))


if __name__ == "__main__":
    main()
