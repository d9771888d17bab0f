"""Step 2a: what is for the site only goes."""

import re
from typing import Any

from qmd.source import Post
from qmd.trees import Node, NotebookError, attributes, node, rewrite

NOTEBOOK = "ipynb"  # Quarto's name of the format


def for_the_site_only(item: Node) -> bool:
    """A div or span that Quarto would not put in a notebook either."""
    _, classes, pairs = attributes(item)
    matches = pairs.get("when-format", NOTEBOOK) == NOTEBOOK
    return ("content-visible" in classes and not matches) or ("content-hidden" in classes and matches)


def for_the_notebook_only(item: Node) -> bool:
    """A div that Quarto would show in a notebook and nowhere else."""
    if item["t"] != "Div":
        return False
    _, classes, pairs = attributes(item)
    return "content-visible" in classes and pairs.get("when-format") == NOTEBOOK


def notebook_part(post: Post, tree: Any, raw: bool = False) -> Any:
    """The tree without what is for the site only. Raw HTML blocks stay where they're marked as for notebooks."""

    def change(item: Node) -> list[Node] | None:
        if item["t"] in ("Div", "Span"):
            if "unless-format" in attributes(item)[2]:
                raise NotebookError(f"{post.where('unless-format')}: unless-format is not supported; say when-format")
            if for_the_site_only(item):
                return []
            marked = "content-visible" in attributes(item)[1]
            attr, content = item["c"]
            return [node(item["t"], [attr, notebook_part(post, content, raw or marked)])]
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
