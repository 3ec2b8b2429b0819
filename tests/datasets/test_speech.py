"""Digits in a row, and prompts of a telephone exchange."""

import gzip

import numpy as np
import pytest
import soundfile

from data import asterisk, digit_strings, fsdd
from data.synthetic_digits import WORDS
from perceiver.errors import InputError
from tests.datasets.making import recordings


def test_strings_are_whole_recordings_of_one_speaker_in_a_row(tmp_path):
    recordings(tmp_path)
    known = fsdd.load(tmp_path)["test"]
    voices = digit_strings.voices(known, lambda item: item.speaker)
    assert [voice.name for voice in voices] == sorted({item.speaker for item in known})
    found = digit_strings.strings(voices, rounds=2)
    for voice in voices:
        own = [item for item in found if item.name.rsplit("_", 1)[0] == voice.name]
        words = [word for item in own for word in item.text.split()]
        assert sorted(words) == sorted(2 * [WORDS[digit] for digit in voice.digits])
        assert all(1 <= len(item.text.split()) <= digit_strings.MOST for item in own)
        lengths = sum(len(item.wave) for item in own) - 2 * sum(len(wave) for wave in voice.waves)
        pauses = 2 * len(voice.waves) + len(own)
        assert 0 <= lengths <= pauses * digit_strings.GAP * digit_strings.RATE
    again = digit_strings.strings(voices, rounds=2)
    assert [item.text for item in again] == [item.text for item in found]
    assert all((a.wave == b.wave).all() for a, b in zip(again, found, strict=True))


def test_a_string_takes_no_more_than_it_may():
    voice = digit_strings.Voice("x", (1, 2), (np.ones(500, np.float32), np.ones(700, np.float32)))
    for seed in range(20):
        wave, text = digit_strings.said(voice, [0, 1, 0, 1], np.random.default_rng(seed), most=4000)
        assert len(wave) <= 4000
        assert wave.sum() == sum({"one": 500, "two": 700}[word] for word in text.split())


@pytest.mark.slow
def test_no_recording_is_in_two_splits(data_root):
    parts = digit_strings.load(data_root, held_out="theo")
    assert {item.name.split("_")[0] for item in parts["test"]} == {"theo"}
    assert "theo" not in {item.name.split("_")[0] for name in ("train", "validation") for item in parts[name]}


LINES = """; a comment

one: Press 1, then #.
deep/two: IT'S open.
beep: [this is a beep]
lost: There is no sound of it.
again: It's open!
"""


def prompts(root, lines=LINES):
    place = root / "asterisk"
    sounds, texts = place / asterisk.SOUNDS, place / asterisk.TEXTS
    (sounds / "deep").mkdir(parents=True)
    texts.parent.mkdir(parents=True)
    texts.write_bytes(gzip.compress(lines.encode()))
    for number, name in enumerate(("one", "deep/two", "beep", "again")):
        soundfile.write(sounds / f"{name}.wav", np.full(100 + number, 0.1), 8000)
    return texts


def test_prompts_are_read_with_their_texts_spelled(tmp_path):
    prompts(tmp_path)
    parts = asterisk.load(tmp_path)
    items = {item.file: item for part in parts.values() for item in part}
    assert {name: item.spelled for name, item in items.items()} == {
        "one.wav": "press one then pound",
        "deep/two.wav": "it's open",
        "again.wav": "it's open",
    }
    assert items["one.wav"].text == "Press 1, then #."
    assert len(items["again.wav"].wave) == 103
    assert len(asterisk.load(tmp_path, 4000)["train"][0].wave) in range(49, 53)
    where = {item.file: split for split, part in parts.items() for item in part}
    assert where["deep/two.wav"] == where["again.wav"]  # the same words


def test_bad_prompts_are_named(tmp_path):
    with pytest.raises(InputError, match=r"is not there\. Get it from Debian's packages"):
        asterisk.load(tmp_path)
    texts = prompts(tmp_path, "one: fine\nno text here\n")
    with pytest.raises(InputError, match=r"core-sounds-en\.txt\.gz, line 2: expected NAME: TEXT, got 'no text here'"):
        asterisk.load(tmp_path)
    texts.write_bytes(gzip.compress(b"other: nothing\n"))
    with pytest.raises(InputError, match=r"expected a file NAME\.wav"):
        asterisk.load(tmp_path)
    texts.write_bytes(gzip.compress(b"../one: fine\n"))
    with pytest.raises(InputError, match="line 1: expected NAME: TEXT"):
        asterisk.load(tmp_path)
    texts.write_bytes(b"not gzip")
    with pytest.raises(InputError, match="expected gzipped text in UTF-8"):
        asterisk.load(tmp_path)
