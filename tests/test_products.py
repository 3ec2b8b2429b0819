import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from perceiver import products
from perceiver.attention import linear
from tests.models import close


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 6)])
def test_an_ordered_product_is_a_product_with_the_same_gradients(monkeypatch, shape):
    rng = np.random.default_rng(0)
    x, layer = (
        jnp.asarray(rng.normal(size=shape), jnp.float32),
        linear(6, 4, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0)),
    )
    graph, state = nnx.split(layer)

    def loss(state, x):
        return jnp.sin(nnx.merge(graph, state)(x)).sum()

    found = []
    for large in (1, 10**9):
        monkeypatch.setattr(products, "LARGE", large)
        found.append(jax.jit(jax.value_and_grad(lambda *given: loss(*given), (0, 1)))(state, x))
    for have, want in zip(*map(jax.tree.leaves, found), strict=True):
        close(have, want, 1e-6)


def test_a_second_derivative_goes_through(monkeypatch):
    monkeypatch.setattr(products, "LARGE", 1)
    graph, state = nnx.split(linear(3, 2, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0)))

    def slope(x):
        return jax.grad(lambda x: (nnx.merge(graph, state)(x) ** 3).sum())(x).sum()

    x = jnp.array([0.3, -0.2, 0.5])
    monkeypatch.setattr(products, "LARGE", 1)
    ordered = jax.grad(slope)(x)
    monkeypatch.setattr(products, "LARGE", 10**9)
    close(ordered, jax.grad(slope)(x), 1e-6)
    jax.jvp(slope, (x,), (x,))  # small maps keep forward-mode derivatives
