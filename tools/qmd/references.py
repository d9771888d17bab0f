"""Step 3: @fig-x becomes "Figure 3"; Pandoc's citeproc does the citations and the list of references."""

import json
import re
from pathlib import Path

from qmd.source import Post
from qmd.trees import KINDS, Node, NotebookError, attributes, find, node, pandoc, rewrite, words

# The prefixes Quarto keeps for cross-references. A citation must not start with one of them.
RESERVED = {*KINDS, *"lst thm lem cor prp cnj def exm exr sol rem alg tip nte wrn imp cau".split()}


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
    citations = find(blocks, "Cite")
    if not citations:
        return blocks
    files = post.meta.get("bibliography")
    if not files:
        key = citations[0]["c"][0][0]["citationId"]
        raise NotebookError(f"{post.where(f'@{key}')}: @{key} is cited, but no bibliography is named")
    for file in files:
        if not Path(file).is_file():
            raise NotebookError(f"{post.path.name}: {Path(file).name}, named in the metadata, does not exist")
    options = [f"--bibliography={file}" for file in files]
    document = {"pandoc-api-version": post.api, "meta": {}, "blocks": blocks}
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
