"""Pictures, as a notebook shows them: each holds its own file."""

import base64
import hashlib
import html
import mimetypes
import re
from pathlib import Path

from PIL import Image

from qmd.source import Post, project_root
from qmd.trees import Node, NotebookError, attributes, plain_text


def image_tag(post: Post, image: Node) -> str:
    """An <img> that holds the file itself; one on the web, which the page's security policy forbids, is an error."""
    _, _, pairs = attributes(image)
    source = image["c"][2][0]
    alt = pairs.get("fig-alt") or pairs.get("alt") or plain_text(image["c"][1])
    path = project_root(post.path) / source.lstrip("/") if source.startswith("/") else post.path.parent / source
    if not path.is_file():
        raise NotebookError(f"{post.where(source)}: the image {source} does not exist among the files of the site")
    if not (mimetypes.guess_type(path.name)[0] or "").startswith("image/"):
        raise NotebookError(f"{post.where(source)}: {source} is no image this can embed")
    width = pairs.get("width", "640px")
    style = f"max-width:{width if re.search(r'[a-z%]$', width) else width + 'px'};width:100%"
    return f'<img src="{embedded(path)}" alt="{html.escape(alt)}" style="{style}">'


def bitmap_of(path: Path) -> Path:
    """The bitmap that tools/bitmaps.py has made of this very SVG, else the file itself.

    Colab and GitHub show no SVG that lies in a notebook; but somebody who draws one need not have what makes bitmaps.
    """
    bitmap = path.with_suffix(".png")
    if path.suffix == ".svg" and bitmap.is_file():
        with Image.open(bitmap) as picture:
            if picture.info.get("made-of") == hashlib.sha256(path.read_bytes()).hexdigest():
                return bitmap
    return path


def embedded(path: Path) -> str:
    """The address of a picture that holds the picture itself, as a notebook shows it."""
    path = bitmap_of(path)
    return f"data:{mimetypes.guess_type(path.name)[0]};base64,{base64.b64encode(path.read_bytes()).decode()}"
