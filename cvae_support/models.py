"""One ResNet VAE, unconditional or conditioned in one of three ways.

"spatial" joins a learned class map to the features as an extra channel; "added" adds a learned class vector to
them; "adaln" modulates every normalization of every residual block; "unconditional" does none of this.
The two small networks of peers.py wear the same interface.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cvae_support.config import Config
from cvae_support.layers import (
    AdaLNResnetBlock,
    AdaptiveGroupNorm,
    AddClass,
    ClassMap,
    ResnetBlock,
    SelfAttention,
    Upsample,
    num_groups,
    through,
)
from cvae_support.peers import PEERS


def check_images(x: Tensor, side: int) -> None:
    """Raise ValueError unless x is a (B, 1, side, side) float tensor; on a CPU also unless it lies in [0, 1]."""
    if x.ndim != 4 or x.shape[1:] != (1, side, side) or not x.is_floating_point():
        raise ValueError(
            f"x must be a (B, 1, {side}, {side}) float tensor in [0, 1], got {x.dtype} of shape {tuple(x.shape)}"
        )
    # On a CPU only, as in check_labels.
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not len(x):
        return
    low, high = map(float, x.detach().aminmax())
    if not math.isfinite(low + high):
        raise ValueError("x holds NaN or infinity")
    if not 0 <= low <= high <= 1:
        raise ValueError(f"x must lie in [0, 1], got {low:g} .. {high:g}: divide bytes by 255")


def check_pairs(first: Tensor, second: Tensor, what: str) -> None:
    """Raise ValueError unless there are as many of one as of the other: one label would do for a whole batch."""
    if len(first) != len(second):
        raise ValueError(f"{what} must be as many, got {len(first)} and {len(second)}")


def check_labels(y: Tensor, num_classes: int) -> None:
    """Raise ValueError unless y is a (B,) integer tensor; on a CPU also unless it lies in 0 .. num_classes - 1."""
    if y.dtype not in (torch.int64, torch.int32) or y.ndim != 1:
        raise ValueError(f"y must be a (B,) tensor of int64 or int32, got {y.dtype} of shape {tuple(y.shape)}")
    # Looking at the values would make a GPU wait for every batch, and break a compiled graph in two.
    if torch.compiler.is_compiling() or y.device.type != "cpu":
        return
    if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        raise ValueError(f"y must lie in 0 .. {num_classes - 1}, got {int(y.min())} .. {int(y.max())}")


def block(in_channels: int, out_channels: int, cond_dim: int | None) -> nn.Module:
    """A residual block: modulated where there is a condition vector, plain where there is none."""
    if cond_dim is None:
        return ResnetBlock(in_channels, out_channels)
    return AdaLNResnetBlock(in_channels, out_channels, cond_dim)


def class_embedding(config: Config, conditioning: str) -> nn.Module | None:
    """How the label enters: y (B,) -> a map (B, 1, S/4, S/4) or a vector (B, D); None where it does not."""
    if conditioning == "spatial":
        return ClassMap(config.num_classes, config.latent_size)
    if conditioning == "adaln":
        return nn.Embedding(config.num_classes, class_dim(config))
    if conditioning == "added":
        return nn.Embedding(config.num_classes, config.channels[-1])
    return None


def class_dim(config: Config) -> int:
    """Length of adaLN's class vector."""
    return config.class_dim or config.channels[-1]


class Encoder(nn.Module):
    """x (B, 1, S, S), y (B,) -> mu, log_var, each (B, 1, S/4, S/4).

    conditioning is "unconditional", "spatial", "added" or "adaln". The encoder owns its class embedding.
    """

    def __init__(self, config: Config, conditioning: str):
        super().__init__()
        self.conditioning = conditioning
        narrow, middle, wide = config.channels
        cond_dim = class_dim(config) if conditioning == "adaln" else None
        add_class = [AddClass()] if conditioning == "added" else []
        self.embed = class_embedding(config, conditioning)
        self.trunk = nn.ModuleList([
            nn.Conv2d(1, narrow, 3, padding=1),
            block(narrow, middle, cond_dim),
            block(middle, middle, cond_dim),
            nn.Conv2d(middle, middle, 3, stride=2, padding=1),  # S -> S/2
            block(middle, wide, cond_dim),
            block(wide, wide, cond_dim),
            nn.Conv2d(wide, wide, 3, stride=2, padding=1),  # S/2 -> S/4
            *add_class,
            block(wide, wide, cond_dim),
            SelfAttention(wide),
            block(wide, wide, cond_dim),
            nn.GroupNorm(num_groups(wide), wide),
            nn.SiLU(),
        ])  # fmt: skip
        self.to_latent = nn.Conv2d(wide + (conditioning == "spatial"), 2, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        cond = None if self.embed is None else self.embed(y)
        h = through(self.trunk, x, cond)
        if self.conditioning == "spatial":
            h = torch.cat([h, cond], dim=1)  # the class map as one more channel
        mu, log_var = self.to_latent(h).chunk(2, dim=1)
        return mu, log_var


class Decoder(nn.Module):
    """z (B, 1, S/4, S/4) and a class embedding -> image (B, 1, S, S) in [0, 1].

    It takes the embedding, not the label, so that a blend of two classes can be decoded as well.
    """

    def __init__(self, config: Config, conditioning: str):
        super().__init__()
        self.conditioning = conditioning
        narrow, middle, wide = config.channels
        cond_dim = class_dim(config) if conditioning == "adaln" else None
        add_class = [AddClass()] if conditioning == "added" else []
        self.embed = class_embedding(config, conditioning)
        self.trunk = nn.ModuleList([
            nn.Conv2d(1 + (conditioning == "spatial"), wide, 3, padding=1),
            *add_class,
            block(wide, wide, cond_dim),
            SelfAttention(wide),
            block(wide, wide, cond_dim),
            block(wide, wide, cond_dim),
            block(wide, wide, cond_dim),
            block(wide, middle, cond_dim),
            Upsample(middle),  # S/4 -> S/2
            block(middle, middle, cond_dim),
            block(middle, middle, cond_dim),
            block(middle, narrow, cond_dim),
            Upsample(narrow),  # S/2 -> S
            nn.GroupNorm(num_groups(narrow), narrow),
            nn.SiLU(),
            nn.Conv2d(narrow, 1, 3, padding=1),
            nn.Sigmoid(),
        ])  # fmt: skip

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        if self.conditioning == "spatial":
            z = torch.cat([z, cond], dim=1)  # the class map as a second channel
        return through(self.trunk, z, cond)


class VAE(nn.Module):
    """A variational autoencoder on S x S images, conditional on y unless config.model says otherwise.

    forward(x (B, 1, S, S), y (B,)) -> recon (B, 1, S, S), mu, log_var, z (each (B, 1, S/4, S/4)).
    Kingma & Welling 2014; conditional: Sohn et al. 2015 with the prior p(z|y) = N(0, I).
    Raises ValueError on images or labels that do not fit the configuration; values are looked at on a CPU only.
    """

    encoder: Any  # Encoder, or a peer's
    decoder: Any

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        if config.model in PEERS:
            self.encoder, self.decoder = (network(config) for network in PEERS[config.model])
            return
        # A blind encoder is that of an unconditional model.
        self.encoder = Encoder(config, (config.encoder or config.model) if config.encoder_sees_y else "unconditional")
        self.decoder = Decoder(config, config.model)
        if not config.zero_init:
            for layer in self.modules():
                if isinstance(layer, AdaptiveGroupNorm):
                    layer.proj.reset_parameters()

    @property
    def conditional(self) -> bool:
        """Whether it takes a label."""
        return self.config.model != "unconditional"

    def latent_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(B, 1, S/4, S/4)."""
        return (batch, 1, self.config.latent_size, self.config.latent_size)

    def embed(self, y: Tensor) -> Tensor | None:
        """The decoder's class embedding of y (B,): (B, 1, S/4, S/4) spatial, else (B, D); None if unconditional.

        y may lie on the CPU wherever the model is: it is checked there, then moved.
        """
        if not self.conditional:
            return None
        check_labels(y, self.config.num_classes)
        return self.decoder.embed(y.to(next(self.parameters()).device))

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, 1, S, S) in [0, 1], y (B,) -> mu, log_var of q(z|x, y), each (B, 1, S/4, S/4)."""
        check_images(x, self.config.image_size)
        if self.conditional:
            if y is None:
                raise ValueError(f'a "{self.config.model}" model needs the labels: encode(x, y)')
            check_labels(y, self.config.num_classes)
            check_pairs(x, y, "images and labels")
        return self.encoder(x, y)

    def decode(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """z (B, 1, S/4, S/4) and a class embedding, as from embed(y) -> (B, 1, S, S) in [0, 1]."""
        if tuple(z.shape[1:]) != self.latent_shape(1)[1:]:
            raise ValueError(f"z must have shape {('B',) + self.latent_shape(1)[1:]}, got {tuple(z.shape)}")
        if self.conditional and (cond is None or not cond.is_floating_point()):  # labels, most likely
            raise ValueError("decode takes a class embedding: decode(z, model.embed(y))")
        if cond is not None:
            check_pairs(z, cond, "z and class embeddings")
        return self.decoder(z, cond)

    def forward(self, x: Tensor, y: Tensor | None = None, eps: Tensor | None = None):
        """One pass. eps (B, 1, S/4, S/4) is the noise of the reparameterization; drawn when not given."""
        mu, log_var = self.encode(x, y)
        eps = torch.randn_like(mu) if eps is None else eps
        if eps.shape != mu.shape:  # one that is smaller would do for the whole batch
            raise ValueError(f"eps must have shape {tuple(mu.shape)}, got {tuple(eps.shape)}")
        z = mu + torch.exp(0.5 * log_var) * eps
        return self.decode(z, self.embed(y)), mu, log_var, z

    @torch.no_grad()
    def sample(self, y: Tensor | int, generator: torch.Generator | None = None) -> Tensor:
        """Images of the classes y (B,), z from N(0, I): (B, 1, S, S). An unconditional model takes a count."""
        cond = self.embed(torch.as_tensor(y)) if self.conditional else None
        count = y if isinstance(y, int) else len(y)
        # Drawn on the CPU, so that a seed gives the same z on every device.
        z = torch.randn(self.latent_shape(count), generator=generator).to(next(self.parameters()).device)
        return self.decode(z, cond)


def seeded(make: Callable[[], nn.Module], seed: int) -> Any:
    """A network initialized from the seed; the global source of random numbers stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs as well
        return make()


def count_parameters(module: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
