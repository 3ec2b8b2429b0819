"""Shared by all tests: one compilation cache, small helpers for models of every modality."""

import os
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import pytest

from perceiver.model import ModelConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of what small tests do is compile: without LLVM's optimiser, which they do not need, and in one piece.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
# The older emitters of loops take half the time; later releases have no others.
if jaxlib.version.__version_info__ < (0, 11):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)


def pytest_configure(config: pytest.Config) -> None:
    """Share compiled programs between tests and runs: compiling is most of what small tests do."""
    cache = Path(os.environ.get("PERCEIVER_TEST_CACHE", Path(__file__).parent.parent / ".jax_cache"))
    jax.config.update("jax_compilation_cache_dir", str(cache))
    os.environ.setdefault("PERCEIVER_COMPILATION_CACHE", str(cache / "commands"))  # of those that tests start
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    ModelConfig.build = _built


def _built(self: ModelConfig, seed: int = 0) -> Any:
    """As `ModelConfig.build`, one operation after the other: all models share these small programs, while one program
    for each model's parameters would take half of the time of all tests. What tests start builds as users do.
    """
    return self.stored(jax.random.key(seed))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real datasets; tests that need one are skipped where there is none."""
    project = Path(__file__).parent.parent
    places = [project / "data" / "files", *sorted(project.parent.glob("*/data"))]
    if os.environ.get("PERCEIVER_DATA"):
        places.insert(0, Path(os.environ["PERCEIVER_DATA"]))
    found = next((place for place in places if (place / "fsdd").is_dir()), None)
    if found is None:
        pytest.skip("needs the real datasets: name their folder with PERCEIVER_DATA (data/root.py says how)")
    return found


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    """Forget compiled programs when there are many: each keeps some memory maps, of which a process may have 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if maps.is_file() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
