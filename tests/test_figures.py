"""Figures carry what they show, in few bytes, and reach the page in one way."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cvae_support.figures import (
    CLASS_COLOURS,
    CLASS_MARKERS,
    LINE_COLOURS,
    LINE_DASHES,
    blend_curves,
    class_scatter,
    dot_panels,
    image_grid,
    probes_and_swaps,
    rate_distortion,
    recipe_curves,
    show,
    show_source,
    training_curves,
)
from cvae_support.latents import mosaic


@pytest.fixture
def grid():
    images = torch.rand(10, 8, 28, 28, generator=torch.Generator().manual_seed(0))
    return images, image_grid(images, [f"class {i}" for i in range(10)], [f"sample {i}" for i in range(8)])


def pixels(figure):
    """The pixels of the picture inside a grid."""
    file = io.BytesIO(base64.b64decode(figure.data[0].source.removeprefix("data:image/webp;base64,")))
    return torch.from_numpy(np.array(Image.open(file).convert("L")))


def test_a_grid_is_one_small_picture(grid):
    images, figure = grid
    shades = pixels(figure)
    assert len(figure.to_json()) < 80_000  # of noise, which packs worst
    cell = shades.view(10, 29, 8, 29)[3, :-1, 5, :-1]  # class 3, sample 5, without its gap
    torch.testing.assert_close(cell.float() / 255, images[3, 5], atol=0.5 / 19 + 0.5 / 255, rtol=0)
    assert {0, 255} <= set(shades.unique().tolist())  # black and white are black and white


def test_a_mosaic_has_its_images_in_rows_and_columns(grid):
    images, _ = grid
    assert torch.equal(mosaic(images), torch.cat([torch.cat(list(row), dim=1) for row in images]))


def test_hover_names_row_and_column_and_says_how_bright_the_image_is(grid):
    images, figure = grid
    tiles = figure.data[1]
    assert "%{x}" in tiles.hovertemplate and "%{y}" in tiles.hovertemplate
    assert tiles.z[3][5] == round(100 * images[3, 5].mean().item())
    # Plotly names a tile by the tick at its middle.
    x, y = figure.layout.xaxis, figure.layout.yaxis
    assert x.ticktext[x.tickvals.index(tiles.x0 + 5 * tiles.dx)] == "sample 5"
    assert y.ticktext[y.tickvals.index(tiles.y0 + 3 * tiles.dy)] == "class 3"
    assert x.tickvals[5] == 5 * 29 + 13.5  # the middle of the image, among the pixels of the picture


def test_pixels_are_square_and_widths_are_not_fixed(grid):
    layout = grid[1].layout
    assert layout.yaxis.scaleanchor == "x" and layout.width is None
    assert layout.meta["aspect"] == 10 / 8


def test_values_outside_the_range_are_cut_and_not_wrapped():
    figure = image_grid(torch.tensor([-0.5, 1.5]).view(1, 2, 1, 1).expand(1, 2, 4, 4), ["r"], ["a", "b"])
    z = pixels(figure).view(5, 2, 5)[:-1, :, :-1]
    assert (z[:, 0] == 0).all() and (z[:, 1] == 255).all()


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 rows and 3 columns named"):
        image_grid(torch.rand(2, 3, 4, 4), ["a"], ["b", "c", "d"])


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
    assert "http" not in text and "\n" not in text
    spec = json.loads(re.search(r'<script type="application/json">([^<]*)</script>', text)[1])
    assert spec["data"][0]["type"] == "image" and "<br>" in spec["data"][1]["hovertemplate"]


def test_on_the_site_numbers_have_no_more_digits_than_a_picture_shows(monkeypatch):
    monkeypatch.setenv("CVAE_SITE", "1")
    figure = dot_panels({"a measure": {"an arm": [1 / 3, 2e-5 / 3, 1234567.0, 0.25]}})
    text = show(figure, "dots")._repr_mimebundle_()["text/html"]
    spec = json.loads(re.search(r'<script type="application/json">([^<]*)</script>', text)[1])
    assert spec["data"][0]["x"] == [0.333333, 6.66667e-6, 1234567.0, 0.25]


def test_in_a_notebook_a_figure_is_a_plotly_figure(grid, monkeypatch):
    for variable in ("CVAE_SITE", "QUARTO_DOCUMENT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    made = bundle(grid[1], "ten rows")
    assert made["application/vnd.plotly.v1+json"]["data"][0]["type"] == "image"
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
    assert [(t.x0, t.dx) for t in epochs] == [(1, 1)] * 3  # the first point, and from each to the next
    assert [(t.x0, t.dx) for t in times] == [(2.0, 2.0), (0.5, 0.5), (0.5, 0.5)]
    assert [t.name for t in figure.data if t.showlegend] == ["fast", "plain"]
    assert figure.layout.xaxis.type == figure.layout.xaxis2.type == "log"  # equal ratios are equal distances
    assert len({t.line.dash for t in figure.data}) == 2  # told apart by more than colour


def test_every_model_has_a_marker_of_its_own_in_the_rate_distortion_figure():
    names = ["A", "A, small", "A, 4 epochs", *"BCDEF"]
    figure = rate_distortion({name: [(20.0 + i, 9.0), (21.0, 8.0)] for i, name in enumerate(names)})
    assert [t.name for t in figure.data if t.showlegend] == list("ABCDEF")
    assert len({t.marker.symbol for t in figure.data if t.showlegend}) == 6  # told apart by more than colour
    filled, hollow = figure.data[:2]
    assert hollow.marker.symbol == f"{filled.marker.symbol}-open" and hollow.marker.color == filled.marker.color
    assert filled.text == ("", "", ", small", ", small") and hollow.text == (", 4 epochs",) * 2
    assert list(hollow.x) == [22.0, 21.0] and list(hollow.y) == [9.0, 8.0]


def test_a_second_panel_shows_the_part_of_the_rate_distortion_figure_that_is_asked_for():
    figure = rate_distortion({"A": [(20.0, 9.0), (30.0, 9.0)], "B": [(25.0, 7.0)]}, closer=(21, 40, 8, 11))
    assert [(list(t.x), t.xaxis) for t in figure.data] == [([20, 30], "x"), ([25], "x"), ([30], "x2")]
    assert figure.layout.xaxis2.range == (21, 40) and figure.layout.yaxis2.range == (8, 11)
    assert [t.name for t in figure.data if t.showlegend] == ["A", "B"]


def test_dots_are_drawn_seed_by_seed():
    figure = dot_panels({"a": {"one": [1.0, 2.0], "two": [3.0]}, "b": {"one": [5.0], "two": [6.0]}})
    assert [list(t.x) for t in figure.data] == [[1, 2, 3], [5, 6]]
    assert list(figure.data[0].y) == ["one", "one", "two"]


def test_probes_and_swaps_have_a_marker_for_each_kind_and_a_line_of_chance_in_each_panel():
    figure = probes_and_swaps(
        {"linear": {"A": [], "B": [(20.0, 80.0)]}, "MLP": {"B, 4 epochs": [(60.0, 81.0)]}}, {"here": (30, 70)}
    )
    assert [(t.name, list(t.x), list(t.y)) for t in figure.data] == [("B", [20], [80]), ("B", [60], [81])]
    filled, hollow = (t.marker.symbol for t in figure.data)
    assert hollow == f"{filled}-open" and filled == CLASS_MARKERS[1]  # the second, with or without points of the first
    assert [shape.x0 for shape in figure.layout.shapes] == [10, 10]
    *titles, note = figure.layout.annotations
    assert [title.text for title in titles] == ["linear", "MLP"] and (note.text, note.x, note.y) == ("here", 30, 70)


def test_blends_are_drawn_pair_by_pair():
    shares = torch.linspace(0, 1, 3)
    sure, pixels = torch.tensor([[0, 0.25, 1], [0, 0.75, 1]]), torch.tensor([[0, 0.5, 1], [0, 0, 1]])
    figure = blend_curves({"A to B": (sure, pixels), "C to D": (pixels, sure)}, shares)
    every, mean, mixed, *_ = figure.data
    assert list(every.y) == [0, 0.25, 1, None, 0, 0.75, 1, None] and list(every.x) == [0, 0.5, 1, None] * 2
    assert list(mean.y) == [0, 0.5, 1] and list(mixed.y) == [0, 0.25, 1] == list(figure.data[4].y)
    assert list(mean.x) == list(mixed.x) == [0, 0.5, 1]
    assert [t.name for t in figure.data if t.showlegend] == ["single blends", "mean", "mean, mixed pixels"]
    assert len({(t.line.dash, t.line.width, t.mode) for t in figure.data}) == 3  # told apart by more than colour


@pytest.mark.parametrize(
    ("draw", "what"),
    [
        (lambda names: training_curves(dict.fromkeys(names, []), dict.fromkeys(names, 1)), "models"),
        (lambda names: recipe_curves(dict.fromkeys(names, []), dict.fromkeys(names, 1)), "recipes"),
        (lambda names: dot_panels(dict.fromkeys(names, {"one": [1]})), "panels"),
        (lambda names: class_scatter({"a": torch.ones(30, 2)}, torch.arange(30) % len(names), names), "classes"),
        (lambda names: rate_distortion(dict.fromkeys(names, [(20, 9)])), "kinds of arms"),
    ],
)
def test_more_than_can_be_told_apart_is_refused(draw, what):
    """As the classes of other data may be."""
    marks = len(CLASS_COLOURS) if what in ("classes", "kinds of arms") else len(LINE_COLOURS)
    draw([f"n{i}" for i in range(marks)])
    with pytest.raises(ValueError, match=f"{marks + 1} {what} cannot be told apart, there are marks for {marks}"):
        draw([f"n{i}" for i in range(marks + 1)])
    assert len(CLASS_MARKERS) == len(CLASS_COLOURS) and len(LINE_DASHES) == len(LINE_COLOURS)


def luminance(colour):
    parts = torch.tensor(colour) / 255
    linear = torch.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return (linear @ torch.tensor([0.2126, 0.7152, 0.0722])).item()


def rgb(colour):
    return [float(int(colour[i : i + 2], 16)) for i in (1, 3, 5)]


def test_every_mark_stands_out_from_the_ground_of_both_themes():
    """A contrast of 3 to 1 (WCAG 2.2, 1.4.11), with what shines through."""
    root = Path(__file__).resolve().parents[1]
    dark = re.search(r"\$body-bg: (#\w{6})", (root / "assets" / "theme-dark.scss").read_text())[1]
    plain = re.findall(r"--ground: (#\w{6})", (root / "tools" / "page_template" / "page.css").read_text())
    assert plain == ["#ffffff", dark]
    points, names = torch.randn(30, 2), [f"c{i}" for i in range(10)]
    history = [dict(epoch=1, test_recon=0.1, test_kl=0.5)]
    figures = [
        training_curves({name: history for name in names[:4]}, dict.fromkeys(names[:4], 0.01)),
        recipe_curves({name: [[0.3, 0.2]] for name in names[:4]}, dict.fromkeys(names[:4], 1.0)),
        class_scatter({"a": points, "b": points}, torch.arange(10).repeat(3), names),
        rate_distortion({name: [(20.0, 9.0)] for name in [*names, "c1, 4 epochs"]}),
        dot_panels({name: {"one": [1.0]} for name in names[:4]}),
        probes_and_swaps({"a probe": {name: [(20.0, 9.0)] for name in names}}, {}),
        blend_curves({"A to B": (torch.ones(2, 3), torch.ones(2, 3))}, torch.linspace(0, 1, 3)),
    ]
    seen, low = set(), []
    for figure in figures:
        parts = [(part, thing) for thing in figure.data for part in (thing.marker, thing.line)]
        parts += [(shape.line, shape) for shape in figure.layout.shapes]
        for part, thing in parts:
            if not part.color:
                continue
            seen.add(part.color)
            share = (getattr(part, "opacity", None) or 1) * (thing.opacity or 1)
            for ground in ("#ffffff", dark):
                mixed = [share * a + (1 - share) * b for a, b in zip(rgb(part.color), rgb(ground), strict=True)]
                a, b = sorted((luminance(mixed), luminance(rgb(ground))))
                if (b + 0.05) / (a + 0.05) < 3:
                    low.append((part.color, share, ground))
    assert low == [] and len(seen) == 10
    assert "opacity" not in (root / "assets" / "figures.js").read_text()  # the page's script makes nothing fainter


def test_scatter_has_one_legend_and_tells_classes_apart_by_shape():
    labels = torch.arange(10).repeat(3)
    maps = {"a": torch.randn(30, 2), "b": torch.randn(30, 2)}
    figure = class_scatter(maps, labels, [f"c{i}" for i in range(10)])
    assert sum(t.showlegend for t in figure.data) == 10
    assert len({t.marker.symbol for t in figure.data}) == 10
    assert sum(len(t.x) for t in figure.data) == 60
    assert {t.x.dtype for t in figure.data} == {np.dtype("int8")}  # a byte each: figures.js counts on it


def test_scatter_keeps_the_form_of_the_map():
    points = torch.tensor([[-80.0, 20], [40, 10], [0, -60]])
    figure = class_scatter({"a": points}, torch.arange(3), ["c0", "c1", "c2"])
    drawn = torch.tensor([[t.x[0], t.y[0]] for t in figure.data])
    torch.testing.assert_close(drawn / drawn[0, 0] * points[0, 0], points, atol=80 / 127, rtol=0)


def test_shown_source_is_the_packages_own():
    import inspect

    from cvae_support.layers import ResnetBlock

    assert inspect.getsource(ResnetBlock).rstrip() in show_source(ResnetBlock).data
    assert "<details>" in show_source(ResnetBlock).data and "<details open>" in show_source(ResnetBlock, open=True).data
