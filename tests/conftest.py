"""Shared by all tests: one compilation cache, small helpers for models of every modality."""

import os
from pathlib import Path

import jax
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_configure(config: pytest.Config) -> None:
    """Share compiled programs between tests and runs: compiling is most of what small tests do."""
    cache = Path(os.environ.get("PERCEIVER_TEST_CACHE", Path(__file__).parent.parent / ".jax_cache"))
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
