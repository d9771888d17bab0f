"""A training run: on which device, in which folder, kept to one process, and what an error leaves there."""

import errno
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from cvae_support.checkpoints import load_record, save_checkpoint
from cvae_support.config import Config
from cvae_support.data import Dataset
from cvae_support.files import cache_folder


class TrainingError(RuntimeError):
    """Training cannot start or go on."""


def best_device() -> str:
    """Where there is a choice: cuda, else mps, else cpu."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def run_folder(config: Config, data_checksum: str) -> Path:
    """Where a local run of this configuration on this data keeps its checkpoints."""
    return cache_folder() / "runs" / f"{config.name}-{config.fingerprint[:8]}-{data_checksum[:8]}"


def check_writable(folder: Path) -> None:
    """Raise TrainingError if no checkpoint could be written in folder: better now than after the first epoch."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder), open(folder / "lock", "ab"):  # the lock may be another account's
            pass
    except OSError as error:
        raise TrainingError(
            f"no checkpoint can be written in {folder}: {error}. "
            "Choose another place: --folder, or set CVAE_CACHE to a folder"
        ) from error


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep folder to this run until it ends or is killed. Raises TrainingError where another one is at work."""
    with open(folder / "lock", "ab") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise TrainingError(f"another process is training in {folder}: wait for it, or choose another") from error
        except OSError:
            pass  # a file system that knows no locks
        for kept in ("last", "final"):  # of a run that was killed while it saved; other files of that kind stay
            for left in folder.glob(f"{kept}.*.partial"):
                left.unlink(missing_ok=True)
        yield


def last_good(last: Path) -> str:
    """Which checkpoint an error leaves behind."""
    if not last.is_file():
        return "there is no checkpoint yet"
    return f"the last good checkpoint, {last}, is of epoch {len(load_record(last)['history'])}"


def again(last: Path) -> str:
    """What to do after an interruption."""
    return "run it again to go on (the command train: with --resume)" if last.is_file() else "start again"


def save(path: Path, tensors: dict[str, Tensor], config: Config, data: Dataset, history: list, made_on: str) -> None:
    """Write a checkpoint of the run. Raises TrainingError, with the older checkpoint untouched."""
    try:
        save_checkpoint(
            path, tensors, config,
            data=data.checksum, classes=data.classes, history=history, made_on=made_on,
        )  # fmt: skip
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Make room there" if full else "Make it writable"
        raise TrainingError(
            f"epoch {len(history)} could not be saved: {error}; {last_good(path.with_name('last.json'))}. "
            f"{remedy} and {again(path.with_name('last.json'))}"
        ) from error
