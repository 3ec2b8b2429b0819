"""The model folder: config.json, preprocessing.json, model.safetensors and MANIFEST.json with their sha256.

Written aside and moved into place, so a folder is either whole or not there; checked in full before anything in it
is used. It holds no code and no pickle.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as save_tensors

import perceiver.adapters
import perceiver.attention
import perceiver.autoregressive
import perceiver.autoregressive_parts
import perceiver.autoregressive_positions
import perceiver.captioner
import perceiver.causal
import perceiver.convolutions
import perceiver.decoders
import perceiver.dual
import perceiver.encoder
import perceiver.filterbank
import perceiver.hierarchical
import perceiver.hierarchical_blocks
import perceiver.narrator
import perceiver.positions
import perceiver.prompts
import perceiver.resampler
import perceiver.robot
import perceiver.spectrogram
import perceiver.speller
import perceiver.towers
from perceiver.config import from_json, merge, network_json, preprocessing_json
from perceiver.errors import ConfigError, InputError
from perceiver.model import Model, ModelConfig, PerceiverConfig

if TYPE_CHECKING:
    from perceiver.typing import Array, ArrayLike

STORED = nnx.Any(nnx.Param, nnx.BatchStat)
"""What belongs to a model's weights: what is trained, and the running statistics of batch norm."""

CONFIG, HOST, WEIGHTS, MANIFEST = "config.json", "preprocessing.json", "model.safetensors", "MANIFEST.json"
FORMAT = 1
DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32, "I8": np.int8}
"""Of the tensors in a file, by their names there. No model holds float16, so its error says what it should be."""


def known_types() -> list[type]:
    """The dataclasses that a config may name: what the package itself declares."""
    public = [getattr(module, name) for module in (perceiver.adapters, perceiver.decoders) for name in module.__all__]
    return [
        *public,
        perceiver.attention.Block,
        perceiver.autoregressive.AutoregressiveConfig,
        perceiver.autoregressive_parts.FromId,
        perceiver.autoregressive_parts.FromSlot,
        perceiver.autoregressive_parts.Ids,
        perceiver.autoregressive_positions.Rotary,
        perceiver.autoregressive_positions.Table,
        perceiver.captioner.CaptionerConfig,
        perceiver.causal.CausalText,
        perceiver.causal.LanguageConfig,
        perceiver.convolutions.ConvStem,
        perceiver.descriptors.Descriptors,
        perceiver.dual.DualEncoderConfig,
        perceiver.dual.ImageClassifierConfig,
        perceiver.dual.Projection,
        perceiver.dual.SigmoidContrast,
        perceiver.dual.SoftmaxContrast,
        perceiver.encoder.Encoder,
        perceiver.filterbank.Filterbank,
        perceiver.hierarchical.HierarchicalConfig,
        perceiver.hierarchical.Signal,
        perceiver.hierarchical_blocks.Level,
        perceiver.narrator.NarratorConfig,
        perceiver.positions.Fourier,
        perceiver.positions.Learned,
        perceiver.positions.Projected,
        perceiver.positions.Refined,
        perceiver.prompts.Prompts,
        perceiver.resampler.GatedCrossAttend,
        perceiver.resampler.Resampler,
        perceiver.robot.Robot,
        perceiver.robot.Sensor,
        perceiver.spectrogram.Spectrogram,
        perceiver.speller.SpellerConfig,
        perceiver.towers.EndOfText,
        perceiver.towers.LastPosition,
        perceiver.towers.TextTower,
        perceiver.towers.VisionTower,
        PerceiverConfig,
    ]


def write_folder(folder: str | Path, files: dict[str, bytes]) -> Path:
    """Write files and their manifest into a new folder, which replaces an older one only when it is complete."""
    folder = Path(folder)
    if _occupied(folder) and not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: exists and is not a model folder, so it is not overwritten")
    entries = {name: entry_of(content) for name, content in files.items()}
    return _place(folder, files | {MANIFEST: dump({"format": FORMAT, "files": entries})})


def write_new_folder(folder: str | Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder that does not exist yet, or is empty; it is there whole or not at all.

    Raises:
        InputError: there is something.
    """
    folder = Path(folder)
    if _occupied(folder):
        raise InputError(f"{folder}: exists, so it is not overwritten")
    return _place(folder, files)


def _occupied(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _place(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files aside and move them into place, which an older folder leaves only then."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        os.chmod(aside, 0o755)
        for name, content in files.items():
            write_durably(aside / name, content)
        old = None
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.replace(folder, old)
        try:
            os.replace(aside, folder)
        except BaseException:
            if old is not None:
                os.replace(old, folder)
            raise
        if old is not None:
            shutil.rmtree(old)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a folder's manifest says of each file: {"sha256", "bytes"} by name; not checked any further.

    Raises:
        InputError: there is no manifest, or it is of another form.
    """
    manifest = read_json(folder / MANIFEST)
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(entries, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{folder / MANIFEST}: expected format {FORMAT} with a list of files")
    return entries


def read_folder(folder: str | Path) -> dict[str, bytes]:
    """All files of a folder, after checking every one against the manifest.

    Raises:
        InputError: a file is missing, has another size or another sha256; the message names it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a model folder, there is none")
    contents = {}
    for name, entry in read_manifest(folder).items():
        if not isinstance(entry, dict) or Path(name).name != name or name == MANIFEST:
            raise InputError(f"{folder / MANIFEST}: expected plain file names with bytes and sha256, got {name!r:.80}")
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: listed in the manifest, but missing")
        if path.stat().st_size != entry.get("bytes"):
            raise InputError(f"{path}: expected {entry.get('bytes')} bytes, got {path.stat().st_size}")
        contents[name] = path.read_bytes()
        digest = hashlib.sha256(contents[name]).hexdigest()
        if digest != entry.get("sha256"):
            raise InputError(f"{path}: expected sha256 {entry.get('sha256')}, got {digest}: the file was changed")
    return contents


def save(model: Model, folder: str | Path) -> Path:
    """Write a model folder.

    Raises:
        InputError: `folder` holds something other than a model.
    """
    files = {
        CONFIG: dump(network_json(model.config)),
        HOST: dump(preprocessing_json(model.config)),
        WEIGHTS: save_tensors({n: _as_written(np.asarray(v)) for n, v in weights(model).items()}),
    }
    return write_folder(folder, files)


def weights(model: nnx.Module) -> "dict[str, Array]":
    """Parameters and running statistics by dotted path."""
    return flatten(nnx.state(model, STORED))


def load(folder: str | Path, types: Iterable[type] = ()) -> Model:
    """Read a model folder.

    types: further config dataclasses that the config may name, such as adapters of your own.

    Raises:
        InputError: the folder is damaged, or weights and config disagree; all disagreements are listed together.
        ConfigError: the config cannot be understood.
    """
    files = read_folder(folder)
    for name in (CONFIG, HOST, WEIGHTS):
        if name not in files:
            raise InputError(f"{Path(folder) / MANIFEST}: expected it to list {name}")
    trees = [parse(files[name], Path(folder) / name) for name in (CONFIG, HOST)]
    config = from_json(merge(*trees), ModelConfig, [*known_types(), *types], where=str(Path(folder) / CONFIG))
    where = str(Path(folder) / WEIGHTS)
    return with_weights(config, _tensors(files[WEIGHTS], where), where)


def _as_written(array: np.ndarray) -> np.ndarray:
    """The bits of bfloat16 (see `LightParam`) as what they are, for every other reader of the file."""
    return array.view(jnp.bfloat16) if array.dtype == np.uint16 else array


def _tensors(content: bytes, where: str) -> dict[str, np.ndarray]:
    """Arrays by name, out of a file's content."""
    try:
        entries = deserialize(content)
    except SafetensorError as error:
        raise InputError(f"{where}: not safetensors: {error}") from None
    unknown = sorted({entry["dtype"] for _, entry in entries} - DTYPES.keys())
    if unknown:
        raise InputError(f"{where}: expected tensors of {', '.join(DTYPES)}, got {', '.join(unknown)}")
    return {n: np.frombuffer(e["data"], DTYPES[e["dtype"]]).reshape(e["shape"]) for n, e in entries}


def with_weights(config: ModelConfig, tensors: "Mapping[str, ArrayLike]", where: str) -> Any:
    """Build a model around given weights.

    tensors: arrays by dotted path, of exactly the model's shapes and dtypes.

    Raises:
        InputError: lists every missing, unexpected and mis-shaped entry, headed by `where`.
    """
    model = config.abstract()
    wanted = weights(model)
    problems = [f"missing {name} {wanted[name].shape}" for name in sorted(wanted.keys() - tensors.keys())]
    problems += [f"unexpected {name} {tensors[name].shape}" for name in sorted(tensors.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & tensors.keys()):
        want, have = wanted[name], tensors[name]
        if want.shape != have.shape or want.dtype != have.dtype:
            problems.append(f"{name}: expected {want.dtype} {want.shape}, got {have.dtype} {have.shape}")
    if problems:
        raise InputError(f"{where}: weights do not fit the config:\n  " + "\n  ".join(problems))
    graph, state = nnx.split(model)
    leaves, tree = jax.tree_util.tree_flatten_with_path(state)
    loaded = [jnp.asarray(tensors[_name(path)]) for path, _ in leaves]
    return nnx.merge(graph, jax.tree_util.tree_unflatten(tree, loaded))


def flatten(state: Any) -> "dict[str, Array]":
    """Parameters by dotted path, such as encoder.towers.0.layers.mlp.widen.kernel, with .numbers and .scale in int8."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def float32_weights(model: nnx.Module) -> "dict[str, Array]":
    """Parameters and running statistics by dotted path, as they are read: float32, whatever they are stored as."""
    state = nnx.state(model, STORED)
    leaves = jax.tree_util.tree_leaves_with_path(state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return {_name(path): variable[...] for path, variable in leaves}


def dump(tree: Any) -> bytes:
    """JSON as it is written everywhere in the project."""
    return (json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        InputError: missing or not JSON.
    """
    try:
        return parse(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def parse(content: bytes, path: Path) -> Any:
    """Parse JSON, with the file's name in the error."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # also for digits without end
        raise InputError(f"{path}: not JSON: {error}") from None


def _name(path: tuple[Any, ...]) -> str:
    attributes = [entry.name for entry in path if isinstance(entry, jax.tree_util.GetAttrKey)]
    keys = [str(getattr(entry, "key", getattr(entry, "idx", None))) for entry in path[: len(path) - len(attributes)]]
    return ".".join([*keys, *attributes[1:]])  # the first one is the value inside an nnx.Variable


def entry_of(content: bytes) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def replace_durably(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there: it is whole, or what it was before."""
    aside = path.with_name(f".{path.name}")
    write_durably(aside, content)
    os.replace(aside, path)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


__all__ = ["ConfigError", "load", "read_folder", "save", "weights", "with_weights", "write_folder", "write_new_folder"]
