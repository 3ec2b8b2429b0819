"""A language model that looks: media through a resampler into gated layers between its own (Flamingo, 2204.14198)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.base import Adapter
from perceiver.causal import CausalText
from perceiver.errors import ConfigError, InputError, naming
from perceiver.generation import DRAWN, Sampling, reading_all, write
from perceiver.model import Compute, Model, ModelConfig
from perceiver.quantised import Weights
from perceiver.resampler import GatedCrossAttend, Resampler, media_times
from perceiver.tokens import check_array
from perceiver.typing import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class CaptionerConfig(ModelConfig):
    """Pictures, or another modality, and a text that speaks of them.

    media: how one of them becomes tokens. resampler: their latents. text: the language model. look: the layers by which
    it looks at the latents, one in front of each of its own. marker: the id that stands in the text where a picture
    is: what follows sees that picture, and with `look.latest` False those before it too. compute: dtype of the
    computation. weights: how parameters are stored.
    """

    media: Adapter
    resampler: Resampler
    text: CausalText
    look: GatedCrossAttend
    marker: int
    compute: Compute = Compute.FLOAT32
    weights: Weights = Weights.FLOAT32

    def __post_init__(self) -> None:
        if self.look.channels != self.text.channels or self.look.media_channels != self.resampler.channels:
            raise ConfigError(
                f"CaptionerConfig.look: expected channels {self.text.channels} of text and {self.resampler.channels} "
                f"of media, got {self.look.channels} and {self.look.media_channels}"
            )
        if not 0 <= self.marker < self.text.vocabulary:
            raise ConfigError(f"CaptionerConfig.marker: expected an id below {self.text.vocabulary}, got {self.marker}")

    def initial(self, key: jax.Array) -> "Captioner":
        """See ModelConfig."""
        return Captioner(self, nnx.Rngs(key))


class Captioner(Model):
    """See CaptionerConfig. `text` is the language model, whose parameters are those of `causal.Language`."""

    def __init__(self, config: CaptionerConfig, rngs: nnx.Rngs):
        dtype = config.compute.dtype
        self.config = config
        self.text = config.text.build(dtype=dtype, rngs=rngs)
        self.media: Any = config.media.build(dtype=dtype, rngs=rngs)
        self.project = nnx.Linear(config.media.channels, config.resampler.channels, dtype=dtype, rngs=rngs)
        self.resampler = config.resampler.build(dtype=dtype, rngs=rngs)
        self.looks = nnx.List([config.look.build(dtype=dtype, rngs=rngs) for _ in range(config.text.depth)])

    def __call__(
        self, media: Array, ids: Int[Array, "b n"], mask: Array | None = None, *, key: jax.Array | None = None
    ) -> Float[Array, "b n v"]:
        """Logits of the id that follows each position, float32.

        media: raw form of the adapter behind axes of the sample and of its pictures, [b, m, …]. ids: the text, with the
        marker where each picture is. mask: of the media, as the adapter's behind the same two axes. key: for dropout.

        Raises:
            InputError: media or ids of another shape.
        """
        return self.read(self.seen(media, mask), ids, key=key)

    def seen(self, media: Array, mask: Array | None = None) -> Float[Array, "b m l c"]:
        """The latents of each picture, to be looked at as often as wanted."""
        with naming("media"):
            if jnp.ndim(media) < 3:
                raise InputError(f"expected [b, m, …], got {jnp.shape(media)}")
            batch, count = media.shape[:2]
            flat = None if mask is None else jnp.asarray(mask).reshape(batch * count, *mask.shape[2:])
            tokens = self.media(jnp.asarray(media).reshape(batch * count, *media.shape[2:]), flat)
            values = self.project(tokens.values)
            shape = batch, count, 1, *values.shape[1:]
            real = None if tokens.mask is None else tokens.mask.reshape(shape[:-1])
            return self.resampler(values.reshape(shape), real)

    def read(
        self, latents: Float[Array, "b m l c"], ids: Int[Array, "b n"], *, key: jax.Array | None = None
    ) -> Float[Array, "b n v"]:
        """Logits, from what `seen` gives."""
        with naming("ids"):
            check_array(ids, (latents.shape[0], "n"), "iu")
            times = media_times(jnp.asarray(ids) == self.config.marker)
            return self.text(ids, between=lambda number, x: self.looks[number](x, latents, times), key=key)


def hold(module: nnx.Module) -> None:
    """Make constants of a module's parameters, so that no gradients of them are computed; within an objective."""
    nnx.update(module, jax.tree.map(jax.lax.stop_gradient, nnx.state(module, nnx.Param)))


def frozen(path: tuple[Any, ...]) -> bool:
    """Whether a parameter of a captioner belongs to its language model, which stays as it is."""
    return getattr(path[0], "key", None) == "text"


def caption(
    model: Captioner,
    media: Array,
    ids: Int[Array, "b n"],
    lengths: Int[Array, "b"],
    *,
    end: int,
    padding: int,
    sampling: Sampling = DRAWN,
    seed: int = 0,
) -> Int[np.ndarray, "b n"]:
    """Go on with rows of ids, of their own lengths, about media; up to and with the first `end`, padding behind it.

    Arguments as for `Captioner.__call__` and `generation.write`; compiled once per shape.
    """
    graph, state = nnx.split(model)
    key = jax.random.key(seed)
    return np.asarray(_caption(graph, state, media, ids, jnp.asarray(lengths), key, end, padding, sampling))


@functools.partial(jax.jit, static_argnames=("graph", "end", "padding", "sampling"))
def _caption(graph: nnx.GraphDef, state: nnx.State, media, ids, lengths, key, end, padding, sampling):
    model = nnx.merge(graph, state)
    latents = model.seen(media)
    return write(reading_all(lambda rows: model.read(latents, rows)), (), ids, lengths, sampling, key, end, padding)
