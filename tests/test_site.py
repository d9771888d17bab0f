"""The site, built from a copy of the project: with Quarto where it is on PATH, and without it always."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
POST = "posts/class_conditional_vae/class_conditional_vae"
FIGURES = 11  # drawn by Plotly
SECTIONS = (
    "From unconditional to conditional", "Setup", "base architecture", "Spatial concatenation", "Group normalization",
    "Adaptive layer normalization", "Comparing", "taken apart", "next",
)  # fmt: skip


def copy_project(folder: Path) -> Path:
    """What git would hand to a stranger, as it is now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text a reader sees outside code."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text, self.silent = [], "", 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.silent += tag in ("script", "style", "pre", "code")

    def handle_endtag(self, tag):
        self.silent -= tag in ("script", "style", "pre", "code")

    def handle_data(self, data):
        self.text += "" if self.silent else data


def check_page(html: str) -> None:
    """What a reader relies on, whichever way the page was built."""
    page = Page(html)
    figures = [attributes for _, attributes in page.tags if "cvae-figure" in (attributes.get("class") or "")]
    assert len(figures) == FIGURES
    for figure in figures:
        assert figure["role"] == "img" and len(figure["aria-label"]) > 20
    drawn = [json.loads(text) for text in re.findall(r'(?s)<script type="application/json">([^<]+)</script>', html)]
    assert sum("data" in figure for figure in drawn) == FIGURES
    assert "shipped weights" in html and "Traceback (most recent" not in html
    loaded = [a.get("src") or (tag == "link" and a.get("href")) or "" for tag, a in page.tags if tag != "a"]
    assert sum(url.endswith("plotly-cartesian.min.js") for url in loaded) == 1
    assert sum(url.endswith("figures.js") for url in loaded) == 1
    assert [url for url in loaded if url.startswith(("http", "//"))] == []  # nothing from another host
    assert not re.search(r"\?@\w|\{\{<|\?meta|\[@|:::", page.text)  # nothing unresolved
    headings = " ".join(re.findall(r"(?s)<h2.*?</h2>", html))
    for section in SECTIONS:
        assert section in headings


def test_without_quarto_the_page_is_made_from_the_notebook(tmp_path):
    project = copy_project(tmp_path / "a project with späces")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QUARTO")}
    environment["CVAE_CACHE"] = str(ROOT / ".cache")
    command = [sys.executable, "tools/build_page.py"]
    first = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-3000:]
    assert "quarto.org" in first.stdout + first.stderr
    check_page((project / "_site" / f"{POST}.html").read_text(encoding="utf-8"))
    assert (project / "_site" / "index.html").is_file()
    assert (project / "_site" / "assets" / "figures.js").is_file()


NO_QUARTO = "quarto is not on PATH; see https://quarto.org/docs/get-started/"


@pytest.mark.skipif(not shutil.which("quarto"), reason=NO_QUARTO)
def test_quarto_renders_the_site(tmp_path):
    project = copy_project(tmp_path / "project")
    environment = os.environ | {"CVAE_CACHE": str(ROOT / ".cache"), "QUARTO_PYTHON": sys.executable}
    done = subprocess.run(["quarto", "render"], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not re.search(r"(?i)unable to resolve|citeproc: citation|could not (find|fetch)", done.stderr), done.stderr
    check_page((project / "_site" / f"{POST}.html").read_text(encoding="utf-8"))
    assert "Class-Conditional VAE" in (project / "_site" / "index.html").read_text(encoding="utf-8")


def test_every_diagram_and_script_the_post_names_exists():
    text = (ROOT / f"{POST}.qmd").read_text(encoding="utf-8")
    named = re.findall(r"\.\./\.\./(assets/[\w./-]+)", text)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_diagrams_are_accessible_and_follow_the_theme():
    import xml.etree.ElementTree as ElementTree

    diagrams = sorted((ROOT / "assets").rglob("*.svg"))
    assert len(diagrams) > 10
    for path in diagrams:
        root = ElementTree.parse(path).getroot()
        text = path.read_text(encoding="utf-8")
        space = "{http://www.w3.org/2000/svg}"
        assert root.get("role") == "img" and root.find(f"{space}title").text, path.name
        if path.parent.name == "diagrams":
            assert root.find(f"{space}desc").text and re.search(r"prefers-color-scheme:\s*dark", text), path.name


def test_the_projects_address_stands_in_one_place():
    address = yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["repo-url"]
    name = address.removeprefix("https://github.com/")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    readable = [p for p in listed if (ROOT / p).is_file() and not p.endswith((".png", ".safetensors", ".min.js"))]
    holding = [p for p in readable if name in (ROOT / p).read_text(encoding="utf-8")]
    # The notebook is made from it, for a reader who has nothing but the notebook.
    assert set(holding) <= {"_quarto.yml", f"{POST}.ipynb"} and "_quarto.yml" in holding


def test_every_citation_has_an_entry_with_a_way_to_find_it():
    bib = (ROOT / "references.bib").read_text(encoding="utf-8")
    entries = {m[1]: m[0] for m in re.finditer(r"(?s)@\w+\{(\w+),.*?\n\}", bib)}
    text = (ROOT / f"{POST}.qmd").read_text(encoding="utf-8")
    cited = {key for key in re.findall(r"@([a-z]+\d{4})\b", text)}
    assert cited <= entries.keys()
    assert [key for key, entry in entries.items() if not re.search(r"doi = |url = ", entry)] == []


@pytest.mark.parametrize("target", ["site", "preview", "test", "data", "notebook", "weights", "benchmark", "clean"])
def test_make_help_lists_every_target(target):
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"make {target} ", printed)
