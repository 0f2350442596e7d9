"""Rows as cells, in the order of time, with the baseline that they are compared with: a version's, or one of the first rows.

The rows themselves are never held whole, and their cells lie in a temporary file. Only the rows that a baseline is fitted on
are in memory, as they are when a version is published.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.names import did_you_mean
from penstock_server.drift.baseline import Baseline
from penstock_server.drift.codes import CODE, Codes, codes_of
from penstock_server.drift.fit import fit_baseline
from penstock_server.drift.importance import Importance
from penstock_server.drift.reference import Reference, reference_of
from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import (
    Block,
    Column,
    FeatureSpec,
    Hash,
    NumberColumn,
    StringColumn,
    Take,
    Text,
    TimeColumn,
)
from penstock_server.features.table import numbers_of, strings_of
from penstock_tools.calibration.rows import Rows, seconds
from penstock_tools.progress import Advance, unwatched

LEAST_ROWS: Final = 1000
"""With fewer rows, on either side, no alarm is to be expected, whatever they hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """Rows to replay.

    Attributes:
        baseline: what they are compared with.
        reference: the same.
        codes: their cells, in the order of time.
        seconds: when each came, since 1970; None where that is not known.
        usual: the cells of rows that are as they should be: those that the baseline was fitted on, where they are there, else
            the rows to replay.
    """

    baseline: Baseline
    reference: Reference
    codes: Codes
    seconds: NDArray[np.float64] | None
    usual: Codes


def against_version(
    rows: Rows,
    spec: FeatureSpec,
    baseline: Baseline,
    importance: Importance | None = None,
    advance: Advance = unwatched,
) -> Recorded:
    """All rows, to be compared with a version's baseline.

    Raises:
        InvalidInputError: the rows lack a column, or one is not of its kind; there are too few.
    """
    baseline = msgspec.structs.replace(baseline, predictions=None, answers=(), joint=None)
    lacking = [column.name for column in spec.columns if column.name not in rows.names]
    if lacking:
        have = [*rows.names, *([rows.time] if rows.time else [])]
        raise InvalidInputError(
            f"the rows lack column {lacking[0]!r}{did_you_mean(lacking[0], have)}; the version takes "
            f"{', '.join(column.name for column in spec.columns)}"
        )
    times, rank = _in_time(rows)
    codes = _codes(rows, spec, baseline, rank, advance)
    _check_enough(len(codes), "the sample")
    return Recorded(baseline, reference_of(baseline, importance), codes, times, codes)


def against_first(rows: Rows, share: float, without: Sequence[str] = (), advance: Advance = unwatched) -> Recorded:
    """The later rows, to be compared with the first ones, of which this is the share.

    Args:
        rows: of all columns, with times or in the order of time.
        share: above 0 and below 1.
        without: columns that are not watched.
        advance: called as rows are read.

    Raises:
        InvalidInputError: a column cannot be watched or there are too few rows; says what to do.
    """
    unknown = [name for name in without if name not in rows.names]
    if unknown:
        raise InvalidInputError(
            f"there is no column {unknown[0]!r} to leave out{did_you_mean(unknown[0], rows.names)}; "
            f"there are {', '.join(rows.names)}"
        )
    names = [name for name in rows.names if name not in without]
    if not names:
        raise InvalidInputError("no column is left to watch")
    times, rank = _in_time(rows)
    if rank is None:
        rank = np.arange(sum(len(part) for part in rows.chunks(names[:1])))
    first = int(len(rank) * share)
    _check_enough(min(first, len(rank) - first), f"a part of the sample, which has {len(rank):,},")
    training = _first_rows(rows, names, rank, first)
    spec = specification(training)
    table = {name: np.asarray(training[name]) for name in names}
    baseline = fit_baseline(spec, table, time=rows.time)
    codes = _codes(rows, spec, baseline, rank, advance)
    return Recorded(
        baseline, reference_of(baseline), codes[first:], None if times is None else times[first:], codes[:first]
    )


def specification(frame: pd.DataFrame) -> FeatureSpec:
    """A specification that only counts a frame's columns; nothing reads the one feature that it gives.

    Raises:
        InvalidInputError: a column holds neither numbers nor times nor text.
    """
    columns = tuple(_column(str(name), frame[name]) for name in frame.columns)
    numbers = [column.name for column in columns if isinstance(column, NumberColumn)]
    unread: Block = Take((numbers[0],)) if numbers else Text(columns[0].name, Hash(1))
    try:
        return FeatureSpec(columns, unread, "FP64")
    except ValueError as error:
        raise InvalidInputError(f"the columns cannot be counted: {error}") from error


def _column(name: str, values: "pd.Series[Any]") -> Column:
    kind = values.dtype.kind
    if kind in "biuf":
        return NumberColumn(name, "accept")
    if kind == "M":
        return TimeColumn(name)
    table = {name: np.asarray(values)}
    try:
        strings_of(table, name)
    except InvalidInputError:
        try:
            numbers_of(table, name)
        except InvalidInputError as error:
            raise InvalidInputError(f"{error}; leave it out with --without {name}") from error
        return NumberColumn(name, "accept")
    return StringColumn(name)


def _in_time(rows: Rows) -> tuple[NDArray[np.float64] | None, NDArray[np.intp] | None]:
    """The moments in seconds, sorted, and each row's place in the order of time; None where they are not known."""
    times = rows.moments()
    if times is None:
        return None, None
    places = np.argsort(times.to_numpy(), kind="stable")
    rank = np.empty(len(places), np.intp)
    rank[places] = np.arange(len(places))
    known = seconds(times)
    return None if known is None else known[places], rank


def _first_rows(rows: Rows, names: Sequence[str], rank: NDArray[np.intp], first: int) -> pd.DataFrame:
    parts = list(_chosen(rows, names, rank, first))
    # A part of a column of text may look like numbers.
    kinds = {name: {part[name].dtype.kind in _NO_TEXT for part in parts} for name in names}
    if mixed := [name for name in names if len(kinds[name]) > 1]:
        parts = list(_chosen(rows, names, rank, first, mixed))
    return pd.concat(parts, ignore_index=True).sort_values(_RANK, ignore_index=True).drop(columns=_RANK)


def _chosen(
    rows: Rows, names: Sequence[str], rank: NDArray[np.intp], first: int, texts: Sequence[str] = ()
) -> Iterator[pd.DataFrame]:
    """The first rows in the order of time, with their places in it."""
    begin = 0
    for part in rows.chunks(names, texts):
        mine = rank[begin : begin + len(part)]
        yield part[mine < first].assign(**{_RANK: mine[mine < first]})
        begin += len(part)


_RANK: Final = "\0place"
_NO_TEXT: Final = "biufM"


def _codes(rows: Rows, spec: FeatureSpec, baseline: Baseline, rank: NDArray[np.intp] | None, advance: Advance) -> Codes:
    """The cells of all rows, in the order of time."""
    names = [column.name for column in spec.columns]
    texts = [column.name for column in spec.columns if isinstance(column, StringColumn)]
    with tempfile.TemporaryFile() as file:
        size = 0
        for part in rows.chunks(names, texts):
            codes = codes_of(spec, baseline, {name: np.asarray(part[name]) for name in names})
            codes.tofile(file)
            size += len(codes)
            advance(len(codes))
        file.flush()
        if not size:
            raise InvalidInputError("there are no rows")
        found = np.memmap(file, CODE, "r", shape=(size, len(names)))
        if rank is None or (np.diff(rank) == 1).all():
            return found
    return _sorted(found, rank)


def _sorted(codes: Codes, rank: NDArray[np.intp]) -> Codes:
    with tempfile.TemporaryFile() as file:
        found = np.memmap(file, CODE, "w+", shape=codes.shape)
        for begin in range(0, len(codes), 1 << 16):
            found[rank[begin : begin + (1 << 16)]] = codes[begin : begin + (1 << 16)]
        return found


def _check_enough(rows: int, what: str) -> None:
    if rows < LEAST_ROWS:
        raise InvalidInputError(f"{what} has {rows:,} rows; alarms take {LEAST_ROWS:,} or more to say anything")
