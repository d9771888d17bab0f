"""What the post says of its results, held against the results that ship.

The numbers in the text are computed where they stand; these are the sentences around them.
"""

from pathlib import Path
from statistics import mean

import pytest

from cvae_support.checkpoints import SHIPPED_FOLDER, load_model
from cvae_support.config import RECIPES
from cvae_support.models import count_parameters
from cvae_support.study import ARMS, SEARCH, SEEDS, at_epoch, curves, read

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ends():
    """The last row of each shipped run's history, and each model."""
    loaded = {path.stem: load_model(path) for path in SHIPPED_FOLDER.glob("*.json")}
    return {name: (record["history"][-1], model) for name, (model, record) in loaded.items()}


@pytest.fixture(scope="module")
def study():
    return read("study")


SPATIAL, ADALN = "spatial-w0.25-kl0.01-fast", "adaln-w0.25-kl0.01-fast"
CLEAR, SHARP = "unconditional-w0.25-kl0.01-fast", "unconditional-w0.25-kl0.0005-fast"


def test_the_fast_recipe_is_as_low_in_a_fifth_of_the_epochs(study):
    """'Its second epoch already ends at ...; the longest plain run gets to ... the same height in a fifth'"""
    longest = max(curves(study, "plain"), key=len)
    assert len(longest) == 10 and mean(at_epoch(study, "spatial, 4 epochs", 2)) <= longest[-1]
    assert len(curves(study, "spatial, 4 epochs")) == len(SEEDS) and ARMS["spatial, 4 epochs"].epochs == 4


def test_plain_seeds_agree_well_enough_for_one_to_stand_for_them(study):
    """The longest plain run is no unlucky one: where all three seeds are, it lies among or below them."""
    at_end = at_epoch(study, "plain")
    assert len(at_end) == len(SEEDS)
    longest = max(curves(study, "plain"), key=len)
    assert longest[min(map(len, curves(study, "plain"))) - 1] <= max(at_end) * 1.03


def test_the_plain_recipe_is_not_claimed_to_the_end(study):
    """'Nobody has waited for that here'"""
    assert max(map(len, curves(study, "plain"))) < ARMS["plain"].epochs == 100


def test_smaller_batches_and_higher_rates_did_better_in_the_search(study):
    """The table of TRAINING.md, and 'Smaller batches and higher rates come out lower throughout'"""
    text = (ROOT / "TRAINING.md").read_text(encoding="utf-8")
    found = {(config.batch_size, config.learning_rate): at_epoch(study, arm)[0] for arm, config in SEARCH.items()}
    for (size, rate), loss in found.items():
        assert f"| {size} | {rate:g} | {loss:.5f} |" in text
        for (other_size, other_rate), other in found.items():
            if size == other_size and rate > other_rate or rate == other_rate and size < other_size:
                assert loss < other


def test_the_error_is_several_times_smaller_than_the_loss_assumes(ends):
    """'several times smaller than the 0.08 our loss assumes'"""
    assert 3 * ends[SPATIAL][0]["test_recon"] < 0.08


def test_the_small_weight_buys_sharpness_with_nats(ends):
    """'With the small weight the reconstructions are crisp', 'lose some detail'"""
    assert 1.5 * ends[SHARP][0]["test_recon"] < ends[CLEAR][0]["test_recon"]
    assert ends[SHARP][0]["test_kl"] > 2 * ends[CLEAR][0]["test_kl"]


def test_neither_model_is_ahead_on_both_sides(ends):
    """'it comes closer to the image, and pays for it in nats'"""
    assert ends[ADALN][0]["test_recon"] < ends[SPATIAL][0]["test_recon"]
    assert ends[ADALN][0]["test_kl"] > ends[SPATIAL][0]["test_kl"]


def test_adaln_lies_among_the_spatial_seeds(study):
    """'lies in the middle of the spatial seeds', 'no advantage here that seeds could not explain'"""
    spatial = at_epoch(study, "spatial, 4 epochs")
    assert min(spatial) < mean(at_epoch(study, "adaLN, 4 epochs")) < max(spatial)


def test_reconstruction_falls_while_the_kl_hardly_moves(study):
    """'Reconstruction falls in every epoch, while the mean KL hardly moves after the first'"""
    (run,) = (run for run in study if run["arm"] == "spatial, 4 epochs" and run["seed"] == 44)
    recon, kl = ([row[term] for row in run["history"]] for term in ("test_recon", "test_kl"))
    assert recon == sorted(recon, reverse=True) and max(kl) < 1.05 * min(kl)


def test_adaln_has_about_a_fifth_more_parameters(ends):
    """'... more parameters on the adaLN side', at the full width and at this one"""
    more = count_parameters(ends[ADALN][1]) / count_parameters(ends[SPATIAL][1]) - 1
    assert 0.2 < more < 0.24 and 0.2 < 3_804_195 / 3_099_273 - 1 < 0.24


def test_the_recipes_are_as_the_texts_say():
    """'32 images', 'a peak of 0.006', 'the last 500 steps', and the table of TRAINING.md"""
    plain, fast = RECIPES["plain"], RECIPES["fast"]
    page = (ROOT / "posts/class_conditional_vae/class_conditional_vae.qmd").read_text(encoding="utf-8")
    assert f"{fast['batch_size']} images a step make eight times" in page
    assert plain["batch_size"] == 8 * fast["batch_size"]
    assert f"a peak of {fast['learning_rate']}" in page
    assert f"the last {round(1 / (1 - fast['ema_decay']))} steps" in page
    text = (ROOT / "TRAINING.md").read_text(encoding="utf-8")
    for name in ("epochs", "batch_size"):
        assert f"| {name.replace('_', ' ')} | {plain[name]} | {fast[name]} |" in text
    assert f"| {plain['learning_rate']}, constant | {fast['learning_rate']} at its peak, one cycle |" in text
    assert f"| none | decay {fast['ema_decay']} |" in text
