"""Cases par_*: google-research/perceiver-ar. A case's constructor arguments become our config here."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.attention import Activation, CrossAttend
from perceiver.autoregressive import Autoregressive, AutoregressiveConfig, Reading
from perceiver.autoregressive_parts import FromId, FromSlot, Ids
from perceiver.autoregressive_positions import Order, Rotary, Rows, Table, counted, fixed_rows
from perceiver.generation import Sampling, write
from perceiver.objectives import cross_entropy
from perceiver.positions import Fourier, FourierFeatures, grid, rotate
from perceiver.recollection import blank, extend, read_again, step
from perceiver.zoo import perceiver_ar as zoo
from perceiver.zoo import tables
from tests.models import noisy
from tests.parity.comparison import Comparison

Arrays = dict[str, Any]
ACTIVATIONS = {"sq_relu": Activation.SQUARED_RELU, "relu": Activation.RELU, "gelu": Activation.GELU_TANH}
ROWS = {"random": Rows.LEARNED, "sinusoidal": Rows.SINUSOIDAL, "linear": Rows.LINEAR, "fourier": Rows.FOURIER}


def cases(folder: pathlib.Path) -> list[str]:
    """Names of the cases in a folder."""
    return sorted(path.stem for path in folder.glob("par_*.json") if path.with_suffix(".npz").is_file())


def compare(folder: pathlib.Path, name: str) -> Iterator[Comparison]:
    """Every array below outputs/ and inter/ of a case."""
    case = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz") as file:
        arrays = dict(file)
    inputs = {key.removeprefix("inputs/"): a for key, a in arrays.items() if key.startswith("inputs/")}
    with jax.default_matmul_precision("highest"):
        if "spec" not in case:
            run = functions if "sequences" in inputs else rotary
            found = run(inputs, case["config"], arrays)
        else:
            given = (case.get("defaults") or DEFAULTS) | case["spec"]["kwargs"]
            model = loaded(given, case["spec"], arrays, name)
            run = sampled if "sample" in case["spec"] else decoded if "decode" in case["spec"] else whole
            found = run(model, given, case["spec"], inputs, arrays)
    for key, theirs in arrays.items():
        if key.startswith(("outputs/", "inter/")):
            assert key in found, f"{name}: nothing of ours to compare with {key}"
            ours, tolerance = found[key] if isinstance(found[key], tuple) else (found[key], 1e-5)
            yield Comparison(f"{name} {key}", np.asarray(ours), theirs, tolerance)


# --- from constructor arguments to a config -----------------------------------------------------------------------

DEFAULTS = {
    "num_latents_per_position": 1,
    "activation_name": "sq_relu",
    "fraction_heads_to_rotate": 1.0,
    "cross_attention_shape_for_attn": "kv",
    "encoder_use_query_residual": True,
    "include_initial_cross_attention": True,
    "additional_cross_attend_after_layers": None,
    "initial_query_embed_style": "none",
    "initial_query_offsetting": False,
    "use_negative_rotary_positions": False,
}
"""Of the reference's constructor, where a case does not say."""


def config_of(given: Mapping[str, Any], spec: Mapping[str, Any]) -> AutoregressiveConfig:
    """Arguments of PerceiverAR."""
    activation = ACTIVATIONS[given["activation_name"]]
    by_query = given["cross_attention_shape_for_attn"] == "q"
    cross = zoo.block(
        given["num_cross_attend_heads"],
        given["cross_attend_widening_factor"],
        qk_channels=given["num_z_channels"] if by_query else None,
        residual=given["encoder_use_query_residual"],
        activation=activation,
    )
    looks = [after + 1 for after in given["additional_cross_attend_after_layers"] or ()]
    return AutoregressiveConfig(
        Ids(spec["num_classes"], 64, given["input_embed_dim"]),
        latents=given["z_index_dim"],
        channels=given["num_z_channels"],
        depth=given["num_transformers_per_block"],
        cross=cross,
        latent=zoo.block(given["num_transformer_heads"], given["transformer_widening_factor"], activation=activation),
        looks=(*((0,) if given["include_initial_cross_attention"] else ()), *looks),
        positions=positions_of(given, spec),
        order=Order.FORWARD if given["use_positions_from_data"] else Order.BACKWARD,
        query=query_of(given),
        each=given["num_latents_per_position"],
    )


def positions_of(given: Mapping[str, Any], spec: Mapping[str, Any]) -> Rotary | Table:
    if given["position_encoding_type"] == "absolute":
        rows = tuple(spec["max_context_length"] if size == -1 else size for size in spec["input_idx_size"])
        return Table(rows, ROWS[given["position_encoding"]])
    return Rotary(
        given["fraction_to_rotate"],
        given["fraction_heads_to_rotate"],
        given["max_wavelength"],
        ahead=given["initial_query_offsetting"],
    )


def query_of(given: Mapping[str, Any]) -> FromId | FromSlot:
    style = given["initial_query_embed_style"]
    if style == "learned":
        return FromSlot(given["share_learned_initial_query"])
    if style == "mlp":
        activation = ACTIVATIONS[given["initial_query_embed_activation_name"]]
        return FromId(given["initial_query_embed_num_layers"], activation)
    return FromId()


def loaded(given: Mapping[str, Any], spec: Mapping[str, Any], arrays: Arrays, where: str) -> Autoregressive:
    """The model with a case's weights."""
    config = config_of(given, spec)
    weights = {key.removeprefix("params/"): a for key, a in arrays.items() if key.startswith("params/")}
    return tables.build(config, zoo.table(config), weights, where, zoo.fixed(config))


# --- a forward pass ----------------------------------------------------------------------------------------------


def whole(model: Autoregressive, given: Any, spec: Any, inputs: Arrays, arrays: Arrays) -> Arrays:
    """Logits, masks and what is between."""
    ids, count = inputs["x"], spec["call"].get("z_index_dim", given["z_index_dim"])
    lengths = jnp.asarray(zoo.lengths_of(ids))
    numbers = inputs.get("input_idxs") if given["use_positions_from_data"] else None
    if given["use_negative_rotary_positions"] or count == 1:
        numbers = counted(Order.BACKWARD, lengths, ids.shape[1])[..., None]
        numbers = -numbers if given["use_negative_rotary_positions"] else numbers
    # With one latent the reference masks nothing.
    reading = model.read(ids, None if count == 1 else lengths, count=count, numbers=numbers)
    found: Arrays = {"outputs/encoder_mask": reading.sees[:, None], "outputs/processor_mask": reading.knows[:, None]}
    if given["encoder_dropout_prob"] or given["latent_dropout_prob"]:  # theirs are drawn at random
        drawn = {name: arrays[f"outputs/{name}_mask"][:, 0].astype(bool) for name in ("encoder", "processor")}
        assert not (drawn["encoder"] & ~np.asarray(reading.sees)).any()
        assert not (drawn["processor"] & ~np.asarray(reading.knows)).any()
        reading = dataclasses.replace(reading, sees=drawn["encoder"], knows=drawn["processor"])
        found = {f"outputs/{name}_mask": mask[:, None] for name, mask in drawn.items()}
    numbered = reading.numbers[..., 0] if given["include_initial_cross_attention"] else reading.stand
    return found | {
        "outputs/latent_last_steps": reading.places,
        "inter/initial_query": reading.queries,
        "inter/embedded_inputs": reading.vectors,
        "inter/q_positions": reading.stand,
        "inter/kv_positions": numbered,
        **layers(*nnx.split(model), reading),
    }


@functools.partial(jax.jit, static_argnums=0)
def layers(graph: nnx.GraphDef, state: nnx.State, reading: Reading) -> Arrays:
    """Latents after each layer, the first look apart; and what they answer."""
    model = nnx.merge(graph, state)
    outs, x, found = [], reading.queries, {}
    for number, part in enumerate(model.parts):
        if isinstance(part, CrossAttend):
            x = model.passed(part, x, reading)
            if number == 0:
                found["inter/cross_attention_out"] = x
            else:
                outs.append(x)
            continue
        outs += [model.passed(part, x, reading, depth=jnp.int32(depth + 1)) for depth in range(part.depth)]
        x = outs[-1]
    thought = model.think(reading)
    return found | {
        "inter/layer_outs": jnp.stack(outs),
        "inter/final_layer_norm_out": model.norm(thought),
        "outputs/logits": model.answer(thought),
    }


# --- one id at a time --------------------------------------------------------------------------------------------


def decoded(model: Autoregressive, given: Any, spec: Any, inputs: Arrays, arrays: Arrays) -> Arrays:
    """Logits of each step, and what is kept after some."""
    ids, numbers, how = jnp.asarray(inputs["x"]), jnp.asarray(inputs["input_idxs"]), spec["decode"]
    foretold = jax.jit(lambda ids: model(ids, numbers=numbers))(ids)
    found: Arrays = {"outputs/full_logits": foretold.logits, "outputs/full_latent_last_steps": foretold.places}
    sizes = how["max_context_length_memory"], how["z_index_dim_memory"]
    kept = dataclasses.replace(blank(model, len(ids), *sizes), first=jnp.int32(0))
    start = how["chunks"][0][1] - 1
    if start:
        kept = jax.jit(lambda kept: read_again(model, kept, ids, start, numbers))(kept)
    advance = jax.jit(lambda kept, place, column, number: extend(model, kept, column, place, number))
    steps = []
    for count, place in enumerate(range(start, ids.shape[1])):
        kept, logits = advance(kept, place, ids[:, place, None], numbers[:, place, None])
        steps.append(logits)
        if count in how["save_memory_steps"]:
            found |= memory(model, kept, place, numbers, how["memory_type"], f"inter/memory_after_step_{count}")
    return found | {"outputs/step_logits": jnp.stack(steps, axis=1)}


def memory(
    model: Autoregressive, kept: Any, place: int, numbers: Any, kind: str, where: str, counted_from: int = 0
) -> Arrays:
    """As the reference keeps it: the newest last, keys before they are rotated, and zeros where there is nothing.

    counted_from: the number of the first place beyond that which ours are rotated by.
    """
    look, tower = kept.parts
    found = {}
    for layer in range(model.config.depth + 1):
        part = model.parts[min(layer, 1)]
        own = look if layer == 0 else jax.tree.map(lambda a, layer=layer: a[layer - 1], tower)
        begin, columns = (0 if layer == 0 else int(kept.first)), own.keys.shape[1]
        places = np.arange(max(begin, place + 1 - columns), place + 1)
        at = (places - begin) % columns
        stand = numbers[:, places, 0]
        missing = columns - len(places) if kind == "fixed_size_kv" else 0
        unturned = rotate(own.keys[:, at], -model.angles(part, stand - counted_from))
        kind_of = {"k": unturned, "v": own.values[:, at], "kv_positions": stand, "memory_mask": jnp.ones(stand.shape)}
        for name, array in kind_of.items():
            padded = jnp.pad(array, [(0, 0), (missing, 0)] + [(0, 0)] * (array.ndim - 2))
            found[f"{where}/layer_{layer}/{name}"] = padded
    return found


def sampled(model: Autoregressive, given: Any, spec: Any, inputs: Arrays, arrays: Arrays) -> Arrays:
    """The likeliest ids, and the logits of each of their steps."""
    events, numbers = jnp.asarray(inputs["events"]), jnp.asarray(inputs["event_idxs"])
    budget = jax.jit(lambda kept, ids, place: step(model, kept, ids, place))
    start, ones = blank(model, len(events), events.shape[1]), jnp.ones(len(events), jnp.int32)
    written = jax.jit(lambda ids: write(budget, start, ids, ones, Sampling(0.0), jax.random.key(0), end=-1, padding=0))(
        events
    )
    kept, logits, firsts, before = blank(model, len(events), events.shape[1]), [], [], []
    for place in range(events.shape[1] - 1):
        before.append(place - int(kept.first) if place else 0)
        kept, own = budget(kept, written, jnp.int32(place))
        firsts.append(int(kept.first))
        logits.append(own)
    moved = [place and firsts[place] != firsts[place - 1] for place in range(len(firsts))]
    kept = dataclasses.replace(kept, parts=(jax.tree.map(lambda a: a[:, :-1], kept.parts[0]), kept.parts[1]))
    first = int(numbers[0, 0, 0])
    return memory(model, kept, len(firsts) - 1, numbers, "fixed_size_kv", "inter/final_memory", first) | {
        "outputs/events": written,
        "outputs/step_logits": jnp.stack(logits, axis=1),
        "outputs/step_z_index_dim": [
            place - first + 1 if new else 1 for place, (first, new) in enumerate(zip(firsts, moved, strict=True))
        ],
        "outputs/memory_entries_before_step": before,
    }


# --- functions ---------------------------------------------------------------------------------------------------


def rotary(inputs: Arrays, config: Mapping[str, Any], arrays: Arrays) -> Arrays:
    """Angles and rotated heads. The error grows with the place, in the reference too."""
    found: Arrays = {}
    for name, given in config.items():
        if f"{name}/x" not in inputs:  # what the project carries is a part
            continue
        x, places, heads, width = (
            inputs[f"{name}/x"],
            inputs[f"{name}/positions"],
            given["num_heads"],
            given["head_dim"],
        )
        allowed = 1e-6 + 1.5e-7 * float(np.abs(places).max())
        tall = allowed * max(1.0, float(np.abs(x).max()))
        full = Rotary(1.0, 1.0, given["max_wavelength"])
        part = Rotary(given["fraction_to_rotate"], given["fraction_heads_to_rotate"], given["max_wavelength"])
        angles = full.angles(places, width, heads)
        wide = jnp.repeat(angles[:, None, :, 0], 2, axis=-1)
        found |= {
            f"outputs/{name}/cos_full": (jnp.cos(wide), allowed),
            f"outputs/{name}/sin_full": (jnp.sin(wide), allowed),
            f"outputs/{name}/inv_freq_full": jnp.repeat(full.angles(jnp.ones((1, 1), int), width, 1)[0, 0, 0], 2),
            f"outputs/{name}/spliced": rotate(x, jnp.full((*places.shape, width // 2), jnp.pi / 2)),
            f"outputs/{name}/rotated_full": (rotate(x, angles), tall),
            f"outputs/{name}/rotated_subset": (rotate(x, part.angles(places, width, heads)), tall),
        }
    return found


def functions(inputs: Arrays, config: Mapping[str, Any], arrays: Arrays) -> Arrays:
    """Padding, places, masks, tables, the loss and the nucleus."""
    ids = inputs["sequences"]
    read, wanted = zoo.pairs_of(ids)
    lengths = jnp.asarray(zoo.lengths_of(ids))
    found: Arrays = {
        "outputs/sequence_length": lengths,
        "outputs/truncated": np.pad(read, [(0, 0), (0, 1)]),
        "outputs/shifted_inputs": read,
        "outputs/shifted_targets": wanted,
        "outputs/terminal_relative_positions": counted(Order.BACKWARD, lengths, ids.shape[1]),
    }
    parts = [key.split("/") for key in arrays if key.startswith("outputs/")]
    for kind in {part[1] for part in parts if part[1].startswith("masks_")}:
        found |= masks(ids, lengths, kind)
    for kind in {part[1] for part in parts if part[1].startswith(("sinusoidal", "linear", "fourier"))}:
        found[f"outputs/{kind}"] = position_table(kind)
    for kind in {part[2] for part in parts if part[1] == "ce"}:
        found |= losses(inputs, kind)
    for kind in {part[2] for part in parts if part[1] == "process"}:
        found[f"outputs/process/{kind}"] = kept(inputs["process/logits"], kind)
    return found


def masks(ids: np.ndarray, lengths: jax.Array, kind: str) -> Arrays:
    """masks_z<latents>_per<each>."""
    latents, each = (int(part.lstrip("zper")) for part in kind.split("_")[1:])
    config = AutoregressiveConfig(Ids(64, 16, 16), latents, 16, 1, each=each)
    reading = noisy(config).read(ids, lengths)
    return {
        f"outputs/{kind}/encoder": reading.sees[:, None],
        f"outputs/{kind}/processor": reading.knows[:, None],
        f"outputs/{kind}/latent_last_steps": reading.places,
    }


def position_table(kind: str) -> jax.Array:
    """<kind>_<width>_<rows>."""
    name, width, rows = kind.rsplit("_", 2)
    if name == "fourier_concat":
        return FourierFeatures(Fourier(int(width) // 2), (float(rows),))(grid((int(rows),)))
    return fixed_rows(ROWS[name], int(rows), int(width))


def losses(inputs: Arrays, kind: str) -> Arrays:
    """z_loss_<weight>: each place's own loss, and the gradient of their sum."""
    weight, (logits, wanted) = float(kind.rsplit("_", 1)[1]), (inputs["ce/logits"], inputs["ce/targets"])

    def one(own: jax.Array, label: jax.Array, normalised: float) -> jax.Array:
        return cross_entropy(own[None], label[None], normalised=normalised)

    @functools.partial(jax.jit, static_argnums=1)
    def each(logits: jax.Array, normalised: float) -> jax.Array:
        return jax.vmap(jax.vmap(functools.partial(one, normalised=normalised)))(logits, wanted)

    return {
        f"outputs/ce/{kind}/loss": each(logits, weight),
        f"outputs/ce/{kind}/z_loss": each(logits, weight) - each(logits, 0.0),
        f"outputs/ce/{kind}/grad_of_sum": jax.grad(lambda own: each(own, weight).sum())(logits),
    }


def kept(logits: np.ndarray, kind: str) -> jax.Array:
    """top_p_<share>_temperature_<t>: the reference chooses first and divides afterwards."""
    share, temperature = (float(part) for part in kind.removeprefix("top_p_").split("_temperature_"))
    chosen = Sampling(top_p=share).kept(logits)
    return jnp.where(jnp.isfinite(chosen), chosen, -1e30) / temperature
