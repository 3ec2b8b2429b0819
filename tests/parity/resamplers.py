"""Cases flamingo_*: open_flamingo's resampler and cross-attention; idefics2_*: the resampler of transformers."""

import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.attention import Activation
from perceiver.resampler import GatedCrossAttend, Norm, PlainMlp, Resampler, media_times
from perceiver.saving import flatten
from tests.parity.comparison import Comparison

Arrays = dict[str, np.ndarray]
ACTIVATIONS = {"silu": Activation.SILU, "gelu": Activation.GELU_ERF}


def cases(folder: pathlib.Path) -> list[str]:
    """Names of the cases in a folder."""
    paths = [*folder.glob("flamingo_*.json"), *folder.glob("idefics2_*.json")]
    return sorted(path.stem for path in paths if path.with_suffix(".npz").is_file())


def compare(folder: pathlib.Path, name: str) -> Iterator[Comparison]:
    """Every array below outputs/ and inter/ of a case."""
    spec = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["spec"]
    with np.load(folder / f"{name}.npz") as file:
        arrays = dict(file)
    weights = {key.removeprefix("params/"): a for key, a in arrays.items() if key.startswith("params/")}
    inputs = {key.removeprefix("inputs/"): a for key, a in arrays.items() if key.startswith("inputs/")}
    with jax.default_matmul_precision("highest"):
        found = RUNS[spec["class"]](spec, inputs, weights)
    for key, theirs in arrays.items():
        if key.startswith(("outputs/", "inter/")):
            assert key in found, f"{name}: nothing of ours to compare with {key}"
            yield Comparison(f"{name} {key}", np.asarray(found[key]), theirs)


def loaded(build: Callable[..., Any], ours: Mapping[str, np.ndarray]) -> Any:
    """A module with given parameters by dotted path, all of which are used."""
    graph, state = nnx.split(nnx.eval_shape(lambda: build(dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))))
    names = list(flatten(state))
    assert set(names) == set(ours), set(names) ^ set(ours)
    for name, leaf in flatten(state).items():
        assert leaf.shape == ours[name].shape, (name, leaf.shape, ours[name].shape)
    return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), [jnp.asarray(ours[n]) for n in names]))


def renamed(weights: Arrays, table: Mapping[str, str]) -> Arrays:
    """By regular expressions; linear maps are transposed, and keys and values that come together are taken apart."""
    found: Arrays = {}
    for name, array in weights.items():
        if name.endswith("to_kv.weight"):
            parts = zip(("to_k", "to_v"), np.split(array, 2), strict=True)
            found |= renamed({name.replace("to_kv", part): half for part, half in parts}, table)
            continue
        ours = next((re.sub(f"^{old}$", new, name) for old, new in table.items() if re.match(f"^{old}$", name)), None)
        assert ours is not None, f"nothing of ours to take {name}"
        found[ours] = array.T if ours.endswith("kernel") else array.reshape(array.shape or ())
    return found


FLAMINGO_LAYER = {
    r"layers\.(\d+)\.0\.norm_media\.weight": r"layers.\1.token_norm.scale",
    r"layers\.(\d+)\.0\.norm_media\.bias": r"layers.\1.token_norm.bias",
    r"layers\.(\d+)\.0\.norm_latents\.weight": r"layers.\1.latent_norm.scale",
    r"layers\.(\d+)\.0\.norm_latents\.bias": r"layers.\1.latent_norm.bias",
    r"layers\.(\d+)\.0\.to_q\.weight": r"layers.\1.query.kernel",
    r"layers\.(\d+)\.0\.to_k\.weight": r"layers.\1.key.kernel",
    r"layers\.(\d+)\.0\.to_v\.weight": r"layers.\1.value.kernel",
    r"layers\.(\d+)\.0\.to_out\.weight": r"layers.\1.out.kernel",
    r"layers\.(\d+)\.1\.0\.weight": r"layers.\1.mlp_norm.scale",
    r"layers\.(\d+)\.1\.0\.bias": r"layers.\1.mlp_norm.bias",
    r"layers\.(\d+)\.1\.1\.weight": r"layers.\1.mlp.widen.kernel",
    r"layers\.(\d+)\.1\.3\.weight": r"layers.\1.mlp.narrow.kernel",
    r"norm\.weight": "norm.scale",
    r"norm\.bias": "norm.bias",
    r"latents": "latents",
    r"frame_embs": "frames",
    r"media_time_embs": "media",
}
IDEFICS_LAYER = {
    r"layers\.(\d+)\.input_context_norm\.weight": r"layers.\1.token_norm.scale",
    r"layers\.(\d+)\.input_latents_norm\.weight": r"layers.\1.latent_norm.scale",
    r"layers\.(\d+)\.self_attn\.q_proj\.weight": r"layers.\1.query.kernel",
    r"layers\.(\d+)\.self_attn\.k_proj\.weight": r"layers.\1.key.kernel",
    r"layers\.(\d+)\.self_attn\.v_proj\.weight": r"layers.\1.value.kernel",
    r"layers\.(\d+)\.self_attn\.o_proj\.weight": r"layers.\1.out.kernel",
    r"layers\.(\d+)\.post_attention_layernorm\.weight": r"layers.\1.mlp_norm.scale",
    r"layers\.(\d+)\.mlp\.gate_proj\.weight": r"layers.\1.mlp.gate.kernel",
    r"layers\.(\d+)\.mlp\.up_proj\.weight": r"layers.\1.mlp.widen.kernel",
    r"layers\.(\d+)\.mlp\.down_proj\.weight": r"layers.\1.mlp.narrow.kernel",
    r"norm\.weight": "norm.scale",
    r"latents": "latents",
}
PROJECTION = {
    r"gate_proj\.weight": "gate.kernel",
    r"up_proj\.weight": "widen.kernel",
    r"down_proj\.weight": "narrow.kernel",
}
LOOK = {
    r"norm\.(?:weight)": "norm.scale",
    r"norm\.bias": "norm.bias",
    r"to_q\.weight": "query.kernel",
    r"to_k\.weight": "key.kernel",
    r"to_v\.weight": "value.kernel",
    r"to_out\.weight": "out.kernel",
}
GATED = {
    **{f"attn\\.{old}": new for old, new in LOOK.items()},
    r"ff\.0\.weight": "mlp_norm.scale",
    r"ff\.0\.bias": "mlp_norm.bias",
    r"ff\.1\.weight": "mlp.widen.kernel",
    r"ff\.3\.weight": "mlp.narrow.kernel",
    r"attn_gate": "attention_gate",
    r"ff_gate": "mlp_gate",
}


def flamingo_resampler(spec: Mapping[str, Any], inputs: Arrays, weights: Arrays) -> Arrays:
    """Class PerceiverResampler."""
    given = spec["kwargs"]
    config = Resampler(
        given["num_latents"],
        given["dim"],
        given["depth"],
        heads=given["heads"],
        head_channels=given["dim_head"],
        widening=given["ff_mult"],
        frames=given.get("max_num_frames"),
        media=given.get("max_num_media"),
    )
    ours = renamed(weights, FLAMINGO_LAYER)
    if "media" in ours:
        ours["media"] = ours["media"][:, 0]
    module = loaded(config.build, ours)
    return traced(module, inputs["x"], None, "attention_out", "feed_forward_out", "latents_before_norm")


def traced(module: Any, x: np.ndarray, mask: np.ndarray | None, *names: str) -> Arrays:
    """Outputs, and what each layer gives: of its attention and MLP, and of the last one, by these names."""
    batch, media = x.shape[:2]
    found: Arrays = {"outputs/output": module(x, mask)}
    tokens = jnp.asarray(x)
    if module.frames is not None:
        tokens = tokens + module.frames[...][: x.shape[2], None]
    if module.media is not None:
        tokens = tokens + module.media[...][:media, None, None]
    tokens = tokens.reshape(batch * media, -1, x.shape[-1])
    seen = None if mask is None else mask.reshape(batch * media, -1)
    latents = jnp.broadcast_to(module.latents[...], (batch * media, *module.latents[...].shape))

    def apart(array: jax.Array) -> jax.Array:
        return array.reshape(batch, media, *array.shape[1:])

    for number, layer in enumerate(module.layers):
        attended = layer.attended(latents, tokens, seen)
        found[f"inter/layer_{number}/{names[0]}"] = apart(attended)
        fed = layer.mlp(layer.mlp_norm(latents + attended))
        found[f"inter/layer_{number}/{names[1]}"] = apart(fed)
        latents = layer(latents, tokens, seen)
        found[f"inter/layer_{number}"] = apart(latents)
    found[f"inter/{names[2]}"] = apart(latents)
    return found


def look(spec: Mapping[str, Any], mean: bool = True) -> GatedCrossAttend:
    """The declaration of open_flamingo's cross-attention, with or without gates."""
    given = spec["kwargs"]
    return GatedCrossAttend(
        given["dim"],
        given["dim_visual"],
        heads=given["heads"],
        head_channels=given["dim_head"],
        widening=given.get("ff_mult", 4),
        latest=given["only_attend_immediate_media"],
        mean_when_blind=mean,
    )


def times_of(spec: Mapping[str, Any], inputs: Arrays) -> jax.Array | None:
    """How many media each text position knows of."""
    locations = inputs.get("media_locations")
    if locations is None:
        return None
    times = media_times(jnp.asarray(locations, bool))
    if spec["call"].get("use_cached_media"):  # new text behind all of the old one
        return jnp.repeat(times[:, -1:], inputs["x"].shape[1], axis=1)
    return times


def masked(spec: Mapping[str, Any], inputs: Arrays, weights: Arrays) -> Arrays:
    """Class MaskedCrossAttention, which is our layer without gates and MLP."""
    config = look(spec)
    fresh = flatten(nnx.state(config.build(dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))))
    others = {name: np.asarray(leaf) for name, leaf in fresh.items() if name.startswith(("mlp", "attention_gate"))}
    module = loaded(config.build, {**others, **renamed(weights, LOOK)})
    return {"outputs/output": module.attended(jnp.asarray(inputs["x"]), inputs["media"], times_of(spec, inputs))}


def gated(spec: Mapping[str, Any], inputs: Arrays, weights: Arrays) -> Arrays:
    """Class GatedCrossAttentionBlock."""
    ours = renamed(weights, GATED)
    ours |= {name: ours[name].reshape(()) for name in ("attention_gate", "mlp_gate")}
    module = loaded(look(spec).build, ours)
    x, times = jnp.asarray(inputs["x"]), times_of(spec, inputs)
    attended = module.attended(x, inputs["media"], times)
    between = x + jnp.tanh(module.attention_gate[...]) * attended
    return {
        "outputs/output": module(x, inputs["media"], times),
        "inter/attention_out": attended,
        "inter/feed_forward_out": module.mlp(module.mlp_norm(between)),
    }


def idefics(spec: Mapping[str, Any], inputs: Arrays, weights: Arrays) -> Arrays:
    """Class Idefics2PerceiverResampler."""
    given = spec["kwargs"]
    config = Resampler(
        given["resampler_n_latents"],
        given["hidden_size"],
        given["resampler_depth"],
        heads=given["resampler_n_heads"],
        head_channels=given["resampler_head_dim"],
        kv_heads=given["num_key_value_heads"],
        gated=True,
        norm=Norm.RMS,
        epsilon=given["rms_norm_eps"],
        activation=ACTIVATIONS[given["hidden_act"]],
    )
    module = loaded(config.build, renamed(weights, IDEFICS_LAYER))
    mask = inputs["attention_mask"].astype(bool)[:, None, None] if "attention_mask" in inputs else None
    found = traced(module, inputs["x"][:, None, None], mask, "attended", "fed", "last")
    return {key: np.asarray(array)[:, 0] for key, array in found.items()}


def connector(spec: Mapping[str, Any], inputs: Arrays, weights: Arrays) -> Arrays:
    """Class Idefics2Connector: a gated MLP to the text's width, then the resampler."""
    given = spec["kwargs"]
    widths = given["vision_hidden_size"], given["text_intermediate_size"], given["text_hidden_size"]
    activation = ACTIVATIONS[given.get("hidden_act", given["perceiver"]["hidden_act"])]
    own = {name.removeprefix("modality_projection."): a for name, a in weights.items() if name.startswith("modality")}

    def build(*, dtype: jnp.dtype, rngs: nnx.Rngs) -> PlainMlp:
        return PlainMlp(*widths, activation, gated=True, dtype=dtype, rngs=rngs)

    projected = np.asarray(loaded(build, renamed(own, PROJECTION))(jnp.asarray(inputs["x"])))
    rest = {n.removeprefix("perceiver_resampler."): a for n, a in weights.items() if n.startswith("perceiver")}
    found = idefics({"kwargs": given["perceiver"]}, {**inputs, "x": projected}, rest)
    return {**found, "inter/modality_projection": projected}


RUNS: dict[str, Callable[[Mapping[str, Any], Arrays, Arrays], Arrays]] = {
    "PerceiverResampler": flamingo_resampler,
    "MaskedCrossAttention": masked,
    "GatedCrossAttentionBlock": gated,
    "Idefics2PerceiverResampler": idefics,
    "Idefics2Connector": connector,
}
