"""Waveforms, float32 [n] in [-1, 1], mono: faster, louder, noisier, moved, coloured. Nothing is clipped.

What changes time or pitch apart is in `stretching`.
"""

import bisect
import functools
import math
from collections.abc import Callable

import numpy as np
from scipy.fft import next_fast_len

from perceiver.io.audio import mean_power

Gains = Callable[[int], np.ndarray]
"""A filter: the factor of each of so many frequencies, evenly spaced from 0 to half the sample rate, float32."""


def change_speed(wave: np.ndarray, rng: np.random.Generator, *, low: float = 0.9, high: float = 1.1) -> np.ndarray:
    """Play a sound faster or slower, as a tape does: pitch and tempo change together (Ko et al., Interspeech 2015).

    wave: float32 [n] -> float32 [n / factor], the factor uniform between the bounds; 1.1 is 10 % faster and higher.
    """
    return filtered(wave, speed=rng.uniform(low, high))


def filtered(wave: np.ndarray, *filters: Gains, speed: float = 1.0) -> np.ndarray:
    """A sound float32 [n] through filters, then played `speed` times as fast: float32 [n / speed], at least 1.

    All in one pass through its Fourier series, which is cut or filled for another speed, so that nothing aliases.
    Silence is put behind the sound for that; one that does not end in silence rings a little there. The speed is met
    to 1 %, as the lengths of fast transforms allow.
    """
    if (speed == 1.0 and not filters) or not len(wave):
        return wave
    length, other = _lengths(len(wave), speed)
    spectrum = np.fft.rfft(wave, length)
    for gains in filters:
        spectrum *= gains(len(spectrum))
    spectrum *= np.float32(other / length)
    return np.fft.irfft(spectrum, other)[: max(round(len(wave) * other / length), 1)].astype(np.float32, copy=False)


def _lengths(count: int, factor: float) -> tuple[int, int]:
    """Two lengths of fast transforms, of which the first holds `count` and is about `factor` times the second.

    Short transforms are fast at any length.
    """
    if count < 1000:
        return count, max(round(count / factor), 1)
    table = _fast_lengths(2 ** (1 + max(count, round(count / factor)).bit_length()))
    padded = [table[bisect.bisect_left(table, round(count * more))] for more in (1.0, 1.03)]
    pairs = [(length, table[bisect.bisect_left(table, length / factor) - less]) for length in padded for less in (0, 1)]
    return min(pairs, key=lambda pair: abs(pair[0] / pair[1] / factor - 1.0))


@functools.lru_cache(32)
def _fast_lengths(limit: int) -> list[int]:
    """All even lengths up to a limit, and one more, that a Fourier transform is fast at."""
    lengths = [2]
    while lengths[-1] < limit:
        lengths.append(2 * int(next_fast_len(lengths[-1] // 2 + 1)))
    return lengths


def change_gain(wave: np.ndarray, rng: np.random.Generator, *, decibels: float = 6.0) -> np.ndarray:
    """A sound float32 [n], louder or quieter by at most `decibels`, uniform in decibels."""
    return wave * np.float32(10.0 ** (rng.uniform(-decibels, decibels) / 20))


def add_noise(
    wave: np.ndarray, rng: np.random.Generator, *, low: float = 10.0, high: float = 40.0, colour: float = 0.0
) -> np.ndarray:
    """Add noise at a ratio of signal to noise between the bounds, in decibels of mean power; float32 [n].

    colour: the noise's power falls as 1 / frequency ** colour: 0 is white, 1 pink, 2 brown. Silence stays silent.
    """
    power = mean_power(wave)
    ratio = 10.0 ** (rng.uniform(low, high) / 10)
    noise = rng.random(len(wave), np.float32)  # as white as normal numbers, in less time
    noise -= 0.5
    if power == 0.0:
        return wave
    if colour:
        noise = filtered(noise, lambda count: _falling(count, colour))
    own = mean_power(noise)
    if own == 0.0:  # a single sample has no colour
        return wave
    return wave + noise * np.float32(math.sqrt(power / ratio / own))


def _falling(count: int, colour: float) -> np.ndarray:
    gains = np.zeros(count, np.float32)
    gains[1:] = np.arange(1, count) ** (-colour / 2)
    return gains


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
    """Colour a sound float32 [n] as another microphone or room would: see `equaliser`. Phases stay."""
    return filtered(wave, equaliser(rng, decibels=decibels, bands=bands, octaves=octaves))


def equaliser(rng: np.random.Generator, *, decibels: float = 6.0, bands: int = 8, octaves: float = 8.0) -> Gains:
    """A smooth random frequency response.

    decibels: bound of the gain of each of `bands` frequencies, spaced evenly in pitch over the `octaves` below half the
    sample rate; between them the gain is linear in pitch, and below them constant.
    """
    levels = rng.uniform(-decibels, decibels, bands).astype(np.float32) * np.float32(math.log(10.0) / 20)
    steps = np.zeros(bands, np.float32)
    np.subtract(levels[1:], levels[:-1], out=steps[:-1])

    def gains(count: int) -> np.ndarray:
        band, share = _bands(count, bands, octaves)
        exponents = steps[band]
        exponents *= share
        exponents += levels[band]
        return np.exp(exponents, out=exponents)

    return gains


@functools.lru_cache(256)
def _bands(count: int, bands: int, octaves: float) -> tuple[np.ndarray, np.ndarray]:
    """Of each frequency of a spectrum, the band at or below it, and how far in pitch it is on to the next, 0 to 1.

    The bands are spaced evenly over the octaves that end at the highest frequency; what is lower is the lowest band.
    """
    pitches = np.log2(np.maximum(np.arange(count) / max(count - 1, 1), 2.0**-octaves)) / octaves + 1.0
    places = pitches * (bands - 1)
    band = places.astype(np.intp)
    return band, (places - band).astype(np.float32)


def hide_band(
    wave: np.ndarray, rng: np.random.Generator, *, widths: tuple[float, float] = (0.02, 0.12), decibels: float = 30.0
) -> np.ndarray:
    """Make one band of frequencies of a sound float32 [n] almost silent: see `band_stop`."""
    return filtered(wave, band_stop(rng, widths=widths, decibels=decibels))


def band_stop(rng: np.random.Generator, *, widths: tuple[float, float] = (0.02, 0.12), decibels: float = 30.0) -> Gains:
    """One band of frequencies almost silent (a frequency mask of SpecAugment, arXiv 1904.08779, on the waveform).

    widths: share of the frequencies, uniform; the place is uniform too. decibels: how much quieter.
    """
    width = rng.uniform(*widths)
    low = rng.uniform(0.0, 1.0 - width)

    def gains(count: int) -> np.ndarray:
        factors = np.ones(count, np.float32)
        factors[int(low * count) : int((low + width) * count)] = 10.0 ** (-decibels / 20)
        return factors

    return gains


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
