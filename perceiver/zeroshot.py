"""Zero-shot classification: pictures among names that a model was never trained to tell apart (CLIP, SigLIP)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.dual import DualEncoder
from perceiver.errors import InputError, naming
from perceiver.typing import Float

TEMPLATES = ("a photo of a {}",)
"""What CLIP's paper (arXiv 2103.00020, section 3.1.4) says of a picture by default."""


def classify(
    model: DualEncoder,
    images: Sequence[Any],
    names: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    batch: int = 32,
) -> Float[np.ndarray, "images names"]:
    """Probability of each name for each picture, float32: over the names together (CLIP), or each on its own (SigLIP).

    images: files or uint8 arrays [h, w, c] of any size, or one batch [b, h, w, c] of the model's own size.
    names: what there may be. templates: sentences with {} for the name; several are averaged, see `name_embeddings`.
    batch: pictures, or sentences, that go through the model together.

    Raises:
        InputError: nothing to tell apart, a template without {}, a file that is no picture, a model without tokenizer.
    """
    texts = jnp.asarray(name_embeddings(model, names, templates, batch))
    logits = model.logits(jnp.asarray(image_embeddings(model, images, batch)), texts)
    return np.asarray(model.config.contrast.probabilities(logits))


def name_embeddings(
    model: DualEncoder, names: Sequence[str], templates: Sequence[str] = TEMPLATES, batch: int = 32
) -> Float[np.ndarray, "names d"]:
    """One embedding of length 1 a name: the mean of its sentences' embeddings, scaled to length 1.

    Raises:
        InputError: see `classify`.
    """
    for what, given in (("names", names), ("templates", templates)):
        if isinstance(given, str) or not len(given):
            raise InputError(f"{what}: expected a list of at least one string, got {given!r:.80}")
    wrong = [template for template in templates if "{}" not in template]
    if wrong:
        raise InputError(f"templates: expected {{}} in the place of the name, got {wrong[0]!r:.80}")
    sentences = [template.replace("{}", name) for name in names for template in templates]
    embedded = _in_batches(model, _embed_text, np.asarray(model.encode_text(sentences)), batch)
    means = embedded.reshape(len(names), len(templates), -1).mean(axis=1)
    return means / np.maximum(np.linalg.norm(means, axis=-1, keepdims=True), 1e-6)


def image_embeddings(model: DualEncoder, images: Sequence[Any], batch: int = 32) -> Float[np.ndarray, "images d"]:
    """One embedding of length 1 a picture.

    Raises:
        InputError: see `classify`; the message names the picture by its number.
    """
    if isinstance(images, str) or not len(images):
        raise InputError(f"images: expected a list of files or arrays, got {images!r:.80}")
    image = model.config.image.image
    if getattr(images, "shape", ())[1:] == image.shape:
        return _in_batches(model, _embed_image, np.asarray(images), batch)
    loaded = []
    for number, source in enumerate(images):
        with naming(f"images[{number}]"):
            loaded.append(image.load(source)[0])
    return _in_batches(model, _embed_image, np.stack(loaded), batch)


@functools.partial(jax.jit, static_argnames=("graph",))
def _embed_text(graph: nnx.GraphDef, state: nnx.State, ids):
    return nnx.merge(graph, state).embed_text(ids)


@functools.partial(jax.jit, static_argnames=("graph",))
def _embed_image(graph: nnx.GraphDef, state: nnx.State, pixels):
    return nnx.merge(graph, state).embed_image(pixels)


def _in_batches(model: DualEncoder, embed: Callable[..., Any], arrays: np.ndarray, batch: int) -> np.ndarray:
    """Rows through a compiled function; the last batch is filled with its last row, so that nothing recompiles."""
    graph, state = nnx.split(model)
    size = min(batch, len(arrays))
    pieces = []
    for start in range(0, len(arrays), size):
        rows = np.minimum(np.arange(start, start + size), len(arrays) - 1)
        pieces.append(np.asarray(embed(graph, state, arrays[rows])))
    return np.concatenate(pieces)[: len(arrays)]
