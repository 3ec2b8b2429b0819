"""Theoretical cost by formula: FLOPs of the matrix products, and the bytes that have to move at least.

A multiplication and an addition are 2 FLOPs. Elementwise work (norms, activations, softmax, positions, the optimiser)
is left out, as in the papers' tables. Training costs three forward passes: one forward, two for the gradients with
respect to inputs and weights. Recomputation is not counted, as it is no work that the result asks for.
"""

import dataclasses
import math
from collections.abc import Mapping

from perceiver.adapters.base import Adapter
from perceiver.adapters.frames import FramePair
from perceiver.adapters.image import Image
from perceiver.adapters.state import State
from perceiver.attention import Block
from perceiver.convolutions import KERNEL, STRIDE, ConvStem
from perceiver.decoders import Classes, Output
from perceiver.decoders.actions import TIME, BinnedChunk, Chunk, FlowChunk, NoisyActions
from perceiver.decoders.heads import Dense, Embedding, Flow, Head, Regression, SoundPatches, TokenLogits
from perceiver.dual import DualEncoderConfig
from perceiver.errors import ConfigError
from perceiver.model import ModelConfig, PerceiverConfig
from perceiver.positions import Position, Projected
from perceiver.towers import TextTower, VisionTower

FLOAT = 4
"""Bytes of a float32."""
TRAINING = 3
"""Forward passes that a forward and a backward pass cost."""
PASSES_OVER_WEIGHTS = 8
"""Of a training step with AdamW: weights, gradients and two moments, each read once and written once."""


def linear(rows: int, inputs: int, outputs: int) -> int:
    """FLOPs of a linear map of `rows` vectors."""
    return 2 * rows * inputs * outputs


def attend(block: Block, queries: int, keys: int, q_width: int, kv_width: int, out: int) -> int:
    """FLOPs of one attention and its MLP, for one sample. q_width: also the width that qk_channels=None means."""
    qk = kv_width if block.qk_channels is None else block.qk_channels
    v = qk if block.v_channels is None else block.v_channels
    hidden = block.widening * out if block.mlp_channels is None else block.mlp_channels
    projections = linear(queries, q_width, qk) + linear(keys, kv_width, qk) + linear(keys, kv_width, v)
    mixing = linear(queries, qk, keys) + linear(queries, keys, v)
    return projections + mixing + linear(queries, v, out) + 2 * linear(queries, out, hidden)


def forward_flops(config: ModelConfig, asked: Mapping[str, int] | None = None) -> int:
    """FLOPs of one sample's forward pass with every input given in full.

    asked: how many queries of an output are asked, by name, where not all are.
    """
    if isinstance(config, DualEncoderConfig):
        image = _tower(config.image) + _projection(config.image.channels, config.image_projection)
        return image + _tower(config.text) + _projection(config.text.channels, config.text_projection)
    assert isinstance(config, PerceiverConfig)
    encoder, width = config.encoder, config.token_channels
    tokens = sum(adapter.tokens for adapter in config.inputs.values())
    flops = sum(_adapter(adapter) for adapter in config.inputs.values())
    cross = attend(encoder.cross, encoder.latents, tokens, encoder.channels, width, encoder.channels)
    layer = attend(encoder.latent, encoder.latents, encoder.latents, *[encoder.channels] * 3)
    flops += len(encoder.cross_attends) * cross + len(encoder.towers) * encoder.depth * layer
    return flops + sum(_output(config, name, (asked or {}).get(name)) for name in config.outputs)


def step_flops(config: ModelConfig, asked: Mapping[str, int] | None = None) -> int:
    """FLOPs of one sample's share of a training step."""
    return TRAINING * forward_flops(config, asked)


def forward_bytes(parameters: int, given: int, answered: int) -> int:
    """Weights and inputs read once, answers written once. given, answered: bytes of inputs and answers."""
    return FLOAT * parameters + given + answered


def step_bytes(parameters: int, given: int) -> int:
    """Weights, gradients and AdamW's two moments read and written once each, inputs read once."""
    return PASSES_OVER_WEIGHTS * FLOAT * parameters + given


def _adapter(adapter: Adapter) -> int:
    if isinstance(adapter, Image):
        stem = 0 if adapter.stem is None else _stem(adapter.stem, adapter.shape)
        return stem + _embed(adapter.tokens, adapter.features, adapter.project, adapter.position, 2)
    if isinstance(adapter, FramePair):
        return _embed(adapter.tokens, adapter.features, adapter.project, adapter.position, 2)
    if isinstance(adapter, State):
        return _embed(adapter.tokens, adapter.dims, adapter.project, adapter.position, 1)
    return 0  # tables, and values taken as they are


def _embed(tokens: int, features: int, project: int | None, position: Position, dims: int) -> int:
    flops = 0 if project is None else linear(tokens, features, project)
    if isinstance(position, Projected):
        flops += linear(tokens, position.position.channels(dims), position.width)
    return flops


def _stem(stem: ConvStem, shape: tuple[int, int, int]) -> int:
    flops, (rows, columns, channels) = 0, shape
    one = dataclasses.replace(stem, layers=1)
    for _ in range(stem.layers):
        convolved = math.ceil(rows / STRIDE) * math.ceil(columns / STRIDE)
        flops += linear(convolved, KERNEL**2 * channels, stem.channels)
        rows, columns, channels = one.size(rows), one.size(columns), stem.channels
    return flops


def _output(config: PerceiverConfig, name: str, asked: int | None) -> int:
    output, latents = config.outputs[name], config.encoder
    if not isinstance(output, Output):  # the mean of the latents, then the head
        return _head(output.head, 1, latents.channels)
    inputs = {modality: adapter.channels for modality, adapter in config.inputs.items()}
    if asked is None:
        source = config.inputs[output.source].tokens if output.source is not None else None
        asked = math.prod(output.shape) if output.shape is not None else source
    if asked is None and isinstance(output.asked, NoisyActions):
        asked = output.asked.horizon
    if asked is None:
        raise ConfigError(f"outputs[{name!r}]: the number of queries is the caller's, so give it in `asked`")
    if output.trunk is not None:
        trunk = config.trunks[output.trunk]
        width = trunk.channels
        flops = attend(trunk.cross, asked, latents.latents, width, latents.channels, width)
        if trunk.project is not None:
            flops, width = flops + linear(asked, width, trunk.project), trunk.project
    else:
        width = output.asked.channels(latents.channels, inputs)
        flops = attend(output.cross, asked, latents.latents, width, latents.channels, width)
        if isinstance(output.asked, NoisyActions):
            flops += _noisy(output.asked, asked, width)
    return flops + _head(output.head, asked, width)


def _head(head: Head, asked: int, width: int) -> int:
    if isinstance(head, Classes):
        return linear(asked, width, head.count)
    if isinstance(head, Dense | Embedding):
        return linear(asked, width, head.channels)
    if isinstance(head, Regression | Chunk | FlowChunk):
        return linear(asked, width, head.dims)
    if isinstance(head, BinnedChunk):
        return linear(asked, width, head.dims * head.bins)
    if isinstance(head, SoundPatches):
        return linear(asked, width, head.patch)
    if isinstance(head, TokenLogits):
        return linear(asked, width, head.vocabulary)
    assert isinstance(head, Flow)
    return linear(asked, width, 2)


def _noisy(query: NoisyActions, asked: int, width: int) -> int:
    """One step of the flow, as in training; choosing actions decodes as often as the head has steps."""
    mixing = query.depth * attend(query.mixing, asked, asked, width, width, width)
    return mixing + linear(asked, query.dims + TIME.channels(1), width)


def _tower(tower: VisionTower | TextTower) -> int:
    tokens = tower.tokens if isinstance(tower, VisionTower) else tower.max_length
    width = tower.channels
    layers = tower.depth * attend(tower.block, tokens, tokens, width, width, width)
    if isinstance(tower, TextTower):
        return layers
    features = tower.patch[0] * tower.patch[1] * tower.image.shape[2]
    return layers + linear(tower.grid[0] * tower.grid[1], features, width)


def _projection(width: int, projection) -> int:
    return 0 if projection is None else linear(1, width, projection.channels)
