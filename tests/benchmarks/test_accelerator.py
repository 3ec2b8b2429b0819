"""The accelerator script where there is none: every step at tiny size, on our side."""

import json

import pytest

from benchmarks import accelerator, accelerator_sides
from benchmarks.accelerator import COMPILED, EAGER, FORWARD, JAX, PEAK, TRAINING, Row, Task
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
def test_batches_are_doubled_and_measured(case, mode, capsys):
    accelerator_sides.jax_case(case, mode, 1, 60.0, True, None)
    found = lines(capsys.readouterr().out)
    assert [record["batch"] for record in found] == [1, 2]
    assert all(record["rate"] == record["batch"] / record["seconds"] > 0 for record in found)
    assert found[0]["flops"] == found[1]["flops"] > 0


@pytest.mark.parametrize("case", accelerator.CASES)
def test_tiny_models_have_their_cases_parts(case):
    tiny, whole = (accelerator_sides.config(case, size) for size in (True, False))
    assert tiny.inputs.keys() == whole.inputs.keys()
    assert tiny.outputs.keys() == whole.outputs.keys()
    assert tiny.compute == whole.compute


def test_a_process_gives_the_peak_and_a_side_that_is_not_installed_says_so():
    found = accelerator.run(Task(JAX, PEAK, tiny=True), 100.0)
    assert found.best["rate"] == 2 * 256**3 / found.best["seconds"]
    other = accelerator.run(Task(EAGER, PEAK, tiny=True), 100.0)
    assert other.best is not None or other.said.startswith("skipped: No module named")


def test_a_process_that_takes_too_long_is_stopped_and_one_that_fails_says_why():
    assert accelerator.run(Task(JAX, PEAK, tiny=True), 0.2).said == "stopped after 0 s"
    broken = accelerator.run(Task(JAX, FORWARD, Canonical.FLOW, tiny=True, start=0), 100.0)
    assert broken.best is None
    assert "InputError" in broken.said


def test_a_full_card_ends_the_doubling(capsys, monkeypatch):
    def prepare(batch):
        if batch > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return lambda: None, ""

    monkeypatch.setattr(accelerator_sides, "timed", lambda call, least: 0.1)
    accelerator_sides.doubled(1, 1e9, 1, prepare, False)
    *found, last = lines(capsys.readouterr().out)
    assert [record["batch"] for record in found] == [1, 2]
    assert last == {"said": "batch 4 does not fit the memory"}


def test_the_table_compares_with_the_peak_and_with_torch_compile():
    case = Canonical.LANGUAGE
    rows = [
        Row(Task(JAX, PEAK), {"rate": 1000.0, "batch": 1, "seconds": 1.0, "flops": 1}, ""),
        Row(Task(JAX, TRAINING, case), {"rate": 6.0, "batch": 8, "seconds": 0.5, "flops": 100, "note": "b"}, ""),
        Row(Task(COMPILED, TRAINING, case), {"rate": 3.0, "batch": 8, "seconds": 0.5, "flops": 100, "note": "a"}, ""),
        Row(Task(EAGER, TRAINING, case), None, "stopped after 50 s"),
    ]
    text = accelerator.table(rows)
    assert "| training language | jax | 8 | 500.0 | 6.0 | 60.0% | 2.00 | b |" in text
    assert "| training language | torch.compile | 8 | 500.0 | 3.0 | 30.0% | 1.00 | a |" in text
    assert "| training language | torch eager | – | – | – | – | – | stopped after 50 s |" in text


def test_training_beside_torch_compile_comes_first():
    order = [(task.mode, task.side) for task in accelerator.plan(False)]
    assert order[:4] == [(PEAK, JAX), (PEAK, EAGER), (TRAINING, JAX), (TRAINING, COMPILED)]
    assert [side for _, side in order].index(EAGER, 2) > max(i for i, pair in enumerate(order) if COMPILED in pair)
