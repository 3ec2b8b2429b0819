import numpy as np
import pytest

from perceiver.io import trim_silence


def tone(seconds):
    return (0.5 * np.sin(np.arange(int(8000 * seconds)) * 0.3)).astype(np.float32)


def test_silence_is_cut_off_both_ends_but_not_within():
    quiet = np.zeros(8000 // 2, np.float32)
    sound = np.concatenate([quiet, tone(0.2), quiet, tone(0.2), quiet]) + np.float32(1e-4)
    kept = trim_silence(sound, 8000, margin=0.0)
    assert len(kept) / 8000 == pytest.approx(0.9, abs=0.04)
    assert np.abs(kept[:200]).max() > 0.3
    assert len(trim_silence(sound, 8000, margin=0.1)) / 8000 == pytest.approx(1.1, abs=0.04)
    assert len(trim_silence(quiet, 8000)) == len(quiet)
    assert np.array_equal(trim_silence(tone(1.0), 8000), tone(1.0))
