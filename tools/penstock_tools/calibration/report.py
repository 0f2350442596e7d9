"""What a check of drift alarms found, as records and in the sentences that the terminal and the page share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.reference import Reference
from penstock_server.drift.report import AlarmKind, Kind
from penstock_tools import formatting
from penstock_tools.calibration.delay import Delay
from penstock_tools.calibration.replay import Episode, Replay

MONTH_S: Final = 365.25 / 12 * 86_400
_LEAST_SPAN_S: Final = 86_400.0
"""Over less than a day nothing is said per month."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in the rows: how many came before, and when, in seconds since 1970, where that is known."""

    row: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class AlarmTold:
    """An alarm that went on.

    Attributes:
        column, kind: what it is about.
        since: when the drift began, as the alarm said.
        noticed: when it went on.
        ended: when it went off; None if it was still on at the end.
    """

    column: str
    kind: AlarmKind
    since: Moment
    noticed: Moment
    ended: Moment | None


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month in UTC.

    Attributes:
        name: such as "2026-05".
        rows: that came in it.
        began: the alarms that went on in it.
        on: the columns with an alarm at any time in it.
    """

    name: str
    rows: int
    began: int
    on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ColumnCheck:
    """A column.

    Attributes:
        name, kind: of it.
        smallest: the smallest index that a server's window shows; None if none does.
        dispersion: how much more its counts vary in time than independent rows would.
        alarms: that went on.
        delays: one for each index; empty where they were not measured.
    """

    name: str
    kind: Kind
    smallest: float | None
    dispersion: float
    alarms: int
    delays: tuple[Delay, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """All of it.

    Attributes:
        title: what was checked.
        rows, looks: how many.
        slice_rows: the rows of a look, as the median.
        run_length: the looks to a false alarm, on average, at least.
        first, last: the beginning and the end.
        alarms: in the order in which they went on.
        months: those with rows; empty where the time is not known.
        columns: in the baseline's order.
        indexes: those of the delays.
        most_rows: the longest delay that would have been seen.
        notes: what people should know of the rows.
    """

    title: str
    rows: int
    looks: int
    slice_rows: int
    run_length: float
    first: Moment
    last: Moment
    alarms: tuple[AlarmTold, ...]
    months: tuple[Month, ...]
    columns: tuple[ColumnCheck, ...]
    indexes: tuple[float, ...]
    most_rows: int
    notes: tuple[str, ...] = ()

    @property
    def alarms_per_month(self) -> float | None:
        """None where the rows' time is not known, or less than a day."""
        if self.first.seconds is None or self.last.seconds is None:
            return None
        span_s = self.last.seconds - self.first.seconds
        return len(self.alarms) * MONTH_S / span_s if span_s >= _LEAST_SPAN_S else None

    @property
    def rows_per_day(self) -> float | None:
        """None as for the alarms."""
        if self.first.seconds is None or self.last.seconds is None:
            return None
        span_s = self.last.seconds - self.first.seconds
        return self.rows * 86_400 / span_s if span_s >= _LEAST_SPAN_S else None


def told(replay: Replay, seconds: NDArray[np.float64] | None) -> tuple[AlarmTold, ...]:
    """The alarms of a replay, with when they were."""
    return tuple(
        AlarmTold(
            one.column,
            one.kind,
            moment(one.since, seconds),
            moment(one.noticed - 1, seconds),
            None if one.ended is None else moment(one.ended - 1, seconds),
        )
        for one in replay.episodes
    )


def moment(row: int, seconds: NDArray[np.float64] | None) -> Moment:
    """A place with its time."""
    return Moment(row, None if seconds is None else float(seconds[row]))


def months(episodes: Sequence[Episode], seconds: NDArray[np.float64]) -> Iterator[Month]:
    """The months that rows came in."""
    of_row = seconds.astype("M8[s]").astype("M8[M]")
    names, begins = np.unique(of_row, return_index=True)
    ends = [*begins[1:].tolist(), len(seconds)]
    for name, begin, end in zip(names, begins.tolist(), ends, strict=True):
        on = [one for one in episodes if one.noticed - 1 < end and (one.ended is None or one.ended > begin)]
        began = sum(begin <= one.noticed - 1 < end for one in episodes)
        yield Month(str(name), end - begin, began, tuple(sorted({one.column for one in on})))


def columns(
    reference: Reference, smallest: Sequence[float], episodes: Sequence[Episode], delays: Sequence[tuple[Delay, ...]]
) -> Iterator[ColumnCheck]:
    """The columns' records; `delays` are empty where they were not measured."""
    for at, (name, kind) in enumerate(zip(reference.names, reference.kinds, strict=True)):
        yield ColumnCheck(
            name,
            kind,
            float(smallest[at]) if np.isfinite(smallest[at]) else None,
            float(reference.dispersion[at]),
            sum(one.column == name for one in episodes),
            delays[at] if delays else (),
        )


def rate_line(check: Check) -> str:
    """How many alarms there were, per month or per looks."""
    number = f"{len(check.alarms):,} alarm{'s' * (len(check.alarms) != 1)}"
    per_month = check.alarms_per_month
    if per_month is None:
        rate = 1000 * len(check.alarms) / max(check.looks, 1)
        return f"{number} in {check.looks:,} looks at {check.rows:,} rows: {rate:.2g} per 1,000 looks"
    return f"{number} in {check.rows:,} rows, {when(check.first)} to {when(check.last)}: {per_month:.2g} per month"


def months_line(check: Check) -> str:
    """In how many months an alarm was on; empty where the time is not known."""
    if not check.months:
        return ""
    on, began = sum(bool(month.on) for month in check.months), sum(month.began > 0 for month in check.months)
    months = "month" if len(check.months) == 1 else "months"
    return f"an alarm was on in {on} of {len(check.months)} {months}, and one went on in {began}"


def chance_line(check: Check) -> str:
    """What chance alone would do."""
    return (
        f"chance alone gives at most one alarm in {check.run_length:,.0f} looks, over all columns together; "
        f"there were {check.looks:,} looks, of about {check.slice_rows:,} rows each"
    )


def delays_line(check: Check) -> str:
    """How delays were measured; empty where they were not."""
    if not any(column.delays for column in check.columns):
        return ""
    daily = check.rows_per_day
    pace = "" if daily is None else f", where about {daily:,.0f} come in a day"
    return (
        f"rows from a shift of this PSI to its alarm; shifts were put into rows drawn in blocks from those here{pace}"
    )


def when(moment: Moment) -> str:
    """A moment in words.

    >>> when(Moment(12300)), when(Moment(0, 1767225600.0))
    ('row 12,300', '2026-01-01 00:00')
    """
    if moment.seconds is None:
        return f"row {moment.row:,}"
    return datetime.fromtimestamp(moment.seconds, UTC).strftime("%Y-%m-%d %H:%M")


def what(kind: AlarmKind) -> str:
    """What an alarm says."""
    return "drifts" if kind == "shares" else "unknown values"


def delay_told(delay: Delay, most_rows: int) -> str:
    """A delay in words.

    >>> delay_told(Delay(600, 0), 40_000), delay_told(Delay(), 40_000), delay_told(Delay(can_shift=False), 40_000)
    ('600', '> 40,000', '–')
    """
    if not delay.can_shift:
        return formatting.UNKNOWN
    if not delay.is_quiet:
        return "on before"
    return f"{delay.rows:,}" if delay.rows is not None else f"> {most_rows:,}"


def smallest_told(column: ColumnCheck) -> str:
    """The smallest detectable index in words."""
    return "never" if column.smallest is None else f"{column.smallest:.2g}"
