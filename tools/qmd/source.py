"""Step 1: the source is read, its includes resolved, and each code cell set aside for a placeholder."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

from qmd.trees import Node, NotebookError, attributes, find, kind_of, pandoc

SHORTCODE = re.compile(r"\{\{<\s*(.*?)\s*>\}\}")


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
    lines: list[str] = field(default_factory=list)  # the body, includes inlined
    places: list[str] = field(default_factory=list)  # "file.qmd:12" of each line
    cells: list[CodeCell] = field(default_factory=list)
    targets: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> (kind, number)
    api: list[int] = field(default_factory=list)  # the version of Pandoc's JSON

    def where(self, text: str) -> str:
        """file:line of the first line with this text, for messages."""
        return next((p for line, p in zip(self.lines, self.places, strict=True) if text in line), self.path.name)


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
        if names := layer.get("bibliography"):
            names = names if isinstance(names, list) else [names]
            layer["bibliography"] = [str((root / n.lstrip("/")) if n.startswith("/") else folder / n) for n in names]
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
    if not isinstance(front, dict):
        raise NotebookError(f"{name}: the front matter must read `key: value`")
    return front, "\n".join(lines[end + 1 :]), end + 1


def read_post(qmd: Path) -> Post:
    """The source with its includes inlined."""
    root = project_root(qmd)
    front, body, skipped = split_front_matter(qmd.read_text(encoding="utf-8"), qmd.name)
    post = Post(qmd, merged_meta(qmd, front, root))
    if refused := {"csl", "nocite"} & post.meta.keys():  # they change the list of references
        raise NotebookError(f"{qmd.name}: {', '.join(sorted(refused))} in the metadata is not supported: take it out")
    inline(post, body, qmd, skipped, root)
    return post


def inline(post: Post, text: str, file: Path, skipped: int, root: Path, depth: int = 0) -> None:
    """Add a file's lines to the post, with its includes inlined."""
    if depth > 10:
        raise NotebookError(f"{file.name}: includes go in a circle")
    literal = {number for fence in fences(text) for number in range(*fence.map)}
    for number, line in enumerate(text.split("\n")):
        place = f"{file.name}:{number + skipped + 1}"
        shortcode = None if number in literal else SHORTCODE.fullmatch(line.strip())
        command, _, argument = shortcode[1].partition(" ") if shortcode else ("", "", "")
        if command == "include":
            if not (name := argument.strip().strip("\"'")):
                raise NotebookError(f"{place}: include names no file")
            included = root / name.lstrip("/") if name.startswith("/") else file.parent / name
            if not included.is_file():
                raise NotebookError(f"{place}: the file to include, {name}, does not exist")
            inline(post, included.read_text(encoding="utf-8").rstrip("\n"), included, 0, root, depth + 1)
            continue
        post.lines.append(line)
        post.places.append(place)


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
        label = str(cell.options.get("label", ""))
        if label and label in {other.options.get("label") for other in post.cells}:  # Quarto says so after it ran all
            raise NotebookError(f"{place}: two cells are labelled {label}")
        post.cells.insert(0, cell)
        # Numbered from the end, as they are found in this order: number -1 is the last cell.
        block = ["", f'``` {{.cvae-cell n="{-len(post.cells)}"}}', "```", ""]
        caption = cell.options.get("tbl-cap" if label.startswith("tbl-") else "fig-cap")
        if isinstance(caption, list):
            raise NotebookError(f"{place}: one caption a cell, please; sub-figures are not supported")
        caption = str(caption) if caption else ""
        if kind_of(label) in ("fig", "tbl"):
            block = ["", f"::: {{#{label}}}", *block, *caption.split("\n"), "", ":::", ""]
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
    tree, warnings = pandoc(set_cells_aside(post), "--from=markdown-raw_tex", "--to=json")
    if "unclosed" in warnings:
        raise NotebookError(f"{post.path.name}: a div (:::) is not closed")
    document = json.loads(tree)
    post.api = document["pandoc-api-version"]
    seen = [int(attributes(block)[2]["n"]) for block in find(document["blocks"], "CodeBlock") if is_cell(block)]
    for n in range(-len(post.cells), 0):
        if n not in seen:
            raise NotebookError(f"{post.cells[n].place}: this code cell is inside a comment or other code")
    return document["blocks"]


def is_cell(block: Node) -> bool:
    return block["t"] == "CodeBlock" and "cvae-cell" in attributes(block)[1]
