"""Learned filters of a raw waveform, which start as what a mel spectrogram measures."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.errors import ConfigError
from perceiver.spectrogram import MelScale, hertz_to_mel, mel_to_hertz
from perceiver.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Filterbank:
    """Pairs of filters in quadrature whose energy is taken as a logarithm, log(e + floor) (arXiv 1711.01161).

    They start as Gabor wavelets, evenly spaced in mels and as wide as the triangles of a mel spectrogram, each with
    energy 1; all of their samples are learned.

    bands: filters. length: samples of one. hop: samples from one frame to the next. low, high: Hz, the outermost
    corners of the triangles. floor: energy that counts as silence; the filters measure white noise of variance v as v.
    mean, std: of the log energies, which are brought to mean 0 and deviation 1.
    """

    bands: int = 40
    length: int = 200
    hop: int = 80
    low: float = 60.0
    high: float = 3900.0
    floor: float = 1e-5
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if min(self.bands, self.length, self.hop) < 1:
            raise ConfigError(
                f"Filterbank: expected bands, length and hop of at least 1, got {self.bands}, {self.length}, {self.hop}"
            )
        if not 0 <= self.low < self.high:
            raise ConfigError(f"Filterbank: expected 0 <= low < high in Hz, got {self.low} and {self.high}")
        if self.floor <= 0 or self.std <= 0:
            raise ConfigError(f"Filterbank: expected floor and std above 0, got {self.floor} and {self.std}")

    def wavelets(self, sample_rate: int) -> np.ndarray:
        """[length, 2 * bands] float64, the filters at first: cosines, then sines.

        Raises:
            ConfigError: `high` is above what the rate holds.
        """
        if self.high > sample_rate / 2:
            raise ConfigError(f"Filterbank: {sample_rate} Hz hold sounds up to {sample_rate / 2} Hz, not {self.high}")
        first, last = (float(hertz_to_mel(hertz, MelScale.HTK)) for hertz in (self.low, self.high))
        mels = np.linspace(first, last, self.bands + 2)
        corners = mel_to_hertz(mels, MelScale.HTK)
        centres, widths = corners[1:-1], (corners[2:] - corners[:-2]) / 2.0  # at half of the height
        time = (np.arange(self.length) - (self.length - 1) / 2.0)[:, None] / sample_rate
        spread = np.sqrt(2.0 * np.log(2.0)) / (np.pi * widths)  # seconds: a power spectrum of that width
        envelope = np.exp(-0.5 * np.square(time / spread))
        turns = 2.0 * np.pi * centres * time
        pairs = np.concatenate([envelope * np.cos(turns), envelope * np.sin(turns)], axis=1)
        energy = np.square(pairs).sum(axis=0).reshape(2, -1).sum(axis=0)
        return pairs / np.sqrt(np.tile(energy, 2))


class Filters(nnx.Module):
    """See Filterbank."""

    def __init__(self, config: Filterbank, sample_rate: int):
        self.config = config
        self.kernel = nnx.Param(jnp.asarray(config.wavelets(sample_rate), jnp.float32))

    def __call__(self, wave: Float[Array, "b n"]) -> Float[Array, "b frames bands"]:
        """Log energies in float32, one frame for every `hop` samples, centred on them; beyond the ends is silence."""
        config = self.config
        frames = wave.shape[1] // config.hop
        before = (config.length - config.hop) // 2
        behind = (frames - 1) * config.hop + config.length - before - wave.shape[1]
        padded = jnp.pad(wave.astype(jnp.float32), ((0, 0), (max(before, 0), max(behind, 0))))
        starts = np.arange(frames)[:, None] * config.hop + max(-before, 0)
        pieces = padded[:, starts + np.arange(config.length)]
        cosine, sine = jnp.split(pieces @ self.kernel[...], 2, axis=-1)
        levels = jnp.log(jnp.square(cosine) + jnp.square(sine) + config.floor)
        return (levels - config.mean) / config.std
