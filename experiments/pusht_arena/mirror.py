"""The plane in the mirror that stands along the stem of the goal, from corner to corner: the same task again."""

import numpy as np

from experiments.pusht_arena.tee import SIDE
from perceiver.pipeline import Sample

KEYPOINTS = [1, 0, 3, 2, 5, 4, 7, 6]
"""The keypoint that each is in the mirror, where the T's left and right are exchanged."""


def mirrored(sample: Sample) -> Sample:
    """The same moment in the mirror, which is as likely and as well done."""
    inputs, targets = sample["inputs"], sample["targets"]
    agent = np.where(sample["masks"]["agent"][:, None], SIDE + ways(inputs["agent"]), 0.0).astype(np.float32)
    return {
        "inputs": inputs | {"agent": agent, "tee": tee(inputs["tee"])},
        "masks": sample["masks"],
        "targets": targets | {"action": ways(targets["action"])},
    }


def ways(seen: np.ndarray) -> np.ndarray:
    """Ways [..., 2] in the mirror."""
    return -seen[..., ::-1]


def tee(seen: np.ndarray) -> np.ndarray:
    """The T [8, 7] in the mirror, see `PushT`."""
    near, number, to_goal, beside = np.split(seen[KEYPOINTS], [2, 3, 5], axis=1)
    return np.concatenate([ways(near), np.sort(number, axis=0), ways(to_goal), beside * np.float32([-1, 1])], axis=1)
