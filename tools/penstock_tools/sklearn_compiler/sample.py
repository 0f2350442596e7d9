"""Sample rows in both forms: as the fitted pipeline takes them, and as raw columns of requests.

Whether a column holds numbers, text or times is decided by what the rows hold; any other is refused. The compiler reads
the kinds of the columns, the proof gives both sides the same rows. `forms` finds the form in which the pipeline takes them.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from penstock.names import did_you_mean
from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import FeatureSpec, StringColumn
from penstock_server.features.table import numbers_of, strings_of
from penstock_tools.sklearn_compiler.forms import Missing, form_of, missing_kind

__all__ = [
    "Kind",
    "Missing",
    "RawColumn",
    "Sample",
    "missing_kind",
    "pipeline_sample",
    "specification_sample",
    "spread",
]

FEW_ROWS: Final = 30
"""Fewer rows are told of: they prove little, and give no baseline to speak of."""

Kind = Literal["number", "text", "time"]
NOT_A_TIME: Final = -(2**63)
"""A missing time among nanoseconds, as numpy and pandas have it."""


@dataclass(frozen=True, slots=True)
class RawColumn:
    """A column before any transformer.

    Attributes:
        name: as requests call it.
        kind: what it holds; booleans and decimals are numbers.
        missing: what a missing value of a request stands for: what the pipeline takes for one (`forms`), else what is
            missing in the sample; empty where neither says anything.
    """

    name: str
    kind: Kind
    missing: frozenset[Missing] = frozenset()

    @property
    def is_text(self) -> bool:
        """Whether it holds text."""
        return self.kind == "text"


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of raw columns.

    Attributes:
        given: what the pipeline takes: a pandas frame with the columns that it was fitted on, a series of texts, or an
            array [rows, columns].
        columns: the raw columns in the pipeline's order.
        table: the same values by the columns' names, each an array [rows].
        places: which rows of the file or frame these are.
        notes: sentences for people about what the pipeline tells apart and requests cannot.
    """

    given: Any
    columns: tuple[RawColumn, ...]
    table: Mapping[str, NDArray[Any]]
    places: NDArray[np.intp]
    notes: tuple[str, ...] = ()

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
        given = self.given.iloc[at] if hasattr(self.given, "iloc") else self.given[at]
        table = {name: values[at] for name, values in self.table.items()}
        return replace(self, given=given, table=table, places=self.places[at])

    def finite(self) -> "Sample":
        """The rows without infinities.

        Raises:
            InvalidInputError: there is none.
        """
        numbers = [numbers_of(self.table, column.name) for column in self.columns if column.kind == "number"]
        is_finite = (
            ~np.any([np.isinf(values) for values in numbers], axis=0) if numbers else np.ones(self.rows, np.bool_)
        )
        if not is_finite.any():
            raise InvalidInputError("every row of the sample has an infinite value, expected at least one without")
        return self.chosen(np.flatnonzero(is_finite))

    def on_the_wire(self) -> dict[str, NDArray[Any]]:
        """The columns as requests hold them: float64, text, or int64 nanoseconds since 1970 in UTC.

        A missing value is NaN, "" or `NOT_A_TIME`.
        """
        return {column.name: _ON_THE_WIRE[column.kind](self.table, column.name) for column in self.columns}

    def as_float64(self) -> Any:
        """`given` with narrower floats widened, as Penstock computes: in float32 scikit-learn would round after each step."""
        if isinstance(self.given, pd.DataFrame):
            narrow = [name for name, dtype in self.given.dtypes.items() if str(dtype) in ("float16", "float32")]
            return self.given.astype(dict.fromkeys(narrow, np.float64))
        if isinstance(self.given, pd.Series):
            return self.given
        return self.given.astype(np.float64) if self.given.dtype.kind == "f" else self.given


def spread(rows: int, at_most: int) -> NDArray[np.intp]:
    """The places of at most `at_most` of the rows, from the first to the last."""
    return np.linspace(0, rows - 1, min(rows, at_most)).astype(np.intp)


def _texts(table: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    texts = np.empty(len(table[name]), object)
    texts[:] = [value.decode() for value in strings_of(table, name)]
    return texts


def _times(table: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.int64]:
    return table[name].astype("datetime64[ns]").astype(np.int64)


_ON_THE_WIRE: Final = {"number": numbers_of, "text": _texts, "time": _times}
_NUMBERS: Final = (bool, int, float, Decimal, np.number, np.bool_)


def pipeline_sample(pipeline: Any, given: Any, dispensable: Container[str] = ()) -> Sample:
    """The sample rows of a pipeline, in the form in which it takes them.

    Args:
        pipeline: fitted; it says what its columns are called, where it knows.
        given: a pandas or polars frame, which may have further columns, an array [rows, columns], or a series or list of
            texts.
        dispensable: columns that the pipeline was fitted on and drops; a frame may lack them.

    Raises:
        InvalidInputError: no rows, a column is not there, or it holds neither numbers, text nor times alone.
    """
    _check_fitted(pipeline)
    rows = _frame_or_array(given)
    if not len(rows):
        raise InvalidInputError("the sample has no rows; expected one at least")
    known = _known_names(pipeline)
    if known is None:
        _check_width(pipeline, rows)
    few = () if len(rows) >= FEW_ROWS else (_few(len(rows)),)
    if not isinstance(rows, pd.DataFrame):
        names = known or [f"feature_{at}" for at in range(rows.shape[1])]
        return replace(_of_columns(rows, names, [rows[:, at] for at in range(rows.shape[1])]), notes=few)
    if known is not None:
        _check_present([name for name in known if name not in dispensable], rows, known)
        rows = rows.reindex(columns=known)
    names = [str(name) for name in rows.columns]
    _check_distinct(names)
    form = form_of(pipeline, rows)
    made = form.rows.to_frame() if isinstance(form.rows, pd.Series) else form.rows
    sample = _of_columns(form.rows, names, [made.iloc[:, at] for at in range(made.shape[1])])
    columns = tuple(
        replace(column, missing=frozenset({form.missing[at]})) if at in form.missing else column
        for at, column in enumerate(sample.columns)
    )
    return replace(sample, columns=columns, notes=(*few, *form.notes))


def specification_sample(features: FeatureSpec, frame: pd.DataFrame) -> Sample:
    """The rows of the columns that a specification reads; the frame may have further ones.

    Raises:
        InvalidInputError: a column is not there or not of its kind.
    """
    names = [column.name for column in features.columns]
    _check_present(names, frame, names)
    rows = frame[names]
    table = {str(name): np.asarray(rows[name]) for name in rows.columns}
    columns = tuple(
        RawColumn(column.name, "text" if isinstance(column, StringColumn) else "number") for column in features.columns
    )
    return Sample(rows, columns, table, np.arange(len(rows)))


def _frame_or_array(given: Any) -> Any:
    """A frame, or an array [rows, columns]; a series or list of texts is a frame of one column."""
    if hasattr(given, "to_pandas"):
        given = given.to_pandas()
    if isinstance(given, pd.Series):
        return given.to_frame("text" if given.name is None else given.name)
    if isinstance(given, pd.DataFrame):
        return given
    first = given[0] if isinstance(given, Sequence) and given else None
    if isinstance(given, Mapping) or isinstance(first, Mapping):
        return pd.DataFrame(given)
    rows = np.asarray(given)
    if rows.ndim == 1 and rows.dtype.kind in "OUT" and (not len(rows) or isinstance(rows[0], str)):
        return pd.DataFrame({"text": rows.astype(object)})
    if rows.ndim != 2:
        raise InvalidInputError(f"the sample has the shape {list(rows.shape)}, expected rows and columns")
    return rows


def _check_fitted(pipeline: Any) -> None:
    """Checks what scikit-learn itself can tell; a class of somebody's own may keep what it learnt under any name."""
    try:
        check_is_fitted(pipeline)
    except NotFittedError as error:
        last = pipeline.steps[-1][1] if hasattr(pipeline, "steps") else pipeline
        if type(last).__module__.startswith("sklearn."):
            raise InvalidInputError(
                f"the {type(pipeline).__name__} is not fitted; call its fit before it is published"
            ) from error
    except TypeError:
        # It is no estimator by scikit-learn's rules, and is asked for its answers later.
        return


def _check_width(pipeline: Any, rows: Any) -> None:
    """Checks the columns of a pipeline that knows only how many there were."""
    expected = getattr(pipeline, "n_features_in_", None)
    if expected == 0:
        # A CatBoost model that was saved says 0, and still has its columns' names.
        expected = len(getattr(pipeline, "feature_names_", ())) or None
    found = rows.shape[1]
    if not isinstance(expected, int | np.integer) or found == expected:
        return
    hint = "; if one of them holds the labels, leave it out: --labels COLUMN does" if found == expected + 1 else ""
    listed = f" ({', '.join(map(str, rows.columns[:20]))})" if isinstance(rows, pd.DataFrame) else ""
    raise InvalidInputError(
        f"the sample has {found} columns{listed}, and the pipeline was fitted on {expected}{hint or '; give these alone'}"
    )


def _few(rows: int) -> str:
    return (
        f"the sample has {rows} row{'s' * (rows != 1)}: what is proven on so few proves little, and drift needs some hundreds; "
        "give the training rows or a part of them"
    )


def _known_names(pipeline: Any) -> list[str] | None:
    names = getattr(pipeline, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _check_present(needed: Sequence[str], rows: pd.DataFrame, known: Sequence[str]) -> None:
    names = [str(name) for name in rows.columns]
    lacking = [name for name in needed if name not in names]
    if lacking:
        others = [name for name in names if name not in known]
        raise InvalidInputError(
            f"the sample lacks column {lacking[0]!r}{did_you_mean(lacking[0], others)}; "
            f"the pipeline was fitted on {', '.join(known)}"
        )


def _check_distinct(names: Sequence[str]) -> None:
    twice = [name for at, name in enumerate(names) if name in names[:at]]
    if twice:
        raise InvalidInputError(f"the sample has column {twice[0]!r} twice; expected each name once")


def _of_columns(given: Any, names: Sequence[str], series: Sequence[Any]) -> Sample:
    if len(names) != len(series):
        raise InvalidInputError(f"the sample has {len(series)} columns, expected {len(names)}: {', '.join(names)}")
    _check_distinct(names)
    arrays = [_array(name, values) for name, values in zip(names, series, strict=True)]
    columns = tuple(
        _column(name, values, is_declared_text=_is_declared_text(each))
        for name, values, each in zip(names, arrays, series, strict=True)
    )
    return Sample(given, columns, dict(zip(names, arrays, strict=True)), np.arange(len(given)))


def _array(name: str, values: Any) -> NDArray[Any]:
    """The column's values; times as datetime64[ns] in UTC.

    Raises:
        InvalidInputError: a time is out of the range of nanoseconds.
    """
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    array = np.asarray(values)
    if array.dtype.kind != "M":
        return array
    in_ns = array.astype("datetime64[ns]")
    # numpy wraps around without a word.
    if not np.array_equal(in_ns.astype(array.dtype), array, equal_nan=True):
        raise InvalidInputError(f"column {name!r} holds times before 1678 or after 2262, which nanoseconds cannot hold")
    return in_ns


def _is_declared_text(values: Any) -> bool:
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return dtype.categories.dtype == object or isinstance(dtype.categories.dtype, pd.StringDtype)
    return isinstance(dtype, pd.StringDtype) or getattr(dtype, "kind", "O") in "UT"


def _column(name: str, values: NDArray[Any], *, is_declared_text: bool) -> RawColumn:
    if values.dtype.kind in "biuf":
        return RawColumn(name, "number", frozenset({Missing.NAN}))
    if values.dtype.kind == "M":
        return RawColumn(name, "time")
    if values.dtype.kind not in "OUT":
        raise InvalidInputError(
            f"column {name!r} holds {values.dtype}, expected numbers, text or times; "
            "make numbers of it before the pipeline"
        )
    kinds = [missing_kind(value) for value in values]
    there = [value for value, kind in zip(values, kinds, strict=True) if kind is None]
    missing = frozenset(kind for kind in kinds if kind is not None)
    if not there:
        return RawColumn(name, "text" if is_declared_text or Missing.EMPTY in missing else "number", missing)
    texts = sum(isinstance(value, str) for value in there)
    if texts in (0, len(there)) and (texts or all(isinstance(value, _NUMBERS) for value in there)):
        return RawColumn(name, "text" if texts else "number", missing)
    odd = next(value for value in there if not isinstance(value, str))
    raise InvalidInputError(f"column {name!r} holds {odd!r} of {type(odd).__name__}, expected numbers or text alone")
