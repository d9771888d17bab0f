"""Fashion-MNIST (Xiao et al. 2017): found, verified and read into one tensor of bytes. Other data sets too.

The four files are looked for in the cache, in the folder FASHION_MNIST_DIR, where Debian's package
dataset-fashion-mnist puts them, and last at torchvision's mirror. Whatever the source, the SHA-256 of
each uncompressed file is checked before it is used.
"""

import gzip
import hashlib
import math
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cvae_support.files import cache_folder, write_atomically

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

# SHA-256 of the files as they are when unpacked: gzip output differs from tool to tool, the content does not.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
TEST_BATCH = 500  # test images in a batch: the noise for their z is drawn batch by batch
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
WAYS_OUT = """Three ways out:
  1. go online and run this again: torchvision downloads the files (30 MB);
  2. on Debian or Ubuntu: sudo apt-get install dataset-fashion-mnist;
  3. put the four files (.gz or unpacked) in a folder and set FASHION_MNIST_DIR to it."""


class DataError(RuntimeError):
    """The dataset cannot be had, or is not what it should be."""


@dataclass(frozen=True)
class Dataset:
    """Images (N, 1, S, S) uint8 and labels (N,) int64 of both splits, and a checksum of them all."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    checksum: str

    def to(self, device: torch.device | str) -> "Dataset":
        """The same dataset with its tensors on the device."""
        return replace(self, **{
            name: getattr(self, name).to(device)
            for name in ("train_images", "train_labels", "test_images", "test_labels")
        })  # fmt: skip

    def first(self, train: int, test: int) -> "Dataset":
        """A small dataset of the first images of each split, for a quick try."""
        text = f"{self.checksum} first {train} {test}"
        return Dataset(
            self.train_images[:train], self.train_labels[:train],
            self.test_images[:test], self.test_labels[:test],
            self.classes, hashlib.sha256(text.encode()).hexdigest(),
        )  # fmt: skip


def file_of(folder: Path, name: str) -> Path:
    """The file of this name in folder, as it is or gzipped."""
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"


def read_file(folder: Path, name: str) -> bytes:
    """One file of the four, unpacked, from folder. DataError if absent or unreadable."""
    file = file_of(folder, name)
    if not file.is_file():
        raise DataError(f"neither {name} nor {name}.gz is in {folder}")
    try:
        return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def read_verified(folder: Path, name: str) -> bytes:
    """One file of the four, unpacked, from folder. DataError if absent, unreadable or altered."""
    content = read_file(folder, name)
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        file = file_of(folder, name)
        raise DataError(f"{file} is not Fashion-MNIST's file (its SHA-256 differs); delete it and try again")
    return content


def torchvision_download(folder: Path) -> Path:
    """Let torchvision download the files below folder; returns where it put them."""
    # Imported here: beside a torch of another build this import fails, and reading the data must not.
    from torchvision.datasets import FashionMNIST

    FashionMNIST(str(folder), download=True)
    return folder / "FashionMNIST" / "raw"


def sources(scratch: Path) -> Iterator[tuple[str, Path]]:
    """Each place to look, with its name, best first. The download starts when its turn comes."""
    yield "cache", cache_folder() / "fashion-mnist"
    if os.environ.get("FASHION_MNIST_DIR"):
        yield "FASHION_MNIST_DIR", Path(os.path.expanduser(os.environ["FASHION_MNIST_DIR"]))
    yield "Debian package", DEBIAN_FOLDER
    yield "torchvision", scratch


def find_files() -> tuple[dict[str, bytes], str]:
    """The verified content of the four files, and the name of the source that had them.

    Raises DataError, listing every source tried and the ways out, when none has them.
    """
    tried = []
    with tempfile.TemporaryDirectory() as scratch:
        for source, folder in sources(Path(scratch)):
            try:
                if source == "torchvision":
                    folder = torchvision_download(folder)
                files = {name: read_verified(folder, name) for name in SHA256}
            except DataError as error:
                tried.append(f"  {source}: {error}")
                # A folder somebody named, or a cache gone bad, is worth a word even if the next source helps.
                if source == "FASHION_MNIST_DIR" or "SHA-256" in str(error):
                    warnings.warn(f"Fashion-MNIST from {source}: {error}", stacklevel=3)
            except Exception as error:  # torchvision fails in many ways: import, network, disk
                tried.append(f"  {source}: {type(error).__name__}: {error}")
            else:
                return files, source
    raise DataError("\n".join(["Fashion-MNIST was not found. Tried:", *tried, WAYS_OUT]))


def fill_cache(files: dict[str, bytes]) -> None:
    """Keep the files in the cache. A cache that cannot be written is no reason to stop."""
    folder = cache_folder() / "fashion-mnist"
    try:
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        warnings.warn(f"the data could not be cached in {folder}: {error}", stacklevel=2)


def parse_idx(content: bytes, name: str) -> Tensor:
    """The array in a file of the IDX format, as uint8 of the shape the file states."""
    rank = content[3] if len(content) > 3 else 0
    start = 4 + 4 * rank
    if content[:3] != b"\0\0\x08" or not 1 <= rank <= 4 or len(content) < start:
        raise DataError(f"{name} is not an IDX file of bytes")
    shape = [int(size) for size in np.frombuffer(content[4:start], ">u4")]
    if len(content) - start != math.prod(shape):
        raise DataError(f"{name} says it holds {tuple(shape)} values and holds {len(content) - start}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].view(shape)


def load_fashion_mnist() -> Dataset:
    """All 60,000 training and 10,000 test images, as bytes: (N, 1, 28, 28) uint8.

    At 55 MB they fit on any device; a batch is then a slice and needs no loader. Raises DataError.
    """
    files, source = find_files()
    if source != "cache":
        fill_cache(files)
    arrays = {name: parse_idx(content, name) for name, content in files.items()}
    train_x, train_y, test_x, test_y = (arrays[name] for name in SHA256)
    return Dataset(
        train_x.unsqueeze(1), train_y.long(),
        test_x.unsqueeze(1), test_y.long(),
        CLASSES, hashlib.sha256("".join(SHA256.values()).encode()).hexdigest(),
    )  # fmt: skip


def load_dataset(path: Path | str) -> Dataset:
    """Another data set of grey images: a folder with four IDX files, or an .npz file.

    The IDX files have the names of MNIST's (train-images-idx3-ubyte and so on, gzipped or not); the .npz holds
    x_train (N, S, S) uint8, y_train (N,) integers from 0, none left out, x_test and y_test. Size and number of
    classes are read from the data; the classes are called by their numbers. Raises DataError, naming the file and
    what it lacks.
    """
    arrays: list[np.ndarray]
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no {path}")
    if path.is_dir():
        arrays = [parse_idx(read_file(path, name), str(file_of(path, name))).numpy() for name in SHA256]
    elif path.suffix.lower() == ".npz":
        if not zipfile.is_zipfile(path):  # of which numpy would say that it may hold a pickle
            raise DataError(f"{path} is not an .npz file, or a part of one: make it with numpy.savez")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[name] for name in ("x_train", "y_train", "x_test", "y_test")]
        except Exception as error:  # numpy and zipfile fail on damaged files in a dozen ways
            raise DataError(f"{path} cannot be read as x_train, y_train, x_test and y_test: {error}") from error
    else:
        raise DataError(f"{path} is neither a folder of IDX files nor an .npz file")
    for split, images, labels in (("training", arrays[0], arrays[1]), ("test", arrays[2], arrays[3])):
        where = f"the {split} part of {path}"
        if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1] != images.shape[2]:
            raise DataError(f"{where} needs images (N, S, S) of uint8, got {images.dtype} of shape {images.shape}")
        if not images.size:
            raise DataError(f"{where} is empty")
        if images.shape[1:] != arrays[0].shape[1:]:
            raise DataError(
                f"{where} has images of {images.shape[1]} x {images.shape[2]} pixels, the training part of "
                f"{arrays[0].shape[1]} x {arrays[0].shape[2]}: pad all alike"
            )
        if images.shape[1] % 4:
            raise DataError(f"{where} has images of {images.shape[1]} pixels: pad them, all alike, to a multiple of 4")
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or labels.min() < 0:
            lowest = f", the lowest {labels.min()}" if labels.dtype.kind in "iu" and labels.size else ""
            raise DataError(
                f"{where} needs an integer label from 0 up for each of {len(images)} images, "
                f"got {labels.dtype} of shape {labels.shape}{lowest}"
            )
    known = set(arrays[1].tolist())
    if unknown := set(range(len(known))) - known:
        raise DataError(
            f"the training part of {path} has labels up to {max(known)}, but none is {min(unknown)}: "
            "number its classes 0, 1, 2 and so on"
        )
    if unknown := set(arrays[3].tolist()) - known:
        raise DataError(f"the test part of {path} has the label {min(unknown)}, which no training image has")
    train_x, test_x = (torch.from_numpy(arrays[part].copy()).unsqueeze(1) for part in (0, 2))
    train_y, test_y = (torch.from_numpy(arrays[part].astype(np.int64)) for part in (1, 3))
    return Dataset(
        train_x, train_y, test_x, test_y,
        tuple(str(label) for label in range(len(known))),
        hashlib.sha256(b"".join(part.numpy().tobytes() for part in (train_x, train_y, test_x, test_y))).hexdigest(),
    )  # fmt: skip


def to_float(images: Tensor) -> Tensor:
    """uint8 0 .. 255 -> float32 0 .. 1, what the models take and give. Raises ValueError on other numbers."""
    if images.dtype != torch.uint8:  # floats in [0, 1], most likely, which would come out nearly black
        raise ValueError(f"images must be uint8, 0 .. 255, got {images.dtype}")
    return images.float() / 255
