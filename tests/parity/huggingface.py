"""Cases hf_perceiver_*: Hugging Face's Perceivers, from their own config.json and safetensors."""

import json

import jax
import numpy as np
from flax import nnx

from perceiver.adapters.image import Image
from perceiver.hub import HubFiles
from perceiver.tokens import Tokens
from perceiver.zoo.resizing import resized
from tests.parity import probes
from tests.parity.comparison import Comparison
from tests.parity.deepmind import answer
from tests.zoo.models import from_hub, raw_numbers

FINE = {
    "encoder_inputs": 2e-4,
    "decoder_query": 2e-4,
    "encoder_cross_attention_out": 6e-4,
    "encoder_latents": 6e-4,
    "logits": 2e-4,
}
"""Absolute differences that sines up to a frequency of 112 allow: the order of rounding alone moves them by so much, in
the reference too. Lower frequencies allow less in proportion, and up to 28 nothing beyond 1e-5. The tight comparison
starts behind them."""


def cases(folder):
    """Names of all cases in a folder."""
    found = [path.parent for path in folder.glob("hf_*/config.json")]
    return sorted(
        path.name for path in found if json.loads((path / "config.json").read_text())["model_type"] == "perceiver"
    )


def compare(folder, name):
    """Every array of every call beside ours."""
    files = HubFiles(str(folder / name), folder / name)
    model = raw_numbers(from_hub(files))
    with np.load(folder / name / "io.npz") as stored:
        arrays = dict(stored)
    for call in json.loads((folder / name / "case.json").read_text(encoding="utf-8"))["calls"]:
        own = {k.removeprefix(f"{call}/"): v for k, v in arrays.items() if k.startswith(f"{call}/")}
        with jax.default_matmul_precision("highest"):
            compared = list(calls(model, own))
        arguments_of = ("inputs", "attention_mask", "subsampled_output_points", "_frames")
        left_out = {key for key in own if not key.startswith(arguments_of)} - {found.what for found in compared}
        assert not left_out, f"{name}/{call}: nothing of ours beside {sorted(left_out)}"
        yield from (found._replace(what=f"{call}/{found.what}") for found in compared)


def calls(model, arrays):
    """One call."""
    raw, masks, queries = arguments(model, arrays)
    source = model.config.inputs.get("image")
    if isinstance(source, Image) and raw["image"].shape[1:3] != source.shape[:2]:
        model = resized(model, *raw["image"].shape[1:3])
    graph, state = nnx.split(model)

    def both(state):
        module = nnx.merge(graph, state)
        return module(raw, masks, queries=queries), probes.inside(module, raw, masks, queries)

    answers, inner = jax.jit(both)(state)
    frequency = highest(model.config)
    where = {"inter/encoder_inputs": "encoder_inputs", "inter/decoder_query": "decoder_query"}
    where |= {
        "inter/encoder_cross_attention_out": "encoder_cross_attention_out",
        "last_hidden_state": "encoder_latents",
    }
    for theirs, ours in where.items():
        yield Comparison(theirs, inner[ours], arrays[theirs], loose(ours, frequency, arrays[theirs]))
    for name, ours in answers.items():
        key = logits_of(name, arrays)
        yield answer(key, unscaled(name, ours), arrays[key])._replace(tolerance=loose("logits", frequency, arrays[key]))
    if frequency > LOW:
        yield from behind(graph, state, arrays, {name: at.shape[-1] for name, at in queries.items()})


LOW = 28.0
"""Highest frequency of the model with convolutions, which needs no allowance."""


def highest(config):
    """The highest frequency of any Fourier features, of inputs and of queries."""
    parts = [*config.inputs.values(), *(getattr(output, "query", None) for output in config.outputs.values())]
    found = [getattr(getattr(part, "position", None), "max_resolution", None) or () for part in parts]
    return max((resolution / 2 for sizes in found for resolution in sizes), default=0.0)


def loose(name, frequency, theirs):
    """FINE is absolute; a comparison is relative to the largest value."""
    allowed = FINE[name] * frequency / 112 if frequency > LOW else 0.0
    return max(allowed / max(1.0, float(np.abs(theirs).max())), 1e-5)


def logits_of(name, arrays):
    """Theirs has one answer, or several by name."""
    return f"logits/{name}" if f"logits/{name}" in arrays else "logits"


def unscaled(name, ours):
    """Theirs leaves the factor of the notebook out."""
    return ours / 20.0 if name == "flow" else ours


def behind(graph, state, arrays, counts):
    """The network from the reference's own encoder inputs and queries on.

    counts: how many queries each output has, where it is asked for certain points.
    """

    def rest(state):
        model = nnx.merge(graph, state)
        found = probes.encode(model.encoder, Tokens(arrays["inter/encoder_inputs"]))
        names, answers = sorted(model.decoders), {}
        ends = np.cumsum([counts.get(name, 1) for name in names])[:-1]
        for name, asked in zip(names, np.split(arrays["inter/decoder_query"], ends, axis=1), strict=True):
            decoder = model.decoders[name]
            cross = decoder.cross if decoder.config.trunk is None else model.trunks[decoder.config.trunk]
            seen = cross(asked, Tokens(found["encoder_latents"]), looking=None, key=None)
            answers[name] = decoder.head(seen, {})
        return found, answers

    found, answers = jax.jit(rest)(state)
    for theirs, ours in (("inter/encoder_cross_attention_out",) * 2, ("last_hidden_state", "inter/encoder_latents")):
        yield Comparison(f"{theirs} from its inputs", found[ours.removeprefix("inter/")], arrays[theirs])
    for name, ours in answers.items():
        key = logits_of(name, arrays)
        yield answer(f"{key} from its inputs", unscaled(name, ours), arrays[key])


def arguments(model, arrays):
    """Inputs, masks and queries in our layout: channels last."""
    names = set(model.config.inputs)
    masks, queries = {}, {}
    if names == {"text"}:
        ids = arrays["inputs"]
        masks["text"] = arrays.get("attention_mask", np.ones_like(ids)).astype(bool)
        return {"text": ids}, masks, queries
    if names == {"frames"}:
        frames = arrays["inputs"][:, :, 12:15]  # of each 3 x 3 patch its middle
        return {"frames": frames.transpose(0, 1, 3, 4, 2)}, masks, queries
    if names == {"image"}:
        return {"image": arrays["inputs"].transpose(0, 2, 3, 1)}, masks, queries
    raw = {
        "image": arrays["inputs/image"].transpose(0, 1, 3, 4, 2),
        "audio": arrays["inputs/audio"][..., 0],
        "label": arrays["inputs/label"],
    }
    queries = {name: arrays[f"subsampled_output_points/{name}"] for name in ("image", "audio")}
    return raw, masks, queries
