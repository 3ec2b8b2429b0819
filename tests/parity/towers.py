"""ViT, CLIP and SigLIP beside Hugging Face transformers."""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file

from perceiver.zoo import clip, siglip, tables, vit
from tests.parity.comparison import Comparison

FAMILIES = {name: family for family in (vit, clip, siglip) for name in family.ARCHITECTURES}


def cases(folder: Path) -> list[str]:
    """Names of the cases in `folder` that belong to these families."""
    return [
        path.parent.name
        for path in sorted(folder.glob("hf_*/config.json"))
        if set(json.loads(path.read_text()).get("architectures") or ()) & FAMILIES.keys()
    ]


def compare(folder: Path, name: str) -> Iterator[Comparison]:
    """Every output and intermediate array of a case."""
    case = folder / name
    hub = json.loads((case / "config.json").read_text())
    family = FAMILIES[hub["architectures"][0]]
    config = family.config(hub, None, None)
    tensors = {key: value.astype(np.float32) for key, value in load_file(case / "model.safetensors").items()}
    model = tables.build(config, family.rows(config), tensors, name, family.IGNORED)
    with np.load(case / "io.npz") as arrays:
        calls = _calls(dict(arrays))
    with jax.default_matmul_precision("highest"):
        for call, given in calls.items():
            ours = _outputs(model, given)
            theirs = {key: value for key, value in given.items() if key not in ARGUMENTS}
            missing = theirs.keys() - ours.keys()
            assert not missing, f"{name}/{call}: nothing to compare with {sorted(missing)}"
            for key, value in theirs.items():
                yield Comparison(f"{name}/{call}/{key}", np.asarray(ours[key]), value)


ARGUMENTS = {"pixel_values", "input_ids", "attention_mask", "position_ids"}


def _calls(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    calls: dict[str, dict[str, np.ndarray]] = {}
    for key, value in arrays.items():
        call, _, rest = key.partition("/")
        if call != "processor":
            calls.setdefault(call, {})[rest] = value
    return calls


def _outputs(model: nnx.Module, given: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    pixels = jnp.asarray(given["pixel_values"].transpose(0, 2, 3, 1))
    if "input_ids" not in given:
        return _classified(model, pixels)
    mask = given.get("attention_mask")
    return _compared(model, pixels, jnp.asarray(given["input_ids"]), None if mask is None else jnp.asarray(mask != 0))


@nnx.jit
def _classified(model, pixels):
    states = model.image.states(pixels)
    return {
        "logits": model(pixels),
        "inter/embeddings": model.image.embed(pixels),
        "inter/last_encoder_hidden_state": states,
        "inter/last_hidden_state": model.image.norm(states),
        "inter/vision_last_hidden_state": model.image.norm(states),
    }


@nnx.jit
def _compared(model, pixels, ids, mask):
    answers = model(pixels, ids, mask)
    image, text = model.image(pixels), model.text(ids, mask)
    if model.image_projection is not None:
        image = model.image_projection(image)
    # Hugging Face projects SigLIP's texts within the tower, and CLIP's behind it.
    states = model.image.states(pixels)
    return {
        "image_embeds": answers["image"],
        "text_embeds": answers["text"],
        "logits_per_image": answers["logits"],
        "logits_per_text": answers["logits"].T,
        # CLIP's last norm is for the class token alone.
        "inter/vision_last_hidden_state": states if model.image.first_norm is not None else model.image.norm(states),
        "inter/vision_pooler_output": image,
        "inter/text_last_hidden_state": model.text.norm(model.text.states(ids, mask)),
        "inter/text_pooler_output": model.text_projection(text),
    }
