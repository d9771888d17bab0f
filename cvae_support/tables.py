"""The tables of measured results: as Markdown for the page, and for the terminal."""

from collections.abc import Collection, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from cvae_support.data import CLASSES
from cvae_support.evaluate import MEASURES

# How a measure is headed, what it is multiplied by, and how many digits are shown.
COLUMNS = {
    "conditional_accuracy": ("Accuracy, %", 100, 1),
    "conditional_accuracy_second": ("Second judge, %", 100, 1),
    "classification_accuracy_score": ("Accuracy score, %", 100, 1),
    "frechet_distance": ("Fréchet", 1, 2),
    "precision": ("Precision, %", 100, 1),
    "coverage": ("Coverage, %", 100, 1),
    "distortion": ("Distortion", 1, 2),
    "rate": ("Rate", 1, 1),
    "active_units": ("Active units", 1, 0),
    "probe_linear_accuracy": ("Linear probe, %", 100, 1),
    "label_swap_accuracy": ("Label swap, %", 100, 1),
    "probe_mlp_accuracy": ("MLP probe, %", 100, 1),
    "probe_information": ("I(z; y), nats", 1, 2),
    "style": ("Style", 1, 2),
    "kernel_distance": ("Kernel", 1, 4),
    "frechet_distance_second": ("Fréchet, second judge", 1, 2),
    "prior_frechet_distance": ("Fréchet, z from the prior", 1, 1),
    "recall": ("Recall, %", 100, 1),
    "density": ("Density", 1, 2),
    "nearest_ratio": ("Nearest", 1, 2),
    "aggregate_gap": ("Gap, nats", 1, 1),
    "class_aggregate_gap": ("Gap by class, nats", 1, 1),
}
# What the page's tables show: of samples, in full below; of arms; of latents.
OF_SAMPLES = [
    "conditional_accuracy", "conditional_accuracy_second", "classification_accuracy_score",
    "frechet_distance", "precision", "coverage",
]  # fmt: skip
MORE_OF_SAMPLES = ["kernel_distance", "frechet_distance_second", "recall", "density", "nearest_ratio"]
OF_ARMS = [
    "distortion", "rate", "conditional_accuracy", "classification_accuracy_score", "frechet_distance",
    "label_swap_accuracy",
]  # fmt: skip
OF_LATENTS = [
    "active_units", "probe_linear_accuracy", "probe_mlp_accuracy", "probe_information", "aggregate_gap",
    "class_aggregate_gap",
]  # fmt: skip


def values(runs: Sequence[dict[str, Any]], key: str) -> list[float]:
    """A measure of those of the runs that have it."""
    return [run[key] for run in runs if run.get(key) is not None]


def average(runs: Sequence[dict[str, Any]], key: str) -> str:
    """The mean of a measure over those of the runs that have it, as the tables print it."""
    _, factor, digits = COLUMNS[key]
    return f"{factor * mean(values(runs, key)):.{digits}f}"


def results_table(rows: Mapping[str, Sequence[dict[str, Any]]], keys: Sequence[str], compared: Collection[str]) -> str:
    """Measures of each row's runs, one run a seed: mean ± standard deviation, the best of those compared in bold.

    The deviation is over the seeds of training where there are several, else over the seeds of sampling. What was
    not measured is a dash.
    """

    def best(key: str) -> str | None:
        _, better = MEASURES[key]
        means = {name: mean(found) for name in compared if (found := values(rows[name], key))}
        if better is None or not means:
            return None
        return (max if better == "higher" else min)(means, key=means.get)

    def cell(name: str, key: str) -> str:
        found = values(rows[name], key)
        if not found:
            return "–"
        _, factor, digits = COLUMNS[key]
        text = f"{factor * mean(found):.{digits}f}".replace("-", "\N{MINUS SIGN}")
        text = f"**{text}**" if name == best(key) else text
        spread = stdev(found) if len(found) > 1 else rows[name][0].get(f"{key}_std")
        # With spaces that don't break: a line of its own for "± 0.3" would be hard to read.
        return text + (f"\xa0±\xa0{factor * spread:.{digits}f}" if spread is not None else "")

    # Units stay with their words; names of rows get twice the width of a number.
    heads = [COLUMNS[key][0].replace(", %", ",\xa0%").replace("; ", ";\xa0") for key in keys]
    lines = ["| |" + "|".join(heads) + "|", "|:----|" + "--:|" * len(keys)]
    lines += [f"| {name} |" + "|".join(cell(name, key) for key in keys) + "|" for name in rows]
    return "\n".join(lines)


def measures_table(found: dict[str, Any], floors: dict[str, dict[str, Any]]) -> Table:
    """What evaluate found of one model, ± the deviation over sampling seeds, beside what floors found, if anything."""
    arrows = {"higher": "↑", "lower": "↓", None: ""}
    beside = {name: row for name, row in floors.items() if name not in ("mse", "made_with")}

    def cell(row: dict[str, Any], key: str) -> str:
        value, spread = row.get(key), row.get(f"{key}_std")
        if value is None:
            return "–"
        text = f"{value:.4f}" if isinstance(value, float) else str(value)
        return text + (f" ± {spread:.4f}" if spread is not None else "")

    notes = ["↑: higher is better, ↓: lower is"]
    notes += [f"MSE of {name.replace('_', ' ')}: {mse:.4f}" for name, mse in floors.get("mse", {}).items()]
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), caption="\n".join(notes), caption_justify="left")
    table.add_column("measure")
    table.add_column("model", justify="right", no_wrap=True)
    table.add_column("")
    for name in beside:  # as narrow as can be, for a terminal of 80 columns
        table.add_column(name.replace("_", " "), justify="right", max_width=8, overflow="fold")
    for key, (name, better) in MEASURES.items():
        table.add_row(name, cell(found, key), arrows[better], *(cell(row, key) for row in beside.values()))
    per_class = "conditional_accuracy_per_class"
    for label, name in enumerate(CLASSES if per_class in found else ()):
        shares = (f"{row[per_class][label]:.4f}" if per_class in row else "–" for row in beside.values())
        table.add_row(f"accuracy, {name}", f"{found[per_class][label]:.4f}", arrows["higher"], *shares)
    return table
