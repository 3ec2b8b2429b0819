"""IDX files, as MNIST and its relatives are released. Source: http://yann.lecun.com/exdb/mnist."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing

MAX_COUNT = 1_000_000
"""Entries above which a file is refused before it is unpacked."""


def read_idx(path: Path, size: tuple[int, ...]) -> np.ndarray:
    """Read a gzipped IDX file of bytes whose entries have a known size: uint8 [n, *size].

    Raises:
        InputError: no gzip file, another magic number or size, or a length that differs from the header's.
    """
    axes = 1 + len(size)
    magic = 0x0800 | axes  # 08 is the type, bytes
    with naming(str(path)), refusing("an IDX file in gzip"), gzip.open(existing_file(path)) as file:
        head = file.read(4 + 4 * axes)
        if len(head) < 4 + 4 * axes or struct.unpack(">I", head[:4])[0] != magic:
            raise InputError(f"expected the magic number {magic:#010x} and {axes} sizes, got the bytes {head.hex()!r}")
        count, *found = struct.unpack(f">{axes}I", head[4:])
        if tuple(found) != size or count > MAX_COUNT:
            raise InputError(f"expected the sizes {[f'0 to {MAX_COUNT}', *size]}, got {[count, *found]}")
        expected = count * math.prod(size)
        data = file.read(expected + 1)
        if len(data) > expected:
            raise InputError(f"expected {expected} bytes after the header, got more")
        if len(data) < expected:
            raise InputError(f"expected {expected} bytes after the header, got {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(count, *size)
