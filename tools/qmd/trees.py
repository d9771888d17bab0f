"""Pandoc, and the trees it makes of a text: lists of nodes, each a dict with its kind "t" and its content "c"."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pypandoc

Node = dict[str, Any]
KINDS = {"fig": "Figure", "tbl": "Table", "sec": "Section", "eq": "Equation"}


FOLD = "cvae-fold"  # the class of what a reader has to ask for


class NotebookError(Exception):
    """The source holds something that cannot be brought into a notebook."""


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
