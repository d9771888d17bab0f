"""What makes a training step faster on a GPU: recording it, and compiling the model."""

import itertools
from collections.abc import Callable
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from cvae_support.config import Config
from cvae_support.data import Dataset
from cvae_support.models import VAE

COMPILED_FROM = 4_000_000  # images: in a shorter run the compiler takes longer than it gains (TRAINING.md)


def on_one_gpu(fabric: Fabric) -> bool:
    """Whether this is the only process, and on a cuda device: recording and compiling were tried on no other."""
    return fabric.device.type == "cuda" and fabric.world_size == 1


def compile_pays(config: Config, data: Dataset, fabric: Fabric) -> bool:
    """Whether torch.compile gains more in this run than it takes: on one GPU, if the run is long."""
    return on_one_gpu(fabric) and config.epochs * len(data.train_images) >= COMPILED_FROM


def compiled(net: VAE) -> torch.nn.Module:
    """The model compiled; or as it is, and said so, where what that takes is lacking (Triton, a C compiler)."""
    try:
        torch.compile(torch.neg)(torch.ones(1, device=next(net.parameters()).device))
    except Exception as error:  # a compiler fails in many ways
        print(f"Trained without torch.compile, which does not work here: {str(error).strip().partition(chr(10))[0]}")
        return net
    return cast(torch.nn.Module, torch.compile(net))


def recorded(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same step for a GPU, as a CUDA graph: recorded once, then replayed with the numbers of each call.

    A step is hundreds of small kernels, and for a small model to start them one by one takes longer than to run them.
    The first three calls are ordinary ones, on a stream of their own, as a recording wants it: in them kernels are
    chosen and compiled. Every replay returns the same tensor, which the next one overwrites: copy it.
    """
    ordinary, graph, aside = 3, torch.cuda.CUDAGraph(), torch.cuda.Stream()
    ends = itertools.cycle([torch.cuda.Event(), torch.cuda.Event()])
    held: list[Tensor] = []
    result = torch.empty(0)

    def replay(*inputs: Tensor) -> Tensor:
        nonlocal ordinary, result, held
        if ordinary:
            ordinary -= 1
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                first = step(*inputs)
            torch.cuda.current_stream().wait_stream(aside)
            return first
        if not held:
            places = [value.clone() for value in inputs]
            with torch.cuda.graph(graph):
                result = step(*places)
            held = places
        end = next(ends)
        end.synchronize()  # of the step before the last: not farther ahead, for the progress bar and Ctrl-C
        for place, value in zip(held, inputs, strict=True):
            place.copy_(value)
        graph.replay()
        end.record()
        return result

    return replay
