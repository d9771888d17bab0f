"""What makes a training step faster on a CPU."""

import ctypes
import platform
import sys
from typing import Any

import torch
from lightning_fabric.plugins.precision import Precision
from torch import Tensor
from torch.overrides import TorchFunctionMode


def keep_freed_memory() -> bool:
    """On Linux with glibc, keep what a step frees for the next one; returns whether that took effect.

    Left to itself, glibc hands the large blocks of a batch back to the system and asks for them again at every step,
    and the page faults that follow took up to a tenth of the time, at batches of 256.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mmap_threshold, trim_threshold = -3, -1  # their names in malloc.h; 32 MB is the most the first accepts
    return bool(mallopt(mmap_threshold, 32 << 20) and mallopt(trim_threshold, 2**31 - 1))


def computes_bf16() -> bool:
    """Whether this is an x86 CPU with instructions for bf16. Without them torch is far slower in it than in float32."""
    tell = getattr(torch.cpu, "get_capabilities", None)  # older torch has none
    capabilities = tell() if tell else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class Bf16Convolutions(Precision):
    """A precision for Fabric: the convolutions of a training step in bf16, everything else in float32.

    Fabric's own "bf16-mixed" would hand bf16 on to the group norms, which take a CPU three times as long in it.
    """

    precision: Any = "bf16 convolutions"  # not one of Fabric's own names

    def forward_context(self) -> TorchFunctionMode:
        return ConvolveInBf16()


class ConvolveInBf16(TorchFunctionMode):
    """While it is entered, conv2d, called as nn.Conv2d calls it, rounds what it gets to bf16; its result is float32."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.conv2d:
            return function(*args, **(kwargs or {}))
        rounded = [value.bfloat16() if isinstance(value, Tensor) else value for value in args]
        return function(*rounded, **(kwargs or {})).float()
