"""What the post says of its results, held against the records of the weights that ship.

The numbers in the text are computed where they stand; these are the sentences around them.
"""

import pytest

from cvae_support.checkpoints import SHIPPED_FOLDER, load_model
from cvae_support.models import count_parameters


@pytest.fixture(scope="module")
def ends():
    """The last row of each run's history, and each model."""
    loaded = {path.stem: load_model(path) for path in SHIPPED_FOLDER.glob("*.json")}
    return {name: (record["history"][-1], model) for name, (model, record) in loaded.items()}


SPATIAL, ADALN, PLAIN = "spatial-w0.25-kl0.01-fast", "adaln-w0.25-kl0.01-fast", "spatial-w0.25-kl0.01-plain"


def total(row):
    return row["test_recon"] + 0.01 * row["test_kl"]


def test_the_fast_recipe_ends_lower_than_the_plain_one(ends):
    """'After 10 epochs the test loss is ... with the fast recipe and ... with the plain one.'"""
    assert total(ends[SPATIAL][0]) < total(ends[PLAIN][0])
    assert ends[SPATIAL][0]["epoch"] == ends[PLAIN][0]["epoch"] == 10


def test_the_error_is_several_times_smaller_than_the_loss_assumes(ends):
    """'several times smaller than the 0.08 our loss assumes'"""
    assert 3 * ends[SPATIAL][0]["test_recon"] < 0.08


def test_adaln_ends_lower_in_both_terms(ends):
    """'adaLN ends lower in both panels'; 'ahead on both sides of the bargain'"""
    for term in ("test_recon", "test_kl"):
        assert ends[ADALN][0][term] < ends[SPATIAL][0][term]


def test_adaln_has_about_a_fifth_more_parameters(ends):
    """'... more parameters on the adaLN side', at the full width and at this one"""
    more = count_parameters(ends[ADALN][1]) / count_parameters(ends[SPATIAL][1]) - 1
    assert 0.2 < more < 0.24 and 0.2 < 3_804_195 / 3_099_273 - 1 < 0.24
