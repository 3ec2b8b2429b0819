"""Episodes of a real robot arm (WidowX) at a toy kitchen, told in a sentence what to do: BridgeData.

Origin: https://github.com/octo-models/octo (tests/debug_dataset/bridge_dataset), decoded from its TFRecord; the whole
is at https://rail-berkeley.github.io/bridgedata. Licence: MIT (octo); BridgeData V2 as such CC BY 4.0. Layout:
bridge_robot/*.npz, each with image_0, image_1, image_2 uint8 [n, t, h, w, 3], state and action float32 [n, t, 7] and
instruction [n] of text.
Splits by episode, seeded: 80 % training, 10 % validation, 10 % test. Octo's two files hold the same episodes: episodes
of the same states and actions are in the same split.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.arrays import read_arrays
from data.root import files, folder
from data.splits import divided
from perceiver.errors import InputError

ORIGIN = "https://github.com/octo-models/octo (tests/debug_dataset/bridge_dataset), decoded to npz"
CAMERAS = ("image_0", "image_1", "image_2")
ARRAYS = {
    **{camera: (np.uint8, 5) for camera in CAMERAS},
    "state": (np.float32, 3),
    "action": (np.float32, 3),
    "instruction": (np.str_, 1),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """One attempt at a task.

    Attributes:
        images: uint8 [3, t, 64, 64, 3], by camera and step.
        state: float32 [t, 7]: x, y, z of the gripper in metres, roll, pitch, yaw in radians, and how far it is open.
        action: float32 [t, 7]: how much of the first six to add by the next step, and 1 open or 0 closed.
        instruction: what to do, in English.
    """

    images: np.ndarray
    state: np.ndarray
    action: np.ndarray
    instruction: str


def load(root: str | Path | None = None, seed: int = 0) -> dict[str, Sequence[Episode]]:
    """The splits "train", "validation" and "test". seed: another seed gives another division.

    Raises:
        InputError: the dataset is absent or has no episode, or a file is damaged or its arrays do not agree.
    """
    place = folder("bridge_robot", root, ORIGIN)
    episodes = [one for path in files(place, "*.npz") for one in _read(path)]
    if not episodes:
        raise InputError(f"{place}: expected at least one episode, got none")
    numbers = divided([_motion(one) for one in episodes], seed=seed)
    return {name: [episodes[number] for number in part] for name, part in numbers.items()}


def _motion(episode: Episode) -> str:
    return hashlib.sha256(episode.state.tobytes() + episode.action.tobytes()).hexdigest()


def _read(path: Path) -> list[Episode]:
    arrays = read_arrays(path, ARRAYS, {})
    count, steps = arrays["state"].shape[:2]
    for name, array in arrays.items():
        expected = {
            "state": (count, steps, 7),
            "action": (count, steps, 7),
            "instruction": (count,),
        }.get(name, (count, steps, *arrays[CAMERAS[0]].shape[2:4], 3))
        if array.shape != expected:
            raise InputError(f"{path}: {name}: expected {list(expected)}, got {list(array.shape)}")
    images = np.stack([arrays[camera] for camera in CAMERAS], axis=1)
    return [
        Episode(images[i], arrays["state"][i], arrays["action"][i], str(arrays["instruction"][i])) for i in range(count)
    ]
