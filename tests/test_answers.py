import json

import numpy as np
import pytest

from perceiver import (
    Block,
    Bytes,
    Chunk,
    Classes,
    Dense,
    Embedding,
    Encoder,
    Fourier,
    FromTokens,
    Grid,
    Image,
    InputError,
    Output,
    PerceiverConfig,
    Points,
    Slots,
    SoundPatches,
    TokenLogits,
    Waveform,
)
from perceiver.answers import predict
from perceiver.inference import ask, ask_all, look
from perceiver.io import read_audio, read_image
from tests.models import noisy


@pytest.fixture(scope="module")
def model():
    config = PerceiverConfig(
        inputs={
            "image": Image((4, 4, 1), position=Fourier(2)),
            "text": Bytes(8, width=16),
            "points": Points(6, (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), position=Fourier(2, (4.0, 4.0, 4.0))),
        },
        encoder=Encoder(4, 16, 1, latent=Block(heads=2)),
        outputs={
            "label": Classes(3, names=("ant", "bee", "cat")),
            "near": Embedding(8, candidates=("ant", "bee", "cat")),
            "picture": Output(Dense(1), Grid((4, 4), Fourier(2))),
            "flow": Output(Dense(2), Grid((4, 4), Fourier(2))),
            "part": Output(Classes(2), FromTokens("points")),
            "words": Output(TokenLogits(262, tied_to="text"), Slots(8, width=16)),
            "reply": Output(TokenLogits(262), Slots(8)),
            "action": Chunk(horizon=3, dims=2),
        },
    )
    return noisy(config)


IMAGE = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 16


def test_every_kind_of_output_has_an_answer_that_json_can_hold(model, tmp_path):
    cloud = np.zeros((5, 3), np.float32)
    answers = predict(model, {"image": IMAGE, "points": cloud, "text": "bee"}, tmp_path)
    assert json.loads((tmp_path / "answers.json").read_text()) == answers
    assert answers["label"]["name"] in ("ant", "bee", "cat")
    assert [entry["probability"] for entry in answers["label"]["top"]] == sorted(
        (entry["probability"] for entry in answers["label"]["top"]), reverse=True
    )
    assert {entry["text"] for entry in answers["near"]["nearest"]} == {"ant", "bee", "cat"}
    assert read_image(answers["picture"]["file"]).shape == (4, 4, 1)
    assert np.load(answers["flow"]["file"]).shape == (4, 4, 2)
    assert np.load(answers["part"]["file"]).shape == (6,)
    assert isinstance(answers["words"]["text"], str)
    assert answers["reply"].keys() == {"text", "complete"}
    assert np.shape(answers["action"]) == (3, 2)


def test_a_text_is_nearest_to_itself(model):
    answers = predict(model, {"text": "bee"})
    best = answers["near"]["nearest"][0]
    assert best["text"] == "bee"
    assert best["cosine"] == pytest.approx(1.0, abs=1e-4)


def test_without_a_folder_fields_are_described_and_nothing_is_written(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert predict(model, {"image": IMAGE})["picture"] == {"shape": [4, 4, 1]}
    assert not list(tmp_path.iterdir())


def test_outputs_that_need_an_absent_modality_are_left_out(model):
    assert "part" not in predict(model, {"image": IMAGE})


def test_an_unreadable_source_is_named_with_its_modality(model):
    with pytest.raises(InputError, match=r"inputs\['image'\].*nothing\.png"):
        predict(model, {"image": "nothing.png"})
    with pytest.raises(InputError, match=r"inputs\['sound'\]: this model knows image, text, points"):
        predict(model, {"sound": "x.wav"})


def test_asking_in_batches_equals_asking_at_once_and_keeps_the_order(model):
    samples = [{"inputs": {"image": np.roll(IMAGE, i)}} for i in range(5)]
    whole = ask(model, {"image": np.stack([s["inputs"]["image"] for s in samples])}, outputs=["label"])
    parts = ask_all(model, samples, 2, ["label"])
    assert parts["label"].shape == (5, 3)
    assert np.allclose(parts["label"], whole["label"], atol=1e-5)


def test_looking_gives_weights_that_sum_to_one_over_all_modalities(model):
    weights = look(model, {"image": IMAGE[None], "text": np.array([[7, 8, 0]])})
    assert weights["image"].shape == (1, 1, 4, 16)
    assert sum(w.sum(-1) for w in weights.values()) == pytest.approx(1.0, abs=1e-5)
    assert not np.any(weights["text"][..., 2])


SOUND = PerceiverConfig(
    inputs={"sound": Waveform(16, sample_rate=100, patch=4, position=Fourier(2))},
    encoder=Encoder(4, 16, 1, latent=Block(heads=2)),
    outputs={
        "sound": Output(SoundPatches(1, 100), Grid((16,), Fourier(2), inclusive=False)),
        "patches": Output(SoundPatches(4, 100), Grid((4,), Fourier(2))),
    },
)
"""Of a model that hears 16 samples a time."""


def test_fields_are_decoded_at_the_size_that_is_asked_for(model, tmp_path):
    own = predict(model, {"image": IMAGE}, tmp_path / "own")
    larger = predict(model, {"image": IMAGE}, tmp_path / "larger", size=(7, 13))
    assert (own["picture"]["shape"], larger["picture"]["shape"]) == ([4, 4, 1], [7, 13, 1])
    pixels = read_image(larger["picture"]["file"])
    assert pixels.shape[:2] == (7, 13)
    corners = read_image(own["picture"]["file"])[::3, ::3].astype(int)
    assert np.abs(pixels[::6, ::12].astype(int) - corners).max() <= 1
    assert larger["label"] == own["label"]
    with pytest.raises(InputError, match=r"size: expected as many counts .*picture of \(4, 4\).*got \(7,\)"):
        predict(model, {"image": IMAGE}, tmp_path / "none", size=(7,))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("wave", [np.zeros(16), np.clip(9 * np.sin(np.arange(16)), -1, 1)], ids=["silence", "clipped"])
def test_silence_and_clipped_sound_are_decoded_at_any_rate(wave, tmp_path):
    hears = noisy(SOUND)
    heard = predict(hears, {"sound": wave.astype(np.float32)}, tmp_path / "own")
    finer = predict(hears, {"sound": wave.astype(np.float32)}, tmp_path / "finer", size=(32,))
    assert heard["sound"]["sample_rate"] == 100
    assert (finer["sound"]["sample_rate"], finer["sound"]["seconds"]) == (200, heard["sound"]["seconds"])
    assert finer["patches"]["sample_rate"] == 100  # sound in patches of four stays as it is
    (samples, rate), (twice, _) = (read_audio(answer["sound"]["file"]) for answer in (heard, finer))
    assert (rate, len(samples), len(twice)) == (100, 16, 32)
    assert np.abs(samples).max() <= 1.0
    np.testing.assert_allclose(twice[::2], samples, atol=1e-4)
