"""The dataset: where it is looked for, and that only the true files are ever used."""

import gzip
import hashlib
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from cvae_support import data as data_module
from cvae_support.data import DataError, cache_folder, load_dataset, load_fashion_mnist, parse_idx, to_float


def idx(values: torch.Tensor) -> bytes:
    """The bytes of an IDX file that holds these uint8 values."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.numpy().tobytes()


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A made-up dataset of 12 images in the role of Fashion-MNIST, and no real source in reach."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.arange(12, dtype=torch.uint8) % 10
    contents = [idx(images), idx(labels), idx(images.flip(0)), idx(labels.flip(0))]
    files = dict(zip(data_module.SHA256, contents, strict=True))
    monkeypatch.setattr(data_module, "SHA256", {n: hashlib.sha256(c).hexdigest() for n, c in files.items()})
    monkeypatch.setattr(data_module, "DEBIAN_FOLDER", tmp_path / "no-debian")
    monkeypatch.setattr(data_module, "torchvision_download", offline)
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    return files


def offline(folder):
    raise OSError("no network")


def put(folder, files, zipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)


def test_the_real_dataset(data):
    assert data.train_images.shape == (60_000, 1, 28, 28) and data.train_images.dtype == torch.uint8
    assert data.test_images.shape == (10_000, 1, 28, 28)
    assert torch.equal(data.train_labels.bincount(), torch.full((10,), 6000))
    assert torch.equal(data.test_labels.bincount(), torch.full((10,), 1000))
    # The first training image is an ankle boot; the mean pixel is a known figure of the dataset.
    assert data.classes[data.train_labels[0]] == "Ankle boot"
    assert data.train_images.float().mean().item() / 255 == pytest.approx(0.2860, abs=5e-5)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_named_folder_is_used_and_then_the_cache(small, tmp_path, monkeypatch, zipped):
    put(tmp_path / "mine", small, zipped)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "mine"))
    first = load_fashion_mnist()
    assert len(first.train_images) == 12
    monkeypatch.delenv("FASHION_MNIST_DIR")
    assert torch.equal(load_fashion_mnist().train_images, first.train_images)  # now from the cache
    assert data_module.find_files()[1] == "cache"


def test_sources_are_asked_in_order(small, tmp_path, monkeypatch):
    put(tmp_path / "no-debian", small, zipped=True)
    assert data_module.find_files()[1] == "Debian package"
    put(tmp_path / "mine", small)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "mine"))
    assert data_module.find_files()[1] == "FASHION_MNIST_DIR"
    put(tmp_path / "cache" / "fashion-mnist", small)
    assert data_module.find_files()[1] == "cache"


def test_a_named_folder_that_lacks_the_files_is_worth_a_word_and_a_cache_that_does_is_not(small, tmp_path, monkeypatch):
    put(tmp_path / "no-debian", small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data_module.find_files()[1] == "Debian package"
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "empty"))
    with pytest.warns(UserWarning, match="FASHION_MNIST_DIR: neither train-images-idx3-ubyte nor"):
        assert data_module.find_files()[1] == "Debian package"


def test_torchvision_is_the_last_resort(small, tmp_path, monkeypatch):
    def download(folder):
        put(folder / "raw", small)
        return folder / "raw"

    monkeypatch.setattr(data_module, "torchvision_download", download)
    assert data_module.find_files()[1] == "torchvision"


def test_torchvision_downloads_into_the_folder_it_is_told(tmp_path, monkeypatch):
    calls = []
    datasets = types.ModuleType("torchvision.datasets")
    datasets.FashionMNIST = lambda root, download: calls.append((root, download))
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    assert data_module.torchvision_download(tmp_path) == tmp_path / "FashionMNIST" / "raw"
    assert calls == [(str(tmp_path), True)]


def test_reading_needs_no_torchvision(small, tmp_path, monkeypatch):
    """A torchvision beside a torch of another build fails at import; the data is read all the same."""
    monkeypatch.setitem(sys.modules, "torchvision", None)  # any import of it now raises ImportError
    put(tmp_path / "no-debian", small, zipped=True)
    assert len(load_fashion_mnist().test_images) == 12


def test_a_broken_torchvision_is_reported_among_what_was_tried(small, monkeypatch):
    def broken(folder):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(data_module, "torchvision_download", broken)
    with pytest.raises(DataError) as error:
        load_fashion_mnist()
    message = str(error.value)
    assert "nms does not exist" in message
    for word in ("cache", "Debian package", "torchvision", "Three ways out", "apt-get install", "FASHION_MNIST_DIR"):
        assert word in message


def damaged_variants(content: bytes):
    flipped = bytearray(content)
    flipped[-1] ^= 1
    return {"one bit flipped": bytes(flipped), "truncated": content[: len(content) // 2], "empty": b""}


@pytest.mark.parametrize("damage", ["one bit flipped", "truncated", "empty"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_file_is_never_used(small, tmp_path, damage, name):
    put(tmp_path / "cache" / "fashion-mnist", small | {name: damaged_variants(small[name])[damage]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=name):
            load_fashion_mnist()
        put(tmp_path / "no-debian", small, zipped=True)
        load_fashion_mnist()  # the next source helps,
    assert data_module.find_files()[1] == "cache"  # and the cache is whole again


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(small, tmp_path, monkeypatch):
    put(tmp_path / "no-debian", small)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be cached"):
        assert len(load_fashion_mnist().train_images) == 12


def test_idx_errors():
    with pytest.raises(DataError, match="not an IDX file"):
        parse_idx(b"nonsense", "x")
    with pytest.raises(DataError, match="says it holds"):
        parse_idx(idx(torch.zeros(3, 2, dtype=torch.uint8)) + b"!", "x")


def test_cache_folder_follows_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("CVAE_CACHE", "~/kept")
    assert cache_folder() == Path.home() / "kept"


def test_floats_are_not_taken_for_bytes(few):
    assert to_float(few.test_images).max() == 1
    with pytest.raises(ValueError, match="images must be uint8, 0 .. 255, got torch.float32"):
        to_float(to_float(few.test_images))


def made_up(size=32, count=7):
    """Arrays as an .npz holds them: 12 training and 5 test images of this size, of `count` classes."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, number in (("train", 12), ("test", 5)):
        arrays[f"x_{split}"] = random.integers(0, 256, (number, size, size), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(number, dtype=np.uint8) % count
    return arrays


def test_other_data_from_an_npz_and_from_idx_files_are_the_same(tmp_path):
    arrays = made_up()
    np.savez(tmp_path / "other.npz", **arrays)
    contents = [idx(torch.from_numpy(arrays[name])) for name in ("x_train", "y_train", "x_test", "y_test")]
    put(tmp_path / "idx", dict(zip(data_module.SHA256, contents, strict=True)), zipped=True)
    from_npz, from_idx = load_dataset(tmp_path / "other.npz"), load_dataset(tmp_path / "idx")
    for other in (from_npz, from_idx):
        assert other.train_images.shape == (12, 1, 32, 32) and other.test_labels.dtype == torch.int64
        assert other.classes == ("0", "1", "2", "3", "4", "5", "6")
        assert torch.equal(other.train_images[:, 0], torch.from_numpy(arrays["x_train"]))
    assert from_npz.checksum == from_idx.checksum
    np.savez(tmp_path / "changed.npz", **arrays | {"x_test": arrays["x_test"] // 2})
    assert load_dataset(tmp_path / "changed.npz").checksum != from_npz.checksum


@pytest.mark.parametrize("kind", ["int8", "uint16", "uint64", ">i4"])
def test_labels_may_be_integers_of_any_kind(tmp_path, kind):
    arrays = made_up()
    np.savez(tmp_path / "other.npz", **{name: a.astype(kind) if name[0] == "y" else a for name, a in arrays.items()})
    np.savez(tmp_path / "bytes.npz", **arrays)
    (tmp_path / "bytes.npz").rename(tmp_path / "BYTES.NPZ")
    other, of_bytes = load_dataset(str(tmp_path / "other.npz")), load_dataset(tmp_path / "BYTES.NPZ")
    assert other.train_labels.tolist() == arrays["y_train"].tolist()
    assert other.checksum == of_bytes.checksum  # the same data, and a run on it can be resumed


def test_scikit_learns_digits(digits):
    data = load_dataset(digits)
    assert data.train_images.shape == (1500, 1, 32, 32) and len(data.classes) == 10
    assert data.train_images.max() == 255 and data.train_images[:, :, :4].max() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(x_train=np.zeros((12, 30, 30), np.uint8)), "training part .* 30 pixels: pad them"),
        (
            dict(x_test=np.zeros((5, 28, 28), np.uint8)),
            "test part .* 28 x 28 pixels, the training part of 32 x 32: pad",
        ),
        (dict(x_test=np.zeros((0, 32, 32), np.uint8), y_test=np.zeros(0, int)), "the test part of .* is empty"),
        (dict(x_train=np.zeros((12, 32, 28), np.uint8)), r"needs images \(N, S, S\) of uint8"),
        (dict(x_train=np.zeros((12, 32, 32))), "got float64"),
        (dict(y_train=np.zeros(11, int)), "label from 0 up for each of 12 images"),
        (dict(y_test=np.full(5, -1)), "test part .* label from 0 up .*int64 .*the lowest -1"),
        (dict(y_test=np.zeros(5)), "test part .* label from 0 up .*got float64"),
        (dict(y_train=np.arange(1, 13)), "training part .* labels up to 12, but none is 0: number its classes"),
        (dict(y_train=np.r_[:11, 10**12]), "training part .* labels up to 1000000000000, but none is 11"),
        (dict(y_test=np.full(5, 40)), "test part .* the label 40, which no training image has"),
        (dict(y_test=None), "cannot be read as x_train, y_train, x_test and y_test"),
    ],
)
def test_other_data_that_cannot_be_used_is_named(tmp_path, change, message):
    arrays = {name: array for name, array in (made_up() | change).items() if array is not None}
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "other.npz")


def test_other_data_that_is_not_there_or_damaged(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="broken.npz is not an .npz file, or a part of one: make it with numpy.savez"):
        load_dataset(tmp_path / "broken.npz")
    with pytest.raises(DataError, match="neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz is in"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match="there is no .*absent"):
        load_dataset(tmp_path / "absent")
    (tmp_path / "images.zip").write_bytes(b"")
    with pytest.raises(DataError, match="neither a folder"):
        load_dataset(tmp_path / "images.zip")
