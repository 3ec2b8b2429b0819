"""Every recipe goes through: data, a few steps, baselines, report. What they reach is in their docstrings."""

import json
from pathlib import Path

import pytest

from perceiver import InputError, cli
from perceiver.training.figures import flat
from perceiver.training.load import load_experiment, load_module, tasks_of
from tests.datasets.making import coco, emoji, openclipart
from tests.small_data import COPIES, clothes, part_of

SMALL = ["--batch", "4", "--channels", "16", "--latents", "4"]
RECIPES = {
    "wall_following": [*SMALL, "--depth", "1"],
    "intents": [*SMALL, "--depth", "1", "--width", "16"],
    "bytes": [*SMALL, "--depth", "1", "--width", "16"],
    "spoken_digits": [*SMALL, "--depth", "1", "--voices", "20", "--no-speakers"],
    "speech": [*SMALL, "--depth", "1", "--no-unseen", "--no-prompted", "--no-letters"],
    "autoencode": SMALL,
    "lidar_segmentation": [*SMALL, "--depth", "1"],
    "fashion": [*SMALL, "--depth", "1", "--no-raw"],
    "emoji": ["--batch", "4", "--channels", "16", "--latents", "4", "--depth", "1"],
    "clipart": ["--batch", "4", "--channels", "16", "--latents", "4", "--depth", "1"],
    "digits_any": [*SMALL, "--voices", "20", "--no-beside"],
    "captions": [*SMALL, "--depth", "2"],
    "language_model": [*SMALL, "--depth", "1", "--length", "16"],
    "ask": [*SMALL, "--depth", "1", "--no-beside"],
    "any_resolution": [*SMALL, "--clothes", "--sound"],
    "masked_images": [*SMALL, "--depth", "1", "--clothes"],
}


@pytest.fixture(autouse=True)
def _at_the_project(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


@pytest.fixture(scope="module")
def small(data_root, tmp_path_factory):
    """A folder with a part of each dataset."""
    target = tmp_path_factory.mktemp("small")
    for name in COPIES:
        part_of(name, data_root, target)
    clothes(target / "fashion_mnist")
    for make in (emoji, openclipart, coco):
        make(target)
    return target


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_which_datasets_its_models_are_asked_about_and_how_it_is_run(name):
    path = Path("experiments") / f"{name}.py"
    tasks = tasks_of(load_module(path), path)
    assert tasks
    text = path.read_text(encoding="utf-8")
    assert f"perceiver train {path}" in text
    for dataset in tasks:
        assert (Path("data") / f"{dataset}.py").is_file()


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"fashion", "any_resolution", "masked_images"}))
def test_absent_data_is_said_at_once(name, tmp_path):
    with pytest.raises(InputError, match=r"is not there\. Get it from"):
        load_experiment(Path("experiments") / f"{name}.py")(root=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_through(name, tmp_path, small):
    path = Path("experiments") / f"{name}.py"
    options = ["--root", str(small), *RECIPES[name]]
    cli.main(["train", str(path), "--smoke", "--workdir", str(tmp_path / name), *options])
    report = json.loads((tmp_path / name / "report.json").read_text())
    items = [value for figure, value in flat(report["test"]).items() if figure.split(".")[-1] == "items"]
    assert items
    assert min(items) > 0
    assert report["baselines"] or report["pretraining"] or set(report["control"]) > {"untrained"}
    assert report["control"]["untrained"]
    assert report["training"]["compilations"] == 1
