"""What can be counted in the patches of a picture without having learned anything: directions of edges, and colours."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from einops import rearrange, reduce
from flax import nnx

from perceiver.errors import ConfigError
from perceiver.typing import Array, Float

MOST = 1024
"""Colours that are told apart at most."""
EDGES, COLOURS = 3.0, 4.0
"""Factors that give what is counted about the spread of standardised pixels."""


@dataclasses.dataclass(frozen=True)
class Descriptors:
    """Histograms of a patch, and of the 3 x 3 patches around it.

    With few pictures to learn from, what a network finds in pixels by itself is worth less than these.

    directions: bins of the gradient's direction over half a turn, weighted by its size, in units of the energy of the
        surroundings (Dalal and Triggs, CVPR 2005; blocks of 3 x 3 cells, no overlap of votes beyond two bins).
    levels: of each channel; a colour is one of levels ** channels, and counts by the square root of its share.
    """

    directions: int = 9
    levels: int = 4

    def __post_init__(self) -> None:
        if min(self.directions, self.levels) < 2:
            raise ConfigError(
                f"Descriptors: expected 2 or more, got {self.directions} directions, {self.levels} levels"
            )

    def features(self, channels: int) -> int:
        """Numbers for each patch of a picture of so many channels.

        Raises:
            ConfigError: more than 1,024 colours.
        """
        if self.levels**channels > MOST:
            raise ConfigError(
                f"Descriptors.levels: expected at most {MOST} colours, got {self.levels} levels of {channels} channels"
            )
        return 2 * (self.directions + self.levels**channels)

    def __call__(self, pixels: Float[Array, "b h w c"], patch: int) -> Float[Array, "b i j f"]:
        """Of pixels in [0, 1], cut into square patches of that side; constants to gradients."""
        pixels = jax.lax.stop_gradient(pixels)
        edges, colours = self._edges(pixels, patch), self._colours(pixels, patch)
        counted = [EDGES * _relative(edges), EDGES * _relative(_around(edges))]
        counted += [COLOURS * jnp.sqrt(colours), COLOURS * jnp.sqrt(jnp.maximum(_around(colours), 0.0))]
        return jax.lax.stop_gradient(jnp.concatenate(counted, axis=-1))

    def _edges(self, pixels: Array, patch: int) -> Float[Array, "b i j d"]:
        """The mean gradient in each direction."""
        grey = pixels.mean(axis=-1)
        around = jnp.pad(grey, [(0, 0), (1, 1), (1, 1)], mode="edge")
        down, across = around[:, 2:, 1:-1] - around[:, :-2, 1:-1], around[:, 1:-1, 2:] - around[:, 1:-1, :-2]
        turn = jnp.mod(jnp.arctan2(down, across), jnp.pi) / jnp.pi * self.directions
        apart = jnp.abs(turn[..., None] - jnp.arange(self.directions))
        share = jnp.maximum(1.0 - jnp.minimum(apart, self.directions - apart), 0.0)
        votes = share * jnp.hypot(down, across)[..., None]
        return reduce(votes, "b (i p) (j q) d -> b i j d", "mean", p=patch, q=patch)

    def _colours(self, pixels: Array, patch: int) -> Float[Array, "b i j k"]:
        """The share of each colour."""
        channels = pixels.shape[-1]
        level = jnp.clip((pixels * self.levels).astype(jnp.int32), 0, self.levels - 1)
        colour = (level * self.levels ** jnp.arange(channels - 1, -1, -1)).sum(axis=-1)
        parts = rearrange(colour, "b (i p) (j q) -> b i j (p q)", p=patch, q=patch)
        count = functools.partial(jnp.bincount, length=self.levels**channels)
        return jnp.vectorize(count, signature="(n)->(k)")(parts) / patch**2


def _around(cells: Float[Array, "b i j f"]) -> Float[Array, "b i j f"]:
    """The mean over each cell and its neighbours, zeros beyond the picture."""
    return nnx.avg_pool(cells, (3, 3), (1, 1), padding="SAME")


def _relative(edges: Float[Array, "b i j d"]) -> Float[Array, "b i j d"]:
    """In units of the surroundings' energy."""
    energy = jnp.sqrt(_around(jnp.square(edges).sum(axis=-1, keepdims=True)) + 1e-4)
    return jnp.minimum(edges / energy, 1.0)
