"""Reduces the forms in which a caller may hold rows to three: columns by name, columns in order, or one array.

It looks at form only; `tensors` checks names and `values` datatypes. Frames are recognised by their methods, so neither
pandas, polars nor pyarrow is imported. No value is changed here: numpy would round the integers of a column in which others
are missing or fractions, so such a column becomes one of objects.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock_client.errors import InvalidRequestError
from penstock_client.values import holds_only_floats


class Frame(Protocol):
    """What pandas' and polars' frames have in common."""

    @property
    def columns(self) -> Any:
        """The columns' names, in order."""

    def __getitem__(self, name: Any, /) -> Any: ...

    def to_numpy(self, *args: Any, **options: Any) -> Any:
        """The values as one array; tells a frame from other tables, and is never called."""


class ArrowTable(Protocol):
    """What pyarrow's tables and record batches have in common."""

    @property
    def column_names(self) -> list[str]:
        """The columns' names, in order."""

    def column(self, i: int, /) -> Any:
        """The column at this position."""


Rows: TypeAlias = (
    Mapping[str, Any] | Sequence[Mapping[str, Any]] | Sequence[Sequence[Any]] | NDArray[Any] | Frame | ArrowTable
)
"""A dict of columns, or of single values for one row; a list of dicts, or of lists; a numpy array; or a table."""

Columns: TypeAlias = dict[str, object]
InOrder: TypeAlias = list[object]
"""Columns without names."""


def table_of(rows: Rows) -> Columns | InOrder | NDArray[Any]:
    """The columns, each a list or array, or the rows as one array.

    Raises:
        InvalidRequestError: rows in an unknown form, no rows, or rows of different shapes.

    >>> table_of([{"age": 41, "city": "Oslo"}, {"age": 7, "city": None}])
    {'age': [41, 7], 'city': ['Oslo', None]}
    >>> table_of({"age": 41, "city": "Oslo"})
    {'age': [41], 'city': ['Oslo']}
    """
    if isinstance(rows, np.ndarray):
        return _from_array(rows)
    if isinstance(rows, Mapping):
        return _from_columns(rows)
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        return _from_sequence(rows)
    # In this order: polars' lazy frames have `columns` too, and would compute them here.
    if hasattr(rows, "to_numpy") and hasattr(rows, "columns"):
        # Two columns of one name are found before one is asked for: pandas would give both at once.
        frame: Any = rows
        _unique(frame.columns)
        return _by_name(list(frame.columns), [frame[name] for name in frame.columns])
    if hasattr(rows, "column_names") and hasattr(rows, "column"):
        return _by_name(rows.column_names, [rows.column(at) for at in range(len(rows.column_names))])
    raise InvalidRequestError(
        "rows are expected as a dict of columns, a list of dicts, a numpy array, a pandas or polars DataFrame or a "
        f"pyarrow Table, got {type(rows).__name__}"
    )


def _from_array(array: NDArray[Any]) -> Columns | NDArray[Any]:
    if array.dtype.names:
        return {name: column_of(array[name]) for name in array.dtype.names}
    whole: NDArray[Any] = np.asarray(column_of(array))
    return whole


def _from_columns(rows: Mapping[Any, object]) -> Columns | InOrder:
    single = [name for name, values in rows.items() if _is_single(values)]
    if single and len(single) == len(rows):
        return _by_name(list(rows), [[value] for value in rows.values()])
    if single:
        raise InvalidRequestError(f"column {single[0]!r} is one value and others are lists; expected all of one kind")
    return _by_name(list(rows), list(rows.values()))


def _is_single(values: object) -> bool:
    return isinstance(values, str | bytes | bytearray) or not hasattr(values, "__len__")


def _from_sequence(rows: Sequence[Any]) -> Columns | InOrder | NDArray[Any]:
    if not rows:
        raise InvalidRequestError("rows is an empty list; expected at least one row")
    if hasattr(rows[0], "_asdict"):
        # Named tuples, such as those of a frame's `itertuples`.
        rows = [row._asdict() if hasattr(row, "_asdict") else row for row in rows]
    if not isinstance(rows[0], Mapping):
        return _stacked(rows)
    names = tuple(rows[0])
    for at, row in enumerate(rows):
        if not isinstance(row, Mapping) or row.keys() != rows[0].keys():
            got = sorted(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
            raise InvalidRequestError(f"row {at} has the columns {got}, row 0 has {sorted(map(str, names))}")
    return _by_name(names, [[row[name] for row in rows] for name in names])


def _stacked(rows: Sequence[Any]) -> NDArray[Any]:
    try:
        array = np.asarray(rows)
    except ValueError as error:
        raise InvalidRequestError("rows is a list of lists of unlike lengths; expected one length") from error
    if array.ndim < 2:
        raise InvalidRequestError(f"rows is a list of {type(rows[0]).__name__}; expected a list of dicts or of lists")
    is_exact = array.dtype.kind in "biu" or (array.dtype.kind == "f" and holds_only_floats(rows))
    return array if is_exact else np.asarray(rows, dtype=object)


def _by_name(names: Sequence[object], columns: Sequence[object]) -> Columns | InOrder:
    """The columns by name, or in order if their names only count them, as those of a frame made from an array do."""
    values = [column_of(column) for column in columns]
    if names and all(type(name) is int and name == at for at, name in enumerate(names)):
        return values
    return dict(zip(_unique(names), values, strict=True))


def _unique(names: Iterable[object]) -> list[str]:
    """The names as text.

    Raises:
        InvalidRequestError: one is there twice.
    """
    seen: dict[str, None] = {}
    for name in map(str, names):
        if name in seen:
            raise InvalidRequestError(f"the rows have more than one column {name!r}; expected each name once")
        seen[name] = None
    return list(seen)


def column_of(values: Any) -> object:
    """A column as a list or array, exactly as it was, with None for what a series or a mask says is missing."""
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        return _with_none(values.data.astype(object), mask) if mask.any() else values.data
    if isinstance(values, list | np.ndarray):
        return values
    if hasattr(values, "to_pylist"):  # pyarrow
        array = np.asarray(values) if not getattr(values, "null_count", 1) else None
        return array if array is not None and array.dtype.kind in "biuf" else values.to_pylist()
    if not hasattr(values, "to_numpy"):
        return values
    array = np.asarray(values.to_numpy())
    is_missing = getattr(values, "isna", None) or getattr(values, "is_null", None)
    if array.dtype.kind not in "Of" or is_missing is None or (array.dtype.kind == "f" and _holds_floats(values)):
        return array
    is_none = np.asarray(is_missing(), dtype=bool)
    if array.dtype.kind == "f":
        # Of whole numbers, of which some are missing: the frame's library has rounded the others.
        array = np.fromiter(values, dtype=object, count=len(array)) if is_none.any() else array
    return _with_none(array, is_none) if is_none.any() else array


def _holds_floats(series: Any) -> bool:
    """Whether the series itself is one of floats, in pandas' or polars' terms."""
    dtype = getattr(series, "dtype", None)
    is_float = getattr(dtype, "is_float", None)
    return bool(is_float()) if callable(is_float) else getattr(dtype, "kind", "") == "f"


def _with_none(array: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    array = array.copy()
    array[mask] = None
    return array
