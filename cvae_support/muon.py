"""The Muon optimizer: what Adam does for single weights, for whole matrices of them."""

from collections import defaultdict

import torch
from torch import Tensor

MOMENTUM = 0.95
# Of the polynomial a s + b s^3 + c s^5, which takes singular values near to 1 in five rounds (Jordan 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ADAMS_STEP = 0.2  # how far Adam typically moves a weight, in units of its learning rate: arXiv:2502.16982


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring all singular values of the matrices (N, R, C) near to 1: U S V^T becomes about U V^T.

    Five Newton-Schulz rounds, which are products of matrices and no more; the values end between about 0.7 and 1.2,
    except such as are far below the largest one.
    """
    a, b, c = NEWTON_SCHULZ
    upright = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if upright else matrices  # the square below is then the smaller one
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        # a x + (b square + c square square) x in three kernels: these are small matrices, and each launch costs
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if upright else x


class Muon(torch.optim.Adam):
    """Muon for kernels and the tables of class embeddings, Adam for scales and biases (Jordan 2024).

    A kernel (out, in, h, w) is taken as a matrix (out, in * h * w), and its step is the running mean of its gradients,
    orthogonalized: no direction in it is larger than the others. Steps are as long as Adam's, so that both take
    the same learning rate (Liu et al. 2025, arXiv:2502.16982). torch.optim.Muon takes matrices only, one by one; here
    kernels of one shape go together, in less than half the time on a CPU. Jordan leaves tables of
    embeddings, the first convolution and the output layers to Adam; here they are taken as matrices too.
    """

    @torch.no_grad()
    def step(self):
        """One step from the gradients that are there; those of kernels are used up.

        It takes no closure: one that computes gradients anew would bring back those of kernels, for Adam to use.
        """
        (group,) = self.param_groups
        by_shape = defaultdict(list)
        for p in group["params"]:
            if p.ndim > 1 and p.grad is not None:
                by_shape[len(p), p.numel() // len(p)].append(p)
        for shape, kernels in by_shape.items():
            for p in kernels:
                if not self.state[p]:  # Adam looks for a count of steps in every state it loads
                    self.state[p] = {"step": torch.zeros(()), "momentum": torch.zeros_like(p)}
            grads, means = [p.grad for p in kernels], [self.state[p]["momentum"] for p in kernels]
            torch._foreach_lerp_(means, grads, 1 - MOMENTUM)
            torch._foreach_lerp_(grads, means, MOMENTUM)  # a look ahead, as Nesterov's
            moves = orthogonalize(torch.stack([grad.reshape(shape) for grad in grads]))
            moves *= ADAMS_STEP * max(shape) ** 0.5 * group["lr"]
            for p, move in zip(kernels, moves, strict=True):
                p.sub_(move.view(p.shape))
                p.grad = None  # so that Adam passes it over
        return super().step()
