"""Answers of the kinds of model that published weights are for, and the command that converts them."""

import json
import wave

import jax
import numpy as np
import pytest
from PIL import Image as Pillow

import perceiver as p
from perceiver import cli
from perceiver.answers import predict
from perceiver.flow import read_flo
from perceiver.inference import ask
from perceiver.io import write_png
from perceiver.zoo import flow, kinetics
from tests.models import CARRIED, noisy

LANGUAGE, CLASSIFIER = CARRIED / "hf_perceiver_mlm", CARRIED / "hf_vit"


@pytest.fixture(scope="module")
def language():
    return p.from_pretrained(LANGUAGE)


def test_masked_bytes_are_filled_and_the_rest_is_kept(language):
    answer = predict(language, {"text": "a[MASK]c [MASK]"})["text"]
    assert answer["text"].startswith("a")
    assert answer["text"].replace(answer["filled"][:1], "", 1).startswith("ac ")
    unmasked = predict(language, {"text": "abc"})["text"]
    assert unmasked.keys() == {"text"}


@pytest.fixture(scope="module")
def moving():
    encoder = p.Encoder(4, 16, 1, latent=p.Block(heads=2))
    return noisy(flow._flow((8, 12), encoder, p.Block(residual=False)))


@pytest.mark.parametrize("shape", [(8, 12), (13, 20), (5, 6)])
def test_flow_has_the_size_of_the_frames(moving, tmp_path, shape):
    rng = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("earlier.png", "later.png")]
    for path in paths:
        write_png(path, rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    answer = predict(moving, {"frames": ",".join(map(str, paths))}, tmp_path / "out")["flow"]
    assert answer["shape"] == [*shape, 2]
    written = read_flo(answer["file"])
    assert written.shape == (*shape, 2)
    assert np.hypot(*np.moveaxis(written, -1, 0)).mean() == pytest.approx(answer["mean_pixels"], abs=1e-3)
    with Pillow.open(answer["picture"]) as picture:
        assert picture.size == shape[::-1]


def test_flow_in_tiles_is_the_models_own_where_one_tile_is_enough(moving):
    frames = np.random.default_rng(1).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    larger = np.pad(frames, [(0, 0), (0, 3), (0, 0), (0, 0)], mode="edge")
    own, padded = (predict(moving, {"frames": given})["flow"] for given in (frames, larger))
    assert own["shape"] == [8, 12, 2]
    assert padded["shape"] == [11, 12, 2]


def test_frames_that_do_not_belong_together_are_refused(moving, tmp_path):
    for name, size in (("a.png", (8, 12)), ("b.png", (8, 13))):
        write_png(tmp_path / name, np.zeros((*size, 3), np.uint8))
    with pytest.raises(p.InputError, match=r"inputs\['frames'\].*one size"):
        predict(moving, {"frames": f"{tmp_path / 'a.png'},{tmp_path / 'b.png'}"})
    with pytest.raises(p.InputError, match="two frames as EARLIER,LATER, got 1"):
        predict(moving, {"frames": str(tmp_path / "a.png")})


def test_a_clip_comes_back_as_picture_sound_and_class(tmp_path):
    config = kinetics.autoencoder(
        frames=(2, 8, 12),
        samples=32,
        samples_per_patch=8,
        video=p.Fourier(2, (2.0, 2.0, 3.0)),
        audio=p.Fourier(3, (32.0,)),
        classes=p.Classes(3, ("run", "sit", "swim")),
        label_width=5,
        encoder=p.Encoder(4, 16, 1, latent=p.Block(heads=2)),
        trunk=(p.Block(residual=False), 12),
    )
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    answers = predict(noisy(config), {"image": clip, "audio": rng.uniform(-1, 1, 32).astype(np.float32)}, tmp_path)
    assert answers["label"]["name"] in ("run", "sit", "swim")
    with wave.open(answers["audio"]["file"]) as sound:
        assert (sound.getnframes(), sound.getframerate()) == (32, 48_000)
    with Pillow.open(answers["image"]["file"]) as picture:
        assert (picture.n_frames, picture.size) == (2, (12, 8))
    assert json.loads((tmp_path / "answers.json").read_text()) == answers


def test_the_label_of_an_autoencoder_need_not_be_given_and_does_not_matter():
    config = kinetics.kinetics()
    assert config.mask_rates["label"] == 1.0
    small = noisy(
        p.PerceiverConfig(
            {"label": p.Label(3), "text": p.Bytes(4, width=8)},
            p.Encoder(2, 8, 1, latent=p.Block(heads=2)),
            {"label": p.Classes(3)},
            mask_rates={"label": 1.0},
        )
    )
    ids = np.array([[7, 8, 9, 10]], np.int32)
    without = ask(small, {"text": ids})["label"]
    for label in (0, 2):
        np.testing.assert_array_equal(ask(small, {"text": ids, "label": np.array([label])})["label"], without)


def test_a_classifier_of_towers_names_what_it_sees():
    model = p.ViTForImageClassification.from_pretrained(CLASSIFIER)
    answer = predict(model, {"image": np.full((9, 7, 3), 90, np.uint8)})["label"]
    assert len(answer["top"]) == 5
    with pytest.raises(p.InputError, match="names: only for a model that compares"):
        predict(model, {"image": np.zeros((4, 4, 3), np.uint8)}, names=["cat"])


def test_a_model_of_pictures_and_texts_asks_for_names():
    model = p.CLIPModel.from_pretrained(CARRIED / "hf_clip")
    with pytest.raises(p.InputError, match="--names cat dog"):
        predict(model, {"image": np.zeros((4, 4, 3), np.uint8)})


def test_convert_writes_both_layouts_and_says_when_it_cannot(tmp_path, capsys, language):
    own, hub = tmp_path / "own", tmp_path / "hub"
    cli.main(["convert", str(LANGUAGE), str(own)])
    assert "written and complete" in capsys.readouterr().out
    assert p.from_pretrained(own).config == language.config
    cli.main(["convert", str(own), str(hub), "--hub"])
    assert p.from_pretrained(hub).config == language.config
    with pytest.raises(SystemExit):
        cli.main(["convert", str(own), str(hub), "--hub"])
    assert "exists, so it is not overwritten" in capsys.readouterr().err.replace("\n", " ")
    strange = p.PerceiverConfig({"text": p.Bytes(4, width=8)}, p.Encoder(2, 8, 1), {"near": p.Embedding(3)})
    noisy(strange).save(tmp_path / "strange")
    with pytest.raises(SystemExit):
        cli.main(["convert", str(tmp_path / "strange"), str(tmp_path / "other"), "--hub"])
    assert "transformers has no equal" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "other").exists()


def test_predict_and_inspect_take_hub_folders(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["predict", str(LANGUAGE), "--text", "a [MASK]", "--json"])
    assert json.loads(capsys.readouterr().out)["text"]["text"].startswith("a ")
    with pytest.raises(SystemExit):
        cli.main(["predict", str(LANGUAGE), "--help"])
    assert "[MASK] in it is one byte" in capsys.readouterr().out.replace("\n", " ").replace("│", " ").replace("  ", "")
    cli.main(["inspect", str(CLASSIFIER)])
    assert "VisionClassifier" in capsys.readouterr().out


def test_feature_vectors_come_from_encode(language):
    ids, mask = language.config.inputs["text"].load("abc")
    latents = jax.eval_shape(lambda: language.encode({"text": ids[None]}, {"text": mask[None]}))
    assert latents.values.shape == (1, language.config.encoder.latents, language.config.encoder.channels)
