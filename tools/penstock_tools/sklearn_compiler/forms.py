"""Finds the form in which a pipeline takes the rows of a sample, and which missing value a missing text stands for.

A file does not hold all of what the rows were when the pipeline was fitted: CSV knows neither dates nor categories, and
pandas 2 reads missing text from Parquet as None where it was NaN. On the wire None and NaN are one. So the pipeline is
asked: its fitted state says which forms it takes, and which of the missing values it knows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from functools import partial
from itertools import islice
from math import isnan
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_object_dtype

from penstock_tools.sklearn_compiler.outcomes import Outcome, one_thread, outcomes, outcomes_at_once, taken


class Missing(Enum):
    """What stands for a value that is not there; on the wire it is NaN among numbers and "" among text."""

    NONE = "None"
    NAN = "NaN"
    NA = "pandas.NA"
    EMPTY = "the empty text"

    @property
    def value_in_frames(self) -> Any:
        """The value itself."""
        return _VALUES[self]


_VALUES: Final = {Missing.NONE: None, Missing.NAN: np.nan, Missing.NA: pd.NA, Missing.EMPTY: ""}

UNSEEN: Final = "never seen before"
"""A text that no training data has."""
_UNSEEN_NUMBER: Final = -987654.5
_PROBES: Final = 3
"""Rows on which each question is asked: where one row's answer does not change, another's may."""


def missing_kind(value: object) -> Missing | None:
    """What kind of missing value this is, None for a value."""
    if isinstance(value, str):  # first, since most are: it is asked of every value several times
        return None if value else Missing.EMPTY
    if value is None:
        return Missing.NONE
    if value is pd.NA or value is pd.NaT:
        return Missing.NA
    return Missing.NAN if isinstance(value, (float, np.floating)) and isnan(value) else None


@dataclass(frozen=True, slots=True)
class Form:
    """Rows as the pipeline takes them.

    Attributes:
        rows: a frame, or a series of texts.
        missing: for columns of objects or text, by position, the one missing value that requests' missing values stand for.
        notes: sentences for people about what the pipeline tells apart and requests cannot.
    """

    rows: Any
    missing: Mapping[int, Missing] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@one_thread()
def form_of(pipeline: Any, frame: pd.DataFrame) -> Form:
    """The form of these rows that the pipeline takes; as they are where it takes none.

    Args:
        pipeline: fitted.
        frame: its columns alone, in its order.
    """
    for rows in _forms(frame):
        probes = taken(rows, _fullest(frame))
        # One answer for all rows is that of a vectorizer, which takes a frame for the list of its columns.
        found = outcomes(pipeline, probes)
        if any(outcome.is_refusal for outcome in found):
            continue
        if isinstance(rows, pd.Series):
            # A vectorizer takes an empty text like any other, and nothing in the place of one.
            return Form(rows, {0: Missing.EMPTY})
        dated = _dated(pipeline, rows, probes, found)
        return _with_meanings(pipeline, frame, *((rows, probes) if dated is None else dated))
    return Form(frame)


def _dated(
    pipeline: Any, rows: pd.DataFrame, probes: pd.DataFrame, found: Sequence[Outcome]
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The rows and the probes with dates for their texts, where the pipeline makes the same of both.

    Some transformers read dates from texts; a request's dates are times.
    """
    dates = [at for at in range(rows.shape[1]) if _is_text(rows.iloc[:, at]) and _are_dates(rows.iloc[:, at])]
    if not dates:
        return None
    dated = _changed(rows, dates, pd.to_datetime)
    asked = _changed(probes, dates, pd.to_datetime)
    return (dated, asked) if _are_alike(outcomes(pipeline, asked), found) else None


def _forms(frame: pd.DataFrame) -> Iterator[Any]:
    """The frame in each form that people fit on, the likely ones first."""
    texts = [at for at in range(frame.shape[1]) if _is_text(frame.iloc[:, at])]
    if frame.shape[1] == 1 and texts:
        yield _with_missing(frame, Missing.NAN).iloc[:, 0]
    dates = [at for at in texts if _are_dates(frame.iloc[:, at])]
    for missing in (Missing.NAN, Missing.NONE):
        plain = _with_missing(frame, missing)
        yield plain
        if texts:
            yield _changed(plain, texts, lambda column: column.astype("category"))
        if dates:
            dated = _changed(plain, dates, pd.to_datetime)
            yield dated
            others = [at for at in texts if at not in dates]
            if others:
                yield _changed(dated, others, lambda column: column.astype("category"))


def _is_text(column: Any) -> bool:
    if isinstance(column.dtype, pd.StringDtype):
        return True
    return is_object_dtype(column.dtype) and any(isinstance(value, str) for value in column.head(1000))


def _are_dates(column: Any) -> bool:
    """Whether every text there is an ISO date or time; a bare number is none."""
    first = list(islice((value for value in column if missing_kind(value) is None), 20))
    if not first or not all(isinstance(value, str) and value[4:5] == "-" and value[7:8] == "-" for value in first):
        return False
    texts = [value for value in column if missing_kind(value) is None]
    try:
        pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601")
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _with_missing(frame: pd.DataFrame, missing: Missing) -> pd.DataFrame:
    """The frame with None and NaN in columns of objects as one of the two."""
    loose = [at for at in range(frame.shape[1]) if is_object_dtype(frame.iloc[:, at].dtype)]
    return _changed(frame, loose, lambda column: _filled(column, missing))


def _filled(column: Any, missing: Missing) -> Any:
    values = column.to_numpy(object).copy()
    for at, value in enumerate(values):
        if missing_kind(value) in {Missing.NONE, Missing.NAN}:
            values[at] = missing.value_in_frames
    return pd.Series(values, index=column.index, name=column.name, dtype=object)


def _changed(frame: pd.DataFrame, places: Sequence[int], change: Callable[[Any], Any]) -> pd.DataFrame:
    columns = [change(frame.iloc[:, at]) if at in places else frame.iloc[:, at] for at in range(frame.shape[1])]
    made = pd.concat(columns, axis=1) if columns else frame
    made.columns = frame.columns
    return made


def _fullest(frame: pd.DataFrame) -> NDArray[np.intp]:
    """The places of a few rows that lack the least, spread over the frame."""
    lacking = frame.isna().sum(axis=1).to_numpy()
    places = np.flatnonzero(lacking == lacking.min())
    chosen: NDArray[np.intp] = places[np.linspace(0, len(places) - 1, min(len(places), _PROBES)).astype(np.intp)]
    return chosen


# --- the meaning of a missing value ---


def _with_meanings(pipeline: Any, given: pd.DataFrame, rows: pd.DataFrame, probes: pd.DataFrame) -> Form:
    """The form in which each column of objects or text has one kind of missing value, where the pipeline lets it."""
    asked = [at for at in range(rows.shape[1]) if _is_ambiguous(rows.iloc[:, at])]
    if not asked:
        return Form(rows)
    found = _asked(pipeline, probes, asked)
    meanings: dict[int, Missing] = {}
    told: dict[str, list[str]] = {}
    for at in asked:
        present = {kind for kind in map(missing_kind, given.iloc[:, at]) if kind is not None}
        is_nullable = getattr(rows.dtypes.iloc[at], "na_value", None) is pd.NA
        meaning, note = _meaning(found[at], present, is_nullable=is_nullable)
        if meaning is not None:
            meanings[at] = meaning
        if note:
            told.setdefault(note, []).append(repr(str(rows.columns[at])))
    # A column without a meaning stays as it was given: the rules say why it cannot be published.
    changed = _changed(rows, [at for at in asked if at not in meanings], lambda column: given[column.name])
    for at, meaning in meanings.items():
        changed = _changed(changed, [at], partial(_meant, meaning=meaning))
    return Form(changed, meanings, tuple(f"{', '.join(names)}: {note}" for note, names in told.items()))


def _is_ambiguous(column: Any) -> bool:
    if isinstance(column.dtype, pd.StringDtype):
        return True
    kinds = (str, bool, int, float, np.generic, Decimal)
    return is_object_dtype(column.dtype) and all(
        isinstance(value, kinds) or missing_kind(value) is not None for value in column.head(1000)
    )


def _meant(column: Any, meaning: Missing) -> Any:
    """The column with this kind of missing value for all of them, the empty text included where it is meant."""
    if all(kind in {None, meaning} for kind in map(missing_kind, column)):
        return column
    values = column.to_numpy(object).copy()
    for at, value in enumerate(values):
        if missing_kind(value) is not None:
            values[at] = meaning.value_in_frames
    # A column of text turns None and NaN into its own missing value.
    is_own = missing_kind(getattr(column.dtype, "na_value", None)) is meaning or meaning is Missing.EMPTY
    keeps = isinstance(column.dtype, pd.StringDtype) and is_own
    return pd.Series(values, index=column.index, name=column.name, dtype=column.dtype if keeps else object)


_KINDS: Final = (None, *Missing)
"""What is put into a column: a value that the pipeline has never seen, and each kind of missing value."""
_Told = dict[Missing | None, list[Outcome]]
"""For each kind what the pipeline makes of it, on each probe."""
_Asked = tuple[int, Missing | None, int]
"""A question: a column, the kind that is put into it, and the probe."""


def _asked(pipeline: Any, probes: pd.DataFrame, places: Sequence[int]) -> dict[int, _Told]:
    """What the pipeline makes of each kind in each of the columns.

    One call asks everything. Where the pipeline refuses it, a call asks about one kind on the first probe, a row for each
    column; one more asks on the other probes about all that was answered.
    """
    loose = _changed(probes, places, lambda column: column.astype(object))
    unseen = {at: _unseen_like(probes.iloc[:, at]) for at in places}
    found: dict[int, _Told] = {at: {kind: [] for kind in _KINDS} for at in places}

    def note(asked: Sequence[_Asked], answered: Sequence[Outcome]) -> None:
        for (at, kind, _), outcome in zip(asked, answered, strict=True):
            found[at][kind].append(outcome)

    everything = [(at, kind, probe) for at in places for kind in _KINDS for probe in range(len(probes))]
    at_once = outcomes_at_once(pipeline, _rows_of(loose, everything, unseen))
    if at_once is not None:
        note(everything, at_once)
        return found
    answered: list[tuple[int, Missing | None]] = []
    for kind in _KINDS:
        first = [(at, kind, 0) for at in places]
        note(first, outcomes(pipeline, _rows_of(loose, first, unseen)))
        answered += [(at, kind) for at in places if not found[at][kind][0].is_refusal]
    more = [(at, kind, probe) for at, kind in answered for probe in range(1, len(probes))]
    if more:
        note(more, outcomes(pipeline, _rows_of(loose, more, unseen)))
    return found


def _rows_of(probes: pd.DataFrame, asked: Sequence[_Asked], unseen: Mapping[int, Any]) -> pd.DataFrame:
    """The probe of each question, with what is asked about in its column."""
    rows = taken(probes, [probe for _, _, probe in asked]).reset_index(drop=True)
    values = {at: rows.iloc[:, at].to_numpy(object).copy() for at in unseen}
    for row, (at, kind, _) in enumerate(asked):
        values[at][row] = unseen[at] if kind is None else kind.value_in_frames
    for at, changed in values.items():
        rows.isetitem(at, pd.Series(changed, dtype=object))
    return rows


def _unseen_like(column: Any) -> Any:
    return UNSEEN if _is_text(column) else _UNSEEN_NUMBER


def _meaning(
    found: Mapping[Missing | None, list[Outcome]], present: set[Missing], *, is_nullable: bool
) -> tuple[Missing | None, str]:
    """Which kind a missing value of a request stands for, and what people should know; None where none is taken."""
    real = (Missing.NA, Missing.NAN, Missing.NONE) if is_nullable else (Missing.NAN, Missing.NONE)
    taken_kinds = [kind for kind in (*real, Missing.EMPTY) if not any(each.is_refusal for each in found[kind])]
    # What the pipeline treats like an unseen value it does not know; the other kinds are those that it was fitted on.
    known = [kind for kind in taken_kinds if not _are_alike(found[kind], found[None])]
    if not taken_kinds:
        return None, ""
    if Missing.EMPTY in present and present & set(real):
        both = (Missing.EMPTY, *(kind for kind in real if kind in taken_kinds))
        if not all(_are_alike(found[both[0]], found[kind]) for kind in both):
            # Both are in the data, and the pipeline tells them apart: the rules refuse it where it matters.
            return None, ""
    if present == {Missing.EMPTY} and Missing.EMPTY in taken_kinds:
        chosen = Missing.EMPTY
    else:
        # Of several that it knows, the one in the sample: pandas 2 reads None for NaN only where the pipeline does not know it.
        likely = [kind for kind in known if kind in real]
        chosen = next((kind for kind in likely if kind in present), (likely or known or taken_kinds)[0])
    others = [kind.value for kind in taken_kinds if not _are_alike(found[kind], found[chosen])]
    refused = [kind.value for kind in real if kind not in taken_kinds]
    made = [f"answers {' and '.join(others)} otherwise"] if others else []
    made += [f"refuses {' and '.join(refused)}"] if refused else []
    does = " and ".join(made)
    return chosen, f"a missing value of a request is {chosen.value}; the pipeline {does}" if made else ""


def _are_alike(left: Sequence[Outcome], right: Sequence[Outcome]) -> bool:
    return len(left) == len(right) and all(one.is_like(other) for one, other in zip(left, right, strict=True))
