"""A Perceiver that senses, and an autoregressive one that tells of it: any modalities in, text out.

Each latent of the text looks at the latents of what was sensed before it looks at the text, so that these are computed
once and asked about for every letter. Unlike `captioner`, both are trained together, and the text may be long.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from perceiver.adapters.text import BOS, EOS, PAD, Bytes, encode_bytes
from perceiver.autoregressive import AutoregressiveConfig, Foretold
from perceiver.continuation import ANYTHING, Continued, Wish, continued
from perceiver.errors import ConfigError, InputError
from perceiver.model import Compute, Model, ModelConfig, PerceiverConfig
from perceiver.tokens import Tokens
from perceiver.typing import Array, Int


@dataclasses.dataclass(frozen=True)
class NarratorConfig(ModelConfig):
    """senses: the Perceiver; it needs no outputs. text: what tells, of bytes; its `about` is as wide as the senses'
    latents.
    """

    senses: PerceiverConfig
    text: AutoregressiveConfig

    def __post_init__(self) -> None:
        if self.text.about != self.senses.encoder.channels:
            raise ConfigError(
                f"NarratorConfig.text: expected `about` to be the {self.senses.encoder.channels} channels of the "
                f"senses' latents, got {self.text.about}"
            )
        if not isinstance(self.text.text, Bytes):
            raise ConfigError(f"NarratorConfig.text: expected Bytes, got {type(self.text.text).__name__}")

    @property
    def compute(self) -> Compute:  # type: ignore[override]
        """As the senses'."""
        return self.senses.compute

    def initial(self, key: jax.Array) -> "Narrator":
        """See ModelConfig."""
        return Narrator(self, nnx.Rngs(key))


class Narrator(Model):
    """See NarratorConfig."""

    def __init__(self, config: NarratorConfig, rngs: nnx.Rngs):
        self.config = config
        self.senses = config.senses.initial(rngs.params())
        self.text = config.text.initial(rngs.params())

    def sense(
        self, inputs: Mapping[str, Any], masks: Mapping[str, Array] | None = None, *, key: jax.Array | None = None
    ) -> Tokens:
        """The latents of what is sensed, to be told of as often as wanted; arguments and errors as for `encode`."""
        latents = self.senses.encode(inputs, masks, key=key)
        return Tokens(latents.values, latents.mask)

    def __call__(
        self,
        inputs: Mapping[str, Any],
        ids: Int[Array, "b n"],
        masks: Mapping[str, Array] | None = None,
        *,
        first: Int[Array, "b"] | None = None,
        count: int | None = None,
        key: jax.Array | None = None,
    ) -> Foretold:
        """What follows the places of a text about the inputs; arguments and errors as for both models' calls."""
        sense_key, text_key = (None, None) if key is None else jax.random.split(key)
        return self.text(ids, first=first, count=count, about=self.sense(inputs, masks, key=sense_key), key=text_key)


def row_of(text: str, length: int) -> Int[np.ndarray, "n"]:
    """A text to learn to tell, int32 [length]: BOS, its bytes, EOS, padding.

    Raises:
        InputError: a text that is too long.
    """
    ids = encode_bytes(text)
    if len(ids) > length - 2:
        raise InputError(f"expected at most {length - 2} bytes, got {len(ids)} of {text!r:.40}")
    row = np.full(length, PAD, np.int32)
    row[: len(ids) + 2] = [BOS, *ids, EOS]
    return row


def narrated(
    model: Narrator,
    inputs: Mapping[str, Any],
    masks: Mapping[str, Array] | None = None,
    *,
    prompts: Sequence[str] | None = None,
    wish: Wish = ANYTHING,
) -> list[Continued]:
    """What the model tells of each sample of a batch. prompts: how each text begins; None: with nothing.

    Raises:
        InputError: inputs that do not fit, or as many prompts as there are not samples.
    """
    about = sensed(model, inputs, masks)
    return continued(model.text, [""] * len(about.values) if prompts is None else prompts, wish, about)


def sensed(model: Narrator, inputs: Mapping[str, Any], masks: Mapping[str, Any] | None = None) -> Tokens:
    """As `Narrator.sense`, but compiled."""
    graph, state = nnx.split(model)
    return _sensed(graph, state, dict(inputs), dict(masks or {}))


@functools.partial(jax.jit, static_argnames="graph")
def _sensed(graph: nnx.GraphDef, state: nnx.State, inputs: Any, masks: Any) -> Tokens:
    return nnx.merge(graph, state).sense(inputs, masks)
