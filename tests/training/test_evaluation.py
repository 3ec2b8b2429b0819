import json

import numpy as np
import pytest

from perceiver import InputError
from perceiver.training.evaluation import Task, classified, confusion, measured, scores, segmented, write_lines

NAMES = ("cat", "dog", "hen")


def test_accuracy_comes_with_its_interval_and_a_line_for_each_item():
    labels = np.arange(200) % 3
    found = np.where(np.arange(200) < 150, labels, (labels + 1) % 3)
    judged = classified([f"{i}.png" for i in range(200)], labels, found, NAMES)
    figures = scores(judged)
    assert figures["accuracy"] == 0.75
    assert figures["items"] == 200
    between = figures["interval_95"]["accuracy"]
    # the normal approximation: 0.75 +- 1.96 sqrt(0.75 * 0.25 / 200) = 0.75 +- 0.060
    assert between["low"] == pytest.approx(0.69, abs=0.01)
    assert between["high"] == pytest.approx(0.81, abs=0.01)
    assert judged.lines[151] == {"item": "151.png", "label": "dog", "prediction": "hen", "correct": False}


def test_overlaps_are_those_of_all_elements_together_and_absent_classes_do_not_count():
    first = confusion(np.array([0, 0, 1, -1]), np.array([0, 1, 1, 0]), 3)
    second = confusion(np.array([0, 1]), np.array([0, 0]), 3)
    figures = scores(segmented(["a", "b"], np.stack([first, second]), NAMES))
    # cat: 2 of 4 that are or were called cat; dog: 1 of 3; no hen at all
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["iou_cat"] == pytest.approx(2 / 4)
    assert figures["iou_dog"] == pytest.approx(1 / 3)
    assert figures["miou"] == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert "iou_hen" not in figures


def test_whole_items_are_resampled():
    # two items that differ entirely: the interval spans both, however many elements each has
    right, wrong = np.diag([500, 500]), np.array([[0, 500], [500, 0]])
    between = scores(segmented(["a", "b"], np.stack([right, wrong]), NAMES[:2]))["interval_95"]["accuracy"]
    assert between == {"low": 0.0, "high": 1.0}


def test_means_of_numbers_and_a_single_item_has_no_interval():
    figures = scores(measured(["a", "b"], {"psnr_db": np.array([20.0, 30.0])}))
    assert figures["psnr_db"] == 25.0
    assert scores(measured(["a"], {"psnr_db": np.array([20.0])})) == {"psnr_db": 20.0, "items": 1}


def task():
    return Task(lambda root: {"train": [1, 2], "validation": [], "test": [3]}, lambda model, items: items)


def test_a_split_or_all_of_them():
    assert task().items(None, "test") == [3]
    assert task().items(None, "all") == [1, 2, 3]


def test_an_unknown_or_empty_split_says_what_there_is():
    with pytest.raises(InputError, match=r"train, validation, test or all, got 'tests'"):
        task().items(None, "tests")
    with pytest.raises(InputError, match=r"'validation': there is nothing in it \(train 2, validation 0, test 1\)"):
        task().items(None, "validation")


def test_lines_are_written_whole(tmp_path):
    judged = classified(["ä", "b"], np.array([0, 1]), np.array([0, 0]), NAMES)
    write_lines(judged, tmp_path / "new" / "lines.jsonl")
    lines = (tmp_path / "new" / "lines.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["item"] for line in lines] == ["ä", "b"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lines.jsonl"]


def test_several_questions_have_figures_and_lines_each(tmp_path):
    both = {"left": measured(["a"], {"error": np.array([1.0])}), "right": measured(["b"], {"error": np.array([2.0])})}
    assert scores(both) == {"left": {"error": 1.0, "items": 1}, "right": {"error": 2.0, "items": 1}}
    write_lines(both, tmp_path / "lines.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert lines == [{"question": "left", "item": "a", "error": 1.0}, {"question": "right", "item": "b", "error": 2.0}]
