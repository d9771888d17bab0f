"""The notebook's way to play with the decoders."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from cvae_support.data import CLASSES
from cvae_support.explore import SLIDERS, WIDGET, Explorer
from cvae_support.export import FIRST_SEED, shipped
from cvae_support.judge import load_judge


@pytest.fixture(scope="module")
def explorer(data):
    return Explorer({"spatial": shipped("spatial")[0], "adaLN": shipped("adaln")[0]}, data)


LIVE = json.loads((Path(__file__).parents[1] / "assets" / "live" / "live.json").read_text())
FIGURE = "application/vnd.plotly.v1+json"


def test_a_notebook_without_widgets_shows_a_figure_and_the_page_nothing(explorer, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # so that it cannot be imported
    bundle = explorer._repr_mimebundle_()
    assert bundle[FIGURE]["data"] and WIDGET not in bundle
    monkeypatch.setenv("QUARTO_DOCUMENT_FILE", "page.qmd")
    assert explorer._repr_mimebundle_() == {"text/markdown": ""}


@torch.no_grad()
def test_the_widgets_draw_what_the_models_draw(explorer, data, monkeypatch):
    kinds = {id(model): name.lower() for name, model in explorer.models.items()}  # which most_active would find
    found = {key: LIVE["decoders"][kind]["active"][:SLIDERS] for key, kind in kinds.items()}
    monkeypatch.setattr(explorer, "most_active", lambda model: found[id(model)])
    box = explorer.widgets()
    monkeypatch.setattr(explorer, "widgets", lambda: box)
    monkeypatch.delattr("ipywidgets.Widget._repr_mimebundle_")  # as in Colab, whose ipywidgets is 7.7
    bundle = explorer._repr_mimebundle_()
    assert bundle[FIGURE]["data"] and bundle[WIDGET]["model_id"] == box.model_id  # a viewer takes the best it can show
    with monkeypatch.context() as colab:
        colab.setitem(sys.modules, "google.colab", sys)
        assert set(explorer._repr_mimebundle_()) == {WIDGET}
    top, _, every, verdicts = box.children
    model, start, end, share, source, shuffle, *tracks = top.children[0].children
    pictures, read = top.children[1].children
    picture, original = pictures.children

    def shown(picture=picture):
        return torch.tensor(list(Image.open(io.BytesIO(picture.value)).resize((28, 28), Image.NEAREST).tobytes()))

    def drawn(z, a, b, amount):
        adaln = explorer.models["adaLN"]
        ends = adaln.embed(torch.tensor([a, b]))
        return (adaln.decode(z, torch.lerp(ends[:1], ends[1:], amount)) * 255).round().flatten()

    z = torch.randn(1, 1, 7, 7, generator=torch.Generator().manual_seed(FIRST_SEED))
    assert (shown() - drawn(z, 7, 9, 0)).abs().max() <= 1
    start.value, end.value, share.value = 1, 3, 50
    assert (shown() - drawn(z, 1, 3, 0.5)).abs().max() <= 1
    row, column = (int(part) - 1 for part in tracks[0].description.removeprefix("row ").split(", col "))
    tracks[0].value = 3
    z[0, 0, row, column] = 3
    assert (shown() - drawn(z, 1, 3, 0.5)).abs().max() <= 1
    before = every.value
    assert original.layout.display == "none"
    source.value = 9  # a test garment, with its own code and class
    boot = data.test_images[(data.test_labels == 9).nonzero()[0]] / 255
    mu, _ = explorer.models["adaLN"].encode(boot, torch.tensor([9]))
    assert (shown() - drawn(mu, 9, 3, 0)).abs().max() <= 1 and every.value != before
    assert original.layout.display is None and (shown(original) - (boot * 255).flatten()).abs().max() == 0
    adaln, y = explorer.models["adaLN"], torch.arange(10)
    seen = load_judge()(adaln.decode(mu.expand(10, -1, -1, -1), adaln.embed(y))).argmax(dim=1)
    assert f"The judge reads: <b>{CLASSES[seen[9]]}</b>" in read.value
    wrong = [f"{CLASSES[i]} as {CLASSES[j]}" for i, j in enumerate(seen.tolist()) if i != j]
    assert wrong and f"adaLN: {', '.join(wrong)}." in verdicts.value
    shuffle.click()
    z = torch.randn(1, 1, 7, 7, generator=torch.Generator().manual_seed(FIRST_SEED + 1))
    assert source.label == "noise" and (shown() - drawn(z, 9, 3, 0)).abs().max() <= 1
    before = shown()
    model.value = "spatial"
    assert (shown() - before).abs().max() > 1
