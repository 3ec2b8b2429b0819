"""Video: every space-time patch is a token."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from perceiver.adapters.base import Adapter, Embed, check_statistics, embed_channels, host_array, pad_to, standardise
from perceiver.adapters.image import check_bytes, to_unit
from perceiver.config import preprocessing_field
from perceiver.errors import ConfigError, InputError
from perceiver.positions import Fourier, Position, grid_at
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array


@dataclasses.dataclass(frozen=True)
class Video(Adapter):
    """Clips [b, t, h, w, c], uint8 or floating point in [0, 1].

    shape: (frames, height, width, channels); frames is the most a clip may have, the rest is exact.
    patch: (frames, height, width) of one token; numbers in a patch are ordered (dt dh dw c).
    project, position, mean, std: as for Image; the position has three axes and runs over the declared frames.

    Mask: [b] for presence or [b, t] for clips padded with frames behind.
    """

    shape: tuple[int, int, int, int]
    patch: tuple[int, int, int] = (1, 4, 4)
    project: int | None = None
    position: Position = Fourier(bands=16)
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())

    def __post_init__(self) -> None:
        whole = all(size > 0 and p > 0 and size % p == 0 for size, p in zip(self.shape, self.patch, strict=False))
        if not whole:
            raise ConfigError(f"Video: shape {self.shape} is not made of whole {self.patch} patches")
        check_statistics("Video", self.shape[3], self.mean, self.std)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches along time, height and width."""
        t, h, w = (size // p for size, p in zip(self.shape, self.patch, strict=False))
        return t, h, w

    @property
    def features(self) -> int:
        """Numbers in one patch."""
        return math.prod(self.patch) * self.shape[3]

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return math.prod(self.grid)

    @property
    def channels(self) -> int:
        """See Adapter."""
        return embed_channels(self.features, self.project, self.position, 3)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "VideoTokens":
        """See Adapter."""
        return VideoTokens(self, dtype=dtype, rngs=rngs)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, *self.shape), jnp.uint8)

    def load(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Take frames as an array [t, h, w, c] uint8, padded to the declared frames; mask [t]."""
        frames = host_array(source)
        check_bytes(frames, ("t", *self.shape[1:]))
        if len(frames) > self.shape[0]:
            raise InputError(f"expected at most {self.shape[0]} frames, got {len(frames)}")
        return pad_to(frames, self.shape[0]), np.arange(self.shape[0]) < len(frames)


class VideoTokens(nnx.Module):
    """See Video."""

    def __init__(self, config: Video, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(config.features, config.project, config.position, config.grid, dtype=dtype, rngs=rngs)

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b, t, h, w, c] -> Tokens [b, patches, channels], time slowest."""
        frames, height, width = self.config.patch
        check_array(raw, ("b", "t", *self.config.shape[1:]), "fu")
        if raw.shape[1] % frames or raw.shape[1] > self.config.shape[0]:
            raise InputError(
                f"expected frames in multiples of {frames} up to {self.config.shape[0]}, got {raw.shape[1]}"
            )
        per_frame = presence(mask, *raw.shape[:2]) if mask is not None and mask.ndim == 2 else None
        if per_frame is not None:  # a patch may be real in part, and what is masked in it must not count
            raw = jnp.where(per_frame[..., None, None, None], raw, 0)
        pixels = standardise(to_unit(raw), self.config.mean, self.config.std)
        values = rearrange(pixels, "b (t f) (h p) (w q) c -> b (t h w) (f p q c)", f=frames, p=height, q=width)
        coordinates = grid_at(jnp.arange(values.shape[1]), self.config.grid)
        if per_frame is not None:
            steps = rearrange(per_frame, "b (t f) -> b t f", f=frames).any(axis=-1)
            mask = jnp.repeat(steps, values.shape[1] // steps.shape[1], axis=1)
        return self.embed(values, coordinates, presence(mask, *values.shape[:2]))
