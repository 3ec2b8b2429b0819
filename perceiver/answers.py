"""Answers for people: what the arrays of a decoded output say, as JSON, and files where JSON will not do."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import Progress

from perceiver.adapters.frames import FramePair, read_pair
from perceiver.adapters.text import BYTE_VOCABULARY, MASK, Bytes, Text, until_end
from perceiver.captioner import Captioner
from perceiver.ctc import greedy
from perceiver.decoders.decoder import Output, Pooled
from perceiver.decoders.heads import Classes, Dense, Embedding, Flow, SoundPatches, TokenLogits
from perceiver.decoders.queries import Grid
from perceiver.decoders.transcripts import CTC
from perceiver.dual import DualEncoder, VisionClassifier
from perceiver.errors import InputError, naming
from perceiver.inference import ask, decode_at, encode
from perceiver.model import Model, Perceiver
from perceiver.narrator import Narrator
from perceiver.saving import dump
from perceiver.zeroshot import classify

OVERLAP = 20
"""Pixels that tiles of a larger frame share, as in the release of the flow model."""
TOP = 5
"""Candidates listed per answer."""
CLIP_SECONDS = 0.04
"""Time that a frame of a decoded clip is shown: 25 frames a second."""


def sources_of(model: Model) -> dict[str, str]:
    """What may be asked about: a model's inputs by name, each with its kind, for `predict`.

    Raises:
        InputError: a model that reads no files.
    """
    if isinstance(model, Perceiver):
        return {name: type(adapter).__name__ for name, adapter in model.config.inputs.items()}
    if isinstance(model, VisionClassifier | DualEncoder):
        return {"image": "Image"}
    if isinstance(model, Narrator | Captioner):
        raise InputError(f"a {type(model).__name__} writes: perceiver generate lets it, about your files")
    raise InputError(f"a {type(model).__name__} reads arrays, not files: call it from Python")


def takes_names(model: Model) -> bool:
    """Whether `predict` needs names: the model compares pictures with texts."""
    return isinstance(model, DualEncoder)


def predict(
    model: Model,
    sources: Mapping[str, Any],
    folder: Path | None = None,
    names: Sequence[str] = (),
    size: Sequence[int] = (),
) -> dict[str, Any]:
    """Answer everything that can be answered about one sample.

    sources: by modality, a file or whatever else the adapter's `load` takes.
    folder: where pictures, sounds and arrays are written; None leaves such answers as a shape.
    names: what there may be in the picture, for a model that compares pictures with texts.
    size: cells along each axis at which pictures and other grids of as many axes are decoded; () for their own.

    Raises:
        InputError: a source cannot be read or does not fit; the message names it.
    """
    known = sources_of(model)
    for name in sources:
        if name not in known:
            raise InputError(f"inputs[{name!r}]: this model knows {', '.join(known)}")
    if names and not takes_names(model):
        raise InputError("names: only for a model that compares pictures with texts, such as CLIP")
    resized = _resized(model, size) if size else {}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Perceiver):
        answers = _perceived(model, sources, folder, resized)
    elif isinstance(model, DualEncoder):
        answers = {"name": _named(model, sources["image"], names)}
    else:
        assert isinstance(model, VisionClassifier)
        with naming("inputs['image']"):
            pixels = model.config.image.image.load(sources["image"])[0]
        answers = {
            "label": _classes(model.config.classes, np.asarray(nnx.jit(lambda m, x: m(x))(model, pixels[None]))[0])
        }
    if folder is not None:
        (folder / "answers.json").write_bytes(dump(answers))
    return answers


def _named(model: DualEncoder, picture: Any, names: Sequence[str]) -> dict[str, Any]:
    """Which of the names fit a picture."""
    if not names:
        raise InputError("names: say what there may be in the picture, such as --names cat dog")
    fitting = classify(model, [picture], list(names))[0]
    top = [{"name": names[i], "probability": round(float(fitting[i]), 4)} for i in np.argsort(-fitting)]
    return top[0] | {"top": top}


def _resized(model: Model, size: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The outputs that can be asked at a size, each with it; patches of sound would not fit together any more."""
    outputs = model.config.outputs if isinstance(model, Perceiver) else {}
    single = {n: out for n, out in outputs.items() if not isinstance(out.head, SoundPatches) or out.head.patch == 1}
    grids = {n: out.asked for n, out in single.items() if isinstance(out, Output) and isinstance(out.asked, Grid)}
    if not (fitting := [name for name, query in grids.items() if len(query.cells) == len(size)]):
        has = ", ".join(f"{name} of {query.cells}" for name, query in grids.items()) or "none"
        raise InputError(f"size: expected as many counts as an output's grid has axes ({has}), got {tuple(size)}")
    return dict.fromkeys(fitting, tuple(size))


def _perceived(
    model: Perceiver, sources: Mapping[str, Any], folder: Path | None, resized: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    inputs, masks = {}, {}
    for name, source in sources.items():
        adapter = model.config.inputs[name]
        with naming(f"inputs[{name!r}]"):
            if isinstance(adapter, FramePair):
                frames = read_pair(source, adapter.shape[2])
                if frames.shape[1:] != adapter.shape:
                    return {key: _flow(key, flow, folder) for key, flow in _tiled(model, name, frames).items()}
                raw, mask = frames, None
            else:
                raw, mask = adapter.load(source)
        inputs[name] = raw[None]
        if mask is not None:
            masks[name] = mask[None]
    values = ask(model, inputs, masks)
    for name, size in resized.items():
        values[name] = decode_at(model, encode(model, inputs, masks), name, size)
    return {name: _answer(model, name, value[0], inputs, folder) for name, value in values.items()}


def _tiled(model: Perceiver, name: str, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Flow between frames of another size than the model's, from overlapping tiles."""
    from perceiver.flow import tiled_flow, tiles

    tile = model.config.inputs[name].shape[:2]
    overlap = min(OVERLAP, *(side // 4 for side in tile))
    height, width = frames.shape[1:3]
    count = len(tiles(height, width, tile[0], tile[1], overlap))

    def through(key: str) -> np.ndarray:
        def one(pair: np.ndarray) -> np.ndarray:
            flow = ask(model, {name: pair}, outputs=[key])[key]
            bar.advance(task)
            return flow

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"{key}: tiles of {tile[0]} x {tile[1]}", total=count)
            return tiled_flow(one, frames, tile, overlap)

    return {key: through(key) for key, output in model.config.outputs.items() if isinstance(output.head, Flow)}


def _answer(
    model: Perceiver, name: str, values: np.ndarray, inputs: Mapping[str, np.ndarray], folder: Path | None
) -> Any:
    output = model.config.outputs[name]
    head = output.head
    if isinstance(head, Classes) and values.ndim == 1:
        return _classes(head, values)
    if isinstance(head, Embedding):
        return _neighbours(model, name, head, values)
    if isinstance(head, TokenLogits):
        return _text(model, head, values, inputs)
    if isinstance(head, Flow):
        return _flow(name, values, folder)
    if isinstance(head, SoundPatches):
        return _sound(name, output, values, folder)
    if isinstance(head, CTC):  # of one window; `perceiver transcribe` hears all of a sound
        return {"text": " ".join(head.decode(greedy(values.reshape(-1, values.shape[-1]))).split())}
    if isinstance(head, Dense | Classes):
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


def _text(model: Perceiver, head: TokenLogits, logits: np.ndarray, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The likeliest text, of bytes unless an input says otherwise; of what was given only masked bytes are replaced."""
    ids = np.atleast_2d(logits).argmax(axis=-1)
    source = head.tied_to or ""
    adapter = model.config.inputs.get(source)
    if not isinstance(adapter, Text):
        if head.vocabulary != BYTE_VOCABULARY:
            return {"tokens": ids.tolist()}
        text, complete = until_end(ids)
        return {"text": text, "complete": complete}
    given = inputs[source][0] if isinstance(adapter, Bytes) and source in inputs else None
    if given is None or len(given) != len(ids) or not (given == MASK).any():
        return {"text": adapter.decode(ids)}
    return {"text": adapter.decode(np.where(given == MASK, ids, given)), "filled": adapter.decode(ids[given == MASK])}


def _flow(name: str, values: np.ndarray, folder: Path | None) -> dict[str, Any]:
    """Displacements as a .flo file, and as a picture with the usual wheel of colours."""
    from perceiver.flow import flow_to_image, write_flo
    from perceiver.io.images import write_png

    length = np.hypot(values[..., 0], values[..., 1])
    described = {
        "shape": list(values.shape),
        "mean_pixels": round(float(length.mean()), 3),
        "largest_pixels": round(float(length.max()), 3),
    }
    if folder is None:
        return described
    write_flo(folder / f"{name}.flo", values)
    write_png(folder / f"{name}.png", flow_to_image(values))
    return described | {"file": str(folder / f"{name}.flo"), "picture": str(folder / f"{name}.png")}


def _sound(name: str, output: Output | Pooled, values: np.ndarray, folder: Path | None) -> dict[str, Any]:
    """A sound as a .wav file; asked at more places than were declared, it has more samples a second."""
    assert isinstance(output.head, SoundPatches)
    wave = np.clip(values.reshape(-1), -1.0, 1.0)
    denser = len(values) / math.prod(output.shape or (len(values),))
    rate = max(round(output.head.sample_rate * denser), 1)
    described = {"seconds": round(len(wave) / rate, 3), "sample_rate": rate}
    if folder is None:
        return described
    from perceiver.io.audio import write_wav

    path = folder / f"{name}.wav"
    write_wav(path, wave, rate)
    return described | {"file": str(path)}


def _field(name: str, output: Output | Pooled, values: np.ndarray, folder: Path | None) -> dict[str, Any]:
    """A picture or a clip where the field is one, an .npy file otherwise; class logits become class numbers first."""
    if isinstance(output.head, Classes):
        values = values.argmax(axis=-1)
    described: dict[str, Any] = {"shape": list(values.shape)}
    if folder is None:
        return described
    if values.ndim in (3, 4) and values.shape[-1] in (1, 3):
        from perceiver.io.images import write_gif, write_png

        moving = values.ndim == 4
        path = folder / f"{name}.{'gif' if moving else 'png'}"
        shown = np.clip(values, 0.0, 1.0)
        if moving:
            write_gif(path, shown, CLIP_SECONDS)
        else:
            write_png(path, shown)
    else:
        path = folder / f"{name}.npy"
        np.save(path, values, allow_pickle=False)
    return described | {"file": str(path)}
