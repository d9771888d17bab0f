"""One training loop for every model, on Lightning Fabric.

`train` runs on whatever Fabric finds (cuda, else mps, else cpu); started with `fabric run`, the same code uses
several devices or several machines. Every random draw is a function of (seed, epoch), so that a resumed
run, and a run on two processes, see the very numbers an uninterrupted run on one would.
"""

import copy
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from cvae_support.checkpoints import CheckpointError, differences, load_checkpoint
from cvae_support.config import Config
from cvae_support.cpu import Bf16Convolutions, computes_bf16, keep_freed_memory
from cvae_support.data import TEST_BATCH, Dataset, to_float
from cvae_support.gpu import compile_pays, compiled, on_one_gpu, recorded
from cvae_support.losses import vae_loss
from cvae_support.models import VAE, check_labels, seeded
from cvae_support.muon import Muon
from cvae_support.runs import TrainingError, again, best_device, check_writable, last_good, only_run, save

WARM_UP = 0.1  # share of a "one-cycle" run in which the rate climbs to its peak
ADVICE = "A lower learning rate usually helps"  # against losses that are no longer numbers
PRECISIONS = ("32-true", "bf16-mixed")  # others would need a gradient scaler, or weights and average rounded alike


def learning_rate(step: int, steps: int, config: Config) -> float:
    """The rate at a step: constant, or up and down once (a warm-up, then half a cosine to zero)."""
    if config.schedule == "constant":
        return config.learning_rate
    progress = step / steps
    if progress < WARM_UP:
        return config.learning_rate * (0.04 + 0.96 * progress / WARM_UP)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def epoch_generator(config: Config, epoch: int) -> torch.Generator:
    """The source of an epoch's order and noise. On the CPU, so that every device draws the same."""
    return torch.Generator().manual_seed(config.seed * 100_003 + epoch)


@torch.no_grad()
def test_loss(model: VAE, data: Dataset, fabric: Fabric) -> dict[str, float]:
    """Reconstruction and KL terms over the test set, z sampled with the same noise every time."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    totals = torch.zeros(2, device=fabric.device)
    for batch, start in enumerate(range(0, len(data.test_images), TEST_BATCH)):
        images = data.test_images[start : start + TEST_BATCH]
        eps = torch.randn(model.latent_shape(len(images)), generator=generator)
        if batch % fabric.world_size != fabric.global_rank:
            continue
        x = to_float(images)
        recon, mu, log_var, _ = model(x, data.test_labels[start : start + TEST_BATCH], eps.to(fabric.device))
        totals += len(images) * torch.stack(vae_loss(recon, x, mu, log_var))
    model.train()
    totals = torch.as_tensor(fabric.all_reduce(totals, reduce_op="sum"))
    recon_loss, kl = totals.div(len(data.test_images)).tolist()
    return {"test_recon": recon_loss, "test_kl": kl}


def pack_state(model: VAE, average: VAE | None, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything a run needs to go on, as flat tensors (so that no pickle is needed)."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": t for name, t in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": t for name, t in state.items()}
    return tensors


def unpack_state(tensors: dict[str, Tensor], model: VAE, average: VAE | None, optimizer: torch.optim.Optimizer) -> None:
    """Put what pack_state packed back where it was."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(part("model."))
    if average is not None:
        average.load_state_dict(part("average."))
    parameters = list(model.parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part("optimizer.").items():
        index, field = name.split(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # In the parameter's own memory layout: fused Adam walks through both in step.
            tensor = torch.empty_like(parameter, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def check_start(config: Config, data: Dataset, world_size: int) -> None:
    """Raise TrainingError if this data or this number of processes does not fit the configuration."""
    side = config.image_size
    for split, images, labels in (
        ("training", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (1, side, side):
            raise TrainingError(
                f"the {split} images must be uint8 of shape (N, 1, {side}, {side}), "
                f"got {images.dtype} of shape {tuple(images.shape)}"
            )
        try:
            check_labels(labels.cpu(), config.num_classes)
        except ValueError as error:
            raise TrainingError(f"the {split} labels do not fit: {error}") from error
        if len(images) != len(labels) or not len(images):
            raise TrainingError(f"{len(images)} {split} images and {len(labels)} labels do not go together")
    if config.batch_size % world_size:
        raise TrainingError(
            f"batch_size {config.batch_size} cannot be shared equally by {world_size} processes: choose a multiple"
        )
    if config.batch_size > len(data.train_images):
        raise TrainingError(
            f"batch_size {config.batch_size} is more than the {len(data.train_images)} training images: "
            "choose a smaller --batch-size"
        )


def average_lags(config: Config, data: Dataset) -> str:
    """A warning where the average of the weights reaches over more than a quarter of the run, or nothing."""
    if not config.ema_decay:
        return ""
    reach, steps = 1 / (1 - config.ema_decay), config.epochs * (len(data.train_images) // config.batch_size)
    if reach <= steps / 4:
        return ""
    return (
        f"The average of the weights, which is what is kept, reaches over {reach:.0f} steps, and this run has {steps}: "
        f"it will lag behind. Train longer, or with a smaller --ema-decay (0: no average)."
    )


def precision_of(fabric: Fabric) -> str:
    """What a step is computed in: "32-true", "bf16-mixed" or, on some CPUs, "bf16 convolutions"."""
    return fabric.strategy.precision.precision


def make_fabric() -> Fabric:
    """One device, with bf16 where it has instructions for that; or whatever `fabric run` was told.

    Raises TrainingError if that is a precision which the loop cannot train in.
    """
    if os.environ.get("LT_CLI_USED"):
        fabric = Fabric()
        if precision_of(fabric) not in PRECISIONS:
            raise TrainingError(f"--precision must be {' or '.join(PRECISIONS)}, got {precision_of(fabric)}")
        return fabric
    device = best_device()
    if device == "cpu" and computes_bf16():
        return Fabric(accelerator="cpu", devices=1, plugins=Bf16Convolutions())
    bf16 = device == "cuda" and torch.cuda.get_device_capability() >= (8, 0)
    return Fabric(accelerator=device, devices=1, precision="bf16-mixed" if bf16 else "32-true")


def made_on(fabric: Fabric) -> str:
    """For the record: the device a run was made on, and its precision where that is not float32."""
    device, precision = fabric.device, precision_of(fabric)
    threads = f"{device.type}, {torch.get_num_threads()} thread(s)"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else threads
    return name if precision == "32-true" else f"{name}, {precision}"


def make_model(config: Config, fabric: Fabric) -> tuple[VAE, VAE | None, torch.optim.Optimizer]:
    """The model at its start, on the device; the running average of its weights, if any; and the optimizer."""
    net = seeded(lambda: VAE(config), config.seed)
    # The faster layout for these convolutions on a CPU, and the one an NVIDIA GPU's matrix units want. On Apple's, many
    # versions of torch are slow in it, or fail (pytorch issues 193349 and 140902).
    layout = torch.preserve_format if fabric.device.type == "mps" else torch.channels_last
    net = net.to(fabric.device, memory_format=layout)
    optimizer_class = Muon if config.optimizer == "Muon" else torch.optim.Adam
    optimizer = optimizer_class(
        net.parameters(), lr=config.learning_rate,
        fused=fabric.device.type in ("cpu", "cuda"), capturable=fabric.device.type == "cuda",
    )  # fmt: skip
    average = copy.deepcopy(net).requires_grad_(False) if config.ema_decay else None
    return net, average, optimizer


def check_finite(losses: Tensor, epoch: int, last: Path) -> None:
    """Raise TrainingError, naming the first step that went wrong, unless all losses (steps, 2) are finite."""
    bad = (~losses.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise TrainingError(
            f"the loss is not finite from step {bad[0] + 1} of epoch {epoch} on; {last_good(last)}. {ADVICE}"
        )


def train(config: Config, data: Dataset, folder: Path | str, resume: bool = False) -> list[dict[str, float]]:
    """Train the model of this configuration; returns the history, one dict per epoch.

    After every epoch folder/last.json holds all that is needed to go on, and at the end folder/final.json the
    weights to use. Stopped at any moment, a run loses the epoch it was in; resume=True goes on from there, to the
    same numbers. Raises TrainingError or CheckpointError on input that does not fit, before any weights are written;
    TrainingError also on a loss that is no number and on a checkpoint that can't be written, with the last one kept.
    """
    folder = Path(folder)
    fabric = make_fabric()
    if fabric.device.type == "cpu":
        keep_freed_memory()
    check_start(config, data, fabric.world_size)
    last, here = folder / "last.json", made_on(fabric)
    if not last.is_file() and (folder / "final.json").is_file():
        raise TrainingError(f"{folder} holds a finished run: choose another folder, or delete it to start over")
    if resume and not last.is_file():
        raise CheckpointError(
            f"no checkpoint at {last}: leave out --resume, or give the options (or the --folder) the run was begun with"
        )
    check_writable(folder)
    with only_run(folder) if fabric.is_global_zero else nullcontext():
        fabric.barrier()  # no process looks at what lies there before the first has it to itself
        if not resume and last.is_file():
            raise TrainingError(
                f"{folder} already holds a run: resume it (--resume), or delete the folder to start over"
            )
        net, average, optimizer = make_model(config, fabric)
        history: list[dict[str, float]] = []
        if resume:
            tensors, record = load_checkpoint(last)
            if differing := differences(record, config, data.checksum):
                raise CheckpointError(
                    f"{last} cannot be resumed: {'; '.join(differing)}. "
                    "Give the options the run was begun with, or another --folder"
                )
            try:
                unpack_state(tensors, net, average, optimizer)
            except (RuntimeError, ValueError, KeyError, IndexError) as error:
                raise CheckpointError(
                    f"{last} cannot be resumed, its tensors are not those of a run: {error}"
                ) from error
            history, before = record["history"], record.get("made_on", here)
            if len(history) == config.epochs or before.endswith(here):
                here = before
            else:
                if fabric.is_global_zero:
                    print(f"Begun on {before}, continued on {here}: from here on it rounds differently.")
                here = f"{before}; from epoch {len(history) + 1} on {here}"
        run_epochs(config, data, folder, fabric, net, average, optimizer, history, here)
    return history


def run_epochs(
    config: Config,
    data: Dataset,
    folder: Path,
    fabric: Fabric,
    net: VAE,
    average: VAE | None,
    optimizer: torch.optim.Optimizer,
    history: list[dict[str, float]],
    where: str,
) -> None:
    """Train from where history ends to the last epoch, add a row to it for each, and write the checkpoints."""
    last = folder / "last.json"
    model, optimizer = fabric.setup(compiled(net) if compile_pays(config, data, fabric) else net, optimizer)
    data = data.to(fabric.device)
    step = make_step(config, data, fabric, model, optimizer, average)
    best = average if average is not None else net  # the weights that are tested and kept
    usual, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True  # try which kernels are fastest
    if fabric.is_global_zero and len(history) < config.epochs and (warning := average_lags(config, data)):
        print(warning)
    try:
        with progress_bar(fabric) as progress:
            for epoch in range(len(history) + 1, config.epochs + 1):
                start = time.perf_counter()
                losses = train_epoch(config, data, epoch, fabric, step, progress)
                check_finite(losses, epoch, last)
                recon, kl = losses.mean(dim=0).tolist()
                seconds = time.perf_counter() - start
                tested = test_loss(best, data, fabric)
                if not all(map(math.isfinite, tested.values())):  # the last step's weights, which no loss has seen yet
                    raise TrainingError(f"after epoch {epoch} the test loss is not finite; {last_good(last)}. {ADVICE}")
                row = {"epoch": epoch, "train_recon": recon, "train_kl": kl, **tested}
                row |= {"seconds": seconds, "images_per_second": len(losses) * config.batch_size / seconds}
                history.append(row)
                if fabric.is_global_zero:
                    save(last, pack_state(net, average, optimizer), config, data, history, where)
                    progress.console.print(
                        f"epoch {epoch}/{config.epochs}: train recon {recon:.5f} kl {kl:.4f}, "
                        f"test recon {row['test_recon']:.5f} kl {row['test_kl']:.4f}, "
                        f"{row['images_per_second']:.0f} images/s",
                        soft_wrap=True,
                    )
        if fabric.is_global_zero:
            save(folder / "final.json", best.state_dict(), config, data, history, where)
            print(f"weights: {folder / 'final.json'}")
    except KeyboardInterrupt:  # said when the progress bar is closed, which would draw over it
        if fabric.is_global_zero:
            print(f"Stopped; {last_good(last)}: {again(last)}.")
        raise
    finally:
        torch.backends.cudnn.benchmark = usual
    fabric.barrier()


def progress_bar(fabric: Fabric) -> Progress:
    """Epoch, loss terms, images per second and time left; on the first process only."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
        transient=True, disable=not fabric.is_global_zero,
    )  # fmt: skip


def make_step(
    config: Config, data: Dataset, fabric: Fabric, model, optimizer, average: VAE | None
) -> Callable[..., Tensor]:
    """What train_epoch calls for every batch: step(index (B,), noise (B, 1, S/4, S/4), rate) -> recon and kl, (2,).

    The data are on the device, and the model and the optimizer are as fabric.setup returns them.
    """
    begun = bool(optimizer.state)  # a resumed run has

    def step(index: Tensor, noise: Tensor, rate: float | Tensor) -> Tensor:
        nonlocal begun
        for group in optimizer.param_groups:
            group["lr"] = rate
        x = to_float(data.train_images[index])
        recon, mu, log_var, _ = model(x, data.train_labels[index], noise)
        recon_loss, kl = vae_loss(recon, x, mu, log_var)
        fabric.backward(recon_loss + config.kl_weight * kl)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:  # torch's AveragedModel gives the same, but makes a GPU wait at every step
            new = 1 - config.ema_decay if begun else 1.0  # it begins with the first step's weights
            torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in model.parameters()], new)
            for kept, latest in zip(average.buffers(), model.buffers(), strict=True):  # a peer's batch norms
                kept.copy_(latest)
        begun = True
        return torch.stack([recon_loss.detach(), kl.detach()])

    return recorded(step) if on_one_gpu(fabric) else step


def train_epoch(
    config: Config, data: Dataset, epoch: int, fabric: Fabric, step: Callable[..., Tensor], progress: Progress
) -> Tensor:
    """One pass over the training set in random order; returns (steps, 2), recon and kl of every step.

    All that the steps need is on the device before the first of them, so that none has to wait.
    """
    start = time.perf_counter()
    generator, batch = epoch_generator(config, epoch), config.batch_size
    steps = len(data.train_images) // batch  # a last, smaller batch is left out; it is another one every epoch
    order = torch.randperm(len(data.train_images), generator=generator)[: steps * batch].view(steps, batch)
    latent = (batch, 1, config.latent_size, config.latent_size)
    noise = torch.empty(steps, *latent)
    for part in noise:  # batch by batch: one large draw gives other numbers
        torch.randn(latent, generator=generator, out=part)
    # All of a batch is drawn everywhere and shared out, so that the number of processes changes nothing.
    share = slice(fabric.global_rank, None, fabric.world_size)
    order, noise = (drawn[:, share].to(fabric.device) for drawn in (order, noise))
    rates: list[float] | Tensor = [
        learning_rate((epoch - 1) * steps + done, config.epochs * steps, config) for done in range(steps)
    ]
    if fabric.device.type == "cuda":
        rates = torch.tensor(rates, device=fabric.device)  # a recorded step reads its rate where it lies
    losses = torch.empty(steps, 2, device=fabric.device)
    task = progress.add_task(f"epoch {epoch}/{config.epochs}", total=steps, speed="")
    for done in range(steps):
        losses[done] = step(order[done], noise[done], rates[done])  # kept on the device: no waiting in the loop
        speed = (done + 1) * batch / (time.perf_counter() - start)
        progress.update(task, advance=1, speed=f"{speed:.0f} images/s")
    progress.remove_task(task)
    return torch.as_tensor(fabric.all_reduce(losses, reduce_op="mean"))
