"""What the framework must know of one architecture to read and write its weights."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from perceiver.errors import ConfigError
from perceiver.model import ModelConfig, PerceiverConfig
from perceiver.zoo.tables import Row


@dataclasses.dataclass(frozen=True)
class HubConfig:
    """The JSON files beside a Hub checkpoint.

    values: config.json. preprocessor: preprocessor_config.json, where there is one. tokenizer: content of
    tokenizer.json, where there is one.
    """

    values: Mapping[str, Any]
    preprocessor: Mapping[str, Any] | None = None
    tokenizer: str | None = None

    def get(self, name: str, expected: type | tuple[type, ...], default: Any = None) -> Any:
        """A field of config.json, or the default where it is absent or null.

        Raises:
            ConfigError: it is of another type.
        """
        value = self.values.get(name)
        if value is None:
            return default
        wrong = not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool)
        if wrong:
            names = expected if isinstance(expected, tuple) else (expected,)
            wanted = " or ".join(kind.__name__ for kind in names)
            raise ConfigError(f"config.json: {name}: expected {wanted}, got {value!r:.60}")
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by number, from id2label; empty where there are none.

        Raises:
            ConfigError: the numbers are not 0, 1, 2, ...
        """
        labels = self.get("id2label", dict, {})
        try:
            numbered = {int(number): str(name) for number, name in labels.items()}
        except ValueError:
            raise ConfigError(f"config.json: id2label: expected numbers, got {list(labels)[:5]}") from None
        if sorted(numbered) != list(range(len(numbered))):
            raise ConfigError("config.json: id2label: expected the numbers 0, 1, 2, ... without a gap")
        return tuple(numbered[i] for i in range(len(numbered)))


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture of the Hub.

    architecture: its name in config.json. fits: whether a config may be of it at all.
    config: from its files to ours. rows: table of its keys. hub_config: back to config.json.
    ignored: keys that hold nothing the model needs.
    host_files: the further files of the Hub's layout by name, JSON or text, such as preprocessor_config.json.
    """

    architecture: str
    fits: Callable[[ModelConfig], bool]
    config: Callable[[HubConfig], ModelConfig]
    rows: Callable[[Any], list[Row]]
    hub_config: Callable[[Any], dict[str, Any]]
    ignored: tuple[str, ...] = ()
    host_files: Callable[[Any], dict[str, Any]] = lambda config: {}


def asks(inputs: Mapping[str, type], **outputs: type) -> Callable[[ModelConfig], bool]:
    """Whether a config is a Perceiver of just these inputs, and outputs with these heads."""

    def fits(config: ModelConfig) -> bool:
        return (
            isinstance(config, PerceiverConfig)
            and set(config.inputs) == set(inputs)
            and all(isinstance(config.inputs[name], kind) for name, kind in inputs.items())
            and set(config.outputs) == set(outputs)
            and all(isinstance(config.outputs[name].head, kind) for name, kind in outputs.items())
        )

    return fits


def labels(names: tuple[str, ...], count: int) -> dict[str, Any]:
    """The fields of config.json that name classes."""
    listed = names or tuple(f"LABEL_{i}" for i in range(count))
    return {
        "id2label": {str(i): name for i, name in enumerate(listed)},
        "label2id": {n: i for i, n in enumerate(listed)},
    }
