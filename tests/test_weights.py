"""The weights that ship are whole, small, the ones the page asks for, and good enough for what the page says."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cvae_support.checkpoints import SHIPPED_FOLDER, differences, load_checkpoint, load_model, save_checkpoint
from cvae_support.config import Config
from cvae_support.latents import first_per_class, latent_map, reconstruct
from cvae_support.losses import vae_loss
from cvae_support.study import FULL, MUON, SEEDS
from cvae_support.trained import load_or_train
from cvae_support.training import train

SHIPPED = sorted(SHIPPED_FOLDER.glob("*.json"))
ROOT = Path(__file__).parents[1]
# Mean squared error of the simplest guesses on the test set: the mean image, and the mean image of the class.
MEAN_IMAGE, CLASS_MEAN = 0.0866, 0.0524


@pytest.mark.parametrize("name", ["spatial", "adaln", "unconditional", "unconditional-0.0005"])
@pytest.mark.parametrize("base", [FULL, MUON], ids=["full", "small"])
def test_what_the_page_and_the_study_ask_for_ships(name, base, data):
    model, _, kl_weight = name.partition("-")
    wanted = replace(base, model=model, kl_weight=float(kl_weight or 0.01))
    loaded, record = load_model(SHIPPED_FOLDER / f"{wanted.name}.json")
    config = replace(wanted, seed=loaded.config.seed)  # whichever seed was best
    assert differences(record, config, data.checksum) == []
    assert len(record["history"]) == config.epochs
    if base == FULL:
        page = (ROOT / "posts/class_conditional_vae/class_conditional_vae.qmd").read_text()
        (settings,) = re.findall(r"^settings = (dict\(.*\))", page, re.M)
        assert Config(**eval(settings)) == FULL
        assert re.search(rf'Config\("{model}", .*\*\*settings, seed={config.seed}\)', page)


@pytest.mark.parametrize("model", ["spatial", "adaln", "unconditional"])
def test_the_tutorials_own_settings_ship(model, data, capsys):
    load_or_train(Config(model), data)
    assert f"{model}-w1-kl0.01-plain: shipped weights, 100 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_seed_that_ships_is_the_best_of_those_trained(path):
    _, record = load_checkpoint(path)
    losses, last = record["test_loss_of_seeds"], record["history"][-1]
    assert min(losses, key=losses.get) == str(record["config"]["seed"])
    assert min(losses.values()) == pytest.approx(last["test_recon"] + record["config"]["kl_weight"] * last["test_kl"])
    wide_without_label = record["config"]["width"] == 1 and record["config"]["model"] == "unconditional"
    assert len(losses) == (1 if wide_without_label else 3)  # as README.md and TRAINING.md say


@pytest.mark.parametrize(
    ("flags", "settings"),
    [([], MUON), (["--width=1"], FULL), (["--width=1", "--recipe=plain"], Config())],
    ids=["small", "full", "plain"],
)
def test_the_models_that_ship_are_trained_as_asked(script, monkeypatch, tmp_path, capsys, flags, settings):
    tool, asked = script("tools/train_weights.py"), []
    monkeypatch.setattr(tool, "load_fashion_mnist", lambda: SimpleNamespace(checksum="d" * 64))
    monkeypatch.setattr(tool, "local_run", lambda config, _: asked.append(config) or tmp_path / "not trained")
    monkeypatch.setattr(tool, "CARD", tmp_path / "card.md")
    tool.main(flags)
    shipped = [load_checkpoint(path)[1]["config"] for path in SHIPPED]
    assert {(config.model, config.kl_weight) for config in asked} == {(c["model"], c["kl_weight"]) for c in shipped}
    for config in asked:
        assert replace(config, model="spatial", kl_weight=settings.kl_weight, seed=settings.seed) == settings
    assert len(set(asked)) == len(asked) == 4 * len(SEEDS)
    assert ("No GPU" in capsys.readouterr().out) == (settings.width == 1)  # before it begins on a week's work


def test_what_ships_stays_a_candidate_and_its_seeds_are_remembered(script, few, config, tmp_path, monkeypatch):
    """A second machine that trains further seeds ships the best of all, also where it is not its own."""
    tool, finals = script("tools/train_weights.py"), {}
    monkeypatch.setattr(tool, "SHIPPED_FOLDER", tmp_path / "shipped")
    for seed in (1, 2, 3):
        train(config(epochs=1, seed=seed), few, tmp_path / str(seed))
        finals[seed] = tmp_path / str(seed) / "final.json"
    at_once, _ = load_checkpoint(tool.ship(config(epochs=1), list(finals.values()), few))
    (tmp_path / "shipped").rename(tmp_path / "at once")
    for seed in finals:
        tensors, record = load_checkpoint(tool.ship(config(epochs=1), [finals[seed]], few))
    assert (
        list(record["test_loss_of_seeds"]) == ["1", "2", "3"] and record["half_precision"]["max_pixel_difference"] > 0
    )
    assert str(record["config"]["seed"]) == min(record["test_loss_of_seeds"], key=record["test_loss_of_seeds"].get)
    assert all(torch.equal(tensors[name], at_once[name]) for name in at_once)
    best = record["config"]["seed"]
    tensors, worse = load_checkpoint(finals[best])  # of a machine where the seed that ships came out worse
    worse["history"][-1]["test_recon"] += 1e-6
    about = {key: worse[key] for key in ("data", "classes", "history")}
    save_checkpoint(tmp_path / "worse.json", tensors, config(epochs=1, seed=best), made_on="elsewhere", **about)
    _, again = load_checkpoint(tool.ship(config(epochs=1), [tmp_path / "worse.json"], few))
    assert again == record


def test_seeds_the_study_holds_are_remembered_too(script, few, config, tmp_path, monkeypatch):
    tool, wanted = script("tools/train_weights.py"), config(epochs=1, seed=1)
    monkeypatch.setattr(tool, "SHIPPED_FOLDER", tmp_path / "shipped")
    worse = {
        "seed": 2,
        "fingerprint": replace(wanted, seed=2).fingerprint,
        "history": [dict(test_recon=1.0, test_kl=0)],
    }
    monkeypatch.setattr(tool, "read", lambda _: [worse, worse | {"seed": 3}, worse | {"history": []}])
    train(wanted, few, tmp_path / "1")
    _, record = load_checkpoint(tool.ship(wanted, [tmp_path / "1" / "final.json"], few))
    assert record["config"]["seed"] == 1 and list(record["test_loss_of_seeds"]) == ["1", "2"]
    assert record["test_loss_of_seeds"]["2"] == 1.0


def test_the_card_says_what_the_records_say(script):
    card = script("tools/train_weights.py").card()
    assert (ROOT / "models.md").read_text(encoding="utf-8") == card, "run tools/train_weights.py --ship"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_small_and_in_half_precision(path):
    tensors, record = load_checkpoint(path)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert path.with_name(record["weights"]).stat().st_size < 8_000_000


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_half_precision_moves_no_pixel_visibly(path):
    """As measured when the weights were rounded: less than one of the 255 levels of a screen, on average far less."""
    _, record = load_checkpoint(path)
    assert record["half_precision"]["max_pixel_difference"] < 1 / 255
    assert record["half_precision"]["mean_pixel_difference"] < 0.1 / 255


def test_rounding_a_models_weights_moves_its_pixels_as_little(data):
    """The same measured afresh: shipped weights, shaken by as much as rounding them did."""
    model, _ = load_model(SHIPPED[0])
    index = first_per_class(data.test_labels, 10)
    images, labels = data.test_images[index], data.test_labels[index]
    before = reconstruct(model, images, labels)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            half_step = parameter.abs() * 2.0**-11  # half the distance between neighbours in half precision
            parameter += half_step * (2 * torch.rand(parameter.shape, generator=generator) - 1)
    assert (reconstruct(model, images, labels) - before).abs().max() < 1 / 255


def vae_part(model, x, y):
    recon, mu, log_var, _ = model(x, y)
    return torch.stack(vae_loss(recon, x, mu, log_var))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_recorded_test_loss_is_that_of_the_weights(path, data):
    """Recomputed on 1,000 test images; the record is over all 10,000 with other noise, hence the tolerance."""
    model, record = load_model(path)
    index = first_per_class(data.test_labels, 100)
    images, labels = data.test_images[index].float() / 255, data.test_labels[index]
    torch.manual_seed(0)
    with torch.no_grad():
        parts = [vae_part(model, x, y) for x, y in zip(images.split(100), labels.split(100), strict=True)]
    recon_loss, kl = torch.stack(parts).mean(dim=0)
    last = record["history"][-1]
    assert recon_loss.item() == pytest.approx(last["test_recon"], rel=0.05)
    assert kl.item() == pytest.approx(last["test_kl"], rel=0.05)
    assert last["test_recon"] < CLASS_MEAN / 2


def test_the_floors_the_last_test_rests_on(data):
    x, y = data.train_images.float() / 255, data.train_labels
    test = data.test_images.float() / 255
    assert (test - x.mean(dim=0)).square().mean().item() == pytest.approx(MEAN_IMAGE, abs=1e-4)
    means = torch.stack([x[y == label].mean(dim=0) for label in range(10)])
    assert (test - means[data.test_labels]).square().mean().item() == pytest.approx(CLASS_MEAN, abs=1e-4)


@pytest.mark.parametrize("model", ["spatial", "adaln"])
def test_the_tsne_maps_ship_and_belong_to_the_weights(model, data, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path))
    loaded, record = load_model(SHIPPED_FOLDER / f"{replace(FULL, model=model).name}.json")
    points, labels = latent_map(loaded, record, data, per_class=300)
    assert points.shape == (3000, 2) and torch.equal(labels.bincount(), torch.full((10,), 300))
    assert "computing" not in capsys.readouterr().out
