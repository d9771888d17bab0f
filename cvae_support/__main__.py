"""The command line: python -m cvae_support data | train | evaluate | study | sample | info | export."""

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from cvae_support.checkpoints import SHIPPED_FOLDER, CheckpointError, load_model
from cvae_support.config import MODELS, RECIPES, SCHEDULES, WAYS, Config
from cvae_support.data import load_dataset, load_fashion_mnist
from cvae_support.files import cache_folder, write_atomically
from cvae_support.runs import run_folder

EXAMPLES = """
  python -m cvae_support data
  python -m cvae_support train --model adaln                                    # the full model, for a GPU
  python -m cvae_support train --model adaln --width 0.25 --recipe fast         # a small one, for a CPU
  python -m cvae_support train --model adaln --width 0.25 --recipe fast --resume
  python -m cvae_support train --epochs 1 --width 0.25 --images 5120            # a minute's try
  python -m cvae_support train --data digits.npz --width 0.25 --kl-weight 0.05 --epochs 30 --batch-size 32
  fabric run --accelerator=cuda --devices=2 --precision=bf16-mixed cvae_support/__main__.py train --model adaln
  python -m cvae_support evaluate adaln-w0.25-kl0.01-muon --seeds 1 --out measures.json
  python -m cvae_support study --report                                         # the page's experiments so far
  python -m cvae_support info
  python -m cvae_support sample adaln-w1-kl0.01-muon --class Sandal --count 8 --out sandals.png
  python -m cvae_support export --out onnx
""".strip("\n").splitlines()
# What a flag of `train` sets, where its name and its choices do not say it.
WORDS = {
    "model": "how the class gets in: not at all, as a channel (spatial), as a vector added to features, or through the "
    "normalization (adaln); mlp and label-channel are networks of other people, to compare with",
    "recipe": "epochs, batches, optimizer and learning rate in one, where you leave them out: see TRAINING.md",
    "width": "factor of the channels: 1 is the model of the tutorial, 0.25 trains on a CPU",
    "encoder_sees_y": "whether the encoder is given the class, too",
    "encoder": "how the class gets into the encoder, where that is not as it gets into the decoder",
    "kl_weight": "factor of the KL term in the loss",
    "ema_decay": "of the running average of the weights that is tested and kept; 0: none",
    "class_dim": "length of the class vector of adaln; 0: as many as its widest layer has channels",
    "zero_init": "whether every class starts alike, in adaln",
}


def find_weights(name: str) -> Path:
    """A checkpoint's .json: a path, or the name of one that ships with the package."""
    path, shipped = Path(name), SHIPPED_FOLDER / f"{name}.json"
    if path.suffix == ".json":
        return path
    if shipped.is_file():
        return shipped
    if path.is_dir():
        raise CheckpointError(f"{name} is a folder: name a .json file in it, such as {path / 'final.json'}")
    raise CheckpointError(f"no weights called {name!r}; shipped are {', '.join(shipped_names())}, or give a .json file")


def shipped_names() -> list[str]:
    """The names of the weights that ship with the package."""
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.json"))


def class_index(name: str, classes: list[str]) -> int:
    """A class by its name, in any case, or by its number."""
    names = [known.lower() for known in classes]
    if name.lower() in names:
        return names.index(name.lower())
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    raise ValueError(f"no class {name!r}; there are 0 to {len(classes) - 1}, or by name: {', '.join(classes)}")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Say of the path a user gave what went wrong in writing there."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{out} cannot be written: {error.strerror or error}. Choose another place: --out") from error


def run_data(_: argparse.Namespace) -> None:
    data = load_fashion_mnist()
    print(f"Fashion-MNIST: {len(data.train_images)} training and {len(data.test_images)} test images, verified")
    if (kept := cache_folder() / "fashion-mnist").is_dir():
        print(f"kept in {kept}")


def run_train(arguments: argparse.Namespace) -> None:
    from cvae_support.training import train  # Fabric is slow to import, and only training needs it

    if arguments.images < 0:
        raise ValueError(f"--images must be 0 (all) or more, got {arguments.images}")
    data = load_dataset(arguments.data) if arguments.data else load_fashion_mnist()
    if arguments.images > len(data.train_images):
        raise ValueError(f"--images must be {len(data.train_images)} at most, as there are, got {arguments.images}")
    chosen = {field.name: getattr(arguments, field.name) for field in config_fields()}
    config = Config(image_size=data.train_images.shape[-1], num_classes=len(data.classes), **chosen)
    if arguments.images:
        data = data.first(arguments.images, max(arguments.images // 6, 1))
    folder = arguments.folder or run_folder(config, data.checksum)
    train(config, data, folder, resume=arguments.resume)


def run_evaluate(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from cvae_support.evaluate import evaluate, stages
    from cvae_support.judge import load_judge
    from cvae_support.study import read
    from cvae_support.tables import measures_table

    if not 1 <= arguments.seeds <= 100:
        raise ValueError(f"--seeds must lie in 1 .. 100, got {arguments.seeds}")
    model, record = load_model(find_weights(arguments.weights))
    data = load_fashion_mnist()
    side = model.config.image_size
    if side != data.test_images.shape[-1] or record["classes"] != list(data.classes):
        raise ValueError(
            f"the judges know the garments of Fashion-MNIST only, at 28 x 28; {arguments.weights} was trained on "
            f"{side} x {side} images of {len(record['classes'])} classes: {', '.join(record['classes'])}"
        )
    yardsticks = read("floors") or {}
    if arguments.out:  # better to fail now than after minutes
        if arguments.out.is_dir():
            raise IsADirectoryError(f"--out must name a .json file, and {arguments.out} is a folder")
        if arguments.out.suffix.lower() != ".json":
            raise ValueError(f"--out must name a .json file, got {arguments.out}")
        trial = arguments.out.with_name(f"{arguments.out.name}.{os.getpid()}.trial")
        with writing(arguments.out):
            write_atomically(trial, b"")
            trial.unlink()
    seeds = list(range(arguments.seeds))
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), transient=True) as bar:
        task = bar.add_task("", total=stages(seeds))
        found = evaluate(
            model, data, load_judge("judge"), load_judge("second"), seeds,
            progress=lambda stage: bar.update(task, description=stage, advance=1),
        )  # fmt: skip
    Console().print(measures_table(found, yardsticks))  # first: a disk that is full by now loses nothing
    if arguments.out:
        result = {"weights": record["weights"], "fingerprint": record["fingerprint"], "sampling_seeds": seeds}
        with writing(arguments.out):
            write_atomically(arguments.out, json.dumps(result | {"measures": found}, indent=1).encode())
        print(f"measures: {arguments.out}")


def run_study(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    from cvae_support.study import CLASS_AWARE, MEASURED, measured, study
    from cvae_support.tables import OF_ARMS, OF_LATENTS, OF_SAMPLES, results_table

    console = Console()
    console.print(study(load_fashion_mnist(), train=not arguments.report))
    arms = {arm: runs for arm in MEASURED | CLASS_AWARE if (runs := measured(arm))}
    for columns in (OF_SAMPLES, OF_ARMS, OF_LATENTS):
        console.print(Markdown(results_table(arms, columns, compared=arms)))


def run_sample(arguments: argparse.Namespace) -> None:
    import torch

    from cvae_support.latents import as_picture, mosaic

    if not 1 <= arguments.count <= 1000:
        raise ValueError(f"--count must lie in 1 .. 1000, got {arguments.count}")
    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}.get(arguments.out.suffix.lower())
    if kind is None:
        raise ValueError(f"--out must name a .png or .jpg file, got {arguments.out}")
    if not 0 <= arguments.seed < 2**32:
        raise ValueError(f"--seed must lie in 0 .. 2^32 - 1, got {arguments.seed}")
    model, record = load_model(find_weights(arguments.weights))
    if model.conditional and arguments.label is None:
        raise ValueError(f"--class is needed: one of {', '.join(record['classes'])}")
    label = class_index(arguments.label, record["classes"]) if model.conditional else None
    y = arguments.count if label is None else torch.full((arguments.count,), label)
    images = model.sample(y, torch.Generator().manual_seed(arguments.seed))
    strip = mosaic(images.transpose(0, 1))  # side by side
    picture = io.BytesIO()
    as_picture(strip).save(picture, kind)
    with writing(arguments.out):
        write_atomically(arguments.out, picture.getvalue())
    what = "no class: the model is unconditional" if label is None else record["classes"][label]
    print(f"{arguments.count} samples ({what}) in {arguments.out}")


def run_export(arguments: argparse.Namespace) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RuntimeError(f"{error}; export needs: pip install onnx onnxscript onnxruntime") from error
    from cvae_support.export import export

    data = load_fashion_mnist()
    with writing(arguments.out):
        facts = export(arguments.out, data)
    for name, decoder in facts["decoders"].items():
        most, mean = decoder["max_pixel_difference"], decoder["mean_pixel_difference"]
        apart = f"pixels (0 to 1) differ from torch's by at most {most:.0e}, by {mean:.0e} on average"
        print(f"{name}, in half precision: {apart}; the judge agrees on {decoder['judge_agreement']:.1%} of the images")
    print(f"float32 and classes.json in {arguments.out}, half precision and live.json in {arguments.out / 'web'}")


def run_info(arguments: argparse.Namespace) -> None:
    from cvae_support.models import count_parameters

    for name in [arguments.weights] if arguments.weights else shipped_names():
        model, record = load_model(find_weights(name))
        print(f"{name}")
        print(f"  fingerprint  {record['fingerprint']}")
        print(f"  config       {', '.join(f'{key}={value}' for key, value in record['config'].items())}")
        print(f"  parameters   {count_parameters(model):,} (decoder {count_parameters(model.decoder):,})")
        row = record["history"][-1] if record["history"] else {}
        if {"epoch", "test_recon", "test_kl"} <= row.keys():  # a history made elsewhere may hold other measures
            losses = f"reconstruction {row['test_recon']:.5f}, KL {row['test_kl']:.4f}"
            print(f"  test loss    {losses} after epoch {row['epoch']}")
        print(f"  made with    {', '.join(f'{key} {value}' for key, value in record['versions'].items())}")
        print(f"  sha256       {record['sha256']}")


def config_fields():
    """The fields of Config a user sets; size and number of classes come from the data."""
    return [field for field in fields(Config) if field.name not in ("image_size", "num_classes")]


def parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="python -m cvae_support",
        description="The class-conditional VAE of the tutorial: its data, its training, its measures, its samples.",
        epilog="\n".join(["examples:", *EXAMPLES]),
        formatter_class=layout,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, what: str) -> argparse.ArgumentParser:
        examples = "\n".join(["examples:", *(line for line in EXAMPLES if f" {name}" in line)])
        return commands.add_parser(name, help=what, description=what, epilog=examples, formatter_class=layout)

    data = command("data", "find or download Fashion-MNIST, and verify it")
    data.set_defaults(run=run_data)

    train = command("train", "train a model")
    choices = {"model": MODELS, "encoder": WAYS, "recipe": RECIPES, "schedule": SCHEDULES}
    for field in config_fields():
        flag = f"--{field.name.replace('_', '-')}"
        words = f"{WORDS[field.name]} (default %(default)s)" if field.name in WORDS else "default %(default)s"
        words = words.replace(" (default %(default)s)", "") if field.default == "" else words
        if field.type is bool:
            train.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default, help=words)
            continue
        options = dict(type=field.type, default=field.default, help=words)
        if field.default is None:  # the recipe's
            kind = type(RECIPES["plain"][field.name])
            defaults = ", ".join(f"{recipe} {values[field.name]}" for recipe, values in RECIPES.items())
            options |= dict(type=kind, help=words.replace("default %(default)s", f"default: {defaults}"))
        train.add_argument(flag, choices=choices.get(field.name), **options)
    train.add_argument("--data", type=Path, help="a folder of IDX files or an .npz file (default: Fashion-MNIST)")
    train.add_argument("--folder", type=Path, help="where to keep the run (default: in .cache, or in CVAE_CACHE)")
    train.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    train.add_argument(
        "--images", type=int, default=0, metavar="N", help="use the first N training and N/6 test images only"
    )
    train.set_defaults(run=run_train)

    evaluate = command("evaluate", "measure a model's samples and latents (minutes)")
    evaluate.add_argument("weights", help="a name that `info` lists, or a checkpoint's .json file")
    evaluate.add_argument("--seeds", type=int, default=3, metavar="N", help="draw N sets of samples (default 3)")
    evaluate.add_argument("--out", type=Path, help="a .json file for all measures (default: none)")
    evaluate.set_defaults(run=run_evaluate)

    study = command("study", "train and measure what the results of the page's experiments lack, and print them")
    study.add_argument("--report", action="store_true", help="train nothing; collect and print what there is")
    study.set_defaults(run=run_study)

    sample = command("sample", "draw images of a class")
    sample.add_argument("weights", help="a name that `info` lists, or a checkpoint's .json file")
    sample.add_argument("--class", dest="label", help="name or number, as in Sandal or 5; needed by conditional models")
    sample.add_argument("--count", type=int, default=8, help="default %(default)s")
    sample.add_argument("--seed", type=int, default=0, help="default %(default)s")
    sample.add_argument("--out", type=Path, default=Path("sample.png"), help="default %(default)s")
    sample.set_defaults(run=run_sample)

    export = command("export", "write the decoders of the two small conditional models, and the judge, as ONNX")
    export.add_argument("--out", type=Path, default=Path("onnx"), help="the folder (default %(default)s)")
    export.set_defaults(run=run_export)

    info = command("info", "describe the shipped weights, or one checkpoint")
    info.add_argument("weights", nargs="?", help="a shipped name, or a checkpoint's .json file")
    info.set_defaults(run=run_info)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 if it went well, 1 with one message if not, 130 after Ctrl-C."""
    arguments = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # Windows writes files in a code page that lacks an arrow
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # without a line of our code
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read what we print has seen enough, as in `info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more is said as we leave
        return 1
    except (ValueError, RuntimeError, OSError) as error:  # our own errors are RuntimeErrors
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
