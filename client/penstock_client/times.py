"""Writes times as the whole numbers that a model declares: nanoseconds since 1970-01-01T00:00 in UTC.

`tensors` calls it for a column whose metadata says that it holds times. `rows` has kept numpy's times as they are, and
pandas' and polars' times with a zone are objects by then. A time without a zone is taken as UTC, as pandas and numpy do.
"""

import datetime as dt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import InvalidRequestError

MISSING: Final = -(2**63)
"""A missing time, as numpy has it."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_YEARS: Final = (np.datetime64("1677-09-22"), np.datetime64("2262-04-11"))


def nanoseconds(values: object, label: str) -> NDArray[np.int64] | object:
    """Times as int64, the smallest for a missing one; whole numbers are nanoseconds already, and stay as they are.

    Args:
        values: a list or array of times: numpy's, pandas', Python's datetimes and dates, or ISO texts; None is missing.
        label: what an error calls the values.

    Raises:
        InvalidRequestError: a value that is no time, or beyond what nanoseconds can hold, named with its row.

    >>> nanoseconds(["1970-01-01T00:00:01", None], "column 'at'").tolist()
    [1000000000, -9223372036854775808]
    """
    array = np.asarray(values, dtype=None if isinstance(values, np.ndarray) else object)
    if array.dtype.kind == "M":
        return _from_numpy(array, label)
    if array.dtype.kind in "iu":
        return array
    made = [_nanoseconds(value, row, label) for row, value in enumerate(array.ravel().tolist())]
    return np.array(made, np.int64).reshape(array.shape)


def _from_numpy(array: NDArray[Any], label: str) -> NDArray[np.int64]:
    is_outside = (array < _YEARS[0]) | (array > _YEARS[1])
    if is_outside.any():
        at = int(is_outside.argmax())
        raise _refusal(label, array.ravel()[at], at)
    return array.astype("datetime64[ns]").astype(np.int64)


def _nanoseconds(value: Any, row: int, label: str) -> int:
    if value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NaTType", "NAType"):  # noqa: PLR0124
        return MISSING
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, np.datetime64):
        return int(_from_numpy(np.array([value]), label)[0])
    if isinstance(value, str):
        value = _parsed(value, row, label)
    if isinstance(value, dt.datetime):
        at = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        since = at - _EPOCH
        # pandas' times have nanoseconds beyond Python's microseconds.
        exact = (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
        exact += int(getattr(value, "nanosecond", 0)) if not hasattr(since, "nanoseconds") else int(since.nanoseconds)
    elif isinstance(value, dt.date):
        exact = (value - _EPOCH.date()).days * 86400 * 10**9
    else:
        raise _refusal(label, value, row)
    if not MISSING < exact < 2**63:
        raise _refusal(label, value, row)
    return exact


def _parsed(text: str, row: int, label: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise _refusal(label, text, row) from error


def _refusal(label: str, value: object, row: int) -> InvalidRequestError:
    shown = repr(value)
    return InvalidRequestError(
        f"{label} takes times between 1677 and 2262, as datetimes, ISO texts or nanoseconds since 1970, "
        f"got {shown if len(shown) <= 40 else shown[:37] + '...'} at row {row}"
    )
