"""Losses on several devices, in chunks and in blocks are those of the definition; tests/parity has open_clip's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import InputError, contrast
from perceiver.contrast import Embedded, clamped, in_chunks, infonce, sigmoid, together
from tests.started import on_eight_devices


def unit(seed, shape):
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def matrix_infonce(left, right, positive, scale, rows, columns):
    """The definition, with all similarities at once, in float64."""
    left, right = (np.asarray(x, np.float64) for x in (left, right))

    def one_way(logits, positive, rows, columns):
        logits = logits[rows][:, columns]
        positive = positive[rows][:, columns]
        nll = np.log(np.exp(logits).sum(1, keepdims=True)) - logits
        asked = positive.any(1)
        return (np.where(positive, nll, 0).sum(1)[asked] / positive.sum(1)[asked]).mean()

    logits = scale * left @ right.T
    return (one_way(logits, positive, rows, columns) + one_way(logits.T, positive.T, columns, rows)) / 2


@pytest.fixture
def blocks(monkeypatch):
    """Compare with few columns at a time."""
    monkeypatch.setattr(contrast, "LARGEST", 0)


def test_several_positives_missing_samples_and_blocks(blocks):
    rng = np.random.default_rng(0)
    n, m = 40, 300
    left, right = unit(0, (n, 8)), unit(1, (m, 8))
    groups = rng.integers(0, 30, n), rng.integers(0, 30, m)
    there = rng.random(n) < 0.8, rng.random(m) < 0.8
    sides = Embedded(left, jnp.asarray(groups[0]), there[0]), Embedded(right, jnp.asarray(groups[1]), there[1])
    positive = groups[0][:, None] == groups[1]
    expected = matrix_infonce(left, right, positive, math.e**2, *there)
    assert infonce(*sides, jnp.float32(2.0)) == pytest.approx(expected, rel=1e-5)
    logits = math.e**2 * np.asarray(left, np.float64) @ np.asarray(right, np.float64).T - 3.0
    pairs = np.log1p(np.exp(np.where(positive, -logits, logits)))[there[0]][:, there[1]]
    found = sigmoid(*sides, jnp.float32(2.0), jnp.float32(-3.0))
    assert found == pytest.approx(pairs.sum() / ((there[0].sum() + there[1].sum()) / 2), rel=1e-5)


@pytest.mark.parametrize("name", ["infonce", "sigmoid"])
def test_gradients_in_blocks_are_those_at_once(name, monkeypatch):
    def gradient():
        def loss(left, right):
            given = Embedded(left), Embedded(right)
            return infonce(*given, 2.0) if name == "infonce" else sigmoid(*given, 2.0, -3.0)

        return jax.jit(jax.grad(loss, (0, 1)))(unit(0, (300, 8)), unit(1, (300, 8)))

    whole = gradient()
    monkeypatch.setattr(contrast, "LARGEST", 0)
    for a, b in zip(gradient(), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", ["infonce", "sigmoid"])
def test_what_is_missing_may_be_anything_and_moves_nothing(name, side):
    present = np.array([True, True, False, True])
    values = [unit(0, (4, 8)), unit(1, (4, 8))]

    def loss(bad):
        given = [x.at[2].set(bad) if i == side else x for i, x in enumerate(values)]
        sides = [Embedded(x, None, present if i == side else None) for i, x in enumerate(given)]
        return infonce(*sides, 2.0) if name == "infonce" else sigmoid(*sides, 2.0, -1.0)

    value, gradient = jax.value_and_grad(loss)(jnp.nan)
    assert value == loss(7.0)
    assert gradient == 0.0


@pytest.mark.parametrize("present", [np.zeros(4, bool), None])
def test_a_batch_without_a_pair_has_finite_losses_and_gradients(present):
    def loss(left):
        sides = Embedded(left, jnp.arange(4), present), Embedded(unit(1, (4, 8)), jnp.arange(4) + 4, present)
        return jnp.stack([infonce(*sides, 2.0), sigmoid(*sides, 2.0, -1.0)])

    values, gradients = loss(unit(0, (4, 8))), jax.jacobian(loss)(unit(0, (4, 8)))
    assert values[0] == 0.0
    assert np.isfinite(values).all()
    assert np.isfinite(gradients).all()


def test_the_temperature_is_clamped_and_comes_back():
    top = math.log(100.0)
    assert clamped(jnp.float32(9.0)) == pytest.approx(top)
    assert clamped(jnp.float32(1.5)) == 1.5
    for factor, expected in ((1.0, 1.0), (-1.0, 0.0)):  # descent goes against the gradient
        assert jax.grad(lambda x, factor=factor: factor * clamped(x))(jnp.float32(9.0)) == expected
    assert jax.grad(lambda x: -clamped(x))(jnp.float32(1.0)) == -1.0


def test_pairs_of_modalities_are_averaged():
    sides = {name: Embedded(unit(i, (4, 8))) for i, name in enumerate(("image", "text", "audio"))}

    def loss(a, b):
        return infonce(a, b, 2.0)

    names = [("image", "text"), ("image", "audio"), ("text", "audio")]
    each = [float(loss(sides[a], sides[b])) for a, b in names]
    assert together(loss, sides) == pytest.approx(np.mean(each), rel=1e-6)
    assert together(loss, sides, [("text", "audio")]) == pytest.approx(each[2], rel=1e-6)
    with pytest.raises(InputError, match="expected pairs of image, text, audio, got smell"):
        together(loss, sides, [("text", "smell")])
    with pytest.raises(InputError, match="got none"):
        together(loss, {"image": sides["image"]})


def test_chunks_give_the_same_with_their_own_randomness():
    x = {"a": unit(0, (12, 8)), "b": jnp.arange(12)}
    found = in_chunks(lambda part, key: {"y": 2.0 * part["a"] + part["b"][:, None], "i": part["b"]}, x, 4)
    np.testing.assert_array_equal(found["i"], np.arange(12))
    np.testing.assert_allclose(found["y"], 2.0 * x["a"] + jnp.arange(12)[:, None], rtol=1e-6)
    drawn = in_chunks(lambda part, key: jax.random.uniform(key, (len(part),)), x["b"], 4, jax.random.key(0))
    assert len(np.unique(drawn)) == 12
    with pytest.raises(InputError, match="expected a divisor of the batch of 12, got 5"):
        in_chunks(lambda part, key: part, x["b"], 5)


def test_chunks_keep_only_what_is_embedded():
    weights = jnp.ones((6, 64, 64))

    def embed(part, key):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), part, weights)[0]

    def used(embed_all):
        loss = lambda x: jnp.sin(embed_all(x)).sum()  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(jnp.ones((4096, 64))).compile().memory_analysis().temp_size_in_bytes

    assert used(lambda x: in_chunks(embed, x, 256)) < used(lambda x: embed(x, None)) / 2


@pytest.fixture(scope="module")
def on_eight():
    """Largest relative differences, from a process with eight devices."""
    return on_eight_devices("tests.contrasting")


@pytest.mark.slow
def test_losses_and_gradients_on_eight_devices_and_cached_are_those_of_one(on_eight):
    differences = {name: value for name, value in on_eight.items() if ":" not in name}
    assert len(differences) == 14
    assert all(value <= 1e-6 for value in differences.values()), differences


@pytest.mark.slow
def test_no_device_holds_all_similarities_and_the_sigmoid_loss_goes_around(on_eight):
    assert not any(value for name, value in on_eight.items() if name.endswith(": whole"))
    for name, value in on_eight.items():
        if name.endswith(": ring"):
            assert value == name.startswith("sigmoid"), name
