"""Which process this is, by how it was started; and two that train together."""

import numpy as np
import pytest

from perceiver import ConfigError
from perceiver.training.metrics import read_log
from perceiver.training.processes import PORT, Process, found
from tests.faults.processes import end, said, start
from tests.faults.rounds import free_port

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "node1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, None),  # JAX asks for a package
        (SLURM, Process()),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3"}, Process()),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, Process()),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"} | SLURM,
            Process("a:1", 4, 3),
        ),
        (
            {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"},
            Process(f"10.0.0.1:{PORT}", 2, 1),
        ),
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "JAX_COORDINATOR_ADDRESS": "a"},
            Process(f"a:{PORT}", 2, 1),
        ),
    ],
)
def test_a_process_is_known_by_the_variables_of_what_started_it(variables, expected):
    assert found(variables) == expected


def test_flags_go_before_variables():
    assert found(SLURM, "a:1", 2, 0) == Process("a:1", 2, 0)
    assert found(SLURM, None, 1, None) is None


@pytest.mark.parametrize(
    ("variables", "flags", "message"),
    [
        ({}, ("a:1", 2, None), "need all of --coordinator, --processes and --process; got a:1, 2 and None"),
        ({}, ("a:1", 2, 2), "expected a process from 0 to 1, got 2"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, (), "need all of JAX_COORDINATOR_ADDRESS"),
        ({"JAX_NUM_PROCESSES": "2"}, (), "need the variable JAX_PROCESS_ID"),
        ({"JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, (), "JAX_NUM_PROCESSES: expected a number, got 'two'"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, (), "mpirun -x JAX_COORDINATOR_ADDRESS"),
        ({"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "0"}, (), "SKYPILOT_NODE_IPS"),
    ],
)
def test_what_is_missing_is_named(variables, flags, message):
    with pytest.raises(ConfigError, match=message):
        found(variables, *flags)


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_it_goes_on_alone(tmp_path):
    words = {"steps": 8, "checkpoint_every": 2}
    assert end(start(tmp_path / "one", words)) == 0, said(tmp_path / "one")
    port = free_port()
    for stop in (4, 8):  # in two sessions
        shared = words | {"coordinator": f"127.0.0.1:{port}", "processes": 2, "stop_at": stop}
        pair = [start(tmp_path / "two", shared | {"process": number}) for number in range(2)]
        assert [end(process) for process in pair] == [0, 0], said(tmp_path / "two")
    logs = [[line for line in read_log(tmp_path / name) if line["group"] == "train"] for name in ("one", "two")]
    # the first session of the two reports its steps apart
    np.testing.assert_allclose(np.mean([line["loss"] for line in logs[1]]), logs[0][0]["loss"], atol=1e-5)

    # from two processes to one
    shared = words | {"coordinator": f"127.0.0.1:{port}", "processes": 2, "stop_at": 4}
    pair = [start(tmp_path / "three", shared | {"process": number}) for number in range(2)]
    assert [end(process) for process in pair] == [0, 0], said(tmp_path / "three")
    assert end(start(tmp_path / "three", words)) == 0, said(tmp_path / "three")
    assert "goes on after step 4 of 8" in said(tmp_path / "three")


@pytest.mark.slow
def test_two_processes_meet_by_the_variables_of_slurm(tmp_path):
    port = free_port()
    job = port - 61_440 if port >= 61_440 else 11  # JAX takes its port from the job's number
    slurm = SLURM | {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "localhost"}
    words = {"steps": 4, "checkpoint_every": 4}
    pair = [start(tmp_path / "slurm", words, variables=slurm | {"SLURM_PROCID": str(n)}) for n in range(2)]
    assert [end(process) for process in pair] == [0, 0], said(tmp_path / "slurm")
    assert (tmp_path / "slurm" / "report.json").is_file()
    assert (tmp_path / "slurm" / "processes" / "1" / "metrics.jsonl").is_file()
