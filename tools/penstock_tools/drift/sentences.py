"""The sentences about a version's drift, the same in a terminal and on the page: its verdict, its rows, its alarms.

The server decides what drifted.
"""

from datetime import UTC, datetime
from typing import Final

from penstock_server.drift.report import ColumnDrift, DriftAlarm, PairDrift, SegmentDrift, VersionDrift
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


def expected_line(version: VersionDrift) -> str:
    """The expected accuracy, what it rests on, and how much of the window it says little about; empty without a hold-out."""
    found = version.expected_accuracy
    if found is None:
        return ""
    outside = f"; it says nothing about {share(found.outside_ratio)} of the rows now" if found.outside_ratio else ""
    return (
        f"expected accuracy, if the relation held: {found.value:.1%} ({found.low:.1%} to {found.high:.1%}); of the hold-out's "
        f"{found.reference_rows:,} rows {found.reference:.1%} were right{outside}"
    )


def assumption(version: VersionDrift) -> str:
    """What the expected accuracy assumes; empty where there is none."""
    if version.expected_accuracy is None:
        return ""
    return (
        "Expected accuracy is told from how sure the model is, without labels. It holds if the relation between features and "
        "truth held: where the same features came to mean something else, it is wrong, and its band does not say so."
    )


def alarms_line(version: VersionDrift) -> str:
    """The alarms that are on and since when; empty if none is."""
    alarms = sorted(version.alarms, key=lambda alarm: alarm.since)
    return f"alarm: {'; '.join(map(alarm_told, alarms))}{_alarmed_importance(version)}" if alarms else ""


def alarms_head(version: VersionDrift) -> str:
    """How many alarms are on."""
    if version.alarmed is None:
        return "nothing looks for drift alarms of this version"
    count = len(version.alarms)
    looks = f", after {version.looks:,} looks" if version.looks else ""
    return f"{count or 'no'} {'alarms are' if count > 1 else 'alarm is'} on{looks}{_alarmed_importance(version)}"


def _alarmed_importance(version: VersionDrift) -> str:
    """How much the alarmed features matter; empty where that is not known, or nothing is alarmed."""
    if not version.alarms or version.alarmed_importance is None:
        return ""
    return (
        f"; the alarmed features carry {formatting.percent(version.alarmed_importance)} of the importance to the model"
    )


def alarm_told(alarm: DriftAlarm) -> str:
    """An alarm in words.

    >>> alarm_told(DriftAlarm("delay", "shares", 1767225600.0, 3e9))
    'delay drifts since 2026-01-01 00:00 UTC (by chance once in 3,000,000,000 looks)'
    """
    name = formatting.safe(alarm.column) if alarm.column else PREDICTIONS
    does = "drifts" if alarm.kind == "shares" else "has more unknown values than in training"
    return f"{name} {does} since {moment(alarm.since)} UTC (by chance once in {_looks(alarm.once_in_looks)} looks)"


def joint_line(version: VersionDrift) -> str:
    """What rows counted by two columns at once show; empty where they are not counted so."""
    joint = version.joint
    if joint is None:
        return ""
    sample = f"a sample of {joint.rows:,} rows"
    pairs, segments = (
        [one.drifted for one in found if one.drifted is not None] for found in (joint.pairs, joint.segments)
    )
    if not (pairs or segments):
        return f"how columns go together is not known yet: {sample} is too few"
    told = [f"{sum(pairs)} of {len(pairs)} pairs of columns go together in another way"] * bool(pairs)
    told += [f"{sum(segments)} of {len(segments)} segments get other answers"] * bool(segments)
    return f"{'; '.join(told)} ({sample})"


def joint_told(version: VersionDrift) -> list[str]:
    """The pairs and the segments that drifted, in words, those with the largest index first."""
    if version.joint is None:
        return []
    pairs = sorted((one for one in version.joint.pairs if one.drifted), key=_index)
    segments = sorted((one for one in version.joint.segments if one.drifted), key=_index)
    return [*map(pair_told, pairs), *map(segment_told, segments)]


def _index(one: PairDrift | SegmentDrift) -> float:
    return -(one.psi_unbiased or 0.0)


def pair_told(pair: PairDrift) -> str:
    """How two columns go together, in words.

    >>> pair_told(PairDrift("a", "b", 90, 80, 0.6, 0.1, 0.25, 0.001, True, (), (), (), ()))
    'a and b: association 0.10, in training 0.60 (PSI 0.25)'
    """
    names = f"{formatting.safe(pair.first)} and {formatting.safe(pair.second)}"
    now = "too few rows" if pair.association is None else f"association {decimals(pair.association, 2)}"
    index = "" if pair.psi_unbiased is None else f" (PSI {decimals(pair.psi_unbiased, 2)})"
    return f"{names}: {now}, in training {decimals(pair.association_reference, 2)}{index}"


def segment_told(segment: SegmentDrift) -> str:
    """The answers for a segment, in words: the one whose share changed most.

    >>> segment_told(SegmentDrift("city", "Oslo", 90, 80, 0.5, 0.4, 0.25, 0.001, True, ("no", "yes"), (0.9, 0.1), (0.7, 0.3)))
    'where city is Oslo: no 70.0%, in training 90.0% (PSI 0.25)'
    """
    where = f"where {formatting.safe(segment.column)} is {formatting.safe(segment.segment)}"
    changes = [abs(now - before) for before, now in zip(segment.reference, segment.current, strict=True)]
    at = changes.index(max(changes))
    label, before = formatting.safe(segment.labels[at]), formatting.percent(segment.reference[at])
    now = "too few rows" if segment.psi_unbiased is None else formatting.percent(segment.current[at])
    index = "" if segment.psi_unbiased is None else f" (PSI {decimals(segment.psi_unbiased, 2)})"
    return f"{where}: {label} {now}, in training {before}{index}"


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
