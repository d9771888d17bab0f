"""The loss is what the post derives."""

import torch
from torch.distributions import Normal, kl_divergence

from cvae_support.losses import vae_loss


def test_both_terms_are_means():
    x, recon = torch.rand(4, 1, 28, 28), torch.rand(4, 1, 28, 28)
    mu, log_var = torch.randn(4, 1, 7, 7), torch.randn(4, 1, 7, 7)
    recon_loss, kl = vae_loss(recon, x, mu, log_var)
    exact = kl_divergence(Normal(mu, (0.5 * log_var).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl, exact.mean())
    torch.testing.assert_close(recon_loss, (recon - x).square().mean())


def test_weight_001_is_a_gaussian_decoder_of_variance_008():
    """784 * loss = SSE + 0.16 KL = 2 * 0.08 * (SSE / (2 * 0.08) + KL), for each image."""
    x, recon = torch.rand(1, 1, 28, 28), torch.rand(1, 1, 28, 28)
    mu, log_var = torch.randn(1, 1, 7, 7), torch.randn(1, 1, 7, 7)
    recon_loss, kl = vae_loss(recon, x, mu, log_var)
    sse = (recon - x).square().sum()
    kl_nats = kl_divergence(Normal(mu, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(784 * (recon_loss + 0.01 * kl), sse + 0.16 * kl_nats)
    torch.testing.assert_close(784 * (recon_loss + 0.01 * kl), 2 * 0.08 * (sse / (2 * 0.08) + kl_nats))
