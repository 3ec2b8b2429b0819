"""Perceiver AR: its defaults, its view of padding, and where Haiku keeps each of our parameters.

Origin: google-research/perceiver-ar, Apache-2.0 (arXiv 2202.07765). No weights were released; the table reads those of
any model that its code trains. Where that code counts places downwards it does so by `Order.BACKWARD`; with its
use_negative_rotary_positions places differ as they do forwards, which is all that rotary angles tell.
"""

import numpy as np

from perceiver.adapters.text import Text
from perceiver.attention import Activation, Block, CrossAttend
from perceiver.autoregressive import AutoregressiveConfig
from perceiver.autoregressive_parts import FromId, FromSlot, Ids
from perceiver.autoregressive_positions import Rotary, Rows, Table
from perceiver.typing import Int
from perceiver.zoo.haiku import numbered
from perceiver.zoo.tables import Row, haiku_linear, haiku_norm, row

_ATTENTION = {"linear": "query", "linear_1": "key", "linear_2": "value", "linear_3": "out"}
_MLP = {"linear": "widen", "linear_1": "narrow"}


def block(
    heads: int,
    widening: int = 1,
    *,
    qk_channels: int | None = None,
    dropout: float = 0.0,
    residual: bool = True,
    activation: Activation = Activation.SQUARED_RELU,
) -> Block:
    """A block in the reference's terms: what sees nothing takes the mean of all. The rest as for Block."""
    return Block(
        heads=heads,
        widening=widening,
        qk_channels=qk_channels,
        dropout=dropout,
        residual=residual,
        activation=activation,
        mean_when_blind=True,
    )


def perceiver_ar(
    text: Text | Ids,
    latents: int = 1024,
    channels: int = 1024,
    depth: int = 12,
    heads: int = 8,
    *,
    cross_heads: int = 1,
    widening: int = 1,
    cross_widening: int = 1,
    dropout: float = 0.0,
) -> AutoregressiveConfig:
    """A model with the reference's defaults: a quarter of the channels rotates."""
    return AutoregressiveConfig(
        text,
        latents,
        channels,
        depth,
        cross=block(cross_heads, cross_widening, dropout=dropout),
        latent=block(heads, widening, dropout=dropout),
        positions=Rotary(share=0.25),
    )


def lengths_of(ids: Int[np.ndarray, "b n"], padding: int = 0) -> Int[np.ndarray, "b"]:
    """Ids of each row before the first padding."""
    ids = np.asarray(ids)
    return np.where((ids == padding).any(axis=1), (ids == padding).argmax(axis=1), ids.shape[1])


def pairs_of(ids: Int[np.ndarray, "b n"], padding: int = 0) -> tuple[Int[np.ndarray, "b m"], Int[np.ndarray, "b m"]]:
    """What a row is read as, without its last id, and what follows each one read; m is n - 1."""
    ids = np.asarray(ids)
    last = np.maximum(lengths_of(ids, padding) - 1, 0)[:, None]
    return np.where(np.arange(ids.shape[1]) == last, padding, ids)[:, :-1], ids[:, 1:]


def table(config: AutoregressiveConfig, module: str = "perceiver_ar") -> list[Row]:
    """Haiku's names. module: the name that the model was given."""
    inner = f"{module}/~"
    rows = [row(f"{inner}/embed/embeddings", "table")]
    if isinstance(config.positions, Table) and config.positions.holds is Rows.LEARNED:
        for axis in range(len(config.positions.rows)):
            rows.append(row(f"{inner}/embed_{axis + 1}/embeddings", f"positions.tables.{axis}"))
    if config.each > 1:
        rows.append(row(f"{module}/~/z_pos_enc/pos_embs", "each"))
    rows += _query(config.query, module)
    crosses = iter(numbered("cross_attention", len(config.looks)))
    selves = iter(numbered("self_attention", config.depth))
    for number, part in enumerate(config.abstract().parts):
        if isinstance(part, CrossAttend):
            theirs = f"{inner}/{next(crosses)}"
            rows += _body(theirs, f"parts.{number}")
            for suffix, ours in (("", "query_norm"), ("_1", "key_norm"), ("_2", "mlp.norm")):
                rows += haiku_norm(f"{theirs}/layer_norm{suffix}", f"parts.{number}.{ours}")
        else:
            theirs, ours, layers = f"{inner}/{{}}", f"parts.{number}.layers", [next(selves) for _ in range(part.depth)]
            rows += _body(theirs, ours, layers)
            rows += haiku_norm(f"{theirs}/layer_norm", f"{ours}.norm", layers)
            rows += haiku_norm(f"{theirs}/layer_norm_1", f"{ours}.mlp.norm", layers)
    return rows + haiku_norm(f"{module}/layer_norm", "norm") + haiku_linear(f"{inner}/logits", "logits")


def fixed(config: AutoregressiveConfig, module: str = "perceiver_ar") -> list[str]:
    """What Haiku stores though a formula gives it: tables of positions that are not learned."""
    positions = config.positions
    if not isinstance(positions, Table) or positions.holds is Rows.LEARNED:
        return []
    return [f"{module}/~/embed_{axis + 1}/embeddings" for axis in range(len(positions.rows))]


def _query(config: FromId | FromSlot, module: str) -> list[Row]:
    """The layers behind the first are made before it."""
    if isinstance(config, FromSlot):
        return [row(f"{module}/q_embed_learned", "query.table")]
    *layers, start = numbered("linear", config.layers + 1)
    rows = haiku_linear(f"{module}/~/{start}", "query.start")
    for number, name in enumerate(layers):
        rows += haiku_linear(f"{module}/~/{name}", f"query.layers.{number}")
    return rows


def _body(theirs: str, ours: str, layers: list[str] | None = None) -> list[Row]:
    """Attention and MLP, which looks and self-attends have in common."""
    rows = []
    for name, own in _ATTENTION.items():
        rows += haiku_linear(f"{theirs}/attention/{name}", f"{ours}.attention.{own}", layers)
    for name, own in _MLP.items():
        rows += haiku_linear(f"{theirs}/dense/{name}", f"{ours}.mlp.{own}", layers)
    return rows
