import numpy as np
import pytest

from perceiver.augment import (
    add_noise,
    change_gain,
    change_pitch,
    change_speed,
    change_tempo,
    hide_band,
    hide_moment,
    random_equaliser,
    random_shift,
)
from perceiver.augment.audio import band_stop, equaliser, filtered

RATE = 8000


def rng(seed=0):
    return np.random.default_rng(seed)


def tone(frequency=440.0, seconds=1.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def pitch(wave):
    inside = wave[len(wave) // 8 : len(wave) - len(wave) // 8]
    return np.abs(np.fft.rfft(inside * np.hanning(len(inside)), 2**17)).argmax() * RATE / 2**17


ALL = {
    "change_speed": change_speed,
    "change_tempo": change_tempo,
    "change_pitch": change_pitch,
    "change_gain": change_gain,
    "add_noise": add_noise,
    "add_noise, pink": lambda wave, rng: add_noise(wave, rng, colour=1.0),
    "random_shift": lambda wave, rng: random_shift(wave, rng, most=500),
    "random_equaliser": random_equaliser,
    "hide_band": hide_band,
    "hide_moment": hide_moment,
}


@pytest.mark.parametrize("name", ALL)
def test_the_change_comes_from_the_generator_alone_and_the_input_stays(name):
    wave = tone(seconds=0.3) + rng(5).normal(0, 0.01, 2400).astype(np.float32)
    wave.flags.writeable = False
    first, again, other = (ALL[name](wave, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    if name not in ("change_speed", "change_tempo"):
        assert first.shape == wave.shape


def test_no_strength_is_no_change():
    wave = tone(seconds=0.1)
    for same in (
        change_speed(wave, rng(), low=1.0, high=1.0),
        change_tempo(wave, rng(), low=1.0, high=1.0),
        change_pitch(wave, rng(), semitones=0.0),
        change_gain(wave, rng(), decibels=0.0),
        random_shift(wave, rng(), most=0),
        random_equaliser(wave, rng(), decibels=0.0),
        add_noise(wave, rng(), low=200.0, high=200.0),
    ):
        assert np.allclose(same, wave, atol=1e-6)


@pytest.mark.parametrize("factor", [0.8, 1.25, 1.9])
def test_speed_changes_length_and_pitch_but_tempo_only_length(factor):
    faster = change_speed(tone(), rng(), low=factor, high=factor)
    assert len(faster) == pytest.approx(RATE / factor, rel=0.01)
    assert pitch(faster) == pytest.approx(440 * factor, rel=0.01)
    assert np.abs(faster).max() == pytest.approx(0.5, rel=0.1)
    quicker = change_tempo(tone(), rng(), low=factor, high=factor)
    assert len(quicker) == round(RATE / factor)
    assert pitch(quicker) == pytest.approx(440, abs=2)
    middle = quicker[len(quicker) // 4 : -len(quicker) // 4]
    assert np.std(middle) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert np.std(quicker[-200:]) > 0.2  # to the very end


@pytest.mark.parametrize("count", [1, 37, 999, 1001, 7919, 104729])
@pytest.mark.parametrize("factor", [0.5, 0.83, 1.17, 2.0])
def test_a_sound_of_any_length_takes_its_share_of_time(count, factor):
    wave = np.sin(np.arange(count) * 0.05).astype(np.float32)
    faster = filtered(wave, speed=factor)
    assert len(faster) == pytest.approx(max(count / factor, 1), rel=0.01, abs=0.6)
    expected = np.sin(np.arange(len(faster)) * 0.05 * count / len(faster))
    assert np.abs(faster - expected)[len(faster) // 4 : len(faster) // 2].max(initial=0.0) < 0.1


def test_filters_and_speed_in_one_pass_are_what_they_are_apart():
    wave = np.concatenate([tone(seconds=0.4), np.zeros(800, np.float32)])
    first, second = equaliser(rng(1)), band_stop(rng(2))
    together = filtered(wave, first, second, speed=1.2)
    apart = filtered(filtered(filtered(wave, first), second), speed=1.2)
    assert together.shape == apart.shape
    assert np.abs(together - apart)[300:2000].max() < 0.01 * np.abs(apart).max()


def test_what_is_hidden_is_one_band_or_one_moment():
    noise = rng(3).normal(size=8000).astype(np.float32)
    ratio = np.abs(np.fft.rfft(hide_band(noise, rng(1), widths=(0.1, 0.1)))) / np.abs(np.fft.rfft(noise))
    assert np.mean(ratio < 0.1) == pytest.approx(0.1, abs=0.01)
    assert np.flatnonzero(ratio < 0.1).std() < 0.06 * len(ratio)  # side by side
    quiet = np.flatnonzero(hide_moment(noise, rng(1), widths=(0.1, 0.1)) != noise)
    assert len(quiet) == quiet[-1] - quiet[0] + 1 == 800


def test_speed_does_not_alias():
    high = change_speed(tone(3500.0), rng(), low=1.5, high=1.5)  # would be 5250 Hz of at most 4000
    assert np.std(high[200:-200]) < 0.01


def test_pitch_stays_within_its_bound_and_moves_both_ways():
    found = [12 * np.log2(pitch(change_pitch(tone(seconds=0.5), rng(seed), semitones=3)) / 440) for seed in range(12)]
    assert max(np.abs(found)) < 3.1
    assert min(found) < -1
    assert max(found) > 1


def test_gain_is_bounded_in_decibels():
    found = [20 * np.log10(change_gain(tone(), rng(s), decibels=6)[5] / tone()[5]) for s in range(50)]
    assert 4 < max(found) <= 6.01
    assert -6.01 <= min(found) < -4


@pytest.mark.parametrize(("colour", "tilt"), [(0.0, 1.0), (1.0, 4.0), (2.0, 16.0)])
def test_noise_has_its_ratio_and_its_colour(colour, tilt):
    wave = tone(seconds=4.0)
    noise = (add_noise(wave, rng(3), low=6.0, high=6.0, colour=colour) - wave).astype(np.float64)
    assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(6.0, abs=0.01)
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[2000:2400].mean(), power[8000:9600].mean()  # two octaves apart
    assert low / high == pytest.approx(tilt, rel=0.3)
    assert not add_noise(np.zeros(10, np.float32), rng()).any()


def test_shifts_are_bounded_and_bring_silence():
    wave = np.zeros(100, np.float32)
    wave[50] = 1.0
    places = [int(random_shift(wave, rng(seed), most=10).argmax()) - 50 for seed in range(200)]
    assert (min(places), max(places)) == (-10, 10)
    assert not random_shift(np.ones(3, np.float32), rng(1), most=1000).any()


def test_an_equaliser_is_smooth_and_bounded():
    impulse = np.zeros(1024, np.float32)
    impulse[0] = 1.0
    gains = 20 * np.log10(np.abs(np.fft.rfft(random_equaliser(impulse, rng(2), decibels=9))))
    assert np.abs(gains).max() < 9.01
    assert np.ptp(gains) > 4
    assert np.abs(np.diff(gains[64:])).max() < 0.5
