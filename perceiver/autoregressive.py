"""An autoregressive Perceiver (Perceiver AR, arXiv 2202.07765): its latents are the last places of a long text.

Each latent starts from one id, looks at that one and all before it, and foretells the next. The latents then know of
those before them, so that a text of any length up to the budget costs one look and a short causal transformer.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.adapters.text import Text
from perceiver.attention import Activation, Block, CrossAttend, Stack, layer_norm, split_key
from perceiver.autoregressive_parts import FromId, FromSlot, Ids
from perceiver.autoregressive_positions import SCALE, Order, Rotary, Table, counted
from perceiver.errors import ConfigError, InputError, naming
from perceiver.model import Compute, Model, ModelConfig
from perceiver.quantised import Weights
from perceiver.tokens import Tokens, check_array
from perceiver.typing import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class AutoregressiveConfig(ModelConfig):
    """The declaration.

    text: how text becomes ids; its `max_length` is the budget of places, its `width` that of an id's vector.
    latents, channels: their most, and their width. depth: causal self-attends; latent: their shape. cross: of the looks
    at the ids. looks: after how many self-attends there is a look, in order. positions, order: how places are told
    apart and counted. query: what latents start from. each: latents of one place; their mean answers.
    hidden_ids, hidden_latents: share that training hides, as keys, from all latents and from the other latents.
    about: channels of what a text is about, such as a picture's latents: each latent looks at all of it first, without
    dropout. None: of nothing else. compute, weights: as for every model.
    """

    text: Text | Ids
    latents: int
    channels: int
    depth: int
    cross: Block = Block(heads=4, widening=4, activation=Activation.SQUARED_RELU)
    latent: Block = Block(heads=4, widening=4, activation=Activation.SQUARED_RELU)
    looks: tuple[int, ...] = (0,)
    positions: Rotary | Table = Rotary()
    order: Order = Order.FORWARD
    query: FromId | FromSlot = FromId()
    each: int = 1
    hidden_ids: float = 0.0
    hidden_latents: float = 0.0
    about: int | None = None
    compute: Compute = Compute.FLOAT32
    weights: Weights = Weights.FLOAT32

    def __post_init__(self) -> None:
        for name in ("latents", "channels", "depth", "each"):
            if getattr(self, name) < 1:
                raise ConfigError(f"AutoregressiveConfig.{name}: expected at least 1, got {getattr(self, name)}")
        if self.latents % self.each:
            raise ConfigError(f"AutoregressiveConfig.each: {self.each} do not divide the {self.latents} latents")
        if self.latents // self.each > self.text.max_length:
            raise ConfigError(
                f"AutoregressiveConfig.latents: expected at most one for each of {self.text.max_length} places, "
                f"got {self.latents // self.each}"
            )
        if list(self.looks) != sorted(set(self.looks)) or not all(0 <= after <= self.depth for after in self.looks):
            raise ConfigError(
                f"AutoregressiveConfig.looks: expected rising numbers from 0 to {self.depth}, got {self.looks}"
            )
        for name in ("hidden_ids", "hidden_latents"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"AutoregressiveConfig.{name}: expected in [0, 1), got {getattr(self, name)}")
        if getattr(self.text, "ngrams", None) is not None:
            raise ConfigError("AutoregressiveConfig.text: runs of bytes know what comes after; expected no ngrams")
        self._check_heads()

    def _check_heads(self) -> None:
        """Raise ConfigError unless heads fit, and rotary angles have channels to rotate."""
        given = [("cross", self.cross, self.text.width), ("latent", self.latent, self.channels)]
        given += [] if self.about is None else [("about", self.cross, self.about)]
        for name, block, channels in given:
            qk = channels if block.qk_channels is None else block.qk_channels
            if qk % block.heads:
                raise ConfigError(f"AutoregressiveConfig.{name}: {block.heads} heads do not divide {qk} channels")
            if name == "about" or not isinstance(self.positions, Rotary):
                continue
            if self.positions.rotated(qk // block.heads) < 2:
                raise ConfigError(f"AutoregressiveConfig.positions: rotates nothing of {qk // block.heads} in {name}")

    def window(self, place: Int[Array, "..."] | int) -> Int[Array, "..."]:
        """The first place that has latents when the id behind `place` is foretold in writing.

        Latents gather from place to place. When there are no more, those of the last half of the places are computed
        anew and the others given up: a latent remembers no more than in training.
        """
        most = self.latents // self.each
        step = most - max(most // 2 - 1, 0)
        return jnp.maximum(((place - most) // step + 1) * step, 0)

    def initial(self, key: jax.Array) -> "Autoregressive":
        """See ModelConfig."""
        return Autoregressive(self, nnx.Rngs(key))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reading:
    """Rows of ids before any latent has looked.

    vectors: of the ids, numbers: of their places. queries: what the latents start from. places: of the latents, -1 for
    those that are none. stand: the numbers of their places. sees, knows: the ids and the latents that each one sees.
    """

    vectors: Float[Array, "b n w"]
    numbers: Int[Array, "b n axes"]
    queries: Float[Array, "b q c"]
    places: Int[Array, "b p"]
    stand: Int[Array, "b q"]
    sees: Bool[Array, "b q n"]
    knows: Bool[Array, "b q q"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Foretold:
    """logits: of the id that follows each place, float32. places: [b, p] int32, -1 where there is none to follow."""

    logits: Float[Array, "b p v"]
    places: Int[Array, "b p"]


class Autoregressive(Model):
    """See AutoregressiveConfig. `parts` are the looks and the stacks of self-attends, as they follow each other."""

    def __init__(self, config: AutoregressiveConfig, rngs: nnx.Rngs):
        dtype, width, channels = config.compute.dtype, config.text.width, config.channels
        initial = nnx.initializers.truncated_normal(config.text.scale)
        self.config, self.dtype = config, dtype
        self.table = nnx.Param(initial(rngs.params(), (config.text.vocabulary, width), jnp.float32))
        self.positions = config.positions.build(width, rngs) if isinstance(config.positions, Table) else None
        self.query = config.query.build(width, config.latents, channels, dtype=dtype, rngs=rngs)
        start = nnx.initializers.truncated_normal(SCALE)
        self.each = nnx.Param(start(rngs.params(), (config.each, channels), jnp.float32)) if config.each > 1 else None
        about = config.about
        self.about = None if about is None else CrossAttend(channels, about, config.cross, dtype=dtype, rngs=rngs)
        parts: list[CrossAttend | Stack] = []
        for number, (begin, end) in enumerate(zip((0, *config.looks), (*config.looks, config.depth), strict=True)):
            if number:
                parts.append(CrossAttend(channels, width, config.cross, dtype=dtype, rngs=rngs))
            if end > begin:
                parts.append(Stack(channels, end - begin, config.latent, remat=False, dtype=dtype, rngs=rngs))
        self.parts = nnx.List(parts)
        self.norm = layer_norm(channels, dtype, rngs)
        zeros = nnx.initializers.zeros_init()
        self.logits = nnx.Linear(channels, config.text.vocabulary, dtype=dtype, kernel_init=zeros, rngs=rngs)

    def __call__(
        self,
        ids: Int[Array, "b n"],
        lengths: Int[Array, "b"] | None = None,
        *,
        first: Int[Array, "b"] | None = None,
        count: int | None = None,
        numbers: Int[Array, "b n axes"] | None = None,
        about: Tokens | None = None,
        key: jax.Array | None = None,
    ) -> Foretold:
        """Foretell what follows at the last places of each row, or at those from `first` on.

        lengths: ids of each row that are no padding; None: all. first: place of the first latent; what comes before the
        row, or behind its end, is foretold with the place -1. count: latents, if not as many as configured. numbers: of
        the places, if not counted as configured. about: what the texts are about, where the model is configured for it.
        key: of what training hides and drops.

        Raises:
            InputError: shapes that do not fit, more ids than the budget, or `about` missing or not expected.
        """
        reading = self.read(ids, lengths, first=first, count=count, numbers=numbers, about=about)
        return Foretold(self.answer(self.think(reading, key)), reading.places)

    def read(
        self,
        ids: Int[Array, "b n"],
        lengths: Int[Array, "b"] | None = None,
        *,
        first: Int[Array, "b"] | None = None,
        count: int | None = None,
        numbers: Int[Array, "b n axes"] | None = None,
        about: Tokens | None = None,
    ) -> Reading:
        """What latents see and start from; arguments and errors as for a call."""
        with naming("ids"):
            check_array(ids, ("b", "n"), "iu")
            if ids.shape[1] > self.config.text.max_length:
                raise InputError(f"expected at most {self.config.text.max_length} tokens, got {ids.shape[1]}")
        (batch, length), each = ids.shape, self.config.each
        slots = jnp.arange(self.config.latents if count is None else count)
        full = jnp.full((batch,), length) if lengths is None else jnp.asarray(lengths)
        start = full - len(slots) // each if first is None else jnp.asarray(first)
        for name, given in (("lengths", full), ("first", start)):
            with naming(name):
                check_array(given, (batch,), "iu")
        numbers = counted(self.config.order, full, length)[..., None] if numbers is None else jnp.asarray(numbers)
        with naming("numbers"):
            check_array(numbers, (batch, length, "axes"), "iu")
        vectors = self.embed(ids, numbers)
        places = start[:, None] + slots[::each] // each
        places = jnp.where((places >= 0) & (places < full[:, None]), places, -1)
        at = jnp.where(places < 0, length - 1, places)  # what is none starts from the last column, as in the reference
        queries = self.start(jnp.take_along_axis(vectors, at[..., None], axis=1), slots, about)
        own = jnp.repeat(places, each, axis=1)
        sees = (own[..., None] >= jnp.arange(length)) & (jnp.arange(length) < full[:, None])[:, None]
        knows = (own[..., None] >= own[:, None]) & (own >= 0)[:, None] | jnp.eye(len(slots), dtype=bool)
        stand = jnp.repeat(jnp.take_along_axis(numbers[..., 0], at, axis=1), each, axis=1)
        return Reading(vectors, numbers, queries, places, self.standing(stand), sees, knows)

    def think(self, reading: Reading, key: jax.Array | None = None) -> Float[Array, "b q c"]:
        """Latents after every part. key: of what is hidden and dropped."""
        hide_key, *keys = split_key(key, 1 + len(self.parts))
        reading = reading if hide_key is None else self.hidden(reading, hide_key)
        x = reading.queries
        for part, own in zip(self.parts, keys, strict=True):
            x = self.passed(part, x, reading, key=own)
        return x

    def passed(
        self,
        part: CrossAttend | Stack,
        x: Float[Array, "b q c"],
        reading: Reading,
        *,
        depth: Int[Array, ""] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b q c"]:
        """Latents after one part. depth: as for Stack."""
        angles = self.angles(part, reading.stand)
        if isinstance(part, CrossAttend):
            theirs = self.angles(part, reading.numbers[..., 0])
            both = None if angles is None or theirs is None else (angles, theirs)
            return part(x, Tokens(reading.vectors), looking=reading.sees, angles=both, key=key)
        return part(x, reading.knows[:, None], angles=angles, depth=depth, key=key)

    def hidden(self, reading: Reading, key: jax.Array) -> Reading:
        """Some ids hidden from all latents, and some latents from the others."""
        config, (batch, count, length) = self.config, reading.sees.shape
        id_key, latent_key = jax.random.split(key)
        ids = jax.random.bernoulli(id_key, 1.0 - config.hidden_ids, (batch, 1, length))
        latents = jax.random.bernoulli(latent_key, 1.0 - config.hidden_latents, (batch, 1, count))
        knows = reading.knows & latents | jnp.eye(count, dtype=bool)
        return dataclasses.replace(reading, sees=reading.sees & ids, knows=knows)

    def answer(self, x: Float[Array, "b q c"]) -> Float[Array, "b p v"]:
        """Logits of latents after the last part, float32: of the mean over each place's."""
        normed = self.norm(x).reshape(x.shape[0], -1, self.config.each, x.shape[-1]).mean(axis=2)
        return self.logits(normed).astype(jnp.float32)

    def embed(self, ids: Int[Array, "b n"], numbers: Int[Array, "b n axes"]) -> Float[Array, "b n w"]:
        """Vectors of ids at numbered places. Ids outside the vocabulary are clamped."""
        known = jnp.clip(jnp.asarray(ids, jnp.int32), 0, self.config.text.vocabulary - 1)
        vectors = self.table[...][known]
        return (vectors if self.positions is None else vectors + self.positions(numbers)).astype(self.dtype)

    def start(
        self, vectors: Float[Array, "b p w"], slots: Int[Array, "q"], about: Tokens | None = None
    ) -> Float[Array, "b q c"]:
        """What latents start from. slots: their numbers. about: as for a call."""
        if (about is None) != (self.about is None):
            expected = "nothing" if self.about is None else f"tokens of {self.config.about} channels"
            raise InputError(f"about: expected {expected}, got {'nothing' if about is None else about.values.shape}")
        each = self.config.each
        x = self.query(jnp.repeat(vectors, each, axis=1), slots)
        x = x if self.each is None else x + self.each[...][slots % each].astype(x.dtype)
        x = self.query.refined(x)
        return x if self.about is None or about is None else self.about(x, about)

    def standing(self, numbers: Int[Array, "b q"]) -> Int[Array, "b q"]:
        """Where latents stand that read the places of these numbers."""
        rotary = self.config.positions
        return numbers + 1 if isinstance(rotary, Rotary) and rotary.ahead else numbers

    def angles(self, part: CrossAttend | Stack, numbers: Int[Array, "b n"]) -> Float[Array, "b n h half"] | None:
        """Rotary angles of a part's heads, where places are told apart by these."""
        config, rotary = self.config, self.config.positions
        if not isinstance(rotary, Rotary):
            return None
        looks = isinstance(part, CrossAttend)
        block, channels = (config.cross, config.text.width) if looks else (config.latent, config.channels)
        width = (channels if block.qk_channels is None else block.qk_channels) // block.heads
        longest = dataclasses.replace(rotary, max_wavelength=rotary.max_wavelength + rotary.ahead)
        return longest.angles(numbers, width, block.heads)
