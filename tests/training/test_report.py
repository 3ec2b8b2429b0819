import json
import math

import pytest

from perceiver import InputError
from perceiver.training.report import Finished, claim, flat, run, spread
from tests.training.test_loop import tiny_experiment


def test_a_report_holds_test_baselines_controls_companions_and_seconds(tmp_path):
    companion = tiny_experiment(name="alone", steps=2)
    drawn = []
    experiment = tiny_experiment(
        baselines=lambda: {"guess": 1 / 3},
        controls=lambda model: {"shuffled": {"accuracy": 0.3}},
        pictures=lambda model, folder: drawn.append(folder),
        companions={"one sense alone": companion},
    )
    ended = run(experiment, tmp_path, {"seed": 0})
    assert isinstance(ended, Finished)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == json.loads(json.dumps(ended.report))
    assert report["baselines"] == {"guess": 1 / 3}
    assert report["control"].keys() == {"untrained", "shuffled"}
    assert report["companions"]["one sense alone"]["test"].keys() == {"accuracy"}
    assert report["seconds"] >= report["training"]["seconds"] > 0
    assert report["training"]["parameters"] > 1000
    assert drawn == [tmp_path, tmp_path / "one_sense_alone"] or drawn == [tmp_path]
    page = (tmp_path / "report.md").read_text()
    for words in ("# tiny", "untrained", "guess", "shuffled", "one sense alone", "curves.png"):
        assert words in page


def test_a_stopped_run_has_no_report(tmp_path):
    outcome = run(tiny_experiment(), tmp_path, {}, stop_at=2)
    assert not isinstance(outcome, Finished)
    assert not (tmp_path / "report.json").exists()


def test_a_folder_is_for_one_set_of_arguments(tmp_path):
    claim("a", tmp_path, {"seed": 0})
    claim("a", tmp_path, {"seed": 0})
    with pytest.raises(InputError, match="seed was 0, is 1"):
        claim("a", tmp_path, {"seed": 1})
    with pytest.raises(InputError, match="experiment was 'a', is 'b'"):
        claim("b", tmp_path, {"seed": 0})


def test_spread_is_the_sample_deviation():
    assert spread([0.9]) == "0.9000"
    assert spread([0.9, 1.0]) == f"0.9500 ± {math.sqrt(0.005):.4f}"


def test_figures_are_flattened_by_name():
    assert flat({"a": 1, "b": {"c": 2.5, "d": "text"}, "e": True, "f": float("nan")}) == {"a": 1.0, "b.c": 2.5}
