"""Waveforms, float32 [n] in [-1, 1], mono: faster, louder, noisier, moved, coloured. Nothing is clipped.

What changes time or pitch apart is in `stretching`.
"""

import numpy as np


def change_speed(wave: np.ndarray, rng: np.random.Generator, *, low: float = 0.9, high: float = 1.1) -> np.ndarray:
    """Play a sound faster or slower, as a tape does: pitch and tempo change together (Ko et al., Interspeech 2015).

    wave: float32 [n] -> float32 [n / factor], the factor uniform between the bounds; 1.1 is 10 % faster and higher.
    """
    return resampled(wave, max(round(len(wave) / rng.uniform(low, high)), 1))


def resampled(wave: np.ndarray, count: int) -> np.ndarray:
    """The same sound in `count` samples, float32: its Fourier series, cut or filled, so nothing aliases.

    A series is periodic: where the ends of a sound differ, the last few samples of both ring a little.
    """
    if count == len(wave):
        return wave
    spectrum = np.fft.rfft(wave)
    return (np.fft.irfft(spectrum, count) * (count / len(wave))).astype(np.float32)


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
    noise = rng.normal(size=len(wave))
    if power == 0.0:
        return wave
    if colour:
        spectrum = np.fft.rfft(noise)
        spectrum[0] = 0.0
        spectrum[1:] *= np.arange(1, len(spectrum)) ** (-colour / 2)
        noise = np.fft.irfft(spectrum, len(wave))
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
    spectrum = np.fft.rfft(wave)
    pitch = np.log2(np.maximum(np.arange(len(spectrum)) / max(len(spectrum) - 1, 1), 2.0**-octaves))
    response = np.interp(pitch, np.linspace(-octaves, 0.0, bands), gains)
    return np.fft.irfft(spectrum * 10.0 ** (response / 20), len(wave)).astype(np.float32)
