"""Raw columns of training data from numpy, pandas, polars or lists, as the pipeline takes them.

Numbers become float64, strings bytes, times int64 nanoseconds since 1970 in UTC. A missing value is None, NaN, NaT or
pandas' NA; it becomes NaN among numbers, the empty string among strings, and the smallest int64 among times.
`drift.fit` and `Pipeline.transform` use it; requests do not.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isnan
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_server.errors import InvalidInputError

Table = Mapping[str, ArrayLike]
"""Columns by name: numpy arrays, pandas or polars columns, lists; a pandas or polars frame is a table too."""


_NAT: Final = np.iinfo(np.int64).min


def row_count(table: Table, names: Iterable[str]) -> int:
    """The rows that all the named columns have.

    Raises:
        InvalidInputError: a column is missing, does not have one axis, or differs in length from the first.
    """
    lengths = {name: len(_array(table, name)) for name in names}
    rows = next(iter(lengths.values()), 0)
    for name, length in lengths.items():
        if length != rows:
            raise InvalidInputError(
                f"column {name!r} has {length} rows, expected {rows} as {next(iter(lengths))!r} has"
            )
    return rows


def numbers_of(table: Table, name: str) -> NDArray[np.float64]:
    """The column as float64 [rows], NaN where it is missing; integers beyond 2**53 are rounded.

    Raises:
        InvalidInputError: it holds something other than numbers.
    """
    values = _array(table, name)
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype.kind != "O":
        raise InvalidInputError(f"column {name!r} holds {values.dtype}, expected numbers")
    return np.array([np.nan if _is_missing(value) else _number(value, name) for value in values.tolist()], np.float64)


def times_of(table: Table, name: str) -> NDArray[np.int64]:
    """The column as int64 nanoseconds since 1970-01-01 in UTC [rows]; a time without a zone counts as UTC.

    Raises:
        InvalidInputError: it holds something other than times or int64 nanoseconds, or a time before 1677 or after 2262.
    """
    values = _array(table, name)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "O":
        # numpy takes the finest unit among them.
        values = np.array([_moment(value, name) for value in values.tolist()] or [], "M8")
    if values.dtype.kind != "M":
        raise InvalidInputError(f"column {name!r} holds {values.dtype}, expected times")
    nanoseconds = values.astype("M8[ns]")
    is_lost = nanoseconds.astype(values.dtype) != values
    is_lost &= ~np.isnat(values)
    if is_lost.any():
        raise InvalidInputError(
            f"column {name!r} holds {values[int(is_lost.argmax())]}, expected times from 1677-09-22 to 2262-04-11"
        )
    return nanoseconds.view(np.int64)


def seconds_of(nanoseconds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Times as seconds since 1970, as drift counts them: NaN where one is missing."""
    found: NDArray[np.float64] = np.where(nanoseconds == _NAT, np.nan, nanoseconds / 1e9)
    return found


def strings_of(table: Table, name: str) -> list[bytes]:
    """The column's values as UTF-8, empty where it is missing.

    Raises:
        InvalidInputError: it holds something other than text or bytes.
    """
    values = _array(table, name)
    if values.dtype.kind in "biufcmM":
        raise InvalidInputError(f"column {name!r} holds {values.dtype}, expected strings")
    return [b"" if _is_missing(value) else _bytes(value, name) for value in values.tolist()]


def _array(table: Table, name: str) -> NDArray[Any]:
    # A frame's own list of columns, if it has one: iterating a polars frame gives the columns themselves.
    names = [*getattr(table, "columns", table)]
    if name not in names:
        raise InvalidInputError(f"the table has no column {name!r}; it has {', '.join(map(str, names))}")
    column = table[name]
    # Without `object`, numpy turns a NaN in a list of strings into the string "nan".
    values = np.asarray(column, dtype=object if isinstance(column, (list, tuple)) else None)
    if values.ndim != 1:
        raise InvalidInputError(f"column {name!r} has the shape {list(values.shape)}, expected one axis")
    return values


def _is_missing(value: object) -> bool:
    # Comparing with pandas' NA gives NA; its class name identifies it without importing pandas.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and isnan(value)


def _moment(value: Any, name: str) -> np.datetime64:
    if _is_missing(value):
        return np.datetime64("NaT")
    if hasattr(value, "to_datetime64"):
        # pandas' own, to the nanosecond; one with a zone gives UTC.
        return np.datetime64(value.to_datetime64())
    if isinstance(value, datetime):
        return np.datetime64(value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value)
    if isinstance(value, (date, np.datetime64)):
        return np.datetime64(value)
    raise InvalidInputError(f"column {name!r} holds {value!r}, expected a time")


def _number(value: object, name: str) -> float:
    if isinstance(value, (int, float, Decimal, np.number, np.bool_)):
        return float(value)
    raise InvalidInputError(f"column {name!r} holds {value!r}, expected a number")


def _bytes(value: object, name: str) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        if isinstance(value, str):
            return value.encode()
    except UnicodeEncodeError:
        pass
    raise InvalidInputError(f"column {name!r} holds {value!r}, expected text that can be written as UTF-8")
