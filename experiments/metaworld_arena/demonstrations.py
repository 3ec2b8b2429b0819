"""Demonstrations of MetaWorld's experts, as a LeRobotDataset v3 folder.

The arm is pushed off its way while it is shown (DART, arXiv 1703.09327): what is done is the expert's action plus
noise, what is recorded is the expert's action without it.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from experiments.metaworld_arena.environment import ACTION_DIMS, RATE, STATE, STATE_DIMS, WORLD, WORLD_DIMS, Tasks
from perceiver.control.lerobot import Dataset, Feature, Writer

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
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".metaworld-", dir=folder) as work:  # an interrupt leaves nothing
            _write(Path(work) / "episodes", tasks, seeds)
            (Path(work) / "episodes").rename(place)
    return Dataset(place)


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
    rng = np.random.default_rng([seed, 2])
    deviation, noise = rng.choice(NOISE), np.zeros(ACTION_DIMS)
    obs, _ = tasks.reset(seed=seed)
    frames, left = [], BEHIND
    truncated = False
    while left and not truncated:
        action = tasks.expert_action()
        frames.append({STATE: obs[STATE], WORLD: obs[WORLD], "action": action})
        noise = MEMORY * noise + deviation * np.sqrt(1 - MEMORY**2) * rng.normal(size=ACTION_DIMS)
        obs, _, succeeded, truncated, _ = tasks.step(action + noise)
        left -= succeeded or left < BEHIND
    return {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}, tasks.words
