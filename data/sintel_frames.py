"""Frames of the animated film Sintel that follow each other: one clip, without ground truth.

Origin: https://github.com/princeton-vl/RAFT (demo-frames). Licence: the film is CC BY 3.0, (c) Blender Foundation,
durian.blender.org. Layout: sintel_frames/frame_{number}.png, 1024 x 436 pixels.
Splits in the order of the numbers, for autoencoding the clip: the last frame is the test, the one before it validation,
the rest training; fewer than three frames are a test altogether. Optical flow wants pairs: take all frames.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.lazy import Lazy
from data.root import files, folder
from data.splits import last_for_test
from perceiver.errors import InputError
from perceiver.io import read_image

ORIGIN = "https://github.com/princeton-vl/RAFT (demo-frames)"
NAME = re.compile(r"frame_([0-9]{1,9})\.png")


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """file: its name; number: its place in the film, 24 a second; image: uint8 [436, 1024, 3], other clips other."""

    file: str
    number: int
    image: np.ndarray


def load(root: str | Path | None = None) -> dict[str, Sequence[Frame]]:
    """The splits "train", "validation" and "test". A file is read when its item is asked for.

    Raises:
        InputError: the dataset is absent, or a name has no number. A damaged file: when its item is asked for.
    """
    paths = files(folder("sintel_frames", root, ORIGIN), "*.png")
    return last_for_test(Lazy(sorted(paths, key=_number), _frame))


def _number(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    if found is None:
        raise InputError(f"{path}: expected a name such as frame_0016.png")
    return int(found[1])


def _frame(path: Path) -> Frame:
    return Frame(path.name, _number(path), read_image(path, 3))
