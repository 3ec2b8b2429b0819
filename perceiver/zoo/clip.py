"""CLIP (arXiv 2103.00020) in Hugging Face's layout: `CLIPModel`, such as openai/clip-vit-base-patch32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceiver.dual import DualEncoder, DualEncoderConfig, ImageClassifierConfig, Projection, SoftmaxContrast
from perceiver.errors import ConfigError, InputError
from perceiver.prompts import Prompts
from perceiver.towers import EndOfText, TextTower, VisionTower
from perceiver.zoo.preprocessing import Processor
from perceiver.zoo.tables import AS_IS, Row, row, torch_linear, torch_norm
from perceiver.zoo.towers import (
    Section,
    expect_model,
    layer_fields,
    layer_rows,
    patch_rows,
    picture,
    picture_fields,
    token_id,
)

ARCHITECTURES = ("CLIPModel",)

IGNORED = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
"""Counters 0, 1, 2, ... that older files hold."""

LEGACY_END = 2
"""The wrong end-of-text id of the first configs. It stands for the rule of OpenAI's code: the largest id of a text."""

_COMMON = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "attention_dropout": 0.0}
_TEXT = {
    **_COMMON,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
_VISION = {
    **_COMMON,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
_TOP = {"projection_dim": 512, "logit_scale_init_value": 2.6592}


class CLIPModel:
    """The field's name for a `DualEncoder` that compares by softmax, to load one by."""

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None) -> DualEncoder:
        """As `perceiver.pretrained.from_pretrained`.

        Raises:
            InputError: another kind of model; and what that function raises.
        """
        from perceiver.pretrained import from_pretrained

        model = from_pretrained(source, revision=revision)
        if not isinstance(model, DualEncoder) or not isinstance(model.config.contrast, SoftmaxContrast):
            raise InputError(f"{source}: expected a CLIP, got a {type(model).__name__} of another kind")
        return model


def clip_vit_base_patch32(tokenizer: str | None = None) -> DualEncoderConfig:
    """CLIP ViT-B/32; 151 million parameters. tokenizer: the content of its tokenizer.json."""
    return config({"model_type": "clip", "text_config": {"eos_token_id": LEGACY_END}}, {}, tokenizer)


def clip_vit_base_patch16(tokenizer: str | None = None) -> DualEncoderConfig:
    """CLIP ViT-B/16; 150 million parameters. tokenizer: the content of its tokenizer.json."""
    text, vision = {"eos_token_id": LEGACY_END}, {"patch_size": 16}
    return config({"model_type": "clip", "text_config": text, "vision_config": vision}, {}, tokenizer)


def clip_vit_large_patch14(tokenizer: str | None = None) -> DualEncoderConfig:
    """CLIP ViT-L/14; 428 million parameters. tokenizer: the content of its tokenizer.json."""
    text = {
        "eos_token_id": LEGACY_END,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
    }
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    }
    large = {"model_type": "clip", "text_config": text, "vision_config": vision, "projection_dim": 768}
    return config(large, {}, tokenizer)


def config(hub: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, tokenizer: str | None) -> DualEncoderConfig:
    """The model of a config.json, a preprocessor_config.json and the content of a tokenizer.json.

    Raises:
        ConfigError: another model, or something in it that we do not have; names the field.
    """
    expect_model(hub, "clip", ARCHITECTURES)
    top = Section(hub, _TOP, "config.json")
    text, vision = _section(hub, "text_config", _TEXT), _section(hub, "vision_config", _VISION)
    end = text.count("eos_token_id")
    joint = Projection(top.count("projection_dim"))
    return DualEncoderConfig(
        image=VisionTower(
            picture(vision, preprocessor, Processor.CLIP),
            vision.sides("patch_size"),
            vision.count("hidden_size"),
            vision.count("num_hidden_layers"),
            vision.block(),
            patch_bias=False,
            first_norm=True,
        ),
        text=TextTower(
            text.count("vocab_size"),
            text.count("max_position_embeddings"),
            text.count("hidden_size"),
            text.count("num_hidden_layers"),
            text.block(),
            EndOfText(None if end == LEGACY_END else end),
            causal=True,
            prompts=None if tokenizer is None else _prompts(tokenizer),
        ),
        image_projection=joint,
        text_projection=joint,
        contrast=SoftmaxContrast(top.number("logit_scale_init_value")),
    )


def rows(config: DualEncoderConfig) -> list[Row]:
    """The table: Hugging Face's keys and our parameters."""
    return [
        row("text_model.embeddings.token_embedding.weight", "text.table"),
        row("text_model.embeddings.position_embedding.weight", "text.positions"),
        *layer_rows("text_model.encoder.layers", "text.stack", config.text.depth),
        *torch_norm("text_model.final_layer_norm", "text.norm"),
        row("vision_model.embeddings.class_embedding", "image.class_token"),
        *patch_rows("vision_model.embeddings.patch_embedding", "image.patches", config.image),
        row("vision_model.embeddings.position_embedding.weight", "image.positions"),
        *torch_norm("vision_model.pre_layrnorm", "image.first_norm"),
        *layer_rows("vision_model.encoder.layers", "image.stack", config.image.depth),
        *torch_norm("vision_model.post_layernorm", "image.norm"),
        *torch_linear("visual_projection", "image_projection", bias=False),
        *torch_linear("text_projection", "text_projection", bias=False),
        row("logit_scale", "log_scale", AS_IS),
    ]


def hub_config(config: DualEncoderConfig | ImageClassifierConfig) -> dict[str, Any]:
    """The config.json with which transformers loads what `tables.write(rows(config), ...)` gives.

    Raises:
        ConfigError: a model that is no CLIP.
    """
    if not isinstance(config, DualEncoderConfig):
        raise ConfigError(f"{type(config).__name__}: CLIP has an image and a text tower")
    image, text = config.image, config.text
    alike = image.class_token and image.first_norm and not image.patch_bias and image.probe is None and image.qkv_bias
    joint = config.image_projection
    if not alike or not text.causal or joint is None or joint.bias or joint != config.text_projection:
        raise ConfigError("DualEncoderConfig: these towers are no CLIP")
    if not isinstance(text.pooling, EndOfText) or not isinstance(config.contrast, SoftmaxContrast):
        raise ConfigError("DualEncoderConfig: CLIP pools at the end of the text and compares by softmax")
    joined = {"projection_dim": joint.channels}
    return {
        "architectures": [ARCHITECTURES[0]],
        "model_type": "clip",
        **joined,
        "logit_scale_init_value": config.contrast.log_scale,
        "text_config": {
            "model_type": "clip_text_model",
            **joined,
            **layer_fields(text.block, text.channels, text.depth),
            "vocab_size": text.vocabulary,
            "max_position_embeddings": text.max_length,
            "eos_token_id": LEGACY_END if text.pooling.id is None else text.pooling.id,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **joined,
            **layer_fields(image.block, image.channels, image.depth),
            **picture_fields(image),
        },
    }


def _section(hub: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> Section:
    """A tower's part. Where an older ..._config_dict stands beside it, that decides, with defaults for the rest."""
    given, older = hub.get(name) or {}, hub.get(f"{name}_dict")
    return Section(given if older is None else Section(older, defaults, f"{name}_dict").fields, defaults, name)


def _prompts(tokenizer: str) -> Prompts:
    """Padding lies behind the end of the text, which no token before it sees, so any id but a larger one will do."""
    return Prompts(tokenizer, padding=token_id(tokenizer, "<|endoftext|>") or 0)
