"""The built site in a browser: what it weighs, who can use it, and in which colours it comes."""

import gzip
import time

import pytest

POST = "posts/class_conditional_vae/class_conditional_vae.html"
GRID = '.cvae-figure[aria-label^="Ten rows of eight generated"][aria-label*="spatial"]'
MAP = '.cvae-figure[aria-label^="A scatter of 3,000"]'


@pytest.fixture
def address(site, serve):
    """Where the site is served; both builds, one after the other."""
    with serve(site) as address:
        yield address


@pytest.fixture
def visit(browser):
    """Open a page: visit(address, width, theme). Fails at the end if the console was not clean."""
    complaints, contexts = [], []

    def opened(url, width=1300, theme="light", **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def read_through(page):
    """Page down to the end, as a reader does; every figure is drawn on the way."""
    page.evaluate("""async () => {
      for (let y = 0; y < document.documentElement.scrollHeight; y += 900) {  // which grows on the way
        window.scrollTo(0, y);
        await new Promise(requestAnimationFrame);
      }
    }""")
    last = page.locator(".cvae-figure").count() - 1
    page.locator(".cvae-figure svg.main-svg:first-child").nth(last).wait_for(state="attached")


def look_at(page, selector):
    """Scroll to one figure, which is drawn then."""
    figure = page.locator(selector)
    figure.scroll_into_view_if_needed()
    figure.locator("svg.main-svg").first.wait_for()
    figure.scroll_into_view_if_needed()  # what was drawn above it may have moved it
    return figure


def test_the_post_is_light(address, browser):
    """The numbers that hold a reader on a phone, measured after every figure is drawn.

    Script by the processor's own clock, and the paint at best: other work on this machine is not the page's.
    """
    script, paint = [], []
    while len(paint) < 2 and not (paint and script[0] < 2 and paint[0] < 1_000):
        context = browser.new_context(viewport={"width": 1300, "height": 900})
        page, asked, loaded = context.new_page(), [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("response", lambda response, loaded=loaded: loaded.append(response))
        session = context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(f"{address}/{POST}")
        read_through(page)
        measured = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
        script.append(measured["ScriptDuration"])
        paint.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        elements = page.evaluate("document.querySelectorAll('*').length")
        bodies = {r.url: r.body() for r in loaded if not r.url.startswith("data:")}
        context.close()
    html = len(bodies[f"{address}/{POST}"])
    packed = sum(len(gzip.compress(body)) for body in bodies.values())
    whole = sum(map(len, bodies.values()))
    print(f"{html=:,} {whole=:,} {packed=:,} {elements=:,} script={min(script):.2f} s paint={min(paint):.0f} ms")
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []  # no other host
    assert html < 500_000
    assert packed < 2_000_000
    assert elements < 8_000
    assert min(script) < 2
    assert min(paint) < 1_000


def test_the_figures_need_no_server(site, browser):
    page = browser.new_page()  # not visit: the console says that Quarto's own scripts do need one
    page.goto((site / POST).as_uri())
    read_through(page)
    page.close()


def test_no_page_runs_a_script_but_its_own(site, address, browser):
    """Its policy lets through what the other tests use, in a clean console; and nothing else."""
    intruders = """async () => {
      const add = (tag, properties) => {
        const element = Object.assign(document.createElement(tag), properties);
        const over = new Promise((done) => { element.onload = element.onerror = done; });
        document.body.append(element);
        return over;
      };
      window.intruded = false;
      add("script", { textContent: "window.intruded = true" });
      add("a", { href: "javascript:window.intruded=true", id: "intruder" });
      document.getElementById("intruder").click();
      document.body.setAttribute("onclick", "window.intruded = true");
      document.body.click();
      await Promise.all([
        add("script", { src: "data:text/javascript,window.intruded=true" }),
        add("script", { src: "https://example.org/a.js" }),
      ]);
      const answer = await fetch("https://example.org/").then(() => "answered", () => "refused");
      await new Promise((done) => setTimeout(done, 50));  // by when the address has run, if it may
      return [answer, window.intruded];
    }"""
    answer = {"body": "window.intruded = true", "headers": {"access-control-allow-origin": "*"}}
    for path in sorted(site.rglob("*.html")):
        page = browser.new_page()
        page.route("https://example.org/**", lambda route: route.fulfill(content_type="text/javascript", **answer))
        page.goto(f"{address}/class-conditional-vae/{path.relative_to(site).as_posix()}")
        assert page.evaluate(intruders) == ["refused", False], path.name
        page.close()


def test_every_part_of_quartos_page_works_under_the_policy(quarto_site, serve, visit):
    with serve(quarto_site) as address:
        page = visit(f"{address}/{POST}")
        folds = page.locator("main details.code-fold")
        page.locator("#quarto-code-tools-menu").click()
        page.locator("#quarto-show-all-code").click()
        assert folds.first.get_attribute("open") is not None
        assert page.locator("main details:not([open])").count() == 0  # the package's source, too
        page.locator("#quarto-code-tools-menu").click()
        page.locator("#quarto-view-source").click()
        source = page.frame_locator(".modal iframe").locator("pre")
        source.wait_for()
        assert 'title: "Class-Conditional VAE"' in source.inner_text()
        page.wait_for_timeout(500)  # until the box has faded in
        page.keyboard.press("Escape")
        page.locator(".modal").wait_for(state="hidden")
        page.locator("#quarto-search button, .aa-DetachedSearchButton").first.click()
        page.keyboard.type("normalization")
        page.locator(".search-result-title, .aa-Item").first.wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.locator("main a[role=doc-biblioref]").first.hover()
        reference = page.locator(".tippy-box")
        reference.wait_for()
        assert "Auto-Encoding Variational Bayes" in reference.inner_text().replace("\u2011", "-")
        page = visit(f"{address}/index.html")
        page.locator(".quarto-listing-category .category").nth(1).click()
        page.wait_for_timeout(300)
        assert "#category" in page.url
        page.locator(".quarto-grid-item").first.wait_for()


CUT_OFF = """[...document.querySelectorAll("pre.sourceCode, .highlight pre")]
  .filter((code) => code.scrollWidth > code.clientWidth).length"""  # lines of code that go on beyond the side


# Colours depend on the theme and the layout on the width, and neither on the other.
@pytest.mark.parametrize(
    ("site", "theme", "width"),
    [("quarto", "light", 360), ("quarto", "dark", 1300), ("plain", "dark", 360), ("plain", "light", 1300)],
    indirect=["site"],
)  # fmt: skip
def test_everyone_can_use_it(site, address, visit, theme, width):
    """WCAG 2.2 AA as far as a program can judge, on every page, with all code unfolded; nothing scrolls sideways."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    pages = [*site.glob("posts/*/*.html"), *site.glob("*.html")]
    for name in sorted(page.relative_to(site).as_posix() for page in pages):
        page = visit(f"{address}/class-conditional-vae/{name}", width, theme)
        page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        if name == POST:
            read_through(page)
            page.evaluate("window.scrollTo(0, 0)")
        options = {"runOnly": levels, "resultTypes": ["violations"]}  # twice as fast as with all it finds in order
        found = axe.Axe().run(page, options=options).response["violations"]
        assert [(name, v["id"], [n["target"] for n in v["nodes"]][:5]) for v in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate(CUT_OFF) == 0, name
        page.evaluate("document.documentElement.style.fontSize = '150%'")  # as a reader may have all letters
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


def shade(page, selector):
    """How bright the upper left corner of something on the page is, from 0 to 255."""
    import io

    from PIL import Image

    element = page.locator(selector).first
    element.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    return Image.open(io.BytesIO(element.screenshot())).convert("L").getpixel((30, 12))


TOGGLE = {"quarto": "a.quarto-color-scheme-toggle >> visible=true", "plain": "#theme-toggle"}


def test_colours_follow_the_system_and_then_the_toggle(request, address, visit):
    toggle = TOGGLE["quarto" if "quarto" in request.node.name else "plain"]
    diagram = "img[alt^='A class y is picked']"
    page = visit(f"{address}/{POST}", theme="dark")
    assert shade(page, diagram) < 60
    page = visit(f"{address}/{POST}", theme="light")
    assert shade(page, diagram) > 200
    page.evaluate("window.scrollTo(0, 0)")
    page.locator(toggle).focus()
    page.keyboard.press("Enter")  # with the keyboard, so that it need not be a mouse
    assert "quarto-dark" in page.locator("body").get_attribute("class")
    assert shade(page, diagram) < 60  # an SVG picture too, against the system's choice
    tick = look_at(page, GRID).locator(".xtick text").first
    assert tick.evaluate("e => getComputedStyle(e).fill") == page.evaluate("getComputedStyle(document.body).color")


def test_the_overview_shows_the_class_that_is_picked(address, visit):
    """In the page as it is built, under its policy; test_overview.py has the rest."""
    page = visit(f"{address}/{POST}")
    sample = page.locator(".overview-sample").first
    before, picture = sample.evaluate("e => getComputedStyle(e).backgroundPosition"), sample.screenshot()
    page.locator(".overview label", has_text="Trouser").click()
    assert page.get_by_role("radio", name="Trouser").is_checked()
    assert sample.evaluate("e => getComputedStyle(e).backgroundPosition") != before
    assert sample.screenshot() != picture
    assert "Trouser" in page.locator(".overview [aria-live]").inner_text()


def test_figures_answer_to_the_pointer(address, visit):
    page = visit(f"{address}/{POST}")
    for figure, inside, words in ((GRID, 0.4, ("Dress", "sample", "mean brightness")), (MAP, 0.35, ("",))):
        place = look_at(page, figure)
        box = place.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * inside)
        said = page.locator(".hovertext").first
        said.wait_for()
        assert all(word in said.text_content() for word in words)


def test_a_click_in_the_legend_hides_a_class(address, visit):
    page = visit(f"{address}/{POST}")
    figure = look_at(page, MAP)
    shown = figure.locator(".shapelayer path")
    before = shown.count()
    figure.locator(".legendtoggle").nth(3).click()
    end = time.monotonic() + 10  # at once is too soon: a second click would mean something else
    while shown.count() != before - 1:
        assert time.monotonic() < end
        page.wait_for_timeout(20)


def test_a_finger_on_a_figure_scrolls_the_page(address, visit):
    page = visit(f"{address}/{POST}", width=360, has_touch=True, is_mobile=True)
    box, before = look_at(page, MAP).bounding_box(), page.evaluate("scrollY")
    session = page.context.new_cdp_session(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    moves = [("touchStart", y), *(("touchMove", y - 10 * step) for step in range(1, 11)), ("touchEnd", None)]
    for kind, y in moves:
        points = [] if y is None else [{"x": x, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(20)
    page.wait_for_timeout(300)
    assert page.evaluate("scrollY") > before + 50


def test_a_figure_leaves_no_room_on_a_page_made_narrower_and_the_search_leaves_it_alone(quarto_site, serve, visit):
    with serve(quarto_site) as address:
        page = visit(f"{address}/{POST}")
        figure = look_at(page, GRID)
        page.evaluate("""() => { const react = Plotly.react; window.drawn = [performance.now()];
          Plotly.react = (...given) => { window.drawn.push(performance.now()); return react(...given); }; }""")
        page.set_viewport_size({"width": 420, "height": 900})
        for _ in range(100):
            if page.evaluate("performance.now() - window.drawn.at(-1)") > 1500:
                break  # all is drawn anew
            page.wait_for_timeout(300)
        else:
            pytest.fail("figures are drawn again and again")
        room = "e => e.offsetHeight - e.querySelector('svg.main-svg').getBoundingClientRect().height"
        assert abs(figure.evaluate(room)) < 2
        drawn = page.evaluate("window.drawn.length")
        assert drawn > 1
        page.keyboard.press("/")
        page.locator(".aa-DetachedContainer").wait_for()
        page.wait_for_timeout(300)
        assert page.evaluate("window.drawn.length") == drawn


def test_code_unfolds_with_the_keyboard(address, visit):
    page = visit(f"{address}/{POST}")
    fold = page.locator("main details:visible").first
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.get_attribute("open") is not None


def test_every_formula_of_its_own_line_fits_a_phone(address, visit):
    """Its end would be out of sight, and with it the point: a formula scrolls, but shows no bar that says so."""
    page = visit(f"{address}/{POST}", width=420)
    formulas = page.locator("main math[display=block]")
    assert formulas.count() > 5
    too_wide = """(formulas) => formulas.filter((formula) => {
      let box = formula;
      while (box.tagName !== "MAIN" && box.scrollWidth <= box.clientWidth + 1) box = box.parentElement;
      return box.tagName !== "MAIN";
    }).map((formula) => formula.textContent)"""
    assert formulas.evaluate_all(too_wide) == []


def test_no_line_starts_with_the_comma_after_a_formula(address, visit):
    """At any width: a mark that starts a line is left of the formula it follows."""
    page = visit(f"{address}/{POST}")
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    alone = """() => [...document.querySelectorAll("main math:not([display])")].filter((formula) => {
      const next = formula.nextSibling;
      if (next?.nodeType !== Node.TEXT_NODE || !/^[,.;:?!)]/.test(next.data)) return false;
      const mark = document.createRange();
      mark.setStart(next, 0);
      mark.setEnd(next, 1);
      return mark.getBoundingClientRect().left < formula.getBoundingClientRect().left;
    }).map((formula) => formula.parentElement.textContent)"""
    assert page.locator(".kept").count() > 50
    for width in (1300, 1000, 700, 420, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(alone) == [], width


def test_a_phone_has_the_contents_and_links_to_parts_are_clear_of_the_bar(quarto_site, serve, visit):
    """Both when the page is opened at a part of it, and when one is picked from the contents."""
    below_the_bar = """() => {
      const top = document.querySelector(":target h2").getBoundingClientRect().top;
      return top - document.getElementById("quarto-header").getBoundingClientRect().bottom;
    }"""
    with serve(quarto_site) as address:
        page = visit(f"{address}/{POST}#sec-live", width=420)
        page.wait_for_timeout(1000)
        assert 0 <= page.evaluate(below_the_bar) < 300
        page.evaluate("window.scrollTo(0, 0)")
        contents = page.locator(".contents-fold")
        contents.locator("summary").click()
        contents.get_by_role("link", name="12 What’s next").click()
        page.wait_for_timeout(1000)
        assert page.url.endswith("#sec-next") and contents.get_attribute("open") is None
        assert 0 <= page.evaluate(below_the_bar) < 300
        page.set_viewport_size({"width": 1300, "height": 900})
        assert not contents.is_visible() and page.locator("#TOC").is_visible()


def test_a_solution_shows_when_asked_for_by_keyboard(address, visit):
    page = visit(f"{address}/{POST}")
    answer = page.get_by_text("one that ignores", exact=False).first
    assert not answer.is_visible()
    header = page.locator(".callout-header[role=button], details > summary:text-is('Solution')").first
    header.focus()
    page.keyboard.press("Enter")
    answer.wait_for(state="visible", timeout=5000)


def test_on_paper_there_is_everything_but_navigation(address, visit):
    page = visit("about:blank", theme="dark")
    # Never idle: else the figures would be drawn by the time they are printed, whether or not printing has it done.
    page.add_init_script("window.requestIdleCallback = () => {}")
    page.goto(f"{address}/{POST}")
    drawn, figures = page.locator(".cvae-figure:has(svg.main-svg)"), page.locator(".cvae-figure").count()
    assert drawn.count() < figures
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert drawn.count() == figures
    assert page.locator("main details:not([open])").count() == 0
    assert page.locator(".overview-sample").first.evaluate("e => getComputedStyle(e).printColorAdjust") == "exact"
    solutions = page.locator(".callout-collapse")
    assert solutions.locator("visible=true").count() == solutions.count()
    assert page.locator("#quarto-header, #quarto-sidebar, .bar, .toc").count() >= 2
    assert page.locator("#quarto-header, #quarto-sidebar, .bar, .toc").locator("visible=true").count() == 0
    assert "quarto-light" in page.locator("body").get_attribute("class")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("main details:not([open])").count() > 10
    assert "quarto-dark" in page.locator("body").get_attribute("class")
    assert page.evaluate("localStorage['cvae-theme'] ?? localStorage['quarto-color-scheme'] ?? null") is None
