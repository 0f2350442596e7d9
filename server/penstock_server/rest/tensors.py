"""A tensor's `data` in JSON, and the raw contents that say the same.

JSON knows no NaN and no infinities. As protobuf's JSON has it, an answer says them as the texts "NaN", "Infinity" and
"-Infinity", which `numpy.array(data, dtype)` reads. A request may also say null for NaN, as pandas and JavaScript do, or the
bare words, as Python's `json` writes them (`open_inference` reads those).

Source: Open Inference Protocol, "Tensor Data": nested or flat, in row-major order.
"""

from array import array
from collections.abc import Sequence
from itertools import chain
from math import inf, isfinite, isinf, isnan, nan, prod
from typing import Any, Final

import msgspec
import numpy as np

from penstock.tensors import NUMPY_TYPES, from_raw, join_bytes, numpy_type, split_bytes, to_raw
from penstock_server.errors import InvalidInputError

DEEPEST: Final = 32
"""How deep `data` may be nested."""
_CODES: Final = {
    "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I", "INT64": "q", "UINT64": "Q",
    "FP32": "f", "FP64": "d", "BOOL": "?",
}  # fmt: skip
"""The datatypes that `array` and `memoryview` know, which are faster than numpy for a row."""
_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
_NOT_FINITE: Final = {None: nan, "NaN": nan, "Infinity": inf, "-Infinity": -inf}
_TEXTS: Final = {inf: "Infinity", -inf: "-Infinity"}
# Flat, or as rows: typed decoders, which are twice as fast as one that takes whatever comes.
_numbers: Final = msgspec.json.Decoder(list[float | list[float]])
_integers: Final = msgspec.json.Decoder(list[int | list[int]])
_OTHERS: Final[dict[str, Any]] = {
    "BOOL": msgspec.json.Decoder(list[bool | list[bool]]),
    "BYTES": msgspec.json.Decoder(list[str | list[str]]),
}


def raw_of_json(data: msgspec.Raw, datatype: str, shape: Sequence[int], name: str) -> bytes:
    r"""The raw contents of a tensor from its data in JSON, flat or nested.

    Raises:
        InvalidInputError: the data are not the datatype's, or not as many as the shape takes; names the tensor.

    >>> raw_of_json(msgspec.Raw(b"[[1, 2]]"), "INT8", [1, 2], "x"), raw_of_json(msgspec.Raw(b'["no"]'), "BYTES", [1], "x")
    (b'\x01\x02', b'\x02\x00\x00\x00no')
    """
    decoder = _numbers if datatype in _FLOATS else _OTHERS.get(datatype, _integers)
    is_typed = True
    try:
        try:
            values = decoder.decode(data)
        except msgspec.ValidationError:
            values, is_typed = msgspec.json.decode(data), False
    except msgspec.ValidationError:  # what no type is expected of is refused for its numbers alone
        raise _out_of_range(name, datatype) from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the data of tensor {name!r} are not UTF-8: {error}") from None
    if not isinstance(values, list) or (values and type(values[0]) is list):
        values = flattened(values, shape, name)
    return raw_of_values(values, datatype, shape, name, are_numbers=is_typed)


def raw_of_values(
    values: Sequence[Any], datatype: str, shape: Sequence[int], name: str, *, are_numbers: bool = False
) -> bytes:
    """The raw contents of a tensor from its elements, which JSON or CSV said; errors as `raw_of_json`.

    Args:
        values: the elements, flat.
        datatype: the tensor's.
        shape: the tensor's.
        name: the tensor's.
        are_numbers: no element is a boolean, which Python would take for a number.
    """
    if len(values) != (count := prod(shape)):
        raise InvalidInputError(f"tensor {name!r} of shape {list(shape)} takes {count:,} elements, got {len(values):,}")
    if datatype == "BYTES":
        _check_all(str, values, datatype, "texts", name)
        return join_bytes(values)
    if datatype not in NUMPY_TYPES:
        try:
            numpy_type(datatype)
        except ValueError as error:
            raise InvalidInputError(f"tensor {name!r}: {error}") from None
    if datatype == "BOOL":
        _check_all(bool, values, datatype, "true or false", name)
        return bytes(values)
    packed, numbers = _packed(values, datatype, name, are_numbers=are_numbers)
    if datatype not in _CODES:
        with np.errstate(over="ignore"):
            floats = np.array(packed).astype(NUMPY_TYPES[datatype])
        raw = to_raw(floats, datatype)
        _check_range(numbers, from_raw(raw, datatype, floats.shape).tolist(), datatype, name)
        return raw
    if datatype == "FP32":
        _check_range(numbers, packed, datatype, name)
    return packed.tobytes()


def _packed(
    values: Sequence[Any], datatype: str, name: str, *, are_numbers: bool
) -> "tuple[array[Any], Sequence[Any]]":
    """The elements as the datatype's numbers, or as doubles where it has no code, and what they were made of."""
    code = _CODES.get(datatype, "d")  # of halves and BF16: rounded once, from double precision
    try:
        if not are_numbers and bool in map(type, values):
            raise TypeError
        return array(code, values), values
    except (TypeError, OverflowError):
        numbers = [_number(value, datatype, name) for value in values]
    try:
        return array(code, numbers), numbers
    except OverflowError:
        raise _out_of_range(name, datatype) from None


def flattened(data: Any, shape: Sequence[int], name: str) -> list[Any]:
    """The elements of nested lists in row-major order.

    Raises:
        InvalidInputError: they are ragged, or nested otherwise than the shape.
    """
    if not isinstance(data, list):
        raise InvalidInputError(f"tensor {name!r} takes a list as its data, got {shown(data)}")
    depth = 0
    dimensions: list[int] = []
    values: list[Any] = data
    if len(data) == 1 and len(shape) == 2 and type(data[0]) is list and [1, len(data[0])] == list(shape):
        row: list[Any] = data[0]
        if not row or type(row[0]) is not list:
            return row  # the commonest: one row
    while values and isinstance(values[0], list):
        depth += 1
        size = len(values[0])
        if depth > DEEPEST or any(type(each) is not list or len(each) != size for each in values):
            raise InvalidInputError(f"the data of tensor {name!r} are lists of different lengths, or nested too deeply")
        dimensions.append(size)
        values = list(chain.from_iterable(values))
    dimensions.insert(0, len(data))
    # Nothing can be nested in what is empty.
    is_whole = len(dimensions) == len(shape) or dimensions[-1] == 0
    if depth and not (is_whole and dimensions == list(shape)[: len(dimensions)]):
        raise InvalidInputError(f"the data of tensor {name!r} are nested as {dimensions}, its shape is {list(shape)}")
    return values


def json_of_raw(raw: bytes, datatype: str, shape: Sequence[int], name: str) -> list[Any]:
    """A tensor's elements as JSON can say them, flat.

    Raises:
        InvalidInputError: texts that are no UTF-8, which only the binary form can hold.
    """
    if datatype == "BYTES":
        try:
            return [element.decode() for element in split_bytes(raw, prod(shape))]
        except UnicodeDecodeError:
            raise InvalidInputError(
                f"output {name!r} holds bytes that are no UTF-8, which JSON cannot say; ask for it with binary_data"
            ) from None
    code = _CODES.get(datatype)
    elements: Any = from_raw(raw, datatype, shape).ravel() if code is None else memoryview(raw).cast(code)  # type: ignore[call-overload]
    values: list[Any] = elements.tolist()
    # A sum is finite only if each number is.
    if datatype in _FLOATS and not isfinite(sum(values)):
        return [finite_json(value) for value in values]
    return values


def finite_json(value: float) -> float | str:
    """A number as JSON can say it.

    >>> finite_json(1.5), finite_json(nan), finite_json(-inf)
    (1.5, 'NaN', '-Infinity')
    """
    return "NaN" if isnan(value) else _TEXTS.get(value, value)


def _check_all(kind: type, values: Sequence[Any], datatype: str, expected: str, name: str) -> None:
    for value in values:
        if type(value) is not kind:
            raise _refusal(name, datatype, expected, value)


def _check_range(values: Sequence[float], narrow: Sequence[float], datatype: str, name: str) -> None:
    """Refuses numbers that have become infinite."""
    if not isfinite(sum(narrow)) and any(
        isinf(after) and not isinf(before) for before, after in zip(values, narrow, strict=True)
    ):
        raise _out_of_range(name, datatype)


def _out_of_range(name: str, datatype: str) -> InvalidInputError:
    return InvalidInputError(f"tensor {name!r} holds a number out of the range of {datatype}")


def _number(value: Any, datatype: str, name: str) -> float | int:
    """A number that JSON said otherwise than `array` takes it."""
    is_float = datatype in _FLOATS
    if is_float and isinstance(value, str | None) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refusal(name, datatype, "numbers" if is_float else "whole numbers", value)
    if is_float:
        return float(value) if abs(value) <= 1e308 else value
    if isinstance(value, float) and (not isfinite(value) or int(value) != value):
        raise _refusal(name, datatype, "whole numbers", value)
    return int(value)


def _refusal(name: str, datatype: str, expected: str, value: Any) -> InvalidInputError:
    return InvalidInputError(f"tensor {name!r} of datatype {datatype} takes {expected}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value as an error quotes it.

    >>> shown("a" * 100), shown(None), shown([1, 2])
    ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'", 'null', 'a list')
    """
    if value is None:
        return "null"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value if not isinstance(value, str) or len(value) <= 40 else value[:40] + "...")
    return text if len(text) <= 60 else text[:57] + "..."
