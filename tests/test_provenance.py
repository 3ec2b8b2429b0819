"""Records of what made a file, and signatures: what was changed is seen."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import perceiver as p
from perceiver import InputError, cli
from perceiver.errors import MissingExtraError
from perceiver.io import write_png
from perceiver.provenance import beside, sign, verify, verify_signature, write_records
from tests.models import noisy, tiny_inputs
from tests.started import ended


def made(**changes):
    inputs = {name: tiny_inputs()[name] for name in ("image", "text")}
    outputs = {"embedding": p.Embedding(4), "pixels": p.Output(p.Dense(1), p.Grid((4, 6), p.Fourier(bands=2)))}
    return noisy(p.PerceiverConfig(inputs, p.Encoder(5, 8, depth=1), outputs, **changes))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model folder, a picture, and what was predicted of it, recorded."""
    place = tmp_path_factory.mktemp("provenance")
    made().save(place / "model")
    write_png(place / "scan.png", np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8))
    words = ["predict", str(place / "model"), "--image", str(place / "scan.png"), "--text", "a cat"]
    cli.main([*words, "--out", str(place / "answers"), "--record", "--json"])
    return place


@pytest.fixture
def copy(place, tmp_path):
    """The same, to be changed; the record names the inputs where they were."""
    return shutil.copytree(place, tmp_path / "copy")


def test_a_record_says_what_made_a_file_of_what(place):
    record = json.loads((place / "answers" / "pixels.png.provenance.json").read_text())
    assert record["file"]["name"] == "pixels.png"
    assert record["model"]["name"] == str(place / "model")
    assert record["inputs"]["image"]["path"] == str(place / "scan.png")
    assert record["inputs"]["text"]["text"] == "a cat"
    assert record["machine"]["versions"]["jax"]
    assert (place / "answers" / "answers.json.provenance.json").is_file()
    lengths = [len(record["model"][name]) for name in ("digest", "config_sha256", "preprocessing_sha256")]
    assert lengths == [64, 64, 64]


def test_what_is_as_it_was_made_is_verified(place, capsys):
    findings = verify(place / "answers" / "pixels.png", made())
    assert [(finding.what, finding.fine) for finding in findings] == [
        ("the file", True),
        ("image", True),
        ("text", None),
        ("the model", True),
    ]
    cli.main(["verify", str(place / "answers" / "pixels.png"), "--model", str(place / "model")])
    assert "as recorded" in capsys.readouterr().out


def changed(words, capsys):
    return ended(words, 1, capsys).out


def test_a_changed_file_an_other_model_and_a_changed_input_are_seen(copy, place, capsys):
    path = copy / "answers" / "pixels.png"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "CHANGED" in changed(["verify", str(path)], capsys)
    assert [f.fine for f in verify(place / "answers" / "pixels.png", made(modality_padding=6))][-1] is False
    scan = place / "scan.png"
    before = scan.read_bytes()
    try:
        scan.write_bytes(before + b"x")
        assert [f.fine for f in verify(place / "answers" / "pixels.png")] == [True, False, None]
        scan.unlink()
        assert [f.fine for f in verify(place / "answers" / "pixels.png")] == [True, None, None]
    finally:
        scan.write_bytes(before)


def test_an_index_is_recorded_as_a_whole(place, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "words.txt").write_text("a cat\na dog\n", encoding="utf-8")
    model = str(place / "model")
    cli.main(["embed", str(tmp_path / "files"), "--model", model, "-o", str(tmp_path / "index"), "--record"])
    assert [finding.fine for finding in verify(tmp_path / "index", made())] == [True, None, None, True]
    vectors = tmp_path / "index" / "embeddings.safetensors"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"x")
    assert verify(tmp_path / "index")[0].fine is False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected its record x.txt.provenance.json beside it, there is none"),
        (b"{", "not JSON"),
        (b"[]", "expected a record of provenance"),
        (b'{"format": 2}', "expected format 1, got 2"),
        (b'{"format": 1, "file": {}, "inputs": {}, "model": {}}', "expected a record of provenance, got one without"),
    ],
)
def test_what_is_no_record_is_said(content, message, tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"x")
    if content is not None:
        beside(path).write_bytes(content)
    with pytest.raises(InputError, match=message):
        verify(path)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.png: cannot be read"):
        write_records([tmp_path / "nothing.png"], made(), {})


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A pair of keys, and another public one."""
    pytest.importorskip("model_signing", reason="needs model-signing: pip install 'perceiver[signing]'")
    place = tmp_path_factory.mktemp("keys")
    for name in ("own", "other"):
        private = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(place / f"{name}.pem")]
        subprocess.run(private, check=True, capture_output=True)
        public = ["openssl", "ec", "-in", str(place / f"{name}.pem"), "-pubout", "-out", str(place / f"{name}.pub")]
        subprocess.run(public, check=True, capture_output=True)
    return place


def test_a_signed_model_is_verified_and_tampering_is_seen(copy, keys, capsys):
    folder = copy / "model"
    cli.main(["sign", str(folder), "--key", str(keys / "own.pem")])
    assert (copy / "model.sig").is_file()
    assert verify_signature(folder, keys / "own.pub").fine
    cli.main(["verify", str(folder), "--key", str(keys / "own.pub")])
    assert p.from_pretrained(folder)  # a signature changes nothing in the folder
    assert not verify_signature(folder, keys / "other.pub").fine
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "CHANGED" in changed(["verify", str(folder), "--key", str(keys / "own.pub")], capsys)
    with pytest.raises(InputError, match=r"model\.safetensors: expected sha256"):
        sign(folder, keys / "own.pem")


def test_keys_and_signatures_that_are_none_are_said(copy, keys, tmp_path):
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(InputError, match=r"key\.pem: expected an elliptic-curve private key"):
        sign(copy / "model", tmp_path / "key.pem")
    with pytest.raises(InputError, match=r"expected its signature model\.sig beside it"):
        verify_signature(copy / "model", keys / "own.pub")


def test_signing_is_an_extra(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingExtraError, match=r"perceiver\[signing\]"):
        sign(place / "model", "key.pem")
