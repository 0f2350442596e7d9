"""The rows of a sample in the order of time, by a column that the model need not read.

How much a column changes from one part of the sample to the next is how much it may change without drift. So the order of the
rows matters, and only the publisher knows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from penstock.names import did_you_mean
from penstock_server.errors import InvalidInputError
from penstock_tools.sklearn_compiler.sample import Sample

GIVEN: Final = "time"
"""What times are called that are given without a column."""
_NUMBERS: Final = (int, float, Decimal, np.number)


@dataclass(frozen=True, slots=True, eq=False)
class TimeOrder:
    """The order of a sample's rows in time.

    Attributes:
        column: the column that says it.
        places: the rows from the first to the last; those of one time stay as they are.
    """

    column: str
    places: NDArray[np.intp]

    def among(self, chosen: NDArray[np.intp]) -> NDArray[np.intp]:
        """The places of the chosen rows, in the order of time."""
        rank = np.empty(len(self.places), np.intp)
        rank[self.places] = np.arange(len(self.places))
        found: NDArray[np.intp] = np.argsort(rank[chosen], kind="stable")
        return found


def time_order(sample: Any, times: str | ArrayLike) -> TimeOrder:
    """The order of a sample's rows by their times.

    Args:
        sample: a frame or another table, or an array [rows, columns].
        times: the name of a column of the sample, or the times themselves [rows]: dates or times, ISO 8601 texts of them, or
            numbers that grow with time, such as seconds since 1970.

    Raises:
        InvalidInputError: there is no such column, it holds something else, or a row has no time.
    """
    if isinstance(times, str):
        column, values = times, _column(sample, times)
    else:
        column, values = GIVEN, pd.Series(times)
    if len(values) != len(sample):
        raise InvalidInputError(f"there are {len(values)} times for {len(sample)} rows, expected one for each")
    return TimeOrder(column, np.argsort(moments(column, values).to_numpy(), kind="stable"))


def moments(column: str, values: "pd.Series[Any]") -> "pd.Series[Any]":
    """When each row came, or numbers that grow with that, of one type.

    Args:
        column: what the values are called.
        values: as `time_order` takes them.

    Raises:
        InvalidInputError: they are something else, or a row has no time.
    """
    found = _moments(column, values.reset_index(drop=True))
    missing = np.flatnonzero(found.isna())
    if len(missing):
        raise InvalidInputError(
            f"{len(missing)} of {len(found)} rows have no time in {column!r}, the first of them row {missing[0]}; "
            "leave them out of the sample"
        )
    return found


def _column(sample: Any, name: str) -> "pd.Series[Any]":
    if hasattr(sample, "to_pandas"):
        sample = sample.to_pandas()
    if isinstance(sample, Mapping) or (isinstance(sample, list) and sample and isinstance(sample[0], Mapping)):
        sample = pd.DataFrame(sample)
    if not isinstance(sample, pd.DataFrame):
        raise InvalidInputError(f"the sample has no column {name!r}, nor any name; give the times themselves")
    names = [str(each) for each in sample.columns]
    if name not in names:
        raise InvalidInputError(
            f"the sample has no column {name!r}{did_you_mean(name, names)}; it has {', '.join(names)}"
        )
    return sample.iloc[:, names.index(name)]


def _moments(column: str, values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Values of one type that grow with time; missing where there is no time."""
    if isinstance(values.dtype, pd.DatetimeTZDtype) or values.dtype.kind == "M":
        return values
    if pd.api.types.is_numeric_dtype(values) and values.dtype.kind != "b":
        return values.astype(np.float64).replace([np.inf, -np.inf], np.nan) if values.dtype.kind == "f" else values
    there = values.dropna()
    if all(isinstance(value, _NUMBERS) and not isinstance(value, bool) for value in there):
        return there.astype(np.float64).reindex(values.index)
    odd = next((value for value in there if not isinstance(value, str | date)), None)
    if odd is not None:
        raise _refusal(column, odd)
    try:
        # Days and moments may stand side by side; what has no zone is in UTC.
        return pd.to_datetime(values, utc=True, format="ISO8601")
    except (ValueError, OverflowError) as error:
        raise _refusal(column, next(filter(_is_no_time, there))) from error


def _is_no_time(value: object) -> bool:
    return bool(
        pd.isna(pd.to_datetime(pd.Series([value], dtype=object), utc=True, format="ISO8601", errors="coerce"))[0]
    )


def _refusal(column: str, value: object) -> InvalidInputError:
    return InvalidInputError(
        f"{column!r} holds {value!r}, which is no time; expected ISO 8601 such as 2026-01-31 or 2026-01-31T23:59:00Z, "
        "or numbers such as seconds since 1970"
    )


def in_order(sample: Sample, order: TimeOrder | None) -> Sample:
    """The rows in the order of time; as they are where that is not known."""
    return sample if order is None else sample.chosen(order.among(sample.places))


def without_column(pipeline: Any, sample: Any, name: str) -> Any:
    """The sample as the pipeline takes it: without its times, where the pipeline knows no names and has a column less."""
    is_extra = getattr(pipeline, "feature_names_in_", None) is None and hasattr(sample, "columns")
    if is_extra and getattr(pipeline, "n_features_in_", None) == len(sample.columns) - 1:
        return sample[[each for each in sample.columns if str(each) != name]]
    return sample
