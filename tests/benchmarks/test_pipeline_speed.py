import json

from benchmarks.pipeline import COLUMNS, build, pipeline

TOY = """
from tests.training.test_loop import tiny_experiment

def toy(*, root=None):
    return tiny_experiment(name=f"toy in {root}")
"""


def toy(folder):
    path = folder / "experiments" / "toy.py"
    path.parent.mkdir()
    path.write_text(TOY)
    return path


def test_the_figures_of_a_toy_experiment(tmp_path, capsys):
    path = toy(tmp_path)
    pipeline((path,), root=tmp_path, threads=2, seconds=0.0, as_json=tmp_path / "rows.json")
    written = json.loads((tmp_path / "rows.json").read_text())
    (found,) = written["rows"]
    assert found["experiment"] == f"toy in {tmp_path}"
    assert (found["batch"], found["threads"]) == (8, 2)
    assert min(found[name] for name in COLUMNS if name.endswith("per_second")) > 0
    assert found["pipeline_over_step"] == found["pipeline_samples_per_second"] / found["step_samples_per_second"]
    assert written["machine"]["devices"]
    assert "toy" in capsys.readouterr().out


def test_a_root_is_only_given_to_who_takes_it(tmp_path):
    path = toy(tmp_path)
    path.write_text(TOY.replace("*, root=None", "").replace(" in {root}", ""))
    assert build(path, tmp_path).name == "toy"
