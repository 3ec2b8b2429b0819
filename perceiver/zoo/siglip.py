"""SigLIP (arXiv 2303.15343) and SigLIP 2 at fixed sizes (2502.14786) in Hugging Face's layout.

`SiglipModel`, such as google/siglip-base-patch16-224, and `SiglipForImageClassification`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceiver.attention import Block
from perceiver.dual import DualEncoder, DualEncoderConfig, ImageClassifierConfig, Projection, SigmoidContrast
from perceiver.errors import ConfigError, InputError
from perceiver.prompts import Prompts, Wording
from perceiver.towers import LastPosition, TextTower, VisionTower
from perceiver.zoo.preprocessing import Processor
from perceiver.zoo.tables import AS_IS, LINEAR, SCALAR, Row, row, torch_linear, torch_norm
from perceiver.zoo.towers import (
    TOKEN,
    Section,
    expect_model,
    label_fields,
    labels,
    layer_fields,
    layer_rows,
    patch_rows,
    picture,
    picture_fields,
    token_id,
)

ARCHITECTURES = ("SiglipModel", "SiglipForImageClassification")

_HEAD = (
    "probe",
    *(f"attention.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
    *(f"{name}.{kind}" for name in ("layernorm", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")),
)
IGNORED = (
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
    *(f"vision_model.head.{name}" for name in _HEAD),
)
"""Counters 0, 1, 2, ... that older files hold, and the head of a classifier's tower, which goes unused there."""

_COMMON = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "attention_dropout": 0.0,
}
_TEXT = {**_COMMON, "vocab_size": 32000, "max_position_embeddings": 64, "projection_size": None}
_VISION = {**_COMMON, "num_channels": 3, "image_size": 224, "patch_size": 16, "vision_use_head": True}


class SiglipModel:
    """The field's name for a `DualEncoder` that compares by sigmoid, to load one by."""

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None) -> DualEncoder:
        """As `perceiver.pretrained.from_pretrained`.

        Raises:
            InputError: another kind of model; and what that function raises.
        """
        from perceiver.pretrained import from_pretrained

        model = from_pretrained(source, revision=revision)
        if not isinstance(model, DualEncoder) or not isinstance(model.config.contrast, SigmoidContrast):
            raise InputError(f"{source}: expected a SigLIP, got a {type(model).__name__} of another kind")
        return model


def siglip_base_patch16_224(tokenizer: str | None = None) -> DualEncoderConfig:
    """SigLIP B/16 for pictures of 224 x 224; 203 million parameters. tokenizer: the content of its tokenizer.json."""
    return dual_config({"model_type": "siglip"}, {}, tokenizer)


def siglip_so400m_patch14_384(tokenizer: str | None = None) -> DualEncoderConfig:
    """SigLIP So400m/14 for pictures of 384 x 384; 878 million parameters. tokenizer: as above."""
    both = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    vision = {**both, "image_size": 384, "patch_size": 14}
    hub = {"model_type": "siglip", "text_config": both, "vision_config": vision}
    return dual_config(hub, {"size": {"height": 384, "width": 384}}, tokenizer)


def config(
    hub: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, tokenizer: str | None
) -> DualEncoderConfig | ImageClassifierConfig:
    """The model of a config.json, a preprocessor_config.json and the content of a tokenizer.json.

    Raises:
        ConfigError: another model, or something in it that we do not have; names the field.
    """
    if expect_model(hub, "siglip", ARCHITECTURES) == "SiglipModel":
        return dual_config(hub, preprocessor, tokenizer)
    vision = Section(hub.get("vision_config") or {}, _VISION, "vision_config")
    return ImageClassifierConfig(dataclasses.replace(_vision(vision, preprocessor), probe=None), labels(hub))


def dual_config(
    hub: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, tokenizer: str | None
) -> DualEncoderConfig:
    """As `config`, for a `SiglipModel`."""
    text = Section(hub.get("text_config") or {}, _TEXT, "text_config")
    vision = Section(hub.get("vision_config") or {}, _VISION, "vision_config")
    if not vision.flag("vision_use_head"):
        raise vision.error("vision_use_head", "true, since SiglipModel compares what the head gives")
    width = text.count("hidden_size" if text.fields["projection_size"] is None else "projection_size")
    wanted = vision.count("hidden_size")
    if width != wanted:
        raise ConfigError(f"text_config.projection_size: expected vision_config.hidden_size {wanted}, got {width}")
    return DualEncoderConfig(
        image=_vision(vision, preprocessor),
        text=TextTower(
            text.count("vocab_size"),
            text.count("max_position_embeddings"),
            text.count("hidden_size"),
            text.count("num_hidden_layers"),
            text.block(),
            LastPosition(),
            prompts=None if tokenizer is None else _prompts(tokenizer),
        ),
        text_projection=Projection(width, bias=True),
        contrast=SigmoidContrast(),
    )


def rows(config: DualEncoderConfig | ImageClassifierConfig) -> list[Row]:
    """The table: Hugging Face's keys and our parameters."""
    image = [
        *patch_rows("vision_model.embeddings.patch_embedding", "image.patches", config.image),
        row("vision_model.embeddings.position_embedding.weight", "image.positions"),
        *layer_rows("vision_model.encoder.layers", "image.stack", config.image.depth),
        *torch_norm("vision_model.post_layernorm", "image.norm"),
    ]
    if isinstance(config, ImageClassifierConfig):
        return [*image, *torch_linear("classifier", "head")]
    return [
        *image,
        *_head_rows(),
        row("text_model.embeddings.token_embedding.weight", "text.table"),
        row("text_model.embeddings.position_embedding.weight", "text.positions"),
        *layer_rows("text_model.encoder.layers", "text.stack", config.text.depth),
        *torch_norm("text_model.final_layer_norm", "text.norm"),
        *torch_linear("text_model.head", "text_projection"),
        row("logit_scale", "log_scale", SCALAR),
        row("logit_bias", "bias", SCALAR),
    ]


def hub_config(config: DualEncoderConfig | ImageClassifierConfig) -> dict[str, Any]:
    """The config.json with which transformers loads what `tables.write(rows(config), ...)` gives.

    Raises:
        ConfigError: a model that is no SigLIP.
    """
    image = config.image
    if image.class_token or image.first_norm or not image.patch_bias or not image.qkv_bias:
        raise ConfigError(f"{type(config).__name__}.image: this tower is no SigLIP")
    vision = {
        "model_type": "siglip_vision_model",
        **layer_fields(image.block, image.channels, image.depth),
        **picture_fields(image),
        "vision_use_head": image.probe is not None,
    }
    if isinstance(config, ImageClassifierConfig):
        if image.probe is not None:
            raise ConfigError("ImageClassifierConfig.image: SigLIP's classifier has no probe")
        classifier = {"architectures": [ARCHITECTURES[1]], "model_type": "siglip"}
        return {**classifier, "vision_config": vision, **label_fields(config.classes)}
    text, joint = config.text, config.text_projection
    alike = config.image_projection is None and joint is not None and joint.bias and not text.causal
    if not alike or image.probe != _probe(image.block) or not isinstance(text.pooling, LastPosition):
        raise ConfigError("DualEncoderConfig: these towers are no SigLIP")
    if not isinstance(config.contrast, SigmoidContrast):
        raise ConfigError("DualEncoderConfig.contrast: SigLIP compares by sigmoid")
    return {
        "architectures": [ARCHITECTURES[0]],
        "model_type": "siglip",
        "text_config": {
            "model_type": "siglip_text_model",
            **layer_fields(text.block, text.channels, text.depth),
            "vocab_size": text.vocabulary,
            "max_position_embeddings": text.max_length,
            "projection_size": config.channels,
        },
        "vision_config": vision,
    }


def _vision(vision: Section, preprocessor: Mapping[str, Any] | None) -> VisionTower:
    block = vision.block()
    return VisionTower(
        picture(vision, preprocessor, Processor.SIGLIP),
        vision.sides("patch_size"),
        vision.count("hidden_size"),
        vision.count("num_hidden_layers"),
        block,
        class_token=False,
        probe=_probe(block),
    )


def _probe(block: Block) -> Block:
    """The head's block: as the layers', but for its attention, which has no dropout."""
    return dataclasses.replace(block, attention_dropout=0.0)


def _head_rows() -> list[Row]:
    theirs, ours = "vision_model.head", "image.probe"
    parts = [
        entry
        for i, name in enumerate(("query", "key", "value"))
        for entry in (
            row(f"{theirs}.attention.in_proj_weight", f"{ours}.attention.{name}.kernel", LINEAR, part=(i, 3)),
            row(f"{theirs}.attention.in_proj_bias", f"{ours}.attention.{name}.bias", AS_IS, part=(i, 3)),
        )
    ]
    return [
        row(f"{theirs}.probe", f"{ours}.query", TOKEN),
        *parts,
        *torch_linear(f"{theirs}.attention.out_proj", f"{ours}.attention.out"),
        *torch_norm(f"{theirs}.layernorm", f"{ours}.mlp.norm"),
        *torch_linear(f"{theirs}.mlp.fc1", f"{ours}.mlp.widen"),
        *torch_linear(f"{theirs}.mlp.fc2", f"{ours}.mlp.narrow"),
    ]


def _prompts(tokenizer: str) -> Prompts:
    """SigLIP pads with </s> and drops punctuation; SigLIP 2, known by the <eos> of Gemma's vocabulary, does neither."""
    if token_id(tokenizer, "<eos>") is None:
        return Prompts(tokenizer, token_id(tokenizer, "</s>") or 0, Wording.BARE)
    return Prompts(tokenizer, token_id(tokenizer, "<pad>") or 0, Wording.LOWER)
