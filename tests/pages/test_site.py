"""The site, built from a copy of the project: with Quarto where it is on PATH, and without it always.

What only a browser can see is in test_browser.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
POST = "posts/class_conditional_vae/class_conditional_vae"
POSTS = sorted(path for path in (ROOT / "posts").glob("*/*.qmd") if not path.name.startswith("_"))
FIGURES = (ROOT / f"{POST}.qmd").read_text(encoding="utf-8").count("\nshow(\n")  # drawn by Plotly
SECTIONS = (
    "From unconditional to conditional", "Setup", "base architecture", "Spatial concatenation", "Group normalization",
    "Adaptive layer normalization", "Comparing", "taken apart", "What the numbers say", "How the models were trained",
    "Play with it", "next",
)  # fmt: skip


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
    assert len(figures) == FIGURES > 10
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


def test_the_page_says_all_it_should(site):
    check_page((site / f"{POST}.html").read_text(encoding="utf-8"))
    assert "Class-Conditional VAE" in (site / "index.html").read_text(encoding="utf-8")


def test_no_number_is_shown_as_code_writes_it(site):
    """Quarto shows a computed text as Python would write it: a space that does not break came out as \\xa0."""
    for page in site.glob("posts/*/*.html"):
        text = re.sub(r"(?s)<pre.*?</pre>|<script.*?</script>", "", page.read_text(encoding="utf-8"))
        assert not re.search(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\d ± \d", text)


def test_no_cell_prints_a_warning(site):
    for page in site.glob("posts/*/*.html"):
        assert not re.search(r"\w*Warning: .*", page.read_text(encoding="utf-8")), page


def test_the_post_is_neither_a_leaflet_nor_a_book(site, script):
    """Its running text, captions and exercises with it; folded solutions, code and tables do not count."""
    page = (site / f"{POST}.html").read_text(encoding="utf-8")
    assert 4000 <= script("tools/finish_pages.py").count_words(page) <= 7000


def test_quarto_finds_nothing_to_complain_of(quarto_site):
    said = (quarto_site.parent / "build.log").read_text()
    assert not re.search(r"(?i)unable to resolve|citeproc: citation|could not (find|fetch)", said), said


def test_what_is_published_is_the_sites_own(quarto_site):
    """Without a leading slash Quarto takes a resource's pattern for any folder, the installed packages' too."""
    assert [path for path in quarto_site.rglob("*") if path.name == "stray.js"] == []
    assert not (quarto_site / ".venv").exists()


def test_every_link_anchor_and_picture_of_the_site_is_there(site):
    """The page for wrong addresses may be shown anywhere, so it names everything from the root of the web site."""
    root = "/" + yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["site-url"].split("/", 3)[3] + "/"
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    names = {path: {a.get("id") for _, a in page.tags} for path, page in pages.items()}
    links = {(path, a.get(key)) for path, page in pages.items() for _, a in page.tags for key in ("href", "src")}
    inside = {(path, link) for path, link in links if link and not re.match(r"[a-z]+:|//", link)}
    assert len(inside) > 30

    def is_there(path, link):
        address, _, anchor = link.partition("#")
        address = unquote(address.split("?")[0])
        target = site / address.removeprefix(root) if address.startswith(root) else path.parent / address
        target = target.resolve() if address else path
        target = target / "index.html" if target.is_dir() else target
        filters = anchor.startswith("category=")  # of the list of posts
        return target.is_file() and (not anchor or filters or unquote(anchor) in names[target])

    assert [f"{path.name}: {link}" for path, link in inside if not is_there(path, link)] == []


def test_every_post_opens_its_own_notebook_in_colab(site):
    repository = yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["repo-url"]
    for path in POSTS:
        page = Page((site / path.relative_to(ROOT)).with_suffix(".html").read_text(encoding="utf-8"))
        links = {a["href"] for tag, a in page.tags if tag == "a" and "//colab." in (a.get("href") or "")}
        notebook = path.with_suffix(".ipynb").relative_to(ROOT).as_posix()
        colab = repository.replace("https://github.com", "https://colab.research.google.com/github")
        assert links == {f"{colab}/blob/main/{notebook}"} and (ROOT / notebook).is_file()


def test_every_picture_of_the_site_has_an_alternative_text(site):
    for path in site.rglob("*.html"):
        page = Page(path.read_text(encoding="utf-8"))
        assert [a.get("src") for tag, a in page.tags if tag == "img" and a.get("alt") is None] == []


def test_the_site_can_be_followed_shared_and_cited(quarto_site):
    feed = (quarto_site / "index.xml").read_text(encoding="utf-8")
    html = (quarto_site / f"{POST}.html").read_text(encoding="utf-8")
    assert "title = {Class-Conditional {VAE}}" in html and "author = {}" not in html  # "cite this"
    assert "View source" in html and "Report an issue" in html
    for path in POSTS:
        post = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
        assert f"<title>{post['title']}</title>" in feed
        page = Page((quarto_site / path.relative_to(ROOT)).with_suffix(".html").read_text(encoding="utf-8"))
        said = {a.get("property") or a.get("name"): a.get("content") for tag, a in page.tags if tag == "meta"}
        card = Path(post["image"]).name.replace("_thumbnail.svg", "_card.png")
        with Image.open(quarto_site / "assets" / card) as picture:
            assert picture.size == (1200, 630)
        for site in ("og", "twitter"):
            assert said[f"{site}:title"].startswith(post["title"]), path
            assert said[f"{site}:image"].endswith(f"/{card}") and said[f"{site}:image:alt"] == post["image-alt"], path
        assert said["twitter:card"] == "summary_large_image"


def test_the_listing_says_how_long_the_text_takes_to_read(quarto_site):
    """At 200 words a minute; counted here in the source, without what is not running text there."""
    listing = (quarto_site / "index.html").read_text(encoding="utf-8")
    for path in POSTS:
        text = path.read_text(encoding="utf-8").split("---\n", 2)[2]
        captions = re.findall(r'(?m)^#\| tbl-cap: "(.*)"$', text)
        code = r"(?ms)^```.*?^```$"
        folded = r'(?ms)^(:{3,}) \{[^}\n]*collapse="true".*?^\1$'
        for left_out in (code, folded, r"(?s)\$\$.*?\$\$", r"\$[^$\n]+\$", r"(?m)^\|.*", r"(?m)^:::.*", r"\{[^}\n]*\}"):
            text = re.sub(left_out, " ", text)
        text += " ".join(captions)
        expected = len(re.findall(r"\S*\w\S*", text)) / 200
        card = listing.split(f"/{path.stem}.html", 1)[1].split('data-listing-reading-time-sort="', 1)[0]
        shown = int(re.search(r'class="listing-reading-time[^>]*>(\d+) min<', card)[1])
        assert abs(shown - expected) < max(1, 0.1 * expected), (path.stem, shown, expected)
        assert re.search(rf'data-listing-reading-time-sort="{shown}"[^>]*>\s*<a href="[^"]*{path.stem}', listing)


def test_the_listing_says_of_every_post_what_it_is(quarto_site):
    listing = (quarto_site / "index.html").read_text(encoding="utf-8")
    cards = listing.split('<div class="g-col-1"')[1:]
    assert len(cards) == len(POSTS)
    for path in POSTS:
        post = yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
        card = next(card for card in cards if f"/{path.stem}.html" in card)
        picture = next(a for tag, a in Page(card).tags if tag == "img")
        assert (quarto_site / picture["src"]).name == Path(post["image"]).name
        assert picture["alt"] == post["image-alt"] and len(picture["alt"]) > 20

        def said(name, card=card):
            return [
                " ".join(text.split()) for text in re.findall(rf'(?s)class="[^"]*listing-{name}\b[^>]*>([^<]*)<', card)
            ]

        assert said("title") == [post["title"]] and said("subtitle") == [post["subtitle"]]
        assert said("category") == post["categories"]
        assert said("date") == [f"{post['date']:%b} {post['date'].day}, {post['date'].year}"]
        assert re.fullmatch(r"\d+ min", *said("reading-time"))


@pytest.mark.parametrize("path", POSTS, ids=lambda path: path.stem)
def test_every_post_is_made_as_contributing_says(path):
    text = path.read_text(encoding="utf-8")
    assert text.split("---\n", 2)[2].lstrip().startswith("{{< include ../_colab.qmd >}}")
    cells = re.findall(r"(?ms)^```\{python\}\n(.*?)^```$", text)
    assert [cell for cell in cells if not re.search(r"(?m)^#\| label: [\w-]+$", cell)] == []
    assert [cell for cell in cells if not re.search(r"(?m)^#\| code-summary: .+$", cell)] == []
    claims = (ROOT / "tests" / "test_claims.py").read_text(encoding="utf-8")
    assert path.stem == "class_conditional_vae" or f'"""{path.stem} ' in claims  # the main post's need no name


def test_the_projects_address_stands_in_one_place():
    address = yaml.safe_load((ROOT / "_quarto.yml").read_text())["website"]["repo-url"]
    name = address.removeprefix("https://github.com/")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    unreadable = (".png", ".webp", ".onnx", ".safetensors", ".min.js")
    readable = [p for p in listed if (ROOT / p).is_file() and not p.endswith(unreadable)]
    holding = [p for p in readable if name in (ROOT / p).read_text(encoding="utf-8")]
    # The notebooks are made from it, for a reader who has nothing but the notebook.
    notebooks = {path.with_suffix(".ipynb").relative_to(ROOT).as_posix() for path in POSTS}
    assert set(holding) <= {"_quarto.yml"} | notebooks and "_quarto.yml" in holding


# No DOI and no arXiv id exists for these; their address is the publisher's own.
ONLY_URL = {"sohn2015", "higgins2017", "maaten2008", "jordan2024", "hoffman2016", "barber2003"}


def test_every_reference_is_cited_and_can_be_found():
    bib = (ROOT / "references.bib").read_text(encoding="utf-8")
    entries = {m[1]: m[0] for m in re.finditer(r"(?s)@\w+\{(\w+),.*?\n\}", bib)}
    text = "\n".join(path.read_text(encoding="utf-8") for path in POSTS)
    assert {key for key in re.findall(r"@([a-z]+\d{4})\b", text)} == entries.keys()
    identified = re.compile(r"\bdoi = \{10\.|\beprint = \{\d{4}\.\d{4,5}\}")
    found = {key for key, entry in entries.items() if identified.search(entry)}
    assert entries.keys() - found == ONLY_URL
    assert [key for key in ONLY_URL if "url = {https://" not in entries[key]] == []


def settings_of(value, path=""):
    """Every key of nested settings, with where it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, f"{path}{key}"
            yield from settings_of(inner, f"{path}{key}: ")
    elif isinstance(value, list):
        for inner in value:
            yield from settings_of(inner, path)


def names_in(schema):
    """The settings that one of Quarto's own lists describes."""
    if isinstance(schema, dict):
        yield from [schema["name"]] if isinstance(schema.get("name"), str) else []
        yield from schema["properties"] if isinstance(schema.get("properties"), dict) else []
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []:
        yield from names_in(inner)


@pytest.mark.skipif(not shutil.which("quarto"), reason="quarto, whose lists of settings are read, is not on PATH")
def test_quarto_knows_every_setting():
    """Quarto ignores a setting it does not know without a word, so a slip of the pen would go unseen."""
    paths = subprocess.run(["quarto", "--paths"], capture_output=True, text=True, check=True).stdout.split("\n")
    known = {"execute", "html", "light", "dark", "literal"}  # which the lists leave out
    for file in (Path(paths[1]) / "schema").glob("*.yml"):
        known |= set(names_in(yaml.safe_load(file.read_text(encoding="utf-8"))))
    pages = [*ROOT.glob("*.qmd"), *ROOT.glob("posts/*/*.qmd")]
    sources = [ROOT / "_quarto.yml", ROOT / "posts" / "_metadata.yml", *pages]
    for source in sources:
        text = source.read_text(encoding="utf-8")
        settings = yaml.safe_load(text.split("---\n")[1] if source.suffix == ".qmd" else text)
        assert [path for key, path in settings_of(settings) if key not in known] == [], source.name


@pytest.mark.skipif(not shutil.which("quarto"), reason="quarto, whose lists of settings are read, is not on PATH")
def test_quarto_knows_every_option_of_every_cell():
    """What it does not know it takes for a comment. (It refuses what it does not know in _quarto.yml by itself.)"""
    paths = subprocess.run(["quarto", "--paths"], capture_output=True, text=True, check=True).stdout.split("\n")
    known = set()
    for file in (Path(paths[1]) / "schema").glob("cell-*.yml"):
        for option in yaml.safe_load(file.read_text(encoding="utf-8")):
            engines = (option.get("tags") or {}).get("engine") or "jupyter"  # some are R's alone
            known |= {option["name"]} if "jupyter" in engines else set()
    for path in [*ROOT.glob("posts/*.qmd"), *POSTS]:
        options = re.findall(r"(?m)^#\| ?([^:\n]*)", path.read_text(encoding="utf-8"))
        assert options and [name for name in options if name not in known] == [], path.name


def test_words_are_spelled_right():
    spelled = pytest.importorskip("codespell_lib", reason="codespell is not installed; see requirements.txt")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    kinds = (".qmd", ".md", ".py", ".yml", ".toml", ".bib", ".svg", ".js", ".j2", ".css", ".scss", ".html")
    names = [name for name in listed if name.endswith(kinds) and (ROOT / name).is_file()]
    environment = os.environ | {"PYTHONPATH": str(Path(spelled.__file__).parents[1])}
    command = [sys.executable, "-m", "codespell_lib", *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is not on PATH")
def test_make_help_lists_every_target():
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"(?m)^([a-z]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(targets) > 10 and re.findall(r"(?m)^  make ([a-z]+) ", printed) == targets
