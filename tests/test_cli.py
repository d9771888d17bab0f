"""The command line does what its help says, and answers bad input in one line."""

import pytest
from PIL import Image

from cvae_support.__main__ import config_fields, main, shipped_names

QUICK = ["--width=0.125", "--epochs=1", "--batch-size=32", "--images=96"]


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "examples:" in printed
    for command in ("data", "train", "study", "sample", "info"):
        assert f"python -m cvae_support {command}" in printed


def test_train_offers_every_field_of_the_configuration(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    assert all(f"--{field.name.replace('_', '-')}" in printed for field in config_fields())


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
    assert main(["sample", str(tmp_path / "final.json"), "--class=0", f"--out={tmp_path / 's.png'}"]) == 0
    assert "unconditional" in capsys.readouterr().out


def test_info_lists_what_ships(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert shipped_names() and all(name in printed for name in shipped_names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nothing"], "no weights called 'nothing'; shipped are"),
        (["info", "nothing.json"], "no checkpoint at nothing.json"),
        (["sample", "adaln-w0.25-kl0.01-fast", "--class=Hat"], "no class 'Hat'; there are 0 to 9, or by name: T-shirt"),
        (["sample", "adaln-w0.25-kl0.01-fast", "--class=10"], "no class '10'"),
        (["train", "--data=nowhere"], "nowhere is neither a folder of IDX files nor an .npz file"),
        (["sample", "nothing", "--class=3", "--count=0"], "--count must be 1 or more"),
        (["train", "--width=0.01"], "use 0.125 or more"),
        (["train", "--images=100", "--width=0.125"], "batch_size 256 is more than the 100 training images"),
    ],
)
def test_bad_input_is_answered_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
