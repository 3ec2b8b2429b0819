import functools

import jax
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.contrast import Embedded, infonce
from perceiver.inference import ask
from perceiver.spectrogram import Log, Spectrogram
from perceiver.training import matching
from perceiver.training.evaluation import figures_of, scores
from perceiver.training.matching import matching_judge, matching_objective, mean_figures

MODEL = p.PerceiverConfig(
    inputs={
        "image": p.Image((8, 8, 3), patch=4, position=p.Fourier(bands=2), mean=(0.5,) * 3, std=(0.2,) * 3),
        "sound": p.LogMel(
            512,
            Spectrogram(64, 32, mels=8, sample_rate=8000, log=Log.NATURAL, mel_floor=1e-5),
            sample_rate=8000,
            position=p.Fourier(bands=2),
            loudness=0.1,
        ),
        "text": p.Bytes(12, width=16),
    },
    encoder=p.Encoder(4, 16, 1),
    outputs={"embedding": p.Embedding(8)},
)


def batch(count=6):
    rng = np.random.default_rng(0)
    text = rng.integers(10, 200, (count, 12)).astype(np.int32)
    image = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    here = np.ones(count, bool)
    return {"inputs": {"image": image, "text": text}, "masks": {"image": here.copy(), "text": here.copy()}}


@functools.partial(jax.jit, static_argnums=0)
def _objective(graph, state, given):
    return matching_objective()(nnx.merge(graph, state), given, None)


def objective(model, given):
    return _objective(*nnx.split(model), given)


def test_the_objective_is_infonce_of_what_each_modality_says():
    model, given = MODEL.build(0), batch()
    said = {name: ask(model, {name: raw})["embedding"] for name, raw in given["inputs"].items()}
    group = np.array([0, 1, 1, 2, 3, 3], np.int32)
    head = model.decoders["embedding"].head
    for targets in ({}, {"targets": {"image": group, "text": group}}):
        sides = {name: Embedded(values, group if targets else None) for name, values in said.items()}
        loss, metrics = objective(model, given | targets)
        wanted = infonce(sides["image"], sides["text"], head.log_scale[...])
        assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
    assert float(metrics["scale"]) == pytest.approx(10.0)


def test_a_pair_with_one_side_missing_counts_nowhere_in_that_side():
    model, given = MODEL.build(0), batch()
    given["masks"]["image"][1] = given["masks"]["text"][4] = False
    loss, _ = objective(model, given)
    changed = jax.tree.map(np.copy, given)
    changed["inputs"]["image"][1] = 7
    changed["inputs"]["text"][4] = 9
    assert float(objective(model, changed)[0]) == float(loss)
    changed["inputs"]["image"][2] = 7
    assert float(objective(model, changed)[0]) != float(loss)


def test_nothing_to_see_hear_or_read_gives_finite_losses_and_gradients():
    """A one-colour picture, a silent and a one-sample sound, one letter, and a modality that nobody has."""
    model, given = MODEL.build(0), batch(4)
    given["inputs"]["image"][0] = 128
    sounds = [np.zeros(512, np.float32), np.array([0.3], np.float32), np.ones(1, np.float32), np.zeros(1, np.float32)]
    loaded = [MODEL.inputs["sound"].load(wave) for wave in sounds]
    given["inputs"]["sound"] = np.stack([raw for raw, _ in loaded])
    given["masks"]["sound"] = np.stack([mask for _, mask in loaded])
    given["inputs"]["text"][1] = MODEL.inputs["text"].load("a")[0]
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    @jax.value_and_grad
    def loss(parameters, masks):
        whole = nnx.merge(graph, parameters, rest)
        return matching_objective()(whole, given | {"masks": masks}, jax.random.key(0))[0]

    for hidden in (None, "image", "sound", "text"):
        masks = {n: np.zeros_like(m) if n == hidden else m for n, m in given["masks"].items()}
        value, gradients = loss(parameters, masks)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_an_empty_caption_is_refused_by_name():
    with pytest.raises(p.InputError, match="expected 1 to 12 tokens, got 0"):
        MODEL.inputs["text"].load("")


def judged(monkeypatch, vectors, names, **options):
    monkeypatch.setattr(
        matching, "embedded", lambda model, samples: np.array([vectors[side][i] for i, side in samples])
    )
    judge = matching_judge(
        "image", "text", lambda item, side: (item, side), lambda item, side: names[side][item], **options
    )
    return judge(None, range(3))


def test_each_way_has_its_figures_and_equal_texts_are_equally_right(monkeypatch):
    vectors = {"image": [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], "text": [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]}
    names = {"image": ["a.png", "b.png", "c.png"], "text": ["ape", "bee", "bee"]}
    found = judged(monkeypatch, vectors, names)
    assert [line["rank"] for line in found["image_to_text"].lines] == [0, 0, 0]  # b finds c's text, which says the same
    assert figures_of(found["text_to_image"])["recall_at_1"] == 1.0
    apart = judged(monkeypatch, vectors, names | {"text": ["ape", "bee", "cow"]})
    assert [line["rank"] for line in apart["image_to_text"].lines] == [0, 1, 1]
    figures = scores(apart)
    assert figures["image_to_text"]["recall_at_1"] == pytest.approx(1 / 3)
    assert figures["image_to_text"]["recall_at_5"] == 1.0
    assert mean_figures(apart)["recall_at_1"] == pytest.approx((1 / 3 + 1 / 3) / 2)


def test_pairs_that_are_dealt_anew_are_found_by_chance(monkeypatch):
    vectors = {side: np.eye(3).tolist() for side in ("image", "text")}
    names = {side: list("abc") for side in vectors}
    assert mean_figures(judged(monkeypatch, vectors, names))["recall_at_1"] == 1.0
    assert mean_figures(judged(monkeypatch, vectors, names, dealt=True))["recall_at_1"] < 1.0
