"""The notebook's way to play with the decoders."""

import io

import pytest
import torch
from PIL import Image

from cvae_support.explore import SEED, Explorer
from cvae_support.export import shipped


@pytest.fixture(scope="module")
def explorer(data):
    return Explorer({"spatial": shipped("spatial")[0], "adaLN": shipped("adaln")[0]}, data)


WIDGET, FIGURE = "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"


def test_a_notebook_without_widgets_shows_a_figure_and_the_page_nothing(explorer, monkeypatch):
    monkeypatch.setattr(Explorer, "widgets", lambda self: __import__("a_module_that_is_not_there"))
    bundle = explorer._repr_mimebundle_()
    assert FIGURE in bundle and WIDGET not in bundle
    monkeypatch.setenv("QUARTO_DOCUMENT_FILE", "page.qmd")
    assert explorer._repr_mimebundle_() == {"text/markdown": ""}


@torch.no_grad()
def test_the_widgets_draw_what_the_models_draw(explorer, data, monkeypatch):
    box = explorer.widgets()
    monkeypatch.setattr(explorer, "widgets", lambda: box)
    bundle = explorer._repr_mimebundle_()
    assert FIGURE in bundle and WIDGET in bundle  # a viewer takes the best that it can show
    top, _, every = box.children
    model, start, end, share, source, shuffle, *tracks = top.children[0].children
    picture, read = top.children[1].children

    def shown():
        return torch.tensor(list(Image.open(io.BytesIO(picture.value)).resize((28, 28), Image.NEAREST).tobytes()))

    def drawn(z, a, b, amount):
        adaln = explorer.models["adaLN"]
        ends = adaln.embed(torch.tensor([a, b]))
        return (adaln.decode(z, torch.lerp(ends[:1], ends[1:], amount)) * 255).round().flatten()

    z = torch.randn(1, 1, 7, 7, generator=torch.Generator().manual_seed(SEED))
    assert (shown() - drawn(z, 7, 9, 0)).abs().max() <= 1
    start.value, end.value, share.value = 1, 3, 50
    assert (shown() - drawn(z, 1, 3, 0.5)).abs().max() <= 1
    row, column = (int(part) - 1 for part in tracks[0].description.removeprefix("row ").split(", col "))
    tracks[0].value = 3
    z[0, 0, row, column] = 3
    assert (shown() - drawn(z, 1, 3, 0.5)).abs().max() <= 1
    before = every.value
    source.value = 9  # a test garment, with its own code and class
    boot = data.test_images[(data.test_labels == 9).nonzero()[0]] / 255
    mu, _ = explorer.models["adaLN"].encode(boot, torch.tensor([9]))
    assert (shown() - drawn(mu, 9, 3, 0)).abs().max() <= 1 and every.value != before
    shuffle.click()
    assert source.value is None and "Ankle boot" in read.value
    model.value = "spatial"
    assert tracks[0].description.startswith("row")
