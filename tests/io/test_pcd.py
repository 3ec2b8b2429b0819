import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver.errors import InputError
from perceiver.io import read_points
from perceiver.io.pcd import decompress_lzf
from tests.io.test_points import FUZZ, finite_or_refused, refused, written
from tests.models import CARRIED

ENCODINGS = ("ascii", "binary", "binary_compressed")

# One field of every type, x, y and z among them, a field of three numbers, and padding in between.
FIELDS = [
    ("x", "F", 4, 1), ("_", "U", 1, 3), ("y", "F", 8, 1), ("z", "I", 2, 1), ("a", "I", 1, 1), ("b", "I", 4, 1),
    ("c", "I", 8, 1), ("d", "U", 1, 1), ("e", "U", 2, 1), ("f", "U", 4, 1), ("g", "U", 8, 1), ("h", "F", 4, 3),
]  # fmt: skip
POINTS = [
    [1.5, 7, 7, 7, 0.1, -300, -128, -(2**31), -(2**63), 255, 65535, 2**32 - 1, 2**64 - 1, 0.25, -0.5, 1e-20],
    [-2.25, 0, 0, 0, 1e-9, 32767, 127, 2**31 - 1, 2**63 - 1, 0, 0, 0, 2**53 + 1, 3, np.nan, np.inf],
    [0, 1, 2, 3, -4.0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
]


def header(fields, points, data, **changes):
    """The header's text; `changes` replaces the values of entries, None leaves one out."""
    names, kinds, sizes, counts = zip(*fields, strict=True)
    entries = {
        "VERSION": "0.7", "FIELDS": names, "SIZE": sizes, "TYPE": kinds, "COUNT": counts, "WIDTH": points,
        "HEIGHT": 1, "VIEWPOINT": "0 0 0 1 0 0 0", "POINTS": points, "DATA": data,
    } | changes  # fmt: skip
    lines = ["# .PCD v0.7 - Point Cloud Data file format"]
    for key, value in entries.items():
        if value is not None:
            lines.append(f"{key} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
    return ("\n".join(lines) + "\n").encode()


def literals(data):
    """LZF without repeats."""
    return b"".join(bytes([len(data[k : k + 32]) - 1]) + data[k : k + 32] for k in range(0, len(data), 32))


def pcd(encoding, fields=FIELDS, points=POINTS, compress=literals, **changes):
    """A PCD file by hand."""
    dtype = [(str(k), f"<{kind.lower()}{size}", (count,)) for k, (_, kind, size, count) in enumerate(fields)]
    records = np.zeros(len(points), dtype)
    for row, point in enumerate(points):
        rest = iter(point)
        for k, (_, _, _, count) in enumerate(fields):
            records[str(k)][row] = [next(rest) for _ in range(count)]
    if encoding == "ascii":
        body = "".join(" ".join(map(str, point)) + "\n" for point in points).encode()
    elif encoding == "binary":
        body = records.tobytes()
    else:
        plain = b"".join(records[str(k)].tobytes() for k in range(len(fields)))
        body = struct.pack("<II", len(compress(plain)), len(plain)) + compress(plain)
    return header(fields, len(points), encoding, **changes) + body


XYZ = [(name, "F", 4, 1) for name in "xyz"]
SMALL = [[1.25, -2, 3], [0, 0.5, 1000]]


def test_golden_fields_of_every_type(tmp_path):
    expected = {
        name: np.array([point[3 + at] for point in POINTS], f"{kind.lower()}{size}")
        for name, kind, size, at in [
            ("a", "I", 1, 3), ("b", "I", 4, 4), ("c", "I", 8, 5), ("d", "U", 1, 6), ("e", "U", 2, 7), ("f", "U", 4, 8),
            ("g", "U", 8, 9), ("h_0", "F", 4, 10), ("h_1", "F", 4, 11), ("h_2", "F", 4, 12),
        ]
    }  # fmt: skip
    for encoding in ENCODINGS:
        cloud = read_points(written(tmp_path / "a.pcd", pcd(encoding)))
        assert cloud.xyz.tolist() == [[1.5, 0.1, -300], [-2.25, 1e-9, 32767], [0, -4, 0]]
        assert list(cloud.features) == list(expected)
        for name, values in expected.items():
            assert cloud.features[name].dtype == values.dtype
            assert cloud.features[name].tobytes() == values.tobytes()


@pytest.mark.parametrize("name", ["ascii", "binary", "compressed", "tensor_compressed"])
def test_golden_files_of_open3d(name):
    cloud = read_points(CARRIED / "points" / f"{name}.pcd")
    more = ["time", "label", "intensity"] if name.startswith("tensor") else []
    assert list(cloud.features) == ["normal_x", "normal_y", "normal_z", "rgb", *more]
    with np.load(CARRIED / "points" / "expected.npz") as expected:
        assert np.array_equal(cloud.xyz, expected["xyz"])
        normals = np.stack([cloud.features[f"normal_{axis}"] for axis in "xyz"], axis=1)
        assert normals.dtype == (np.float64 if more else np.float32)
        # Open3D writes 10 digits, enough for float32.
        assert np.array_equal(normals.astype(np.float32), expected["normals"])
        rgb = cloud.features["rgb"]
        assert rgb.dtype == np.uint32
        assert np.array_equal(np.stack([rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255], axis=1), expected["colours"])
        for key in more:
            assert cloud.features[key].dtype == expected[key].dtype
            assert np.array_equal(cloud.features[key], expected[key])


def test_packed_colours_stay_as_they_are(tmp_path):
    bits = np.array([0x00102030, 0x00FFFFFF, 0], np.uint32)  # the second and third bytes of a NaN
    colours = bits.view(np.float32)
    fields = [*XYZ, ("rgb", "F", 4, 1)]
    for encoding in ENCODINGS:
        points = [[0, 0, 0, colour] for colour in colours]
        rgb = read_points(written(tmp_path / "a.pcd", pcd(encoding, fields, points))).features["rgb"]
        assert rgb.dtype == np.float32
        assert rgb.view(np.uint32).tolist() == bits.tolist()


def test_layout_of_the_text(tmp_path):
    text = pcd("ascii", XYZ, SMALL)
    expected = read_points(written(tmp_path / "a.pcd", text)).xyz
    assert expected.tolist() == SMALL
    for same in (
        text.replace(b"\n", b"\r\n"),
        text.replace(b"\n", b"\n\n"),
        text.replace(b" ", b" \t "),
        text.replace(b"# .PCD", b"# \xc3\xa9\xff"),
        text + b"\0\0 \r\n",
    ):
        assert np.array_equal(read_points(written(tmp_path / "b.PCD", same)).xyz, expected)
    # A carriage return that ends the header's last line does not belong to the data.
    binary = pcd("binary", XYZ, SMALL).replace(b"DATA binary\n", b"DATA binary\r\n")
    assert np.array_equal(read_points(written(tmp_path / "c.pcd", binary)).xyz, expected)


def test_text_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("perceiver.io.points_text._BLOCK_NUMBERS", 7)  # two lines
    points = [[k, k / 8, -k] for k in range(9)]
    text = pcd("ascii", XYZ, points)
    assert read_points(written(tmp_path / "a.pcd", text)).xyz.tolist() == points
    refused(written(tmp_path / "a.pcd", text.replace(b"5 0.625 -5", b"\n")), "9 lines of points, each ended, got 8")
    refused(written(tmp_path / "a.pcd", text.replace(b"5 0.625 -5", b"5 0.625")), "point 5: expected 3 numbers")


def test_older_headers(tmp_path):
    body = b"1 2 3\n4 5 6\n"
    for text in (
        b"# .PCD v.6\nVERSION .6\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 2\nHEIGHT 1\nDATA ascii\n",
        b"VERSION 0.5\nCOLUMNS x y z\nPOINTS 2\nDATA ascii\n",
        b"FIELDS x y z\nWIDTH 2\nDATA ascii\n",
    ):
        assert read_points(written(tmp_path / "a.pcd", text + body)).xyz.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_organised_clouds_and_their_holes(tmp_path):
    points = [[1, 2, 3], [np.nan] * 3, [4, 5, 6], [7, 8, 9]]
    path = written(tmp_path / "a.pcd", pcd("binary", XYZ, points, WIDTH=2, HEIGHT=2))
    refused(path, "1 of 4 points with NaN")
    assert read_points(path, drop_nonfinite=True).xyz.tolist() == [points[0], *points[2:]]


def test_the_suffix_of_nuscenes_keeps_its_reader(tmp_path):
    path = written(tmp_path / "sweep.pcd.bin", struct.pack("<5f", 1, 2, 3, 40, 31))
    assert set(read_points(path).features) == {"intensity", "ring"}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"VERSION": "0.8"}, r"VERSION: expected one of \.7, \.6, \.5, got '\.8'"),
        ({"FIELDS": None}, "no FIELDS"),
        ({"SIZE": None}, "no SIZE"),
        ({"TYPE": None}, "no TYPE"),
        ({"FIELDS": "x y"}, "SIZE: expected 2 values"),
        ({"FIELDS": "x y y"}, "x, y, z and other names, each once, got x, y, y: y twice"),
        ({"FIELDS": "x y w"}, "expected x, y, z and other names, each once, got x, y, w"),
        ({"FIELDS": "x y _"}, "got x, y"),
        ({"SIZE": "4 4"}, "SIZE: expected 3 values"),
        ({"SIZE": "4 4 2"}, "z: expected TYPE and SIZE from I1, .* got F and 2"),
        ({"SIZE": "4 4 -4"}, "got F and -4"),
        ({"TYPE": "F F X"}, "got X and 4"),
        ({"COUNT": "1 1 -1"}, "COUNT of z: expected a whole number .* got '-1'"),
        ({"COUNT": "1 1 0"}, "COUNT of z: expected 1 to 4096, got 0"),
        ({"COUNT": "1 1 2"}, "each once, got x, y, z_0, z_1"),
        ({"COUNT": "1 1 1000000000"}, "COUNT of z: expected 1 to 4096"),
        ({"COUNT": "4000 4000 4000"}, "at most 4096 numbers a point, got 12000"),
        ({"WIDTH": 3}, "WIDTH by HEIGHT to be POINTS"),
        ({"HEIGHT": 2}, "WIDTH by HEIGHT to be POINTS"),
        ({"WIDTH": None}, "expected WIDTH and HEIGHT, or POINTS"),
        ({"WIDTH": None, "HEIGHT": None, "POINTS": None}, "got none of them"),
        ({"POINTS": -2}, "POINTS: expected a whole number .* got '-2'"),
        ({"POINTS": "2 2"}, "POINTS: expected a whole number"),
        ({"POINTS": "2_0"}, "POINTS: expected a whole number"),
        ({"POINTS": "9" * 30}, "POINTS: expected a whole number"),
        ({"POINTS": "two"}, "POINTS: expected a whole number"),
        ({"WIDTH": 10**17, "POINTS": 10**17}, "at most 50000000 points"),
        (
            {"WIDTH": 40_000_000, "POINTS": 40_000_000},
            "40000000 (lines of 3 numbers|points of 12 bytes) in .* truncated|claims of 24 bytes",
        ),
        ({"WIDTH": 3, "POINTS": 3}, "expected"),
        ({"WIDTH": 1, "POINTS": 1}, "end of the file|of 24 bytes"),
        ({"DATA": "binary_zip"}, "DATA: expected one of ascii, binary, binary_compressed"),
        ({"DATA": ""}, "DATA: expected one of"),
    ],
)
def test_lying_headers(tmp_path, changes, match):
    for encoding in ENCODINGS:
        refused(written(tmp_path / "a.pcd", pcd(encoding, XYZ, SMALL, **changes)), match)


def test_headers_without_bounds(tmp_path):
    path = tmp_path / "a.pcd"
    refused(written(path, b"# " + b"x" * 100_000 + b"\n" + pcd("ascii", XYZ, SMALL)), "at most 8192 bytes")
    refused(written(path, b"#\n" * 2000 + pcd("ascii", XYZ, SMALL)), "at most 1000 lines")
    refused(written(path, b"HELLO 1\n" + pcd("ascii", XYZ, SMALL)), "a header of VERSION, .* got 'HELLO'")
    refused(written(path, b"VERSION 0.7\n" + pcd("ascii", XYZ, SMALL)), "each once, got 'VERSION' twice")
    refused(written(path, b"COLUMNS x y z\n" + pcd("ascii", XYZ, SMALL)), "each once, got 'FIELDS' twice")
    refused(written(path, b"just some text\n"), "'just'")
    refused(written(path, b"just some text"), "unended")
    refused(written(path, pcd("ascii", XYZ, [])), "at least one point")
    refused(written(path, pcd("binary", XYZ, [])), "at least one point")
    refused(written(path, pcd("binary_compressed", XYZ, [])), "at least one point")
    assert len(read_points(written(path, pcd("ascii", XYZ, SMALL)), max_points=2).xyz) == 2
    refused(path, "at most 1 points, got 2", max_points=1)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("1 2", "point 1: expected 4 numbers, got b'1 2"),
        ("1 2 3 4 5", "point 1: expected 4 numbers"),
        ("1 two 3 4", "expected y of type float32, got ValueError"),
        ("1 1_000 3 4", "expected y of type float32, got ValueError"),
        ("1 2 0x10 4", "expected z of type float32"),
        ("1 2 3 4.5", "expected ring of type uint8"),
        ("1 2 3 -1", "expected ring of type uint8, got OverflowError"),
        ("1 2 3 256", "expected ring of type uint8, got OverflowError"),
        ("1 2 3 nan", "expected ring of type uint8"),
        ("1 2 3 " + "9" * 5000, "expected ring of type uint8"),
        ("1 2 1e39 4", "1 of 3 points with NaN or infinity, first at 1"),
        ("1 2 3 \xff", "expected ring of type uint8"),
        ("", "3 lines of points, each ended, got 2"),
    ],
)
def test_words_that_are_no_numbers(tmp_path, line, match):
    text = header([*XYZ, ("ring", "U", 1, 1)], 3, "ascii") + f"10.5 20.5 30.5 4\n{line}\n5 6 7 8\n".encode("latin-1")
    refused(written(tmp_path / "a.pcd", text), match)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_truncated_at_every_byte(tmp_path, encoding):
    data = pcd(encoding, [*XYZ, ("h", "U", 2, 2)], [[1.25, 2, 3, 10, 11], [4, 5, 6.125, 12, 131]])
    whole = read_points(written(tmp_path / "a.pcd", data))
    for cut in range(1, len(data)):
        refused(written(tmp_path / "a.pcd", data[:cut]), "expected")
    assert whole.xyz.tolist() == [[1.25, 2, 3], [4, 5, 6.125]]
    assert whole.features["h_1"].tolist() == [11, 131]


def test_more_than_the_header_names(tmp_path):
    for encoding in ENCODINGS:
        data = pcd(encoding, XYZ, SMALL)
        refused(written(tmp_path / "a.pcd", data + b"1"), "end of the file")
        assert len(read_points(written(tmp_path / "a.pcd", data + bytes(5000))).xyz) == 2


def test_lzf():
    # By hand: 4 literals; 3 bytes from 4 back; 9 + 5 bytes from 1 back, which repeat themselves; 2 literals.
    data = bytes([3, *b"abcd", 1 << 5, 3, 7 << 5, 5, 0, 1, *b"xy"])
    assert decompress_lzf(data, 23) == b"abcdabc" + b"c" * 14 + b"xy"
    assert decompress_lzf(b"", 0) == b""
    # A period of 3 over 100 bytes, and a distance that needs the control byte's lower bits.
    assert decompress_lzf(bytes([2, *b"abc", 7 << 5, 100 - 3 - 9, 2]), 100) == (b"abc" * 34)[:100]
    far = bytes(range(256)) * 4
    packed = literals(far) + bytes([1 << 5 | 1000 >> 8, 1000 & 255])
    assert decompress_lzf(packed, 1027) == far + far[1024 - 1001 :][:3]


@pytest.mark.parametrize(
    ("data", "size", "match"),
    [
        (b"\3abc", 4, "got 0, then 3 of 4"),
        (b"\0a", 2, "expected 2 bytes, got 1"),
        (b"\1ab", 1, "expected 1 bytes in all, got 0, then 2"),
        (b"\0a\x20", 4, "expected a distance at byte 3, got the end of 3 bytes"),
        (b"\0a\xe0\5", 15, "expected a distance at byte 3, got the end of 4 bytes"),
        (b"\0a\xe0", 10, "expected a distance"),
        (b"\0a\x20\1", 4, "expected to repeat one of 1 bytes, got 2 back"),
        (b"\x20\0", 3, "expected to repeat one of 0 bytes, got 1 back"),
        (b"\0a\x20\0", 3, "expected 3 bytes in all, got 1, then 3"),
        (b"", 1, "expected 1 bytes, got 0"),
    ],
)
def test_damaged_lzf(data, size, match):
    with pytest.raises(InputError, match=match):
        decompress_lzf(data, size)


def compress_simply(data):
    """LZF with repeats wherever the last 3 bytes came before; at most 264 bytes at once."""
    out, start, at, seen = bytearray(), 0, 0, {}
    while at < len(data):
        back = at - seen.get(data[at : at + 3], at)
        seen[data[at : at + 3]] = at
        most = min(264, len(data) - at) if 0 < back <= 8192 else 0
        length = next((k for k in range(most) if data[at + k] != data[at + k - back]), most)
        if length < 3:
            at += 1
            continue
        out += literals(data[start:at])
        high = (back - 1) >> 8
        out += bytes([length - 2 << 5 | high]) if length < 9 else bytes([7 << 5 | high, length - 9])
        out.append((back - 1) & 255)
        at = start = at + length
    return bytes(out + literals(data[start:]))


@FUZZ
@given(st.lists(st.sampled_from([b"a", b"bc", b"abca", b"\0\0\0\0", b"\x00\x80\x3f", bytes(300)]), max_size=200))
def test_lzf_round_trip(pieces):
    data = b"".join(pieces)
    assert decompress_lzf(compress_simply(data), len(data)) == data


def test_compressed_columns(tmp_path):
    points = [[k % 5, k // 5, 0.5, *[k] * 3] for k in range(200)]
    data = pcd("binary_compressed", [*XYZ, ("k", "U", 2, 3)], points, compress=compress_simply)
    assert len(data) < 2500
    cloud = read_points(written(tmp_path / "a.pcd", data))
    assert cloud.xyz.tolist() == [point[:3] for point in points]
    assert cloud.features["k_2"].tolist() == list(range(200))


def test_lying_compressed_sizes(tmp_path):
    path, head = tmp_path / "a.pcd", header(XYZ, 2, "binary_compressed")
    body = literals(np.array(SMALL, "<f4").tobytes())
    for packed, plain, match in [
        (len(body) + 1, 24, "compressed data in 26 bytes"),
        (len(body) - 1, 24, "LZF: expected 24 bytes"),
        (len(body), 25, "expected 2 points of 24 bytes in all"),
        (len(body), 2**32 - 1, "claims of 4294967295 bytes from 25"),
        (2**32 - 1, 24, "truncated"),
        (0, 24, "at least a byte for 88"),
    ]:
        refused(written(path, head + struct.pack("<II", packed, plain) + body), match)
    # A claim that fits the points, from a few bytes that could not hold it.
    bomb = header(XYZ, 40_000_000, "binary_compressed") + struct.pack("<II", 1000, 480_000_000) + bytes(1000)
    refused(written(path, bomb), "claims of 480000000 bytes from 1000")


@FUZZ
@given(
    at=st.integers(0, 100_000),
    value=st.integers(0, 255),
    encoding=st.sampled_from(ENCODINGS),
    body=st.booleans(),
)
def test_changed_bytes(tmp_path, at, value, encoding, body):
    points = [[k, 1, 0.5, *[k % 7] * 3] for k in range(20)]
    data = bytearray(pcd(encoding, [*XYZ, ("k", "U", 2, 3)], points, compress=compress_simply))
    start = data.index(b"DATA") if body else 0
    data[start + at % (len(data) - start)] = value
    finite_or_refused(written(tmp_path / "a.pcd", data), max_points=100_000)


@FUZZ
@given(encoding=st.sampled_from(ENCODINGS), tail=st.binary(max_size=400), fields=st.sampled_from([FIELDS, XYZ, None]))
def test_random_bytes(tmp_path, encoding, tail, fields):
    head = header(fields, 2, encoding) if fields else b""
    finite_or_refused(written(tmp_path / "a.pcd", head + tail), drop_nonfinite=bool(len(tail) % 2))


@FUZZ
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "POINTS", "VERSION", "DATA"]),
            st.sampled_from(["x y z", "F F F", "4 4 4", "1 1 1", "1", "2", ".7", "-1", "ascii", "binary", "", "1e3"]),
        ),
        max_size=12,
    ),
    st.binary(max_size=60),
)
def test_random_headers(tmp_path, lines, tail):
    text = "".join(f"{key} {value}\n" for key, value in lines).encode()
    finite_or_refused(written(tmp_path / "a.pcd", b"#\n" + text + tail), drop_nonfinite=True)
