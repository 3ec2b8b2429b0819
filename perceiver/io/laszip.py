"""Checks of a LAZ file's compressed part before it is given to the decompressor.

Its Rust library, lazrs, allocates what the file claims, and where that fails the whole process ends, not
just the call: so no claim may exceed what the file can hold.

Source: M. Isenburg, "LASzip: lossless compression of LiDAR data" (2013), and the LASzip library for the
layout: an int64 position of the table of chunks, the chunks, the table.
"""

import os
import struct
from typing import BinaryIO

from perceiver.errors import InputError, require

_VARIABLE_CHUNKS = 0xFFFFFFFF
_LAYERED = 3  # the compressor of point formats 6 to 10

# Layers that an item of the layered compressor writes, by the item's type: POINT14, RGB14, RGBNIR14,
# WAVEPACKET14. BYTE14 writes one for each byte.
_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}
_BYTE14 = 14


def check_laszip(handle: BinaryIO, records: list[bytes], start: int, point_bytes: int, count: int) -> None:
    """Check what the LASzip record, the table of chunks and the chunks claim.

    Args:
        handle: the file; its position is changed.
        records: the contents of all its records of type LASzip.
        start: byte at which the compressed part starts.
        point_bytes: size of a point, from the LAS header.
        count: number of points, from the LAS header.

    Raises:
        InputError: a claim that does not fit the file or the LAS header.
    """
    lazrs = require("lazrs", "points")
    if len(records) != 1 or len(records[0]) < 34:
        raise InputError(f"expected one LASzip record of 34 bytes or more, got {[len(r) for r in records]}")
    compressor, chunk_points, items = _read_record(records[0])
    if sum(size for _, size in items) != point_bytes or chunk_points == 0:
        raise InputError(
            f"expected points of {point_bytes} bytes in chunks, got items (type, bytes) {items} and chunks "
            f"of {chunk_points} points"
        )
    table = _find_table(handle, start)
    handle.seek(table)
    (chunks,) = struct.unpack("<4xI", handle.read(8))
    # Each chunk starts with one uncompressed point.
    room = (table - start - 8) // point_bytes
    needed = 1 if chunk_points == _VARIABLE_CHUNKS else -(-count // chunk_points)
    if not needed <= chunks <= room:
        raise InputError(f"expected {needed} to {room} chunks for {count} points, got {chunks}")
    handle.seek(start)
    sizes = [size for _, size in lazrs.read_chunk_table(handle, lazrs.LazVlr(records[0]))]
    if sum(sizes) != table - start - 8:
        raise InputError(f"expected chunks of {table - start - 8} bytes in all, got {sum(sizes)}")
    if compressor == _LAYERED:
        layers = sum(size if kind == _BYTE14 else _LAYERS.get(kind, 0) for kind, size in items)
        _check_layers(handle, sizes, start + 8, point_bytes, layers, count)


def _read_record(data: bytes) -> tuple[int, int, list[tuple[int, int]]]:
    """Return the compressor, the points of a chunk, and type and bytes of each item of a point."""
    (compressor,) = struct.unpack_from("<H", data, 0)
    (chunk_points,) = struct.unpack_from("<I", data, 12)
    (items,) = struct.unpack_from("<H", data, 32)
    if len(data) < 34 + 6 * items:
        raise InputError(f"expected {items} items in the LASzip record, got {len(data)} bytes")
    return compressor, chunk_points, [struct.unpack_from("<HH", data, 34 + 6 * k) for k in range(items)]


def _find_table(handle: BinaryIO, start: int) -> int:
    """Return where the table of chunks starts; -1 says: in the file's last 8 bytes (written to a stream)."""
    size = handle.seek(0, os.SEEK_END)
    handle.seek(start)
    raw = handle.read(8)
    if raw == b"\xff" * 8:
        handle.seek(-8, os.SEEK_END)
        raw = handle.read(8)
    table = int.from_bytes(raw, "little", signed=True)
    if len(raw) < 8 or not start + 8 <= table <= size - 8:
        raise InputError(f"expected a table of chunks at byte {table}, got a file of {size} bytes: truncated")
    return table


def _check_layers(handle: BinaryIO, sizes: list[int], start: int, point_bytes: int, layers: int, count: int) -> None:
    """Check each chunk's head: one point, the number of points, and the bytes of each layer."""
    total, head_bytes = 0, 4 + 4 * layers
    for k, size in enumerate(sizes):
        handle.seek(start + point_bytes)
        start += size
        head = handle.read(head_bytes)
        if size < point_bytes + head_bytes or len(head) < head_bytes:
            raise InputError(f"chunk {k}: expected {point_bytes + head_bytes} bytes or more, got {size}")
        points, *claims = struct.unpack(f"<{1 + layers}I", head)
        total += points
        if point_bytes + head_bytes + sum(claims) > size:
            raise InputError(f"chunk {k}: expected layers in {size} bytes, got claims of {sum(claims)}")
    if total != count:
        raise InputError(f"expected {count} points from the header, got {total} in {len(sizes)} chunks")
