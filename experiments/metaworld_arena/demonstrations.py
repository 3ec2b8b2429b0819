"""Demonstrations of MetaWorld's experts, as a LeRobotDataset v3 folder; the arm is pushed off its way, see `Drift`."""

import hashlib
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from experiments.metaworld_arena.environment import ACTION_DIMS, RATE, STATE, STATE_DIMS, WORLD, WORLD_DIMS, Tasks
from perceiver.control.lerobot import Dataset, Feature, Writer
from perceiver.control.recording import Drift, recorded_once

VERSION = 1
"""Raised when what is recorded changes, so that older folders are made anew."""
NOISE = (0.0, 0.2, 0.4, 0.8)
"""Deviations of the noise on actions, one of them drawn for each episode."""
MEMORY = 0.8
"""Share of the noise that lasts from one step to the next."""
BEHIND = 10
"""Steps that are shown after the success, so that a chunk's end is known there too."""


def demonstrations(folder: Path, tasks: Tasks, seeds: range) -> Dataset:
    """The experts' episodes of some seeds, recorded unless they are in the folder; the same arguments give the same."""
    asked = json.dumps([VERSION, tasks.names, seeds.start, len(seeds)])
    place = folder / f"metaworld-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    return Dataset(recorded_once(place, lambda new: _write(new, tasks, seeds)))


def _write(place: Path, tasks: Tasks, seeds: range) -> None:
    shapes = {STATE: STATE_DIMS, WORLD: WORLD_DIMS, "action": ACTION_DIMS}
    features = {key: Feature("float32", (dims,)) for key, dims in shapes.items()}
    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
        Writer(place, RATE, features, "sawyer") as writer,
    ):
        for seed in bar.track(seeds, description="demonstrations"):
            writer.add(*_episode(tasks, seed))


def _episode(tasks: Tasks, seed: int) -> tuple[dict[str, np.ndarray], str]:
    drift = Drift(np.random.default_rng([seed, 2]), ACTION_DIMS, NOISE, MEMORY)
    obs, _ = tasks.reset(seed=seed)
    frames, left = [], BEHIND
    truncated = False
    while left and not truncated:
        action = tasks.expert_action()
        frames.append({STATE: obs[STATE], WORLD: obs[WORLD], "action": action})
        obs, _, succeeded, truncated, _ = tasks.step(action + drift.next())
        left -= succeeded or left < BEHIND
    return {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}, tasks.words
