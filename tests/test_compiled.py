import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, jax
from perceiver.compiled import keep_programs
before = jax.config.jax_compilation_cache_dir
answer = keep_programs()
if answer is not None and before is None:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.jit(lambda x: x * 3 + 1)(1.0).block_until_ready()
print(json.dumps([before, None if answer is None else str(answer), jax.config.jax_compilation_cache_dir]))
"""


def run(tmp_path, **variables):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMP", "PERCEIVER_", "XDG_"))}
    given = kept | {"HOME": str(tmp_path)} | variables
    return subprocess.run([sys.executable, "-c", CODE], env=given, capture_output=True, text=True, check=False)


def asked(tmp_path, **variables):
    return json.loads(run(tmp_path, **variables).stdout)


def test_programs_are_kept_in_the_users_cache_and_found_again(tmp_path):
    folder = tmp_path / ".cache" / "perceiver" / "programs"
    assert asked(tmp_path) == [None, str(folder), str(folder)]
    written = {path.name for path in folder.iterdir() if path.name.endswith("-cache")}
    assert written
    asked(tmp_path)
    assert {path.name for path in folder.iterdir() if path.name.endswith("-cache")} == written


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"XDG_CACHE_HOME": "{}/xdg"}, "{}/xdg/perceiver/programs"),
        ({"PERCEIVER_COMPILATION_CACHE": "{}/own"}, "{}/own"),
        ({"PERCEIVER_COMPILATION_CACHE": "off"}, None),
    ],
)
def test_the_folder_is_the_users_choice(tmp_path, variables, folder):
    given = {name: value.format(tmp_path) for name, value in variables.items()}
    expected = None if folder is None else folder.format(tmp_path)
    assert asked(tmp_path, **given) == [None, expected, expected]


def test_a_folder_that_is_set_for_jax_is_left_alone(tmp_path):
    own = str(tmp_path / "jax")
    assert asked(tmp_path, JAX_COMPILATION_CACHE_DIR=own) == [own, own, own]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    ended = run(tmp_path, PERCEIVER_COMPILATION_CACHE=str(tmp_path / "file" / "x"))
    assert "PERCEIVER_COMPILATION_CACHE=" in ended.stderr
    assert "expected a folder for compiled programs" in ended.stderr
