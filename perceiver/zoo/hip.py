"""Hierarchical Perceiver: the published sizes, and where Haiku keeps each of our parameters.

Origin: google-deepmind/hierarchical_perceiver, Apache-2.0 (arXiv 2202.10890). No weights were released; the tables
read those of any model that its code trains.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from perceiver.attention import Activation, Block
from perceiver.hierarchical import HierarchicalConfig, Signal
from perceiver.hierarchical_blocks import Grouping, Level
from perceiver.zoo.tables import Row, haiku_linear, haiku_norm, row

_ATTENTION = {"query_linear": "query", "key_linear": "key", "value_linear": "value", "attention_output_linear": "out"}
_MLP = {"mlp_hidden_linear": "widen", "mlp_output_linear": "narrow"}


def level(
    groups: int,
    latents: int,
    channels: int,
    depth: int,
    heads: int,
    *,
    cross_heads: int = 1,
    widening: int = 4,
    cross_widening: int = 1,
) -> Level:
    """A level in the reference's terms: heads and widening of its self-attends, and of its look."""
    return Level(
        groups,
        latents,
        channels,
        depth,
        cross=Block(heads=cross_heads, widening=cross_widening, activation=Activation.SQUARED_RELU),
        latent=Block(heads=heads, widening=widening, activation=Activation.SQUARED_RELU),
    )


def hip_mini(inputs: Iterable[Signal], labels: Iterable[Signal] = (), **changes: Any) -> HierarchicalConfig:
    """HiP-Mini: 3 levels. changes: further fields of HierarchicalConfig, here and below."""
    levels = (level(16, 128, 128, 2, 4), level(1, 64, 1024, 1, 32), level(16, 128, 128, 1, 4))
    return _config(inputs, labels, levels, 32, changes)


def hip_16(inputs: Iterable[Signal], labels: Iterable[Signal] = (), **changes: Any) -> HierarchicalConfig:
    """HiP-16: 7 levels, 16 groups."""
    levels = (
        level(16, 128, 128, 2, 4),
        level(4, 256, 256, 2, 8),
        level(1, 256, 512, 18, 16),
        level(1, 64, 1024, 2, 32),
        level(1, 256, 512, 1, 16),
        level(4, 256, 256, 1, 8),
        level(16, 128, 128, 1, 4),
    )
    return _config(inputs, labels, levels, 32, changes)


def hip_256(inputs: Iterable[Signal], labels: Iterable[Signal] = (), **changes: Any) -> HierarchicalConfig:
    """HiP-256: 11 levels, 256 groups, for 10^5 elements and more."""
    levels = (
        level(256, 32, 64, 1, 1),
        level(64, 64, 96, 1, 2),
        level(16, 128, 128, 2, 4),
        level(4, 256, 256, 2, 8),
        level(1, 256, 512, 18, 16),
        level(1, 64, 1024, 2, 32),
        level(1, 256, 256, 1, 16),
        level(4, 256, 128, 1, 8),
        level(16, 128, 64, 1, 4),
        level(64, 64, 32, 1, 2),
        level(256, 32, 16, 1, 1),
    )
    return _config(inputs, labels, levels, 16, changes)


def hip_16x3(inputs: Iterable[Signal], labels: Iterable[Signal] = (), **changes: Any) -> HierarchicalConfig:
    """HiP-16x3: 3 levels, with the depth in the processor."""
    levels = (level(16, 128, 128, 2, 4), level(1, 256, 1024, 18, 32), level(16, 128, 128, 2, 4))
    return _config(inputs, labels, levels, 32, changes)


def io_mini(inputs: Iterable[Signal], **changes: Any) -> HierarchicalConfig:
    """Perceiver IO as the HiP paper compares with, smallest."""
    return _io(inputs, level(1, 128, 128, 2, 2, widening=2), changes)


def io_c_50m(inputs: Iterable[Signal], **changes: Any) -> HierarchicalConfig:
    """Perceiver IO of about 50 M parameters."""
    return _io(inputs, level(1, 1024, 512, 8, 8, cross_heads=8, cross_widening=4), changes)


def io_c_150m(inputs: Iterable[Signal], **changes: Any) -> HierarchicalConfig:
    """Perceiver IO of about 150 M parameters."""
    return _io(inputs, level(1, 1024, 896, 12, 16, cross_heads=16, cross_widening=4), changes)


def _config(
    inputs: Iterable[Signal], labels: Iterable[Signal], levels: tuple[Level, ...], embedding: int, changes: Any
) -> HierarchicalConfig:
    return HierarchicalConfig(tuple(inputs), levels, embedding, labels=tuple(labels), **changes)


def _io(inputs: Iterable[Signal], only: Level, changes: Any) -> HierarchicalConfig:
    return HierarchicalConfig(tuple(inputs), (only,), only.channels, grouping=Grouping.TOGETHER, **changes)


def hip_table(config: HierarchicalConfig, module: str = "perceiver") -> list[Row]:
    """Haiku's names in classes HiP and PerceiverIO. module: the name that the model was given."""
    return [
        *_ports_and_blocks(config, module, "block"),
        *cross_attend_table(f"{module}/reconstruction_head/hi_p_cross_attention", "head"),
    ]


def class_bottleneck_table(config: HierarchicalConfig, module: str = "perceiver") -> list[Row]:
    """Haiku's names in class HiPClassBottleneck, whose head for inputs is the second even where there are no labels."""
    rows = _ports_and_blocks(config, module, "perceiver_block")
    rows += cross_attend_table(f"{module}/reconstruction_head_1/hi_p_cross_attention", "head")
    for i, signal in enumerate(config.labels, start=1):
        rows += _port(signal.name, f"{module}/embedder_{i}", f"{module}/position_encoder_{i}", "label_ports")
    if config.labels:
        rows += cross_attend_table(f"{module}/reconstruction_head/hi_p_cross_attention", "label_head")
    return rows


def level_table(config: Level, theirs: str, ours: str = "", skip_channels: int | None = None) -> list[Row]:
    """One PerceiverBlock. ours: where the LevelBlock is. skip_channels: width of the skip connection, if it has one."""
    rows = look_table(config, f"{theirs}/~/hi_p_cross_attention", ours, skip_channels)
    if config.depth:
        layers, tower = range(config.depth), _below(ours, "tower.layers")
        self_attend = f"{theirs}/~/self_attend_id_{{}}"
        rows += _body(self_attend, tower, layers)
        rows += haiku_norm(f"{self_attend}/layer_norm", f"{tower}.norm", layers)
        rows += haiku_norm(f"{self_attend}/layer_norm_1", f"{tower}.mlp.norm", layers)
    return rows


def look_table(config: Level, theirs: str, ours: str = "", skip_channels: int | None = None) -> list[Row]:
    """One HiPCrossAttention with queries of its own: all that a LevelBlock has before its self-attends."""
    rows = cross_attend_table(theirs, _below(ours, "cross"))
    rows.append(row(f"{theirs}/query_inputs/pos_embs", _below(ours, "queries")))
    if skip_channels not in (None, config.channels):
        rows += haiku_linear(f"{theirs}/pre_attention_residual_linear", _below(ours, "skip"))
    return rows


def cross_attend_table(theirs: str, ours: str = "") -> list[Row]:
    """One HiPCrossAttention with given queries. ours: where the GroupedCrossAttend is."""
    return [
        *_body(theirs, ours),
        *haiku_norm(f"{theirs}/layer_norm", _below(ours, "query_norm")),
        *haiku_norm(f"{theirs}/layer_norm_1", _below(ours, "key_norm")),
        *haiku_norm(f"{theirs}/layer_norm_2", _below(ours, "mlp.norm")),
    ]


def _below(parent: str, path: str) -> str:
    """A parameter path within a module, which may be the root."""
    return f"{parent}.{path}" if parent else path


def _body(theirs: str, ours: str, layers: Sequence[int] | None = None) -> list[Row]:
    """Attention and MLP, which cross-attends and self-attends have in common."""
    rows = []
    for name, own in _ATTENTION.items():
        rows += haiku_linear(f"{theirs}/attention/{name}", _below(ours, f"attention.{own}"), layers)
    for name, own in _MLP.items():
        rows += haiku_linear(f"{theirs}/dense/{name}", _below(ours, f"mlp.{own}"), layers)
    return rows


def _ports_and_blocks(config: HierarchicalConfig, module: str, block: str) -> list[Row]:
    rows = []
    for i, signal in enumerate(config.inputs):
        encoder = f"{module}/position_encoder"
        rows += _port(signal.name, f"{module}/embedder", encoder, "ports")
        if config.project_positions:
            # One map for each input, though the reference's comment calls it shared: Haiku numbers them.
            linear = "position_encoding_linear" if i == 0 else f"position_encoding_linear_{i}"
            rows.append(row(f"{encoder}/{linear}/w", f"ports.{signal.name}.project.kernel"))
    for i, own in enumerate(config.levels):
        skip = config.levels[len(config.levels) - 1 - i].channels if i > config.middle else None
        rows += level_table(own, f"{module}/{block}_{i}", f"blocks.{i}", skip)
    return rows


def _port(name: str, embedder: str, encoder: str, ours: str) -> list[Row]:
    return [
        *haiku_linear(f"{embedder}/~embed/embed_{name}", f"{ours}.{name}.embed"),
        *haiku_linear(f"{embedder}/~unembed/unembed_{name}", f"{ours}.{name}.unembed"),
        row(f"{encoder}/pos_emb_mae_{name}/pos_embs", f"{ours}.{name}.position"),
    ]
