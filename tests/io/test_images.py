import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from perceiver.errors import InputError
from perceiver.io import read_image, resize_image, write_gif, write_png
from perceiver.io.images import MAX_PIXELS, Fit, Resample, frame_image, to_grey

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def png_bytes(width, height, depth, colour, rows, extra=b""):
    """A PNG by hand: `rows` are the unfiltered scanlines, `extra` chunks before the pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def written(path, data):
    path.write_bytes(data)
    return path


def smooth(height=40, width=60):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=-1).astype(np.uint8)


def refused(path, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        read_image(path, **options)
    assert str(caught.value).startswith(str(path))


def read_or_refused(path, **options):
    try:
        array = read_image(path, **options)
    except InputError as error:
        message = str(error)
    else:
        assert array.dtype == np.uint8
        return
    assert message.startswith(str(path))


def test_golden_png_rgb(tmp_path):
    path = written(tmp_path / "a.png", png_bytes(2, 1, 8, 2, [bytes([1, 2, 3, 250, 251, 252])]))
    assert read_image(path).tolist() == [[[1, 2, 3], [250, 251, 252]]]
    assert read_image(path).dtype == np.uint8
    assert read_image(str(path), 4).tolist() == [[[1, 2, 3, 255], [250, 251, 252, 255]]]


def test_grey_and_its_conversions(tmp_path):
    path = written(tmp_path / "a.png", png_bytes(2, 2, 8, 0, [b"\x00\x10", b"\x80\xff"]))
    assert read_image(path).tolist() == [[[0], [16]], [[128], [255]]]
    assert read_image(path, 3)[1, 0].tolist() == [128, 128, 128]
    one_bit = written(tmp_path / "b.png", png_bytes(8, 1, 1, 0, [b"\xa0"]))
    assert read_image(one_bit)[0, :, 0].tolist() == [255, 0, 255, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("colour", [0, 2])
def test_sixteen_bits_become_the_upper_eight(tmp_path, colour):
    values = [0, 255, 256, 0x1234, 0x8000, 0xFFFF]
    count = len(values) // (3 if colour == 2 else 1)
    path = written(tmp_path / "a.png", png_bytes(count, 1, 16, colour, [struct.pack(">6H", *values)]))
    assert read_image(path).ravel().tolist() == [0, 0, 1, 0x12, 0x80, 0xFF]


def test_alpha_is_kept_or_laid_over_the_background(tmp_path):
    path = written(tmp_path / "a.png", png_bytes(2, 1, 8, 6, [bytes([9, 9, 9, 0, 7, 8, 9, 255])]))
    assert read_image(path).tolist() == [[[9, 9, 9, 0], [7, 8, 9, 255]]]
    assert read_image(path, 3).tolist() == [[[255, 255, 255], [7, 8, 9]]]
    assert read_image(path, 3, background=0).tolist() == [[[0, 0, 0], [7, 8, 9]]]
    assert read_image(path, 1)[0, 0].tolist() == [255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_exif_orientation(tmp_path, orientation, suffix):
    # Quadrants: after turning, the red one stands where the EXIF standard puts the stored first row and column.
    stored = np.full((16, 32, 3), 255, np.uint8)
    stored[:8, :16] = [255, 0, 0]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    array = read_image(path)
    assert array.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    row, column = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    red = array[2 if row == "t" else -3, 2 if column == "l" else -3].astype(int)
    assert red[0] > 200
    assert red[1] < 60


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_lossless_round_trips(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(smooth()).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_image(path), smooth())


def test_jpeg_modes_and_palette(tmp_path):
    image = Image.fromarray(smooth())
    image.save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth()).mean() < 4
    image.convert("CMYK").save(tmp_path / "b.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "b.jpg").astype(int) - smooth()).mean() < 6
    image.convert("P").save(tmp_path / "c.gif")
    assert read_image(tmp_path / "c.gif").shape == (40, 60, 3)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range_are_refused(tmp_path, mode):
    Image.fromarray(smooth()).convert("L").convert(mode).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "32-bit")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "b.jpg", "a.webp", "a.bmp", "a.ppm"])
def test_truncated_anywhere(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(smooth()).save(path, **({"progressive": True} if name == "b.jpg" else {}))
    data = path.read_bytes()
    for cut in [*range(1, len(data), max(1, len(data) // 40)), len(data) - 4, len(data) - 1]:
        refused(written(path, data[:cut]), "expected")


def test_too_large_is_refused_before_decoding(tmp_path):
    # Pixel data for one row only: had it been decoded, the message would be about truncation.
    path = written(tmp_path / "a.png", png_bytes(9000, 9000, 8, 0, [b"\0" * 9000]))
    refused(path, "at most 1000 pixels, got 9000 x 9000", max_pixels=1000)
    for side in (10_000, 60_000):  # Pillow itself warns of the first and refuses the second
        refused(written(path, png_bytes(side, side, 8, 0, [b"\0"])), "(?i)pixels")


def test_text_chunk_bomb_is_refused(tmp_path):
    text = b"k\0\0" + zlib.compress(b"\0" * 50_000_000)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    refused(written(tmp_path / "a.png", png_bytes(1, 1, 8, 0, [b"\0"], chunk)), "Decompressed")


def test_what_is_no_image(tmp_path):
    refused(tmp_path / "none.png", "no such file")
    refused(tmp_path / "none.png" / "deeper.png", "expected")
    refused(tmp_path, "directory")
    refused(written(tmp_path / "a.png", b""), "empty")
    refused(written(tmp_path / "a.png", b"just some text"), "expected an image")
    refused(written(tmp_path / "a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "expected an image")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "regular")


def test_wrong_arguments(tmp_path):
    write_png(tmp_path / "a.png", smooth())
    refused(tmp_path / "a.png", "channels", channels=2)
    refused(tmp_path / "a.png", "background", background=256)


@FUZZ
@given(head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF89a", b"II*\0", b"P6 "]),
       tail=st.binary(max_size=300))  # fmt: skip
def test_random_bytes(tmp_path, head, tail):
    path = written(tmp_path / "a.png", head + tail)
    read_or_refused(path)


@FUZZ
@given(at=st.integers(0, 10_000), value=st.integers(0, 255), suffix=st.sampled_from(["png", "jpg", "webp", "tif"]))
def test_changed_bytes(tmp_path, at, value, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(smooth()).save(path)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    written(path, data)
    read_or_refused(path, max_pixels=10**6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resize(channels):
    flat = np.full((7, 9, channels), 255, np.uint8)
    flat[..., 0] = 100
    for size in [(1, 1), (3, 20), (14, 18)]:
        out = resize_image(flat, *size)
        assert out.shape == (*size, channels)
        assert out.dtype == np.uint8
        assert (out == flat[:1, :1]).all()
    assert np.array_equal(resize_image(flat, 7, 9), flat)


def test_resize_does_not_alias():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_image(stripes, 16, 16).astype(int) - 127).max() < 12
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, axis=0)
    assert np.abs(resize_image(ramp, 8, 8)[4, 1:-1, 0] - (np.arange(8)[1:-1] * 32 + 14.0)).max() < 2


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (np.zeros((4, 4, 3), np.float32), (2, 2)),
        (np.zeros((4, 4), np.uint8), (2, 2)),
        (np.zeros((4, 4, 2), np.uint8), (2, 2)),
        (np.zeros((0, 4, 3), np.uint8), (2, 2)),
        (np.zeros((4, 4, 3), np.uint8), (0, 2)),
        (np.zeros((4, 4, 3), np.uint8), (MAX_PIXELS, 2)),
    ],
)
def test_resize_refuses(array, size):
    with pytest.raises(InputError, match="expected"):
        resize_image(array, *size)


def numbered(height, width):
    """A picture whose pixels say where they are: row, column, 9."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.full_like(y, 9)], axis=-1).astype(np.uint8)


def test_resampling_kernels_differ():
    noise = np.random.default_rng(0).integers(0, 2, (16, 16, 1), dtype=np.uint8) * 255
    assert len({resize_image(noise, 7, 7, kind).tobytes() for kind in Resample}) == len(Resample)
    assert set(resize_image(noise, 7, 7, Resample.NEAREST).ravel()) == {0, 255}


def test_stretching_is_resizing():
    picture = smooth(11, 30)
    assert np.array_equal(frame_image(picture, 7, 5), resize_image(picture, 7, 5))
    nearest = frame_image(picture, 7, 5, resample=Resample.NEAREST)
    assert np.array_equal(nearest, resize_image(picture, 7, 5, Resample.NEAREST))


@pytest.mark.parametrize(
    ("size", "crop", "rows", "columns"),
    [
        ((8, 12), 1.0, (0, 8), (2, 10)),
        ((8, 13), 1.0, (0, 8), (2, 10)),  # of the five columns that go, the larger part on the right
        ((13, 8), 0.5, (4, 8), (2, 6)),
        ((9, 9), 0.5, (2, 6), (2, 6)),  # int(4.5) out of 9
        ((9, 9), 0.01, (4, 5), (4, 5)),
    ],
)
def test_a_central_crop(size, crop, rows, columns):
    side = rows[1] - rows[0]
    framed = frame_image(numbered(*size), side, side, fit=Fit.CENTRAL, crop=crop)
    assert np.array_equal(framed, numbered(*size)[slice(*rows), slice(*columns)])


def test_a_central_crop_beyond_the_picture_has_a_black_border():
    framed = frame_image(numbered(4, 6), 7, 7, fit=Fit.CENTRAL, crop=1.75)
    assert np.array_equal(framed[2:6, 1:7], numbered(4, 6))  # the larger part in front, as in Hugging Face's
    framed[2:6, 1:7] = 0
    assert not framed.any()


@pytest.mark.parametrize("size", [(20, 31), (31, 20), (20, 20), (5, 200)])
def test_a_shorter_side_keeps_the_aspect(size):
    framed = frame_image(numbered(*size), 10, 10, fit=Fit.SHORTER_SIDE)
    middle = framed.mean(axis=(0, 1))[:2]
    np.testing.assert_allclose(middle, (np.array(size) - 1) / 2, atol=1)
    zoomed = frame_image(numbered(*size), 10, 10, fit=Fit.SHORTER_SIDE, crop=0.5, resample=Resample.NEAREST)
    grown = resize_image(numbered(*size), *(20 * side // min(size) for side in size), Resample.NEAREST)
    top, left = (grown.shape[0] - 10) // 2, (grown.shape[1] - 10) // 2
    assert np.array_equal(zoomed, grown[top : top + 10, left : left + 10])


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_framing_gives_the_size_and_keeps_flat_colours(fit, channels):
    flat = np.full((9, 14, channels), 200, np.uint8)
    for size in [(1, 1), (5, 8), (20, 3)]:
        framed = frame_image(flat, *size, fit=fit)
        assert framed.shape == (*size, channels)
        assert (framed == 200).all()


@pytest.mark.parametrize(
    ("array", "size", "options", "message"),
    [
        (np.zeros((4, 4, 3)), (2, 2), {}, "expected uint8"),
        (np.zeros((4, 4, 3), np.uint8), (0, 2), {"fit": Fit.SHORTER_SIDE}, "got 0 x 2"),
        (np.zeros((4, 4, 3), np.uint8), (2, 2), {"crop": 0.0}, "crop: expected a number above 0, got 0.0"),
        (np.zeros((4, 4, 3), np.uint8), (2, 2), {"crop": float("nan")}, "crop"),
        (np.zeros((4, 4, 3), np.uint8), (2, 2), {"crop": 1e9, "fit": Fit.CENTRAL}, "size of 1 x 1 to"),
        (np.zeros((4, 4, 3), np.uint8), (2, 2), {"crop": 1e9, "fit": Fit.SHORTER_SIDE}, "size of 1 x 1 to"),
        (np.zeros((1, 2**20, 3), np.uint8), (99, 99), {"fit": Fit.SHORTER_SIDE}, "size of 1 x 1 to"),
    ],
)
def test_framing_refuses(array, size, options, message):
    with pytest.raises(InputError, match=message) as caught:
        frame_image(array, *size, **options)
    assert str(caught.value).startswith("frame_image")


def test_grey_levels_are_those_of_reading_in_grey(tmp_path):
    write_png(tmp_path / "a.png", smooth())
    assert np.array_equal(to_grey(smooth()), read_image(tmp_path / "a.png", 1))
    with pytest.raises(InputError, match="to_grey"):
        to_grey(np.zeros((3, 3)))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_write_png_round_trip(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "a.png"
    write_png(path, array)
    expected = array.reshape(5, 7, -1)
    assert np.array_equal(read_image(path, expected.shape[2]), expected)
    for dtype in (np.float16, np.float32, np.float64):
        write_png(path, (array / 255).astype(dtype))
        assert np.array_equal(read_image(path, expected.shape[2]), expected)


@pytest.mark.parametrize(
    "array",
    [np.zeros(3, np.uint8), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2), np.uint8), np.zeros((2, 2), np.int32),
     np.full((2, 2), np.nan), np.full((2, 2), 1.01), np.full((2, 2), -0.01)],
)  # fmt: skip
def test_write_png_refuses(tmp_path, array):
    with pytest.raises(InputError, match="expected") as caught:
        write_png(tmp_path / "a.png", array)
    assert str(caught.value).startswith(str(tmp_path))
    assert not (tmp_path / "a.png").exists()


def test_write_png_to_nowhere(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "a.png"):
        with pytest.raises(InputError, match="writable"):
            write_png(path, smooth())


@pytest.mark.parametrize("channels", [1, 3])
def test_write_gif_keeps_frames_times_and_about_the_colours(tmp_path, channels):
    frames = np.stack([np.full((5, 4, channels), level, np.uint8) for level in (0, 120, 255)])
    write_gif(tmp_path / "a.gif", frames, 0.04)
    with Image.open(tmp_path / "a.gif") as picture:
        assert (picture.n_frames, picture.size, picture.info["duration"]) == (3, (4, 5), 40)
        for number, level in enumerate((0, 120, 255)):
            picture.seek(number)
            assert np.abs(np.asarray(picture.convert("L")).astype(int) - level).max() <= 4
    write_gif(tmp_path / "a.gif", frames / 255, 0.04)


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 3, 3), np.uint8), np.zeros((1, 3, 3, 4), np.uint8), np.full((1, 2, 2, 3), 1.5)]
)
def test_write_gif_refuses(tmp_path, frames):
    with pytest.raises(InputError, match=r"a\.gif: expected"):
        write_gif(tmp_path / "a.gif", frames, 0.1)
    assert not (tmp_path / "a.gif").exists()
