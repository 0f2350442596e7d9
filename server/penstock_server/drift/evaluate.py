"""Evaluates a window of counts against its reference: one record per column, all columns judged together.

Pure. `monitor` calls it at a scrape and for alarms; `statistics` has the distances and `significance` the tests.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift import power, significance, statistics
from penstock_server.drift.expected_accuracy import expected_accuracy
from penstock_server.drift.reference import EXTRA_LABELS, Reference
from penstock_server.drift.report import ColumnDrift, DriftRules, ExpectedAccuracy, JointDrift, VersionDrift
from penstock_server.drift.statistics import Reals
from penstock_server.features.counting import EXTRA_CELLS, INFINITE, MISSING, UNSEEN, Counts

Values = list[float | None]
"""One value per column; None where it is not known."""


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
    dispersion: Reals | None = None,
    joint: JointDrift | None = None,
) -> VersionDrift:
    """The record of a version's window.

    Args:
        model: its name.
        version: the version.
        roles: its roles.
        reference: the training rows.
        window: the counts of the same columns; a last row may be there without a reference.
        rows: in the window.
        window_rows: the most that a worker's window holds.
        rules: what counts as drift.
        dispersion: as `columns_drift` takes it.
        joint: what the rows counted by two columns at once show.
    """
    columns, answered = columns_drift(reference, window, rules, dispersion)
    p_values = [column.p_value for column in columns if column.p_value is not None]
    return VersionDrift(
        model=model,
        version=version,
        roles=tuple(roles),
        rows=rows,
        window_rows=window_rows,
        rate=rules.rate,
        columns=columns,
        predictions=answered[0] if reference.has_predictions else None,
        answers=answered[reference.has_predictions :],
        expected_accuracy=_expected_accuracy(reference, window, dispersion),
        tested=len(p_values),
        drifted=sum(column.drifted is True for column in columns) if p_values else None,
        global_p_value=significance.simes(p_values) if p_values else None,
        importance_measure=reference.importance_measure,
        order=reference.order.order,
        ordered_by=reference.order.columns,
        joint=joint,
    )


def _expected_accuracy(reference: Reference, window: Counts, dispersion: Reals | None) -> ExpectedAccuracy | None:
    if reference.holdout is None:
        return None
    at, holdout = reference.holdout
    hangs_together = 1.0 if dispersion is None else float(dispersion[at])
    return expected_accuracy(holdout, reference.cells[at], window.cells[at], window.outside[at], hangs_together)


def columns_drift(
    reference: Reference, window: Counts, rules: DriftRules, dispersion: Reals | None = None
) -> tuple[tuple[ColumnDrift, ...], tuple[ColumnDrift, ...]]:
    """The records of the columns, judged together, and those of the answers, judged together: the predictions first.

    Args:
        reference: the training rows.
        window: the counts of the rows served.
        rules: what counts as drift.
        dispersion: how much these vary in the window, float64 [columns], by `statistics.dispersion`; None as independent rows.
    """
    size = len(reference.names)
    columns = reference.columns
    now = Counts(window.cells[:size], window.outside[:size], window.sums[:size])
    seen = np.ones(size) if dispersion is None else dispersion[:size]
    is_enough = statistics.enough_rows(reference.cells, now.cells)
    is_judged = is_enough & (now.rows / seen >= statistics.rows_needed(reference.cells, now.cells))
    effect = reference.minimum_effect if rules.minimum_effect is None else np.full(size, rules.minimum_effect)
    p_values = _p_values(reference, now, effect, seen, is_judged)
    # A list per field of the records, with an entry per column: the statistics take all columns at once.
    lists: dict[str, Sequence[Any]] = {
        "name": reference.names,
        "kind": reference.kinds,
        "rows": now.rows.tolist(),
        "rows_needed": statistics.rows_needed(reference.cells, now.cells).tolist(),
        "effective_rows": (now.rows / seen).astype(np.int64).tolist(),
        "enough_rows": is_enough.tolist(),
        "p_value": p_values,
        "drifted": _drifted(p_values[:columns], rules.rate) + _drifted(p_values[columns:], rules.rate),
        "dispersion": np.maximum(reference.dispersion, seen).tolist(),
        "minimum_effect": effect.tolist(),
        "importance": reference.importance,
        "detectable": _detectable(reference, now, effect, seen, is_judged, rules.rate),
        **_distances(reference, now, is_enough),
        **_distances_of_numbers(reference, now, is_enough),
        **_ratios(reference, now),
        **_histograms(reference, now),
    }
    records = tuple(ColumnDrift(**dict(zip(lists, row, strict=True))) for row in zip(*lists.values(), strict=True))
    return records[:columns], records[columns:]


def _p_values(reference: Reference, now: Counts, effect: Reals, dispersion: Reals, chosen: NDArray[np.bool_]) -> Values:
    known, current = reference.cells[chosen], now.cells[chosen]
    found = significance.p_value(known, current, effect[chosen], reference.dispersion[chosen], dispersion[chosen])
    return _spread(found, chosen)


def _detectable(  # noqa: PLR0917 - what `_p_values` has, and the rate
    reference: Reference, now: Counts, effect: Reals, dispersion: Reals, chosen: NDArray[np.bool_], rate: float
) -> Values:
    pair = reference.cells[chosen], now.cells[chosen]
    varies = reference.dispersion[chosen]
    noise = statistics.sampling_noise(*pair, varies, np.maximum(varies, dispersion[chosen]))
    freedom = statistics.degrees_of_freedom(*pair)
    return _spread(power.about_detectable(freedom, noise, effect[chosen], rate=rate), chosen)


def _drifted(p_values: Values, rate: float) -> list[bool | None]:
    """Whether each column drifted, judged together; None where it was not tested."""
    rejected = iter(significance.benjamini_hochberg([value for value in p_values if value is not None], rate).tolist())
    return [None if value is None else next(rejected) for value in p_values]


def _distances(reference: Reference, now: Counts, is_enough: NDArray[np.bool_]) -> Mapping[str, Values]:
    pair = reference.cells[is_enough], now.cells[is_enough]
    return {
        "jensen_shannon": _spread(statistics.jensen_shannon(*pair), is_enough),
        "psi": _spread(statistics.psi(*pair), is_enough),
        "psi_unbiased": _spread(statistics.psi_unbiased(*pair), is_enough),
    }


def _distances_of_numbers(reference: Reference, now: Counts, is_enough: NDArray[np.bool_]) -> Mapping[str, Values]:
    """The distances of finite numbers, where both sides have some."""
    known, current = reference.cells[:, :-EXTRA_CELLS], now.cells[:, :-EXTRA_CELLS]
    chosen = reference.is_number & is_enough & known.any(axis=1) & current.any(axis=1)
    pair = known[chosen], current[chosen]
    ks, slack = statistics.kolmogorov_smirnov(*pair)
    distance = statistics.wasserstein(*pair, (reference.sums[chosen], now.sums[chosen]), reference.edges[chosen])
    with np.errstate(divide="ignore", invalid="ignore"):
        in_deviations = distance / reference.deviation[chosen]
    return {
        "ks": _spread(ks, chosen),
        "ks_slack": _spread(slack, chosen),
        "wasserstein": _spread(in_deviations, chosen),
    }


def _ratios(reference: Reference, now: Counts) -> Mapping[str, Values]:
    """Shares of the window's rows, however few there are."""
    extra = _shares(now.cells)[:, -EXTRA_CELLS:]
    is_some = now.rows > 0
    of_numbers, of_others = is_some & reference.is_number, is_some & ~reference.is_number
    outside = now.outside[of_numbers].sum(axis=1) / now.rows[of_numbers]
    return {
        "missing_ratio": _spread(extra[is_some, MISSING], is_some),
        "unseen_ratio": _spread(extra[of_others, UNSEEN], of_others),
        "infinite_ratio": _spread(extra[of_numbers, INFINITE], of_numbers),
        "out_of_range_ratio": _spread(outside, of_numbers),
    }


def _histograms(reference: Reference, now: Counts) -> Mapping[str, list[tuple[Any, ...]]]:
    """The label of each cell and both sides' shares: a column's own bins, then the extra cells that either side has rows in."""
    known, current = _shares(reference.cells), _shares(now.cells)
    found: dict[str, list[tuple[Any, ...]]] = {"labels": [], "reference": [], "current": []}
    for labels, before, after in zip(reference.labels, known.tolist(), current.tolist(), strict=True):
        extra = [at for at in range(-EXTRA_CELLS, 0) if before[at] or after[at]]
        cells = [*range(len(labels)), *extra]
        found["labels"].append((*labels, *(EXTRA_LABELS[at] for at in extra)))
        found["reference"].append(tuple(before[at] for at in cells))
        found["current"].append(tuple(after[at] for at in cells))
    return found


def _shares(cells: NDArray[np.int64]) -> Reals:
    shares: Reals = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    return shares


def _spread(values: Reals, chosen: NDArray[np.bool_]) -> Values:
    """The chosen columns' values at their places; None for the other columns, and for a value that is not finite."""
    found: Values = [None] * len(chosen)
    for at, value in zip(np.flatnonzero(chosen).tolist(), values.tolist(), strict=True):
        found[at] = value if isfinite(value) else None
    return found
