"""Spectrograms, float32 [frames, mels], logarithmic as a rule: hidden in part, bent along both axes, normalised."""

import numpy as np


def spec_augment(
    spectrogram: np.ndarray,
    rng: np.random.Generator,
    *,
    time_masks: int = 2,
    frames: int = 20,
    mel_masks: int = 2,
    mels: int = 8,
    share: float = 1.0,
    fill: float | None = None,
) -> np.ndarray:
    """Hide runs of frames and bands of mels (SpecAugment, arXiv 1904.08779; its time warp is `warp_time`).

    spectrogram: float32 [frames, mels]. frames, mels: the widest mask of each kind; a width is uniform from 0, a place
    uniform. share: most of all frames that one time mask may hide. fill: what is put there; None takes the mean.
    """
    hidden = spectrogram.copy()
    count, bands = spectrogram.shape
    level = spectrogram.dtype.type(spectrogram.mean() if fill is None else fill)
    for _ in range(time_masks):
        start, end = _run(rng, min(frames, int(share * count)), count)
        hidden[start:end] = level
    for _ in range(mel_masks):
        start, end = _run(rng, min(mels, bands), bands)
        hidden[:, start:end] = level
    return hidden


def _run(rng: np.random.Generator, widest: int, length: int) -> tuple[int, int]:
    width = int(rng.integers(widest + 1))
    start = int(rng.integers(length - width + 1))
    return start, start + width


def warp_frequency(
    spectrogram: np.ndarray, rng: np.random.Generator, *, warp: float = 0.1, knee: float = 0.8
) -> np.ndarray:
    """Make a voice's tract longer or shorter (vocal tract length perturbation, Jaitly and Hinton, ICML 2013).

    spectrogram: float32 [frames, mels]. Pitches are multiplied by a factor uniform in 1 ± `warp` up to `knee`, a share
    of the axis, and from there on go straight to the highest, which stays. The paper does this in Hz before the mel
    filters; here it is done on the mel axis, linear between bands.
    """
    factor = rng.uniform(1.0 - warp, 1.0 + warp)
    top = spectrogram.shape[1] - 1
    bend = knee * top * min(factor, 1.0)  # where the bend comes to lie; before the warp it is at bend / factor
    places = np.interp(np.arange(top + 1), [0.0, bend, top], [0.0, bend / factor, top])
    return _read(spectrogram.T, places).T.copy()


def warp_time(spectrogram: np.ndarray, rng: np.random.Generator, *, most: int) -> np.ndarray:
    """Move an inner frame by at most `most` frames and stretch what is on both sides of it; float32 [frames, mels].

    The first and the last frame stay (SpecAugment's time warp, arXiv 1904.08779). Spectrograms of less than three
    frames are left as they are.
    """
    last = len(spectrogram) - 1
    if last < 2:
        return spectrogram
    middle = int(rng.integers(1, last))
    goal = float(np.clip(middle + rng.uniform(-most, most), 0.5, last - 0.5))
    return _read(spectrogram, np.interp(np.arange(last + 1), [0.0, goal, last], [0.0, middle, last]))


def resample_time(spectrogram: np.ndarray, frames: int) -> np.ndarray:
    """A spectrogram [n, mels] of any length in `frames` frames, from its first to its last, linear between frames."""
    return _read(spectrogram, np.linspace(0.0, len(spectrogram) - 1, frames))


def normalise_utterance(spectrogram: np.ndarray, *, variance: bool = True) -> np.ndarray:
    """Each mel of [frames, mels] with mean 0, and variance 1 if asked for, over the frames; float32.

    A mel that never changes becomes 0.
    """
    centred = spectrogram - spectrogram.mean(axis=0, dtype=np.float64)
    if variance:
        deviation = centred.std(axis=0)
        centred = centred / np.where(deviation > 1e-6, deviation, 1.0)
    return centred.astype(np.float32)


def _read(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows [n, c] at fractional places [m], linear between neighbours: [m, c] in the same dtype."""
    before = np.clip(places.astype(int), 0, max(len(rows) - 2, 0))
    after = np.minimum(before + 1, len(rows) - 1)
    share = (places - before)[:, None]
    return ((1.0 - share) * rows[before] + share * rows[after]).astype(rows.dtype)
