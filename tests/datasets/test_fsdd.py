import numpy as np
import pytest

from data import fsdd
from perceiver import InputError
from tests.datasets.making import recordings


def told(part):
    return {(item.digit, item.speaker, item.index) for item in part}


def test_recordings_of_any_speakers_are_divided_by_index(tmp_path):
    recordings(tmp_path)
    splits = fsdd.load(tmp_path)
    assert {name: sorted({item.index for item in part}) for name, part in splits.items()} == {
        "train": [10],
        "validation": [6, 8],
        "test": [0, 2, 4],
    }
    one = splits["test"][0]
    assert (one.file, one.digit, one.speaker, one.index, one.rate) == ("3_Ben_2_0.wav", 3, "Ben_2", 0, 8000)
    assert one.wave.dtype == np.float32
    assert one.wave.shape == (303,)
    assert fsdd.speakers(tmp_path) == ("Ben_2", "anna")


def test_a_speaker_held_out_is_the_test_and_nobody_is_lost(tmp_path):
    recordings(tmp_path, speakers=("anna", "ben", "carl"))
    everything = set.union(*map(told, fsdd.load(tmp_path).values()))
    splits = {name: told(part) for name, part in fsdd.load(tmp_path, held_out="ben").items()}
    assert {who for _, who, _ in splits["test"]} == {"ben"}
    assert {index for _, _, index in splits["validation"]} == {6, 8}
    assert {index for _, _, index in splits["train"]} == {0, 2, 4, 10}
    assert {who for _, who, _ in splits["train"]} == {"anna", "carl"}
    assert sum(map(len, splits.values())) == len(everything) == len(set.union(*splits.values()))


def test_an_unknown_speaker_is_refused_with_the_known_ones(tmp_path):
    recordings(tmp_path)
    with pytest.raises(InputError, match=r"held_out: expected one of the speakers Ben_2, anna, got 'dora'"):
        fsdd.load(tmp_path, held_out="dora")


def test_a_split_without_recordings_is_empty(tmp_path):
    recordings(tmp_path, indices=(1,))
    assert {name: len(part) for name, part in fsdd.load(tmp_path).items()} == {"train": 0, "validation": 0, "test": 4}
    one = fsdd.load(tmp_path, held_out="anna")
    assert {name: len(part) for name, part in one.items()} == {"train": 2, "validation": 0, "test": 2}


def test_waveforms_are_resampled(tmp_path):
    recordings(tmp_path)
    one = fsdd.load(tmp_path, sample_rate=4000)["test"][0]
    assert one.rate == 4000
    assert abs(len(one.wave) - 152) <= 1
    with pytest.raises(InputError, match="sample_rate: expected at least 1 Hz, got 0"):
        fsdd.load(tmp_path, sample_rate=0)


def test_another_name_is_refused_at_once_and_a_damaged_file_on_access(tmp_path):
    place = recordings(tmp_path)
    whole = (place / "3_anna_0.wav").read_bytes()
    (place / "3_anna_0.wav").write_bytes(whole[:-100])
    test = fsdd.load(tmp_path)["test"]
    broken = next(
        i for i, (_, number) in enumerate(test.keys) if test.keys[i][0].rows[number]["file"] == "3_anna_0.wav"
    )
    assert len(test[broken - 1].wave)
    with pytest.raises(InputError, match=r"recordings/3_anna_0\.wav: expected .* truncated"):
        test[broken]
    (place / "seven.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"seven\.wav: expected a name such as"):
        fsdd.load(tmp_path)


def test_the_real_spoken_digits(data_root):
    splits = fsdd.load(data_root)
    assert {name: len(part) for name, part in splits.items()} == {"train": 1600, "validation": 200, "test": 200}
    assert {item.digit for item in splits["test"]} == set(range(10))
    assert all(np.abs(item.wave).max() <= 1 for item in splits["test"])
    first = fsdd.speakers(data_root)[0]
    held = fsdd.load(data_root, held_out=first)
    assert {name: len(part) for name, part in held.items()} == {"train": 1350, "validation": 150, "test": 500}
