"""The records of a drift report, one per watched column and one per version, and what counts as drift.

`evaluate` makes the records from a reference and a window of counts; metrics, JSON, the RPC and the tools show them.
None means that a value is unknown: there are too few rows, or this kind of column does not have it. Shares of rows are known
from the first row on.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["number", "string", "class", "score"]
"""A raw column of numbers or strings; the predicted class, or a number of the model's answers."""


Order = Literal["given", "time", "sorted", "shuffled"]
"""What training rows are ordered by, as `order.RowOrder` has it."""

RATE: Final = 0.05
"""The share of the columns called drifted that may be wrong, unless a server is set to another."""


RUN_LENGTH: Final = 31_536_000.0
"""Looks from one false alarm of a version to the next, at least; there is at most one a second, so this is a year or more."""

WINDOW_ROWS: Final = 10_000
WINDOW_S: Final = 7 * 86_400.0
"""Older rows leave the window."""

AlarmKind = Literal["shares", "unseen"]
"""The values are distributed in another way than the training rows', or more of them are unknown."""


@dataclass(frozen=True, slots=True)
class DriftRules:
    """How a version is watched, and what counts as drift.

    Attributes:
        rate: the share of the columns called drifted that may be wrong.
        minimum_effect: the index that is still no drift, for all columns; None as each baseline says.
        run_length: the looks from one false alarm of a version to the next, on average, at least.
        window_rows: about the most counted rows of a worker's window.
        window_s: how old these rows may be, in seconds.
    """

    rate: float = RATE
    minimum_effect: float | None = None
    run_length: float = RUN_LENGTH
    window_rows: int = WINDOW_ROWS
    window_s: float = WINDOW_S


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """A column's alarm that is on.

    Attributes:
        column: its name, which no other answer has; "" for the predictions.
        kind: what is unusual.
        since: when it began, in seconds since 1970.
        once_in_looks: in how many looks chance alone gives evidence as strong, on average.
    """

    column: str
    kind: AlarmKind
    since: float
    once_in_looks: float


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """A column's rows compared with the training rows.

    Attributes:
        name: the column's, the output's for predictions, or the answer's.
        kind: what it holds.
        rows: N, counted in the window.
        rows_needed: the rows needed to compare it: 25 for each cell that either side has rows in.
        effective_rows: so many independent rows would say as much as those in the window: fewer where rows repeat or come in
            bursts. As many as are needed must be there for a p-value.
        enough_rows: whether both sides have the rows needed.
        jensen_shannon: the distance in base 2, 0 to 1.
        psi: the population stability index as Evidently computes it; without drift it grows as N falls.
        psi_unbiased: the index of smoothed shares, less its mean for independent rows without drift. Without drift it is
            around 0 for independent rows, and larger the more rows clump; the p-value takes that into account.
        ks: the largest distance of the two distribution functions at the bins' edges, numbers only. The true
            Kolmogorov-Smirnov distance is at least this, and at most `ks + ks_slack`.
        ks_slack: the largest share that a bin has on either side.
        wasserstein: a lower bound of the distance, in standard deviations of the reference, numbers only; equal to it
            unless the two distribution functions cross inside a bin.
        missing_ratio: the window's share of rows without a value.
        unseen_ratio: of values that training never saw, strings and classes only.
        infinite_ratio: of infinite numbers, numbers only.
        out_of_range_ratio: of finite numbers below the reference's smallest or above its largest, numbers only.
        p_value: how likely so large an index is if the true one is `minimum_effect`.
        drifted: whether it is among those rejected together at the version's rate.
        dispersion: how much more the counts vary in time than those of independent rows, 1 or more: the training rows' counts,
            or the window's where these vary more.
        minimum_effect: the index that is still called no drift.
        labels: what each cell holds, for people: the bins or categories, then missing, infinite and unseen.
        reference, current: each cell's share of the rows trained on, and of the window's; zeros where there are no rows.
        importance: how much the column matters to the model, in the version's `importance_measure`; None if not published.
        detectable: the smallest index that four of five windows of so many effective rows are called drift for, within a few
            percent; None where no drift would be seen.
    """

    name: str
    kind: Kind
    rows: int
    rows_needed: int
    effective_rows: int
    enough_rows: bool
    jensen_shannon: float | None
    psi: float | None
    psi_unbiased: float | None
    ks: float | None
    ks_slack: float | None
    wasserstein: float | None
    missing_ratio: float | None
    unseen_ratio: float | None
    infinite_ratio: float | None
    out_of_range_ratio: float | None
    p_value: float | None
    drifted: bool | None
    dispersion: float
    minimum_effect: float
    labels: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]
    importance: float | None = None
    detectable: float | None = None


@dataclass(frozen=True, slots=True)
class PairDrift:
    """How two columns depend on each other, compared with the training rows; from a sample of the rows.

    Attributes:
        first, second: the columns.
        rows: of the sample, with a value of both.
        rows_needed: to compare them.
        association_reference, association: Cramer's V of their groups in the training rows and now: 0 for independent
            columns, 1 where one tells all of the other.
        psi_unbiased: the index of the pair's table against the training rows', after its margins are taken into account, less
            its mean without drift. So it is not drift of either column alone.
        p_value: how likely so large an index is if the true one is 0.02.
        drifted: whether it is among the pairs rejected together at the version's rate.
        first_labels, second_labels: the groups of each column.
        reference, current: the share of the rows in each cell, row by row of the first column's groups.
    """

    first: str
    second: str
    rows: int
    rows_needed: int
    association_reference: float | None
    association: float | None
    psi_unbiased: float | None
    p_value: float | None
    drifted: bool | None
    first_labels: tuple[str, ...]
    second_labels: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SegmentDrift:
    """The predictions for rows with one value of a column, or a range of them; from a sample of the rows.

    Attributes:
        column: its name.
        segment: the value, or the range.
        rows: of the sample, in the segment.
        rows_needed: to compare it.
        share_reference, share: of all rows with a value, in training and now.
        psi_unbiased: the index of the predictions, less its mean without drift.
        p_value: how likely so large an index is if the true one is the largest that is no drift.
        drifted: whether it is among the segments rejected together at the version's rate.
        labels: the classes, or the ranges of the score.
        reference, current: the share of each among the segment's rows.
    """

    column: str
    segment: str
    rows: int
    rows_needed: int
    share_reference: float
    share: float
    psi_unbiased: float | None
    p_value: float | None
    drifted: bool | None
    labels: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class JointDrift:
    """What rows show that are counted by two columns at once.

    Attributes:
        rows: of the sample in the window.
        pairs: of raw columns; those that depended on each other most in training.
        segments: of raw columns, with the predictions for them.
    """

    rows: int = 0
    pairs: tuple[PairDrift, ...] = ()
    segments: tuple[SegmentDrift, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpectedAccuracy:
    """The share of right answers that is expected in the window, if the relation between features and truth held.

    It follows from how sure the model was of each answer, and from how often it was right on a hold-out when it was as sure;
    no truth is known of the window. Where the relation itself changed, it is wrong.

    Attributes:
        value: the share.
        low, high: where the true share is in about nineteen of twenty windows, if the relation is as steady as it was along
            the hold-out.
        reference: the share of right answers on the hold-out.
        reference_rows: its rows.
        outside_ratio: the window's share of rows that the hold-out says nothing about: the model is less sure of them than of
            any row there, or surer, or gave no number.
    """

    value: float
    low: float
    high: float
    reference: float
    reference_rows: int
    outside_ratio: float


@dataclass(frozen=True, slots=True)
class VersionDrift:
    """A version's window, over all workers, compared with its baseline.

    Attributes:
        model, version: its names.
        roles: its roles.
        rows: counted in the window now: of a batch of 512 rows or more that is one in two, of 1,024 or more one in four.
        window_rows: about the most counted rows that a worker's window holds.
        rate: the share of the drifted columns that may be wrong, as Benjamini and Hochberg keep it.
        columns: one for each raw column, in the specification's order.
        predictions: of the model's predictions; None without a reference for them.
        answers: of other numbers of its answers, such as a classifier's confidence; no name of theirs is a column's.
        tested: the columns with enough rows.
        drifted: how many of these drifted; None if none was tested.
        global_p_value: Simes' combination of the columns' p-values: below `rate` exactly where a column drifted.
        expected_accuracy: of the window; None without a hold-out, and before there are rows enough.
        alarmed: the columns and answers with an alarm that is on, "" for the predictions. None if nothing looks for alarms.
        alarms: these alarms.
        looks: how often it was looked for alarms: at most once a second, and after 100 rows.
        importance_measure: what the columns' importance is, such as "AUC lost"; "" where they have none.
        order: what the training rows are ordered by. Where they are shuffled, nothing says how much the shares change from day
            to day, and where they are sorted by something that is not time, they say too much.
        ordered_by: the columns that they are ordered by.
        alarmed_importance: the share of the columns' importance that lies in those with an alarm, 0 to 1: drift of columns that
            the model hardly reads can wait. None where the importance is not known, or nothing looks for alarms.
        joint: what rows counted by two columns at once show; None where they are not counted so.
    """

    model: str
    version: str
    roles: tuple[str, ...]
    rows: int
    window_rows: int
    rate: float
    columns: tuple[ColumnDrift, ...]
    predictions: ColumnDrift | None
    tested: int
    drifted: int | None
    global_p_value: float | None
    alarmed: tuple[str, ...] | None = None
    importance_measure: str = ""
    alarms: tuple[DriftAlarm, ...] = ()
    looks: int = 0
    order: Order = "given"
    ordered_by: tuple[str, ...] = ()
    joint: JointDrift | None = None
    alarmed_importance: float | None = None
    answers: tuple[ColumnDrift, ...] = ()
    expected_accuracy: ExpectedAccuracy | None = None

    @property
    def answered(self) -> tuple[ColumnDrift, ...]:
        """The predictions, if they are watched, and the other answers."""
        return (*(() if self.predictions is None else (self.predictions,)), *self.answers)


def alarmed_importance(columns: Sequence[ColumnDrift], alarmed: Collection[str]) -> float | None:
    """The share of the columns' importance that lies in the alarmed ones; None where none has any."""
    weights = {column.name: max(column.importance or 0.0, 0.0) for column in columns}
    total = sum(weights.values())
    return sum(weights.get(name, 0.0) for name in set(alarmed)) / total if total else None


def by_significance(columns: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """The columns from the most significant: by p-value, then by distance, the largest first, then by name; untested last.

    The metrics and the tools both rank by this, so that the features with series are those at the head of a report.
    """

    def rank(column: ColumnDrift) -> tuple[float, float, str]:
        p_value = 2.0 if column.p_value is None else column.p_value
        distance = 0.0 if column.jensen_shannon is None else column.jensen_shannon
        return p_value, -distance, column.name

    return sorted(columns, key=rank)


def by_concern(version: VersionDrift) -> list[ColumnDrift]:
    """A version's columns from the one that matters most: alarmed, then drifted, then others.

    The alarmed and the drifted are by distance times importance, where that is known; all others are by significance.
    """
    alarmed = {alarm.column for alarm in version.alarms}

    def weight(column: ColumnDrift) -> float:
        return (column.jensen_shannon or 0.0) * max(column.importance or 0.0, 0.0)

    def is_of_concern(column: ColumnDrift) -> bool:
        return column.name in alarmed or column.drifted is True

    def rank(column: ColumnDrift) -> tuple[bool, float]:
        return column.name not in alarmed, -weight(column)

    ranked = by_significance(version.columns)
    return sorted(filter(is_of_concern, ranked), key=rank) + [one for one in ranked if not is_of_concern(one)]
