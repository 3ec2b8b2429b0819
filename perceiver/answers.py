"""Answers for people: what the arrays of a decoded output say, as JSON, and files where JSON will not do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceiver.adapters.text import Text
from perceiver.decoders.decoder import Output
from perceiver.decoders.heads import Classes, Dense, Embedding, TokenLogits
from perceiver.errors import InputError, naming
from perceiver.inference import ask
from perceiver.model import Perceiver
from perceiver.saving import dump

TOP = 5
"""Candidates listed per answer."""


def predict(model: Perceiver, sources: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Answer everything that can be answered about one sample.

    sources: by modality, a file or whatever else the adapter's `load` takes.
    folder: where pictures and arrays are written; None leaves such answers as a shape.

    Raises:
        InputError: a source cannot be read or does not fit; the message names it.
    """
    inputs, masks = {}, {}
    for name, source in sources.items():
        if name not in model.config.inputs:
            raise InputError(f"inputs[{name!r}]: this model knows {', '.join(model.config.inputs)}")
        with naming(f"inputs[{name!r}]"):
            raw, mask = model.config.inputs[name].load(source)
        inputs[name] = raw[None]
        if mask is not None:
            masks[name] = mask[None]
    values = ask(model, inputs, masks)
    answers = {name: _answer(model, name, value[0], folder) for name, value in values.items()}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "answers.json").write_bytes(dump(answers))
    return answers


def _answer(model: Perceiver, name: str, values: np.ndarray, folder: Path | None) -> Any:
    output = model.config.outputs[name]
    if isinstance(output.head, Classes) and values.ndim == 1:
        return _classes(output.head, values)
    if isinstance(output.head, Embedding):
        return _neighbours(model, name, output.head, values)
    if isinstance(output.head, TokenLogits):
        return _text(model, output.head, values)
    if isinstance(output.head, Dense | Classes):
        return _field(name, output, values, folder)
    return values.tolist()


def _classes(head: Classes, logits: np.ndarray) -> dict[str, Any]:
    shifted = np.exp(logits - logits.max())
    probabilities = shifted / shifted.sum()
    best = np.argsort(-probabilities)[:TOP]
    names = head.names or tuple(str(i) for i in range(head.count))
    top = [{"class": int(i), "name": names[i], "probability": round(float(probabilities[i]), 4)} for i in best]
    return top[0] | {"top": top}


def _neighbours(model: Perceiver, name: str, head: Embedding, vector: np.ndarray) -> dict[str, Any]:
    """The candidate texts nearest to an embedding, by cosine."""
    readers = {n: a for n, a in model.config.inputs.items() if isinstance(a, Text)}
    if not head.candidates or not readers:
        return {"vector": [round(float(x), 5) for x in vector]}
    modality, adapter = next(iter(readers.items()))
    ids = np.stack([adapter.load(text)[0] for text in head.candidates])
    cosine = ask(model, {modality: ids}, outputs=[name])[name] @ vector
    best = np.argsort(-cosine)[: 2 * TOP]
    return {"nearest": [{"text": head.candidates[i], "cosine": round(float(cosine[i]), 4)} for i in best]}


def _text(model: Perceiver, head: TokenLogits, logits: np.ndarray) -> dict[str, Any]:
    ids = np.atleast_2d(logits).argmax(axis=-1)
    adapter = model.config.inputs.get(head.tied_to or "")
    return {"text": adapter.decode(ids)} if isinstance(adapter, Text) else {"tokens": ids.tolist()}


def _field(name: str, output: Output, values: np.ndarray, folder: Path | None) -> dict[str, Any]:
    """A picture where the field is one, an .npy file otherwise; class logits become class numbers first."""
    if isinstance(output.head, Classes):
        values = values.argmax(axis=-1)
    described: dict[str, Any] = {"shape": list(values.shape)}
    if folder is None:
        return described
    folder.mkdir(parents=True, exist_ok=True)
    if values.ndim == 3 and values.shape[-1] in (1, 3):
        from perceiver.io.images import write_png

        path = folder / f"{name}.png"
        write_png(path, np.clip(values, 0.0, 1.0))
    else:
        path = folder / f"{name}.npy"
        np.save(path, values, allow_pickle=False)
    return described | {"file": str(path)}
