"""Hierarchical Perceiver (HiP, arXiv 2202.10890): raw signals of any kind to themselves, through levels of groups.

An odd number of levels: the first half gathers ever larger groups, the one in the middle, the processor, sees all,
and the second half spreads out again, each level with a skip connection from its counterpart. What comes in is
reconstructed, so that hiding parts of it trains the model (masked auto-encoding: zero the hidden points beforehand).
"""

import dataclasses
import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.attention import Activation, Block, split_key
from perceiver.config import suggestion
from perceiver.errors import ConfigError, InputError, naming
from perceiver.hierarchical_blocks import TABLE, GroupedCrossAttend, Grouping, Layout, Level, Regroup
from perceiver.model import Compute, Model, ModelConfig
from perceiver.quantised import Weights
from perceiver.tokens import check_array
from perceiver.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Signal:
    """One modality as HiP takes it: raw numbers in an order that means something.

    name: of the modality. length, channels: its arrays are [b, length, channels], floating point.
    """

    name: str
    length: int
    channels: int

    def __post_init__(self) -> None:
        if not self.name or "." in self.name or hasattr(nnx.Dict, self.name):
            raise ConfigError(f"Signal.name: {self.name!r} is empty, has a dot, or is reserved")
        if min(self.length, self.channels) < 1:
            raise ConfigError(
                f"Signal {self.name!r} needs at least one element and one channel, "
                f"got length {self.length} and channels {self.channels}"
            )


@dataclasses.dataclass(frozen=True)
class HierarchicalConfig(ModelConfig):
    """A Hierarchical Perceiver, declared.

    inputs: modalities in the order in which they are laid out in groups.
    levels: encoder, processor, decoder: an odd number, the middle one with a single group. A single level with
        Grouping.TOGETHER is a Perceiver IO whose queries are the positions of its inputs.
    embedding: width of the embedded inputs and of the queries of their reconstruction.
    labels: modalities that skip encoder and decoder: they join the vectors that the processor looks at, and are
        reconstructed from what it thinks.
    project_positions: a learned linear map on the position table of each input.
    regroup: how groups change between levels. grouping: how inputs share the groups of the first one.
    head: the look that reconstructs. compute: dtype of the computation. weights: how parameters are stored.
    """

    inputs: tuple[Signal, ...]
    levels: tuple[Level, ...]
    embedding: int
    labels: tuple[Signal, ...] = ()
    project_positions: bool = False
    regroup: Regroup = Regroup.NEIGHBOURS
    grouping: Grouping = Grouping.SEPARATE
    head: Block = Block(residual=False, activation=Activation.SQUARED_RELU)
    compute: Compute = Compute.FLOAT32
    weights: Weights = Weights.FLOAT32

    def __post_init__(self) -> None:
        names = [signal.name for signal in (*self.inputs, *self.labels)]
        if not self.inputs or len(set(names)) < len(names):
            raise ConfigError(f"inputs and labels: expected at least one input and different names, got {names}")
        if self.embedding < 1:
            raise ConfigError(f"embedding must be at least 1, got {self.embedding}")
        if len(self.levels) % 2 == 0:
            raise ConfigError(f"levels: expected an odd number, got {len(self.levels)}")
        if self.levels[self.middle].groups != 1:
            raise ConfigError(
                f"levels[{self.middle}].groups: the processor has 1 group, got {self.levels[self.middle].groups}"
            )
        self._check_pairs()
        self._check_regrouping()
        first = self.levels[0].groups
        if self.grouping is Grouping.TOGETHER and first != 1:
            raise ConfigError(f"levels[0].groups: grouping TOGETHER needs 1 group, got {first}")
        if self.grouping is Grouping.SEPARATE and first < len(self.inputs):
            raise ConfigError(f"levels[0].groups: {len(self.inputs)} inputs need as many groups, got {first}")

    @property
    def middle(self) -> int:
        """Which level is the processor."""
        return len(self.levels) // 2

    def initial(self, key: jax.Array) -> "Hierarchical":
        """See ModelConfig."""
        return Hierarchical(self, nnx.Rngs(key))

    def _check_pairs(self) -> None:
        for i in range(self.middle):
            j = len(self.levels) - 1 - i
            sizes = [(level.groups, level.latents) for level in (self.levels[i], self.levels[j])]
            if sizes[0] != sizes[1]:
                raise ConfigError(
                    f"levels[{i}] and levels[{j}]: a skip connection needs equal groups and latents, "
                    f"got {sizes[0]} and {sizes[1]}"
                )
            for k in (i, j):
                if self.levels[k].train_latents is not None:
                    raise ConfigError(
                        f"levels[{k}].train_latents: only the processor, levels[{self.middle}], may have it, "
                        f"got {self.levels[k].train_latents}"
                    )

    def _check_regrouping(self) -> None:
        for i, (before, after) in enumerate(itertools.pairwise(self.levels)):
            for latents in (before.latents, before.train_latents or before.latents):
                if before.groups * latents % after.groups:
                    raise ConfigError(
                        f"levels[{i + 1}].groups is {after.groups}, which does not divide the "
                        f"{before.groups} x {latents} latents of levels[{i}]"
                    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hidden:
    """What every level thinks, [b, groups, latents, channels] each, of inputs and labels of these names."""

    levels: tuple[Float[Array, "b g n c"], ...]
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})


class Port(nnx.Module):
    """A modality's way in and out: its embedding, its positions, and the map back to raw channels."""

    def __init__(self, signal: Signal, width: int, project: bool, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.signal = signal
        self.dtype = dtype
        self.embed = nnx.Linear(signal.channels, width, dtype=dtype, rngs=rngs)
        self.position = nnx.Param(TABLE(rngs.params(), (signal.length, width), jnp.float32))
        self.project = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs) if project else None
        # Zeros, so that a fresh model reconstructs the mean of standardised signals.
        zeros = nnx.initializers.zeros_init()
        self.unembed = nnx.Linear(width, signal.channels, kernel_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(self, raw: Float[Array, "b n r"]) -> Float[Array, "b n c"]:
        """Embedded, with positions."""
        return self.embed(jnp.asarray(raw)) + self.positions()

    def positions(self, batch: int = 1) -> Float[Array, "b n c"]:
        """The positions, which are also the queries of the reconstruction."""
        table = self.position[...].astype(self.dtype)
        table = table if self.project is None else self.project(table)
        return jnp.broadcast_to(table, (batch, *table.shape))

    def answer(self, x: Float[Array, "b n c"]) -> Float[Array, "b n r"]:
        """Back to raw channels, float32."""
        return self.unembed(x).astype(jnp.float32)


class Hierarchical(Model):
    """A Hierarchical Perceiver. Inputs are a dict of raw arrays [b, length, channels]; any subset may be given."""

    def __init__(self, config: HierarchicalConfig, rngs: nnx.Rngs):
        dtype = config.compute.dtype
        levels, middle = config.levels, config.middle
        widths = [config.embedding, *(level.channels for level in levels)]
        skips = [None] * (middle + 1) + [levels[i].channels for i in reversed(range(middle))]
        project = config.project_positions
        self.config = config
        self.ports = nnx.Dict(
            {s.name: Port(s, config.embedding, project, dtype=dtype, rngs=rngs) for s in config.inputs}
        )
        self.blocks = nnx.List(
            [
                level.build(width, skip, dtype=dtype, rngs=rngs)
                for level, width, skip in zip(levels, widths[:-1], skips, strict=True)
            ]
        )
        self.head = GroupedCrossAttend(config.embedding, widths[-1], config.head, dtype=dtype, rngs=rngs)
        # Labels are as wide as the vectors that the processor looks at, and all share one head.
        width = widths[middle]
        self.label_ports = nnx.Dict({s.name: Port(s, width, False, dtype=dtype, rngs=rngs) for s in config.labels})
        self.label_head = (
            GroupedCrossAttend(width, levels[middle].channels, config.head, dtype=dtype, rngs=rngs)
            if config.labels
            else None
        )

    def __call__(self, inputs: Mapping[str, Array], *, key: jax.Array | None = None) -> dict[str, Array]:
        """Raw arrays to their reconstructions of the same shapes, float32: see `encode`, `decode`."""
        encode_key, decode_key = split_key(key, 2)
        return self.decode(self.encode(inputs, key=encode_key), key=decode_key)

    def encode(self, inputs: Mapping[str, Array], *, key: jax.Array | None = None) -> Hidden:
        """Run all levels. key: randomness for training; None for evaluation.

        Raises:
            InputError: an unknown modality, or an array that does not fit; the message names the modality.
        """
        self._check(inputs)
        config = self.config
        names = tuple(s.name for s in (*config.inputs, *config.labels) if s.name in inputs)
        x = self.layout(names).group({n: self.ports[n](inputs[n]) for n in names if n in self.ports})
        levels: list[Array] = []
        for i, (block, own) in enumerate(zip(self.blocks, split_key(key, len(self.blocks)), strict=True)):
            if i > 0:
                x = config.regroup(x, config.levels[i].groups)
            if i == config.middle:
                given = [self.label_ports[n](inputs[n])[:, None] for n in names if n in self.label_ports]
                x = jnp.concatenate([x, *given], axis=2)
            x = block(x, levels[len(config.levels) - 1 - i] if i > config.middle else None, key=own)
            levels.append(x)
        return Hidden(tuple(levels), names)

    def decode(self, hidden: Hidden, *, key: jax.Array | None = None) -> dict[str, Array]:
        """Reconstruct every modality that went in: [b, length, channels], float32, by name."""
        head_key, *label_keys = split_key(key, 1 + len(self.label_ports))
        last, processor = hidden.levels[-1], hidden.levels[self.config.middle]
        batch = last.shape[0]
        found = self.layout(hidden.names).ungroup(self.head(self.queries(hidden.names, batch), last, key=head_key))
        answers = {name: self.ports[name].answer(x) for name, x in found.items()}
        for (name, port), own in zip(self.label_ports.items(), label_keys, strict=True):
            if self.label_head is not None and name in hidden.names:
                asked = port.positions(batch)[:, None]
                answers[name] = port.answer(self.label_head(asked, processor, key=own)[:, 0])
        return answers

    def latents(self, hidden: Hidden) -> dict[str, Float[Array, "b n c"]]:
        """The last level's latents by input, joined over its groups.

        As in the reference, the padding of the inputs' groups is cut from them as well; where there are fewer latents
        than that, little or nothing is left. `hidden.levels[-1]` has them all.
        """
        return self.layout(hidden.names).ungroup(hidden.levels[-1])

    def layout(self, names: tuple[str, ...]) -> Layout:
        """Where the inputs among `names` lie in the groups of the first and the last level."""
        lengths = {s.name: s.length for s in self.config.inputs if s.name in names}
        return self.config.grouping.layout(lengths, self.config.levels[0].groups)

    def queries(self, names: tuple[str, ...], batch: int) -> Float[Array, "b g n c"]:
        """What the head asks: the positions of the inputs among `names`, in groups."""
        return self.layout(names).group({n: self.ports[n].positions(batch) for n in names if n in self.ports})

    def _check(self, inputs: Mapping[str, Array]) -> None:
        signals = {s.name: s for s in (*self.config.inputs, *self.config.labels)}
        for name, raw in inputs.items():
            if name not in signals:
                raise InputError(f"inputs[{name!r}]: no such modality; {suggestion(name, signals)}")
            with naming(f"inputs[{name!r}]"):
                check_array(raw, ("batch", signals[name].length, signals[name].channels))
        if not any(s.name in inputs for s in self.config.inputs):
            expected = ", ".join(s.name for s in self.config.inputs)
            raise InputError(f"inputs: expected at least one of {expected}, got {', '.join(inputs) or 'none'}")
        sizes = {name: raw.shape[0] for name, raw in inputs.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(f"inputs: expected one batch size, got {sizes}")
