"""Arenas from above, with the ways through them."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.courier_arena.environment import STEP, Courier
from experiments.courier_arena.sensors import scan
from experiments.courier_arena.world import BODY_RADIUS, CRATE, SIDE, THICKNESS, Layout
from perceiver.control.rollout import Trajectory
from perceiver.viz import figure

PAINT = {"red": "#d64541", "green": "#3a9d5d", "blue": "#3f6fb5"}
LINES = ("#222222", "#e08e0b", "#7d5ba6")
COLUMNS = 4


def paths_from_above(environment: Courier, ways: Mapping[str, Sequence[Trajectory]], path: Path) -> None:
    """Draw one arena for each seed, with the way of every policy.

    ways: by the policy's name, trajectories of the same seeds with places [t + 1, 3] (x, y, heading).
    """
    first = next(iter(ways.values()))
    columns, rows = min(COLUMNS, len(first)), -(-len(first) // COLUMNS)
    fig = figure(3.3 * columns, 3.75 * rows + 0.5)
    lines: list[Any] = []
    for place in range(len(first)):
        axes = fig.add_subplot(rows, columns, place + 1)
        environment.reset(seed=first[place].seed)
        episode = environment.running
        arena(axes, episode.layout, episode.instruction.goal)
        for (_, trajectories), colour in zip(ways.items(), LINES, strict=False):
            x, y, _ = trajectories[place].places.T
            lines += axes.plot(x, y, color=colour, linewidth=1.6, alpha=0.85)
            axes.plot(x[-1:], y[-1:], "o", color=colour, markersize=4)
        axes.set_title(f"{_lines(episode.instruction.text)}\n{first[place].outcome}", fontsize=7)
    fig.legend(lines[: len(ways)], list(ways), loc="outside lower center", ncols=len(ways), fontsize=9)
    fig.savefig(path, dpi=110, bbox_inches="tight")  # titles of several lines would be cut


def _lines(text: str) -> str:
    """Broken where it would be wider than an arena."""
    return textwrap.fill(text, 58)


def arena(axes: Any, layout: Layout, goal: int) -> None:
    """Draw what stands in an arena: the goal with a thick edge, the beacon with rings."""
    from matplotlib.patches import Circle, Rectangle

    def box(x: float, y: float, half_x: float, half_y: float, angle: float, **look: Any) -> None:
        corner, size = (x - half_x, y - half_y), (2 * half_x, 2 * half_y)
        axes.add_patch(Rectangle(corner, *size, angle=np.degrees(angle), rotation_point="center", **look))

    wall = layout.wall
    box(wall.x, wall.y, THICKNESS / 2, wall.half, wall.angle, color="#555555")
    for number, crate in enumerate(layout.crates):
        edge = {"edgecolor": "black", "linewidth": 2.5 if number == goal else 0.0}
        box(crate.x, crate.y, CRATE, CRATE, crate.angle, facecolor=PAINT[crate.colour], **edge)
    beacon = layout.crates[layout.beacon]
    for radius in (0.36, 0.46):
        axes.add_patch(Circle((beacon.x, beacon.y), radius, fill=False, color="#888888", linewidth=0.8))
    for x, y, radius in layout.pillars:
        axes.add_patch(Circle((x, y), radius, color="#bbbbbb"))
    axes.add_patch(Circle(layout.start[:2], BODY_RADIUS, fill=False, color="black", linestyle=":"))
    axes.set_xlim(-SIDE / 2, SIDE / 2)
    axes.set_ylim(-SIDE / 2, SIDE / 2)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def animation(environment: Courier, trajectory: Trajectory, path: Path) -> None:
    """Play an episode again as a GIF in real time: the robot, its way, and what its LiDAR sees.

    trajectory: of that environment; what was done in it is done again.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter

    environment.reset(seed=trajectory.seed)
    episode = environment.running
    fig = figure(4.2, 4.5)
    axes = fig.add_subplot()
    arena(axes, episode.layout, episode.instruction.goal)
    axes.set_title(_lines(episode.instruction.text), fontsize=8)
    (way,) = axes.plot([], [], color=LINES[0], linewidth=1.5)
    (robot,) = axes.plot([], [], "o", color=LINES[0], markersize=12)
    (nose,) = axes.plot([], [], color="white", linewidth=2)
    echoes = axes.scatter([], [], s=5, c=[], cmap="plasma", vmin=0.0, vmax=1.0, zorder=3)
    rng = np.random.default_rng(trajectory.seed)
    assert trajectory.places is not None
    places = trajectory.places

    def show(step: int) -> None:
        if step:
            environment.step(trajectory.actions[step - 1])
        x, y, heading = places[step]
        points = scan(episode.world, rng)
        points = points[points.any(axis=1)]
        turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
        echoes.set_offsets(points[:, :2] @ turn + [x, y])
        echoes.set_array(points[:, 3])
        way.set_data(places[: step + 1, 0], places[: step + 1, 1])
        robot.set_data([x], [y])
        nose.set_data([x, x + BODY_RADIUS * np.cos(heading)], [y, y + BODY_RADIUS * np.sin(heading)])

    playing = FuncAnimation(fig, show, frames=len(places), init_func=lambda: None)
    playing.save(path, writer=PillowWriter(fps=round(1 / STEP)), dpi=70)
