"""The building blocks: residual block, self-attention, adaptive group normalization.

Shapes are (B, C, H, W) throughout: batch, channels, height, width.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def num_groups(channels: int) -> int:
    """Groups of a GroupNorm: 8, or as many as divide the channels and leave 4 or more of them in a group.

    At width 1 every layer has 32, 64 or 128 channels, so this is always 8. In a narrow model 8 groups
    over 8 channels would be instance normalization, which erases the contrast between channels.
    """
    return max((groups for groups in range(1, 9) if channels % groups == 0 and channels >= 4 * groups), default=1)


class ResnetBlock(nn.Module):
    """GroupNorm-SiLU-Conv3 twice, plus a skip connection (the order of He et al. 2016, Identity Mappings).

    (B, in_channels, H, W) -> (B, out_channels, H, W)
    """

    norm1: nn.Module
    norm2: nn.Module

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups(in_channels), in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(num_groups(out_channels), out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        # A 1x1 convolution matches the width where it changes; elsewhere the skip is free.
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.skip(x) + h


class SelfAttention(nn.Module):
    """Single-head self-attention over the H x W positions, with a residual connection.

    (B, C, H, W) -> (B, C, H, W), after Esser et al. 2021 (taming transformers).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(num_groups(channels), channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # Every position becomes a token: (B, C, H, W) -> (B, H*W, C).
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        # With a dimension for the one head, as torch's fused kernels want it.
        h = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.proj(h.transpose(1, 2).reshape(x.shape))


class AdaptiveGroupNorm(nn.Module):
    """adaLN: (1 + gamma(y)) * GroupNorm(h) + beta(y), with gamma and beta read from the condition.

    On group normalization this is AdaGN (Dhariwal & Nichol 2021); the zero start is that of DiT
    (Peebles & Xie 2023).

    h (B, C, H, W), cond (B, cond_dim) -> (B, C, H, W)
    """

    def __init__(self, channels: int, cond_dim: int):
        super().__init__()
        self.norm = nn.GroupNorm(num_groups(channels), channels, affine=False)
        self.proj = nn.Linear(cond_dim, 2 * channels)
        # gamma = beta = 0 at the start: the layer begins as a plain GroupNorm, the same for every class.
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, h: Tensor, cond: Tensor) -> Tensor:
        gamma, beta = self.proj(F.silu(cond))[:, :, None, None].chunk(2, dim=1)  # (B, C, 1, 1) each
        return (1 + gamma) * self.norm(h) + beta


class AdaLNResnetBlock(ResnetBlock):
    """A residual block whose two normalizations are modulated, each by a projection of its own.

    x (B, in_channels, H, W), cond (B, cond_dim) -> (B, out_channels, H, W)
    """

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int):
        super().__init__(in_channels, out_channels)
        self.norm1 = AdaptiveGroupNorm(in_channels, cond_dim)
        self.norm2 = AdaptiveGroupNorm(out_channels, cond_dim)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x, cond)))
        h = self.conv2(F.silu(self.norm2(h, cond)))
        return self.skip(x) + h


class Upsample(nn.Module):
    """Nearest-neighbour x2, then a convolution: (B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class ClassMap(nn.Module):
    """A learned picture per class, to be joined to a feature map as one more channel.

    y (B,) -> (B, 1, side, side)
    """

    def __init__(self, num_classes: int, side: int):
        super().__init__()
        self.side = side
        self.embedding = nn.Embedding(num_classes, side * side)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding(y).view(-1, 1, self.side, self.side)


class AddClass(nn.Module):
    """The same vector added at every position: h (B, C, H, W), cond (B, C) -> (B, C, H, W)."""

    def forward(self, h: Tensor, cond: Tensor) -> Tensor:
        return h + cond[:, :, None, None]


def through(layers: nn.ModuleList, h: Tensor, cond: Tensor | None) -> Tensor:
    """Run h through the layers in order, handing cond to those that take it."""
    for layer in layers:
        h = layer(h, cond) if isinstance(layer, (AdaLNResnetBlock, AddClass)) else layer(h)
    return h
