"""`python -m benchmarks.environments PEER`: the environment that a peer installs in, by venv and pip."""

import shutil
import subprocess
import sys
from pathlib import Path

import tyro
from tyro.conf import Positional

from benchmarks.cases import UnknownNameError, choose
from benchmarks.sides import PEERS, Peer, prepared
from perceiver.console import fail


def environment(peer: Positional[str], folder: Path | None = None, base: str | None = None) -> None:
    """Make a peer's environment, which `python -m benchmarks` then finds.

    Examples:
        python -m benchmarks.environments perceiver-io

    Args:
        peer: Name of the peer.
        folder: Where to; unless given, the place where benchmarks looks for it. Elsewhere, name its bin/python with
            --python PEER=PATH.
        base: The Python that the environment is made from; unless given, this one or a python of the version needed.
    """
    (name,) = choose([peer], PEERS, "peer")
    chosen = PEERS[name]
    target = folder or prepared(chosen).parents[1]
    python = base or interpreter(chosen)
    if python is None:
        fail(f"{name} needs Python {chosen.python}; none was found: give --base PATH of one")
    commands: list[list[str]] = [
        [str(python), "-m", "venv", str(target)],
        [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", *chosen.install],
    ]
    for command in commands:
        print("+ " + " ".join(command))
        if subprocess.run(command).returncode:
            fail(f"{name}: {command[0]} failed; its own words are above")
    print(f"{target / 'bin' / 'python'}")


def interpreter(peer: Peer) -> str | None:
    """A Python of the version that a peer needs: on the path, or where pyenv keeps them."""
    if peer.python is None:
        return sys.executable
    found = shutil.which(f"python{peer.python}")
    # A version manager's name for it may be there and not run.
    if found is not None and subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
        return found
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{peer.python}.*/bin/python"))
    return str(kept[-1]) if kept else None


def main() -> None:
    """Run the command line."""
    try:
        tyro.cli(environment, prog="benchmarks.environments", config=(tyro.conf.DisallowNone,))
    except UnknownNameError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
