"""Zero-shot classification: pictures, or anything else, among names that a model was never trained to tell apart."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.dual import DualEncoder
from perceiver.embedding import TEMPLATES, embed, embed_names, output_of
from perceiver.errors import InputError
from perceiver.model import Model, Perceiver
from perceiver.typing import Float


def classify(
    model: Model,
    items: Sequence[Any],
    names: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    batch: int = 32,
    *,
    modality: str = "image",
    text: str = "text",
) -> Float[np.ndarray, "items names"]:
    """Probability of each name for each item, float32: over the names together (CLIP), or each on its own (SigLIP).

    items: files or arrays of a modality, see `embedding.embed`. names: what there may be. templates: sentences with {}
    for the name; several are averaged. batch: items, or sentences, that go through the model together. modality, text:
    the model's names for the two.

    Raises:
        InputError: nothing to tell apart, a template without {}, an item that cannot be read, a model without texts.
    """
    if isinstance(names, str) or not len(names):
        raise InputError(f"names: expected a list of at least one string, got {names!r:.80}")
    texts = embed_names(model, text, names, templates, batch)
    seen = embed(model, modality, items, batch)
    if isinstance(model, DualEncoder):
        return np.asarray(model.config.contrast.probabilities(model.logits(jnp.asarray(seen), jnp.asarray(texts))))
    assert isinstance(model, Perceiver)
    head: Any = model.decoders[output_of(model)].head
    return np.asarray(jax.nn.softmax(jnp.exp(head.log_scale[...]) * (seen @ texts.T), axis=-1))
