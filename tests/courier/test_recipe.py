"""The courier's recipe: samples are what a control loop gives, and all of it goes through, DAgger included."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: pip install 'perceiver[robotics]'")
pytest.importorskip("gymnasium", reason="needs gymnasium: pip install 'perceiver[robotics]'")

from experiments.courier import courier
from experiments.courier_arena.demonstrations import demonstrations
from experiments.courier_arena.environment import Courier
from experiments.courier_arena.judging import Judge
from experiments.courier_arena.samples import HORIZON, KEYS, SENSORS, given, in_the_mirror, model, sample
from experiments.courier_arena.task import mirrored, reworded, wordings
from experiments.courier_arena.world import COLOURS
from perceiver import ConfigError, cli
from perceiver.control.observations import Observations


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    return demonstrations(tmp_path_factory.mktemp("recordings"), 0, 2, HORIZON)


def test_demonstrations_are_recorded_once(moments, tmp_path, monkeypatch):
    first = demonstrations(tmp_path, 5, 1, HORIZON)
    monkeypatch.setattr("experiments.courier_arena.demonstrations.Courier", None)  # nothing to record with
    again = demonstrations(tmp_path, 5, 1, HORIZON)
    assert len(first) == len(again) > 20
    assert np.array_equal(first[7].points, again[7].points)


def test_a_sample_is_what_a_control_loop_gives(moments):
    observations = Observations(model(1, 8, 1))
    obs, _ = Courier().reset(seed=0)
    observations.add(obs)
    live, kept = observations.given(), given(moments[0])
    assert set(live.inputs) == set(kept["inputs"]) == set(KEYS)
    for name, raw in kept["inputs"].items():
        assert np.array_equal(live.masks[name][0], kept["masks"][name])
        assert raw.dtype == live.inputs[name].dtype
        np.testing.assert_allclose(raw, live.inputs[name][0], atol=3e-3)  # float16 and 16 bits
    failed = given(moments[0], SENSORS["sound"])
    assert not failed["masks"]["left"].any()
    assert failed["masks"]["lidar"].any()


def test_the_mirror_is_the_same_world_from_the_other_side(moments):
    moment = moments[10]
    there = in_the_mirror(moment)
    back = in_the_mirror(there)
    for name in ("state", "points", "left", "right", "actions", "places"):
        assert np.array_equal(getattr(back, name), getattr(moment, name))
    assert back.text == moment.text != there.text
    assert np.array_equal(there.actions[:, 0], moment.actions[:, 1])
    for place in there.places[: len(COLOURS)]:  # near where a crate is, there is an echo
        gaps = np.linalg.norm(there.points[:, :2].astype(np.float32) - place, axis=1)
        assert gaps.min() < 0.6 or np.linalg.norm(place) > 1.5  # what is far may be hidden


def test_other_words_say_the_same():
    rng = np.random.default_rng(0)
    known = set(wordings(False))
    for text in sorted(known)[::37]:
        other = reworded(text, rng)
        assert other in known
        assert ("left" in other) == ("left" in text)
        assert [c in other for c in COLOURS] == [c in text for c in COLOURS]
        assert mirrored(mirrored(text)) == text
        assert ("left" in mirrored(text)) != ("left" in text)


def test_sensors_fail_as_often_as_is_said(moments):
    rng = np.random.default_rng(0)
    masks = [sample(moments[i % len(moments)], rng, 0.5)["masks"] for i in range(200)]
    for names in SENSORS.values():
        shares = [np.mean([mask[name].any() for mask in masks]) for name in names]
        assert 0.35 < shares[0] < 0.65
        assert len(set(shares)) == 1
    assert all(mask["text"].any() for mask in masks)
    assert all(mask["lidar"].any() for mask in [sample(moments[0], rng, 0.0)["masks"]] * 3)


@pytest.fixture(scope="module")
def untrained():
    return model(4, 16, 1).build()


@pytest.mark.slow
def test_a_policy_is_judged_with_and_without_its_sensors(untrained, tmp_path):
    judge = Judge(range(2), most_steps=3)
    scores = judge.without_sensors(untrained) | judge.beside()
    assert set(scores) == {"expert", "random", *(f"without {sensor}" for sensor in (*SENSORS, "words"))}
    for figures in scores.values():
        assert (figures["episodes"], figures["mean_length"]) == (2, 3.0)
        assert figures["success_rate"] == 0.0  # in three steps
    judge.pictures(untrained, tmp_path)
    assert (tmp_path / "paths.png").stat().st_size > 10_000
    assert (tmp_path / "episode.gif").read_bytes()[:6] == b"GIF89a"


@pytest.mark.slow
def test_corrections_are_gathered_by_the_policy_and_learned_beside_the_demonstrations(untrained, tmp_path):
    experiment = courier(recordings=tmp_path, episodes=1, batch=4, dagger=1)
    assert experiment.pretraining is not None
    with pytest.raises(ConfigError, match=r"still to be made"):
        _ = experiment.stream
    assert len(experiment.pretraining.begun(None).stream[0]["inputs"]["lidar"]) == 4
    experiment.begun(untrained)
    kept = {place.name.split("-")[2]: np.load(place / "episode.npy") for place in tmp_path.iterdir()}
    assert set(kept) == {"expert", "corrected"}
    assert not set(kept["expert"]) & set(kept["corrected"])


def test_a_brief_version_has_little_to_record_and_to_judge(tmp_path):
    brief = cli.shortened(courier(recordings=tmp_path, dagger=1))
    assert brief.steps == brief.pretraining.steps == cli.SMOKE_STEPS
    assert brief.pretraining.pretraining is None
    brief.pretraining.begun(None)
    (recorded,) = tmp_path.iterdir()
    assert len(set(np.load(recorded / "episode.npy"))) == 2


@pytest.mark.slow
def test_the_recipe_goes_through_with_a_round_of_corrections(tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    path = Path("experiments/courier.py")
    words = ["--recordings", str(tmp_path / "recordings"), "--dagger", "1", "--workdir", str(tmp_path / "run")]
    cli.main(["train", str(path), "--smoke", *words])
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["test"]["episodes"] == 1
    assert 0.0 <= report["test"]["success_rate"] <= 1.0
    assert {"expert", "random"} <= set(report["baselines"])
    assert {"untrained", "without lidar", "without sound", "without odometry", "without words"} <= set(
        report["control"]
    )
    assert report["pretraining"]["test"]["episodes"] == 1
    assert report["training"]["compilations"] == 1
    assert {"paths.png", "episode.gif"} <= {path.name for path in (tmp_path / "run").iterdir()}
    recorded = sorted(place.name for place in (tmp_path / "recordings").iterdir())
    assert sum("corrected" in name for name in recorded) == 1
    assert f"perceiver train {path}" in path.read_text(encoding="utf-8")
