"""Video on the host: files or folders of pictures to uint8 frames, and the sound of a video file.

Frames are read one after another and only those that are wanted are kept, so that memory does not grow with the file.
"""

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from perceiver.errors import InputError, naming, require
from perceiver.io import images
from perceiver.io.containers import PICTURES, Container, container_of
from perceiver.io.files import existing_file, refusing

MAX_PIXELS = 2**28
"""The most pixels of all frames together that are kept: 768 MiB."""

FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""Endings of files whose sound is a track beside pictures."""

_SAME_TIME = 1e-3  # seconds; Matroska and WebM round their times to this
_UNTIMED = 0.1  # seconds; how long browsers show a frame of a GIF that does not say


class _Frame(NamedTuple):
    """A frame of a file: when it is seen and for how long, in seconds, the file's frames per second, and itself."""

    time: float
    seconds: float
    rate: float | None
    pixels: Callable[[], np.ndarray]


_Frames: TypeAlias = Generator[_Frame, None, None]


def read_video(
    path: str | os.PathLike[str],
    frames: int,
    *,
    start: float = 0.0,
    rate: float | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[np.ndarray, float | None]:
    """Read frames of an MP4, MOV, Matroska, WebM or AVI file, of an animated GIF, WebP or PNG, or of a folder.

    The content decides on the format, not the suffix. The first five need the extra `video`. A rotation that a phone
    has noted is applied; the shape of pixels is not. Transparent pixels are laid over white. In a folder every picture
    is a frame, in the order of the names (of numbers in names by value: frame_9 before frame_10).

    Args:
        path: the file or folder.
        frames: the most frames to return, from the start on.
        start: seconds after the first frame. A folder has no times and takes 0 only.
        rate: wanted frames per second: those seen at start, start + 1 / rate and so on, some left out or repeated as
            need be. None takes every frame. A folder is taken to have the wanted rate.
        transform: applied to each frame [h, w, 3] as it is read, such as `frame_image` to a fixed size.
        max_pixels: of all returned frames together; above it the file is refused.

    Returns:
        uint8 [t, h, w, 3], 1 <= t <= frames, or whatever `transform` gives with t in front; and the frames per second
        of these, or None where that is unknown.

    Raises:
        InputError: no such file, no video, truncated, damaged, too large, no frame at `start`, or frames of
            several sizes.
        MissingExtraError: the package av is not installed.
    """
    with naming(os.fspath(path)):
        if frames < 1:
            raise InputError(f"frames: expected at least 1, got {frames}")
        if rate is not None and not 0 < rate < float("inf"):
            raise InputError(f"rate: expected frames per second above 0, got {rate}")
        if not 0 <= start < float("inf"):
            raise InputError(f"start: expected seconds from 0 on, got {start}")
        if os.path.isdir(path):
            if start:
                raise InputError(f"start: expected 0 for a folder, which has no times, got {start}")
            source = _folder(Path(path))
            chosen: Iterator[_Frame] = source
        else:
            file = existing_file(path)
            kind = container_of(file)
            source = _animation(file, kind) if kind in PICTURES else _container(file, kind, start)
            chosen = _chosen(source, start, rate)
        with contextlib.closing(source):
            pictures, seen = _kept(itertools.islice(chosen, frames), transform, max_pixels)
        if not pictures:
            raise InputError(f"start: expected a frame at {start} s or later, got a video that ends before")
        return np.stack(pictures), rate or seen


def read_video_audio(
    path: str | os.PathLike[str],
    sample_rate: int | None = None,
    *,
    start: float = 0.0,
    seconds: float | None = None,
    max_seconds: float = 3600,
) -> tuple[np.ndarray, int]:
    """Read the first sound track of an MP4, MOV, Matroska, WebM or AVI file as mono, the mean over its channels.

    Needs the extras `video` and, for another rate, `audio`.

    Args:
        path: the file.
        sample_rate: wanted samples per second, reached by soxr's high-quality resampler; None keeps the file's rate.
        start: seconds after the first frame of the video (of the sound, in a file that has no video). Sound that
            begins after that has zeros in front.
        seconds: how much to read at most, the rest is left unread; None reads to the end.
        max_seconds: length above which a sound read to its end is refused.

    Returns:
        float32 [samples], full scale of integer formats = 1; and the rate, Hz.

    Raises:
        InputError: no such file, no sound, truncated, damaged, too long, or samples that are NaN or infinite.
        MissingExtraError: av or soxr is not installed.
    """
    with naming(os.fspath(path)):
        if sample_rate is not None and sample_rate < 1:
            raise InputError(f"sample_rate: expected at least 1 Hz, got {sample_rate}")
        if not 0 <= start < float("inf") or not (seconds is None or seconds > 0):
            raise InputError(f"start, seconds: expected seconds from 0 on and above 0, got {start} and {seconds}")
        file = existing_file(path)
        kind = container_of(file)
        if kind in PICTURES:
            raise InputError(f"expected a sound track, got {kind.value}, which has none")
        with refusing("a video with sound"), open(file, "rb") as handle:
            samples, rate = _sound(handle, kind, start, seconds, max_seconds)
        if sample_rate is not None and sample_rate != rate:
            soxr = require("soxr", "audio")
            with refusing(f"audio that can be resampled from {rate} to {sample_rate} Hz"):
                samples, rate = soxr.resample(samples, rate, sample_rate).astype(np.float32, copy=False), sample_rate
        if not len(samples) or not np.isfinite(samples).all():
            raise InputError(f"expected finite samples from {start} s on, got {len(samples)} samples")
        return samples, rate


def _chosen(source: Iterable[_Frame], start: float, rate: float | None) -> Iterator[_Frame]:
    """The frames from `start` on; with `rate` the one that is seen at each multiple of its inverse."""
    taken = 0
    for frame in source:
        end = frame.time + frame.seconds - _SAME_TIME
        if rate is None and (end > start or frame.time >= start):
            yield frame
        while rate is not None and start + taken / rate < end:
            taken += 1
            yield frame


def _kept(
    frames: Iterable[_Frame], transform: Callable[[np.ndarray], np.ndarray] | None, max_pixels: int
) -> tuple[list[np.ndarray], float | None]:
    """The pictures, and the frames per second: the file's, or the mean over these frames."""
    pictures: list[np.ndarray] = []
    seconds, rate = 0.0, None
    for frame in frames:
        picture = frame.pixels() if transform is None else transform(frame.pixels())
        if pictures and picture.shape != pictures[0].shape:
            raise InputError(f"expected frames of one size, got {pictures[0].shape} and {picture.shape}")
        if (len(pictures) + 1) * picture.shape[0] * picture.shape[1] > max_pixels:
            raise InputError(f"expected at most {max_pixels} pixels, got more than {len(pictures)} of {picture.shape}")
        pictures.append(picture)
        seconds, rate = seconds + frame.seconds, frame.rate
    return pictures, rate if rate or not seconds else len(pictures) / seconds


def _folder(folder: Path) -> _Frames:
    with refusing("a folder of images"):
        names = [entry.name for entry in os.scandir(folder) if entry.name.lower().endswith(images.SUFFIXES)]
    if not names:
        raise InputError(f"expected images ({', '.join(images.SUFFIXES)}) in the folder, got none")
    for name in sorted(names, key=_by_number):
        yield _Frame(0.0, 0.0, None, functools.partial(images.read_image, folder / name, channels=3))


def _by_number(name: str) -> tuple[list[Any], str]:
    """What to sort names by: text and numbers by turns, then the name itself."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _animation(file: Path, kind: Container) -> _Frames:
    time = 0.0
    with open(file, "rb") as handle:
        with refusing(f"a {kind.value} file"):
            image = Image.open(handle, formats=(kind.value,))
        _check_size(image.height, image.width)
        for number in itertools.count():
            with refusing(f"a {kind.value} file"):
                try:
                    image.seek(number)
                except EOFError:
                    return
                image.load()
                array = images.pillow_array(image, 3, 255)
            seconds = (image.info.get("duration") or 0) / 1000 or _UNTIMED
            yield _Frame(time, seconds, None, functools.partial(np.copy, array))
            time += seconds


def _container(file: Path, kind: Container, start: float) -> _Frames:
    """Every frame from the last one before `start` on that can be read without those before it."""
    av = require("av", "video")
    with open(file, "rb") as handle, contextlib.ExitStack() as opened:
        with refusing("a video"):
            container = opened.enter_context(av.open(handle, format=kind.value))
            stream = _video_stream(av, container)
        if stream is None:
            raise InputError("expected a video, got a file without one")
        with refusing("a video that can be decoded"):
            rate = float(stream.average_rate or 0) or None
            zero, unit = stream.start_time or 0, float(stream.time_base)
            _check_size(stream.height, stream.width)
        if start and kind is not Container.AVI:  # whose frames have a time for decoding only, which may be late
            with contextlib.suppress(av.FFmpegError):  # without an index all is read from the beginning
                container.seek(zero + int(start / unit), stream=stream)
        decoded, held = container.decode(stream), None
        while True:
            with refusing("a video"):
                frame = next(decoded, None)
                if frame is not None and held is None and kind is Container.AVI:
                    zero = _stamp(frame)
                time = None if frame is None else (_stamp(frame) - zero) * unit
            if held is not None:
                seconds = 1 / (rate or 1) if time is None else time - held[0]
                yield _Frame(held[0], seconds, rate, functools.partial(_pixels, held[1]))
            if time is None:
                return
            held = time, frame


def _stamp(frame: Any) -> int:
    """When a frame is seen, in the units of its stream."""
    stamp = frame.dts if frame.pts is None else frame.pts
    if stamp is None:
        raise InputError("expected a time for each frame, got none")
    return stamp


def _video_stream(av: Any, container: Any) -> Any:
    """The first stream that moves: the cover of an album is a video stream too."""
    still = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & still), None)


def _pixels(frame: Any) -> np.ndarray:
    """Decoded frame of av to uint8 [h, w, 3], upright."""
    with refusing("a video"):
        if frame.is_corrupt:
            raise InputError(f"expected whole frames, got a damaged one at {float(frame.time or 0):.3f} s")
        turns = round(frame.rotation / 90)  # anticlockwise, as for rot90
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


def _sound(
    handle: BinaryIO, kind: Container, start: float, seconds: float | None, max_seconds: float
) -> tuple[np.ndarray, int]:
    """Mono samples from `start` seconds on, and their rate."""
    av = require("av", "video")
    with av.open(handle, format=kind.value) as container:
        if not container.streams.audio:
            raise InputError("expected a sound track, got a file without one")
        stream = container.streams.audio[0]
        first = _video_stream(av, container) or stream
        zero = float((first.start_time or 0) * first.time_base) + start
        rate = int(stream.rate)
        limit = round((max_seconds if seconds is None else seconds) * rate)
        planar = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        skip: int | None = None
        parts, count = [np.zeros(0, np.float32)], 0
        for frame in itertools.chain(container.decode(stream), [None]):
            for part in planar.resample(frame):
                mono = part.to_ndarray().mean(axis=0, dtype=np.float64).astype(np.float32)
                if skip is None:  # samples to leave out at the beginning, or zeros to put in front
                    skip = round((zero - float(part.time or 0)) * rate)
                    mono, skip = np.concatenate([np.zeros(min(max(0, -skip), limit), np.float32), mono]), max(0, skip)
                kept, skip = mono[skip:], max(0, skip - len(mono))
                parts.append(kept[: max(0, limit - count)])
                count += len(kept)
            if count > limit:
                break
    if seconds is None and count > limit:
        raise InputError(f"expected at most {max_seconds} s of sound, got more")
    return np.concatenate(parts), rate


def _check_size(height: int, width: int) -> None:
    if height * width > images.MAX_PIXELS:
        raise InputError(f"expected at most {images.MAX_PIXELS} pixels in a frame, got {height} x {width}")
