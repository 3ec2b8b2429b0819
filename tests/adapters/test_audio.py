import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.errors import ConfigError, InputError
from perceiver.filterbank import Filters
from perceiver.io import write_wav
from perceiver.spectrogram import MelScale, hertz_to_mel, mel_to_hertz
from tests.models import MELS, built, check_masked_elements_do_not_matter, close, encoding

WAVEFORM = p.Waveform(32, sample_rate=8000, patch=8, position=p.Fourier(bands=2))
LOGMEL = p.LogMel(96, MELS, sample_rate=8000, patch=(2, 2), position=p.Fourier(bands=2), mean=(1.0,), std=(2.0,))
SOUNDS = {"waveform": WAVEFORM, "logmel": LOGMEL}
CLIPS = {name: np.random.default_rng(0).normal(size=(2, a.samples)).astype(np.float32) for name, a in SOUNDS.items()}
KINDS = pytest.mark.parametrize("kind", SOUNDS)


def test_runs_of_samples_are_tokens_in_order_of_time():
    values = built(WAVEFORM)(CLIPS["waveform"]).values
    assert values.shape == (2, WAVEFORM.tokens, WAVEFORM.channels) == (2, 4, 8 + 5)
    np.testing.assert_array_equal(values[..., :8].reshape(2, 32), CLIPS["waveform"])
    np.testing.assert_allclose(values[0, :, 8], np.linspace(-1, 1, 4), atol=1e-6)


def test_patches_of_the_spectrogram_are_tokens_with_time_slowest():
    assert (LOGMEL.frames, LOGMEL.bands, LOGMEL.grid, LOGMEL.tokens) == (7, 4, (3, 2), 6)
    values = built(LOGMEL)(CLIPS["logmel"]).values
    assert values.shape == (2, LOGMEL.tokens, LOGMEL.channels)
    mels = (np.asarray(MELS(CLIPS["logmel"])) - 1) / 2
    close(values[1, 3, :4], mels[1, 2:4, 2:].ravel(), 1e-6)
    np.testing.assert_allclose(values[0, 3, 4:6], [0, 1], atol=1e-6)


def test_a_border_shows_the_frames_around_a_patch():
    config = dataclasses.replace(LOGMEL, border=3)
    values = built(config)(CLIPS["logmel"]).values
    assert values.shape == (2, config.tokens, config.channels)
    mels = (np.asarray(MELS(CLIPS["logmel"])) - 1) / 2
    wide = np.pad(mels, ((0, 0), (3, 3), (0, 0)))
    close(values[1, 0, :16], wide[1, :8, :2].ravel(), 1e-6)  # nothing is in front of the first
    close(values[1, 5, :16], wide[1, 4:12, 2:].ravel(), 1e-6)
    short = built(config)(CLIPS["logmel"][:, :40])
    whole = built(config)(CLIPS["logmel"], np.broadcast_to(np.arange(96) < 40, (2, 96)))
    close(whole.values[:, : short.values.shape[1]], short.values, 1e-6)
    assert built(dataclasses.replace(config, project=5, hidden=7))(CLIPS["logmel"]).values.shape == (2, 6, 5 + 10)


def test_a_border_shows_the_samples_around_a_patch():
    config = dataclasses.replace(WAVEFORM, border=3)
    values = built(config)(CLIPS["waveform"]).values
    assert values.shape == (2, 4, config.channels) == (2, 4, 14 + 5)
    wide = np.pad(CLIPS["waveform"], ((0, 0), (3, 3)))
    np.testing.assert_array_equal(values[1, 0, :14], wide[1, :14])  # nothing is in front of the first
    np.testing.assert_array_equal(values[1, 3, :14], wide[1, 24:38])
    short = built(config)(CLIPS["waveform"][:, :13])
    whole = built(config)(CLIPS["waveform"], np.broadcast_to(np.arange(32) < 13, (2, 32)))
    np.testing.assert_array_equal(whole.values[:, :2], short.values)


def test_statistics_may_be_one_for_each_mel():
    mean, std = (1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 1.0, 2.0)
    config = p.LogMel(96, MELS, sample_rate=8000, position=p.Fourier(bands=2), mean=mean, std=std)
    expected = (np.asarray(MELS(CLIPS["logmel"])) - np.array(mean)) / np.array(std)
    close(built(config)(CLIPS["logmel"]).values[..., :4], expected, 1e-6)


@KINDS
def test_a_shorter_array_is_the_same_as_a_mask(kind):
    config, clip = SOUNDS[kind], CLIPS[kind]
    encode, _ = encoding(config)
    length = config.samples - 17
    mask = np.broadcast_to(np.arange(config.samples) < length, clip.shape)
    close(encode(clip[:, :length]), encode(clip, mask), 1e-6)
    whole, short = built(config)(clip, mask), built(config)(clip[:, :length])
    count = short.values.shape[1]
    assert count <= whole.values.shape[1]
    np.testing.assert_array_equal(whole.mask[:, :count], short.mask)
    assert not whole.mask[:, count:].any()


def test_a_patch_with_one_real_sample_is_real():
    mask = np.arange(32) < np.array([[17], [16]])
    tokens = built(WAVEFORM)(CLIPS["waveform"], mask)
    np.testing.assert_array_equal(tokens.mask, [[True, True, True, False], [True, True, False, False]])
    np.testing.assert_array_equal(tokens.values[0, 2, 1:8], 0)


def test_a_spectrogram_patch_is_real_where_its_first_sample_is():
    tokens = built(LOGMEL)(CLIPS["logmel"], np.arange(96) < np.array([[33], [32]]))
    np.testing.assert_array_equal(tokens.mask, [[True] * 4 + [False] * 2, [True] * 2 + [False] * 4])


@KINDS
def test_what_a_mask_hides_does_not_matter(kind):
    config, clip = SOUNDS[kind], CLIPS[kind]
    check_masked_elements_do_not_matter(config, clip, np.arange(clip.shape[1]) < np.array([[20], [32]]), np.nan)
    check_masked_elements_do_not_matter(config, clip, np.array([False, True]), np.nan)


@KINDS
@pytest.mark.parametrize(
    ("raw", "mask", "message"),
    [
        (np.zeros((2, 97), np.float32), None, "at most .. samples, got 97"),
        (np.zeros((2, 8), np.int16), None, "floating point values, got dtype int16"),
        (np.zeros(8, np.float32), None, r"shape \(b, n\), got \(8,\)"),
        (np.zeros((2, 8), np.float32), np.ones((2, 9), bool), r"\(2,\) or \(2, 8\), got \(2, 9\)"),
    ],
)
def test_what_does_not_fit_is_refused(kind, raw, mask, message):
    module = built(SOUNDS[kind])
    with pytest.raises(InputError, match=message):
        module(raw, mask)


def test_configs_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="30 samples are not whole patches of 8"):
        p.Waveform(30, sample_rate=8000, patch=8)
    with pytest.raises(ConfigError, match="16000 Hz, but its spectrogram 8000 Hz"):
        p.LogMel(96, MELS, sample_rate=16000)
    with pytest.raises(ConfigError, match=r"7 x 4 \(frames x mels\) has no patches of \(1, 3\)"):
        p.LogMel(96, MELS, sample_rate=8000, patch=(1, 3))
    with pytest.raises(ConfigError, match="has no patches of"):
        p.LogMel(96, MELS, sample_rate=8000, patch=(8, 4))
    with pytest.raises(ConfigError, match="expected a border of at least 0 frames, and a project behind hidden"):
        dataclasses.replace(LOGMEL, hidden=7)
    with pytest.raises(ConfigError, match="expected 4 means and deviations, got 2 and 2"):
        p.LogMel(96, MELS, sample_rate=8000, mean=(1.0, 1.0), std=(1.0, 1.0))


@KINDS
def test_samples_and_files_are_cut_or_padded_to_the_budget(kind, tmp_path):
    config = SOUNDS[kind]
    long = np.linspace(-0.5, 0.5, 200).astype(np.float32)
    write_wav(tmp_path / "long.wav", long, 8000)
    for source in (long, tmp_path / "long.wav"):
        wave, mask = config.load(source)
        np.testing.assert_allclose(wave, long[: config.samples], atol=1e-4)
        assert mask.all()
    wave, mask = config.load(long[:10])
    np.testing.assert_array_equal(wave, np.pad(long[:10], (0, config.samples - 10)))
    np.testing.assert_array_equal(mask, np.arange(config.samples) < 10)
    assert wave.shape == config.example(1).shape[1:]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.wav", "missing.wav"),
        (np.zeros(4, np.int16), "got dtype int16"),
        (np.zeros((4, 2)), r"shape \(n\), got \(4, 2\)"),
        (np.array([0.0, np.nan]), "finite samples"),
        ([0.1, [0.2]], "expected an array, got list"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        WAVEFORM.load(source)


def test_load_brings_every_clip_to_the_declared_loudness_and_leaves_silence_silent():
    adapter = p.Waveform(1600, sample_rate=8000, loudness=0.1)
    tone = np.sin(np.arange(800) / 3).astype(np.float32)
    for gain in (0.01, 0.5):
        wave, mask = adapter.load(gain * tone)
        assert np.sqrt(np.mean(wave[mask] ** 2)) == pytest.approx(0.1, rel=1e-4)
    assert not np.any(adapter.load(np.zeros(800, np.float32))[0])


def test_positions_that_are_added_to_sound_hide_no_padding():
    adapter = p.Waveform(32, sample_rate=8000, patch=8, project=5, position=p.Fourier(2), add_position=True)
    assert adapter.channels == 5
    clip = CLIPS["waveform"]
    check_masked_elements_do_not_matter(adapter, clip, np.arange(32) < np.array([[20], [32]]), np.nan)
    with pytest.raises(ConfigError, match="a position of 8 channels, as wide as the values, got 5"):
        _ = p.Waveform(32, sample_rate=8000, patch=8, position=p.Fourier(2), add_position=True).channels


def test_time_may_run_over_each_clips_own_length():
    config = dataclasses.replace(LOGMEL, whole_clip=True)
    mask = np.arange(96) < np.array([[96], [33]])  # 3 and 2 patches along time
    own, fixed = built(config)(CLIPS["logmel"], mask), built(LOGMEL)(CLIPS["logmel"], mask)
    np.testing.assert_array_equal(own.mask, fixed.mask)
    np.testing.assert_allclose(own.values[0, :, 4], [-1, -1, 0, 0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(own.values[1, :4, 4], [-1, -1, 1, 1], atol=1e-6)
    close(own.values[0], fixed.values[0], 1e-6)
    short = built(config)(CLIPS["logmel"][:, :33])
    count = short.values.shape[1]
    close(short.values[1], own.values[1, :count], 1e-6)


FILTERED = p.Waveform(
    480, 8000, patch=160, filters=p.Filterbank(bands=6, length=100, hop=40, low=100.0), position=p.Fourier(2)
)


def test_filtered_frames_of_a_patch_are_one_token():
    clip = np.random.default_rng(0).normal(size=(2, 480)).astype(np.float32)
    model = built(FILTERED)
    tokens = model(clip, np.arange(480) < np.array([[480], [161]]))
    assert tokens.values.shape == (2, 3, FILTERED.channels) == (2, 3, 4 * 6 + 5)
    np.testing.assert_array_equal(tokens.mask, [[True] * 3, [True, True, False]])
    kernel = np.asarray(model.filters.kernel[...])
    padded = np.pad(clip[0], (30, 30))  # the fifth frame is centred on the samples 160 to 200
    cosine, sine = np.split(padded[160:260] @ kernel, 2)
    close(tokens.values[0, 1, :6], np.log(cosine**2 + sine**2 + 1e-5), 1e-4)
    own = built(dataclasses.replace(FILTERED, whole_clip=True))(clip, np.arange(480) < np.array([[480], [161]]))
    np.testing.assert_allclose(own.values[:, :2, 24], [[-1, 0], [-1, 1]], atol=1e-6)
    wide = built(dataclasses.replace(FILTERED, border=80))(clip)
    frames = np.pad(np.asarray(model.filters(clip)), ((0, 0), (2, 2), (0, 0)))
    close(wide.values[1, 2, : 8 * 6], frames[1, 8:16].ravel(), 1e-5)
    for border, hop in ((0, 60), (50, 40), (-40, 40)):
        with pytest.raises(
            ConfigError, match=f"patches of 160 samples, borders of {border} are not whole hops of {hop}"
        ):
            dataclasses.replace(FILTERED, border=border, filters=p.Filterbank(hop=hop))


def test_filters_hear_their_pitch_and_measure_noise_as_its_variance():
    bank = p.Filterbank(bands=8, length=400, low=100.0, floor=1e-12)
    corners = mel_to_hertz(np.linspace(*hertz_to_mel(np.array([100.0, 3900.0]), MelScale.HTK), 10), MelScale.HTK)
    tones = np.sin(2 * np.pi * corners[1:-1, None] * np.arange(1600) / 8000).astype(np.float32)
    levels = np.asarray(Filters(bank, 8000)(tones))[:, 10]
    np.testing.assert_array_equal(levels.argmax(axis=1), np.arange(8))
    noise = np.random.default_rng(0).normal(scale=0.5, size=(200, 800)).astype(np.float32)
    energy = np.exp(np.asarray(Filters(bank, 8000)(noise))[:, 3:7]).mean(axis=(0, 1))
    np.testing.assert_allclose(energy, 0.25, rtol=0.15)
    gradient = nnx.grad(lambda filters: filters(jnp.zeros((1, 800))).sum())(Filters(bank, 8000))
    assert np.isfinite(gradient.kernel[...]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": 0}, "at least 1"),
        ({"low": 4000.0}, "low < high"),
        ({"floor": 0.0}, "above 0"),
        ({"std": 0.0}, "above 0"),
    ],
)
def test_a_filterbank_that_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        p.Filterbank(**change)


def test_filters_above_half_the_rate_are_refused():
    with pytest.raises(ConfigError, match="4000 Hz hold sounds up to 2000"):
        built(p.Waveform(480, 4000, patch=160, filters=p.Filterbank()))


def test_quiet_ends_may_be_cut_off():
    quiet, sound = np.full(400, 1e-4, np.float32), 0.5 * np.sin(np.arange(400) * 0.3).astype(np.float32)
    config = p.Waveform(1600, sample_rate=8000, patch=8, trim=30.0)
    _, mask = config.load(np.concatenate([quiet, quiet, sound, quiet]))
    assert 400 <= mask.sum() <= 400 + 2 * 160 + 160  # 20 ms are left around it
    assert dataclasses.replace(config, trim=None).load(np.concatenate([quiet, sound]))[1].sum() == 800
