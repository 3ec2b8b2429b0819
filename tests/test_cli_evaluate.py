"""A trained model on another folder of the same layout."""

import json

import numpy as np
import pytest

from data.wall_following_robot import CLASSES, HEADER
from perceiver import cli
from tests.started import ended

EXPERIMENT = "experiments/wall_following.py"


def write_drive(root, rows, seed):
    place = root / "wall_following_robot"
    place.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    ranges = rng.uniform(0.3, 5.0, (rows, 24))
    commands = [CLASSES[place] for place in (ranges[:, 0] // 1.3).astype(int)]
    lines = [
        ",".join([*(f"{number:.3f}" for number in row), command]) for row, command in zip(ranges, commands, strict=True)
    ]
    (place / "drive.csv").write_text("\n".join([",".join(HEADER), *lines]) + "\n")
    return root


@pytest.fixture(scope="module")
def here(request):
    patch = pytest.MonkeyPatch()
    patch.chdir(request.config.rootpath)
    patch.setenv("COLUMNS", "120")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def run(tmp_path_factory, here):
    folder = tmp_path_factory.mktemp("wall")
    own = write_drive(folder / "own", 100, 0)
    words = ["--root", str(own), "--channels", "16", "--depth", "1", "--batch", "8"]
    cli.main(["train", EXPERIMENT, "--smoke", "--workdir", str(folder / "run"), *words])
    for path in (own / "wall_following_robot").iterdir():
        path.unlink()  # what the model was trained on is not needed any more
    return folder / "run"


def test_figures_on_another_folder_with_a_line_for_each_item(run, tmp_path, capsys):
    other = write_drive(tmp_path / "other", 40, 1)
    words = ["evaluate", str(run), "--data", "wall_following_robot", "--root", str(other), "--split", "all"]
    capsys.readouterr()
    cli.main([*words, "--json"])
    figures = json.loads(capsys.readouterr().out)["test"]
    lines = [json.loads(line) for line in (run / "predictions-wall_following_robot-all.jsonl").read_text().splitlines()]
    assert figures["items"] == len(lines) == 40
    assert figures["accuracy"] == np.mean([line["correct"] for line in lines])
    between = figures["interval_95"]["accuracy"]
    assert between["low"] <= figures["accuracy"] <= between["high"]
    assert {line["label"] for line in lines} <= set(CLASSES)

    cli.main([*words, "--predictions", str(tmp_path / "elsewhere.jsonl")])
    assert f"{figures['accuracy']:.6f}" in capsys.readouterr().out
    assert len((tmp_path / "elsewhere.jsonl").read_text().splitlines()) == 40


def test_the_models_own_folder_will_do(run, tmp_path, capsys):
    other = write_drive(tmp_path / "other", 40, 1)
    cli.main(["evaluate", str(run / "model"), "--data", "wall_following_robot", "--root", str(other), "--json"])
    assert json.loads(capsys.readouterr().out)["test"]["items"] == 8  # the last fifth


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "fsdd"], "asks its models about wall_following_robot"),
        (["--data", "wall_following_robot", "--root", "nowhere"], "the dataset 'wall_following_robot' is not there"),
        (["--split", "all"], "name it with --data"),
        (["--data", "digits", "--experiment", "experiments/elastic.py"], "expected TASKS"),
    ],
)
def test_what_cannot_be_evaluated_says_why(run, words, message, capsys):
    assert message in ended(["evaluate", str(run), *words], 2, capsys).err.replace("\n", " ")


PAIR = """
import dataclasses
from pathlib import Path

from experiments.wall_following import wall_following
from perceiver.training.experiment import Experiment


def pair(root: Path | None = None) -> Experiment:
    one = wall_following(root=root, channels=16, depth=1, batch=8)
    return dataclasses.replace(one, name="pair", companions={"the other": dataclasses.replace(one, seed=1)})
"""


@pytest.mark.slow
def test_what_was_trained_beside_it_has_its_own_figures(here, tmp_path, capsys):
    own, run = write_drive(tmp_path / "own", 100, 0), tmp_path / "run"
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "pair.py"
    file.write_text(PAIR)
    cli.main(["train", str(file), "--smoke", "--workdir", str(run), "--root", str(own)])
    report = json.loads((run / "report.json").read_text())
    capsys.readouterr()
    for folder in (run / "the_other", run / "the_other" / "model"):
        cli.main(["evaluate", str(folder), "--experiment", str(file), "--json"])
        assert json.loads(capsys.readouterr().out)["test"] == report["companions"]["the other"]["test"]
    cli.main(["evaluate", str(run / "the_other"), "--experiment", str(file)])
    table = capsys.readouterr().out
    accuracy = report["companions"]["the other"]["test"]["accuracy"]
    assert [line.count(f"{accuracy:.6f}") for line in table.splitlines() if " accuracy " in line] == [2]
    (run / "the_other").rename(run / "nobody")
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(run / "nobody"), "--experiment", str(file)])
    assert "has the_other, not 'nobody'" in capsys.readouterr().err.replace("\n", " ")
