"""Train the models that ship with the package, one after the other, and put their weights in its folder.

    python tools/train_weights.py            # go on where an earlier call stopped

Interrupt it whenever you like: a second call resumes the model it was in and skips those that are done.
"""

import torch

from cvae_support.checkpoints import SHIPPED_FOLDER, load_checkpoint, run_folder, save_checkpoint
from cvae_support.config import Config
from cvae_support.data import load_fashion_mnist
from cvae_support.training import train

# At a quarter of the tutorial's width, which two CPU cores train in about two minutes an epoch.
SMALL = dict(width=0.25, epochs=10)
CONFIGS = [
    Config("spatial", recipe="fast", learning_rate=3e-3, **SMALL),
    Config("adaln", recipe="fast", learning_rate=3e-3, **SMALL),
    Config("unconditional", recipe="fast", learning_rate=3e-3, kl_weight=0.0005, **SMALL),
    Config("spatial", recipe="plain", **SMALL),
]


def main() -> None:
    data = load_fashion_mnist()
    for config in CONFIGS:
        folder = run_folder(config, data.checksum)
        print(f"{config.name}: {folder}", flush=True)
        if not (folder / "final.json").is_file():
            train(config, data, folder, resume=(folder / "last.json").is_file())
        tensors, record = load_checkpoint(folder / "final.json")
        # Half precision: a test holds that no pixel of a reconstruction moves visibly.
        half = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
        save_checkpoint(
            SHIPPED_FOLDER / f"{config.name}.json", half, config, data=record["data"], history=record["history"]
        )


if __name__ == "__main__":
    main()
