"""Experiment files: Python of the user's own, run from a path that the user names."""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import cloudpickle

from perceiver.errors import InputError

if TYPE_CHECKING:
    from perceiver.training.evaluation import Task
    from perceiver.training.experiment import Experiment


def folder_of(part: str) -> str:
    """The folder in that of the run of what is trained beside it, by its name."""
    return part.replace(" ", "_")


def load_module(path: Path) -> ModuleType:
    """Run an experiment file. The folder above the file's is put on the import path, so that experiments find `data`.

    Raises:
        InputError: no such file.
    """
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
    cloudpickle.register_pickle_by_value(module)  # processes that prepare its data cannot import it
    return module


def load_experiment(path: Path) -> Callable[..., "Experiment"]:
    """The function of an experiment file that bears the file's name.

    Raises:
        InputError: no such file, or no such function in it.
    """
    return experiment_of(load_module(path), path)


def experiment_of(module: ModuleType, path: Path) -> Callable[..., "Experiment"]:
    """As `load_experiment`, of a file that was run.

    Raises:
        InputError: no such function in it.
    """
    build = getattr(module, path.stem, None)
    if not callable(build):
        raise InputError(f"{path}: expected a function called {path.stem!r} that returns an Experiment")
    return build


def tasks_of(module: ModuleType, path: Path) -> Mapping[str, "Task"]:
    """`TASKS` of an experiment file: by dataset, how a model of it is asked about the items and scored.

    Raises:
        InputError: no TASKS in it.
    """
    tasks = getattr(module, "TASKS", None)
    if not isinstance(tasks, Mapping):
        raise InputError(f"{path}: expected TASKS, which says by dataset how its models are scored on other folders")
    return tasks


def types_of(module: ModuleType) -> list[type]:
    """The dataclasses that an experiment file defines or imports: configs of its own that a saved model may name."""
    return [value for value in vars(module).values() if isinstance(value, type) and dataclasses.is_dataclass(value)]
