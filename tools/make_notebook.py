"""Make the notebook of a post from its Quarto source, without Quarto.

    python tools/make_notebook.py [--check] [QMD ...]     # default: every posts/*/*.qmd

Pandoc reads the prose and writes it again as plain Markdown; this file only decides what becomes of each thing
Pandoc found. The steps, in the order of the functions below:

 1. read      includes, variables and front matter are resolved; each code cell is set aside for a placeholder
 2. number    site-only parts go; figures, tables, equations and headings get their numbers; divs are flattened
 3. refer     @fig-x becomes "Figure 3"; Pandoc's citeproc does the citations and the list of references
 4. clean     footnotes, spans, links and images become what a notebook can show on its own
 5. split     headings and code start new cells; text with computed numbers becomes a cell that computes them

The result depends on the sources alone, so that `--check` can tell a notebook that is out of date.
"""

import argparse
import ast
import base64
import copy
import hashlib
import html
import json
import mimetypes
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pypandoc
import tomllib
import yaml
from markdown_it import MarkdownIt
from PIL import Image

REPOSITORY_ROOT = Path(__file__).resolve().parents[1]
MARKDOWN = "gfm+tex_math_dollars-tex_math_gfm-footnotes"  # what both JupyterLab and Colab read
KINDS = {"fig": "Figure", "tbl": "Table", "sec": "Section", "eq": "Equation"}
# The prefixes Quarto keeps for cross-references. A citation must not start with one of them.
RESERVED = {*KINDS, *"lst thm lem cor prp cnj def exm exr sol rem alg tip nte wrn imp cau".split()}
CALLOUTS = ("note", "tip", "warning", "important", "caution")
FOLD = "cvae-fold"  # the class of what a reader has to ask for
COMPUTED_TITLE = "Text with computed numbers"
IMPORT_NAMES = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL"}  # where - to _ is not enough
SHORTCODE = re.compile(r"\{\{<\s*(.*?)\s*>\}\}")
# What must not be left in a notebook's text: name -> pattern.
SITE_SYNTAX = {
    "shortcode": r"\{\{<",
    "div": r"^\s*(> ?)*:::",
    "citation": r"\[-?@",
    "cross-reference": r"@(fig|tbl|sec|eq)-",
    "attributes": r"\{[#.][A-Za-z]",
    "raw block": r"\{=[a-z]+\}",
    "computed value": r"\{python\}",
}
Node = dict[str, Any]


class NotebookError(Exception):
    """The source holds something that cannot be brought into a notebook."""


@dataclass
class CodeCell:
    """A code cell of the source: its code, its `#|` options, and where it stands."""

    code: str
    options: dict[str, Any]
    place: str


@dataclass
class Post:
    """One source with all that its conversion has to know."""

    path: Path
    meta: dict[str, Any]  # _quarto.yml, _metadata.yml and the front matter, the nearest wins
    variables: dict[str, Any]
    lines: list[str] = field(default_factory=list)  # the body, includes inlined
    places: list[str] = field(default_factory=list)  # "file.qmd:12" of each line
    cells: list[CodeCell] = field(default_factory=list)
    targets: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> (kind, number)
    api: list[int] = field(default_factory=list)  # the version of Pandoc's JSON

    def where(self, text: str) -> str:
        """file:line of the first line with this text, for messages."""
        return next((p for line, p in zip(self.lines, self.places, strict=True) if text in line), self.path.name)


# --------------------------------------------------------------------------------------------- Pandoc, and its trees


def pandoc(text: str, *options: str) -> tuple[str, str]:
    """Pandoc's output and its warnings."""
    command = [pypandoc.get_pandoc_path(), *options]
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise NotebookError(f"Pandoc could not go on: {done.stderr.strip()}")
    return done.stdout, done.stderr


def node(kind: str, content: Any = None) -> Node:
    return {"t": kind} if content is None else {"t": kind, "c": content}


def words(text: str) -> list[Node]:
    """Plain text as inlines."""
    return [part for word in text.split() for part in (node("Space"), node("Str", word))][1:]


def strong(text: str) -> Node:
    return node("Strong", words(text))


def rewrite(tree: Any, change: Callable[[Node], list[Node] | None]) -> Any:
    """The tree with every node for which `change` gives a list replaced by that list; None looks inside the node."""
    if isinstance(tree, dict):
        return {key: rewrite(value, change) for key, value in tree.items()}
    if not isinstance(tree, list):
        return tree
    result: list[Any] = []
    for item in tree:
        changed = change(item) if isinstance(item, dict) and "t" in item else None
        result.extend([rewrite(item, change)] if changed is None else changed)
    return result


def find(tree: Any, kind: str) -> list[Node]:
    """All nodes of a kind, in document order."""
    found: list[Node] = []

    def note(item: Node) -> None:
        if item["t"] == kind:
            found.append(item)

    rewrite(tree if isinstance(tree, list) else [tree], note)
    return found


def plain_text(inlines: list[Node]) -> str:
    """The words of inlines, without markup."""
    if not inlines:
        return ""
    document = {"pandoc-api-version": [1, 23, 1], "meta": {}, "blocks": [node("Plain", inlines)]}
    return pandoc(json.dumps(document), "--from=json", "--to=plain", "--wrap=none")[0].strip()


def attributes(item: Node) -> tuple[str, list[str], dict[str, str]]:
    """id, classes and key-value pairs of a node that has them."""
    attr = item["c"][1] if item["t"] == "Header" else item["c"][0]
    return attr[0], attr[1], dict(attr[2])


def kind_of(identifier: str) -> str:
    """fig for fig-grid, and so on; empty when it is not the id of something numbered."""
    prefix = identifier.partition("-")[0]
    return prefix if prefix in KINDS and "-" in identifier else ""


# ------------------------------------------------------------------------------------------------------ 1. the source


def load_yaml(path: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}
    except yaml.YAMLError as error:
        raise NotebookError(f"{path.name} is not valid YAML: {error}") from error


def project_root(qmd: Path) -> Path:
    """The nearest folder above with a _quarto.yml."""
    for folder in qmd.resolve().parents:
        if (folder / "_quarto.yml").is_file():
            return folder
    raise NotebookError(f"{qmd.name}: no _quarto.yml in any folder above it")


def merged_meta(qmd: Path, front: dict[str, Any], root: Path) -> dict[str, Any]:
    """The metadata that holds for a document. Files named in it become absolute: each is relative to its own YAML."""
    folders = [f for f in reversed(qmd.resolve().parents) if f == root or root in f.parents]
    layers = [(root, load_yaml(root / "_quarto.yml"))]
    layers += [(folder, load_yaml(folder / "_metadata.yml")) for folder in folders]
    layers += [(qmd.resolve().parent, front)]
    merged: dict[str, Any] = {}
    for folder, layer in layers:
        layer = dict(layer)
        for key in ("bibliography", "csl"):
            if key in layer:
                names = layer[key] if isinstance(layer[key], list) else [layer[key]]
                layer[key] = [str((root / n.lstrip("/")) if n.startswith("/") else folder / n) for n in names]
        merged |= layer
    return merged


def fences(text: str) -> list[Any]:
    """The fenced code blocks of a text. Lines of ::: are text to this parser, which finds what stands between them."""
    # Without HTML blocks and indented code, a cell inside <div> or after a deep indent is still seen.
    return [t for t in MarkdownIt("commonmark").disable(["html_block", "code"]).parse(text) if t.type == "fence"]


def split_front_matter(text: str, name: str) -> tuple[dict[str, Any], str, int]:
    """Front matter, body, and the number of lines before the body."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return {}, text, 0
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() in ("---", "...")), None)
    if end is None:
        raise NotebookError(f"{name}: the front matter has no end")
    try:
        front = yaml.safe_load("\n".join(lines[1:end])) or {}
    except yaml.YAMLError as error:
        raise NotebookError(f"{name}: the front matter is not valid YAML: {error}") from error
    return front, "\n".join(lines[end + 1 :]), end + 1


def read_post(qmd: Path) -> Post:
    """The source with its includes inlined, its variables filled in and its code cells found."""
    root = project_root(qmd)
    front, body, skipped = split_front_matter(qmd.read_text(encoding="utf-8"), qmd.name)
    post = Post(qmd, merged_meta(qmd, front, root), load_yaml(root / "_variables.yml"))
    post.meta = filled_in(post, post.meta)
    inline(post, body, qmd, skipped, root)
    return post


def inline(post: Post, text: str, file: Path, skipped: int, root: Path, depth: int = 0) -> None:
    """Add a file's lines to the post, with its shortcodes resolved."""
    if depth > 10:
        raise NotebookError(f"{file.name}: includes go in a circle")
    literal = {number for fence in fences(text) for number in range(*fence.map)}
    for number, line in enumerate(text.split("\n")):
        place = f"{file.name}:{number + skipped + 1}"
        if number in literal:
            post.lines.append(line)
            post.places.append(place)
            continue
        shortcode = SHORTCODE.fullmatch(line.strip())
        if shortcode and shortcode[1].split()[0] == "include":
            name = shortcode[1].split(maxsplit=1)[1].strip("\"'")
            included = root / name.lstrip("/") if name.startswith("/") else file.parent / name
            if not included.is_file():
                raise NotebookError(f"{place}: the file to include, {name}, does not exist")
            inline(post, included.read_text(encoding="utf-8").rstrip("\n"), included, 0, root, depth + 1)
            continue
        post.lines.append(SHORTCODE.sub(partial(value_of, post, place=place), line))
        post.places.append(place)


def filled_in(post: Post, value: Any) -> Any:
    """Metadata with the shortcodes in its texts replaced by what they stand for."""
    if isinstance(value, dict):
        return {key: filled_in(post, item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled_in(post, item) for item in value]
    return SHORTCODE.sub(lambda m: value_of(post, m, "metadata"), value) if isinstance(value, str) else value


def value_of(post: Post, shortcode: re.Match, place: str) -> str:
    """The text for {{< var a.b >}} and {{< meta a.b >}}. Others stay: they may stand in a part for the site only."""
    name, _, argument = shortcode[1].partition(" ")
    if name not in ("var", "meta"):
        return shortcode[0]
    value: Any = post.variables if name == "var" else post.meta
    for key in argument.strip().split("."):
        if not isinstance(value, dict) or key not in value:
            raise NotebookError(f"{place}: nothing is known as {{{{< {shortcode[1]} >}}}}")
        value = value[key]
    return str(value)


def set_cells_aside(post: Post) -> str:
    """The body with each code cell replaced by an empty block of class cvae-cell, wrapped in a div if captioned."""
    lines: list[str] = list(post.lines)
    defaults = post.meta.get("execute") or {}
    for token in reversed(fences("\n".join(post.lines))):
        if not token.info.strip().startswith("{python"):
            continue
        start, end = token.map
        place = post.places[start]
        if token.level:
            raise NotebookError(f"{place}: a code cell must not stand in a list or a quotation")
        cell = CodeCell(*parse_cell(token.content, place), place)
        cell.options = {k: v for k, v in defaults.items() if k in ("echo", "eval", "include", "output")} | cell.options
        post.cells.insert(0, cell)
        # Numbered from the end, as they are found in this order: number -1 is the last cell.
        block = ["", f'``` {{.cvae-cell n="{-len(post.cells)}"}}', "```", ""]
        label = str(cell.options.get("label", ""))
        caption = cell.options.get("tbl-cap" if label.startswith("tbl-") else "fig-cap")
        if isinstance(caption, list):
            raise NotebookError(f"{place}: one caption a cell, please; sub-figures are not supported")
        if kind_of(label) in ("fig", "tbl"):
            block = ["", f"::: {{#{label}}}", *block, *(caption or "").split("\n"), "", ":::", ""]
        elif caption:
            block += ["::: {.cvae-caption}", *caption.split("\n"), ":::", ""]
        lines[start:end] = block
    return "\n".join(lines)


def parse_cell(content: str, place: str) -> tuple[str, dict[str, Any]]:
    """Code and options of a cell."""
    lines = content.rstrip("\n").split("\n")
    count = next((i for i, line in enumerate(lines) if not line.startswith("#|")), len(lines))
    if any(SHORTCODE.search(line) for line in lines):
        raise NotebookError(f"{place}: shortcodes in code cells are not supported")
    try:
        options = yaml.safe_load("\n".join(line[2:].removeprefix(" ") for line in lines[:count])) or {}
    except yaml.YAMLError as error:
        raise NotebookError(f"{place}: the options of the cell are not valid YAML: {error}") from error
    if not isinstance(options, dict):
        raise NotebookError(f"{place}: the options of the cell must read `#| key: value`")
    return "\n".join(lines[count:]).strip("\n"), options


def parse(post: Post) -> list[Node]:
    """The blocks of the whole document."""
    body = set_cells_aside(post)
    meta = {"nocite": post.meta["nocite"]} if post.meta.get("nocite") else {}
    text = f"---\n{yaml.safe_dump(meta)}---\n\n{body}\n"
    tree, warnings = pandoc(text, "--from=markdown-raw_tex", "--to=json")
    if "unclosed" in warnings:
        raise NotebookError(f"{post.path.name}: a div (:::) is not closed")
    document = json.loads(tree)
    post.api = document["pandoc-api-version"]
    post.meta["nocite"] = document["meta"].get("nocite")
    seen = [int(attributes(block)[2]["n"]) for block in find(document["blocks"], "CodeBlock") if is_cell(block)]
    for n in range(-len(post.cells), 0):
        if n not in seen:
            raise NotebookError(f"{post.cells[n].place}: this code cell is inside a comment or other code")
    return document["blocks"]


def is_cell(block: Node) -> bool:
    return block["t"] == "CodeBlock" and "cvae-cell" in attributes(block)[1]


# ---------------------------------------------------------------------------------- 2. what stays, and how it's called


def formats_match(condition: str) -> bool:
    """Whether a Quarto format name means the notebook."""
    return condition in ("ipynb", "jupyter")


def for_the_site_only(item: Node) -> bool:
    """A div or span that Quarto would not put in a notebook either."""
    _, classes, pairs = attributes(item)
    conditions = [formats_match(pairs[k]) for k in ("when-format",) if k in pairs]
    conditions += [not formats_match(pairs[k]) for k in ("unless-format",) if k in pairs]
    if "content-visible" in classes:
        return not all(conditions)
    return "content-hidden" in classes and all(conditions)


def for_the_notebook_only(item: Node) -> bool:
    """A div that Quarto would show in a notebook and nowhere else."""
    if item["t"] != "Div":
        return False
    _, classes, pairs = attributes(item)
    return "content-visible" in classes and formats_match(pairs.get("when-format", ""))


def notebook_part(post: Post, tree: Any, raw: bool = False) -> Any:
    """The tree without what is for the site only. Raw HTML blocks stay where they're marked as for notebooks."""

    def change(item: Node) -> list[Node] | None:
        if item["t"] in ("Div", "Span"):
            if for_the_site_only(item):
                return []
            marked = "content-visible" in attributes(item)[1]
            attr, content = item["c"]
            return [node(item["t"], [attr, notebook_part(post, content, raw or marked)])]
        if item["t"] == "Image" and "dark-content" in attributes(item)[1]:
            return []  # the second of a light and dark pair
        if item["t"] in ("RawBlock", "RawInline"):
            language, text = item["c"]
            if language != "html" or text.startswith("<!--"):
                return []
            if item["t"] == "RawBlock" and not raw:
                return []
            if re.match(r"</?(script|style|link|iframe)\b", text) and not raw:
                return []
        return None

    return rewrite(tree, change)


class Numberer:
    """Gives numbers, writes them into captions, headings and equations, and flattens divs on the way."""

    def __init__(self, post: Post, blocks: list[Node]):
        self.post = post
        self.counts: Counter[str] = Counter()
        self.section: list[int] = []
        self.top = min((h["c"][0] for h in find(blocks, "Header")), default=1)
        formats = post.meta.get("format") or {}
        html_options = formats.get("html") if isinstance(formats, dict) else None
        self.sections_numbered = post.meta.get("number-sections", (html_options or {}).get("number-sections", True))

    def name(self, identifier: str, number: str = "") -> str:
        """The next number of the identifier's kind; remembers it for references."""
        kind = kind_of(identifier)
        if not number:
            self.counts[kind] += 1
            number = str(self.counts[kind])
        if identifier in self.post.targets:
            place = self.post.where(identifier)
            raise NotebookError(f"{place}: two things are called {identifier}")
        self.post.targets[identifier] = (KINDS[kind], number)
        return f"{KINDS[kind]} {number}"

    def blocks(self, blocks: list[Node]) -> list[Node]:
        return [result for block in blocks for result in self.block(block)]

    def block(self, block: Node) -> list[Node]:
        kind = block["t"]
        if kind == "Header":
            return [self.heading(block)]
        if kind == "Figure":
            return self.figure(block)
        if kind in ("Para", "Plain") and [i["t"] for i in block["c"]] == ["Image"] and attributes(block["c"][0])[0]:
            return self.image_figure(block["c"][0], attributes(block["c"][0])[0], [])
        if kind == "Table":
            return self.table(block)
        if kind == "Div":
            return self.div(block)
        return [self.equations(block)]

    def heading(self, block: Node) -> Node:
        level, (identifier, classes, _), inlines = block["c"]
        depth = level - self.top + 1
        title = self.equations(inlines)
        if self.sections_numbered and "unnumbered" not in classes:
            self.section = (self.section + [0] * depth)[:depth]
            self.section[-1] += 1
            number = ".".join(map(str, self.section))
            if kind_of(identifier) == "sec":
                self.name(identifier, number)
            title = [node("Str", number), node("Space"), *title]
        elif kind_of(identifier) == "sec":
            self.post.targets[identifier] = ("Section", f"“{plain_text(title)}”")
        return node("Header", [depth + 1, ["", [], []], title])

    def caption(self, name: str, blocks: list[Node]) -> list[Node]:
        """Paragraphs of a caption, the first starting with the bold name."""
        if not blocks:
            return [node("Para", [strong(f"{name}.")])] if name else []
        first, rest = blocks[0], blocks[1:]
        start = [strong(f"{name}."), node("Space")] if name else []
        return [node("Para", [*start, *self.equations(first["c"])]), *self.blocks(rest)]

    def figure(self, block: Node) -> list[Node]:
        (identifier, _, _), caption, content = block["c"]
        images = find(content, "Image")
        if len(images) != 1:
            return [*self.blocks(content), *self.caption("", caption[1])]
        return self.image_figure(images[0], identifier, caption[1])

    def image_figure(self, image: Node, identifier: str, caption: list[Node]) -> list[Node]:
        name = self.name(identifier) if kind_of(identifier) == "fig" else ""
        return [node("RawBlock", ["html", image_tag(self.post, image)]), *self.caption(name, caption)]

    def table(self, block: Node, name: str = "") -> list[Node]:
        attr, caption, columns, head, bodies, foot = self.equations(block["c"])
        name = self.name(attr[0]) if kind_of(attr[0]) == "tbl" else name
        columns = [[align, node("ColWidthDefault")] for align, _ in columns]
        plain = node("Table", [["", [], []], [None, []], columns, head, bodies, foot])
        return [*self.caption(name, caption[1]), plain]

    def div(self, block: Node) -> list[Node]:
        identifier, classes, pairs = attributes(block)
        content = block["c"][1]
        for kind in CALLOUTS:
            if f"callout-{kind}" in classes:
                return self.callout(kind, pairs, content)
        if identifier == "refs":
            return [node("Div", [["refs", [], []], []])]
        if "cvae-caption" in classes:
            return [node("Div", [["", ["cvae-caption"], []], self.caption("", content)])]
        if kind_of(identifier) in ("fig", "tbl"):
            return self.float(identifier, content)
        if "panel-tabset" in classes:
            content = demote(content)
        return self.blocks(content)

    def float(self, identifier: str, content: list[Node]) -> list[Node]:
        """A figure or table div: its last paragraph is the caption. A table's caption comes first, as on the page."""
        if any(attributes(d)[0].startswith(("fig-", "tbl-")) for k in ("Div", "Figure") for d in find(content, k)):
            place = self.post.where(identifier)
            raise NotebookError(f"{place}: {identifier} holds another figure or table; sub-figures are not supported")
        name = self.name(identifier)
        caption: list[Node] = []
        if content and content[-1]["t"] == "Para" and not find(content[-1], "Image"):
            *content, last = content
            caption = [last]
        elif tables := find(content, "Table"):
            caption, tables[0]["c"][1] = tables[0]["c"][1][1], [None, []]
        body = self.blocks(content)
        words_of = self.caption(name, caption)
        if any(is_cell(block) for block in body):  # beside a code cell, the caption gets a cell of its own
            words_of = [node("Div", [["", ["cvae-caption"], []], words_of])]
        return [*words_of, *body] if kind_of(identifier) == "tbl" else [*body, *words_of]

    def callout(self, kind: str, pairs: dict[str, str], content: list[Node]) -> list[Node]:
        """A quotation that starts with a bold title. Code cells cannot be quoted: they interrupt it.

        What is collapsed on the page is so here: text in a <details> (whose title is plain text), code in hidden cells.
        """
        title: list[Node] = words(pairs.get("title", ""))
        if re.search(r"[$`*_@\\]", pairs.get("title", "")):
            markup = json.loads(pandoc(pairs["title"], "--from=markdown-raw_tex", "--to=json")[0])
            title = markup["blocks"][0]["c"]
        elif content and content[0]["t"] == "Header" and not title:
            title, content = content[0]["c"][2], content[1:]
        start = words(kind.capitalize()) if not title else [*words(f"{kind.capitalize()}:"), node("Space"), *title]
        pieces: list[Node] = [node("BlockQuote", [node("Para", [node("Strong", start)])])]
        for block in self.blocks(demote(content)):
            if is_cell(block) or block["t"] == "Div":
                pieces.append(block)
            elif pieces[-1]["t"] == "BlockQuote":
                pieces[-1]["c"].append(block)
            else:
                pieces.append(node("BlockQuote", [block]))
        if pairs.get("collapse") == "true" and not find(start, "Math"):
            pieces[0] = node("Div", [["", [FOLD], [["title", plain_text(title or start)]]], pieces[0]["c"][1:]])
            for cell in filter(is_cell, pieces):
                attributes(cell)[1].append(FOLD)
        # In a quotation each line starts with >, which notebooks would take for a part of the formula.
        for math in find(pieces, "Math"):
            lines = [re.sub(r"(?<!\\)%.*", "", line).strip() for line in math["c"][1].split("\n")]
            math["c"][1] = " ".join(filter(None, lines))
        return pieces

    def equations(self, tree: Any) -> Any:
        """The tree with {#eq-x} behind a formula turned into a number in it, and divs inside lists flattened."""
        if isinstance(tree, dict):
            return {key: self.equations(value) for key, value in tree.items()}
        if not isinstance(tree, list):
            return tree
        result: list[Any] = []
        for item in tree:
            kind = item.get("t") if isinstance(item, dict) else None
            if kind in ("Div", "Figure"):
                result.extend(self.block(item))
                continue
            label = re.match(r"\{#(eq-[^}\s]+)\}", item["c"]) if kind == "Str" else None
            if label:
                while result and result[-1]["t"] in ("Space", "SoftBreak"):
                    result.pop()
                if not result or result[-1]["t"] != "Math":
                    raise NotebookError(f"{self.post.where(label[0])}: {label[0]} does not follow a formula")
                number = self.name(label[1]).split()[1]
                result[-1] = copy.deepcopy(result[-1])
                result[-1]["c"][1] = f"{result[-1]['c'][1].rstrip()} \\tag{{{number}}}\n"
                if rest := item["c"][label.end() :]:
                    result.append(node("Str", rest))
                continue
            result.append(self.equations(item))
        return result


def demote(blocks: list[Node]) -> list[Node]:
    """Headings in callouts and tabs as bold paragraphs: they are no sections."""
    return rewrite(blocks, lambda b: [node("Para", [node("Strong", b["c"][2])])] if b["t"] == "Header" else None)


def image_tag(post: Post, image: Node) -> str:
    """An <img> that holds the file itself, or the address of one on the web."""
    _, _, pairs = attributes(image)
    source = image["c"][2][0]
    alt = pairs.get("fig-alt") or pairs.get("alt") or plain_text(image["c"][1])
    if not re.match(r"https?:|data:", source):
        path = post.path.parent / source
        if source.startswith("/"):
            path = project_root(post.path) / source.lstrip("/")
        if not path.is_file():
            raise NotebookError(f"{post.where(source)}: the image {source} does not exist")
        if not (mimetypes.guess_type(path.name)[0] or "").startswith("image/"):
            raise NotebookError(f"{post.where(source)}: {source} is no image this can embed")
        source = embedded(path)
    width = pairs.get("width", "640px")
    style = f"max-width:{width if re.search(r'[a-z%]$', width) else width + 'px'};width:100%"
    return f'<img src="{source}" alt="{html.escape(alt)}" style="{style}">'


def bitmap_of(path: Path) -> Path:
    """The bitmap that tools/bitmaps.py has made of this very SVG, else the file itself.

    Colab and GitHub show no SVG that lies in a notebook; but somebody who draws one need not have what makes bitmaps.
    """
    bitmap = path.with_suffix(".png")
    if path.suffix == ".svg" and bitmap.is_file():
        with Image.open(bitmap) as picture:
            if picture.info.get("made-of") == hashlib.sha256(path.read_bytes()).hexdigest():
                return bitmap
    return path


def embedded(path: Path) -> str:
    """The address of a picture that holds the picture itself, as a notebook shows it."""
    path = bitmap_of(path)
    return f"data:{mimetypes.guess_type(path.name)[0]};base64,{base64.b64encode(path.read_bytes()).decode()}"


# ------------------------------------------------------------------------------------- 3. references and citations


def resolve_references(post: Post, blocks: list[Node]) -> list[Node]:
    """The blocks with @fig-x and its like as text."""

    def change(item: Node) -> list[Node] | None:
        if item["t"] != "Cite":
            return None
        citations = item["c"][0]
        ids = [c["citationId"] for c in citations]
        if not any(i.partition("-")[0].lower() in RESERVED and "-" in i for i in ids):
            return None
        inlines: list[Node] = []
        for citation in citations:
            identifier = citation["citationId"]
            known = post.targets.get(identifier[0].lower() + identifier[1:])
            if known is None:
                raise NotebookError(f"{post.where(f'@{identifier}')}: @{identifier} refers to nothing in this document")
            kind, number = known
            prefix = citation["citationPrefix"] or words(kind)
            if citation["citationMode"]["t"] == "SuppressAuthor" or (number.startswith("“") and kind == "Section"):
                prefix = []
            if inlines:
                inlines += [node("Str", ","), node("Space")]
            inlines += [*prefix, *([node("Space")] if prefix else []), *words(number), *citation["citationSuffix"]]
        return inlines

    return rewrite(blocks, change)


def cite(post: Post, blocks: list[Node]) -> list[Node]:
    """The blocks with citations and references written out by citeproc."""
    nocite = post.meta.get("nocite")
    citations = find(blocks, "Cite")
    if not citations and not nocite:
        return blocks
    files = post.meta.get("bibliography")
    if not files:
        key = citations[0]["c"][0][0]["citationId"] if citations else "nocite"
        raise NotebookError(f"{post.where(f'@{key}')}: @{key} is cited, but no bibliography is named")
    for file in [*files, *post.meta.get("csl", [])]:
        if not Path(file).is_file():
            raise NotebookError(f"{post.path.name}: {Path(file).name}, named in the metadata, does not exist")
    options = [f"--bibliography={file}" for file in files] + [f"--csl={file}" for file in post.meta.get("csl", [])]
    document = {"pandoc-api-version": post.api, "meta": {"nocite": nocite} if nocite else {}, "blocks": blocks}
    text, warnings = pandoc(json.dumps(document), "--from=json", "--to=json", "--citeproc", *options)
    if missing := re.findall(r"citation (\S+) not found", warnings):
        raise NotebookError(f"{post.where(f'@{missing[0]}')}: @{missing[0]} is not in the bibliography")
    blocks = json.loads(text)["blocks"]
    return rewrite(blocks, lambda item: item["c"][1] if item["t"] == "Cite" else None)


def references(blocks: list[Node]) -> list[Node]:
    """The blocks with the list of references as paragraphs under a heading."""
    result: list[Node] = []
    for block in blocks:
        if block["t"] != "Div" or attributes(block)[0] != "refs":
            result.append(block)
            continue
        entries = [inner for entry in block["c"][1] for inner in entry["c"][1]]
        if entries and not (result and result[-1]["t"] == "Header"):
            result.append(node("Header", [2, ["", [], []], words("References")]))
        result.extend(entries)
    return result


# ------------------------------------------------------------------------------------------------- 4. plain Markdown


def clean(post: Post, blocks: list[Node]) -> list[Node]:
    """The blocks with nothing in them that a notebook could not show on its own."""
    no_attributes = ["", [], []]

    def change(item: Node) -> list[Node] | None:
        kind = item["t"]
        if kind in ("Span", "SmallCaps", "Underline"):
            content = item["c"][1] if kind == "Span" else item["c"]
            return rewrite(content, change)
        if kind == "Note":
            paragraphs = [b["c"] for b in item["c"] if b["t"] in ("Para", "Plain")]
            joined = [i for p in paragraphs for i in (node("Space"), *p)][1:]
            return [node("Space"), node("Str", "("), *rewrite(joined, change), node("Str", ")")]
        if kind == "Link":
            _, inlines, (target, title) = item["c"]
            inlines = rewrite(inlines, change)
            if not re.match(r"[a-z][a-z+.-]*:", target):
                return inlines  # to another page or place of the site, which a notebook has not
            return [node("Link", [no_attributes, inlines, [target, title]])]
        if kind == "Image":
            if re.match(r"https?:", item["c"][2][0]):
                return [node("Image", [no_attributes, item["c"][1], [item["c"][2][0], ""]])]
            return [node("RawInline", ["html", image_tag(post, item)])]
        if kind == "Code":
            return [node("Code", [no_attributes, item["c"][1]])]
        if kind == "CodeBlock" and not is_cell(item):
            return [node("CodeBlock", [["", attributes(item)[1][:1], []], item["c"][1]])]
        if kind == "Table":
            return [{"t": "Table", "c": without_pipes(rewrite(item["c"], change))}]
        return None

    return rewrite(blocks, change)


def without_pipes(tree: Any) -> Any:
    """The inside of a table with no | in code and formulas: there, GitHub's tables would take it for a border."""

    def change(item: Node) -> list[Node] | None:
        if item["t"] == "Code" and not item["c"][1].startswith("{python} "):
            return [node("Code", [item["c"][0], item["c"][1].replace("|", "\\|")])]
        if item["t"] == "Math":
            text = item["c"][1].replace("\\|", "\\Vert ").replace("|", "\\vert ")
            return [node("Math", [item["c"][0], text])]
        return None

    return rewrite(tree, change)


def write_markdown(post: Post, blocks: list[Node]) -> str:
    """The Markdown of blocks, checked to be free of site syntax."""

    def unfolded(item: Node) -> list[Node] | None:
        if item["t"] != "Div" or FOLD not in attributes(item)[1]:
            return None
        summary = f"<details>\n<summary>{html.escape(attributes(item)[2]['title'])}</summary>"
        return [node("RawBlock", ["html", summary]), *item["c"][1], node("RawBlock", ["html", "</details>"])]

    def written(blocks: list[Node]) -> str:
        blocks = rewrite(blocks, unfolded)
        document = {"pandoc-api-version": post.api, "meta": {}, "blocks": blocks}
        return pandoc(json.dumps(document), "--from=json", f"--to={MARKDOWN}", "--wrap=none")[0].strip()

    # What stands in code and formulas is meant literally.
    literal = ("Code", "CodeBlock", "Math")
    check_clean(post, written(rewrite(blocks, lambda item: [] if item["t"] in literal else None)))
    return written(blocks)


def site_syntax(markdown: str) -> list[tuple[str, str]]:
    """What of the site's syntax is left in a text: (name, the line it's in)."""
    found = []
    for name, pattern in SITE_SYNTAX.items():
        for match in re.finditer(pattern, markdown, re.MULTILINE):
            line = markdown[markdown.rfind("\n", 0, match.start()) + 1 :].split("\n")[0]
            found.append((name, line[:120]))
    return found


def check_clean(post: Post, markdown: str) -> None:
    if left := re.search(r"\\?\{\\?\{\\?<\s*(\S+)", markdown):
        raise NotebookError(f"{post.where('{{< ' + left[1])}: the shortcode {left[1]} has no meaning in a notebook")
    for name, line in site_syntax(markdown):
        raise NotebookError(f"{post.path.name}: could not resolve a {name} in: {line}")


# ----------------------------------------------------------------------------------------------------- 5. the cells


def computed_values(tree: Any) -> bool:
    """Whether anything in the tree is computed inline."""
    if any(item["c"][1].startswith("{python} ") for item in find(tree, "Code")):
        return True
    return any("`{python} " in item["c"][1] for item in find(tree, "Math"))


def as_string(expression: str, place: str) -> str:
    """An expression for the text of a computed value. What is a string already, and Markdown("..."), need no str()."""
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise NotebookError(f"{place}: {{python}} {expression} is not an expression: {error.msg}") from error
    if isinstance(tree, ast.JoinedStr) or (isinstance(tree, ast.Constant) and isinstance(tree.value, str)):
        return expression
    called = tree.func.id if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) else ""
    if called == "Markdown":
        return f"{expression}.data"
    if called == "str":
        return expression
    return f"str({expression})"


def computed_cell(post: Post, blocks: list[Node]) -> str:
    """Code that shows the blocks with their computed values.

    The text stays as it is, in a raw string: neither the braces nor the backslashes of formulas need care then.
    """
    expressions: list[str] = []

    def marker(expression: str) -> str:
        expressions.append(as_string(expression.strip(), post.where(expression)))
        return f"⟦{len(expressions)}⟧"

    def change(item: Node) -> list[Node] | None:
        if item["t"] == "Code" and item["c"][1].startswith("{python} "):
            return [node("Str", marker(item["c"][1].removeprefix("{python} ")))]
        if item["t"] == "Math":
            kind, text = item["c"]
            return [node("Math", [kind, re.sub(r"`\{python\} ([^`]+)`", lambda m: marker(m[1]), text)])]
        return None

    text = write_markdown(post, rewrite(blocks, change))
    quotes = '"""' if '"""' not in text else "'''"
    if quotes in text:
        raise NotebookError(f"{post.where(text[:20])}: text with computed values holds both kinds of triple quotes")
    replacements = "".join(f'\n    .replace("⟦{n}⟧", {e})' for n, e in enumerate(expressions, 1))
    return f"# @title {COMPUTED_TITLE}\nMarkdown(\n    r{quotes}\n{text}\n{quotes}{replacements}\n)"


def hidden(role: str | None = None) -> dict[str, Any]:
    """Metadata of a cell whose code JupyterLab and Colab fold away."""
    notes = {"echo": False} | ({"role": role} if role else {})
    return {"cellView": "form", "cvae": notes, "jupyter": {"source_hidden": True}}


def code_cell(post: Post, cell: CodeCell, folded: bool) -> tuple[str, dict[str, Any]]:
    """Source and metadata of a code cell. `cvae` in the metadata is for build_page.py."""
    options = cell.options
    if options.get("output") == "asis":
        raise NotebookError(f"{cell.place}: output: asis works on the site only; show Markdown(...) instead")
    notes: dict[str, Any] = {key: options[key] for key in ("label", "include", "output") if key in options}
    notes |= {"summary": options["code-summary"]} if "code-summary" in options else {}
    notes |= {"fold": options["code-fold"]} if "code-fold" in options else {}
    echo = options.get("echo", True) and options.get("include", True)
    if echo and not folded:
        return cell.code, {"cvae": notes} if notes else {}
    title = options.get("code-summary") or options.get("fig-cap") or options.get("tbl-cap")
    if not title or re.search(r"[@$\[{*`]", title):  # a form's title is plain text
        title = options.get("label", "Code")
    title = " ".join(str(title).split())
    metadata = hidden()
    metadata["cvae"] = notes if echo else metadata["cvae"] | notes
    return f"# @title {title}\n{cell.code}", metadata


def title_text(post: Post) -> str:
    """The first cell: what the page shows above its text."""
    meta = post.meta
    if not meta.get("title"):
        raise NotebookError(f"{post.path.name}: the front matter has no title")
    by_line = " · ".join(part for part in (authors(meta), date_of(meta)) if part)
    parts = [f"# {meta['title']}", f"*{meta['subtitle']}*" if meta.get("subtitle") else "", by_line]
    return "\n\n".join(filter(None, parts))


def authors(meta: dict[str, Any]) -> str:
    people = meta.get("author") or []
    people = people if isinstance(people, list) else [people]
    return ", ".join(str(p.get("name", "")) if isinstance(p, dict) else str(p) for p in people)


def date_of(meta: dict[str, Any]) -> str:
    """The date as written; words like "today" would make another notebook every day."""
    date = str(meta.get("date") or "")
    return date if date[:1].isdigit() else ""


def bootstrap(post: Post, imports_markdown: bool) -> str:
    """The first code cell: it brings the package where there is none."""
    address = (post.meta.get("website") or {}).get("repo-url")
    if not address:
        raise NotebookError("_quarto.yml: website: repo-url is missing; the notebook's first cell clones from there")
    with open(REPOSITORY_ROOT / "pyproject.toml", "rb") as file:
        dependencies = tomllib.load(file)["project"].get("dependencies", [])
    needed = {re.match(r"[A-Za-z0-9._-]+", d)[0]: "" for d in dependencies}
    needed = {name: IMPORT_NAMES.get(name.lower(), name.replace("-", "_")) for name in needed}
    table = "\n".join(f'    "{name}": "{module}",' for name, module in needed.items())
    text = BOOTSTRAP.replace("<address>", address).replace("    <needed>", table)
    return text + (MARKDOWN_IMPORT if imports_markdown else "")


BOOTSTRAP = '''\
# @title Get the tutorial's code (does nothing where it is installed already)
import importlib
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = os.environ.get("CVAE_REPOSITORY", "<address>")
NEEDED = {  # name on PyPI: name in an import
    <needed>
}


def run(aim, *command, hint=""):
    """Run a command; if it fails, say what was wanted and what it said."""
    try:
        silent = os.environ | {"GIT_TERMINAL_PROMPT": "0"}  # a wrong address is an error, not a question for a password
        subprocess.run(command, check=True, capture_output=True, text=True, env=silent)
    except FileNotFoundError:
        raise RuntimeError(f"could not {aim}: {command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"could not {aim}: {(error.stderr or error.stdout).strip()} {hint}") from None


if find_spec("cvae_support"):
    print("cvae_support is installed: nothing to do.")
else:
    # Opened in a clone or an unpacked archive, it takes what lies there. Else a clone, always a new one: whole.
    around = () if "CVAE_REPOSITORY" in os.environ else Path.cwd().parents
    checkout = next((path for path in around if (path / "cvae_support" / "__init__.py").is_file()), None)
    source = checkout or Path(tempfile.mkdtemp()) / "cvae-tutorial"
    if not checkout:
        hint = "\\nSet CVAE_REPOSITORY to an address that works."
        run(f"clone {REPOSITORY}", "git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(source), hint=hint)
    pip = (sys.executable, "-m", "pip", "install", "--quiet")
    # Only what is not there: a second torch would take minutes and might not fit the machine's driver.
    missing = [name for name, module in NEEDED.items() if not find_spec(module)]
    if missing:
        run(f"install {', '.join(missing)}", *pip, *missing)
    # With a setuptools at hand that can make wheels, the build need not fetch one.
    offline = find_spec("setuptools") and find_spec("setuptools.command.bdist_wheel")
    offline = ["--no-build-isolation"] if offline else []
    run("install the tutorial's package", *pip, "--no-deps", *offline, str(source))
    importlib.invalidate_caches()
    if not find_spec("cvae_support"):
        raise RuntimeError("cvae_support is installed, but this kernel can't see it yet: restart it and run this again")
    print(f"cvae_support installed from {checkout or REPOSITORY}")'''
MARKDOWN_IMPORT = "\n\nfrom IPython.display import Markdown  # for text with computed numbers"


class Cells:
    """The cells of the notebook under construction."""

    def __init__(self, post: Post):
        self.post = post
        self.cells: list[Node] = []
        self.text: list[Node] = []  # blocks of the Markdown cell being gathered
        self.computed = False  # whether that cell holds computed values
        self.names: Counter[str] = Counter()

    def add(self, kind: str, source: str, metadata: dict[str, Any] | None = None) -> None:
        """A cell with an id that stays the same as long as its content does."""
        metadata = metadata or {}
        name = metadata.get("cvae", {}).get("label") or f"{kind}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
        name = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:58]
        self.names[name] += 1
        identifier = name if self.names[name] == 1 else f"{name}-{self.names[name]}"
        cell = {"cell_type": kind, "id": identifier, "metadata": metadata, "source": source.splitlines(keepends=True)}
        self.cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))

    def flush(self, role: str | None = None) -> None:
        """End the Markdown cell being gathered."""
        blocks, self.text = self.text, []
        if not blocks:
            return
        if computed_values(blocks):
            self.add("code", computed_cell(self.post, blocks), hidden(role or "computed"))
        elif text := write_markdown(self.post, blocks):
            self.add("markdown", text, {"cvae": {"role": role}} if role else {})

    def block(self, block: Node) -> None:
        if is_cell(block):
            self.flush()
            cell = self.post.cells[int(attributes(block)[2]["n"])]
            if cell.options.get("eval", True):
                self.add("code", *code_cell(self.post, cell, FOLD in attributes(block)[1]))
            else:
                self.text.append(node("CodeBlock", [["", ["python"], []], cell.code]))
            return
        if block["t"] == "Div" and FOLD not in attributes(block)[1]:  # a caption: no other div is left
            self.flush()
            self.text = block["c"][1]
            self.flush("caption")
            return
        computed = computed_values(block)
        if block["t"] == "Header" and computed:
            raise NotebookError(f"{self.post.path.name}: a heading cannot hold a computed value")
        if block["t"] == "Header" or computed != self.computed:
            self.flush()
        self.computed = computed
        self.text.append(block)


def make_notebook(qmd: Path, raw_html: bool = False) -> str:
    """The text of the notebook for a source. Raises NotebookError, saying where.

    raw_html is for a page made from the notebook: it keeps raw HTML blocks, which a notebook cannot use, and leaves out
    what is for the notebook only.
    """
    post = read_post(qmd)
    blocks = parse(post)
    if raw_html:
        blocks = rewrite(blocks, lambda item: [] if for_the_notebook_only(item) else None)
    blocks = notebook_part(post, blocks, raw_html)
    blocks = Numberer(post, blocks).blocks(blocks)
    blocks = references(cite(post, resolve_references(post, blocks)))
    blocks = clean(post, blocks)

    cells = Cells(post)
    cells.add("markdown", title_text(post), {"cvae": {"role": "title"}})
    cells.add("code", bootstrap(post, computed_values(blocks)), {"cvae": {"role": "bootstrap"}})
    for block in blocks:
        cells.block(block)
    cells.flush()

    notes = {key: str(post.meta[key]) for key in ("title", "subtitle", "description", "lang") if post.meta.get(key)}
    notes |= {"author": authors(post.meta), "date": date_of(post.meta), "source": qmd.name}
    notebook = {
        "cells": cells.cells,
        "metadata": {
            "colab": {"toc_visible": True},
            "cvae": notes,
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    nbformat.validate(notebook)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a notebook is out of date")
    parser.add_argument("qmd", nargs="*", type=Path, help="sources (default: every posts/*/*.qmd)")
    options = parser.parse_args(arguments)
    sources = options.qmd or sorted(
        p for p in (REPOSITORY_ROOT / "posts").glob("*/*.qmd") if not p.name.startswith("_")
    )
    if not sources:
        print("no posts/*/*.qmd found", file=sys.stderr)
        return 1
    stale = 0
    for qmd in sources:
        notebook = qmd.with_suffix(".ipynb")
        try:
            text = make_notebook(qmd).encode()
        except (NotebookError, OSError) as error:
            print(f"{qmd}: {error}", file=sys.stderr)
            return 1
        if notebook.is_file() and notebook.read_bytes() == text:
            print(f"{notebook}: up to date")
        elif options.check:
            print(f"{notebook}: out of date; run python tools/make_notebook.py", file=sys.stderr)
            stale += 1
        else:
            notebook.write_bytes(text)
            print(f"{notebook}: written")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
