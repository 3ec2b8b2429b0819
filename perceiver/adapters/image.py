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
from perceiver.convolutions import ConvStem
from perceiver.descriptors import Descriptors
from perceiver.errors import ConfigError, InputError
from perceiver.io.images import Fit, Resample, frame_image, read_image
from perceiver.patches import to_patches, windows
from perceiver.positions import Fourier, Position, grid
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Image(Adapter):
    """Images [b, h, w, c], uint8 or floating point in [0, 1].

    shape: (height, width, channels) of the largest image. Smaller ones, in whole patches, are taken as they are.
    patch: side of a square patch; 1 makes each pixel a token.
    subsample: keep only every so many-th row and column, for quick looks at large pictures.
    stem: convolutions before anything else; their output's pixels are the tokens, so `patch` stays 1.
    descriptors: what is counted in each patch, put behind its pixels; None for pixels alone.
    border: pixels around its patch that a token has too, zeros beyond the picture, so that neighbours overlap.
    project: linear projection of a token's values to this width before the position (the learned 1x1 convolution
        of Perceiver IO's second ImageNet model); None keeps the values.
    hidden: width of a GELU layer before the projection, so that what a query takes the mean of are no longer the
        pixels but what is found in them.
    position: two-dimensional positions, put behind the values, or added to them with `add_position`.
    mean, std: per channel, on the scale [0, 1]; empty for none.
    dark_background: on the host, turn pictures whose border is brighter than middle grey into their negative, for
        models of bright strokes on black such as most sets of handwriting.
    fit, crop, resample: on the host, how pictures of any size are brought to `shape`; see `frame_image`.

    Mask: [b] for presence, or [b, h, w] for images of several sizes padded at the bottom and right into one batch;
    positions then span each image's own size, so that padding changes nothing.
    """

    shape: tuple[int, int, int]
    patch: int = 1
    subsample: int = 1
    border: int = 0
    stem: ConvStem | None = None
    descriptors: Descriptors | None = None
    project: int | None = None
    hidden: int | None = None
    position: Position = Fourier(bands=16)
    add_position: bool = False
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())
    dark_background: bool = preprocessing_field(default=False)
    fit: Fit = preprocessing_field(default=Fit.STRETCH)
    crop: float = preprocessing_field(default=1.0)
    resample: Resample = preprocessing_field(default=Resample.BICUBIC)

    def __post_init__(self) -> None:
        if min(*self.shape, self.patch, self.subsample) < 1:
            raise ConfigError(f"Image: shape {self.shape}, patch and subsample must be positive")
        if self.stem is not None and (self.patch > 1 or self.border):
            raise ConfigError(
                f"Image: the stem makes the tokens, so patch must be 1 and border 0, got {self.patch} and {self.border}"
            )
        if self.stem is not None and self.descriptors is not None:
            raise ConfigError("Image.descriptors: expected None beside a stem, which makes the tokens")
        if self.descriptors is not None:
            self.descriptors.features(self.shape[2])  # refuses what has too many colours
        if self.border < 0:
            raise ConfigError(f"Image.border: expected 0 or more pixels, got {self.border}")
        if self.hidden is not None and (self.hidden < 1 or self.project is None):
            raise ConfigError(f"Image.hidden: expected a width, and a projection behind it, got {self.hidden}")
        if min(self.grid) < 1 or any(size % self.patch for size in self._thin(*self.shape[:2])):
            raise ConfigError(f"Image: shape {self.shape} is not made of whole {self.patch} x {self.patch} patches")
        check_statistics("Image", self.shape[2], self.mean, self.std)
        check_framing("Image", self.fit, self.crop)

    def _thin(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that `subsample` leaves of that many."""
        return -(-height // self.subsample), -(-width // self.subsample)

    def cells(self, rows: int, columns: int) -> tuple[int, int]:
        """Tokens down and across an image of that many rows and columns after `subsample`."""
        if self.stem is not None:
            return self.stem.size(rows), self.stem.size(columns)
        return rows // self.patch, columns // self.patch

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens down and across the largest image."""
        return self.cells(*self._thin(*self.shape[:2]))

    @property
    def features(self) -> int:
        """Numbers in one patch and its border, and those that are counted in it."""
        if self.stem is not None:
            return self.stem.channels
        counted = 0 if self.descriptors is None else self.descriptors.features(self.shape[2])
        return (self.patch + 2 * self.border) ** 2 * self.shape[2] + counted

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return math.prod(self.grid)

    @property
    def channels(self) -> int:
        """See Adapter."""
        return embed_channels(self.features, self.project, self.position, 2, self.add_position)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "ImageTokens":
        """See Adapter."""
        return ImageTokens(self, dtype=dtype, rngs=rngs)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, *self.shape), jnp.uint8)

    def load(self, source: Any) -> tuple[np.ndarray, None]:
        """Read a picture file, or take an array [h, w, c] or [h, w], and bring it to `shape`; uint8."""
        height, width, channels = self.shape
        if isinstance(source, str | os.PathLike):
            pixels = read_image(source, channels=channels)
        else:
            pixels = host_array(source)
            pixels = pixels[..., None] if pixels.ndim == 2 else pixels
            check_bytes(pixels, ("h", "w", channels))
        if self.fit is not Fit.STRETCH or pixels.shape[:2] != (height, width):
            pixels = frame_image(pixels, height, width, fit=self.fit, crop=self.crop, resample=self.resample)
        if self.dark_background and _border(pixels).mean() > 127.5:
            pixels = 255 - pixels
        return pixels, None


class ImageTokens(nnx.Module):
    """See Image."""

    takes_key = True

    def __init__(self, config: Image, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        stem = config.stem
        self.stem = None if stem is None else stem.build(config.shape[2], dtype=dtype, rngs=rngs)
        self.embed = Embed(
            config.features,
            config.project,
            config.position,
            config.grid,
            add=config.add_position,
            hidden=config.hidden,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, raw: Array, mask: Array | None = None, *, key: jax.Array | None = None) -> Tokens:
        """[b, h, w, c] -> Tokens [b, (h / patch) (w / patch), channels], row by row; a patch is (row, column, c).

        key: given in training, where batch norm looks at the batch; nothing is drawn from it.
        """
        raw, mask = self._thinned(raw, mask)
        rows, columns = self._checked(raw)
        if mask is not None and mask.ndim > 1:  # a patch may be real in part, and what is masked in it must not count
            raw = jnp.where(mask[..., None], raw, 0)
        elif mask is not None and self.stem is not None:  # before the convolutions, which are linear maps too
            raw = jnp.where(mask[:, None, None, None], raw, 0)
        pixels = standardise(to_unit(raw), self.config.mean, self.config.std)
        patch, border = self.config.patch, self.config.border
        if self.stem is not None:
            values = self.stem(pixels.astype(self.dtype), train=key is not None)
        elif border:
            if mask is not None and mask.ndim > 1:  # as beyond the edge of a picture of its own size
                pixels = jnp.where(mask[..., None], pixels, 0)
            around = jnp.pad(pixels, [(0, 0), (border, border), (border, border), (0, 0)])
            values = windows(around, (patch + 2 * border,) * 2, (patch, patch))
        else:
            values = to_patches(pixels, (patch, patch))
        if self.config.descriptors is not None:
            values = jnp.concatenate([values, self.config.descriptors(to_unit(raw), patch)], axis=-1)
        values = values.reshape(raw.shape[0], rows * columns, -1)
        if mask is None or mask.ndim == 1:
            token_mask = presence(mask, raw.shape[0], rows * columns)
            return self.embed(values, grid((rows, columns)), token_mask)
        if self.stem is not None or self.config.descriptors is not None:
            raise InputError("expected a mask [b]: convolutions and descriptors would mix real pixels with padding")
        token_mask = rearrange(mask, "b (h p) (w q) -> b h w (p q)", p=patch, q=patch).any(axis=-1)
        return self.embed(values, _own_grid(token_mask), token_mask.reshape(raw.shape[0], -1))

    def _thinned(self, raw: Array, mask: Array | None) -> tuple[Array, Array | None]:
        """Every so many-th row and column."""
        check_array(raw, ("b", "h", "w", self.config.shape[2]), "fu")
        height, width = raw.shape[1:3]
        if height > self.config.shape[0] or width > self.config.shape[1]:
            raise InputError(f"expected height and width up to {self.config.shape[:2]}, got {raw.shape[1:3]}")
        if mask is not None:
            check_array(mask, raw.shape[:1] if mask.ndim == 1 else raw.shape[:3], "b")
        step = self.config.subsample
        if step == 1:
            return raw, mask
        thin = mask if mask is None or mask.ndim == 1 else mask[:, ::step, ::step]
        return raw[:, ::step, ::step], thin

    def _checked(self, raw: Array) -> tuple[int, int]:
        """Tokens down and across a thinned image."""
        config = self.config
        height, width = raw.shape[1:3]
        if height % config.patch or width % config.patch:
            wanted = f"multiples of {config.patch} up to {config.shape[:2]}"
            raise InputError(f"expected height and width in {wanted}, got {raw.shape[1:3]}")
        rows, columns = config.cells(height, width)
        if min(rows, columns) < 1:
            raise InputError(f"expected an image that the stem leaves something of, got {raw.shape[1:3]}")
        return rows, columns


def _border(pixels: np.ndarray) -> np.ndarray:
    """Values of the outermost pixels of [h, w, c]."""
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return np.concatenate([edge.ravel() for edge in edges])


def check_framing(name: str, fit: Fit, crop: float) -> None:
    """Raise ConfigError unless `crop` is a number above 0 and one that `fit` looks at."""
    if not 0 < crop < math.inf:
        raise ConfigError(f"{name}.crop: expected a number above 0, got {crop}")
    if fit is Fit.STRETCH and crop != 1.0:
        raise ConfigError(f"{name}.crop: expected 1.0 with Fit.STRETCH, which does not crop, got {crop}")


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
