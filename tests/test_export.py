import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver as p
from perceiver import cli
from perceiver.attend import Backend, Problem, choose_backend
from perceiver.control.policy import Policy
from perceiver.errors import ConfigError, InputError
from perceiver.export import DESCRIPTION, NEAR, PROGRAM, describe, draw, export, measure
from perceiver.folded import attend_tokens
from perceiver.programs import as_onnx, as_program, run_model, run_onnx, run_program
from perceiver.saving import load, read_folder
from tests.models import close, noisy, tiny_inputs
from tests.started import ended

RUNNER = Path(__file__).parent.parent / "launch" / "run_exported.py"
SENSORS = {"state": "observation.state", "points": "observation.points.lidar", "text": "task"}
SCALE = {"mean": (3.0, -3.0), "std": (2.0, 0.5)}
HEADS = {
    "chunk": p.Chunk(3, 2, **SCALE),
    "bins": p.BinnedChunk(3, 2, (-1.0, -1.0), (1.0, 1.0), bins=8),
    "flow": p.FlowChunk(3, 2, steps=2, **SCALE),
}


def policy(head="chunk", **changes):
    inputs = {name: tiny_inputs()[name] for name in SENSORS}
    robot = p.Robot(10.0, {name: p.Sensor(key) for name, key in SENSORS.items()})
    given = {"inputs": inputs, "encoder": p.Encoder(3, 8, 2), "outputs": {"action": HEADS[head]}, "robot": robot}
    return noisy(p.PerceiverConfig(**given | changes))


def small(**changes):
    """A policy that compiles sooner."""
    sensors = {"state": p.Sensor("observation.state")}
    return policy(**{"inputs": {"state": p.State(3)}, "robot": p.Robot(10.0, sensors)} | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the command writes of a run."""
    pytest.importorskip("flatbuffers")
    place = tmp_path_factory.mktemp("exported")
    policy().save(place / "run" / "model")
    with contextlib.redirect_stdout(io.StringIO()) as told:
        cli.main(["export", str(place / "run"), "--out", str(place / "out")])
    assert "the model itself" in told.getvalue()
    assert PROGRAM in told.getvalue()
    assert not (place / "run" / "model" / PROGRAM).exists()
    return place / "out"


def without(*packages):
    """The beginning of a program in which these packages cannot be imported."""
    return f"import sys; sys.modules.update(dict.fromkeys({packages!r}))"


def test_a_folder_keeps_its_model_and_says_what_its_program_takes(folder):
    assert load(folder).config == policy().config
    about = json.loads((folder / DESCRIPTION).read_text())
    assert about["inputs"]["points"] == {"shape": ["b", 6, 4], "dtype": "float32"}
    assert about["masks"]["state"] == {"shape": ["b", 2], "dtype": "bool"}
    assert about["answers"] == {"actions": {"shape": ["b", 3, 2], "dtype": "float32"}}
    assert about["robot"]["sensors"]["text"]["key"] == "task"
    content = read_folder(folder)[PROGRAM]
    exported = jax.export.deserialize(bytearray(content))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert len(content) < 200_000  # weights are not in it


def test_the_runner_answers_as_the_policy_without_flax_or_this_package(folder, tmp_path):
    model = load(folder)
    seen = {
        "observation.state": np.array([1.0, 2.0, 3.0], np.float32),
        "observation.points.lidar": np.array([[0.5, 0.5, 1.0, 0.1], [0.0, -0.5, 1.5, 0.9]], np.float32),
        "task": "go",
    }
    with Policy(model) as live:
        expected = live.infer(seen)["actions"]
        given = live._observations.given()
        live.reset()
        blind = live.infer({"task": "go"})["actions"]
    arrays = {name: raw[0] for name, raw in given.inputs.items()}
    masks = {f"{name}.mask": mask[0] for name, mask in given.masks.items()}
    np.savez(tmp_path / "observation.npz", **arrays, **masks)
    code = f"{without('flax', 'perceiver')}; import runpy; runpy.run_path({str(RUNNER)!r}, run_name='__main__')"
    words = [sys.executable, "-c", code, str(folder), str(tmp_path / "observation.npz")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    printed = json.loads(ran.stdout)
    close(printed["answers"]["actions"], expected, 1e-5)
    assert printed["took_ms"] > 0
    assert not np.allclose(expected, blind, atol=1e-2)
    code = RUNNER.read_text(encoding="utf-8")
    assert len(code.split('"""')[2].strip().splitlines()) <= 30
    assert "import flax" not in code
    assert "import perceiver" not in code


@pytest.mark.slow
@pytest.mark.parametrize("head", ["bins", "flow"])
def test_every_head_answers_a_batch_as_its_model(head):
    pytest.importorskip("flatbuffers")
    model = policy(head)
    sample = draw(model.config, 4)
    answers = run_program(model, as_program(model))(sample)
    close(answers["actions"], run_model(model)(sample)["actions"], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [p.Weights.BFLOAT16, p.Weights.INT8])
def test_smaller_weights_stay_small(weights, tmp_path):
    pytest.importorskip("flatbuffers")
    model = p.quantise(small(encoder=p.Encoder(3, 32, 1, latent=p.Block(heads=2))), weights)
    place = model.save(tmp_path / "small")
    program = jax.export.deserialize(bytearray(as_program(model))).call
    from safetensors.numpy import load_file

    sample = draw(model.config, 2)
    answers = program(load_file(place / "model.safetensors"), *sample)
    close(answers["actions"], run_model(model)(sample)["actions"], 1e-5)


@pytest.mark.slow
def test_a_model_without_a_robot_answers_everything():
    pytest.importorskip("flatbuffers")
    inputs = {name: tiny_inputs()[name] for name in ("image", "sound", "video")}
    outputs = {"label": p.Classes(3), "pixels": p.Output(p.Dense(2), p.Grid((2, 3), p.Fourier(bands=2)), chunk=4)}
    model = policy(inputs=inputs, outputs=outputs, robot=None)
    sample = draw(model.config, 2)
    answers = run_program(model, as_program(model))(sample)
    for name, wanted in run_model(model)(sample).items():
        close(answers[name], wanted, 1e-5)
    assert describe(model, (PROGRAM,))["answers"]["pixels"]["shape"] == ["b", 2, 3, 2]


def test_many_keys_are_looked_at_as_in_the_model():
    pytest.importorskip("flatbuffers")
    (any_number,) = jax.export.symbolic_shape("b")
    problem = Problem(any_number, 2, 4, 2048, 8, 8, jnp.dtype("float32"), channels=8)
    assert choose_backend(problem) is Backend.FOLDED
    assert choose_backend(problem._replace(channels=None)) is Backend.XLA
    rng = np.random.default_rng(0)
    queries, tokens = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 4, 2, 8), (3, 2048, 8)))
    mask = rng.random((3, 1, 1, 2048)) < 0.5
    look = jax.jit(lambda *given: attend_tokens(*given, epsilon=1e-5))
    shapes = [jax.ShapeDtypeStruct((any_number, *x.shape[1:]), x.dtype) for x in (queries, tokens, mask)]
    content = jax.export.export(look, platforms=("cpu", "cuda", "tpu"))(*shapes).serialize()
    exported = jax.export.deserialize(content).call
    for count in (1, 3):
        given = [x[:count] for x in (queries, tokens, mask)]
        for answer, wanted in zip(exported(*given), look(*given), strict=True):
            close(answer, wanted, 1e-5)


def test_a_program_that_answers_otherwise_is_not_written():
    model = small()
    other = small(encoder=p.Encoder(4, 8, 1))
    with pytest.raises(ConfigError, match=r"program.jax: expected answers within 1e-05 of the model's, got"):
        measure(model, {PROGRAM: run_model(other)}, {PROGRAM: 1}, calls=1)


def test_folders_that_would_lose_something_are_refused(folder, tmp_path):
    place = policy().save(tmp_path / "model")
    (place / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not in its manifest, so that it would be lost: notes.txt"):
        export(place)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a model folder, so it is not overwritten"):
        export(folder, tmp_path / "other")


def test_the_command_takes_models_only(tmp_path, capsys):
    assert "expected a model folder" in ended(["export", str(tmp_path / "nowhere")], 2, capsys).err


@pytest.mark.slow
def test_a_model_is_exported_into_its_own_folder(tmp_path):
    place = small().save(tmp_path / "model")
    for _ in range(2):
        rows = export(place)
        assert [row.what for row in rows] == ["the model itself", PROGRAM]
        assert all(row.size > 0 and 0 < row.p50 <= row.p99 for row in rows)
        assert rows[1].difference <= NEAR
        assert set(read_folder(place)) == {
            "config.json",
            "preprocessing.json",
            "model.safetensors",
            PROGRAM,
            DESCRIPTION,
        }


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_onnx_answers_as_its_model(head):
    pytest.importorskip("jax2onnx")
    model = policy(head)
    run = run_onnx(as_onnx(model))
    for count in (1, 3):
        sample = draw(model.config, count, seed=count)
        close(run(sample)["actions"], run_model(model)(sample)["actions"], 1e-5)
