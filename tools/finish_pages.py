"""What Quarto leaves undone in the site it writes; it calls this after rendering (post-render in _quarto.yml).

Live: the runtime of the decoder in the page, which is fetched, not kept in the repository.
Lighter: an empty link on every line of code goes, the TeX inside every formula, and the colours of the page's own
source behind "View Source".
Accessible: headings in order, a name for the site's menu, no roles and attributes that do not exist.
"""

import os
import re
from pathlib import Path

from fetch_runtime import bring_runtime

LINE_LINK = re.compile(r'(<span) id="cb\d+-\d+">(?:<a href="#cb\d+-\d+"(?: aria-hidden="true"| tabindex="-1")*></a>)?')
TEX = re.compile(r"<annotation[^>]*>.*?</annotation>|</?semantics>", re.DOTALL)  # browsers show none of it
MODAL = re.compile(r'(?s)(id="quarto-embedded-source-code-modal".*?<pre.*?>)(.*?)(</pre>)')
REPLACED = {
    r'<h5 (class="no-anchor card-title.*?)</h5>': r"<h2 \1</h2>",
    r'<h5 (class="modal-title".*?)</h5>': r"<h2 \1</h2>",
    r'<nav class="navbar': '<nav aria-label="Site" class="navbar',
    r'(<button class="navbar-toggler"[^>]*?) role="menu"': r"\1",
    r'<button class="btn-close"': '<button aria-label="Close" class="btn-close"',
    "aria-labelelledby": "aria-labelledby",
    # A callout that folds is a button; page.js lets the keyboard press it.
    r'(<div class="callout-header[^>]*data-bs-toggle="collapse"[^>]*)>': r'\1 role="button" tabindex="0">',
    # A second banner, and a list item without its list.
    r'<header (id="title-block-header".*?)</header>': r'<section aria-label="Title" \1</section>',
    r'(quarto-appendix-citeas") role="listitem"': r"\1",
    r'<nav id="quarto-sidebar"': '<nav aria-label="Contents and links" id="quarto-sidebar"',
    # Other sites do not show an SVG, which is what Quarto offers them: the post's thumbnail.
    r'(<meta (?:property|name)="(?:og|twitter):image" content="[^"]*)cvae_thumbnail\.svg"': r'\1social-card.png"',
    r'(<div id="quarto-margin-sidebar"[^>]*)(>\s*<h5)': r'\1 role="complementary" aria-label="Categories"\2',
}


def finished(page: str) -> str:
    page = TEX.sub("", LINE_LINK.sub(r"\1>", page))
    page = MODAL.sub(lambda m: m[1] + re.sub("</?span[^>]*>", "", m[2]) + m[3], page)
    for pattern, replacement in REPLACED.items():
        page = re.sub(pattern, replacement, page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    bring_runtime(Path(os.environ["QUARTO_PROJECT_OUTPUT_DIR"]))
    for name in os.environ["QUARTO_PROJECT_OUTPUT_FILES"].split("\n"):
        file = Path(name)
        if file.suffix == ".html" and file.is_file():
            file.write_text(finished(file.read_text(encoding="utf-8")), encoding="utf-8")
