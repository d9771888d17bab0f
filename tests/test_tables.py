"""Tables of results: means, spreads, the best in bold, and dashes for what was not measured."""

from cvae_support.tables import COLUMNS, average, results_table


def test_the_best_of_those_compared_is_bold_and_the_spread_is_of_the_seeds():
    rows = {
        "real": [{"frechet_distance": 0.1, "coverage": 0.9}],
        "a": [{"frechet_distance": 2.0, "coverage": 0.5}, {"frechet_distance": 4.0, "coverage": 0.5}],
        "b": [{"frechet_distance": 3.5, "frechet_distance_std": 0.25, "coverage": None}],
    }
    lines = results_table(rows, ["frechet_distance", "coverage"], compared=["a", "b"]).splitlines()
    assert lines[0] == "| |Fréchet|Coverage,\xa0%|" and lines[1] == "|:----|--:|--:|"
    assert lines[2] == "| real |0.10|90.0|"  # not compared: never bold
    assert lines[3] == "| a |**3.00**\xa0±\xa01.41|**50.0**\xa0±\xa00.0|"  # lower is better here, higher there
    assert lines[4] == "| b |3.50\xa0±\xa00.25|–|"


def test_shares_are_in_per_cent_and_nothing_else_is():
    for heading, factor, _ in COLUMNS.values():
        assert factor == (100 if heading.endswith(", %") else 1)


def test_a_measure_with_no_better_side_has_no_best():
    assert "**" not in results_table({"a": [{"rate": 1.0}], "b": [{"rate": 2.0}]}, ["rate"], compared=["a", "b"])


def test_a_number_in_the_text_is_printed_as_in_the_table():
    runs = [{"conditional_accuracy": 0.8}, {"conditional_accuracy": 0.9}]
    assert average(runs, "conditional_accuracy") == "85.0"
    assert "85.0" in results_table({"a": runs}, ["conditional_accuracy"], compared=[])
