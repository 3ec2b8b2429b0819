"""Audio on the host: files to float32 mono samples at a wanted rate, and samples to WAV files.

Sources of the container checks: Microsoft's "Multimedia Programming Interface and Data Specifications 1.0"
(RIFF/WAVE) and RFC 3533 (Ogg). libsndfile reads what is there of a truncated file and reports that as the
whole, so a container's own account of its length is compared here with what the file holds.
"""

import os
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from perceiver.errors import InputError, naming, require
from perceiver.io.files import existing_file, refusing

# WAVE format tags whose frames have a fixed number of bytes: PCM, float, A-law, mu-law, extensible.
_FIXED_SIZE_TAGS = (0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE)

_BLOCK_SAMPLES = 2**22  # decoded at once, all channels together: 16 MiB


def read_audio(
    path: str | os.PathLike[str], sample_rate: int | None = None, max_seconds: float = 3600
) -> tuple[np.ndarray, int]:
    """Read a WAV, FLAC or Ogg (Vorbis, Opus) file as mono, the mean over its channels.

    The content decides on the format, not the suffix. Needs the extra `audio`. MP3 is left out: its frames
    do not tell how many there should be, so a truncated file passes for a whole one.

    Args:
        path: the file.
        sample_rate: wanted samples per second, reached by soxr's high-quality resampler; None keeps the
            file's rate.
        max_seconds: duration above which the file is refused, before its samples are decoded.

    Returns:
        float32 [samples], full scale of integer formats = 1 (float files are not clipped); and the rate, Hz.

    Raises:
        InputError: no such file, no audio, truncated, a header that disagrees with the content, no samples,
            too long, or samples that are NaN or infinite.
        MissingExtraError: soundfile or soxr is not installed.
    """
    with naming(os.fspath(path)):
        if sample_rate is not None and sample_rate < 1:
            raise InputError(f"sample_rate: expected at least 1 Hz, got {sample_rate}")
        file = existing_file(path)
        soundfile, soxr = require("soundfile", "audio"), require("soxr", "audio")
        with refusing("an audio file (WAV, FLAC, Ogg)"):
            promised = _check_container(file)
            with soundfile.SoundFile(os.fspath(file)) as stream:
                samples, rate = _decode(stream, promised, max_seconds), int(stream.samplerate)
        _check_finite(samples)
        if sample_rate is None or sample_rate == rate:
            return samples, rate
        with refusing(f"audio that can be resampled from {rate} to {sample_rate} Hz"):
            resampled = soxr.resample(samples, rate, sample_rate).astype(np.float32, copy=False)
        if not len(resampled):
            raise InputError(f"expected at least one sample at {sample_rate} Hz, got {len(samples)} at {rate} Hz")
        _check_finite(resampled)
        return resampled, sample_rate


def write_wav(path: str | os.PathLike[str], samples: np.ndarray, rate: int) -> None:
    """Write a 16-bit mono WAV file. Needs no extra.

    Args:
        path: the file, replaced when it exists.
        samples: floating point [n] in [-1, 1], or int16 [n].
        rate: samples per second, 1 to 2**31 - 1.

    Raises:
        InputError: another shape or dtype, floats out of range, or a path that cannot be written.
    """
    with naming(os.fspath(path)):
        samples = np.asarray(samples)
        if samples.ndim != 1 or not samples.size:
            raise InputError(f"expected mono samples [n], n >= 1, got shape {list(samples.shape)}")
        if not 1 <= rate < 2**31:  # the header keeps bytes per second in 32 bits
            raise InputError(f"rate: expected 1 to {2**31 - 1} Hz, got {rate}")
        if np.issubdtype(samples.dtype, np.floating):
            # Written as "not all inside", NaN is refused too.
            if not np.all(np.abs(samples) <= 1):
                raise InputError(f"expected samples in [-1, 1], got values from {samples.min()} to {samples.max()}")
            samples = np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767)
        elif samples.dtype != np.int16:
            raise InputError(f"expected floating point or int16 samples, got {samples.dtype}")
        with refusing("a writable path"), open(path, "wb") as handle, wave.open(handle, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(rate)
            out.writeframes(samples.astype("<i2").tobytes())


def trim_silence(
    wave: np.ndarray, rate: int, *, decibels: float = 40.0, window: float = 0.02, margin: float = 0.02
) -> np.ndarray:
    """Cut what is quiet off both ends of a sound: its `loud_part`. float32 [n] -> float32 [m], 0 < m <= n."""
    first, last = loud_part(wave, rate, decibels=decibels, window=window, margin=margin)
    return wave[first:last].copy()


def loud_part(
    wave: np.ndarray, rate: int, *, decibels: float = 40.0, window: float = 0.02, margin: float = 0.02
) -> tuple[int, int]:
    """The sample at which a sound float32 [n] starts to be heard, and the one behind its end; nothing is random.

    Mean power is taken in windows side by side; the sound lasts from the first to the last of those that are at most
    `decibels` below the loudest, and `margin` is left around it. rate: Hz. window, margin: seconds. A sound that is
    silent throughout stays whole.
    """
    size = max(round(window * rate), 1)
    squares = np.square(wave)
    power = np.add.reduceat(squares, np.arange(0, len(wave), size)) / size if len(wave) else squares
    if not power.any():
        return 0, len(wave)
    power[-1] *= size / (len(wave) - (len(power) - 1) * size)  # the last has fewer samples
    loud = np.flatnonzero(power >= power.max() * 10.0 ** (-decibels / 10))
    around = round(margin * rate)
    return max(int(loud[0]) * size - around, 0), min((int(loud[-1]) + 1) * size + around, len(wave))


def mean_power(wave: np.ndarray) -> float:
    """Mean square of a sound float32 [n]; 0 where there is none."""
    return float(np.dot(wave, wave)) / max(len(wave), 1)


def _decode(stream: Any, promised: int | None, max_seconds: float) -> np.ndarray:
    """Decode an open soundfile.SoundFile to mono float32 [frames], in blocks to bound the memory."""
    frames, rate = int(stream.frames), int(stream.samplerate)
    if frames >= 2**62:
        raise InputError("expected a header that gives the number of samples, got one that leaves it open")
    if frames < 1:
        raise InputError("expected samples, got none")
    if rate < 1:
        raise InputError(f"expected a rate of at least 1 Hz, got {rate}")
    if frames > max_seconds * rate:
        raise InputError(f"expected at most {max_seconds} s, got {frames / rate:.1f} s")
    if promised is not None and promised != frames:
        raise InputError(f"expected {promised} samples from the header, got {frames}")
    mono = np.empty(frames, np.float32)
    done, block = 0, max(1, _BLOCK_SAMPLES // stream.channels)
    while done < frames:
        part = stream.read(min(block, frames - done), dtype="float32", always_2d=True)
        if not len(part):
            raise InputError(f"expected {frames} samples from the header, got {done}: truncated")
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is reported later, by index
            mono[done : done + len(part)] = part.mean(axis=1, dtype=np.float64)
        done += len(part)
    return mono


def _check_finite(samples: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(samples))
    if len(bad):
        raise InputError(
            f"expected finite samples, got {len(bad)} of {len(samples)} NaN or infinite, first at {bad[0]}"
        )


def _check_container(file: Path) -> int | None:
    """Check the container's length against the file's; return the number of frames where it tells one."""
    size = file.stat().st_size
    with open(file, "rb") as handle:
        magic = handle.read(4)
        check = _CONTAINERS.get(magic)
        if check is None:
            raise InputError(f"expected a file that starts with RIFF, fLaC or OggS, got {magic!r}")
        return check(handle, size)


def _check_riff(handle: BinaryIO, size: int) -> int | None:
    """Walk the chunks of a WAV file; return the frames in its data chunk when their size is fixed."""
    riff_size, kind = struct.unpack("<I4s", _exactly(handle, 8, "the RIFF header"))
    if kind != b"WAVE":
        raise InputError(f"expected a RIFF file of kind WAVE, got {kind!r}")
    # The last chunk's padding byte is counted by all writers and left out by some.
    if riff_size + 8 > size + 1:
        raise InputError(f"expected {riff_size + 8} bytes from the RIFF header, got {size}: truncated")
    chunks: dict[bytes, tuple[int, int]] = {}
    start = 12
    while start + 8 <= min(riff_size + 8, size) or b"data" not in chunks:
        handle.seek(start)
        name, length = struct.unpack("<4sI", _exactly(handle, 8, "a chunk header (no data chunk so far)"))
        if start + 8 + length > size:
            raise InputError(f"expected {length} bytes from chunk {name!r}'s header, got {size - start - 8}: truncated")
        chunks.setdefault(name, (start + 8, length))
        start += 8 + length + length % 2
    if b"fmt " not in chunks:
        raise InputError("expected a chunk 'fmt ', got none")
    handle.seek(chunks[b"fmt "][0])
    tag, _, _, _, frame_bytes = struct.unpack("<HHIIH", _exactly(handle, 14, "the fmt chunk"))
    if tag not in _FIXED_SIZE_TAGS:
        return None
    length = chunks[b"data"][1]
    if frame_bytes == 0 or length % frame_bytes:
        raise InputError(f"expected data in frames of {frame_bytes} bytes, got {length} bytes")
    return length // frame_bytes


def _check_flac(handle: BinaryIO, size: int) -> int | None:
    """Add nothing: libFLAC takes the number of samples from STREAMINFO and loses its sync at a cut."""
    return None


def _check_ogg(handle: BinaryIO, size: int) -> int | None:
    """Walk the pages: the last one must be whole and flagged as the stream's end (RFC 3533, section 6)."""
    start, ended = 0, False
    while start < size:
        handle.seek(start)
        head = _exactly(handle, 27, "an Ogg page header")
        if head[:4] != b"OggS":
            raise InputError(f"expected an Ogg page at byte {start}, got {head[:4]!r}")
        ended = bool(head[5] & 4)
        start += 27 + head[26] + sum(_exactly(handle, head[26], "an Ogg segment table"))
    if start > size or not ended:
        raise InputError(f"expected an Ogg stream up to its last page, got {size} bytes without its end: truncated")
    return None


def _exactly(handle: BinaryIO, count: int, what: str) -> bytes:
    data = handle.read(count)
    if len(data) != count:
        raise InputError(f"expected {what} of {count} bytes, got {len(data)}: truncated")
    return data


_CONTAINERS: dict[bytes, Callable[[BinaryIO, int], int | None]] = {
    b"RIFF": _check_riff,
    b"fLaC": _check_flac,
    b"OggS": _check_ogg,
}
