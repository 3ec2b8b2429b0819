"""Compiled programs kept on disk, so that a second start of the same run need not compile again."""

import os
from pathlib import Path

import jax

from perceiver.errors import InputError

VARIABLE = "PERCEIVER_COMPILATION_CACHE"
OFF = ("off", "0", "no", "false")
LARGEST = 4 * 2**30
"""Bytes of programs that are kept; those not used for longest go first."""
SHORTEST = 0.1
"""Seconds of compilation below which a program is not worth a file."""


def keep_programs() -> Path | None:
    """Turn JAX's persistent compilation cache on and say where it is; None where it stays off.

    The folder is the environment variable PERCEIVER_COMPILATION_CACHE ("off" for none), else
    $XDG_CACHE_HOME/perceiver/programs, or ~/.cache/perceiver/programs. A folder that is set for JAX itself
    (JAX_COMPILATION_CACHE_DIR) is left as it is. The command line calls this; importing the package never does.

    Raises:
        InputError: the folder cannot be made.
    """
    own = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if own is not None:
        return Path(own)
    asked = os.environ.get(VARIABLE, "").strip()
    if asked.lower() in OFF:
        return None
    folder = Path(asked).expanduser() if asked else _default()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if not asked:  # a home that cannot be written to is no reason not to train
            return None
        raise InputError(f"{VARIABLE}={asked}: expected a folder for compiled programs: {error.strerror}") from None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", LARGEST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder


def _default() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perceiver" / "programs"
