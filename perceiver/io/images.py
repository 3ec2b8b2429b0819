"""Images on the host: files to uint8 arrays, resizing and cropping, and arrays to PNG files."""

import enum
import io
import math
import os
from typing import BinaryIO

import numpy as np
from PIL import Image

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing

# Formats that Pillow decodes by itself. Left out on purpose: EPS runs ghostscript, and the many historic
# formats recognise a file by so few bytes that random data passes for an image.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
"""By which pictures are found in a folder; what they are, their content says."""
_EXPECTED = f"an image ({', '.join(FORMATS)})"

# The limit from which Pillow warns of a decompression bomb: 1 GiB / 4 / 3 pixels.
MAX_PIXELS = 89_478_485

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

_EXIF_ORIENTATION = 0x0112
# EXIF 2.32, tag Orientation: how the stored pixels must be turned to stand upright. 1 is upright already.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Fit(enum.Enum):
    """How a picture of any size becomes one of a wanted size; `frame_image` has the arithmetic."""

    STRETCH = enum.auto()
    """Resized to the size, whatever the aspect (ViT, SigLIP)."""
    SHORTER_SIDE = enum.auto()
    """Resized by its shorter side, then cropped around its centre (CLIP)."""
    CENTRAL = enum.auto()
    """A square around the centre, then resized (Perceiver)."""


class Resample(enum.Enum):
    """Interpolation when resizing. The values are Pillow's numbers, as written in preprocessor_config.json."""

    NEAREST = 0
    LANCZOS = 1
    BILINEAR = 2
    BICUBIC = 3
    BOX = 4
    HAMMING = 5


def read_image(
    path: str | os.PathLike[str],
    channels: int | None = None,
    *,
    background: int = 255,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read a PNG, JPEG, WebP, BMP, GIF, TIFF or PPM file; of several frames, the first.

    The content decides on the format, not the suffix. EXIF orientation is applied; colour profiles are not.
    16 bits per channel become the upper 8.

    Args:
        path: the file.
        channels: 1 grey, 3 red-green-blue, 4 with alpha; None takes what the file has.
        background: the grey level [0, 255] put under transparent pixels when alpha is not asked for; dark
            drawings on nothing would turn into a black square without it.
        max_pixels: height x width above which the file is refused, before its pixels are decoded.

    Returns:
        uint8 [height, width, channels].

    Raises:
        InputError: no such file, no image, truncated, too large, or a kind of pixel (32-bit integers,
            floats) that has no fixed range to bring to 8 bits.
    """
    with naming(os.fspath(path)):
        _check_wanted(channels, background)
        file = existing_file(path)
        with refusing(_EXPECTED), open(file, "rb") as handle:
            return pillow_array(_decode(handle, max_pixels), channels, background)


def decode_image(
    data: bytes, channels: int | None = None, *, background: int = 255, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """As `read_image`, of a file's content, such as a member of an archive; the caller names it in errors."""
    _check_wanted(channels, background)
    with refusing(_EXPECTED):
        return pillow_array(_decode(io.BytesIO(data), max_pixels), channels, background)


def _check_wanted(channels: int | None, background: int) -> None:
    if channels not in (None, *_MODES):
        raise InputError(f"channels: expected 1, 3, 4 or None, got {channels}")
    if not 0 <= background <= 255:
        raise InputError(f"background: expected a level in [0, 255], got {background}")


def resize_image(array: np.ndarray, height: int, width: int, resample: Resample = Resample.BICUBIC) -> np.ndarray:
    """Resize by interpolation; when shrinking, the kernel widens, so that nothing aliases.

    Args:
        array: uint8 [h, w, c], c = 1, 3 or 4 (the fourth is alpha and weighs the colours).
        height: wanted rows, at least 1.
        width: wanted columns, at least 1.
        resample: the kernel; NEAREST is the one that does not widen.

    Returns:
        uint8 [height, width, c].

    Raises:
        InputError: another dtype or shape, a size below 1, or more than MAX_PIXELS pixels.
    """
    with naming("resize_image"):
        array = _check_pixels(array)
        _check_size(height, width)
        resized = _to_pillow(array).resize((width, height), Image.Resampling(resample.value))
        return np.array(resized, dtype=np.uint8).reshape(height, width, array.shape[2])


def frame_image(
    array: np.ndarray,
    height: int,
    width: int,
    *,
    fit: Fit = Fit.STRETCH,
    crop: float = 1.0,
    resample: Resample = Resample.BICUBIC,
) -> np.ndarray:
    """Bring a picture to a size, bit for bit as the image processors of Hugging Face transformers (Pillow) do.

    Where a crop leaves an odd number of rows or columns, the larger part of the rest is cut at the bottom and right.
    (DeepMind's notebook for ImageNet cuts it at the top and left, and resizes by OpenCV, which aliases.)

    Args:
        array: uint8 [h, w, c], c = 1, 3 or 4.
        height: wanted rows, at least 1.
        width: wanted columns, at least 1.
        fit: STRETCH resizes the whole picture and takes no `crop`. SHORTER_SIDE resizes the picture, its aspect kept
            and the longer side rounded down, to a shorter side of round(max(height, width) / crop), and takes the
            middle of that. CENTRAL takes a square of int(crop x shorter side), at least 1, out of the middle and
            resizes it.
        crop: part of the shorter side that is kept, above 0; such as 224 / 256 for Perceiver. Above 1 the picture
            gets a black border.
        resample: see Resample.

    Returns:
        uint8 [height, width, c].

    Raises:
        InputError: another dtype or shape, a size below 1, a crop that is not above 0, or more than MAX_PIXELS pixels
            on the way (a sliver of a picture whose shorter side grows).
    """
    with naming("frame_image"):
        array = _check_pixels(array)
        _check_size(height, width)
        if not (crop > 0 and math.isfinite(crop)):
            raise InputError(f"crop: expected a number above 0, got {crop}")
        rows, columns = array.shape[:2]
        if fit is Fit.SHORTER_SIDE:
            short = round(max(height, width) / crop)
            grown = [short * side // min(rows, columns) for side in (rows, columns)]
            return _central(resize_image(array, grown[0], grown[1], resample), height, width)
        if fit is Fit.CENTRAL:
            side = max(1, int(crop * min(rows, columns)))
            array = _central(array, side, side)
        return resize_image(array, height, width, resample)


def to_grey(array: np.ndarray) -> np.ndarray:
    """Colours uint8 [h, w, 3] to grey levels [h, w, 1], weighted as in ITU-R BT.601.

    Raises:
        InputError: another dtype or shape.
    """
    with naming("to_grey"):
        return pillow_array(_to_pillow(_check_pixels(array)), 1, 255)


def write_png(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an 8-bit PNG file, whatever the suffix of `path`.

    Args:
        path: the file, replaced when it exists.
        array: [h, w] or [h, w, c], c = 1, 3 or 4; uint8, or floating point in [0, 1].

    Raises:
        InputError: another shape or dtype, floats that are not in [0, 1], or a path that cannot be written.
    """
    with naming(os.fspath(path)):
        content = encode_png(array)
        with refusing("a writable path"), open(path, "wb") as handle:
            handle.write(content)


def encode_png(array: np.ndarray) -> bytes:
    """The content of a PNG file; as `write_png`."""
    array = np.asarray(array)
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in _MODES or not pixels.size:
        raise InputError(f"expected [h, w] or [h, w, c] with c = 1, 3 or 4, got {list(array.shape)}")
    held = io.BytesIO()
    _to_pillow(_bytes(pixels)).save(held, format="PNG")
    return held.getvalue()


def write_gif(path: str | os.PathLike[str], frames: np.ndarray, seconds: float) -> None:
    """Write a clip as an animated GIF file, which repeats.

    Args:
        path: the file, replaced when it exists.
        frames: [t, h, w, c], c = 1 or 3; uint8, or floating point in [0, 1].
        seconds: that each frame is shown; GIF keeps hundredths.

    Raises:
        InputError: another shape or dtype, floats that are not in [0, 1], or a path that cannot be written.
    """
    with naming(os.fspath(path)):
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[3] not in (1, 3) or not frames.size:
            raise InputError(f"expected [t, h, w, c] with c = 1 or 3, got {list(frames.shape)}")
        first, *rest = [_to_pillow(frame) for frame in _bytes(frames)]
        with refusing("a writable path"), open(path, "wb") as handle:
            first.save(handle, format="GIF", save_all=True, append_images=rest, duration=seconds * 1000, loop=0)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] to uint8."""
    if np.issubdtype(pixels.dtype, np.floating):
        # Written as "not all inside", NaN is refused too.
        if not np.all((pixels >= 0) & (pixels <= 1)):
            raise InputError(f"expected floats in [0, 1], got values from {pixels.min()} to {pixels.max()}")
        return np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(f"expected uint8 or floating point, got {pixels.dtype}")
    return pixels


def _decode(handle: BinaryIO, max_pixels: int) -> Image.Image:
    """Decode the first frame, upright. Dimensions are checked while only the header has been read."""
    # Beyond its own limit Pillow warns here, and beyond twice that raises. The check below is ours because
    # turning that warning into an error means changing the filters of the whole process, all threads.
    image = Image.open(handle, formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise InputError(f"expected at most {max_pixels} pixels, got {image.height} x {image.width}")
    image.load()
    if image.format == "PNG":
        check_png_end(handle)
    # Not ImageOps.exif_transpose: that also re-encodes all other tags, and fails on those it cannot.
    turn = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def check_png_end(handle: BinaryIO) -> None:
    """Walk the chunks up to IEND: Pillow stops at the last pixel and does not miss what should follow.

    Raises:
        InputError: the file ends before.
    """
    size = handle.seek(0, os.SEEK_END)
    start = 8  # the signature
    while start + 12 <= size:
        handle.seek(start)
        head = handle.read(8)
        start += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND" and start <= size:
            return
    raise InputError("expected a PNG that ends with an IEND chunk, got a truncated file")


def pillow_array(image: Image.Image, channels: int | None, background: int) -> np.ndarray:
    """Bring any 8- or 16-bit Pillow image to uint8 [h, w, channels]; see `read_image`.

    Raises:
        InputError: pixels of 32 bits.
    """
    if image.mode.startswith("I;16"):
        # Pillow clips these at 255 when asked for 8 bits, but keeps the upper byte of 16-bit colours.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(f"expected 8 or 16 bits per channel, got 32-bit pixels (mode {image.mode})")
    transparent = image.has_transparency_data
    if channels is None:
        channels = 4 if transparent else 1 if image.mode in ("1", "L") else 3
    if transparent and channels != 4:
        backdrop = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    array = np.array(image.convert(_MODES[channels]), dtype=np.uint8)
    return array.reshape(image.height, image.width, channels)


def _central(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut [height, width, c] out of the middle, with zeros where the array does not reach."""
    _check_size(height, width)
    pads = [(math.ceil(max(0, want - have) / 2), max(0, want - have) // 2)
            for want, have in zip((height, width), array.shape, strict=False)]  # fmt: skip
    array = np.pad(array, [*pads, (0, 0)])
    top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
    return array[top : top + height, left : left + width]


def _check_pixels(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in _MODES or not array.size:
        raise InputError(f"expected uint8 [h, w, c] with c = 1, 3 or 4, got {array.dtype} {list(array.shape)}")
    return array


def _check_size(height: int, width: int) -> None:
    if not (height >= 1 and width >= 1 and height * width <= MAX_PIXELS):
        raise InputError(f"expected a size of 1 x 1 to {MAX_PIXELS} pixels, got {height} x {width}")


def _to_pillow(array: np.ndarray) -> Image.Image:
    """Wrap uint8 [h, w, c], c = 1, 3 or 4."""
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
