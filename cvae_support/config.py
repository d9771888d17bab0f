"""What defines a trained model: one flat, frozen record, and its fingerprint."""

import hashlib
import json
from dataclasses import asdict, dataclass

MODELS = ("unconditional", "spatial", "adaln")
RECIPES = ("plain", "fast")


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a training run. Change any field and it is another model.

    Raises ValueError, naming the field, on a value that cannot work.
    """

    model: str = "spatial"  # one of MODELS
    width: float = 1.0  # multiplies the channels; 1.0 is the model of the tutorial, 0.25 trains on a CPU
    image_size: int = 28  # side of the images, a multiple of 4
    num_classes: int = 10
    encoder_sees_y: bool = True  # False: only the decoder is conditional
    kl_weight: float = 0.01
    recipe: str = "plain"  # "plain": Adam at a constant rate; "fast": one-cycle rate, averaged weights
    epochs: int = 100
    batch_size: int = 256  # over all processes together
    learning_rate: float = 1e-3  # the constant rate of "plain", the peak of "fast"
    seed: int = 42

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}")
        if self.image_size < 4 or self.image_size % 4:
            raise ValueError(f"image_size must be a positive multiple of 4, got {self.image_size}")
        for name in ("width", "num_classes", "epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.kl_weight >= 0:
            raise ValueError(f"kl_weight must not be negative, got {self.kl_weight}")
        if min(self.channels) < 4:
            raise ValueError(f"width {self.width} leaves a layer with {min(self.channels)} channels; use 0.125 or more")

    @property
    def channels(self) -> tuple[int, int, int]:
        """Channels at full, half and quarter resolution."""
        return tuple(int(c * self.width) for c in (32, 64, 128))

    @property
    def latent_size(self) -> int:
        """Side of the latent map: two halvings of the image."""
        return self.image_size // 4

    @property
    def name(self) -> str:
        """For files and messages: spatial-w0.25-kl0.01-fast."""
        return f"{self.model}-w{self.width:g}-kl{self.kl_weight:g}-{self.recipe}"

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when any field does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
