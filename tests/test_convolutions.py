import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.convolutions import Average, BatchNorm, Padding, Upsample
from perceiver.errors import ConfigError, InputError
from perceiver.saving import weights

FLOAT = {"dtype": jnp.dtype("float32"), "rngs": nnx.Rngs(0)}


@pytest.mark.parametrize("padding", list(Padding))
@pytest.mark.parametrize("layers", [1, 2])
def test_the_size_is_what_comes_out(padding, layers):
    config = p.ConvStem(2, layers, padding=padding)
    module = config.build(3, **FLOAT)
    for rows, columns in ((40, 61), (57, 64), (63, 47)):
        out = jax.eval_shape(module, jax.ShapeDtypeStruct((1, rows, columns, 3), jnp.float32))
        assert out.shape == (1, config.size(rows), config.size(columns), 2)


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
    model = p.PerceiverConfig({"image": image}, p.Encoder(2, 8, 1), {"label": p.Classes(2)}).build(0)
    before = {name: np.asarray(value) for name, value in weights(model).items()}
    model({"image": np.random.default_rng(0).random((2, 8, 8, 1)).astype(np.float32)}, key=jax.random.key(0))
    after = weights(p.from_pretrained(model.save(tmp_path / "model")))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    norm = "adapters.image.stem.norms.0"
    assert moved == {f"{norm}.{part}.{name}" for part in ("mean", "variance") for name in ("value", "hidden", "count")}
