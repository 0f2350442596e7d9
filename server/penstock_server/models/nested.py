"""Arrays as the nested lists that JSON can hold, and back; pure.

Used by `golden.py`. NaN is null; infinities have no place in JSON and are refused.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError

MAX_DIMENSIONS = 8


def to_array(values: list[Any], what: str) -> NDArray[Any]:
    """Nested lists as an array of their shape.

    Args:
        values: Lists nested to any depth up to `MAX_DIMENSIONS`, all of one length at each depth, none empty.
        what: What errors call it.

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
        raise InvalidInputError(f"{what} holds an infinity, which JSON cannot; expected finite numbers or NaN")
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
    # NaN alone differs from itself, and pandas marks missing strings with it.
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - see above
