"""Cases hip_*: google-deepmind/hierarchical_perceiver, whole models and single blocks."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.attention import Activation, Block
from perceiver.hierarchical import HierarchicalConfig, Signal
from perceiver.hierarchical_blocks import GroupedCrossAttend, Grouping, Level, Regroup
from perceiver.saving import flatten
from perceiver.zoo import hip
from perceiver.zoo.tables import Row, read
from tests.parity.comparison import Comparison

Arrays = dict[str, np.ndarray]
FLOAT = jnp.dtype("float32")
REGROUPS = {"reshape": Regroup.NEIGHBOURS, "transpose_reshape": Regroup.MIXED}
# The constructor defaults of single blocks, for which the json has none.
BLOCK_DEFAULTS = {
    "self_attend_widening_factor": 4,
    "num_cross_attend_heads": 1,
    "cross_attend_widening_factor": 1,
    "regroup_inputs": True,
    "regroup_type": "reshape",
    "use_post_attention_residual": True,
    "output_index_dim_train": None,
    "output_index_dim_eval": None,
    "dropout_prob": 0.0,
}
CROSS_DEFAULTS = {"num_heads": 8, "widening_factor": 1, "use_post_attention_residual": False}


def cases(folder: pathlib.Path) -> list[str]:
    """Names of the cases in a folder."""
    return sorted(path.stem for path in folder.glob("hip_*.json") if path.with_suffix(".npz").is_file())


def compare(folder: pathlib.Path, name: str) -> Iterator[Comparison]:
    """Every array below outputs/ and inter/ of a case."""
    case = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz") as file:
        arrays = dict(file)
    spec = case["spec"]
    given = (case.get("defaults") or {}) | spec["kwargs"]
    inputs = {n: arrays[f"inputs/{n}"] for n in spec["modalities"]}
    weights = {key.removeprefix("params/"): a for key, a in arrays.items() if key.startswith("params/")}
    with jax.default_matmul_precision("highest"):
        found = RUNS[spec["class"]](given, inputs, weights, name)
    for key, theirs in arrays.items():
        if key.startswith(("outputs/", "inter/")):
            assert key in found, f"{name}: nothing of ours to compare with {key}"
            yield Comparison(f"{name} {key}", found[key], theirs)


def loaded(module: Any, rows: list[Row], weights: Arrays, where: str) -> Any:
    """An abstract module with a case's weights."""
    graph, state = nnx.split(module)
    wanted = {name: leaf.shape for name, leaf in flatten(state).items()}
    ours = read(rows, weights, wanted, where)
    leaves = [jnp.asarray(ours[name]) for name in flatten(state)]
    return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), leaves))


def latents_of(default: int, train: int | None, evaluation: int | None) -> dict[str, int | None]:
    """How many latents there are, and how many of them training uses."""
    count = default if evaluation is None else evaluation
    used = default if train is None else train
    return {"latents": count, "train_latents": None if used == count else used}


def nth_level(given: Mapping[str, Any], i: int, groups: int, **latents: Any) -> Level:
    """Level `i` of a model, whose arguments are lists."""
    made = hip.level(
        groups,
        latents["latents"],
        given["num_z_channels"][i],
        given["num_self_attends_per_block"][i],
        given["num_self_attend_heads"][i],
        cross_heads=given["num_cross_attend_heads"][i],
        widening=given["self_attend_widening_factor"][i],
        cross_widening=given["cross_attend_widening_factor"][i],
    )
    # activation_name changes nothing in the reference: see hip_mini_activation_gelu_ignored.
    latent = dataclasses.replace(made.latent, dropout=given["dropout_prob"])
    return dataclasses.replace(made, latent=latent, train_latents=latents["train_latents"])


def signals(inputs: Arrays, names: Any) -> tuple[Signal, ...]:
    """Modalities in the order of the inputs."""
    return tuple(Signal(n, *array.shape[1:]) for n, array in inputs.items() if n in names)


def hip_config(given: Mapping[str, Any], inputs: Arrays) -> HierarchicalConfig:
    """Arguments of HiP and HiPClassBottleneck."""
    labels = set(given.get("label_modalities", ()))
    count = len(given["num_groups"])
    levels = []
    for i, groups in enumerate(given["num_groups"]):
        own = (
            (given["processor_index_dim_train"], given["processor_index_dim_eval"]) if i == count // 2 else (None,) * 2
        )
        levels.append(nth_level(given, i, groups, **latents_of(given["z_index_dim"][i], *own)))
    return HierarchicalConfig(
        signals(inputs, inputs.keys() - labels),
        tuple(levels),
        given["num_embedding_channels"],
        labels=signals(inputs, labels),
        project_positions=projects(given),
        regroup=REGROUPS[given["regroup_type"]],
    )


def io_config(given: Mapping[str, Any], inputs: Arrays) -> HierarchicalConfig:
    """Arguments of PerceiverIO."""
    lists = {name: [value] for name, value in given.items()} | {"dropout_prob": given["dropout_prob"]}
    latents = latents_of(given["z_index_dim"], given["z_index_dim_train"], given["z_index_dim_eval"])
    return HierarchicalConfig(
        signals(inputs, inputs),
        (nth_level(lists, 0, 1, **latents),),
        given["num_embedding_channels"],
        project_positions=projects(given),
        grouping=Grouping.TOGETHER,
    )


def projects(given: Mapping[str, Any]) -> bool:
    """The position tables are as wide as the embedding in any case."""
    return given["num_position_encoding_channels"] not in (None, given["num_embedding_channels"])


def run_hip(given: Mapping[str, Any], inputs: Arrays, weights: Arrays, where: str) -> Arrays:
    """Class HiP."""
    config = hip_config(given, inputs)
    return run_model(config, hip.hip_table(config, given["name"]), inputs, weights, where, given["name"], "block")


def run_class_bottleneck(given: Mapping[str, Any], inputs: Arrays, weights: Arrays, where: str) -> Arrays:
    """Class HiPClassBottleneck."""
    config, module = hip_config(given, inputs), given["name"]
    table = hip.class_bottleneck_table(config, module)
    return run_model(config, table, inputs, weights, where, module, "perceiver_block", "reconstruction_head_1")


def run_io(given: Mapping[str, Any], inputs: Arrays, weights: Arrays, where: str) -> Arrays:
    """Class PerceiverIO."""
    config = io_config(given, inputs)
    return run_model(config, hip.hip_table(config, given["name"]), inputs, weights, where, given["name"], "block")


def run_model(
    config: HierarchicalConfig,
    table: list[Row],
    inputs: Arrays,
    weights: Arrays,
    where: str,
    module: str,
    block: str,
    head: str = "reconstruction_head",
) -> Arrays:
    """A whole model's outputs, and its intermediate values by the names of the reference's modules."""
    model = loaded(config.abstract(), table, weights, where)

    @nnx.jit
    def run(model, inputs):
        hidden = model.encode(inputs)
        found = {f"outputs/reconstruction/{n}": a for n, a in model.decode(hidden).items()}
        found |= {f"outputs/latents/{n}": a for n, a in model.latents(hidden).items()}
        inter = {}
        trace_ports(model, inputs, hidden.names, inter)
        trace_blocks(model, inputs, hidden, inter, block)
        trace_heads(model, hidden, inter, head)
        return found | {f"inter/{module}/{key}": a for key, a in inter.items()}

    return {key: np.asarray(array) for key, array in run(model, inputs).items()}


def trace_ports(model: Any, inputs: Arrays, names: tuple[str, ...], inter: dict[str, Any]) -> None:
    """Embeddings, positions and groups."""
    for number, (name, port) in enumerate([*model.ports.items(), *model.label_ports.items()]):
        label = number - len(model.ports) + 1
        nth = f"_{[s.name for s in model.config.labels].index(name) + 1}" if label > 0 else ""
        batch = inputs[name].shape[0]
        inter[f"embedder{nth}/embed/{name}"] = port.embed(inputs[name])
        inter[f"position_encoder{nth}/with_position/{name}"] = port(inputs[name])
        inter[f"position_encoder{nth}/mae_query/{name}"] = port.positions(batch)
        if nth:
            inter[f"constant_number_grouper{nth}/grouped"] = port(inputs[name])[:, None]
            inter[f"constant_number_grouper{nth}/grouped_mae_query"] = port.positions(batch)[:, None]
    together = model.config.grouping is Grouping.TOGETHER
    grouper = "concatenate_grouper" if together else "constant_number_grouper"
    inter[f"{grouper}/grouped"] = model.layout(names).group({n: port(inputs[n]) for n, port in model.ports.items()})
    inter[f"{grouper}/grouped_mae_query"] = model.queries(names, batch)


def trace_blocks(model: Any, inputs: Arrays, hidden: Any, inter: dict[str, Any], block: str) -> None:
    """Each level, and what its latents see; the reference keeps the latter within the block."""
    config, levels = model.config, hidden.levels
    for i, own in enumerate(model.blocks):
        if i == 0:
            x = model.layout(hidden.names).group({n: port(inputs[n]) for n, port in model.ports.items()})
        else:
            x = config.regroup(levels[i - 1], config.levels[i].groups)
        if i == config.middle:
            labels = [model.label_ports[s.name](inputs[s.name])[:, None] for s in config.labels]
            x = jnp.concatenate([x, *labels], axis=2)
        inter[f"{block}_{i}/~/hi_p_cross_attention"] = own.look(x, levels[-1 - i] if i > config.middle else None)
        inter[f"{block}_{i}"] = levels[i]


def trace_heads(model: Any, hidden: Any, inter: dict[str, Any], head: str) -> None:
    """What the heads see. Labels share one, and the reference recorded its last call."""
    batch = hidden.levels[-1].shape[0]
    asked = [(head, model.head, model.queries(hidden.names, batch), hidden.levels[-1])]
    if model.config.labels:
        positions = model.label_ports[model.config.labels[-1].name].positions(batch)[:, None]
        processor = hidden.levels[model.config.middle]
        asked.append(("reconstruction_head", model.label_head, positions, processor))
    for name, module, queries, seen in asked:
        inter[name] = inter[f"{name}/hi_p_cross_attention"] = module(queries, seen)


def run_block(given: Mapping[str, Any], inputs: Arrays, weights: Arrays, where: str) -> Arrays:
    """Class PerceiverBlock."""
    given = BLOCK_DEFAULTS | given
    latents = latents_of(given.get("output_index_dim"), given["output_index_dim_train"], given["output_index_dim_eval"])
    config = hip.level(
        given["num_output_groups"],
        latents["latents"],
        given["num_output_channels"],
        given["num_self_attend_layers"],
        given["num_self_attend_heads"],
        cross_heads=given["num_cross_attend_heads"],
        widening=given["self_attend_widening_factor"],
        cross_widening=given["cross_attend_widening_factor"],
    )
    cross = dataclasses.replace(config.cross, residual=given["use_post_attention_residual"])
    config = dataclasses.replace(config, cross=cross, train_latents=latents["train_latents"])
    x, skip, mask = inputs["x"], inputs.get("pre_attention_residual"), masked(inputs)
    skip_channels = None if skip is None else skip.shape[-1]
    abstract, name = abstract_level(config, x.shape[-1], skip_channels), given["name"]
    module = loaded(abstract, hip.level_table(config, name, skip_channels=skip_channels), weights, where)
    if given["regroup_inputs"]:
        x = REGROUPS[given["regroup_type"]](x, config.groups)
    out = np.asarray(nnx.jit(lambda m, *args: m(*args))(module, x, skip, mask))
    seen = np.asarray(nnx.jit(lambda m, *args: m.look(*args))(module, x, skip, mask))
    return {"outputs/output": out, f"inter/{name}": out, f"inter/{name}/~/hi_p_cross_attention": seen}


def run_cross(given: Mapping[str, Any], inputs: Arrays, weights: Arrays, where: str) -> Arrays:
    """Class HiPCrossAttention, with given queries or its own."""
    given = CROSS_DEFAULTS | given
    x, queries, mask = inputs["x"], inputs.get("query_inputs"), masked(inputs)
    config = Block(
        heads=given["num_heads"],
        widening=given["widening_factor"],
        residual=given["use_post_attention_residual"],
        activation=Activation.SQUARED_RELU,
    )
    name = given.get("name") or "hi_p_cross_attention"
    if queries is None:
        skip = inputs.get("pre_attention_residual")
        skip_channels = None if skip is None else skip.shape[-1]
        level = Level(x.shape[1], given["output_index_dim_eval"], given["output_num_channels"], 0, cross=config)
        rows = hip.look_table(level, name, skip_channels=skip_channels)
        module = loaded(abstract_level(level, x.shape[-1], skip_channels), rows, weights, where)
        out = nnx.jit(lambda m, *args: m.look(*args))(module, x, skip, mask)
    else:
        widths = (queries.shape[-1], x.shape[-1])
        abstract = nnx.eval_shape(lambda: GroupedCrossAttend(*widths, config, dtype=FLOAT, rngs=nnx.Rngs(0)))
        module = loaded(abstract, hip.cross_attend_table(name), weights, where)
        out = nnx.jit(lambda m, *args: m(*args))(module, queries, x, mask)
    return {"outputs/output": np.asarray(out), f"inter/{name}": np.asarray(out)}


def abstract_level(config: Level, in_channels: int, skip_channels: int | None) -> Any:
    """A LevelBlock with shapes in place of parameters."""
    return nnx.eval_shape(lambda: config.build(in_channels, skip_channels, dtype=FLOAT, rngs=nnx.Rngs(0)))


def masked(inputs: Arrays) -> np.ndarray | None:
    """The attention mask as bool."""
    return inputs["attention_mask"].astype(bool) if "attention_mask" in inputs else None


RUNS: dict[str, Callable[[Mapping[str, Any], Arrays, Arrays, str], Arrays]] = {
    "HiP": run_hip,
    "HiPClassBottleneck": run_class_bottleneck,
    "PerceiverIO": run_io,
    "PerceiverBlock": run_block,
    "HiPCrossAttention": run_cross,
}
