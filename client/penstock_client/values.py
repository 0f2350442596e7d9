"""Casts a column's values to the datatype that a model declares, or refuses the first value that it cannot hold.

No value changes without a word:

- A whole number is kept exactly, or refused: also by a float column, which holds every one only up to 2**53 (FP64), 2**24
  (FP32), 2**11 (FP16) or 2**8 (BF16).
- A float, a `Decimal` and a `Fraction` become the nearest float, as everybody expects; one that is too large is refused.
  A column of whole numbers takes those that are whole.
- True and False are 1 and 0, and a BOOL column takes 1 and 0.
- Text is never a number, and a number is never text.
- A missing value, which is None here, is NaN in a float column. A BYTES column takes it if the model declares which text
  stands for it. No other column can hold one.
- Dates, times, complex numbers and other objects are refused: the caller knows which number stands for them.

`tensors` calls it and names the column; `rows` has made None of what frames have for missing values.
"""

import decimal
import fractions
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import BF16, numpy_type, to_raw, widened
from penstock_client.errors import InvalidRequestError

_NUMBER_KINDS: Final = "biuf"
_TEXT_OR_OBJECT_KINDS: Final = "OUST"
_EXPECTED: Final = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}
_WHOLE_TYPES: Final = (int, np.bool_, np.integer)
_NUMBER_TYPES: Final = (*_WHOLE_TYPES, float, np.floating, decimal.Decimal, fractions.Fraction)


def cast(values: object, datatype: str, label: str, *, missing: str | None = None) -> NDArray[Any]:
    """The values as an array of the datatype's numpy type, or of `bytes` objects for BYTES; any shape, which is kept.

    Args:
        values: a list or array.
        datatype: the protocol's name, such as FP32.
        label: what an error calls the values, such as "column 'age'".
        missing: the text that stands for a missing value in a BYTES column; None if none does.

    Raises:
        InvalidRequestError: a value that the datatype cannot hold, named with its row.

    >>> cast([1, None, 2.5], "FP32", "column 'fare'")
    array([1. , nan, 2.5], dtype=float32)
    >>> cast(["Oslo", None], "BYTES", "column 'city'", missing="")
    array([b'Oslo', b''], dtype=object)
    >>> cast([41, None], "INT64", "column 'age'")
    Traceback (most recent call last):
    penstock_client.errors.InvalidRequestError: column 'age' is INT64 and takes whole numbers, got None at row 1
    """
    if datatype == "BYTES":
        return _as_bytes(_array(values, label, as_objects=not isinstance(values, np.ndarray)), label, missing)
    try:
        dtype = numpy_type(datatype)
    except ValueError as error:
        raise InvalidRequestError(f"{label} is declared with a datatype that cannot be sent: {error}") from error
    if isinstance(values, np.ndarray) and values.dtype == dtype and datatype != BF16:
        return values
    cause = f"{label} is {datatype} and takes {_EXPECTED[dtype.kind]}"
    if datatype == BF16:
        return _as_bfloat16(_numbers(values, label, cause), dtype, cause)
    return _CASTS[dtype.kind](_numbers(values, label, cause), dtype, cause)


def _array(values: object, label: str, *, as_objects: bool = False) -> NDArray[Any]:
    try:
        array = np.asarray(values, dtype=object if as_objects else None)
    except ValueError as error:
        raise InvalidRequestError(f"{label} holds lists of unlike lengths; expected one length") from error
    except (TypeError, RuntimeError, OverflowError) as error:
        raise InvalidRequestError(f"{label} is a {type(values).__name__} that is no array: {error}") from error
    if array.ndim == 0 and not isinstance(values, np.ndarray):
        raise InvalidRequestError(f"{label} is expected as a list or an array, got {type(values).__name__}")
    return array


def _numbers(values: object, label: str, cause: str) -> NDArray[Any]:
    """The values as numpy's numbers, or as objects that the cast looks at one by one."""
    array = _array(values, label)
    kind = array.dtype.kind
    # numpy makes a list of floats and integers one of floats, and rounds the integers.
    is_exact = kind != "f" or not isinstance(values, Sequence) or holds_only_floats(values)
    if kind in _NUMBER_KINDS and is_exact:
        return array
    if kind not in _NUMBER_KINDS + _TEXT_OR_OBJECT_KINDS:
        if array.size:
            raise _refusal(cause, array, 0)
        raise InvalidRequestError(f"{cause}, got numpy type {array.dtype}")
    # numpy writes a list of numbers and texts as texts; as objects each is still what it was.
    return array.astype(object) if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)


def holds_only_floats(values: object) -> bool:
    """Whether a list, or a list of lists, holds floats alone, so that numpy rounds none of its values."""
    if isinstance(values, np.ndarray):
        return bool(values.dtype.kind == "f")
    if not isinstance(values, Sequence) or isinstance(values, str):
        return issubclass(type(values), float | np.floating)
    return all(
        issubclass(kind, float | np.floating) or (issubclass(kind, Sequence | np.ndarray) and _all_floats(values, kind))
        for kind in set(map(type, values))
    )


def _all_floats(values: Sequence[Any], kind: type) -> bool:
    return all(holds_only_floats(value) for value in values if type(value) is kind)


def _as_float(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    if array.dtype.kind == "O":
        array = _floats(array, dtype, cause)
    with np.errstate(over="ignore"):
        floats = array.astype(dtype, copy=False)
    if array.dtype.kind in "iu":
        _check_exact(array, dtype, cause)
    if not np.can_cast(array.dtype, dtype):
        _refuse_where(np.isinf(floats) & np.isfinite(array), array, cause)
    return floats


def _as_bfloat16(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    """Float32s that are BF16: as other floats, but with eight binary digits."""
    floats = _as_float(array, dtype, cause)
    rounded = widened(to_raw(floats, BF16)).reshape(floats.shape)
    if array.dtype.kind in "iuO":
        is_whole = np.array([isinstance(value, _WHOLE_TYPES) for value in array.ravel().tolist()], bool)
        bad = is_whole.reshape(array.shape) & (rounded != floats)
        _refuse_where(
            bad,
            array,
            f"{cause}, which are exact for whole numbers up to 2**8; make the column one of floats to have it rounded",
        )
    _refuse_where(np.isinf(rounded) & np.isfinite(floats), array, cause)
    return rounded


def _floats(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    """Objects as float64; NaN for None. Each that the narrower `dtype` cannot hold is refused."""
    floats = np.empty(array.size)
    for at, value in enumerate(array.ravel().tolist()):
        if value is None:
            floats[at] = math.nan
        elif not _is_number(value):
            raise _refusal(cause, array, at)
        elif isinstance(value, _WHOLE_TYPES):
            if not _is_exact(int(value), dtype):
                raise _refusal(_inexact(cause, dtype), array, at)
            floats[at] = value
        else:
            floats[at] = _nearest(value, array, at, cause)
    return floats.reshape(array.shape)


def _nearest(value: Any, array: NDArray[Any], at: int, cause: str) -> float:
    try:
        nearest = float(value)
    except (ValueError, OverflowError) as error:  # a signalling NaN; a fraction beyond all floats
        raise _refusal(cause, array, at) from error
    if math.isinf(nearest) and value not in (math.inf, -math.inf):
        raise _refusal(cause, array, at)
    return nearest


def _check_exact(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> None:
    """Refuses the first whole number that the float type would round."""
    limit = 2 ** (np.finfo(dtype).nmant + 1)
    if not array.size or (int(array.max()) <= limit and int(array.min()) >= -limit):
        return
    for at, value in enumerate(array.ravel().tolist()):
        if not _is_exact(value, dtype):
            raise _refusal(_inexact(cause, dtype), array, at)


def _is_exact(value: int, dtype: np.dtype[Any]) -> bool:
    digits = abs(value)
    # A float has so many binary digits: all of the number's but its closing zeros must be among them.
    significant = digits.bit_length() - ((digits & -digits).bit_length() - 1) if digits else 0
    limits = np.finfo(dtype)
    return significant <= limits.nmant + 1 and digits <= int(limits.max)


def _inexact(cause: str, dtype: np.dtype[Any]) -> str:
    limit = np.finfo(dtype).nmant + 1
    return (
        f"{cause}, which are exact for whole numbers up to 2**{limit}; make the column one of floats to have it rounded"
    )


def _as_integer(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    if array.dtype.kind == "O":
        array = _whole(array, cause)
    elif array.dtype.kind == "f":
        _refuse_where(~np.isfinite(array) | (np.trunc(array) != array), array, cause)
    if array.size and array.dtype.kind != "b" and not np.can_cast(array.dtype, dtype):
        limits = np.iinfo(dtype)
        # Python's integers compare exactly; a float64 cannot hold the limits of 64 bits.
        for at in (int(array.argmin()), int(array.argmax())):
            if not limits.min <= int(array.flat[at]) <= limits.max:
                raise _refusal(f"{cause} from {limits.min} to {limits.max}", array, at)
    return array.astype(dtype, copy=False)


def _whole(array: NDArray[Any], cause: str) -> NDArray[Any]:
    """Objects as Python's integers, which have no limit, so that none is rounded before it is checked."""
    whole = np.empty(array.size, dtype=object)
    for at, value in enumerate(array.ravel().tolist()):
        try:
            is_whole = _is_number(value) and value == int(value)
        except (ValueError, OverflowError, ArithmeticError):  # NaN and the infinities
            is_whole = False
        if not is_whole:
            raise _refusal(cause, array, at)
        whole[at] = int(value)
    return whole.reshape(array.shape)


def _as_boolean(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    if array.dtype.kind == "O":
        for at, value in enumerate(array.ravel().tolist()):
            if not _is_number(value) or value not in (0, 1):
                raise _refusal(cause, array, at)
    else:
        _refuse_where((array != 0) & (array != 1), array, cause)
    return array.astype(dtype)


_CASTS: Final = {"f": _as_float, "i": _as_integer, "u": _as_integer, "b": _as_boolean}


def _is_number(value: object) -> bool:
    # A timedelta64 counts as an integer for numpy; which unit the model expects, nobody knows.
    return isinstance(value, _NUMBER_TYPES) and not isinstance(value, np.timedelta64)


def _as_bytes(array: NDArray[Any], label: str, missing: str | None) -> NDArray[Any]:
    cause = f"{label} is BYTES and takes text"
    if array.dtype.kind == "f" and np.isnan(array).all():
        # What frames make of a column in which every text is missing.
        array = np.full(array.shape, None, dtype=object)
    if array.size and array.dtype.kind not in _TEXT_OR_OBJECT_KINDS:
        raise _refusal(cause, array, 0)
    elements = np.empty(array.size, dtype=object)
    for at, value in enumerate(array.ravel().tolist()):
        if _is_missing(value):
            if missing is None:
                raise _refusal(f"{cause}, and the model declares none for a missing value", array, at)
            elements[at] = missing.encode()
            continue
        element = _element(value)
        if element is None:
            raise _refusal(cause, array, at)
        elements[at] = element
    return elements.reshape(array.shape)


def _is_missing(value: object) -> bool:
    """Whether it is None, or the NaN that pandas writes for a missing text."""
    return value is None or (isinstance(value, float | np.floating) and bool(value != value))  # noqa: PLR0124


def _element(value: object) -> bytes | None:
    """The bytes of a text element; None where it is not one."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        return None
    try:
        return value.encode()
    except UnicodeEncodeError:
        return None


def _refuse_where(bad: NDArray[np.bool_], array: NDArray[Any], cause: str) -> None:
    if bad.any():
        raise _refusal(cause, array, int(bad.argmax()))


def _refusal(cause: str, array: NDArray[Any], at: int) -> InvalidRequestError:
    """The error for the element at a position of the flattened array."""
    value = array.ravel()[at]
    shown = repr(value.item() if isinstance(value, np.generic) and value.dtype.kind in "biufc" else value)
    place = [int(index) for index in np.unravel_index(at, array.shape)] if array.ndim else [0]
    where = f"row {place[0]}" + (f", column {place[1]}" if len(place) == 2 and array.shape[1] > 1 else "")
    return InvalidRequestError(f"{cause}, got {shown if len(shown) <= 40 else shown[:37] + '...'} at {where}")
