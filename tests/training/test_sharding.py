"""One experiment on several devices: where its arrays lie, and that its losses are those of one."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from perceiver import ConfigError
from perceiver.training.sharding import MeshShape, partition
from tests.started import on_eight_devices

MESH = AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))


def test_a_mesh_is_read_from_its_axes():
    assert MeshShape.parse("data=4,fsdp=2") == MeshShape(data=4, fsdp=2)
    assert MeshShape.parse(" tensor = 2 ") == MeshShape(tensor=2)
    assert MeshShape.parse("data=4,fsdp=2,tensor=3").devices == 24


@pytest.mark.parametrize("text", ["", "data", "data=", "data=x", "data=2,data=2", "rows=2", "data=-1", "data=2;fsdp=2"])
def test_what_is_no_mesh_is_refused(text):
    with pytest.raises(ConfigError, match="--mesh: expected each of data, fsdp, tensor, sequence"):
        MeshShape.parse(text)


def test_an_axis_of_nothing_and_a_wrong_number_of_devices_are_refused():
    with pytest.raises(ConfigError, match="at least 1 for fsdp, got 0"):
        MeshShape.parse("fsdp=0")
    with pytest.raises(ConfigError, match=r"data=2 x fsdp=3 x tensor=1 x sequence=1 takes 6 devices, there are \d"):
        MeshShape(data=2, fsdp=3).mesh(jax.devices())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), ()),
        ((100_000,), ()),  # a vector
        ((64, 128), ()),  # small
        ((128, 512), ("tensor", "fsdp")),
        ((512, 128), ("fsdp", "tensor")),
        ((256, 256), ("tensor", "fsdp")),
        ((6, 512, 128), (None, "fsdp", "tensor")),  # layers stay whole
        ((8, 6, 512, 128), (None, None, "fsdp", "tensor")),
        ((262, 1281), ("tensor", None)),  # 1281 is not a multiple of 4
        ((261, 1281), (None, None)),
    ],
)
def test_the_longer_axis_of_a_large_matrix_is_cut_over_fsdp_and_the_other_over_tensor(shape, expected):
    assert partition(shape, MESH) == PartitionSpec(*expected)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a process with eight devices found."""
    return on_eight_devices("tests.training.on_meshes", tmp_path_factory.mktemp("meshes"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data 2", "fsdp 8", "all"])
def test_losses_on_a_mesh_are_those_of_one_device(name, found):
    np.testing.assert_allclose(found[name]["losses"], found["one"]["losses"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[name]["answer"], found["one"]["answer"], rtol=0, atol=1e-4)
    assert found[name]["compilations"] == 1


@pytest.mark.slow
def test_large_arrays_are_cut_over_the_devices(found):
    assert [found[name]["share"] for name in ("one", "data 2", "fsdp 8", "all")] == [1.0, 1.0, 1 / 8, 1 / 4]


@pytest.mark.slow
def test_attention_over_parts_is_the_plain_one_gradients_and_masks_included(found):
    assert found["attention"]["backend"] == "PARTS"
    for case, errors in found["attention"]["errors"].items():
        assert max(errors) < 2e-6, case
    assert found["attention"]["dropped"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_a_run_whose_long_input_is_cut_has_the_losses_of_one_device(found):
    np.testing.assert_allclose(found["long"]["losses"], found["long on one"]["losses"], rtol=0, atol=1e-5)
    assert found["long on one"]["whole"] > 0
    assert found["long"]["whole"] == 0  # no device ever has all tokens


@pytest.mark.slow
def test_a_device_has_the_tokens_of_its_own_samples_only(found):
    assert found["samples"]["one"] > 0
    assert found["samples"]["fsdp 8"] == 0


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh(found):
    np.testing.assert_allclose(found["moved"]["losses"], found["one"]["losses"], rtol=0, atol=1e-5)
    assert (found["moved"]["step"], found["moved"]["share"]) == (4, 1 / 8)


@pytest.mark.slow
def test_a_mesh_that_does_not_fit_is_refused(found):
    assert "takes 3 devices, there are 8" in found["devices"]
    assert "a batch of 12 cannot be cut into 8 equal parts" in found["batch"]
