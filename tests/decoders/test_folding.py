import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.attention import CrossAttend
from perceiver.decoders.folding import folded
from perceiver.tokens import Tokens
from tests.models import close, filled

RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(2, 5, 8)).astype(np.float32)
QUERIES = RNG.normal(size=(2, 7, 6)).astype(np.float32)


class Parts(nnx.Module):
    def __init__(self, padding, residual, widths, rngs, dtype):
        block, width = p.Block(heads=2, residual=residual, widening=2), 6 + padding
        self.cross = CrossAttend(width, 8, block, dtype=dtype, rngs=rngs)
        self.padding = nnx.Param(jnp.ones(padding)) if padding else None
        ends = [width, *widths]
        self.maps = nnx.List([nnx.Linear(a, b, dtype=dtype, rngs=rngs) for a, b in itertools.pairwise(ends)])


@jax.jit
def both(parts):
    padding = None if parts.padding is None else parts.padding[...]
    latents = LATENTS.astype(parts.cross.mlp.widen.dtype)
    queries, wide = QUERIES.astype(latents.dtype), QUERIES.astype(latents.dtype)
    if padding is not None:
        wide = jnp.concatenate([queries, jnp.broadcast_to(padding, (2, 7, len(padding)))], axis=-1)
    plain = parts.cross(wide.astype(latents.dtype), Tokens(latents))
    for linear in parts.maps:
        plain = linear(plain)
    return plain, folded(parts.cross, latents, padding, list(parts.maps))(queries)


@pytest.mark.parametrize(("padding", "residual", "widths"), [(0, True, [3]), (4, False, [9, 3]), (3, True, [5, 4, 2])])
def test_folding_changes_nothing(padding, residual, widths):
    plain, fast = both(filled(lambda rngs: Parts(padding, residual, widths, rngs, jnp.dtype("float32"))))
    assert plain.shape == (2, 7, widths[-1])
    close(fast, plain, 2e-6)


def test_folding_keeps_bfloat16():
    plain, fast = both(filled(lambda rngs: Parts(4, True, [3], rngs, jnp.dtype("bfloat16"))))
    assert fast.dtype == plain.dtype == jnp.bfloat16
    close(fast.astype(jnp.float32), plain.astype(jnp.float32), 0.05)
