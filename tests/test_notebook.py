"""The notebook of every post, its maker, and the page made from it.

The maker's conventions are all in fixtures/sample.qmd. The main post's notebook is run as a stranger would, alone in an
empty folder with nothing but the usual packages (where this checkout is installed, the page without Quarto runs it: see
pages/); the other's where this checkout is installed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = Path(__file__).parent / "fixtures"
sys.path.insert(0, str(ROOT / "tools"))

import build_page  # noqa: E402
import make_notebook  # noqa: E402
from qmd.cells import COMPUTED_TITLE, as_string  # noqa: E402
from qmd.trees import NotebookError  # noqa: E402

POSTS = sorted(p for p in (ROOT / "posts").glob("*/*.qmd") if not p.name.startswith("_"))
MAIN = ROOT / "posts/class_conditional_vae/class_conditional_vae.qmd"  # it needs all that ships: it runs for a stranger
# Kept apart from the maker's own list, which it checks itself by.
SITE_SYNTAX = re.compile(
    r"^---\s*\n\w+:|:::|\{\{\\?<|\[-?@|@(fig|tbl|sec|eq)-|\{#|\{\.[a-z]|\{=[a-z]+\}|`\{python\}|^#\|", re.MULTILINE
)
SITE_ONLY = re.compile(
    r'^(:{3,}) \{\.content-(?:visible when-format="html"|hidden when-format="ipynb")\}.*?^\1$', re.MULTILINE | re.DOTALL
)
CELL = re.compile(r"^```\{python\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def post(function):
    """Run a test for every post."""
    return pytest.mark.parametrize("qmd", POSTS, ids=lambda p: p.stem)(function)


def read(qmd: Path) -> nbformat.NotebookNode:
    return nbformat.read(qmd.with_suffix(".ipynb"), as_version=4)


def sources(notebook, kind: str) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def printed(notebook) -> str:
    """Everything the cells wrote to standard output."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")


# --------------------------------------------------------------------------------------------------------- the posts


def test_there_is_a_post():
    assert POSTS


@post
def test_notebook_is_up_to_date(qmd):
    notebook = qmd.with_suffix(".ipynb")
    same = notebook.is_file() and notebook.read_text(encoding="utf-8") == make_notebook.make_notebook(qmd)
    assert same, f"{notebook.name} is out of date: run python tools/make_notebook.py"


@post
def test_notebook_is_valid_and_empty(qmd):
    notebook = read(qmd)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


@post
def test_no_site_syntax_is_left(qmd):
    for text in sources(read(qmd), "markdown"):
        assert not SITE_SYNTAX.search(text), text
    for text in sources(read(qmd), "code"):
        assert not re.search(r"^#\|", text, re.MULTILINE)
        if COMPUTED_TITLE in text:
            assert not SITE_SYNTAX.search(text), text


@post
def test_every_code_cell_is_there_in_order(qmd):
    wanted = []
    for code in CELL.findall(SITE_ONLY.sub("", qmd.read_text(encoding="utf-8"))):
        wanted.append("\n".join(line for line in code.split("\n") if not line.startswith("#|")).strip())
    found = [re.sub(r"^# @title .*\n", "", text).strip() for text in sources(read(qmd), "code")]
    assert wanted
    remaining = iter(found)
    for code in wanted:
        assert code in remaining, f"missing, or in another place:\n{code}"


@post
def test_notebook_shows_its_images_itself(qmd):
    text = "\n".join(sources(read(qmd), "markdown"))
    assert not re.search(r"!\[[^\]]*\]\(", text)
    for source in re.findall(r'<img src="([^"]*)"', text):
        assert source.startswith("data:image/")
        assert not source.startswith("data:image/svg"), "Colab shows no SVG: run tools/bitmaps.py, then make notebook"
    for image in re.findall(r"<img [^>]*>", text):
        assert re.search(r' alt="[^"]', image), f"no alternative text: {image[-80:]}"


@pytest.mark.parametrize("qmd", [path for path in POSTS if path != MAIN], ids=lambda p: p.stem)
def test_notebook_runs_from_the_shipped_weights(data, tmp_path, qmd):
    environment = {name: value for name, value in os.environ.items() if name != "CVAE_SITE"}
    notebook = executed(qmd, tmp_path, environment)
    check_run(notebook, qmd)
    assert "cvae_support is installed" in printed(notebook)


def executed(qmd: Path, folder: Path, environment: dict, *flags: str) -> nbformat.NotebookNode:
    """Run by nbmake, on a copy, so that the outputs can be looked at and the notebook stays without them."""
    copied = Path(shutil.copy(qmd.with_suffix(".ipynb"), folder))
    flags = ("--nbmake", "--overwrite", "--nbmake-timeout=900", "-p", "no:cacheprovider", f"--rootdir={folder}", *flags)
    run([sys.executable, "-m", "pytest", *flags, copied], cwd=folder, env=environment)
    return nbformat.read(copied, as_version=4)


def check_run(notebook, qmd: Path) -> None:
    """Outputs are there, text is computed, and no model was trained."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert sum("application/vnd.plotly.v1+json" in o.get("data", {}) for c in code for o in c.outputs) > 0
    computed = [cell for cell in code if COMPUTED_TITLE in cell.source]
    for cell in computed:
        text = cell.outputs[0].data["text/markdown"]
        assert "⟦" not in text and "nan" not in text.lower().split()
    assert "shipped weights" in printed(notebook) or "load_or_train" not in qmd.read_text(encoding="utf-8")
    assert "training" not in printed(notebook).replace("training images", "")


# ------------------------------------------------------------------------------------------- a stranger's empty folder


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """A repository with one commit: this checkout as it is now, without what git ignores."""
    folder = tmp_path_factory.mktemp("published") / "repository"
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    run(["git", "init", "--quiet"], cwd=folder)
    run(["git", "add", "--all"], cwd=folder)
    run(["git", *identity, "-c", "core.hooksPath=/dev/null", "commit", "--quiet", "-m", "test"], cwd=folder)
    return folder


def run(command: list, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_notebook_runs_for_a_stranger(data, published, tmp_path):
    """Only the notebook, in an environment that has the usual packages but not ours: what Colab is."""
    from cvae_support.data import cache_folder

    python = tmp_path / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
    # Pip and setuptools are among the usual packages; some Pythons bundle an old setuptools that would hide it.
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "environment"])
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    # A plain path: .pth files in that folder are not read, so a package installed as editable stays out of sight.
    (Path(site) / "usual-packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    home = tmp_path / "home"
    folder = tmp_path / "empty"
    kernel = tmp_path / "jupyter" / "kernels" / "stranger"
    for made in (home, folder, kernel):
        made.mkdir(parents=True)
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": start, "display_name": "stranger", "language": "python"}))
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "CVAE_SITE", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HOME": str(home), "CVAE_REPOSITORY": str(published), "CVAE_CACHE": str(cache_folder())}
    environment |= {"JUPYTER_PATH": str(tmp_path / "jupyter")}

    ask = "from importlib.util import find_spec; print(find_spec('torch') is None, find_spec('cvae_support') is None)"
    assert run([python, "-c", ask], cwd=folder, env=environment).split() == ["False", "True"]

    done = executed(MAIN, folder, environment, "--nbmake-kernel=stranger")
    check_run(done, MAIN)
    assert f"cvae_support installed from {published}" in printed(done)
    where = run([python, "-c", "import cvae_support; print(cvae_support.__file__)"], cwd=folder, env=environment)
    assert Path(where.strip()).is_relative_to(site)


def test_first_cell_says_when_it_cannot_clone(sample, tmp_path):
    code = sources(sample, "code")[0].split("from IPython")[0]
    environment = os.environ | {"CVAE_REPOSITORY": str(tmp_path / "nowhere")}
    environment.pop("PYTHONPATH", None)
    # -S: without site-packages, so that the package is not there.
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode
    assert f"could not clone {tmp_path / 'nowhere'}" in done.stderr
    assert "Set CVAE_REPOSITORY to an address that works" in done.stderr


@pytest.mark.parametrize("place", ["posts/one", "."])
def test_first_cell_in_a_checkout_takes_what_lies_there(sample, tmp_path, place):
    """As in an unpacked archive, opened in an editor: nothing is cloned.

    At its top the bare folder can be imported, and what it needs cannot.
    """
    code = sources(sample, "code")[0].split("from IPython")[0]
    here = tmp_path / place
    for folder in (here, tmp_path / "cvae_support"):
        folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cvae_support" / "__init__.py").touch()
    played = "import subprocess\nsubprocess.run = lambda command, **_: print(*command)\n"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CVAE_REPOSITORY")}
    command = [sys.executable, "-S", "-c", played + code]

    def commands(**more):
        done = subprocess.run(command, cwd=here, env=environment | more, capture_output=True, text=True)
        # Nothing was really installed; at the top the folder itself can be imported.
        assert "restart it and run this again" in done.stderr or place == "."
        return done.stdout.splitlines()

    ran = commands()
    assert not any(line.startswith("git ") for line in ran) and ran[-1].endswith(f" {tmp_path}")
    ran = commands(CVAE_REPOSITORY="https://a.org/b")  # who names a repository means it
    assert any(line.startswith("git clone") and "https://a.org/b" in line for line in ran)


# --------------------------------------------------------------------------------------------- the maker's conventions


@pytest.fixture(scope="module")
def sample() -> nbformat.NotebookNode:
    return nbformat.reads(make_notebook.make_notebook(FIXTURES / "sample.qmd"), as_version=4)


@pytest.fixture(scope="module")
def text(sample) -> str:
    """All Markdown cells of the sample."""
    return "\n\n".join(sources(sample, "markdown"))


@pytest.fixture
def convert(tmp_path):
    """convert(body): the notebook of a document with this body, in a project like the fixture's."""
    shutil.copytree(FIXTURES, tmp_path, dirs_exist_ok=True)

    def convert(body: str, front: str = "title: T\nbibliography: sample.bib\n") -> nbformat.NotebookNode:
        (tmp_path / "doc.qmd").write_text(f"---\n{front}---\n\n{body}\n", encoding="utf-8")
        return nbformat.reads(make_notebook.make_notebook(tmp_path / "doc.qmd"), as_version=4)

    return convert


def cell_after(sample, start: str):
    """The cell behind the one whose source starts so."""
    index = next(i for i, cell in enumerate(sample.cells) if cell.source.startswith(start))
    return sample.cells[index + 1]


def test_same_source_same_bytes(sample):
    first = make_notebook.make_notebook(FIXTURES / "sample.qmd")
    assert first == make_notebook.make_notebook(FIXTURES / "sample.qmd")
    assert "\r" not in first and first.endswith("}\n") and json.loads(first)["nbformat_minor"] == 5
    ids = [cell.id for cell in sample.cells]
    assert len(set(ids)) == len(ids)


def test_title_cell(sample):
    assert sample.cells[0].source == "# A Sample\n\n*Every convention once*\n\nA. Writer · 2025-01-31"


def test_no_site_syntax_in_the_sample(sample):
    for source in sources(sample, "markdown"):
        without_code = re.sub(r"^(`{3,}).*?^\1$", "", source, flags=re.MULTILINE | re.DOTALL)
        assert not SITE_SYNTAX.search(without_code), source


def test_first_code_cell(sample):
    cell = sample.cells[1]
    compile(cell.source, "first cell", "exec")
    assert '"https://example.org/fixture.git"' in cell.source
    assert '"scikit-learn": "sklearn"' in cell.source and '"lightning-fabric": "lightning_fabric"' in cell.source
    assert "from IPython.display import Markdown" in cell.source
    assert sum("import Markdown" in source for source in sources(sample, "code")) == 1


def test_citations_and_references(text):
    assert "The opening cites Kingma and Welling (2014) and more" in text
    assert "(Sohn et al. 2015, sec. 3; Kingma and Welling 2014)" in text
    references = text.split("## References")[1]
    assert "Auto-Encoding Variational Bayes" in references and "Structured Output Representation" in references


def test_references_to_figures_tables_sections_equations(text):
    assert "points to Figure 1, 2, Table 2, Table 1, Section 2 and Equation 1." in text
    assert "See Section 1.1 and “Closing”." in text
    assert "see Equation 1" in text


def test_links(text):
    assert "the front page and [the paper](https://example.org/paper)." in text


def test_includes(text):
    assert "comes from another file and knows Fashion-MNIST with 10 classes" in text


def test_site_only_parts(sample, text):
    assert "Only on the site" not in text and "Hidden from the notebook" not in text and "alert(" not in text
    assert not any("SystemExit" in source for source in sources(sample, "code"))
    assert "<p>Raw, for the notebook.</p>" in text


def test_headings_start_cells_and_are_numbered(sample):
    starts = [source.split("\n")[0].lstrip("# ") for source in sources(sample, "markdown") if source.startswith("##")]
    assert starts == ["1 First section", "1.1 A subsection", "2 Second section", "Closing", "References"]
    assert "### 1.1 A subsection" in sources(sample, "markdown")
    assert not any("\n## " in source for source in sources(sample, "markdown"))


def test_code_cells(sample):
    by_id = {cell.id: cell for cell in sample.cells}
    setup = by_id["setup"]
    assert setup.source == 'x = 0.12345\nnames = {"a": 1}'
    assert setup.metadata.cvae == {"label": "setup", "summary": "Set two numbers", "fold": True}
    hidden = next(cell for cell in sample.cells if cell.source.startswith("# @title Draw a figure"))
    assert hidden.source == '# @title Draw a figure\nprint("figure")'
    assert hidden.metadata.cellView == "form" and hidden.metadata.jupyter.source_hidden
    assert by_id["fig-option"].source.startswith("# @title fig-option\n")  # its caption cites, a form's title can't
    assert any(cell.metadata.get("cvae", {}).get("include") is False for cell in sample.cells)


def test_unevaluated_and_quoted_code_is_text(sample, text):
    assert '``` python\nnever = "run"\n```' in text and "not_a_cell = True" in text
    assert not any("never" in source or "not_a_cell" in source for source in sources(sample, "code"))
    assert "{{< not a shortcode >}}" in text


def test_figures(sample, text):
    caption = cell_after(sample, "# @title Draw a figure")
    assert caption.source == "**Figure 1.** A caption with $x^2$ and a span, see Equation 1."
    assert re.search(
        r'<img src="data:image/svg\+xml;base64,[\w+/]+=*" alt="Boxes &amp; arrows" style="max-width:300px;width:100%">'
        r"\n\n\*\*Figure 2\.\*\* A diagram of \$z\$\.",
        text,
    )
    caption = cell_after(sample, "# @title fig-option")
    assert caption.source == "**Figure 3.** Caption by option, after Kingma and Welling (2014)."


def test_tables(sample, text):
    assert cell_after(sample, "**Table 1.** A table made by code.").source == 'print("table by code")'
    assert "**Table 2.** Ways to feed *y*.\n\n| Way " in text
    assert r"`a\|b`" in text and r"$h \oplus e_y$" in text


def test_equations(text):
    assert "\\begin{aligned}" in text and "\\end{aligned} \\tag{1}\n$$" in text


def test_callouts(sample, text):
    assert "> **Note: Why $\\beta$ is small**\n>\n> Text with (Sohn et al. 2015)." in text
    assert "> $$a = b + c$$" in text  # on one line: a > at the start of a line would get into the formula
    assert "> 1.  one\n> 2.  two\n>\n> Nested.\n>\n> | a   | b   |" in text
    assert "> **Tip: A titled tip**\n>\n> Before the code." in text
    code = next(i for i, cell in enumerate(sample.cells) if cell.source == 'print("in a callout")')
    assert "> After the code, the value is ⟦1⟧." in sample.cells[code + 1].source


def test_what_is_collapsed_on_the_page_is_shown_when_asked_for(sample):
    code = next(i for i, cell in enumerate(sample.cells) if 'print("folded")' in cell.source)
    folded = "<details>\n<summary>Solution</summary>\n\nShown when asked for, with ⟦2⟧ in it.\n\n</details>"
    assert folded in sample.cells[code - 1].source
    assert sample.cells[code].source == '# @title Solution in code\nprint("folded")'
    assert sample.cells[code].metadata.cellView == "form" and sample.cells[code].metadata.jupyter.source_hidden


def test_computed_text(sample):
    from types import SimpleNamespace

    cell = next(cell for cell in sample.cells if "The number is" in cell.source)
    assert cell.source.startswith("# @title Text with computed numbers\nMarkdown(")
    assert cell.metadata.jupyter.source_hidden
    values = {"x": 0.12345, "names": {"a": 1}, "Markdown": lambda text: SimpleNamespace(data=text)}
    shown = eval(cell.source, values).data
    assert "The number is 0.123, the set is $\\{1, \\dots, n\\}$ with $\\frac{1}{2}$, and 1 more." in shown
    assert "- a list with 1\n- and `code` alone" in shown


def test_computed_values_that_are_markdown_or_text():
    assert as_string('Markdown("*x*")', "") == 'Markdown("*x*").data'
    assert as_string("n", "") == "str(n)"
    assert as_string("str(n)", "") == "str(n)"


def test_footnotes(text):
    assert "A footnote follows. (The note cites Sohn et al. (2015).) And an inline one. (Short, with $y$.)" in text


def test_computed_value_in_a_formula_and_a_table(convert):
    cells = sources(convert("A $x = `{python} 1 + 1`$ formula.\n\n| a |\n|---|\n| `{python} f'{3}'` |"), "code")
    shown = eval(cells[1], {"Markdown": str})
    assert "$x = 2$" in shown and re.search(r"\| 3 +\|", shown)


def test_pipes_in_tables(convert):
    text = sources(convert("| a |\n|---|\n| $p(x|y) \\| q$ |"), "markdown")[1]
    assert r"$p(x\vert y) \Vert  q$" in text


@pytest.mark.parametrize(
    "body, message",
    [
        ("See @fig-lost.", "@fig-lost refers to nothing"),
        ("See [@sec-lost].", "@sec-lost refers to nothing"),
        ("As @nobody1999 says.", "@nobody1999 is not in the bibliography"),
        ("![c](lost.svg){#fig-a}", "the image lost.svg does not exist"),
        ("![c](https://a.org/b.png)", "doc.qmd:6: the image https://a.org/b.png does not exist among the files"),
        ("::: {.panel-tabset}\n## A\n\ntext\n:::", "doc.qmd:6: panel-tabset is not supported"),
        ("{{< video https://example.org >}}", "the shortcode video has no meaning"),
        ("{{< var lost.key >}}", "the shortcode var has no meaning"),
        ("{{< include _lost.qmd >}}", "_lost.qmd, does not exist"),
        ("{{< include >}}", "doc.qmd:6: include names no file"),
        ("{{< >}}", "has no meaning"),
        ('::: {.content-visible unless-format="pdf"}\ntext\n:::', "doc.qmd:6: unless-format is not supported"),
        ("Value `{python} 1 +`.", "is not an expression"),
        ("## H {#sec-a}\n\n## H {#sec-a}", "two things are called sec-a"),
        ("```{python}\n#| label: a\n1\n```\n\n```{python}\n#| label: a\n2\n```", "two cells are labelled a"),
        ("- list\n\n  ```{python}\n  1\n  ```", "must not stand in a list"),
        ("<!--\n```{python}\n1\n```\n-->", "inside a comment"),
        ("```{python}\n#| label: [\n1\n```", "not valid YAML"),
        ("```{python}\n#| output: asis\n1\n```", "works on the site only"),
        ("text {#eq-a}", "does not follow a formula"),
        ("::: {.callout-note}\n\nNo end.", "div"),
    ],
)
def test_errors_say_what_and_where(convert, body, message):
    with pytest.raises(NotebookError) as error:
        convert(body)
    assert message in str(error.value) and "doc.qmd" in str(error.value)


def test_front_matter_that_is_plain_text(convert):
    with pytest.raises(NotebookError, match="doc.qmd: the front matter must read"):
        convert("text", front="plain text\n")


def test_captions_and_titles_may_look_like_numbers(convert):
    one, two = "#| fig-cap: 3\n1", "#| code-summary: 2026\n#| echo: false\n2"
    notebook = convert(f"```{{python}}\n{one}\n```\n\n```{{python}}\n{two}\n```")
    assert sources(notebook, "code")[1:] == ["1", "# @title 2026\n2"] and sources(notebook, "markdown")[-1] == "3"


def test_nothing_of_a_solution_is_shown_before_it_is_asked_for(convert):
    """Neither what stands before its code nor what stands behind it."""
    body = '::: {.callout-tip collapse="true" title="Solution"}\n%s```{python}\n1\n```\n\nSecret.\n:::'
    for before in ("", "Secret.\n\n"):
        notebook = convert(body % before)
        texts = [cell.source for cell in notebook.cells if "Secret." in cell.source]
        assert len(texts) == (2 if before else 1)
        assert all(text.startswith("<details>\n<summary>Solution</summary>") for text in texts)
        assert all(text.strip().endswith("</details>") for text in texts)
        assert "".join(sources(notebook, "markdown")).count("<details>") == len(texts)  # and no empty one


def test_citation_without_bibliography(convert):
    with pytest.raises(NotebookError, match="doc.qmd:5: @kingma2014 is cited, but no bibliography"):
        convert("See @kingma2014.", front="title: T\n")


@pytest.mark.parametrize("line", ["csl: other.csl", 'nocite: "@*"'])
def test_metadata_that_would_be_left_out_is_refused(convert, line):
    with pytest.raises(NotebookError, match=f"doc.qmd: {line.split(':')[0]} in the metadata is not supported"):
        convert("text", front=f"title: T\n{line}\n")


def test_missing_address(convert, tmp_path):
    (tmp_path / "_quarto.yml").write_text("project:\n  type: website\n")
    with pytest.raises(NotebookError, match="repo-url"):
        convert("text")


def test_check_finds_a_stale_notebook(convert, tmp_path, capsys):
    convert("First.")
    qmd = str(tmp_path / "doc.qmd")
    assert make_notebook.main(["--check", qmd]) == 1
    assert "doc.ipynb: out of date" in capsys.readouterr().err
    assert make_notebook.main([qmd]) == 0 and make_notebook.main(["--check", qmd]) == 0
    convert("Second.")
    assert make_notebook.main(["--check", qmd]) == 1


# ---------------------------------------------------------------------------------------------- the page without Quarto


def test_page_without_quarto(tmp_path, monkeypatch, capsys):
    """The sample as a page: complete, quiet on the network, and executed only once."""
    shutil.copytree(FIXTURES, tmp_path / "posts" / "sample")
    shutil.move(tmp_path / "posts" / "sample" / "_quarto.yml", tmp_path / "_quarto.yml")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "figures.js").write_text("// draws\n")
    monkeypatch.setattr(build_page, "ROOT", tmp_path)
    monkeypatch.setattr(build_page, "SITE", tmp_path / "_site")
    second = tmp_path / "posts" / "second" / "second.qmd"
    second.parent.mkdir()
    second.write_text(
        '---\ntitle: Second\n---\n\nHere.\n\n::: {.content-visible when-format="ipynb"}\nNotebook only.\n:::\n'
    )
    assert build_page.main() == 0
    assert "made without Quarto" in capsys.readouterr().out
    page = (tmp_path / "_site" / "posts" / "sample" / "sample.html").read_text(encoding="utf-8")

    assert 'rel="icon"' in page and "<title>A Sample</title>" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//(?!example\.org|doi\.org)""", page)
    assert not re.search(r"cdn|mathjax|require\.min", page, re.IGNORECASE)
    scripts = re.findall(r'<script[^>]* src="([^"]+)"', page)
    assert scripts and all(file.startswith("../../assets/") for file in scripts)
    assert (tmp_path / "_site" / "assets" / "figures.js").is_file()
    assert page.count("<h1") == 1 and 'href="#1-first-section"' in page
    assert '<mspace width="0.167em">' in page  # log p
    assert "<math" in page and '<span class="number">(1)</span>' in page and "\\tag" not in page.split("annotation")[0]
    assert "The number is 0.123, the set is" in page
    assert '<div class="callout callout-note">' in page and '<div class="table-box">' in page
    assert "<summary>Solution</summary>" in page and "<summary>Solution in code</summary>" in page
    assert "folded" in page and "@title" not in page
    assert "<summary>Set two numbers</summary>" in page and 'print(<span class="s2">"figure"' not in page
    assert "Get the tutorial" not in page and ">In&nbsp;[" not in page
    assert 'href="posts/sample/sample.html"' in (tmp_path / "_site" / "index.html").read_text(encoding="utf-8")

    for suffix in (".html", ".ipynb"):
        text = (tmp_path / "_site" / "posts" / "second" / "second").with_suffix(suffix).read_text(encoding="utf-8")
        assert "Here." in text and ("Notebook only." in text) == (suffix == ".ipynb")

    assert build_page.main() == 0
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("quotation", ["> **`x`** is code", "> **bold** words", "> - a list", ">"])
def test_a_quotation_that_is_no_callout_stays_one(quotation):
    (html,) = build_page.to_html([quotation])[0].values()
    assert html.startswith("<blockquote>")
