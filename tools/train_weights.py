"""Train the models that ship with the package, one after the other, and put their weights in its folder.

    python tools/train_weights.py            # go on where an earlier call stopped

Interrupt it whenever you like: a second call resumes the model it was in and skips those that are done.
"""

from pathlib import Path

import torch
from PIL import Image

from cvae_support.checkpoints import SHIPPED_FOLDER, load_checkpoint, load_model, local_run, save_checkpoint
from cvae_support.config import Config
from cvae_support.data import Dataset, load_fashion_mnist
from cvae_support.evaluation import class_grid, first_per_class, latent_map, reconstruct
from cvae_support.models import VAE

# At a quarter of the tutorial's width, which two CPU cores train in two to three minutes an epoch.
SMALL = dict(width=0.25, epochs=10)
CONFIGS = [
    Config("spatial", recipe="fast", learning_rate=3e-3, **SMALL),
    Config("adaln", recipe="fast", learning_rate=3e-3, **SMALL),
    Config("spatial", recipe="plain", **SMALL),
]
MAPPED = 300  # test images of each class in the t-SNE maps that ship
PICTURE = Path(__file__).resolve().parents[1] / "assets" / "samples.png"  # the README's


def half_precision_cost(model: VAE, half: dict[str, torch.Tensor], data: Dataset) -> dict[str, float]:
    """How far pixels of 500 reconstructions move when the weights are rounded to half precision."""
    index = first_per_class(data.test_labels, 50)
    images, labels = data.test_images[index], data.test_labels[index]
    before = reconstruct(model, images, labels)
    model.load_state_dict({name: tensor.float() for name, tensor in half.items()})
    moved = (reconstruct(model, images, labels) - before).abs()
    return {"max_pixel_difference": moved.max().item(), "mean_pixel_difference": moved.mean().item()}


def draw_samples(model: VAE) -> None:
    """The picture in the README: eight samples of each class, classes in columns."""
    grid = class_grid(model, 8, seed=0).permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
    picture = Image.fromarray((grid * 255).round().byte().numpy())
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(PICTURE, optimize=True)


def main() -> None:
    data = load_fashion_mnist()
    for config in CONFIGS:
        final = local_run(config, data)
        tensors, record = load_checkpoint(final)
        half = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
        cost = half_precision_cost(load_model(final)[0], half, data)
        shipped = SHIPPED_FOLDER / f"{config.name}.json"
        save_checkpoint(shipped, half, config, data=record["data"], history=record["history"], half_precision=cost)
        if config.recipe == "fast":
            latent_map(*load_model(shipped), data, MAPPED, SHIPPED_FOLDER)
        if config.model == "adaln":
            draw_samples(load_model(shipped)[0])


if __name__ == "__main__":
    main()
