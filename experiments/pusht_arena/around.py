"""Ways of the agent around the T that do not touch it."""

from collections.abc import Iterator

import numpy as np
from scipy.sparse.csgraph import dijkstra

from experiments.pusht_arena.tee import OUTLINE, RADIUS, SIDE, to_tee, to_world
from perceiver.errors import require

CLEARANCE = 6.0
"""Pixels between the agent's rim and the T, on the way and where a push begins."""
LEAST = 4.5
"""Pixels that are left between them on a straight part of the way."""
OVERLAP = 1.0
"""Pixels that the agent may overlap the T where a way begins, as it does when it has just pushed."""


class Around:
    """Shortest ways around the T to places [n, 2] of its own frame, along the corners of a band around it.

    Needs the extra `pusht`.
    """

    def __init__(self, goals: np.ndarray):
        self._shapely = require("shapely", "pusht")
        self._tee = self._shapely.Polygon(OUTLINE)
        self._near, self._overlapped = (self._tee.buffer(RADIUS + margin, quad_segs=2) for margin in (LEAST, -OVERLAP))
        corners = np.array(self._tee.buffer(RADIUS + CLEARANCE, quad_segs=2).exterior.coords)[:-1]
        self._first_goal = len(corners)
        self._nodes = np.concatenate([corners, goals])
        self._steps = self._lengths(self._nodes[:, None], self._nodes[None], self._near)

    def gap(self, pose: np.ndarray, agent: np.ndarray) -> float:
        """Pixels between the agent's rim and the T; below 0 where they overlap."""
        return float(self._shapely.distance(self._shapely.Point(to_tee(agent[None], pose)[0]), self._tee)) - RADIUS

    def ways(self, pose: np.ndarray, agent: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The number of each goal that can be reached within the walls, and the way [n, 2] there in the world, from
        the agent's place on.
        """
        here, last = to_tee(agent[None], pose), len(self._nodes)
        steps = np.zeros((last + 1, last + 1))
        steps[:-1, :-1] = self._steps
        steps[-1, :-1] = self._lengths(here, self._nodes, self._overlapped)
        world = to_world(np.concatenate([self._nodes, here]), pose)
        steps[:, ((world < 1.0) | (world > SIDE - 1.0)).any(axis=1)] = 0.0
        lengths, before = dijkstra(steps, indices=last, return_predecessors=True)
        for goal in range(self._first_goal, last):
            if np.isfinite(lengths[goal]):
                way = [goal]
                while way[-1] != last:
                    way.append(before[way[-1]])
                yield goal - self._first_goal, world[way[::-1]]

    def _lengths(self, start: np.ndarray, end: np.ndarray, avoided: object) -> np.ndarray:
        """From places [..., 2] to others, 0 where the straight line crosses what is avoided: scipy's for no edge."""
        start, end = np.broadcast_arrays(start, end)
        crossing = self._shapely.intersects(self._shapely.linestrings(np.stack([start, end], axis=-2)), avoided)
        return np.where(crossing, 0.0, np.linalg.norm(start - end, axis=-1) + 1e-6)
