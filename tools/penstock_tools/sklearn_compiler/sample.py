"""Sample rows as both sides take them: the fitted pipeline its own way, Penstock a raw column at a time.

Holds what is known of the raw columns and gives the rows in both forms; `sample_reading` makes it of what a caller has.
The compiler reads the columns' kinds, the proof asks both sides about the same rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.features.table import numbers_of, strings_of


class Missing(Enum):
    """What stands for a value that is not there; on the wire it is NaN among numbers and "" among text."""

    NONE = "None"
    NAN = "NaN"
    NA = "pandas.NA"
    EMPTY = "the empty text"


@dataclass(frozen=True, slots=True)
class RawColumn:
    """A column before any transformer.

    Attributes:
        name: as requests call it.
        is_text: it holds text; else numbers or booleans.
        missing: what stands for a missing value in the sample; empty when none is missing there.
    """

    name: str
    is_text: bool
    missing: frozenset[Missing] = frozenset()


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of raw columns.

    Attributes:
        given: what the pipeline takes: a pandas frame with the columns that it was fitted on, or an array [rows, columns].
        columns: the raw columns in the pipeline's order.
        table: the same values by the columns' names, each an array [rows].
        places: which rows of the file or frame these are.
    """

    given: Any
    columns: tuple[RawColumn, ...]
    table: Mapping[str, NDArray[Any]]
    places: NDArray[np.intp]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.given)

    @property
    def has_names(self) -> bool:
        """Whether the pipeline tells the columns apart by name."""
        return isinstance(self.given, pd.DataFrame)

    def some(self, rows: int) -> "Sample":
        """At most so many of the rows, spread over all of them."""
        return self if self.rows <= rows else self.chosen(spread(self.rows, rows))

    def chosen(self, at: NDArray[np.intp]) -> "Sample":
        """The rows at these places."""
        given = self.given.iloc[at] if self.has_names else self.given[at]
        table = {name: values[at] for name, values in self.table.items()}
        return replace(self, given=given, table=table, places=self.places[at])

    def finite(self) -> "Sample":
        """The rows without infinities.

        Raises:
            InvalidInputError: there is none.
        """
        table = self.on_the_wire()
        numbers = [table[column.name] for column in self.columns if not column.is_text]
        is_finite = (
            ~np.any([np.isinf(values) for values in numbers], axis=0) if numbers else np.ones(self.rows, np.bool_)
        )
        if not is_finite.any():
            raise InvalidInputError("every row of the sample holds an infinity; give one at least without")
        return self.chosen(np.flatnonzero(is_finite))

    def on_the_wire(self) -> dict[str, NDArray[Any]]:
        """The columns as requests hold them: float64 with NaN, or text with "", for what is missing."""
        return {
            column.name: _texts(self.table, column.name) if column.is_text else numbers_of(self.table, column.name)
            for column in self.columns
        }

    def as_float64(self) -> Any:
        """`given` with narrower floats widened, as Penstock computes: in float32 scikit-learn would round after each step."""
        if isinstance(self.given, pd.DataFrame):
            narrow = [name for name, dtype in self.given.dtypes.items() if str(dtype) in ("float16", "float32")]
            return self.given.astype(dict.fromkeys(narrow, np.float64))
        return self.given.astype(np.float64) if self.given.dtype.kind == "f" else self.given


def spread(rows: int, at_most: int) -> NDArray[np.intp]:
    """The places of at most so many of the rows, from the first to the last."""
    return np.linspace(0, rows - 1, min(rows, at_most)).astype(np.intp)


def missing_kind(value: object) -> Missing | None:
    """What kind of missing value this is, None for a value."""
    if value is None:
        return Missing.NONE
    if value is pd.NA or value is pd.NaT:
        return Missing.NA
    if isinstance(value, float | np.floating) and isnan(value):
        return Missing.NAN
    return Missing.EMPTY if isinstance(value, str) and not value else None


def _texts(table: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    texts = np.empty(len(table[name]), object)
    texts[:] = [value.decode() for value in strings_of(table, name)]
    return texts
