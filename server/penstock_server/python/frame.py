"""Makes of raw blocks the rows that a pipeline takes: the frame, series or array with which it was published.

Blocks are those of `prediction.decode`: float64 [rows, number columns]; int64 for each column of times; elements with their
lengths for each column of text. On the wire a missing number is NaN, a missing time the smallest int64, and a missing text
empty; here they become what the pipeline knew as missing. A column of whole numbers or booleans in which a value is missing
is one of floats, as pandas makes it.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from math import isnan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import split_bytes
from penstock_server.python.description import Column, Description

_NUMPYS_OWN: Final = re.compile(r"bool|u?int\d+|float\d+")
_OBJECTS: Final[dict[str, Callable[[float], Any]]] = {
    "float": lambda value: value,
    # A fraction in a column of whole numbers or booleans stays what it is.
    "int": lambda value: int(value) if value.is_integer() else value,
    "bool": lambda value: bool(value) if value in {0, 1} else value,
    "Decimal": lambda value: Decimal(repr(value)),
}


def rows_of(description: Description, blocks: Sequence[bytes], rows: int) -> Any:
    """The rows as the pipeline takes them.

    Args:
        description: of the pipeline.
        blocks: float64 [rows, numbers], then each column of times, then the elements of each column of text.
        rows: how many there are.
    """
    # A copy, since pipelines may change what they are given; by columns, as frames hold them.
    numbers = np.array(np.frombuffer(blocks[0], np.float64).reshape(rows, len(description.numbers)), order="F")
    if description.container == "frame" and all(column == Column(column.name) for column in description.columns):
        return _all_floats(description, numbers)
    places = {name: at for at, name in enumerate(description.numbers)}
    others = dict(zip((*description.times, *description.strings), blocks[1:], strict=True))
    columns: dict[str, Any] = {}
    for column in description.columns:
        name = column.name
        match column.kind:
            case "number":
                columns[name] = _numbers(column, numbers[:, places[name]])
            case "time":
                columns[name] = _times(column, np.frombuffer(others[name], np.int64).copy())
            case "text":
                columns[name] = _texts(column, others[name], rows)
    if description.container == "array":
        return _array(description, columns, rows)
    import pandas as pd

    if description.container == "series":
        ((name, values),) = columns.items()
        return pd.Series(values, name=name)
    return pd.DataFrame(columns, copy=False)


def _all_floats(description: Description, numbers: NDArray[np.float64]) -> Any:
    """A frame in one piece, which scikit-learn takes over faster than one of single columns."""
    import pandas as pd

    return pd.DataFrame(numbers, columns=list(description.numbers), copy=False)


def _array(description: Description, columns: dict[str, Any], rows: int) -> NDArray[Any]:
    arrays = [np.asarray(values) for values in columns.values()]
    dtype = np.result_type(*arrays) if all(array.dtype.kind in "biuf" for array in arrays) else np.dtype(object)
    matrix = np.empty((rows, len(description.columns)), dtype)
    for at, array in enumerate(arrays):
        matrix[:, at] = array
    return matrix


def _numbers(column: Column, values: NDArray[np.float64]) -> Any:
    if column.dtype == "float64":
        return values
    if column.dtype == "object":
        return _objects(column, values)
    if column.dtype == "category":
        return _categories(column, _objects(column, values).tolist())
    if _NUMPYS_OWN.fullmatch(column.dtype):
        return _plain(np.dtype(column.dtype), values)
    return _nullable(column.dtype, values)


def _plain(dtype: np.dtype[Any], values: NDArray[np.float64]) -> NDArray[Any]:
    """The numbers as numpy's type, or as floats where it cannot hold them: a missing value, or a fraction."""
    if dtype.kind == "f":
        return values.astype(dtype)
    with np.errstate(invalid="ignore"):
        cast = values.astype(dtype)
    return cast if np.array_equal(cast, values) else values


def _nullable(dtype: str, values: NDArray[np.float64]) -> Any:
    """The numbers as a type of pandas' that knows missing values."""
    import pandas as pd

    is_there = ~np.isnan(values)
    objects = np.full(len(values), pd.NA, object)
    is_whole = "int" in dtype.lower()
    if is_whole and not np.array_equal(values[is_there], np.trunc(values[is_there])):
        dtype, is_whole = "Float64", False
    make: Any = bool if dtype.lower().startswith("bool") else int if is_whole else float
    objects[is_there] = [make(value) for value in values[is_there]]
    return pd.array(objects, dtype=dtype)


def _objects(column: Column, values: NDArray[np.float64]) -> NDArray[Any]:
    make, missing = _OBJECTS[column.values], _missing(column)
    objects = np.empty(len(values), object)
    objects[:] = [missing if isnan(value) else make(value) for value in values.tolist()]
    return objects


def _times(column: Column, values: NDArray[np.int64]) -> Any:
    import pandas as pd

    stamps = pd.Series(values.view("datetime64[ns]"))
    if "," not in column.dtype:
        return stamps.astype(column.dtype).array
    # Such as "datetime64[us, Europe/Berlin]".
    return stamps.dt.tz_localize("UTC").astype(column.dtype).array


def _texts(column: Column, block: bytes, rows: int) -> Any:
    texts = np.empty(rows, object)
    decoded = [element.decode("utf-8", "replace") for element in split_bytes(block, rows)]
    if column.missing != "empty":
        missing = _missing(column)
        decoded = [text or missing for text in decoded]
    texts[:] = decoded
    if column.dtype == "category":
        return _categories(column, decoded)
    import pandas as pd

    # The type is given, since pandas 3 makes strings of objects that are all text.
    return pd.Series(texts, dtype=object) if column.dtype == "object" else pd.array(texts, dtype=column.dtype)


def _categories(column: Column, values: list[Any]) -> Any:
    """The values as categories: those of the sample first, then the others, as a frame of the caller's would have them."""
    import pandas as pd

    known = list(column.categories or ())
    others = dict.fromkeys(value for value in values if isinstance(value, str | int | float) and value == value)  # noqa: PLR0124 - NaN is no category
    fresh = [value for value in others if value not in set(known)]
    return pd.Categorical(values, categories=[*known, *fresh], ordered=column.is_ordered)


def _missing(column: Column) -> Any:
    if column.missing == "None":
        return None
    if column.missing == "NA":
        import pandas as pd

        return pd.NA
    return np.nan
