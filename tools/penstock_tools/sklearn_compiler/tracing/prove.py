"""Proves that a traced function gives what its record gives: on sample rows, on edges, and on one row alone.

Edges are missing values, zeros, negative, infinite and huge numbers, the extremes of each column, other texts, and far times;
each stands in sample rows, one column at a time, and some columns together. Where the function itself raises, the record
may give anything: the pipeline refuses such a row.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from penstock.tensors import join_bytes
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import Column, FeatureSpec, NumberColumn, StringColumn, Take, TimeColumn
from penstock_server.features.table import numbers_of, strings_of, times_of
from penstock_tools.sklearn_compiler.columns import Coded, Numbers, Part, Parts, Strings, Times, numbers
from penstock_tools.sklearn_compiler.forms import Missing, missing_kind
from penstock_tools.sklearn_compiler.tracing.assemble import parts_of
from penstock_tools.sklearn_compiler.tracing.trace import NotTraced, Traced
from penstock_tools.sklearn_compiler.tracing.values import Coded as CodedValue
from penstock_tools.sklearn_compiler.tracing.values import FromNumber, Number, Text, call

BASE_ROWS: Final = 60
TOGETHER: Final = 120
"""Rows in which several columns have edges."""
ONE_BY_ONE: Final = 300
"""The most rows that are given to the function one by one, to find those for which it raises."""
TOLERANCE: Final = 1e-9
TOLERANCE_SINGLE: Final = 1e-6

_NUMBERS: Final = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    1e-300,
    1e6,
    -1e6,
    1e18,
    -1e18,
    1e300,
    -1e300,
    np.inf,
    -np.inf,
    np.nan,
)
_WHOLE: Final = (0, 1, -1, 2, 7, 1000, -1000, 1_000_000)
_TIMES: Final = (
    "1970-01-01",
    "1969-12-31T23:59:59.999999999",
    "2000-02-29T12:30:45.123456789",
    "1900-03-01",
    "2199-12-31",
)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows for the function, and which of them are the sample's own."""

    given: Any
    own: int


def prove(function: Callable[[Any], Any], given: Any, made: Traced, parts: Parts) -> tuple[Number, ...]:
    """Compares the function with its record.

    Args:
        function: takes rows and gives rows.
        given: sample rows as they reach it.
        made: its record, traced over `local_parts`.
        parts: these parts.

    Returns:
        What each row must fulfil beside the record's own: where the function does something else with missing values that
        the sample does not have, a row that has one is refused.

    Raises:
        NotTraced: they differ; says in which column and for what.
    """
    _check_single_rows(function, given)
    try:
        _check(function, given, made, parts)
    except NotTraced:
        further = _never_missing(given, parts)
        if not further:
            raise
        first = sys.exception()
        try:
            _check(function, given, replace(made, required=(*made.required, *further)), parts)
        except NotTraced:
            raise first from None  # type: ignore[misc]
        return further
    return ()


def _check(function: Callable[[Any], Any], given: Any, made: Traced, parts: Parts) -> None:
    record = _Record(parts_of(made, parts), parts, made)
    for rows in _rows_to_try(given):
        table = _table(rows.given, parts)
        got, refused = record.run(table, rows.given.shape[0])
        if refused[: rows.own].any():
            raise NotTraced("its function makes whole numbers of missing ones, which pandas refuses")
        # A request with such a row is refused whole, so that the function never sees it.
        kept = np.flatnonzero(~refused)
        at, columns = _expected(function, _chosen(rows.given, kept))
        if not len(at) or (rows.own and not (kept[at] < rows.own).any()):
            raise NotTraced("its function raises for every row of the sample")
        _compare(record, rows, table, got, kept[at], columns)


def _never_missing(given: Any, parts: Parts) -> tuple[Number, ...]:
    """That each column of numbers which is complete in the sample is so in a request."""
    conditions = []
    for at, part in enumerate(parts):
        if isinstance(part, Numbers) and not pd.isna(np.asarray(_column_of(given, at), object)).any():
            source = Number("source", source=FromNumber(at))
            conditions.append(call("logical_not", call("isnan", source)))
    return tuple(conditions)


def local_parts(parts: Parts) -> Parts:
    """The columns that reach a function, as raw columns of their own: its proof needs nothing that is before it."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Strings):
            own = part.becomes.get("")
            missing = own if isinstance(own, frozenset) else frozenset(Missing)
            found.append(Strings(f"c{len(found)}", {"": missing}))
        elif isinstance(part, Times):
            found.append(Times(f"c{len(found)}"))
        else:
            found += [Numbers(Take((f"c{len(found) + at}",))) for at in range(part.width)]
    return tuple(found)


class _Record:
    """The record, ready to run on tables of local columns."""

    def __init__(self, outputs: Parts, parts: Parts, made: Traced) -> None:
        self.parts = parts
        self.made = made
        self.columns: list[Any] = []
        blocks: list[Part] = []
        width = 0
        for part in outputs:
            if isinstance(part, Numbers | Coded):
                # A coded text is one column of codes.
                self.columns += range(width, width := width + part.width)
                blocks.append(Numbers(part.block))
            else:
                self.columns.append(part)
        self.pipeline = Pipeline(FeatureSpec(tuple(map(_column, parts)), numbers(blocks), "FP64")) if blocks else None

    def run(self, table: dict[str, Any], rows: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The numbers of all number columns, and which rows are refused."""
        if self.pipeline is None:
            return np.empty((rows, 0)), np.zeros(rows, np.bool_)
        pipeline = self.pipeline
        matrix = np.empty((rows, len(pipeline.numbers)))
        for at, name in enumerate(pipeline.numbers):
            matrix[:, at] = numbers_of(table, name)
        others = [times_of(table, name).tobytes() for name in pipeline.times]
        others += [join_bytes(strings_of(table, name)) for name in pipeline.strings]
        out = np.empty((rows, pipeline.width))
        refusal = pipeline.run(matrix, others, rows, out, None)
        return out, np.zeros(rows, np.bool_) if refusal is None else refusal.found >= 0


def _column(part: Part) -> Column:
    if isinstance(part, Strings):
        return StringColumn(part.column)
    if isinstance(part, Times):
        return TimeColumn(part.column)
    assert isinstance(part, Numbers)
    assert isinstance(part.block, Take)
    return NumberColumn(part.block.columns[0])


def _table(given: Any, parts: Parts) -> dict[str, Any]:
    """The rows' columns, by the names of the local ones."""
    return {_column(part).name: _column_of(given, at) for at, part in enumerate(parts)}


def _column_of(given: Any, at: int) -> Any:
    if isinstance(given, pd.DataFrame):
        column = given.iloc[:, at]
        return column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
    if isinstance(given, pd.Series):
        return given
    dense = given.toarray() if sparse.issparse(given) else np.asarray(given)
    return dense if dense.ndim == 1 else dense[:, at]


def _expected(function: Callable[[Any], Any], given: Any) -> tuple[NDArray[np.intp], list[NDArray[Any]]]:
    """Which rows the function takes, and the columns that it gives for them."""
    rows = given.shape[0]
    with suppress(Exception):  # own code may raise anything
        return np.arange(rows), _columns_of(_called(function, given))
    at, found = [], []
    for row in np.linspace(0, rows - 1, min(rows, ONE_BY_ONE)).astype(int):
        try:
            found.append(_columns_of(_called(function, _chosen(given, [row]))))
        except Exception:  # noqa: BLE001, S112
            continue
        at.append(row)
    if not found:
        return np.empty(0, np.intp), []
    return np.array(at), [np.concatenate(each) for each in zip(*found, strict=True)]


def _called(function: Callable[[Any], Any], given: Any) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return function(given.copy())


def _chosen(given: Any, at: Any) -> Any:
    return given.iloc[at] if hasattr(given, "iloc") else given[at]


def _columns_of(made: Any) -> list[NDArray[Any]]:
    if isinstance(made, pd.DataFrame):
        return [_plain(made.iloc[:, at]) for at in range(made.shape[1])]
    if isinstance(made, pd.Series):
        return [_plain(made)]
    dense = np.asarray(made.toarray() if sparse.issparse(made) else made)
    return [dense] if dense.ndim == 1 else list(dense.reshape(len(dense), -1).T)


def _plain(column: Any) -> NDArray[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype | pd.StringDtype):
        column = column.astype(object)
    return np.asarray(column)


def _compare(  # noqa: PLR0917 - both sides
    record: _Record,
    rows: _Rows,
    table: dict[str, Any],
    got: NDArray[np.float64],
    kept: NDArray[np.intp],
    columns: Sequence[NDArray[Any]],
) -> None:
    outputs = record.made.columns
    if len(columns) != len(outputs):
        raise NotTraced(
            f"its function gives {len(columns)} columns for some rows, and {len(outputs)} where it was followed"
        )
    names = record.made.names or tuple(map(str, range(len(outputs))))
    for name, value, place, expected in zip(names, outputs, record.columns, columns, strict=True):
        if isinstance(value, Number):
            difference = _first_difference(got[kept, place], expected, value.kind == "single", kept < rows.own)
        elif isinstance(value, CodedValue):
            difference = _first_chosen(got[kept, place], value.texts, expected)
        elif isinstance(value, Text):
            difference = _first_text(place, table, value, expected, kept)
        else:
            difference = _first_time(table[place.column], expected, kept)
        if difference is not None:
            row, found, wanted = difference
            shown = _shown(rows.given, kept[row])
            raise NotTraced(
                f"its function is not what was followed: column {name!r} is {wanted} and not {found} for {shown}"
            )


def _shown(given: Any, row: int) -> str:
    values = (
        list(given.iloc[row].items())[:6]
        if isinstance(given, pd.DataFrame)
        else [given.iloc[row] if hasattr(given, "iloc") else given[row]]
    )
    return ", ".join(f"{pair[0]}={pair[1]!r}" if isinstance(pair, tuple) else repr(pair) for pair in values)[:200]


def _first_difference(
    got: NDArray[np.float64], given: NDArray[Any], is_single: bool, is_own: NDArray[np.bool_]
) -> tuple[int, Any, Any] | None:
    try:
        expected = numbers_of({"x": given}, "x")
    except Exception:  # noqa: BLE001 - whatever the function gives
        return 0, got[0] if len(got) else None, given[0]
    with np.errstate(all="ignore"):
        own = np.abs(expected[is_own & np.isfinite(expected)])
        scale = own.max(initial=0.0) * 1e-3
        tolerance = TOLERANCE_SINGLE if is_single else TOLERANCE
        is_near = np.abs(got - expected) <= tolerance * np.maximum(np.abs(expected), scale)
    is_same = (got == expected) | (np.isnan(got) & np.isnan(expected)) | (is_near & np.isfinite(expected))
    if is_same.all():
        return None
    row = int(np.argmin(is_same))
    return row, float(got[row]), float(expected[row])


def _first_text(
    part: Strings, table: dict[str, Any], value: Text, expected: NDArray[Any], at: NDArray[np.intp]
) -> tuple[int, Any, Any] | None:
    wire = [text.decode() for text in strings_of(table, part.column)]
    for row, place in enumerate(at):
        text = wire[place]
        for function in value.prepare:
            text = getattr(text, function)()
        stands_for = value.becomes.get(text, text)
        wanted = expected[row]
        is_missing = missing_kind(wanted) is not None
        if (isinstance(stands_for, frozenset) and not is_missing) or (
            isinstance(stands_for, str) and stands_for != wanted
        ):
            return row, stands_for, wanted
    return None


def _first_chosen(
    codes: NDArray[np.float64], texts: Sequence[str], expected: NDArray[Any]
) -> tuple[int, Any, Any] | None:
    for row, (code, wanted) in enumerate(zip(codes.tolist(), expected, strict=True)):
        found = texts[int(code)] if code in range(len(texts)) else None
        if found != (None if missing_kind(wanted) is not None else wanted):
            return row, found, wanted
    return None


def _first_time(given: Any, expected: NDArray[Any], at: NDArray[np.intp]) -> tuple[int, Any, Any] | None:
    got, wanted = times_of({"x": given}, "x")[at], times_of({"x": expected}, "x")
    differs = np.flatnonzero(got != wanted)
    return None if not len(differs) else (int(differs[0]), got[differs[0]], wanted[differs[0]])


def _check_single_rows(function: Callable[[Any], Any], given: Any) -> None:
    """A row alone must get what it gets among others."""
    try:
        together = _columns_of(_called(function, given))
    except Exception:  # noqa: BLE001
        return
    for row in sorted({0, given.shape[0] // 2, given.shape[0] - 1}):
        try:
            alone = _columns_of(_called(function, _chosen(given, [row])))
        except Exception as error:
            raise NotTraced(f"its function raises for one row alone: {type(error).__name__}: {error}") from error
        for one, many in zip(alone, together, strict=False):
            if len(alone) != len(together) or not _are_alike(one[0], many[row]):
                raise NotTraced("its function gives a row alone something else than among others")


def _are_alike(one: Any, other: Any) -> bool:
    if missing_kind(one) is not None or missing_kind(other) is not None or pd.isna(one) or pd.isna(other):
        return bool((pd.isna(one) or one == "") and (pd.isna(other) or other == ""))
    if isinstance(one, int | float | np.number) and isinstance(other, int | float | np.number):
        return bool(np.isclose(float(one), float(other), rtol=TOLERANCE_SINGLE, atol=0, equal_nan=True) or one == other)
    return str(one) == str(other)


def _rows_to_try(given: Any) -> Iterator[_Rows]:
    """The sample's rows, then rows with edges in the columns' own types, then with missing values in all of them."""
    count = given.shape[0]
    base = _chosen(given, np.linspace(0, count - 1, min(count, BASE_ROWS)).astype(int))
    yield _Rows(given, count)
    if sparse.issparse(given):
        return
    if not isinstance(given, pd.DataFrame | pd.Series):
        yield from _array_rows(base)
        return
    frame = base.to_frame() if isinstance(base, pd.Series) else base
    for is_wide in (False, True):
        made = _frame_rows(frame, is_wide=is_wide)
        yield _Rows(made.iloc[:, 0] if isinstance(base, pd.Series) else made, len(base))


def _array_rows(base: NDArray[Any]) -> Iterator[_Rows]:
    if base.dtype.kind not in "biuf":
        return
    flat = base.reshape(len(base), -1).astype(np.float64)
    edges = [_with_extremes(_NUMBERS, column) for column in flat.T]
    made = np.concatenate([flat, *_edge_rows(flat, edges)])
    yield _Rows(made.reshape(-1, *base.shape[1:]), len(base))


def _edge_rows(flat: NDArray[Any], edges: Sequence[Sequence[Any]]) -> Iterator[NDArray[Any]]:
    random = np.random.default_rng(0)
    width = flat.shape[1]
    # Of wide rows each column gets some of the edges.
    step = max(1, width * len(_NUMBERS) // 4000)
    for at, own in enumerate(edges):
        rows = flat[random.integers(0, len(flat), len(own[::step]))].copy()
        rows[:, at] = list(own[::step])
        yield rows
    together = flat[random.integers(0, len(flat), TOGETHER)].copy()
    for at, own in enumerate(edges):
        if len(own):
            chosen = random.random(TOGETHER) < 0.5
            together[chosen, at] = np.array(list(own), together.dtype)[random.integers(0, len(own), int(chosen.sum()))]
    yield together


def _with_extremes(edges: Sequence[float], column: NDArray[Any]) -> list[float]:
    there = column[np.isfinite(column)]
    return [*edges, *((float(there.min()), float(there.max()), float(there.max()) * 10) if len(there) else ())]


def _frame_rows(base: pd.DataFrame, *, is_wide: bool) -> pd.DataFrame:
    """The rows with edges; wide ones have whole numbers and booleans as floats, since one is missing."""
    cells = np.empty(base.shape, object)
    edges = []
    for at in range(base.shape[1]):
        column = base.iloc[:, at]
        cells[:, at] = list(column)
        edges.append(_edges_of(column, is_wide=is_wide))
    rows = np.concatenate([cells, *_edge_rows(cells, edges)])
    made = {}
    for at, name in enumerate(base.columns):
        made[name] = _as_column(list(rows[:, at]), base.iloc[:, at].dtype, is_wide=is_wide)
    return pd.DataFrame(made)


def _edges_of(column: pd.Series, *, is_wide: bool) -> list[Any]:
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return [None] if is_wide else []
    kind = getattr(dtype, "kind", "O")
    if isinstance(dtype, pd.StringDtype) or (kind == "O" and any(isinstance(value, str) for value in column)):
        texts = [str(value) for value in column if isinstance(value, str)][:3]
        changed = [change for text in texts for change in (text.upper(), text.lower(), f" {text} ")]
        return [*changed, "~ another", *([None] if is_wide else [])]
    if kind == "M":
        return [*map(pd.Timestamp, _TIMES), *([pd.NaT] if is_wide else [])]
    if kind == "b":
        return [True, False, *([np.nan] if is_wide else [])]
    there = np.array([float(value) for value in column if not pd.isna(value)])
    if kind in "iu":
        ends = [int(there.min()), int(there.max()), 10 * int(there.max())] if len(there) else []
        whole = [*_WHOLE, *ends]
        missing = pd.NA if pd.api.types.is_extension_array_dtype(dtype) else np.nan
        signed = [value for value in whole if value >= 0 or kind == "i"]
        return [*signed, *([missing] if is_wide else [])]
    return _with_extremes(_NUMBERS, there)


def _as_column(values: list[Any], dtype: Any, *, is_wide: bool) -> pd.Series:
    if getattr(dtype, "kind", "O") in "iub" and is_wide and not pd.api.types.is_extension_array_dtype(dtype):
        kept = object if dtype.kind == "b" else np.float64
        return pd.Series(values, dtype=kept)
    try:
        return pd.Series(values, dtype=dtype)
    except (ValueError, TypeError, OverflowError):
        return pd.Series(values)
