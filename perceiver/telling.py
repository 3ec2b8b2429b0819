"""What a model that looks or listens writes about files: a narrator of any modalities, a captioner of its one."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from perceiver.adapters.base import Adapter
from perceiver.adapters.text import BOS, BYTE_VOCABULARY, EOS, Bytes, encode_bytes
from perceiver.captioner import Captioner
from perceiver.continuation import ANYTHING, Piece, Rows, Wish, pieces, stream
from perceiver.errors import InputError, naming
from perceiver.generation import Draft, Sampling, begin, go_on, reading_all
from perceiver.narrator import Narrator, sensed
from perceiver.typing import Array, Float

MEDIA = "media"
"""What a captioner's one input is called."""


def tell(
    model: Narrator | Captioner, sources: Mapping[str, Any], prompts: Sequence[str] = ("",), wish: Wish = ANYTHING
) -> Iterator[Piece]:
    """Write about one sample, once behind each prompt, and tell what is new as it comes; see `continuation.stream`.

    sources: by modality, a file or whatever else the adapter's `load` takes; a captioner's one is MEDIA. Some of a
        narrator's may be missing. A captioner is one of bytes, whose texts are the marker of the picture, BOS, what is
        said, and EOS.

    Raises:
        InputError: a source that cannot be read or that the model does not know, none at all, or a prompt that leaves
            no room; or a captioner of something else than bytes.
    """
    adapters = {MEDIA: model.config.media} if isinstance(model, Captioner) else model.config.senses.inputs
    inputs, masks = _read(adapters, sources)
    if isinstance(model, Captioner):
        return _of_picture(model, inputs[MEDIA], masks.get(MEDIA), prompts, wish)
    about = sensed(model, inputs, masks)
    repeated = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), len(prompts), axis=0), about)
    return stream(model.text, prompts, wish, repeated)


def _read(
    adapters: Mapping[str, Adapter], sources: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and masks of a batch of one."""
    if not sources:
        raise InputError(f"about: expected at least one of {', '.join(adapters)}, got none")
    inputs, masks = {}, {}
    for name, source in sources.items():
        with naming(f"about {name!r}"):
            if name not in adapters:
                raise InputError(f"this model knows {', '.join(adapters)}")
            raw, mask = adapters[name].load(source)
        inputs[name] = raw[None]
        if mask is not None:
            masks[name] = mask[None]
    return inputs, masks


def _of_picture(
    model: Captioner, media: np.ndarray, mask: np.ndarray | None, prompts: Sequence[str], wish: Wish
) -> Iterator[Piece]:
    if model.config.text.vocabulary != BYTE_VOCABULARY:
        raise InputError(f"expected a captioner of bytes, got one of {model.config.text.vocabulary} ids")
    text = Bytes(model.config.text.max_length)
    starts = [np.array([model.config.marker, BOS, *encode_bytes(prompt)], np.int32) for prompt in prompts]
    for number, start in enumerate(starts):
        if len(start) >= text.max_length:
            raise InputError(
                f"prompt {number}: expected at most {text.max_length - 3} bytes, to leave room for more, "
                f"got {len(start) - 2}"
            )
    graph, state = nnx.split(model)
    latents = _seen(graph, state, media[:, None], None if mask is None else mask[:, None])
    latents = np.repeat(np.asarray(latents), len(prompts), axis=0)

    def start_rows(ids: Any, lengths: Any, limits: Any, padding: int) -> Draft:
        return begin(ids, lengths, limits, padding, ())

    def go(draft: Draft, until: Any, key: jax.Array) -> Draft:
        return _go_on(graph, state, latents, draft, until, key, wish.sampling)

    return pieces(Rows(start_rows, go, text, EOS), starts, wish)


@functools.partial(jax.jit, static_argnames="graph")
def _seen(graph: nnx.GraphDef, state: nnx.State, media: Any, mask: Any) -> Float[Array, "b m l c"]:
    return nnx.merge(graph, state).seen(media, mask)


@functools.partial(jax.jit, static_argnames=("graph", "sampling"))
def _go_on(
    graph: nnx.GraphDef, state: nnx.State, latents: Any, draft: Draft, until: Any, key: jax.Array, sampling: Sampling
) -> Draft:
    model = nnx.merge(graph, state)
    return go_on(reading_all(lambda ids: model.read(latents, ids)), draft, until, sampling, key, EOS)
