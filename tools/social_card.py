"""Make the pictures that other sites show with a link to a post: assets/NAME_card.png from assets/NAME_thumbnail.svg.

Needs playwright and chromium.
"""

import argparse
import shutil
from pathlib import Path

import yaml
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
CARD = """
<body style="margin: 0; width: 1200px; height: 630px; display: flex; align-items: center; background: #f6f9fd;
  color: #1b2733; font-family: system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif">
<div style="width: 500px; margin-left: 70px">
<div style="font-size: 62px; font-weight: 700; line-height: 1.1">{title}</div>
<div style="font-size: 29px; line-height: 1.35; margin-top: 28px">{subtitle}</div>
</div>
<div style="width: 560px; margin: 0 20px">{picture}</div>
</body>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qmd", nargs="*", type=Path, help="sources of posts (default: all)")
    posts = parser.parse_args().qmd or sorted((ROOT / "posts").glob("*/*.qmd"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 630}, color_scheme="light")
        for post in posts:
            facts = yaml.safe_load(post.read_text(encoding="utf-8").split("---")[1])
            if lacking := [key for key in ("title", "subtitle", "image") if key not in facts]:
                parser.error(f"{post}: the front matter has no {', '.join(lacking)}")
            thumbnail = ROOT / "assets" / Path(facts["image"]).name
            if not thumbnail.is_file():
                parser.error(f"{post}: its image, {thumbnail.relative_to(ROOT)}, does not exist; draw it first")
            picture = thumbnail.read_text(encoding="utf-8")
            page.set_content(CARD.format(title=facts["title"], subtitle=facts["subtitle"], picture=picture))
            page.screenshot(path=thumbnail.with_name(thumbnail.stem.replace("_thumbnail", "_card") + ".png"))


if __name__ == "__main__":
    main()
