"""Train the models that ship with the package, and put the best seed of each in its folder.

    python tools/train_weights.py            # the small models; goes on where an earlier call stopped
    python tools/train_weights.py --ship     # train nothing: ship the best of what is there
    python tools/train_weights.py --width 1                       # the full models: give it a GPU
    python tools/train_weights.py --width 1 --recipe plain        # the same by the plain recipe, 100 epochs

Interrupt it whenever you like: a second call resumes the run it was in and skips those that are done. It also
writes what depends on the weights: the t-SNE maps, models.md and, from the page's own model, the pictures of samples.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from cvae_support.checkpoints import (
    SHIPPED_FOLDER,
    differences,
    load_checkpoint,
    load_model,
    load_record,
    save_checkpoint,
    versions,
)
from cvae_support.config import RECIPES, Config
from cvae_support.data import Dataset, load_fashion_mnist
from cvae_support.latents import as_picture, class_grid, first_per_class, latent_map, mosaic, reconstruct
from cvae_support.models import VAE, count_parameters
from cvae_support.runs import run_folder
from cvae_support.study import FULL, FULL_WIDTH, SEEDS, losses, read
from cvae_support.trained import local_run
from overview_sprite import draw_sprite

MAPPED = 300  # test images of each class in the t-SNE maps that ship
PICTURE = Path(__file__).resolve().parents[1] / "assets" / "samples.png"  # the README's
CARD = Path(__file__).resolve().parents[1] / "models.md"


def wanted(width: float, recipe: str) -> list[Config]:
    """The four models of this width and recipe, each to be trained from all seeds."""
    base = FULL if (width, recipe) == (FULL.width, FULL.recipe) else Config(width=width, recipe=recipe)
    return [
        *(replace(base, model=model) for model in ("spatial", "adaln", "unconditional")),
        replace(base, model="unconditional", kl_weight=0.0005),
    ]


def half_precision_cost(model: VAE, half: dict[str, torch.Tensor], data: Dataset) -> dict[str, float]:
    """How far pixels of 500 reconstructions move when the weights are rounded to half precision."""
    index = first_per_class(data.test_labels, 50)
    images, labels = data.test_images[index], data.test_labels[index]
    before = reconstruct(model, images, labels)
    model.load_state_dict({name: tensor.float() for name, tensor in half.items()})
    moved = (reconstruct(model, images, labels) - before).abs()
    return {"max_pixel_difference": moved.max().item(), "mean_pixel_difference": moved.mean().item()}


def ship(config: Config, finals: list[Path], data: Dataset) -> Path:
    """Put the run with the lowest test loss, in half precision, in the package's folder; returns its .json.

    What ships already is a candidate too, also against a run of its own seed from another machine. The seeds it was
    chosen from, and those in the results of the study, are remembered: they may have been trained elsewhere.
    """
    shipped = SHIPPED_FOLDER / f"{config.name}.json"
    ends = {
        str(run["seed"]): losses(run["history"], config.kl_weight)[-1]
        for run in read("study")
        if run["fingerprint"] == replace(config, seed=run["seed"]).fingerprint and len(run["history"]) == config.epochs
    }
    candidates = {}
    if shipped.is_file():
        record = load_record(shipped)
        seed = record["config"]["seed"]
        if not differences(record, replace(config, seed=seed), data.checksum):
            candidates, ends = {str(seed): shipped}, ends | record["test_loss_of_seeds"]
    for path in finals:
        record = load_record(path)
        seed, loss = str(record["config"]["seed"]), losses(record["history"], config.kl_weight)[-1]
        if seed not in candidates or loss < ends[seed]:
            candidates[seed], ends[seed] = path, loss
    best = candidates[min(candidates, key=ends.get)]
    tensors, record = load_checkpoint(best)
    half = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    save_checkpoint(
        shipped, half, Config(**record["config"]),
        data=record["data"], classes=record["classes"], history=record["history"], made_on=record["made_on"],
        versions=versions() | {"torch": record["versions"]["torch"]},  # that of the machine that trained it
        half_precision=record.get("half_precision") or half_precision_cost(load_model(best)[0], half, data),
        test_loss_of_seeds=dict(sorted(ends.items())),
    )  # fmt: skip
    return shipped


def draw_samples(model: VAE) -> None:
    """The picture in the README: eight samples of each class, classes in columns."""
    grid = mosaic(class_grid(model, 8, seed=0).transpose(0, 1))
    picture = as_picture(grid)
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(PICTURE, optimize=True)


def card() -> str:
    """models.md: how each shipped model was made, on what, in how long, read from the shipped records."""
    lines = [
        "# The weights that ship",
        "",
        "<!-- Made by tools/train_weights.py from the records beside the weights; edits here are lost. -->",
        "",
        "Each model was trained on Fashion-MNIST's 60,000 training images from the seeds listed; the one with the "
        "lowest **test loss** (mean squared error + KL weight x mean KL, over the 10,000 test images) ships, in half "
        "precision. Choosing by test loss makes that one number slightly optimistic: read the spread over the seeds, "
        "where there are several.",
        "",
        "The files are safetensors (no pickle). Beside each lies a `.json` with its configuration, the train and test "
        "rate and distortion after every epoch, and the SHA-256 that is verified before the weights are used. "
        "`python -m cvae_support info` prints what is in them.",
    ]
    for path in sorted(SHIPPED_FOLDER.glob("*.json")):
        model, record = load_model(path)
        config, last, cost = model.config, record["history"][-1], record["half_precision"]
        after = losses(record["history"], config.kl_weight)
        lowest = min(after)
        average = f"average of weights {config.ema_decay:g}" if config.ema_decay else "no average of weights"
        overfit = f"; it was {lowest:.5f} after epoch {after.index(lowest) + 1}" if lowest < 0.99 * after[-1] else ""
        seeds = ", ".join(
            f"{loss:.5f} (seed {seed}{', ships' if int(seed) == config.seed else ''})"
            for seed, loss in record["test_loss_of_seeds"].items()
        )
        lines += [
            "",
            f"## {path.stem}",
            "",
            "| | |",
            "|:--|:--|",
            f"| model | {config.model}, width {config.width:g}, {count_parameters(model):,} parameters "
            f"({count_parameters(model.decoder):,} in the decoder) |",
            f"| trained | recipe `{config.recipe}`: {config.epochs} epochs, batch {config.batch_size}, "
            f"{config.optimizer} {config.learning_rate:g} ({config.schedule}), "
            f"{average}; KL weight {config.kl_weight:g} |",
            f"| made on | {record['made_on']}; {sum(row['seconds'] for row in record['history']) / 60:.0f} minutes of "
            f"training; torch {record['versions']['torch']} |",
            f"| test loss | {seeds}{overfit} |",
            f"| of that | reconstruction {last['test_recon']:.5f} (mean over pixels), KL {last['test_kl']:.4f} nats "
            "(mean over latents) |",
            f"| half precision | moves a pixel of 500 reconstructions by {cost['max_pixel_difference']:.4f} at most |",
            f"| fingerprint | `{record['fingerprint']}` |",
            f"| SHA-256 | `{record['sha256']}` |",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # A quarter of the tutorial's width, which a CPU core trains in two to five minutes an epoch.
    parser.add_argument("--width", type=float, default=0.25, help="1 is the tutorial's; default %(default)s")
    parser.add_argument("--recipe", choices=RECIPES, default="muon", help="default %(default)s")
    parser.add_argument("--ship", action="store_true", help="train nothing: ship the best of what is there")
    options = parser.parse_args(arguments)
    try:
        models = wanted(options.width, options.recipe)
    except ValueError as error:
        parser.error(str(error))
    data = load_fashion_mnist()
    if options.width >= 1 and not options.ship and not torch.cuda.is_available():
        print("No GPU: at this width a run takes hours, by the plain recipe a day. Ctrl-C costs the epoch it is in.")
    for config in models:
        configs = [replace(config, seed=seed) for seed in SEEDS]
        finals = [run_folder(one, data.checksum) / "final.json" for one in configs]
        if not options.ship:
            finals = [local_run(one, data) for one in configs]
        finals = [path for path in finals if path.is_file()]
        if not finals:
            print(f"{config.name}: no run of it here")
            continue
        shipped = ship(config, finals, data)
        print(f"{config.name}: shipped the best of the seeds {', '.join(load_record(shipped)['test_loss_of_seeds'])}")
        if config.model != "unconditional":
            latent_map(*load_model(shipped), data, MAPPED, SHIPPED_FOLDER)
        if config.name == FULL_WIDTH["adaLN, full width"].name:  # the page's own model
            model, _ = load_model(shipped)
            draw_samples(model)
            draw_sprite(model)
    CARD.write_text(card(), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
