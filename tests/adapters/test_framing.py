"""How `load` brings pictures and films of any size to the declared one."""

import numpy as np
import pytest
from PIL import Image as Pillow

import perceiver as p
from perceiver.config import from_json, network_json, preprocessing_json, to_json
from perceiver.errors import ConfigError, InputError
from perceiver.io.images import Fit, Resample, frame_image, read_image, to_grey

PICTURE = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
FRAMINGS = [
    {},
    {"resample": Resample.BILINEAR},
    {"fit": Fit.SHORTER_SIDE},
    {"fit": Fit.SHORTER_SIDE, "crop": 0.5},
    {"fit": Fit.CENTRAL, "crop": 0.875, "resample": Resample.LANCZOS},
]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_picture_is_framed_as_declared(tmp_path, framing):
    config = p.Image((4, 6, 3), **framing)
    expected = frame_image(PICTURE, 4, 6, **framing)
    np.testing.assert_array_equal(config.load(PICTURE)[0], expected)
    Pillow.fromarray(PICTURE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(config.load(tmp_path / "a.png")[0], expected)


def test_a_crop_is_taken_of_pictures_that_have_the_size_already():
    config = p.Image((9, 14, 3), fit=Fit.CENTRAL, crop=0.5)
    assert not np.array_equal(config.load(PICTURE)[0], PICTURE)
    many = np.zeros((9, 14, 7), np.uint8)  # nothing to do, so any number of channels will do
    assert p.Image((9, 14, 7)).load(many)[0] is many


@pytest.mark.parametrize("kind", [p.Image, p.Video])
def test_framing_belongs_to_the_preprocessing(kind):
    shape = (4, 6, 3) if kind is p.Image else (2, 4, 8, 3)
    config = kind(shape, fit=Fit.CENTRAL, crop=0.875, resample=Resample.BILINEAR)
    host = {"fit": "CENTRAL", "crop": 0.875, "resample": "BILINEAR"}
    assert preprocessing_json(config).items() >= host.items()
    assert not network_json(config).keys() & host.keys()
    types = [p.Image, p.Video, p.Fourier]
    assert from_json(to_json(config), kind, types) == config
    assert from_json(network_json(config), kind, types) == kind(shape)  # as saved by earlier versions


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": 0.875}, r"crop: expected 1.0 with Fit.STRETCH, which does not crop, got 0.875"),
        ({"crop": 0.0, "fit": Fit.CENTRAL}, "crop: expected a number above 0, got 0.0"),
        ({"crop": float("inf"), "fit": Fit.CENTRAL}, "crop: expected a number above 0, got inf"),
    ],
)
def test_a_framing_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=f"Image.{message}"):
        p.Image((4, 6, 3), **fields)
    with pytest.raises(ConfigError, match=f"Video.{message}"):
        p.Video((2, 4, 4, 3), **fields)


@pytest.fixture
def film(tmp_path):
    """An animation of five frames, 20 of them a second."""
    frames = [Pillow.fromarray(np.full((9, 14, 3), 50 * number, np.uint8)) for number in range(5)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=50)
    return tmp_path / "a.png"


def test_a_film_is_cut_or_padded_to_the_declared_frames(film):
    frames, mask = p.Video((3, 4, 4, 3)).load(film)
    assert (frames.shape, frames.dtype) == ((3, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], [0, 50, 100])
    assert mask.all()
    frames, mask = p.Video((8, 4, 4, 3)).load(str(film))
    np.testing.assert_array_equal(frames[:, 0, 0, 0], [0, 50, 100, 150, 200, 0, 0, 0])
    np.testing.assert_array_equal(mask, np.arange(8) < 5)


def test_a_film_at_another_rate(film):
    frames, mask = p.Video((8, 4, 4, 3), rate=10.0).load(film)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], [0, 100, 200, 0, 0, 0, 0, 0])
    assert mask.sum() == 3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_the_frames_of_a_folder_are_framed_as_declared(tmp_path, framing, channels):
    for number in range(3):
        Pillow.fromarray(PICTURE + np.uint8(20 * number)).save(tmp_path / f"{number}.png")
    frames, _ = p.Video((3, 4, 8, channels), **framing).load(tmp_path)
    for number in range(3):
        source = read_image(tmp_path / f"{number}.png", channels=3)
        source = to_grey(source) if channels == 1 else source
        np.testing.assert_array_equal(frames[number], frame_image(source, 4, 8, **framing))


def test_a_film_that_does_not_fit_is_refused(film, tmp_path):
    with pytest.raises(InputError, match="expected an array for 2 channels; files have 1 or 3"):
        p.Video((4, 4, 4, 2)).load(film)
    with pytest.raises(InputError, match=r"none\.mp4: .*no such file"):
        p.Video((4, 4, 4, 3)).load(tmp_path / "none.mp4")
    with pytest.raises(ConfigError, match=r"Video\.rate: expected frames per second above 0, got 0"):
        p.Video((4, 4, 4, 3), rate=0)
