"""What tests start: commands that end the program, and processes that have eight devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perceiver import cli

ROOT = Path(__file__).parents[1]


def ended(words, code, capsys):
    """What a command line that ends the program with an exit code prints: output and errors."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == code
    return capsys.readouterr()


def on_eight_devices(module, *arguments):
    """The JSON in the last line that a module prints, run by a process with eight devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    child = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return json.loads(child.stdout.splitlines()[-1])
