"""The model: named inputs, one encoder, named outputs."""

import abc
import dataclasses
import enum
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.core import FrozenDict

from perceiver.adapters.base import Adapter
from perceiver.adapters.text import Text, TextTokens
from perceiver.attention import split_key
from perceiver.config import freeze, preprocessing_field, suggestion
from perceiver.decoders.actions import ActionHead
from perceiver.decoders.decoder import Output, Pooled, Trunk
from perceiver.decoders.heads import Head, TokenLogits
from perceiver.encoder import Encoder
from perceiver.errors import ConfigError, InputError, naming
from perceiver.join import Join
from perceiver.layout import by_sample
from perceiver.quantised import Int8, Weights, store
from perceiver.robot import Robot
from perceiver.tokens import Tokens
from perceiver.typing import Array, Bool, Float, Raw


class Compute(enum.Enum):
    """What the network computes in, however its weights are stored; softmax and layer-norm statistics stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

    @property
    def dtype(self) -> jnp.dtype:
        """As a JAX dtype."""
        return jnp.dtype(self.value)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Latents:
    """An encoded input: everything that decoding needs.

    values: [b, n, c]. tokens: the input tokens of the modalities that some query reads.
    mask: [b, n] bool, False for latents that nothing may look at (see `Encoder.min_latents`); None shows all.
    """

    values: Float[Array, "b n c"]
    tokens: dict[str, Tokens]
    mask: Bool[Array, "b n"] | None = None


class ModelConfig(abc.ABC):
    """The declaration of any model that can be saved and loaded: a frozen dataclass that builds a `Model`.

    compute: dtype of the computation. weights: how parameters are stored; a config that declares it as a field can be
    given to `perceiver.quantise`.
    """

    compute = Compute.FLOAT32
    weights = Weights.FLOAT32

    def build(self, seed: int = 0) -> Any:
        """A freshly initialised model; the same seed gives the same parameters."""
        return nnx.merge(_traced(self)[0], _start(self, jax.random.key(seed)))

    def abstract(self) -> Any:
        """The model with shapes in place of parameters."""
        return nnx.merge(*_traced(self), copy=True)  # whoever fills it in changes no other

    def stored(self, key: jax.Array) -> "Model":
        """The model as `weights` stores it, made eagerly."""
        model = self.initial(key)
        store(model, self.weights)
        return model

    @abc.abstractmethod
    def initial(self, key: jax.Array) -> "Model":
        """The model with float32 parameters, initialised eagerly: what `build` compiles."""


@functools.lru_cache(maxsize=64)
def _traced(config: ModelConfig) -> tuple[Any, nnx.State]:
    """The graph and the shapes of a model: tracing what makes it takes up to seconds, and is done once per config."""
    return nnx.split(nnx.eval_shape(lambda: config.stored(jax.random.key(0))))


@functools.partial(jax.jit, static_argnums=0)
def _start(config: ModelConfig, key: jax.Array) -> nnx.State:
    """All parameters, from one compiled function: one small program per parameter would take seconds.

    Compiled once per config, since configs are hashable.
    """
    return nnx.state(config.stored(key))


class Model(nnx.Module):
    """A module that carries its declaration, so that it can be saved as a folder."""

    config: Any

    def save(self, folder: str | Path) -> Path:
        """Write the model folder: see `perceiver.saving`."""
        from perceiver.saving import save

        return save(self, folder)


@dataclasses.dataclass(frozen=True)
class PerceiverConfig(ModelConfig):
    """A whole model, declared.

    inputs: adapters by modality name. encoder: the latent bottleneck.
    outputs: Output, or just a Head where its own query will do, by name; or Pooled, for one from the latents' mean.
    trunks: cross-attends that outputs share, by the name that `Output.trunk` gives.
    mask_rates: by modality, the chance that training replaces one of its tokens by a learned mask token. Where it is
        1 the tokens are always replaced, in evaluation too, so that the input need not be given (the label of
        Perceiver IO's autoencoder).
    modality_padding: learned channels that tell modalities apart, put behind the widest one's; the others get more,
        up to the same width (Perceiver IO, appendix A.2). Unused with a single input.
    modality_dropout: chance that training hides a whole modality of a sample; never all of them.
    compute: dtype of the computation. weights: how parameters are stored; training takes float32.
    robot: for a policy, the control loop that it is made for: see `perceiver.control.policy`.
    """

    inputs: Mapping[str, Adapter]
    encoder: Encoder
    outputs: Mapping[str, Output | Pooled]
    trunks: Mapping[str, Trunk] = dataclasses.field(default_factory=FrozenDict)
    mask_rates: Mapping[str, float] = dataclasses.field(default_factory=FrozenDict)
    modality_padding: int = 4
    modality_dropout: float = 0.0
    compute: Compute = Compute.FLOAT32
    weights: Weights = Weights.FLOAT32
    robot: Robot | None = preprocessing_field(default=None)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ConfigError("PerceiverConfig needs at least one input")
        for name in [*self.inputs, *self.outputs, *self.trunks]:
            if not name or "." in name or hasattr(nnx.Dict, name):
                raise ConfigError(
                    f"{name!r} cannot name an input, output or trunk: it is empty, has a dot, or is reserved"
                )
        outputs = {n: Output(out) if isinstance(out, Head) else out for n, out in self.outputs.items()}
        object.__setattr__(self, "inputs", freeze(self.inputs))
        object.__setattr__(self, "outputs", freeze(outputs))
        object.__setattr__(self, "trunks", freeze(self.trunks))
        object.__setattr__(self, "mask_rates", freeze(self.mask_rates))
        for name, rate in self.mask_rates.items():
            if name not in self.inputs or not 0.0 <= rate <= 1.0:
                raise ConfigError(f"mask_rates[{name!r}]: expected an input and a rate in [0, 1], got {rate}")
        for name, output in outputs.items():
            self._check_output(name, output)
        if self.modality_padding < 0:
            raise ConfigError(f"modality_padding must be at least 0, got {self.modality_padding}")
        if not 0.0 <= self.modality_dropout < 1.0:
            raise ConfigError(f"modality_dropout must be in [0, 1), got {self.modality_dropout}")
        if self.robot is not None:
            self._check_robot(self.robot)

    def _check_robot(self, robot: Robot) -> None:
        """Raise ConfigError where a robot names an input that is not there, or an output that gives no actions."""
        for name in robot.sensors:
            if name not in self.inputs:
                raise ConfigError(f"robot.sensors[{name!r}]: no such input; {suggestion(name, self.inputs)}")
        if robot.action not in self.outputs:
            raise ConfigError(f"robot.action: no output {robot.action!r}; {suggestion(robot.action, self.outputs)}")
        head = self.outputs[robot.action].head
        if not isinstance(head, ActionHead):
            raise ConfigError(f"robot.action: expected an output that gives actions, got {type(head).__name__}")

    def _check_output(self, name: str, output: Output | Pooled) -> None:
        """Raise ConfigError where an output names a trunk or a text input that is not there."""
        trunk = output.trunk if isinstance(output, Output) else None
        if trunk is not None and trunk not in self.trunks:
            raise ConfigError(f"outputs[{name!r}].trunk: no trunk {trunk!r}; {suggestion(trunk, self.trunks)}")
        tied = output.head.tied_to if isinstance(output.head, TokenLogits) else None
        if tied is not None and not isinstance(self.inputs.get(tied), Text):
            texts = [n for n, adapter in self.inputs.items() if isinstance(adapter, Text)]
            raise ConfigError(f"outputs[{name!r}].tied_to: no text input {tied!r}; {suggestion(tied, texts)}")

    @property
    def token_channels(self) -> int:
        """Width of the tokens that the encoder sees."""
        widest = max(adapter.channels for adapter in self.inputs.values())
        return widest + (self.modality_padding if len(self.inputs) > 1 else 0)

    def initial(self, key: jax.Array) -> "Perceiver":
        """See ModelConfig."""
        return Perceiver(self, nnx.Rngs(key))


class Perceiver(Model):
    """One model for any mix of modalities and any set of questions.

    Inputs are a dict of raw arrays by modality, masks a dict by modality (bool, True = real): [b] says which samples
    have the modality, a longer mask which elements are real; see each adapter. Any subset of the inputs may be given.
    """

    def __init__(self, config: PerceiverConfig, rngs: nnx.Rngs):
        dtype = config.compute.dtype
        widths = {name: adapter.channels for name, adapter in config.inputs.items()}
        self.config = config
        self.adapters = nnx.Dict({n: a.build(dtype=dtype, rngs=rngs) for n, a in sorted(config.inputs.items())})
        self.join = Join(widths, config.token_channels, config.mask_rates, dtype=dtype, rngs=rngs)
        self.encoder = config.encoder.build(config.token_channels, dtype=dtype, rngs=rngs)
        width = config.encoder.channels
        self.trunks = nnx.Dict({n: t.build(width, dtype=dtype, rngs=rngs) for n, t in sorted(config.trunks.items())})
        self.decoders = nnx.Dict(
            {
                name: output.build(width, widths, config.trunks, dtype=dtype, rngs=rngs)
                for name, output in sorted(config.outputs.items())
            }
        )

    def __call__(
        self,
        inputs: Mapping[str, Raw],
        masks: Mapping[str, Array] | None = None,
        outputs: Sequence[str] | None = None,
        queries: Mapping[str, Array] | None = None,
        *,
        looking: Mapping[str, Array] | None = None,
        key: jax.Array | None = None,
    ) -> dict[str, Array]:
        """Encode, then decode: see there. key: randomness for dropout in training; None for evaluation."""
        encode_key, decode_key = split_key(key, 2)
        latents = self.encode(inputs, masks, key=encode_key)
        return self.decode(latents, outputs, queries, looking=looking, key=decode_key)

    def encode(
        self,
        inputs: Mapping[str, Raw],
        masks: Mapping[str, Array] | None = None,
        *,
        key: jax.Array | None = None,
    ) -> Latents:
        """Raw inputs to latents.

        Raises:
            InputError: an unknown modality, or an array that does not fit; the message names the modality.
        """
        drop_key, encoder_key = split_key(key, 2)
        mask_key = None if key is None or not self.config.mask_rates else jax.random.fold_in(key, 2)
        tokens = self.tokenise(inputs, masks, key=key)
        tokens = self._drop_modalities(tokens, drop_key)
        size = self.encoder.draw(None if key is None else jax.random.fold_in(key, 3))
        values = self.encoder(self.join(tokens, key=mask_key), size=size, key=encoder_key)
        read = {decoder.config.source for decoder in self.decoders.values()}
        tokens = {name: part for name, part in tokens.items() if name in read}
        return Latents(values, tokens, size.shown(*values.shape[:2]))

    def decode(
        self,
        latents: Latents,
        outputs: Sequence[str] | None = None,
        queries: Mapping[str, Array] | None = None,
        *,
        looking: Mapping[str, Array] | None = None,
        key: jax.Array | None = None,
    ) -> dict[str, Array]:
        """Latents to answers, float32, by output name.

        outputs: which to answer; None answers all whose queries can be formed without being given any.
        queries: for single outputs, which of the queries to ask or where; see each query's class.
        looking: for single outputs, bool [b, q]: False for queries that see nothing (the reference's query mask).

        Raises:
            InputError: an unknown output, or a query that does not fit; the message names the output.
        """
        queries = {} if queries is None else queries
        looking = {} if looking is None else looking
        names = self._answerable(latents, queries) if outputs is None else list(outputs)
        for name in [*names, *queries, *looking]:
            if name not in self.decoders:
                raise InputError(f"outputs[{name!r}]: no such output; {suggestion(name, self.decoders)}")
        for argument, given in (("queries", queries), ("looking", looking)):
            unasked = [name for name in given if name not in names]
            if unasked:
                raise InputError(f"{argument}[{unasked[0]!r}]: this output is not among the asked: {', '.join(names)}")
        tables = {n: a.table[...] for n, a in self.adapters.items() if isinstance(a, TextTokens)}
        answers = {}
        for name, own_key in zip(names, split_key(key, len(names)), strict=True):
            with naming(f"outputs[{name!r}]"):
                decoder = self.decoders[name]
                answers[name] = decoder(
                    latents.values,
                    latents.tokens,
                    tables,
                    queries.get(name),
                    shown=latents.mask,
                    looking=looking.get(name),
                    trunks=self.trunks,
                    key=own_key,
                )
        return answers

    def tokenise(
        self,
        inputs: Mapping[str, Raw],
        masks: Mapping[str, Array] | None = None,
        *,
        key: jax.Array | None = None,
    ) -> dict[str, Tokens]:
        """Each modality's tokens, before they are joined. key: given in training, for adapters that take one."""
        masks = {} if masks is None else masks
        if not inputs:
            raise InputError(f"inputs: expected at least one of {', '.join(sorted(self.adapters))}, got none")
        for name in [*inputs, *masks]:
            if name not in self.adapters:
                raise InputError(f"inputs[{name!r}]: no such modality; {suggestion(name, self.adapters)}")
        orphans = [name for name in masks if name not in inputs]
        if orphans:
            raise InputError(f"masks[{orphans[0]!r}]: a mask without its input")
        inputs = {**self._hidden(inputs), **inputs}
        tokens = {}
        for name in sorted(inputs):
            with naming(f"inputs[{name!r}]"):
                module, mask = self.adapters[name], masks.get(name)
                extra = {"key": key} if key is not None and getattr(module, "takes_key", False) else {}
                made = module(inputs[name], None if mask is None else jnp.asarray(mask), **extra)
                tokens[name] = Tokens(by_sample(made.values), made.mask)
        sizes = {name: part.values.shape[0] for name, part in tokens.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(f"inputs: expected one batch size, got {sizes}")
        return tokens

    def attention(
        self, inputs: Mapping[str, Raw], masks: Mapping[str, Array] | None = None
    ) -> dict[str, Float[Array, "b h n m"]]:
        """Where each latent first looks: weights [b, heads, latents, tokens] by modality, summing to 1 over all."""
        tokens = self.tokenise(inputs, masks)
        joined = self.join(tokens)
        first = self.encoder.cross[self.config.encoder.cross_attends[0]]
        weights = first.weights(self.encoder.start(joined), joined)
        ends = np.cumsum([tokens[name].values.shape[1] for name in sorted(tokens)])
        pieces = jnp.split(weights, ends[:-1], axis=-1)
        return dict(zip(sorted(tokens), pieces, strict=True))

    def _hidden(self, inputs: Mapping[str, Raw]) -> dict[str, Array]:
        """Stand-ins for inputs that always hide behind their mask token and so need not be given."""
        always = [n for n, rate in self.config.mask_rates.items() if rate == 1.0 and n not in inputs]
        batches = [raw.shape[0] for raw in inputs.values() if getattr(raw, "ndim", 0)]
        if not batches:
            return {}  # tokenise says what is wrong with the inputs
        examples = {name: self.config.inputs[name].example(batches[0]) for name in always}
        return {name: jnp.zeros(example.shape, example.dtype) for name, example in examples.items()}

    def _answerable(self, latents: Latents, queries: Mapping[str, Array]) -> list[str]:
        def can(output: Output | Pooled) -> bool:
            return output.shape is not None if output.source is None else output.source in latents.tokens

        return [n for n, decoder in self.decoders.items() if n in queries or can(decoder.config)]

    def _drop_modalities(self, tokens: dict[str, Tokens], key: jax.Array | None) -> dict[str, Tokens]:
        """Hide modalities of single samples at random; a sample that would lose all keeps all."""
        rate = self.config.modality_dropout
        if key is None or rate == 0.0 or len(tokens) == 1:
            return tokens
        names = sorted(tokens)
        parts = [tokens[name] for name in names]
        batch = parts[0].values.shape[0]
        masks = [jnp.ones(p.values.shape[:2], bool) if p.mask is None else p.mask for p in parts]
        present = jnp.stack([mask.any(axis=1) for mask in masks], axis=1)
        kept = present & jax.random.bernoulli(key, 1.0 - rate, (batch, len(names)))
        kept = jnp.where(kept.any(axis=1, keepdims=True), kept, present)
        shown: Iterable[Bool[Array, "b n"]] = (m & kept[:, i, None] for i, m in enumerate(masks))
        return {n: Tokens(p.values, m) for n, p, m in zip(names, parts, shown, strict=True)}


def parameter_count(module: nnx.Module) -> int:
    """Number of trained numbers, however they are stored."""
    state = nnx.state(module, nnx.Param)
    return sum(int(leaf.size) for leaf in jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, Int8)))


def parameter_bytes(module: nnx.Module) -> int:
    """Memory that the trained numbers take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def presence_of(inputs: Mapping[str, Any]) -> dict[str, Array]:
    """All-present masks [b] for a batch of inputs: a start for hiding some."""
    return {name: jnp.ones((raw.shape[0],), bool) for name, raw in inputs.items()}
