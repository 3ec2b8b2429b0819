"""Audio features in JAX: spectrograms, mel filter banks, and the features of Whisper, AST and Kaldi."""

import dataclasses
import enum
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.errors import ConfigError, InputError
from perceiver.typing import Array, Float


class MelScale(enum.Enum):
    """How pitch follows frequency: the HTK book, Kaldi, or Slaney's Auditory Toolbox (linear up to 1 kHz)."""

    HTK = "htk"
    KALDI = "kaldi"
    SLANEY = "slaney"


class Window(enum.Enum):
    """Taper of a frame; POVEY is Kaldi's: the Hann window to the power 0.85."""

    BOXCAR = "boxcar"
    HANN = "hann"
    HAMMING = "hamming"
    BLACKMAN = "blackman"
    POVEY = "povey"


class Pad(enum.Enum):
    """What lies beyond the ends of a waveform of centred frames: its mirror image, zeros, the end value."""

    REFLECT = "reflect"
    CONSTANT = "constant"
    EDGE = "edge"


class Log(enum.Enum):
    """Compression of a spectrum."""

    NATURAL = "natural"
    TEN = "ten"
    DECIBEL = "decibel"


_MELS_PER_E = {MelScale.HTK: 2595.0 / math.log(10.0), MelScale.KALDI: 1127.0}
_KNEE_HZ, _KNEE_MEL, _STEP = 1000.0, 15.0, math.log(6.4) / 27.0  # Slaney's scale: a logarithm above the knee

_EXACT = jax.lax.Precision.HIGHEST  # without it GPUs and TPUs round factors, which a logarithm shows


def hertz_to_mel(frequency: np.ndarray | float, scale: MelScale) -> np.ndarray:
    """Frequencies [...] in Hz as mels [...], float64."""
    frequency = np.asarray(frequency, np.float64)
    if scale is not MelScale.SLANEY:
        return _MELS_PER_E[scale] * np.log1p(frequency / 700.0)
    above = np.log(np.maximum(frequency / _KNEE_HZ, 1.0)) / _STEP
    return np.minimum(frequency / _KNEE_HZ, 1.0) * _KNEE_MEL + above


def mel_to_hertz(mel: np.ndarray | float, scale: MelScale) -> np.ndarray:
    """Mels [...] as frequencies [...] in Hz, float64: the inverse of `hertz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale is not MelScale.SLANEY:
        return 700.0 * np.expm1(mel / _MELS_PER_E[scale])
    above = np.exp(np.maximum(mel - _KNEE_MEL, 0.0) * _STEP)
    return np.minimum(mel / _KNEE_MEL, 1.0) * _KNEE_HZ * above


def mel_filters(
    bins: int,
    mels: int,
    low: float,
    high: float,
    sample_rate: int,
    scale: MelScale,
    slaney_norm: bool,
    triangles_in_mel: bool = False,
) -> np.ndarray:
    """Triangles [bins, mels] float64, evenly spaced in mels from `low` to `high` Hz, that sum bins to bands.

    `slaney_norm` gives each the area 1 rather than the height 1 (librosa); `triangles_in_mel` makes the sides
    straight over mels (Kaldi) rather than over Hz. One that is narrower than a bin may be zero, as there.
    Raises ConfigError for fewer than two bins, no band, or an empty frequency range.
    """
    if bins < 2 or mels < 1 or not 0 <= low < high:
        raise ConfigError(f"expected bins >= 2, mels >= 1 and 0 <= low < high, got {bins=}, {mels=}, {low=}, {high=}")
    corners = np.linspace(hertz_to_mel(low, scale), hertz_to_mel(high, scale), mels + 2)
    if triangles_in_mel:
        grid = hertz_to_mel(np.arange(bins) * (sample_rate / (2 * (bins - 1))), scale)
    else:
        corners = mel_to_hertz(corners, scale)
        grid = np.linspace(0, sample_rate // 2, bins)  # rounded down: the references do so for odd rates
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (grid[:, None] - left) / (centre - left), (right - grid[:, None]) / (right - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return filters * (2.0 / (right - left)) if slaney_norm else filters


def window(kind: Window, length: int, periodic: bool) -> np.ndarray:
    """A window [length] float64; a periodic one is the symmetric one of length + 1 less its last sample."""
    if kind is Window.POVEY:
        return window(Window.HANN, length, periodic) ** 0.85
    shapes = {Window.HANN: np.hanning, Window.HAMMING: np.hamming, Window.BLACKMAN: np.blackman}
    return shapes.get(kind, np.ones)(length + periodic)[:length]


@dataclasses.dataclass(frozen=True)
class Spectrogram:
    """A short-time Fourier spectrum, optionally in mel bands and logarithmic. Lengths are in samples.

    Called with a floating-point waveform [..., samples] it gives [..., frames, bins or mels] in float32, or float64
    if the waveform is. It may be traced by jit, grad and vmap.
    frame_length, hop: of one frame, and between frames. fft_length: zero-pads frames (None: frame_length).
    window, periodic, window_length: the taper; a shorter one is centred in the frame (None: frame_length).
    power: exponent of the magnitude. center, pad: centre frame t on t hops and pad the ends; or take whole frames only.
    preemphasis: coefficient of the first difference within each frame. remove_dc: first subtract its mean.
    mels, low, high, sample_rate, scale, slaney_norm, triangles_in_mel: see `mel_filters`; mels None keeps the
        fft_length // 2 + 1 bins; high None is half the sample rate. mel_floor: least value of a band.
    log, reference, db_floor, db_range: decibels are relative to `reference`; values are raised to `db_floor` before,
        and to their clip's maximum less `db_range` dB after the logarithm.
    Raises ConfigError for fields out of range, and InputError if a waveform is shorter than a frame or not floating.
    """

    frame_length: int = 400
    hop: int = 160
    fft_length: int | None = None
    window: Window = Window.HANN
    periodic: bool = True
    window_length: int | None = None
    power: float = 2.0
    center: bool = True
    pad: Pad = Pad.REFLECT
    preemphasis: float = 0.0
    remove_dc: bool = False
    mels: int | None = None
    low: float = 0.0
    high: float | None = None
    sample_rate: int = 16_000
    scale: MelScale = MelScale.HTK
    slaney_norm: bool = False
    triangles_in_mel: bool = False
    mel_floor: float = 1e-10
    log: Log | None = None
    reference: float = 1.0
    db_floor: float = 1e-10
    db_range: float | None = None

    def __post_init__(self):
        fft, taper = (self.frame_length if n is None else n for n in (self.fft_length, self.window_length))
        lengths = self.hop >= 1 and 1 <= taper <= self.frame_length <= fft
        power = self.power > 0 if self.log is not Log.DECIBEL else self.power in (1, 2)
        if not (lengths and power and self.mel_floor >= 0 and min(self.reference, self.db_floor) > 0):
            rule = "hop >= 1, 1 <= window_length <= frame_length <= fft_length, power > 0 (1 or 2 for decibels)"
            raise ConfigError(f"expected {rule}, mel_floor >= 0, reference > 0 and db_floor > 0, got {self}")
        self.filters()

    def filters(self) -> np.ndarray | None:
        """The mel filters [bins, mels] float64, if there are bands."""
        if self.mels is None:
            return None
        bins = (self.fft_length or self.frame_length) // 2 + 1
        band = self.mels, self.low, self.sample_rate / 2 if self.high is None else self.high
        return mel_filters(bins, *band, self.sample_rate, self.scale, self.slaney_norm, self.triangles_in_mel)

    def frames(self, samples: int) -> int:
        """How many frames `samples` samples give; raises InputError if they are fewer than one frame."""
        if samples < self.frame_length:
            raise InputError(f"waveform: expected >= {self.frame_length} samples (one frame), got {samples}")
        margin = self.frame_length // 2 * 2 if self.center else 0
        return 1 + (samples + margin - self.frame_length) // self.hop

    def __call__(self, waveform: Float[Array, "*b samples"]) -> Float[Array, "*b frames channels"]:
        """See the class."""
        values = _spectrum(self, _frames(self, _samples(waveform)))
        if (filters := self.filters()) is not None:
            values = jnp.matmul(values, filters.astype(values.dtype), precision=_EXACT)
            values = jnp.maximum(values, self.mel_floor)
        return values if self.log is None else _logarithm(self, values)


def _samples(waveform: Array) -> Array:
    """The waveform in float32, or in float64 if it came so."""
    waveform = jnp.asarray(waveform)
    if not waveform.ndim or not jnp.issubdtype(waveform.dtype, jnp.floating):
        raise InputError(f"waveform: expected floating-point samples [..., samples], got {waveform.aval}")
    return waveform.astype(jnp.promote_types(waveform.dtype, jnp.float32))


def _frames(config: Spectrogram, waveform: Array) -> Array:
    """Cut [..., samples] into overlapping [..., frames, frame_length]."""
    starts = config.hop * np.arange(config.frames(waveform.shape[-1]))
    if config.center:
        margins = [(0, 0)] * (waveform.ndim - 1) + [(config.frame_length // 2,) * 2]
        waveform = jnp.pad(waveform, margins, mode=config.pad.value)
    return waveform[..., starts[:, None] + np.arange(config.frame_length)]


@functools.lru_cache(8)
def _basis(config: Spectrogram) -> np.ndarray:
    """Cosines, then sines [frame_length, 2 * bins] float64, with taper, pre-emphasis and mean removal in them."""
    size, length = config.frame_length, config.fft_length or config.frame_length
    angles = np.outer(np.arange(size), np.arange(length // 2 + 1)) % length * (2 * np.pi / length)
    taper = window(config.window, config.window_length or size, config.periodic)
    taper = np.pad(taper, ((size - taper.size) // 2, (size - taper.size + 1) // 2))
    basis = taper[:, None] * np.hstack([np.cos(angles), np.sin(angles)])
    following = np.append(basis[1:], 0 * basis[:1], axis=0)
    following[0] += basis[0]  # pre-emphasis takes the first sample as its own predecessor
    basis -= config.preemphasis * following
    return basis - basis.mean(0) if config.remove_dc else basis


def _spectrum(config: Spectrogram, frames: Array) -> Array:
    """Magnitudes [..., frames, bins] of [..., frames, frame_length], to the power asked for.

    By matrix products: an FFT in float32 errs three to ten times as much in the quiet bins next to a loud one,
    which a logarithm shows. So do long sums, hence the parts.
    """
    basis, width = _basis(config).astype(frames.dtype), max(32, config.frame_length // 16)
    parts = [slice(start, start + width) for start in range(0, config.frame_length, width)]
    products = sum(jnp.matmul(frames[..., part], basis[part], precision=_EXACT) for part in parts)
    cosine, sine = jnp.split(products, 2, axis=-1)
    energy = cosine**2 + sine**2
    if config.power == 2:
        return energy
    heard = jnp.where(energy > 0, energy, 1)  # keeps the gradient of silence finite
    return jnp.where(energy > 0, heard ** (config.power / 2), 0)


def _logarithm(config: Spectrogram, values: Array) -> Array:
    """Compress [..., frames, channels]; zeros become the least normal number, to keep silence finite."""
    values = jnp.maximum(values, jnp.finfo(values.dtype).tiny)
    if config.log is not Log.DECIBEL:
        return jnp.log(values) if config.log is Log.NATURAL else jnp.log10(values)
    zero = math.log10(max(config.reference, config.db_floor))
    levels = (20 / config.power) * (jnp.log10(jnp.maximum(values, config.db_floor)) - zero)
    return jnp.maximum(levels, levels.max((-2, -1), keepdims=True) - (config.db_range or math.inf))


def _fit(values: Array, axis: int, length: int, fill: float = 0.0) -> Array:
    """Cut an axis (counted from the back) at its end, or fill it there, to `length`."""
    margins = [(0, 0, 0)] * values.ndim
    margins[axis] = (0, length - values.shape[axis], 0)
    return jax.lax.pad(values, jnp.asarray(fill, values.dtype), margins)


def whisper(mels: int = 80, sample_rate: int = 16000, frame_length: int = 400, hop: int = 160) -> Spectrogram:
    """Whisper's log mel spectrogram, before its clipping and scaling (arXiv:2212.04356)."""
    bands = Spectrogram(frame_length, hop, mels=mels, high=8000.0, sample_rate=sample_rate, log=Log.TEN)
    return dataclasses.replace(bands, scale=MelScale.SLANEY, slaney_norm=True)


def kaldi_fbank(mels: int = 128, sample_rate: int = 16000, frame_length: int = 400, hop: int = 160) -> Spectrogram:
    """Kaldi's log mel filter bank without dither, with the Hann window and the scale (±1) that AST and ImageBind use.

    Frames are padded to a power of two; Kaldi itself takes samples in ±32768 and `Window.POVEY`.
    """
    size = 1 << (frame_length - 1).bit_length()
    frame = Spectrogram(frame_length, hop, size, periodic=False, center=False, preemphasis=0.97, remove_dc=True)
    bands = dataclasses.replace(frame, mels=mels, low=20.0, sample_rate=sample_rate, scale=MelScale.KALDI)
    return dataclasses.replace(bands, triangles_in_mel=True, mel_floor=2.0**-23, log=Log.NATURAL)


def whisper_log_mel(
    waveform: Float[Array, "*b samples"],
    config: Spectrogram | None = None,
    chunk: int | None = 480_000,
    normalise: bool = False,
    padding: float = 0.0,
) -> Float[Array, "*b frames mels"]:
    """Whisper's input: `config` (default `whisper()`) within 8 decades of the clip's maximum, (x + 4) / 4.

    The waveform is cut or padded with `padding` to `chunk` samples (None: left as it is); `normalise` gives
    its real samples mean 0 and variance 1 before. The last frame is dropped, so samples // hop are left.
    """
    waveform = _samples(waveform)[..., :chunk]
    if normalise:
        waveform = jax.nn.standardize(waveform, variance=waveform.var(-1, keepdims=True), epsilon=1e-7)
    levels = (config or whisper())(_fit(waveform, -1, chunk or waveform.shape[-1], padding))[..., :-1, :]
    return (jnp.maximum(levels, levels.max((-2, -1), keepdims=True) - 8.0) + 4.0) / 4.0


def ast_features(
    waveform: Float[Array, "*b samples"],
    config: Spectrogram | None = None,
    frames: int | None = 1024,
    mean: float = -4.2677393,
    std: float = 4.5689974,
) -> Float[Array, "*b frames mels"]:
    """AST's input (arXiv:2104.01778): `config` (default `kaldi_fbank()`) as (x - mean) / (2 std).

    The features are cut, or padded with zeros before they are normalised, to `frames` (None: left as is).
    `mean=0.0, std=0.5` leaves them unnormalised; the defaults are AudioSet's.
    """
    values = (config or kaldi_fbank())(waveform)
    return (_fit(values, -2, frames or values.shape[-2]) - mean) / (2 * std)
