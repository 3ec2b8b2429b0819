import numpy as np
import pytest

from perceiver import InputError
from perceiver.augment import rand_augment
from perceiver.augment.rand_augment import OPERATIONS, Picture


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(channels=3):
    return rng(9).integers(0, 256, (32, 30, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_random_by_the_generator_alone_and_keeps_shape_and_input(channels):
    image = noise(channels)
    image.flags.writeable = False
    answers = [[rand_augment(image, rng(seed), 2, 9.0) for seed in range(40)] for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))
    assert len({answer.tobytes() for answer in answers[0]}) > 25
    assert {(answer.shape, answer.dtype) for answer in answers[0]} == {(image.shape, image.dtype)}
    assert np.array_equal(rand_augment(image, rng(), 0, 9.0), image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_changes_at_full_strength_and_not_without(name, channels):
    image = noise(channels) // 2 + 20  # so that there is contrast to gain
    picture = Picture.fromarray(image.squeeze())

    def changed(strength):
        return not np.array_equal(np.asarray(OPERATIONS[name](picture, strength, 128)), image.squeeze())

    assert changed(0.0) == (name in ("autocontrast", "equalise"))
    without = name == "identity" or (name == "colour" and channels == 1)
    assert changed(1.0) == changed(-1.0) == (not without)


def test_a_translation_goes_45_percent_of_the_width_and_shows_the_fill():
    picture = Picture.fromarray(np.full((10, 20), 200, np.uint8))
    moved = np.asarray(OPERATIONS["translate_x"](picture, 1.0, 128))
    assert (moved == 128).sum(axis=1).tolist() == [9] * 10


def test_other_channels_and_magnitudes_are_refused():
    with pytest.raises(InputError, match="1 or 3"):
        rand_augment(noise(2), rng())
    with pytest.raises(InputError, match=r"\[0, 10\], got 11"):
        rand_augment(noise(), rng(), 2, 11)
