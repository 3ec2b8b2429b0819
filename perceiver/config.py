"""Frozen dataclasses to JSON and back: type name + fields, no evaluation and no import by name.

Some fields belong to the handling of raw files rather than to the network (image mean and standard deviation,
sample rates, label names). They are declared with `preprocessing_field` and are kept in a file of their own,
so that a deployment can read them without knowing the network.
"""

import collections.abc
import dataclasses
import difflib
import enum
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from flax.core import FrozenDict

from perceiver.errors import ConfigError

Json = Any
_HOST = "preprocessing"


def preprocessing_field(**kwargs: Any) -> Any:
    """A dataclass field that is saved in preprocessing.json instead of config.json."""
    return dataclasses.field(metadata={_HOST: True}, **kwargs)


def freeze(mapping: Mapping[str, Any]) -> FrozenDict:
    """A hashable copy of `mapping` that keeps its order, so that configs can be compared and used as jit keys."""
    return FrozenDict(dict(mapping))


def network_json(config: Any) -> Json:
    """The part of a config that describes the network (the content of config.json)."""
    return _encode(config, host=False)


def preprocessing_json(config: Any) -> Json:
    """The part of a config that describes the handling of raw data (the content of preprocessing.json)."""
    return _encode_host(config) or {}


def types_in(config: Any) -> set[type]:
    """The dataclasses that a config is made of, such as an adapter of the user's own."""
    if dataclasses.is_dataclass(config):
        return {type(config)}.union(*(types_in(getattr(config, f.name)) for f in dataclasses.fields(config)))
    if isinstance(config, Mapping):
        return set().union(*map(types_in, config.values()))
    return set().union(*map(types_in, config)) if isinstance(config, list | tuple) else set()


def to_json(config: Any) -> Json:
    """Both parts of a config in one tree."""
    return merge(network_json(config), preprocessing_json(config))


def merge(network: Json, host: Json, where: str = "config") -> Json:
    """Put the two parts back together.

    Raises:
        ConfigError: the preprocessing names something that the network part does not have.
    """
    if not isinstance(network, dict) or not isinstance(host, dict):
        raise ConfigError(f"{where}: expected an object in both files, got {network!r:.60} and {host!r:.60}")
    merged = dict(network)
    for name, value in host.items():
        inner = f"{where}.{name}"
        if name not in network:
            merged[name] = value
        elif isinstance(value, dict):
            merged[name] = merge(network[name], value, inner)
        else:
            raise ConfigError(f"{inner}: given twice, in the network's part and in the preprocessing")
    return merged


def from_json(tree: Json, expected: Any, known: Iterable[type], where: str = "config") -> Any:
    """Build a config from JSON.

    tree: what `to_json` gave.
    expected: the class, or type hint, that the tree must be.
    known: the dataclasses that may occur, found by their class name; nothing else is ever built.

    Raises:
        ConfigError: an unknown type or field, a missing field, or a value of the wrong kind, with its path.
    """
    return _decode(tree, expected, {kind.__name__: kind for kind in known}, where)


def suggestion(name: str, choices: Iterable[str]) -> str:
    """What to try instead of an unknown name, as a sentence to put into an error."""
    names = sorted(choices)
    close = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {', '.join(names) or 'none'}"


def _is_config(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _encode(value: Any, host: bool) -> Json:
    if _is_config(value):
        fields = [f for f in dataclasses.fields(value) if _HOST not in f.metadata]
        return {"type": type(value).__name__} | {f.name: _encode(getattr(value, f.name), host) for f in fields}
    if isinstance(value, collections.abc.Mapping):
        return {str(name): _encode(entry, host) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(entry, host) for entry in value]
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"a config may hold finite numbers only, got {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"a config may not hold a {type(value).__name__}: {value!r:.80}")


def _encode_host(value: Any) -> dict[str, Json]:
    if _is_config(value):
        found: dict[str, Json] = {}
        for field in dataclasses.fields(value):
            entry = getattr(value, field.name)
            if _HOST in field.metadata:
                found[field.name] = _encode(entry, host=True)
            elif nested := _encode_host(entry):
                found[field.name] = nested
        return found
    if isinstance(value, collections.abc.Mapping):
        return {str(name): nested for name, entry in value.items() if (nested := _encode_host(entry))}
    return {}


def _decode(tree: Json, hint: Any, known: Mapping[str, type], where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(tree, arguments, known, where)
    if origin is tuple:
        return _decode_tuple(tree, arguments, known, where)
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(tree, dict):
            raise ConfigError(f"{where}: expected an object, got {tree!r:.60}")
        return freeze({n: _decode(v, arguments[1], known, f"{where}[{n!r}]") for n, v in tree.items()})
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if not isinstance(tree, str) or tree not in hint.__members__:
            raise ConfigError(f"{where}: unknown {hint.__name__} {tree!r}; {suggestion(str(tree), hint.__members__)}")
        return hint[tree]
    if isinstance(tree, dict):
        return _decode_dataclass(tree, hint, known, where)
    return _decode_plain(tree, hint, where)


def _decode_plain(tree: Json, hint: Any, where: str) -> Any:
    if hint is float and isinstance(tree, int) and not isinstance(tree, bool) and abs(tree) < 2**1023:
        return float(tree)
    if hint is type(None) or hint is None:
        accepted = tree is None
    else:
        accepted = isinstance(tree, hint) and (hint is bool or not isinstance(tree, bool))
    if not accepted:
        raise ConfigError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {tree!r:.60}")
    if isinstance(tree, float) and not math.isfinite(tree):
        raise ConfigError(f"{where}: expected a finite number, got {tree}")
    return tree


def _decode_union(tree: Json, hints: tuple[Any, ...], known: Mapping[str, type], where: str) -> Any:
    failures = []
    for hint in hints:
        try:
            return _decode(tree, hint, known, where)
        except ConfigError as error:
            failures.append(str(error))
    # The longest complaint is the one that got furthest into the tree, so it says most.
    raise ConfigError(max(failures, key=len))


def _decode_tuple(tree: Json, hints: tuple[Any, ...], known: Mapping[str, type], where: str) -> tuple[Any, ...]:
    if not isinstance(tree, list):
        raise ConfigError(f"{where}: expected a list, got {tree!r:.60}")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(tree)
    if len(hints) != len(tree):
        raise ConfigError(f"{where}: expected {len(hints)} entries, got {len(tree)}")
    return tuple(_decode(t, h, known, f"{where}[{i}]") for i, (t, h) in enumerate(zip(tree, hints, strict=True)))


def _decode_dataclass(tree: dict[str, Json], hint: Any, known: Mapping[str, type], where: str) -> Any:
    name = tree.get("type")
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"{where}: unknown type {name!r:.60}; {suggestion(str(name), known)}")
    kind: Any = known[name]
    if not (isinstance(hint, type) and issubclass(kind, hint)):
        raise ConfigError(f"{where}: expected {getattr(hint, '__name__', hint)}, got type {name!r}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    unknown = set(tree) - set(fields) - {"type"}
    if unknown:
        first = min(unknown)
        raise ConfigError(f"{where}: {name} has no field {first!r}; {suggestion(first, fields)}")
    missing = [
        f.name
        for f in fields.values()
        if f.name not in tree and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: {name} lacks the field {missing[0]!r}")
    hints = typing.get_type_hints(kind)
    given = {n: _decode(tree[n], hints[n], known, f"{where}.{n}") for n in fields if n in tree}
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {name}: {error}") from None
