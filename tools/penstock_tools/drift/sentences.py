"""The sentences about a version's drift, the same in a terminal and on the page: its verdict, its rows, its alarms.

The server decides what drifted.
"""

from datetime import UTC, datetime
from typing import Final

from penstock_server.drift.report import ColumnDrift, DriftAlarm, VersionDrift
from penstock_tools import formatting

PREDICTIONS: Final = "(predictions)"
_MANY: Final = 10**12


def decimals(value: float | None, digits: int = 3) -> str:
    """A number; empty where it is not known."""
    return formatting.number(value, digits, unknown="")


def probability(value: float | None) -> str:
    """A p-value with three decimals, or that it is smaller.

    >>> [probability(value) for value in (0.0, 1e-9, 0.02, 1.0, None)]
    ['<0.001', '<0.001', '0.020', '1.000', '']
    """
    return "<0.001" if value is not None and value < 0.0005 else decimals(value)


def share(value: float | None) -> str:
    """A share in percent; empty if it is 0 or not known.

    >>> [share(value) for value in (0.0, 0.00001, 0.0123, None)]
    ['', '<0.1%', '1.2%', '']
    """
    return formatting.percent(value) if value else ""


def importance(value: float | None) -> str:
    """How much a column matters, with three digits; empty where it is not known.

    >>> [importance(value) for value in (0.1234, -0.0001, 12.345, None)]
    ['0.123', '0.000', '12.345', '']
    """
    return "" if value is None else decimals(max(value, 0.0))


def importance_line(version: VersionDrift) -> str:
    """What a version's importance is; empty where it has none."""
    if not version.importance_measure:
        return ""
    measure = formatting.safe(version.importance_measure)
    return f"importance: how much the column matters to the model, as {measure} when it is shuffled."


def title(version: VersionDrift) -> str:
    """The version and its roles."""
    roles = ", ".join(version.roles) or "no role"
    return f"{formatting.safe(version.model)} version {formatting.safe(version.version)} ({roles})"


def rows_line(version: VersionDrift) -> str:
    """How many rows were counted in the window."""
    if not version.rows:
        return "no rows were counted yet; send requests, for example with `penstock predict`"
    return f"{version.rows:,} counted rows in the window, which holds about {version.window_rows:,} per worker"


def verdict(version: VersionDrift) -> str:
    """How many features drifted, or why that is not known."""
    if version.drifted is None:
        return "no verdict yet: no feature has enough rows"
    waiting = len(version.columns) - version.tested
    others = f"; {waiting} more have too few rows" if waiting else ""
    rate = f"about {version.rate:.0%} of those called drifted may be wrong"
    return f"{version.drifted} of {version.tested} features drifted{others} ({rate})"


def predictions_line(version: VersionDrift) -> str:
    """Whether the model's answers drifted."""
    column = version.predictions
    if column is None:
        return "the answers are not watched: the version was published without a baseline for them"
    if not column.enough_rows:
        return f"the answers: {state(column)}"
    return f"the answers: {state(column)} (distance {decimals(column.jensen_shannon)}, p {probability(column.p_value)})"


def alarms_line(version: VersionDrift) -> str:
    """The alarms that are on and since when; empty if none is."""
    alarms = sorted(version.alarms, key=lambda alarm: alarm.since)
    return f"alarm: {'; '.join(map(alarm_told, alarms))}" if alarms else ""


def alarms_head(version: VersionDrift) -> str:
    """How many alarms are on."""
    if version.alarmed is None:
        return "nothing looks for drift alarms of this version"
    count = len(version.alarms)
    looks = f", after {version.looks:,} looks" if version.looks else ""
    return f"{count or 'no'} {'alarms are' if count > 1 else 'alarm is'} on{looks}"


def alarm_told(alarm: DriftAlarm) -> str:
    """An alarm in words.

    >>> alarm_told(DriftAlarm("delay", "shares", 1767225600.0, 3e9))
    'delay drifts since 2026-01-01 00:00 UTC (by chance once in 3,000,000,000 looks)'
    """
    name = formatting.safe(alarm.column) if alarm.column else PREDICTIONS
    does = "drifts" if alarm.kind == "shares" else "has more unknown values than in training"
    return f"{name} {does} since {moment(alarm.since)} UTC (by chance once in {_looks(alarm.once_in_looks)} looks)"


def called(version: VersionDrift, column: ColumnDrift) -> str:
    """What a column or an answer is called."""
    return PREDICTIONS if column is version.predictions else formatting.safe(column.name)


def alarms_of(version: VersionDrift, column: ColumnDrift) -> list[DriftAlarm]:
    """The alarms of a column or an answer that are on."""
    name = "" if column is version.predictions else column.name
    return [alarm for alarm in version.alarms if alarm.column == name]


def since(version: VersionDrift, column: ColumnDrift) -> float | None:
    """When the drift of a column or an answer began, by its alarms that are on; None without one."""
    return min((alarm.since for alarm in alarms_of(version, column)), default=None)


def moment(seconds: float | None, layout: str = "%Y-%m-%d %H:%M") -> str:
    """A time in UTC; empty where there is none.

    >>> moment(1767225600.0), moment(1767225600.0, "%m-%d %H:%M"), moment(None)
    ('2026-01-01 00:00', '01-01 00:00', '')
    """
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime(layout)


def order_line(version: VersionDrift) -> str:
    """What follows from the order of the training rows, where it is not to be trusted; else empty."""
    if version.order == "shuffled":
        return (
            "the training sample looked shuffled, so nothing says how much the traffic changes from day to day: such changes "
            "may be called drift. Publish with the rows in the order of time, or with --time COLUMN"
        )
    if version.order == "sorted":
        by = " and ".join(formatting.safe(name) for name in version.ordered_by[:3])
        return (
            f"the training sample was sorted by {by}. If that is not time, drift in what changes with it is missed. "
            "Publish with the rows in the order of time, or with --time COLUMN"
        )
    return ""


def _looks(number: float) -> str:
    return f"{number:,.0f}" if number < _MANY else f"more than {_MANY:,}"


def state(column: ColumnDrift) -> str:
    """Whether a column drifted, or why that is not known."""
    if not column.enough_rows:
        return f"too few rows, {column.rows:,} of {column.rows_needed:,}"
    if column.drifted is None:
        return f"not judged, its rows hang together: like {column.effective_rows:,} of {column.rows_needed:,} needed"
    return "drifted" if column.drifted else "as in training"
