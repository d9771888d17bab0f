"""The study: resumable, never forgetful, and its results are those of the shipped configurations."""

import json
import shutil

import pytest

from cvae_support import study
from cvae_support.__main__ import main
from cvae_support.checkpoints import SHIPPED_FOLDER, load_checkpoint, load_record, save_checkpoint
from cvae_support.config import Config
from cvae_support.judge import judge_hashes
from cvae_support.study import ARMS, SEEDS, at_epoch, curves, read, with_spread
from cvae_support.training import train


@pytest.fixture
def small_study(few, config, tmp_path, monkeypatch):
    """Two tiny arms at two seeds, with folders of their own."""
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "RESULTS_FOLDER", tmp_path)
    monkeypatch.setattr(study, "SEEDS", (1, 2))
    arms = {"one": config(epochs=1), "two": config(epochs=2)}
    for name in ("ARMS", "MEASURED"):
        monkeypatch.setattr(study, name, arms)
    monkeypatch.setattr(study, "CLASS_AWARE", {})
    monkeypatch.setattr(study, "load_judge", lambda name: name)
    monkeypatch.setattr(study, "evaluate", lambda model, *_, **__: {"seed_seen": model.config.seed})
    monkeypatch.setattr(study, "floors", lambda *_: {"real": {}})
    monkeypatch.setattr(study, "reconstructions", lambda *_: {})
    return few


def test_the_study_trains_what_is_missing_and_only_that(small_study, monkeypatch):
    study.study(small_study)
    found = read("study")
    assert {(run["arm"], run["seed"]) for run in found} == {("one", 1), ("one", 2), ("two", 1), ("two", 2)}
    assert all(len(run["history"]) == run["epochs"] for run in found)
    assert found[0]["history"][0]["test_recon"] != found[-1]["history"][0]["test_recon"]

    monkeypatch.setattr("cvae_support.training.train", lambda *_, **__: pytest.fail("trained again"))
    study.study(small_study)
    assert read("study") == found


def test_a_damaged_run_is_named_and_stops_no_other(small_study, capsys):
    study.study(small_study)
    damaged = study.run_folder(Config(**vars(study.ARMS["one"]) | {"seed": 1}), small_study.checksum) / "last.json"
    damaged.write_text(damaged.read_text()[:-40])
    found = study.collect(study.ARMS, small_study)
    assert {(run["arm"], run["seed"]) for run in found} == {("one", 2), ("two", 1), ("two", 2)}
    assert f"{damaged} is not a checkpoint" in capsys.readouterr().out


def test_what_is_trained_is_measured_and_only_once(small_study, monkeypatch):
    study.study(small_study)
    assert [run["measures"]["seed_seen"] for run in read("measures")] == [run["seed"] for run in read("measures")]
    assert {(run["arm"], run["seed"]) for run in read("measures")} == {(a, s) for a in ("one", "two") for s in (1, 2)}
    assert study.measured("two") == [{"seed_seen": 1}, {"seed_seen": 2}]
    with monkeypatch.context() as patch:
        patch.setattr(study, "evaluate", lambda *_, **__: pytest.fail("measured again"))
        study.study(small_study)

    before, *rest = read("measures")  # a result that is lost is made again, and only that
    (study.RESULTS_FOLDER / "measures.json").write_text(json.dumps(rest))
    monkeypatch.setattr(study, "evaluate", lambda model, *_, **__: {"seed_seen": model.config.seed, "again": True})
    study.study(small_study)
    assert [run["measures"].get("again") for run in read("measures")] == [None, None, None, True]
    assert (read("measures")[-1]["arm"], read("measures")[-1]["seed"]) == (before["arm"], before["seed"])


def test_a_run_can_be_measured_class_aware_beside(small_study, monkeypatch):
    monkeypatch.setattr(study, "CLASS_AWARE", {"two, class-aware": study.ARMS["two"]})
    monkeypatch.setattr(study, "evaluate", lambda *_, class_aware: {"aware": class_aware})
    study.study(small_study)
    assert {run["arm"] for run in read("study")} == {"one", "two"}  # nothing more is trained
    assert study.measured("two") == [{"aware": False}] * 2
    assert study.measured("two, class-aware") == [{"aware": True}] * 2


def test_a_seed_that_ships_is_measured_by_its_own_weights_and_no_other(small_study, tmp_path, monkeypatch):
    """Two seeds have one name, and only one of them ships."""
    study.study(small_study)
    one, two = (Config(**vars(study.ARMS["two"]) | {"seed": seed}) for seed in (1, 2))
    mine = study.final_checkpoint(one, small_study)
    assert mine.is_relative_to(tmp_path / "cache") and load_record(mine)["config"]["seed"] == 1
    monkeypatch.setattr(study, "SHIPPED_FOLDER", tmp_path / "weights")
    shipped = tmp_path / "weights" / f"{one.name}.json"
    tensors, record = load_checkpoint(mine)
    save_checkpoint(shipped, tensors, one, **{key: record[key] for key in ("data", "classes", "history")})
    assert study.final_checkpoint(one, small_study) == shipped
    assert load_record(study.final_checkpoint(two, small_study))["config"]["seed"] == 2
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path / "empty"))
    assert study.final_checkpoint(one, small_study) == shipped and study.final_checkpoint(two, small_study) is None


def test_a_run_in_the_folder_of_another_is_not_taken_for_it(small_study):
    study.study(small_study)
    one, two = (Config(**vars(study.ARMS["two"]) | {"seed": seed}) for seed in (1, 2))
    shutil.rmtree(study.run_folder(two, small_study.checksum))
    study.run_folder(one, small_study.checksum).rename(study.run_folder(two, small_study.checksum))
    assert study.final_checkpoint(two, small_study) is None


def test_measures_by_other_judges_are_made_again(small_study, monkeypatch):
    study.study(small_study)
    assert all(run["judges"] == judge_hashes() for run in read("measures"))
    monkeypatch.setattr(study, "judge_hashes", lambda: ["another", "pair"])
    monkeypatch.setattr(
        study, "local_run", lambda *_: pytest.fail("trained again, where weights and history are there")
    )
    study.study(small_study)
    assert all(run["judges"] == ["another", "pair"] for run in read("measures"))
    assert read("floors")["made_with"]["judges"] == ["another", "pair"]


def test_the_shipped_measures_are_by_the_shipped_judges():
    """And the yardsticks beside them by the same, with reconstructions of the spatial model that ships."""
    assert all(run["judges"] == judge_hashes() for run in read("measures"))
    shipped = load_record(SHIPPED_FOLDER / f"{study.FULL.name}.json")
    assert read("floors")["made_with"] == {"judges": judge_hashes(), "reconstructions_of": shipped["fingerprint"]}


def test_an_unfinished_run_is_reported_as_far_as_it_got(small_study, stop_in_epoch_two):
    stop_in_epoch_two()
    with pytest.raises(KeyboardInterrupt):
        study.study(small_study)
    table = study.study(small_study, train=False)
    by_arm = {run["arm"]: run for run in read("study")}
    assert len(by_arm["one"]["history"]) == 1 and len(by_arm["two"]["history"]) == 1 and by_arm["two"]["epochs"] == 2
    assert [list(table.columns[i].cells) for i in (0, 2, 3)] == [["one", "two"], ["1", "1"], ["1", "2"]]


def test_results_of_another_machine_are_not_forgotten(small_study, tmp_path, monkeypatch):
    study.study(small_study)
    found = read("study")
    monkeypatch.setenv("CVAE_CACHE", str(tmp_path / "empty"))  # a fresh clone has the results and no runs
    study.study(small_study, train=False)
    assert read("study") == found

    with monkeypatch.context() as patch:  # and what is in the results is neither trained nor measured again
        patch.setattr("cvae_support.training.train", lambda *_, **__: pytest.fail("trained again"))
        study.study(small_study)
        assert read("study") == found

    shorter = [run | {"history": run["history"][:1]} for run in found]
    assert study.keep("study", shorter) == found
    retrained = [run | {"history": [row | {"test_recon": 9.0} for row in run["history"]]} for run in found]
    assert study.keep("study", retrained) == found  # the measures are of the first
    with monkeypatch.context() as patch:
        patch.setattr(study, "write_atomically", lambda *_: pytest.fail("written, with nothing new"))
        study.keep("study", shorter)
    changed = [run | {"fingerprint": "another"} for run in shorter]
    assert study.keep("study", changed) == changed


def test_the_shipped_results_are_of_todays_configurations():
    """Change an arm or a recipe, and its results are no longer its own: they have to be made again."""
    for run in read("study"):
        config = ARMS[run["arm"]]
        assert run["seed"] in SEEDS and run["epochs"] == config.epochs
        assert run["fingerprint"] == Config(**vars(config) | {"seed": run["seed"]}).fingerprint
        assert [row["epoch"] for row in run["history"]] == list(range(1, len(run["history"]) + 1))


def test_rate_and_distortion_are_sums_over_an_image(config, monkeypatch):
    monkeypatch.setattr(study, "ARMS", {"arm": config()})
    rows = [{"test_recon": 1.0, "test_kl": 1.0}, {"test_recon": 0.01, "test_kl": 0.5}]
    found = [{"arm": "arm", "epochs": epochs, "history": rows} for epochs in (2, 3)]  # the second is not done
    assert study.ends(found, "arm") == [(24.5, 7.84)]


def test_what_the_page_reads(few, config, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "ARMS", {"arm": config(kl_weight=0.5)})
    rows = [[(0.5, 1.0), (0.25, 1.0), (0.125, 1.0)], [(0.5, 2.0), (0.5, 1.0)]]
    found = [{"arm": "arm", "history": [{"test_recon": r, "test_kl": k} for r, k in run]} for run in rows]
    assert curves(found, "arm") == [[1.0, 0.75, 0.625], [1.5, 1.0]]
    assert at_epoch(found, "arm") == [0.75, 1.0]  # the last epoch that both have reached
    assert at_epoch(found, "arm", 3) == [0.625]
    assert with_spread([1.0, 3.0]) == "2.00000 ± 1.41421" and with_spread([0.5]) == "0.50000"


def test_report_prints_the_table(capsys, tmp_path, monkeypatch):
    shutil.copy(study.RESULTS_FOLDER / "study.json", tmp_path)
    monkeypatch.setattr(study, "RESULTS_FOLDER", tmp_path)
    assert main(["study", "--report"]) == 0
    printed = capsys.readouterr().out
    assert "plain" in printed and "MLP peer" in printed and "Fréchet" in printed and "Label swap" in printed


def test_a_run_and_the_study_share_the_folder(small_study, config, tmp_path):
    """`train` with the same settings is found by the study, and the other way round."""
    wanted = Config(**vars(config(epochs=1)) | {"seed": 1})
    folder = tmp_path / "cache" / "runs" / f"{wanted.name}-{wanted.fingerprint[:8]}-{small_study.checksum[:8]}"
    train(wanted, small_study, folder)
    study.study(small_study, train=False)
    assert [run["arm"] for run in read("study")] == ["one"]
