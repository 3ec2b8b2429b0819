import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open

import perceiver as p
from perceiver import quantised, saving
from perceiver.dual import DualEncoderConfig, ImageClassifierConfig, Projection
from perceiver.errors import ConfigError
from perceiver.hierarchical import HierarchicalConfig, Signal
from perceiver.hierarchical_blocks import Level
from perceiver.model import parameter_bytes, parameter_count
from perceiver.pretrained import write_hub
from perceiver.quantised import Int8, LightParam, to_int8
from perceiver.towers import EndOfText, TextTower, VisionTower
from tests.models import close, filled, tiny_batch, tiny_config

BLOCK = p.Block(heads=2)
RNG = np.random.default_rng(0)


def wide(weights=p.Weights.FLOAT32, **changes):
    """A model most of whose parameters are worth storing in fewer bits."""
    encoder = p.Encoder(4, 64, 2, latent=p.Block(heads=2), cross=p.Block(heads=2, qk_channels=32), towers=(0, 0))
    inputs = {"state": p.State(3, project=32), "text": p.Bytes(4, width=48)}
    outputs = {"label": p.Classes(3), "words": p.Output(p.TokenLogits(262, tied_to="text"), p.Slots(4, width=48))}
    given = {"inputs": inputs, "encoder": encoder, "outputs": outputs, "weights": weights}
    return p.PerceiverConfig(**(given | changes))


def built(config):
    return filled(lambda rngs: config.initial(rngs.params()))


@pytest.fixture(scope="module")
def model():
    return built(wide())


@nnx.jit
def answers(model):
    text = np.array([[6, 7, 8, 9], [100, 0, 6, 261]], np.int32)
    return model({"state": np.ones((2, 1, 3), np.float32), "text": text})


def as_stored(model):
    return {name: np.asarray(value) for name, value in saving.weights(model).items()}


def same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype
        np.testing.assert_array_equal(value, second[name])


@pytest.mark.parametrize(
    ("shape", "axes"), [((48, 32), (-2,)), ((3, 48, 32), (-2,)), ((3, 3, 8, 16), (0, 1, 2)), ((50, 16), (-1,))]
)
def test_no_number_is_off_by_more_than_half_a_step_of_its_channel(shape, axes):
    values = (RNG.normal(size=shape) * 10.0 ** RNG.integers(-6, 6, shape[-1])).astype(np.float32)
    values[..., 3, :] = 0  # a row, or a part of each column, of zeros
    stored = to_int8(jnp.asarray(values), axes)
    numbers, scale = np.asarray(stored.numbers), np.asarray(stored.scale)
    assert (numbers.dtype, scale.dtype, numbers.shape) == (np.int8, np.float32, shape)
    assert scale.shape == tuple(1 if i - len(shape) in axes or i in axes else n for i, n in enumerate(shape))
    assert numbers.min() >= -127
    assert (np.abs(numbers * scale - values) <= 0.5001 * scale).all()
    top = np.abs(values).max(axis=axes, keepdims=True)
    np.testing.assert_allclose(scale[top > 0], top[top > 0] / 127, rtol=1e-6)
    assert (numbers[values == 0] == 0).all()
    assert np.isfinite(scale).all()


@pytest.mark.parametrize("weights", [p.Weights.BFLOAT16, p.Weights.INT8])
def test_matrices_and_tables_are_stored_in_fewer_bits_and_vectors_are_not(model, weights):
    small = p.quantise(model, weights)
    light = {
        ".".join(map(str, path))
        for path, leaf in nnx.to_flat_state(nnx.state(small, nnx.Param))
        if isinstance(leaf, LightParam)
    }
    assert {"encoder.towers.0.layers.mlp.widen.kernel", "encoder.latents", "adapters.text.table"} <= light
    assert not any(name.endswith((".bias", ".scale")) for name in light)
    assert "decoders.label.head.linear.kernel" not in light  # 64 x 3
    assert small.encoder.latents[...].dtype == jnp.float32
    assert "AttributeError" not in repr(small)
    assert parameter_count(small) == parameter_count(model)
    share = parameter_bytes(small) / parameter_bytes(model)
    assert share < (0.52 if weights is p.Weights.BFLOAT16 else 0.3)


@pytest.mark.parametrize("compute", p.Compute)
@pytest.mark.parametrize("weights", p.Weights)
def test_a_model_in_fewer_bits_comes_back_bit_for_bit(model, weights, compute, tmp_path):
    small = p.quantise(model, weights, compute)
    assert (small.config.weights, small.config.compute) == (weights, compute)
    again = p.from_pretrained(small.save(tmp_path / "model"))
    assert again.config == small.config
    same(as_stored(again), as_stored(small))
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert size < parameter_bytes(small) + 20_000  # and the header


def test_answers_stay_close(model):
    whole = answers(model)
    for weights, compute, off in (
        (p.Weights.BFLOAT16, None, 0.1),
        (p.Weights.INT8, None, 0.2),
        (p.Weights.INT8, p.Compute.BFLOAT16, 0.2),
    ):  # parameters of noise make sharp weights of attention, which lose more than trained ones
        found = answers(p.quantise(model, weights, compute))
        for name, values in whole.items():
            assert found[name].dtype == np.float32
            close(found[name], values, off)
            assert not np.array_equal(found[name], values)


@pytest.mark.slow
def test_bfloat16_weights_cost_a_bfloat16_computation_no_more_than_the_computation_does(model):
    exact, there, here = (
        answers(p.quantise(model, weights, compute))["label"]
        for weights, compute in (
            (p.Weights.FLOAT32, p.Compute.FLOAT32),
            (p.Weights.FLOAT32, p.Compute.BFLOAT16),
            (p.Weights.BFLOAT16, p.Compute.BFLOAT16),
        )
    )
    assert np.abs(here - exact).max() < 2 * np.abs(there - exact).max()


def test_float32_again_is_what_was_read_and_int8_again_is_the_same(model):
    small = p.quantise(model, p.Weights.INT8)
    back = p.quantise(small, p.Weights.FLOAT32)
    assert back.config == model.config
    same(as_stored(back), {n: np.asarray(v) for n, v in saving.float32_weights(small).items()})
    close(answers(back)["label"], answers(small)["label"], 1e-5)
    for name, value in as_stored(p.quantise(back, p.Weights.INT8)).items():
        if name.endswith(".numbers"):
            np.testing.assert_array_equal(value, as_stored(small)[name])


def test_the_model_itself_is_left_alone(model):
    before = as_stored(model)
    p.quantise(model, p.Weights.INT8, p.Compute.BFLOAT16)
    same(as_stored(model), before)
    assert model.config.weights is p.Weights.FLOAT32


@pytest.mark.slow
def test_a_fresh_model_may_be_declared_in_int8():
    few = {"inputs": {"state": p.State(3, project=32)}, "outputs": {"label": p.Classes(3)}}
    fresh = wide(p.Weights.INT8, **few).build(0)
    declared, converted = as_stored(fresh), as_stored(p.quantise(wide(**few).build(0), p.Weights.INT8))
    assert declared.keys() == converted.keys()
    for name, value in declared.items():
        assert value.dtype == converted[name].dtype
        # One program draws and rounds here, two there: a number between two steps may fall to either.
        apart = np.abs(value.astype(np.float64) - converted[name].astype(np.float64))
        if value.dtype == np.int8:
            assert apart.max() <= 1
            assert apart.mean() < 1e-3
        else:
            assert (apart <= 1e-6 * np.abs(value)).all()


PICTURE = p.Image((8, 8, 3))
TOWER = VisionTower(PICTURE, (4, 4), 8, 2, BLOCK, qkv_bias=False)
OTHERS = {
    "clip": DualEncoderConfig(TOWER, TextTower(9, 5, 8, 2, BLOCK, EndOfText(2)), Projection(4), Projection(4)),
    "vit": ImageClassifierConfig(TOWER, p.Classes(3)),
    "hip": HierarchicalConfig(
        (Signal("image", 9, 3), Signal("sound", 4, 2)),
        (Level(2, 3, 8, 1), Level(1, 6, 8, 1), Level(2, 3, 8, 0)),
        embedding=8,
    ),
    "stem": p.PerceiverConfig(
        {"image": p.Image((8, 8, 3), stem=p.ConvStem(4))}, p.Encoder(2, 8, 1), {"x": p.Classes(2)}
    ),
    "every modality": tiny_config(),
}
INPUTS = {
    "clip": (np.zeros((2, 8, 8, 3), np.uint8), np.array([[1, 4, 2, 0, 0]], np.int32)),
    "vit": (np.zeros((2, 8, 8, 3), np.uint8),),
    "hip": ({"image": np.ones((2, 9, 3), np.float32), "sound": np.ones((2, 4, 2), np.float32)},),
    "stem": ({"image": np.full((2, 8, 8, 3), 200, np.uint8)},),
    "every modality": (tiny_batch(),),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "every modality" else ()) for name in OTHERS]
)
@pytest.mark.slow
def test_every_kind_of_model_and_layer_works_in_int8(name, monkeypatch, tmp_path):
    monkeypatch.setattr(p.model, "_traced", p.model._traced.__wrapped__)  # what other limits gave is not kept
    monkeypatch.setattr(quantised, "LEAST", 1)
    monkeypatch.setattr(quantised, "NARROWEST", 1)
    model = built(OTHERS[name])
    small = p.from_pretrained(p.quantise(model, p.Weights.INT8).save(tmp_path / "model"))
    light = [leaf for leaf in jax.tree.leaves(nnx.state(small), is_leaf=lambda leaf: isinstance(leaf, Int8))]
    assert sum(isinstance(leaf, Int8) for leaf in light) > 8
    run = nnx.jit(lambda model, given: model(*given))
    for found, whole in zip(*[jax.tree.leaves(run(m, INPUTS[name])) for m in (small, model)], strict=True):
        close(found, whole, 0.1)


@pytest.mark.parametrize("weights", [p.Weights.BFLOAT16, p.Weights.INT8])
def test_layers_are_made_float32_one_at_a_time(weights):
    config = wide(encoder=p.Encoder(2, 64, 12, latent=p.Block(heads=2)), outputs={"label": p.Classes(3)})
    graph, state = nnx.split(p.quantise(built(config), weights))
    run = jax.jit(lambda state, x: nnx.merge(graph, state).encode({"state": x}).values)
    used = run.lower(state, np.ones((1, 1, 3), np.float32)).compile().memory_analysis().temp_size_in_bytes
    assert used < 0.5 * 4 * parameter_count(nnx.merge(graph, state).encoder.towers)


def test_what_cannot_be_done_says_why(model, tmp_path):
    with pytest.raises(ConfigError, match="weights"):
        write_hub(p.quantise(built(OTHERS["vit"]), p.Weights.INT8), tmp_path / "hub")

    @dataclasses.dataclass(frozen=True)
    class Own(p.model.ModelConfig):
        def initial(self, key):
            return None

    model = nnx.Module()
    model.config = Own()
    with pytest.raises(ConfigError, match="Own: expected fields weights and compute, lacks"):
        p.quantise(model, p.Weights.INT8)


def test_int8_weights_under_a_float32_config_are_refused(model):
    tensors = as_stored(p.quantise(model, p.Weights.INT8))
    with pytest.raises(p.InputError, match=r"unexpected encoder\.latents\.numbers"):
        saving.with_weights(model.config, tensors, "here")


def test_other_readers_find_bfloat16_in_the_file(model, tmp_path):
    folder = p.quantise(model, p.Weights.BFLOAT16).save(tmp_path / "model")
    with safe_open(folder / "model.safetensors", framework="flax") as file:
        assert file.get_slice("encoder.latents").get_dtype() == "BF16"
        found = file.get_slice("encoder.latents").get_shape()
    assert tuple(found) == model.encoder.latents.shape
