import io
import pickle
import struct
import zipfile

import laspy
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laspy.vlrs.vlrlist import VLRList

from perceiver.errors import InputError
from perceiver.io import Cloud, read_points

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def las_bytes(points, *, claimed=None, scale=0.01, version=2, extra_bytes=0, start=227):
    """A LAS file by hand, version 1.`version`, point format 0: (X, Y, Z, intensity, flags, class) a point."""
    record = b"".join(
        struct.pack("<iiiHBBbBH", x, y, z, intensity, flags, kind, 0, 0, 0) + bytes(extra_bytes)
        for x, y, z, intensity, flags, kind in points
    )
    claimed = len(points) if claimed is None else claimed
    head = b"LASF" + bytes(20) + struct.pack("<BB", 1, version) + bytes(64 + 4)
    head += struct.pack("<HIIBHI", 227, start, 0, 0, 20 + extra_bytes, claimed) + bytes(20)
    head += struct.pack("<6d", scale, 0.01, 0.01, 1000, 2000, 0) + bytes(48)
    assert len(head) == 227
    return head + record


POINTS = [(100, 200, -300, 7, 0b010_001, 2), (1, 2, 3, 65535, 0b011_010, 6)]


def laspy_file(path, count=500, form=3, version="1.2", compress=None):
    """Points written by laspy; returns what should be read."""
    header = laspy.LasHeader(point_format=form, version=version)
    header.scales, header.offsets = [0.001] * 3, [1e6, 0, 0]
    las = laspy.LasData(header)
    rng = np.random.default_rng(0)
    las.X, las.Y, las.Z = rng.integers(-100_000, 100_000, (3, count))
    las.intensity = rng.integers(0, 65536, count)
    las.return_number, las.number_of_returns = rng.integers(1, 4, (2, count))
    las.classification = rng.integers(0, 20, count)
    if form in (3, 7):
        las.red, las.green, las.blue = rng.integers(0, 65536, (3, count))
        las.gps_time = rng.uniform(0, 1e9, count)
    las.write(path, do_compress=compress)
    return las


def written(path, data):
    path.write_bytes(data)
    return path


def refused(path, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        read_points(path, **options)
    assert str(caught.value).startswith(str(path))


def finite_or_refused(path, **options):
    try:
        cloud = read_points(path, **options)
    except InputError as error:
        message = str(error)
    else:
        assert np.isfinite(cloud.xyz).all()
        return
    assert message.startswith(str(path))


def test_golden_las(tmp_path):
    cloud = read_points(written(tmp_path / "a.las", las_bytes(POINTS)))
    assert cloud.xyz.dtype == np.float64
    assert np.allclose(cloud.xyz, [[1001, 2002, -3], [1000.01, 2000.02, 0.03]], rtol=0, atol=1e-9)
    assert {name: values.tolist() for name, values in cloud.features.items()} == {
        "intensity": [7, 65535],
        "return_number": [1, 2],
        "number_of_returns": [2, 3],
        "classification": [2, 6],
    }
    with_more = read_points(written(tmp_path / "b.las", las_bytes(POINTS, extra_bytes=5)))
    assert np.array_equal(with_more.xyz, cloud.xyz)
    # Bytes behind the points are allowed: some writers pad.
    assert len(read_points(written(tmp_path / "c.LAS", las_bytes(POINTS) + b"padding")).xyz) == 2


@pytest.mark.parametrize(("form", "version"), [(0, "1.2"), (3, "1.2"), (3, "1.3"), (6, "1.4"), (7, "1.4")])
@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_laspy_files(tmp_path, form, version, suffix):
    path = tmp_path / f"a.{suffix}"
    las = laspy_file(path, form=form, version=version)
    cloud = read_points(path)
    assert np.allclose(cloud.xyz, las.xyz, rtol=0, atol=1e-9)
    names = {"intensity", "return_number", "number_of_returns", "classification"}
    names |= {"gps_time"} if form == 6 else {"gps_time", "red", "green", "blue"} if form else set()
    assert set(cloud.features) == names
    for name in names:
        assert np.array_equal(cloud.features[name], np.asarray(las[name]))


def test_content_decides_between_las_and_laz(tmp_path):
    las = laspy_file(tmp_path / "a.las", compress=True)
    assert np.allclose(read_points(tmp_path / "a.las").xyz, las.xyz, rtol=0, atol=1e-9)


def test_laz_of_several_chunks(tmp_path):
    las = laspy_file(tmp_path / "a.laz", count=120_001, form=6, version="1.4")
    assert np.allclose(read_points(tmp_path / "a.laz").xyz, las.xyz, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("form", "version"), [(3, "1.2"), (7, "1.4")])
@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_truncated_las_and_laz(tmp_path, form, version, suffix):
    path = tmp_path / f"a.{suffix}"
    laspy_file(path, form=form, version=version)
    data = path.read_bytes()
    for cut in [*range(1, len(data), len(data) // 40), *range(len(data) - 40, len(data))]:
        refused(written(path, data[:cut]), "expected")


def test_truncated_extended_records(tmp_path):
    path = tmp_path / "a.las"
    las = laspy_file(path, form=6, version="1.4")
    las.evlrs = VLRList([laspy.VLR("me", 1, "text", b"x" * 100)])
    las.write(path)
    data = path.read_bytes()
    assert len(read_points(path).xyz) == 500
    for cut in (len(data) - 1, len(data) - 100, len(data) - 160):
        refused(written(path, data[:cut]), "extended records")
    claims = bytearray(data)
    struct.pack_into("<I", claims, 243, 2**32 - 1)
    refused(written(path, claims), "extended records")


def test_lying_las_headers(tmp_path):
    path = tmp_path / "a.las"
    refused(written(path, las_bytes(POINTS, claimed=3)), "3 points of 20 bytes .* got 40 bytes")
    refused(written(path, las_bytes(POINTS, claimed=2**32 - 1)), "at most")
    refused(written(path, las_bytes(POINTS, claimed=40_000_000)), "truncated")
    refused(written(path, las_bytes(POINTS, start=2**32 - 1)), "points at byte 4294967295 of 267")
    refused(written(path, las_bytes(POINTS, start=0)), "points at byte 0")
    refused(written(path, las_bytes(POINTS, version=9)), "version 1.0 to 1.4, got 1.9")
    for scale in (0, np.nan, np.inf):
        refused(written(path, las_bytes(POINTS, scale=scale)), "scales")
    refused(written(path, las_bytes(POINTS, scale=1e308)), "1 of 2 points .* first at 0")
    refused(written(path, las_bytes([])), "at least one point")
    records = bytearray(las_bytes(POINTS))
    struct.pack_into("<I", records, 100, 2**32 - 1)
    refused(written(path, records), "4294967295 records")
    assert len(read_points(written(path, las_bytes(POINTS)), max_points=2).xyz) == 2
    refused(path, "at most 1 points, got 2", max_points=1)


def test_lying_laz_headers(tmp_path):
    path = tmp_path / "a.laz"
    laspy_file(path, form=7, version="1.4")
    data = path.read_bytes()
    start = struct.unpack_from("<I", data, 96)[0]
    table = struct.unpack_from("<q", data, start)[0]
    record = data.index(b"laszip encoded") - 2 + 54
    layers = start + 8 + 36 + 4
    lies = [
        ("<Q", 247, 40_000_000, "chunks"),  # points in the LAS header
        ("<Q", 247, 499, "500 in 1 chunks"),
        ("<I", record + 12, 0, "chunks of 0 points"),
        ("<H", record + 32, 65535, "items"),
        ("<H", record + 36, 65535, "points of 36 bytes"),  # size of the first item
        ("<q", start, 2**62, "table of chunks"),
        ("<q", start, -2, "table of chunks"),
        ("<I", table + 4, 2**32 - 1, "chunks"),  # lazrs alone ends the process here
        ("<I", table + 4, 0, "chunks"),
        ("<I", layers, 2**32 - 1, "layers"),  # and here it clears 4 GiB
    ]
    for form, at, value, match in lies:
        lie = bytearray(data)
        struct.pack_into(form, lie, at, value)
        refused(written(path, lie), match)


def test_kitti(tmp_path):
    path = written(tmp_path / "000000.bin", struct.pack("<8f", 1, 2, 3, 0.5, -4, -5, -6, 0.25))
    cloud = read_points(path)
    assert cloud.xyz.tolist() == [[1, 2, 3], [-4, -5, -6]]
    assert cloud.features["intensity"].tolist() == [0.5, 0.25]
    assert set(cloud.features) == {"intensity"}


def test_nuscenes(tmp_path):
    path = written(tmp_path / "sweep.pcd.bin", struct.pack("<10f", 1, 2, 3, 40, 31, -4, -5, -6, 0, 0))
    cloud = read_points(str(path))
    assert cloud.xyz.tolist() == [[1, 2, 3], [-4, -5, -6]]
    assert {name: values.tolist() for name, values in cloud.features.items()} == {
        "intensity": [40, 0],
        "ring": [31, 0],
    }


@pytest.mark.parametrize(("name", "size"), [("a.bin", 16), ("a.pcd.bin", 20)])
def test_missized_records(tmp_path, name, size):
    for cut in (1, size - 1, size + 4, 3 * size - 1):
        refused(written(tmp_path / name, bytes(cut)), f"records of {size} bytes")
    refused(written(tmp_path / name, bytes(3 * size)), "at most 2 points, got 3", max_points=2)
    refused(written(tmp_path / name, b""), "empty")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_coordinates(tmp_path, value):
    records = np.arange(20, dtype="<f4").reshape(5, 4)
    records[2, 1] = records[4, 0] = value
    records[0, 3] = np.nan  # a feature: not looked at
    path = written(tmp_path / "a.bin", records.tobytes())
    refused(path, "2 of 5 points with NaN or infinity, first at 2")
    cloud = read_points(path, drop_nonfinite=True)
    assert cloud.xyz.tolist() == records[[0, 1, 3], :3].tolist()
    assert cloud.features["intensity"][1:].tolist() == [7, 15]
    records[:, 0] = value
    refused(written(path, records.tobytes()), "at least one point with finite", drop_nonfinite=True)


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    xyz = np.arange(12).reshape(4, 3)
    others = {"label": np.arange(4, dtype=np.uint8), "pose": np.eye(4), "name": np.array(["a"] * 4), "k": np.float64(1)}
    for save in (np.savez, np.savez_compressed):
        save(path, xyz=np.asfortranarray(xyz, np.float32), **others)
        cloud = read_points(path)
        assert cloud.xyz.dtype == np.float64
        assert cloud.xyz.tolist() == xyz.tolist()
        assert {name: values.dtype.str for name, values in cloud.features.items()} == {"label": "|u1"}
    np.savez(path, x=xyz[:, 0], y=xyz[:, 1], z=xyz[:, 2], intensity=xyz[:, 0] / 2)
    assert read_points(path).xyz.tolist() == xyz.tolist()
    assert read_points(path).features["intensity"].tolist() == [0, 1.5, 3, 4.5]


def test_npz_refusals(tmp_path):
    path = tmp_path / "a.npz"
    for arrays, match in [
        ({"x": np.zeros(3), "y": np.zeros(3)}, "xyz, or x, y and z"),
        ({"x": np.zeros(3), "y": np.zeros(3), "z": np.zeros(4)}, "shape"),
        ({"xyz": np.zeros((3, 4))}, "shape"),
        ({"xyz": np.float64(3)}, "shape"),
        ({"xyz": np.zeros((0, 3))}, "at least one point"),
        ({"xyz": np.zeros((3, 3), complex)}, "numeric"),
        ({"xyz": np.full((2, 3), np.nan)}, "2 of 2"),
        ({"xyz": np.zeros((11, 3))}, "at most 10"),
    ]:
        np.savez(path, **arrays)
        refused(path, match, max_points=10)


def test_npz_is_never_unpickled(tmp_path):
    path = tmp_path / "a.npz"
    for name in ("xyz", "label"):
        arrays = {"xyz": np.zeros((2, 3)), name: np.array([Bomb(), Bomb()], dtype=object)}
        np.savez(path, allow_pickle=True, **arrays)
        refused(path, "not unpickled")
    refused(written(path, pickle.dumps(Bomb())), "expected")


def npz_claiming(path, shape, data=b""):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xyz.npy", header.getvalue() + data)


def test_lying_npz_headers(tmp_path):
    path = tmp_path / "a.npz"
    for shape in [(3, 3), (2**40, 3), (2**62, 3), (-1, 3), (0, 3)]:
        npz_claiming(path, shape, bytes(24))
        refused(path, "expected .* bytes from the header")
    npz_claiming(path, (1_000_000, 3), bytes(24_000_000))  # 24 kB in the file
    refused(path, "at most 1000 points, got 1000000", max_points=1000)


def test_truncated_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, xyz=np.random.default_rng(0).normal(size=(50, 3)), label=np.arange(50))
    data = path.read_bytes()
    for cut in [*range(1, len(data), len(data) // 40), len(data) - 1]:
        refused(written(path, data[:cut]), "expected")


def test_what_is_no_cloud(tmp_path):
    refused(tmp_path / "none.las", "no such file")
    refused(written(tmp_path / "a.xyz", b"1 2 3"), r"one of \.las, .* \.pcd\.bin, \.npz, \.pcd, \.ply, got 'a.xyz'")
    refused(written(tmp_path / "las", b"1 2 3"), "one of")
    for name in ("b.las", "b.laz", "b.npz", "b.bin", "b.pcd.bin"):
        refused(written(tmp_path / name, b"just some text"), "expected")
        refused(written(tmp_path / name, b""), "empty")
    (tmp_path / "folder.laz").mkdir()
    refused(tmp_path / "folder.laz", "directory")


@FUZZ
@given(name=st.sampled_from(["a.las", "a.laz", "a.npz", "a.bin", "a.pcd.bin"]),
       head=st.sampled_from([b"", b"LASF", las_bytes([]), b"PK\3\4", b"PK\5\6"]),
       tail=st.binary(max_size=400))  # fmt: skip
def test_random_bytes(tmp_path, name, head, tail):
    finite_or_refused(written(tmp_path / name, head + tail), drop_nonfinite=bool(len(tail) % 2))


@FUZZ
@given(
    at=st.integers(0, 100_000), value=st.integers(0, 255), name=st.sampled_from(["6.las", "3.laz", "6.laz", "a.npz"])
)
def test_changed_bytes(tmp_path, at, value, name):
    path = tmp_path / name
    if name == "a.npz":
        np.savez(path, xyz=np.ones((20, 3)), label=np.arange(20))
    else:
        laspy_file(path, count=20, form=int(name[0]), version="1.4" if name[0] == "6" else "1.2")
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    finite_or_refused(written(path, data), max_points=100_000)


def test_cloud_checks_its_shapes():
    for xyz in (np.zeros((2, 3), np.float32), np.zeros((2, 4)), np.zeros(3)):
        with pytest.raises(InputError, match="xyz"):
            Cloud(xyz, {})
    with pytest.raises(InputError, match="ring"):
        Cloud(np.zeros((2, 3)), {"ring": np.zeros(3)})
