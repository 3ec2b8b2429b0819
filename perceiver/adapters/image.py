"""Images: every pixel, or every patch of pixels, is a token."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from perceiver.adapters.base import Adapter, Embed, check_statistics, embed_channels, host_array, standardise
from perceiver.config import preprocessing_field
from perceiver.errors import ConfigError, InputError
from perceiver.positions import Fourier, Position, grid
from perceiver.tokens import Tokens, check_array
from perceiver.typing import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Image(Adapter):
    """Images [b, h, w, c], uint8 or floating point in [0, 1].

    shape: (height, width, channels) of the largest image. Smaller ones, in whole patches, are taken as they are.
    patch: side of a square patch; 1 makes each pixel a token.
    project: linear projection of a token's values to this width before the position (the learned 1x1 convolution
        of Perceiver IO's second ImageNet model); None keeps the values.
    position: two-dimensional positions, put behind the values.
    mean, std: per channel, on the scale [0, 1]; empty for none.
    dark_background: on the host, turn pictures whose border is brighter than middle grey into their negative, for
        models of bright strokes on black such as most sets of handwriting.

    Mask: [b] for presence, or [b, h, w] for images of several sizes padded at the bottom and right into one batch;
    positions then span each image's own size, so that padding changes nothing.
    """

    shape: tuple[int, int, int]
    patch: int = 1
    project: int | None = None
    position: Position = Fourier(bands=16)
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())
    dark_background: bool = preprocessing_field(default=False)

    def __post_init__(self) -> None:
        height, width, channels = self.shape
        if min(height, width, channels, self.patch) < 1 or height % self.patch or width % self.patch:
            raise ConfigError(f"Image: shape {self.shape} is not made of whole {self.patch} x {self.patch} patches")
        check_statistics("Image", channels, self.mean, self.std)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across the largest image."""
        return self.shape[0] // self.patch, self.shape[1] // self.patch

    @property
    def features(self) -> int:
        """Numbers in one patch."""
        return self.patch**2 * self.shape[2]

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return math.prod(self.grid)

    @property
    def channels(self) -> int:
        """See Adapter."""
        return embed_channels(self.features, self.project, self.position, 2)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "ImageTokens":
        """See Adapter."""
        return ImageTokens(self, dtype=dtype, rngs=rngs)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, *self.shape), jnp.uint8)

    def load(self, source: Any) -> tuple[np.ndarray, None]:
        """Read a picture file, or take an array [h, w, c] or [h, w], and resize it to `shape`; uint8."""
        from perceiver.io.images import read_image, resize_image

        height, width, channels = self.shape
        if isinstance(source, str | os.PathLike):
            pixels = read_image(source, channels=channels)
        else:
            pixels = host_array(source)
            pixels = pixels[..., None] if pixels.ndim == 2 else pixels
            check_bytes(pixels, ("h", "w", channels))
        if pixels.shape[:2] != (height, width):
            pixels = resize_image(pixels, height, width)
        if self.dark_background and _border(pixels).mean() > 127.5:
            pixels = 255 - pixels
        return pixels, None


class ImageTokens(nnx.Module):
    """See Image."""

    def __init__(self, config: Image, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(config.features, config.project, config.position, config.grid, dtype=dtype, rngs=rngs)

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b, h, w, c] -> Tokens [b, (h / patch) (w / patch), channels], row by row; a patch is (row, column, c)."""
        patch = self.config.patch
        check_array(raw, ("b", "h", "w", self.config.shape[2]), "fu")
        height, width = raw.shape[1:3]
        if height % patch or width % patch or height > self.config.shape[0] or width > self.config.shape[1]:
            raise InputError(
                f"expected height and width in multiples of {patch} up to {self.config.shape[:2]}, got {raw.shape[1:3]}"
            )
        if mask is not None and mask.ndim > 1:  # a patch may be real in part, and what is masked in it must not count
            check_array(mask, raw.shape[:3], "b")
            raw = jnp.where(mask[..., None], raw, 0)
        pixels = standardise(to_unit(raw), self.config.mean, self.config.std)
        values = rearrange(pixels, "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch)
        rows, columns = height // patch, width // patch
        if mask is None or mask.ndim == 1:
            token_mask = _spread(mask, raw.shape[0], rows * columns)
            return self.embed(values, grid((rows, columns)), token_mask)
        token_mask = rearrange(mask, "b (h p) (w q) -> b h w (p q)", p=patch, q=patch).any(axis=-1)
        return self.embed(values, _own_grid(token_mask), token_mask.reshape(raw.shape[0], -1))


def _border(pixels: np.ndarray) -> np.ndarray:
    """Values of the outermost pixels of [h, w, c]."""
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return np.concatenate([edge.ravel() for edge in edges])


def check_bytes(array: np.ndarray, shape: Sequence[int | str]) -> None:
    """Raise InputError unless an array given in place of a file is uint8 of that shape; see `check_array`."""
    check_array(array, shape, "u")
    if array.dtype != np.uint8:
        raise InputError(f"expected uint8, got dtype {array.dtype}")


def to_unit(raw: Array) -> Float[Array, "..."]:
    """Bytes to [0, 1]; floating point values stay.

    Raises:
        InputError: integers other than uint8, whose white is not known.
    """
    if jnp.issubdtype(raw.dtype, jnp.floating):
        return raw
    if raw.dtype != jnp.uint8:
        raise InputError(f"expected uint8 or floating point values in [0, 1], got dtype {raw.dtype}")
    return raw.astype(jnp.float32) / 255.0


def _spread(mask: Bool[Array, " b"] | None, batch: int, count: int) -> Bool[Array, "b n"] | None:
    if mask is None:
        return None
    check_array(mask, (batch,), "b")
    return jnp.broadcast_to(mask[:, None], (batch, count))


def _own_grid(mask: Bool[Array, "b h w"]) -> Float[Array, "b n 2"]:
    """Coordinates that span the masked part, anchored at the top left, of each sample."""
    batch, rows, columns = mask.shape
    own_rows = mask.any(axis=2).sum(axis=1)[:, None, None]
    own_columns = mask.any(axis=1).sum(axis=1)[:, None, None]
    down = -1.0 + 2.0 * jnp.arange(rows)[None, :, None] / jnp.maximum(own_rows - 1, 1)
    across = -1.0 + 2.0 * jnp.arange(columns)[None, None, :] / jnp.maximum(own_columns - 1, 1)
    shape = (batch, rows, columns)
    both = jnp.stack([jnp.broadcast_to(down, shape), jnp.broadcast_to(across, shape)], axis=-1)
    return both.reshape(batch, rows * columns, 2)
