"""LiDAR and other point clouds: every point is a token, in any number up to a budget, in any order."""

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.base import Adapter, Embed, check_statistics, embed_channels, host_array, pad_to, standardise
from perceiver.config import preprocessing_field
from perceiver.errors import ConfigError, InputError
from perceiver.positions import Fourier, between, check_extent
from perceiver.surroundings import NAMES, surroundings
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array


@dataclasses.dataclass(frozen=True)
class Points(Adapter):
    """Clouds [b, n, 3 + features], floating point: x, y, z in metres, then the features in the declared order.

    budget: the most points of one cloud. Fewer are padded and masked; padding and order change nothing.
    low, high: corners (x, y, z) of the metric extent that becomes [-1, 1]. Points outside are kept, past +-1.
    features: names of what follows x, y, z, such as "intensity" or "return_number".
    mean, std: statistics of what follows x, y, z; empty for none.
    project: linear projection of [x, y, z in [-1, 1], features] to this width; None keeps them.
    hidden: width of a GELU layer before the projection, so that a query may look for a middling feature, such as one
        paint's brightness, and not only for the least and the most of it.
    position: three-dimensional positions. The finest wavelength in metres is 4 * (high - low) / (2 max_resolution).
    neighbours: numbers of nearest points whose shape and heights `load` works out for each point and puts behind its
        features, see `perceiver.surroundings`; raw clouds are then [b, n, 3 + features + 8 * len(neighbours)].
    recentre: on the host, move each cloud so that the middle of its bounding box in x and y, and its lowest point
        in z, are at 0. For georeferenced files; the scale stays the extent's.

    Mask: [b] or [b, n]. A point with a coordinate or feature that is not finite counts as masked.
    """

    budget: int
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    features: tuple[str, ...] = ()
    project: int | None = None
    hidden: int | None = None
    position: Fourier = Fourier(bands=16, max_resolution=(64.0, 64.0, 64.0), concatenate=False)
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())
    neighbours: tuple[int, ...] = ()
    recentre: bool = preprocessing_field(default=False)

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ConfigError(f"Points.budget must be at least 1, got {self.budget}")
        check_extent("Points", self.low, self.high)
        if self.position.max_resolution is None:
            raise ConfigError("Points.position needs a max_resolution: a cloud has no grid to take it from")
        if self.hidden is not None and (self.hidden < 1 or self.project is None):
            raise ConfigError(f"Points.hidden: expected a width, and a projection behind it, got {self.hidden}")
        if any(count < 3 for count in self.neighbours):
            raise ConfigError(f"Points.neighbours: expected at least 3 of each point, got {self.neighbours}")
        check_statistics("Points", self.columns - 3, self.mean, self.std)

    @property
    def columns(self) -> int:
        """Numbers of one raw point."""
        return 3 + len(self.features) + len(NAMES) * len(self.neighbours)

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return self.budget

    @property
    def channels(self) -> int:
        """See Adapter."""
        return embed_channels(self.columns, self.project, self.position, 3)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "PointTokens":
        """See Adapter."""
        return PointTokens(self, dtype=dtype, rngs=rngs)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, self.budget, self.columns), jnp.float32)

    def load(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Read a cloud file, or take an array [n, 3 + features]; a fixed random subset where it exceeds the budget.

        Points that are not finite are left out.
        """
        if isinstance(source, str | os.PathLike):
            cloud = self.rows(source)
        else:
            cloud = host_array(source)
            check_array(cloud, ("n", 3 + len(self.features)), "f")
        cloud = cloud[np.isfinite(cloud).all(axis=1)]  # sensors write NaN where no echo came back
        if not len(cloud):
            raise InputError("expected at least one point with finite numbers, got none")
        if self.recentre:
            cloud = recentred(cloud)
        if len(cloud) > self.budget:
            cloud = cloud[_kept(len(cloud), self.budget)]
        cloud = self.described(cloud)
        return pad_to(cloud.astype(np.float32), self.budget), np.arange(self.budget) < len(cloud)

    def described(self, cloud: np.ndarray) -> np.ndarray:
        """A finite cloud [n, 3 + features] with what surrounds each point behind it, [n, columns]."""
        if not self.neighbours:
            return cloud
        return np.concatenate([cloud, surroundings(cloud[:, :3], self.neighbours)], axis=1)

    def rows(self, path: str | os.PathLike) -> np.ndarray:
        """All points of a file as [n, 3 + features] float64.

        Raises:
            InputError: the file lacks a feature, or cannot be read.
        """
        from perceiver.io.points import read_points

        cloud = read_points(path)
        missing = [name for name in self.features if name not in cloud.features]
        if missing:
            have = ", ".join(sorted(cloud.features)) or "none"
            raise InputError(f"{path}: expected the point feature {missing[0]!r}, the file has {have}")
        return np.column_stack([cloud.xyz, *[cloud.features[name] for name in self.features]])


def recentred(cloud: np.ndarray) -> np.ndarray:
    """Move [n, 3 + features] so that its box is centred in x and y and stands on z = 0; metres."""
    low, high = cloud[:, :3].min(axis=0), cloud[:, :3].max(axis=0)
    moved = cloud.copy()
    moved[:, :3] -= [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]
    return moved


def thin(cloud: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` rows, drawn without replacement, in their old order."""
    if len(cloud) <= count:
        return cloud
    return cloud[np.sort(rng.choice(len(cloud), count, replace=False))]


@functools.lru_cache(maxsize=64)
def _kept(size: int, count: int) -> np.ndarray:
    """The rows that `thin` keeps with a seed of 0: drawing them takes longer than all else about a small cloud."""
    return thin(np.arange(size), count, np.random.default_rng(0))


class PointTokens(nnx.Module):
    """See Points."""

    def __init__(self, config: Points, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(
            config.columns, config.project, config.position, (1, 1, 1), hidden=config.hidden, dtype=dtype, rngs=rngs
        )

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b, n, columns] -> Tokens [b, n, channels]."""
        check_array(raw, ("b", "n", self.config.columns))
        if raw.shape[1] > self.config.budget:
            raise InputError(f"expected at most {self.config.budget} points, got {raw.shape[1]}")
        real = jnp.isfinite(raw).all(axis=-1)
        given = presence(mask, *raw.shape[:2])
        real = real if given is None else real & given
        raw = jnp.where(real[..., None], raw, 0.0)
        coordinates = between(raw[..., :3], self.config.low, self.config.high)
        features = standardise(raw[..., 3:], self.config.mean, self.config.std)
        return self.embed(jnp.concatenate([coordinates, features], axis=-1), coordinates, real)
