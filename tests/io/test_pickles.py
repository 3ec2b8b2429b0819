import collections
import functools
import operator
import os
import pickle
import random
import struct
import subprocess
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perceiver.errors import InputError
from perceiver.io import pickles
from perceiver.io.pickles import read_pickle

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PROTOCOLS = (2, 3, 4, 5)
NUMBERS = st.sampled_from(["b1", "i1", "<i4", "i8", "u2", "f2", "f4", ">f4", "f8", "c8"])
F4 = (b"cnumpy\ndtype\n(X\x02\0\0\0f4\x89\x88tR", b"(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb")
F4 = F4[0] + F4[1]
ANNOUNCED = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"


def tree():
    rng = np.random.default_rng(0)
    return {
        "params": {
            "perceiver_encoder/~/cross_attention/linear": {
                "w": rng.normal(size=(3, 4)).astype(np.float32),
                "b": np.zeros(4, np.float32),
            },
            "trainable_position_encoding": {"pos_embs": np.asfortranarray(rng.normal(size=(2, 5)).astype(np.float32))},
        },
        "state": {"batch_norm": {"counter": np.int32(7), "hidden": np.zeros((0, 3), np.float32)}},
        "step": np.array(3, np.int64),
        "mask": np.array([True, False]),
        "turned": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        "strided": np.arange(10, dtype=np.uint8)[::3],
        "plain": [1, -2, 2**70, 0.5, True, None, "ä\ud800", b"\xff\0", ("x", [])],
    }


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, (np.ndarray, np.generic)):
        assert a.dtype == b.dtype.newbyteorder("=")
        assert a.dtype.isnative
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def written(tmp_path, data):
    path = tmp_path / "model.pickle"
    path.write_bytes(data)
    return path


def refused(tmp_path, data, match):
    path = written(tmp_path, data)
    with pytest.raises(InputError, match=match) as caught:
        read_pickle(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 700
    return caught.value


def array_pickle(shape=b"K\x02\x85", dtype=F4, data=b"C\x08" + bytes(8), announced=ANNOUNCED):
    """An array of protocol 3 by hand."""
    return b"\x80\x03" + announced + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb."


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_checkpoint_comes_back(tmp_path, protocol):
    found = read_pickle(written(tmp_path, pickle.dumps(tree(), protocol)))
    same(found, tree())
    pos = found["params"]["trainable_position_encoding"]["pos_embs"]
    assert pos.flags.f_contiguous
    assert pos.flags.writeable


@FUZZ
@given(
    st.recursive(
        hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        | st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=5)
        | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(PROTOCOLS),
)
def test_any_tree_comes_back(tmp_path, content, protocol):
    same(read_pickle(written(tmp_path, pickle.dumps(content, protocol))), content)


def test_an_array_by_hand(tmp_path):
    same(read_pickle(written(tmp_path, array_pickle())), np.zeros(2, np.float32))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpys_older_and_newer_module_names(tmp_path, protocol):
    content = pickle.dumps(tree(), protocol)
    same(read_pickle(written(tmp_path, _renamed(content, b"numpy._core", b"numpy.core"))), tree())


def _renamed(content, old, new):
    """Rename modules; protocol 4 says the length of a name in the byte before it, and that of a frame."""
    pieces = content.split(old)
    for number, piece in enumerate(pieces[:-1]):
        if content[1] >= 4:
            pieces[number] = piece[:-1] + bytes([piece[-1] - len(old) + len(new)])
    return new.join(pieces)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["FlatMapping", "FlatMap", "frozendict"])
def test_haikus_mappings_become_dicts(tmp_path, monkeypatch, name, protocol):
    module = types.ModuleType("haiku._src.data_structures")

    class FlatMapping:
        def __init__(self, mapping):
            self.mapping = mapping

        def __reduce__(self):
            return FlatMapping, (self.mapping,)

    FlatMapping.__module__, FlatMapping.__qualname__ = module.__name__, name
    setattr(module, name, FlatMapping)
    for part in ("haiku", "haiku._src"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    inner = FlatMapping({"w": np.ones(2, np.float32)})
    path = written(tmp_path, pickle.dumps({"params": FlatMapping({"linear": inner})}, protocol))
    same(read_pickle(path), {"params": {"linear": {"w": np.ones(2, np.float32)}}})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_dicts_and_jax_arrays_become_dicts_and_numpy_arrays(tmp_path, protocol):
    content = collections.OrderedDict(b=jnp.arange(3), a=collections.OrderedDict(c=jnp.zeros((2, 2))))
    found = read_pickle(written(tmp_path, pickle.dumps(content, protocol)))
    same(found, {"b": np.arange(3, dtype=np.int32), "a": {"c": np.zeros((2, 2), np.float32)}})


def test_an_array_in_two_places_is_one_array(tmp_path):
    shared = np.zeros(3)
    found = read_pickle(written(tmp_path, pickle.dumps([shared, {"again": shared}])))
    assert found[0] is found[1]["again"]


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class Plain:
    """Pickles as NEWOBJ and BUILD."""

    def __init__(self):
        self.x = 1


ATTACKS = {
    "os.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "subprocess.Popen": lambda mark: Calls(subprocess.Popen, ["touch", mark]),
    "eval": lambda mark: Calls(eval, f"open({mark!r}, 'w')"),
    "exec": lambda mark: Calls(exec, f"open({mark!r}, 'w')"),
    "open": lambda mark: Calls(open, mark, "w"),
    "getattr": lambda mark: Calls(getattr, np.ndarray, "tofile"),
    "bytes": lambda mark: Calls(bytes, 2**40),
    "import": lambda mark: Calls(__import__, "os"),
    "partial": lambda mark: Calls(functools.partial, os.system, f"touch {mark}"),
    "attrgetter": lambda mark: Calls(operator.attrgetter, "system"),
    "methodcaller": lambda mark: Calls(operator.methodcaller, "tofile", mark),
    "numpy.load": lambda mark: Calls(np.load, mark, None, True),
    "numpy.fromfile": lambda mark: Calls(np.fromfile, mark),
    "numpy.memmap": lambda mark: Calls(np.memmap, mark, "u1", "w+", 0, (9,)),
    "numpy.zeros": lambda mark: Calls(np.zeros, 2**40),
    "bytearray": lambda mark: Calls(bytearray, 2**40),
    "range": lambda mark: range(3),
    "set": lambda mark: {1, 2},
    "complex": lambda mark: 1j,
    "plain object": lambda mark: Plain(),
    "a class": lambda mark: {"x": Plain},
    "the array class": lambda mark: {"x": np.ndarray},
    "the array class, called": lambda mark: Calls(np.ndarray, (2**40,)),
    "a dtype": lambda mark: {"x": np.dtype("f4")},
    "objects": lambda mark: np.array([Calls(os.system, f"touch {mark}")], dtype=object),
    "objects in fields": lambda mark: np.zeros(2, dtype=[("a", "f4"), ("b", "O")]),
    "fields": lambda mark: np.zeros(2, dtype=[("a", "f4")]),
    "text": lambda mark: np.array(["a"]),
    "dates": lambda mark: np.zeros(2, "M8[ns]"),
    "long double": lambda mark: np.zeros(2, np.longdouble),
    "matrix": lambda mark: np.ones((2, 2), np.float32).view(np.recarray),
    "keys of numbers": lambda mark: {1: 2},
    "keys of tuples": lambda mark: {("a",): 2},
    "memory view's array": lambda mark: bytearray(3),
    "dtype with a state of its own": lambda mark: Calls(
        np.dtype, "f4", state=(3, "<", None, ("a",), {"a": 1}, 4, 4, 0)
    ),
    "ordered dict with attributes": lambda mark: Calls(collections.OrderedDict, state={"update": 3}),
    "ordered dict of pairs": lambda mark: Calls(collections.OrderedDict, [("a", 1)]),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ATTACKS)
def test_anything_else_is_refused_and_not_run(tmp_path, name, protocol):
    mark = tmp_path / "touched"
    refused(
        tmp_path, pickle.dumps({"params": ATTACKS[name](str(mark))}, protocol), "byte|expected arrays|expected a pickle"
    )
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (pickle.dumps(Calls(os.system, "true"), 2), r"byte 2: refuses the global '(posix|nt)\.system': only arrays"),
        (pickle.dumps(Calls(eval, "1"), 4), r"byte \d+: refuses the global '(builtins|__builtin__)\.eval'"),
        (b"\x80\x03cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "refuses the global"),
        (b"\x80\x04\x8c\x05numpy\x8c\x13ndarray.__class__\x93.", "refuses the global|utf-8|exhausted|expected"),
        (b"\x80\x04K\x01K\x02\x93.", "expected a global as two texts, got int, int"),
        (b"\x80\x03X\x01\0\0\0aQ.", "an instruction that builds a tree, got 'BINPERSID'$"),
        (b"\x80\x03Pabc\n.", "an instruction that builds a tree, got 'PERSID'$"),
        (b"\x80\x02\x82\x01.", "an instruction that builds a tree, got 'EXT1'$"),
        (b"\x80\x02\x83\x01\0.", "an instruction that builds a tree, got 'EXT2'$"),
        (b"\x80\x02\x84\x01\0\0\0.", "an instruction that builds a tree, got 'EXT4'$"),
        (b"\x80\x05\x97.", "an instruction that builds a tree, got 'NEXT_BUFFER'$"),
        (b"\x80\x02(ios\nsystem\n.", "an instruction that builds a tree, got 'INST'$"),
        (b"\x80\x02(cnumpy\ndtype\no.", "an instruction that builds a tree, got 'OBJ'$"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "an instruction that builds a tree, got 'NEWOBJ'$"),
        (b"\x80\x04cnumpy\ndtype\n)}\x92.", "an instruction that builds a tree, got 'NEWOBJ_EX'$"),
        (b"\x80\x02cnumpy\nndarray\n}X\x01\0\0\0aK\x01sb.", "expected an array or a dtype on the stack, got a global"),
        (b"\x80\x02cnumpy\ndtype\n(N}tb.", "expected an array or a dtype on the stack, got a global"),
        (b"\x80\x02" + ANNOUNCED + b"}X\x09\0\0\0__class__Nsb.", "expected a state as a tuple, got dict"),
        (b"\x80\x02F" + b"x" * 1000 + b"\n.", "an instruction that builds a tree, got 'FLOAT'$"),
        (b"\x80\x02\x8b\xff\xff\xff\x7fabc.", "an instruction that builds a tree, got 'LONG4'$"),
        (b"\x80\x02\xff.", r"byte 2: expected an instruction that builds a tree, got b'\\xff'$"),
        (b"\x80\x02N", r"byte 3: expected an instruction that builds a tree, got b''$"),
        (b"\x80\x02}}b.", "expected an array or a dtype on the stack, got dict"),
        (b"\x80\x02cnumpy\ndtype\nK\x01R.", "expected a function that makes arrays, got a global, int"),
        (b"\x80\x02cnumpy\nndarray\nK\x01\x85R.", "expected a function that makes arrays, got a global, tuple"),
        (b"\x80\x02K\x01K\x01\x85R.", "expected a function that makes arrays, got int, tuple"),
        (b"\x80\x02cnumpy\ndtype\ncnumpy\nndarray\n\x85R.", "expected a dtype of numbers or bool, got a global"),
        (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x06\0\0\0base64\x86R.", "expected bytes as text in latin1"),
        (b"\x80\x03" + ANNOUNCED + b".", "expected arrays and plain values, got an array"),
        (b"\x80\x03" + ANNOUNCED + b"K\x01a.", "expected list on the stack, got an array"),
        (b"\x80\x03" + ANNOUNCED + b"K\x01K\x01s.", "expected keys of text|expected dict"),
        (array_pickle(announced=ANNOUNCED.replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n")), "a plain numpy.ndarray"),
        (array_pickle(dtype=F4.replace(b"f4", b"O8")), "expected a dtype of numbers or bool, got 'O8'"),
        (array_pickle(dtype=F4.replace(b"f4", b"V0")), "expected a dtype of numbers or bool, got 'V0'"),
        (array_pickle(dtype=F4.replace(b"\0<", b"\0?")), "expected the byte order of plain numbers"),
        (array_pickle(dtype=b"X\x02\0\0\0f4"), "expected a dtype and bytes, got str, bytes"),
        (array_pickle(data=b"]K\x01a"), "expected a dtype and bytes, got a dtype, list"),
        (array_pickle(data=b"C\x07" + bytes(7)), r"expected the bytes of float32 \(2,\), got 7"),
        (array_pickle(shape=b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85"), r"expected the bytes of float32 \(9223372036854"),
        (array_pickle(shape=b"J\xff\xff\xff\xff\x85"), "expected a shape of at most 32 sizes"),
        (array_pickle(shape=b"G" + bytes(8) + b"\x85"), "expected a shape of at most 32 sizes"),
        (array_pickle(shape=b"\x88\x85"), "expected a shape of at most 32 sizes"),
        (array_pickle(shape=b"(" + b"K\x01" * 33 + b"t"), "expected a shape of at most 32 sizes"),
        (array_pickle(shape=b"K\0\x8a\x09" + bytes(8) + b"\x01\x86", data=b"C\0"), "expected a pickle of numpy arrays"),
        (b"\x80\x02N.N", "got 1 values and 1 more bytes after byte 3"),
        (b"\x80\x02NN.", "got 2 values and 0 more bytes"),
        (b"\x80\x02(N.", "expected one value"),
        (b"\x80\x02.", "got 0 values and 0 more bytes"),
        (b"\x80\x02\x85.", "byte 2: expected 1 values on the stack, got 0"),
        (b"\x80\x02N(\x85.", "expected 1 values on the stack, got 0"),
        (b"\x80\x02Nt.", "expected a mark on the stack, got none"),
        (b"\x80\x02h\x05.", "expected a value remembered as 5, got none"),
        (b"\x80\x02q\x05.", "expected anything on the stack, got nothing"),
        (b"\x80\x02}(X\x01\0\0\0au.", "expected keys of text, each with a value"),
        (b"N.", "expected a pickle of protocol 2 to 5"),
        (b"\x80\x02\x80\x02N.", "an instruction that builds a tree, got 'PROTO'"),
        (b"\x80\x06N.", "expected a pickle of protocol 2 to 5"),
        (pickle.dumps({"a": 1}, 0), "expected a pickle of protocol 2 to 5"),
        (b"", "expected content, got an empty file of 0 bytes"),
        (b"PK\x03\x04" + bytes(40), "expected a pickle of protocol 2 to 5, got a file that starts with"),
        (b"\x93NUMPY\x01\0" + bytes(40), "expected a pickle"),
        (b"words", "expected a pickle"),
        (bytes(40), "expected a pickle of protocol 2 to 5, got a file that starts with"),
    ],
)
def test_damage_and_bad_intent_are_told_apart(tmp_path, content, match):
    refused(tmp_path, content, match)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",  # BINBYTES8
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.",  # BINUNICODE8
        b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",  # BYTEARRAY8
        b"\x80\x03B\xff\xff\xff\xffabc.",
        b"\x80\x03B\xff\xff\xff\x7fabc.",
        b"\x80\x03X\xff\xff\xff\xffabc.",
    ],
)
def test_lengths_beyond_the_file_reserve_nothing(tmp_path, content):
    refused(tmp_path, content, "expected a pickle of numpy arrays, got ValueError")


def test_a_large_memo_number_reserves_nothing(tmp_path):
    assert read_pickle(written(tmp_path, b"\x80\x02Nr\xff\xff\xff\x7f.")) is None
    assert read_pickle(written(tmp_path, b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.")) is None


def test_the_same_bytes_are_not_used_without_end(tmp_path):
    first = ANNOUNCED + b"(K\x01M\x10'\x85" + F4 + b"q\x01\x89h\0tb"
    again = ANNOUNCED + b"(K\x01M\x10'\x85h\x01\x89h\0tb"
    start = b"\x80\x03(B" + struct.pack("<I", 40_000) + bytes(40_000) + b"q\0" + first
    assert len(read_pickle(written(tmp_path, start + again + b"t."))) == 3
    refused(tmp_path, start + 2 * again + b"t.", "expected arrays of at most twice the file's size")
    encode = b"c_codecs\nencode\nh\0X\x06\0\0\0latin1\x86R"
    start = b"\x80\x02(X" + struct.pack("<I", 40_000) + b"a" * 40_000 + b"q\0"
    assert len(read_pickle(written(tmp_path, start + 2 * encode + b"t."))) == 3
    refused(tmp_path, start + 3 * encode + b"t.", "expected arrays of at most twice the file's size")


def test_nesting_and_sharing_are_bounded(tmp_path, monkeypatch):
    deep = []
    for _ in range(60):
        deep = [deep]
    same(read_pickle(written(tmp_path, pickle.dumps(deep))), deep)
    nested = b")" + b"\x85" * 300_000
    refused(tmp_path, b"\x80\x02" + nested + b".", "expected at most 64 levels")
    # CPython's unpickler crashes on this one: it hashes the key.
    refused(tmp_path, b"\x80\x02}" + nested + b"Ns.", "expected keys of text")
    monkeypatch.setattr(pickles, "MAX_VALUES", 1000)
    laughs = b"q\0h\0\x86" * 50
    refused(tmp_path, b"\x80\x02)" + laughs + b".", "expected at most 64 levels and 1000 values, got more, or a loop")
    refused(tmp_path, b"\x80\x02})" + laughs + b"Ns.", "expected keys of text")
    looped = []
    looped.append(looped)
    refused(tmp_path, pickle.dumps(looped), "or a loop")
    mapping = {}
    mapping["self"] = mapping
    refused(tmp_path, pickle.dumps(mapping), "or a loop")


def test_instructions_and_values_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 100)
    refused(tmp_path, b"\x80\x02(" + b"N" * 100 + b"t.", "after at most 100 instructions")
    assert len(read_pickle(written(tmp_path, b"\x80\x02(" + b"N" * 97 + b"t."))) == 97


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_refused(tmp_path, protocol):
    content = pickle.dumps(tree(), protocol)
    for length in range(1, len(content), 3):
        refused(tmp_path, content[:length], "expected")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_damaged_files_give_a_tree_or_an_input_error(tmp_path, protocol, monkeypatch):
    content = pickle.dumps(tree(), protocol)
    sentinel = types.ModuleType("sentinel")
    sentinel.__getattr__ = lambda name: pytest.fail(f"sentinel.{name} was looked up")
    monkeypatch.setitem(sys.modules, "sentinel", sentinel)
    inserted = [b"R", b"b", b"(", b"t", b"u", b"e", b"a", b"s", b"\x85", b"0", b"2", b"h\0", b"q\0", b")\x81"]
    inserted += [b"csentinel\nrun\n)R", b"csentinel\nrun\n", b"\x8c\x08sentinel\x8c\x03run\x93"]
    rng = random.Random(protocol)
    for _ in range(700):
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at, choice = rng.randrange(len(damaged)), rng.random()
            if choice < 0.6:
                damaged[at] = rng.randrange(256)
            elif choice < 0.8:
                del damaged[at : at + rng.randrange(1, 6)]
            else:
                damaged[at:at] = rng.choice(inserted)
        try:
            found = read_pickle(written(tmp_path, damaged))
        except InputError:
            continue
        only_plain(found)


def only_plain(value):
    if isinstance(value, dict):
        assert type(value) is dict
        assert all(type(key) is str for key in value)
        for item in value.values():
            only_plain(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            only_plain(item)
    elif isinstance(value, (np.ndarray, np.generic)):
        assert value.dtype.kind in "biufc"
        assert not value.dtype.hasobject
    else:
        assert type(value) in (str, bytes, int, float, bool, type(None))


def test_no_file_a_folder_and_no_permission(tmp_path):
    for path, match in ((tmp_path / "none", "no such file"), (tmp_path, "expected a file, got a directory")):
        with pytest.raises(InputError, match=match):
            read_pickle(path)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    path = written(tmp_path, pickle.dumps(tree()))
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    same(read_pickle(path), tree())
