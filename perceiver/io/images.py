"""Images on the host: files to uint8 arrays, resizing, and arrays to PNG files."""

import os
from typing import BinaryIO

import numpy as np
from PIL import Image

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing

# Formats that Pillow decodes by itself. Left out on purpose: EPS runs ghostscript, and the many historic
# formats recognise a file by so few bytes that random data passes for an image.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

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
        if channels not in (None, *_MODES):
            raise InputError(f"channels: expected 1, 3, 4 or None, got {channels}")
        if not 0 <= background <= 255:
            raise InputError(f"background: expected a level in [0, 255], got {background}")
        file = existing_file(path)
        with refusing(f"an image ({', '.join(FORMATS)})"), open(file, "rb") as handle:
            image = _decode(handle, max_pixels)
            return _to_array(image, channels, background)


def resize_image(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize by bicubic interpolation; when shrinking, the kernel widens, so that nothing aliases.

    Args:
        array: uint8 [h, w, c], c = 1, 3 or 4 (the fourth is alpha and weighs the colours).
        height: wanted rows, at least 1.
        width: wanted columns, at least 1.

    Returns:
        uint8 [height, width, c].

    Raises:
        InputError: another dtype or shape, or a size below 1.
    """
    with naming("resize_image"):
        array = np.asarray(array)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in _MODES or not array.size:
            raise InputError(f"expected uint8 [h, w, c] with c = 1, 3 or 4, got {array.dtype} {list(array.shape)}")
        if height < 1 or width < 1:
            raise InputError(f"expected a size of at least 1 x 1, got {height} x {width}")
        resized = _to_pillow(array).resize((width, height), Image.Resampling.BICUBIC)
        return np.array(resized, dtype=np.uint8).reshape(height, width, array.shape[2])


def write_png(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an 8-bit PNG file, whatever the suffix of `path`.

    Args:
        path: the file, replaced when it exists.
        array: [h, w] or [h, w, c], c = 1, 3 or 4; uint8, or floating point in [0, 1].

    Raises:
        InputError: another shape or dtype, floats that are not in [0, 1], or a path that cannot be written.
    """
    with naming(os.fspath(path)):
        array = np.asarray(array)
        pixels = array[..., None] if array.ndim == 2 else array
        if pixels.ndim != 3 or pixels.shape[2] not in _MODES or not pixels.size:
            raise InputError(f"expected [h, w] or [h, w, c] with c = 1, 3 or 4, got {list(array.shape)}")
        if np.issubdtype(pixels.dtype, np.floating):
            # Written as "not all inside", NaN is refused too.
            if not np.all((pixels >= 0) & (pixels <= 1)):
                raise InputError(f"expected floats in [0, 1], got values from {pixels.min()} to {pixels.max()}")
            pixels = np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)
        elif pixels.dtype != np.uint8:
            raise InputError(f"expected uint8 or floating point, got {pixels.dtype}")
        with refusing("a writable path"), open(path, "wb") as handle:
            _to_pillow(pixels).save(handle, format="PNG")


def _decode(handle: BinaryIO, max_pixels: int) -> Image.Image:
    """Decode the first frame, upright. Dimensions are checked while only the header has been read."""
    # Beyond its own limit Pillow warns here, and beyond twice that raises. The check below is ours because
    # turning that warning into an error means changing the filters of the whole process, all threads.
    image = Image.open(handle, formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise InputError(f"expected at most {max_pixels} pixels, got {image.height} x {image.width}")
    image.load()
    if image.format == "PNG":
        _check_png_end(handle)
    # Not ImageOps.exif_transpose: that also re-encodes all other tags, and fails on those it cannot.
    turn = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _check_png_end(handle: BinaryIO) -> None:
    """Walk the chunks up to IEND: Pillow stops at the last pixel and does not miss what should follow."""
    size = handle.seek(0, os.SEEK_END)
    start = 8  # the signature
    while start + 12 <= size:
        handle.seek(start)
        head = handle.read(8)
        start += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND" and start <= size:
            return
    raise InputError("expected a PNG that ends with an IEND chunk, got a truncated file")


def _to_array(image: Image.Image, channels: int | None, background: int) -> np.ndarray:
    """Bring any 8- or 16-bit Pillow image to uint8 [h, w, channels]."""
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


def _to_pillow(array: np.ndarray) -> Image.Image:
    """Wrap uint8 [h, w, c], c = 1, 3 or 4."""
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
