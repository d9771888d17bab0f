"""Make the bitmaps that notebooks show in place of diagrams: assets/diagrams/NAME.png from NAME.svg.

Colab and GitHub show no SVG that lies in a notebook. Run this when a diagram is new or has changed, then make_notebook.
Needs playwright and chromium.
"""

import hashlib
import io
import shutil
from pathlib import Path

from PIL import Image, PngImagePlugin
from playwright.sync_api import sync_playwright

DIAGRAMS = Path(__file__).resolve().parents[1] / "assets" / "diagrams"
SCALE = 2  # pixels a unit of the drawing, which is 480 wide


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 480, "height": 900}, device_scale_factor=SCALE, color_scheme="light")
        for diagram in sorted(DIAGRAMS.glob("*.svg")):
            page.set_content(f'<body style="margin: 0">{diagram.read_text(encoding="utf-8")}</body>')
            drawn = Image.open(io.BytesIO(page.locator("svg").screenshot())).convert("RGB")
            notes = PngImagePlugin.PngInfo()
            notes.add_text("made-of", hashlib.sha256(diagram.read_bytes()).hexdigest())
            picture = drawn.quantize(64, dither=Image.Dither.NONE)  # a third of the bytes, and no colour that one sees
            picture.save(diagram.with_suffix(".png"), optimize=True, pnginfo=notes)
            print(f"{diagram.stem}.png: {diagram.with_suffix('.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
