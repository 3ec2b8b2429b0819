"""Recorded episodes as samples to learn a policy from: what it would have been given, and what was done next."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perceiver.control.actions import act_all, action_head
from perceiver.control.lerobot import Dataset, Episode
from perceiver.control.observations import Observations, history, robot_of
from perceiver.errors import InputError
from perceiver.model import Perceiver, PerceiverConfig
from perceiver.pipeline import Sample


class Demonstrations(Sequence[Sample]):
    """A sample for every frame of episodes that lie in memory, such as `Dataset(folder)[:]`.

    Inputs and masks are made by `Observations`, which makes them in a control loop too: the last frames of the episode,
    as many as the longest history has. Targets are the chunk from that frame on, and NAME_is_pad, for
    `action_objective`.

    config: with a `robot`, of the episodes' rate. action: the episodes' key.

    Raises:
        ConfigError: the config has no robot, or its output gives no actions.
        InputError: no frame, or actions of other dims than the output's.
    """

    def __init__(self, episodes: Sequence[Episode], config: PerceiverConfig, action: str = "action"):
        self._name, self._action, self._episodes = robot_of(config).action, action, episodes
        head = action_head(config, self._name)
        self._config, self._horizon = config, head.horizon
        self._frames = max(history(config.inputs[name]) for name in robot_of(config).sensors)
        self._places = [(one, step) for one in episodes for step in range(len(one))]
        if not self._places:
            raise InputError("episodes: expected at least one frame, got none")
        for one in episodes:
            _, dims = one.chunk(0, 1, action)[0].shape
            if dims != head.dims:
                raise InputError(f"episode {one.index}: {action}: expected {head.dims} dims, got {dims}")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        """The sample of a frame, one at a time."""
        episode, step = self._places[index]
        observations = Observations(self._config)
        for earlier in range(max(0, step + 1 - self._frames), step + 1):
            observations.add(episode.observation(earlier))
        given = observations.given()
        actions, is_pad = episode.chunk(step, self._horizon, self._action)
        return {
            "inputs": {name: raw[0] for name, raw in given.inputs.items()},
            "masks": {name: mask[0] for name, mask in given.masks.items()},
            "targets": {self._name: actions, f"{self._name}_is_pad": is_pad},
        }


def explained(model: Perceiver, samples: Sequence[Sample], most: int = 2000) -> dict[str, float]:
    """The share of the actions' absolute error that a model explains: 0 where it is that of their median.

    samples: such as `Demonstrations`, of which `most` are taken at random, the same each time.
    """
    name = robot_of(model.config).action
    chosen = np.random.default_rng(0).permutation(len(samples))[:most]
    held = [samples[int(i)] for i in chosen]
    wanted, padded = (np.stack([one["targets"][key] for one in held]) for key in (name, f"{name}_is_pad"))
    error = np.abs(act_all(model, held, 128, name) - wanted)[~padded].mean()
    return {"explained": float(1.0 - error / np.abs(np.median(wanted[~padded], axis=0) - wanted)[~padded].mean())}


def mean_and_deviation(data: Dataset, key: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """For `State` and `Chunk`: a dataset's own statistics of a vector; numbers that never change have deviation 1.

    Raises:
        InputError: the dataset's statistics have no such key.
    """
    if key not in data.statistics:
        raise InputError(f"{data.folder}: stats.json: expected {key!r}, got {', '.join(data.statistics)}")
    mean, std = (np.ravel(data.statistics[key][name]) for name in ("mean", "std"))
    return tuple(map(float, mean)), tuple(float(s) if s > 1e-6 else 1.0 for s in std)
