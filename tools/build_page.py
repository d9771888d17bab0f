"""Build the site without Quarto: every post from its notebook, and a landing page.

    python tools/build_page.py

The notebook is executed once and kept in _site/.executed; while neither it nor the package changes, later calls only
lay out the page again. Pandoc turns the text into HTML (formulas become MathML, which browsers draw by themselves),
nbconvert the cells, and tools/page_template/ holds the page around them. Nothing is loaded from the network.
"""

import hashlib
import html
import json
import os
import posixpath
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from fetch_runtime import bring_runtime
from finish_pages import guarded, lighter, without_idle_parts
from make_notebook import make_notebook
from qmd.pictures import embedded
from qmd.source import load_yaml, read_post
from qmd.trees import NotebookError, node, pandoc, rewrite

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_site"
TEMPLATE = Path(__file__).resolve().parent / "page_template"
# In this order; all are deferred.
SCRIPTS = ("assets/page.js", "assets/plotly-cartesian.min.js", "assets/figures.js", "assets/overview.js")
MODULES = ("assets/live.js",)
SHEETS = ("assets/overview.css", "assets/live.css")
COPIED = (".js", ".css", ".svg", ".png", ".jpg", ".webp", ".ico", ".onnx", ".json")  # what of assets/ a page may use
# Of the styles Pygments has, these two keep a contrast of 4.5 on the page's grounds.
STYLES = {"quarto-light": "xcode", "quarto-dark": "zenburn"}
PART = "<!-- the next part -->"
CALLOUTS = ("Note", "Tip", "Warning", "Important", "Caution")


class PageError(Exception):
    """The page cannot be built."""


# ------------------------------------------------------------------------------------------------------- execution


def digest(text: str) -> str:
    """What an execution depends on: the notebook, the package with its weights, the pinned versions, Python."""
    seen = hashlib.sha256(text.encode())
    files = sorted(p for p in (ROOT / "cvae_support").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    for file in [*files, ROOT / "requirements.txt", ROOT / "requirements.lock"]:
        if file.is_file():
            seen.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    seen.update(sys.version.encode())
    return seen.hexdigest()


def executed(text: str, folder: Path) -> tuple[nbformat.NotebookNode, bool]:
    """The notebook with its outputs, and whether it had to be executed for that."""
    kept = SITE / ".executed" / f"{folder.name}.ipynb"
    mark = digest(text)
    if kept.is_file():
        notebook = nbformat.read(kept, as_version=4)
        if notebook.metadata.get("digest") == mark:
            return notebook, False
    notebook = nbformat.reads(text, as_version=4)
    manager = AsyncKernelManager(kernel_name="python3")
    # The kernel of this interpreter, whatever else is registered as python3.
    launch = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
    manager.kernel_spec.argv = launch
    client = NotebookClient(notebook, km=manager, timeout=None, resources={"metadata": {"path": str(folder)}})
    try:
        client.execute(env={**os.environ, "CVAE_SITE": "1"})
    except CellExecutionError as error:
        raise PageError(f"{folder.name}: a cell failed\n{error}") from error
    except DeadKernelError as error:
        raise PageError(f"{folder.name}: the notebook's process ended early; was there too little memory?") from error
    notebook.metadata["digest"] = mark
    kept.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, kept)
    return notebook, True


# ------------------------------------------------------------------------------------------------- text, code, tables


def highlighted(code: str, language: str = "python") -> str:
    """Code as HTML, coloured by classes."""
    try:
        lexer = get_lexer_by_name(language or "text", stripnl=False)
    except ClassNotFound:
        lexer = get_lexer_by_name("text", stripnl=False)
    coloured = highlight(code, lexer, HtmlFormatter(wrapcode=True)).strip()
    # Most marks are of names, brackets, operators and blanks, which keep about the colour of the text anyway.
    return re.sub(r'<span(?: class="(?:[npwo]|bp|n[dn]|s[ai])")?>([^<]*)</span>', r"\1", coloured)


def code_colours() -> str:
    """The style sheet for highlighted code in both themes. The ground is the page's own."""
    rules = []
    for theme, style in STYLES.items():
        for line in HtmlFormatter(style=style).get_style_defs(f".{theme} .highlight").splitlines():
            if line.startswith(f".{theme} .highlight .") and "border" not in line:
                rules.append(line)
    return "\n".join(rules)


def for_the_page(blocks: list[dict]) -> list[dict]:
    """Pandoc's blocks with callouts, captions, numbered formulas, code and tables as this page shows them."""

    def div(classes: list[str], content: list[dict]) -> dict:
        return node("Div", [["", classes, []], content])

    def bold_start(block: dict) -> str:
        """The words in bold that a paragraph starts with."""
        if block["t"] != "Para" or block["c"][0]["t"] != "Strong":
            return ""
        return " ".join(item["c"] for item in block["c"][0]["c"] if item["t"] == "Str")

    def change(item: dict) -> list[dict] | None:
        kind = item["t"]
        if kind == "CodeBlock":
            (_, classes, _), code = item["c"]
            return [node("RawBlock", ["html", highlighted(code, classes[0] if classes else "")])]
        if kind == "Table":
            return [div(["table-box"], [{"t": "Table", "c": rewrite(item["c"], change)}])]
        if kind == "BlockQuote" and item["c"]:
            name = bold_start(item["c"][0]).partition(" ")[0].rstrip(":")
            if name in CALLOUTS:
                return [div(["callout", f"callout-{name.lower()}"], rewrite(item["c"], change))]
        if re.match(r"(Figure|Table) .*\d\.$", bold_start(item)):
            return [div(["figure-caption"], [node("Para", rewrite(item["c"], change))])]
        if kind == "Math" and item["c"][0]["t"] == "DisplayMath":
            formula = item["c"][1]
            tag = re.search(r"\\tag\{(\w+)\}", formula)  # MathML has no such thing
            shown = node("Math", [item["c"][0], formula.replace(tag[0], "") if tag else formula])
            shown = node("Span", [["", ["display"], []], [shown]])
            if not tag:
                return [shown]
            number = node("Span", [["", ["number"], []], [node("Str", f"({tag[1]})")]])
            return [node("Span", [["", ["numbered"], []], [shown, number]])]
        return None

    return rewrite(blocks, change)


def to_html(texts: list[str]) -> tuple[dict[str, str], str]:
    """HTML for each Markdown text, and the table of contents of them all. One document, so that ids are unique."""
    parts = list(dict.fromkeys(texts))
    source = f"\n\n{PART}\n\n".join(parts)
    document = json.loads(pandoc(source, "--from=gfm+tex_math_dollars-tex_math_gfm", "--to=json")[0])
    document["blocks"] = for_the_page(document["blocks"])
    template = TEMPLATE / "contents.html"
    page, warnings = pandoc(
        json.dumps(document), "--from=json", "--to=html5", "--mathml", "--wrap=none",
        "--standalone", f"--template={template}", "--toc", "--toc-depth=3",
    )  # fmt: skip
    if unread := re.search(r"Could not convert TeX math(.*)", warnings, re.DOTALL):
        raise PageError(f"a formula cannot be turned into MathML: {unread[1].strip()}")
    # After log and its like TeX leaves a thin space unless a bracket follows; browsers leave none.
    applied = r"<mo>(?:&#8289;|&#x2061;|\u2061)</mo></mrow>(?!<mo[^>]*>[(\[{])"
    page = re.sub(applied, r'\g<0><mspace width="0.167em"></mspace>', page)
    contents, *rendered = lighter(page).split(PART)
    if len(rendered) != len(parts):
        raise PageError("Pandoc did not keep the parts of the text apart; is a comment or a tag left open?")
    return dict(zip(parts, (part.strip() for part in rendered), strict=True)), contents.strip()


class PageExporter(HTMLExporter):
    """nbconvert's exporter, with Markdown that Pandoc has rendered already."""

    def __init__(self, rendered: dict[str, str]):
        super().__init__(template_name=TEMPLATE.name, extra_template_basedirs=[str(TEMPLATE.parent)])
        self.rendered = rendered
        self.register_filter("highlighted", highlighted)

    @jinja2.pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return self.rendered[source]


# ------------------------------------------------------------------------------------------------------------- pages


def site_facts() -> dict[str, Any]:
    """What all pages share."""
    settings = load_yaml(ROOT / "_quarto.yml")
    website = settings.get("website") or {}
    repository = website.get("repo-url") or ""
    return {
        "css": (TEMPLATE / "page.css").read_text(encoding="utf-8") + code_colours(),
        "javascript": (TEMPLATE / "page.js").read_text(encoding="utf-8"),
        "site": website.get("title", "Tutorials"),
        "description": website.get("description", ""),
        "lang": settings.get("lang", "en"),
        "repository": repository,
        "footer": (website.get("page-footer") or {}).get("center", ""),
    }


def colab_address(repository: str, notebook: Path) -> str:
    """Where Colab opens the notebook; empty when the project is not on GitHub."""
    match = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)(\.git)?/?", repository)
    return f"https://colab.research.google.com/github/{match[1]}/blob/main/{notebook.as_posix()}" if match else ""


def build_post(qmd: Path) -> dict[str, str]:
    """Write the page of a post, and its notebook beside it; returns what the landing page says about it."""
    start = time.perf_counter()
    notebook, ran = executed(make_notebook(qmd, raw_html=True), qmd.parent)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "text/markdown" in output.get("data", {}):
            texts.append(output.data["text/markdown"])
            output.data = {"text/markdown": output.data["text/markdown"]}
    title_cell = notebook.cells[0].source
    rendered, contents = to_html([text for text in texts if text != title_cell])
    rendered[title_cell] = ""

    notes = notebook.metadata.get("cvae", {})
    place = qmd.relative_to(ROOT).with_suffix(".ipynb")
    facts = site_facts()
    page = facts | {
        "root": "../" * (len(place.parts) - 1),
        "title": notes["title"],
        "subtitle": notes.get("subtitle", ""),
        "description": notes.get("description", ""),
        "lang": notes.get("lang", facts["lang"]),
        "by_line": " · ".join(filter(None, (notes.get("author"), notes.get("date")))),
        "toc": contents,
        "scripts": SCRIPTS,
        "modules": MODULES,
        "sheets": SHEETS,
        "notebook": place.name,
        "colab": colab_address(facts["repository"], place),
    }
    body, _ = PageExporter(rendered).from_notebook_node(notebook, resources={"page": page})
    # A notebook holds its pictures itself, diagrams as bitmaps; a page has them beside it, as they were drawn.
    for picture in sorted((ROOT / "assets").rglob("*.svg")):
        body = body.replace(embedded(picture), page["root"] + picture.relative_to(ROOT).as_posix())
    body = without_idle_parts(body)
    target = SITE / place.with_suffix(".html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(guarded(re.sub(r"\n{3,}", "\n\n", body)), encoding="utf-8", newline="\n")
    (target.parent / place.name).write_text(make_notebook(qmd), encoding="utf-8")
    seconds = time.perf_counter() - start
    print(f"{target.relative_to(ROOT)}: {'executed and ' if ran else ''}laid out in {seconds:.0f} s")
    address = html.escape(place.with_suffix(".html").as_posix())
    image = str(read_post(qmd).meta.get("image", ""))
    return {
        "address": address, "date": notes.get("date", ""),
        "image": image and posixpath.normpath(posixpath.join(place.parent.as_posix(), image)),
    } | {key: page[key] for key in ("title", "subtitle", "by_line")}  # fmt: skip


def build_landing(posts: list[dict[str, str]]) -> None:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATE))
    text = environment.get_template("landing.html.j2").render(page=site_facts() | {"posts": posts})
    (SITE / "index.html").write_text(guarded(text), encoding="utf-8")


def copy_assets() -> None:
    bitmaps = {picture.with_suffix(".png") for picture in (ROOT / "assets").rglob("*.svg")}  # for notebooks only
    for file in sorted((ROOT / "assets").rglob("*")):
        if file.is_file() and file.suffix in COPIED and file not in bitmaps:
            target = SITE / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def main() -> int:
    sources = sorted(p for p in (ROOT / "posts").glob("*/*.qmd") if not p.name.startswith("_"))
    if not sources:
        print("no posts/*/*.qmd found", file=sys.stderr)
        return 1
    SITE.mkdir(exist_ok=True)
    try:
        copy_assets()
        bring_runtime(SITE)
        build_landing(sorted(map(build_post, sources), key=lambda post: post["date"]))
    except (PageError, NotebookError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        "This page was made without Quarto: it lacks the search box, the citations that open on hover and the view of "
        "the page's source. Quarto: https://quarto.org/docs/get-started/"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
