import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver.errors import InputError
from perceiver.flow import UNKNOWN, blend, flow_to_image, read_flo, tiled_flow, tiles, write_flo

TILE = (24, 32)


def coordinates(height, width):
    """Two frames whose pixels say where they are: rows, columns, and which frame."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([np.stack([y, x, np.full_like(y, frame)], axis=-1) for frame in range(2)])


def smooth(y, x):
    return np.stack([np.sin(y / 9) + 0.1 * x, np.cos(x / 7) * y / 5], axis=-1)


class Model:
    """Computes `smooth` from the coordinates in the pixels, and remembers the shapes it was called with."""

    def __init__(self):
        self.shapes = []

    def __call__(self, pairs):
        self.shapes.append(pairs.shape)
        assert (pairs[:, 0, ..., 2] == 0).all()
        assert (pairs[:, 1, ..., 2] == 1).all()
        return smooth(pairs[:, 0, ..., 0], pairs[:, 0, ..., 1])


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 60), st.integers(1, 60), st.data())
def test_tiles_cover_the_frame_and_overlap(height, width, tile_height, tile_width, data):
    overlap = data.draw(st.integers(0, min(tile_height, tile_width) - 1))
    places = tiles(height, width, tile_height, tile_width, overlap)
    covered = np.zeros((height, width), int)
    for top, left in places:
        assert 0 <= top <= max(0, height - tile_height)
        assert 0 <= left <= max(0, width - tile_width)
        covered[top : top + tile_height, left : left + tile_width] += 1
    assert covered.min() >= 1
    assert len(set(places)) == len(places)
    for axis, size in enumerate((tile_height, tile_width)):
        starts = sorted({place[axis] for place in places})
        assert all(a < b <= a + size - overlap for a, b in itertools.pairwise(starts))


def test_tiles_of_a_sintel_frame():
    assert tiles(436, 1024, 368, 496, 20) == [(y, x) for y in (0, 68) for x in (0, 264, 528)]
    assert tiles(368, 496, 368, 496, 20) == [(0, 0)]
    assert tiles(100, 497, 368, 496, 20) == [(0, 0), (0, 1)]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("overlap", [0, 5, 23])
@pytest.mark.parametrize("size", [(1, 1), (10, 20), (24, 32), (25, 33), (24, 90), (10, 90), (47, 63), (130, 170)])
def test_a_smooth_function_of_coordinates_is_put_together_exactly(size, overlap, batch):
    frames, model = coordinates(*size), Model()
    flow = tiled_flow(model, frames, TILE, overlap, batch)
    assert (flow.shape, flow.dtype) == ((*size, 2), np.float32)
    np.testing.assert_allclose(flow, smooth(frames[0, ..., 0], frames[0, ..., 1]), rtol=1e-6, atol=1e-6)
    assert set(model.shapes) == {(batch, 2, *TILE, 3)}
    assert len(model.shapes) == -(-len(tiles(*size, *TILE, overlap)) // batch)


@pytest.mark.parametrize("size", [(10, 20), (24, 32), (31, 50), (100, 70)])
def test_constants_stay_constant(size):
    value = np.array([-3.3, 7.7], np.float32)
    flow = tiled_flow(lambda pairs: np.broadcast_to(value, (*pairs.shape[:1], *TILE, 2)), coordinates(*size), TILE, 7)
    assert (flow == value).all()


def test_small_frames_are_padded_with_their_border_and_keep_their_dtype():
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    seen = []
    tiled_flow(lambda pairs: seen.append(pairs) or np.zeros((1, *TILE, 2)), frames, TILE, 0)
    assert seen[0].dtype == np.uint8
    np.testing.assert_array_equal(seen[0][0, :, :5, :7], frames)
    np.testing.assert_array_equal(seen[0][0, 1, 5:, :7], np.broadcast_to(frames[1, 4], (19, 7, 3)))
    np.testing.assert_array_equal(seen[0][0, 0, :5, 7:], np.broadcast_to(frames[0, :, 6:], (5, 25, 3)))


def test_weights_fall_off_linearly_to_the_border():
    # Two tiles of 1 x 8, of which three columns overlap; their values are 0 and 1.
    row = blend([(0, 0), (0, 5)], [np.zeros((1, 8, 1)), np.ones((1, 8, 1))], 1, 13)[0, :, 0]
    np.testing.assert_allclose(row, [0] * 5 + [1 / 2] * 3 + [1] * 5)  # one row: everything is at a border
    tall = blend([(0, 0), (0, 5)], [np.zeros((9, 8, 1)), np.ones((9, 8, 1))], 9, 13)[4, :, 0]
    np.testing.assert_allclose(tall[5:8], [1 / 4, 2 / 4, 3 / 4])


def test_a_bump_between_tiles_shows_no_seam():
    def biased(pairs):  # every tile is wrong by its own constant
        return np.broadcast_to(pairs[:, 0, :1, :1, :2], (*pairs.shape[:1], *TILE, 2))

    flow = tiled_flow(biased, coordinates(24, 80), TILE, 16)
    assert np.abs(np.diff(flow[12, :, 1])).max() < 3  # a seam would be a step of 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tiled_flow(Model(), np.zeros((2, 5, 5))), r"frames: expected shape \[2, h, w, c\], got \[2, 5, 5\]"),
        (lambda: tiled_flow(Model(), np.zeros((3, 5, 5, 3))), r"got \[3, 5, 5, 3\]"),
        (lambda: tiled_flow(Model(), coordinates(9, 9), TILE, 24), "overlap: expected 0 to 23, got 24"),
        (lambda: tiled_flow(Model(), coordinates(9, 9), TILE, 0, 0), "batch: expected at least 1"),
        (lambda: tiled_flow(lambda t: t, coordinates(9, 9), TILE, 0), r"function: expected shape \[1, 24, 32, 2\]"),
        (lambda: tiles(0, 9, 3, 3, 0), "sizes of at least 1"),
        (lambda: blend([(0, 0)], [], 3, 3), "as many as places, got fewer"),
        (lambda: blend([], [np.zeros((3, 3, 2))], 3, 3), "as many as places, got more"),
        (lambda: blend([(0, 0)], [np.zeros((3, 2, 2))], 3, 3), "3 pixels in none"),
        (lambda: blend([(0, 0)] * 2, [np.zeros((3, 3, 2)), np.zeros((3, 4, 2))], 3, 3), r"got \(3, 4, 2\)"),
        (lambda: flow_to_image(np.zeros((3, 3, 3))), r"floating point \[h, w, 2\], got float64 \[3, 3, 3\]"),
        (lambda: flow_to_image(np.zeros((3, 3, 2)), 0.0), "longest"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_an_error_of_the_function_is_its_own():
    def broken(pairs):
        raise ValueError("out of memory")

    with pytest.raises(ValueError, match=r"^out of memory$"):
        tiled_flow(broken, coordinates(9, 9), TILE, 0)


def test_colours_of_directions():
    flow = np.array([[[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]]], np.float32)
    still, right, down, left, up = flow_to_image(flow)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert right.tolist() == [255, 0, 0]
    assert down[0] > 200 < down[1]  # yellow
    assert down[2] == 0
    assert left[0] == 0  # cyan to blue
    assert left[2] > 200
    assert up[2] == 255  # violet
    assert up[1] == 0


def test_colours_of_lengths():
    flow = np.array([[[1, 0], [2, 0], [4, 0], [8, 0]]], np.float32)
    assert flow_to_image(flow)[0].tolist() == [[255, 223, 223], [255, 191, 191], [255, 127, 127], [255, 0, 0]]
    assert flow_to_image(flow, longest=4)[0].tolist() == [[255, 191, 191], [255, 127, 127], [255, 0, 0], [191, 0, 0]]
    assert (flow_to_image(np.zeros((2, 3, 2), np.float32)) == 255).all()


def test_unknown_flow_is_black_and_does_not_set_the_scale():
    flow = np.zeros((1, 5, 2), np.float32)
    flow[0, :4] = [[np.nan, 0], [np.inf, 1], [2 * UNKNOWN, 0], [3, 0]]
    assert flow_to_image(flow)[0].tolist() == [[0, 0, 0]] * 3 + [[255, 0, 0], [255, 255, 255]]


def test_a_flo_file_by_hand(tmp_path):
    path = tmp_path / "a.flo"
    path.write_bytes(b"PIEH" + b"\2\0\0\0\1\0\0\0" + np.array([1, 2, 3, 4], "<f4").tobytes())
    assert read_flo(path).tolist() == [[[1, 2], [3, 4]]]
    assert read_flo(path).dtype == np.float32
    write_flo(tmp_path / "b.flo", read_flo(path))
    assert (tmp_path / "b.flo").read_bytes() == path.read_bytes()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_flo_round_trip(tmp_path_factory, height, width, seed):
    flow = np.random.default_rng(seed).normal(size=(height, width, 2)).astype(np.float32)
    path = tmp_path_factory.getbasetemp() / "a.flo"
    write_flo(path, flow)
    np.testing.assert_array_equal(read_flo(path), flow)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"PIEH\2\0\0\0", "starts with"),
        (b"HEIP" + bytes(16), "starts with b'PIEH', got b'HEIP'"),
        (b"PIEH" + bytes(8), "sides of 1 to 99999, got 0 x 0"),
        (b"PIEH" + b"\xff" * 8, "sides of 1 to 99999, got -1 x -1"),
        (b"PIEH\2\0\0\0\1\0\0\0" + bytes(15), "expected 28 bytes for 1 x 2 pixels, got 27"),
        (b"PIEH\2\0\0\0\1\0\0\0" + bytes(17), "expected 28 bytes for 1 x 2 pixels, got 29"),
    ],
)
def test_what_is_no_flo_file(tmp_path, content, message):
    path = tmp_path / "a.flo"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_flo(path)
    assert str(caught.value).startswith(str(path))


def test_a_flo_file_that_cannot_be(tmp_path):
    with pytest.raises(InputError, match=r"expected floating point \[h, w, 2\], got int64"):
        write_flo(tmp_path / "a.flo", np.zeros((3, 3, 2), np.int64))
    with pytest.raises(InputError, match="writable"):
        write_flo(tmp_path, np.zeros((3, 3, 2)))
    with pytest.raises(InputError, match="no such file"):
        read_flo(tmp_path / "none.flo")
