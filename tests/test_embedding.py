"""Embeddings are the same in any company, and defined for whatever there is."""

import numpy as np
import pytest

import perceiver as p
from perceiver import InputError
from perceiver.embedding import digest_of, embed, embed_names, kinds_of
from perceiver.zeroshot import classify
from tests.models import noisy, tiny_inputs, tiny_model

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    inputs = {name: tiny_inputs()[name] for name in ("image", "waveform", "text")}
    config = p.PerceiverConfig(inputs, p.Encoder(5, 8, depth=1), {"embedding": p.Embedding(4), "label": p.Classes(3)})
    return noisy(config)


ITEMS = {
    "image": [RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(5)],
    "waveform": [RNG.normal(size=count).astype(np.float32) for count in (32, 7, 1, 32, 20)],
    "text": ["a cat", "?", "dög", "x", "six by"],
}


@pytest.mark.parametrize("modality", ITEMS)
def test_an_item_has_the_same_vector_in_any_company(modality, model):
    items = ITEMS[modality]
    together = embed(model, modality, items, batch=4)
    assert together.shape == (5, 4)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(together, embed(model, modality, items, batch=4))
    for number, item in enumerate(items):
        np.testing.assert_allclose(embed(model, modality, [item], batch=4)[0], together[number], atol=1e-6)
    np.testing.assert_allclose(embed(model, modality, items[::-1], batch=3)[::-1], together, atol=1e-6)


def test_a_long_sound_is_the_mean_of_the_clips_that_cover_it(model):
    wave = RNG.normal(size=75).astype(np.float32)  # 32 are heard at once
    clips = [wave[start : start + 32] for start in (0, 22, 43)]
    mean = embed(model, "waveform", clips).sum(axis=0)
    np.testing.assert_allclose(embed(model, "waveform", [wave])[0], mean / np.linalg.norm(mean), atol=1e-6)
    changed = wave.copy()
    changed[-1] += 5.0  # nothing is left out
    assert not np.allclose(embed(model, "waveform", [changed])[0], embed(model, "waveform", [wave])[0], atol=1e-4)


@pytest.mark.parametrize(
    ("modality", "item"),
    [
        ("text", " "),
        ("waveform", np.zeros(32, np.float32)),
        ("waveform", np.zeros(1, np.float32)),
        ("image", np.full((4, 6, 3), 7, np.uint8)),
    ],
)
def test_what_says_nothing_has_a_vector_too(modality, item, model):
    assert np.linalg.norm(embed(model, modality, [item])[0]) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: embed(m, "smell", ["x"]), "no such modality: 'smell'"),
        (lambda m: embed(m, "text", "a cat"), "items: expected a list"),
        (lambda m: embed(m, "text", []), "items: expected a list"),
        (lambda m: embed(m, "image", ["nothing.png"]), r"items\[0\]: .*nothing.png"),
        (
            lambda m: embed(m, "waveform", [np.ones(4, np.float32), np.full(3, np.nan, np.float32)]),
            r"items\[1\]: .*NaN",
        ),
        (lambda m: embed_names(m, "text", ["cat"], ["a photo"]), "templates: expected {}"),
    ],
)
def test_what_cannot_be_embedded_is_named(call, message, model):
    with pytest.raises(InputError, match=message):
        call(model)


def test_a_model_without_an_embedding_says_so():
    config = p.PerceiverConfig(
        {"text": p.Bytes(4)}, p.Encoder(2, 4, 1, latent=p.Block(heads=1)), {"label": p.Classes(2)}
    )
    with pytest.raises(InputError, match="expected a model with one output that is an Embedding, got 0 of label"):
        embed(noisy(config), "text", ["x"])


def test_kinds_and_digests(model):
    assert kinds_of(model) == {"image": "Image", "waveform": "Waveform", "text": "Bytes"}
    assert kinds_of(tiny_model())["points"] == "Points"
    assert digest_of(model) == digest_of(model) != digest_of(tiny_model())


def test_names_are_the_mean_of_their_sentences_and_classify_anything(model):
    names, templates = ["cat", "dog"], ["a {}", "my {}"]
    found = embed_names(model, "text", names, templates)
    for name, vector in zip(names, found, strict=True):
        mean = embed(model, "text", [f"a {name}", f"my {name}"]).sum(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
    heard = classify(model, ITEMS["waveform"], names, templates, modality="waveform")
    assert heard.shape == (5, 2)
    np.testing.assert_allclose(heard.sum(axis=1), 1.0, rtol=1e-5)
    cosines = embed(model, "waveform", ITEMS["waveform"]) @ found.T
    np.testing.assert_array_equal(heard.argmax(axis=1), cosines.argmax(axis=1))
