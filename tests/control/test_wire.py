import numpy as np
import pytest

from perceiver import InputError

msgpack = pytest.importorskip("msgpack")

from perceiver.control.wire import decode, encode  # noqa: E402


def array(data=b"\0" * 8, dtype="<f4", shape=(2,), **more):
    return msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape, **more})


def test_what_openpi_sends_comes_as_it_was():
    seen = {
        "pixels": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
        "state": np.array([1.5, np.nan, -np.inf], np.float64),
        "flags": np.array([True, False]),
        "names": np.array(["left", "right hand"]),
        "nested": {"point": [np.float32(2.5), 3, None, "text", b"raw"]},
        "empty": np.zeros((0, 3), np.float32),
        "number": np.array(7),
    }
    again = decode(encode(seen))
    assert again.keys() == seen.keys()
    for name in ("pixels", "state", "flags", "names", "empty", "number"):
        assert again[name].dtype == seen[name].dtype
        np.testing.assert_array_equal(again[name], seen[name])
    assert again["nested"] == {"point": [2.5, 3, None, "text", b"raw"]}
    assert isinstance(again["nested"]["point"][0], np.float32)


def test_the_bytes_are_openpis():
    packed = msgpack.unpackb(encode({"state": np.array([1.0], "<f4"), "one": np.int16(3)}))
    expected = {b"__ndarray__": True, b"data": b"\0\0\x80?", b"dtype": "<f4", b"shape": [1]}
    assert packed == {"state": expected, "one": {b"__npgeneric__": True, b"data": 3, b"dtype": "<i2"}}


def test_bytes_of_another_order_are_turned():
    assert decode(array(b"\0\1", ">u2", (1,))).dtype == np.dtype("u2")
    assert decode(array(b"\0\1", ">u2", (1,))).tolist() == [1]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"", "expected a frame of msgpack, got 0 bytes"),
        (b"\xc1", "expected a frame of msgpack"),
        (encode({"a": 1}) + b"x", "expected a frame of msgpack"),
        (encode([1, 2])[:-1], "expected a frame of msgpack"),
        (b"\xdd\xff\xff\xff\xff", "expected a frame of msgpack"),  # a list of four billion, of which nothing is there
        (b"\x91" * 5000, "expected a frame of msgpack"),  # lists within lists
        (b"\xa2\xff\xfe", "expected a frame of msgpack"),  # no UTF-8
        (msgpack.packb(msgpack.ExtType(4, b"code")), "expected a frame of msgpack"),
        (msgpack.packb({1: 2}), "expected a frame of msgpack"),
        (array(dtype="|O"), "expected the dtype of numbers"),
        (array(dtype="|V8"), "expected the dtype of numbers"),
        (array(dtype="(9999999,)f4"), "expected the dtype of numbers"),
        (array(dtype="<b8"), "expected"),
        (array(dtype=b"<f4"), "expected the dtype of numbers"),
        (array(shape=(3,)), r"expected the bytes of float32 \[3\], got 8"),
        (array(shape=(2**62, 4), data=b""), "expected the bytes of float32"),
        (array(shape=(-2,)), "expected bytes and a shape"),
        (array(shape=(1,) * 9), "expected bytes and a shape"),
        (array(shape="2"), "expected bytes and a shape"),
        (array(data="text"), "expected bytes and a shape"),
        (msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}), "expected a number or a text"),
        (msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}), "numpy scalar"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 2**40, b"dtype": "<i2"}), "numpy scalar"),
    ],
)
def test_what_is_not_an_observation_is_refused(frame, message):
    with pytest.raises(InputError, match=message):
        decode(frame)


def test_objects_are_never_sent():
    for value in (np.array([object()]), np.array([1j]), object(), {"a": {1, 2}}):
        with pytest.raises(InputError, match="expected"):
            encode(value)


def test_damaged_frames_are_read_or_refused_and_nothing_else():
    rng = np.random.default_rng(0)
    whole = encode(
        {"observation.state": np.arange(4, dtype=np.float32), "task": "go", "one": np.float64(2.0), "no": [None]}
    )
    read = refused = 0
    for _ in range(3000):
        frame = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, len(frame), rng.integers(1, 4)):
            frame[place] = rng.integers(0, 256)
        try:
            decode(bytes(frame))
            read += 1
        except InputError:
            refused += 1
    assert read > 100
    assert refused > 1000
