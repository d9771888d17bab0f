"""Step 2b: figures, tables, equations and headings get their numbers; divs are flattened."""

import copy
import json
import re
from collections import Counter
from typing import Any

from qmd.pictures import image_tag
from qmd.source import Post, is_cell
from qmd.trees import (
    FOLD,
    KINDS,
    Node,
    NotebookError,
    attributes,
    find,
    kind_of,
    node,
    pandoc,
    plain_text,
    rewrite,
    strong,
    words,
)

CALLOUTS = ("note", "tip", "warning", "important", "caution")


class Numberer:
    """Gives numbers, writes them into captions, headings and equations, and flattens divs on the way."""

    def __init__(self, post: Post, blocks: list[Node]):
        self.post = post
        self.counts: Counter[str] = Counter()
        self.section: list[int] = []
        self.top = min((h["c"][0] for h in find(blocks, "Header")), default=1)
        self.sections_numbered = post.meta.get("number-sections", True)

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

    def table(self, block: Node) -> list[Node]:
        attr, caption, columns, head, bodies, foot = self.equations(block["c"])
        name = self.name(attr[0]) if kind_of(attr[0]) == "tbl" else ""
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
        if "panel-tabset" in classes:  # its headings are no sections
            raise NotebookError(f"{self.post.where('panel-tabset')}: panel-tabset is not supported: write sections")
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
            pieces[0]["c"].pop(0)  # the title stands in the summary
            attr = ["", [FOLD], [["title", plain_text(title or start)]]]
            pieces = [node("Div", [attr, p["c"]]) if p["t"] == "BlockQuote" else p for p in pieces if p["c"]]
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
    """Headings in callouts as bold paragraphs: they are no sections."""
    return rewrite(blocks, lambda b: [node("Para", [node("Strong", b["c"][2])])] if b["t"] == "Header" else None)
