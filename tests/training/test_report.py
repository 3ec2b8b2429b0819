import json
import math

import numpy as np
import pytest

from perceiver import InputError
from perceiver.pipeline import Skipped, iterate, training_stream
from perceiver.training.figures import flat
from perceiver.training.report import Finished, claim, gains, run, spread
from tests.training.test_loop import tiny_experiment


def test_a_report_holds_test_baselines_controls_companions_and_seconds(tmp_path):
    companion = tiny_experiment(name="alone", steps=2)
    skipped = Skipped()
    skipped.add("picture 7", "7.png: expected a picture")
    drawn = []
    experiment = tiny_experiment(
        baselines=lambda: {"guess": 1 / 3},
        controls=lambda model: {"shuffled": {"accuracy": 0.3}},
        pictures=lambda model, folder: drawn.append(folder),
        companions={"one sense alone": companion},
        skipped=skipped,
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
    problems = {"picture 7": "7.png: expected a picture"}
    assert report["training"]["skipped_samples"] == {"count": 1, "problems": problems}
    assert "skipped_samples" not in report["companions"]["one sense alone"]
    page = (tmp_path / "report.md").read_text()
    assert "left out: 1.\n\n- picture 7: 7.png: expected a picture\n" in page
    for words in ("# tiny", "untrained", "guess", "shuffled", "one sense alone", "curves.png"):
        assert words in page


def test_what_is_gained_is_of_scores_from_the_same_test():
    whole = {"wer": 0.5, "items": 4, "interval_95": {"wer": {"low": 0.25, "high": 0.75}}, "only": 1.0}
    alone = {"wer": 0.75, "items": 4, "interval_95": {"wer": {"low": 0.5, "high": 1.0}}}
    assert gains(whole, alone) == {"wer": -0.25}
    assert gains(whole, {**alone, "items": 5}) == {}
    assert gains({"a": whole}, {"a": {**alone, "items": 5}}) == {}


def spoilt_experiment(bad, most=10):
    """tiny_experiment() of whose first batch `bad` samples cannot be read."""
    images, skipped = np.random.default_rng(0).random((40, 4, 4, 1), np.float32), Skipped(most)

    def number(index, rng):
        return {"inputs": {"number": np.int32(index)}}

    first = next(iterate(training_stream(range(40), number, seed=0, batch=8)))["inputs"]["number"][:bad]

    def sample(index, rng):
        if index in first:
            raise InputError(f"{index}.png: expected a picture")
        return {"inputs": {"image": images[index]}, "targets": {"label": np.int32(index % 3)}}

    stream = training_stream(range(40), sample, seed=0, batch=8, skipped=skipped, name="picture")
    return tiny_experiment(batches=stream, skipped=skipped, validate_every=4)


@pytest.mark.slow
def test_bad_samples_of_earlier_sessions_are_not_forgotten(tmp_path):
    first, later = spoilt_experiment(bad=2), spoilt_experiment(bad=0)
    run(first, tmp_path, {}, stop_at=2)
    run(later, tmp_path, {}, stop_at=3)
    assert len(first.skipped) == 2
    assert later.skipped.problems == first.skipped.problems


def test_too_many_bad_samples_end_the_training(tmp_path):
    with pytest.raises(InputError, match=r"more than 1 samples are bad(?s:.*)picture \d+: \d+\.png"):
        run(spoilt_experiment(bad=2, most=1), tmp_path, {})


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
