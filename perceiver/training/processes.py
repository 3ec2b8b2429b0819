"""Several processes that train one model, on one machine or many: which of them this one is, and how they meet.

Looked for in this order: flags, the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, those of
SkyPilot, those of Open MPI, and what JAX itself knows of (SLURM, Kubernetes, Cloud TPU). Otherwise there is one.

All of them compute the same, validation and report included, so that none waits long for another; the first one writes.
"""

import dataclasses
import importlib.util
from collections.abc import Mapping

import jax

from perceiver.errors import ConfigError

PORT = 41_211
"""Where process 0 listens, unless the address says."""
HEARTBEAT = 10
"""Seconds without a sign of life behind which a process counts as dead, and all others end."""
START = 300
"""Seconds that processes wait for each other at the start."""


@dataclasses.dataclass(frozen=True)
class Process:
    """One of several. coordinator: host:port of process 0. count: how many there are. number: which one this is.

    Any may be None where JAX finds it out.
    """

    coordinator: str | None = None
    count: int | None = None
    number: int | None = None


def found(
    variables: Mapping[str, str],
    coordinator: str | None = None,
    count: int | None = None,
    number: int | None = None,
) -> Process | None:
    """Which process this is, by flags and environment variables; None where it is the only one.

    Raises:
        ConfigError: some are given, but not all that are needed, or they make no sense; says which.
    """
    if coordinator is not None or count is not None or number is not None:
        return _checked(coordinator, count, number, "--coordinator, --processes and --process")
    if "JAX_NUM_PROCESSES" in variables or "JAX_PROCESS_ID" in variables:
        return _checked(
            variables.get("JAX_COORDINATOR_ADDRESS"),
            _number(variables, "JAX_NUM_PROCESSES"),
            _number(variables, "JAX_PROCESS_ID"),
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
        )
    if _number(variables, "SKYPILOT_NUM_NODES", 1) > 1:
        addresses = variables.get("SKYPILOT_NODE_IPS", "").split()
        return _checked(
            addresses[0] if addresses else None,
            _number(variables, "SKYPILOT_NUM_NODES"),
            _number(variables, "SKYPILOT_NODE_RANK"),
            "SKYPILOT_NODE_IPS, SKYPILOT_NUM_NODES and SKYPILOT_NODE_RANK",
        )
    if _number(variables, "OMPI_COMM_WORLD_SIZE", 1) > 1 and "OMPI_MCA_orte_hnp_uri" not in variables:
        return _checked(  # Open MPI 5 no longer says where its first process is
            variables.get("JAX_COORDINATOR_ADDRESS"),
            _number(variables, "OMPI_COMM_WORLD_SIZE"),
            _number(variables, "OMPI_COMM_WORLD_RANK"),
            "JAX_COORDINATOR_ADDRESS (mpirun -x JAX_COORDINATOR_ADDRESS=host:port), beside Open MPI's own variables",
        )
    return Process() if _known_to_jax(variables) else None


def _known_to_jax(variables: Mapping[str, str]) -> bool:
    """Whether a launcher that JAX reads itself started more than one process."""
    return (
        (_number(variables, "SLURM_NTASKS", 1) > 1 and "SLURM_STEP_NODELIST" in variables)
        or _number(variables, "OMPI_COMM_WORLD_SIZE", 1) > 1
        or ("JOB_COMPLETION_INDEX" in variables and importlib.util.find_spec("kubernetes") is not None)
        or "," in variables.get("TPU_WORKER_HOSTNAMES", "")
    )


def _checked(coordinator: str | None, count: int | None, number: int | None, names: str) -> Process | None:
    if count == 1 and number in (0, None):
        return None
    if coordinator is None or count is None or number is None or count < 1:
        raise ConfigError(f"several processes need all of {names}; got {coordinator}, {count} and {number}")
    if not 0 <= number < count:
        raise ConfigError(f"{names}: expected a process from 0 to {count - 1}, got {number}")
    return Process(coordinator if ":" in coordinator else f"{coordinator}:{PORT}", count, number)


def _number(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = variables.get(name)
    if text is None:
        if default is None:
            raise ConfigError(f"several processes need the variable {name}")
        return default
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"the variable {name}: expected a number, got {text!r}") from None


def join(process: Process | None) -> None:
    """Meet the others; before anything is computed. Nothing happens where that was done, as by Ray Train.

    When one of them dies, the others end within twice HEARTBEAT, with an exit code that is not 0.
    """
    if process is None or jax.distributed.is_initialized():
        return
    jax.distributed.initialize(
        process.coordinator,
        process.count,
        process.number,
        initialization_timeout=START,
        heartbeat_timeout_seconds=HEARTBEAT,
    )


def first() -> bool:
    """Whether this is the process that writes: logs, the model, the report."""
    return jax.process_index() == 0


def meet(place: str) -> None:
    """Wait until all processes are at this place of the program."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(place)
