"""Observations and actions as bytes, as openpi has them: msgpack in which an array is a map of its own.

An array is {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [...]}, a numpy scalar {b"__npgeneric__":
True, b"data": number, b"dtype": "<f4"} (openpi_client.msgpack_numpy 0.1.2, https://github.com/Physical-Intelligence/
openpi). Nothing is unpickled: an array that comes has numbers, truth values or text in it, and the bytes that it says.
"""

import math
import re
from typing import Any

import numpy as np

from perceiver.errors import InputError, require

_ARRAY, _SCALAR, _DATA, _DTYPE, _SHAPE = b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"
_DTYPES = re.compile(r"[<>=|]?([bui][1248]|f[248]|U[0-9]{1,4})")
"""Truth values, whole numbers, floating point and text of a fixed length."""
MOST_ENTRIES = 4096
"""Entries of a list or a map outside of arrays: a claim of more is refused before there is memory for it."""
MOST_AXES = 8


def encode(value: Any) -> bytes:
    """Numbers, text, None, lists, dicts and arrays of numbers, truth values or text as bytes.

    Raises:
        InputError: an array of something else.
        MissingExtraError: msgpack is not installed.
    """
    return require("msgpack", "serve").packb(value, default=_packed)


def decode(frame: bytes) -> Any:
    """The opposite; arrays are read-only.

    Raises:
        InputError: the frame is not msgpack, is deeper or longer than anything that a robot says, or has an array that
            is not what it claims.
        MissingExtraError: msgpack is not installed.
    """
    msgpack = require("msgpack", "serve")
    try:
        return msgpack.unpackb(
            frame, object_hook=_unpacked, max_array_len=MOST_ENTRIES, max_map_len=MOST_ENTRIES, max_ext_len=0
        )
    except InputError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InputError(
            f"expected a frame of msgpack, got {len(frame)} bytes: {str(error) or type(error).__name__}"
        ) from None


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and not _DTYPES.fullmatch(value.dtype.str):
        raise InputError(f"expected an array of numbers, truth values or text, got {value.dtype}")
    if isinstance(value, np.ndarray):
        return {_ARRAY: True, _DATA: value.tobytes(), _DTYPE: value.dtype.str, _SHAPE: value.shape}
    if isinstance(value, np.generic):
        return {_SCALAR: True, _DATA: value.item(), _DTYPE: value.dtype.str}
    raise InputError(f"expected numbers, text, lists, dicts or arrays, got {type(value).__name__}")


def _unpacked(entry: dict[Any, Any]) -> Any:
    if _ARRAY in entry:
        return _array(entry.get(_DATA), _dtype(entry.get(_DTYPE)), entry.get(_SHAPE))
    if _SCALAR in entry:
        value = entry.get(_DATA)
        if not isinstance(value, bool | int | float | str):
            raise InputError(f"expected a number or a text in a numpy scalar, got {type(value).__name__}")
        try:
            return _dtype(entry.get(_DTYPE)).type(value)
        except (ValueError, OverflowError) as error:
            raise InputError(f"numpy scalar: {error}") from None
    return entry


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or not _DTYPES.fullmatch(name):
        raise InputError(f"expected the dtype of numbers, truth values or text, got {name!r:.40}")
    try:
        return np.dtype(name)
    except TypeError:
        raise InputError(f"expected a dtype, got {name!r:.40}") from None


def _array(data: Any, dtype: np.dtype, shape: Any) -> np.ndarray:
    plain = isinstance(shape, list) and len(shape) <= MOST_AXES and all(type(n) is int and n >= 0 for n in shape)
    if not isinstance(data, bytes) or not plain:
        raise InputError(f"expected bytes and a shape of at most {MOST_AXES} sizes, got {shape!r:.60}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise InputError(f"expected the bytes of {dtype} {shape}, got {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
