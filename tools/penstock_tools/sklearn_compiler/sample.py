"""Sample rows in both forms: as the fitted pipeline takes them, and as raw columns of requests.

Whether a column holds numbers or text is decided by what the rows hold; a column that is neither is refused. The compiler
reads the kinds of the columns, the proof gives both sides the same rows.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import isnan
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import FeatureSpec, StringColumn
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
        """Whether the pipeline knows its columns by name."""
        return isinstance(self.given, pd.DataFrame)

    def some(self, rows: int) -> "Sample":
        """At most `rows` of the rows, spread over all of them."""
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
            raise InvalidInputError("every row of the sample has an infinite value, expected at least one without")
        return self.chosen(np.flatnonzero(is_finite))

    def on_the_wire(self) -> dict[str, NDArray[Any]]:
        """The columns as requests hold them: float64, or text. A missing value is NaN or ""."""
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
    """The places of at most `at_most` of the rows, from the first to the last."""
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


_NUMBERS: Final = (bool, int, float, np.number, np.bool_)


def pipeline_sample(pipeline: Any, given: Any, dispensable: Container[str] = ()) -> Sample:
    """The sample rows of a pipeline.

    Args:
        pipeline: fitted; it says what its columns are called, where it knows.
        given: a pandas or polars frame, which may have further columns, or an array [rows, columns].
        dispensable: columns that the pipeline was fitted on and drops; a frame may lack them.

    Raises:
        InvalidInputError: no rows, a column is not there, or it holds neither numbers nor text alone.
    """
    rows = _frame_or_array(given)
    if not len(rows):
        raise InvalidInputError("the sample has no rows; expected one at least")
    known = _known_names(pipeline)
    if isinstance(rows, pd.DataFrame):
        if known is not None:
            _present([name for name in known if name not in dispensable], rows)
            rows = rows.reindex(columns=known)
        names = [str(name) for name in rows.columns]
        arrays = [np.asarray(rows.iloc[:, at]) for at in range(rows.shape[1])]
        is_declared_text = [isinstance(dtype, pd.StringDtype | pd.CategoricalDtype) for dtype in rows.dtypes]
    else:
        names = known or [f"feature_{at}" for at in range(rows.shape[1])]
        arrays = [rows[:, at] for at in range(rows.shape[1])]
        is_declared_text = [rows.dtype.kind in "UT"] * len(arrays)
    if len(names) != len(arrays):
        raise InvalidInputError(f"the sample has {len(arrays)} columns, expected {len(names)}: {', '.join(names)}")
    _check_distinct(names)
    columns = tuple(map(_column, names, arrays, is_declared_text))
    return Sample(rows, columns, dict(zip(names, arrays, strict=True)), np.arange(len(rows)))


def specification_sample(features: FeatureSpec, frame: pd.DataFrame) -> Sample:
    """The rows of the columns that a specification reads; the frame may have further ones.

    Raises:
        InvalidInputError: a column is not there or not of its kind.
    """
    rows = frame[_present([column.name for column in features.columns], frame)]
    table = {str(name): np.asarray(rows[name]) for name in rows.columns}
    columns = tuple(RawColumn(column.name, isinstance(column, StringColumn)) for column in features.columns)
    return Sample(rows, columns, table, np.arange(len(rows)))


def _frame_or_array(given: Any) -> Any:
    if hasattr(given, "to_pandas"):
        given = given.to_pandas()
    if isinstance(given, pd.DataFrame):
        return given
    if isinstance(given, Mapping):
        return pd.DataFrame(given)
    rows = np.asarray(given)
    if rows.ndim != 2:
        raise InvalidInputError(f"the sample has the shape {list(rows.shape)}, expected rows and columns")
    return rows


def _known_names(pipeline: Any) -> list[str] | None:
    names = getattr(pipeline, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _present(known: Sequence[str], rows: pd.DataFrame) -> list[str]:
    lacking = [name for name in known if name not in rows.columns]
    if lacking:
        raise InvalidInputError(
            f"the sample lacks column {lacking[0]!r}; the pipeline was fitted on {', '.join(known)}"
        )
    return list(known)


def _check_distinct(names: Sequence[str]) -> None:
    twice = [name for at, name in enumerate(names) if name in names[:at]]
    if twice:
        raise InvalidInputError(f"the sample has column {twice[0]!r} twice; expected each name once")


def _column(name: str, values: NDArray[Any], is_declared_text: bool) -> RawColumn:
    if values.dtype.kind in "biuf":
        return RawColumn(name, is_text=False, missing=frozenset({Missing.NAN}))
    if values.dtype.kind not in "OUT":
        raise InvalidInputError(
            f"column {name!r} holds {values.dtype}, expected numbers or text; make numbers of it before the pipeline"
        )
    kinds = [missing_kind(value) for value in values]
    there = [value for value, kind in zip(values, kinds, strict=True) if kind is None]
    missing = frozenset(kind for kind in kinds if kind is not None)
    if not there:
        return RawColumn(name, is_declared_text or Missing.EMPTY in missing, missing)
    texts = sum(isinstance(value, str) for value in there)
    if texts in (0, len(there)) and (texts or all(isinstance(value, _NUMBERS) for value in there)):
        return RawColumn(name, texts > 0, missing)
    odd = next(value for value in there if not isinstance(value, str))
    raise InvalidInputError(f"column {name!r} holds {odd!r} of {type(odd).__name__}, expected numbers or text alone")
