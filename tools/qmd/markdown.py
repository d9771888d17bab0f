"""Step 4: what is left becomes Markdown that a notebook can show on its own: footnotes, spans, links and images too."""

import html
import json
import re
from typing import Any

from qmd.pictures import image_tag
from qmd.source import Post, is_cell
from qmd.trees import FOLD, Node, NotebookError, attributes, node, pandoc, rewrite

MARKDOWN = "gfm+tex_math_dollars-tex_math_gfm-footnotes"  # what both JupyterLab and Colab read
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


def clean(post: Post, blocks: list[Node]) -> list[Node]:
    """The blocks with nothing in them that a notebook could not show on its own."""
    no_attributes = ["", [], []]

    def change(item: Node) -> list[Node] | None:
        kind = item["t"]
        if kind == "Span":
            return rewrite(item["c"][1], change)
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


def check_clean(post: Post, markdown: str) -> None:
    """Raise NotebookError where something of the site's syntax is left in a text."""
    if left := re.search(r"\\?\{\\?\{\\?<\s*(\S+)", markdown):
        raise NotebookError(f"{post.where('{{< ' + left[1])}: the shortcode {left[1]} has no meaning in a notebook")
    for name, pattern in SITE_SYNTAX.items():
        if match := re.search(pattern, markdown, re.MULTILINE):
            line = markdown[markdown.rfind("\n", 0, match.start()) + 1 :].split("\n")[0]
            raise NotebookError(f"{post.path.name}: could not resolve a {name} in: {line[:120]}")
