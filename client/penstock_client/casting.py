"""Casts a column's values to the datatype that the model declares, or says which value cannot be.

A cast never changes a value silently: text is no number, a fraction no integer, and a number that does not fit is
refused. A missing value is NaN in a float column and the empty text in a BYTES column; other datatypes have no word
for it. Pure; called by `arrange`.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import numpy_type
from penstock_client.errors import InvalidRequestError

NUMBER_KINDS: Final = "biuf"
TEXT_OR_OBJECT_KINDS: Final = "OUST"
WANTED: Final = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}


def cast(values: Any, datatype: str, label: str) -> NDArray[Any]:
    """The values as an array of the datatype's numpy type, or of `bytes` objects for BYTES; any shape, which is kept.

    Args:
        values: a list or array.
        datatype: the protocol's name, such as FP32.
        label: what an error calls the values, such as "column 'age'".

    Raises:
        InvalidRequestError: a value that the datatype cannot hold, named with its row.

    >>> cast([1, None, 2.5], "FP32", "column 'fare'")
    array([1. , nan, 2.5], dtype=float32)
    >>> cast(["Oslo", None], "BYTES", "column 'city'")
    array([b'Oslo', b''], dtype=object)
    >>> cast([41, None], "INT64", "column 'age'")
    Traceback (most recent call last):
    penstock_client.errors.InvalidRequestError: column 'age' is INT64 and takes whole numbers, got None at row 1
    """
    if datatype == "BYTES":
        return _as_bytes(_array(values, label, as_objects=not isinstance(values, np.ndarray)), label)
    try:
        dtype = numpy_type(datatype)
    except ValueError as error:
        raise InvalidRequestError(f"{label} is declared with a datatype that cannot be sent: {error}") from error
    if isinstance(values, np.ndarray) and values.dtype == dtype:
        return values
    cause = f"{label} is {datatype} and takes {WANTED[dtype.kind]}"
    numbers = _as_numbers(values, dtype, label, cause)
    if np.can_cast(numbers.dtype, dtype):
        return numbers.astype(dtype, copy=False)
    return _CASTS[dtype.kind](numbers, dtype, cause)


def _array(values: Any, label: str, *, as_objects: bool = False) -> NDArray[Any]:
    try:
        array = np.asarray(values, dtype=object if as_objects else None)
    except ValueError as error:
        raise InvalidRequestError(f"{label} holds lists of unlike lengths; expected one length") from error
    if array.ndim == 0 and not isinstance(values, np.ndarray):
        raise InvalidRequestError(f"{label} is expected as a list or an array, got {type(values).__name__}")
    return array


def _as_bytes(array: NDArray[Any], label: str) -> NDArray[Any]:
    cause = f"{label} is BYTES and takes text"
    if array.size and array.dtype.kind not in TEXT_OR_OBJECT_KINDS:
        raise _refusal(cause, array, 0)
    elements = np.empty(array.size, dtype=object)
    for at, value in enumerate(array.ravel().tolist()):
        element = _element(value)
        if element is None:
            raise _refusal(cause, array, at)
        elements[at] = element
    return elements.reshape(array.shape)


def _element(value: object) -> bytes | None:
    """The bytes of a text element; None where it is not one."""
    if isinstance(value, bytes):
        return value
    # Pandas writes NaN for a missing text.
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - the test for NaN
        return b""
    if not isinstance(value, str):
        return None
    try:
        return value.encode()
    except UnicodeEncodeError:
        return None


def _as_numbers(values: Any, dtype: np.dtype[Any], label: str, cause: str) -> NDArray[Any]:
    array = _array(values, label)
    # numpy writes a list as floats where one integer needs all 64 bits and another does not, and rounds them.
    is_rounded = array.dtype.kind == "f" and dtype.kind in "iu" and not isinstance(values, np.ndarray)
    if array.dtype.kind in NUMBER_KINDS and not is_rounded:
        return array
    if array.dtype.kind not in NUMBER_KINDS + TEXT_OR_OBJECT_KINDS:
        raise InvalidRequestError(f"{cause}, got numpy type {array.dtype}")
    # numpy writes a list of numbers and texts as texts; as objects each is still what it was.
    objects = array if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    return _objects_as_numbers(objects, dtype, cause)


def _objects_as_numbers(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    values = array.ravel().tolist()
    for at, value in enumerate(values):
        if not _is_number(value) and not (value is None and dtype.kind == "f"):
            raise _refusal(cause, array, at)
    if dtype.kind in "iu":
        return _whole(array, values, cause)
    return _numbers([float("nan") if value is None else value for value in values]).reshape(array.shape)


def _is_number(value: Any) -> bool:
    if value is None or isinstance(value, str | bytes | complex):
        return False
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _whole(array: NDArray[Any], values: list[Any], cause: str) -> NDArray[Any]:
    """The values as Python's integers, which have no limit, so that none is rounded before it is checked."""
    for at, value in enumerate(values):
        if not math.isfinite(value) or value != int(value):
            raise _refusal(cause, array, at)
    whole = np.empty(len(values), dtype=object)
    whole[:] = [int(value) for value in values]
    return whole.reshape(array.shape)


def _numbers(values: list[Any]) -> NDArray[Any]:
    array = np.asarray(values)
    # Decimals and integers of more than 64 bits would stay objects.
    return array if array.dtype.kind in NUMBER_KINDS else np.array([float(value) for value in values])


def _as_float(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        floats = array.astype(dtype)
    if np.isinf(floats).any():
        _refuse_where(np.isinf(floats) & np.isfinite(array), array, cause)
    return floats


def _as_integer(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    if array.dtype.kind == "f":
        _refuse_where(~np.isfinite(array) | (np.trunc(array) != array), array, cause)
    if array.size and array.dtype.kind != "b":
        limits = np.iinfo(dtype)
        # Python's integers compare exactly; a float64 cannot hold the limits of 64 bits.
        for at in (int(array.argmin()), int(array.argmax())):
            if not limits.min <= int(array.flat[at]) <= limits.max:
                raise _refusal(f"{cause} from {limits.min} to {limits.max}", array, at)
    return array.astype(dtype)


def _as_boolean(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    _refuse_where((array != 0) & (array != 1), array, cause)
    return array.astype(dtype)


_CASTS: Final = {"f": _as_float, "i": _as_integer, "u": _as_integer, "b": _as_boolean}


def _refuse_where(bad: NDArray[np.bool_], array: NDArray[Any], cause: str) -> None:
    if bad.any():
        raise _refusal(cause, array, int(bad.argmax()))


def _refusal(cause: str, array: NDArray[Any], at: int) -> InvalidRequestError:
    """The error for the element at a position of the flattened array."""
    value = array.ravel()[at]
    shown = repr(value.item() if isinstance(value, np.generic) else value)
    row = np.unravel_index(at, array.shape)[0] if array.ndim else 0
    return InvalidRequestError(f"{cause}, got {shown if len(shown) <= 40 else shown[:37] + '...'} at row {row}")
