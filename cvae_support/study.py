"""The experiments the page reports: which runs they are, and their histories as one small file.

`python -m cvae_support study` trains what is missing, resumes what was interrupted, and keeps the histories in
cvae_support/results; the page and its tests read them from there.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from cvae_support.checkpoints import CheckpointError, differences, load_record, local_run, run_folder, write_atomically
from cvae_support.config import Config
from cvae_support.data import Dataset

RESULTS_FOLDER = Path(__file__).parent / "results"
SEEDS = (42, 43, 44)

FAST = Config("spatial", width=0.25, recipe="fast")
PLAIN = Config("spatial", width=0.25, recipe="plain")
ONE_EPOCH = replace(FAST, epochs=1)
# The recipes, and the fast one in a single epoch with one ingredient left out at a time.
RECIPE_ARMS = {
    "fast": FAST,
    "fast, 1 epoch": ONE_EPOCH,
    "without small batches": replace(ONE_EPOCH, batch_size=PLAIN.batch_size),
    "without the one-cycle rate": replace(ONE_EPOCH, schedule="constant"),
    "without the average": replace(ONE_EPOCH, ema_decay=0.0),
    "without the higher rate": replace(ONE_EPOCH, learning_rate=PLAIN.learning_rate),
    "plain": PLAIN,
}


def runs(arms: dict[str, Config]) -> Iterator[tuple[str, Config]]:
    """Every arm at every seed, one seed of all arms before the next."""
    for seed in SEEDS:
        for arm, config in arms.items():
            yield arm, replace(config, seed=seed)


def collect(arms: dict[str, Config], data: Dataset) -> list[dict[str, Any]]:
    """What has been trained so far, unfinished runs too: arm, seed, fingerprint, epochs wanted, and history."""
    found = []
    for arm, config in runs(arms):
        path = run_folder(config, data.checksum) / "last.json"
        try:
            record = load_record(path)
        except CheckpointError:
            continue  # not begun
        if not differences(record, config, data.checksum):
            found.append({
                "arm": arm, "seed": config.seed, "fingerprint": config.fingerprint, "epochs": config.epochs,
                "history": [{key: round(value, 7) for key, value in row.items()} for row in record["history"]],
            })  # fmt: skip
    return found


def read(name: str) -> list[dict[str, Any]]:
    """The results that ship with the package."""
    path = RESULTS_FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def keep(name: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add what was found to results/NAME.json, a run a line; of two histories of one run the longer stays."""
    kept: dict[tuple[str, int], dict[str, Any]] = {}
    for run in [*read(name), *found]:
        older = kept.get((run["arm"], run["seed"]))
        if older is None or older["fingerprint"] != run["fingerprint"] or len(older["history"]) <= len(run["history"]):
            kept[run["arm"], run["seed"]] = run
    lines = ",\n".join(json.dumps(run) for run in kept.values())
    write_atomically(RESULTS_FOLDER / f"{name}.json", f"[\n{lines}\n]\n".encode())
    return list(kept.values())


def loss_curve(found: list[dict[str, Any]], arm: str) -> list[list[float]]:
    """For every epoch that every seed of this arm has reached: the test loss of each seed."""
    histories = [run["history"] for run in found if run["arm"] == arm]
    weight = RECIPE_ARMS[arm].kl_weight
    return [[row["test_recon"] + weight * row["test_kl"] for row in rows] for rows in zip(*histories, strict=False)]


def seconds_per_epoch(found: list[dict[str, Any]], arm: str) -> float:
    """The fastest epoch of any seed: what an epoch takes when nothing else slows the machine down."""
    return min(row["seconds"] for run in found if run["arm"] == arm for row in run["history"])


def recipe_table(found: list[dict[str, Any]]) -> Table:
    """The recipe study as it stands: mean and spread of the last test loss that every seed has reached."""
    table = Table(title="test loss of the spatial model, mean and standard deviation over the seeds")
    for heading in ("arm", "seeds", "epochs", "of", "test loss", "seconds an epoch"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    for arm, config in RECIPE_ARMS.items():
        curve = loss_curve(found, arm)
        if curve:
            last = curve[-1]
            spread = f" ± {stdev(last):.5f}" if len(last) > 1 else ""
            seconds = f"{seconds_per_epoch(found, arm):.0f}"
            table.add_row(
                arm, str(len(last)), str(len(curve)), str(config.epochs), f"{mean(last):.5f}{spread}", seconds
            )
    return table


def study(data: Dataset, train: bool = True) -> Table:
    """Train what is missing (or nothing), keep the results, and return their table."""
    for _, config in runs(RECIPE_ARMS) if train else ():
        local_run(config, data)
        keep("recipe", collect(RECIPE_ARMS, data))
    return recipe_table(keep("recipe", collect(RECIPE_ARMS, data)))
