"""Optical flow on the host: frames of any size tile by tile, colours for people, and Middlebury's .flo files.

A flow [h, w, 2] says in pixels where each pixel of the earlier frame goes: to the right (horizontal), then down
(vertical). Sources: Perceiver IO's notebook optical_flow.ipynb (overlapping tiles, at least 20 pixels, weighted by the
distance to the tile's border); Baker et al., "A Database and Evaluation Methodology for Optical Flow" (ICCV 2007),
for the colours and the file format.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing

_FLO_MAGIC = np.float32(202021.25).tobytes()  # the bytes PIEH
_FLO_LONGEST = 99_999  # a side; what the format's own programs accept

UNKNOWN = 1e9
"""A .flo file marks pixels whose flow is not known by larger numbers."""

# The colour wheel goes around in six stretches, in each of which one of red, green and blue rises or falls. Their
# lengths follow how well people tell the colours apart: (steps, colour at the start), red being the first.
_WHEEL = ((15, (255, 0, 0)), (6, (255, 255, 0)), (4, (0, 255, 0)), (11, (0, 255, 255)), (13, (0, 0, 255)),
          (6, (255, 0, 255)))  # fmt: skip


def tiles(height: int, width: int, tile_height: int, tile_width: int, overlap: int) -> list[tuple[int, int]]:
    """Where to lay tiles so that they cover a frame: (top, left) of each, row by row.

    Tiles are as few as the overlap allows and evenly spaced; the last ones end at the frame's border. Where a tile is
    larger than the frame there is one, at 0.

    Args:
        height: rows of the frame.
        width: columns of the frame.
        tile_height: rows of a tile.
        tile_width: columns of a tile.
        overlap: the least number of rows or columns that neighbours share, below the tile's sides.

    Raises:
        InputError: a size below 1, or an overlap outside [0, smaller side of the tile).
    """
    if min(height, width, tile_height, tile_width) < 1:
        raise InputError(f"expected sizes of at least 1, got {height} x {width} and {tile_height} x {tile_width}")
    if not 0 <= overlap < min(tile_height, tile_width):
        raise InputError(f"overlap: expected 0 to {min(tile_height, tile_width) - 1}, got {overlap}")
    tops, lefts = _starts(height, tile_height, overlap), _starts(width, tile_width, overlap)
    return list(itertools.product(tops, lefts))


def blend(places: Iterable[tuple[int, int]], flows: Iterable[np.ndarray], height: int, width: int) -> np.ndarray:
    """Put tiles together: where they overlap, their mean weighted by the distance to each tile's border.

    Args:
        places: (top, left) of each tile, from `tiles`.
        flows: [tile height, tile width, c] each, in the same order; taken one at a time, so it may be a generator.
        height: rows of the whole; what tiles have beyond is cut.
        width: columns of the whole.

    Returns:
        float32 [height, width, c].

    Raises:
        InputError: more or fewer tiles than places, tiles of several shapes, or a pixel that none covers.
    """
    total, weight = np.zeros((height, width, 1)), np.zeros((height, width, 1))
    shape: tuple[int, ...] | None = None
    for place, flow in itertools.zip_longest(places, flows):
        if place is None or flow is None:
            raise InputError(f"tiles: expected as many as places, got {'fewer' if flow is None else 'more'}")
        if flow.ndim != 3 or flow.shape != (shape or flow.shape):
            raise InputError(f"tiles: expected shape {shape or '[h, w, c]'}, got {flow.shape}")
        if shape is None:
            shape, total = flow.shape, np.zeros((height, width, flow.shape[2]))
        top, left = place
        inside = np.s_[top : top + shape[0], left : left + shape[1]]
        rows, columns = weight[inside].shape[:2]
        share = _weights(shape[0], shape[1])[:rows, :columns]
        total[inside] += share * flow[:rows, :columns]
        weight[inside] += share
    if not weight.all():
        raise InputError(f"tiles: expected to cover {height} x {width}, got {np.sum(weight == 0)} pixels in none")
    return (total / weight).astype(np.float32)


def tiled_flow(
    function: Callable[[np.ndarray], np.ndarray],
    frames: np.ndarray,
    tile: tuple[int, int] = (368, 496),
    overlap: int = 20,
    batch: int = 1,
) -> np.ndarray:
    """Flow between two frames of any size, by a function that takes one size only.

    Frames smaller than a tile are padded at the bottom and right by repeating their last row and column: resizing
    them instead would change the very displacements that are asked for, and the scale that the model was trained on.

    Args:
        function: tiles [batch, 2, tile height, tile width, c] -> flows [batch, tile height, tile width, 2], in pixels.
            It is always called with this one shape, so that nothing recompiles; a last batch that is not full is
            filled up with its last tile.
        frames: [2, h, w, c], the earlier one first; any dtype.
        tile: height and width of a tile, the size that the model was trained on.
        overlap: see `tiles`.
        batch: tiles in one call.

    Returns:
        float32 [h, w, 2].

    Raises:
        InputError: another shape, a batch below 1, what `tiles` refuses, or a function that returns another shape.
    """
    with naming("tiled_flow"):
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[0] != 2 or not frames.size:
            raise InputError(f"frames: expected shape [2, h, w, c], got {list(frames.shape)}")
        if batch < 1:
            raise InputError(f"batch: expected at least 1, got {batch}")
        height, width = frames.shape[1:3]
        places = tiles(height, width, *tile, overlap)
        missing = [(0, max(0, side - size)) for side, size in zip(tile, (height, width), strict=True)]
        padded = np.pad(frames, [(0, 0), *missing, (0, 0)], mode="edge")
        return blend(places, _run(function, padded, places, tile, batch), height, width)


def flow_to_image(flow: np.ndarray, longest: float | None = None) -> np.ndarray:
    """Colours for a flow: the hue is the direction (red: to the right), the saturation the length, white no motion.

    Args:
        flow: floating point [h, w, 2], pixels.
        longest: the length that gets the full colour, in pixels; longer flows are darkened. None takes the longest
            in this flow, so that pictures of several flows are on one scale only with a number given.

    Returns:
        uint8 [h, w, 3]; black where the flow is not known (NaN, infinite or above UNKNOWN).

    Raises:
        InputError: another shape, or a `longest` that is not above 0.
    """
    flow = _check_flow("flow_to_image", flow).astype(np.float64)
    if longest is not None and not longest > 0:
        raise InputError(f"flow_to_image: longest: expected a length above 0, got {longest}")
    known = np.isfinite(flow).all(axis=-1) & (np.abs(flow) <= UNKNOWN).all(axis=-1)
    flow = np.where(known[..., None], flow, 0.0)
    length = np.hypot(flow[..., 0], flow[..., 1])
    length /= longest or length.max() or 1.0
    wheel = _wheel()
    # Turned by half a circle, angles start at red and the direction to the right, and go on downwards.
    around = (np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi + 1) / 2 * (len(wheel) - 1)
    lower = np.floor(around).astype(int)
    part = (around - lower)[..., None]
    colour = (1 - part) * wheel[lower] + part * wheel[(lower + 1) % len(wheel)]
    length = length[..., None]
    colour = np.where(length <= 1, 1 - length * (1 - colour), 0.75 * colour)
    return np.where(known[..., None], np.floor(255 * colour), 0).astype(np.uint8)


def write_flo(path: str | os.PathLike[str], flow: np.ndarray) -> None:
    """Write a Middlebury .flo file.

    Args:
        path: the file, replaced when it exists.
        flow: floating point [h, w, 2], pixels, kept as float32; sides of at most 99999.

    Raises:
        InputError: another shape, or a path that cannot be written.
    """
    with naming(os.fspath(path)):
        flow = _check_flow("flow", flow)
        height, width = flow.shape[:2]
        if max(height, width) > _FLO_LONGEST:
            raise InputError(f"expected sides of at most {_FLO_LONGEST}, got {height} x {width}")
        with refusing("a writable path"), open(path, "wb") as handle:
            handle.write(_FLO_MAGIC + np.array([width, height], "<i4").tobytes() + flow.astype("<f4").tobytes())


def read_flo(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a Middlebury .flo file: float32 [h, w, 2], pixels; above UNKNOWN where the flow is not known.

    Raises:
        InputError: no such file, no .flo file, or not as long as its header says.
    """
    with naming(os.fspath(path)):
        file = existing_file(path)
        with refusing("a .flo file"), open(file, "rb") as handle:
            head = handle.read(12)
            if len(head) < 12 or head[:4] != _FLO_MAGIC:
                raise InputError(f"expected a .flo file that starts with {_FLO_MAGIC!r}, got {head[:4]!r}")
            width, height = np.frombuffer(head[4:], "<i4").tolist()
            if not (1 <= width <= _FLO_LONGEST and 1 <= height <= _FLO_LONGEST):
                raise InputError(f"expected sides of 1 to {_FLO_LONGEST}, got {height} x {width}")
            expected, size = 12 + 8 * width * height, file.stat().st_size
            if size != expected:
                raise InputError(f"expected {expected} bytes for {height} x {width} pixels, got {size}")
            return np.frombuffer(handle.read(), "<f4").astype(np.float32).reshape(height, width, 2)


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    """Evenly spaced; rounding down keeps every step at or below tile - overlap, which is a whole number."""
    if size <= tile:
        return [0]
    steps = -(-(size - tile) // (tile - overlap))
    return [place * (size - tile) // steps for place in range(steps + 1)]


def _weights(height: int, width: int) -> np.ndarray:
    """[height, width, 1]: pixels to the nearest border, counted from 1."""
    down, across = (np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in (height, width))
    return np.minimum(down[:, None], across[None, :])[..., None].astype(np.float64)


def _run(
    function: Callable[[np.ndarray], np.ndarray],
    frames: np.ndarray,
    places: Sequence[tuple[int, int]],
    tile: tuple[int, int],
    batch: int,
) -> Iterator[np.ndarray]:
    """The flow of each place in turn."""
    height, width = tile
    for start in range(0, len(places), batch):
        some = places[start : start + batch]
        cut = [frames[:, top : top + height, left : left + width] for top, left in some]
        flows = np.asarray(function(np.stack(cut + cut[-1:] * (batch - len(cut)))))
        if flows.shape != (batch, height, width, 2):
            raise InputError(f"function: expected shape {[batch, height, width, 2]}, got {list(flows.shape)}")
        yield from flows[: len(some)]


def _check_flow(where: str, flow: np.ndarray) -> np.ndarray:
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size or not np.issubdtype(flow.dtype, np.floating):
        raise InputError(f"{where}: expected floating point [h, w, 2], got {flow.dtype} {list(flow.shape)}")
    return flow


def _wheel() -> np.ndarray:
    """The colours around the wheel, [55, 3] in [0, 1]."""
    starts = [np.array(colour, np.float64) for _, colour in _WHEEL]
    stretches = []
    for (steps, _), start, end in zip(_WHEEL, starts, starts[1:] + starts[:1], strict=True):
        # The changing channel is rounded down to whole levels, as in the authors' programs.
        moved = np.floor(255 * np.arange(steps) / steps)[:, None] * np.sign(end - start)
        stretches.append(start + moved)
    return np.concatenate(stretches) / 255
