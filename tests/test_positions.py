import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver.errors import ConfigError, InputError
from perceiver.positions import (
    Fourier,
    Learned,
    Projected,
    Refined,
    between,
    check_extent,
    grid,
    grid_at,
    rotary_angles,
    rotate,
)
from tests.models import close, filled, golden

ENCODING = golden("position_encoding") or ({"cases": {}}, {})
ROTARY = golden("par_rotary") or ({"config": {}}, {})


def features(config, shape):
    return config.build(shape, nnx.Rngs(0))


@pytest.mark.parametrize("case", ENCODING[0]["cases"])
def test_fourier_features_match_the_reference(case):
    spec, arrays = ENCODING[0]["cases"][case], ENCODING[1]
    config = Fourier(spec["num_bands"], tuple(spec["max_resolution"]), spec["concat_pos"], spec["sine_only"])
    positions, expected = arrays[f"{case}/positions"], arrays[f"{case}/features"]
    module = features(config, spec["index_dims"])
    actual = module(positions)
    noise = max(1e-5, spec["dm_vs_float64_maxabs"], spec.get("dm_jit_vs_eager_maxabs", 0.0))
    np.testing.assert_allclose(actual, expected, atol=noise, rtol=0)
    np.testing.assert_array_equal(jax.jit(lambda x: module(x))(positions), actual)
    assert actual.shape[-1] == config.channels(len(spec["index_dims"]))


@pytest.mark.parametrize("case", [c for c in ENCODING[0]["cases"] if "subsampled" not in c])
def test_grids_match_the_reference(case):
    spec, arrays = ENCODING[0]["cases"][case], ENCODING[1]
    expected = arrays[f"{case}/positions"]
    rows = arrays.get(f"{case}/rows", np.arange(len(expected)))
    np.testing.assert_allclose(grid_at(jnp.asarray(rows), spec["index_dims"]), expected, atol=2e-7, rtol=0)


def test_fourier_features_are_raw_then_sines_then_cosines_axis_by_axis():
    x = np.array([[0.25, -0.5]], np.float32)
    frequencies = [np.array([1.0, 2.0]), np.array([1.0, 4.0])]
    angles = np.concatenate([np.pi * x[0, i] * f for i, f in enumerate(frequencies)])
    expected = np.concatenate([x[0], np.sin(angles), np.cos(angles)])[None]
    np.testing.assert_allclose(features(Fourier(2), (4, 8))(x), expected, atol=1e-6)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.data())
def test_single_cells_are_the_rows_of_the_grid_bit_for_bit(shape, data):
    whole = np.asarray(grid(shape))
    places = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=4, max_size=4)), np.int32)
    np.testing.assert_array_equal(grid_at(places, shape), whole[places])
    assert whole.min() == -1.0
    axes = [[-1.0] if n == 1 else np.linspace(-1, 1, n) for n in shape]
    np.testing.assert_allclose(
        whole, np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)), atol=2e-7
    )


def test_compiling_does_not_move_a_cell():
    places = jnp.arange(100, 9000, 7)
    np.testing.assert_array_equal(jax.jit(lambda i: grid_at(i, (224, 224)))(places), grid_at(places, (224, 224)))


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_an_exclusive_grid_goes_in_steps_of_two_over_the_count(shape):
    places = jnp.arange(np.prod(shape))
    cells = grid_at(places, shape, inclusive=False)
    expected = np.stack(np.unravel_index(np.asarray(places), shape), -1) * 2.0 / np.array(shape) - 1.0
    np.testing.assert_allclose(cells, expected, atol=1e-7)
    np.testing.assert_array_equal(jax.jit(lambda i: grid_at(i, shape, inclusive=False))(places), cells)
    np.testing.assert_array_equal(grid_at(places[-1:], shape, inclusive=False), cells[-1:])


@settings(max_examples=20, deadline=None)
@given(st.floats(-1000, 1000), st.floats(0.5, 1000), st.floats(-0.5, 1.5))
def test_an_extent_becomes_minus_one_to_one_and_what_is_outside_goes_past(low, size, share):
    place = np.float32([[low + share * size]])
    np.testing.assert_allclose(between(place, (low,), (low + size,)), [[2 * share - 1]], atol=2e-3)


def test_an_empty_extent_is_refused():
    for low, high in (((0.0,), (0.0,)), ((1.0,), (0.0,)), ((0.0,), (1.0, 1.0)), ((0.0,), (float("nan"),))):
        with pytest.raises(ConfigError, match="Cloud: expected low < high"):
            check_extent("Cloud", low, high)


def test_fourier_refuses_no_bands_and_a_resolution_of_other_axes():
    with pytest.raises(ConfigError, match="bands must be at least 1, got 0"):
        Fourier(0)
    with pytest.raises(ConfigError, match="has 1 axes, the grid has 2"):
        features(Fourier(2, (8.0,)), (4, 4))


def test_a_learned_table_gives_one_row_to_each_cell_in_order():
    shape = (2, 3, 4)
    module = features(Learned(5), shape)
    np.testing.assert_array_equal(module(grid(shape)), module.table[...])


def test_a_learned_table_answers_another_grid_with_the_nearest_rows():
    module = features(Learned(5), (5,))
    table = np.asarray(module.table[...])
    rows = jax.jit(lambda x: module(x))(np.float32([[-1.0], [0.0], [1.0], [-9.0], [9.0], [0.4]]))
    np.testing.assert_array_equal(rows, table[[0, 2, 4, 0, 4, 3]])
    with pytest.raises(InputError, match="1 axes, got 2"):
        module(jnp.zeros((3, 2)))


def test_positions_nest_and_all_of_them_learn():
    config = Refined(Projected(Learned(4), 5), 2)
    assert config.channels(2) == 5
    assert Projected(Refined(Fourier(3), 1), 7).channels(2) == 7
    module = filled(lambda rngs: config.build((2, 3), rngs))
    x = module.position.position.table[...] @ module.position.linear.kernel[...] + module.position.linear.bias[...]
    first, second = module.linears
    x = jnp.maximum(x + first(x), 0.0)
    graph, state = nnx.split(module)
    run = jax.jit(lambda s: nnx.merge(graph, s)(grid((2, 3))))
    close(run(state), x + second(x), 1e-6)
    close(module(grid((2, 3))), run(state), 1e-6)
    for leaf in jax.tree.leaves(jax.jit(jax.grad(lambda s: (run(s) ** 2).sum()))(state)):
        assert np.abs(leaf).max() > 0


def test_a_refinement_of_no_layers_is_refused():
    with pytest.raises(ConfigError, match=r"Refined\.layers must be at least 1, got 0"):
        Refined(Fourier(2), 0)


@pytest.mark.parametrize("case", ROTARY[0]["config"])
def test_rotary_angles_and_rotation_match_the_reference(case):
    spec, arrays = ROTARY[0]["config"][case], ROTARY[1]
    x, positions = arrays[f"inputs/{case}/x"], arrays[f"inputs/{case}/positions"]
    noise = 1e-6 + 1.5e-7 * np.abs(positions).max()
    angles = rotary_angles(positions, spec["head_dim"], spec["max_wavelength"])
    for name, function in (("cos", np.cos), ("sin", np.sin)):
        twice = np.repeat(function(np.asarray(angles)), 2, axis=-1)
        np.testing.assert_allclose(twice, arrays[f"outputs/{case}/{name}_full"][:, 0], atol=noise, rtol=0)
    scaled = noise * np.abs(x).max()
    np.testing.assert_allclose(rotate(x, angles), arrays[f"outputs/{case}/rotated_full"], atol=scaled, rtol=0)


def test_rotation_of_some_channels_leaves_the_rest_as_they_are():
    x = np.random.default_rng(0).normal(size=(1, 3, 2, 6)).astype(np.float32)
    turned = np.asarray(rotate(x, rotary_angles(jnp.arange(3)[None], 4)))
    np.testing.assert_array_equal(turned[..., 4:], x[..., 4:])
    assert not np.allclose(turned[:, 1:, :, :4], x[:, 1:, :, :4])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6)


def test_products_of_rotated_vectors_depend_on_distances_only():
    q, k = np.random.default_rng(1).normal(size=(2, 1, 4, 1, 8)).astype(np.float32)

    def products(shift):
        angles = rotary_angles(jnp.arange(4.0)[None] + shift, 8)
        return jnp.einsum("bqhd,bkhd->bhqk", rotate(q, angles), rotate(k, angles))

    close(products(11.0), products(0.0))


def test_an_odd_rotary_width_is_refused():
    for width in (0, 3):
        with pytest.raises(ConfigError, match=f"even and positive, got {width}"):
            rotary_angles(jnp.arange(3), width)
