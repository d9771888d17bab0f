"""One model's measures: complete, repeatable, and what an unconditional model cannot have is None."""

import json

import pytest
import torch

from cvae_support import evaluate as evaluation
from cvae_support.config import Config
from cvae_support.data import to_float
from cvae_support.evaluate import (
    MEASURES,
    class_labels,
    decode,
    draw_samples,
    encode,
    evaluate,
    floors,
    gaussian_samples,
    generation,
    over_seeds,
    reconstructions,
    short,
    stages,
)
from cvae_support.judge import Judge, SecondJudge, features
from cvae_support.latents import class_grid, first_per_class
from cvae_support.metrics import (
    active_units,
    aggregate_gap,
    frechet_distance,
    kernel_distance,
    precision_recall_density_coverage,
    style_consistency,
)
from cvae_support.models import VAE, seeded

STYLE_PARTS = {"style_ink", "style_height", "style_width", "style_brightness"}
LISTS = {"conditional_accuracy_per_class", "kl_per_dimension"}
GENERATION = {
    "conditional_accuracy", "conditional_accuracy_second", "conditional_accuracy_per_class",
    "classification_accuracy_score", "frechet_distance", "frechet_distance_second", "kernel_distance",
    "precision", "recall", "density", "coverage", "nearest_distance", "nearest_ratio",
}  # fmt: skip
CONDITIONAL_ONLY = {"label_swap_accuracy", "wrong_label_mse", "style", "style_baseline"}


@pytest.fixture(scope="module")
def judges():
    """Untrained: what they see is of no account here."""
    return seeded(Judge, 1).eval(), seeded(SecondJudge, 2).eval()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer of everything; what is kept of the real images is forgotten before and after."""
    for name, value in {"SAMPLES": 100, "TRAIN": 100, "QUERIES": 20, "SWAPPED": 30, "SHARED_Z": 4}.items():
        monkeypatch.setattr(evaluation, name, value)
    evaluation.real_side.cache_clear()
    yield
    evaluation.real_side.cache_clear()


@pytest.fixture(scope="module")
def some(data):
    """600 training and 100 test images."""
    return data.first(600, 100)


@pytest.fixture
def model(config):
    """Make an untrained model: model("adaln")."""
    return lambda name="adaln": seeded(lambda: VAE(config(name)), 0).eval()


def evaluated(model, some, judges, **more):
    calls = []
    found = evaluate(model, some, *judges, progress=calls.append, **more)
    return found, calls


def test_a_conditional_model_has_every_measure_but_one(model, some, judges):
    found, calls = evaluated(model("adaln"), some, judges, sampling_seeds=(0, 1))
    spreads = {f"{name}_std" for name in GENERATION - LISTS}
    assert found.keys() == MEASURES.keys() | LISTS | STYLE_PARTS | spreads
    assert [name for name in found if found[name] is None] == ["prior_frechet_distance"]
    assert len(found["conditional_accuracy_per_class"]) == 10 and len(found["kl_per_dimension"]) == 49
    assert len(calls) == stages((0, 1)) == len(set(calls))
    assert json.loads(json.dumps(found)) == found


def test_an_unconditional_model_lacks_what_needs_a_class(model, some, judges):
    found, calls = evaluated(model("unconditional"), some, judges, sampling_seeds=(0,))
    assert {name for name in MEASURES if found[name] is None} == CONDITIONAL_ONLY
    assert not STYLE_PARTS & found.keys()
    assert found["prior_frechet_distance"] > 0 and found["prior_frechet_distance"] != found["frechet_distance"]
    assert {found[f"{name}_std"] for name in GENERATION - LISTS} == {None}  # of one seed
    assert len(calls) == stages((0,))


def test_a_conditional_model_can_be_sampled_class_aware_too(model, some, judges):
    plain, _ = evaluated(model("adaln"), some, judges, sampling_seeds=(0,))
    aware, _ = evaluated(model("adaln"), some, judges, sampling_seeds=(0,), class_aware=True)
    assert aware["prior_frechet_distance"] == plain["frechet_distance"] != aware["frechet_distance"]
    differing = {name for name in plain if plain[name] != aware[name]}
    assert differing <= GENERATION | {"prior_frechet_distance"}


def test_measuring_twice_gives_the_same_numbers_and_another_seed_others(model, some, judges):
    torch.manual_seed(1)
    first, _ = evaluated(model(), some, judges, sampling_seeds=(0,))
    torch.manual_seed(2)
    evaluation.real_side.cache_clear()
    assert evaluated(model(), some, judges, sampling_seeds=(0,))[0] == first
    other, _ = evaluated(model(), some, judges, sampling_seeds=(1,))
    differing = {name for name in first if first[name] != other[name]}
    assert "frechet_distance" in differing and differing <= GENERATION


def test_the_test_loss_is_the_one_that_training_reports(model, data, judges):
    """Over more than one batch: the noise is the same."""
    from cvae_support.training import make_fabric, test_loss

    some, net = data.first(600, 520), model("spatial")
    wanted = test_loss(net, some, make_fabric())
    found, _ = evaluated(net.eval(), some, judges, sampling_seeds=(0,))
    assert found["test_recon"] == pytest.approx(wanted["test_recon"], rel=1e-5)
    assert found["test_kl"] == pytest.approx(wanted["test_kl"], rel=1e-5)
    assert found["distortion"] == pytest.approx(784 * wanted["test_recon"], rel=1e-5)
    assert found["rate"] == pytest.approx(49 * wanted["test_kl"], rel=1e-5)


def test_real_images_come_out_better_than_noise(some, judges):
    rows = floors(some, *judges)
    assert rows.keys() == {"real", "noise", "class_means", "mse"}
    assert all(rows[name].keys() == GENERATION for name in ("real", "noise", "class_means"))
    for name in ("frechet_distance", "frechet_distance_second", "kernel_distance"):
        assert rows["real"][name] < rows["noise"][name]
    assert rows["real"]["coverage"] > 0.8 and rows["noise"]["coverage"] < 0.1
    assert rows["real"]["classification_accuracy_score"] > rows["noise"]["classification_accuracy_score"]
    assert rows["class_means"]["recall"] == 0  # ten images, again and again
    assert rows["real"]["nearest_distance"] < 0.01 < rows["class_means"]["nearest_distance"]


def test_the_three_errors_beside_a_models_are_those_of_numpy_and_sklearn(some, judges):
    from sklearn.decomposition import PCA

    train, test = (to_float(images).flatten(1).numpy() for images in (some.train_images, some.test_images))
    mse = floors(some, *judges)["mse"]
    pca = PCA(49, svd_solver="full").fit(train)
    assert mse["mean_image"] == pytest.approx(((test - train.mean(0)) ** 2).mean(), rel=1e-4)
    assert mse["pca_49"] == pytest.approx(((test - pca.inverse_transform(pca.transform(test))) ** 2).mean(), rel=1e-4)
    means = [train[some.train_labels.numpy() == label].mean(0) for label in some.test_labels]
    assert mse["class_means"] == pytest.approx(((test - means) ** 2).mean(), rel=1e-4)
    assert mse["pca_49"] < mse["class_means"] < mse["mean_image"]


@pytest.mark.parametrize("name", ["adaln", "unconditional"])
def test_reconstructions_have_the_measures_of_samples(name, model, some, judges):
    assert reconstructions(model(name), some, *judges).keys() == GENERATION


def test_the_judges_answers_are_compared_with_the_classes_asked_for(some, judges):
    """Asked for what the judge says, it is right every time; the second judge is asked by itself."""
    images = to_float(some.test_images)
    (_, said), (_, second_said) = (evaluation.look(judge, images) for judge in judges)
    found = generation(images, said, some, *judges)
    assert found["conditional_accuracy"] == 1
    assert all(found["conditional_accuracy_per_class"][label] == 1 for label in said.unique())
    assert found["conditional_accuracy_second"] == float((second_said == said).double().mean())
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-6)  # the test images beside themselves
    assert found["precision"] == found["recall"] == found["coverage"] == 1


def test_each_judge_compares_in_its_own_features_and_nearness_is_that_of_test_images(some, judges):
    index = first_per_class(some.test_labels, 2)  # the 20 that the ratio is to
    images, test = to_float(some.test_images[index]), to_float(some.test_images)
    found = generation(images, some.test_labels[index], some, *judges)
    for name, judge in zip(("frechet_distance", "frechet_distance_second"), judges, strict=True):
        wanted = frechet_distance(features(judge, test), features(judge, images))
        assert found[name] == pytest.approx(wanted, rel=1e-4)
    assert found["frechet_distance"] != found["frechet_distance_second"]
    assert found["nearest_ratio"] == pytest.approx(1)


def test_the_probes_learn_from_training_images_and_are_tested_on_sampled_z(model, some, judges, monkeypatch):
    """Means would tell more of the class than z does."""
    given = {}
    for name in ("linear_probe", "mlp_probe"):
        real = getattr(evaluation, name)
        monkeypatch.setattr(evaluation, name, lambda *a, name=name, real=real: given.update({name: a}) or real(*a))
    net = model("spatial")
    found, _ = evaluated(net, some, judges, sampling_seeds=(0,))
    index = first_per_class(some.train_labels, 10)
    known = evaluation.encode(net, some.train_images[index], some.train_labels[index])
    every = evaluation.encode(net, some.train_images, some.train_labels)
    test = evaluation.encode(net, some.test_images, some.test_labels)
    assert not test.z.equal(test.mu)
    wanted = {
        "linear_probe": (known.z, some.train_labels[index], test.z, some.test_labels),
        "mlp_probe": (every.mu, every.log_var, some.train_labels, test.z, some.test_labels),
    }
    for name, arguments in wanted.items():
        for one, other in zip(given[name], arguments, strict=True):
            torch.testing.assert_close(one, other)
    assert found["probe_linear_accuracy"] > 0 < found["probe_mlp_accuracy"] and "probe_information" in found


def test_every_measure_is_of_what_it_says(model, some, judges):
    """Gap and kernel distance of sampled z, active units of mu; samples in the first judge's features."""
    net = model("spatial")
    found, _ = evaluated(net, some, judges, sampling_seeds=(3,))
    index = first_per_class(some.train_labels, 10)
    y_train = some.train_labels[index]
    train = evaluation.encode(net, some.train_images[index], y_train)
    test = evaluation.encode(net, some.test_images, some.test_labels)
    prior = torch.randn(100, 49, generator=torch.Generator().manual_seed(0))
    images, labels = draw_samples(net, train.z, y_train, 3, class_aware=False)
    real, fake = (features(judges[0], x) for x in (to_float(some.test_images), images))
    wanted = {
        "active_units": active_units(test.mu),
        "aggregate_gap": aggregate_gap(torch.cat([train.z, test.z])),
        "aggregate_kernel_distance": kernel_distance(test.z.flatten(1), prior),
        "kernel_distance": kernel_distance(real, fake),
        "classification_accuracy_score": evaluation.classification_accuracy_score(images, labels, some, 3),
        **precision_recall_density_coverage(real, fake, k=5),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-9)


def test_style_is_that_of_images_which_share_z(model, some, judges):
    found, _ = evaluated(model("adaln"), some, judges, sampling_seeds=(0,))
    wanted = style_consistency(class_grid(model("adaln"), 4, seed=0, shared=True))
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)


def test_gaussian_samples_have_the_mean_and_the_covariance_of_what_they_were_fitted_to():
    mix = torch.randn(9, 9, generator=torch.Generator().manual_seed(0))
    z = torch.randn(500, 9, generator=torch.Generator().manual_seed(1)) @ mix + torch.arange(9)
    drawn = gaussian_samples(z.view(-1, 1, 3, 3), 100_000, torch.Generator().manual_seed(2))
    assert drawn.shape == (100_000, 1, 3, 3) and drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.flatten(1).mean(0), z.mean(0), rtol=0, atol=0.06)
    torch.testing.assert_close(torch.cov(drawn.flatten(1).T), torch.cov(z.T), rtol=0.03, atol=0.3)


@pytest.mark.parametrize("kind", ["unconditional", "spatial"])
def test_class_aware_samples_are_from_the_gaussian_of_every_class(model, kind):
    """Classes far apart in z: the images are then those of the decoder there."""
    z_train = class_labels(500, 10).view(-1, 1, 1, 1) * torch.ones(500, 1, 7, 7)
    images, labels = draw_samples(model(kind), z_train, class_labels(500, 10), seed=0, class_aware=True)
    assert labels.equal(class_labels(100, 10)) and labels.bincount().tolist() == [10] * 10
    wanted = decode(model(kind), labels.view(-1, 1, 1, 1) * torch.ones(100, 1, 7, 7), labels)
    torch.testing.assert_close(images, wanted, rtol=0, atol=1e-4)


def test_a_conditional_model_is_sampled_from_the_prior(model):
    nowhere = torch.full((100, 1, 7, 7), torch.nan)
    images, labels = draw_samples(model("spatial"), nowhere, class_labels(100, 10), seed=3, class_aware=False)
    net = model("spatial")
    assert torch.allclose(images, net.sample(labels, torch.Generator().manual_seed(3)), atol=1e-5)


def test_a_label_is_swapped_for_another_and_decoded_as_such(model, some, judges, monkeypatch):
    asked = []
    decode = evaluation.decode
    monkeypatch.setattr(evaluation, "decode", lambda model, z, y: asked.append(y) or decode(model, z, y))
    net = model("spatial")
    test = evaluation.encode(net, some.test_images, some.test_labels)
    found = evaluation.swapped(net, some, test, judges[0])
    assert len(asked[0]) == 30 and not (asked[0] == some.test_labels[:30]).any()
    images = decode(net, test.z[:30], asked[0])
    assert found["label_swap_accuracy"] == float((judges[0](images).argmax(1) == asked[0]).double().mean())
    assert found["wrong_label_mse"] == pytest.approx(
        float((images - to_float(some.test_images[:30])).square().mean()), rel=1e-5
    )


def test_measures_of_several_seeds_become_mean_and_deviation():
    found = over_seeds([{"a": 1.0, "parts": [0.0, 2.0]}, {"a": 3.0, "parts": [1.0, 4.0]}])
    assert found == {"a": 2.0, "a_std": pytest.approx(2**0.5), "parts": [0.5, 3.0]}
    assert over_seeds([{"a": 1.0}]) == {"a": 1.0, "a_std": None}


def test_numbers_are_kept_with_six_digits():
    assert short([0.123456789, (1234567.8,), 7, None]) == [0.123457, [1234570.0], 7, None]


def test_codes_are_sampled_where_the_model_is(few):
    """On a GPU, too: on tensors without contents, which are as little to be mixed with the CPU's."""
    with torch.device("meta"):
        net = VAE(Config("spatial", width=0.125))
    codes = encode(net, few.train_images.to("meta"), few.train_labels.to("meta"))
    assert all(part.is_meta and part.shape == net.latent_shape(160) for part in codes)
