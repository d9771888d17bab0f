"""The judges are good enough to judge, small, verified, and described by a card that is true."""

import json
from pathlib import Path

import pytest
import torch

from cvae_support import judge as judges
from cvae_support.checkpoints import CheckpointError
from cvae_support.data import to_float
from cvae_support.judge import JUDGES, JUDGES_FOLDER, features, load_judge, probabilities


@pytest.fixture(scope="module")
def seen(data):
    """What each judge says of the test images: (N, 10)."""
    return {name: probabilities(load_judge(name), to_float(data.test_images)) for name in JUDGES}


def test_both_judges_know_the_test_images(data, seen):
    right = {name: (says.argmax(dim=1) == data.test_labels).double().mean().item() for name, says in seen.items()}
    assert right["judge"] >= 0.93 and right["second"] >= 0.92
    for name, accuracy in right.items():
        record = json.loads((JUDGES_FOLDER / f"{name}.json").read_text())
        assert accuracy == pytest.approx(record["test_accuracy"], abs=2e-4)


def test_the_card_says_what_is_so(data, seen, script):
    card = (Path(__file__).parents[1] / "judges.md").read_text(encoding="utf-8")
    assert card == script("tools/train_judge.py").card(data, seen)
    assert all(torch.allclose(says.sum(dim=1), torch.ones(len(says))) for says in seen.values())


@pytest.mark.parametrize(("name", "width"), [("judge", 96), ("second", 96)])
def test_a_judge_is_small_frozen_and_has_features(name, width, data):
    judge = load_judge(name)
    record = json.loads((JUDGES_FOLDER / f"{name}.json").read_text())
    assert (JUDGES_FOLDER / record["weights"]).stat().st_size < 1_000_000
    assert not judge.training and not any(p.requires_grad for p in judge.parameters())
    assert features(judge, to_float(data.test_images[:3])).shape == (3, width)


def test_a_damaged_judge_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "JUDGES_FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="no judge 'third'"):
        load_judge("third")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_judge()
    record = json.loads((JUDGES_FOLDER / "judge.json").read_text())
    (tmp_path / "judge.json").write_text(json.dumps(record))
    content = bytearray((JUDGES_FOLDER / record["weights"]).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / record["weights"]).write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or altered"):
        load_judge()


def test_a_judge_ships_once_with_its_measures_and_a_wrong_name_trains_nothing(script, data, tmp_path, monkeypatch):
    tool, written = script("tools/train_judge.py"), []
    save = tool.save_tensors
    monkeypatch.setattr(tool, "save_tensors", lambda *parts: written.append(parts) or save(*parts))
    for module in (tool, judges):
        monkeypatch.setattr(module, "JUDGES_FOLDER", tmp_path)
    monkeypatch.setattr(tool, "load_fashion_mnist", lambda: data.first(256, 200))
    monkeypatch.setattr(tool, "EPOCHS", {"judge": 1})
    for wrong in ("third", "--help"):
        with pytest.raises(SystemExit):
            tool.main([wrong])
    tool.main(["judge"])
    ((path, _, record),) = written
    assert path == tmp_path / "judge.json" and len(list(tmp_path.iterdir())) == 2
    right = probabilities(load_judge(), to_float(data.test_images[:200])).argmax(dim=1) == data.test_labels[:200]
    assert 0 < record["test_accuracy"] == pytest.approx(right.double().mean().item(), abs=0.02)
    assert len(record["accuracy_of_class"]) == 10


def test_a_judge_is_trained_on_images_as_they_are_and_mirrored(script):
    x = torch.rand(64, 1, 28, 28)
    seen = script("tools/train_judge.py").mirror(x, torch.Generator().manual_seed(3))
    mirrored = [torch.equal(one, image.flip(2)) for one, image in zip(seen, x, strict=True)]
    assert 16 < sum(mirrored) < 48
    assert all(flipped or torch.equal(one, image) for flipped, one, image in zip(mirrored, seen, x, strict=True))
