"""What the next maintainer relies on: tables that are true, pins that agree, a map that is complete."""

import ast
import http.client
import json
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml

import cvae_support

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# Prints {"file::test": [cases, of these expected to fail]}.
COLLECT = """
import collections, json, sys, pytest
class Count:
    def pytest_collection_finish(self, session):
        found = collections.defaultdict(lambda: [0, 0])
        for item in session.items:
            cases = found[f"{item.path.stem.removeprefix('test_')}::{item.originalname.removeprefix('test_')}"]
            cases[0] += 1
            cases[1] += item.get_closest_marker("xfail") is not None
        print("\\n" + json.dumps(found))
pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[Count()])
"""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_table_of_faults_counts_what_the_tests_try():
    """A row names its tests; tried are their cases, lost those that are expected to fail, survived the others."""
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \| (.+?) \|$", read("README.md"), re.MULTILINE)
    named = {row[0]: re.findall(r"`(\w+::\w+)`", row[4]) for row in rows}
    files = sorted({f"tests/test_{name.split('::')[0]}.py" for names in named.values() for name in names})
    command = [sys.executable, "-c", COLLECT, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    total = [0, 0]
    for fault, tried, survived, lost, _ in rows:
        if fault == "**all**":
            cases, failing = total
        else:
            assert [name for name in named[fault] if name not in found] == [], fault
            cases, failing = (sum(found[name][i] for name in named[fault]) for i in (0, 1))
            total = [total[0] + cases, total[1] + failing]
        assert (int(tried), int(survived), int(lost)) == (cases, cases - failing, failing), fault
    counted = {name for names in named.values() for name in names}
    assert len(rows) > 15 and {name for name in found if name.startswith("faults::")} <= counted


def test_the_map_of_the_package_is_complete():
    modules = {path.stem for path in Path(cvae_support.__file__).parent.glob("[a-z]*.py")}
    assert set(re.findall(r"^(\w+)  ", cvae_support.__doc__, re.MULTILINE)) == modules


def test_what_the_package_needs_is_pinned_within_what_it_accepts():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", read("requirements.txt"), re.MULTILINE))
    for needed in tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]:
        name, oldest = needed.split(">=")
        assert [int(n) for n in pins[name].split(".")] >= [int(n) for n in oldest.split(".")], name


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_the_lock_holds_every_pin_with_hashes_and_leaves_torch_alone():
    """What is installed is what was tried, file for file; torch's file, by version alone, is that of the machine."""
    pins, lock = read("requirements.txt"), re.sub(r" \\\n +", " ", read("requirements.lock"))
    locked: dict[str, set] = {}
    for line in filter(re.compile("[^#]").match, lock.splitlines()):
        pin = re.fullmatch(r"([\w.-]+)==([\w.]+)(?: ; .+?)?(?: --hash=sha256:[0-9a-f]{64})+", line)
        locked.setdefault(pin[1], set()).add(pin[2])
    pinned = {plain(name): {version} for name, version in re.findall(r"^([\w-]+)==(\S+)$", pins, re.MULTILINE)}
    by_version = {"torch", "torchvision"}
    assert by_version < set(pinned) and "--hash" not in pins
    assert {name: locked.get(name) for name in pinned} == pinned | dict.fromkeys(by_version)
    of_cuda = re.compile("nvidia|cuda|triton")
    needed = {plain(re.match(r"[\w.-]+", need)[0]) for need in requires("torch") if "extra ==" not in need}
    assert {name for name in needed if not of_cuda.match(name)} < set(locked), "torch needs more than is locked"
    assert not list(filter(of_cuda.match, locked)), "make lock should leave it out: see CUDA in the Makefile"


def test_quarto_is_the_same_everywhere():
    named = [re.findall(r'(?: version|quarto): "(\d+\.\d+\.\d+)"', path.read_text()) for path in WORKFLOWS]
    named += [re.findall(r"(?:/v|quarto-)(\d+\.\d+\.\d+)", read(".devcontainer/Dockerfile"))]
    assert sum(named, []) == ["1.7.34"] * 4  # once in each of two workflows, twice in the address of its package
    assert "Quarto 1.7.34" in read("README.md")


SOURCES = (
    "_quarto.yml", "index.qmd", "404.qmd", "references.bib", "requirements.txt", "requirements.lock", "pyproject.toml",
    "posts/_metadata.yml", "posts/_colab.qmd", "posts/kl_weight/kl_weight.qmd", "posts/kl_weight/kl_weight.ipynb",
    "assets/theme.scss", "assets/page.js", "assets/diagrams/blend.svg", "cvae_support/figures.py",
    "cvae_support/results/measures.json", "cvae_support/weights/adaln-w0.25-kl0.01-muon.json",
    "tools/build_page.py", "tools/finish_pages.py", "tools/qmd/cells.py", "tools/page_template/contents.html",
    "tools/page_template/page.css",
)  # fmt: skip
RESULTS = ("posts/kl_weight/kl_weight.html", "cvae_support/__pycache__/data.pyc", "_site/index.html", "README.md")


@pytest.mark.parametrize("path", SOURCES + RESULTS)
def test_the_site_is_built_again_if_and_only_if_a_source_changed(script, tmp_path, monkeypatch, path):
    build = script("tools/build_site.py")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    for file in map(tmp_path.joinpath, SOURCES + RESULTS):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("as it was")
    before = build.digest("quarto")
    assert build.digest("quarto") == before != build.digest("without quarto")
    (tmp_path / path).write_text("changed")
    assert (build.digest("quarto") != before) == (path in SOURCES)
    if path in SOURCES:
        assert (ROOT / path).is_file(), "the list above is out of date"
        (tmp_path / path).unlink()
        assert build.digest("quarto") != before


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_only_calls_make(path):
    """So that what runs there runs here. Beside that: room on the disk, and make itself where it is missing."""
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        for command in filter(None, (step.get("run") for step in job["steps"])):
            made = re.search(r"\bmake ([a-z]+)", command)
            assert re.match(r"\.ci/run$|sudo rm -rf|choco install make$", command) or made[1] in targets, command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_takes_the_small_build_of_torch_as_the_container_does(path):
    (address,) = re.findall(r"^ENV PIP_EXTRA_INDEX_URL=(\S+)$", read(".devcontainer/Dockerfile"), re.MULTILINE)
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["env"] == {"PIP_EXTRA_INDEX_URL": address}
    assert f"PIP_EXTRA_INDEX_URL={address} make site" in read("README.md")


def test_the_workflows_cover_the_pythons_the_package_accepts():
    package = yaml.safe_load(read(".github/workflows/test.yml"))["jobs"]["package"]["strategy"]["matrix"]
    assert package["python"] == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert 'requires-python = ">=3.10"' in read("pyproject.toml")
    assert "Python 3.11 to 3.14" in read("README.md") and "Python 3.11 to 3.14 is needed" in read("Makefile")
    assert {job["os"] for job in package["include"]} == {"ubuntu-latest", "macos-latest", "windows-latest"}


def test_what_ships_of_others_is_listed_with_its_licence(script):
    notice = read("NOTICE.md")
    for path in (ROOT / "assets").rglob("*.min.js"):
        first = path.read_text(encoding="utf-8")[:200]
        name, version = re.search(r"(\w+\.js) \(.*?\) v([\d.]+)", first).groups()
        assert f"| {name} | {version} |" in notice
    assert f"| onnxruntime-web | {script('tools/fetch_runtime.py').VERSION} |" in notice


def test_the_check_of_links_finds_them_and_says_what_is_gone(script, monkeypatch, capsys):
    links = script("tools/check_links.py")
    text = (
        "See <https://a.org/x>, [b](https://b.org/y). `http://localhost:8000`\n doi = {10.1/z}, eprint = {1312.6114},"
    )
    found = {"https://a.org/x", "https://b.org/y", "https://doi.org/10.1/z", "https://arxiv.org/abs/1312.6114"}
    assert links.addresses(text) == found
    monkeypatch.setattr(links, "answer", lambda address: "answers 404" if "arxiv" in address else "")
    assert links.main() == 1
    assert "https://arxiv.org/abs/1312.6114: answers 404" in capsys.readouterr().out
    monkeypatch.setattr(links, "answer", lambda address: "refused (403)")
    assert links.main() == 0


def test_the_check_of_links_needs_no_environment():
    tree = ast.parse(read("tools/check_links.py"))
    names = [alias.name for item in ast.walk(tree) if isinstance(item, ast.Import) for alias in item.names]
    names += [item.module for item in ast.walk(tree) if isinstance(item, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
    assert re.search(r"^links:  ##.*\n\t@\$\(PYTHON\) tools/check_links.py$", read("Makefile"), re.MULTILINE)


@pytest.mark.parametrize("tool", ["fetch_runtime", "check_links"])
def test_a_server_that_breaks_off_is_reported_and_no_more(script, tool, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise http.client.IncompleteRead(b"")

    monkeypatch.setattr("urllib.request.urlopen", broken)
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path))
    if tool == "fetch_runtime":
        assert not script("tools/fetch_runtime.py").bring_runtime(tmp_path / "site")
        assert "cannot be had (IncompleteRead" in capsys.readouterr().err
    else:
        assert script("tools/check_links.py").answer("https://a.org").startswith("cannot be reached: IncompleteRead")


def test_the_version_is_the_same_everywhere():
    version = cvae_support.__version__
    assert f'version = "{version}"' in read("pyproject.toml") and f"\nversion: {version}\n" in read("CITATION.cff")
    assert f"## {version}\n" in read("CHANGELOG.md")


@pytest.mark.parametrize("post", sorted(ROOT.glob("posts/*/*.qmd")), ids=lambda path: path.stem)
def test_no_line_of_a_post_begins_with_a_percent_sign(post):
    """A number and its sign stand on one line: there is a no-break space between them."""
    prose = re.sub(r"^(`{3,}).*?^\1$", "", post.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert "\u00a0%" in prose or "%" not in prose
    assert re.findall(r".{0,30}[`\d] %(?!\w)", prose) == []
