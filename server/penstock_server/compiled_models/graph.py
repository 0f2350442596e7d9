"""Reads an ONNX file as what its main graph computes: operators with all their attributes, constants, inputs, outputs.

It reads protobuf's wire format, as `models.onnx_file` does, which has checked the file before. What cannot be compiled in
any case, and what is too large to be worth it, ends with `NotCompiledError` early.

Source: onnx.proto of ONNX 1.19, and Protocol Buffers, "Encoding".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.wire import BYTES, INTEGER, VARINT, read_field, read_varint, signed

MAX_BYTES: Final = 1 << 26
"""A larger file is not read: a model that large gains nothing, or its proof would take too long."""
MAX_NODES: Final = 64
MAX_PART_BYTES: Final = 1 << 22
"""Of an attribute or a constant."""
_SINGLES: Final = re.compile(rb"(?:\x3d.{4})+", re.DOTALL)
_INTEGERS: Final = re.compile(rb"(?:\x40%b)+" % INTEGER)
_INTEGER: Final = re.compile(rb"\x40(%b)" % INTEGER)
_PACKED: Final = re.compile(INTEGER)
_DTYPES: Final[dict[int, Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    11: np.dtype("<f8"),
}
_STRING: Final = 8

Attribute = Any
"""A number, a text, an array of numbers, or a list of texts."""


class NotCompiledError(Exception):
    """Why a graph is left to onnxruntime, in a few words."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A node of the graph."""

    name: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Graph:
    """What the file computes.

    Attributes:
        operators: in the order of the file, in which each comes behind what it reads.
        constants: arrays of numbers, or of text as objects, by name.
        outputs: what it gives, in order.
    """

    operators: tuple[Operator, ...]
    constants: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]


def read(content: bytes) -> Graph:
    """The graph of a file.

    Raises:
        NotCompiledError: it has what is not compiled, or is too large.
    """
    if len(content) > MAX_BYTES:
        raise NotCompiledError(f"the file has {len(content):,} bytes, and up to {MAX_BYTES:,} are read")
    try:
        for number, _, start, stop in _fields(content, 0, len(content)):
            if number == 7:
                return _graph(content, start, stop)
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise NotCompiledError("the file is read otherwise than expected") from error
    raise NotCompiledError("the file has no graph")


def _graph(content: bytes, at: int, end: int) -> Graph:
    operators: list[Operator] = []
    constants: dict[str, NDArray[Any]] = {}
    outputs: list[str] = []
    for number, _, start, stop in _fields(content, at, end):
        if number == 1:
            operator = _operator(content, start, stop)
            if operator.name == "Constant":
                constants[operator.outputs[0]] = _constant(operator)
            else:
                operators.append(operator)
        elif number == 5:
            name, array = _tensor(content, start, stop)
            constants[name] = array
        elif number == 12:
            outputs += [_text(content, *part) for which, _, *part in _fields(content, start, stop) if which == 1]
        elif number == 15:
            raise NotCompiledError("it has sparse constants")
        if len(operators) > MAX_NODES:
            raise NotCompiledError(f"it has more than {MAX_NODES} operators")
    return Graph(tuple(operators), constants, tuple(outputs))


def _operator(content: bytes, at: int, end: int) -> Operator:
    inputs: list[str] = []
    outputs: list[str] = []
    name = domain = ""
    attributes: dict[str, Attribute] = {}
    for number, _, start, stop in _fields(content, at, end):
        match number:
            case 1:
                inputs.append(_text(content, start, stop))
            case 2:
                outputs.append(_text(content, start, stop))
            case 4:
                name = _text(content, start, stop)
            case 7:
                domain = _text(content, start, stop)
            case 5:
                key, value = _attribute(content, start, stop)
                attributes[key] = value
    return Operator(name, "" if domain == "ai.onnx" else domain, tuple(inputs), tuple(outputs), attributes)


def _constant(operator: Operator) -> NDArray[Any]:
    ((kind, value),) = operator.attributes.items()
    if kind in {"value", "value_float", "value_int", "value_floats", "value_ints"}:
        return np.asarray(value, np.float32) if "float" in kind else np.asarray(value)
    if kind == "value_strings":
        return np.array(value, object)
    raise NotCompiledError(f"it has a constant of kind {kind!r}")


def _attribute(content: bytes, at: int, end: int) -> tuple[str, Attribute]:
    _check_size(at, end)
    name = ""
    value: Attribute = None
    numbers: list[NDArray[Any]] = []
    texts: list[str] = []
    place = at
    # Attributes of trees have a field per number: regular expressions take all of them at once.
    while place < end:
        if found := _SINGLES.match(content, place, end):
            raw = np.frombuffer(found[0], np.uint8).reshape(-1, 5)[:, 1:]
            numbers.append(np.ascontiguousarray(raw).view("<f4").ravel())
            place = found.end()
        elif found := _INTEGERS.match(content, place, end):
            numbers.append(np.array([_integer(each) for each in _INTEGER.findall(found[0])], np.int64))
            place = found.end()
        else:
            number, _, start, stop, place = read_field(content, place, end)
            if number == 1:
                name = _text(content, start, stop)
            elif number == 9:
                texts.append(_text(content, start, stop))
            elif number in {7, 8}:
                numbers.append(
                    _packed(content[start:stop]) if number == 8 else np.frombuffer(content[start:stop], "<f4")
                )
            else:
                value = _single(content, number, start, stop, value)
    if numbers:
        return name, np.concatenate(numbers)
    return name, texts or value


def _single(content: bytes, number: int, start: int, stop: int, value: Attribute) -> Attribute:
    """An attribute of one number, text or tensor, from a field; other fields leave the value as it is."""
    match number:
        case 2:
            return float(np.frombuffer(content, "<f4", 1, start)[0])
        case 3:
            return signed(start)
        case 4:
            return _text(content, start, stop)
        case 5:
            return _tensor(content, start, stop)[1]
        case 6 | 10 | 11 | 22 | 23:
            raise NotCompiledError("it has graphs in its operators")
    return value


def _tensor(content: bytes, at: int, end: int) -> tuple[str, NDArray[Any]]:
    _check_size(at, end)
    name, kind = "", 0
    shape: list[int] = []
    raw: bytes | None = None
    parts: list[NDArray[Any]] = []
    texts: list[str] = []
    for number, wire, start, stop in _fields(content, at, end):
        match number:
            case 1:
                shape += [start] if wire == VARINT else _packed(content[start:stop]).tolist()
            case 2:
                kind = start
            case 8:
                name = _text(content, start, stop)
            case 9:
                raw = content[start:stop]
            case 6:
                texts.append(_text(content, start, stop))
            case 4 | 5 | 7 | 10:
                parts.append(_elements(content, number, wire, start, stop))
            case 13 | 14 if wire == BYTES or start:
                raise NotCompiledError("it has constants in other files")
    if kind == _STRING:
        values = np.empty(len(texts), object)
        values[:] = texts
        return name, values.reshape(shape)
    return name, _array(kind, raw, parts).reshape(shape)


def _array(kind: int, raw: bytes | None, parts: list[NDArray[Any]]) -> NDArray[Any]:
    """A tensor's elements, which are raw bytes or parts."""
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise NotCompiledError(f"it has a constant of datatype {kind}")
    return np.frombuffer(raw, dtype) if raw is not None else np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)


def _elements(content: bytes, number: int, wire: int, start: int, stop: int) -> NDArray[Any]:
    """Elements of a tensor: a field of many, or of one."""
    if number in {5, 7}:
        return _packed(content[start:stop]) if wire == BYTES else np.array([signed(start)], np.int64)
    dtype = np.dtype("<f4" if number == 4 else "<f8")
    return np.frombuffer(content[start:stop], dtype) if wire == BYTES else np.frombuffer(content, dtype, 1, start)


def _check_size(at: int, end: int) -> None:
    if end - at > MAX_PART_BYTES:
        raise NotCompiledError(f"it has an attribute or a constant of more than {MAX_PART_BYTES:,} bytes")


def _packed(content: bytes) -> NDArray[np.int64]:
    return np.array([_integer(each) for each in _PACKED.findall(content)], np.int64)


def _integer(raw: bytes) -> int:
    return raw[0] if len(raw) == 1 else signed(read_varint(raw, 0, len(raw))[0])


def _fields(content: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    while at < end:
        number, kind, start, stop, at = read_field(content, at, end)
        yield number, kind, start, stop


def _text(content: bytes, at: int, end: int) -> str:
    return content[at:end].decode("utf-8")
