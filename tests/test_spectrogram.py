"""Audio features against reference outputs, and against what is known of them without a reference."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import spectrogram as sp
from perceiver.errors import ConfigError, InputError
from perceiver.spectrogram import Log, MelScale, Pad, Spectrogram, Window
from tests.models import GOLDENS

WINDOWS = {
    "hann": Window.HANN,
    "hanning": Window.HANN,
    "hann_window": Window.HANN,
    "hamming": Window.HAMMING,
    "hamming_window": Window.HAMMING,
    "povey": Window.POVEY,
    "boxcar": Window.BOXCAR,
    "rectangular": Window.BOXCAR,
    "blackman": Window.BLACKMAN,
}
LOGS = {None: None, "log": Log.NATURAL, "log10": Log.TEN, "dB": Log.DECIBEL}
UNIT = 2 * 4.5689974  # of AST's normalised features, in nepers of power


def cases(kind):
    """The specs of one kind, by file name."""
    read = {path: json.loads(path.read_text()) for path in sorted(GOLDENS.glob("mel_*.json"))}
    return [
        pytest.param(case["spec"], path.with_suffix(".npz"), id=case["case"])
        for path, case in read.items()
        if case["spec"]["kind"] == kind
    ]


def clips(arrays):
    """The waveforms of a file by name, each [samples] float32."""
    prefix = "inputs/waveform_"
    return {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}


def close(actual, expected, atol, rtol=0.0):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(np.asarray(actual), expected, atol=atol, rtol=rtol)


def computed(function, waveform, wide):
    """The function of a waveform under jit, in float32 or float64."""
    with jax.enable_x64(wide):
        values = np.asarray(jax.jit(function)(waveform.astype(np.float64 if wide else np.float32)))
    assert values.dtype == (np.float64 if wide else np.float32)
    return values


def amplitudes(config, values):
    """Undo the logarithm and the power of a spectrogram, in float64."""
    values = np.asarray(values, np.float64)
    if config.log is Log.DECIBEL:
        return 10 ** (values / 20)
    undo = {None: lambda x: x, Log.NATURAL: np.exp, Log.TEN: lambda x: 10**x}[config.log]
    return undo(values) ** (1 / config.power)


def filter_fields(reference):
    """Keywords of `mel_filters` from those of the reference; every key there must be known here."""
    given = dict(reference)
    norm = given.pop("norm", None)
    assert norm in (None, "slaney")
    names = {
        "num_frequency_bins": "bins",
        "num_mel_filters": "mels",
        "min_frequency": "low",
        "max_frequency": "high",
        "sampling_rate": "sample_rate",
        "triangularize_in_mel_space": "triangles_in_mel",
    }
    scale = MelScale(given.pop("mel_scale", "htk"))
    return {names[key]: value for key, value in given.items()} | {
        "scale": scale,
        "slaney_norm": norm == "slaney",
    }


def spectrogram_fields(setting):
    """Fields of `Spectrogram` from a setting of the reference; every key there must be known here."""
    given = dict(setting)
    taper = given.pop("window")
    fields = {
        "window": WINDOWS[taper.get("name", "hann")],
        "periodic": taper.get("periodic", True),
        "window_length": taper["window_length"],
        "log": LOGS[given.pop("log_mel", None)],
        "pad": Pad(given.pop("pad_mode", "reflect")),
        "preemphasis": given.pop("preemphasis", None) or 0.0,
        "power": given.pop("power", 1.0),
    }
    bands = filter_fields(given.pop("mel_filters", {}))
    bands.pop("bins", None)
    names = {"hop_length": "hop", "remove_dc_offset": "remove_dc", "min_value": "db_floor"}
    kept = {"frame_length", "fft_length", "center", "mel_floor", "reference", "db_range"}
    return fields | bands | {key if key in kept else names[key]: value for key, value in given.items()}


def whisper_arguments(spec):
    given, call = spec["kwargs"], dict(spec["call"])
    config = sp.whisper(given["feature_size"], given["sampling_rate"], given["n_fft"], given["hop_length"])
    chunk = given["chunk_length"] * given["sampling_rate"]
    normalise = call.pop("do_normalize", False)
    assert not call
    arguments = {"chunk": chunk, "normalise": normalise, "padding": given.get("padding_value", 0.0)}
    return config, arguments


def kaldi_config(given):
    """The configuration of a torchaudio fbank call; what Spectrogram lacks must have its neutral value."""
    given = dict(given)
    for key, neutral in {
        "use_energy": False,
        "dither": 0.0,
        "subtract_mean": False,
        "snip_edges": True,
    }.items():
        assert given.pop(key, neutral) == neutral, key
    given.pop("htk_compat", None)  # only says where the energy goes
    rate = int(given.pop("sample_frequency", 16000.0))
    frame, hop = (int(rate * given.pop(key, ms) * 0.001) for key, ms in [("frame_length", 25), ("frame_shift", 10)])
    config = sp.kaldi_fbank(given.pop("num_mel_bins", 23), rate, frame, hop)
    high = given.pop("high_freq", 0.0)
    fields = {
        "window": WINDOWS[given.pop("window_type", "povey")],
        "low": given.pop("low_freq", 20.0),
        "high": high if high > 0 else rate / 2 + high,
        "preemphasis": given.pop("preemphasis_coefficient", 0.97),
        "remove_dc": given.pop("remove_dc_offset", True),
        "power": 2.0 if given.pop("use_power", True) else 1.0,
    }
    if not given.pop("round_to_power_of_two", True):
        fields["fft_length"] = None
    if not given.pop("use_log_fbank", True):
        fields |= {"log": None, "mel_floor": 0.0}
    assert not given
    return dataclasses.replace(config, **fields)


def kaldi_tolerance(name, unit):
    """For log features in units of AudioSet's 2 std (1.0) or as they are (UNIT).

    Quiet bands beside loud ones, 100 dB below them in a chirp, show the rounding noise of float32: torchaudio, in
    float32, and transformers, in float64, differ there by 1e-3 themselves.
    """
    return (3e-3 if "chirp" in name else 3e-4) * unit


@pytest.mark.parametrize(("spec", "path"), cases("filters"))
def test_filters_match(spec, path):
    arrays = np.load(path)
    for name, reference in spec["settings"].items():
        filters = sp.mel_filters(**filter_fields(reference))
        assert filters.dtype == np.float64
        close(filters, arrays[f"outputs/{name}"], atol=1e-12)
    for scale in MelScale:
        close(
            sp.hertz_to_mel(arrays["inputs/hertz"], scale),
            arrays[f"outputs/hertz_to_mel/{scale.value}"],
            1e-9,
        )
        close(
            sp.mel_to_hertz(arrays["inputs/mels"], scale),
            arrays[f"outputs/mel_to_hertz/{scale.value}"],
            atol=1e-9,
            rtol=1e-12,
        )


@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize(("spec", "path"), cases("spectrogram"))
def test_spectrograms_match(spec, path, wide):
    arrays = np.load(path)
    for name, setting in spec["settings"].items():
        config = Spectrogram(**spectrogram_fields(setting))
        close(
            sp.window(config.window, config.window_length, config.periodic),
            arrays[f"outputs/{name}/window"],
            atol=1e-12,
        )
        waveforms = clips(arrays)
        values = computed(config, np.stack(list(waveforms.values())), wide)
        for clip, actual in zip(waveforms, values, strict=True):
            expected = arrays[f"outputs/{name}/{clip}"].T
            if wide and config.log:  # the reference rounds its spectrum to complex64, logarithms to float32
                close(actual, expected, atol=1e-5)
                continue
            # A transform in float32 errs in proportion to the LOUDEST bin of a frame, which may change the
            # logarithm of a band 120 dB below it by anything; the amplitudes are what can be compared.
            actual, expected = amplitudes(config, actual), amplitudes(config, expected)
            close(actual / expected.max(1, keepdims=True), expected / expected.max(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(("spec", "path"), cases("whisper"))
def test_whisper_matches(spec, path):
    arrays = np.load(path)
    config, arguments = whisper_arguments(spec)
    close(config.filters(), arrays["outputs/mel_filters"], atol=1e-12)
    for name, waveform in clips(arrays).items():
        actual = computed(lambda x: sp.whisper_log_mel(x, config, **arguments), waveform, wide=False)
        for key in (f"outputs/{name}/input_features", f"outputs/{name}/input_features_numpy_path"):
            if key in arrays.files:
                close(actual, arrays[key].T, atol=2e-4)


@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize(("spec", "path"), cases("ast"))
def test_ast_matches(spec, path, wide):
    arrays, given = np.load(path), spec["kwargs"]
    normal = {key: given[key] for key in ("mean", "std") if key in given}
    normal = normal if given["do_normalize"] else {"mean": 0.0, "std": 0.5}
    unit = 1.0 if given["do_normalize"] else UNIT
    config = sp.kaldi_fbank(given["num_mel_bins"], given["sampling_rate"], frame_length=400, hop=160)
    close(config.filters(), arrays["outputs/mel_filters"], atol=1e-12)
    call = {"num_mel_bins": config.mels, "sample_frequency": config.sample_rate, "window_type": "hanning"}
    for name, waveform in clips(arrays).items():
        values = computed(lambda x: sp.ast_features(x, config, given["max_length"], **normal), waveform, wide)
        # the reference computes these in float64, save that it rounds the spectrum to complex64
        atol = 2e-6 * unit if wide else kaldi_tolerance(name, unit)
        close(values, arrays[f"outputs/{name}/input_values"], atol)
        values = computed(kaldi_config(call), waveform, wide)
        close(values, arrays[f"outputs/{name}/kaldi_fbank"], kaldi_tolerance(name, UNIT))


@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize(("spec", "path"), cases("kaldi"))
def test_kaldi_matches(spec, path, wide):
    arrays, config = np.load(path), kaldi_config(spec["kwargs"])
    for name, waveform in clips(arrays).items():
        values = computed(config, waveform, wide)
        close(values, arrays[f"outputs/{name}/fbank"], kaldi_tolerance(name, UNIT))


def test_there_are_goldens():
    """A wrong folder would otherwise pass without comparing anything."""
    assert all(cases(kind) for kind in ("filters", "spectrogram", "whisper", "ast", "kaldi"))


@pytest.mark.parametrize("scale", MelScale)
def test_scales_are_inverses(scale):
    hertz = np.linspace(0.0, 20_000.0, 401)
    mels = sp.hertz_to_mel(hertz, scale)
    assert (np.diff(mels) > 0).all()
    close(sp.mel_to_hertz(mels, scale), hertz, atol=1e-8)


@pytest.mark.parametrize("in_mel", [False, True])
def test_triangles_sum_to_one_between_the_outer_centres(in_mel):
    filters = sp.mel_filters(513, 20, 0.0, 8000.0, 16_000, MelScale.HTK, slaney_norm=False, triangles_in_mel=in_mel)
    first, last = filters[:, 0].argmax() + 1, filters[:, -1].argmax()
    close(filters[first:last].sum(1), np.ones(last - first), atol=1e-12)


def test_slaney_norm_gives_unit_area():
    filters = sp.mel_filters(4097, 20, 0.0, 8000.0, 16_000, MelScale.SLANEY, slaney_norm=True)
    close(filters.sum(0) * (8000.0 / 4096), np.ones(20), atol=1e-3)


def test_tone_has_the_power_that_theory_gives():
    """A cosine on bin k under a periodic Hann window: n/4 there, half of it on either side, 0 elsewhere."""
    n, k = 256, 20
    tone = np.cos(2 * np.pi * k * np.arange(4 * n) / n).astype(np.float32)
    values = Spectrogram(n, n // 2, center=False, power=1.0)(tone)
    expected = np.zeros(n // 2 + 1)
    expected[k - 1 : k + 2] = n / 8, n / 4, n / 8
    close(values, np.broadcast_to(expected, values.shape), atol=1e-3)


@pytest.mark.parametrize("pad", Pad)
def test_centred_frames_equal_whole_frames_of_a_padded_waveform(pad):
    waveform = np.random.default_rng(0).normal(size=300).astype(np.float32)
    config = Spectrogram(64, 24, 128, Window.HAMMING, window_length=50, pad=pad)
    padded = np.pad(waveform, 32, mode=pad.value)
    close(config(waveform), dataclasses.replace(config, center=False)(padded), atol=1e-6)


def test_reflection_leaves_out_the_end_sample():
    config = Spectrogram(4, 1, window=Window.BOXCAR, power=1.0)
    sums = config(jnp.array([1.0, 10.0, 200.0, 3000.0, 40_000.0]))[:, 0]  # bin 0 is the sum of a frame
    close(sums, np.array([221.0, 221.0, 3211.0, 43_210.0, 46_200.0, 46_200.0]), atol=1e-2)


@pytest.mark.parametrize("center", [False, True])
def test_frame_count_is_known_before_tracing(center):
    config = Spectrogram(400, 160, 512, center=center, mels=12)
    for samples in (400, 401, 559, 560, 561, 1234):
        shape = jax.eval_shape(config, jax.ShapeDtypeStruct((2, 3, samples), jnp.float32)).shape
        assert shape == (2, 3, config.frames(samples), 12)


def test_clips_of_a_batch_are_independent():
    config = Spectrogram(mels=12, log=Log.DECIBEL, db_range=20.0)
    batch = np.random.default_rng(0).normal(size=(2, 3, 800)).astype(np.float32)
    batch[1] *= 100  # the range is that of each clip
    close(jax.jit(config)(batch)[1, 2], jax.jit(config)(batch[1, 2]), atol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        Spectrogram(power=1.0, log=Log.NATURAL),
        Spectrogram(power=0.5, mels=8),
        Spectrogram(log=Log.DECIBEL, db_range=80.0),
        sp.whisper(),
        sp.kaldi_fbank(),
    ],
    ids=["magnitude", "mel", "decibel", "whisper", "kaldi"],
)
def test_silence_and_a_single_frame_are_finite_with_finite_gradients(config):
    waveforms = jnp.stack([jnp.zeros(400), jnp.sin(jnp.arange(400) * 0.1)])
    values, pullback = jax.vjp(jax.jit(config), waveforms)
    assert jnp.isfinite(values).all()
    assert jnp.isfinite(pullback(jnp.ones_like(values))[0]).all()


def test_silence_has_the_values_of_the_floors():
    whisper = jax.jit(sp.whisper_log_mel, static_argnames=("config", "chunk", "normalise"))
    close(whisper(jnp.zeros(10), chunk=1600), np.full((10, 80), -1.5), atol=1e-6)
    close(whisper(jnp.zeros(800), chunk=None, normalise=True), np.full((5, 80), -1.5), atol=1e-6)
    values = jax.jit(sp.ast_features, static_argnames=("config", "frames"))(jnp.zeros(400), frames=3)
    close(values[:1], np.full((1, 128), (np.log(np.finfo(np.float32).eps) + 4.2677393) / UNIT), atol=1e-6)
    close(values[1:], np.full((2, 128), 4.2677393 / UNIT), atol=1e-6)


def test_half_precision_is_computed_in_float32():
    waveform = jnp.sin(jnp.arange(800) * 0.1).astype(jnp.bfloat16)
    fbank = jax.jit(sp.kaldi_fbank())
    assert fbank(waveform).dtype == jnp.float32
    close(fbank(waveform), np.asarray(fbank(waveform.astype(jnp.float32))), atol=1e-5)


def test_short_or_integer_waveforms_are_refused():
    for call in (
        sp.kaldi_fbank(),
        sp.ast_features,
        sp.whisper(),
        lambda x: sp.whisper_log_mel(x, chunk=None),
    ):
        with pytest.raises(InputError, match=r"400 samples.*got 399"):
            call(jnp.zeros((2, 399)))
    with pytest.raises(InputError, match="400"):
        sp.whisper().frames(399)
    with pytest.raises(InputError, match="int16"):
        sp.whisper()(jnp.zeros(800, jnp.int16))


@pytest.mark.parametrize(
    "fields",
    [
        {"hop": 0},
        {"fft_length": 399},
        {"window_length": 401},
        {"power": 0.0},
        {"power": 3.0, "log": Log.DECIBEL},
        {"mel_floor": -1.0},
        {"reference": 0.0},
        {"mels": 8, "low": 8000.0},
        {"mels": 0},
    ],
    ids=str,
)
def test_contradictory_fields_are_refused(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Spectrogram(**fields)
