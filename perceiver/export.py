"""A saved model as programs that run without this package: `jax.export` for every kind of device, and ONNX.

Both take raw inputs and masks, of any batch size, and give a policy's actions, or the answers of another Perceiver:
normalisation is in them. Histories and ages are not, which `perceiver.control.observations` sees to.

program.jax is a `jax.export` artefact for cpu, cuda and tpu, a function (weights, inputs, masks) -> answers, whose
weights are those of model.safetensors beside it; JAX promises to read it for six months. model.onnx has weights of its
own, and its inputs are called inputs.NAME and masks.NAME. program.json says what both take and give.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from perceiver.adapters.base import Adapter
from perceiver.adapters.points import Points
from perceiver.adapters.state import State
from perceiver.errors import ConfigError, InputError, require
from perceiver.model import Compute, Perceiver, PerceiverConfig
from perceiver.programs import (
    BATCH,
    PLATFORMS,
    Arrays,
    Sample,
    answer_shapes,
    as_onnx,
    as_program,
    parameters,
    run_model,
    run_onnx,
    run_program,
    shapes,
)
from perceiver.saving import MANIFEST, WEIGHTS, dump, load, read_folder, read_manifest, write_folder

PROGRAM, ONNX, DESCRIPTION = "program.jax", "model.onnx", "program.json"
FORMAT = 1
NEAR = 1e-5
"""How much a program's answers may differ from the model's: of the largest number of the answer, or of 1."""


class Measured(NamedTuple):
    """What became of a program.

    what: its file. size: bytes. difference: the largest one from the model's answers, as `NEAR` is meant. p50, p99:
    seconds from arrays on the host to answers there, for one sample.
    """

    what: str
    size: int
    difference: float
    p50: float
    p99: float


def export(source: str | Path, folder: str | Path | None = None, *, onnx: bool = False) -> list[Measured]:
    """Write a model folder with its programs beside config and weights.

    source: a model folder. folder: where; None writes into the model's own, whose other files stay as they are.
    onnx: also model.onnx, with the extra `onnx`.

    Returns the model itself as it runs here, then each program, compared with it and timed.

    Raises:
        ConfigError: the model is not a Perceiver, or a program would not answer as the model does.
        InputError: the folder is damaged, or has files that are not in its manifest and would be lost.
        MissingExtraError: a package is not installed.
    """
    source = Path(source)
    folder = source if folder is None else Path(folder)
    require("flatbuffers", "export")
    model, files = load(source), read_folder(source)
    if not isinstance(model, Perceiver):
        raise ConfigError(f"{source}: expected a Perceiver, got {type(model).__name__}")
    _check_place(folder)
    made = {PROGRAM: as_program(model)} | ({ONNX: as_onnx(model)} if onnx else {})
    runs = {PROGRAM: run_program(model, made[PROGRAM])} | ({ONNX: run_onnx(made[ONNX])} if onnx else {})
    measured = measure(model, runs, {name: len(content) for name, content in made.items()})
    about = describe(model, tuple(made))
    files = {name: content for name, content in files.items() if name not in (PROGRAM, ONNX, DESCRIPTION)}
    write_folder(folder, files | made | {DESCRIPTION: dump(about)})
    return measured


def _check_place(folder: Path) -> None:
    """Refuse a folder that is no model's, or has more than its manifest says: it is replaced as a whole."""
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MANIFEST).is_file():
            raise InputError(f"{folder}: exists and is not a model folder, so it is not overwritten")
        foreign = {path.name for path in folder.iterdir()} - read_manifest(folder).keys() - {MANIFEST}
        if foreign:
            raise InputError(f"{folder}: not in its manifest, so that it would be lost: {', '.join(sorted(foreign))}")


def describe(model: Perceiver, programs: tuple[str, ...]) -> dict[str, Any]:
    """What program.json says: shapes and dtypes of what the programs take and give; a robot's sensors by input."""
    about: dict[str, Any] = {
        "format": FORMAT,
        "programs": list(programs),
        "weights": WEIGHTS,
        "platforms": list(PLATFORMS),
    }
    trees = shapes(model.config, 1)._asdict() | {"answers": answer_shapes(model)}
    for kind, tree in trees.items():
        about[kind] = {n: {"shape": [BATCH, *x.shape[1:]], "dtype": np.dtype(x.dtype).name} for n, x in tree.items()}
    robot = model.config.robot
    if robot is not None:
        sensors = {name: {"key": sensor.key, "max_age": sensor.max_age} for name, sensor in robot.sensors.items()}
        about["robot"] = {"rate": robot.rate, "sensors": sensors}
    return about


def draw(config: PerceiverConfig, batch: int, seed: int = 0) -> Sample:
    """Random inputs such as sensors might give, a third of their elements masked."""
    rng = np.random.default_rng(seed)
    given = shapes(config, batch)
    inputs = {name: _drawn(config.inputs[name], leaf, rng) for name, leaf in given.inputs.items()}
    return Sample(inputs, {name: rng.random(leaf.shape) < 2 / 3 for name, leaf in given.masks.items()})


def measure(
    model: Perceiver, runs: Mapping[str, Callable[[Sample], Arrays]], sizes: Mapping[str, int], calls: int = 50
) -> list[Measured]:
    """The model as it runs here, then each program, compared on samples alone and on several at once.

    Raises:
        ConfigError: the model computes in float32, and the answers of a program differ by more than `NEAR`.
    """
    own, samples = run_model(model), (draw(model.config, 1), draw(model.config, 3, seed=1))
    wanted = [own(sample) for sample in samples]
    size = sum(array.nbytes for array in parameters(model).values())
    rows = [Measured("the model itself", size, 0.0, *_timed(own, samples[0], calls))]
    for name, run in runs.items():
        apart = max(_apart(run(sample), answers) for sample, answers in zip(samples, wanted, strict=True))
        if model.config.compute is Compute.FLOAT32 and not apart <= NEAR:
            raise ConfigError(f"{name}: expected answers within {NEAR} of the model's, got {apart:.1e}")
        rows.append(Measured(name, sizes[name], apart, *_timed(run, samples[0], calls)))
    return rows


def _drawn(adapter: Adapter, leaf: jax.ShapeDtypeStruct, rng: np.random.Generator) -> np.ndarray:
    if leaf.dtype.kind in "iu":
        return rng.integers(0, 128, leaf.shape).astype(leaf.dtype)
    values = rng.normal(size=leaf.shape)
    if isinstance(adapter, State) and adapter.mean:
        values = values * adapter.std + np.asarray(adapter.mean)
    if isinstance(adapter, Points):
        values[..., :3] = rng.uniform(adapter.low, adapter.high, (*leaf.shape[:-1], 3))
    return values.astype(leaf.dtype)


def _apart(answers: Arrays, wanted: Arrays) -> float:
    return max(float(np.abs(answers[n] - w).max()) / max(1.0, float(np.abs(w).max())) for n, w in wanted.items())


def _timed(run: Callable[[Sample], Arrays], sample: Sample, calls: int) -> tuple[float, float]:
    taken = []
    for _ in range(calls + 3):
        started = time.perf_counter()
        run(sample)
        taken.append(time.perf_counter() - started)
    p50, p99 = np.quantile(taken[3:], [0.5, 0.99])
    return float(p50), float(p99)
