"""The page's live decoder for a notebook: the same controls, drawn by torch in the kernel, with ipywidgets.

Where there are no widgets (a notebook that is printed, or looked at without a kernel) a static figure stands instead.
"""

import html
import io
import os
import sys
from typing import Any

import torch
from torch import Tensor

from cvae_support.data import Dataset
from cvae_support.export import FIRST_SEED
from cvae_support.figures import image_grid, show
from cvae_support.judge import load_judge
from cvae_support.latents import as_picture, blend, class_grid, encode_means, first_per_class, mosaic, noise
from cvae_support.models import VAE

WIDGET = "application/vnd.jupyter.widget-view+json"
SLIDERS = 6


def as_png(pixels: Tensor, scale: int) -> bytes:
    """Grey pixels (H, W) in [0, 1] as a PNG, each of them scale wide and high."""
    file = io.BytesIO()
    as_picture(pixels.repeat_interleave(scale, 0).repeat_interleave(scale, 1)).save(file, "PNG")
    return file.getvalue()


class Explorer:
    """Both models under the reader's hands: class, blend, latent, test garment; shown as the last value of a cell."""

    def __init__(self, models: dict[str, VAE], data: Dataset):
        self.models, self.data = models, data

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        if "QUARTO_DOCUMENT_FILE" in os.environ:  # the page has its own, in the browser
            return {"text/markdown": ""}
        grids = [class_grid(model, 1, FIRST_SEED, shared=True).squeeze(1) for model in self.models.values()]
        alt = "Every class from one z, a row for each model."
        still = show(image_grid(torch.stack(grids), list(self.models), self.data.classes), alt)
        try:
            box = self.widgets()
        except ImportError:  # no ipywidgets
            return still._repr_mimebundle_()
        # By hand: the ipywidgets of Colab, 7.7, has no method that gives it.
        live = {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": box.model_id}}
        # A viewer takes the best it can show. Which that is for Colab, which always has a kernel, is not left to it.
        return live if "google.colab" in sys.modules else still._repr_mimebundle_() | live

    def most_active(self, model: VAE) -> list[int]:
        """The latents whose mean varies most over the test images (Burda 2016): those the page has sliders for."""
        means = encode_means(model, self.data.test_images, self.data.test_labels)
        return means.var(dim=0).argsort(descending=True)[:SLIDERS].tolist()

    def widgets(self) -> Any:
        """The controls and what they draw, as one widget."""
        import ipywidgets as w

        classes, models = self.data.classes, self.models
        device = next(next(iter(models.values())).parameters()).device
        judge = load_judge(device=device)
        chosen = first_per_class(self.data.test_labels, 1)
        images, labels = self.data.test_images[chosen], self.data.test_labels[chosen]
        codes = {name: encode_means(model, images, labels) for name, model in models.items()}
        active = {name: self.most_active(model) for name, model in models.items()}

        model = w.ToggleButtons(options=list(models), description="model", value=list(models)[-1])
        options = [(name, label) for label, name in enumerate(classes)]
        start = w.Dropdown(options=options, value=7, description="class")
        end = w.Dropdown(options=options, value=9, description="blend with")
        share = w.IntSlider(description="share (%)", max=100)
        source = w.Dropdown(
            options=[("noise", -1), *((f"test garment: {classes[y]}", i) for i, y in enumerate(labels.tolist()))],
            description="z from",
        )
        shuffle = w.Button(description="Shuffle z")
        tracks = [w.FloatSlider(min=-3, max=3, step=0.1) for _ in range(SLIDERS)]
        picture, original, every = w.Image(width=224), w.Image(width=112), w.Image()
        read, verdicts = w.HTML(), w.HTML()
        seed, busy = [FIRST_SEED], [False]
        edits: dict[int, float] = {}

        def latent(name: str) -> Tensor:
            z = noise(models[name], 1, seed[0]) if source.value < 0 else codes[name][source.value].view(1, 1, 7, 7)
            z = z.flatten().clone()
            for i, value in edits.items():
                z[i] = value
            return z.view(1, 1, 7, 7)

        @torch.no_grad()
        def draw(*_: Any) -> None:
            busy[0] = True  # setting the sliders is not the reader's doing
            z = latent(model.value)
            for track, i in zip(tracks, active[model.value], strict=True):
                track.value, track.description = float(z.flatten()[i]), f"row {i // 7 + 1}, col {i % 7 + 1}"
            busy[0] = False
            drawn = blend(models[model.value], start.value, end.value, torch.tensor([share.value / 100]), z)
            picture.value = as_png(drawn[0], 8)
            original.layout.display = "none" if source.value < 0 else None
            if source.value >= 0:
                original.value = as_png(images[source.value, 0] / 255, 4)
            odds = judge(drawn[:, None]).softmax(dim=1)[0]
            lines = [f"<tr><td>{html.escape(n)}<td>{p:.0%}" for n, p in zip(classes, odds.tolist(), strict=True)]
            top = html.escape(classes[int(odds.argmax())])
            read.value = f"The judge reads: <b>{top}</b><table>{''.join(lines)}</table>"
            y = torch.arange(len(classes))
            rows = {n: m.decode(latent(n).expand(len(y), -1, -1, -1), m.embed(y)) for n, m in models.items()}
            every.value = as_png(mosaic(torch.stack([row.squeeze(1) for row in rows.values()])), 2)
            said = []
            for name, row in rows.items():
                seen = judge(row).argmax(dim=1).tolist()
                wrong = [f"{classes[i]} as {classes[j]}" for i, j in enumerate(seen) if i != j]
                said.append(f"{name}: {', '.join(wrong) or 'each as the class that was asked for'}")
            verdicts.value = f"The judge reads. {html.escape('; '.join(said))}."

        def moved(track: int, value: float) -> None:
            if not busy[0]:
                edits[active[model.value][track]] = value
                draw()

        def fresh(*_: Any) -> None:
            edits.clear()
            if source.value >= 0:
                start.value, share.value = int(labels[source.value]), 0
            draw()

        def shuffled(_: Any) -> None:
            seed[0] += 1
            if source.value < 0:
                fresh()
            source.value = -1  # which draws, if it was not

        for control in (model, start, end, share):
            control.observe(draw, "value")
        for i, track in enumerate(tracks):
            track.observe(lambda change, i=i: moved(i, change["new"]), "value")
        source.observe(fresh, "value")
        shuffle.on_click(shuffled)
        draw()
        names = w.HTML(f"Every class from this z, {' above '.join(models)}: {', '.join(map(html.escape, classes))}.")
        controls = w.VBox([model, start, end, share, source, shuffle, *tracks])
        return w.VBox([w.HBox([controls, w.VBox([w.HBox([picture, original]), read])]), names, every, verdicts])
