"""Every measure agrees with a closed form, or with an implementation that is not ours."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from prdc import compute_prdc
from sklearn.linear_model import LogisticRegression
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from cvae_support import metrics
from cvae_support.metrics import (
    active_units,
    aggregate_gap,
    frechet_distance,
    kernel_distance,
    kl_per_dimension,
    linear_probe,
    mean_correlation,
    mlp_probe,
    nearest_distance,
    precision_recall_density_coverage,
    style,
    style_consistency,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def points_of(mean, cov, count=200, seed=0):
    """Points (count, D) whose mean and covariance are exactly these."""
    x = normal(count, len(mean), seed=seed).double()
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T
    return white @ torch.linalg.cholesky(cov).T + mean


def some_cov(size, seed):
    root = normal(size, size, seed=seed).double()
    return root @ root.T + 0.1 * torch.eye(size)


@pytest.fixture
def small_chunks(monkeypatch):
    """Distance matrices are then made of several parts, the last of them a shorter one."""
    monkeypatch.setattr(metrics, "CHUNK", 64)


def test_frechet_distance_of_gaussians_with_independent_parts_is_the_closed_form():
    mean_a, mean_b = torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([1.0, 1.0, -1.0]).double()
    std_a, std_b = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 2.0, 1.0]).double()
    a, b = points_of(mean_a, std_a.square().diag(), 200, 1), points_of(mean_b, std_b.square().diag(), 300, 2)
    wanted = float((mean_a - mean_b).square().sum() + (std_a - std_b).square().sum())
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_agrees_with_scipy_where_covariances_do_not_commute():
    cov_a, cov_b = some_cov(6, 1), some_cov(6, 2)
    mean_a, mean_b = normal(6, seed=3).double(), normal(6, seed=4).double()
    a, b = points_of(mean_a, cov_a), points_of(mean_b, cov_b, 150, 5)
    cross = scipy.linalg.sqrtm(cov_a.numpy() @ cov_b.numpy()).real.trace()
    wanted = float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace()) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(wanted, rel=1e-9)


def test_frechet_distance_takes_features_that_are_always_zero():
    """As a judge's may be: the covariance is then singular."""
    a, b, zeros = normal(50, 4), 2 * normal(50, 4, seed=1), torch.zeros(50, 3)
    wide = frechet_distance(torch.cat([a, zeros], 1), torch.cat([b, zeros], 1))
    assert wide == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert frechet_distance(a[:, :1], b[:, :1]) > 0


def test_kernel_distance_is_the_unbiased_estimate(small_chunks):
    a, b = normal(130, 5), normal(70, 5, seed=1) + 0.5

    def mean_kernel(x, y, skip_diagonal):
        values = [
            (float(x[i].double() @ y[j].double()) / 5 + 1) ** 3
            for i in range(len(x))
            for j in range(len(y))
            if not (skip_diagonal and i == j)
        ]
        return sum(values) / len(values)

    wanted = mean_kernel(a, a, True) + mean_kernel(b, b, True) - 2 * mean_kernel(a, b, False)
    assert kernel_distance(a, b) == pytest.approx(wanted, rel=1e-4)


def test_kernel_distance_of_two_halves_of_one_set_is_about_zero_on_either_side():
    found = [kernel_distance(normal(200, 8, seed=seed), normal(200, 8, seed=100 + seed)) for seed in range(20)]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 2 * np.std(found) / math.sqrt(len(found))


def test_kernel_distance_in_float32_is_that_in_float64():
    """Features as a judge gives them: not negative, and large sums that nearly cancel."""
    a, b = normal(2500, 96).relu(), normal(2500, 96, seed=1).relu() * 1.02
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(a.double(), b.double()), rel=1e-3)


@pytest.mark.parametrize(("count", "k"), [((300, 250), 5), ((100, 180), 1)])
def test_precision_recall_density_coverage_are_those_of_prdc(count, k, small_chunks):
    real, fake = normal(count[0], 6), 0.9 * normal(count[1], 6, seed=1) + 0.8
    wanted = compute_prdc(real.numpy(), fake.numpy(), k)
    assert precision_recall_density_coverage(real, fake, k) == pytest.approx(wanted, abs=0.005)
    assert all(0.05 < value < 0.95 for name, value in wanted.items() if name != "density")  # it says something


def test_samples_of_one_prototype_have_precision_and_no_recall():
    real = normal(400, 4)
    fake = 0.01 * normal(400, 4, seed=1)
    found = precision_recall_density_coverage(real, fake)
    assert found["precision"] == 1 and found["recall"] < 0.02 and found["coverage"] < 0.3


def test_nearest_distance_is_that_of_a_search_one_by_one(small_chunks):
    queries, references = normal(150, 784).sigmoid(), normal(200, 784, seed=1).sigmoid()
    one_by_one = torch.stack([(references.double() - query.double()).square().sum(1).min().sqrt() for query in queries])
    torch.testing.assert_close(nearest_distance(queries, references).double(), one_by_one, rtol=1e-5, atol=0)
    assert nearest_distance(references[:70], references).max() < 0.01


@pytest.mark.parametrize(
    ("measure", "arguments", "message"),
    [
        (frechet_distance, (torch.zeros(5, 3), torch.zeros(5, 2)), "vectors of one length"),
        (kernel_distance, (torch.zeros(1, 3), torch.zeros(5, 3)), "two or more vectors"),
        (precision_recall_density_coverage, (torch.zeros(5, 3), torch.zeros(9, 3), 5), "k must lie in 1 .. 4"),
        (precision_recall_density_coverage, (torch.zeros(5, 3), torch.zeros(9, 3), 0), "k must lie in 1 .. 4"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(measure, arguments, message):
    with pytest.raises(ValueError, match=message):
        measure(*arguments)


def test_a_latent_is_active_if_its_mean_varies_by_more_than_a_hundredth():
    std = torch.tensor([0.0, 0.05, 0.099, 0.101, 1.0, 2.0]).double()
    mu = points_of(torch.full((6,), 3.0).double(), torch.eye(6).double()) - 3  # of variance one, exactly
    assert active_units((mu * std + 3).view(-1, 1, 2, 3)) == 3


def test_kl_per_dimension_is_that_of_torch_distributions():
    mu, log_var = normal(40, 1, 3, 3), normal(40, 1, 3, 3, seed=1)
    wanted = kl_divergence(Normal(mu, (0.5 * log_var).exp()), Normal(0, 1)).mean(0).flatten()
    torch.testing.assert_close(kl_per_dimension(mu, log_var), wanted)
    assert kl_per_dimension(torch.zeros(3, 4), torch.zeros(3, 4)).tolist() == [0] * 4


def test_aggregate_gap_is_the_divergence_of_the_fitted_gaussian():
    mean, cov = normal(5, seed=3).double(), some_cov(5, 4)
    prior = MultivariateNormal(torch.zeros(5).double(), torch.eye(5).double())
    wanted = float(kl_divergence(MultivariateNormal(mean, cov), prior))
    assert aggregate_gap(points_of(mean, cov)) == pytest.approx(wanted, rel=1e-9)
    assert aggregate_gap(points_of(torch.zeros(5).double(), torch.eye(5).double())) == pytest.approx(0, abs=1e-9)


def test_aggregate_gap_of_the_prior_is_as_small_as_its_docstring_says():
    for count in (2_000, 20_000):
        assert aggregate_gap(normal(count, 1, 7, 7)) == pytest.approx(49 * 52 / (4 * count), rel=0.1)
    assert aggregate_gap(normal(49, 1, 7, 7)) == math.inf


def classes_in(z, centres, seed=0):
    """Labels (N,) drawn at random, and z (N, D) moved to the centre of its class."""
    y = torch.randint(len(centres), (len(z),), generator=torch.Generator().manual_seed(seed))
    return z + centres[y], y


def test_the_probes_find_classes_that_are_apart_and_all_their_information():
    centres = 20 * torch.eye(10)
    (z_train, y_train), test = (classes_in(normal(10_000, 10, seed=s), centres, seed=s) for s in (0, 1))
    assert linear_probe(z_train, y_train, *test) == 1
    found = mlp_probe(z_train, z_train - math.inf, y_train, *test, epochs=5)  # without noise
    assert found["mlp_accuracy"] == 1 and found["information"] == pytest.approx(math.log(10), abs=0.02)


def test_the_linear_probe_is_trained_as_far_as_a_regression_that_converged():
    """At the size of the measures: 10,000 z of 49 latents, classes that overlap."""
    centres = 0.3 * normal(10, 49, seed=2)
    (z_train, y_train), (z_test, y_test) = (classes_in(normal(10_000, 49, seed=s), centres, seed=s) for s in (0, 1))
    wanted = (
        LogisticRegression(max_iter=500).fit(z_train.numpy(), y_train.numpy()).score(z_test.numpy(), y_test.numpy())
    )
    assert 0.5 < wanted < 0.9
    assert linear_probe(z_train, y_train, z_test, y_test) == pytest.approx(wanted, abs=0.01)


def test_the_mlp_probe_comes_near_the_bayes_classifier():
    """Codes of which all is known: means one of two away from 0, unit noise; y is the sign of a product, no line's."""
    mu = 2.0 * torch.randint(0, 2, (10_000, 2), generator=torch.Generator().manual_seed(0)) - 1
    y, log_var = (mu.prod(1) < 0).long(), torch.zeros(10_000, 2)
    z_test = mu + normal(10_000, 2, seed=1)
    assert linear_probe(mu + normal(10_000, 2, seed=2), y, z_test, y) < 0.6
    found = mlp_probe(mu, log_var, y, z_test, y, epochs=3)
    sure = torch.sigmoid(2 * z_test.double())  # that a coordinate's mean is 1
    odd = sure[:, 0] * (1 - sure[:, 1]) + sure[:, 1] * (1 - sure[:, 0])
    assert found["mlp_accuracy"] == pytest.approx(float(((odd > 0.5) == y).double().mean()), abs=0.01)
    cross_entropy = -float(torch.where(y == 1, odd, 1 - odd).log().mean())
    assert found["information"] == pytest.approx(math.log(2) - cross_entropy, abs=0.01)


def test_the_mlp_probe_draws_z_anew_in_every_step():
    """Few images, much noise, classes that only their spread parts: one sample of each would teach it the noise."""
    y = torch.arange(400) % 2
    log_var = torch.where(y == 0, -1.0, 1.0)[:, None].expand(400, 8)
    mu, z_test = torch.zeros(400, 8), torch.exp(0.5 * log_var) * normal(400, 8, seed=1)
    fresh = mlp_probe(mu, log_var, y, z_test, y, epochs=100)
    frozen = mlp_probe(torch.exp(0.5 * log_var) * normal(400, 8), mu - math.inf, y, z_test, y, epochs=100)
    assert fresh["information"] > frozen["information"] + 0.05


def test_the_probes_find_nothing_in_noise():
    centres = torch.zeros(10, 10)
    (z_train, y_train), test = (classes_in(normal(3000, 10, seed=s), centres, seed=s) for s in (0, 1))
    assert linear_probe(z_train, y_train, *test) == pytest.approx(0.1, abs=0.03)
    found = mlp_probe(torch.zeros_like(z_train), torch.zeros_like(z_train), y_train, *test, epochs=5)
    assert found["mlp_accuracy"] == pytest.approx(0.1, abs=0.03)
    assert 0 <= found["information"] < 0.01


def test_the_mlp_probe_bounds_information_by_the_entropy_of_the_labels():
    y = (torch.arange(1000) % 10 == 0).long()
    z = normal(1000, 3) + 50 * y[:, None]
    entropy = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert mlp_probe(z, z - math.inf, y, z, y)["information"] == pytest.approx(entropy, abs=0.02)


def test_the_probes_give_the_same_numbers_whatever_was_drawn_before():
    z, y = classes_in(normal(500, 4), torch.eye(4))

    def probed(seed):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        found = linear_probe(z, y, z, y), mlp_probe(z, torch.zeros_like(z), y, z, y, epochs=2)
        assert torch.equal(torch.get_rng_state(), state)
        return found

    assert probed(5) == probed(6)


def rectangle(height, width, brightness):
    image = torch.zeros(28, 28)
    image[5 : 5 + height, 8 : 8 + width] = brightness
    return image


def test_style_measures_a_rectangle_as_it_was_drawn():
    image = rectangle(10, 4, 0.5)
    image[0, 0] = 0.1  # too faint to be part of a garment
    found = style(torch.stack([image, torch.zeros(28, 28)]))
    assert found["height"].tolist() == [10, 0] and found["width"].tolist() == [4, 0]
    assert found["brightness"].tolist() == pytest.approx([0.5, 0])
    assert found["ink"].tolist() == pytest.approx([(40 * 0.5 + 0.1) / 784, 0])


def test_style_measures_the_box_around_separate_parts():
    image = rectangle(2, 2, 1.0)
    image[20, 25] = 1.0
    found = style(image)
    assert (found["height"], found["width"]) == (16, 18)


def test_style_is_consistent_where_every_class_orders_the_z_alike():
    generator = torch.Generator().manual_seed(0)
    heights, widths = (torch.randint(1, 19, (64,), generator=generator).tolist() for _ in range(2))
    shades = torch.rand(64, generator=generator).tolist()

    def row(scale):
        drawn = zip(heights, widths, shades, strict=True)
        return torch.stack([rectangle(height, width, 0.3 + scale * shade) for height, width, shade in drawn])

    rows = [row(scale) for scale in (0.3, 0.5, 0.7)]
    found = style_consistency(torch.stack(rows))
    for name in ("height", "width", "brightness"):
        assert found[f"style_{name}"] == pytest.approx(1, abs=1e-4)
    assert found["style"] > 0.98 and abs(found["style_baseline"]) < 0.2
    mixed = torch.stack([row[torch.randperm(64, generator=generator)] for row in rows])
    assert abs(style_consistency(mixed)["style"]) < 0.2
    assert style_consistency(torch.stack(rows)) == found


def test_mean_correlation_is_that_of_numpy_and_leaves_out_what_does_not_vary():
    values = normal(4, 30)
    matrix = np.corrcoef(values.numpy())
    wanted = np.mean([matrix[i, j] for i in range(4) for j in range(i)])
    assert mean_correlation(values) == pytest.approx(wanted, rel=1e-5)
    assert mean_correlation(torch.cat([values, torch.ones(1, 30)])) == pytest.approx(wanted, rel=1e-5)
    assert mean_correlation(torch.ones(3, 30)) == 0
