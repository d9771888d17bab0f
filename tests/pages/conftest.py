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
def builds(tmp_path_factory):
    """Both ways to build the site, begun at once, each in a project of its own: neither keeps two cores busy."""
    commands = {"plain": [sys.executable, "tools/build_page.py"]}
    if shutil.which("quarto"):
        commands["quarto"] = ["quarto", "render"]
    environment = {"CVAE_CACHE": str(ROOT / ".cache")} | os.environ
    environment |= {"QUARTO_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    environment.pop("QUARTO_DOCUMENT_FILE", None)  # as where a page runs these tests
    begun = {}
    for name, command in commands.items():
        project = copy_project(tmp_path_factory.mktemp(name) / "a project with späces")
        stray = project / ".venv" / "package" / "assets" / "stray.js"  # as an installed package has them
        stray.parent.mkdir(parents=True)
        stray.touch()
        with open(project / "build.log", "w") as log:
            begun[name] = subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log), project
    yield begun
    for process, _ in begun.values():
        process.wait()  # one whose site no test asked for


def built(builds, name):
    process, project = builds[name]
    assert process.wait() == 0, (project / "build.log").read_text()[-3000:]
    return project / "_site"


@pytest.fixture(scope="session")
def quarto_site(builds):
    """The site as Quarto builds it."""
    if "quarto" not in builds:
        pytest.skip("quarto is not on PATH; see https://quarto.org/docs/get-started/")
    return built(builds, "quarto")


@pytest.fixture(scope="session")
def plain_site(builds):
    """The site as it is built where there is no Quarto."""
    site = built(builds, "plain")
    assert "quarto.org" in (site.parent / "build.log").read_text()
    return site


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
