"""What is drawn and measured: samples, reconstructions, paths through the latent space, and maps of it.

Functions that draw noise take a seed of their own, so that a figure does not depend on what ran before it, and
every model is shown the same z.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cvae_support.checkpoints import SHIPPED_FOLDER
from cvae_support.data import Dataset, to_float
from cvae_support.files import cache_folder, write_atomically
from cvae_support.models import VAE

AT_ONCE = 100  # images through a model: a CPU takes longer over larger batches
TSNE = dict(n_components=2, perplexity=30, random_state=42)


def noise(model: VAE, count: int, seed: int) -> Tensor:
    """z (count, 1, S/4, S/4) from N(0, I), the same for every model that has this latent shape."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(model.latent_shape(count), generator=generator).to(next(model.parameters()).device)


@torch.no_grad()
def class_grid(model: VAE, per_class: int, seed: int, shared: bool = False) -> Tensor:
    """Samples of every class: (num_classes, per_class, S, S).

    shared=False draws a z for every image; shared=True draws per_class of them and decodes each as every class.
    """
    classes = model.config.num_classes
    z = noise(model, per_class if shared else classes * per_class, seed)
    z = z.repeat(classes, 1, 1, 1) if shared else z
    y = torch.arange(classes).repeat_interleave(per_class)
    return model.decode(z, model.embed(y)).view(classes, per_class, *[model.config.image_size] * 2)


@torch.no_grad()
def reconstruct(model: VAE, images: Tensor, labels: Tensor) -> Tensor:
    """Decode the mean of q(z|x, y), not a sample of it: (B, 1, S, S) uint8 -> (B, 1, S, S) in [0, 1]."""
    mu, _ = model.encode(to_float(images), labels)
    return model.decode(mu, model.embed(labels))


@torch.no_grad()
def interpolate(model: VAE, pair: Tensor, label: int, steps: int) -> Tensor:
    """From one image of a class to another along the straight line between their means: (steps, S, S).

    pair (2, 1, S, S) uint8.
    """
    y = torch.full((2,), label, device=pair.device)
    mu, _ = model.encode(to_float(pair), y)
    path = torch.lerp(mu[:1], mu[1:], torch.linspace(0, 1, steps, device=mu.device).view(-1, 1, 1, 1))
    return model.decode(path, model.embed(y[:1].expand(steps))).squeeze(1)


@torch.no_grad()
def blend(model: VAE, label_a: int, label_b: int, shares: Tensor, z: Tensor) -> Tensor:
    """One z (1, 1, S/4, S/4) under (1 - a) c_A + a c_B for each share a of (K,): images (K, S, S).

    Raises ValueError if the model takes no label.
    """
    if not model.conditional:
        raise ValueError("an unconditional model has no classes to blend")
    c_a, c_b = (model.embed(torch.tensor([label])) for label in (label_a, label_b))
    a = shares.to(z.device).view(-1, *[1] * (c_a.ndim - 1))
    return model.decode(z.expand(len(shares), -1, -1, -1), torch.lerp(c_a, c_b, a)).squeeze(1)


def mosaic(images: Tensor) -> Tensor:
    """Images (R, C, S, S) as one picture, edge to edge: (R * S, C * S)."""
    return images.transpose(1, 2).flatten(2).flatten(0, 1)


def as_picture(pixels: Tensor) -> Image.Image:
    """Grey pixels (H, W) in [0, 1] as a picture of 256 levels."""
    return Image.fromarray((pixels * 255).round().byte().cpu().numpy())


def first_per_class(labels: Tensor, per_class: int) -> Tensor:
    """The indices of the first per_class images of every class, classes in order."""
    return torch.cat([(labels == label).nonzero().flatten()[:per_class] for label in labels.unique()])


@torch.no_grad()
def encode_all(model: VAE, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """mu and log_var of q(z|x, y) of every image, each (N, 1, S/4, S/4). images (N, 1, S, S) uint8."""
    pairs = zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
    mu, log_var = zip(*(model.encode(to_float(x), y) for x, y in pairs), strict=True)
    return torch.cat(mu), torch.cat(log_var)


def encode_means(model: VAE, images: Tensor, labels: Tensor) -> Tensor:
    """The mean of q(z|x, y) of every image: (N, latents). images (N, 1, S, S) uint8."""
    return encode_all(model, images, labels)[0].flatten(1)


def latent_map(
    model: VAE, record: dict[str, Any], data: Dataset, per_class: int, keep_in: Path | None = None
) -> tuple[Tensor, Tensor]:
    """t-SNE (van der Maaten & Hinton 2008) of the means of the first test images of every class.

    Returns the points (N, 2) and the labels (N,). The map takes seconds to compute, so it is kept beside the
    weights (or, if it had to be computed, in keep_in or the cache) and used again as long as weights, data and
    settings are the same.
    """
    index = first_per_class(data.test_labels, per_class)
    labels = data.test_labels[index].cpu()
    made_from = {"weights": record["sha256"], "data": data.checksum, "settings": f"{per_class} {TSNE}"}
    name = f"{model.config.name}.tsne.safetensors"
    kept = (keep_in or cache_folder() / "tsne") / name
    for path in (SHIPPED_FOLDER / name, kept):
        try:
            with safe_open(path, framework="pt") as file:
                if file.metadata() == made_from:
                    return file.get_tensor("points"), labels
        except (OSError, SafetensorError):
            pass  # absent or damaged: it can always be computed again

    from sklearn.manifold import TSNE as Tsne  # takes a second to import, and is seldom needed

    print(f"{model.config.name}: computing the t-SNE map of {len(index)} test images")
    means = encode_means(model, data.test_images[index], data.test_labels[index])
    points = torch.from_numpy(Tsne(**TSNE).fit_transform(means.cpu().numpy())).float()
    try:
        write_atomically(kept, save({"points": points}, metadata=made_from))
    except OSError as error:
        print(f"the map could not be kept in {kept.parent}: {error}")
    return points, labels
