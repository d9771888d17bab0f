"""What defines a trained model: one flat, frozen record, and its fingerprint."""

import hashlib
import json
import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

WAYS = ("spatial", "added", "adaln")  # for a label to enter our own network
MODELS = ("unconditional", "spatial", "added", "adaln", "mlp", "label-channel")
SCHEDULES = ("constant", "one-cycle")
# How a model is trained, unless a field says otherwise.
RECIPES: dict[str, dict[str, Any]] = {
    "plain": dict(epochs=100, batch_size=256, learning_rate=1e-3, schedule="constant", ema_decay=0.0),
    "fast": dict(epochs=4, batch_size=32, learning_rate=6e-3, schedule="one-cycle", ema_decay=0.998),
    "muon": dict(epochs=20, batch_size=32, learning_rate=6e-3, schedule="one-cycle", ema_decay=0.998),
}


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a training run. Change any field and it is another model.

    The recipe gives the five fields that are None by default. Raises ValueError, naming the field, on a
    value that cannot work.
    """

    model: str = "spatial"  # one of MODELS
    width: float = 1.0  # multiplies the channels; 1.0 is the model of the tutorial, 0.25 trains on a CPU
    image_size: int = 28  # side of the images, a multiple of 4
    num_classes: int = 10
    encoder_sees_y: bool = True  # False: only the decoder is conditional
    encoder: str = ""  # the way, one of WAYS, that y enters the encoder; "": as it enters the decoder
    kl_weight: float = 0.01  # factor of the KL term in the loss
    seed: int = 42
    recipe: str = "plain"  # one of RECIPES; "muon" trains with Muon, the others with Adam
    epochs: int | None = None
    batch_size: int | None = None  # over all processes together
    learning_rate: float | None = None  # the optimizer's; the peak, where the schedule is not constant
    schedule: str | None = None  # one of SCHEDULES
    ema_decay: float | None = None  # of the running average of the weights that is tested and kept; 0: none
    class_dim: int = 0  # length of the class vector of "adaln"; 0: as many as its widest layer has channels
    zero_init: bool = True  # "adaln" only: whether every class starts alike

    def __post_init__(self):
        for name, known in (("model", MODELS), ("recipe", tuple(RECIPES))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name, value in RECIPES[self.recipe].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("width", "kl_weight", "learning_rate", "ema_decay"):  # 1 and 1.0 are one configuration
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ValueError(f"{name} must be a number, got {value!r}")
            object.__setattr__(self, name, float(value))
        for name in ("image_size", "num_classes", "seed", "epochs", "batch_size", "class_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
            object.__setattr__(self, name, int(value))  # NumPy's own would make another fingerprint
        for name in ("encoder_sees_y", "zero_init"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.image_size < 4 or self.image_size % 4:
            raise ValueError(f"image_size must be a positive multiple of 4, got {self.image_size}")
        for name in ("num_classes", "epochs", "batch_size", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in 0 .. 2^32 - 1, got {self.seed}")
        if not 0 <= self.kl_weight < math.inf:
            raise ValueError(f"kl_weight must be finite and not negative, got {self.kl_weight}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be 0 or more and below 1, got {self.ema_decay}")
        if not 0 <= self.class_dim <= 8192:
            raise ValueError(f"class_dim must lie in 0 .. 8192, got {self.class_dim}")
        if self.model != "adaln" and (self.class_dim or not self.zero_init):
            raise ValueError(f'class_dim and zero_init belong to the model "adaln", not to "{self.model}"')
        if self.model not in WAYS and not self.encoder_sees_y:
            raise ValueError(f'"{self.model}" has no blind encoder: encoder_sees_y must be True')
        if self.encoder and (not {self.encoder, self.model} <= set(WAYS) or self.encoder == self.model):
            raise ValueError(
                f"encoder and model must be two of {', '.join(WAYS)}, got {self.encoder!r}, {self.model!r}"
            )
        if self.encoder and not self.encoder_sees_y:
            raise ValueError(f'encoder must be "" where encoder_sees_y is False, got {self.encoder!r}')
        if self.model == "mlp" and self.width != 1:
            raise ValueError(f'"mlp" has no channels to multiply: width must be 1, got {self.width}')
        if not 0.125 <= self.width <= 64:  # four channels in the narrowest layer, 8192 in the widest
            raise ValueError(f"width must lie in 0.125 .. 64, got {self.width}")

    @property
    def channels(self) -> tuple[int, int, int]:
        """Channels at full, half and quarter resolution."""
        return int(32 * self.width), int(64 * self.width), int(128 * self.width)

    @property
    def latent_size(self) -> int:
        """Side of the latent map: two halvings of the image."""
        return self.image_size // 4

    @property
    def optimizer(self) -> str:
        """What the recipe trains with: Adam or Muon."""
        return "Muon" if self.recipe == "muon" else "Adam"

    @property
    def name(self) -> str:
        """For files and messages: spatial-w0.25-kl0.01-muon."""
        return f"{self.model}-w{self.width:g}-kl{self.kl_weight:g}-{self.recipe}"

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when any field does.

        Fields at their default are left out: one that is added later leaves older fingerprints as they are.
        """
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        text = json.dumps(chosen, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
