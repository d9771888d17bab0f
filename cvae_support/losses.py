"""The loss: reconstruction plus weighted KL, both as means."""

import torch.nn.functional as F
from torch import Tensor


def vae_loss(recon: Tensor, x: Tensor, mu: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the loss, before weighting: mean squared error and mean KL.

    recon, x (B, 1, S, S): squared error, mean over all pixels.
    mu, log_var (B, 1, S/4, S/4): KL(N(mu, sigma^2) || N(0, 1)) in nats, mean over all latents
    (Kingma & Welling 2014, appendix B). Times 784 pixels and 49 latents these are the distortion (SSE)
    and the rate (nats) of one image.
    """
    recon_loss = F.mse_loss(recon, x)
    kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).mean()
    return recon_loss, kl
