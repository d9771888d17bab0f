"""What makes a step faster on a CPU changes its numbers by little, and nothing outside the step."""

import platform
import sys

import pytest
import torch
import torch.nn.functional as F

from cvae_support import cpu, training
from cvae_support.models import VAE


def test_freed_memory_is_kept_where_that_can_be_said(monkeypatch):
    on_glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    assert cpu.keep_freed_memory() == cpu.keep_freed_memory() == on_glibc
    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _: pytest.fail("asked a library that is not glibc"))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))  # as with musl
    assert cpu.keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cpu.keep_freed_memory() is False


def test_convolutions_are_rounded_to_bf16_and_nothing_else_is():
    layer, norm, linear = torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Linear(7, 7)
    x = torch.rand(2, 3, 9, 9)

    def rest(h):  # whatever else a model computes
        h = linear(norm(h))
        return F.scaled_dot_product_attention(h, h, h)

    outside = rest(layer(x))
    with cpu.Bf16Convolutions().forward_context():
        rounded = layer(x)
        inside = rest(rounded)
    assert rounded.dtype == inside.dtype == torch.float32
    wanted = F.conv2d(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()).float()
    assert torch.equal(rounded, wanted) and torch.equal(inside, rest(wanted))
    with cpu.Bf16Convolutions().forward_context():
        assert F.conv2d(x, layer.weight, layer.bias, padding=1).shape == (2, 8, 9, 9)
    torch.testing.assert_close(inside, outside, rtol=0, atol=0.05)
    assert torch.equal(rest(layer(x)), outside)  # as before


def test_gradients_through_bf16_convolutions_point_where_those_of_float32_do(config):
    torch.manual_seed(0)
    net = VAE(config("adaln", width=0.25))
    x, y, eps = torch.rand(16, 1, 28, 28), torch.arange(16) % 10, torch.randn(16, 1, 7, 7)

    def gradients(context):
        net.zero_grad()
        with context:
            recon, *_ = net(x, y, eps)
        (recon - x).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])

    ours, wanted = gradients(cpu.Bf16Convolutions().forward_context()), gradients(torch.enable_grad())
    assert ours.dtype == torch.float32
    assert (ours - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True, "avx512_bf16": False}, False)],
)
def test_bf16_is_for_cpus_that_have_instructions_for_it(monkeypatch, capabilities, wanted):
    monkeypatch.delenv("LT_CLI_USED", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert cpu.computes_bf16() == wanted
    assert training.made_on(training.make_fabric()).endswith("bf16 convolutions" if wanted else "thread(s)")


def test_an_older_torch_that_does_not_tell_computes_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert cpu.computes_bf16() is False
