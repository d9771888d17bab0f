"""Weights are written whole, verified when read, and never silently those of another configuration."""

import json
import pickle
from dataclasses import replace

import pytest
import torch

from cvae_support import checkpoints, training
from cvae_support.checkpoints import (
    CheckpointError,
    differences,
    load_checkpoint,
    load_model,
    save_checkpoint,
    write_atomically,
)
from cvae_support.models import VAE
from cvae_support.runs import run_folder
from cvae_support.trained import load_or_train


@pytest.fixture
def saved(config, tmp_path):
    """An untrained model, saved; returns its path and the model."""
    model = VAE(config())
    record = dict(data="d" * 64, classes=["a"], history=[{"epoch": 1}])
    save_checkpoint(tmp_path / "m.json", model.state_dict(), model.config, **record)
    return tmp_path / "m.json", model


def tensors_file(path):
    return path.with_name(json.loads(path.read_text())["weights"])


def test_what_is_saved_comes_back(saved):
    path, model = saved
    loaded, record = load_model(path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert loaded.config == model.config and not loaded.training
    assert record["fingerprint"] == model.config.fingerprint
    assert record["history"] == [{"epoch": 1}] and record["data"] == "d" * 64
    assert {"cvae_support", "torch"} == record["versions"].keys()


def test_saving_again_replaces_and_leaves_nothing_behind(saved):
    path, model = saved
    torch.nn.init.zeros_(model.decoder.trunk[0].weight)
    save_checkpoint(path, model.state_dict(), model.config, data="", classes=[], history=[])
    assert torch.equal(load_model(path)[0].decoder.trunk[0].weight, model.decoder.trunk[0].weight)
    assert len(list(path.parent.iterdir())) == 2


def test_saving_again_leaves_what_else_lies_beside_it(saved):
    path, model = saved
    beside = path.with_name("m.tsne.safetensors")
    beside.write_bytes(b"a map")
    save_checkpoint(path, model.state_dict(), model.config, data="", classes=[], history=[])
    assert beside.read_bytes() == b"a map"


@pytest.mark.parametrize("tenth", range(10))
def test_truncated_tensors(saved, tenth):
    path, _ = saved
    file = tensors_file(path)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * tenth // 10])
    with pytest.raises(CheckpointError, match="truncated or altered"):
        load_model(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weights": "x", "sha256": "y"}', '"a"', '{"weights": 3, "sha256": "", "format": 1}']
)
def test_a_foreign_record(saved, text):
    path, _ = saved
    path.write_text(text)
    with pytest.raises(CheckpointError, match="not a checkpoint of this package"):
        load_model(path)


def test_tensors_of_another_architecture(saved, config):
    path, _ = saved
    other = VAE(config("adaln"))
    save_checkpoint(path, other.state_dict(), config("spatial"), data="", classes=[], history=[])
    with pytest.raises(CheckpointError, match="tensors"):
        load_model(path)


def test_a_pickle_is_not_read(saved, tmp_path):
    path, _ = saved
    record = json.loads(path.read_text())

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    content = pickle.dumps(Bomb())
    tensors_file(path).write_bytes(content)
    import hashlib

    record |= {"sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(record | {"record_sha256": checkpoints.record_digest(record)}))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_model(path)
    assert not (tmp_path / "exploded").exists()


def test_absent_files(saved):
    path, _ = saved
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(path.with_name("other.json"))
    tensors_file(path).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_every_field_is_in_the_fingerprint_and_named_when_it_differs(saved, config):
    path, _ = saved
    model = VAE(config("adaln"))
    save_checkpoint(path, model.state_dict(), model.config, data="d" * 64, classes=["a"], history=[])
    _, record = load_checkpoint(path)
    other_values = dict(
        model="spatial", width=0.25, image_size=32, num_classes=9, encoder_sees_y=False, kl_weight=0.02, recipe="fast",
        epochs=3, batch_size=64, learning_rate=0.1, seed=1, schedule="one-cycle", ema_decay=0.9,
        class_dim=4, zero_init=False, encoder="added",
    )  # fmt: skip
    assert other_values.keys() == record["config"].keys()
    for name, value in other_values.items():
        changed = replace(model.config, **{name: value})
        assert changed.fingerprint != model.config.fingerprint
        (difference,) = differences(record, changed)
        assert difference.startswith(f"{name} is ") and repr(value) in difference
    assert differences(record, model.config) == []
    assert differences(record, model.config, "other data") == [
        "it was trained on other data, or on more or fewer images of it"
    ]


def test_a_field_added_later_leaves_old_checkpoints_valid(saved):
    path, model = saved
    _, record = load_checkpoint(path)
    del record["config"]["encoder_sees_y"]  # as written before the field was there
    assert differences(record, model.config) == []
    assert differences(record, replace(model.config, encoder_sees_y=False)) != []


def test_load_or_train_prefers_shipped_then_local_then_trains(few, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cvae_support.trained.SHIPPED_FOLDER", tmp_path / "shipped")
    wanted = config(epochs=1)

    trained, _ = load_or_train(wanted, few)
    assert "training 1 epochs" in capsys.readouterr().out

    monkeypatch.setattr(training, "train", lambda *a, **k: pytest.fail("trained again"))
    local, record = load_or_train(wanted, few)
    assert "local run" in capsys.readouterr().out
    assert torch.equal(local.decoder.trunk[0].weight, trained.decoder.trunk[0].weight)

    shipped = tmp_path / "shipped" / f"{wanted.name}.json"
    save_checkpoint(
        shipped, local.state_dict(), wanted, data=few.checksum, classes=few.classes, history=record["history"]
    )
    load_or_train(wanted, few)
    assert "shipped weights" in capsys.readouterr().out


def test_a_local_run_of_another_configuration_is_refused(few, config, tmp_path, monkeypatch):
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cvae_support.trained.SHIPPED_FOLDER", tmp_path / "shipped")
    one, other = config(epochs=1), config(epochs=1, seed=7)
    load_or_train(one, few)
    run_folder(one, few.checksum).rename(run_folder(other, few.checksum))
    with pytest.raises(CheckpointError, match="holds another run, move or delete it: seed is 42 there, 7 asked for"):
        load_or_train(other, few)


def test_a_run_that_is_resumed_is_said_to_be(few, config, tmp_path, monkeypatch, capsys, stop_in_epoch_two):
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path))
    stop_in_epoch_two()
    with pytest.raises(KeyboardInterrupt):
        load_or_train(config(epochs=2), few)
    assert "yet, training 2 epochs in" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path))
    load_or_train(config(epochs=2), few)
    assert "yet, resuming the training of 2 epochs in" in capsys.readouterr().out


def test_another_configuration_never_gets_the_shipped_weights(few, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cvae_support.trained.SHIPPED_FOLDER", tmp_path / "shipped")
    shipped, wanted = config(epochs=1), config(epochs=1, seed=7)
    path, made_from = tmp_path / "shipped" / f"{shipped.name}.json", dict(data=few.checksum, classes=few.classes)
    save_checkpoint(path, VAE(shipped).state_dict(), shipped, **made_from, history=[])
    _, record = load_or_train(wanted, few)
    printed = capsys.readouterr().out
    assert "seed is 42 there, 7 asked for" in printed and "training 1 epochs" in printed
    assert record["config"]["seed"] == 7


def test_weights_of_another_run_that_are_damaged_stop_nobody(few, config, tmp_path, monkeypatch):
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cvae_support.trained.SHIPPED_FOLDER", tmp_path / "shipped")
    shipped = config(epochs=1)
    path, made_from = tmp_path / "shipped" / f"{shipped.name}.json", dict(data=few.checksum, classes=few.classes)
    save_checkpoint(path, VAE(shipped).state_dict(), shipped, **made_from, history=[])
    tensors_file(path).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert load_or_train(config(epochs=1, seed=7), few)[1]["config"]["seed"] == 7
    with pytest.raises(CheckpointError, match="truncated or altered"):
        load_or_train(shipped, few)
