"""Paths, grids and pictures: what is drawn is what the name says."""

import pytest
import torch

from cvae_support.latents import (
    AT_ONCE,
    as_picture,
    blend,
    class_grid,
    encode_all,
    first_per_class,
    interpolate,
    noise,
    reconstruct,
)
from cvae_support.models import VAE, seeded


@pytest.fixture
def model(config):
    """Untrained, but with labels that matter from the start."""
    return seeded(lambda: VAE(config("adaln", zero_init=False)), 0).eval()


@torch.no_grad()
def test_an_interpolation_goes_from_the_first_image_to_the_second_by_way_of_the_mean_of_their_codes(model, few):
    pair, y = few.test_images[:2], torch.tensor([3, 3])
    path = interpolate(model, pair, 3, 5)
    torch.testing.assert_close(path[[0, 4]], reconstruct(model, pair, y).squeeze(1))
    mu, _ = encode_all(model, pair, y)
    torch.testing.assert_close(path[2], model.decode(mu.mean(0, keepdim=True), model.embed(y[:1]))[0, 0])
    assert not torch.allclose(path[0], path[4], atol=1e-3)


@torch.no_grad()
def test_a_blend_goes_from_the_first_class_to_the_second_under_one_z(model):
    z = noise(model, 1, seed=0)
    ends = [model.decode(z, model.embed(torch.tensor([label])))[0, 0] for label in (2, 7)]
    path = blend(model, 2, 7, torch.tensor([0.0, 0.5, 1.0]), z)
    torch.testing.assert_close(path[0], ends[0])
    torch.testing.assert_close(path[2], ends[1])
    assert not torch.allclose(ends[0], ends[1], atol=1e-3)


def test_an_unconditional_model_has_no_classes_to_blend(config):
    model = VAE(config("unconditional"))
    with pytest.raises(ValueError, match="no classes to blend"):
        blend(model, 0, 1, torch.ones(1), noise(model, 1, seed=0))


@torch.no_grad()
def test_a_grid_has_a_z_for_every_image_or_shares_them_between_the_classes(model):
    def of_class(label, z):
        return model.decode(z, model.embed(torch.full((len(z),), label))).squeeze(1)

    torch.testing.assert_close(class_grid(model, 3, seed=1)[4], of_class(4, noise(model, 30, seed=1)[12:15]))
    torch.testing.assert_close(class_grid(model, 3, seed=1, shared=True)[4], of_class(4, noise(model, 3, seed=1)))


def test_more_images_than_fit_at_once_are_all_encoded(model, few):
    images, labels = few.train_images[: AT_ONCE + 3], few.train_labels[: AT_ONCE + 3]
    mu, log_var = encode_all(model, images, labels)
    assert len(mu) == len(log_var) == AT_ONCE + 3
    torch.testing.assert_close(mu[-3:], encode_all(model, images[-3:], labels[-3:])[0])


def test_a_picture_is_read_row_by_row_and_has_256_levels():
    picture = as_picture(torch.arange(6).view(2, 3) / 5)
    assert picture.size == (3, 2) and picture.mode == "L"
    assert [picture.getpixel((x, y)) for y in range(2) for x in range(3)] == [0, 51, 102, 153, 204, 255]


def test_the_first_of_every_class_come_class_by_class():
    assert first_per_class(torch.tensor([1, 0, 1, 0, 1, 0]), 2).tolist() == [1, 3, 0, 2]
