import numpy as np
import pytest

from perceiver import viz
from perceiver.io import read_image


def test_curves_draw_training_and_validation_of_every_metric(tmp_path):
    lines = [{"step": s, "group": "train", "loss": 1.0 / s, "accuracy": s / 10} for s in range(1, 9)]
    lines += [{"step": 4, "group": "validation", "accuracy": 0.5}]
    viz.curves(lines, tmp_path / "curves.png", "a run")
    few = read_image(tmp_path / "curves.png", channels=3)
    viz.curves([{**line, "more": 1.0, "still_more": 2.0} for line in lines], tmp_path / "more.png", "a run")
    assert read_image(tmp_path / "more.png").shape[:2] > few.shape[:2]
    assert few.std() > 5


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_images_grow_with_their_count(tmp_path, channels):
    images = np.random.default_rng(0).random((4, 6, 6, channels))
    viz.image_rows({"one": images}, tmp_path / "one.png", ["a", "b", "c", "d"])
    viz.image_rows({"one": images, "two": images}, tmp_path / "two.png")
    heights = [read_image(tmp_path / f"{name}.png").shape[0] for name in ("one", "two")]
    assert heights[1] > heights[0]


def test_points_are_coloured_by_class_and_unlabelled_ones_left_out(tmp_path):
    points = np.random.default_rng(0).uniform(-5, 5, (2, 40, 3))
    none, some = np.full((2, 40), -1), np.arange(80).reshape(2, 40) % 3
    pictures = []
    for name, labels in (("none", none), ("some", some)):
        viz.classified_points(points, {"found": labels}, ("a", "b", "c"), tmp_path / f"{name}.png")
        pictures.append(read_image(tmp_path / f"{name}.png", channels=3))
    ink = [(picture.min(axis=-1) < 200).mean() for picture in pictures]
    assert ink[1] > ink[0] + 0.002


def test_clouds_seen_from_above_show_labellings_beside_each_other(tmp_path):
    points = np.random.default_rng(0).uniform(-5, 5, (1, 400, 3))
    labels, path = np.arange(400)[None] % 3, tmp_path / "above.png"
    shapes = []
    for rows in ({"one": labels}, {"one": labels, "two": labels}):
        viz.classified_points(points, rows, ("a", "b", "c"), path, above=True)
        shapes.append(read_image(path).shape)
    assert shapes[1][0] == shapes[0][0]
    assert shapes[1][1] > shapes[0][1]


def test_attention_shows_where_the_weight_is(tmp_path):
    images = np.zeros((1, 8, 8, 1))
    left, right = np.zeros((2, 1, 2, 8, 8))
    left[..., 0], right[..., -1] = 1, 1
    pictures = []
    for name, weights in (("left", left), ("right", right)):
        viz.attention_over_image(images, weights, [0], tmp_path / f"{name}.png", ["0"])
        pictures.append(read_image(tmp_path / f"{name}.png", channels=3))
    assert not np.array_equal(*pictures)
