"""The overview figure, in a browser: by mouse, keyboard and touch, without the network, and without JavaScript."""

import io
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "assets"
POST = ROOT / "posts" / "class_conditional_vae" / "class_conditional_vae.qmd"
sys.path.insert(0, str(ROOT / "tools"))

import overview_sprite  # noqa: E402
from cvae_support.checkpoints import load_model  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        try:
            opened = p.chromium.launch(executable_path=CHROMIUM, args=arguments)
        except playwright.Error as error:
            pytest.skip(f"no Chromium to be had: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The figure alone, as the post has it, with its style and script."""
    figure = re.search(r"(?s)```\{=html\}\n(<div class=\"overview\">.*?)```", POST.read_text(encoding="utf-8"))[1]
    page = tmp_path_factory.mktemp("overview") / "page.html"
    page.write_text(
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="stylesheet" href="{(ASSETS / "overview.css").as_uri()}">'
        f'<script defer src="{(ASSETS / "overview.js").as_uri()}"></script>'
        f'<body class="quarto-light">{figure}</body></html>',
        encoding="utf-8",
    )
    return page.as_uri()


@pytest.fixture
def opened(browser, address):
    """Open the figure in a window of its own, cut off from the network; fails on an error of the script."""
    contexts, errors = [], []

    def open_page(width: int = 700, dark: bool = False, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        if dark:
            page.evaluate("document.body.className = 'quarto-dark'")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def shown(page) -> list[str]:
    return page.eval_on_selector_all(".overview-sample", "all => all.map(e => getComputedStyle(e).backgroundPosition)")


def pixels(page, selector: str) -> Image.Image:
    return Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("L")


def check_changed(page, before: list[str], picture: Image.Image, name: str) -> None:
    after = shown(page)
    assert len(after) == len(set(after)) == 8 and not set(after) & set(before)
    assert ImageChops.difference(picture, pixels(page, ".overview-samples")).getbbox()
    assert name in page.locator(".overview [aria-live]").inner_text()
    assert name in page.locator(".overview-samples").get_attribute("aria-label")


def test_mouse(opened):
    page = opened()
    before, picture = shown(page), pixels(page, ".overview-samples")
    page.locator("label", has_text="Trouser").click()
    check_changed(page, before, picture, "Trouser")
    assert page.get_by_role("radio", name="Trouser").is_checked()


def test_keyboard(opened):
    page = opened()
    before, picture = shown(page), pixels(page, ".overview-samples")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "radio"
    ring = page.locator("input:focus + span").evaluate("e => getComputedStyle(e).outlineStyle")
    assert ring == "solid"  # the focus can be seen
    page.keyboard.press("ArrowLeft")
    check_changed(page, before, picture, "Bag")
    before, picture = shown(page), pixels(page, ".overview-samples")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    check_changed(page, before, picture, "Bag")  # other samples of the same class


def test_touch(opened):
    page = opened(width=360, has_touch=True, is_mobile=True)
    before, picture = shown(page), pixels(page, ".overview-samples")
    page.locator("label", has_text="Sandal").tap()
    check_changed(page, before, picture, "Sandal")


def test_others_come_round_to_the_first(opened):
    page = opened()
    first = shown(page)
    pages = [first]
    for _ in range(overview_sprite.COLUMNS // 8):
        page.get_by_role("button", name="Show others").click()
        pages.append(shown(page))
    assert pages[-1] == first and len({p for page_ in pages for p in page_}) == overview_sprite.COLUMNS


@pytest.mark.parametrize("width", [360, 700])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_fits_and_can_be_hit(opened, width, dark):
    page = opened(width=width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.get_by_role("radio").count() == 10
    for control in page.locator(".overview label, .overview button").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 24


@pytest.mark.parametrize("width", [360, 700])
def test_without_javascript_the_static_grid_shows(opened, width):
    page = opened(width=width, java_script_enabled=False)
    rows = page.locator(".overview-static li")
    assert rows.count() == 10 and page.locator(".overview input").count() == 0
    for row, name in zip(rows.all(), ["T-shirt/top", "Trouser"], strict=False):
        assert name in row.inner_text()
    seen = [Image.open(io.BytesIO(row.locator("i").screenshot())).convert("L") for row in rows.all()]
    assert all(picture.getextrema()[1] > 100 for picture in seen)  # something is drawn in each
    assert all(ImageChops.difference(a, b).getbbox() for a, b in zip(seen, seen[1:], strict=False))
    last = rows.last.locator("i").bounding_box()
    assert last["x"] + last["width"] <= width


def test_the_sprite_is_drawn_by_the_adaln_model_of_the_page(tmp_path):
    """fig-overview: 'Drawn beforehand by the adaLN model of this page'"""
    ours = Image.open(overview_sprite.SPRITE)
    assert ours.mode == "L" and ours.size == (28 * overview_sprite.COLUMNS, 280)
    assert overview_sprite.SPRITE.stat().st_size < 120_000

    overview_sprite.draw_sprite(load_model(overview_sprite.PAGES_OWN)[0], tmp_path / "sprite.png")
    difference = ImageChops.difference(ours, Image.open(tmp_path / "sprite.png")).getextrema()[1]
    assert difference <= 3, "run python tools/overview_sprite.py"  # other machines round a little differently


def test_the_figure_reaches_both_pages_and_not_the_notebook():
    """That it works in both pages, test_browser.py says."""
    import build_page
    import make_notebook

    header = (ROOT / "posts" / "_metadata.yml").read_text(encoding="utf-8")
    for name in ("overview.js", "overview.css"):
        assert f"../../assets/{name}" in header
        assert f"assets/{name}" in (*build_page.SCRIPTS, *build_page.SHEETS)
    assert {".css", ".png"} <= set(build_page.COPIED)
    assert 'class=\\"overview\\"' in make_notebook.make_notebook(POST, raw_html=True)
    assert 'class=\\"overview\\"' not in POST.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert f"COLUMNS = {overview_sprite.COLUMNS};" in (ASSETS / "overview.js").read_text(encoding="utf-8")
