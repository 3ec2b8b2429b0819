import numpy as np
import pytest

from perceiver import InputError
from perceiver.io import read_video
from perceiver.io.video_writing import VideoWriter


def test_frames_are_read_back_as_they_were_nearly(tmp_path):
    rows = np.linspace(0, 255, 48)[:, None, None]
    frames = np.stack([np.broadcast_to((rows + 10 * step) % 256, (48, 32, 3)) for step in range(7)]).astype(np.uint8)
    writer = VideoWriter(tmp_path / "film.mp4", 12.5, (48, 32))
    writer.add(frames[:3])
    writer.add(frames[3:])
    writer.close()
    assert writer.frames == 7
    seen, rate = read_video(tmp_path / "film.mp4", 100)
    assert (seen.shape, rate) == (frames.shape, pytest.approx(12.5))
    assert np.abs(seen.astype(int) - frames).mean() < 4
    late, _ = read_video(tmp_path / "film.mp4", 2, start=4 / 12.5)
    np.testing.assert_array_equal(late, seen[4:6])


def test_what_cannot_be_written_is_refused(tmp_path):
    bad = [
        ({"rate": 0.0}, "rate: expected frames per second above 0"),
        ({"size": (7, 8)}, "size: expected an even height and width, got 7 x 8"),
        ({"quality": 52}, "quality, key_every: expected 0 to 51"),
        ({"path": tmp_path / "no" / "such" / "film.mp4"}, "expected a writable path"),
    ]
    for changes, message in bad:
        given = {"path": tmp_path / "film.mp4", "rate": 10.0, "size": (8, 8)} | changes
        with pytest.raises(InputError, match=message):
            VideoWriter(given.pop("path"), given.pop("rate"), given.pop("size"), **given).add(
                np.zeros((1, 8, 8, 3), np.uint8)
            )
    writer = VideoWriter(tmp_path / "film.mp4", 10.0, (8, 8))
    with pytest.raises(InputError, match=r"film.mp4: expected uint8 frames \(8, 8, 3\), got float64 \(4, 8, 3\)"):
        writer.add(np.zeros((1, 4, 8, 3)))
    writer.close()
