"""Waveforms, float32 [n] in [-1, 1], mono: faster, louder, noisier, moved, coloured. Nothing is clipped.

What changes time or pitch apart is in `stretching`.
"""

import functools

import numpy as np
from scipy.fft import next_fast_len


def change_speed(wave: np.ndarray, rng: np.random.Generator, *, low: float = 0.9, high: float = 1.1) -> np.ndarray:
    """Play a sound faster or slower, as a tape does: pitch and tempo change together (Ko et al., Interspeech 2015).

    wave: float32 [n] -> float32 [n / factor], the factor uniform between the bounds; 1.1 is 10 % faster and higher.
    """
    return at_speed(wave, rng.uniform(low, high))


def at_speed(wave: np.ndarray, factor: float) -> np.ndarray:
    """A sound float32 [n], played `factor` times as fast: float32 [n / factor], at least 1.

    Its Fourier series is cut or filled, so nothing aliases; silence is put behind it for that, so that a sound which
    does not end in silence rings a little there. The factor is met to 1 %, as the lengths of fast transforms allow.
    """
    if factor == 1.0 or not len(wave):
        return wave
    length, other = _lengths(len(wave), factor)
    faster = np.fft.irfft(np.fft.rfft(wave, length), other)[: max(round(len(wave) * other / length), 1)]
    return (faster * (other / length)).astype(np.float32)


def _lengths(count: int, factor: float) -> tuple[int, int]:
    """Two lengths of fast transforms, of which the first holds `count` and is about `factor` times the second.

    Short transforms are fast at any length.
    """
    if count < 1000:
        return count, max(round(count / factor), 1)
    padded = [_fast(round(count * more)) for more in (1.0, 1.03, 1.06, 1.09)]
    pairs = [(length, _fast(round(less * length / factor))) for length in padded for less in (0.96, 0.98, 1.0)]
    return min(pairs, key=lambda pair: abs(pair[0] / pair[1] / factor - 1.0))


def _fast(count: int) -> int:
    """The next even length that a Fourier transform is fast at."""
    return 2 * int(next_fast_len(max(-(-count // 2), 1)))


def change_gain(wave: np.ndarray, rng: np.random.Generator, *, decibels: float = 6.0) -> np.ndarray:
    """A sound float32 [n], louder or quieter by at most `decibels`, uniform in decibels."""
    return wave * np.float32(10.0 ** (rng.uniform(-decibels, decibels) / 20))


def add_noise(
    wave: np.ndarray, rng: np.random.Generator, *, low: float = 10.0, high: float = 40.0, colour: float = 0.0
) -> np.ndarray:
    """Add noise at a ratio of signal to noise between the bounds, in decibels of mean power; float32 [n].

    colour: the noise's power falls as 1 / frequency ** colour: 0 is white, 1 pink, 2 brown. Silence stays silent.
    """
    power = float(np.mean(np.square(wave, dtype=np.float64))) if len(wave) else 0.0
    ratio = 10.0 ** (rng.uniform(low, high) / 10)
    noise: np.ndarray = rng.standard_normal(len(wave), np.float32)
    if power == 0.0:
        return wave
    if colour:
        spectrum = np.fft.rfft(noise, _fast(len(wave)))
        spectrum[0] = 0.0
        spectrum[1:] *= np.arange(1, len(spectrum)) ** (-colour / 2)
        noise = np.fft.irfft(spectrum, _fast(len(wave)))[: len(wave)]
    own = float(np.mean(np.square(noise)))
    if own == 0.0:  # a single sample has no colour
        return wave
    return (wave + noise * np.sqrt(power / ratio / own)).astype(np.float32)


def random_shift(wave: np.ndarray, rng: np.random.Generator, *, most: int) -> np.ndarray:
    """Move a sound float32 [n] by at most `most` samples either way; silence comes in and the length stays."""
    by = int(rng.integers(-most, most + 1))
    moved = np.zeros_like(wave)
    if by >= 0:
        moved[by:] = wave[: max(len(wave) - by, 0)]
    else:
        moved[: max(len(wave) + by, 0)] = wave[-by:]
    return moved


def random_equaliser(
    wave: np.ndarray, rng: np.random.Generator, *, decibels: float = 6.0, bands: int = 8, octaves: float = 8.0
) -> np.ndarray:
    """Colour a sound float32 [n] as another microphone or room would: a smooth random frequency response.

    decibels: bound of the gain of each of `bands` frequencies, spaced evenly in pitch over the `octaves` below half the
    sample rate; between them the gain is linear in pitch, and below them constant. Phases stay.
    """
    gains = rng.uniform(-decibels, decibels, bands)
    length = _fast(len(wave))
    response = np.interp(_pitches(length // 2 + 1, octaves), np.linspace(-octaves, 0.0, bands), gains)
    spectrum = np.fft.rfft(wave, length) * 10.0 ** (response / 20)
    return np.fft.irfft(spectrum, length)[: len(wave)].astype(np.float32)


@functools.lru_cache(256)
def _pitches(count: int, octaves: float) -> np.ndarray:
    """Of each frequency of a spectrum, octaves below its highest (so negative), down to -`octaves`; float64 [count]."""
    return np.log2(np.maximum(np.arange(count) / max(count - 1, 1), 2.0**-octaves))


def hide_band(
    wave: np.ndarray, rng: np.random.Generator, *, widths: tuple[float, float] = (0.02, 0.12), decibels: float = 30.0
) -> np.ndarray:
    """Make one band of frequencies almost silent (a frequency mask of SpecAugment, arXiv 1904.08779, on the waveform).

    wave: float32 [n]. widths: share of the frequencies, uniform; the place is uniform too. decibels: how much quieter.
    """
    width = rng.uniform(*widths)
    low, length = rng.uniform(0.0, 1.0 - width), _fast(len(wave))
    spectrum = np.fft.rfft(wave, length)
    spectrum[int(low * len(spectrum)) : int((low + width) * len(spectrum))] *= 10.0 ** (-decibels / 20)
    return np.fft.irfft(spectrum, length)[: len(wave)].astype(np.float32)


def hide_moment(
    wave: np.ndarray, rng: np.random.Generator, *, widths: tuple[float, float] = (0.02, 0.15), decibels: float = 30.0
) -> np.ndarray:
    """Make one part of a sound almost silent (a time mask of SpecAugment, arXiv 1904.08779, on the waveform).

    wave: float32 [n]. widths: share of its length, uniform; the place is uniform too. decibels: how much quieter.
    """
    count = int(len(wave) * rng.uniform(*widths))
    start = int(rng.integers(0, len(wave) - count + 1))
    hidden = wave.copy()
    hidden[start : start + count] *= np.float32(10.0 ** (-decibels / 20))
    return hidden
