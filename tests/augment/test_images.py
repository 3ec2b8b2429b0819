import numpy as np
import pytest

from perceiver import InputError
from perceiver.augment import cutout, flip, random_crop, random_erasing, random_resized_crop, shift_and_turn


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(height=8, width=10, channels=3):
    return rng(9).integers(0, 256, (height, width, channels), dtype=np.uint8)


def blob():
    image = np.zeros((9, 9, 2), np.uint8)
    image[3:6, 3:6] = 200
    return image


ALL = {
    "shift_and_turn": lambda image, rng: shift_and_turn(image, rng, shift=2.0, degrees=30.0, scale=0.2),
    "random_crop": lambda image, rng: random_crop(image, rng, padding=3, reflect=True),
    "random_resized_crop": lambda image, rng: random_resized_crop(image, rng, (8, 10)),
    "flip": flip,
    "random_erasing": lambda image, rng: random_erasing(image, rng, chance=0.9),
    "cutout": lambda image, rng: cutout(image, rng, side=4),
}


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("name", ALL)
def test_the_change_comes_from_the_generator_alone_and_the_input_stays(name, channels):
    image = noise(channels=channels)
    image.flags.writeable = False
    answers = [[ALL[name](image, rng(seed)) for seed in range(8)] for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))
    assert len({answer.tobytes() for answer in answers[0]}) > 1
    assert {(answer.shape, answer.dtype) for answer in answers[0]} == {(image.shape, image.dtype)}


def test_no_strength_is_no_change():
    image = noise()
    for same in (
        shift_and_turn(image, rng(), shift=0, degrees=0, scale=0),
        random_crop(image, rng()),
        random_resized_crop(image, rng(), (8, 10), area=(1.0, 1.0), ratio=(10 / 8, 10 / 8)),
        flip(image, rng(), chance=0.0),
        random_erasing(image, rng(), chance=0.0),
        cutout(image, rng(), side=0),
    ):
        assert np.array_equal(same, image)


def test_shifts_stay_within_their_bound_and_go_both_ways():
    rows, columns = np.mgrid[:9, :9]

    def centre(image):
        weight = image[..., 0].astype(float)
        return np.array([(rows * weight).sum(), (columns * weight).sum()]) / weight.sum() - 4

    moved = [centre(shift_and_turn(blob(), rng(seed), shift=2, degrees=0, scale=0)) for seed in range(50)]
    assert np.abs(moved).max() < 2.1
    assert np.min(moved) < -1
    assert np.max(moved) > 1


def test_crops_are_windows_of_the_padded_picture_at_every_place():
    image = np.arange(1, 13, dtype=np.uint8).reshape(3, 4, 1)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    windows = {padded[r : r + 3, c : c + 4].tobytes() for r in range(3) for c in range(3)}
    assert {random_crop(image, rng(seed), padding=1).tobytes() for seed in range(100)} == windows
    assert 0 not in random_crop(image, rng(), padding=2, reflect=True)
    assert random_crop(image, rng(), size=(2, 2)).shape == (2, 2, 1)
    with pytest.raises(InputError, match="at least 5 x 4"):
        random_crop(image, rng(), size=(5, 4))


def test_resized_crops_keep_to_area_and_ratio():
    height, width = 40, 60
    ramp = np.stack(np.mgrid[:height, :width], axis=-1).astype(np.uint8)
    for seed in range(30):
        part = random_resized_crop(ramp, rng(seed), (40, 60), area=(0.2, 0.4), ratio=(0.75, 4 / 3)).astype(float)
        rows, columns = (np.ptp(part[..., axis]) + 1 for axis in range(2))
        assert 0.16 < rows * columns / (height * width) < 0.44
        assert 0.65 < columns / rows < 1.5
    long = random_resized_crop(noise(2, 90), rng(), (4, 4), area=(1.0, 1.0))
    assert long.shape == (4, 4, 3)


def test_a_flip_mirrors_half_of_the_pictures():
    image = noise()
    mirrored = [np.array_equal(flip(image, rng(seed)), image[:, ::-1]) for seed in range(400)]
    assert 0.4 < np.mean(mirrored) < 0.6


def test_what_is_hidden_is_a_rectangle_of_the_wanted_size():
    image = np.full((30, 40, 3), 255, np.uint8)
    for seed in range(30):
        hidden = (random_erasing(image, rng(seed), chance=1.0, area=(0.1, 0.2), fill=7) == 7).all(axis=-1)
        rows, columns = hidden.any(axis=1).sum(), hidden.any(axis=0).sum()
        assert hidden.sum() == rows * columns
        assert 0.09 < hidden.mean() < 0.22
    assert len(np.unique(random_erasing(image, rng(), chance=1.0))) > 50
    counts = [(cutout(image, rng(seed), side=6) == 0).all(axis=-1).sum() for seed in range(60)]
    assert max(counts) == 36
    assert 9 <= min(counts) < 36
