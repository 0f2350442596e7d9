"""What is said of drift: a record for each watched column, and one for a version; nothing here is computed.

`drift_evaluation` makes them from a reference and a window of counts; metrics, JSON, the RPC and the tools show them. None
always means that it cannot be said: too few rows, or a figure that this kind of column does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "string", "class", "score"]
"""A raw column of numbers or strings; the predicted class, or the model's output where it has no classes."""


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """How far a column's rows lie from those trained on.

    Attributes:
        name: the column's, or the output's for predictions.
        kind: what it holds.
        rows: N, counted in the window.
        rows_needed: below so many rows nothing is said: 25 for each cell that either side has rows in.
        enough_rows: whether both sides have them.
        jensen_shannon: the distance in base 2, 0 to 1.
        psi: the population stability index as Evidently computes it; without drift it grows as N falls.
        psi_unbiased: the index of smoothed shares less its mean without drift, were rows independent; around 0 then, and
            above it by as much as rows clump, which the p-value takes into account.
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
        dispersion: how much more the counts vary in time than independent rows would, 1 or more.
        minimum_effect: the index that is still called no drift.
        labels: what each cell holds, for people: the bins or categories, then missing, infinite and unseen.
        reference, current: each cell's share of the rows trained on, and of the window's; zeros where there are no rows.
    """

    name: str
    kind: Kind
    rows: int
    rows_needed: int
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


@dataclass(frozen=True, slots=True)
class VersionDrift:
    """How far a version's window lies from its baseline, over all workers.

    Attributes:
        model, version: which.
        roles: the parts that it plays.
        rows: in the window now.
        window_rows: that a worker's window holds at most, about.
        rate: the share of the drifted columns that may be wrong, as Benjamini and Hochberg keep it.
        columns: one for each raw column, in the specification's order.
        predictions: of what the model answered; None without a reference for it.
        tested: the columns with enough rows.
        drifted: of these, the ones that drifted; None where none was tested.
        global_p_value: Simes' combination of the columns' p-values: below `rate` exactly where a column drifted.
        alarmed: the columns whose alarm is on, "" being the predictions: drifted in two windows in a row that share no
            row. None where nobody watches over time.
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


def by_evidence(columns: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """The columns with the smallest p-value first, of equal ones those at the largest distance; the untested last."""

    def evidence(column: ColumnDrift) -> tuple[float, float]:
        return (
            2.0 if column.p_value is None else column.p_value,
            0.0 if column.jensen_shannon is None else -column.jensen_shannon,
        )

    return sorted(columns, key=evidence)
