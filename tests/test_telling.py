"""What a narrator and a captioner write about files, from Python and from the command line."""

import functools
import json

import numpy as np
import pytest
from PIL import Image as Pictures

from perceiver import Block, Fourier, Image, InputError, cli, provenance
from perceiver.adapters.text import BOS, BYTE_VOCABULARY, CLS, EOS, PAD, decode_bytes, encode_bytes
from perceiver.captioner import CaptionerConfig, caption
from perceiver.causal import CausalText
from perceiver.continuation import Ended, Wish, joined
from perceiver.generation import Sampling
from perceiver.io.images import read_image
from perceiver.narrator import narrated
from perceiver.pretrained import from_pretrained
from perceiver.resampler import GatedCrossAttend, Resampler
from perceiver.telling import MEDIA, tell
from tests.models import noisy
from tests.test_narrator import CONFIG as NARRATOR

LENGTH = 24
LIKELIEST = Wish(sampling=Sampling(temperature=0.0))
CAPTIONER = CaptionerConfig(
    media=Image((8, 8, 3), patch=4, position=Fourier(bands=2)),
    resampler=Resampler(latents=3, channels=16, depth=1, heads=2, head_channels=8),
    text=CausalText(BYTE_VOCABULARY, LENGTH, channels=16, depth=2, block=Block(heads=2, widening=2)),
    look=GatedCrossAttend(16, 16, heads=2, head_channels=8),
    marker=CLS,
)


@functools.cache
def captioner():
    return noisy(CAPTIONER)


@functools.cache
def narrator():
    return noisy(NARRATOR)


@pytest.fixture
def picture(tmp_path):
    height, width, channels = NARRATOR.senses.inputs["image"].shape
    pixels = np.random.default_rng(3).integers(0, 256, (2 * height, 2 * width, channels), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Pictures.fromarray(pixels).save(path)
    return path


def texts(model, sources, prompts=("",), wish=LIKELIEST):
    return joined(tell(model, sources, prompts, wish), len(prompts))


def test_a_narrator_tells_of_a_file_as_of_its_array(picture):
    raw, _ = NARRATOR.senses.inputs["image"].load(picture)
    two = {"image": np.stack([raw, raw])}
    expected = narrated(narrator(), two, prompts=["", "re"], wish=Wish(9, seed=4))
    assert texts(narrator(), {"image": picture}, ["", "re"], Wish(9, seed=4)) == expected


def test_a_captioner_tells_of_a_file_as_of_its_array(picture):
    raw, _ = CAPTIONER.media.load(picture)
    prompt = "ab"
    start = np.full((1, LENGTH), PAD, np.int32)
    start[0, :4] = [CLS, BOS, *encode_bytes(prompt)]
    row = caption(
        captioner(), raw[None, None], start, np.array([4]), end=EOS, padding=PAD, sampling=LIKELIEST.sampling
    )[0]
    written = row[4:][: (row[4:] == EOS).argmax()] if (row[4:] == EOS).any() else row[4:]
    (told,) = texts(captioner(), {MEDIA: picture}, [prompt])
    assert told.text == decode_bytes(written)
    assert len(written) > 0


def test_what_a_captioner_writes_hangs_on_the_picture_and_ends_where_it_is_told(picture):
    other = np.asarray(255 - read_image(picture))
    both = [texts(captioner(), {MEDIA: source}, ["", "a"], Wish(seed=1)) for source in (picture, other)]
    assert both[0] != both[1]
    assert both[0] == texts(captioner(), {MEDIA: picture}, ["", "a"], Wish(seed=1))
    (short,) = texts(captioner(), {MEDIA: picture}, wish=Wish(3, Sampling(top_k=50), seed=1))
    assert short.ended is Ended.LENGTH


def test_what_does_not_fit_is_said(picture):
    with pytest.raises(InputError, match="about 'sound': this model knows image"):
        texts(narrator(), {"sound": picture})
    with pytest.raises(InputError, match="expected at least one of media, got none"):
        texts(captioner(), {})
    with pytest.raises(InputError, match="prompt 1: expected at most 21 bytes, to leave room for more, got 22"):
        texts(captioner(), {MEDIA: picture}, ["", "x" * 22])
    with pytest.raises(InputError, match=r"about 'media'.*(no such file|nothing)"):
        texts(captioner(), {MEDIA: picture.with_name("none.png")})


def test_the_command_line_tells_of_files(picture, tmp_path, capsys):
    model, out = captioner().save(tmp_path / "model"), tmp_path / "text.txt"
    words = ["generate", str(model), "--about", f"media={picture}", "--seed", "2", "--most", "8"]
    cli.main([*words, "--json", "-o", str(out), "--record"])
    (told,) = json.loads(capsys.readouterr().out)
    assert told["text"] == texts(captioner(), {MEDIA: picture}, wish=Wish(8, seed=2))[0].text
    findings = provenance.verify(out, from_pretrained(model))
    assert all(finding.fine is not False for finding in findings)
    assert "picture.png" in provenance.beside(out).read_text()
    for about, message in (("picture.png", "expected NAME=FILE"), ("sound=a.wav", "this model knows media")):
        with pytest.raises(SystemExit):
            cli.main(["generate", str(model), "--about", about])
        assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        cli.main(["predict", str(model), "--media", str(picture)])
    assert "perceiver generate" in " ".join(capsys.readouterr().err.split())
