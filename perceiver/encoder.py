"""The latent bottleneck: latents look at the inputs, then think among themselves."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.attention import Block, CrossAttend, Stack, split_key
from perceiver.errors import ConfigError
from perceiver.tokens import Tokens
from perceiver.typing import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Perceiver (arXiv 2103.03206) and Perceiver IO (arXiv 2107.14795) in one description.

    The encoder runs len(towers) blocks. A block may start with a cross-attend to the inputs and goes on with a tower
    of `depth` self-attends. Both tuples name weight sets by number, so sharing is written down, not implied:

    - Perceiver IO: cross_attends=(0,), towers=(0,), depth=26 (unshared); ImageNet: towers=(0,) * 8, depth=6.
    - Perceiver 1: cross_attends=(0, 1, 1, 1), towers=(0, 0, 0, 0): four looks at the input, the first unshared.

    latents, channels: count and width of the latent array.
    cross, latent: the blocks' shapes. remat: recompute self-attends in the backward pass to save memory.
    latent_scale: standard deviation of the latents' truncated normal start.
    min_latents, min_depth: in training, each call draws how many latents, and how many self-attends of each tower, take
        part: evenly from this number up to all, and always the first ones, as Matryoshka queries (arXiv 2405.19315)
        and nested dropout (1402.0915) do. `perceiver.reduced` then cuts the trained model down to any of these sizes.
        None always uses all.
    """

    latents: int
    channels: int
    depth: int
    cross: Block = Block(heads=1)
    latent: Block = Block(heads=8)
    cross_attends: tuple[int, ...] = (0,)
    towers: tuple[int, ...] = (0,)
    remat: bool = False
    latent_scale: float = 0.02
    min_latents: int | None = None
    min_depth: int | None = None

    def __post_init__(self) -> None:
        if min(self.latents, self.channels, self.depth) < 1:
            raise ConfigError("Encoder needs at least one latent, one channel and one self-attend per tower")
        if not 1 <= len(self.cross_attends) <= len(self.towers):
            raise ConfigError(
                f"Encoder needs between 1 and {len(self.towers)} cross_attends (one a tower at most), "
                f"got {len(self.cross_attends)}"
            )
        for name in ("cross_attends", "towers"):
            used = set(getattr(self, name))
            if used != set(range(len(used))):
                raise ConfigError(f"Encoder.{name} must number its weight sets 0, 1, 2, ..., got {sorted(used)}")
        for name in ("latents", "depth"):
            least, most = getattr(self, f"min_{name}"), getattr(self, name)
            if least is not None and not 1 <= least <= most:
                raise ConfigError(f"Encoder.min_{name} must be in [1, {name} = {most}], got {least}")

    def build(self, in_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "LatentEncoder":
        """The module, for input tokens of the given width."""
        return LatentEncoder(self, in_channels, dtype=dtype, rngs=rngs)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Size:
    """How much of an encoder takes part: the first `latents`, and the first `depth` self-attends of each tower.

    Both are int32 scalars, which may be traced, so that sizes drawn at random share one program; None is all.
    """

    latents: Int[Array, ""] | None = None
    depth: Int[Array, ""] | None = None

    def shown(self, batch: int, latents: int) -> Bool[Array, "b n"] | None:
        """True for the latents that take part, once per sample; None where all do."""
        return None if self.latents is None else jnp.broadcast_to(jnp.arange(latents) < self.latents, (batch, latents))


WHOLE = Size()


class LatentEncoder(nnx.Module):
    """Tokens [b, n, c] to latents [b, latents, channels]."""

    def __init__(self, config: Encoder, in_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        width = config.channels
        initial = nnx.initializers.truncated_normal(config.latent_scale)
        self.latents = nnx.Param(initial(rngs.params(), (config.latents, width), jnp.float32))
        self.cross = nnx.List(
            [
                CrossAttend(width, in_channels, config.cross, dtype=dtype, rngs=rngs)
                for _ in range(max(config.cross_attends) + 1)
            ]
        )
        self.towers = nnx.List(
            [
                Stack(width, config.depth, config.latent, remat=config.remat, dtype=dtype, rngs=rngs)
                for _ in range(max(config.towers) + 1)
            ]
        )

    def draw(self, key: jax.Array | None) -> Size:
        """A size for one step of training, see `Encoder.min_latents`; all without a key, which means evaluation."""
        config = self.config
        if key is None:
            return WHOLE
        latents_key, depth_key = jax.random.split(key)
        return Size(
            _between(latents_key, config.min_latents, config.latents),
            _between(depth_key, config.min_depth, config.depth),
        )

    def __call__(self, tokens: Tokens, *, size: Size = WHOLE, key: jax.Array | None = None) -> Float[Array, "b n c"]:
        """Encode. size: how much takes part; what the latents beyond it hold means nothing. key: for dropout."""
        x = self.start(tokens)
        plan = itertools.zip_longest(self.config.cross_attends, self.config.towers)
        for (cross, tower), repeats in [(step, len(list(run))) for step, run in itertools.groupby(plan)]:
            here, key = split_key(key, 2)
            x = self._blocks(x, tokens, size, cross, tower, repeats, here)
        return x

    def start(self, tokens: Tokens) -> Float[Array, "b n c"]:
        """The learned latents, once per sample."""
        latents = self.latents[...].astype(tokens.values.dtype)
        return jnp.broadcast_to(latents, (tokens.values.shape[0], *latents.shape))

    def _blocks(self, x, tokens: Tokens, size: Size, cross: int | None, tower: int, repeats: int, key):
        """`repeats` blocks with the same weights, as a scan so that they compile once."""
        shown = size.shown(1, x.shape[1])
        mask = None if shown is None else shown[:, None, None]

        def block(x, block_key):
            cross_key, tower_key = split_key(block_key, 2)
            if cross is not None:
                x = self.cross[cross](x, tokens, key=cross_key)
            return self.towers[tower](x, mask, depth=size.depth, repeated=repeats > 1, key=tower_key), None

        if repeats == 1:
            return block(x, key)[0]
        keys = None if key is None else jax.random.split(key, repeats)
        return jax.lax.scan(block, x, keys, length=repeats)[0]


def _between(key: jax.Array, least: int | None, most: int) -> Int[Array, ""] | None:
    """A number from `least` to `most`, each as likely; None where there is no choice."""
    return None if least in (None, most) else jax.random.randint(key, (), least, most + 1)
