"""Experiment files: Python of the user's own, run from a path that the user names."""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from perceiver.errors import InputError

if TYPE_CHECKING:
    from perceiver.training.evaluation import Task
    from perceiver.training.experiment import Experiment


def load_experiment(path: Path) -> Callable[..., "Experiment"]:
    """The function of an experiment file that bears the file's name.

    The folder above the file's is put on the import path, so that experiments find `data`.

    Raises:
        InputError: no such file, or no such function in it.
    """
    build = getattr(_module(path), path.stem, None)
    if not callable(build):
        raise InputError(f"{path}: expected a function called {path.stem!r} that returns an Experiment")
    return build


def load_tasks(path: Path) -> Mapping[str, "Task"]:
    """`TASKS` of an experiment file: by dataset, how a model of it is asked about the items and scored.

    Raises:
        InputError: no such file, or no TASKS in it.
    """
    tasks = getattr(_module(path), "TASKS", None)
    if not isinstance(tasks, Mapping):
        raise InputError(f"{path}: expected TASKS, which says by dataset how its models are scored on other folders")
    return tasks


def load_types(path: Path) -> list[type]:
    """The dataclasses that an experiment file defines or imports: configs of its own that a saved model may name.

    Raises:
        InputError: no such file.
    """
    found = vars(_module(path)).values()
    return [value for value in found if isinstance(value, type) and dataclasses.is_dataclass(value)]


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: expected an experiment file, there is none")
    root = str(path.resolve().parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    spec = importlib.util.spec_from_file_location(f"experiments.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None  # a path that ends in .py always has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
