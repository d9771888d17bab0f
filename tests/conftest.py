"""What the tests share: the real data, and a configuration small enough to train in seconds."""

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from cvae_support.config import Config
from cvae_support.data import load_fashion_mnist

# Runs are compared to the last digit, which only a CPU promises.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
torch.backends.mps.is_available = cache(lambda: False)  # as a cache, which the original is: torch 2.14 unwraps it
TINY = dict(width=0.125, epochs=2, batch_size=32)


@pytest.fixture(scope="session")
def data():
    return load_fashion_mnist()


@pytest.fixture(scope="session")
def few(data):
    """160 training and 64 test images."""
    return data.first(160, 64)


@pytest.fixture
def config():
    """Make a small configuration: config("adaln", epochs=3)."""
    return lambda model="spatial", **changes: Config(model, **(TINY | changes))


@pytest.fixture
def stop_in_epoch_two(monkeypatch):
    """From its second epoch on every training is interrupted, as by Ctrl-C; undone by monkeypatch.undo()."""
    from cvae_support import training

    run_epoch = training.train_epoch

    def stopped(config, data, epoch, *rest):
        if epoch == 2:
            raise KeyboardInterrupt
        return run_epoch(config, data, epoch, *rest)

    return lambda: monkeypatch.setattr(training, "train_epoch", stopped)


@pytest.fixture(scope="session")
def script():
    """A script of the repository as a module: script("tools/train_weights.py")."""

    def load(name):
        path = Path(__file__).parents[1] / name
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # so that what it defines can be pickled
        sys.path.insert(0, str(path.parent))  # as when it is run: it may import its neighbours
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.parent))
        return module

    return load


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """scikit-learn's 8 x 8 digits, three times enlarged and padded to 32 x 32, as an .npz file (see TRAINING.md)."""
    source = (Path(__file__).parents[1] / "TRAINING.md").read_text()
    code = source.split("```python\n", 1)[1].split("```", 1)[0]
    folder = tmp_path_factory.mktemp("digits")
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return folder / "digits.npz"


@pytest.fixture(autouse=True)
def quiet_threads():
    torch.set_num_threads(1)  # the models here are too small to share out
