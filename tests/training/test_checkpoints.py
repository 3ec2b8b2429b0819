"""Damage to checkpoints is seen, named and survived."""

import errno
import fcntl
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import InputError
from perceiver.training import checkpoints as module
from perceiver.training.checkpoints import LISTED, Checkpoints, SaveError
from perceiver.training.lock import NAME, held
from perceiver.training.manifest import damage, seal, sealed

STATE = {"a": jnp.arange(6.0).reshape(2, 3), "b": [jnp.zeros((), jnp.int32)]}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Checkpoints of steps 1, 2 and 3, of which the last two stay."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, jax.tree.map(lambda leaf, step=step: leaf + step, STATE), {"step": step})
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run" / "checkpoints")


def restored(folder):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(STATE)


def files_of(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def test_the_newest_comes_back_with_its_record(folder):
    state, record, step = restored(folder)
    assert (step, record["step"]) == (3, 3)
    np.testing.assert_array_equal(state["a"], np.arange(6.0).reshape(2, 3) + 3)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps == [2, 3]


def test_nothing_there_is_none(tmp_path):
    assert restored(tmp_path / "run" / "checkpoints") is None


@pytest.mark.parametrize("kind", ["flipped", "shortened", "emptied", "removed", "added"])
def test_damage_in_any_file_is_named_and_the_one_before_is_used(kind, folder, caplog):
    rng = np.random.default_rng(0)
    files = files_of(folder / "3")
    assert len(files) > 5
    chosen = [path for path in files if path.stat().st_size]
    if kind == "added":
        chosen = [folder / "3" / "state" / "other"]
    whole = folder.parent / "whole"
    shutil.copytree(folder, whole)
    for path in chosen:
        content = bytearray(path.read_bytes() if path.exists() else b"x")
        if kind == "flipped":
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        elif kind == "shortened":
            content = content[: rng.integers(len(content))]
        elif kind == "emptied":
            content = b""
        path.write_bytes(content)
        if kind == "removed":
            path.unlink()
        problem = damage(folder / "3")
        assert problem is not None
        assert str(path) in problem or path.name == "MANIFEST.json"
        shutil.copytree(whole / "3", folder / "3", dirs_exist_ok=True)
    assert (damage(folder / "3") is None) == (kind != "added")

    # one of them whole way through
    path = chosen[0]
    path.write_bytes(b"not this")
    assert restored(folder)[2] == 2
    assert f"damaged checkpoint, not used: step 3: {path}" in caplog.text
    assert (folder.parent / "damaged" / "3.0").is_dir()
    with Checkpoints(folder) as checkpoints:  # the step can be saved again
        checkpoints.save(3, STATE, {})
    assert restored(folder)[2] == 3


@pytest.mark.parametrize("step", ["2", "3"])
def test_damage_in_what_is_read_to_list_the_steps_is_survived(step, folder):
    path = folder / step / LISTED
    content = path.read_bytes()
    assert b"performance_metrics" in content
    path.write_bytes(content.replace(b"performance_metrics", b"performance_meTrics"))
    assert restored(folder)[2] == (2 if step == "3" else 3)
    assert (folder.parent / "damaged" / f"{step}.0").is_dir()


def test_damage_since_the_folder_was_opened_is_survived(folder):
    with Checkpoints(folder) as checkpoints:
        files_of(folder / "3")[-1].write_bytes(b"")
        assert checkpoints.restore(STATE)[2] == 2


def test_where_all_are_damaged_each_is_named(folder):
    for step in ("2", "3"):
        files_of(folder / step)[-1].write_bytes(b"")
    with pytest.raises(InputError, match=r"(?s)no checkpoint is as it was written.*step 3: .*step 2: .*damaged"):
        restored(folder)
    assert restored(folder) is None


def test_a_save_that_was_not_finished_does_not_count(folder):
    (folder / "3" / "MANIFEST.json").unlink()
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp")
    assert restored(folder)[2] == 2
    assert sorted(path.name for path in folder.iterdir()) == ["2"]


def test_an_old_step_goes_only_once_the_new_one_is_sealed_and_first_loses_its_manifest(folder, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(path, **_):
        raise Killed

    with monkeypatch.context() as patch, Checkpoints(folder) as checkpoints:
        patch.setattr(module.shutil, "rmtree", killed)
        checkpoints.save(4, STATE, {})
        with pytest.raises(SaveError):
            checkpoints.wait()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3", "4"]
    assert [sealed(folder / step) for step in "234"] == [False, True, True]
    assert restored(folder)[2] == 4
    assert not (folder / "2").exists()
    assert not (folder.parent / "damaged").exists()


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_every_earlier_step_and_says_so(folder, monkeypatch):
    monkeypatch.setattr(module, "seal", full)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(4, STATE, {})
        with pytest.raises(SaveError, match=r"step 4 could not be saved: .*No space left on device\nstep 3 is kept"):
            checkpoints.wait()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    assert restored(folder)[2] == 3


def test_leaving_says_that_the_last_save_failed(folder, monkeypatch):
    monkeypatch.setattr(module, "seal", full)
    with pytest.raises(SaveError, match="step 4"), Checkpoints(folder) as checkpoints:
        checkpoints.save(4, STATE, {})


def test_what_ended_a_run_is_said_before_a_save_that_failed_too(folder, monkeypatch):
    monkeypatch.setattr(module, "seal", full)
    checkpoints = Checkpoints(folder)
    checkpoints.save(4, STATE, {})
    checkpoints.__exit__(KeyError, KeyError("first"), None)


def test_a_sealed_folder_is_as_it_was(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"1")
    assert not sealed(tmp_path)
    assert "MANIFEST.json" in damage(tmp_path)
    seal(tmp_path)
    assert sealed(tmp_path)
    assert damage(tmp_path) is None
    for content in ("{}", "[]", "nonsense", json.dumps({"format": 1, "files": {"a/b": 3}})):
        (tmp_path / "MANIFEST.json").write_text(content)
        assert damage(tmp_path) is not None


# --- one run a folder -------------------------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused_with_its_owner_and_age(tmp_path):
    with held(tmp_path):
        written = (tmp_path / NAME).read_text()
    with open(tmp_path / NAME, "r+") as other:  # as another process would: the lock belongs to the open file
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(
                InputError, match=rf"at work in it, process {json.loads(written)['process']} on .*, for \d+ s"
            ),
            held(tmp_path),
        ):
            pass
        (tmp_path / NAME).write_text("")
        with pytest.raises(InputError, match="another run is at work in it"), held(tmp_path):
            pass
    with held(tmp_path), held(tmp_path):  # free again, and one's own is no other's
        pass
    with held(tmp_path):
        pass


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be writable"), held(tmp_path / "file"):
        pass
