import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver.io import read_points
from tests.io.test_points import FUZZ, finite_or_refused, refused, written
from tests.models import CARRIED

FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
CODES = {
    "char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d",
    "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "float32": "f", "float64": "d",
}  # fmt: skip
LIMITS = {
    "b": (-128, 127), "B": (0, 255), "h": (-(2**15), 2**15 - 1), "H": (0, 2**16 - 1), "i": (-(2**31), 2**31 - 1),
    "I": (0, 2**32 - 1), "f": (np.nan, 0.25), "d": (-np.inf, 0.1),
}  # fmt: skip


def rows(form, kinds, points):
    """An element's body; a kind (counted, kind) is a list."""
    out = b""
    for point in points:
        words = []
        for kind, value in zip(kinds, point, strict=True):
            pairs = [(kind, value)]
            if isinstance(kind, tuple):
                pairs = [(kind[0], len(value)), *((kind[1], item) for item in value)]
            words += pairs
        if form == "ascii":
            out += " ".join(str(value) for _, value in words).encode() + b"\n"
        else:
            out += b"".join(struct.pack(FORMATS[form] + CODES[kind], value) for kind, value in words)
    return out


def ply(form, *elements, claimed=None):
    """A PLY file by hand from (name, {property: kind}, rows); `claimed` is the vertices' number in the header."""
    head, body = ["ply", f"format {form} 1.0", "comment by hand", "obj_info none"], b""
    for name, properties, points in elements:
        count = claimed if claimed is not None and name == "vertex" else len(points)
        head.append(f"element {name} {count}")
        for key, kind in properties.items():
            head.append(f"property {f'list {kind[0]} {kind[1]}' if isinstance(kind, tuple) else kind} {key}")
        body += rows(form, list(properties.values()), points)
    return ("\n".join([*head, "end_header"]) + "\n").encode() + body


XYZ = {"x": "float", "y": "float", "z": "float"}
SMALL = ("vertex", XYZ, [[1.25, -2, 3], [0, 0.5, 1000]])
FACES = ("face", {"vertex_indices": ("uchar", "int"), "flag": "uchar"}, [[[0, 1, 2], 7], [[], 8], [[3, 2, 1, 0], 9]])
EDGES = ("edge", {"a": "int", "b": "ushort"}, [[1, 2], [3, 4]])
STRIPS = ("strip", {"k": ("int", "double"), "l": ("short", "char")}, [[[0.5], [1, 2]]])


@pytest.mark.parametrize("form", FORMATS)
def test_golden_properties_of_every_type(tmp_path, form):
    properties = {"z": "double", "x": "short"} | {f"a_{kind}": kind for kind in CODES} | {"y": "float32"}
    points = [[0.1, -7, *(LIMITS[code][k] for code in CODES.values()), 1.5 + k] for k in range(2)]
    cloud = read_points(written(tmp_path / "a.ply", ply(form, ("vertex", properties, points))))
    assert cloud.xyz.tolist() == [[-7, 1.5, 0.1], [-7, 2.5, 0.1]]
    assert list(cloud.features) == [f"a_{kind}" for kind in CODES]
    for kind, code in CODES.items():
        values = cloud.features[f"a_{kind}"]
        assert values.dtype == np.dtype(code)
        assert values.dtype.isnative
        assert values.tobytes() == np.array(LIMITS[code], code).tobytes()


@pytest.mark.parametrize("name", ["ascii", "binary", "tensor_ascii", "tensor_binary"])
def test_golden_files_of_open3d(name):
    cloud = read_points(CARRIED / "points" / f"{name}.ply")
    more = ["intensity", "label", "time"] if name.startswith("tensor") else []
    digits = 5e-6 if "ascii" in name else 0  # Open3D writes 6 in ascii
    assert list(cloud.features) == ["nx", "ny", "nz", "red", "green", "blue", *more]
    with np.load(CARRIED / "points" / "expected.npz") as expected:
        assert np.array_equal(cloud.xyz, expected["xyz"])
        normals = np.stack([cloud.features[f"n{axis}"] for axis in "xyz"], axis=1)
        assert normals.dtype == (np.float32 if more else np.float64)
        assert np.allclose(normals, expected["normals"], rtol=digits, atol=0)
        colours = np.stack([cloud.features[key] for key in ("red", "green", "blue")], axis=1)
        assert colours.dtype == np.uint8
        assert np.array_equal(colours, expected["colours"])
        for key in more:
            assert cloud.features[key].dtype == expected[key].dtype
            assert np.allclose(cloud.features[key], expected[key], rtol=digits, atol=0)


@pytest.mark.parametrize("form", FORMATS)
def test_vertices_anywhere(tmp_path, form):
    for elements in [(SMALL,), (FACES, SMALL), (SMALL, FACES), (EDGES, STRIPS, SMALL, FACES), (FACES, SMALL, EDGES)]:
        cloud = read_points(written(tmp_path / "a.ply", ply(form, *elements)))
        assert cloud.xyz.tolist() == SMALL[2]
        assert cloud.features == {}
    # Elements without instances, and without properties, have no body.
    empty = [("face", FACES[1], []), ("nothing", {}, []), SMALL, ("edge", EDGES[1], [])]
    data = ply(form, *empty).replace(b"element nothing 0", b"element nothing 5")
    assert read_points(written(tmp_path / "a.ply", data)).xyz.tolist() == SMALL[2]


def test_layout_of_the_text(tmp_path):
    text = ply("ascii", FACES, SMALL, EDGES)
    for same in (
        text.replace(b"\n", b"\r\n"),
        text[: text.index(b"end_header")] + text[text.index(b"end_header") :].replace(b"\n", b"\n\n"),
        text.replace(b" ", b" \t "),
        text.replace(b"by hand", b"\xc3\xa9\xff"),
        text.replace(b"comment by hand\nobj_info none\n", b"comment\n\n"),
        text + b"\0\0 \r\n",
    ):
        assert read_points(written(tmp_path / "a.PLY", same)).xyz.tolist() == SMALL[2]
    binary = ply("binary_little_endian", SMALL).replace(b"end_header\n", b"end_header\r\n")
    assert read_points(written(tmp_path / "b.ply", binary)).xyz.tolist() == SMALL[2]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("ply", "plyy", "starts with a line ply, got 'plyy'"),
        ("1.0", "1.1", r"format \(ascii, .* got 'format .* 1.1'"),
        ("format ", "format binary_", "got 'format"),
        ("format", "comment", "got 'end_header'"),
        ("comment by hand", "format ascii 1.0", "got 'format"),
        ("comment by hand", "property float x", "got 'property float x'"),
        ("obj_info none", "hello", "got 'hello'"),
        ("obj_info none", "", ""),
        ("float y", "float x", "each once, got x, x, z: x twice"),
        ("float y", "float w", "x, y, z and other names, each once, got x, w, z"),
        ("float y", "half y", "of the types char, .* got 'half y'"),
        ("float y", "y", "got 'y'"),
        ("float y", "float y y", "got 'float y y'"),
        ("float y", "list uchar float y", "expected one number for each property of vertex, got lists: y"),
        ("float y", "list float float y", "INTEGER-TYPE TYPE NAME"),
        ("vertex 2", "vertex -2", "element vertex: expected a whole number .* got '-2'"),
        ("vertex 2", "vertex 2.0", "element vertex: expected a whole number"),
        ("vertex 2", "vertex", "got 'element vertex'"),
        ("vertex 2", "vertex " + "9" * 30, "element vertex: expected a whole number"),
        ("vertex 2", "vertices 2", "expected one element vertex, got 0 among 1"),
        ("vertex 2", "vertex 1", "end of the file"),
        ("vertex 2", "vertex 3", "truncated"),
        ("vertex 2", "vertex 40000000", "40000000 (lines of 3 numbers|points of 12 bytes) in .* truncated"),
        ("vertex 2", "vertex 1" + "0" * 17, "at most 50000000 points, got 1"),
        ("vertex 2", "vertex 0", "end of the file"),
    ],
)
def test_lying_headers(tmp_path, form, old, new, match):
    data = ply(form, SMALL).replace(old.encode(), new.encode(), 1)
    if match:
        refused(written(tmp_path / "a.ply", data), match)
    else:
        assert len(read_points(written(tmp_path / "a.ply", data)).xyz) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_lies_about_other_elements(tmp_path, form):
    path = tmp_path / "a.ply"
    for count in (10, 10**17):
        for elements in [(FACES, SMALL), (SMALL, FACES)]:
            data = ply(form, *elements).replace(b"element face 3", f"element face {count}".encode())
            refused(written(path, data), "expected")
        data = ply(form, EDGES, SMALL).replace(b"element edge 2", f"element edge {count}".encode())
        refused(written(path, data), "truncated")
    refused(written(path, ply(form, SMALL, SMALL)), "expected one element vertex, got 2 among 2")
    refused(written(path, ply(form, ("vertex", XYZ, []))), "at least one point")
    assert len(read_points(written(path, ply(form, SMALL)), max_points=2).xyz) == 2
    refused(path, "at most 1 points, got 2", max_points=1)


def test_lengths_of_lists(tmp_path):
    strips = ("strip", {"k": ("int", "double")}, [[[0.5]]])
    data = bytearray(ply("binary_little_endian", strips, SMALL))
    at = data.index(b"end_header\n") + len(b"end_header\n")
    for length in (-1, -(2**31), 2**31 - 1, 100):
        struct.pack_into("<i", data, at, length)
        refused(written(tmp_path / "a.ply", data), "length of list k|truncated")
    # A length that is cut, of which the rest happens to read as a length.
    empty = ("strip", {"k": ("uint", "double")}, [[[0.5]], [[]]])
    for cut in (1, 2, 3, 4):
        refused(written(tmp_path / "a.ply", ply("binary_little_endian", SMALL, empty)[:-cut]), "length of list k")


def test_headers_without_bounds(tmp_path):
    path, data = tmp_path / "a.ply", ply("ascii", SMALL)
    refused(written(path, data.replace(b"by hand", b"x" * 100_000)), "at most 8192 bytes")
    refused(written(path, data.replace(b"comment by hand\n", b"comment\n" * 2000)), "at most 1000 lines")
    refused(written(path, b"just some text"), "unended")
    refused(written(path, b"just some text\n"), "a line ply, got 'just some text'")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("1 2", "point 1: expected 4 numbers, got b'1 2"),
        ("1 2 3 4 5", "point 1: expected 4 numbers"),
        ("1 two 3 4", "expected y of type float32, got ValueError"),
        ("1 2 3 4.5", "expected red of type uint8"),
        ("1 2 3 256", "expected red of type uint8, got OverflowError"),
        ("1 2 inf 4", "1 of 3 points with NaN or infinity, first at 1"),
        ("", "3 lines of points, each ended, got 2"),
    ],
)
def test_words_that_are_no_numbers(tmp_path, line, match):
    head = ply("ascii", ("vertex", XYZ | {"red": "uchar"}, []), claimed=3)
    text = head + f"10.5 20.5 30.5 4\n{line}\n5 6 7 8\n".encode()
    refused(written(tmp_path / "a.ply", text), match)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("elements", [(SMALL,), (FACES, SMALL), (STRIPS, EDGES, SMALL), (SMALL, EDGES), (SMALL, FACES)])
def test_truncated_at_every_byte(tmp_path, form, elements):
    data = ply(form, *elements)
    path = tmp_path / "a.ply"
    # In ascii, the last line of what is skipped is not looked at.
    lines = data.count(b"\n") - (form == "ascii" and elements[-1] is not SMALL)
    for cut in range(1 if len(elements) == 1 else data.index(b"end_header"), len(data)):
        if form != "ascii" or data[:cut].count(b"\n") < lines or data[:cut].endswith(b"\n"):
            refused(written(path, data[:cut]), "expected")
        else:
            assert read_points(written(path, data[:cut])).xyz.tolist() == SMALL[2]
    refused(written(path, data + b"1"), "end of the file")


@FUZZ
@given(at=st.integers(0, 100_000), value=st.integers(0, 255), form=st.sampled_from(list(FORMATS)), body=st.booleans())
def test_changed_bytes(tmp_path, at, value, form, body):
    data = bytearray(ply(form, FACES, SMALL, STRIPS))
    start = data.index(b"end_header") if body else 0
    data[start + at % (len(data) - start)] = value
    finite_or_refused(written(tmp_path / "a.ply", data), max_points=100_000)


@FUZZ
@given(form=st.sampled_from(list(FORMATS)), tail=st.binary(max_size=400), kind=st.sampled_from(["", "xyz", "face"]))
def test_random_bytes(tmp_path, form, tail, kind):
    with_faces = ply(form, ("face", FACES[1], []), ("vertex", XYZ, []), claimed=2).replace(b"face 0", b"face 3")
    head = {"": b"", "xyz": ply(form, ("vertex", XYZ, []), claimed=2), "face": with_faces}[kind]
    finite_or_refused(written(tmp_path / "a.ply", head + tail), drop_nonfinite=bool(len(tail) % 2))


LINES = [
    "format ascii 1.0", "format binary_big_endian 1.0", "element vertex 1", "element face 2", "property float x",
    "property uchar y", "property double z", "property list uchar int i", "comment", "1 2 3", "end_header",
]  # fmt: skip


@FUZZ
@given(st.lists(st.sampled_from(LINES), max_size=16), st.binary(max_size=60))
def test_random_headers(tmp_path, lines, tail):
    finite_or_refused(written(tmp_path / "a.ply", "\n".join(["ply", *lines, ""]).encode() + tail), drop_nonfinite=True)
