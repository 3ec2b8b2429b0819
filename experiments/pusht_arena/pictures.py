"""The plane, with the ways that the agent goes and where the T ends."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pusht_arena.tee import GOAL, OUTLINE, SIDE, to_world
from perceiver.control.rollout import Trajectory
from perceiver.viz import figure

LINES = {"policy": "#222222", "expert": "#e08e0b"}
FIRST, GOAL_PAINT = "#bbbbbb", "#a8dba8"


def ways_in_the_plane(done: Mapping[str, Sequence[Trajectory]], path: Path) -> None:
    """Draw a row for each policy and a column for each seed: the T at first, its goal, and how both ended.

    done: by the policy's name, trajectories of the same seeds with places [t + 1, 6], see `PushT.watched`.
    """
    columns = max(map(len, done.values()))
    fig = figure(2.3 * columns, 2.7 * len(done))
    for down, (name, trajectories) in enumerate(done.items()):
        for across, one in enumerate(trajectories):
            axes = fig.add_subplot(len(done), columns, down * columns + across + 1)
            _plane(axes, one, LINES[name])
            covered = 0.0 if one.places is None else one.places[:, -1].max()
            axes.set_title(f"{name}: {one.outcome}\n{len(one)} steps, {covered:.0%} covered", fontsize=7)
    fig.savefig(path, dpi=110)


def _plane(axes: Any, one: Trajectory, colour: str) -> None:
    assert one.places is not None
    _tee(axes, np.array(GOAL), facecolor=GOAL_PAINT)
    _tee(axes, one.places[0, 2:5], facecolor="none", edgecolor=FIRST, linestyle=":")
    _tee(axes, one.places[-1, 2:5], facecolor="none", edgecolor=colour)
    axes.plot(*one.places[:, :2].T, color=colour, linewidth=0.8, alpha=0.7)
    axes.plot(*one.places[:1, :2].T, "o", color=colour, markersize=4)
    axes.set_xlim(0, SIDE)
    axes.set_ylim(SIDE, 0)  # y points down, as on a screen
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _tee(axes: Any, pose: np.ndarray, **look: Any) -> None:
    from matplotlib.patches import Polygon

    axes.add_patch(Polygon(to_world(OUTLINE, pose), closed=True, **look))
