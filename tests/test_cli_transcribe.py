"""What the command writes down; what is in the text is the business of test_transcription."""

import json

import jax
import numpy as np
import pytest

import perceiver as p
from perceiver import cli
from perceiver.adapters.text import BOS, SPECIALS
from perceiver.answers import predict
from perceiver.autoregressive import AutoregressiveConfig
from perceiver.ctc import Beam, beam_search
from perceiver.errors import ConfigError
from perceiver.fusion import letter_scorer
from perceiver.io import write_wav
from perceiver.transcription import transcribe
from tests.models import noisy
from tests.test_speller import CONFIG as SPELLER
from tests.test_transcription import HEAD, MODEL, RATE, SAMPLES

LANGUAGE = AutoregressiveConfig(p.Bytes(12, width=16), latents=4, channels=16, depth=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An untrained recogniser that says much, an untrained language model, and a sound."""
    place = tmp_path_factory.mktemp("transcribe")
    noisy(MODEL).save(place / "model")
    noisy(LANGUAGE).save(place / "language")
    noisy(SPELLER).save(place / "speller")
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * SAMPLES // 2).astype(np.float32)
    write_wav(place / "sound.wav", wave, RATE)
    return place


def said(place, capsys, *words):
    cli.main(["transcribe", str(place / "sound.wav"), "--model", str(place / "model"), *words])
    return capsys.readouterr().out


def test_text_words_and_json_say_the_same(place, capsys):
    text = said(place, capsys).strip()
    told = json.loads(said(place, capsys, "--json"))
    assert told["text"] == text != ""
    assert told["seconds"] == 1.5
    lines = said(place, capsys, "--words").splitlines()
    assert [line.split()[2] for line in lines] == [word["text"] for word in told["words"]] == text.split()
    assert float(lines[0].split()[0]) == pytest.approx(told["words"][0]["start"], abs=0.006)
    assert 0 <= told["words"][0]["start"] < told["words"][0]["end"] <= 1.5


def test_predict_writes_down_what_fits_into_a_window(place, tmp_path):
    wave = np.random.default_rng(1).uniform(-0.5, 0.5, SAMPLES).astype(np.float32)
    write_wav(tmp_path / "short.wav", wave, RATE)
    model = p.from_pretrained(place / "model")
    assert predict(model, {"audio": tmp_path / "short.wav"})["text"] == {
        "text": transcribe(model, tmp_path / "short.wav").text
    }


def test_a_language_model_helps_to_search(place, capsys):
    options = ["--beam", "4", "--language", str(place / "language"), "--weight", "3"]
    assert said(place, capsys, *options) != said(place, capsys, "--beam", "4")


def test_texts_help_to_search(place, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("abab\n\nab\n", encoding="utf-8")
    options = ["--beam", "4", "--texts", str(tmp_path / "texts.txt"), "--weight", "20"]
    assert "c" in said(place, capsys, "--beam", "4")
    assert "c" not in said(place, capsys, *options)
    (tmp_path / "texts.txt").write_text("a?b\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        said(place, capsys, *options)
    assert "texts.txt: expected letters of 'abc', got '?'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_speller_writes_letter_by_letter_or_by_its_ctc(place, capsys):
    def by(*words):
        cli.main(["transcribe", str(place / "sound.wav"), "--model", str(place / "speller"), *words])
        return capsys.readouterr().out.strip()

    assert len({by(), by("--letters")}) == 2
    assert by("--letters", "--beam", "2")


def test_bad_input_is_one_line(place, tmp_path, capsys):
    (tmp_path / "empty.wav").write_bytes(b"")
    for words, message in (
        ([str(tmp_path / "empty.wav"), "--model", str(place / "model")], "empty.wav: expected content"),
        ([str(place / "sound.wav"), "--model", str(place / "language")], "expected a model that hears"),
        ([str(place / "sound.wav"), "--model", str(place / "model"), "--language", "x"], "expected a --beam"),
        ([str(place / "sound.wav"), "--model", str(place / "model"), "--letters"], "expected a model with a decoder"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["transcribe", *words])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_letters_are_scored_as_the_model_foretells_their_bytes():
    model = noisy(LANGUAGE)
    scores = letter_scorer(model, HEAD)
    texts = [(), (1, 2), (3,) * 20, *[(1,) * n for n in range(1, 16)]]  # more than one call takes
    found = scores(texts)
    assert found.shape == (len(texts), 4)
    ids = np.array([[BOS, ord("a") + SPECIALS, ord("b") + SPECIALS]], np.int32)
    logits = np.asarray(jax.jit(lambda model: model(ids).logits)(model))[0, -1]
    logs = logits - np.logaddexp.reduce(logits)
    np.testing.assert_allclose(found[1, 1:], logs[[ord(letter) + SPECIALS for letter in "abc"]], atol=1e-4)
    beam_search(np.log(np.full((5, 4), 0.25)), Beam(4, scores))


def test_a_language_model_of_other_things_is_refused():
    with pytest.raises(ConfigError, match="expected an autoregressive model of bytes, got Perceiver"):
        letter_scorer(MODEL.build(0), HEAD)
    with pytest.raises(ConfigError, match="letters of one byte, got 'é'"):
        letter_scorer(noisy(LANGUAGE), p.CTC("eé"))
