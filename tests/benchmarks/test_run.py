import json
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks.cases import OutputScaling, Policy
from benchmarks.measure import Effort, measure
from benchmarks.peers.contract import Variant
from benchmarks.process import Limits, Outcome, Program, Worker, WorkerError
from benchmarks.rows import rows_of
from benchmarks.sides import Side, ours

TINY = Policy(side=16, latents=4, width=32, depth=1, heads=2, steps=3, actions=2)
DUMMY = Side("dummy", Program("tests.benchmarks.dummy", checkout=True))
LIMITS = Limits(threads=1)


@pytest.mark.slow
def test_two_sides_from_the_workers_to_the_row():
    said = []
    figures = measure(TINY, [ours(TINY), DUMMY], LIMITS, Effort(rounds=3), said.append)
    (row,) = json.loads(json.dumps(rows_of("policy", TINY, figures)))
    assert (row["case"], row["peer"], row["batch"], row["status"]) == ("policy", "dummy", 1, "measured")
    assert row["rounds"] == 3
    assert row["time_ratio"] > 0
    assert row["spread"] >= 0
    assert row["shapes"] == {"actions": [1, 3, 2]}
    assert row["peer_shapes"] == {"": [1, 3, 2]}
    assert row["memory_bytes"] > 4 * row["parameters"]
    assert row["process_peak_bytes"] > row["memory_bytes"]
    assert row["peer_notes"] == ["a dummy"]
    assert {"jax", "flax", "perceiver"} <= set(row["versions"])
    assert len(said) == 2


@pytest.mark.parametrize(
    ("case", "outcome"),
    [(OutputScaling(), Outcome.LACKS), (Policy(steps=101), Outcome.MEMORY), (Policy(side=0), Outcome.ERROR)],
)
def test_why_a_side_gives_no_figures(case, outcome):
    if outcome is Outcome.ERROR:
        case = Policy(actions=-1)
    with Worker(DUMMY.program, LIMITS) as worker:
        worker.load()
        with pytest.raises(WorkerError) as caught:
            worker.build(case, Variant.PLAIN)
    assert caught.value.outcome is outcome


def test_a_side_that_cannot_be_imported_is_absent():
    program = Program("tests.benchmarks.nothing", checkout=True)
    with Worker(program, LIMITS) as worker, pytest.raises(WorkerError, match="nothing") as caught:
        worker.load()
    assert caught.value.outcome is Outcome.ABSENT


def test_a_worker_that_dies_says_its_last_words(tmp_path):
    with Worker(Program("tests.benchmarks.dummy", python=sys.executable), LIMITS) as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(WorkerError):
            worker.load()


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code, capsys.readouterr().err


def test_unknown_names_end_with_a_suggestion(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "--case", "polciy")
    assert code == 2
    assert "did you mean 'policy'?" in said
    code, said = run(monkeypatch, capsys, "--case", "policy", "--peer", "transfromers")
    assert code == 2
    assert "no peer 'transfromers'; did you mean 'transformers" in said


def test_a_named_peer_that_is_missing_is_an_error(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "--case", "policy", "--peer", "deepmind")
    assert code == 2
    assert "--deepmind PATH" in said
