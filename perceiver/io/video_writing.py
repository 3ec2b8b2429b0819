"""Frames to a video file, on the host, as they come."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from perceiver.errors import InputError, naming, require
from perceiver.io.files import refusing

CODEC, PIXELS = "h264", "yuv420p"
"""What is written: what nearly everything plays."""


class VideoWriter:
    """An MP4 file that is written frame by frame. Needs the extra `video`.

    Args:
        path: the file, replaced when it exists; whole only after `close`.
        rate: frames per second, above 0.
        size: height and width, even numbers, as colours are kept for squares of four pixels.
        quality: x264's constant rate factor, 0 to 51: 18 is hard to tell from the original, 6 more halve the file.
        key_every: frames from one that stands alone to the next; small numbers make any frame quick to reach.

    Attributes:
        frames, bytes: how many were written; bytes without those that the encoder still holds.

    Raises:
        InputError: no such rate, size or quality, or a path that cannot be written.
        MissingExtraError: the package av is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rate: float,
        size: tuple[int, int],
        *,
        quality: int = 18,
        key_every: int = 2,
    ):
        self.path, self.size, self.frames, self.bytes = Path(path), size, 0, 0
        with naming(os.fspath(path)):
            if not 0 < rate < float("inf"):
                raise InputError(f"rate: expected frames per second above 0, got {rate}")
            if min(size) < 2 or size[0] % 2 or size[1] % 2:
                raise InputError(f"size: expected an even height and width, got {size[0]} x {size[1]}")
            if not 0 <= quality <= 51 or key_every < 1:
                raise InputError(f"quality, key_every: expected 0 to 51 and at least 1, got {quality} and {key_every}")
            self._av = require("av", "video")
            with refusing("a writable path"):
                self.path.touch()  # at once: av opens it with the first frame that its encoder gives away
                self._container = self._av.open(os.fspath(path), "w", options={"movflags": "faststart"})
                options = {"crf": str(quality), "g": str(key_every), "bf": "0"}
                exact = Fraction(rate).limit_denominator(1001)
                self._stream = self._container.add_stream("libx264", rate=exact, options=options)
                self._stream.height, self._stream.width = size
                self._stream.pix_fmt = PIXELS

    def add(self, frames: np.ndarray) -> None:
        """Write frames, uint8 [t, h, w, 3].

        Raises:
            InputError: another dtype or shape, or no room.
        """
        with naming(os.fspath(self.path)):
            if frames.dtype != np.uint8 or frames.shape[1:] != (*self.size, 3):
                raise InputError(f"expected uint8 frames {(*self.size, 3)}, got {frames.dtype} {frames.shape[1:]}")
            with refusing("a writable path"):
                for frame in frames:
                    picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                    picture.pts = self.frames
                    picture.time_base = 1 / self._stream.codec_context.framerate
                    packets = self._stream.encode(picture)
                    self._container.mux(packets)
                    self.bytes += sum(packet.size for packet in packets)
                    self.frames += 1

    def close(self) -> None:
        """Write the end. The file is whole then."""
        with naming(os.fspath(self.path)), refusing("a writable path"):
            if self.frames:
                self._container.mux(self._stream.encode())
            self._container.close()
