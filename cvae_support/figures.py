"""The figures: image grids, curves and scatter plots, and the one way they reach the page.

Every figure is a plain Plotly figure wrapped in `show`, which gives it an accessible name and lets the page's
own script (assets/figures.js) draw it in the theme of the moment. A grid of images is a single WebP inside the figure:
a twentieth of the bytes, and of the page elements, of a heatmap for each image.
"""

import base64
import html
import io
import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import torch
from PIL import Image
from plotly.subplots import make_subplots
from torch import Tensor

from cvae_support.latents import mosaic

# One colour and one marker for each class: colour is never the only cue. The first four are those of the diagrams'
# lines. Each has a contrast of 3 to both themes' grounds, which leaves no room for marks that are partly transparent.
CLASS_COLOURS = (
    "#2f74bf", "#b8650a", "#14806f", "#a34c81", "#8480de", "#776b0a", "#069cb9", "#f2586c", "#7b7e8b", "#4c920c",
)  # fmt: skip
CLASS_MARKERS = (
    "circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star", "pentagon", "hexagram",
)  # fmt: skip
LINE_COLOURS = CLASS_COLOURS[:4]
LINE_DASHES = ("solid", "dash", "dot", "dashdot")
GAP = 1  # dark pixels right of and below every image of a grid, so that neighbours do not touch


class Shown:
    """A figure with an accessible name, as Jupyter, Colab and the site each can show it."""

    def __init__(self, figure: go.Figure, alt: str):
        self.figure, self.alt = figure, alt

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        name = html.escape(self.alt, quote=True)
        # On the site only the data: figures.js draws it with the one copy of Plotly the page has.
        # Plotly escapes <, which could end the script, and needlessly > and /.
        data = self.figure.to_json().replace("\\u002f", "/").replace("\\u003e", ">")
        data = re.sub(r"\d+\.\d{7,}(e-\d+)?", lambda number: f"{float(number[0]):.6g}", data)  # a pixel is coarser
        data = f'<script type="application/json">{data}</script>'
        div = f'<div class="cvae-figure" role="img" aria-label="{name}">{data}</div>'
        if "QUARTO_DOCUMENT_FILE" in os.environ:
            # As Markdown: for any output of type text/html Quarto has the page load require.js and jQuery from a CDN.
            return {"text/markdown": f"```{{=html}}\n{div}\n```"}
        if "CVAE_SITE" in os.environ:
            return {"text/html": div}
        body = self.figure.to_html(full_html=False, include_plotlyjs="cdn", config={"displaylogo": False})
        return {
            "application/vnd.plotly.v1+json": json.loads(self.figure.to_json()),
            "text/html": f'<div role="img" aria-label="{name}">{body}</div>',
        }


def show(figure: go.Figure, alt: str) -> Shown:
    """The figure as the last value of a cell; alt says what the picture shows to who cannot see it."""
    return Shown(figure, alt)


def finish(figure: go.Figure, height: int, aspect: float | None = None, legend_y: float = -0.3) -> go.Figure:
    """The look all figures share; a legend stands below, at legend_y.

    aspect (height / width of the plot area) lets the page keep pixels square.
    """
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        if axis.title.text:
            axis.title.standoff = 6  # pixels: close to the numbers it belongs to
    figure.update_layout(
        template="none",  # Plotly's own would add 7 KB to every figure
        height=height,
        margin=dict(l=10, r=16, t=30, b=10),  # half of the last number on an axis stands beside it
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font=dict(size=13),
        legend=dict(orientation="h", yanchor="top", y=legend_y, x=0),
        meta={"aspect": aspect},
    )
    return figure


def as_webp(pixels: Tensor) -> str:
    """Grey pixels (H, W) of type uint8 as the address of a lossless WebP, a quarter smaller than a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "WEBP", lossless=True, quality=100, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def image_grid(images: Tensor, rows: Sequence[str], columns: Sequence[str], column_title: str = "") -> go.Figure:
    """Images (R, C, S, S) in [0, 1] as one picture; hover names row and column, and says how bright the image is.

    rows and columns are the names of the R rows and the C columns.
    Raises ValueError where names and images do not fit together.
    """
    if images.ndim != 4 or images.shape[:2] != (len(rows), len(columns)):
        raise ValueError(f"{len(rows)} rows and {len(columns)} columns named, images of shape {tuple(images.shape)}")
    images = images.detach().cpu().clamp(0, 1)  # one range for all: contrasts can be compared
    cell = images.shape[-1] + GAP
    grey = (images * 19).round().mul(255 / 19).round().to(torch.uint8)  # the eye asks for no more than 20 greys here
    picture = mosaic(torch.nn.functional.pad(grey, [0, GAP, 0, GAP]))
    first = (images.shape[-1] - 1) / 2  # the middle of the first image; the next is one cell on
    across, down = ([first + cell * i for i in range(len(names))] for names in (columns, rows))
    figure = go.Figure(
        [
            go.Image(source=as_webp(picture), hoverinfo="skip"),
            # Nothing to see: one invisible tile over every image, for the hover text.
            go.Heatmap(
                z=(images.mean(dim=(2, 3)) * 100).round().to(torch.uint8).numpy(), opacity=0, showscale=False,
                x0=first, dx=cell, y0=first, dy=cell,
                hovertemplate=f"%{{y}}<br>{column_title} %{{x}}<br>mean brightness %{{z}} %<extra></extra>",
            ),
        ]
    )  # fmt: skip
    figure.update_xaxes(
        tickvals=across, ticktext=list(columns), range=[-0.5, picture.shape[1] - 0.5], side="top", title=column_title,
        tickangle=0, ticks="", showgrid=False, zeroline=False, constrain="domain", fixedrange=True, automargin=True,
        ticklabeloverflow="allow",
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=down, ticktext=list(rows), range=[picture.shape[0] - 0.5, -0.5], scaleanchor="x",
        ticks="", ticklabelstandoff=4, showgrid=False, zeroline=False, constrain="domain", fixedrange=True,
        automargin=True,
    )  # fmt: skip
    aspect = len(rows) / len(columns)
    return finish(figure, height=int(560 * aspect) + 80, aspect=aspect)


def check_marks(count: int, what: str, marks: Sequence[str]) -> None:
    """Raise ValueError where there are not marks enough to tell what is drawn apart."""
    if count > len(marks):
        raise ValueError(f"{count} {what} cannot be told apart, there are marks for {len(marks)}: draw fewer at once")


def training_curves(histories: dict[str, list[dict[str, float]]], kl_weights: dict[str, float]) -> go.Figure:
    """Test reconstruction loss and weighted KL against epochs, side by side, one line a model.

    Raises ValueError for more than four models.
    """
    check_marks(len(histories), "models", LINE_COLOURS)
    titles = ["reconstruction (MSE)", "KL × weight"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.22)  # room for long tick labels
    for line, (name, history) in enumerate(histories.items()):
        epochs = [row["epoch"] for row in history]
        for column, (key, factor) in enumerate([("test_recon", 1.0), ("test_kl", kl_weights[name])], start=1):
            figure.add_scatter(
                x=epochs, y=[row[key] * factor for row in history], name=name, legendgroup=name,
                showlegend=column == 1, mode="lines", row=1, col=column,
                line=dict(color=LINE_COLOURS[line], dash=LINE_DASHES[line]),
                hovertemplate=f"{name}, epoch %{{x}}: %{{y:.5f}}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(tickformat=".4f", automargin=True)
    return finish(figure, height=360)


def recipe_curves(runs: dict[str, list[list[float]]], minutes: dict[str, float]) -> go.Figure:
    """Test loss of every seed of each recipe, against epochs and against time, both on a logarithmic axis.

    runs holds, for each recipe, a list of losses per epoch for each seed; minutes, what an epoch takes.
    Raises ValueError for more than four recipes.
    """
    check_marks(len(runs), "recipes", LINE_COLOURS)
    figure = make_subplots(rows=1, cols=2, subplot_titles=["against epochs", "against minutes"], shared_yaxes=True)
    for line, (name, seeds) in enumerate(runs.items()):
        for number, losses in enumerate(seeds):
            for column, scale in enumerate([1.0, minutes[name]], start=1):
                figure.add_scatter(
                    x0=scale, dx=scale, y=[round(loss, 5) for loss in losses], name=name, legendgroup=name,
                    showlegend=column == 1 and number == 0, mode="lines", row=1, col=column,
                    line=dict(color=LINE_COLOURS[line], dash=LINE_DASHES[line], width=1.5),
                    hovertemplate=f"{name}: %{{y:.5f}}<extra></extra>",
                )  # fmt: skip
    figure.update_xaxes(type="log", tickvals=[1, 2, 5, 10, 20, 50, 100])
    figure.update_xaxes(title="epochs", col=1)
    figure.update_xaxes(title="minutes", col=2)
    figure.update_yaxes(tickformat=".3f", automargin=True)
    return finish(figure, height=360)


def class_scatter(maps: dict[str, Tensor], labels: Tensor, classes: Sequence[str]) -> go.Figure:
    """Points (N, 2) of each map side by side, coloured and marked by label (N,), with one legend.

    Raises ValueError for more than ten classes.
    """
    check_marks(len(classes), "classes", CLASS_COLOURS)
    figure = make_subplots(rows=1, cols=len(maps), subplot_titles=list(maps) if len(maps) > 1 else None)
    for column, points in enumerate(maps.values(), start=1):
        # The axes have no unit, so a byte for each coordinate will do: a step is less than two pixels.
        whole = (points / points.abs().max() * 127).round().to(torch.int8)
        for label, name in enumerate(classes):
            x, y = whole[labels == label].T.numpy()
            figure.add_scatter(
                x=x, y=y, name=name, legendgroup=name, showlegend=column == 1, mode="markers", row=1, col=column,
                marker=dict(size=4, color=CLASS_COLOURS[label], symbol=CLASS_MARKERS[label]),
                hovertemplate=f"{name}<extra></extra>",
            )  # fmt: skip
    # The axes of a t-SNE map mean nothing: no ticks to read anything off.
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False)
    for column in range(1, len(maps) + 1):
        figure.update_yaxes(scaleanchor=f"x{column if column > 1 else ''}", col=column)
    return finish(figure, height=480, legend_y=-0.05).update_layout(legend=dict(itemsizing="constant"))


def arm_scatter(panels: dict[str, dict[str, list[tuple[float, float]]]], hover: str) -> go.Figure:
    """A panel for each title: for each arm one point (x, y) a seed, and the arm's name and hover's text on hovering.

    Arms alike up to the first comma share a colour, a marker and a name in the legend; open markers are of longer runs,
    with a dot in them where these are of full width. Raises ValueError for more than ten names.
    """
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=list(panels) if len(panels) > 1 else None)
    families = list(dict.fromkeys(arm.split(",")[0] for runs in panels.values() for arm in runs))
    check_marks(len(families), "kinds of arms", CLASS_COLOURS)
    for column, runs in enumerate(panels.values(), start=1):
        alike: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
        for arm, points in runs.items():
            hollow = "-open-dot" if "full width" in arm else "-open" if "epochs" in arm else ""
            name = arm.split(",")[0]
            alike.setdefault((name, hollow), []).extend((*point, arm.removeprefix(name)) for point in points)
        for (name, hollow), marks in alike.items():
            if not marks:
                continue
            x, y, details = zip(*marks, strict=True)
            number = families.index(name)
            figure.add_scatter(
                x=[round(value, 2) for value in x], y=[round(value, 2) for value in y],  # finer than a marker is
                text=details, name=name, legendgroup=name, mode="markers", row=1, col=column,
                showlegend=name not in [trace.name for trace in figure.data],
                marker=dict(
                    size=14 if hollow else 10, color=CLASS_COLOURS[number],  # room for a dot
                    symbol=CLASS_MARKERS[number] + hollow, line=dict(width=2 if hollow else 0),
                ),
                hovertemplate=f"%{{fullData.name}}%{{text}}<br>{hover}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def rate_distortion(
    runs: dict[str, list[tuple[float, float]]], closer: tuple[float, float, float, float] | None = None
) -> go.Figure:
    """Distortion against rate: for each arm one (rate, distortion) a seed, in nats and squared error of an image.

    closer, two rates and two distortions, adds a panel of what lies between them. Raises ValueError for more than ten
    kinds of arms.
    """
    panels = {"all": runs}
    if closer:
        left, right, low, high = closer
        panels["a part, closer"] = {
            arm: [point for point in points if left < point[0] < right and low < point[1] < high]
            for arm, points in runs.items()
        }
    figure = arm_scatter(panels, "%{x:.1f} nats, squared error %{y:.2f}")
    figure.update_xaxes(title="rate (nats an image)")
    figure.update_xaxes(
        type="log", tickvals=[5, 10, 20, 50, 100], col=1,
        range=[0.69, 2.3],  # 5 to 200 nats, as powers of ten
    )  # fmt: skip
    figure.update_yaxes(title="distortion", rangemode="tozero", col=1)
    if closer:
        figure.update_xaxes(range=[left, right], col=2)
        figure.update_yaxes(range=[low, high], col=2)
    return finish(figure, height=460, legend_y=-0.22)


def probes_and_swaps(
    panels: dict[str, dict[str, list[tuple[float, float]]]], notes: dict[str, tuple[float, float]]
) -> go.Figure:
    """How often a label swap succeeds against how often a probe reads the class: for each arm one (x, y) a seed, in %.

    panels maps the name of a probe to its arms. notes are words for the first panel, and where they begin. A dotted
    line is where a probe guesses. Raises ValueError for more than ten kinds of arms.
    """
    figure = arm_scatter(panels, "probe %{x:.0f} %, label swap %{y:.0f} %")
    figure.add_vline(x=10, line=dict(dash="dot", width=1, color=CLASS_COLOURS[8]))
    for words, (x, y) in notes.items():
        figure.add_annotation(x=x, y=y, text=words, showarrow=False, xanchor="left", font=dict(size=11), row=1, col=1)
    figure.update_xaxes(range=[0, 100], dtick=25, title="read off z, %")
    figure.update_yaxes(range=[0, 100], dtick=25)
    figure.update_yaxes(title="label swap succeeds, %", col=1)
    return finish(figure, height=460, legend_y=-0.22)


def dot_panels(panels: dict[str, dict[str, list[float]]]) -> go.Figure:
    """Side by side, a panel for each measure: a row for each arm, in it a dot for every seed.

    panels maps the title of a measure to its arms, the same in each, and their values.
    Raises ValueError for more than four panels.
    """
    check_marks(len(panels), "panels", LINE_COLOURS)
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=list(panels), shared_yaxes=True)
    for column, (title, arms) in enumerate(panels.items(), start=1):
        values = [(value, name) for name, seeds in arms.items() for value in seeds]
        figure.add_scatter(
            x=[value for value, _ in values], y=[name for _, name in values], mode="markers", showlegend=False,
            marker=dict(size=9, color=LINE_COLOURS[column - 1], symbol=CLASS_MARKERS[column - 1]),
            hovertemplate=f"%{{y}}, {title}: %{{x:.4g}}<extra></extra>", row=1, col=column,
        )  # fmt: skip
    figure.update_xaxes(rangemode="tozero", nticks=4, automargin="height")  # sideways too, Plotly may go in circles
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=True)
    return finish(figure, height=120 + 30 * len(next(iter(panels.values()))))


def blend_curves(blends: dict[str, tuple[Tensor, Tensor]], shares: Tensor) -> go.Figure:
    """How sure a judge is of the second class along the way from one class to another: a panel for each pair.

    blends holds, for each pair, two sets of probabilities (N, K) over the shares (K,): of blended embeddings, shown as
    N thin lines and their mean, and of mixed pixels, of which only the mean is drawn.
    """
    figure = make_subplots(rows=1, cols=len(blends), subplot_titles=list(blends), shared_yaxes=True)
    for column, (sure, pixels) in enumerate(blends.values(), start=1):
        every = torch.nn.functional.pad(sure, (0, 1), value=math.nan).flatten()  # one trace, with a gap after each
        lines = [
            ("single blends", [*shares.tolist(), None], every, dict(color=CLASS_COLOURS[8], width=0.7), "lines"),
            ("mean", shares.tolist(), sure.mean(dim=0), dict(color=LINE_COLOURS[0], width=3), "lines+markers"),
            (
                "mean, mixed pixels",
                shares.tolist(),
                pixels.mean(dim=0),
                dict(color=LINE_COLOURS[1], width=2, dash="dot"),
                "lines",
            ),
        ]
        for name, x, y, line, mode in lines:
            figure.add_scatter(
                x=x * (len(y) // len(x)),
                y=[None if math.isnan(value) else round(value, 3) for value in y.tolist()],
                name=name, legendgroup=name, showlegend=column == 1, mode=mode, row=1, col=column, line=line,
                marker=dict(size=6), hovertemplate=f"{name}, share %{{x:.0%}}: %{{y:.2f}}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(tickformat=".0%", nticks=3, title="share")
    figure.update_yaxes(range=[-0.03, 1.03], automargin=True)
    figure.update_yaxes(title="probability", col=1)
    return finish(figure, height=340).update_layout(margin=dict(t=50))  # titles of two lines


def show_source(*objects: Any, open: bool = False) -> Any:
    """The package's own source of these functions and classes, as Markdown: shown, never pasted. Folded if not open."""
    import inspect
    from pathlib import Path

    from IPython.display import Markdown

    parts = []
    for thing in objects:
        file = Path(inspect.getsourcefile(thing)).name
        code = inspect.getsource(thing).rstrip()
        details = "<details open>" if open else "<details>"
        parts.append(
            f"{details}\n<summary>Source: <code>{thing.__name__}</code> in <code>cvae_support/{file}</code></summary>"
            f"\n\n```python\n{code}\n```\n\n</details>"
        )
    return Markdown("\n\n".join(parts))
