"""A check of drift alarms as one self-contained page: when which alarm was on, how soon shifts are seen, and the tables.

Places what is drawn; `page.html.j2` is the page. It follows the reader's light or dark setting, and prints.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from math import log10
from typing import TYPE_CHECKING, Final

from penstock_server.drift.report import AlarmKind
from penstock_tools import output
from penstock_tools.calibration import report
from penstock_tools.calibration.report import Check, Moment

if TYPE_CHECKING:
    from jinja2 import Template

WIDTH: Final = 960.0
LEFT: Final = 170.0
"""The width of the names."""
RIGHT: Final = 20.0
LINE: Final = 20.0
_MOST_TICKS: Final = 12
_LABEL: Final = 60.0
"""The width that a label takes."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across a chart, and what stands below it."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An alarm: it says that the drift began at `since`; it was on from `noticed` to `ended`."""

    kind: AlarmKind
    since: float
    noticed: float
    ended: float
    title: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A delay; hollow where there was no alarm."""

    index: int
    x: float
    is_found: bool
    title: str


def page(check: Check, made: datetime | None = None) -> str:
    """The page of a check; `made` is the time to show, None for now."""
    alarmed = [column for column in check.columns if column.alarms]
    return _template().render(
        check=check,
        sentences=[line for line in (report.months_line(check), report.chance_line(check)) if line],
        rate=report.rate_line(check),
        delays=report.delays_line(check),
        made=(made or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        alarmed=[(column.name, list(bars(check, column.name))) for column in alarmed],
        ticks=ticks(check),
        dots=[(column.name, list(dots(check, at))) for at, column in enumerate(check.columns) if column.delays],
        powers=powers(check),
        width=WIDTH,
        left=LEFT,
        right=RIGHT,
        line=LINE,
    )


@cache
def _template() -> "Template":
    return output.template(
        "calibration",
        "page.html.j2",
        {
            "when": report.when,
            "what": report.what,
            "smallest": report.smallest_told,
            "delay_told": report.delay_told,
        },
    )


def bars(check: Check, column: str) -> Iterator[Bar]:
    """A column's alarms, in places along the chart."""
    for alarm in check.alarms:
        if alarm.column == column:
            ended = "still on" if alarm.ended is None else f"off {report.when(alarm.ended)}"
            yield Bar(
                alarm.kind,
                _x(check, alarm.since),
                _x(check, alarm.noticed),
                _x(check, alarm.ended or check.last),
                f"{report.what(alarm.kind)} since {report.when(alarm.since)}, on {report.when(alarm.noticed)}, {ended}",
            )


def ticks(check: Check) -> list[Tick]:
    """The beginnings of months, or of parts of the rows; labels do not collide."""
    if check.months:
        begins = [(name.name, datetime.fromisoformat(f"{name.name}-01").replace(tzinfo=UTC)) for name in check.months]
        found = [Tick(_x(check, Moment(0, begin.timestamp())), name) for name, begin in begins]
        found = [Tick(max(tick.x, LEFT), tick.label) for tick in found]
        # The first may be cut short, so that the second begins beside it.
        least = (WIDTH - LEFT - RIGHT) / _MOST_TICKS
        kept = found[:1]
        for tick in found[1:]:
            if tick.x - kept[-1].x >= least * 0.75 and tick.x <= WIDTH - _LABEL:
                kept.append(tick)
        return kept
    span = max(check.last.row - check.first.row, 1)
    parts = 6
    rows = [check.first.row + span * part // parts for part in range(parts)]
    return [Tick(_x(check, Moment(row)), f"row {row:,}") for row in rows]


def _x(check: Check, moment: Moment) -> float:
    if moment.seconds is None or check.first.seconds is None or check.last.seconds is None:
        at, first, last = float(moment.row), float(check.first.row), float(check.last.row)
    else:
        at, first, last = moment.seconds, check.first.seconds, check.last.seconds
    share = (at - first) / ((last - first) or 1.0)
    return LEFT + (WIDTH - LEFT - RIGHT) * min(max(share, 0.0), 1.0)


def dots(check: Check, at: int) -> Iterator[Dot]:
    """A column's delays, in places along the chart, whose scale is logarithmic."""
    for index, delay in enumerate(check.columns[at].delays):
        if delay.can_shift and delay.is_quiet:
            rows = check.most_rows if delay.rows is None else delay.rows
            told = report.delay_told(delay, check.most_rows)
            yield Dot(index, _log_x(check, rows), delay.rows is not None, f"PSI {check.indexes[index]:g}: {told} rows")


def powers(check: Check) -> list[Tick]:
    """The lines of the delays' chart: powers of ten, and the longest delay."""
    low, high = log10(check.slice_rows), log10(check.most_rows)
    tens = [power for power in range(int(low), int(high) + 1) if low - 1e-9 <= power < high - 0.2]
    return [
        *(Tick(_log_x(check, 10**power), f"{10**power:,} rows") for power in tens),
        Tick(_log_x(check, check.most_rows), f"{check.most_rows:,}"),
    ]


def _log_x(check: Check, rows: float) -> float:
    low, high = log10(check.slice_rows), log10(check.most_rows)
    room = WIDTH - LEFT - RIGHT - _LABEL
    return LEFT + RIGHT + room * (log10(rows) - low) / (high - low)
