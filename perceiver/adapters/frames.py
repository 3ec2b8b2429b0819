"""Two consecutive frames, for optical flow: every pixel, with its surroundings in both, is a token."""

import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from perceiver.adapters.base import Adapter, Embed, check_statistics, embed_channels, host_array, standardise
from perceiver.adapters.image import check_bytes, to_unit
from perceiver.config import preprocessing_field
from perceiver.errors import ConfigError, InputError
from perceiver.patches import neighbourhoods
from perceiver.positions import Fourier, Position, grid
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array


@dataclasses.dataclass(frozen=True)
class FramePair(Adapter):
    """Pairs of frames [b, 2, h, w, c], uint8 or floating point in [0, 1] (Perceiver IO, arXiv 2107.14795, appendix H).

    shape: (height, width, channels), exact; frames of other sizes go through `perceiver.flow`, tile by tile.
    surround: side of the square around a pixel, odd. A token holds the earlier frame's square, then the later one's,
        each ordered (rows columns c), zeros outside the picture.
    project, position, mean, std: as for Image.

    Mask: [b] for presence.
    """

    shape: tuple[int, int, int]
    surround: int = 3
    project: int | None = 64
    position: Position = Fourier(bands=64)
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())

    def __post_init__(self) -> None:
        if min(*self.shape, self.surround) < 1 or self.surround % 2 == 0:
            raise ConfigError(
                f"FramePair: expected positive sizes and an odd surround, got {self.shape}, {self.surround}"
            )
        check_statistics("FramePair", self.shape[2], self.mean, self.std)

    @property
    def features(self) -> int:
        """Numbers in one token before it is projected."""
        return 2 * self.surround**2 * self.shape[2]

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return math.prod(self.shape[:2])

    @property
    def channels(self) -> int:
        """See Adapter."""
        return embed_channels(self.features, self.project, self.position, 2)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "FramePairTokens":
        """See Adapter."""
        return FramePairTokens(self, dtype=dtype, rngs=rngs)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, 2, *self.shape), jnp.uint8)

    def load(self, source: Any) -> tuple[np.ndarray, None]:
        """Read two picture files "earlier.png,later.png" (or a pair of paths), or take an array [2, h, w, c] uint8.

        Raises:
            InputError: not two frames, or not of the declared size: flow in resized frames would not be in pixels.
        """
        frames = read_pair(source, self.shape[2])
        if frames.shape[1:] != self.shape:
            raise InputError(f"expected frames of {self.shape}, got {frames.shape[1:]}")
        return frames, None


def read_pair(source: Any, channels: int) -> np.ndarray:
    """Two frames of any common size, uint8 [2, h, w, c]; source as for `FramePair.load`.

    Raises:
        InputError: not two, or of different sizes.
    """
    from perceiver.io.images import read_image

    paths: Any = source.split(",") if isinstance(source, str) else source
    named = isinstance(paths, list | tuple) and all(isinstance(path, str | os.PathLike) for path in paths)
    if not named:
        frames = host_array(source)
    elif len(paths) != 2:
        raise InputError(f"expected two frames as EARLIER,LATER, got {len(paths)}")
    else:
        pictures = [read_image(path, channels=channels) for path in paths]
        if pictures[0].shape != pictures[1].shape:
            raise InputError(f"expected two frames of one size, got {pictures[0].shape} and {pictures[1].shape}")
        frames = np.stack(pictures)
    check_bytes(frames, (2, "h", "w", channels))
    return frames


class FramePairTokens(nnx.Module):
    """See FramePair."""

    def __init__(self, config: FramePair, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        grid_shape = config.shape[:2]
        self.embed = Embed(config.features, config.project, config.position, grid_shape, dtype=dtype, rngs=rngs)

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b, 2, h, w, c] -> Tokens [b, h w, channels], row by row."""
        check_array(raw, ("b", 2, *self.config.shape), "fu")
        pixels = standardise(to_unit(raw), self.config.mean, self.config.std)
        squares = neighbourhoods(pixels, self.config.surround)
        values = rearrange(squares, "b t h w f -> b (h w) (t f)")
        return self.embed(values, grid(self.config.shape[:2]), presence(mask, *values.shape[:2]))
