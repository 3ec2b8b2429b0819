"""Old checkpoints: pickled trees of numpy arrays, as DeepMind released Perceiver IO, read without running a pickle.

A pickle is a program for Python's unpickler. Restricting the names that it may call, as
https://docs.python.org/3/library/pickle.html#restricting-globals shows, leaves the rest of that machine to the file:
BUILD sets attributes of whatever is at hand, memo numbers and lengths reserve memory, and a tuple nested 300,000 deep
crashes the interpreter when it becomes a key. So nothing is unpickled here. `pickletools`, which only splits a file
into instructions, feeds a machine that knows the few that a tree of arrays needs. Names are compared, never imported;
what is called, and what is built, is looked up in two small tables of functions below.

Sources: Lib/pickletools.py for the instructions; for what files call, `__reduce__` of numpy's ndarray and dtype,
numpy's `_frombuffer`, Haiku's FlatMapping and jax's Array.
"""

import io
import itertools
import math
import os
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing

MAX_INSTRUCTIONS = MAX_VALUES = 1_000_000
"""Far above a checkpoint, which takes about 50 instructions an array. They bound what a file of one-byte instructions
costs, and a tree that uses one list twice on every level: 2**64 values from 200 bytes."""

MAX_DEPTH = 64
MAX_AXES = 32


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of protocol 2 to 5 that holds arrays and plain values; no code that it names is run.

    Args:
        path: a file such as `{"params": {module: {name: array}}, "state": {...}}` pickled. Haiku's FlatMapping and
            collections.OrderedDict are read as dict, jax's arrays as numpy's.

    Returns:
        dict (keys are str), list, tuple, str, bytes, int, float, bool, None, numpy arrays and numpy scalars; their
        dtypes are bool, integers, floats and complex numbers in this machine's byte order. Arrays are writable.

    Raises:
        InputError: no such file, not a pickle, truncated, damaged, more after its end, a global other than those
            above, dtypes of objects, text, dates or fields, an array whose shape disagrees with its bytes, arrays of
            more than twice the file's size in all, or a tree that is too large, too deep or contains itself.
    """
    with naming(os.fspath(path)):
        file = existing_file(path)
        with refusing("a pickle of numpy arrays"):
            content = file.read_bytes()
            return _plain(_Machine(2 * len(content)).run(content), 0, itertools.count(1))


@dataclass(frozen=True)
class _Name:
    """A global that the file names, as "module name": an inert string."""

    text: str


@dataclass
class _DType:
    """A dtype in the making: a file first gives its code, such as f4, then its byte order."""

    code: str
    order: str = "="


@dataclass(eq=False)
class _Array:
    """An array in the making: a file first announces it, then gives shape, dtype and bytes."""

    value: np.ndarray | None = None


class _Machine:
    """The stack, marks and memo of a pickle. What lies there is told apart by exact type and put into containers.

    It is never called, hashed or compared unless it is a str, nor printed.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        if content[:1] != b"\x80" or content[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05"):
            raise InputError(f"expected a pickle of protocol 2 to 5, got a file that starts with {content[:4]!r}")
        stream, name, place = io.BytesIO(content), "", 0
        stream.seek(2)
        for _ in range(MAX_INSTRUCTIONS):
            place = stream.tell()
            try:
                name = self.step(stream)
            except InputError as error:
                raise InputError(f"byte {place}: {error}") from None
            if name == "STOP":
                break
        if name != "STOP" or stream.tell() != len(content) or len(self.stack) != 1 or self.marked:
            raise InputError(
                f"expected one value after at most {MAX_INSTRUCTIONS} instructions and then the file's end, got "
                f"{len(self.stack)} values and {len(content) - stream.tell()} more bytes after byte {place}"
            )
        return self.stack[0]

    def step(self, stream: io.BytesIO) -> str:
        """Run the next instruction and say its name."""
        code = stream.read(1)
        opcode = OPCODES.get(code)
        if opcode is None or opcode.name not in INSTRUCTIONS:
            raise InputError(f"expected an instruction that builds a tree, got {opcode.name if opcode else code!r}")
        # Only now, since pickletools quotes the operands of some others in full when they are wrong.
        INSTRUCTIONS[opcode.name](self, opcode.arg.reader(stream) if opcode.arg else None)
        return opcode.name

    def spend(self, size: int) -> None:
        """Take bytes that are about to be allocated from the budget."""
        self.budget -= size
        if self.budget < 0:
            raise InputError("expected arrays of at most twice the file's size, got the same bytes again and again")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise InputError(f"expected {count} values on the stack, got {len(self.stack)}")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def pop_marked(self) -> list[Any]:
        if not self.marked:
            raise InputError("expected a mark on the stack, got none")
        values, self.stack = self.stack, self.marked.pop()
        return values

    def top(self, *kinds: type) -> Any:
        if not self.stack or (kinds and type(self.stack[-1]) not in kinds):
            wanted = " or ".join(_said(kind) for kind in kinds) or "anything"
            raise InputError(f"expected {wanted} on the stack, got {_kinds(*self.stack[-1:])}")
        return self.stack[-1]

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def get(self, number: int) -> None:
        if number not in self.memo:
            raise InputError(f"expected a value remembered as {number}, got none")
        self.push(self.memo[number])

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def update(self, values: list[Any]) -> None:
        keys, target = values[::2], self.top(dict)
        if len(values) % 2 or any(type(key) is not str for key in keys):
            raise InputError(f"expected keys of text, each with a value, got {_kinds(*keys)}")
        target.update(zip(keys, values[1::2], strict=True))

    def name(self, text: str) -> None:
        if text not in CALLS and text != NDARRAY:
            raise InputError(f"refuses the global {text.replace(' ', '.')!r:.99}: only arrays and dicts are read")
        self.push(_Name(text))

    def stack_name(self) -> None:
        parts = self.pop(2)
        if not all(type(part) is str for part in parts):
            raise InputError(f"expected a global as two texts, got {_kinds(*parts)}")
        self.name(" ".join(parts))

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        if type(function) is not _Name or function.text not in CALLS or type(arguments) is not tuple:
            raise InputError(f"expected a function that makes arrays, got {_kinds(function, arguments)}")
        self.push(CALLS[function.text](self, *arguments))

    def build(self) -> None:
        (state,) = self.pop(1)
        target = self.top(*STATES)
        if type(state) is not tuple:
            raise InputError(f"expected a state as a tuple, got {_kinds(state)}")
        STATES[type(target)](self, target, *state)


def _array(machine: _Machine, subtype: Any, *_: Any) -> _Array:
    if type(subtype) is not _Name or subtype.text != NDARRAY:
        raise InputError(f"expected a plain numpy.ndarray, got {_kinds(subtype)}")
    return _Array()


def _array_state(
    machine: _Machine, target: _Array, version: Any, shape: Any, dtype: Any, fortran: Any, data: Any
) -> None:
    target.value = _values(machine, shape, dtype, data, "F" if fortran is True else "C")


def _array_from_buffer(machine: _Machine, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    if order != "K":
        return _Array(_values(machine, shape, dtype, data, order))
    values = _values(machine, shape, dtype, data, "C")
    if type(axes) is not tuple or not all(type(n) is int for n in axes) or sorted(axes) != [*range(values.ndim)]:
        raise InputError(f"expected an order of {values.ndim} axes, got {_kinds(axes)}")
    return _Array(values.transpose(axes))


def _array_from_jax(machine: _Machine, function: Any, arguments: Any, state: Any, *_: Any) -> _Array:
    if type(arguments) is not tuple or type(state) is not tuple:
        raise InputError(f"expected an array's arguments and state, got {_kinds(arguments, state)}")
    array = _array(machine, *arguments)
    _array_state(machine, array, *state)
    return array


def _scalar(machine: _Machine, dtype: Any, data: Any) -> Any:
    return _values(machine, (), dtype, data, "C")[()]


def _values(machine: _Machine, shape: Any, dtype: Any, data: Any, order: Any) -> np.ndarray:
    """An array of exactly the given bytes; nothing is allocated before they are counted."""
    if type(dtype) is not _DType or type(data) not in (bytes, bytearray):
        raise InputError(f"expected a dtype and bytes, got {_kinds(dtype, data)}")
    if type(shape) is not tuple or len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise InputError(f"expected a shape of at most {MAX_AXES} sizes, got {_kinds(shape)}")
    if order not in ("C", "F"):
        raise InputError(f"expected the order C or F, got {_kinds(order)}")
    kind = np.dtype(dtype.order + dtype.code)
    size = math.prod(shape) * kind.itemsize
    if size != len(data):
        raise InputError(f"expected the bytes of {kind} {shape!s:.99}, got {len(data)}")
    machine.spend(size)
    return np.ndarray(shape, kind, buffer=data, order=order).astype(kind.newbyteorder("="), order="K", copy=True)


def _dtype(machine: _Machine, code: Any, *_: Any) -> _DType:
    if type(code) is not str or code not in CODES:
        said = repr(code)[:20] if type(code) is str else _kinds(code)
        raise InputError(f"expected a dtype of numbers or bool, got {said}")
    return _DType(code)


def _dtype_state(machine: _Machine, target: _DType, version: Any, order: Any, *rest: Any) -> None:
    # Behind the order come subdtype, names and fields, which numbers do not have, and their itemsize and flags.
    if type(order) is not str or order not in ("<", ">", "|", "=") or any(part is not None for part in rest[:3]):
        raise InputError(f"expected the byte order of plain numbers, got {_kinds(order, *rest[:3])}")
    target.order = order


def _encode(machine: _Machine, text: Any, encoding: Any) -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise InputError(f"expected bytes as text in latin1, got {_kinds(text, encoding)}")
    machine.spend(len(text))
    return text.encode("latin1")


def _mapping(machine: _Machine, *content: Any) -> dict[str, Any]:
    if len(content) > 1 or any(type(part) is not dict for part in content):
        raise InputError(f"expected a mapping made from one dict, got {_kinds(*content)}")
    return content[0] if content else {}


NDARRAY = "numpy ndarray"
CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")

CALLS: dict[str, Callable[..., Any]] = {
    **{f"numpy.{core}.multiarray _reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": _array_from_buffer for core in ("core", "_core")},
    "numpy dtype": _dtype,
    "jax._src.array _reconstruct_array": _array_from_jax,
    "jax._src.device_array reconstruct_device_array": _array_from_jax,
    "_codecs encode": _encode,  # how protocol 2 writes bytes, and
    "__builtin__ bytes": lambda machine: b"",  # how it writes none
    "collections OrderedDict": _mapping,
    **{f"haiku._src.data_structures {name}": _mapping for name in ("FlatMapping", "FlatMap", "frozendict")},
}
"""What REDUCE may call, by name; each function gets the machine and the file's arguments."""

STATES: dict[type, Callable[..., None]] = {_Array: _array_state, _DType: _dtype_state}
"""What BUILD may complete, by type."""


OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
LITERALS = (
    *("NONE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)

INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("FRAME", "STOP"), lambda m, _: None),
    **dict.fromkeys(LITERALS, _Machine.push),  # their operands; that of NONE is None
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE1": lambda m, _: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.pop(3))),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_marked())),
    "MARK": lambda m, _: m.mark(),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.pop_marked()),
    "SETITEM": lambda m, _: m.update(m.pop(2)),
    "SETITEMS": lambda m, _: m.update(m.pop_marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda m, number: m.memo.update({number: m.top()})),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, number: m.get(number)),
    "MEMOIZE": lambda m, _: m.memo.update({len(m.memo): m.top()}),
    "GLOBAL": lambda m, text: m.name(text),
    "STACK_GLOBAL": lambda m, _: m.stack_name(),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}
"""What a pickle may do, by the names of pickletools. Left out are all that make objects (OBJ, INST, NEWOBJ), look
things up elsewhere (PERSID, EXT1, NEXT_BUFFER) or that protocols 2 to 5 never write for a tree."""


def _plain(value: Any, depth: int, counter: Iterator[int]) -> Any:
    """Copy containers, put finished arrays in place of their records, refuse all else."""
    if depth > MAX_DEPTH or next(counter) > MAX_VALUES:
        raise InputError(f"expected at most {MAX_DEPTH} levels and {MAX_VALUES} values, got more, or a loop")
    kind = type(value)
    if kind is dict:
        return {key: _plain(item, depth + 1, counter) for key, item in value.items()}
    if kind is list or kind is tuple:
        return kind(_plain(item, depth + 1, counter) for item in value)
    if kind is _Array and value.value is not None:
        return value.value
    if kind in (str, bytes, int, float, bool, type(None)) or isinstance(value, np.generic):
        return value
    raise InputError(f"expected arrays and plain values, got {_kinds(value)}")


def _said(kind: type) -> str:
    return {_Name: "a global", _DType: "a dtype", _Array: "an array"}.get(kind, kind.__name__)


def _kinds(*values: Any) -> str:
    """What values are, for messages: their content may be endless."""
    return ", ".join(_said(type(value)) for value in values[:5]) or "nothing"
