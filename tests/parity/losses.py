"""Cases loss_*: open_clip's contrastive losses and their gradients, in float64 there and in float32 here."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.contrast import Embedded, infonce, sigmoid
from perceiver.objectives import cross_entropy
from tests.parity.comparison import Comparison

TOLERANCE = 5e-6


def cases(folder: pathlib.Path) -> list[str]:
    """Names of the cases in a folder."""
    return sorted(path.stem for path in folder.glob("loss_*.json") if path.with_suffix(".npz").is_file())


def compare(folder: pathlib.Path, name: str) -> Iterator[Comparison]:
    """Losses, and the gradients of every floating-point input; relative to the largest element of their kind."""
    spec = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["spec"]
    with np.load(folder / f"{name}.npz") as file:
        arrays = dict(file)
    given = {key.removeprefix("inputs/"): array for key, array in arrays.items() if key.startswith("inputs/")}
    trained = {key: array.astype(np.float32) for key, array in given.items() if array.dtype.kind == "f"}
    fixed = {key: array for key, array in given.items() if key not in trained}

    def loss(trained: Mapping[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        found = LOSSES[spec["loss"]](spec, {**trained, **fixed})
        return found["loss"], found

    (_, found), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
    ours = {**found, **{f"grad/{key}": gradient for key, gradient in gradients.items()}}
    theirs = {key.removeprefix("outputs/"): array for key, array in arrays.items() if key.startswith("outputs/")}
    largest = max(float(np.abs(array).max()) for key, array in theirs.items() if key.startswith("grad/"))
    for key, array in theirs.items():
        assert key in ours, f"{name}: nothing of ours to compare with {key}"
        # The gradient of a bias that cancels is rounding, and so is compared with the size of the others.
        cancels = key == "grad/bias" and spec["loss"] == "clip"
        size = (largest if cancels else max(float(np.abs(array).max()), 1e-3 * largest)) or 1.0
        yield Comparison(f"{name} outputs/{key}", np.asarray(ours[key]) / size, array / size, TOLERANCE)


def sides(spec: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Embedded, Embedded]:
    """Both embeddings; another device's texts belong to none of the pictures."""
    image, text = given["image_embeds"], given["text_embeds"]
    if spec["normalise"]:
        image, text = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (image, text))
    others = jnp.arange(len(text)) + len(image) if spec.get("negative_only") else None
    return Embedded(image), Embedded(text, others)


def clip(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Class ClipLoss; the bias that it may be given changes nothing."""
    return {"loss": infonce(*sides(spec, given), given["log_scale"]) + 0.0 * given.get("bias", 0.0)}


def siglip(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Class SigLipLoss."""
    return {"loss": sigmoid(*sides(spec, given), given["log_scale"], given.get("bias", jnp.float32(0.0)))}


def coca(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Class CoCaLoss: that of pairs beside that of captions."""
    labels = given["labels"]
    captions = spec["caption_loss_weight"] * cross_entropy(given["logits"], labels, labels != spec["pad_id"])
    pairs = spec["clip_loss_weight"] * clip(spec, given)["loss"]
    return {"loss": pairs + captions, "clip_loss": pairs, "caption_loss": captions}


LOSSES: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, jax.Array]]] = {
    "clip": clip,
    "siglip": siglip,
    "coca": coca,
}
