"""The trained model of a configuration: shipped, of a local run, or trained now. The page calls load_or_train."""

from pathlib import Path
from typing import Any

import torch

from cvae_support.checkpoints import SHIPPED_FOLDER, CheckpointError, differences, load_model, load_record
from cvae_support.config import Config
from cvae_support.data import Dataset, load_fashion_mnist
from cvae_support.models import VAE
from cvae_support.runs import run_folder


def local_run(config: Config, data: Dataset) -> Path:
    """The final checkpoint of this configuration's own run, trained first, or resumed, if need be. Says which.

    Raises CheckpointError if what lies in its folder is of another run, or damaged, and TrainingError.
    """
    folder = run_folder(config, data.checksum)
    if (folder / "final.json").is_file():
        if differing := differences(load_record(folder / "final.json"), config, data.checksum):
            raise CheckpointError(f"{folder} holds another run, move or delete it: {'; '.join(differing)}")
        print(f"{config.name}: weights of a local run in {folder}")
    else:
        from cvae_support.training import train  # the page needs Fabric only if it has to train

        resume = (folder / "last.json").is_file()
        doing = "resuming the training of" if resume else "training"
        print(f"{config.name}: no weights for this configuration yet, {doing} {config.epochs} epochs in {folder}")
        train(config, data, folder, resume)
    return folder / "final.json"


def load_or_train(
    config: Config, data: Dataset | None = None, device: torch.device | str = "cpu"
) -> tuple[VAE, dict[str, Any]]:
    """The trained model of this configuration, ready to use, and its record (with "history").

    The weights that ship with the package if they are of exactly this configuration, else those of an
    earlier local run, else a new run, which is resumed if it was interrupted. Says which it was. Raises DataError
    where the data cannot be had, CheckpointError on damaged weights, and TrainingError.
    """
    shipped = SHIPPED_FOLDER / f"{config.name}.json"
    if shipped.is_file():
        differing = differences(load_record(shipped), config, data.checksum if data else None)
        if not differing:
            print(f"{config.name}: shipped weights, {config.epochs} epochs")
            return load_model(shipped, device)
        print(f"{config.name}: the shipped weights are of another run: {'; '.join(differing)}")
    return load_model(local_run(config, data or load_fashion_mnist()), device)
