"""The decoders outside Python: the same pictures, and in the page the very weights that ship."""

import base64
import contextlib
import hashlib
import io
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops

from cvae_support.__main__ import main
from cvae_support.data import CLASSES
from cvae_support.explore import SLIDERS, Explorer
from cvae_support.judge import load_judge
from cvae_support.metrics import ACTIVE

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; see requirements.txt")

from cvae_support.export import DECODERS, compared, run, shipped  # noqa: E402

LIVE = Path(__file__).parents[1] / "assets" / "live"
FACTS = json.loads((LIVE / "live.json").read_text())


@pytest.fixture(scope="module")
def exported(data, tmp_path_factory):
    """What `python -m cvae_support export` writes, and what it prints."""
    folder, printed = tmp_path_factory.mktemp("export") / "new", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("cvae_support.__main__.load_fashion_mnist", lambda: data.first(10, 300))  # to be quick, as here:
        patch.setattr("cvae_support.export.compared", partial(compared, drawn=100))
        assert main(["export", f"--out={folder}"]) == 0
    return folder, printed.getvalue()


def test_the_command_writes_every_file(exported):
    folder, _ = exported
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    networks = {f"{name}.onnx" for name in (*DECODERS, "judge")}
    assert written == networks | {"classes.json", "web/live.json"} | {f"web/{name}" for name in networks}
    web = json.loads((folder / "web" / "live.json").read_text())
    for name, file in {**web["decoders"], "judge": web["judge"]}.items():
        assert hashlib.sha256((folder / "web" / f"{name}.onnx").read_bytes()).hexdigest() == file["sha256"]


@torch.no_grad()
@pytest.mark.parametrize("kind", DECODERS)
def test_the_commands_decoder_and_class_table_draw_what_torch_draws(exported, kind):
    """From the files alone: a class is looked up in classes.json by its name, for any number of images."""
    folder, _ = exported
    names = json.loads((folder / "classes.json").read_text())
    assert names["classes"] == list(CLASSES)
    table = names["decoders"][kind]
    model, _ = shipped(kind)
    for count in (1, 7):
        z = torch.randn(count, 1, 7, 7, generator=torch.Generator().manual_seed(count))
        cond = torch.tensor(table["embeddings"][3 : 3 + count]).view(count, *table["cond_shape"])
        image = model.decode(z, model.embed(torch.arange(3, 3 + count)))
        for file in (folder / f"{kind}.onnx", folder / "web" / f"{kind}.onnx"):
            assert (run(file.read_bytes(), z=z, cond=cond) - image).abs().max() < 1e-4
    assert (folder / "web" / f"{kind}.onnx").stat().st_size < 0.75 * (folder / f"{kind}.onnx").stat().st_size


def test_the_notebooks_sliders_are_those_of_the_page(exported, data):
    made = json.loads((exported[0] / "web" / "live.json").read_text())["decoders"]
    explorer = Explorer({kind: shipped(kind)[0] for kind in DECODERS}, data.first(10, 300))
    for kind, model in explorer.models.items():
        assert explorer.most_active(model) == made[kind]["active"][:SLIDERS]


@torch.no_grad()
def test_the_commands_judge_reads_what_torch_reads(exported, data):
    images = data.test_images[:200] / 255
    for file in (exported[0] / "judge.onnx", exported[0] / "web" / "judge.onnx"):
        assert (run(file.read_bytes(), image=images) - load_judge()(images)).abs().max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("kind", DECODERS)
def test_the_pages_decoder_is_the_one_that_ships(kind):
    model, record = shipped(kind)
    facts = FACTS["decoders"][kind]
    assert facts["weights"] == record["sha256"], "other weights ship now: run python tools/live_assets.py"
    content = (LIVE / f"{kind}.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == facts["sha256"] and len(content) == facts["bytes"] < 2_500_000
    y = torch.arange(10)
    assert (torch.tensor(facts["embeddings"]) - model.embed(y).flatten(1)).abs().max() < 1e-6
    z = torch.randn(10, 1, 7, 7, generator=torch.Generator().manual_seed(1))
    cond = torch.tensor(facts["embeddings"]).view(10, *facts["cond_shape"])
    assert (run(content, z=z, cond=cond) - model.decode(z, model.embed(y))).abs().max() < 1e-4


@pytest.mark.parametrize("kind", DECODERS)
def test_half_precision_makes_no_difference_anyone_could_see(kind):
    """Stored are the numbers of 1,000 images; two hundred drawn now say the same, as far as another processor may."""
    stored = FACTS["decoders"][kind]
    now = compared(shipped(kind)[0], load_judge(), (LIVE / f"{kind}.onnx").read_bytes(), 200)
    for measured in (stored, now):
        assert measured["max_pixel_difference"] < 1e-4 and measured["mean_pixel_difference"] < 1e-6
        assert measured["judge_agreement"] > 0.999
    for name in ("max_pixel_difference", "mean_pixel_difference"):
        assert now[name] == pytest.approx(stored[name], rel=2)


def said(decoders):
    """The largest difference, the largest mean and the least agreement of the decoders, as they are printed."""
    most, mean = (max(made[f"{which}_pixel_difference"] for made in decoders) for which in ("max", "mean"))
    return (
        f"at most {most:.0e}",
        f"by {mean:.0e} on average",
        f"{min(made['judge_agreement'] for made in decoders):.1%}",
    )


def test_the_difference_is_printed_by_the_command_and_stands_in_the_readme(exported):
    folder, printed = exported
    for kind, made in json.loads((folder / "web" / "live.json").read_text())["decoders"].items():
        line = next(line for line in printed.splitlines() if line.startswith(f"{kind}, in half precision"))
        assert all(part in line for part in said([made]))
    readme = (LIVE.parents[1] / "README.md").read_text(encoding="utf-8")
    line = next(line for line in readme.splitlines() if line.startswith("ONNX against torch"))
    assert "1,000 images" in line and all(part in line for part in said(FACTS["decoders"].values()))


@torch.no_grad()
def test_the_pages_judge_is_the_one_that_ships(data):
    content = (LIVE / "judge.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == FACTS["judge"]["sha256"]
    images = data.test_images[:500] / 255
    ours, theirs = load_judge()(images), run(content, image=images)
    assert (ours.softmax(dim=1) - theirs.softmax(dim=1)).abs().max() < 1e-5  # they agree on near ties too
    assert theirs.argmax(dim=1).eq(data.test_labels[:500]).float().mean() > 0.85


@torch.no_grad()
@pytest.mark.parametrize("kind", DECODERS)
def test_codes_and_active_latents_are_those_of_the_model(kind, data):
    """The garments' codes exactly; the variances over all test images by those of the first 2,000."""
    model, _ = shipped(kind)
    for garment in FACTS["garments"]:
        image, label = data.test_images[garment["index"]][None], data.test_labels[garment["index"]][None]
        assert base64.b64decode(garment["pixels"]) == image.numpy().tobytes() and garment["label"] == int(label)
        mu, _ = model.encode(image / 255, label)
        assert garment["mu"][kind] == pytest.approx(mu.flatten().tolist(), abs=1e-4)
    assert [garment["label"] for garment in FACTS["garments"]] == 3 * list(range(10)) and FACTS["classes"] == list(
        CLASSES
    )
    facts = FACTS["decoders"][kind]
    mu, _ = model.encode(data.test_images[:2000] / 255, data.test_labels[:2000])
    assert facts["variance"] == pytest.approx(mu.flatten(1).var(dim=0).tolist(), rel=0.4, abs=0.02)
    ranked = [facts["variance"][i] for i in facts["active"]]
    assert ranked == sorted(ranked, reverse=True) and min(ranked) > ACTIVE
    assert sum(value > ACTIVE for value in facts["variance"]) == len(ranked)


def test_the_still_is_drawn_by_the_shipped_weights(script, tmp_path):
    script("tools/live_assets.py").draw_still(tmp_path / "still.webp")
    ours, theirs = (Image.open(folder / "still.webp").convert("L") for folder in (LIVE, tmp_path))
    assert ImageChops.difference(ours, theirs).getextrema()[1] <= 3, "run python tools/live_assets.py"
