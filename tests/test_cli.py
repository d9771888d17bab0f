"""The command line does what its help says, and answers bad input in one line."""

import io
import itertools
import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import pad

from cvae_support import evaluate
from cvae_support.__main__ import EXAMPLES, WORDS, config_fields, find_weights, main, parser, shipped_names
from cvae_support.checkpoints import load_model, save_checkpoint
from cvae_support.data import CLASSES
from cvae_support.evaluate import MEASURES
from cvae_support.judge import JUDGES
from cvae_support.models import VAE
from cvae_support.training import train

ROOT = Path(__file__).parents[1]
QUICK = ["--width=0.125", "--epochs=1", "--batch-size=32", "--images=96"]


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "examples:" in printed
    for command in ("data", "train", "evaluate", "study", "sample", "info"):
        assert f"python -m cvae_support {command}" in printed


def test_train_offers_every_field_of_the_configuration(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    assert all(f"--{field.name.replace('_', '-')}" in printed for field in config_fields())
    assert WORDS.keys() <= {field.name for field in config_fields()}
    told = " ".join(printed.split())
    assert "--zero-init, --no-zero-init whether every class starts alike, in adaln (default True)" in told
    assert "tested and kept; 0: none (default: plain 0.0, fast 0.998, muon 0.998)" in told


def test_data(capsys):
    assert main(["data"]) == 0
    assert "60000 training and 10000 test images, verified" in capsys.readouterr().out


def test_train_then_info_then_sample(tmp_path, capsys):
    assert main(["train", "--model=adaln", "--no-encoder-sees-y", *QUICK, f"--folder={tmp_path}"]) == 0
    weights = str(tmp_path / "final.json")
    assert main(["info", weights]) == 0
    assert "encoder_sees_y=False" in capsys.readouterr().out
    assert main(["sample", weights, "--class=sandal", "--count=3", f"--out={tmp_path / 's.png'}"]) == 0
    assert "3 samples (Sandal)" in capsys.readouterr().out
    assert Image.open(tmp_path / "s.png").size == (84, 28)

    assert main(["train", "--model=adaln", "--no-encoder-sees-y", *QUICK, f"--folder={tmp_path}"]) == 1
    assert "--resume" in capsys.readouterr().err


def test_a_sample_is_of_the_class_and_the_seed_that_are_asked_for(tmp_path):
    """Side by side in the picture, as the model draws them."""
    model, _ = load_model(find_weights("adaln-w0.25-kl0.01-muon"))
    for name, label, seed in (("Sandal", 5, 0), ("Sandal", 5, 1), ("8", 8, 1)):
        flags = [f"--class={name}", "--count=3", f"--seed={seed}", f"--out={tmp_path / 's.png'}"]
        assert main(["sample", "adaln-w0.25-kl0.01-muon", *flags]) == 0
        wanted = model.sample(torch.full((3,), label), torch.Generator().manual_seed(seed))
        drawn = torch.from_numpy(np.array(Image.open(tmp_path / "s.png"))).view(28, 3, 28).transpose(0, 1) / 255
        assert (drawn - wanted.squeeze(1)).abs().max() < 0.51 / 255


def test_every_command_that_the_help_and_the_documents_show_can_be_given():
    documents = [ROOT / "README.md", ROOT / "TRAINING.md", *ROOT.glob("posts/*/*.qmd")]
    text = "\n".join([*EXAMPLES, *(path.read_text(encoding="utf-8") for path in documents)])
    shown = re.findall(r"(?:-m cvae_support|cvae_support/__main__\.py) (\w[^#`\n]*)", text)
    assert len(shown) > 20
    for command in shown:
        given = parser().parse_args(shlex.split(command))
        if not str(getattr(given, "weights", None) or "x.json").endswith(".json"):
            assert given.weights in shipped_names(), command


def test_another_data_set_sets_size_and_classes(digits, tmp_path, capsys):
    """scikit-learn's digits, 32 x 32, as an .npz: the numbers of classes and pixels are read from it."""
    flags = ["--width=0.125", "--epochs=1", "--batch-size=64", f"--data={digits}", f"--folder={tmp_path}"]
    assert main(["train", *flags]) == 0
    weights = str(tmp_path / "final.json")
    assert main(["info", weights]) == 0
    assert "image_size=32" in capsys.readouterr().out
    assert main(["sample", weights, "--class=7", "--count=2", f"--out={tmp_path / 's.png'}"]) == 0
    assert Image.open(tmp_path / "s.png").size == (64, 32)


def test_an_unconditional_model_is_sampled_without_a_class(tmp_path, capsys):
    assert main(["train", "--model=unconditional", *QUICK, f"--folder={tmp_path}"]) == 0
    assert main(["sample", str(tmp_path / "final.json"), f"--out={tmp_path / 'a new folder' / 's.png'}"]) == 0
    assert "unconditional" in capsys.readouterr().out and (tmp_path / "a new folder" / "s.png").is_file()


@pytest.fixture
def quick_measures(monkeypatch, tmp_path, data):
    """Untrained judges, few images, and a folder of results that is empty."""
    for name, value in {"SAMPLES": 100, "TRAIN": 100, "QUERIES": 20, "SWAPPED": 20, "SHARED_Z": 4}.items():
        monkeypatch.setattr(evaluate, name, value)
    monkeypatch.setattr("cvae_support.judge.load_judge", lambda name: JUDGES[name]().eval())
    monkeypatch.setattr("cvae_support.__main__.load_fashion_mnist", lambda: data.first(600, 100))
    monkeypatch.setattr("cvae_support.study.RESULTS_FOLDER", tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.mark.parametrize("model", ["spatial", "unconditional"])
def test_evaluate_prints_and_writes_the_measures_of_any_checkpoint(model, quick_measures, tmp_path, capsys):
    assert main(["train", f"--model={model}", *QUICK, f"--folder={tmp_path}"]) == 0
    out = tmp_path / "new" / "measures.json"
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "final.json"), "--seeds=2", f"--out={out}"]) == 0
    written, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert written["sampling_seeds"] == [0, 1] and MEASURES.keys() <= written["measures"].keys()
    assert [path.name for path in out.parent.iterdir()] == ["measures.json"]  # and nothing of an early try
    assert all(name in printed for name, _ in MEASURES.values()) and str(out) in printed
    spread = written["measures"]["frechet_distance"], written["measures"]["frechet_distance_std"]
    assert "{:.4f} ± {:.4f}".format(*spread) in printed
    for name in CLASSES:
        assert f"accuracy, {name}" in printed


@pytest.mark.parametrize("when", ["before", "after"])
def test_evaluate_finds_out_early_that_it_cannot_write_and_prints_before_it_writes(
    when, quick_measures, tmp_path, monkeypatch, capsys
):
    """Each write ends in fsync: the first is the trial, the second that of the measures."""
    calls = itertools.count()

    def fsync(_):
        if next(calls) == ("before", "after").index(when):
            raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fsync)
    if when == "before":
        monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: pytest.fail("the work was begun"))
    out = tmp_path / "m.json"
    out.write_text("older")
    assert main(["evaluate", "unconditional-w0.25-kl0.01-muon", "--seeds=1", f"--out={out}"]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"error: {out} cannot be written: disk full. Choose another place: --out\n"
    assert all((name in printed.out) == (when == "after") for name, _ in MEASURES.values())
    assert out.read_text() == "older" and [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_damaged_yardsticks_are_named_before_the_work_is_begun(quick_measures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: pytest.fail("the work was begun"))
    (tmp_path / "floors.json").write_text('{"noise": {')
    assert main(["evaluate", "unconditional-w0.25-kl0.01-muon", "--seeds=1"]) == 1
    assert f"error: {tmp_path / 'floors.json'} is damaged" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error there")
def test_a_reader_who_has_seen_enough_gets_no_error():
    command = subprocess.Popen(
        [sys.executable, "-m", "cvae_support", "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    command.stdout.close()
    assert command.wait() == 1 and command.stderr.read() == ""
    command.stderr.close()


def test_evaluate_shows_the_yardsticks_where_there_are_any(quick_measures, tmp_path, capsys):
    weights = "unconditional-w0.25-kl0.01-muon"
    assert main(["evaluate", weights, "--seeds=1"]) == 0
    without = capsys.readouterr().out
    assert "noise" not in without
    (tmp_path / "floors.json").write_text('{"noise": {"recall": 0.125}, "mse": {"mean_image": 0.0866}}')
    assert main(["evaluate", weights, "--seeds=1"]) == 0
    printed = capsys.readouterr().out
    assert "noise" in printed and "0.1250" in printed and "MSE of mean image: 0.0866" in printed


@pytest.mark.parametrize("side", [28, 32])
def test_evaluate_refuses_a_model_of_other_images(side, few, config, tmp_path, capsys):
    """Digits, even of the same size."""
    images = {name: pad(getattr(few, name), [(side - 28) // 2] * 4) for name in ("train_images", "test_images")}
    train(config(epochs=1, image_size=side), replace(few, classes=tuple("0123456789"), **images), tmp_path)
    assert main(["evaluate", str(tmp_path / "final.json")]) == 1
    error = capsys.readouterr().err
    assert "Fashion-MNIST only, at 28 x 28" in error and f"{side} x {side} images of 10 classes: 0, 1, 2" in error


def test_the_state_of_a_run_is_no_model_to_sample(few, config, tmp_path, capsys):
    train(config(epochs=1), few, tmp_path)
    assert f"weights: {tmp_path / 'final.json'}" in capsys.readouterr().out
    assert main(["sample", str(tmp_path / "last.json"), "--class=3"]) == 1
    error = capsys.readouterr().err
    assert "last.json is the state of a run" in error and "final.json" in error and error.count("\n") == 1


@pytest.mark.parametrize("history", [[], [{"epoch": 1, "accuracy": 0.5}]])
def test_info_of_a_model_that_was_not_trained_here(config, tmp_path, capsys, history):
    save_checkpoint(tmp_path / "m.json", VAE(config()).state_dict(), config(), data="", classes=[], history=history)
    assert main(["info", str(tmp_path / "m.json")]) == 0
    assert "test loss" not in capsys.readouterr().out


def test_what_a_code_page_lacks_is_no_reason_to_stop(monkeypatch):
    """As on Windows, with the output sent to a file."""
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="cp1252"))
    monkeypatch.setattr("cvae_support.__main__.run_info", lambda _: print("accuracy ↑", flush=True))
    assert main(["info"]) == 0 and file.getvalue().startswith(b"accuracy ?")


def test_info_lists_what_ships(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert shipped_names() and all(name in printed for name in shipped_names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nothing"], "no weights called 'nothing'; shipped are"),
        (["info", "nothing.json"], "no checkpoint at nothing.json"),
        (["sample", "adaln-w0.25-kl0.01-muon", "--class=Hat"], "no class 'Hat'; there are 0 to 9, or by name: T-shirt"),
        (["sample", "adaln-w0.25-kl0.01-muon", "--class=10"], "no class '10'"),
        (["train", "--data=nowhere"], "there is no nowhere"),
        (["sample", "nothing", "--class=3", "--count=0"], "--count must lie in 1 .. 1000, got 0"),
        (["sample", "nothing", "--class=3", f"--count={10**30}"], "--count must lie in 1 .. 1000"),
        (["sample", "nothing", "--class=3", "--out=s.doc"], "--out must name a .png or .jpg file, got s.doc"),
        (["sample", "nothing", "--class=3", "--out=s.psd"], "--out must name a .png or .jpg file, got s.psd"),
        (["sample", "nothing", "--class=3", f"--seed={10**30}"], "--seed must lie in 0 .. 2^32 - 1"),
        (["sample", "adaln-w0.25-kl0.01-muon"], "--class is needed: one of T-shirt/top, Trouser"),
        (["train", "--resume", "--folder=nowhere"], "leave out --resume, or give the options (or the --folder)"),
        (["train", "--width=0.01"], "width must lie in 0.125 .. 64"),
        (["evaluate", "nothing"], "no weights called 'nothing'"),
        (["evaluate", "adaln-w0.25-kl0.01-muon", "--seeds=0"], "--seeds must lie in 1 .. 100, got 0"),
        (["evaluate", "adaln-w0.25-kl0.01-muon", f"--seeds={10**30}"], "--seeds must lie in 1 .. 100, got 1000"),
        (["evaluate", "adaln-w0.25-kl0.01-muon", f"--out={__file__}/m.json"], f"{__file__}/m.json cannot be written: "),
        (["sample", "nothing.json", "--class=3", f"--out={__file__}"], "--out must name a .png or .jpg file, got"),
        (["export", f"--out={__file__}"], f"{__file__} cannot be written: "),
        (["info", str(Path(__file__).parent)], "is a folder: name a .json file in it, such as"),
        (["evaluate", "adaln-w0.25-kl0.01-muon", f"--out={Path(__file__).parent}"], "must name a .json file, and"),
        (["evaluate", "adaln-w0.25-kl0.01-muon", "--out=measures"], "--out must name a .json file, got measures"),
        (["train", "--images=-5"], "--images must be 0 (all) or more, got -5"),
        (["train", "--images=100000"], "--images must be 60000 at most, as there are, got 100000"),
        (["train", "--seed=-1"], "seed must lie in 0 .. 2^32 - 1, got -1"),
        (
            ["train", "--images=100", "--width=0.125"],
            "more than the 100 training images: choose a smaller --batch-size",
        ),
    ],
)
def test_bad_input_is_answered_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
