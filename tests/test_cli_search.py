"""A folder becomes an index, and what is looked for is found."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

import perceiver as p
from perceiver import cli
from perceiver.io import write_png
from tests.models import noisy, tiny_inputs
from tests.started import ended


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, a folder of files of several kinds, and the index of it."""
    place = tmp_path_factory.mktemp("search")
    inputs = {name: tiny_inputs()[name] for name in ("image", "waveform", "text")}
    noisy(p.PerceiverConfig(inputs, p.Encoder(5, 8, depth=1), {"embedding": p.Embedding(16)})).save(place / "model")
    rng = np.random.default_rng(0)
    (place / "files" / "deep").mkdir(parents=True)
    for number in range(3):
        write_png(place / "files" / f"{number}.png", rng.integers(0, 256, (9, 7, 3), np.uint8))
        soundfile.write(place / "files" / "deep" / f"{number}.wav", rng.uniform(-1, 1, 40 + number), 8000)
    (place / "files" / "words.txt").write_text("a cat\n\na dog\ntoo long for it\n", encoding="utf-8")
    (place / "files" / "broken.png").write_bytes(b"not a picture")
    (place / "files" / "notes.pdf").write_bytes(b"passed over")
    cli.main(["embed", str(place / "files"), "--model", str(place / "model"), "-o", str(place / "index")])
    return place


def found(place, capsys, *words):
    cli.main(["search", str(place / "index"), *words, "--json"])
    return json.loads(capsys.readouterr().out)["found"]


def test_what_cannot_be_read_is_named_and_left_out(place, capsys):
    cli.main(["embed", str(place / "files"), "--model", str(place / "model"), "-o", str(place / "index")])
    shown = capsys.readouterr()
    assert "image 3, text 2, waveform 3; 2 left out" in shown.out
    assert "broken.png: expected an image" in shown.err
    assert "too long for it: expected 1 to 6 tokens, got 15" in shown.err
    assert "notes.pdf" not in shown.err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--text", "a dog"], "a dog"),
        (["--image", "files/1.png"], "1.png"),
        (["--waveform", "files/deep/2.wav"], "2.wav"),
    ],
)
def test_a_thing_finds_itself(words, name, place, capsys):
    words = [str(place / word) if word.startswith("files") else word for word in words]
    best = found(place, capsys, *words)[0]
    assert best["name"].endswith(name)
    assert best["cosine"] == pytest.approx(1.0, abs=1e-4)
    only = found(place, capsys, *words, "--among", "image", "--count", "2")
    assert [entry["modality"] for entry in only] == ["image", "image"]


def test_what_was_found_is_drawn(place, tmp_path, capsys):
    out = tmp_path / "found.png"
    cli.main(["search", str(place / "index"), "--text", "a cat", "--out", str(out)])
    assert "+1.000" in capsys.readouterr().out
    assert out.stat().st_size > 5_000


def refused(words, capsys):
    return ended(words, 2, capsys).err


def test_what_cannot_be_searched_is_said(place, tmp_path, capsys):
    index = str(place / "index")
    assert "expected one thing to look for" in refused(["search", index], capsys)
    assert "the index has image, text, waveform" in refused(
        ["search", index, "--text", "x", "--among", "smell"], capsys
    )
    assert "nothing.png" in refused(["search", index, "--image", "nothing.png"], capsys)
    assert "MANIFEST.json: cannot be read" in refused(["search", str(tmp_path), "--text", "x"], capsys)
    assert "expected an index, with entries.json" in refused(["search", str(place / "model"), "--text", "x"], capsys)
    (tmp_path / "empty").mkdir()
    embed = ["embed", str(tmp_path / "empty"), "--model", str(place / "model"), "-o", str(tmp_path / "i")]
    assert "expected files that the model takes (.bmp" in refused(embed, capsys)
    (tmp_path / "empty" / "x.png").write_bytes(b"no")
    assert "none of 1 entries could be read" in refused(embed, capsys)
    assert not (tmp_path / "i").exists()


def test_an_index_of_another_model_is_refused(place, tmp_path, capsys):
    made = p.Index.load(place / "index")
    assert len(made.digest) == 64
    dataclasses.replace(made, digest="0" * 64).save(tmp_path / "index")
    assert "made by another model" in refused(["search", str(tmp_path / "index"), "--text", "x"], capsys)


@pytest.mark.parametrize("words", [["embed", "--help"], ["search", "--help"]])
def test_help_teaches_by_example(words, capsys):
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "pictures.index" in capsys.readouterr().out
