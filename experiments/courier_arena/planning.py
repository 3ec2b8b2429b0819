"""The way to a crate from anywhere: distances over a grid, around what stands there, on the side that was asked for."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra

from experiments.courier_arena.task import Instruction
from experiments.courier_arena.world import BODY_RADIUS, CRATE, SIDE, THICKNESS, Layout

CELL = 0.06
"""Metres along a cell of the grid."""
MARGIN = 0.06
"""Metres that must lie between the robot and what it passes."""
WIDE = 0.35
"""Metres up to which more room is worth a detour."""
NEIGHBOURS = [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2)]
"""Half of the steps from a cell, those of a chess knight among them; the others are their opposites."""


class Plan:
    """The cheapest ways to the crate of an instruction from everywhere, by Dijkstra's algorithm.

    The wall goes on, as it were, to the border on the side that was not asked for.
    """

    def __init__(self, layout: Layout, instruction: Instruction):
        self._count = round(SIDE / CELL)
        axis = (np.arange(self._count) + 0.5) * CELL - SIDE / 2
        self._places = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        goal = layout.crates[instruction.goal]
        self._goal = (goal.x, goal.y)
        room = self._room(layout, instruction)
        toll = 1.0 + 4.0 * np.clip(1.0 - (room - BODY_RADIUS - MARGIN) / WIDE, 0.0, 1.0) ** 2
        toll[room < BODY_RADIUS + MARGIN] = 30.0  # passable, so that there is a way out from too near
        toll[room <= 0.5 * BODY_RADIUS] = 1000.0
        self.distance, following = self._search(toll)
        self._next, self._middles = following.tolist(), self._places.tolist()  # which are quick to look up one by one

    def _room(self, layout: Layout, instruction: Instruction) -> np.ndarray:
        """Metres from each cell to the nearest thing but the goal, [cells]."""
        places, wall = self._places, layout.wall
        ahead, left = wall.across(places).T
        beside = (
            (left > -wall.half) if not instruction.left else (left < wall.half)
        )  # the wall and the wrong side of it
        solid = (np.abs(ahead) < max(THICKNESS, CELL) / 2 + 0.02) & beside
        for number, crate in enumerate(layout.crates):
            if number != instruction.goal:
                solid |= np.linalg.norm(places - [crate.x, crate.y], axis=1) < 1.25 * CRATE
        for x, y, radius in layout.pillars:
            solid |= np.linalg.norm(places - [x, y], axis=1) < radius
        field = np.pad(~solid.reshape(self._count, self._count), 1)  # the border is solid
        return CELL * ndimage.distance_transform_edt(field)[1:-1, 1:-1].ravel()

    def _search(self, toll: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Costs [cells] to the goal, and the cell that comes next on the way there."""
        numbers = np.arange(len(toll)).reshape(self._count, self._count)
        rows, columns, costs = [], [], []
        for dx, dy in NEIGHBOURS:
            here = numbers[: self._count - dx, max(-dy, 0) : self._count - max(dy, 0)].ravel()
            there = numbers[dx:, max(dy, 0) : self._count + min(dy, 0)].ravel()
            rows.append(here)
            columns.append(there)
            costs.append(math.hypot(dx, dy) * CELL * (toll[here] + toll[there]) / 2)
        entries = (np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns)))
        graph = sparse.csr_array(entries, shape=(len(toll), len(toll)))
        return dijkstra(graph, directed=False, indices=self._cell(self._goal), return_predecessors=True)

    def _cell(self, place: Sequence[float]) -> int:
        x, y = (min(max(int((at + SIDE / 2) / CELL), 0), self._count - 1) for at in place)
        return x * self._count + y

    def ahead(self, place: Sequence[float], reach: float) -> Sequence[float]:
        """The point (x, y) that lies so many metres further along the way from a place (x, y), or the goal."""
        cell, at = self._cell(place), place
        while math.dist(at, place) < reach:
            cell = self._next[cell]
            if cell < 0:
                return self._goal
            at = self._middles[cell]
        return at
