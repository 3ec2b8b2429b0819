"""How Hugging Face's transformers names the parts of a Perceiver, and the fields of its config.json.

Where it differs from DeepMind's code (erf GELU, a mean for latents that see nothing), the config built here says so.
Source: transformers, models/perceiver.
"""

from collections.abc import Sequence
from typing import Any

from perceiver.attention import Activation, Block
from perceiver.config import suggestion
from perceiver.encoder import Encoder
from perceiver.errors import ConfigError
from perceiver.zoo.families import HubConfig
from perceiver.zoo.tables import Row, row, torch_linear, torch_norm

ACTIVATIONS = {
    "gelu": Activation.GELU_ERF,
    "gelu_new": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "quick_gelu": Activation.QUICK_GELU,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "relu": Activation.RELU,
    "relu2": Activation.SQUARED_RELU,
}
"""By the name in `hidden_act`."""

ACTIVATION_NAMES = {
    kind: name for name, kind in reversed(ACTIVATIONS.items()) if name not in ("gelu_new", "gelu_fast", "swish")
}
"""The name that is written for each: of several for one function, the plain one."""

_ATTENTION = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "mlp.dense1": "mlp.widen",
    "mlp.dense2": "mlp.narrow",
}


def activation(hub: HubConfig) -> Activation:
    """`hidden_act`.

    Raises:
        ConfigError: one that we do not have.
    """
    name = hub.get("hidden_act", str, "gelu")
    if name not in ACTIVATIONS:
        raise ConfigError(f"config.json: hidden_act: unknown {name!r}; {suggestion(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def encoder(hub: HubConfig) -> Encoder:
    """The encoder."""
    width = hub.get("d_latents", int, 1280)
    common = {
        "qk_channels": hub.get("qk_channels", int),
        "v_channels": hub.get("v_channels", int),
        "attention_dropout": float(hub.get("attention_probs_dropout_prob", (int, float), 0.1)),
        "activation": activation(hub),
        "mean_when_blind": True,
    }
    cross = Block(
        heads=hub.get("num_cross_attention_heads", int, 8),
        widening=hub.get("cross_attention_widening_factor", int, 1),
        residual=hub.get("use_query_residual", bool, True),
        **common | {"qk_channels": common["qk_channels"] or _shape(hub, width)},
    )
    latent = Block(
        heads=hub.get("num_self_attention_heads", int, 8),
        widening=hub.get("self_attention_widening_factor", int, 1),
        **common,
    )
    return Encoder(
        latents=hub.get("num_latents", int, 256),
        channels=width,
        depth=hub.get("num_self_attends_per_block", int, 26),
        cross=cross,
        latent=latent,
        towers=(0,) * hub.get("num_blocks", int, 1),
        latent_scale=float(hub.get("initializer_range", (int, float), 0.02)),
    )


def decoder(hub: HubConfig, queries: int, residual: bool, **changes: Any) -> Block:
    """The cross-attend from queries of that many channels to the latents."""
    given = {
        "heads": 1,
        "qk_channels": _shape(hub, queries),
        "residual": residual,
        "attention_dropout": float(hub.get("attention_probs_dropout_prob", (int, float), 0.1)),
        "activation": activation(hub),
    }
    return Block(**given | changes)


def hub_encoder(config: Encoder, tokens: int) -> dict[str, Any]:
    """Fields of config.json for an encoder: the inverse of `encoder`."""
    cross, latent = config.cross, config.latent
    by_query = latent.qk_channels is None and cross.qk_channels == config.channels
    return {
        "model_type": "perceiver",
        "num_latents": config.latents,
        "d_latents": config.channels,
        "d_model": tokens,
        "num_blocks": len(config.towers),
        "num_self_attends_per_block": config.depth,
        "num_self_attention_heads": latent.heads,
        "num_cross_attention_heads": cross.heads,
        "qk_channels": latent.qk_channels,
        "v_channels": latent.v_channels,
        "cross_attention_shape_for_attention": "q" if by_query else "kv",
        "self_attention_widening_factor": latent.widening,
        "cross_attention_widening_factor": cross.widening,
        "hidden_act": ACTIVATION_NAMES[latent.activation],
        "attention_probs_dropout_prob": latent.attention_dropout,
        "initializer_range": config.latent_scale,
        "use_query_residual": cross.residual,
    }


def cross_rows(theirs: str, ours: str) -> list[Row]:
    """A PerceiverLayer that attends across."""
    rows = torch_norm(f"{theirs}.attention.self.layernorm1", f"{ours}.query_norm")
    rows += torch_norm(f"{theirs}.attention.self.layernorm2", f"{ours}.key_norm")
    rows += torch_norm(f"{theirs}.layernorm", f"{ours}.mlp.norm")
    return rows + _inner(theirs, ours, None)


def encoder_rows(config: Encoder) -> list[Row]:
    """Latents, cross-attend and self-attends."""
    layers, theirs, ours = range(config.depth), "perceiver.encoder.self_attends.{}", "encoder.towers.0.layers"
    rows = [row("perceiver.embeddings.latents", "encoder.latents")]
    rows += cross_rows("perceiver.encoder.cross_attention", "encoder.cross.0")
    rows += torch_norm(f"{theirs}.attention.self.layernorm1", f"{ours}.norm", layers)
    rows += torch_norm(f"{theirs}.layernorm", f"{ours}.mlp.norm", layers)
    return rows + _inner(theirs, ours, layers)


def classifier_rows(name: str) -> list[Row]:
    """A PerceiverClassificationDecoder as the output `name`."""
    theirs = "perceiver.decoder.decoder"
    rows = cross_rows(f"{theirs}.decoding_cross_attention", f"decoders.{name}.cross")
    rows.append(row(f"{theirs}.output_position_encodings.position_embeddings", f"decoders.{name}.query.slots"))
    return rows + torch_linear(f"{theirs}.final_layer", f"decoders.{name}.head.linear")


def _shape(hub: HubConfig, queries: int) -> int | None:
    """Width of queries and keys of a cross-attend that declares none: the queries', or None for the keys'."""
    shape = hub.get("cross_attention_shape_for_attention", str, "kv")
    if shape not in ("q", "kv"):
        raise ConfigError(f"config.json: cross_attention_shape_for_attention: expected 'q' or 'kv', got {shape!r}")
    return queries if shape == "q" else None


def _inner(theirs: str, ours: str, layers: Sequence[int] | None) -> list[Row]:
    rows = []
    for source, target in _ATTENTION.items():
        rows += torch_linear(f"{theirs}.{source}", f"{ours}.{target}", layers)
    return rows
