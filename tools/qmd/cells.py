"""Step 5: headings and code start new cells; text with computed numbers becomes a cell that computes them."""

import ast
import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import tomllib

from qmd.markdown import write_markdown
from qmd.source import CodeCell, Post, is_cell
from qmd.trees import FOLD, Node, NotebookError, attributes, find, node, rewrite

COMPUTED_TITLE = "Text with computed numbers"
IMPORT_NAMES = {"scikit-learn": "sklearn", "pyyaml": "yaml", "pillow": "PIL"}  # where - to _ is not enough
MARKDOWN_IMPORT = "\n\nfrom IPython.display import Markdown  # for text with computed numbers"


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
    title = str(options.get("code-summary") or options.get("fig-cap") or options.get("tbl-cap") or "")
    if not title or re.search(r"[@$\[{*`]", title):  # a form's title is plain text
        title = options.get("label", "Code")
    title = " ".join(title.split())
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
    """The first code cell: first_cell.py, with the repository's address and the package's dependencies filled in."""
    address = (post.meta.get("website") or {}).get("repo-url")
    if not address:
        raise NotebookError("_quarto.yml: website: repo-url is missing; the notebook's first cell clones from there")
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as file:
        dependencies = tomllib.load(file)["project"].get("dependencies", [])
    names = [re.match(r"[A-Za-z0-9._-]+", dependency)[0] for dependency in dependencies]
    table = "\n".join(f'    "{n}": "{IMPORT_NAMES.get(n.lower(), n.replace("-", "_"))}",' for n in names)
    text = (Path(__file__).parent / "first_cell.py").read_text(encoding="utf-8").rstrip("\n")
    text = text.replace("<address>", address).replace("dict[str, str]()", f"{{\n{table}\n}}")
    return text + (MARKDOWN_IMPORT if imports_markdown else "")


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
