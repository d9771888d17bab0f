"""Figures carry what they show, in few bytes, and reach the page in one way."""

import html
import json
import re

import pytest
import torch

from cvae_support.figures import class_scatter, image_grid, recipe_curves, show, show_source, training_curves


@pytest.fixture
def grid():
    images = torch.rand(10, 8, 28, 28, generator=torch.Generator().manual_seed(0))
    return images, image_grid(images, [f"class {i}" for i in range(10)], [f"sample {i}" for i in range(8)])


def test_a_grid_is_one_heatmap_of_bytes(grid):
    images, figure = grid
    (trace,) = figure.data
    assert trace.type == "heatmap" and trace.z.dtype == "uint8" and (trace.zmin, trace.zmax) == (0, 255)
    assert len(figure.to_json()) < 120_000
    cell = trace.z.reshape(10, 29, 8, 29)[3, :-1, 5, :-1]  # class 3, sample 5, without its gap
    torch.testing.assert_close(torch.from_numpy(cell.copy()).float() / 255, images[3, 5], atol=1 / 255, rtol=0)


def test_hover_names_row_column_and_pixel(grid):
    trace = grid[1].data[0]
    assert "%{x}" in trace.hovertemplate and "%{y}" in trace.hovertemplate and "%{z}" in trace.hovertemplate
    assert trace.y[3 * 29 + 14] == "class 3, row 14"
    assert trace.x[5 * 29 + 2] == "sample 5, column 2"


def test_pixels_are_square_and_widths_are_not_fixed(grid):
    layout = grid[1].layout
    assert layout.yaxis.scaleanchor == "x" and layout.width is None
    assert layout.meta["aspect"] == 10 / 8


def test_values_outside_the_range_are_cut_and_not_wrapped():
    figure = image_grid(torch.tensor([-0.5, 1.5]).view(1, 2, 1, 1).expand(1, 2, 4, 4), ["r"], ["a", "b"])
    z = figure.data[0].z.reshape(5, 2, 5)[:-1, :, :-1]
    assert (z[:, 0] == 0).all() and (z[:, 1] == 255).all()


@pytest.mark.parametrize(("rows", "columns"), [(["a"], ["b", "c", "d"]), (["a", "a"], ["b", "c", "d"])])
def test_names_that_do_not_fit_are_refused(rows, columns):
    with pytest.raises(ValueError, match="named|name of its own"):
        image_grid(torch.rand(2, 3, 4, 4), rows, columns)


def bundle(figure, alt):
    return show(figure, alt)._repr_mimebundle_()


@pytest.mark.parametrize(("variable", "kind"), [("CVAE_SITE", "text/html"), ("QUARTO_DOCUMENT_FILE", "text/markdown")])
def test_on_the_site_a_figure_is_data_with_an_accessible_name(grid, monkeypatch, variable, kind):
    monkeypatch.delenv("QUARTO_DOCUMENT_FILE", raising=False)
    monkeypatch.setenv(variable, "1")
    made = bundle(grid[1], 'samples of "all" classes & more')
    assert set(made) == {kind}  # under Quarto no text/html, for which it would load scripts from a CDN
    text = made[kind].removeprefix("```{=html}\n").removesuffix("\n```")
    assert 'role="img" aria-label="samples of &quot;all&quot; classes &amp; more"' in text
    assert "<script" not in text and "http" not in text and "\n" not in text
    spec = json.loads(html.unescape(re.search(r"data-figure='([^']*)'", text)[1]))
    assert spec["data"][0]["type"] == "heatmap"


def test_in_a_notebook_a_figure_is_a_plotly_figure(grid, monkeypatch):
    for variable in ("CVAE_SITE", "QUARTO_DOCUMENT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    made = bundle(grid[1], "ten rows")
    assert made["application/vnd.plotly.v1+json"]["data"][0]["type"] == "heatmap"
    assert 'aria-label="ten rows"' in made["text/html"]


def test_curves_show_the_weighted_kl():
    history = [dict(epoch=e, test_recon=0.1 / e, test_kl=0.5) for e in (1, 2)]
    figure = training_curves({"a": history, "b": history}, {"a": 0.01, "b": 0.1})
    assert [list(trace.y) for trace in figure.data] == [[0.1, 0.05], [0.005] * 2, [0.1, 0.05], [0.05] * 2]
    assert len({(t.line.color, t.line.dash) for t in figure.data}) == 2  # told apart by more than colour


def test_recipes_are_drawn_seed_by_seed_against_epochs_and_time():
    figure = recipe_curves({"fast": [[0.3, 0.2]], "plain": [[0.5], [0.6, 0.4, 0.3]]}, {"fast": 2.0, "plain": 0.5})
    epochs, times = ([t for t in figure.data if t.xaxis == axis] for axis in ("x", "x2"))
    assert [list(t.y) for t in epochs] == [list(t.y) for t in times] == [[0.3, 0.2], [0.5], [0.6, 0.4, 0.3]]
    assert [list(t.x) for t in epochs] == [[1, 2], [1], [1, 2, 3]]
    assert [list(t.x) for t in times] == [[2.0, 4.0], [0.5], [0.5, 1.0, 1.5]]
    assert [t.name for t in figure.data if t.showlegend] == ["fast", "plain"]
    assert len({(t.line.dash, t.marker.symbol) for t in figure.data}) == 2  # told apart by more than colour


def test_scatter_has_one_legend_and_tells_classes_apart_by_shape():
    labels = torch.arange(10).repeat(3)
    maps = {"a": torch.randn(30, 2), "b": torch.randn(30, 2)}
    figure = class_scatter(maps, labels, [f"c{i}" for i in range(10)])
    assert sum(t.showlegend for t in figure.data) == 10
    assert len({t.marker.symbol for t in figure.data}) == 10
    assert sum(len(t.x) for t in figure.data) == 60


def test_shown_source_is_the_packages_own():
    import inspect

    from cvae_support.layers import ResnetBlock

    assert inspect.getsource(ResnetBlock).rstrip() in show_source(ResnetBlock).data
