"""Make the notebook of a post from its Quarto source, without Quarto.

    python tools/make_notebook.py [--check] [QMD ...]     # default: every posts/*/*.qmd

Pandoc reads the prose and writes it again as plain Markdown; the modules of tools/qmd only decide what becomes of each
thing Pandoc found. The steps, each a module there (source, parts and numbers, references, markdown, cells):

 1. read      includes and front matter are resolved; each code cell is set aside for a placeholder
 2. number    site-only parts go; figures, tables, equations and headings get their numbers; divs are flattened
 3. refer     @fig-x becomes "Figure 3"; Pandoc's citeproc does the citations and the list of references
 4. clean     footnotes, spans, links and images become what a notebook can show on its own
 5. split     headings and code start new cells; text with computed numbers becomes a cell that computes them

The result depends on the sources alone, so that `--check` can tell a notebook that is out of date.
"""

import argparse
import json
import sys
from pathlib import Path

import nbformat

from qmd.cells import Cells, authors, bootstrap, computed_values, date_of, title_text
from qmd.markdown import clean
from qmd.numbers import Numberer
from qmd.parts import for_the_notebook_only, notebook_part
from qmd.references import cite, references, resolve_references
from qmd.source import parse, read_post
from qmd.trees import NotebookError, rewrite

REPOSITORY_ROOT = Path(__file__).resolve().parents[1]


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
