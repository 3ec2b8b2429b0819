"""Embeddings of files and arrays, of whatever modality: one vector of length 1 each, whatever comes with it.

The same item gives the same vector in any company: nothing is drawn at random, and a batch is filled up, never mixed.
Of a sound that is longer than the model hears at once all is heard, in evenly spaced clips whose vectors are averaged.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from perceiver.adapters.audio import Sound
from perceiver.config import suggestion
from perceiver.decoders.heads import Embedding
from perceiver.dual import DualEncoder
from perceiver.errors import InputError
from perceiver.inference import ask_all
from perceiver.model import Model, Perceiver
from perceiver.pipeline import Sample, in_batches
from perceiver.saving import float32_weights
from perceiver.typing import Float

TEMPLATES = ("a photo of a {}",)
"""What CLIP's paper (arXiv 2103.00020, section 3.1.4) says of a picture by default."""


def kinds_of(model: Model) -> dict[str, str]:
    """What a model can embed: the names of its modalities, with the kind of each.

    Raises:
        InputError: nothing; it has no `Embedding` among its outputs.
    """
    if isinstance(model, DualEncoder):
        return {"image": "Image", "text": "Subwords"}
    output_of(model)
    return {name: type(adapter).__name__ for name, adapter in model.config.inputs.items()}


def output_of(model: Model) -> str:
    """The output of a Perceiver that is an embedding.

    Raises:
        InputError: there is none, or several.
    """
    if not isinstance(model, Perceiver):
        raise InputError(f"a {type(model).__name__} gives no embeddings")
    found = [name for name, output in model.config.outputs.items() if isinstance(output.head, Embedding)]
    if len(found) != 1:
        names = ", ".join(model.config.outputs)
        raise InputError(f"expected a model with one output that is an Embedding, got {len(found)} of {names}")
    return found[0]


def embed(
    model: Model, modality: str, items: Sequence[Any], batch: int = 32, unreadable: dict[int, str] | None = None
) -> Float[np.ndarray, "items c"]:
    """One vector of length 1 for each item, float32.

    modality: of the items, by the model's name for it. items: files, texts or arrays, as its adapter's `load` takes
    them. batch: how many go through the model together. unreadable: where to note items that cannot be read, by their
    number, whose vectors are then zero; None raises.

    Raises:
        InputError: a model without embeddings, or without that modality; an item that cannot be read, by its number.
    """
    known = kinds_of(model)
    if modality not in known:
        raise InputError(f"no such modality: {modality!r}; {suggestion(modality, known)}")
    if isinstance(items, str) or not len(items):
        raise InputError(f"items: expected a list of at least one, got {items!r:.80}")
    load, ask = _door(model, modality)
    views: list[Any] = []
    owners: list[int] = []
    for number, item in enumerate(items):
        try:
            seen = load(item)
        except InputError as error:
            if unreadable is None:
                raise InputError(f"items[{number}]: {error}") from None
            unreadable[number] = str(error)
            continue
        views += seen
        owners += [number] * len(seen)
    if not views:
        raise InputError(f"items: none of {len(items)} can be read, such as {next(iter(unreadable or {}.values()))}")
    found = ask(views, batch)
    total = np.zeros((len(items), found.shape[1]))
    np.add.at(total, owners, found)
    return _unit(total)


def embed_names(
    model: Model, modality: str, names: Sequence[str], templates: Sequence[str] = TEMPLATES, batch: int = 32
) -> Float[np.ndarray, "names c"]:
    """One vector of length 1 for each name of a class: the mean over sentences about it, for zero-shot classification
    (CLIP, arXiv 2103.00020, section 3.1.4).

    modality: of texts, by the model's name for it. templates: sentences with {} in the place of the name.

    Raises:
        InputError: see `embed`; or a template without {}.
    """
    if isinstance(templates, str) or not len(templates):
        raise InputError(f"templates: expected a list of at least one string, got {templates!r:.80}")
    wrong = [template for template in templates if "{}" not in template]
    if wrong:
        raise InputError(f"templates: expected {{}} in the place of the name, got {wrong[0]!r:.80}")
    sentences = [template.replace("{}", name) for name in names for template in templates]
    return _unit(embed(model, modality, sentences, batch).reshape(len(names), len(templates), -1).sum(axis=1))


def digest_of(model: Model) -> str:
    """sha256 of what a model computes with: its declaration, and its weights as they are read."""
    found = hashlib.sha256(repr(model.config).encode())
    for name, array in sorted(float32_weights(model).items()):
        found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _door(model: Model, modality: str) -> tuple[Callable[[Any], list[Any]], Callable[[list[Any], int], np.ndarray]]:
    """What an item is to be seen as, in one view or in several; and what a number of views are embedded as."""
    if isinstance(model, Perceiver):
        adapter, output = model.config.inputs[modality], output_of(model)

        def views(item: Any) -> list[Sample]:
            if isinstance(adapter, Sound):
                return [_sample(modality, clip.raw, clip.mask) for clip in adapter.windows(item)]
            return [_sample(modality, *adapter.load(item))]

        return views, lambda samples, batch: ask_all(model, samples, batch, [output])[output].reshape(len(samples), -1)
    assert isinstance(model, DualEncoder)
    if modality == "image":
        image = model.config.image.image
        return lambda item: [image.load(item)[0]], functools.partial(_in_batches, model, _embed_image)
    return lambda item: [np.asarray(model.encode_text([item]))[0]], functools.partial(_in_batches, model, _embed_text)


@functools.partial(jax.jit, static_argnames=("graph",))
def _embed_text(graph: nnx.GraphDef, state: nnx.State, ids):
    return nnx.merge(graph, state).embed_text(ids)


@functools.partial(jax.jit, static_argnames=("graph",))
def _embed_image(graph: nnx.GraphDef, state: nnx.State, pixels):
    return nnx.merge(graph, state).embed_image(pixels)


def _in_batches(model: DualEncoder, embed: Callable[..., Any], rows: Sequence[Any], batch: int) -> np.ndarray:
    """Rows through a compiled function."""
    graph, state = nnx.split(model)
    parts = in_batches(rows, min(batch, len(rows)))
    return np.concatenate([np.asarray(embed(graph, state, part))[:count] for part, count in parts])


def _sample(modality: str, raw: np.ndarray, mask: np.ndarray | None) -> Mapping[str, Any]:
    return {"inputs": {modality: raw}} | ({} if mask is None else {"masks": {modality: mask}})


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-6), np.float32)
