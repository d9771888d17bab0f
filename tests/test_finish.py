"""What is done to every page of the site after it is built."""

import base64
import hashlib
import re
import subprocess
from pathlib import Path

import pypandoc
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def finish(script):
    return script("tools/finish_pages.py")


def pandoc(markdown):
    command = [pypandoc.get_pandoc_path(), "--to=html5", "--mathml"]
    return subprocess.run(command, input=markdown, capture_output=True, text=True, check=True).stdout


def words(page):
    return re.sub("<[^>]+>", "", page)


def test_code_keeps_its_text_and_its_colours_with_few_elements(finish):
    code = 'def f(self):\n    """Two\n    lines."""\n\n    return self.x + 1  # why\n'
    before = pandoc(f"```python\n{code}```")
    after = finish.finished(before)
    assert words(after).split("\n") == words(before).split("\n") and "\n\n" in words(after)
    assert after.count("<span") == after.count("</span") < before.count("<span") - 5
    assert "href" not in after and 'class="co"' in after
    assert re.search(r"<code[^>]*><span><span", after)  # in one span of their own, as Pandoc's style sheet wants them


def test_cells_of_tables_keep_their_side(finish):
    after = finish.finished(pandoc("| | a |\n|:--|--:|\n| b | 1 |\n"))
    assert after.count('class="right"') == 2 and "style" not in after
    assert re.search(r"\.right[^}]*text-align: right", (ROOT / "assets/theme.scss").read_text())


def test_the_search_finds_formulas_without_their_tex(finish):
    page = pandoc("Draw $z$ from $\\mathcal{N}(0, I)$.")
    (text,) = re.findall(r"(?s)<p>(.*)</p>", page)
    text = " ".join(re.sub("<[^>]+>", "", text).split()).replace("Draw", "A fuzzy jazz: draw")
    assert "zz " in text and "mathcal" in text
    assert finish.searchable(text, finish.formulas(page)) == "A fuzzy jazz: draw z from 𝒩(0,I)."


def test_formulas_keep_all_that_browsers_show(finish):
    after = finish.finished(pandoc("$x^2$ and\n\n$$\\frac{1}{2}$$"))
    assert "<math><" in after and '<math display="block"><' in after and "<msup>" in after
    assert "annotation" not in after and "xmlns" not in after


def test_a_formula_keeps_the_marks_beside_it(finish):
    shown = finish.finished(pandoc("as $x$, and ($y$), $z$-space; $a$ or\n\n$$b$$"))
    kept = re.findall(r'<span class="kept">(.*?)</span>', shown)
    assert [words(part) for part in kept] == ["x,", "(y),", "z-"]
    assert words(shown) == words(finish.TEX.sub("", pandoc("as $x$, and ($y$), $z$-space; $a$ or\n\n$$b$$")))


def hashed(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_names_every_script_of_the_page_and_no_other(finish):
    script = 'const a = "</b>" && 1 < 2;\n'
    page = (
        '<html><head><meta charset="utf-8"><script src="a.js"></script></head>'
        f'<body><script>{script}</script><script type="application/json">{{"x": 1}}</script>'
        '<a onclick="go(&quot;b&quot;)">b</a></body></html>'
    )
    head = r'<meta charset="utf-8">\s*<meta http-equiv="Content-Security-Policy" content="([^"]*)">'
    policy = re.search(head, finish.guarded(page))[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    handler = hashed('go("b")')
    assert rules["script-src"] == f"'self' {hashed(script)} 'unsafe-hashes' {handler}"
    assert rules["default-src"] == rules["base-uri"] == "'self'" and rules["object-src"] == "'none'"
    assert "http" not in policy and "unsafe-eval" not in policy
    assert 'charset="utf-8"/>\n<meta http-equiv' in finish.guarded('<meta charset="utf-8"/><b>')
    with pytest.raises(ValueError, match="charset"):
        finish.guarded("<b>")


def test_the_pages_source_lies_beside_it(finish, tmp_path):
    modal = '<div id="quarto-embedded-source-code-modal"><b>x</b><pre class="a"><code>a &lt; b é</code></pre></div>'
    page = f"{modal}<pre>c</pre>"
    moved = finish.move_source(tmp_path / "post.html", page)
    assert (tmp_path / "post.txt").read_text(encoding="utf-8-sig") == "a < b é"
    assert '<iframe src="post.txt" title=' in moved and moved.endswith("</iframe></div><pre>c</pre>")
    assert finish.move_source(tmp_path / "other.html", "<pre>c</pre>") == "<pre>c</pre>"


def test_a_page_loads_only_the_scripts_of_what_it_has(finish):
    head = (
        '<script defer src="../../assets/plotly-cartesian.min.js"></script>\n'
        '<script defer src="../../assets/figures.js"></script>\n<script defer src="/assets/page.js"></script>\n'
        '<link rel="stylesheet" href="../../assets/live.css">\n'
        '<script type="module" src="../../assets/live.js"></script>\n'
        '<link rel="stylesheet" href="../../assets/overview.css">\n'
        '<script defer src="../../assets/overview.js"></script>\n'
    )

    def loaded(body):
        return sorted(re.findall(r"assets/([\w.-]+)", finish.without_idle_parts(head + body)))

    figures = ["figures.js", "page.js", "plotly-cartesian.min.js"]
    assert loaded("<p>live, overview, cvae-figure</p>") == ["page.js"]
    assert loaded('<div class="cvae-figure" role="img">') == figures
    assert loaded('<div aria-label="a" class="cvae-figure" role="img">') == figures
    everything = loaded('<div class="cvae-figure"><div class="live"><div class="overview">')
    assert everything == sorted([*figures, "live.css", "live.js", "overview.css", "overview.js"])


def test_only_running_text_takes_time_to_read(finish, tmp_path):
    unread = (
        "<pre>a b</pre><details>c <details>d</details> e</details><math><mi>f</mi></math><table><td>g</td></table>"
        '<div class="callout-collapse collapse">h<div>i</div>j</div><script>k</script><div id="refs">l</div>'
    )
    prose = f'<h2>A heading – </h2><p>has <em>three</em> <img class="x"> words<br> {unread}, or so.</p>'
    sources = '<h2 id="references">References</h2><p>Kingma and Welling</p>'
    assert finish.count_words(f"<p>before</p><main><p>{prose}</p>{sources}</main><p>after</p>") == 7
    (tmp_path / "posts").mkdir()
    (tmp_path / "posts" / "a.html").write_text(f"<main>{'word ' * 1010}{unread}</main>")
    (tmp_path / "posts" / "b.html").write_text("<main>word</main>")
    card = (
        '<div data-listing-reading-time-sort="60" data-listing-word-count-sort="12000">\n<a href="./posts/{}.html">'
        '<p>title</p><div class="listing-reading-time card-text">60 min</div></a></div>'
    )
    page = finish.timed(card.format("a") + card.format("b"), tmp_path)
    a, b = (card.replace("60", minutes).replace("12000", words) for minutes, words in (("5", "1010"), ("1", "1")))
    assert page == a.format("a") + b.format("b")
