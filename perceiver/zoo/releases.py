"""DeepMind's released checkpoints of Perceiver IO: pickles of Haiku parameters, and of the state of batch norm.

A file does not say which model it holds, but the names and shapes in it do. Source: github.com/google-deepmind/
deepmind-research, perceiver/README.md and its notebooks.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceiver.errors import InputError
from perceiver.io.pickles import read_pickle
from perceiver.model import Perceiver, PerceiverConfig
from perceiver.zoo import flow, imagenet, kinetics, language, tables
from perceiver.zoo.tables import Row


@dataclasses.dataclass(frozen=True)
class Release:
    """One released model. mark: a module or parameter that only its checkpoint has."""

    name: str
    mark: str
    config: Callable[[], PerceiverConfig]
    rows: Callable[[PerceiverConfig], list[Row]]


RELEASES = (
    Release("language", "embedding_decoder/bias", language.language, language.haiku_rows),
    Release("flow", "flow_decoder/", flow.flow, flow.haiku_rows),
    Release("kinetics", "multimodal_decoder/", kinetics.kinetics, kinetics.haiku_rows),
    Release("imagenet_conv", "image_preprocessor/~/conv2_d_downsample/", imagenet.imagenet_conv, imagenet.haiku_rows),
    Release("imagenet_learned", "image_preprocessor/~/conv2_d/", imagenet.imagenet_learned, imagenet.haiku_rows),
    Release("imagenet_fourier", "classification_decoder/", imagenet.imagenet_fourier, imagenet.haiku_rows),
)
"""In the order of asking: the last mark is in several."""


def load(path: Path) -> Perceiver:
    """Read a released checkpoint.

    Raises:
        InputError: no such file, not a plain pickle of arrays, none of the released models, or arrays that do not fit;
            all of them are listed.
    """
    tensors = flat(read_pickle(path), str(path))
    release = told_by(tensors, str(path))
    config = release.config()
    return tables.build(config, release.rows(config), tensors, f"{path}, read as {release.name}")


def told_by(tensors: Mapping[str, np.ndarray], where: str) -> Release:
    """The release that a checkpoint is.

    Raises:
        InputError: none of them.
    """
    for release in RELEASES:
        if any(key.startswith(release.mark) for key in tensors):
            return release
    modules = sorted({key.split("/")[0] for key in tensors})[:5]
    raise InputError(f"{where}: expected a released Perceiver IO, got the modules {', '.join(modules) or 'none'}")


def flat(tree: Any, where: str) -> dict[str, np.ndarray]:
    """Parameters and state as one dict "module/name": {"params": …, "state": …}, or just the parameters.

    Raises:
        InputError: another structure.
    """
    if isinstance(tree, tuple | list) and len(tree) == 2:  # (params, state)
        tree = {"params": tree[0], "state": tree[1]}
    if not isinstance(tree, dict):
        raise InputError(f"{where}: expected a dict of parameters, got {type(tree).__name__}")
    parts = [tree["params"], tree.get("state") or {}] if "params" in tree else [tree]
    found: dict[str, np.ndarray] = {}
    for part in parts:
        for module, arrays in _items(part, where, "modules"):
            for name, array in _items(arrays, where, module):
                if not isinstance(array, np.ndarray | np.generic):
                    raise InputError(f"{where}: {module}/{name}: expected an array, got {type(array).__name__}")
                found[f"{module}/{name}"] = np.asarray(array)
    return found


def _items(tree: Any, where: str, what: str) -> Any:
    if not isinstance(tree, dict):
        raise InputError(f"{where}: {what}: expected a dict by name, got {type(tree).__name__}")
    return tree.items()
