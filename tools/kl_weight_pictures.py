"""Draw what four KL weights make of test images and of noise, as the second post shows it.

    python tools/kl_weight_pictures.py     # trains the four models where they are missing (some ten minutes)

Two rows for each weight, a column for each class: the first test image of the class, encoded (the mean) and decoded;
and one z from N(0, I), decoded as every class, the same throughout. Nothing is selected.
"""

import torch
from torch import Tensor

from cvae_support.checkpoints import load_model
from cvae_support.data import Dataset, load_fashion_mnist
from cvae_support.latents import as_picture, class_grid, first_per_class, mosaic, reconstruct
from cvae_support.study import CONDITIONING, RESULTS_FOLDER
from cvae_support.trained import local_run

PICTURES = RESULTS_FOLDER / "kl_weight.png"
ARMS = ("spatial, weight 0.0005", "spatial, weight 0.002", "spatial", "spatial, weight 0.05")
SEED = 0


def draw(data: Dataset) -> Tensor:
    """The pictures in [0, 1]: (2 * len(ARMS), classes, S, S)."""
    index, rows = first_per_class(data.test_labels, 1), []
    for arm in ARMS:
        model, _ = load_model(local_run(CONDITIONING[arm], data))
        rows += [reconstruct(model, data.test_images[index], data.test_labels[index]).squeeze(1)]
        rows += [class_grid(model, 1, SEED, shared=True).squeeze(1)]
    return torch.stack(rows)


def main() -> None:
    as_picture(mosaic(draw(load_fashion_mnist()))).save(PICTURES, optimize=True)
    print(f"{PICTURES.name}: {PICTURES.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
