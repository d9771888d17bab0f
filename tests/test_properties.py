"""What holds for any input of a kind, tried on inputs that a machine thinks up (hypothesis)."""

import json
import re
import shutil
import string
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvae_support.__main__ import class_index
from cvae_support.checkpoints import CheckpointError, load_checkpoint, load_record, save_tensors
from cvae_support.config import MODELS, RECIPES, SCHEDULES, WAYS, Config
from cvae_support.data import DataError, load_dataset, parse_idx
from cvae_support.models import VAE

FIXTURES = Path(__file__).parent / "fixtures"
ROOT = Path(__file__).resolve().parents[1]
# The same inputs every time: what fails here fails everywhere. The time of one try says nothing on a busy machine.
settings.register_profile("calm", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("calm")
FEW = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def configs(draw) -> Config:
    """Any valid configuration of a small model."""
    model = draw(st.sampled_from(MODELS))
    adaln = model == "adaln"
    sees_y = model not in WAYS or draw(st.booleans())
    others = [way for way in WAYS if way != model]
    return Config(
        model,
        width=1 if model == "mlp" else draw(st.sampled_from([0.125, 0.25, 1, 1.0, 1.5])),
        image_size=draw(st.sampled_from([4, 8, 12, 28])),
        num_classes=draw(st.integers(1, 12)),
        encoder_sees_y=sees_y,
        encoder=draw(st.sampled_from(["", *others])) if sees_y and model in WAYS else "",
        kl_weight=draw(st.floats(0, 10) | st.integers(0, 3)),
        seed=draw(st.integers(0, 2**31)),
        recipe=draw(st.sampled_from(list(RECIPES))),
        epochs=draw(st.none() | st.integers(1, 200)),
        learning_rate=draw(st.none() | st.floats(1e-6, 1)),
        schedule=draw(st.none() | st.sampled_from(SCHEDULES)),
        ema_decay=draw(st.none() | st.sampled_from([0, 0.0, 0.5, 0.998])),
        class_dim=draw(st.integers(0, 9)) if adaln else 0,
        zero_init=not adaln or draw(st.booleans()),
    )


# ------------------------------------------------------------------------------------------------------- fingerprints


@given(configs(), configs())
def test_configurations_are_equal_just_when_their_fingerprints_are(one, other):
    assert (one == other) == (one.fingerprint == other.fingerprint)
    again = Config(**json.loads(json.dumps(asdict(one))))  # through the file it is kept in
    assert again == one and again.fingerprint == one.fingerprint
    assert re.fullmatch("[0-9a-f]{16}", one.fingerprint)


@given(configs(), configs())
def test_each_field_alone_changes_the_fingerprint(one, other):
    for field in fields(Config):
        value = getattr(other, field.name)
        try:
            changed = replace(one, **{field.name: value})
        except ValueError:  # does not go with the rest
            continue
        assert (changed.fingerprint == one.fingerprint) == (value == getattr(one, field.name)), field.name


@given(configs())
def test_names_of_files_are_good_on_every_system(config):
    assert re.fullmatch(r"[a-z][A-Za-z0-9.+-]*", config.name)


# --------------------------------------------------------------------------------------------------- shapes and labels


@FEW
@given(configs(), st.integers(1, 4), st.data())
def test_shapes_and_range_of_any_model(config, count, draw):
    config = replace(config, width=1 if config.model == "mlp" else 0.125)
    torch.manual_seed(0)
    model = VAE(config).eval()
    y = torch.tensor(draw.draw(st.lists(st.integers(0, config.num_classes - 1), min_size=count, max_size=count)))
    x = torch.rand(count, 1, config.image_size, config.image_size)
    with torch.no_grad():
        recon, mu, log_var, z = model(x, y)
    assert recon.shape == x.shape and mu.shape == log_var.shape == z.shape == model.latent_shape(count)
    assert recon.min() >= 0 and recon.max() <= 1
    assert model.sample(y if model.conditional else count).shape == x.shape


@given(configs(), st.lists(st.integers(-3, 15), min_size=1, max_size=5), st.sampled_from([torch.int64, torch.int32]))
def test_labels_are_taken_just_when_they_are_classes(config, labels, dtype):
    with torch.device("meta"):
        model = VAE(config)
    model = model.to_empty(device="cpu")
    y = torch.tensor(labels, dtype=dtype)
    if not model.conditional:
        assert model.embed(y) is None
    elif 0 <= min(labels) and max(labels) < config.num_classes:
        assert len(model.embed(y)) == len(labels)
    else:
        with pytest.raises(ValueError, match=rf"y must lie in 0 \.\. {config.num_classes - 1}"):
            model.embed(y)


names = st.text(string.ascii_letters + " /-", min_size=1, max_size=12)


@given(st.lists(names, min_size=1, max_size=12, unique_by=str.lower), st.data(), st.text(max_size=6))
def test_a_class_is_found_by_its_name_in_any_case_and_by_its_number(classes, draw, text):
    index = draw.draw(st.integers(0, len(classes) - 1))
    assert class_index(classes[index].swapcase(), classes) == class_index(str(index), classes) == index
    try:
        found = class_index(text, classes)
        assert classes[found].lower() == text.lower() or int(text) == found
    except ValueError as error:
        assert str(error).startswith("no class ")


# --------------------------------------------------------------------------------------------- bytes that mean nothing


@given(
    st.binary(max_size=60)
    | st.builds(lambda rank, rest: bytes([0, 0, 8, rank]) + rest, st.integers(0, 255), st.binary(max_size=60))
)
def test_any_bytes_are_an_array_or_refused(content):
    try:
        array = parse_idx(content, "x")
    except DataError as error:
        assert str(error).startswith("x ")
        return
    assert array.dtype == torch.uint8 and array.numel() == len(content) - 4 - 4 * content[3]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 255))
def test_an_array_written_as_idx_comes_back(shape, value):
    head = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    array = np.full(shape, value, np.uint8)
    assert torch.equal(parse_idx(head + array.tobytes(), "x"), torch.from_numpy(array))


@MANY
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_an_npz_with_any_byte_altered_is_read_or_refused(tmp_path_factory, place, change):
    folder = tmp_path_factory.getbasetemp()
    arrays = {f"{kind}_{split}": np.zeros((3, 4, 4)[: 3 if kind == "x" else 1], np.uint8) for kind in "xy"
              for split in ("train", "test")}  # fmt: skip
    np.savez(folder / "altered.npz", **arrays)
    content = bytearray((folder / "altered.npz").read_bytes())
    content[place % len(content)] ^= change
    (folder / "altered.npz").write_bytes(content)
    try:
        load_dataset(folder / "altered.npz")
    except DataError as error:
        assert "altered.npz" in str(error)


@MANY
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_record_with_any_byte_altered_says_the_same_or_is_refused(tmp_path_factory, place, change):
    path = tmp_path_factory.getbasetemp() / "altered.json"
    tensors = {"a": torch.arange(4.0)}
    record = {"config": {}, "fingerprint": "f", "history": [{"test_recon": 0.125}], "data": "d", "classes": ["a"]}
    save_tensors(path, tensors, record)
    written = json.loads(path.read_text())
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(content)
    try:
        found, read = load_checkpoint(path)
    except CheckpointError as error:
        assert "altered" in str(error)
    else:  # the digest itself was no longer found, or a blank became another
        assert torch.equal(found["a"], tensors["a"])
        assert {name: read[name] for name in written if name != "record_sha256"} == {
            name: value for name, value in written.items() if name != "record_sha256"
        }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@MANY
@given(json_values)
def test_any_json_is_a_record_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a checkpoint of this package"):
        load_record(path)


# -------------------------------------------------------------------------------------------------- the notebook maker

sentence = st.lists(
    st.sampled_from(["garment", "*sleeve*", "`code`", "$z$", "$x_1 \\in [0, 1]$", "5 %", "naïve", "a|b", "[link](https://e.org)"]),
    min_size=1, max_size=6,
).map(lambda parts: "Words: " + " ".join(parts) + ".")  # fmt: skip
code_line = st.sampled_from(
    ["x = 1", "print('a\"b')", "def f(n):\n    return n ** 2", "text = '''\n::: {.a}\n'''", "# comment", 'y = f"{x}"']
)
code = st.lists(code_line, min_size=1, max_size=3).map("\n".join)
cell = st.tuples(st.sampled_from(["", "#| echo: false\n", "#| code-fold: true\n", "#| include: false\n"]), code).map(
    lambda pair: ("cell", f"```{{python}}\n{pair[0]}{pair[1]}\n```", pair[1])
)
text_block = st.one_of(
    sentence,
    sentence.map(lambda s: f"- {s}\n- {s}"),
    sentence.map(lambda s: f"> {s}"),
    sentence.map(lambda s: f"::: {{.callout-note}}\n## Title\n\n{s}\n:::"),
    sentence.map(lambda s: f"{s} The value is `{{python}} 1 + 1`."),
    st.just("$$\na = b\n$$"),
    st.just("| a | b |\n|---|---|\n| 1 | $z$ |"),
    st.integers(2, 4).map(lambda level: f"{'#' * level} A heading"),
    st.just('```python\nnot = "run"\n```'),
).map(lambda text: ("text", text, None))


@FEW
@given(st.lists(text_block | cell, min_size=1, max_size=7))
def test_any_small_document_is_a_valid_notebook_with_the_same_code(tmp_path_factory, blocks):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("pypandoc")
    pytest.importorskip("tomllib", reason="the maker of notebooks needs Python 3.11")
    import sys

    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import make_notebook
        from qmd.cells import COMPUTED_TITLE
    finally:
        sys.path.remove(str(ROOT / "tools"))

    folder = tmp_path_factory.getbasetemp() / "notebook"
    shutil.copytree(FIXTURES, folder, dirs_exist_ok=True)
    source = "---\ntitle: T\n---\n\n" + "\n\n".join(text for _, text, _ in blocks) + "\n"
    (folder / "doc.qmd").write_text(source, encoding="utf-8")
    made = make_notebook.make_notebook(folder / "doc.qmd")
    notebook = nbformat.reads(made, as_version=4)
    nbformat.validate(notebook)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"][1:]  # after the one that installs
    own = [re.sub(r"^# @title .*\n", "", text) for text in cells if COMPUTED_TITLE not in text]
    assert own == [code for kind, _, code in blocks if kind == "cell"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, "cell", "exec")
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert made == make_notebook.make_notebook(folder / "doc.qmd")
