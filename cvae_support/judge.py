"""The judges: two small classifiers of our own, trained on real images, that say what a picture shows.

The first gives the accuracies and the features in which samples are compared; the second, of another architecture,
guards against samples that please only the first.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from cvae_support.checkpoints import CheckpointError, load_checkpoint, load_record

JUDGES_FOLDER = Path(__file__).parent / "judges"
JUDGE_RECORD = frozenset({"judge", "weights", "sha256", "data", "test_accuracy"})
BATCH = 100  # a CPU takes longer over larger ones


def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalization, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class Judge(nn.Module):
    """Five 3 x 3 convolutions, pooled twice: x (B, 1, 28, 28) in [0, 1] -> logits (B, 10)."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            conv(1, 32), nn.MaxPool2d(2),
            conv(32, 48), conv(48, 64), nn.MaxPool2d(2),
            conv(64, 96), conv(96, 96),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(96, 10)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees: (B, 96), in which distances between sets of images are measured."""
        return self.trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SecondJudge(nn.Module):
    """A 7 x 7 convolution, halved twice; then 5 x 5 depthwise and 1 x 1 ones by turns, with skips, at 7 x 7.

    x (B, 1, 28, 28) in [0, 1] -> logits (B, 10); after ConvMixer (Trockman & Kolter 2022).
    """

    def __init__(self):
        super().__init__()
        self.patches = conv(1, 96, kernel=7, stride=2)
        self.mix = nn.ModuleList([conv(96, 96, kernel=5, groups=96) for _ in range(4)])
        self.blend = nn.ModuleList([conv(96, 96, kernel=1) for _ in range(4)])
        self.head = nn.Linear(96, 10)

    def features(self, x: Tensor) -> Tensor:
        """(B, 96)."""
        h = nn.functional.max_pool2d(self.patches(x), 2)
        for mix, blend in zip(self.mix, self.blend, strict=True):
            h = blend(h + mix(h))
        return h.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


AnyJudge = Judge | SecondJudge
JUDGES: dict[str, type[AnyJudge]] = {"judge": Judge, "second": SecondJudge}


@lru_cache(maxsize=1)
def judge_hashes() -> list[str]:
    """Which judges these are, the first and the second: 16 hex digits of the SHA-256 of their tensors."""
    records = (load_record(JUDGES_FOLDER / f"{name}.json", JUDGE_RECORD) for name in ("judge", "second"))
    return [record["sha256"][:16] for record in records]


def judge_accuracy(name: str) -> float:
    """The share of the real test images that a shipped judge gets right, as recorded."""
    return float(load_record(JUDGES_FOLDER / f"{name}.json", JUDGE_RECORD)["test_accuracy"])


def load_judge(name: str = "judge", device: torch.device | str = "cpu") -> AnyJudge:
    """A shipped judge, verified, in float32 and frozen. Raises CheckpointError, saying what is wrong."""
    if name not in JUDGES:
        raise CheckpointError(f"no judge {name!r}; there are {', '.join(JUDGES)}")
    tensors, _ = load_checkpoint(JUDGES_FOLDER / f"{name}.json", JUDGE_RECORD)
    judge = JUDGES[name]()
    try:
        judge.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(f"the weights of the judge {name!r} are not those of its network: {error}") from error
    return judge.to(device).eval().requires_grad_(False)


@torch.no_grad()
def probabilities(judge: nn.Module, images: Tensor) -> Tensor:
    """What the judge sees in images (B, 1, 28, 28) in [0, 1]: (B, 10), a row sums to 1."""
    return torch.cat([judge(part).softmax(dim=1) for part in images.split(BATCH)])


@torch.no_grad()
def features(judge: AnyJudge, images: Tensor) -> Tensor:
    """Of images (B, 1, 28, 28) in [0, 1]: (B, D)."""
    return torch.cat([judge.features(part) for part in images.split(BATCH)])
