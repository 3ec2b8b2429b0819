"""Tokens: the only thing that adapters, encoder and decoders exchange."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.errors import InputError
from perceiver.typing import Array, ArrayLike, Bool, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """A set of vectors per sample.

    values: [b, n, c] floating point.
    mask: [b, n] bool, True where the token is real; None when all are.
    """

    values: Float[Array, "b n c"]
    mask: Bool[Array, "b n"] | None = None

    @property
    def channels(self) -> int:
        """Width of one token."""
        return self.values.shape[-1]

    def cleared(self) -> "Tokens":
        """The same tokens with every masked one set to zero, so that not even a NaN in it can travel on."""
        if self.mask is None:
            return self
        return Tokens(jnp.where(self.mask[..., None], self.values, 0), self.mask)


def concatenate(parts: Sequence[Tokens]) -> Tokens:
    """Join tokens of equal width along the token axis; the mask stays None when no part has one."""
    values = jnp.concatenate([part.values for part in parts], axis=1)
    if all(part.mask is None for part in parts):
        return Tokens(values)
    masks = [jnp.ones(p.values.shape[:2], bool) if p.mask is None else p.mask for p in parts]
    return Tokens(values, jnp.concatenate(masks, axis=1))


def presence(mask: Bool[Array, "b *n"] | None, batch: int, count: int) -> Bool[Array, "b n"] | None:
    """Turn a presence mask [b] or an element mask [b, n] into a token mask [b, n] (None stays None).

    Raises:
        InputError: another shape or a dtype other than bool.
    """
    if mask is None:
        return None
    if mask.dtype != bool:
        raise InputError(f"a mask must be bool (True = real), got {mask.dtype}")
    if mask.shape == (batch,):
        return jnp.broadcast_to(mask[:, None], (batch, count))
    if mask.shape == (batch, count):
        return jnp.asarray(mask)
    raise InputError(f"a mask must have shape ({batch},) or ({batch}, {count}), got {tuple(mask.shape)}")


def check_array(array: ArrayLike, shape: Sequence[int | str], kinds: str = "f") -> None:
    """Check shape and dtype of a raw input.

    shape: one entry per axis: an int is exact, a string names a free axis.
    kinds: admitted numpy dtype kinds, such as "f" (floating), "iu" (integers), "b" (bool).

    Raises:
        InputError: with what was expected and what came.
    """
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise InputError(f"expected an array of shape {_spell(shape)}, got {type(array).__name__}")
    fits = len(array.shape) == len(shape) and all(
        isinstance(want, str) or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise InputError(f"expected shape {_spell(shape)}, got {tuple(array.shape)}")
    if math.prod(array.shape) == 0:
        raise InputError(f"expected at least one element, got shape {tuple(array.shape)}")
    kind = np.dtype(array.dtype).kind
    if kind not in kinds and not ("f" in kinds and jnp.issubdtype(array.dtype, jnp.floating)):  # bfloat16 is a "V"
        names = {"f": "floating point", "i": "signed integer", "u": "unsigned integer", "b": "bool"}
        raise InputError(f"expected {' or '.join(names[k] for k in kinds)} values, got dtype {array.dtype}")


def _spell(shape: Sequence[int | str]) -> str:
    return "(" + ", ".join(str(axis) for axis in shape) + ")"
