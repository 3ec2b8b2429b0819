"""FLOPs are counted as formulas and XLA count them, and loops as often as they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import models
from benchmarks.cases import CASES
from benchmarks.counting import forward_flops
from perceiver.attend import Backend
from perceiver.training.costs import compiled, matmul_peak, matrix_flops, memory_peaks

WIDTH, BATCH, LAYERS = 16, 4, 5
PRODUCT = 2 * BATCH * WIDTH * WIDTH


def flops(function, *arguments):
    return matrix_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def layer(x, w):
    return jnp.tanh(x @ w), None


def scanned(w, x):
    return jax.lax.scan(layer, x, w)[0].sum()


X, W = jnp.ones((BATCH, WIDTH)), jnp.ones((LAYERS, WIDTH, WIDTH))


def test_a_scanned_layer_counts_as_often_as_it_runs():
    assert flops(scanned, W, X) == LAYERS * PRODUCT
    assert flops(jax.grad(scanned), W, X) == 3 * LAYERS * PRODUCT
    again = lambda w, x: jax.lax.scan(jax.checkpoint(layer), x, w)[0].sum()  # noqa: E731
    assert flops(jax.grad(again), W, X) == 4 * LAYERS * PRODUCT


def test_of_branches_the_dearest_counts_and_a_loop_of_unknown_length_once():
    def either(x, w):
        return jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w)

    def until(x, w):
        return jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ w, x)

    assert flops(either, X, W[0]) == 2 * PRODUCT
    assert flops(until, X, W[0]) == PRODUCT


def test_what_runs_on_every_device_counts_for_each():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    cut = jax.sharding.PartitionSpec("data")
    mapped = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(cut, jax.sharding.PartitionSpec()), out_specs=cut)
    assert flops(mapped, X, W[0]) == PRODUCT


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_counts_as_xla_counts_it(groups):
    def convolve(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=names, feature_group_count=groups
        )

    x, kernel = jnp.ones((2, 9, 8, 4)), jnp.ones((3, 3, 4 // groups, 6))
    theirs = jax.jit(convolve).lower(x, kernel).cost_analysis()["flops"]
    assert flops(convolve, x, kernel) == theirs


@pytest.mark.parametrize("name", ["imagenet_fourier", "language"])
def test_a_model_counts_as_its_formula(name, monkeypatch):
    # The formula counts the network as it is written down; folding the projections of a cross-attend saves some.
    monkeypatch.setattr("perceiver.attention.choose_backend", lambda problem: Backend.XLA)
    config = models.config(CASES[f"forward/{name}"])
    graph, state = nnx.split(config.abstract())
    inputs = {name: adapter.example(1) for name, adapter in config.inputs.items()}
    found = flops(lambda state, inputs: nnx.merge(graph, state)(inputs), state, inputs)
    assert found == pytest.approx(forward_flops(config), rel=0.01)


def test_a_compiled_function_is_called_and_says_what_it_costs():
    program = compiled(jax.jit(scanned), W, X)
    np.testing.assert_allclose(program.call(W, X), scanned(W, X), rtol=1e-5)
    assert program.flops == LAYERS * PRODUCT
    assert program.memory >= W.nbytes + X.nbytes
    assert program.seconds > 0


def test_the_peak_is_measured_once_and_memory_is_that_of_this_process():
    assert matmul_peak("float32") > 1e8
    assert matmul_peak("float32") == matmul_peak("float32")
    assert memory_peaks()["process"] > 50e6
