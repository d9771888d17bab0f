"""Measures of samples and of latents: pure functions on tensors, with the paper or equation each one is from.

Features, latents and images are compared as vectors: (N, D) throughout, unless a docstring says otherwise.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvae_support.models import seeded

CHUNK = 1000  # rows of a distance matrix that are held at once
ACTIVE = 0.01  # variance of the mean above which a latent counts as active
INK = 0.2  # a pixel above this is part of the garment


def check_pair(a: Tensor, b: Tensor) -> None:
    """Raise ValueError unless a (N, D) and b (M, D) hold two or more vectors of one length each."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"two sets of two or more vectors of one length are needed, got {tuple(a.shape)} and {tuple(b.shape)}"
        )


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to a (N, D) and b (M, D), in float64. Heusel et al. 2017.

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)). It grows as N shrinks: compare only at one N.
    Raises ValueError on fewer than two vectors, or on vectors of two lengths.
    """
    check_pair(a, b)
    a, b = a.double(), b.double()
    s_a, s_b = torch.cov(a.T).view(a.shape[1], -1), torch.cov(b.T).view(a.shape[1], -1)
    values, vectors = torch.linalg.eigh(s_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # of S_a; the product below has S_a S_b's eigenvalues
    cross = torch.linalg.eigvalsh(root @ s_b @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + s_a.trace() + s_b.trace() - 2 * cross)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Squared maximum mean discrepancy of a (N, D) and b (M, D), kernel (x . y / D + 1)^3. Binkowski et al. 2018.

    The unbiased estimate from both whole sets, not a mean over subsets; it can come out below zero.
    Raises ValueError on fewer than two vectors, or on vectors of two lengths.
    """
    check_pair(a, b)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        k = (x @ y.T).div_(x.shape[1]).add_(1)
        return k * k * k

    def total(x: Tensor, y: Tensor) -> float:
        return sum(float(kernel(rows, y).sum(dtype=torch.float64)) for rows in x.split(CHUNK))

    def within(x: Tensor) -> float:  # without the diagonal
        itself = (x.double().square().sum(1) / x.shape[1] + 1).pow(3).sum()
        return (total(x, x) - float(itself)) / (len(x) * (len(x) - 1))

    return within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b))


def squared_distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """The matrix of squared Euclidean distances, some rows at a time: a (N, D), b (M, D) -> (CHUNK, M) each."""
    centre = b.mean(0)  # small numbers cancel less
    a, b = a - centre, b - centre
    lengths = b.square().sum(1)
    for rows in a.split(CHUNK):
        yield torch.addmm(lengths, rows, b.T, alpha=-2).add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)


def squared_radii(points: Tensor, k: int) -> Tensor:
    """The squared distance of each of (N, D) to its k-th nearest neighbour: (N,)."""
    radii = []
    for chunk, rows in enumerate(squared_distances(points, points)):
        rows.diagonal(chunk * CHUNK).fill_(torch.inf)  # a point is not its own neighbour
        radii.append(rows.topk(k, largest=False).values[:, -1])
    return torch.cat(radii)


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """How far fake (M, D) lies in the neighbourhoods of real (N, D), and the other way about.

    precision and recall: the share of fake (real) points inside the ball of some real (fake) point, whose radius is
    the distance to its k-th neighbour. Kynkäänniemi et al. 2019. density: the mean number of real balls a fake
    point is in, over k; coverage: the share of real balls with a fake point inside. Naeem et al. 2020.
    Raises ValueError on vectors of two lengths, or where there are not more than k of each.
    """
    check_pair(real, fake)
    if not 0 < k < min(len(real), len(fake)):
        raise ValueError(f"k must lie in 1 .. {min(len(real), len(fake)) - 1}, the number of neighbours, got {k}")
    real_radii, fake_radii = squared_radii(real, k), squared_radii(fake, k)
    inside, recalled = [], []
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    # Of each fake point: how many real balls it is in. Of each real point: in any fake ball, and its ball not empty.
    for chunk, rows in enumerate(squared_distances(fake, real)):
        in_real = rows < real_radii
        inside.append(in_real.sum(1))
        covered |= in_real.any(0)
        recalled.append((rows < fake_radii[chunk * CHUNK : (chunk + 1) * CHUNK, None]).any(0))
    balls = torch.cat(inside)
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": float(torch.stack(recalled).any(0).double().mean()),
        "density": float(balls.double().mean() / k),
        "coverage": float(covered.double().mean()),
    }


def nearest_distance(queries: Tensor, references: Tensor) -> Tensor:
    """The Euclidean distance of each query (N, D) to the nearest of the references (M, D): (N,)."""
    return torch.cat([rows.amin(1) for rows in squared_distances(queries, references)]).sqrt()


def active_units(mu: Tensor) -> int:
    """How many latents the encoder uses: those whose mean (N, D) varies by more than 0.01. Burda et al. 2016."""
    return int((mu.flatten(1).var(0) > ACTIVE).sum())


def kl_per_dimension(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of every latent in nats, mean over the data: (N, D) -> (D,).

    Kingma & Welling 2014, appendix B.
    """
    mu, log_var = mu.flatten(1), log_var.flatten(1)
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).mean(0)


def aggregate_gap(z: Tensor) -> float:
    """KL(N(m, S) || N(0, I)) in nats, m and S the mean and covariance of sampled z (N, D). Hoffman & Johnson 2016.

    How far the aggregate posterior is from the prior, as far as two moments show it. Estimating them adds about
    D (D + 3) / 4N nats: for 49 latents 0.3 with 2,000 samples, 0.03 with 20,000. Infinite if N <= D.
    """
    z = z.flatten(1).double()
    mean, cov = z.mean(0), torch.cov(z.T).view(z.shape[1], -1)
    if len(z) <= z.shape[1]:
        return math.inf
    return float(0.5 * (cov.trace() + mean.square().sum() - z.shape[1] - torch.logdet(cov)))


def fit_classifier(
    net: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int, std: Tensor | None = None, decay: float = 0.0
) -> nn.Module:
    """Train net on x (N, ...) and y (N,) by cross-entropy: AdamW, batches of 128, the rate falling to zero.

    With std, of the shape of x, every step sees x + std * eps, the noise drawn afresh; decay is that of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(x) / 128)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=generator).to(x.device).split(128):
            batch = x[index]
            if std is not None:
                batch = batch + std[index] * torch.randn(batch.shape, generator=generator).to(x.device)
            F.cross_entropy(net(batch), y[index]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return net.eval()


def linear_probe(z_train: Tensor, y_train: Tensor, z_test: Tensor, y_test: Tensor) -> float:
    """How often a linear classifier, trained on some z (N, D), is right of the y (N,) of others: it goes by the means.

    Give it samples of q(z|x, y), not means: a mean may carry what the noise around it hides.
    """
    z_train, z_test = z_train.flatten(1), z_test.flatten(1)
    center, scale = z_train.mean(0), z_train.std(0) + 1e-6
    classes = int(max(y_train.max(), y_test.max())) + 1
    net = seeded(lambda: nn.Linear(z_train.shape[1], classes), 0)
    fit_classifier(net, (z_train - center) / scale, y_train, epochs=10, seed=0)
    with torch.no_grad():
        return float((net((z_test - center) / scale).argmax(1) == y_test).double().mean())


def mlp_probe(
    mu: Tensor, log_var: Tensor, y_train: Tensor, z_test: Tensor, y_test: Tensor, epochs: int = 30
) -> dict[str, float]:
    """How well an MLP, trained on N(mu, sigma^2) (N, D) of some images, tells the y (M,) of others from their z (M, D).

    It sees a new sample in every step: what one sample of some thousand images shows is a fraction of what z holds.
    information is the lower bound H(y) - cross-entropy <= I(z; y) in nats (Barber & Agakov 2003), and not below 0;
    H(y) is that of the test labels, ln 10 where classes are balanced.
    """
    mu, std, z_test = mu.flatten(1), torch.exp(0.5 * log_var.flatten(1)), z_test.flatten(1)
    center, scale = mu.mean(0), (mu.var(0) + std.square().mean(0)).sqrt() + 1e-6  # of the samples
    latents, classes = mu.shape[1], int(max(y_train.max(), y_test.max())) + 1

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Linear(latents, 256), nn.ReLU(),
            nn.Linear(256, 256), nn.ReLU(),
            nn.Linear(256, 256), nn.ReLU(),
            nn.Linear(256, classes),
        )  # fmt: skip

    net = seeded(make, 0)
    fit_classifier(net, (mu - center) / scale, y_train, epochs, seed=0, std=std / scale, decay=0.2)
    with torch.no_grad():
        logits = net((z_test - center) / scale)
    shares = y_test.bincount().double() / len(y_test)
    entropy = -float(torch.special.xlogy(shares, shares).sum())
    return {
        "mlp_accuracy": float((logits.argmax(1) == y_test).double().mean()),
        "information": max(entropy - float(F.cross_entropy(logits, y_test)), 0.0),
    }


def style(images: Tensor) -> dict[str, Tensor]:
    """What can be said of a garment whatever its class: images (..., S, S) -> ink, height, width, brightness (...).

    ink is the mean pixel, height and width the sides of the box around all pixels above INK, brightness their mean.
    """
    drawn = images > INK

    def extent(lines: Tensor) -> Tensor:  # (..., S) of bool: from the first line drawn on to the last
        places = torch.arange(1, lines.shape[-1] + 1, device=lines.device)
        last = (lines * places).amax(-1)
        first = torch.where(lines, places, len(places) + 1).amin(-1)
        return (last - first + 1).clamp(min=0).to(images.dtype)

    return {
        "ink": images.mean((-2, -1)),
        "height": extent(drawn.any(-1)),
        "width": extent(drawn.any(-2)),
        "brightness": (images * drawn).sum((-2, -1)) / drawn.sum((-2, -1)).clamp(min=1),
    }


def mean_correlation(values: Tensor) -> float:
    """values (classes, K): Pearson's correlation over the K, mean over all pairs of classes in which it varies."""
    values = values.double()
    values = values[values.std(1) > 1e-6]
    if len(values) < 2:
        return 0.0
    pairs = torch.triu_indices(len(values), len(values), 1)
    return float(torch.corrcoef(values)[pairs[0], pairs[1]].mean())


def style_consistency(images: Tensor) -> dict[str, float]:
    """Whether z carries style across classes: images (classes, K, S, S), column k of every class from one z.

    For each of ink, height, width and brightness: how far two classes agree on which z has more of it, as the
    correlation over the K shared z, mean over pairs of classes (1: they order the z alike, 0: z means something
    else in every class); "style" is the mean of the four. baseline: the same with the z of every class permuted.
    """
    generator = torch.Generator().manual_seed(0)
    permuted = torch.stack([row[torch.randperm(len(row), generator=generator)] for row in images])
    found = {f"style_{name}": mean_correlation(values) for name, values in style(images).items()}
    baseline = [mean_correlation(values) for values in style(permuted).values()]
    return found | {"style": sum(found.values()) / len(found), "style_baseline": sum(baseline) / len(baseline)}
