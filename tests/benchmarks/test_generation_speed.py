import json

import pytest

from benchmarks.generation import generation
from perceiver import InputError


def test_both_ways_to_write_are_timed_and_write_the_same(tmp_path, capsys):
    generation((12, 12), channels=16, depth=1, share=2, batch=2, prompt=3, as_json=tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["length"] for row in rows] == [12]
    for row in rows:
        assert row["written"] == 2 * (row["length"] - 3)
        assert row["same"] == 1.0
        assert row["times_faster"] == pytest.approx(row["kept_per_s"] / row["anew_per_s"])
    assert "100.0%" in capsys.readouterr().out
    with pytest.raises(InputError, match="lengths: expected numbers above the prompt's 16"):
        generation((16,))
