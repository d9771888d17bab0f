"""What Quarto leaves undone in the site it writes; it calls this after rendering (post-render in _quarto.yml).

Live: the runtime of the decoder in the page, which is fetched, not kept in the repository.
Lighter: the marks around every line of code and every operator go, the TeX inside every formula, the scripts and
styles of parts that the page does not have, and its own source, which "View Source" loads from a file beside it. The
search's excerpts lose that TeX, too.
Accessible: headings in order, a name for the site's menu, no roles and attributes that do not exist.
Honest: how long a post takes to read, of which Quarto's count holds code and the data of figures too.
Safe: a content security policy, with which the page takes nothing from elsewhere and runs no script but its own.
"""

import base64
import hashlib
import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

from fetch_runtime import bring_runtime

# Pandoc marks every line, so that it can be linked to; its style sheet wants one such mark around the code. Colours for
# operators, numbers, names like self and the braces in a text are not worth 900 elements.
CODE = re.compile(r'(?s)(<pre[^>]*><code[^>]*>)(<span id="cb\d+-\d+">.*?)(</code>)')
LINE = re.compile(r'(?m)<span id="cb\d+-\d+">(?:<a href="#cb\d+-\d+"[^>]*></a>)?(.*)</span>$')
QUIET = re.compile(r'<span class="(?:op|va|dv|fl|sc)">([^<]*)</span>')
TEX = re.compile(r"<annotation[^>]*>.*?</annotation>|</?semantics>", re.DOTALL)  # browsers show none of it
FORMULA = re.compile(r"<math[^>]*>(.*?)<annotation[^>]*>(.*?)</annotation>", re.DOTALL)
MATH = re.compile(r'<math(?: display="inline"|( display="block"))? xmlns="[^"]*">')  # the rest is what browsers assume
# A line may end before or after any formula, which leaves a comma alone at the start of the next one.
CLINGS = re.compile(r"(\(?)(<math>(?:(?!</math>).)*</math>)([^\s\w<]*)", re.DOTALL)
MODAL = re.compile(r'(?s)(id="quarto-embedded-source-code-modal".*?)<pre[^>]*>(.*?)</pre>')
# What only some posts have, by its class, and the files in assets/ that bring it to life.
PARTS = {"overview": "overview", "live": "live", "cvae-figure": r"figures|plotly-cartesian\.min"}
REPLACED = {
    r'<h5 (class="no-anchor card-title.*?)</h5>': r"<h2 \1</h2>",
    r'<h5 (class="modal-title".*?)</h5>': r"<h2 \1</h2>",
    r'<nav class="navbar': '<nav aria-label="Site" class="navbar',
    r'(<button class="navbar-toggler"[^>]*?) role="menu"': r"\1",
    r'<button class="btn-close"': '<button aria-label="Close" class="btn-close"',
    "aria-labelelledby": "aria-labelledby",
    # A callout that folds is a button, named by its title; page.js lets the keyboard press it.
    r'(<div class="callout-header[^>]*data-bs-toggle="collapse"[^>]*)>': r'\1 role="button" tabindex="0">',
    ' aria-label="Toggle callout"': "",
    # Where a browser refuses storage, Quarto's theme goes as in a file, which has none; else it stays half dark.
    r"(const isFileUrl = \(\) => \{)": r"\1 try { window.localStorage; } catch { return true; }",
    # A second banner, and a list item without its list.
    r'<header (id="title-block-header".*?)</header>': r'<section aria-label="Title" \1</section>',
    r'(quarto-appendix-citeas") role="listitem"': r"\1",
    r'<nav id="quarto-sidebar"': '<nav aria-label="Contents and links" id="quarto-sidebar"',
    # Other sites do not show an SVG, which is what Quarto offers them: the post's thumbnail. See social_card.py.
    r'(<meta (?:property|name)="(?:og|twitter):image" content="[^"]*?)_thumbnail\.svg"': r'\1_card.png"',
    r'(<div id="quarto-margin-sidebar"[^>]*)(>\s*<h5)': r'\1 role="complementary" aria-label="Categories"\2',
    # An address that is a script is one more to allow; this does as little, in the way of Quarto's other buttons.
    r'href="javascript:void\(0\)"': 'href="#" onclick="return false;"',
    # The side on which every cell of a table stands.
    ' style="text-align: left;"': "",
    ' style="text-align: right;"': ' class="right"',
    # The number of the cell that made it.
    r'(<div [^>]*?) data-execution_count="\d+"': r"\1",
    # A picture's description once more, where it means nothing.
    r'(<div id="fig-[^>]*) alt="[^"]*"': r"\1",
}
# How long a text takes: the words of its running text, headings and captions, at Quarto's own speed. Code in lines of
# its own, formulas, tables, data of figures, all that is folded (code, solutions) and the references do not count.
WORDS_A_MINUTE = 200
NOT_PROSE = {"script", "style", "pre", "math", "table", "details", "button"}
NOT_PROSE |= {".callout-collapse", ".overview", ".live", "#refs", "#quarto-appendix", "#title-block-header"}
CARD = re.compile(
    r'(?s)(data-listing-reading-time-sort=")\d+(" data-listing-word-count-sort=")\d+'
    r'(">\s*<a href="([^"]+)".*?<div class="listing-reading-time[^>]*>)\d+ min'
)


class Scripts(HTMLParser):
    """Scripts that stand in a page itself: those between tags, and those in attributes like onclick."""

    def __init__(self, page: str):
        super().__init__()
        self.between: list[str] = []
        self.handlers: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.inside = tag == "script" and "src" not in named and named.get("type") != "application/json"
        self.between += [""] * self.inside
        self.handlers += [value for name, value in attributes if name.startswith("on") and value]

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.between[-1] += data


class Prose(HTMLParser):
    """The running text inside a page's <main>."""

    def __init__(self, page: str):
        super().__init__()
        self.text = ""
        self.inside = False
        self.skipped, self.depth = "", 0  # the tag of what does not count, and how many of them are open
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        named = {name: value or "" for name, value in attributes}
        if self.skipped:
            self.depth += tag == self.skipped
        elif NOT_PROSE & {tag, f"#{named.get('id')}", *(f".{name}" for name in named.get("class", "").split())}:
            self.skipped, self.depth = tag, 1
        self.inside |= tag == "main"
        self.inside &= named.get("id") != "references"  # the end of the text, on pages by either builder

    def handle_endtag(self, tag):
        self.depth -= tag == self.skipped
        self.skipped = self.skipped if self.depth else ""
        self.inside &= tag != "main"

    def handle_data(self, data):
        if self.inside and not self.skipped:
            self.text += data


def count_words(page: str) -> int:
    """How many words of running text a page has, by either builder."""
    return sum(any(map(str.isalnum, word)) for word in Prose(page).text.split())


def minutes(words: int) -> int:
    return max(1, round(words / WORDS_A_MINUTE))


def timed(page: str, folder: Path) -> str:
    """The page, which lies in folder, with the true length of every post that it lists."""

    def corrected(card: re.Match) -> str:
        words = count_words((folder / card[4]).read_text(encoding="utf-8"))
        return f"{card[1]}{minutes(words)}{card[2]}{words}{card[3]}{minutes(words)} min"

    return CARD.sub(corrected, page)


def lighter(page: str) -> str:
    """The page without what nobody sees, and on one line a formula with the marks around it, a mean with its spread.

    By either builder.
    """
    page = MATH.sub(r"<math\1>", TEX.sub("", page))
    page = re.sub(r"(\d) ± (\d)", "\\1\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}\\2", page)
    return CLINGS.sub(lambda m: f'<span class="kept">{m[0]}</span>' if m[1] or m[3] else m[0], page)


def formulas(page: str) -> dict[str, str]:
    """Of every formula what the search has, which is what is seen and the TeX in one, and what is seen alone."""
    found = {}
    for parts in FORMULA.findall(page):
        seen, tex = (html.unescape(re.sub("<[^>]+>", "", part)) for part in parts)
        found[seen + tex] = seen
    return found


def searchable(text: str, found: dict[str, str]) -> str:
    """A text of the search without the TeX of the formulas found; "zz" is only one where it is a word."""
    longest_first = "|".join(map(re.escape, sorted(found, key=len, reverse=True)))
    return re.sub(rf"(?<!\w)(?:{longest_first})(?!\w)", lambda match: found[match[0]], text)


def without_idle_parts(page: str) -> str:
    """The page without the scripts and style sheets of parts it does not have."""
    for name, files in PARTS.items():
        if not re.search(rf'<div [^>]*\bclass="{name}"', page):
            page = re.sub(rf'<(script|link)[^>]*assets/(?:{files})\.(?:js|css)"[^>]*>(?:</script>)?\n?', "", page)
    return page


def guarded(page: str) -> str:
    """The page with a content security policy: all from the site itself, and only the scripts it has now.

    What comes before the policy is not under it, so it stands first. Raises ValueError where it can't.
    """
    scripts = Scripts(page)

    def hashes(texts: list[str]) -> list[str]:
        digests = sorted({hashlib.sha256(text.encode()).digest() for text in texts})
        return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]

    allowed = ["'self'", *hashes(scripts.between)]
    if scripts.handlers:
        allowed += ["'unsafe-hashes'", *hashes(scripts.handlers)]  # which are those of attributes
    policy = (
        f"default-src 'self'; script-src {' '.join(allowed)}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'self'"
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    page, done = re.subn(r'<meta charset="utf-8" ?/?>', lambda m: f"{m[0]}\n{meta}", page, count=1)
    if not done:
        raise ValueError("there is no <meta charset> behind which a page's policy could stand")
    return page


def finished(page: str) -> str:
    def whole(code: re.Match) -> str:
        lines = QUIET.sub(r"\1", LINE.sub(r"\1", code[2]))
        return f"{code[1]}<span>{lines}</span>{code[3]}"

    page = CODE.sub(whole, lighter(without_idle_parts(page)))
    for pattern, replacement in REPLACED.items():
        page = re.sub(pattern, replacement, page, flags=re.DOTALL)
    return page


def move_source(file: Path, page: str) -> str:
    """The page with its own source in a file beside it, which is loaded when a reader asks for it."""
    found = MODAL.search(page)
    if not found:
        return page
    beside = file.with_suffix(".txt")
    beside.write_text(html.unescape(re.sub("<[^>]+>", "", found[2])), encoding="utf-8-sig")
    frame = f'<iframe src="{beside.name}" title="Source of this page" loading="lazy"></iframe>'
    return MODAL.sub(lambda m: m[1] + frame, page)


if __name__ == "__main__":
    site = Path(os.environ["QUARTO_PROJECT_OUTPUT_DIR"])
    found: dict[str, str] = {}
    bring_runtime(site)
    for name in os.environ["QUARTO_PROJECT_OUTPUT_FILES"].split("\n"):
        file = Path(name)
        if file.suffix == ".html" and file.is_file():
            page = file.read_text(encoding="utf-8")
            found |= formulas(page)
            page = timed(finished(move_source(file, page)), file.parent)
            # A preview renders single pages, and reloads them by a script that it adds later.
            page = guarded(page) if "QUARTO_PROJECT_RENDER_ALL" in os.environ else page
            file.write_text(page, encoding="utf-8", newline="\n")  # Windows would add a byte a line
    if found and (index := site / "search.json").is_file():
        entries = json.loads(index.read_text(encoding="utf-8"))
        entries = [entry | {"text": searchable(entry["text"], found)} for entry in entries]
        index.write_text(json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8", newline="\n")
