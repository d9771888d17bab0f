"""Training: what interrupts it costs at most an epoch, and neither that nor more processes change a number."""

import json
import math
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from statistics import median, stdev
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from cvae_support import gpu, runs, study, training
from cvae_support.checkpoints import (
    CheckpointError,
    load_checkpoint,
    load_model,
    load_record,
)
from cvae_support.config import MODELS, RECIPES, Config
from cvae_support.models import VAE
from cvae_support.runs import best_device
from cvae_support.training import TrainingError, learning_rate, train

ROOT = Path(__file__).resolve().parents[1]
LOSSES = ("train_recon", "train_kl", "test_recon", "test_kl")


def losses(history):
    return [[row[name] for name in LOSSES] for row in history]


@pytest.mark.parametrize(
    ("model", "recipe"),
    [*((model, "plain") for model in MODELS), *product(("unconditional", "spatial", "adaln"), ("fast", "muon"))],
)
def test_every_model_learns_and_by_every_recipe(few, config, tmp_path, model, recipe):
    width = 1 if model == "mlp" else 0.125
    history = train(config(model, recipe=recipe, width=width, epochs=5), few, tmp_path)
    assert len(history) == 5
    assert history[-1]["train_recon"] < 0.9 * history[0]["train_recon"]
    assert all(row["images_per_second"] > 0 for row in history)


@pytest.mark.parametrize(("recipe", "bf16"), [*((recipe, False) for recipe in RECIPES), ("muon", True)])
def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(
    few, config, tmp_path, monkeypatch, stop_in_epoch_two, recipe, bf16
):
    monkeypatch.setattr(training, "computes_bf16", lambda: bf16)
    wanted = config("adaln", recipe=recipe, epochs=3)
    whole = train(wanted, few, tmp_path / "whole")

    stop_in_epoch_two()
    with pytest.raises(KeyboardInterrupt):
        train(wanted, few, tmp_path / "stopped")
    monkeypatch.undo()
    monkeypatch.setattr(training, "computes_bf16", lambda: bf16)
    resumed = train(wanted, few, tmp_path / "stopped", resume=True)

    assert losses(resumed) == losses(whole)
    made_on = load_record(tmp_path / "whole" / "final.json")["made_on"]
    assert made_on.endswith("bf16 convolutions" if bf16 else "thread(s)")
    first, second = (load_model(tmp_path / name / "final.json")[0].state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("model", ["adaln", "label-channel"])
def test_the_running_average_is_torchs_own(few, config, model):
    """To the last digit, batch norms' statistics too; but ours reads no number back from the device."""
    wanted = config(model, recipe="fast", ema_decay=0.9, width=0.25)
    fabric = training.make_fabric()
    net, average, optimizer = training.make_model(wanted, fabric)
    theirs = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    model, optimizer = fabric.setup(net, optimizer)
    optimizer.register_step_post_hook(lambda *_: theirs.update_parameters(net))
    step = training.make_step(wanted, few, fabric, model, optimizer, average)
    for epoch in (1, 2):
        training.train_epoch(wanted, few, epoch, fabric, step, training.progress_bar(fabric))
    ours, others = average.state_dict(), theirs.module.state_dict()
    assert list(ours) == list(others) and all(torch.equal(ours[name], others[name]) for name in ours)


class Copies(TorchDispatchMode):
    """Counts the copies from the CPU to another device that it waits for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default and args[0].device != made.device:
            self.count += not (kwargs or {}).get("non_blocking")
        return made


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("model", ["spatial", "adaln"])
def test_nothing_waits_for_the_device_within_an_epoch(few, config, model, recipe):
    """On tensors without contents: reading one, as waiting for a GPU does, is an error; copies there are counted."""
    fabric = SimpleNamespace(
        device=torch.device("meta"), global_rank=0, world_size=1, is_global_zero=False,
        backward=lambda loss: loss.backward(), all_reduce=lambda losses, reduce_op: losses,
    )  # fmt: skip
    waits = []
    for images in (64, 160):
        wanted = config(model, recipe=recipe)
        net, average, optimizer = training.make_model(wanted, fabric)
        data = few.first(images, 1).to("meta")
        with Copies() as copies:
            step = training.make_step(wanted, data, fabric, net, optimizer, average)
            losses = training.train_epoch(wanted, data, 1, fabric, step, training.progress_bar(fabric))
        assert losses.shape == (images // wanted.batch_size, 2) and losses.is_meta
        waits.append(copies.count)
    assert waits[0] == waits[1] <= 2  # the order of the images and the noise, once


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_a_precision_that_the_loop_cannot_train_in_is_refused(monkeypatch, precision):
    monkeypatch.setenv("LT_CLI_USED", "1")
    told = Fabric(accelerator="cpu", precision=precision)
    monkeypatch.setattr(training, "Fabric", lambda: told)
    if precision in training.PRECISIONS:
        assert training.made_on(training.make_fabric()).endswith({"32-true": "thread(s)"}.get(precision, precision))
    else:
        with pytest.raises(TrainingError, match=f"must be 32-true or bf16-mixed, got {precision}"):
            training.make_fabric()


@pytest.mark.parametrize(
    ("cuda", "mps", "wanted"),
    [(True, False, "cuda"), (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_device_is_chosen_as_the_page_chooses_it(monkeypatch, cuda, mps, wanted):
    monkeypatch.delenv("LT_CLI_USED", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(training, "computes_bf16", lambda: wanted != "cpu")  # which a GPU's host may, too
    monkeypatch.setattr(training, "Fabric", lambda **options: options)
    assert training.make_fabric() == {"accelerator": wanted, "devices": 1, "precision": "32-true"}
    page = (ROOT / "posts/class_conditional_vae/class_conditional_vae.qmd").read_text(encoding="utf-8")
    expression = re.search(r"^device = (.+)$", page, re.MULTILINE)[1]
    assert eval(expression, {"torch": torch, "best_device": best_device}) == wanted


def test_kill_9_loses_at_most_the_epoch_it_was_in(few, config, tmp_path):
    wanted = config(epochs=200)
    script = (
        "from pathlib import Path\n"
        "from cvae_support.config import Config\n"
        "from cvae_support.data import load_fashion_mnist\n"
        "from cvae_support.training import train\n"
        f"train({wanted!r}, load_fashion_mnist().first(160, 64), Path({str(tmp_path / 'run')!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    last = tmp_path / "run" / "last.json"
    deadline = time.time() + 120
    while not (last.is_file() and len(json.loads(last.read_text())["history"]) >= 2):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    _, record = load_checkpoint(last)  # whole and verified, wherever the kill fell
    kept = len(record["history"])
    assert kept >= 2
    assert [row["epoch"] for row in record["history"]] == list(range(1, kept + 1))
    net = VAE(wanted)
    training.unpack_state(load_checkpoint(last)[0], net, None, torch.optim.Adam(net.parameters()))  # as --resume does


def test_two_processes_give_the_loss_of_one(data, config, tmp_path, monkeypatch):
    """The run through `fabric run` with two CPU processes, batch shared between them, and the same without."""
    flags = ["--model=adaln", "--width=0.125", "--epochs=2", "--batch-size=32", "--images=160", "--learning-rate=0.001"]
    main = Path(training.__file__).with_name("__main__.py")
    fabric = Path(sys.executable).with_name("fabric")
    done = subprocess.run(
        [fabric, "run", "--accelerator=cpu", "--devices=2", main, "train", *flags, f"--folder={tmp_path / 'two'}"],
        capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    record = load_record(tmp_path / "two" / "final.json")
    monkeypatch.setattr(training, "computes_bf16", lambda: False)  # as Fabric, which was told of no precision
    wanted = config("adaln", learning_rate=0.001)
    assert record["fingerprint"] == wanted.fingerprint
    one, two = train(wanted, data.first(160, 26), tmp_path / "one"), record["history"]
    assert len(one) == 2
    # The sums are taken in another order, so equal up to rounding, which two epochs barely amplify.
    torch.testing.assert_close(torch.tensor(losses(two)), torch.tensor(losses(one)), rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_numbers_whatever_was_drawn_before(few, config, tmp_path):
    first = train(config(epochs=1), few, tmp_path / "a")
    torch.manual_seed(999)
    state = torch.get_rng_state()
    second = train(config(epochs=1), few, tmp_path / "b")
    assert losses(first) == losses(second)
    assert torch.equal(torch.get_rng_state(), state)  # and training leaves the global generator alone


def test_learning_rates(config):
    plain, fast = config(learning_rate=1e-3), config(recipe="fast", learning_rate=3e-3)
    assert {learning_rate(step, 100, plain) for step in range(100)} == {1e-3}
    rates = [learning_rate(step, 100, fast) for step in range(100)]
    assert max(rates) == pytest.approx(3e-3) and rates.index(max(rates)) == 10
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] < 2e-4 and rates[-1] < 1e-5


def test_a_run_is_never_overwritten_by_mistake(few, config, tmp_path):
    train(config(epochs=1), few, tmp_path)
    with pytest.raises(TrainingError, match="already holds a run"):
        train(config(epochs=1), few, tmp_path)
    with pytest.raises(CheckpointError, match="epochs is 1 there, 2 asked for"):
        train(config(epochs=2), few, tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="other data"):
        train(config(epochs=1), few.first(96, 32), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train(config(epochs=1), few, tmp_path / "nothing-here", resume=True)
    (tmp_path / "last.json").unlink()  # the weights to use are there all the same
    for resume in (False, True):
        with pytest.raises(TrainingError, match="holds a finished run: choose another folder, or delete it"):
            train(config(epochs=1), few, tmp_path, resume)


def test_an_average_that_reaches_over_most_of_the_run_is_warned_of(few, config, tmp_path, capsys):
    steps = 160 // config().batch_size
    for decay, warned in ((0.998, True), (0.0, False), (1 - 4 / steps, False)):
        train(config(epochs=1, ema_decay=decay), few, tmp_path / str(decay))
        assert ("it will lag behind" in capsys.readouterr().out) == warned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(train_images=torch.zeros(160, 1, 28, 27, dtype=torch.uint8)), "training images must be uint8"),
        (dict(train_images=torch.zeros(160, 1, 28, 28)), "got torch.float32"),
        (dict(test_labels=torch.full((64,), 10)), r"test labels do not fit: y must lie in 0 \.\. 9, got 10"),
        (
            dict(test_labels=torch.zeros(64, dtype=torch.int16)),
            "test labels do not fit: .* int64 or int32, got torch.int16",
        ),
        (
            dict(train_labels=torch.zeros(160, 10, dtype=torch.int64)),
            r"training labels .* int64 or int32, got .* shape \(160, 10\)",
        ),
        (dict(train_labels=torch.zeros(159, dtype=torch.int64)), "160 training images and 159 labels"),
    ],
)
def test_data_that_does_not_fit_is_refused_before_anything_is_written(few, config, tmp_path, change, message):
    from dataclasses import replace

    with pytest.raises(TrainingError, match=message):
        train(config(), replace(few, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_and_names_the_step_and_the_last_good_epoch(few, config, tmp_path, monkeypatch):
    loss = training.vae_loss
    calls = iter(range(1000))

    def poisoned(recon, x, mu, log_var):
        recon_loss, kl = loss(recon, x, mu, log_var)
        # Five training steps and one test batch an epoch: the ninth call is step 3 of epoch 2.
        return (recon_loss * float("nan") if next(calls) == 8 else recon_loss), kl

    monkeypatch.setattr(training, "vae_loss", poisoned)
    with pytest.raises(TrainingError, match="not finite from step 3 of epoch 2 on; .*last.json, is of epoch 1"):
        train(config(epochs=3), few, tmp_path)
    assert len(load_checkpoint(tmp_path / "last.json")[1]["history"]) == 1

    monkeypatch.undo()
    resumed = train(config(epochs=3), few, tmp_path, resume=True)  # and nothing of it is left behind
    assert losses(resumed) == losses(train(config(epochs=3), few, tmp_path / "whole"))


def test_a_last_step_that_ruins_the_weights_does_not_replace_a_good_checkpoint(few, config, tmp_path, monkeypatch):
    """No training loss has seen those weights; the test loss has."""
    tested = training.test_loss
    calls = iter(range(1000))
    monkeypatch.setattr(
        training, "test_loss", lambda *args: tested(*args) | ({"test_kl": math.inf} if next(calls) == 1 else {})
    )
    with pytest.raises(TrainingError, match="after epoch 2 the test loss is not finite; .*last.json, is of epoch 1"):
        train(config(epochs=2), few, tmp_path)
    assert len(load_checkpoint(tmp_path / "last.json")[1]["history"]) == 1
    assert not (tmp_path / "final.json").exists()


@pytest.mark.parametrize(
    ("stopped_in", "advice"), [(1, "start again"), (2, "run it again to go on (the command train: with --resume)")]
)
def test_what_is_advised_after_an_interruption_is_possible(
    few, config, tmp_path, monkeypatch, capsys, stopped_in, advice
):
    run_epoch = training.train_epoch

    def interrupted(config, data, epoch, *rest):
        if epoch == stopped_in:
            raise KeyboardInterrupt
        return run_epoch(config, data, epoch, *rest)

    monkeypatch.setattr(training, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config(epochs=2), few, tmp_path)
    assert capsys.readouterr().out.endswith(f": {advice}.\n")
    monkeypatch.undo()
    assert len(train(config(epochs=2), few, tmp_path, resume="--resume" in advice)) == 2


def test_a_folder_that_cannot_be_written_any_more_is_not_told_to_be_full(few, config, tmp_path, monkeypatch):
    """Root may write everything, so the refusal is played."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(runs, "save_checkpoint", refuse)
    with pytest.raises(TrainingError, match="epoch 1 could not be saved: .*Permission denied.*Make it writable and"):
        train(config(epochs=1), few, tmp_path / "run")


def test_a_full_disk_stops_with_the_older_checkpoint_whole(few, config, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="limits of this kind are POSIX")
    run_epoch, limit = training.train_epoch, resource.getrlimit(resource.RLIMIT_FSIZE)

    def full_in_epoch_two(config, data, epoch, *rest):
        if epoch == 2:  # from here on no file can grow beyond a thousand bytes
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        return run_epoch(config, data, epoch, *rest)

    monkeypatch.setattr(training, "train_epoch", full_in_epoch_two)
    try:
        with pytest.raises(TrainingError, match="epoch 2 could not be saved: .* is of epoch 1. Make room"):
            train(config(epochs=3), few, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob("*.partial"))
    (tmp_path / "run" / "last.json.123.partial").touch()  # a run that is killed while it saves leaves such a file
    (tmp_path / "run" / "movie.partial").touch()  # and this is none of ours
    resumed = train(config(epochs=3), few, tmp_path / "run", resume=True)
    assert losses(resumed) == losses(train(config(epochs=3), few, tmp_path / "whole"))
    assert [path.name for path in (tmp_path / "run").glob("*.partial")] == ["movie.partial"]


def test_a_folder_that_cannot_be_written_is_refused_before_training(few, config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(training, "train_epoch", lambda *_: pytest.fail("trained"))
    with pytest.raises(TrainingError, match="no checkpoint can be written in .*file.*Choose another place: --folder"):
        train(config(), few, tmp_path / "file" / "run")


def test_our_loop_agrees_with_the_obvious_one(data, config, script, monkeypatch):
    """The loops of the benchmark, for 200 steps of the same batches and noise: closer than two seeds are, by far."""
    monkeypatch.setattr(training, "computes_bf16", lambda: True)
    benchmark = script("benchmarks/training.py")
    first, second = config(batch_size=16, learning_rate=1e-3), config(batch_size=16, learning_rate=1e-3, seed=43)
    few = data.first(200 * 16, 1)
    obvious, other_seed, in_float32, in_bf16 = (
        torch.tensor(benchmark.LOOPS[loop](settings, few, "cpu")(200))
        for loop, settings in (
            ("obvious", first), ("obvious", second), ("ours, all in float32", first), ("ours", first),
        )
    )  # fmt: skip
    assert in_float32.shape == in_bf16.shape == obvious.shape == (200, 2)
    assert obvious[-50:, 0].mean() < 0.4 * obvious[:5, 0].mean()  # it does learn
    spread = (obvious - other_seed)[-50:].abs().mean(dim=0)
    assert ((in_float32 - obvious).abs().mean(dim=0) < 0.01 * spread).all()
    apart = (in_bf16 - obvious).abs().mean(dim=0)
    assert (apart > 0.01 * spread).all() and (apart < 0.3 * spread).all()


def test_the_obvious_loop_makes_its_loader_once(few, config, script, monkeypatch):
    """So that a GPU's benchmark, which has it load with workers, does not count their start as training."""
    benchmark = script("benchmarks/training.py")
    loaders = []

    class Loader(benchmark.DataLoader):
        def __init__(self, *arguments, **options):
            loaders.append(options)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(benchmark, "DataLoader", Loader)
    run = benchmark.obvious_loop(config(batch_size=32), few, "cpu")
    assert len(run(1)) == 1 and len(run(3)) == 3 and len(run(10_000)) == len(few.train_images) // 32
    assert len(loaders) == 1


@pytest.mark.parametrize("platform", [sys.platform, "win32"])
def test_the_benchmark_measures_on_any_system(script, config, data, monkeypatch, platform):
    if platform == "win32":
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails, as there
    benchmark = script("benchmarks/training.py")
    monkeypatch.setattr(benchmark, "load_fashion_mnist", lambda: data)
    measured = benchmark.measure("ours", config(), 2, "cpu")
    assert measured["images_per_second"] > 0 and (measured["peak_mb"] > 0) == (platform != "win32")


def test_the_benchmark_counts_the_images_that_were_there(script, config, few, monkeypatch):
    benchmark = script("benchmarks/training.py")
    monkeypatch.setattr(benchmark, "load_fashion_mnist", lambda: few)
    clock = iter([0.0, 1.0, 1.0, 2.0])  # start and end of warm-up and of what is measured
    monkeypatch.setitem(
        benchmark.LOOPS,
        "still",
        lambda config, data, device: lambda steps: [(0.0, 0.0)] * min(steps, len(data.train_images) // 32),
    )
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    assert benchmark.measure("still", config(), 1000, "cpu")["images_per_second"] == len(few.train_images)


def test_the_speeds_in_the_text_are_those_that_were_measured(script):
    benchmark = script("benchmarks/training.py")
    measured = json.loads((benchmark.RESULTS_FOLDER / "speed.json").read_text())
    assert benchmark.markdown(measured) in benchmark.PAGE.read_text(encoding="utf-8"), "run with --write"
    assert measured["ratio"] > 1.3  # 'times as fast as the obvious loop'


def test_what_bf16_on_a_cpu_gives_and_costs_is_what_was_measured(script):
    benchmark = script("benchmarks/training.py")
    measured = json.loads((benchmark.RESULTS_FOLDER / "speed_bf16.json").read_text())
    text = " ".join(benchmark.PAGE.read_text(encoding="utf-8").split())
    speeds = measured["full_width_images_per_second"]
    assert "the three loops make {}, {} and {} images/s".format(*speeds.values()) in text
    assert f"ours is {speeds['ours'] / speeds['obvious']:.2f} times as fast as the obvious one" in text
    spread = []
    for arm, ends in measured["test_loss_after_one_epoch"].items():
        twins = {seed: study.curve(study.read("study"), arm, int(seed))[0] for seed in ends}
        assert max(abs(ends[seed] - twins[seed]) for seed in ends) < 0.0001
        spread.append(f"{stdev(twins.values()):.5f}")
    assert "(their standard deviation: {} and {})".format(*spread) in text


def test_the_speeds_on_a_gpu_are_those_that_were_measured(script):
    benchmark = script("benchmarks/training.py")
    measured = json.loads((benchmark.RESULTS_FOLDER / "speed_gpu.json").read_text())
    text = " ".join(benchmark.PAGE.read_text(encoding="utf-8").split())
    runs = {(run["arm"], run["seed"]): run["history"] for run in study.read("study")}
    flop = measured["gflop_per_image"]
    assert {round(benchmark.flop_per_image(Config(model)) / 1e9, 2) for model in ("spatial", "adaln")} == {flop}
    assert f"({flop} GFLOP an image), one round of 200 steps" in text and f"At {flop} GFLOP an image as well" in text
    alone = measured["NVIDIA H200"]
    loops, speed, peak, loss = (alone["peak_mb"], *(alone[k] for k in ("images_per_second", "peak_tflops", "loss")))
    assert (alone["rounds"], alone["steps"]) == (1, 200)
    for loop, memory in loops.items():
        share = speed[loop] * flop / 1000 / peak[loop]
        assert f"| {loop} | {speed[loop]:.0f} | {share:.1%} | {memory:.0f} MB | {loss[loop]:.4f} |" in text
    said = "The peak is {:.0f} TFLOP/s for the first row (in TF32, as a GPU convolves float32), {:.0f} in bfloat16"
    assert said.format(*peak.values()) in text
    assert f"Ours is {speed['ours'] / speed['obvious']:.2f} times as fast." in text
    first = [runs["spatial, plain, full width", seed][0] for seed in study.SEEDS]
    first = [row["train_recon"] + 0.01 * row["train_kl"] for row in first]
    assert f"differ by {loss['obvious'] / loss['ours'] - 1:.0%}, and by {max(first) / min(first) - 1:.0%} from" in text
    late = [row["images_per_second"] for row in runs["adaLN, plain, full width", 44][-14:]]
    before = [row["images_per_second"] for row in runs["adaLN, plain, full width", 44][:-14]]
    assert 2 * median(before) < min(late) > max(before) and max(late) < 1.01 * min(late)  # the others had ended
    late = median(late)
    assert late > 3 * speed["obvious"] and f"made {late:,.0f} images/s: {late / speed['obvious']:.2f} times" in text
    assert f"loop, {late * flop / 1000:.0f} TFLOP/s, {late * flop / 1000 / peak['ours']:.0%} of the peak" in text
    speeds = measured["NVIDIA H100 80GB HBM3"]["images_per_second"]
    compiled = speeds["ours, compiled"]
    said = f"{compiled:,.0f} images/s, {compiled * flop / 1000:.0f} TFLOP/s, instead of {speeds['ours']:,.0f}."
    assert f"(best of two rounds of 200 and 150 steps): {said}" in text
    saved = 1000 * measured["batch_size"] * (1 / speeds["ours"] - 1 / speeds["ours, compiled"])  # ms a step
    assert f"saves {saved:.1f} ms a step: it pays from some {gpu.COMPILED_FROM // 1_000_000} million" in text
    assert gpu.COMPILED_FROM > 60_000 / (saved / measured["batch_size"])  # a minute
    first = [runs[arm, 42] for arm in study.FULL_WIDTH]
    for history in first:
        assert 7500 < history[-1]["images_per_second"] < 8600  # 'some 8000 images/s each'
        assert 130 < sum(row["seconds"] for row in history) < 170  # 'about two and a half minutes'
    plain = ["spatial, plain, full width", "adaLN, plain, full width"]
    at_once = [*((arm, 42) for arm in plain), ("spatial, full width", 43), ("adaLN, full width", 43)]
    together = sum(median(row["images_per_second"] for row in runs[run]) for run in at_once)
    assert f"some {round(together, -2):,.0f} images/s together: about 14,000 each by `plain`, which took 8 to 9" in text
    assert "8 to 9 minutes for its 100 epochs, and 4,000 to 5,000 by `muon`" in text
    assert all(8 < sum(row["seconds"] for row in runs[arm, 42]) / 60 < 9 for arm in plain)
    apiece = [median(row["images_per_second"] for row in runs[run]) for run in at_once]
    assert all(13_000 < speed < 15_000 for speed in apiece[:2]) and all(4000 < speed < 5000 for speed in apiece[2:])
    later = [runs[plain[0], 43], runs[plain[0], 44], runs[plain[1], 43]]
    together = sum(median(row["images_per_second"] for row in run) for run in later)
    said = f"Three more runs of `plain`, at once on an H200, made some {round(together, -2):,.0f} images/s together:"
    assert f"{said} {together * flop / 1000:.0f} TFLOP/s." in text
    unlabelled = [runs[f"unconditional{weight}, plain, full width", 42] for weight in ("", ", weight 0.0005")]
    last = [runs[plain[1], 44], *unlabelled]
    assert all(9 < sum(row["seconds"] for row in run) / 60 < 10 for run in last)  # '`plain` took 9 to 10 minutes'


@pytest.mark.parametrize(("device", "bf16"), [("cuda", True), ("cpu", False)])
def test_other_speeds_do_not_replace_those_of_the_text(script, monkeypatch, capsys, device, bf16):
    benchmark = script("benchmarks/training.py")
    monkeypatch.setattr(benchmark, "best_device", lambda: device)
    monkeypatch.setattr(training, "computes_bf16", lambda: bf16)
    monkeypatch.setattr(sys, "argv", ["training.py", "--write"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "--write is for a CPU that computes bf16" in capsys.readouterr().err


@pytest.mark.parametrize("bf16", [True, False])
def test_both_arithmetics_of_a_cpu_are_timed_where_it_has_them(script, config, few, monkeypatch, bf16):
    benchmark, seen = script("benchmarks/training.py"), []
    monkeypatch.setattr(training, "computes_bf16", lambda: bf16)
    monkeypatch.setattr(
        training, "make_step", lambda config, data, fabric, *_: seen.append(training.precision_of(fabric))
    )
    for loop in benchmark.loops_of("cpu")[1:]:
        benchmark.LOOPS[loop](config(), few, "cpu")
    assert seen == (["32-true", "bf16 convolutions"] if bf16 else ["32-true"])


def test_a_run_continued_in_another_arithmetic_says_so(few, config, tmp_path, monkeypatch, capsys, stop_in_epoch_two):
    monkeypatch.setattr(training, "computes_bf16", lambda: False)
    stop_in_epoch_two()
    with pytest.raises(KeyboardInterrupt):
        train(config(epochs=2), few, tmp_path)
    monkeypatch.undo()
    for bf16, said in ((True, True), (False, False)):
        monkeypatch.setattr(training, "computes_bf16", lambda bf16=bf16: bf16)
        with monkeypatch.context() as nothing_done:
            nothing_done.setattr(training, "run_epochs", lambda *_: None)
            train(config(epochs=2), few, tmp_path, resume=True)
        assert ("bf16 convolutions: from here on it rounds differently" in capsys.readouterr().out) == said
    begun = load_record(tmp_path / "last.json")["made_on"]
    for machine in ("another machine", "a third"):  # where there is nothing left to do
        monkeypatch.setattr(training, "made_on", lambda _, machine=machine: machine)
        train(config(epochs=2), few, tmp_path, resume=True)
        assert load_record(tmp_path / "final.json")["made_on"] == f"{begun}; from epoch 2 on another machine"


def test_a_run_remembers_where_it_began_however_often_it_is_continued(few, config, tmp_path, monkeypatch):
    run_epoch = training.train_epoch
    for machine, stops_in in (("one machine", 2), ("another", 3), ("another", None)):

        def stopped(config, data, epoch, *rest, stops_in=stops_in):
            if epoch == stops_in:
                raise KeyboardInterrupt
            return run_epoch(config, data, epoch, *rest)

        monkeypatch.setattr(training, "made_on", lambda _, machine=machine: machine)
        monkeypatch.setattr(training, "train_epoch", stopped)
        with pytest.raises(KeyboardInterrupt) if stops_in else nullcontext():
            train(config(epochs=3), few, tmp_path, resume=stops_in != 2)
    assert load_record(tmp_path / "final.json")["made_on"] == "one machine; from epoch 2 on another"


def test_only_long_runs_on_one_gpu_are_compiled(data):
    """The 100 epochs of plain, not the 20 of muon."""
    for recipe, device, world_size, wanted in (
        ("plain", "cuda", 1, True), ("muon", "cuda", 1, False), ("plain", "cuda", 2, False), ("plain", "cpu", 1, False),
    ):  # fmt: skip
        fabric = SimpleNamespace(device=torch.device(device), world_size=world_size)
        assert gpu.compile_pays(Config(recipe=recipe), data, fabric) == wanted


def test_a_recorded_step_is_taken_once_for_every_call(monkeypatch):
    """On a CPU, with a stand-in for CUDA: three ordinary steps, then one that is recorded (not run) and replayed."""
    taken, recording = [], []

    class Event:
        synchronize = record = staticmethod(lambda: None)

    class Graph:
        def replay(self):
            taken.append([value.item() for value in self.held])
            self.result.fill_(sum(taken[-1]))

    @contextmanager
    def record(graph):
        recording.append(graph)
        yield
        recording.pop()

    def step(*inputs):
        result = torch.zeros(())
        if recording:
            recording[0].held, recording[0].result = inputs, result
        else:
            taken.append([value.item() for value in inputs])
            result += sum(inputs)
        return result

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in {
        "CUDAGraph": Graph, "graph": record, "Stream": lambda: stream, "current_stream": lambda: stream,
        "stream": lambda _: nullcontext(), "Event": Event,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    replayed = gpu.recorded(step)
    calls = [[float(call), 0.5] for call in range(6)]
    results = [replayed(*map(torch.tensor, call)).item() for call in calls]
    assert taken == calls and results == [sum(call) for call in calls]


def test_where_nothing_can_be_compiled_it_goes_on_and_says_so(config, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("Cannot find a working triton installation\nmore of it")

    net = VAE(config())
    monkeypatch.setattr(torch, "compile", lambda function: fails)
    assert gpu.compiled(net) is net
    assert capsys.readouterr().out.rstrip().endswith("does not work here: Cannot find a working triton installation")
    monkeypatch.setattr(torch, "compile", lambda function: function)
    assert gpu.compiled(net) is net and capsys.readouterr().out == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA_VISIBLE_DEVICES=0 pytest -k on_a_gpu")
@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("model", ["adaln", "mlp", "label-channel"])
def test_on_a_gpu_recorded_steps_give_the_numbers_of_ordinary_ones(few, config, tmp_path, monkeypatch, model, recipe):
    wanted = config(model, recipe=recipe, epochs=2, width=1)
    recorded = train(wanted, few, tmp_path / "recorded")
    monkeypatch.setattr(training, "recorded", lambda step: step)
    ordinary = train(wanted, few, tmp_path / "ordinary")
    torch.testing.assert_close(torch.tensor(losses(recorded)), torch.tensor(losses(ordinary)), rtol=1e-2, atol=0)
