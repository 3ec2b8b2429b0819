"""What is missing comes in a few steps, the surest first."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver as p
from perceiver import masked_tokens
from perceiver.adapters.levels import UNKNOWN
from perceiver.generation import Sampling
from perceiver.masked_tokens import Filling, canvas, drawn, fill, filled, filling_in, nats
from perceiver.watermark import Watermark
from tests.models import noisy, tiny_model

READER = p.Levels((3, 4), 5, project=6, position=p.Fourier(bands=2))
CONFIG = p.PerceiverConfig(
    inputs={"picture": READER, "label": p.Label(3, names=("cup", "hat", "key"))},
    encoder=p.Encoder(4, 8, depth=1, latent=p.Block(heads=2)),
    outputs={"picture": p.Output(p.Classes(5), p.Grid((3, 4), p.Fourier(bands=2)))},
)
SOME = np.where(np.arange(12).reshape(3, 4) % 3 == 0, 2, UNKNOWN).astype(np.int32)


@functools.cache
def model():
    return noisy(CONFIG)


def watched(filling, ids, sharpness):
    """What `fill` shows a made-up model that foretells id = place modulo 4, the surer the later; one row a step."""
    seen = []

    def logits_of(ids):
        jax.debug.callback(lambda now: seen.append(np.asarray(now)), ids, ordered=True)
        places = jnp.arange(ids.shape[1])
        return jnp.broadcast_to(jax.nn.one_hot(places % 4, 4) * (sharpness * (places + 1))[:, None], (*ids.shape, 4))

    with jax.disable_jit():
        last = fill(logits_of, jnp.asarray(ids), filling, jax.random.key(0))
    jax.effects_barrier()
    return [*seen, np.asarray(last)]


def test_the_share_that_is_missing_falls_by_a_quarter_of_a_cosine_and_the_surest_come_first():
    rows = watched(Filling(4, noise=0.0), np.full((1, 20), UNKNOWN), sharpness=4.0)
    missing = [int((row == UNKNOWN).sum()) for row in rows]
    assert missing == [20, *(int(20 * np.cos(np.pi / 2 * k / 4)) for k in (1, 2, 3)), 0]
    for before, after in itertools.pairwise(rows):
        known = before != UNKNOWN
        np.testing.assert_array_equal(after[known], before[known])
    for row in rows[1:]:  # certainty grows with the place
        assert not (np.diff((row[0] != UNKNOWN).astype(int)) < 0).any()
    np.testing.assert_array_equal(rows[-1][0], np.arange(20) % 4)


def test_each_step_brings_something_and_what_was_given_stays():
    given = np.array([[UNKNOWN, 3, UNKNOWN, 3, UNKNOWN, 3], [1, 1, 1, 1, 1, 1], [UNKNOWN] * 6])
    rows = watched(Filling(12, Sampling(0.0)), given, sharpness=1.0)
    assert [int((row[0] == UNKNOWN).sum()) for row in rows[:5]] == [3, 2, 1, 0, 0]
    np.testing.assert_array_equal(rows[-1], [[0, 3, 2, 3, 0, 3], [1] * 6, [0, 1, 2, 3, 0, 1]])


def test_pictures_come_from_labels_by_their_seed_and_not_by_their_company():
    before = masked_tokens._filled._cache_size()
    pictures = drawn(model(), ["hat", 0, 2], seed=3)
    assert pictures.shape == (3, 3, 4)
    assert 0 <= pictures.min() <= pictures.max() < 5
    np.testing.assert_array_equal(pictures, drawn(model(), [1, 0, 2], seed=3))
    np.testing.assert_array_equal(pictures[0], drawn(model(), [1, 1, 1], seed=3)[0])
    assert (pictures != drawn(model(), [1, 0, 2], seed=4)).any()
    assert masked_tokens._filled._cache_size() == before + 1


def test_a_label_and_what_is_known_of_a_picture_make_a_difference():
    few, missing = Filling(3), SOME == UNKNOWN
    whole = {"picture": np.stack([SOME] * 64), "label": np.zeros(64, np.int32)}
    first = filled(model(), whole, filling=few)
    np.testing.assert_array_equal(first[:, ~missing], 2)
    assert (first != UNKNOWN).all()
    changes = {"picture": np.where(missing, UNKNOWN, 4)[None].repeat(64, axis=0), "label": np.ones(64, np.int32)}
    for name, other in changes.items():
        assert (filled(model(), {**whole, name: other}, filling=few)[:, missing] != first[:, missing]).any()
    without = filled(model(), {"picture": whole["picture"]}, filling=few)
    hidden = filled(model(), whole, {"label": np.zeros(64, bool)}, filling=few)
    np.testing.assert_array_equal(without, hidden)
    full = np.full((64, 3, 4), 3, np.int32)
    np.testing.assert_array_equal(filled(model(), {"picture": full}, filling=few), full)


def test_nats_are_those_of_foretelling_what_is_hidden():
    flat = noisy(CONFIG)
    head = flat.decoders["picture"].head.linear
    head.kernel[...] = jnp.zeros_like(head.kernel[...])
    chances = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    head.bias[...] = jnp.log(jnp.asarray(chances, jnp.float32))
    pictures = np.random.default_rng(0).integers(0, 5, (5, 1, 1)).repeat(3, axis=1).repeat(4, axis=2).astype(np.int32)
    samples = [{"inputs": {"picture": one, "label": np.int32(0)}} for one in pictures]
    np.testing.assert_allclose(nats(flat, samples, batch=4), -np.log(chances[pictures[:, 0, 0]]), rtol=1e-5)
    np.testing.assert_array_equal(nats(model(), samples, batch=4), nats(model(), samples, batch=4))
    batch = {"inputs": {"picture": pictures, "label": np.zeros(5, np.int32)}}
    loss, metrics = filling_in(flat, batch, jax.random.key(0))
    assert -np.log(0.3) - 1e-4 <= loss <= -np.log(0.1)
    assert 0.0 <= metrics["accuracy"] <= 1.0


def test_the_objective_hides_anew_with_each_key_and_never_shows_what_it_asks():
    shown = []

    class Watched:
        config = CONFIG

        def __call__(self, inputs, masks, outputs, *, key):
            shown.append(np.asarray(inputs["picture"]))
            return model()(inputs, masks, outputs)

    batch = {"inputs": {"picture": np.zeros((64, 3, 4), np.int32), "label": np.zeros(64, np.int32)}}
    for seed in (0, 1):
        filling_in(Watched(), batch, jax.random.key(seed))
    missing = [(pictures == UNKNOWN).sum(axis=(1, 2)) for pictures in shown]
    assert (missing[0] != missing[1]).any()
    assert min(map(np.min, missing)) >= 1
    assert abs(np.mean(missing) / 12 - 2 / np.pi) < 0.1  # the mean of a quarter of a cosine


def test_what_does_not_fit_is_said():
    assert canvas(CONFIG) == "picture"
    for call, said in (
        (lambda: drawn(model(), []), "labels: expected at least one, got none"),
        (lambda: drawn(model(), ["cap"]), r"inputs\['label'\]: expected a class, got 'cap'"),
        (lambda: drawn(model(), [3]), r"inputs\['label'\]: expected a class number below 3, got 3"),
        (lambda: filled(model(), {}), "expected what to draw from, such as 'picture' with UNKNOWN pixels, got nothing"),
        (lambda: filled(model(), {"picture": SOME[None, :2]}), r"expected integers \(b, 3, 4\), got \(1, 2, 4\)"),
        (lambda: filled(model(), {"lable": np.array([0])}), "no such modality; did you mean 'label'"),
        (lambda: canvas(tiny_model().config), "expected a model with an input Levels"),
    ):
        with pytest.raises(p.InputError, match=said):
            call()
    for wrong, said in (
        (lambda: Filling(0), "steps: expected at least 1, got 0"),
        (lambda: Filling(noise=-1.0), "noise: expected 0 or more"),
        (lambda: Filling(sampling=Sampling(repetition=2.0)), "neither repetition nor a watermark"),
        (lambda: Filling(sampling=Sampling(watermark=Watermark("x"))), "neither repetition nor a watermark"),
    ):
        with pytest.raises(p.ConfigError, match=said):
            wrong()
