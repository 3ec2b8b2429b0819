"""Sound: patches of the waveform, or of its log-mel spectrogram."""

import dataclasses
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from perceiver.adapters.base import Adapter, Embed, check_statistics, embed_channels, host_array, pad_to, standardise
from perceiver.config import preprocessing_field
from perceiver.errors import ConfigError, InputError
from perceiver.filterbank import Filterbank, Filters
from perceiver.io.audio import loud_part, mean_power, trim_silence
from perceiver.positions import Fourier, Position, grid_at
from perceiver.spectrogram import Spectrogram
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array


class Clip(NamedTuple):
    """A part of a sound: samples [n] and mask [n] as `Sound.load` gives them, and at which sample it starts."""

    raw: np.ndarray
    mask: np.ndarray
    start: int


class Sound(Adapter):
    """What both audio adapters have in common: mono waveforms [b, n] in [-1, 1] at one sample rate.

    A clip may be shorter than the budget, as an array or by its mask; silence is put behind it and masked, so that
    padding changes nothing. Mask: [b] for presence or [b, n] for single samples.

    loudness: root mean square that `load` brings every clip to; None leaves clips as they are.
    trim: `load` cuts off both ends what is so many decibels quieter than the loudest part; None cuts nothing.
    """

    samples: int
    sample_rate: int
    loudness: float | None
    trim: float | None

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, self.samples), jnp.float32)

    def load(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Read the sound of a file at the model's rate, or take samples [n] at it; mask [n].

        Cut or padded to the budget. A film's sound is its first track (extra `video`).
        """
        return self._fitted(self._read(source))

    def windows(self, source: Any, overlap: int = 0, every: int = 1) -> list[Clip]:
        """As `load`, but all of a sound: the fewest clips that cover it, evenly spaced.

        overlap: samples that neighbours share at least, less one `every`; below the budget. every: they start whole
        multiples of so many samples apart.
        """
        wave = self._samples_of(source)
        first, last = (0, len(wave)) if self.trim is None else loud_part(wave, self.sample_rate, decibels=self.trim)
        wave = wave[first:last]
        count = max(-(-(len(wave) - overlap) // (self.samples - overlap)), 1)
        places = np.linspace(0, max(len(wave) - self.samples, 0), count)
        starts = np.ceil(places / every).astype(int) * every
        return [Clip(*self._fitted(wave[start : start + self.samples]), first + int(start)) for start in starts]

    def _read(self, source: Any) -> np.ndarray:
        wave = self._samples_of(source)
        return wave if self.trim is None else trim_silence(wave, self.sample_rate, decibels=self.trim)

    def _samples_of(self, source: Any) -> np.ndarray:
        if isinstance(source, str | os.PathLike):
            from perceiver.io.audio import read_audio
            from perceiver.io.video import FILMS, read_video_audio

            read = read_video_audio if os.fspath(source).lower().endswith(FILMS) else read_audio
            wave, _ = read(source, sample_rate=self.sample_rate)
        else:
            wave = host_array(source)
            check_array(wave, ("n",), "f")
            if not np.isfinite(wave).all():
                raise InputError("expected finite samples, got NaN or infinity")
        return wave.astype(np.float32, copy=False)

    def _fitted(self, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wave = wave[: self.samples]
        if self.loudness is not None:
            wave = wave * np.float32(self.loudness / max(math.sqrt(mean_power(wave)), 1e-6))
        real = np.zeros(self.samples, bool)
        real[: len(wave)] = True
        return pad_to(wave, self.samples), real

    def full(self, raw: Array, mask: Array | None) -> tuple[Array, Array | None]:
        """The waveform padded with masked silence to the budget, masked samples zeroed, and its mask [b, samples]."""
        check_array(raw, ("b", "n"))
        batch, count = raw.shape
        if count > self.samples:
            raise InputError(f"expected at most {self.samples} samples, got {count}")
        given = presence(mask, batch, count)
        if given is None and count == self.samples:
            return raw, None
        real = jnp.ones(raw.shape, bool) if given is None else given
        behind = ((0, 0), (0, self.samples - count))
        return jnp.pad(jnp.where(real, raw, 0.0), behind), jnp.pad(real, behind)


@dataclasses.dataclass(frozen=True)
class Waveform(Sound):
    """Raw samples; each run of `patch` samples is a token.

    samples: the budget, a whole number of patches. sample_rate: Hz. project, position, add_position: as for Image,
        one axis.
    filters: learned filters that the samples go through first; a token is then the frames of its samples, so that the
        patch is a whole number of hops.
    border: samples on either side that a token sees besides, so that tokens overlap; whole hops where there are any.
    whole_clip: see LogMel.
    """

    samples: int
    sample_rate: int = preprocessing_field()
    patch: int = 16
    border: int = 0
    filters: Filterbank | None = None
    project: int | None = None
    position: Position = Fourier(bands=32)
    add_position: bool = False
    whole_clip: bool = False
    loudness: float | None = preprocessing_field(default=None)
    trim: float | None = preprocessing_field(default=None)

    def __post_init__(self) -> None:
        if self.samples < 1 or self.patch < 1 or self.samples % self.patch:
            raise ConfigError(f"Waveform: {self.samples} samples are not whole patches of {self.patch}")
        if self.border < 0 or self.patch % self.hop or self.border % self.hop:
            raise ConfigError(
                f"Waveform: patches of {self.patch} samples, borders of {self.border} are not whole hops of {self.hop}"
            )

    @property
    def hop(self) -> int:
        """Samples from one frame to the next: the filters', or one sample is a frame."""
        return 1 if self.filters is None else self.filters.hop

    @property
    def features(self) -> int:
        """Numbers of one patch and its border: the samples, or what the filters make of them."""
        frames = (self.patch + 2 * self.border) // self.hop
        return frames if self.filters is None else frames * self.filters.bands

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return self.samples // self.patch

    @property
    def channels(self) -> int:
        """See Adapter."""
        return embed_channels(self.features, self.project, self.position, 1, self.add_position)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "WaveformTokens":
        """See Adapter."""
        return WaveformTokens(self, dtype=dtype, rngs=rngs)


class WaveformTokens(nnx.Module):
    """See Waveform."""

    def __init__(self, config: Waveform, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.filters = None if config.filters is None else Filters(config.filters, config.sample_rate)
        self.embed = Embed(
            config.features,
            config.project,
            config.position,
            (config.tokens,),
            add=config.add_position,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b, n] -> Tokens [b, n / patch, channels]; a patch with one real sample is real."""
        wave, real = self.config.full(raw, mask)
        count = -(-raw.shape[1] // self.config.patch)  # behind it everything is masked
        frames = wave[..., None] if self.filters is None else self.filters(wave)
        size, border = self.config.patch // self.config.hop, self.config.border // self.config.hop
        values = rearrange(overlapping(frames, count, size, border), "b n f c -> b n (f c)")
        coordinates = grid_at(jnp.arange(count), (self.config.tokens,))
        if real is not None:
            real = rearrange(real, "b (n p) -> b n p", p=self.config.patch).any(axis=-1)[:, :count]
        if self.config.whole_clip and real is not None:
            coordinates = over_clip(jnp.arange(count), real.sum(axis=1))[..., None]
        return self.embed(values, coordinates, real)


def overlapping(frames: Array, count: int, size: int, border: int) -> Array:
    """Frames [b, n, c] -> those of the first patches and their borders [b, count, size + 2 border, c].

    Beyond the ends of all frames there are zeros.
    """
    if not border:  # nothing is gathered
        return rearrange(frames[:, : count * size], "b (t f) c -> b t f c", f=size)
    wide = jnp.pad(frames, ((0, 0), (border, border), (0, 0)))
    return wide[:, np.arange(count)[:, None] * size + np.arange(size + 2 * border)]


def over_clip(steps: Array, lengths: Array) -> Array:
    """Times [b, n] that go from -1 to 1 over each clip's own length. steps: [n], counted from 0. lengths: [b]."""
    return 2.0 * steps / jnp.maximum(lengths - 1, 1)[:, None] - 1.0


@dataclasses.dataclass(frozen=True)
class LogMel(Sound):
    """A log-mel spectrogram, computed inside the model; each patch of it is a token.

    samples: the budget. sample_rate: Hz. spectrogram: how it is computed (`perceiver.spectrogram` has Whisper's and
    Kaldi's). patch: (frames, mels) of one token; mels=None takes them all. Frames that do not fill a patch are left
    out at the end. mean, std: one number each, or one per mel, of the log-mels; empty for none.
    border: frames on either side that a token sees besides, so that tokens overlap. project, hidden: as for Image.
    position: two axes, time and pitch.
    whole_clip: let time run from -1 to 1 over each clip's own length, not over the budget: what is spoken slowly then
        looks like what is spoken fast.
    """

    samples: int
    spectrogram: Spectrogram
    sample_rate: int = preprocessing_field()
    patch: tuple[int, int | None] = (1, None)
    border: int = 0
    hidden: int | None = None
    project: int | None = None
    position: Position = Fourier(bands=32)
    whole_clip: bool = False
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())
    loudness: float | None = preprocessing_field(default=None)
    trim: float | None = preprocessing_field(default=None)

    def __post_init__(self) -> None:
        if self.sample_rate != self.spectrogram.sample_rate:
            raise ConfigError(f"LogMel: {self.sample_rate} Hz, but its spectrogram {self.spectrogram.sample_rate} Hz")
        frames, mels = self.patch[0], self.bands_per_patch
        if min(frames, mels) < 1 or self.bands % mels or self.frames < frames:
            raise ConfigError(f"LogMel: {self.frames} x {self.bands} (frames x mels) has no patches of {self.patch}")
        if self.border < 0 or (self.hidden is not None and self.project is None):
            raise ConfigError(
                f"LogMel: expected a border of at least 0 frames, and a project behind hidden, got {self.border}, "
                f"{self.project} and {self.hidden}"
            )
        if len(self.mean) > 1:
            check_statistics("LogMel", self.bands, self.mean, self.std)
        else:
            check_statistics("LogMel", 1, self.mean, self.std)

    @property
    def bands(self) -> int:
        """Mels, or frequencies where the spectrogram has no mel filters."""
        spectrum = self.spectrogram
        return spectrum.mels or (spectrum.fft_length or spectrum.frame_length) // 2 + 1

    @property
    def bands_per_patch(self) -> int:
        """Mels in one token."""
        return self.bands if self.patch[1] is None else self.patch[1]

    @property
    def frames(self) -> int:
        """Frames of a full clip."""
        return self.spectrogram.frames(self.samples)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along time and pitch."""
        return self.frames // self.patch[0], self.bands // self.bands_per_patch

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return self.grid[0] * self.grid[1]

    @property
    def channels(self) -> int:
        """See Adapter."""
        return embed_channels(self.features, self.project, self.position, 2)

    @property
    def features(self) -> int:
        """Numbers of one token, its border included."""
        return (self.patch[0] + 2 * self.border) * self.bands_per_patch

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "LogMelTokens":
        """See Adapter."""
        return LogMelTokens(self, dtype=dtype, rngs=rngs)


class LogMelTokens(nnx.Module):
    """See LogMel."""

    def __init__(self, config: LogMel, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        kind: dict[str, Any] = {"hidden": config.hidden, "dtype": dtype, "rngs": rngs}
        self.embed = Embed(config.features, config.project, config.position, config.grid, **kind)

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b, n] -> Tokens [b, patches, channels], time slowest; a patch is real where its first sample is.

        The spectrogram is that of the whole budget, since it may depend on all of a clip; a shorter array gives fewer
        tokens, those that begin in it.
        """
        config = self.config
        wave, real = config.full(raw, mask)
        mels = standardise(config.spectrogram(wave), config.mean, config.std)
        times, pitches = config.grid
        step = config.patch[0] * config.spectrogram.hop
        if raw.shape[1] < config.samples:
            times = min(times, -(-raw.shape[1] // step))
        frames = overlapping(mels, times, config.patch[0], config.border)
        values = rearrange(frames, "b t f (m p) -> b (t m) (f p)", p=config.bands_per_patch)
        if real is not None:
            starts = np.minimum(np.arange(times) * step, config.samples - 1)
            real = jnp.repeat(real[:, starts], pitches, axis=1)
        places = grid_at(jnp.arange(times * pitches), config.grid)
        if config.whole_clip and real is not None:
            steps = jnp.repeat(jnp.arange(times), pitches)
            own = over_clip(steps, real[:, ::pitches].sum(axis=1))
            places = jnp.stack([own, jnp.broadcast_to(places[:, 1], own.shape)], axis=-1)
        return self.embed(values, places, real)
