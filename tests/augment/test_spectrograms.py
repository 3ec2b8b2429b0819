import numpy as np
import pytest

from perceiver.augment import normalise_utterance, resample_time, spec_augment, warp_frequency, warp_time


def rng(seed=0):
    return np.random.default_rng(seed)


def noise(frames=60, mels=40):
    return rng(9).normal(size=(frames, mels)).astype(np.float32)


ALL = {
    "spec_augment": spec_augment,
    "warp_frequency": warp_frequency,
    "warp_time": lambda spectrogram, rng: warp_time(spectrogram, rng, most=10),
}


@pytest.mark.parametrize("name", ALL)
def test_the_change_comes_from_the_generator_alone_and_the_input_stays(name):
    spectrogram = noise()
    spectrogram.flags.writeable = False
    first, again, other = (ALL[name](spectrogram, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first.dtype, first.shape) == (np.float32, spectrogram.shape)


def test_no_strength_is_no_change():
    spectrogram = noise()
    for same in (
        spec_augment(spectrogram, rng(), time_masks=0, mel_masks=0),
        spec_augment(spectrogram, rng(), frames=0, mels=0),
        warp_frequency(spectrogram, rng(), warp=0.0),
        warp_time(spectrogram, rng(), most=0),
        resample_time(spectrogram, 60),
    ):
        assert np.allclose(same, spectrogram, atol=1e-6)


def test_masks_are_whole_runs_within_their_bounds():
    widths = {"time": set(), "mel": set()}
    for seed in range(80):
        hidden = spec_augment(noise(), rng(seed), time_masks=1, frames=10, mel_masks=1, mels=5, fill=9.0) == 9.0
        rows, columns = hidden.all(axis=1), hidden.all(axis=0)
        assert np.array_equal(hidden, rows[:, None] | columns)
        for name, line in (("time", rows), ("mel", columns)):
            assert np.abs(np.diff(line.astype(int))).sum() <= 2
            widths[name].add(int(line.sum()))
    assert (min(widths["time"]), max(widths["time"])) == (0, 10)
    assert (min(widths["mel"]), max(widths["mel"])) == (0, 5)
    assert spec_augment(noise(4, 4), rng(), frames=100, mels=100).shape == (4, 4)
    short = [
        spec_augment(noise(10), rng(s), frames=9, share=0.2, mel_masks=0, time_masks=1, fill=9.0) for s in range(9)
    ]
    assert max((own == 9.0).all(axis=1).sum() for own in short) == 2


def test_a_warped_pitch_moves_by_the_factor_and_the_ends_stay():
    band = np.zeros((1, 101), np.float32)
    band[:, 50] = 1.0
    moved = [int(warp_frequency(band, rng(seed), warp=0.2)[0].argmax()) for seed in range(60)]
    assert 40 <= min(moved) < 44
    assert 56 < max(moved) <= 60
    ramp = np.arange(101, dtype=np.float32)[None]
    for seed in range(20):
        warped = warp_frequency(ramp, rng(seed), warp=0.3)[0]
        assert (warped[0], warped[-1]) == (0.0, 100.0)
        assert (np.diff(warped) > 0).all()


def test_warped_time_runs_forward_between_the_same_ends_and_strays_no_further_than_asked():
    ramp = np.arange(50, dtype=np.float32)[:, None]
    strayed = []
    for seed in range(30):
        warped = warp_time(ramp, rng(seed), most=5)[:, 0]
        assert (warped[0], warped[-1]) == (0.0, 49.0)
        assert (np.diff(warped) > 0).all()
        middle = np.abs(np.interp(ramp[:, 0], warped, ramp[:, 0]) - ramp[:, 0]).max()  # how far a frame has moved
        strayed.append(middle)
    assert 2 < max(strayed) <= 5.001


def test_any_length_becomes_the_wanted_one():
    for frames in (1, 7, 60, 101):
        resampled = resample_time(noise(), frames)
        assert (resampled.shape, resampled.dtype) == ((frames, 40), np.float32)
        assert np.array_equal(resampled[0], noise()[0])
    assert np.allclose(resample_time(noise(), 119)[2::2][:5], noise()[1:6], atol=1e-6)
    assert resample_time(noise(1), 5).shape == (5, 40)


def test_an_utterance_has_mean_0_and_variance_1():
    spectrogram = 3 * noise() + 5
    spectrogram[:, 7] = 2.0
    normal = normalise_utterance(spectrogram)
    assert np.abs(normal.mean(axis=0)).max() < 1e-5
    assert np.allclose(np.delete(normal, 7, axis=1).std(axis=0), 1, atol=1e-5)
    assert not normal[:, 7].any()
    centred = normalise_utterance(spectrogram, variance=False)
    assert np.allclose(centred, spectrogram - spectrogram.mean(axis=0), atol=1e-5)
    assert normal.dtype == np.float32
