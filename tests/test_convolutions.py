import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import perceiver as p
from perceiver.convolutions import Average, BatchNorm, Padding, Upsample
from perceiver.errors import ConfigError, InputError
from perceiver.saving import weights
from tests.models import filled

FLOAT = {"dtype": jnp.dtype("float32"), "rngs": nnx.Rngs(0)}


@pytest.mark.parametrize("padding", list(Padding))
@pytest.mark.parametrize("layers", [1, 2])
def test_the_size_is_what_comes_out(padding, layers):
    config = p.ConvStem(2, layers, padding=padding)
    module = config.build(3, **FLOAT)
    for rows, columns in ((40, 61), (57, 64), (63, 47)):
        out = jax.eval_shape(module, jax.ShapeDtypeStruct((1, rows, columns, 3), jnp.float32))
        assert out.shape == (1, config.size(rows), config.size(columns), 2)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(Padding), st.integers(1, 3), st.integers(1, 300))
def test_the_size_of_any_axis_is_what_comes_out(padding, layers, pixels):
    config = p.ConvStem(1, layers, padding=padding)
    if config.size(pixels) < 1:
        assert padding is Padding.SYMMETRIC
        return
    raw = jax.ShapeDtypeStruct((1, pixels, 64, 1), jnp.float32)
    out = nnx.eval_shape(lambda x: config.build(1, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))(x), raw)
    assert out.shape[1] == config.size(pixels)


@pytest.mark.parametrize("fields", [{"channels": 0}, {"layers": 0}])
def test_a_stem_of_nothing_is_refused(fields):
    with pytest.raises(ConfigError, match="ConvStem needs channels and layers of at least 1"):
        p.ConvStem(**fields)


def test_an_average_is_unbiased_from_the_first_value_on():
    average = Average(jnp.zeros(2), 0.9)
    average.update(jnp.asarray([4.0, -2.0]))
    np.testing.assert_allclose(average.value[...], [4.0, -2.0], rtol=1e-6)
    average.update(jnp.asarray([0.0, 0.0]))
    np.testing.assert_allclose(average.value[...], np.array([4.0, -2.0]) * 0.9 / 1.9, rtol=1e-6)
    assert average.count[...] == 2


def test_training_normalises_by_the_batch_and_evaluation_by_the_averages():
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 5, 2)), jnp.float32)
    norm = BatchNorm(2)
    out = norm(x, train=True)
    np.testing.assert_allclose(out.mean(axis=(0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=(0, 1, 2)), 1.0, atol=1e-3)
    np.testing.assert_allclose(norm(x), out, atol=1e-5)  # one update: the averages are that batch's statistics
    assert norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert norm.mean.value[...].dtype == jnp.float32


@pytest.mark.parametrize(
    ("time", "shape", "wanted"), [(None, (1, 2, 3, 4), (1, 8, 12, 3)), (1, (1, 2, 2, 3, 4), (1, 4, 8, 12, 3))]
)
def test_upsampling_doubles_space_and_time(time, shape, wanted):
    module = Upsample(4, 3, 2, time, **FLOAT)
    assert jax.eval_shape(module, jax.ShapeDtypeStruct(shape, jnp.float32)).shape == wanted


def test_a_stem_makes_the_tokens_of_an_image():
    image = p.Image((32, 24, 3), stem=p.ConvStem(5), position=p.Fourier(2))
    assert image.grid == (8, 6)
    module = image.build(**FLOAT)
    tokens = module(np.zeros((2, 32, 24, 3), np.float32))
    assert tokens.values.shape == (2, 48, image.channels)
    assert module(np.zeros((1, 16, 24, 3), np.float32)).values.shape[1] == 4 * 6
    with pytest.raises(InputError, match=r"expected a mask \[b\]"):
        module(np.zeros((1, 32, 24, 3), np.float32), np.ones((1, 32, 24), bool))
    with pytest.raises(ConfigError, match="patch must be 1"):
        dataclasses.replace(image, patch=2)


def test_statistics_are_saved_with_the_model(tmp_path):
    image = p.Image((8, 8, 1), stem=p.ConvStem(2), position=p.Fourier(1))
    config = p.PerceiverConfig({"image": image}, p.Encoder(2, 8, 1), {"label": p.Classes(2)})
    model = filled(lambda rngs: config.initial(rngs.params()))
    before = {name: np.asarray(value) for name, value in weights(model).items()}
    pixels = np.random.default_rng(0).random((2, 8, 8, 1)).astype(np.float32)
    nnx.jit(lambda m: m({"image": pixels}, key=jax.random.key(0)))(model)
    after = weights(p.from_pretrained(model.save(tmp_path / "model")))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    norm = "adapters.image.stem.norms.0"
    assert moved == {f"{norm}.{part}.{name}" for part in ("mean", "variance") for name in ("value", "hidden", "count")}


def test_an_average_weighs_by_age():
    values, average = np.random.default_rng(0).normal(size=(6, 3)), Average(jnp.zeros(3), 0.7)
    for count, value in enumerate(values, start=1):
        average.update(jnp.asarray(value, jnp.float32))
        expected = np.average(values[:count], axis=0, weights=0.7 ** np.arange(count)[::-1])
        np.testing.assert_allclose(average.value[...], expected, atol=1e-6)


def test_nothing_is_learned_through_the_averages_and_evaluation_leaves_them():
    x = jnp.asarray(np.random.default_rng(0).normal(1.0, 2.0, (2, 3, 3, 2)), jnp.float32)

    @jax.jit
    def after(x):
        norm = BatchNorm(2)
        out = norm(x, train=True)
        return jax.tree.leaves(nnx.state(norm, nnx.BatchStat)), (out**3).sum()

    averages = jax.jit(jax.grad(lambda x: sum(leaf.astype(jnp.float32).sum() for leaf in after(x)[0])))(x)
    np.testing.assert_array_equal(averages, 0)
    through = np.asarray(jax.jit(jax.grad(lambda x: after(x)[1]))(x))
    assert np.abs(through).max() > 0.01
    np.testing.assert_allclose(through.sum(axis=(0, 1, 2)), 0, atol=1e-4)  # a shift of a channel changes nothing

    norm = BatchNorm(2)
    norm(x)
    assert int(norm.mean.count[...]) == 0


def test_statistics_of_bfloat16_are_those_of_the_same_numbers_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(8.0, 1.0, (4, 16, 16, 1)), jnp.bfloat16)
    norm = BatchNorm(1)
    norm(x, train=True)
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(norm.mean.value[...], wide.mean(), rtol=1e-5)
    np.testing.assert_allclose(norm.variance.value[...], wide.var(), rtol=1e-3)


def test_upsampling_halves_channels_and_doubles_time_as_often_as_it_is_told():
    module = filled(lambda rngs: Upsample(8, 3, 1, 2, dtype=jnp.dtype("float32"), rngs=rngs))
    assert [layer.kernel.shape for layer in module.layers] == [(4, 4, 4, 8, 6), (4, 4, 4, 6, 3)]
    clip = jax.ShapeDtypeStruct((1, 2, 3, 5, 8), jnp.float32)
    assert jax.eval_shape(module, clip).shape == (1, 8, 6, 10, 3)


def test_a_picture_that_the_convolutions_leave_nothing_of_is_refused():
    image = p.Image((32, 32, 3), stem=p.ConvStem(2, padding=Padding.SYMMETRIC), position=p.Fourier(1))
    module = filled(lambda rngs: image.build(dtype=jnp.dtype("float32"), rngs=rngs))
    with pytest.raises(InputError, match=r"the stem leaves something of, got \(4, 32\)"):
        module(np.zeros((1, 4, 32, 3), np.uint8))


def test_a_channel_that_hardly_varies_is_still_a_number():
    x = jnp.asarray(3000.0 + 0.01 * np.random.default_rng(1).normal(size=(4, 8, 8, 16)), jnp.float32)
    x = x + 37.3 * jnp.arange(16.0)
    norm = BatchNorm(16)
    assert np.isfinite(norm(x, train=True)).all()
    assert (np.asarray(norm.variance.value[...]) >= 0).all()
