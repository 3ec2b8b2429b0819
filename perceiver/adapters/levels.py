"""Pictures of few grey levels, some of whose pixels may still be unknown."""

import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.base import Adapter, Embed, embed_channels, host_array
from perceiver.adapters.image import check_bytes
from perceiver.errors import ConfigError, InputError
from perceiver.io.images import frame_image, read_image
from perceiver.positions import Fourier, Position, grid
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array, Int, UInt

UNKNOWN = -1
"""The level of a pixel that is not known: its token is masked, as if it were not there."""


@dataclasses.dataclass(frozen=True)
class Levels(Adapter):
    """Grey pictures [b, h, w] of integers, 0 black and `levels` - 1 white; UNKNOWN where a pixel is not there yet.

    shape: (height, width). levels: how many a pixel may have, 2 to 256. project: width of a level's trained vector.
    position: two-dimensional positions, put behind it. Mask: [b] for presence.
    """

    shape: tuple[int, int]
    levels: int
    project: int = 64
    position: Position = Fourier(bands=4)

    def __post_init__(self) -> None:
        if min(*self.shape, self.project) < 1:
            raise ConfigError(f"Levels: shape {self.shape} and project {self.project} must be positive")
        if not 2 <= self.levels <= 256:
            raise ConfigError(f"Levels.levels: expected 2 to 256, got {self.levels}")

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """See Adapter."""
        return embed_channels(self.levels, self.project, self.position, 2)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "LevelTokens":
        """See Adapter."""
        return LevelTokens(self, dtype=dtype, rngs=rngs)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, *self.shape), jnp.int32)

    def load(self, source: Any) -> tuple[Int[np.ndarray, "h w"], None]:
        """Read a picture file, or take uint8 [h, w] or [h, w, 1]; brought to `shape`, and each pixel to a level."""
        if isinstance(source, str | os.PathLike):
            pixels = read_image(source, channels=1)
        else:
            pixels = host_array(source)
            pixels = pixels[..., None] if pixels.ndim == 2 else pixels
            check_bytes(pixels, ("h", "w", 1))
        if pixels.shape[:2] != self.shape:
            pixels = frame_image(pixels, *self.shape)
        return np.round(pixels[..., 0] * ((self.levels - 1) / 255)).astype(np.int32), None

    def pixels(self, levels: Int[np.ndarray, "*b h w"]) -> UInt[np.ndarray, "*b h w 1"]:
        """Levels as pictures, uint8; what is not known is black.

        Raises:
            InputError: levels that there are not.
        """
        levels = np.asarray(levels)
        if levels.size and not UNKNOWN <= levels.min() <= levels.max() < self.levels:
            raise InputError(f"expected levels below {self.levels}, got {levels.min()} to {levels.max()}")
        return np.round(np.maximum(levels, 0) * (255 / (self.levels - 1))).astype(np.uint8)[..., None]


class LevelTokens(nnx.Module):
    """See Levels."""

    def __init__(self, config: Levels, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(config.levels, config.project, config.position, config.shape, dtype=dtype, rngs=rngs)

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b, h, w] -> Tokens [b, h w, channels], row by row. Levels that there are not are the caller's error."""
        check_array(raw, ("b", *self.config.shape), "iu")
        flat = jnp.asarray(raw).reshape(raw.shape[0], -1)
        present = presence(mask, raw.shape[0], flat.shape[1])
        known = flat != UNKNOWN
        values = jax.nn.one_hot(flat, self.config.levels)
        return self.embed(values, grid(self.config.shape), known if present is None else known & present)
