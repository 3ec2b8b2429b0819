"""A fixed short run of what `python -m tests.fuzz` does at length; and that no code comes out of data."""

import os
import pickle
import re
import resource
import time
from pathlib import Path

import pytest

from tests.fuzz.__main__ import enter
from tests.fuzz.targets import TARGETS, corpus

COUNT = 150
PACKAGE = Path(__file__).parents[2] / "perceiver"


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_only_documented_errors_come_out(name, tmp_path):
    target = TARGETS[name]
    place = tmp_path / f"file{target.suffix}"
    seeds = list(target.seeds().values())
    allowed = [enter(target, place, content) for content in seeds]
    assert all(allowed) or name == "manifest"
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = [not enter(target, place, content) for content in corpus(target, COUNT, 0)]
    assert any(refused) or name in ("kitti", "nuscenes")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB: a gibibyte
    assert time.process_time() - started < 120


CODE = re.compile(
    r"\b(?:pickle|dill|cloudpickle|shelve|marshal)\b\.(?:loads?|Unpickler)|\b(?:eval|exec)\(|yaml\.load\("
)


def test_no_code_is_taken_from_data_anywhere():
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if CODE.search(line)
    ]
    assert not found


class Evil:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize("name", ["npz", "pickle", "weights", "config", "safetensors"])
def test_a_pickle_that_runs_something_runs_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = TARGETS[name]
    assert not enter(target, tmp_path / f"file{target.suffix}", pickle.dumps({"params": Evil()}))
    assert not (tmp_path / "evil").exists()
