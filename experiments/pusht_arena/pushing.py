"""What becomes of the T when it is pushed along a line, by the physics of gym-pusht."""

import numpy as np

from experiments.pusht_arena.tee import RADIUS
from perceiver.errors import require

STEP = 0.01
"""Seconds of a step of the physics, as gym-pusht's."""
STRIDE = 2.0
"""Pixels that the agent goes in each: the T has no momentum, so that the way counts and not its speed."""


class Pushes:
    """A plane with walls, an agent and a T, whose state is set before each push. Needs the extra `pusht`."""

    def __init__(self) -> None:
        plane = require("gym_pusht.envs.pusht", "pusht").PushTEnv
        self._space = require("pymunk", "pusht").Space()
        self._space.damping = 0.0
        ends = (5, 506), (5, 5), (506, 5), (506, 506)
        walls = [plane.add_segment(self._space, ends[one - 1], ends[one], 2) for one in range(4)]
        self._space.add(*walls)
        self._agent = plane.add_circle(self._space, (0, 0), RADIUS)
        self._block, _ = plane.add_tee(self._space, (256, 256), 0)

    def push(self, pose: np.ndarray, start: np.ndarray, direction: np.ndarray, length: float) -> np.ndarray:
        """Poses [n, 3] of the T, STRIDE of the agent's way apart and the first after that, of a pose [3].

        start: of the agent. direction: a unit vector. length: of its way.
        """
        block, agent, space = self._block, self._agent, self._space
        block.angle = float(pose[2])  # before the position, which turning changes
        block.position = (float(pose[0]), float(pose[1]))
        block.velocity, block.angular_velocity = (0.0, 0.0), 0.0
        agent.position = (float(start[0]), float(start[1]))
        space.reindex_shapes_for_body(block)
        space.reindex_shapes_for_body(agent)
        agent.velocity = tuple(float(part) * STRIDE / STEP for part in direction)
        poses = []
        for _ in range(int(length / STRIDE)):
            space.step(STEP)
            poses.append((*block.position, block.angle))
        return np.array(poses)
