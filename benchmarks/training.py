"""Images per second of the obvious training loop and of ours: same model, same images, same steps, in turn.

    python benchmarks/training.py             # spatial model; width 0.25 on a CPU, 1 on a GPU
    python benchmarks/training.py --write     # and put the numbers in results/speed.json and TRAINING.md

Every measurement is a process of its own, so that peak memory is its own too. The loops take turns, several
times, so that a machine that slows down slows both; the best round of each counts.
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from cvae_support import training
from cvae_support.checkpoints import load_checkpoint
from cvae_support.config import Config
from cvae_support.cpu import keep_freed_memory
from cvae_support.data import Dataset, load_fashion_mnist
from cvae_support.losses import vae_loss
from cvae_support.models import VAE
from cvae_support.runs import best_device
from cvae_support.study import RESULTS_FOLDER

WARM_UP_STEPS = 8  # on a GPU ours records a step in the fourth
PAGE = Path(__file__).resolve().parents[1] / "TRAINING.md"
MARKS = ("<!-- written by benchmarks/training.py -->", "<!-- end -->")


class PilImages(torch.utils.data.Dataset):
    """What torchvision's FashionMNIST with ToTensor does for every image, without needing torchvision."""

    def __init__(self, data: Dataset):
        self.images, self.labels = data.train_images.squeeze(1).numpy(), data.train_labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        image = Image.fromarray(self.images[index])
        return torch.from_numpy(np.array(image)).unsqueeze(0).float().div(255), self.labels[index]


def obvious_loop(config: Config, data: Dataset, device: str) -> Callable[[int], list[tuple[float, float]]]:
    """An epoch as most tutorials write it. Same start, order and noise as ours.

    Returns run(steps), which trains on that many batches of the first images; it returns (recon, kl) of each.
    """
    torch.manual_seed(config.seed)
    model = VAE(config).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    workers = 0 if device == "cpu" else 4  # on a CPU they would only take cores from the model
    order: list[int] = []  # every run fills it anew: the loader is made once, so that its workers start in the warm-up
    loader = DataLoader(
        PilImages(data), config.batch_size, sampler=order, drop_last=True,
        num_workers=workers, persistent_workers=workers > 0,
    )  # fmt: skip

    def run(steps: int) -> list[tuple[float, float]]:
        generator = training.epoch_generator(config, epoch=1)
        few = min(steps * config.batch_size, len(data.train_images))
        order[:] = torch.randperm(few, generator=generator).tolist()
        losses = []
        for images, labels in loader:
            x, y = images.to(device), labels.to(device)
            eps = torch.randn(model.latent_shape(len(x)), generator=generator).to(device)
            recon, mu, log_var, _ = model(x, y, eps)
            recon_loss, kl = vae_loss(recon, x, mu, log_var)
            loss = recon_loss + config.kl_weight * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # what a running mean and a progress bar ask for at every step
            losses.append((recon_loss.item(), kl.item()))
        return losses

    return run


def our_loop(
    config: Config, data: Dataset, device: str, compiled: bool = False, float32: bool = False
) -> Callable[[int], list[tuple[float, float]]]:
    """The steps of cvae_support.training; returns run(steps), as obvious_loop does."""
    fabric = Fabric(accelerator=device, devices=1) if float32 else training.make_fabric()
    torch.backends.cudnn.benchmark = True  # as train does
    if fabric.device.type == "cpu":
        keep_freed_memory()
    net, average, optimizer = training.make_model(config, fabric)
    model, optimizer = fabric.setup(torch.compile(net) if compiled else net, optimizer)
    there = data.to(fabric.device)
    step = training.make_step(config, there, fabric, model, optimizer, average)

    def run(steps: int) -> list[tuple[float, float]]:
        few = there.first(steps * config.batch_size, 1)
        with training.progress_bar(fabric) as progress:
            losses = training.train_epoch(config, few, 1, fabric, step, progress)
        return [tuple(row) for row in losses.tolist()]

    return run


LOOPS = {
    "obvious": obvious_loop,
    "ours, all in float32": partial(our_loop, float32=True),
    "ours": our_loop,
    "ours, compiled": partial(our_loop, compiled=True),
}


def loops_of(device: str) -> list[str]:
    """Those timed there. Only a GPU's steps are compiled (TRAINING.md); a CPU's may be in bf16, in part, or not."""
    if device == "cuda":
        return ["obvious", "ours", "ours, compiled"]
    return ["obvious", "ours"] if precision_of_ours() == "float32" else ["obvious", "ours, all in float32", "ours"]


def precision_of_ours() -> str:
    """What the convolutions of our loop are computed in here, by torch's name for it."""
    return "float32" if training.precision_of(training.make_fabric()) == "32-true" else "bfloat16"


def measure(loop: str, config: Config, steps: int, device: str) -> dict[str, float]:
    """Images per second after a warm-up, and peak memory in MB. To be run in a process of its own."""
    data = load_fashion_mnist()
    start = time.perf_counter()
    run = LOOPS[loop](config, data, device)
    run(WARM_UP_STEPS)
    warm_up = time.perf_counter() - start  # torch.compile compiles here
    start = time.perf_counter()
    losses = run(steps)
    seconds = time.perf_counter() - start
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    elif sys.platform == "win32":
        peak = float("nan")  # Python's own libraries do not tell it there
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    last = losses[-min(20, steps) :]
    loss = sum(recon + config.kl_weight * kl for recon, kl in last) / len(last)
    speed = len(losses) * config.batch_size / seconds  # an epoch may have fewer steps than were asked for
    return {"images_per_second": speed, "warm_up_seconds": warm_up, "peak_mb": peak / 1e6, "loss": loss}


def in_a_process(*arguments) -> dict[str, float]:
    # Not multiprocessing's own pool: its workers may not start any, as the obvious loop's DataLoader does on a GPU.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def matrix_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP a second of a large matrix product: what this machine can do at best.

    It is computed in two ways, as a product and as a 1x1 convolution, and the faster counts: on a CPU they are the work
    of two libraries, of which the first is slow on some processors.
    """
    torch.backends.cuda.matmul.allow_tf32 = True  # as a GPU's convolutions are by default
    size = 4096 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    image = a.view(1, size, -1, 64).to(memory_format=torch.channels_last)
    best = float("inf")
    for product in (lambda: a @ b, lambda: F.conv2d(image, b[:, :, None, None])):
        for _ in range(6):
            start = time.perf_counter()
            product().flatten()[0].item()  # reading a value waits for the device
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def flop_per_image(config: Config) -> int:
    """Forward and backward, of one image."""
    model = VAE(config)
    with FlopCounterMode(display=False) as counter:
        recon, mu, log_var, _ = model(torch.rand(1, 1, 28, 28), torch.zeros(1, dtype=torch.int64))
        sum(vae_loss(recon, torch.rand(1, 1, 28, 28), mu, log_var)).backward()
    return counter.get_total_flops()


def two_processes(config: Config) -> dict[str, dict[str, float]]:
    """One epoch of a few thousand images in one process and in two, a thread each, through `fabric run`."""
    main, found = Path(training.__file__).with_name("__main__.py"), {}
    for devices in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            flags = [f"--model={config.model}", f"--width={config.width}", f"--batch-size={config.batch_size}"]
            command = [Path(sys.executable).with_name("fabric"), "run", "--accelerator=cpu", f"--devices={devices}"]
            subprocess.run(
                [*command, main, "train", *flags, "--epochs=1", "--images=7680", f"--folder={folder}"],
                check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            row = load_checkpoint(Path(folder) / "final.json")[1]["history"][0]
        loss = row["train_recon"] + config.kl_weight * row["train_kl"]
        found[str(devices)] = {"images_per_second": row["images_per_second"], "loss": loss}
    return found


def markdown(result: dict) -> str:
    """The part of TRAINING.md between its two marks."""
    peaks = ", ".join(f"{peak:.0f} GFLOP/s in {name}" for name, peak in result["peak_gflops"].items())
    lines = [
        f"Spatial model, width {result['width']:g}, batches of {result['batch_size']}, {result['steps']} steps, best "
        f"of the rounds; {result['machine']}, torch {result['torch']}. One image costs {result['gflop_per_image']:.3f} "
        f"GFLOP; the peak is that of a large matrix product in the precision of the convolutions: {peaks}.",
        "",
        "| Loop | Images/s | Share of the peak | Peak memory | Loss, last 20 steps |",
        "|:---|---:|---:|---:|---:|",
    ]
    for loop, row in result["loops"].items():
        lines.append(
            f"| {loop} | {row['images_per_second']:.0f} | {row['share_of_peak']:.0%} "
            f"| {row['peak_mb']:.0f} MB | {row['loss']:.4f} |"
        )
    lines += [
        "",
        f"Ours is {result['ratio']:.2f} times as fast as the obvious loop. In the small batches of the fast recipe it "
        f"makes {result['recipes']['fast']:.0f} images/s, and with Muon {result['recipes']['muon']:.0f}.",
    ]
    if "processes" in result:
        one, two = result["processes"]["1"], result["processes"]["2"]
        lines += [
            "",
            f"Two processes with a thread each, through `fabric run`, make {two['images_per_second']:.0f} images/s "
            f"together, {two['images_per_second'] / 2:.0f} each; one process with one thread makes "
            f"{one['images_per_second']:.0f}. The mean loss of that epoch is {two['loss']:.6f} and {one['loss']:.6f}.",
        ]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--width", type=float, help="default: 0.25 on a CPU, 1 on a GPU")
    options.add_argument("--steps", type=int, help="of 256 images each; default: 40 on a CPU, 200 on a GPU")
    options.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    options.add_argument("--write", action="store_true", help="put the numbers in results/speed.json and TRAINING.md")
    arguments = options.parse_args()
    if arguments.rounds < 1 or arguments.steps is not None and arguments.steps < 1:
        options.error("--rounds and --steps must be 1 or more")
    device = best_device()
    if arguments.write and (device != "cpu" or precision_of_ours() == "float32"):
        options.error(
            "--write is for a CPU that computes bf16; other numbers are kept by hand, in results/speed_*.json"
        )
    usual = 0.25 if device == "cpu" else 1.0
    try:
        config = Config("spatial", width=usual if arguments.width is None else arguments.width)
    except ValueError as error:
        options.error(str(error))
    steps = arguments.steps or (40 if device == "cpu" else 200)  # an epoch has 234

    loops = loops_of(device)
    turns = [loop for _ in range(arguments.rounds) for loop in loops]
    with tempfile.TemporaryDirectory() as nothing_compiled_yet:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = nothing_compiled_yet
        found = [(loop, in_a_process(loop, config, steps, device)) for loop in turns]
    best = {}
    for loop in loops:
        rows = [row for name, row in found if name == loop]
        best[loop] = max(rows, key=lambda row: row["images_per_second"])
        best[loop]["warm_up_seconds"] = max(row["warm_up_seconds"] for row in rows)  # the first one compiles
    precision = precision_of_ours()
    peaks = {"float32": matrix_peak(device, torch.float32)}
    if precision not in peaks:
        peaks[precision] = matrix_peak(device, getattr(torch, precision))
    flop = flop_per_image(config)
    on_mps = " and their GPU" if device == "mps" else ""
    result = {
        "machine": torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores{on_mps}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "width": config.width,
        "steps": steps,
        "batch_size": config.batch_size,
        "gflop_per_image": flop / 1e9,
        "peak_gflops": {name: peak / 1e9 for name, peak in peaks.items()},
        "loops": best,
        "ratio": best["ours"]["images_per_second"] / best["obvious"]["images_per_second"],
    }
    # The other recipes' batches are smaller, which keeps a machine less busy, and they average the weights.
    result["recipes"] = {"plain": best["ours"]["images_per_second"]}
    for recipe in ("fast", "muon"):
        other = Config(config.model, width=config.width, recipe=recipe)
        as_many = steps * config.batch_size // other.batch_size
        speeds = [in_a_process("ours", other, as_many, device)["images_per_second"] for _ in range(arguments.rounds)]
        result["recipes"][recipe] = max(speeds)
    if device == "cpu":
        result["processes"] = two_processes(config)

    table = Table(title=f"spatial model, width {config.width:g}, batches of {config.batch_size}, {result['machine']}")
    for heading in ("loop", "images/s", "warm-up", "peak memory", "share of the peak", "loss, last 20 steps"):
        table.add_column(heading, justify="right")
    for loop, row in best.items():
        peak = peaks[precision if loop in ("ours", "ours, compiled") else "float32"]
        share = row["images_per_second"] * flop / peak
        row["share_of_peak"] = share
        table.add_row(
            loop, f"{row['images_per_second']:.0f}", f"{row['warm_up_seconds']:.0f} s", f"{row['peak_mb']:.0f} MB",
            f"{share:.1%}", f"{row['loss']:.5f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    peak = ", ".join(f"{peak / 1e9:.0f} GFLOP/s in {name}" for name, peak in peaks.items())
    console.print(f"ratio {result['ratio']:.2f}; {flop / 1e9:.3f} GFLOP an image; peak {peak}")
    for count, row in result.get("processes", {}).items():
        speed = f"{row['images_per_second']:.0f} images/s"
        console.print(f"{count} process(es), a thread each: {speed}, loss {row['loss']:.6f}")
    if arguments.write:
        (RESULTS_FOLDER / "speed.json").write_text(json.dumps(result, indent=1) + "\n")
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        PAGE.write_text(f"{before}{MARKS[0]}\n{markdown(result)}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
