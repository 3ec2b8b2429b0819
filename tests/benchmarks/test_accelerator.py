"""The accelerator script where there is none: every step at tiny size, on our side."""

import json
import threading

import pytest

from benchmarks import accelerator, accelerator_sides
from benchmarks.accelerator import COMPILED, EAGER, FORWARD, JAX, PEAK, TORCH, TRAINING, Row, Task
from benchmarks.cases import Canonical


def lines(text):
    return [json.loads(line[1:]) for line in text.splitlines() if line.startswith("@")]


@pytest.mark.parametrize(
    ("case", "mode"),
    [
        pytest.param(Canonical.LANGUAGE, TRAINING, marks=pytest.mark.slow),
        pytest.param(Canonical.FLOW, TRAINING, marks=pytest.mark.slow),
        (Canonical.IMAGENET_FOURIER, FORWARD),
    ],
)
def test_a_case_is_measured(case, mode, capsys, tmp_path):
    accelerator_sides.jax_case(Task(JAX, mode, case, 2, True), case, tmp_path / "lock")
    (found,) = lines(capsys.readouterr().out)
    assert (found["side"], found["batch"]) == (JAX, 2)
    assert found["rate"] == 2 / found["seconds"] > 0
    assert found["flops"] > 0


@pytest.mark.parametrize("case", accelerator.BATCHES)
def test_tiny_models_have_their_cases_parts(case):
    tiny, whole = (accelerator_sides.config(case, size) for size in (True, False))
    assert tiny.inputs.keys() == whole.inputs.keys()
    assert tiny.outputs.keys() == whole.outputs.keys()
    assert tiny.compute == whole.compute


@pytest.mark.slow
def test_a_process_gives_the_peak_and_a_library_that_is_not_installed_says_so(tmp_path):
    (found,) = accelerator.run(Task(JAX, PEAK, tiny=True), 100.0, tmp_path / "lock")
    assert found.best["rate"] == 2 * 256**3 / found.best["seconds"]
    (other,) = accelerator.run(Task(TORCH, PEAK, tiny=True), 100.0, tmp_path / "lock")
    assert other.best is not None or other.said.startswith("skipped: No module named")


@pytest.mark.slow
def test_a_process_that_takes_too_long_is_stopped_and_one_that_fails_says_why(tmp_path):
    (slow,) = accelerator.run(Task(JAX, PEAK, tiny=True), 0.2, tmp_path / "lock")
    assert slow.said == "stopped after 0 s"
    (broken,) = accelerator.run(Task(JAX, FORWARD, Canonical.FLOW, 0, True), 100.0, tmp_path / "lock")
    assert broken.best is None
    assert "InputError" in broken.said


def test_one_process_at_a_time_is_alone(tmp_path):
    lock, order = tmp_path / "lock", []

    def other():
        with accelerator_sides.alone(lock):
            order.append("second")

    with accelerator_sides.alone(lock):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_table_compares_with_the_peak_and_with_torch_compile():
    case = Canonical.LANGUAGE
    ours, theirs = Task(JAX, TRAINING, case), Task(TORCH, TRAINING, case)
    rows = [
        Row(Task(JAX, PEAK), JAX, {"rate": 1000.0, "batch": 1, "seconds": 1.0, "flops": 1}, ""),
        Row(Task(JAX, FORWARD, case), JAX, {"rate": 9.0, "batch": 8, "seconds": 0.9, "flops": 30}, ""),
        Row(ours, JAX, {"rate": 6.0, "batch": 8, "seconds": 0.5, "flops": 100, "note": "b"}, ""),
        Row(theirs, COMPILED, {"rate": 3.0, "batch": 8, "seconds": 0.5, "flops": 100, "note": "a"}, ""),
        Row(theirs, EAGER, None, "stopped after 50 s"),
    ]
    *_, first, second, third, last = accelerator.table(rows).splitlines()
    assert first == "| training language | jax | 8 | 500.0 | 6.0 | 60.0% | 2.00 | b |"
    assert second == "| training language | torch.compile | 8 | 500.0 | 3.0 | 30.0% | 1.00 | a |"
    assert third == "| training language | torch eager | – | – | – | – | – | stopped after 50 s |"
    assert last.startswith("| forward language | jax | 8 |")


def test_each_lane_keeps_to_one_library_and_mode_and_begins_with_the_largest_model():
    found = accelerator.lanes(False, (JAX, TORCH), 0.5)
    assert [{(task.library, task.mode) for task in lane} for lane in found] == [
        {(JAX, TRAINING)},
        {(TORCH, TRAINING)},
        {(JAX, FORWARD)},
        {(TORCH, FORWARD)},
    ]
    assert all(lane[0].case is Canonical.IMAGENET_FOURIER and lane[0].batch == 32 for lane in found)
