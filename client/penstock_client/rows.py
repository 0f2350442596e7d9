"""Reduces the forms in which a caller may hold rows to two: columns by name, or one array.

It looks at form only; `tensors` checks names and datatypes. Frames are recognised by their methods, so neither pandas
nor polars is imported.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import InvalidRequestError


class Frame(Protocol):
    """What pandas' and polars' frames have in common."""

    @property
    def columns(self) -> Any:
        """The columns' names, in order."""

    def __getitem__(self, name: Any, /) -> Any: ...

    def to_numpy(self, *args: Any, **options: Any) -> Any:
        """The values as one array; tells a frame from other tables, and is never called."""


Rows: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]] | Sequence[Sequence[Any]] | NDArray[Any] | Frame
"""A dict of columns, or of single values for one row; a list of dicts, or of lists; a numpy array; or a frame."""

Columns: TypeAlias = dict[str, object]


def table_of(rows: Rows) -> Columns | NDArray[Any]:
    """The columns by name, each a list or array, or the rows as one array.

    Raises:
        InvalidRequestError: rows in an unknown form, no rows, or rows of different shapes.

    >>> table_of([{"age": 41, "city": "Oslo"}, {"age": 7, "city": None}])
    {'age': [41, 7], 'city': ['Oslo', None]}
    >>> table_of({"age": 41, "city": "Oslo"})
    {'age': [41], 'city': ['Oslo']}
    """
    if isinstance(rows, np.ndarray):
        return rows
    if isinstance(rows, Mapping):
        return _from_columns(rows)
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        return _from_sequence(rows)
    # In this order: polars' lazy frames have `columns` too, and would compute them here.
    if hasattr(rows, "to_numpy") and hasattr(rows, "columns"):
        return _from_frame(rows)
    raise InvalidRequestError(
        "rows are expected as a dict of columns, a list of dicts, a numpy array or a pandas or polars DataFrame, "
        f"got {type(rows).__name__}"
    )


def _from_columns(rows: Mapping[str, object]) -> Columns:
    single = [name for name, values in rows.items() if _is_single(values)]
    if single and len(single) == len(rows):
        return {str(name): [value] for name, value in rows.items()}
    if single:
        raise InvalidRequestError(f"column {single[0]!r} is one value and others are lists; expected all of one kind")
    return {str(name): _column_of(values) for name, values in rows.items()}


def _is_single(values: object) -> bool:
    return isinstance(values, str | bytes) or not hasattr(values, "__len__")


def _from_sequence(rows: Sequence[Any]) -> Columns | NDArray[Any]:
    if not rows:
        raise InvalidRequestError("rows is an empty list; expected at least one row")
    if not isinstance(rows[0], Mapping):
        return _stacked(rows)
    names = tuple(rows[0])
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping) or row.keys() != rows[0].keys():
            got = sorted(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
            raise InvalidRequestError(f"row {at} has the columns {got}, row 0 has {sorted(map(str, names))}")
    return {str(name): [row[name] for row in rows] for name in names}


def _stacked(rows: Sequence[Any]) -> NDArray[Any]:
    try:
        array = np.asarray(rows)
    except ValueError as error:
        raise InvalidRequestError("rows is a list of lists of unlike lengths; expected one length") from error
    if array.ndim < 2:
        raise InvalidRequestError(f"rows is a list of {type(rows[0]).__name__}; expected a list of dicts or of lists")
    return array if array.dtype.kind in "biuf" else np.asarray(rows, dtype=object)


def _from_frame(frame: Frame) -> Columns:
    names = list(frame.columns)
    repeated = next(_repeated(names), None)
    if repeated is not None:
        raise InvalidRequestError(f"the frame has more than one column {repeated!r}; expected each name once")
    return {str(name): _column_of(frame[name]) for name in names}


def _repeated(names: Iterable[object]) -> Iterator[str]:
    seen: set[str] = set()
    for name in map(str, names):
        if name in seen:
            yield name
        seen.add(name)


def _column_of(values: object) -> object:
    """A column as a list or array; a series becomes an array, with None for its missing values."""
    if isinstance(values, list | np.ndarray) or not hasattr(values, "to_numpy"):
        return values
    array = np.asarray(values.to_numpy())
    if array.dtype.kind != "O":
        return array
    is_missing = getattr(values, "isna", None) or getattr(values, "is_null", None)
    if is_missing is not None:
        array = array.copy()
        array[np.asarray(is_missing(), dtype=bool)] = None
    return array
