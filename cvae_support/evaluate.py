"""Every measure of one model: its samples beside the test images, its latents beside the prior and the labels.

`evaluate` is what the study and `python -m cvae_support evaluate` call. `floors` and `reconstructions` are the rows
to read its numbers beside. All are for Fashion-MNIST: the judges know no other classes.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cvae_support.data import TEST_BATCH, Dataset, to_float
from cvae_support.judge import AnyJudge, features
from cvae_support.latents import AT_ONCE, class_grid, encode_all, first_per_class, noise
from cvae_support.metrics import (
    active_units,
    aggregate_gap,
    fit_classifier,
    frechet_distance,
    kernel_distance,
    kl_per_dimension,
    linear_probe,
    mlp_probe,
    nearest_distance,
    precision_recall_density_coverage,
    style_consistency,
)
from cvae_support.models import VAE, seeded

SAMPLES = 10_000  # as many of every class; never fewer for a number that is reported: the bias grows
TRAIN = 10_000  # training images, as many of every class, for class Gaussians, and as "real" samples
QUERIES = 1_000  # of the samples, and of the test images, to look for their nearest training image
SWAPPED = 2_500  # test images decoded as another class
SHARED_Z = 128  # z decoded as every class, for the style

# Of every measure: its name in a table, and which way is better.
MEASURES = {
    "conditional_accuracy": ("conditional accuracy", "higher"),
    "conditional_accuracy_second": ("conditional accuracy, second judge", "higher"),
    "classification_accuracy_score": ("classification accuracy score", "higher"),
    "frechet_distance": ("Fréchet distance", "lower"),
    "frechet_distance_second": ("Fréchet distance, second judge", "lower"),
    "kernel_distance": ("kernel distance", "lower"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
    "density": ("density", "higher"),
    "coverage": ("coverage", "higher"),
    "nearest_distance": ("distance to the nearest training image", None),
    "nearest_ratio": ("the same, test images = 1", None),
    "prior_frechet_distance": ("Fréchet distance of z from the prior", "lower"),
    "test_recon": ("test reconstruction (MSE)", "lower"),
    "test_kl": ("test KL, mean over latents (nats)", None),
    "distortion": ("distortion, squared error an image", "lower"),
    "rate": ("rate (nats an image)", None),
    "active_units": ("active units", None),
    "aggregate_gap": ("aggregate posterior to prior (nats)", "lower"),
    "class_aggregate_gap": ("the same, class by class (nats)", "lower"),
    "aggregate_kernel_distance": ("the same, kernel distance", "lower"),
    "probe_linear_accuracy": ("linear probe of y", None),
    "probe_mlp_accuracy": ("MLP probe of y", None),
    "probe_information": ("I(z; y), lower bound (nats)", None),
    "label_swap_accuracy": ("label swap accuracy", "higher"),
    "wrong_label_mse": ("MSE with a wrong label", None),
    "style": ("style consistency", None),  # a decoder deaf to y would score highest
    "style_baseline": ("the same, z permuted", None),
}  # fmt: skip


class Encoded(NamedTuple):
    """mu, log_var and a sample z of q(z|x, y), each (N, 1, S/4, S/4)."""

    mu: Tensor
    log_var: Tensor
    z: Tensor


class Real(NamedTuple):
    """What is compared with, the same for every model: of the test images, and of TRAIN training images."""

    features: Tensor  # (N, D), of the test images, by the judge
    second_features: Tensor  # the same by the second judge
    train_index: Tensor  # (TRAIN,), of the training images used, classes in order
    nearest: float  # mean distance from a test image to the nearest training image


def encode(model: VAE, images: Tensor, labels: Tensor) -> Encoded:
    """q(z|x, y) of images (N, 1, S, S) uint8, and z with the noise that training.test_loss uses."""
    return with_sample(*encode_all(model, images, labels))


def with_sample(mu: Tensor, log_var: Tensor) -> Encoded:
    """Add a sample of z, with the noise of training.test_loss, to mu and log_var (N, 1, S/4, S/4)."""
    generator = torch.Generator().manual_seed(0)
    eps = torch.cat([torch.randn(part.shape, generator=generator) for part in mu.split(TEST_BATCH)]).to(mu.device)
    return Encoded(mu, log_var, mu + torch.exp(0.5 * log_var) * eps)


@torch.no_grad()
def decode(model: VAE, z: Tensor, labels: Tensor) -> Tensor:
    """Images (N, 1, S, S) in [0, 1]; an unconditional model makes nothing of the labels."""
    pairs = zip(z.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
    return torch.cat([model.decode(part, model.embed(y)) for part, y in pairs])


@torch.no_grad()
def look(judge: AnyJudge, images: Tensor) -> tuple[Tensor, Tensor]:
    """The judge's features of images (N, 1, S, S), (N, D), and the class it sees in each, (N,)."""
    found = features(judge, images)
    return found, judge.head(found).argmax(1)


def accuracy(said: Tensor, labels: Tensor) -> float:
    """How often the class said, (N,), is the one of labels (N,)."""
    return float((said == labels).double().mean())


@lru_cache(maxsize=1)
def real_side(data: Dataset, judge: AnyJudge, second: AnyJudge) -> Real:
    """What models are compared with, of data and by both judges; computed once and used for every model."""
    test = to_float(data.test_images)
    return Real(
        features(judge, test),
        features(second, test),
        first_per_class(data.train_labels, TRAIN // len(data.classes)),
        mean_nearest(test[first_per_class(data.test_labels, QUERIES // len(data.classes))], data),
    )


def mean_nearest(images: Tensor, data: Dataset) -> float:
    """Mean distance, in pixels from 0 to 1, of images (N, 1, S, S) to the nearest training image."""
    return float(nearest_distance(images.flatten(1), to_float(data.train_images).flatten(1)).mean())


def classification_accuracy_score(images: Tensor, labels: Tensor, data: Dataset, seed: int) -> float:
    """Train a small classifier on the images, test it on the real test images. Ravuri & Vinyals 2019.

    It punishes missing variety, which no judge of single images can see.
    """
    classes, side = len(data.classes), images.shape[-1]

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, classes),
        )  # fmt: skip

    net = fit_classifier(seeded(make, seed), images, labels, epochs=8, seed=seed)
    with torch.no_grad():
        return accuracy(net(to_float(data.test_images)).argmax(1), data.test_labels)


def generation(
    images: Tensor, labels: Tensor, data: Dataset, judge: AnyJudge, second: AnyJudge, seed: int = 0
) -> dict[str, Any]:
    """Images (N, 1, S, S) in [0, 1] of the classes asked for, labels (N,) in order, beside the real test images."""
    real = real_side(data, judge, second)
    (fake, said), (second_fake, second_said) = look(judge, images), look(second, images)
    nearest = mean_nearest(images[:: max(len(images) // QUERIES, 1)], data)
    return {
        "conditional_accuracy": accuracy(said, labels),
        "conditional_accuracy_second": accuracy(second_said, labels),
        "conditional_accuracy_per_class": [
            accuracy(said[labels == label], labels[labels == label]) for label in range(len(data.classes))
        ],
        "classification_accuracy_score": classification_accuracy_score(images, labels, data, seed),
        "frechet_distance": frechet_distance(real.features, fake),
        "frechet_distance_second": frechet_distance(real.second_features, second_fake),
        "kernel_distance": kernel_distance(real.features, fake),
        **precision_recall_density_coverage(real.features, fake),
        "nearest_distance": nearest,
        "nearest_ratio": nearest / real.nearest,
    }


def class_labels(count: int, classes: int) -> Tensor:
    """As many of every class, in order: (count,)."""
    return torch.arange(classes).repeat_interleave(count // classes)


def gaussian_samples(z: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw count from the Gaussian fitted to z (N, 1, S/4, S/4), with its full covariance: (count, 1, S/4, S/4)."""
    flat = z.flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    eps = torch.randn(count, flat.shape[1], generator=generator, dtype=torch.float64)
    drawn = flat.mean(0) + eps * values.clamp(min=0).sqrt() @ vectors.T
    return drawn.float().view(count, *z.shape[1:])


def draw_samples(model: VAE, z_train: Tensor, y_train: Tensor, seed: int, class_aware: bool) -> tuple[Tensor, Tensor]:
    """SAMPLES images, as many of every class, and their labels.

    z is from the prior or, class-aware, from a Gaussian fitted to the sampled z of that class's training images.
    """
    classes = model.config.num_classes
    labels = class_labels(SAMPLES, classes)
    if class_aware:
        generator = torch.Generator().manual_seed(seed)
        z = torch.cat(
            [gaussian_samples(z_train[y_train == label], SAMPLES // classes, generator) for label in range(classes)]
        )
    else:
        z = noise(model, len(labels), seed)
    return decode(model, z, labels), labels


def latent(test: Encoded, train: Encoded, y_test: Tensor, y_train: Tensor) -> dict[str, Any]:
    """What z holds: units in use, distance to the prior, and the class. Of sampled z, except for active units.

    Codes of training and test images are sampled with the same noise, which adds some 0.01 nats to the gap.
    """
    z = torch.cat([train.z, test.z]).flatten(1)
    y = torch.cat([y_train, y_test])
    prior = torch.randn(test.z.flatten(1).shape, generator=torch.Generator().manual_seed(0))
    return {
        "active_units": active_units(test.mu),
        "aggregate_gap": aggregate_gap(z),
        "class_aggregate_gap": mean(aggregate_gap(z[y == label]) for label in y_test.unique()),
        "aggregate_kernel_distance": kernel_distance(test.z.flatten(1), prior),
        "kl_per_dimension": kl_per_dimension(test.mu, test.log_var).tolist(),
        "probe_linear_accuracy": linear_probe(train.z, y_train, test.z, y_test),
    }


def swapped(model: VAE, data: Dataset, test: Encoded, judge: AnyJudge) -> dict[str, float]:
    """Encode with y, decode with another class y': does the judge see y', and how far is it from the image?"""
    y = data.test_labels[:SWAPPED]
    shift = torch.randint(1, model.config.num_classes, y.shape, generator=torch.Generator().manual_seed(0))
    other = (y + shift) % model.config.num_classes
    images = decode(model, test.z[:SWAPPED], other)
    return {
        "label_swap_accuracy": accuracy(look(judge, images)[1], other),
        "wrong_label_mse": float((images - to_float(data.test_images[:SWAPPED])).square().mean()),
    }


def over_seeds(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and, as NAME_std, standard deviation of every measure; lists are averaged place by place."""
    found: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(first, list):
            found[name] = [mean(places) for places in zip(*values, strict=True)]
        else:
            found[name] = mean(values)
            found[f"{name}_std"] = stdev(values) if len(values) > 1 else None
    return found


def short(value: Any) -> Any:
    """Six significant digits are more than any measure has."""
    if isinstance(value, dict):
        return {name: short(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [short(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def stages(sampling_seeds: Sequence[int]) -> int:
    """How often evaluate reports progress."""
    return 5 + 2 * len(sampling_seeds)


def evaluate(
    model: VAE,
    data: Dataset,
    judge: AnyJudge,
    second: AnyJudge,
    sampling_seeds: Sequence[int] = (0, 1, 2),
    progress: Callable[[str], Any] = lambda stage: None,
    class_aware: bool = False,
) -> dict[str, Any]:
    """Every measure in MEASURES of one model on the CPU, as numbers that JSON can hold.

    What is sampled is the mean over the sampling seeds, with the standard deviation as NAME_std (None for one
    seed). Beside MEASURES: the lists conditional_accuracy_per_class and kl_per_dimension, and of a conditional model
    the parts of style (style_ink and so on). What only a conditional model has is None for an unconditional one.
    That can't be asked for a class, so its samples are always class-aware; those of the others are if class_aware
    says so, and prior_frechet_distance is None where they are not.
    progress is called with the name of every stage, stages(sampling_seeds) times.
    """
    conditional = model.conditional
    class_aware = class_aware or not conditional
    progress("real images")
    real = real_side(data, judge, second)

    progress("test images")
    test = encode(model, data.test_images, data.test_labels)
    recon = decode(model, test.z, data.test_labels)
    test_recon = float((recon - to_float(data.test_images)).square().mean(dtype=torch.float64))
    dimensions, pixels = test.mu[0].numel(), recon[0].numel()

    progress("training images")
    mu, log_var = encode_all(model, data.train_images, data.train_labels)
    train, y_train = with_sample(mu[real.train_index], log_var[real.train_index]), data.train_labels[real.train_index]

    progress("latents")
    found = latent(test, train, data.test_labels, y_train)
    mlp = mlp_probe(mu, log_var, data.train_labels, test.z, data.test_labels)
    found |= {f"probe_{name}": value for name, value in mlp.items()}
    test_kl = sum(found["kl_per_dimension"]) / dimensions
    found |= {"test_recon": test_recon, "test_kl": test_kl}
    found |= {"distortion": pixels * test_recon, "rate": dimensions * test_kl}

    progress("classes")
    if conditional:
        found |= swapped(model, data, test, judge)
        found |= style_consistency(class_grid(model, SHARED_Z, seed=0, shared=True))

    rows = []
    for seed in sampling_seeds:
        progress(f"drawing samples, seed {seed}")
        images, labels = draw_samples(model, train.z, y_train, seed, class_aware)
        progress(f"measuring samples, seed {seed}")
        row = generation(images, labels, data, judge, second, seed)
        if class_aware:
            drawn = decode(model, noise(model, len(labels), seed), labels)
            row["prior_frechet_distance"] = frechet_distance(real.features, features(judge, drawn))
        rows.append(row)
    return short(dict.fromkeys(MEASURES) | over_seeds(rows) | found)


def reconstructions(model: VAE, data: Dataset, judge: AnyJudge, second: AnyJudge) -> dict[str, Any]:
    """The generation measures of reconstructed training images, z sampled: what to read samples beside."""
    index = real_side(data, judge, second).train_index
    labels = data.train_labels[index]
    images = decode(model, encode(model, data.train_images[index], labels).z, labels)
    return short(generation(images, labels, data, judge, second))


def floors(data: Dataset, judge: AnyJudge, second: AnyJudge) -> dict[str, Any]:
    """What a model's numbers are read beside: the generation measures of three sets of images, and three MSEs.

    real: training images; noise: uniform in [0, 1]; class_means: the mean training image of the class, every time.
    mse: on the test set, of the mean image, of the class means, and of the first 49 principal components.
    """
    index = real_side(data, judge, second).train_index
    train, test = to_float(data.train_images), to_float(data.test_images)
    means = torch.stack([train[data.train_labels == label].mean(0) for label in range(len(data.classes))])
    labels = data.train_labels[index]
    sets = {
        "real": train[index],
        "noise": torch.rand(train[index].shape, generator=torch.Generator().manual_seed(0)),
        "class_means": means[labels],
    }
    rows = {name: generation(images, labels, data, judge, second) for name, images in sets.items()}
    centred = train.flatten(1) - train.flatten(1).mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    off = test.flatten(1) - train.flatten(1).mean(0)
    left = off - off @ vectors[:, -49:] @ vectors[:, -49:].T
    mse = {
        "mean_image": float(off.square().mean()),
        "class_means": float((test - means[data.test_labels]).square().mean()),
        "pca_49": float(left.square().mean()),
    }
    return short(rows | {"mse": mse})
