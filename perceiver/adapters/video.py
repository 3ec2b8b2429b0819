"""Video: every space-time patch is a token."""

import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from perceiver.adapters.base import Adapter, Embed, check_statistics, embed_channels, host_array, pad_to, standardise
from perceiver.adapters.image import check_bytes, check_framing, to_unit
from perceiver.config import preprocessing_field
from perceiver.errors import ConfigError, InputError
from perceiver.io.images import Fit, Resample, frame_image, to_grey
from perceiver.io.video import read_video
from perceiver.patches import to_patches
from perceiver.positions import Fourier, Position, grid_at
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array


@dataclasses.dataclass(frozen=True)
class Video(Adapter):
    """Clips [b, t, h, w, c], uint8 or floating point in [0, 1].

    shape: (frames, height, width, channels); frames is the most a clip may have, the rest is exact.
    patch: (frames, height, width) of one token; numbers in a patch are ordered (dt dh dw c).
    project, position, add_position, mean, std: as for Image; the position has three axes and runs over the declared
        frames.
    fit, crop, resample: on the host, how the frames of a file are brought to height and width; see `frame_image`.
    rate: on the host, frames per second taken from a file, from its start on; None takes every frame.

    Mask: [b] for presence or [b, t] for clips padded with frames behind.
    """

    shape: tuple[int, int, int, int]
    patch: tuple[int, int, int] = (1, 4, 4)
    project: int | None = None
    position: Position = Fourier(bands=16)
    add_position: bool = False
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())
    fit: Fit = preprocessing_field(default=Fit.STRETCH)
    crop: float = preprocessing_field(default=1.0)
    resample: Resample = preprocessing_field(default=Resample.BICUBIC)
    rate: float | None = preprocessing_field(default=None)

    def __post_init__(self) -> None:
        whole = all(size > 0 and p > 0 and size % p == 0 for size, p in zip(self.shape, self.patch, strict=False))
        if not whole:
            raise ConfigError(f"Video: shape {self.shape} is not made of whole {self.patch} patches")
        check_statistics("Video", self.shape[3], self.mean, self.std)
        check_framing("Video", self.fit, self.crop)
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ConfigError(f"Video.rate: expected frames per second above 0, got {self.rate}")

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
        return embed_channels(self.features, self.project, self.position, 3, self.add_position)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "VideoTokens":
        """See Adapter."""
        return VideoTokens(self, dtype=dtype, rngs=rngs)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, *self.shape), jnp.uint8)

    def load(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Read a file or a folder of pictures, or take frames as an array [t, h, w, c] uint8; mask [t].

        Of a file, frames are brought to height and width and those behind the declared number are left unread; an
        array has to fit as it is. Either is padded to the declared number.
        """
        if isinstance(source, str | os.PathLike):
            if self.shape[3] not in (1, 3):
                raise InputError(f"expected an array for {self.shape[3]} channels; files have 1 or 3")
            frames, _ = read_video(source, self.shape[0], rate=self.rate, transform=self._framed)
        else:
            frames = host_array(source)
        check_bytes(frames, ("t", *self.shape[1:]))
        if len(frames) > self.shape[0]:
            raise InputError(f"expected at most {self.shape[0]} frames, got {len(frames)}")
        return pad_to(frames, self.shape[0]), np.arange(self.shape[0]) < len(frames)

    def _framed(self, frame: np.ndarray) -> np.ndarray:
        """One frame of a file, uint8 [h, w, 3], as declared."""
        frame = to_grey(frame) if self.shape[3] == 1 else frame
        return frame_image(frame, *self.shape[1:3], fit=self.fit, crop=self.crop, resample=self.resample)


class VideoTokens(nnx.Module):
    """See Video."""

    def __init__(self, config: Video, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(
            config.features,
            config.project,
            config.position,
            config.grid,
            add=config.add_position,
            dtype=dtype,
            rngs=rngs,
        )

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
        values = rearrange(to_patches(pixels, (frames, height, width)), "b t h w f -> b (t h w) f")
        coordinates = grid_at(jnp.arange(values.shape[1]), self.config.grid)
        if per_frame is not None:
            steps = rearrange(per_frame, "b (t f) -> b t f", f=frames).any(axis=-1)
            mask = jnp.repeat(steps, values.shape[1] // steps.shape[1], axis=1)
        return self.embed(values, coordinates, presence(mask, *values.shape[:2]))
