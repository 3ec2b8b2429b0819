"""Which push comes next: all places of contact and directions are tried in the simulator, the quickest gain wins."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.pusht_arena.around import CLEARANCE, Around
from experiments.pusht_arena.pushing import STRIDE, Pushes
from experiments.pusht_arena.tee import RADIUS, contacts, error

SLANTS = np.radians([-35.0, 0.0, 35.0])
"""Of a push against the normal of the place that it begins at."""
FAN = np.linspace(0.0, 2 * np.pi, 16, endpoint=False)
"""Directions of a push from where the agent is."""
LONGEST = 120.0
"""Pixels of a push, and fewer where the T is nearly there."""
FREE, PUSHING, PAUSE, SETTLING = 20.0, 8.0, 3.0, 4.0
"""Pixels per control step on the way to the T and against it; control steps that a new way and any push cost beside."""
FINE = 2.0
"""Error, in pixels, below which little is to be gained."""
LEAST_GAIN = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class Push:
    """A way [n, 2] of the agent, free up to the last place but one, and from there on a push in a straight line.

    poses: of the T, [m, 3], after each STRIDE of the push. gain: logarithm of the error that is lost a control step.
    """

    way: np.ndarray
    poses: np.ndarray
    gain: float


class Planner:
    """Plans one push at a time; the same state gives the same plan. Needs the extra `pusht`."""

    def __init__(self) -> None:
        self._pushes = Pushes()
        places, self._normals = contacts()
        self._around = Around(places + self._normals * (RADIUS + CLEARANCE))

    def best(self, pose: np.ndarray, agent: np.ndarray) -> Push | None:
        """The push that gains most in its time, of a T's pose [3] and the agent's place [2]; None where none helps."""
        return max(self._candidates(pose, agent), key=lambda push: push.gain, default=None)

    def _candidates(self, pose: np.ndarray, agent: np.ndarray) -> Iterator[Push]:
        off = error(pose[None])[0]
        now, length = _worth(off), min(LONGEST, 20.0 + 2.5 * off)
        for way, angle in self._beginnings(pose, agent):
            free = np.linalg.norm(np.diff(way, axis=0), axis=1).sum() / FREE + (PAUSE if len(way) > 1 else 0.0)
            direction = np.array([np.cos(angle), np.sin(angle)])
            poses = self._pushes.push(pose, way[-1], direction, length)
            steps = free + SETTLING + STRIDE / PUSHING * np.arange(1, len(poses) + 1)
            gains = (now - _worth(error(poses))) / steps
            end = int(gains.argmax())
            if gains[end] > LEAST_GAIN:
                target = way[-1] + direction * STRIDE * (end + 1)
                yield Push(np.concatenate([way, target[None]]), poses[: end + 1], float(gains[end]))

    def _beginnings(self, pose: np.ndarray, agent: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """Ways [n, 2] to where pushes begin, and the angle of each push."""
        if self._around.gap(pose, agent) < 2 * CLEARANCE:
            yield from ((agent[None], angle) for angle in FAN)
        for number, way in self._around.ways(pose, agent):
            x, y = self._normals[number]
            yield from ((way, angle) for angle in np.arctan2(-y, -x) + SLANTS + pose[2])


def _worth(errors: Any) -> Any:
    """What is to be made small: to halve an error is as good far away as near."""
    return np.log(errors + FINE)
