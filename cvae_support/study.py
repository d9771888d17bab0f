"""The experiments the page reports: which runs they are, their histories and their measures as small files.

`python -m cvae_support study` trains what is missing, resumes what was interrupted, measures what was trained, and
keeps it all in cvae_support/results; the page and its tests read it from there.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from cvae_support.checkpoints import (
    SHIPPED_FOLDER,
    CheckpointError,
    differences,
    load_model,
    load_record,
)
from cvae_support.config import Config
from cvae_support.data import Dataset
from cvae_support.evaluate import evaluate, floors, reconstructions
from cvae_support.files import write_atomically
from cvae_support.judge import judge_hashes, load_judge
from cvae_support.runs import run_folder
from cvae_support.trained import local_run

RESULTS_FOLDER = Path(__file__).parent / "results"
SEEDS = (42, 43, 44)

FAST = Config("spatial", width=0.25, recipe="fast")
MUON = Config("spatial", width=0.25, recipe="muon")
# One epoch of the fast recipe. The run is short, so the average is short as well.
ONE_EPOCH = replace(FAST, epochs=1, ema_decay=0.995)
ADALN = replace(ONE_EPOCH, model="adaln")
# Which batch and which rate: the recipe's own is first.
SEARCH = {
    "spatial": ONE_EPOCH,
    **{
        f"batch {batch_size}, rate {rate:g}": replace(ONE_EPOCH, batch_size=batch_size, learning_rate=rate)
        for batch_size, rate in [(32, 0.003), (64, 0.01), (64, 0.006), (64, 0.003), (128, 0.004)]
    },
}
# The same for Muon, over its own length.
MUON_SEARCH = {
    "spatial, 20 epochs": MUON,
    "muon, 20 epochs, rate 0.01": replace(MUON, learning_rate=0.01),
    "muon, 20 epochs, batch 16": replace(MUON, batch_size=16, learning_rate=0.01, ema_decay=0.999),
}
# How the label gets in, on a short budget: what the results section compares, in the order of its table.
CONDITIONING = {
    "spatial": ONE_EPOCH,
    "added": replace(ONE_EPOCH, model="added"),
    "adaLN": ADALN,
    "crossed, adaLN encoder": replace(ONE_EPOCH, encoder="adaln"),
    "crossed, adaLN decoder": replace(ADALN, encoder="spatial"),
    "spatial, blind encoder": replace(ONE_EPOCH, encoder_sees_y=False),
    "added, blind encoder": replace(ONE_EPOCH, model="added", encoder_sees_y=False),
    "adaLN, blind encoder": replace(ADALN, encoder_sees_y=False),
    "adaLN, matched size": replace(ADALN, class_dim=4),
    "adaLN, random start": replace(ADALN, zero_init=False),
    **{f"spatial, weight {weight:g}": replace(ONE_EPOCH, kl_weight=weight) for weight in (0.0005, 0.002, 0.05)},
    "MLP peer": replace(ONE_EPOCH, model="mlp", width=1.0),
    "label-channel peer": replace(ONE_EPOCH, model="label-channel", width=1.0),
    "unconditional": replace(ONE_EPOCH, model="unconditional"),
    "unconditional, weight 0.0005": replace(ONE_EPOCH, model="unconditional", kl_weight=0.0005),
}
# The models of the page, at full width: larger batches keep a GPU busy. The study does not train them.
FULL = Config("spatial", recipe="muon", batch_size=128, learning_rate=0.012, ema_decay=0.995)
FULL_WIDTH = {
    "spatial, full width": FULL,
    "adaLN, full width": replace(FULL, model="adaln"),
    "unconditional, full width": replace(FULL, model="unconditional"),
    "unconditional, weight 0.0005, full width": replace(FULL, model="unconditional", kl_weight=0.0005),
}
# By the plain recipe, in five times the epochs.
PLAIN = {
    "adaLN, plain": Config("adaln", width=0.25, recipe="plain"),
    "spatial, plain, full width": Config("spatial", recipe="plain"),
    "adaLN, plain, full width": Config("adaln", recipe="plain"),
    "unconditional, plain, full width": Config("unconditional", recipe="plain"),
    "unconditional, weight 0.0005, plain, full width": Config("unconditional", recipe="plain", kl_weight=0.0005),
}
# The small models that ship.
TWENTY_EPOCHS = {
    "spatial, 20 epochs": MUON,
    "adaLN, 20 epochs": replace(MUON, model="adaln"),
    "unconditional, 20 epochs": replace(MUON, model="unconditional"),
    "unconditional, weight 0.0005, 20 epochs": replace(MUON, model="unconditional", kl_weight=0.0005),
}
# What one epoch does not tell: how well y is obeyed after twenty where the encoder is blind, or adaLN's alone. Long
# runs that only give a direction: the study asks for two seeds of the small ones.
LONGER = {
    "spatial, blind encoder, 20 epochs": replace(MUON, encoder_sees_y=False),
    "crossed, adaLN encoder, 20 epochs": replace(MUON, encoder="adaln"),
    "spatial, blind encoder, full width": replace(FULL, encoder_sees_y=False),
    "crossed, adaLN encoder, full width": replace(FULL, encoder="adaln"),
}
# Conditional models once more, z drawn where the codes of each class are and not from the prior; of the seeds whose
# weights are at hand.
CLASS_AWARE = {
    f"{arm}, class-aware": (FULL_WIDTH | TWENTY_EPOCHS | CONDITIONING)[arm]
    for arm in (
        "spatial, full width",
        "adaLN, full width",
        "spatial, 20 epochs",
        "adaLN, 20 epochs",
        "spatial, weight 0.0005",
    )
}
# Between one epoch and twenty: every seed of the fast recipe.
FOUR_EPOCHS = {"spatial, 4 epochs": FAST, "adaLN, 4 epochs": replace(FAST, model="adaln")}
MEASURED = FULL_WIDTH | PLAIN | TWENTY_EPOCHS | LONGER | FOUR_EPOCHS | CONDITIONING
ARMS = {
    **MEASURED,
    **SEARCH,
    "constant rate": replace(ONE_EPOCH, schedule="constant"),
    "no average": replace(ONE_EPOCH, ema_decay=0.0),
    "Muon": replace(ONE_EPOCH, recipe="muon"),
    **MUON_SEARCH,
    "fast, 20 epochs": replace(FAST, epochs=20),  # like those with Muon, a fifth of what "plain" takes
    "plain": Config("spatial", width=0.25, recipe="plain"),
    "plain, averaged": Config("spatial", width=0.25, recipe="plain", epochs=20, ema_decay=0.998),
}


def runs(arms: dict[str, Config]) -> Iterator[tuple[str, Config]]:
    """Every arm at every seed (those of LONGER at the first two), one seed of all arms before the next."""
    for seed in SEEDS:
        for arm, config in arms.items():
            if seed in SEEDS[:2] or arm not in LONGER:
                yield arm, replace(config, seed=seed)


def collect(arms: dict[str, Config], data: Dataset) -> list[dict[str, Any]]:
    """What has been trained so far, unfinished runs too: arm, seed, fingerprint, epochs wanted, and history."""
    found = []
    for arm, config in runs(arms):
        path = run_folder(config, data.checksum) / "last.json"
        if not path.is_file():
            continue  # not begun
        try:
            record = load_record(path)
        except CheckpointError as error:  # one damaged run does not stop the others
            print(error)
            continue
        if not differences(record, config, data.checksum):
            found.append({
                "arm": arm, "seed": config.seed, "fingerprint": config.fingerprint, "epochs": config.epochs,
                "history": [{key: round(value, 7) for key, value in row.items()} for row in record["history"]],
            })  # fmt: skip
    return found


def read(name: str) -> Any:
    """The results that ship with the package. Raises ValueError, naming the file, if it is damaged."""
    path = RESULTS_FOLDER / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again, or git restore it") from error


def progress(run: dict[str, Any]) -> int:
    """Epochs trained so far; for measures, samples they rest on."""
    return len(run["history"]) if "history" in run else len(run["sampling_seeds"])


def origin(run: dict[str, Any]) -> tuple[str, list[str] | None]:
    """What a result comes from: the configuration of the run and, for measures, the judges."""
    return run["fingerprint"], run.get("judges")


def keep(name: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add what was found to results/NAME.json, a run a line.

    Of two results of one run the one that got farther stays, and of equals the older.
    """
    kept: dict[tuple[str, int], dict[str, Any]] = {}
    for run in [*read(name), *found]:
        older = kept.get((run["arm"], run["seed"]))
        if older is None or origin(older) != origin(run) or progress(older) < progress(run):
            kept[run["arm"], run["seed"]] = run
    if list(kept.values()) != read(name):  # where there is nothing new, the folder need not be one that can be written
        lines = ",\n".join(json.dumps(run) for run in kept.values())
        write_atomically(RESULTS_FOLDER / f"{name}.json", f"[\n{lines}\n]\n".encode())
    return list(kept.values())


def losses(history: list[dict[str, float]], kl_weight: float) -> list[float]:
    """The test loss, what training minimizes, after every epoch of a history."""
    return [row["test_recon"] + kl_weight * row["test_kl"] for row in history]


def curves(found: list[dict[str, Any]], arm: str) -> list[list[float]]:
    """For each seed of this arm, the test loss after every epoch it has reached."""
    return [losses(run["history"], ARMS[arm].kl_weight) for run in found if run["arm"] == arm]


def curve(found: list[dict[str, Any]], arm: str, seed: int) -> list[float]:
    """The test loss of one run after every epoch it has reached."""
    (run,) = (run for run in found if (run["arm"], run["seed"]) == (arm, seed))
    return losses(run["history"], ARMS[arm].kl_weight)


def first_epoch(run: list[float], loss: float) -> int:
    """The first epoch after which a run is down to this loss."""
    return next(epoch for epoch, reached in enumerate(run, start=1) if reached <= loss)


def at_epoch(found: list[dict[str, Any]], arm: str, epoch: int | None = None) -> list[float]:
    """The test losses of this arm's seeds after an epoch; by default the last one that every seed has reached."""
    every = curves(found, arm)
    epoch = epoch or min(map(len, every))
    return [curve[epoch - 1] for curve in every if len(curve) >= epoch]


def with_spread(values: list[float], digits: int = 5) -> str:
    """Mean ± standard deviation, or the one value there is."""
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def study_table(found: list[dict[str, Any]]) -> Table:
    """The study as it stands."""
    table = Table(title="test loss, mean and standard deviation over the seeds")
    for heading in ("arm", "seeds", "epochs", "of", "test loss"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    for arm, config in ARMS.items():
        if every := curves(found, arm):
            finished = [run for run in every if len(run) == config.epochs]
            epochs = min(map(len, finished or every))
            reached = at_epoch(found, arm, epochs)
            table.add_row(arm, str(len(reached)), str(epochs), str(config.epochs), with_spread(reached))
    return table


def final_checkpoint(config: Config, data: Dataset) -> Path | None:
    """Where the weights of a finished run are: among the shipped ones, in the cache, or nowhere."""
    shipped, local = SHIPPED_FOLDER / f"{config.name}.json", run_folder(config, data.checksum) / "final.json"
    if shipped.is_file() and not differences(load_record(shipped), config, data.checksum):
        return shipped
    if local.is_file() and not differences(load_record(local), config, data.checksum):
        return local
    return None


def measure(data: Dataset) -> None:
    """Evaluate every finished run that has not been yet. A model that ships is sampled three times over."""
    judge, second = load_judge("judge"), load_judge("second")
    shipped = SHIPPED_FOLDER / f"{FULL.name}.json"  # of whichever seed was chosen
    made_with = {"judges": judge_hashes(), "reconstructions_of": load_record(shipped)["fingerprint"]}
    if dict(read("floors")).get("made_with") != made_with:
        rows = floors(data, judge, second)
        rows |= {"reconstructions": reconstructions(load_model(shipped)[0], data, judge, second)}
        text = json.dumps(rows | {"made_with": made_with}, indent=1)
        write_atomically(RESULTS_FOLDER / "floors.json", f"{text}\n".encode())
    for arm, config in runs(MEASURED | CLASS_AWARE):
        path = final_checkpoint(config, data)
        # A model that ships is sampled more often, also where another machine has measured it as one that did not.
        sampling_seeds = (0, 1, 2) if path and path.parent == SHIPPED_FOLDER else (0,)
        if path is None or any(progress(run) >= len(sampling_seeds) for run in known_measures(arm, config)):
            continue
        print(f"measuring {arm}, seed {config.seed}")
        model, _ = load_model(path)
        measures = evaluate(model, data, judge, second, sampling_seeds, class_aware=arm in CLASS_AWARE)
        run = {"arm": arm, "seed": config.seed, "fingerprint": config.fingerprint, "judges": judge_hashes()}
        keep("measures", [run | {"sampling_seeds": sampling_seeds, "measures": measures}])


def known_measures(arm: str, config: Config) -> list[dict[str, Any]]:
    """The measures of a run of this arm and configuration, seed and all, by today's judges: one, or none."""
    wanted = {"arm": arm, "fingerprint": config.fingerprint, "judges": judge_hashes()}
    return [run for run in read("measures") if wanted.items() <= run.items()]


def measured(arm: str) -> list[dict[str, Any]]:
    """The measures that ship of this arm, one dict for each of its seeds."""
    return [run["measures"] for run in read("measures") if run["arm"] == arm]


def ends(found: list[dict[str, Any]], arm: str) -> list[tuple[float, float]]:
    """Rate (nats) and distortion (squared error) of an image, for each seed of this arm that is trained to its end."""
    side = ARMS[arm].image_size
    return [
        ((side // 4) ** 2 * run["history"][-1]["test_kl"], side**2 * run["history"][-1]["test_recon"])
        for run in found
        if run["arm"] == arm and len(run["history"]) == run["epochs"]
    ]


def by_kind(arm: str) -> str:
    """The arm's name with its kind first, which figures mark alike: "blind encoder, spatial"."""
    return f"blind encoder, {arm.replace(', blind encoder', '')}" if "blind encoder" in arm else arm


def swaps(arm: str, probe: str) -> list[tuple[float, float]]:
    """How often this probe ("linear" or "MLP") reads the class, and how often a label swap succeeds, in %.

    For each seed of this arm that the probe has measured.
    """
    key = f"probe_{probe.lower()}_accuracy"
    return [(100 * run[key], 100 * run["label_swap_accuracy"]) for run in measured(arm) if run[key] is not None]


def is_trained(arm: str, config: Config) -> bool:
    """Whether the results hold the whole history of this run."""
    return any(
        (run["arm"], run["fingerprint"], len(run["history"])) == (arm, config.fingerprint, config.epochs)
        for run in read("study")
    )


def is_known(arm: str, config: Config) -> bool:
    """Whether the results hold all there is to know of this run: its whole history, and its measures if it has any."""
    return is_trained(arm, config) and (arm not in MEASURED or bool(known_measures(arm, config)))


def study(data: Dataset, train: bool = True) -> Table:
    """Train and measure what the results lack (or nothing), keep the results, and return their table.

    The models of full width are not trained here: tools/train_weights.py --width 1 does that.
    """
    trained = {arm: config for arm, config in ARMS.items() if not arm.endswith("full width")}
    for arm, config in runs(trained) if train else ():
        if not is_known(arm, config):
            if not (is_trained(arm, config) and final_checkpoint(config, data)):  # other judges need only its weights
                local_run(config, data)
            keep("study", collect(ARMS, data))
            measure(data)
    if train:
        measure(data)  # a model that ships since: it is sampled more often
    return study_table(keep("study", collect(ARMS, data)))
