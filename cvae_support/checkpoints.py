"""Checkpoints: safetensors for the numbers, JSON for everything else.

A checkpoint is a pair: NAME.json (configuration, fingerprint, history, checksums, versions) names the file of
its tensors, NAME.HASH.safetensors, and that file's SHA-256. The tensors are written first and the JSON last,
each to a temporary file that is then renamed, so that at every moment NAME.json and what it names belong together.
"""

import hashlib
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cvae_support import __version__
from cvae_support.config import Config
from cvae_support.files import write_atomically
from cvae_support.models import VAE

SHIPPED_FOLDER = Path(__file__).parent / "weights"
FORMAT = 1
RECORD = frozenset({"config", "fingerprint", "weights", "sha256", "versions", "history", "data", "classes"})
# Of what is taken apart when it is used.
TYPES = {"config": dict, "weights": str, "versions": dict, "history": list, "classes": list}
ITEMS = {"history": dict, "classes": str}
REMEDY = "Fetch it again; where it is of a run of your own, delete the run's folder to start over"


class CheckpointError(RuntimeError):
    """A checkpoint is absent, damaged, foreign, or of another configuration."""


def versions() -> dict[str, str]:
    """Of this package and of torch, for the record."""
    return {"cvae_support": __version__, "torch": torch.__version__}


def save_checkpoint(
    path: Path,
    tensors: dict[str, Tensor],
    config: Config,
    *,
    data: str,
    classes: Sequence[str],
    history: list[dict[str, float]],
    **more: Any,
) -> None:
    """Write the tensors and their record as the checkpoint path (a .json file). Raises OSError if it can't be.

    data is the checksum of what it was trained on; more is kept in the record as it is.
    """
    save_tensors(path, tensors, {
        "config": asdict(config), "fingerprint": config.fingerprint,
        "data": data, "classes": list(classes), **more, "history": history,
    })  # fmt: skip


def save_tensors(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write the pair path (a .json file, the record with its file's name and hash) and the file of its tensors.

    Raises OSError, with the older pair untouched.
    """
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    weights = path.with_name(f"{path.stem}.{digest[:12]}.safetensors")
    write_atomically(weights, content)
    head = {"format": FORMAT, "weights": weights.name, "sha256": digest, "versions": versions()}
    whole = head | record
    write_atomically(path, json.dumps(whole | {"record_sha256": record_digest(whole)}, indent=1).encode())
    # Only now is the older one not needed. Twelve hex digits: other files of that name, such as maps, stay.
    for stale in path.parent.glob(f"{path.stem}.{'[0-9a-f]' * 12}.safetensors"):
        if stale != weights:
            stale.unlink()


def record_digest(record: dict[str, Any]) -> str:
    """SHA-256 of all of a record but this itself, as it is once it has been through a file."""
    kept = {name: value for name, value in record.items() if name != "record_sha256"}
    return hashlib.sha256(json.dumps(json.loads(json.dumps(kept)), sort_keys=True).encode()).hexdigest()


def load_record(path: Path | str, needed: frozenset[str] = RECORD) -> dict[str, Any]:
    """The record of the checkpoint path (a .json file), without its tensors. Raises CheckpointError."""
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}, this version reads {FORMAT}")
        if missing := needed - record.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        for name in needed & TYPES.keys():
            if not isinstance(record[name], TYPES[name]):
                raise ValueError(f"its {name} is {record[name]!r}")
        if record["record_sha256"] != record_digest(record):
            raise ValueError(f"it is altered: its record_sha256 is not that of the rest. {REMEDY}")
        for name in needed & ITEMS.keys():
            if not all(isinstance(item, ITEMS[name]) for item in record[name]):
                raise ValueError(f"its {name} is {record[name]!r}")
        if not Path(record["weights"]).name:
            raise ValueError("its weights have no name")
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not a checkpoint of this package: {error}") from error
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of this package: {error!r}") from error
    return record


def load_checkpoint(path: Path | str, needed: frozenset[str] = RECORD) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of the checkpoint path (a .json file), verified.

    Raises CheckpointError, saying what is wrong with which file, and returns nothing half-read.
    """
    path, record = Path(path), load_record(path, needed)
    name, digest = record["weights"], record["sha256"]
    weights = path.with_name(Path(name).name)  # the same folder, whatever the name says
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} names {weights.name}, which cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"{weights} is truncated or altered: its SHA-256 is not that in {path.name}. {REMEDY}")
    try:
        return load(content), record
    except SafetensorError as error:
        raise CheckpointError(f"{weights} is not a safetensors file: {error}") from error


def differences(record: dict[str, Any], config: Config, data_checksum: str | None = None) -> list[str]:
    """Where a checkpoint's configuration is not the one asked for: 'epochs is 10 there, 12 asked for'."""
    wanted = asdict(config)
    there = {field.name: field.default for field in fields(Config)} | record["config"]  # it may lack a newer field
    found = [
        f"{name} is {there[name]!r} there, {wanted.get(name)!r} asked for"
        for name in sorted(there)
        if there[name] != wanted.get(name)
    ]
    if not found and record["fingerprint"] != config.fingerprint:
        found.append(f"the fingerprint is {record['fingerprint']} there, {config.fingerprint} asked for")
    if data_checksum and record["data"] != data_checksum:
        found.append("it was trained on other data, or on more or fewer images of it")
    return found


def load_model(path: Path | str, device: torch.device | str = "cpu") -> tuple[VAE, dict[str, Any]]:
    """The model in the checkpoint path, in float32 and ready to use, and its record. Raises CheckpointError."""
    tensors, record = load_checkpoint(path)
    try:
        config = Config(**record["config"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a configuration this version does not know: {error}") from error
    if record["fingerprint"] != config.fingerprint:
        raise CheckpointError(f"{path} is altered: its fingerprint is not that of the configuration it states")
    with torch.device("meta"):  # no time spent on an initialisation that is overwritten
        model = VAE(config)
    if any(name.startswith("optimizer.") for name in tensors):
        raise CheckpointError(f"{path} is the state of a run, to resume; its weights will be in final.json")
    try:
        model.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
    except RuntimeError as error:
        few = textwrap.shorten(str(error), 300)  # of possibly hundreds of names
        raise CheckpointError(f"the tensors of {path} are not those of its configuration: {few}") from error
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise CheckpointError(f"the tensors of {path} hold NaN or infinity")
    return model.to(device).eval(), record
