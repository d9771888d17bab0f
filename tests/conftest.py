"""What the tests share: the real data, and a configuration small enough to train in seconds."""

import pytest
import torch

from cvae_support.config import Config
from cvae_support.data import load_fashion_mnist

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


@pytest.fixture(autouse=True)
def quiet_threads():
    torch.set_num_threads(2)
