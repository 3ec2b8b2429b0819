"""What Hugging Face's layouts of ViT, CLIP and SigLIP have in common: reading config.json, and rows of tables."""

import json
from collections.abc import Mapping
from typing import Any

from perceiver.adapters.image import Image
from perceiver.attention import Activation, Block
from perceiver.config import suggestion
from perceiver.decoders.heads import Classes
from perceiver.errors import ConfigError
from perceiver.towers import VisionTower
from perceiver.zoo.huggingface import ACTIVATION_NAMES, ACTIVATIONS
from perceiver.zoo.preprocessing import Processor, framing
from perceiver.zoo.tables import AS_IS, Row, Transform, patches, row, torch_linear, torch_norm

TOKEN = Transform(lambda a: a.reshape(-1), lambda a: a[None, None])
"""[1, 1, c] to [c]."""

_ACTIVATIONS = ACTIVATIONS | {
    "gelu_python": Activation.GELU_ERF,
    "gelu_python_tanh": Activation.GELU_TANH,
    "gelu_accurate": Activation.GELU_TANH,
}
"""Several of Hugging Face's names are one function, written in another way."""


class Section:
    """A config.json or a part of it, with the defaults that transformers has for what is absent.

    where: its name in errors, such as "text_config".
    """

    def __init__(self, given: Any, defaults: Mapping[str, Any], where: str):
        if not isinstance(given, Mapping):
            raise ConfigError(f"{where}: expected an object, got {given!r:.80}")
        self.fields = {**defaults, **given}
        self.where = where

    def count(self, name: str) -> int:
        """A whole number above 0."""
        value = self.fields[name]
        if not _is_int(value) or value < 1:
            raise self.error(name, "a whole number above 0")
        return value

    def number(self, name: str) -> float:
        """Any number."""
        value = self.fields[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, "a number")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.fields[name]
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def sides(self, name: str) -> tuple[int, int]:
        """Height and width, given as one number or two."""
        value = self.fields[name]
        pair = (value, value) if _is_int(value) else value
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(_is_int(v) and v > 0 for v in pair):
            raise self.error(name, "a whole number, or [height, width]")
        return pair[0], pair[1]

    def block(self) -> Block:
        """The shape of a layer."""
        width, heads, name = self.count("hidden_size"), self.count("num_attention_heads"), self.fields["hidden_act"]
        if width % heads:
            raise self.error("num_attention_heads", f"a divisor of hidden_size {width}")
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            known = suggestion(str(name), _ACTIVATIONS)
            raise ConfigError(f"{self.where}.hidden_act: no activation {name!r:.80}; {known}")
        return Block(
            heads=heads,
            mlp_channels=self.count("intermediate_size"),
            attention_dropout=self.number("attention_dropout"),
            activation=_ACTIVATIONS[name],
            mean_when_blind=True,
            epsilon=self.number("layer_norm_eps"),
        )

    def error(self, name: str, expected: str) -> ConfigError:
        """For raising."""
        return ConfigError(f"{self.where}.{name}: expected {expected}, got {self.fields[name]!r:.80}")


def expect_model(hub: Mapping[str, Any], model_type: str, architectures: tuple[str, ...]) -> str:
    """The architecture of a config.json, the first of `architectures` where it names none.

    Raises:
        ConfigError: another model.
    """
    if hub.get("model_type") != model_type:
        raise ConfigError(f"model_type: expected {model_type!r}, got {hub.get('model_type')!r}")
    named = hub.get("architectures") or [architectures[0]]
    if not isinstance(named, list | tuple) or len(named) != 1 or named[0] not in architectures:
        raise ConfigError(f"architectures: expected one of {', '.join(architectures)}, got {named!r:.80}")
    return named[0]


def picture(section: Section, preprocessor: Mapping[str, Any] | None, kind: Processor) -> Image:
    """The raw form of a picture. Without a preprocessor_config.json, pixels go in as they come."""
    shape = (*section.sides("image_size"), section.count("num_channels"))
    return Image(shape) if preprocessor is None else Image(shape, **framing(preprocessor, kind))


def labels(hub: Mapping[str, Any]) -> Classes:
    """The classes of a config.json; Hugging Face's own placeholders are no names.

    Raises:
        ConfigError: numbers that are not 0, 1, 2, ..., or fewer than two classes.
    """
    given = hub.get("id2label")
    if given is None:
        count = hub.get("num_labels", 2)
        if not isinstance(count, int) or count < 2:
            raise ConfigError(f"num_labels: expected at least 2 classes, got {count!r}")
        return Classes(count)
    names = {str(number): name for number, name in given.items()} if isinstance(given, Mapping) else {}
    count = len(names)
    if count < 2 or set(names) != {str(i) for i in range(count)}:
        raise ConfigError(f"id2label: expected names for 0, 1, ... of at least 2 classes, got {given!r:.80}")
    ordered = tuple(str(names[str(i)]) for i in range(count))
    return Classes(count, () if ordered == _placeholders(count) else ordered)


def label_fields(classes: Classes) -> dict[str, Any]:
    """What config.json says of the classes."""
    names = classes.names or _placeholders(classes.count)
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def token_id(tokenizer: str, name: str) -> int | None:
    """Id of a token in the content of a tokenizer.json; None where it has no such token.

    Raises:
        ConfigError: not JSON.
    """
    try:
        tree = json.loads(tokenizer)
        added = {entry["content"]: entry["id"] for entry in tree.get("added_tokens", [])}
        vocabulary = tree["model"]["vocab"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"tokenizer: expected the content of a tokenizer.json: {error!r:.80}") from None
    if name in added:
        return added[name]
    if isinstance(vocabulary, Mapping):
        return vocabulary.get(name)
    return next((i for i, entry in enumerate(vocabulary) if entry[0] == name), None)


def patch_rows(theirs: str, ours: str, config: VisionTower) -> list[Row]:
    """The patch embedding."""
    rows = [row(f"{theirs}.weight", f"{ours}.kernel", patches(config.patch, config.image.shape[2]))]
    return [*rows, row(f"{theirs}.bias", f"{ours}.bias", AS_IS)] if config.patch_bias else rows


def layer_rows(theirs: str, ours: str, depth: int) -> list[Row]:
    """The layers of CLIP and SigLIP, which are named alike. theirs: up to the layer's number."""
    names = {
        "self_attn.q_proj": "attention.query",
        "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value",
        "self_attn.out_proj": "attention.out",
        "mlp.fc1": "mlp.widen",
        "mlp.fc2": "mlp.narrow",
    }
    norms = {"layer_norm1": "norm", "layer_norm2": "mlp.norm"}
    layers = range(depth)
    return [
        *(r for a, b in names.items() for r in torch_linear(f"{theirs}.{{}}.{a}", f"{ours}.layers.{b}", layers)),
        *(r for a, b in norms.items() for r in torch_norm(f"{theirs}.{{}}.{a}", f"{ours}.layers.{b}", layers)),
    ]


def layer_fields(block: Block, channels: int, depth: int) -> dict[str, Any]:
    """What config.json says of the layers."""
    return {
        "hidden_size": channels,
        "num_hidden_layers": depth,
        "num_attention_heads": block.heads,
        "intermediate_size": block.widening * channels if block.mlp_channels is None else block.mlp_channels,
        "hidden_act": ACTIVATION_NAMES[block.activation],
        "layer_norm_eps": block.epsilon,
        "attention_dropout": block.attention_dropout,
    }


def picture_fields(config: VisionTower) -> dict[str, Any]:
    """What config.json says of pictures and patches."""
    height, width, channels = config.image.shape
    return {
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch[0] if config.patch[0] == config.patch[1] else list(config.patch),
        "num_channels": channels,
    }


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _placeholders(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{i}" for i in range(count))
