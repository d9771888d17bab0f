"""The built site, its server and a browser, which the tests here share."""

import contextlib
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def copy_project(folder: Path) -> Path:
    """What git would hand to a stranger, as it is now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def quarto_site(tmp_path_factory):
    """The site as Quarto builds it."""
    if not shutil.which("quarto"):
        pytest.skip("quarto is not on PATH; see https://quarto.org/docs/get-started/")
    project = copy_project(tmp_path_factory.mktemp("quarto") / "project")
    stray = project / ".venv" / "package" / "assets" / "stray.js"  # as an installed package has them
    stray.parent.mkdir(parents=True)
    stray.touch()
    environment = {"CVAE_CACHE": str(ROOT / ".cache")} | os.environ | {"QUARTO_PYTHON": sys.executable}
    done = subprocess.run(["quarto", "render"], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (project / "_site" / "render.log").write_text(done.stderr)
    return project / "_site"


@pytest.fixture(scope="session")
def plain_site(tmp_path_factory):
    """The site as it is built where there is no Quarto."""
    project = copy_project(tmp_path_factory.mktemp("plain") / "a project with späces")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QUARTO")}
    environment.setdefault("CVAE_CACHE", str(ROOT / ".cache"))
    command = [sys.executable, "tools/build_page.py"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "quarto.org" in done.stdout + done.stderr
    return project / "_site"


@pytest.fixture(params=["quarto", "plain"])
def site(request):
    """The built site, each way it can be built."""
    return request.getfixturevalue(f"{request.param}_site")


class Handler(http.server.SimpleHTTPRequestHandler):
    cut: set[str] = set()  # names of files whose transfer breaks off in the middle

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        if self.path.rsplit("/", 1)[1] in self.cut:
            outputfile.write(source.read(200_000))
        else:
            super().copyfile(source, outputfile)

    def translate_path(self, path):
        """The page for wrong addresses names its files from the root of the web site, which site-url says."""
        return super().translate_path(path.removeprefix("/class-conditional-vae"))


@pytest.fixture(scope="session")
def serve():
    """Serve a folder: with serve(folder) as address."""

    @contextlib.contextmanager
    def served(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

    served.cut = Handler.cut
    return served


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; see requirements.txt")
    if not CHROMIUM:
        pytest.skip("no chromium on PATH")
    everywhere = hasattr(os, "sched_setaffinity") and os.sched_getaffinity(0)
    if everywhere:  # a reader's machine has two cores at least: what is timed is to be fast enough there
        os.sched_setaffinity(0, sorted(everywhere)[:2])
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        if everywhere:
            os.sched_setaffinity(0, everywhere)
        yield launched
