"""What is typical of each key: of an episode, and of a dataset, as LeRobot counts it in stats.json."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from perceiver.control.lerobot.layout import STRING, Feature

Statistics: TypeAlias = dict[str, np.ndarray]
"""min, max, mean, std and quantiles of numbers, over all axes but the last; of pictures [3, 1, 1], in [0, 1], over
frames and pixels; count [1]: frames looked at."""

_SHARES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_FRAMES, _SIDE = 100, 150
"""Of pictures so many frames are looked at, and so many pixels of a side."""


def episode_statistics(values: Mapping[str, np.ndarray], features: Mapping[str, Feature]) -> dict[str, Statistics]:
    """Statistics of an episode by key, of arrays [t, …]; text has none."""
    return {
        key: _of_pictures(values[key]) if feature.picture else _of(values[key].astype(np.float64))
        for key, feature in features.items()
        if feature.dtype != STRING
    }


def pooled(parts: Sequence[Mapping[str, Statistics]]) -> dict[str, Statistics]:
    """Those of several episodes together: exact, but for quantiles, which are means of the episodes', as in lerobot."""
    return {key: _pooled([part[key] for part in parts]) for key in parts[0]}


def as_json(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    """Nested lists by key and name."""
    return {key: {name: array.tolist() for name, array in entry.items()} for key, entry in statistics.items()}


def _of(array: np.ndarray) -> Statistics:
    """Over all axes but the last, of single numbers [t] over all; as lerobot does."""
    frames = len(array)
    array = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
    quantiles = np.quantile(array, list(_SHARES.values()), axis=0)
    return {
        "min": array.min(axis=0),
        "max": array.max(axis=0),
        "mean": array.mean(axis=0),
        "std": array.std(axis=0),
        "count": np.array([frames]),
        **dict(zip(_SHARES, quantiles, strict=True)),
    }


def _of_pictures(frames: np.ndarray) -> Statistics:
    looked = frames[np.unique(np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int))]
    coarse = looked[:, :: -(-looked.shape[1] // _SIDE), :: -(-looked.shape[2] // _SIDE)]
    found = _of(coarse.reshape(-1, 3) / 255.0)
    return {name: array.reshape(3, 1, 1) for name, array in found.items() if name != "count"} | {
        "count": np.array([len(looked)])
    }


def _pooled(parts: Sequence[Statistics]) -> Statistics:
    counts = np.array([part["count"][0] for part in parts], np.float64)
    weights = (counts / counts.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)

    def mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return (weights * np.stack(arrays)).sum(axis=0)

    centre = mean([part["mean"] for part in parts])
    spread = mean([part["std"] ** 2 + (part["mean"] - centre) ** 2 for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": centre,
        "std": np.sqrt(spread),
        "count": np.array([int(counts.sum())]),
        **{name: mean([part[name] for part in parts]) for name in _SHARES},
    }
