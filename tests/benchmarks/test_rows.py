import pytest

from benchmarks import report, rows
from benchmarks.cases import Forward, Policy
from benchmarks.cost import Cost
from benchmarks.measure import Effort, Figures
from benchmarks.peers.contract import Variant
from benchmarks.process import Outcome, Program
from benchmarks.sides import PEERS, Side
from perceiver.errors import InputError

MACHINE = {
    "processor": "a processor",
    "threads": 2,
    "memory_bytes": 2**34,
    "system": "a system",
    "python": "3.11.0",
    "matmul_flops_per_second": 1e11,
    "matmul_flops_bfloat16_per_second": 2e11,
    "bandwidth_bytes_per_second": 1e10,
}


def figures(name, seconds, memory=2**20, parameters=10, variant=Variant.PLAIN):
    return Figures(
        Side(name, Program("nothing")),
        variant,
        Outcome.MEASURED,
        versions={"numpy": "2"},
        built={
            "parameters": parameters,
            "shapes": {"": [1, 2]},
            "times": 1,
            "notes": ["something to know"] if name == "them" else [],
            "first_call_peak_bytes": 5,
            "first_call_seconds": 9.0,
        },
        memory={"peak_bytes": memory, "process_peak_bytes": 2 * memory, "seconds": seconds},
        turns=[[seconds]] * 3,
    )


def test_the_faster_variant_counts_and_the_other_is_reported():
    plain, remat = figures("ours", 3.0), figures("ours", 2.0, variant=Variant.REMAT)
    (row,) = rows.rows_of("policy", Policy(), [plain, remat, figures("them", 4.0, 2**21)])
    assert row["time_ratio"] == 0.5
    assert row["memory_ratio"] == 0.5
    assert row["variant"] == "remat"
    assert row["variants"]["plain"]["seconds"] == 3.0


def test_other_models_are_no_comparison():
    (row,) = rows.rows_of("forward/x", Forward(), [figures("ours", 1.0), figures("them", 1.0, parameters=11)])
    assert row["status"] == "failed"
    assert "11 parameters, ours has 10" in row["peer_problem"]
    assert "time_ratio" not in row


def test_a_peer_that_is_not_there_has_a_row():
    away = rows.unmeasured(Side("away", Program("nothing")), Outcome.ABSENT, "pip install away")
    (row,) = rows.rows_of("policy", Policy(), [figures("ours", 1.0), away])
    assert row["status"] == "not installed"
    assert row["peer_problem"] == "pip install away"
    assert row["seconds"] == 1.0


def test_fractions_of_the_peaks():
    found = rows.rows_of("policy", Policy(), [figures("ours", 1.0), figures("them", 2.0)])
    rows.add_cost(found, Cost(5 * 10**10, 10**9), MACHINE)
    assert found[0]["fraction_of_matmul_peak"] == 0.5
    assert found[0]["peer_fraction_of_matmul_peak"] == 0.25
    assert found[0]["fraction_of_bandwidth"] == 0.1


def test_later_runs_replace_what_they_measured(tmp_path):
    def row(case, peer, n, status="measured"):
        return {"case": case, "peer": peer, "n": n, "status": status}

    old = [row("b", "x", 1), row("a", "x", 1), row("a", "y", 1)]
    new = [row("a", "x", 2), row("a", "y", 2, Outcome.ABSENT.value)]
    found = rows.merged(old, new, ["a", "b"], ["x", "y"])
    assert [(row["case"], row["peer"], row["n"]) for row in found] == [("a", "x", 2), ("a", "y", 1), ("b", "x", 1)]
    rows.write(tmp_path / "rows.json", MACHINE, found)
    assert rows.read(tmp_path / "rows.json") == {"machine": MACHINE, "rows": found}


def test_rows_of_another_machine_are_not_mixed_in(tmp_path):
    path = tmp_path / "rows.json"
    rows.check_machine(path, {}, MACHINE)
    with pytest.raises(InputError, match=r"another machine \(threads 1, here 2\)"):
        rows.check_machine(path, MACHINE | {"threads": 1}, MACHINE)


def test_something_else_is_no_file_of_rows(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("[1]")
    with pytest.raises(InputError, match="expected"):
        rows.read(path)


def test_tables_go_between_the_markers(tmp_path):
    found = rows.rows_of("policy", Policy(), [figures("ours", 1.0), figures("them", 2.0)])
    path = tmp_path / "performance.md"
    path.write_text("before\n<!-- benchmarks: begin -->\nold\n<!-- benchmarks: end -->\nafter\n")
    report.insert(path, report.markdown(MACHINE, found))
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| policy | them | 0.50 ± 0.00 | 1.00 s | 2.00 s |" in text
    assert "- them, policy: something to know" in text
    path.write_text("no markers")
    with pytest.raises(InputError, match="expected one line"):
        report.insert(path, "")


def test_a_picture_of_some_rows(tmp_path):
    from benchmarks.picture import draw

    found = rows.rows_of("policy", Policy(), [figures("ours", 1.0), figures(next(iter(PEERS)), 2.0)])
    draw(found, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_rounds_fill_the_time_within_bounds():
    assert Effort(seconds=10).count(1.0) == 10
    assert Effort(seconds=10).count(10.0) == 5
    assert Effort(seconds=10).count(60.0) == 3
    assert Effort(seconds=10).count(200.0) == 2
    assert Effort(seconds=10).count(0.001) == 50
    assert Effort(rounds=3).count(60.0) == 3
