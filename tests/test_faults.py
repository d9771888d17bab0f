"""What goes wrong on other people's machines, done on purpose: nothing is lost, and an error names what to do.

The README's table counts these cases, and those of the other files it names; test_upkeep.py holds it to them.
"""

import ast
import gzip
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import test_data
import torch

from cvae_support import checkpoints, files, runs
from cvae_support import data as data_module
from cvae_support.__main__ import class_index, main
from cvae_support.checkpoints import (
    SHIPPED_FOLDER,
    CheckpointError,
    load_checkpoint,
    load_model,
    save_checkpoint,
    save_tensors,
)
from cvae_support.data import CLASSES, DataError, load_dataset, load_fashion_mnist, write_atomically
from cvae_support.models import VAE
from cvae_support.trained import load_or_train
from cvae_support.training import TrainingError, train

ROOT = Path(__file__).resolve().parents[1]
small, put = test_data.small, test_data.put  # a made-up data set in the role of Fashion-MNIST
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork, signals or mounts")


@pytest.fixture
def saved(config, tmp_path):
    """The path of a checkpoint with an untrained model."""
    model = VAE(config())
    record = dict(data="d" * 64, classes=["a"], history=[{"epoch": 1, "test_recon": 0.25}])
    save_checkpoint(tmp_path / "m.json", model.state_dict(), model.config, **record)
    return tmp_path / "m.json"


def tensors_file(path):
    return path.with_name(json.loads(path.read_text())["weights"])


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


# ------------------------------------------------------------------------------------------------ damaged checkpoints


@pytest.mark.parametrize("tenth", range(10))
def test_a_record_cut_short(saved, tenth):
    content = saved.read_bytes()
    saved.write_bytes(content[: len(content) * tenth // 10])
    with pytest.raises(CheckpointError, match="not a checkpoint of this package"):
        load_model(saved)


@pytest.mark.parametrize("tenth", range(10))
def test_a_bit_flipped_in_the_tensors(saved, tenth):
    content = tensors_file(saved).read_bytes()
    tensors_file(saved).write_bytes(flip(content, len(content) * tenth // 10))
    with pytest.raises(CheckpointError, match="altered.* Fetch it again; .* delete the run's folder to start over"):
        load_model(saved)


@pytest.mark.parametrize(
    "text",
    [
        '"format": 1', '.safetensors"', '"sha256": "', '"model": "s', '"kl_weight": 0.0', '"batch_size": 3',
        '"seed": 4', '"zero_init"', '"fingerprint": "', '"classes"', '"a', '"data": "d', '"test_recon": 0',
        '"torch": "2',
    ],
)  # fmt: skip
def test_a_bit_flipped_in_the_record(saved, text):
    content = saved.read_bytes()
    saved.write_bytes(flip(content, content.index(text.encode()) + len(text) - 1))
    with pytest.raises(CheckpointError, match="m.json|altered"):
        load_model(saved)


@pytest.mark.parametrize("name", sorted(checkpoints.RECORD | {"record_sha256"}))
def test_a_record_that_lacks_a_part(saved, name):
    record = json.loads(saved.read_text())
    del record[name]
    saved.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=rf"not a checkpoint of this package: .*(it lacks {name}|'{name}')"):
        load_model(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"history": None}, {"weights": 3}, {"config": []}, {"classes": "ab"}, {"sha256": 0}, {"fingerprint": None},
        {"history": [2]}, {"classes": [1]}, {"weights": ""}, {"versions": 3}, {"config": {"width": 1e308}},
        {"config": {"model": "spatial", "width": float("inf")}}, {"config": {"model": "spatial", "colour": "red"}},
        {"format": 2}, {"fingerprint": "0123456789abcdef"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_record_with_a_value_that_makes_no_sense(saved, change):
    record = json.loads(saved.read_text()) | change
    saved.write_text(json.dumps(record | {"record_sha256": checkpoints.record_digest(record)}))  # as if meant so
    with pytest.raises(CheckpointError):
        load_model(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(saved, config, value):
    model = VAE(config())
    next(model.parameters()).data.view(-1)[0] = value
    save_checkpoint(saved, model.state_dict(), model.config, data="", classes=[], history=[])
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        load_model(saved)


def test_a_checkpoint_nested_too_deep_to_read(saved):
    saved.write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_model(saved)


@pytest.mark.parametrize("what", ["record", "tensors"])
def test_a_folder_in_place_of_a_file(saved, what):
    path = saved if what == "record" else tensors_file(saved)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match=path.name):
        load_model(saved)


@pytest.mark.parametrize("what", ["record", "tensors"])
def test_a_checkpoint_one_may_not_read(saved, monkeypatch, what):
    """Root may read everything, so the refusal is played."""
    path = saved if what == "record" else tensors_file(saved)

    def refuse(file, *arguments, read=Path.open, **options):
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return read(file, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=f"{path.name}.*cannot be read: .*Permission denied"):
        load_model(saved)


def test_final_weights_do_not_pass_for_a_run_to_resume(few, config, tmp_path):
    train(config(epochs=1), few, tmp_path)
    shutil.copy(tmp_path / "final.json", tmp_path / "last.json")
    with pytest.raises(CheckpointError, match="last.json cannot be resumed"):
        train(config(epochs=1), few, tmp_path, resume=True)


def test_nothing_here_reads_or_is_a_pickle():
    """Neither the code, where only torch.load, pickle and numpy's switch for it could, nor a file that ships."""
    for path in [*ROOT.glob("cvae_support/*.py"), *ROOT.glob("tools/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "joblib", "dill", "shelve"} & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Attribute) and node.attr == "load" and isinstance(node.value, ast.Name):
                assert node.value.id not in ("torch", "fabric"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert node.value.value is False, path
    shipped = [path for folder in ("cvae_support", "assets", "posts") for path in (ROOT / folder).rglob("*")]
    assert not [path for path in shipped if path.suffix in (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz")]


@pytest.mark.parametrize("where", ["record", "tensors"])
@pytest.mark.parametrize("path", sorted(SHIPPED_FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_what_ships_is_refused_with_one_bit_flipped(path, where, tmp_path, monkeypatch):
    config = load_model(path)[0].config
    monkeypatch.setattr("cvae_support.trained.SHIPPED_FOLDER", tmp_path)
    for file in (path, tensors_file(path)):
        shutil.copy(file, tmp_path)
    altered = tmp_path / (path.name if where == "record" else tensors_file(path).name)
    content = altered.read_bytes()
    place = content.index(b'"test_recon": 0.') + 16 if where == "record" else len(content) - 2
    altered.write_bytes(flip(content, place))
    with pytest.raises(CheckpointError, match="altered"):
        load_or_train(config)


# ------------------------------------------------------------------------------------------------------- damaged data


def only_source(folder, files, monkeypatch, zipped=False):
    """The folder with these files is the one place where data is found."""
    put(folder, files, zipped)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(folder))


def assert_refused(match):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=match):
            load_fashion_mnist()
    assert not (data_module.cache_folder() / "fashion-mnist").exists()


@pytest.mark.parametrize("tenth", range(10))
def test_a_gzip_cut_short(small, tmp_path, monkeypatch, tenth):
    only_source(tmp_path / "mine", small, monkeypatch, zipped=True)
    path = tmp_path / "mine" / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenth // 10])
    assert_refused("FASHION_MNIST_DIR: .*train-images")


@pytest.mark.parametrize("swap", ["images and labels", "training and test"])
def test_files_under_each_others_names(small, tmp_path, monkeypatch, swap):
    names = list(small)
    order = [1, 0, 3, 2] if swap == "images and labels" else [2, 3, 0, 1]
    only_source(tmp_path / "mine", {name: small[names[i]] for name, i in zip(names, order, strict=True)}, monkeypatch)
    assert_refused("its SHA-256 differs")


@pytest.mark.parametrize("suffix", ["", ".gz", "gzipped"])
def test_an_error_page_in_place_of_a_file(small, tmp_path, monkeypatch, suffix):
    only_source(tmp_path / "mine", small, monkeypatch)
    page = b"<!DOCTYPE html><html><title>404</title></html>"
    (tmp_path / "mine" / "t10k-labels-idx1-ubyte").unlink()
    name = "t10k-labels-idx1-ubyte" + (".gz" if suffix else "")
    (tmp_path / "mine" / name).write_bytes(gzip.compress(page) if suffix == "gzipped" else page)
    assert_refused(f"FASHION_MNIST_DIR: .*{name} (cannot be read|is not Fashion-MNIST's)")  # the file that is there


@pytest.mark.parametrize("tenth", range(10))
def test_an_npz_cut_short(tmp_path, tenth):
    np.savez(tmp_path / "other.npz", **test_data.made_up())
    content = (tmp_path / "other.npz").read_bytes()
    (tmp_path / "other.npz").write_bytes(content[: len(content) * tenth // 10])
    with pytest.raises(DataError, match="other.npz is not an .npz file, or a part of one"):
        load_dataset(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.full((12, 32, 32), np.nan, np.float32)}, "training part .* got float32"),
        ({"y_test": np.full(5, np.nan)}, "test part .* label from 0 up"),
        ({"x_test": np.array([{"an": "object"}] * 5)}, "cannot be read"),
        ({"x_train": np.zeros((0, 32, 32), np.uint8), "y_train": np.zeros(0, int)}, "the training part of .* is empty"),
        ({"x_train": test_data.made_up()["y_train"], "y_train": test_data.made_up()["x_train"]}, "needs images"),
    ],
    ids=["NaN in images", "NaN in labels", "a pickle", "nothing", "swapped"],
)
def test_other_data_with_something_wrong_inside(tmp_path, change, message):
    np.savez(tmp_path / "other.npz", **test_data.made_up() | change)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path / "other.npz")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("model", ["unconditional", "adaln"])
def test_an_image_that_is_not_finite(config, model, value):
    x = torch.rand(2, 1, 28, 28)
    x[1, 0, 3, 3] = value
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        VAE(config(model)).encode(x, torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("name", ["Hat", "10", "-1", "3.5", "", " ", "²", "nan", "Sandals"])
def test_a_class_that_does_not_exist(name):
    with pytest.raises(ValueError, match="no class .*; there are 0 to 9, or by name: T-shirt/top, Trouser"):
        class_index(name, CLASSES)


@pytest.mark.parametrize(
    "labels",
    [torch.tensor([0, 10]), torch.tensor([-1, 0]), torch.tensor([0.0, 1.0]), torch.zeros(2, 10, dtype=torch.int64)],
    ids=["too large", "negative", "float", "one-hot"],
)
@pytest.mark.parametrize("model", ["spatial", "adaln"])
def test_labels_that_are_no_classes(config, model, labels):
    vae = VAE(config(model))
    for call in (lambda: vae.encode(torch.rand(2, 1, 28, 28), labels), lambda: vae.sample(labels)):
        with pytest.raises(ValueError, match="^y must "):
            call()


# ---------------------------------------------------------------------------------------------- kill -9 at every moment


def killed_before_call(number, action) -> bool:
    """Run action in a process that is killed -9 just before its numbered call to the file system; whether it was."""
    pid = os.fork()
    if not pid:
        calls = itertools.count()

        def deadly(function):
            def call(*arguments, **options):
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for owner, name in ((os, "fsync"), (Path, "mkdir"), (Path, "replace"), (Path, "unlink")):
            setattr(owner, name, deadly(getattr(owner, name)))
        try:
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


SAVE_CALLS = 9  # mkdir, fsync, replace and unlink of the tensors, then of the record; unlink of the old tensors
# mkdir, twice in the download and thrice for the cache; fsync, replace, unlink of four files; mkdir before three
DOWNLOAD_CALLS = 20


@posix
@pytest.mark.parametrize("call", range(SAVE_CALLS))
def test_killed_while_saving(tmp_path, call):
    """The checkpoint is the old one or the new one, whole; and the next save goes through."""
    path = tmp_path / "run" / "last.json"
    record = {name: kind() for name, kind in checkpoints.TYPES.items() if name != "weights"}
    record |= {"fingerprint": "", "data": ""}

    def write(value):
        save_tensors(path, {"a": torch.full((50,), value)}, record | {"history": [{"loss": value}]})

    write(0.0)
    assert not killed_before_call(SAVE_CALLS, lambda: write(1.0))  # there are no more moments than these
    assert killed_before_call(call, lambda: write(2.0))
    tensors, found = load_checkpoint(path)
    assert found["history"] == [{"loss": tensors["a"].mean().item()}] and tensors["a"].mean() in (1.0, 2.0)
    write(3.0)
    assert load_checkpoint(path)[0]["a"].eq(3).all()
    assert len([file for file in path.parent.iterdir() if file.suffix != ".partial"]) == 2


@posix
@pytest.mark.parametrize("call", range(-1, DOWNLOAD_CALLS))
def test_killed_while_downloading(small, tmp_path, monkeypatch, call):
    """In the download itself (-1), or while the cache is filled: what is there later is whole, and true."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def download(folder, killed=call == -1):
        put(folder, dict(list(small.items())[:2]))
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        put(folder, small)
        return folder

    monkeypatch.setattr(data_module, "torchvision_download", download)
    assert killed_before_call(call, load_fashion_mnist)
    monkeypatch.setattr(data_module, "torchvision_download", lambda folder: download(folder, killed=False))
    assert len(load_fashion_mnist().train_images) == 12
    assert data_module.find_files()[1] == "cache"


@posix
def test_two_runs_in_one_folder(few, config, tmp_path):
    """The second is refused and writes nothing; and a killed run leaves the folder free."""
    folder = tmp_path / "run"
    folder.mkdir()
    ready, say_ready = os.pipe()
    pid = os.fork()
    if not pid:
        with runs.only_run(folder):
            os.write(say_ready, b"!")
            signal.pause()
    os.read(ready, 1)
    try:
        with pytest.raises(TrainingError, match="another process is training in .*run: wait for it, or choose another"):
            train(config(epochs=1), few, folder)
        assert [file.name for file in folder.iterdir()] == ["lock"]
        (folder / "last.json").write_text("of the run that is going on")
        for resume in (False, True):  # neither is it told to delete the folder, nor does it read what is being written
            with pytest.raises(TrainingError, match="another process is training"):
                train(config(epochs=1), few, folder, resume=resume)
        (folder / "last.json").unlink()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(train(config(epochs=1), few, folder)) == 1


# ----------------------------------------------------------------------------- disks, folders and accounts of all kinds


def mount(*arguments) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture(params=["a disk of 32 kB", "a limit of 32 kB a file"])
def full_disk(request, tmp_path):
    """A folder in which 32 kB can be written and no more. Only root can have the first kind."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "a disk of 32 kB":
        if sys.platform != "linux":
            pytest.skip("small disks are mounted on Linux only")
        mount("-t", "tmpfs", "-o", "size=32k", "tmpfs", folder)
        yield folder
        subprocess.run(["umount", folder], check=True)
        return
    resource = pytest.importorskip("resource", reason="limits of this kind are POSIX")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32_000, old[1]))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_while_saving(full_disk, config):
    path = full_disk / "last.json"
    options = dict(config=config(), data="", classes=[], history=[])
    save_checkpoint(path, {"a": torch.ones(50)}, **options)
    with pytest.raises(OSError):
        save_checkpoint(path, {"a": torch.zeros(50_000)}, **options)
    assert load_checkpoint(path)[0]["a"].eq(1).all()
    assert len(list(full_disk.iterdir())) == 2


def test_a_full_disk_while_the_data_is_cached(full_disk, small, monkeypatch):
    files = small | {"train-images-idx3-ubyte": test_data.idx(torch.zeros(100, 28, 28, dtype=torch.uint8))}
    monkeypatch.setattr(data_module, "find_files", lambda: (files, "elsewhere"))
    monkeypatch.setenv("CVAE_CACHE", str(full_disk))
    with pytest.warns(UserWarning, match="could not be cached"):
        assert len(load_fashion_mnist().train_images) == 100
    assert not list(full_disk.rglob("*.partial"))


def test_a_full_disk_while_a_run_starts(full_disk, few, config):
    with pytest.raises(TrainingError, match="epoch 1 could not be saved: .*Make room there"):
        train(config(epochs=1, width=0.25), few, full_disk / "run")
    assert not list(full_disk.rglob("*.partial"))


def test_a_full_disk_for_a_picture(full_disk, capsys):
    """An older one stays."""
    picture = full_disk / "s.png"
    picture.write_bytes(b"older")
    assert main(["sample", "adaln-w0.25-kl0.01-muon", "--class=3", "--count=100", f"--out={picture}"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {picture} cannot be written: ")
    assert picture.read_bytes() == b"older"


@posix
def test_a_checkout_that_cannot_be_written(data, tmp_path):
    """Models that ship are there and data is found, with a word about the cache; training says where to."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "cvae_support", checkout / "cvae_support", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    root = os.geteuid() == 0  # for whom permissions mean nothing
    if root:
        mount("--bind", checkout, checkout)
        mount("-o", "remount,ro,bind", checkout)
    else:
        checkout.chmod(0o555)
    script = (
        "import sys; from cvae_support.__main__ import main\n"
        f"print([main(['sample', 'adaln-w0.25-kl0.01-muon', '--class=3', '--out={tmp_path}/s.png']), main(['data']),\n"
        "    main(['train', '--width=0.125', '--epochs=1', '--batch-size=32', '--images=96'])])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CVAE_CACHE"}
    # Loading `data` has filled this cache.
    environment |= {"PYTHONPATH": str(checkout), "FASHION_MNIST_DIR": str(data_module.cache_folder() / "fashion-mnist")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=checkout, env=environment, capture_output=True, text=True
        )
    finally:
        if root:
            subprocess.run(["umount", checkout], check=True)
        else:
            checkout.chmod(0o755)
    assert done.stdout.endswith("[0, 0, 1]\n"), done.stderr
    assert "could not be cached" in done.stderr
    assert "error: no checkpoint can be written in" in done.stderr and "Choose another place: --folder" in done.stderr


@posix
@pytest.mark.parametrize("home", ["none", "of root alone"])
def test_an_account_without_a_home(small, tmp_path, monkeypatch, home):
    import pwd

    def nobody(_):
        raise KeyError("no such user")

    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages" / "cvae_support" / "files.py"))
    monkeypatch.delenv("CVAE_CACHE")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if home == "none":
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(pwd, "getpwuid", nobody)
    else:
        monkeypatch.setenv("HOME", "/proc")  # where nobody can make a folder
    put(tmp_path / "no-debian", small)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(load_fashion_mnist().train_images) == 12
    assert [str(warning.message)[:40] for warning in said if "could not be cached" in str(warning.message)] == (
        [] if home == "none" else ["the data could not be cached in /proc/.c"]
    )
    assert data_module.find_files()[1] == ("cache" if home == "none" else "Debian package")


@pytest.mark.parametrize("name", ["with späces and áccents", "日本語 🙂", "it's $HOME; & #1 %20"])
def test_a_path_with_characters_of_all_kinds(small, few, config, tmp_path, monkeypatch, name):
    folder = tmp_path / name
    only_source(folder / "data", small, monkeypatch, zipped=True)
    monkeypatch.setenv("CVAE_CACHE", str(folder / "cache"))
    load_fashion_mnist()
    assert data_module.find_files()[1] == "cache"
    monkeypatch.setattr("cvae_support.trained.SHIPPED_FOLDER", folder)
    model, _ = load_or_train(config(epochs=1), few)
    picture = folder / "s.png"
    weights = runs.run_folder(model.config, few.checksum) / "final.json"
    assert main(["sample", str(weights), "--class=Bag", f"--out={picture}"]) == 0 and picture.is_file()
    np.savez(folder / "other.npz", **test_data.made_up())
    assert len(load_dataset(folder / "other.npz").test_images) == 5


def test_without_a_network(monkeypatch, capsys):
    """From a cache that is filled: the data, and the weights that ship, ask nobody."""

    def no_network(*_):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    data = load_fashion_mnist()
    for path in sorted(SHIPPED_FOLDER.glob("*.json")):
        load_or_train(load_model(path)[0].config, data)
    assert capsys.readouterr().out.count("shipped weights") == len(list(SHIPPED_FOLDER.glob("*.json")))


# ------------------------------------------------------------------------------------------------------ make, stopped

# Plays both python3 and the environment's python. The step it shall not survive stands in the file die-at.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
  "-m pip --version") test -f .venv/pip; exit ;;
  "-c "*) exit ;;
  "-m venv --clear .venv") rm -rf .venv; mkdir -p .venv/bin; cp fake .venv/bin/python ;;
esac
echo "$*" >>log
if [ "$(wc -l <log)" -eq "$(cat die-at)" ]; then kill -9 $PPID; exit 1; fi
case "$*" in "-m venv"*) touch .venv/pip ;; esac
"""


# Any python3, of another version.
OTHER_PYTHON = """#!/bin/sh
shift
exec python3 -c "import sys; sys.version_info = ({}); sys.version = '{}'; $1"
"""


def set_up_with(tmp_path, python: str) -> Path:
    """A folder with what make needs to set up, and a program "fake" to play the Python."""
    if not shutil.which("make"):
        pytest.skip("make is not on PATH")
    folder = tmp_path / "a folder with späces"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.txt", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "fake").write_text(python)
    (folder / "fake").chmod(0o755)
    return folder


@posix
@pytest.mark.parametrize("version", ["3.9.6", "3.10.12", "3.15.0"])
def test_make_says_which_python_it_needs(tmp_path, version):
    folder = set_up_with(tmp_path, OTHER_PYTHON.format(version.replace(".", ", "), version))
    done = subprocess.run(["make", "PYTHON=./fake", ".venv/.installed"], cwd=folder, capture_output=True, text=True)
    assert "Python 3.11 to 3.14 is needed, and" in done.stderr
    assert f" is {version}. Name another: make site PYTHON=python3.12" in done.stderr
    assert done.returncode and not (folder / ".venv").exists()


@posix
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_make_killed_while_it_sets_up(tmp_path, step):
    """In the middle of making the environment, or of any install: the next make goes on, and one more is idle."""
    folder = set_up_with(tmp_path, FAKE_PYTHON)

    def make(die_at):
        (folder / "die-at").write_text(str(die_at))
        (folder / "log").write_text("")
        done = subprocess.run(["make", "PYTHON=./fake", ".venv/.installed"], cwd=folder, capture_output=True)
        return done.returncode, (folder / "log").read_text().splitlines()

    status, log = make(die_at=step)
    assert status != 0 and len(log) == step and not (folder / ".venv" / ".installed").exists()
    status, log = make(die_at=0)
    assert status == 0 and len(log) == (4 if step == 1 else 3)  # a half-made environment is made anew
    assert (folder / ".venv" / ".installed").is_file()
    assert make(die_at=0) == (0, [])


def test_a_build_of_the_site_that_is_stopped_is_not_taken_for_done(script, tmp_path, monkeypatch):
    build = script("tools/build_site.py")
    built = []

    def quarto(command, **_):
        built.append(command)
        if len(built) == 2:
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, 0)

    (tmp_path / "_site").mkdir()
    for name, value in (("ROOT", tmp_path), ("SITE", tmp_path / "_site"), ("find_quarto", lambda: "quarto")):
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr(build, "bring_runtime", lambda _: True)
    monkeypatch.setattr(build.subprocess, "run", quarto)
    page = tmp_path / "index.qmd"
    page.write_text("first")
    build.main()
    page.write_text("second")
    with pytest.raises(KeyboardInterrupt):
        build.main()
    page.write_text("first")  # what was built before, but not what lies in _site
    assert build.main() == 0 and len(built) == 3
    assert build.main() == 0 and len(built) == 3


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
