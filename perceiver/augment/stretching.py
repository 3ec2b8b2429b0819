"""Tempo without pitch and pitch without tempo, by a phase vocoder (Flanagan and Golden, 1966).

Tones keep their level; noise, whose phases no vocoder keeps, becomes about 2 dB quieter.
"""

import numpy as np

from perceiver.augment.audio import filtered

SIZE = 512
"""Samples of a window, which should hold a few periods of the lowest tone: 64 ms at 8 kHz, 32 ms at 16 kHz."""


def change_tempo(
    wave: np.ndarray, rng: np.random.Generator, *, low: float = 0.9, high: float = 1.1, size: int = SIZE
) -> np.ndarray:
    """Play a sound faster or slower at the same pitch.

    wave: float32 [n] -> float32 [n / factor], the factor uniform between the bounds; 1.1 is 10 % faster. size: of a
    window, samples, a multiple of 4.
    """
    return stretched(wave, rng.uniform(low, high), size)


def change_pitch(wave: np.ndarray, rng: np.random.Generator, *, semitones: float = 2.0, size: int = SIZE) -> np.ndarray:
    """Raise or lower a sound by at most `semitones` at the same tempo, formants with it; float32 [n], the same n."""
    factor = 2.0 ** (rng.uniform(-semitones, semitones) / 12)
    shifted = filtered(stretched(wave, 1.0 / factor, size), speed=factor)[: len(wave)]
    return np.pad(shifted, (0, len(wave) - len(shifted)))


def stretched(wave: np.ndarray, factor: float, size: int = SIZE) -> np.ndarray:
    """A sound [n] in round(n / factor) samples, float32, its partials at their old frequencies."""
    count = max(round(len(wave) / factor), 1)
    if count == len(wave):
        return wave
    hop, taper = size // 4, np.hanning(size + 1)[:-1]
    # Half a window before the sound, so that its first sample is in the middle of one; and enough windows behind it.
    padded = np.pad(wave.astype(np.float64), (size // 2, size + 2 * hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    spectra = np.fft.rfft(frames * taper)
    places = np.arange(0.0, len(wave) / hop + 3 * factor, factor)
    places = places[places < len(spectra) - 1]
    before = places.astype(int)
    share = (places - before)[:, None]
    magnitude = (1.0 - share) * np.abs(spectra[before]) + share * np.abs(spectra[before + 1])
    # A bin's phase advances from frame to frame as in the original: by its own frequency's share and the rest, which
    # tells where in the bin the partial is.
    expected = 2.0 * np.pi * hop / size * np.arange(spectra.shape[1])
    rest = np.angle(spectra[before + 1]) - np.angle(spectra[before]) - expected
    advance = expected + rest - 2.0 * np.pi * np.rint(rest / (2.0 * np.pi))
    phase = np.angle(spectra[:1]) + np.concatenate([np.zeros((1, len(expected))), np.cumsum(advance[:-1], axis=0)])
    locked = _locked(magnitude * np.exp(1j * phase))
    aligned = magnitude * locked / np.maximum(np.abs(locked), 1e-12)
    return _overlapped(np.fft.irfft(aligned, size) * taper, hop, taper, count)


def _locked(spectra: np.ndarray) -> np.ndarray:
    """Each bin [t, bins] with its neighbours, so that it takes the phase of the loudest of them (Puckette, 1995).

    The bins of one partial drift apart otherwise, which makes it quieter. Next to each other they have opposite signs.
    """
    locked = spectra.copy()
    locked[:, 1:] -= spectra[:, :-1]
    locked[:, :-1] -= spectra[:, 1:]
    return locked


def _overlapped(frames: np.ndarray, hop: int, taper: np.ndarray, count: int) -> np.ndarray:
    """Sum windows [t, size] at distances of `hop`, over the sum of their squared tapers; from half a window on."""
    parts = len(taper) // hop
    whole, weight = np.zeros((len(frames) + parts - 1, hop)), np.zeros((len(frames) + parts - 1, hop))
    for part in range(parts):
        place = np.s_[part : part + len(frames)]
        whole[place] += frames[:, part * hop : (part + 1) * hop]
        weight[place] += np.square(taper[part * hop : (part + 1) * hop])
    sound = (whole / np.maximum(weight, 1e-3)).ravel()[len(taper) // 2 :][:count]
    return np.pad(sound, (0, count - len(sound))).astype(np.float32)
