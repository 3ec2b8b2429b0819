"""Pictures and clips to patches and back: space to depth, neighbourhoods, general windows."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange

from perceiver.errors import InputError
from perceiver.typing import Array, Float


def to_patches(x: Float[Array, "b *grid c"], patch: Sequence[int]) -> Float[Array, "b *patches f"]:
    """Cut pictures [b, h, w, c] or clips [b, t, h, w, c] into blocks that do not overlap.

    patch: (rows, columns) or (frames, rows, columns) of a block, whole divisors of the sizes.
    The numbers of a block are ordered (rows columns c) or (frames rows columns c).

    Raises:
        InputError: another rank, or sizes that are not whole patches.
    """
    _check(x, patch)
    if len(patch) == 2:
        return rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=patch[0], q=patch[1])
    return rearrange(x, "b (t f) (h p) (w q) c -> b t h w (f p q c)", f=patch[0], p=patch[1], q=patch[2])


def from_patches(x: Float[Array, "b *patches f"], patch: Sequence[int]) -> Float[Array, "b *grid c"]:
    """The inverse of `to_patches`."""
    if x.ndim != len(patch) + 2:
        raise InputError(f"expected patches with {len(patch)} grid axes for blocks of {tuple(patch)}, got {x.shape}")
    if x.shape[-1] % math.prod(patch):
        raise InputError(f"expected the numbers of whole blocks of {tuple(patch)}, got the shape {x.shape}")
    if len(patch) == 2:
        return rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=patch[0], q=patch[1])
    return rearrange(x, "b t h w (f p q c) -> b (t f) (h p) (w q) c", f=patch[0], p=patch[1], q=patch[2])


def windows(
    x: Float[Array, "b h w c"],
    sizes: Sequence[int],
    strides: Sequence[int] = (1, 1),
    rates: Sequence[int] = (1, 1),
    padding: str = "VALID",
) -> Float[Array, "b i j f"]:
    """Windows of a picture that may overlap, as TensorFlow's `extract_patches`.

    sizes, strides, rates: (rows, columns) of a window, of the step between windows and between its pixels.
    padding: "VALID" or "SAME", as for convolutions. The numbers of a window are ordered (rows columns c).
    """
    rows, columns = sizes
    found = jax.lax.conv_general_dilated_patches(
        x,
        (rows, columns),
        tuple(strides),
        padding,
        rhs_dilation=tuple(rates),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,  # it multiplies by ones, which bfloat16 passes would round
    )
    return rearrange(found, "b i j (c p q) -> b i j (p q c)", p=rows, q=columns)


def neighbourhoods(x: Float[Array, "*b h w c"], size: int) -> Float[Array, "*b h w f"]:
    """Every pixel with its size x size surroundings, zeros outside the picture; ordered (rows columns c).

    size: odd; 3 is the choice of Perceiver IO's optical flow (arXiv 2107.14795, appendix H).
    """
    border = size // 2
    height, width = x.shape[-3:-1]
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(border, border), (border, border), (0, 0)])
    shifts = [padded[..., i : i + height, j : j + width, :] for i in range(size) for j in range(size)]
    return jnp.concatenate(shifts, axis=-1)


def _check(x: Array, patch: Sequence[int]) -> None:
    sizes = x.shape[1:-1]
    whole = len(sizes) == len(patch) and all(n % p == 0 for n, p in zip(sizes, patch, strict=True))
    if not whole or len(patch) not in (2, 3):
        raise InputError(f"expected whole blocks of {tuple(patch)}, got the shape {x.shape}")
