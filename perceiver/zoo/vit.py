"""ViT (arXiv 2010.11929) in Hugging Face's layout: `ViTForImageClassification`, such as google/vit-base-patch16-224."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceiver.dual import ImageClassifierConfig, VisionClassifier
from perceiver.errors import ConfigError, InputError
from perceiver.towers import VisionTower
from perceiver.zoo.preprocessing import Processor
from perceiver.zoo.tables import UNBATCHED, Row, row, torch_linear, torch_norm
from perceiver.zoo.towers import (
    TOKEN,
    Section,
    expect_model,
    label_fields,
    labels,
    layer_fields,
    patch_rows,
    picture,
    picture_fields,
)

ARCHITECTURES = ("ViTForImageClassification",)

IGNORED = ("vit.pooler.dense.weight", "vit.pooler.dense.bias")
"""The pooler of ViTModel, which the classifier does not use."""

_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}


class ViTForImageClassification:
    """The field's name for a `VisionClassifier`, to load one by."""

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None) -> VisionClassifier:
        """As `perceiver.pretrained.from_pretrained`.

        Raises:
            InputError: another kind of model; and what that function raises.
        """
        from perceiver.pretrained import from_pretrained

        model = from_pretrained(source, revision=revision)
        if not isinstance(model, VisionClassifier):
            raise InputError(f"{source}: expected a ViT classifier, got a {type(model).__name__}")
        return model


def vit_base_patch16_224(classes: int = 1000) -> ImageClassifierConfig:
    """ViT-B/16 for pictures of 224 x 224; 86.6 million parameters."""
    return config(_named(classes), {}, None)


def vit_large_patch16_224(classes: int = 1000) -> ImageClassifierConfig:
    """ViT-L/16 for pictures of 224 x 224; 304 million parameters."""
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    return config(_named(classes) | large, {}, None)


def config(
    hub: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, tokenizer: str | None
) -> ImageClassifierConfig:
    """The model of a config.json and a preprocessor_config.json; a tokenizer plays no part.

    Raises:
        ConfigError: another model, or something in it that we do not have; names the field.
    """
    expect_model(hub, "vit", ARCHITECTURES)
    fields = Section(hub, _DEFAULTS, "config.json")
    fields.fields["attention_dropout"] = fields.number("attention_probs_dropout_prob")
    block = fields.block()
    head = fields.count("head_dim") if "head_dim" in fields.fields else None
    block = dataclasses.replace(
        block,
        qk_channels=None if head is None else head * block.heads,
        dropout=fields.number("hidden_dropout_prob"),
    )
    tower = VisionTower(
        picture(fields, preprocessor, Processor.VIT),
        fields.sides("patch_size"),
        fields.count("hidden_size"),
        fields.count("num_hidden_layers"),
        block,
        qkv_bias=fields.flag("qkv_bias"),
    )
    return ImageClassifierConfig(tower, labels(hub))


def rows(config: ImageClassifierConfig) -> list[Row]:
    """The table: Hugging Face's keys and our parameters."""
    tower = config.image
    layers = range(tower.depth)
    theirs, ours = "vit.encoder.layer.{}", "image.stack.layers"
    attention = [
        entry
        for name in ("query", "key", "value")
        for entry in torch_linear(
            f"{theirs}.attention.attention.{name}", f"{ours}.attention.{name}", layers, bias=tower.qkv_bias
        )
    ]
    return [
        row("vit.embeddings.cls_token", "image.class_token", TOKEN),
        row("vit.embeddings.position_embeddings", "image.positions", UNBATCHED),
        *patch_rows("vit.embeddings.patch_embeddings.projection", "image.patches", tower),
        *attention,
        *torch_linear(f"{theirs}.attention.output.dense", f"{ours}.attention.out", layers),
        *torch_linear(f"{theirs}.intermediate.dense", f"{ours}.mlp.widen", layers),
        *torch_linear(f"{theirs}.output.dense", f"{ours}.mlp.narrow", layers),
        *torch_norm(f"{theirs}.layernorm_before", f"{ours}.norm", layers),
        *torch_norm(f"{theirs}.layernorm_after", f"{ours}.mlp.norm", layers),
        *torch_norm("vit.layernorm", "image.norm"),
        *torch_linear("classifier", "head"),
    ]


def hub_config(config: ImageClassifierConfig) -> dict[str, Any]:
    """The config.json with which transformers loads what `tables.write(rows(config), ...)` gives.

    Raises:
        ConfigError: a tower that is no ViT.
    """
    tower = config.image
    if not tower.class_token or tower.probe is not None or tower.first_norm or not tower.patch_bias:
        raise ConfigError("ImageClassifierConfig.image: this tower is no ViT")
    fields = layer_fields(tower.block, tower.channels, tower.depth)
    dropped = {
        "attention_probs_dropout_prob": fields.pop("attention_dropout"),
        "hidden_dropout_prob": tower.block.dropout,
    }
    head = {} if tower.block.qk_channels is None else {"head_dim": tower.block.qk_channels // tower.block.heads}
    return {
        "architectures": [ARCHITECTURES[0]],
        "model_type": "vit",
        **fields,
        **head,
        **dropped,
        **picture_fields(tower),
        "qkv_bias": tower.qkv_bias,
        **label_fields(config.classes),
    }


def _named(classes: int) -> dict[str, Any]:
    return {"model_type": "vit", "num_labels": classes}
