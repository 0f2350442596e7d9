"""Golden requests: sample rows with the publisher's answers, which a loaded version must reproduce.

This module defines their file, and when two answers agree. The tools make golden requests when they publish; the loader
runs the model on them and calls `compare`. NaN is null in JSON, and agrees with NaN.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.models import strict_json

MAX_DIMENSIONS = 8


def to_array(values: list[Any], what: str) -> NDArray[Any]:
    """Nested lists as an array of their shape.

    Args:
        values: Lists nested up to `MAX_DIMENSIONS` deep, all of one length at each depth, none empty.
        what: Its name in errors.

    Returns:
        Of bool where all values are, int64 where all are whole numbers, object (str) where there are strings, null
        being the empty one; float64 otherwise, null being NaN.

    Raises:
        InvalidInputError: The lists are ragged, empty or too deep, or mix kinds of values.
    """
    shape = [len(values)]
    level = values
    while level and isinstance(level[0], list):
        shape.append(len(level[0]))
        if len(shape) > MAX_DIMENSIONS:
            raise InvalidInputError(f"{what} is nested deeper than {MAX_DIMENSIONS} lists")
        if any(not isinstance(item, list) or len(item) != shape[-1] for item in level):
            raise InvalidInputError(f"{what} is ragged; expected lists of one length")
        level = [value for item in level for value in item]
    if not level:
        raise InvalidInputError(f"{what} is empty; expected at least one value")
    return _leaves(level, what).reshape(shape)


def to_lists(array: NDArray[Any], what: str) -> list[Any]:
    """An array of numbers, booleans or strings as nested lists, NaN as null.

    Raises:
        InvalidInputError: A value is infinite or neither number, boolean nor string, or the array has no dimension.
    """
    array = np.asarray(array)
    if array.ndim == 0:
        raise InvalidInputError(f"{what} is a single value; expected an array with at least one row")
    if array.dtype.kind in "biu":
        lists: list[Any] = array.tolist()
        return lists
    if array.dtype.kind == "f":
        return _float_lists(array, what)
    if array.dtype.kind not in "OUT":
        raise InvalidInputError(f"{what} is of type {array.dtype}; expected numbers, booleans or strings")
    return _string_lists(array, what)


def _leaves(values: list[Any], what: str) -> NDArray[Any]:
    kinds = {type(value) for value in values}
    if str in kinds and kinds <= {str, type(None)}:
        strings = np.empty(len(values), dtype=object)
        strings[:] = [value or "" for value in values]
        return strings
    if kinds == {bool}:
        return np.array(values, dtype=np.bool_)
    if not kinds <= {int, float, type(None)}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InvalidInputError(f"{what} holds {names}; expected all numbers, all strings or all booleans")
    try:
        if kinds == {int}:
            return np.array(values, dtype=np.int64)
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except OverflowError as error:
        raise InvalidInputError(f"{what} holds a number that is out of range; expected 64-bit numbers") from error


def _float_lists(array: NDArray[Any], what: str) -> list[Any]:
    if np.isinf(array).any():
        raise InvalidInputError(f"{what} holds an infinity, which JSON cannot hold; expected finite numbers or NaN")
    values = array.astype(np.float64).astype(object)
    values[np.isnan(array)] = None
    lists: list[Any] = values.tolist()
    return lists


def _string_lists(array: NDArray[Any], what: str) -> list[Any]:
    values = ["" if _is_missing(value) else value for value in array.ravel().tolist()]
    if not all(isinstance(value, str) for value in values):
        raise InvalidInputError(f"{what} holds objects that are not strings; expected strings")
    strings = np.empty(len(values), dtype=object)
    strings[:] = values
    lists: list[Any] = strings.reshape(array.shape).tolist()
    return lists


def _is_missing(value: Any) -> bool:
    # Only NaN differs from itself; pandas marks missing strings with it.
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - see above


MAX_VALUES = 1_000_000


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows and their answers, as lists nested like the arrays' shapes; null stands for NaN.

    An answer `got` agrees with `expected` when |got - expected| <= atol + rtol * |expected|; integers, booleans and
    strings must be equal. The defaults allow for the differences of float32 sums between processors.

    Attributes:
        inputs: The values of each raw column, or of each model input where there are no features.
        outputs: The expected values of each output that is to be compared; others are ignored.
        rtol: The relative tolerance.
        atol: The absolute tolerance.
        format: The version of the file's format.
    """

    inputs: Mapping[str, list[Any]]
    outputs: Mapping[str, list[Any]]
    rtol: float = 1e-3
    atol: float = 1e-5
    format: int = strict_json.FORMAT

    def __post_init__(self) -> None:
        for name, tolerance in (("rtol", self.rtol), ("atol", self.atol)):
            if not (math.isfinite(tolerance) and tolerance >= 0):
                raise InvalidInputError(f"{name} is {tolerance}; expected a number from 0 up")
        inputs = _arrays("input", self.inputs)
        _arrays("output", self.outputs)
        lengths = {len(array) for array in inputs.values()}
        if len(lengths) != 1:
            raise InvalidInputError(f"the inputs have {sorted(lengths)} rows; expected the same number in each")

    @property
    def rows(self) -> int:
        """The number of rows of each input."""
        return len(next(iter(self.inputs.values())))

    def input_arrays(self) -> dict[str, NDArray[Any]]:
        """The inputs as arrays: float64, int64, bool, or object arrays of str where null is the empty string."""
        return _arrays("input", self.inputs)


def make(
    inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]], *, rtol: float = 1e-3, atol: float = 1e-5
) -> Golden:
    """Golden requests from a model's inputs and its outputs for them.

    Raises:
        InvalidInputError: A value is infinite, or the arrays have no rows or not the same number.
    """
    given = {name: to_lists(array, f"input {name!r}") for name, array in inputs.items()}
    answered = {name: to_lists(array, f"output {name!r}") for name, array in outputs.items()}
    return Golden(inputs=given, outputs=answered, rtol=rtol, atol=atol)


_goldens: Final = msgspec.json.Decoder(Golden)


def decode(raw: bytes) -> Golden:
    """The golden requests that these bytes hold.

    Raises:
        InvalidInputError: They are not golden requests of this format, or their lists are not arrays.
    """
    return strict_json.decode(raw, _goldens)


def encode(golden: Golden) -> bytes:
    """The golden requests as JSON."""
    return msgspec.json.encode(golden)


def compare(expected: Golden, got: Mapping[str, NDArray[Any]]) -> str | None:
    """None if the answers agree; else one sentence that names the output, the row and the difference.

    Args:
        expected: The golden requests.
        got: The model's outputs on `expected.inputs`, by name; further ones are ignored.
    """
    for name, array in _arrays("output", expected.outputs).items():
        if name not in got:
            return f"output {name!r} is missing; the model gives {', '.join(map(repr, sorted(got))) or 'none'}"
        difference = _difference(array, np.asarray(got[name]), expected)
        if difference is not None:
            return f"output {name!r}{difference}"
    return None


def _arrays(what: str, values: Mapping[str, list[Any]]) -> dict[str, NDArray[Any]]:
    if not values:
        raise InvalidInputError(f"there are no {what}s; expected at least one")
    arrays = {name: to_array(nested, f"{what} {name!r}") for name, nested in values.items()}
    if sum(array.size for array in arrays.values()) > MAX_VALUES:
        raise InvalidInputError(f"the {what}s hold more than {MAX_VALUES:,} values; a few rows are enough")
    return arrays


def _difference(expected: NDArray[Any], got: NDArray[Any], golden: Golden) -> str | None:
    if expected.shape != got.shape:
        return f" has shape {list(got.shape)}; expected {list(expected.shape)}"
    if (expected.dtype.kind == "O") != (got.dtype.kind in "OUS"):
        return f" holds {_kind(got)}; expected {_kind(expected)}"
    agrees = _agreement(expected, got, golden)
    if agrees.all():
        return None
    row, *position = (int(index) for index in np.argwhere(~agrees)[0])
    place = f", row {row}" + (f", position {position}" if position else "")
    return f"{place}: {_gap(expected[row, *position], got[row, *position])}"


def _agreement(expected: NDArray[Any], got: NDArray[Any], golden: Golden) -> NDArray[np.bool_]:
    # A number published as an integer is a class or a count, and a tolerance would let class 5001 pass as 5000.
    if expected.dtype.kind in "biO" and got.dtype.kind not in "fc":
        return np.asarray(expected == got, dtype=np.bool_)
    numbers = expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        allowed = golden.atol + golden.rtol * np.abs(numbers)
        is_near = np.abs(got.astype(np.float64) - numbers) <= allowed
    return np.asarray(is_near | (np.isnan(numbers) & np.isnan(got)), dtype=np.bool_)


def _gap(expected: Any, got: Any) -> str:
    if isinstance(expected, str):
        return f"expected {expected!r}, got {got!r}"
    return f"expected {expected:.6g}, got {got:.6g}, which differ by {abs(float(got) - float(expected)):.3g}"


def _kind(array: NDArray[Any]) -> str:
    return "strings" if array.dtype.kind in "OUS" else f"numbers ({array.dtype})"
