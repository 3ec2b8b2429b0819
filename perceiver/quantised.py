"""Weights in fewer bits: what is stored so, how it is read back, and which parameters it concerns.

Weight-only: a parameter is stored as bfloat16, or as int8 with one float32 scale for each output channel (symmetric,
rounded to the nearest; arXiv 2004.09602, sections 3 and 4). Every read gives float32, so that no module knows of it;
the float32 copy lives for one layer at a time, since stacked layers run as a scan.

Why not a library: qwix 0.1.8 finds weights by replacing JAX's functions while the model runs once. On a Perceiver that
ends in an AttributeError (it breaks the iteration over nnx.Dict), and where a stack of layers is split and merged in a
scan, as all of ours are, it silently leaves them float32. AQT 0.9.0 stores integers for flax.linen only.
"""

import dataclasses
import enum
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.typing import Array, Float, Int

LEAST = 1024
"""Numbers below which a matrix stays float32: small heads, and maps from few channels."""

NARROWEST = 16
"""Width below which a table stays float32: the scale of each row would take much of what int8 saves."""

LARGEST = 127
"""Symmetric: -128 is not used."""


class Weights(enum.Enum):
    """How matrices (linear maps, convolutions) and tables (embeddings, positions, latents) are stored.

    Biases, norms, statistics of batch norm and what is smaller than `LEAST` or narrower than `NARROWEST` stay float32.
    """

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """numbers [..., n, m] int8 in [-127, 127] times scale, float32, which has 1 where numbers share one."""

    numbers: Int[Array, "..."]
    scale: Float[Array, "..."]

    @property
    def size(self) -> int:
        """How many numbers."""
        return self.numbers.size


class LightParam(nnx.Param):
    """A parameter stored as `Int8`, or as the bits of bfloat16 in uint16. Reading it gives float32; it is not trained.

    As bits, since XLA's CPU backend slices no bfloat16: it widens a whole stack of layers to float32 before the loop
    over them, which then holds more than was saved, and takes longer.
    """

    def get_value(self, *, index: Any = ...) -> Array:
        """The parameter, or what `index` takes of it, in float32."""
        stored = self.get_raw_value()
        if not all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(stored)):
            return stored  # what stands for arrays where only shapes are known, or where a model is printed
        if isinstance(stored, Int8):
            return (stored.numbers.astype(jnp.float32) * stored.scale)[index]
        return jax.lax.bitcast_convert_type(stored, jnp.bfloat16).astype(jnp.float32)[index]


def to_int8(values: Float[Array, "..."], axes: tuple[int, ...]) -> Int8:
    """Values as int8 with one scale over `axes`: off by at most half a scale, which is 1/254 of the largest value."""
    top = jnp.abs(values).max(axis=axes, keepdims=True)
    scale = jnp.where(top > 0, top, LARGEST).astype(jnp.float32) / LARGEST
    return Int8(jnp.clip(jnp.round(values / scale), -LARGEST, LARGEST).astype(jnp.int8), scale)


def to_bits(values: Float[Array, "..."]) -> Int[Array, "..."]:
    """Values rounded to bfloat16, as uint16."""
    return jax.lax.bitcast_convert_type(values.astype(jnp.bfloat16), jnp.uint16)


def store(model: nnx.Module, weights: Weights) -> None:
    """Replace the float32 parameters that `weights` concerns, in place."""
    if weights is Weights.FLOAT32:
        return
    for _, owner in list(nnx.iter_modules(model)):
        for name, variable in list(vars(owner).items()):
            axes = _shared(owner, name, variable.shape) if isinstance(variable, nnx.Param) else None
            if axes is None:
                continue
            values = variable[...]
            setattr(owner, name, LightParam(to_int8(values, axes) if weights is Weights.INT8 else to_bits(values)))


def _shared(owner: nnx.Module, name: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes over which a parameter's numbers share a scale; None for one that stays float32.

    The answer does not depend on how many layers are stacked, nor on how many rows a table has, so that a smaller copy
    of a model is stored as the model is.
    """
    if isinstance(owner, nnx.Linear):  # [..., in, out], stacked or not
        return (-2,) if name == "kernel" and math.prod(shape[-2:]) >= LEAST else None
    if isinstance(owner, nnx.Conv | nnx.ConvTranspose):  # [*window, in, out]
        return tuple(range(len(shape) - 1)) if name == "kernel" and math.prod(shape) >= LEAST else None
    if isinstance(owner, nnx.LayerNorm):  # [c], or [layers, c] in a stack
        return None
    return (-1,) if len(shape) == 2 and shape[-1] >= NARROWEST else None
