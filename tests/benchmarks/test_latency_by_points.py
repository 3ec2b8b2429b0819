import json

import pytest

from benchmarks.latency import latency, policy_config
from perceiver import InputError
from perceiver.saving import weights


def test_the_figures_of_a_small_policy(tmp_path, capsys):
    files = {"as_json": tmp_path / "rows.json", "picture": tmp_path / "latency.png"}
    latency((16, 8), channels=16, latents=2, depth=1, seconds=0.0, **files)
    written = json.loads(files["as_json"].read_text())
    assert [row["points"] for row in written["rows"]] == [8, 16]
    for row in written["rows"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["answers"] >= 3
    assert files["picture"].read_bytes().startswith(b"\x89PNG")
    assert "p99 ms" in capsys.readouterr().out
    with pytest.raises(InputError, match="points: expected numbers of at least 1"):
        latency((0,))


def test_the_policy_that_is_measured_by_default_has_five_million_parameters():
    model = policy_config(4096, 256, 64, 12).abstract()
    assert sum(array.size for array in weights(model).values()) >= 5_000_000
