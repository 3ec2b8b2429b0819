"""Demonstrations of the expert, as LeRobotDataset v3 folders; the agent is pushed off its way while it shows them."""

from pathlib import Path

import numpy as np

from experiments.pusht_arena.environment import ACTION_DIMS, RATE, PushT
from experiments.pusht_arena.expert import Expert
from perceiver.control.lerobot import Dataset, Episode
from perceiver.control.recording import Disturbed, Drift, Recorder, any_success, recorded_once
from perceiver.control.rollout import rollout

VERSION = 1
"""Raised when what is recorded changes, so that older folders are made anew."""
TOGETHER = 100
"""Seeds of one folder: an interrupt loses no more, and more episodes are recorded beside those that are there."""
NOISE = (0.0, 0.02, 0.04, 0.06)
"""Deviations of the noise on actions, in REACH, one of them drawn for each episode."""
MEMORY = 0.8
"""Share of the noise that lasts from one step to the next."""


def demonstrations(folder: Path, first: int, episodes: int) -> list[Episode]:
    """The expert's episodes of so many seeds from the first on, those that succeed, recorded unless they are there."""
    shown: list[Episode] = []
    for begin in range(first, first + episodes, TOGETHER):
        seeds = range(begin, min(begin + TOGETHER, first + episodes))
        place = recorded_once(folder / f"pusht-{VERSION}-{begin}-{len(seeds)}", lambda new, s=seeds: _record(new, s))
        shown += Dataset(place)[:]
    return shown


def _record(place: Path, seeds: range) -> None:
    plane = PushT()
    disturbed = Disturbed(plane, lambda seed: Drift(np.random.default_rng([seed, 1]), ACTION_DIMS, NOISE, MEMORY))
    with Recorder(disturbed, place, RATE, "push the T to its goal", keep=any_success, robot="pusht") as recorder:
        rollout(recorder, Expert(plane), seeds, title="demonstrations")
