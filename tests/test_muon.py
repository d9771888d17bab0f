"""Muon: whole kernels take a step in which no direction is larger than the others; scales and biases go by Adam."""

import pytest
import torch

from cvae_support.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(3, 4, 36), (2, 30, 8), (1, 16, 16)])
def test_singular_values_come_near_to_one_and_directions_stay(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonalize(matrices)
    assert made.shape == matrices.shape
    for before, after in zip(matrices, made, strict=True):
        u, _, vh = torch.linalg.svd(before, full_matrices=False)
        inside = u.T @ after @ vh.T  # diagonal, if the directions are those of before
        values = inside.diagonal()
        assert (inside - values.diag()).abs().max() < 1e-3
        # The smallest value of a square matrix may be too small for five rounds: it has grown, and that is all.
        assert values.max() < 1.25 and (values[:-1] > 0.6).all() and values[-1] > 0


def test_a_gradient_of_zero_moves_nothing():
    assert torch.equal(orthogonalize(torch.zeros(1, 3, 5)), torch.zeros(1, 3, 5))


def kernels_and_biases() -> list[torch.nn.Parameter]:
    """Two kernels of one shape, one of another in the layout of convolutions, and a bias."""
    g = torch.Generator().manual_seed(1)
    tensors = [torch.randn(s, generator=g) for s in [(6, 10), (6, 10), (8, 4, 3, 3), (8,)]]
    tensors[2] = tensors[2].to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(tensor) for tensor in tensors]


def take_steps(parameters, *optimizers, count=5) -> None:
    """Steps along gradients that are the same for all who ask."""
    g = torch.Generator().manual_seed(2)
    for _ in range(count):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=g) * torch.linspace(0.1, 3, p.shape[-1])
        for optimizer in optimizers:
            optimizer.step()


def test_matrices_move_as_by_torchs_own_muon():
    if not hasattr(torch.optim, "Muon"):
        pytest.skip(f"torch {torch.__version__} has no Muon")
    ours, theirs = kernels_and_biases()[:2], kernels_and_biases()[:2]
    starts = [p.detach().clone() for p in ours]
    take_steps(ours, Muon(ours, lr=0.01))
    take_steps(theirs, torch.optim.Muon(theirs, lr=0.01, weight_decay=0, adjust_lr_fn="match_rms_adamw"))
    for one, other, start in zip(ours, theirs, starts, strict=True):
        assert (one - other).norm() < 0.03 * (one - start).norm()  # theirs counts in half precision


def test_a_convolution_moves_as_the_matrix_of_its_kernel():
    kernel = kernels_and_biases()[2]
    matrix = torch.nn.Parameter(kernel.detach().flatten(1).clone())
    grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(3))
    for p, g in ((kernel, grad), (matrix, grad.flatten(1))):
        p.grad = g.clone()
        Muon([p], lr=0.01).step()
    torch.testing.assert_close(kernel.detach().flatten(1), matrix.detach())


def test_a_step_is_about_as_long_as_adams():
    steps = {}
    for optimizer in (Muon, torch.optim.Adam):
        kernel = kernels_and_biases()[2]
        start = kernel.detach().clone()
        take_steps([kernel], optimizer([kernel], lr=0.01), count=50)
        steps[optimizer] = (kernel.detach() - start).square().mean().sqrt()
    assert 0.5 < steps[Muon] / steps[torch.optim.Adam] < 2


def test_scales_and_biases_go_by_adam():
    ours, theirs = kernels_and_biases(), kernels_and_biases()
    take_steps(ours, Muon(ours, lr=0.01))
    take_steps(theirs, torch.optim.Adam(theirs, lr=0.01))
    assert torch.equal(ours[3], theirs[3])
    assert not torch.equal(ours[0], theirs[0])


def test_a_closure_is_refused_and_not_half_obeyed():
    parameters = kernels_and_biases()
    with pytest.raises(TypeError):
        Muon(parameters, lr=0.01).step(lambda: torch.zeros(()))


def test_a_layer_without_gradient_is_left_alone():
    parameters = kernels_and_biases()
    before = [p.detach().clone() for p in parameters]
    parameters[0].grad = torch.ones(6, 10)
    Muon(parameters, lr=0.01).step()
    assert [torch.equal(p, b) for p, b in zip(parameters, before, strict=True)] == [False, True, True, True]
