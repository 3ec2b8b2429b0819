"""One way in: `from_pretrained`, for every source of weights."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from perceiver.errors import InputError, naming
from perceiver.hub import HubFiles, resolve
from perceiver.io.files import refusing
from perceiver.model import Model
from perceiver.saving import CONFIG, MANIFEST, dump, load, read_json, weights, write_new_folder
from perceiver.zoo import releases, tables
from perceiver.zoo.architectures import family_of, written_as
from perceiver.zoo.families import HubConfig

PICKLES = (".pickle", ".pkl", ".pystate")
"""Endings of DeepMind's released checkpoints."""


def from_pretrained(source: str | Path, revision: str | None = None, types: Iterable[type] = ()) -> Any:
    """Load a model, from wherever its weights are.

    source:
        a folder written by `model.save`, or a training run's folder, whose best model is taken;
        an id on the Hugging Face Hub, such as "deepmind/language-perceiver", or a folder in the Hub's layout
        (config.json and model.safetensors), whose weights are converted;
        a checkpoint released by DeepMind (.pickle, .pystate), whose model is told by its contents.
    revision: branch, tag or commit on the Hub. types: further config dataclasses that a saved config may name.

    Returns a Perceiver, or whatever Model the weights belong to.

    Raises:
        InputError: nothing there, damaged, or weights that do not fit; every entry that does not is listed.
        ConfigError: a config that cannot be understood, or an architecture that is not known.
    """
    path = Path(os.path.expanduser(source))
    folder = own_folder(path)
    if folder is not None:
        if revision is not None:
            raise InputError(f"{source}: a revision is for the Hub, this is a folder here")
        return load(folder, types)
    if path.suffix.lower() in PICKLES:
        if revision is not None:
            raise InputError(f"{source}: a revision is for the Hub, this is a file here")
        return releases.load(path)
    if path.is_dir():
        _check_folder(path)
    return convert(resolve(source, revision))


def own_folder(path: Path) -> Path | None:
    """The model folder that a path means, itself or that of a run's best model; None where it is neither."""
    return next((folder for folder in (path, path / "model") if (folder / MANIFEST).is_file()), None)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is no model, or one of ours that has lost its manifest."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: expected a model folder, but it has no {MANIFEST}, and no {CONFIG} either")
    found = read_json(folder / CONFIG)
    if isinstance(found, dict) and "model_type" not in found and "type" in found:
        raise InputError(f"{folder}: expected a model folder, but it has no {MANIFEST}")


def convert(files: HubFiles) -> Model:
    """The model in files of the Hub's layout.

    Raises:
        InputError, ConfigError: as for `from_pretrained`.
    """
    where = str(files.folder)
    tokenizer = files.folder / "tokenizer.json"
    with naming(where):
        values, preprocessor = files.config(), files.optional_json("preprocessor_config.json")
        with refusing("a tokenizer.json in UTF-8"):
            hub = HubConfig(values, preprocessor, tokenizer.read_text("utf-8") if tokenizer.is_file() else None)
    family = family_of(hub, str(files.folder / "config.json"))
    config = family.config(hub)
    return tables.build(config, family.rows(config), files.tensors(), where, family.ignored)


def write_hub(model: Model, folder: str | Path) -> Path:
    """Write a model in the Hub's layout, so that transformers loads it: config.json, model.safetensors and what else
    its class has beside them.

    Raises:
        ConfigError: transformers has no class that computes the same; says in what they differ.
        InputError: the folder exists.
    """
    family, values, host_files = written_as(model.config)
    arrays = tables.write(family.rows(model.config), {n: np.asarray(v) for n, v in weights(model).items()})
    files = {
        "config.json": dump(values | {"dtype": "float32"}),
        "model.safetensors": save_tensors(arrays, metadata={"format": "pt"}),
    }
    for name, content in host_files.items():
        files[name] = content.encode() if isinstance(content, str) else dump(content)
    return write_new_folder(folder, files)
