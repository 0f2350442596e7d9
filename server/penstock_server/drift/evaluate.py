"""Evaluates a window of counts against its reference: the records of `drift_state`, the columns judged together.

Pure. `drift_watch` calls it at a scrape, and for alarms; the figures are `drift_figures`'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift import significance, statistics
from penstock_server.drift.reference import EXTRA_LABELS, Reference
from penstock_server.drift.report import ColumnDrift, VersionDrift
from penstock_server.drift.statistics import Reals
from penstock_server.features.counting import EXTRA_CELLS, INFINITE, MISSING, UNSEEN, Counts

Said = list[float | None]
"""A figure for each column; None where it cannot be said."""


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """A list for each figure of `drift_state.ColumnDrift`, in the columns' order."""

    is_enough: list[bool]
    needed: list[int]
    effect: list[float]
    jensen_shannon: Said
    psi: Said
    psi_unbiased: Said
    p_value: Said
    ks: Said
    ks_slack: Said
    wasserstein: Said


def figures_of(reference: Reference, now: Counts, minimum_effect: float | None) -> Figures:
    """The figures of a window.

    Args:
        reference: what it is held against.
        now: the counts of the same columns.
        minimum_effect: the index that is called no drift, for all columns; None as the reference says.
    """
    known = reference.cells
    is_enough = statistics.enough_rows(known, now.cells)
    effect = reference.minimum_effect if minimum_effect is None else np.full(len(known), minimum_effect)
    pair = known[is_enough], now.cells[is_enough]
    p_value = significance.p_value(*pair, effect[is_enough], reference.dispersion[is_enough])
    ks, slack, distance = _of_numbers(reference, now, is_enough)
    return Figures(
        is_enough=is_enough.tolist(),
        needed=statistics.rows_needed(known, now.cells).tolist(),
        effect=effect.tolist(),
        jensen_shannon=_spread(statistics.jensen_shannon(*pair), is_enough),
        psi=_spread(statistics.psi(*pair), is_enough),
        psi_unbiased=_spread(statistics.psi_unbiased(*pair), is_enough),
        p_value=_spread(p_value, is_enough),
        ks=ks,
        ks_slack=slack,
        wasserstein=distance,
    )


def _of_numbers(reference: Reference, now: Counts, is_enough: NDArray[np.bool_]) -> tuple[Said, Said, Said]:
    """The figures of finite numbers, where both sides have some."""
    known, current = reference.cells[:, :-EXTRA_CELLS], now.cells[:, :-EXTRA_CELLS]
    chosen = reference.is_number & is_enough & known.any(axis=1) & current.any(axis=1)
    pair = known[chosen], current[chosen]
    ks, slack = statistics.kolmogorov_smirnov(*pair)
    distance = statistics.wasserstein(*pair, (reference.sums[chosen], now.sums[chosen]), reference.edges[chosen])
    with np.errstate(divide="ignore", invalid="ignore"):
        in_deviations = distance / reference.deviation[chosen]
    return _spread(ks, chosen), _spread(slack, chosen), _spread(in_deviations, chosen)


def _spread(values: Reals, chosen: NDArray[np.bool_]) -> Said:
    """Values of the chosen columns at their places; None at the others', and where a value is none."""
    found: Said = [None] * len(chosen)
    for at, value in zip(np.flatnonzero(chosen).tolist(), values.tolist(), strict=True):
        found[at] = value if isfinite(value) else None
    return found


RATE: Final = 0.05
_Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DriftRules:
    """What is called drift.

    Attributes:
        rate: the share of the drifted columns that may be wrong.
        minimum_effect: the index that is called no drift, for all columns; None as each baseline says.
    """

    rate: float = RATE
    minimum_effect: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """What is shown of each column beside its figures."""

    rows: list[int]
    outside: list[int]
    known: list[list[float]]
    now: list[list[float]]


def version_drift(
    model: str,
    version: str,
    roles: Sequence[str],
    *,
    reference: Reference,
    window: Counts,
    rows: int,
    window_rows: int,
    rules: DriftRules,
    alarmed: tuple[str, ...] | None = None,
) -> VersionDrift:
    """All that can be said of a version's window.

    Args:
        model: its name.
        version: the version.
        roles: the parts that it plays.
        reference: what it was trained on.
        window: the counts of the same columns; a last row of predictions may be there without a reference.
        rows: in the window.
        window_rows: that a worker's window holds at most.
        rules: what is called drift.
        alarmed: the columns whose alarm is on.
    """
    columns, predictions = columns_drift(reference, window, rules)
    tested = [column for column in columns if column.p_value is not None]
    p_values = [column.p_value for column in tested if column.p_value is not None]
    return VersionDrift(
        model=model,
        version=version,
        roles=tuple(roles),
        rows=rows,
        window_rows=window_rows,
        rate=rules.rate,
        columns=columns,
        predictions=predictions,
        tested=len(tested),
        drifted=sum(bool(column.drifted) for column in tested) if tested else None,
        global_p_value=significance.simes(p_values) if tested else None,
        alarmed=alarmed,
    )


def columns_drift(
    reference: Reference, window: Counts, rules: DriftRules
) -> tuple[tuple[ColumnDrift, ...], ColumnDrift | None]:
    """A record for each column, those judged together; and one for the predictions, judged alone."""
    size = len(reference.names)
    now = Counts(window.cells[:size], window.outside[:size], window.sums[:size])
    figures = figures_of(reference, now, rules.minimum_effect)
    drifted = _drifted(figures.p_value, size - reference.has_predictions, rules.rate)
    shown = _Shown(
        now.rows.tolist(),
        now.outside.sum(axis=1).tolist(),
        _shares(reference.cells).tolist(),
        _shares(now.cells).tolist(),
    )
    records = tuple(_record(reference, figures, drifted[at], shown, at) for at in range(size))
    return (records[:-1], records[-1]) if reference.has_predictions else (records, None)


def _drifted(p_values: Said, columns: int, rate: float) -> list[bool | None]:
    """Whether each column drifted, those tested judged together, and what is after them alone."""
    tested = [at for at in range(columns) if p_values[at] is not None]
    rejected = significance.benjamini_hochberg([p_values[at] or 0.0 for at in tested], rate)
    found: list[bool | None] = [None] * columns
    for at, is_rejected in zip(tested, rejected.tolist(), strict=True):
        found[at] = is_rejected
    return found + [None if value is None else value <= rate for value in p_values[columns:]]


def _record(reference: Reference, figures: Figures, drifted: bool | None, shown: _Shown, at: int) -> ColumnDrift:
    is_enough, is_number = figures.is_enough[at], bool(reference.is_number[at])
    labels, rows, now = reference.labels[at], shown.rows[at], shown.now[at]
    missing, infinite, unseen = now[-EXTRA_CELLS:]
    odd = [
        each for each in (MISSING, INFINITE, UNSEEN) if now[each - EXTRA_CELLS] or shown.known[at][each - EXTRA_CELLS]
    ]
    return ColumnDrift(
        name=reference.names[at],
        kind=reference.kinds[at],
        rows=rows,
        rows_needed=figures.needed[at],
        enough_rows=is_enough,
        jensen_shannon=figures.jensen_shannon[at],
        psi=figures.psi[at],
        psi_unbiased=figures.psi_unbiased[at],
        ks=figures.ks[at],
        ks_slack=figures.ks_slack[at],
        wasserstein=figures.wasserstein[at],
        missing_ratio=missing if is_enough else None,
        unseen_ratio=unseen if is_enough and not is_number else None,
        infinite_ratio=infinite if is_enough and is_number else None,
        out_of_range_ratio=shown.outside[at] / rows if is_enough and is_number else None,
        p_value=figures.p_value[at],
        drifted=drifted,
        dispersion=float(reference.dispersion[at]),
        minimum_effect=figures.effect[at],
        labels=(*labels, *(EXTRA_LABELS[each] for each in odd)),
        reference=_in_order(shown.known[at], len(labels), odd),
        current=_in_order(now, len(labels), odd),
    )


def _in_order(shares: list[float], bins: int, odd: list[int]) -> tuple[float, ...]:
    """A column's own bins, and what is in none where either side has such rows."""
    return (*shares[:bins], *(shares[each - EXTRA_CELLS] for each in odd))


def _shares(cells: NDArray[np.int64]) -> _Reals:
    shares: _Reals = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    return shares
