"""Compares rows counted by two columns at once with the training rows: what columns one by one cannot show.

A pair's table is compared with the one that it would have if only its two columns had changed by themselves: the training
table, its rows and columns multiplied until they add up to what was served (iterative proportional fitting: Deming and Stephan,
1940). That keeps all odds ratios of training, so what differs is how the columns depend on each other. A segment is the rows
with one value of a column; the predictions for them are compared with those for the training rows with that value.

Pure. `joint_fit` chooses the tables; `monitor` calls it with a window of sampled rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift import significance, statistics
from penstock_server.drift.baseline import Baseline
from penstock_server.drift.joint_baseline import MOST_GROUPS, JointBaseline
from penstock_server.drift.report import DriftRules, JointDrift, PairDrift, SegmentDrift
from penstock_server.drift.significance import MINIMUM_EFFECT
from penstock_server.drift.statistics import Reals

MINIMUM_DEPENDENCE: Final = 0.02
"""The index of a pair that is still no drift. Two normal columns whose correlation falls from 0.8 to 0.7 have twice as much.
Where one moves by half a deviation, and they depend on each other as before, they have a tenth of it: groups are coarse."""
_ROUNDS: Final = 500
_CLOSE: Final = 1e-6

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class JointReference:
    """The tables of the training rows; G are the most groups of a column.

    Attributes:
        words: of a window's counts.
        pairs: the columns of each pair, with the labels of their groups.
        pair_at: int64 [pairs, G, G], where in the counts each cell is; -1 for none.
        pair_counts: int64 [pairs, G, G], the training rows.
        pair_dispersion: float64 [pairs].
        segments: of each the column, its group's label, and the labels of the predictions.
        segment_at: int64 [segments, G], where the predictions for its rows are counted; -1 for none.
        segment_counts: int64 [segments, G].
        segment_dispersion: float64 [segments].
        segment_table: int64 [segments], equal for those of one column.
    """

    words: int
    pairs: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...]
    pair_at: Integers
    pair_counts: Integers
    pair_dispersion: Reals
    segments: tuple[tuple[str, str, tuple[str, ...]], ...]
    segment_at: Integers
    segment_counts: Integers
    segment_dispersion: Reals
    segment_table: Integers


def joint_reference_of(baseline: Baseline) -> JointReference | None:
    """The tables of a baseline; None where it has none."""
    joint = baseline.joint
    if joint is None:
        return None
    known = np.concatenate([np.zeros(1, np.int64), *(np.array(table.counts, np.int64) for table in joint.tables)])
    at = [1]
    for table in joint.tables:
        at.append(at[-1] + len(table.counts))
    pair_at = np.full((len(joint.pairs), MOST_GROUPS, MOST_GROUPS), -1)
    for number, table in enumerate(joint.pairs):
        rows, columns = joint.shape(table)
        pair_at[number, :rows, :columns] = np.arange(at[number], at[number + 1]).reshape(rows, columns)
    segments, places, dispersions, tables = _segments(joint, at[len(joint.pairs) :])
    return JointReference(
        words=at[-1],
        pairs=tuple(
            (*joint.names(table), joint.columns[table.first].labels, joint.columns[table.second].labels)
            for table in joint.pairs
        ),
        pair_at=pair_at,
        pair_counts=_counted(known, pair_at),
        pair_dispersion=np.array([table.dispersion[0] for table in joint.pairs], np.float64),
        segments=tuple(segments),
        segment_at=places,
        segment_counts=_counted(known, places),
        segment_dispersion=np.array(dispersions, np.float64),
        segment_table=np.array(tables, np.int64),
    )


def _segments(
    joint: JointBaseline, at: Sequence[int]
) -> tuple[list[tuple[str, str, tuple[str, ...]]], Integers, list[float], list[int]]:
    found, rows, dispersions, tables = [], [], [], []
    for number, table in enumerate(joint.segments):
        column, answers = joint.columns[table.first], joint.columns[table.second]
        for group, label in enumerate(column.labels):
            begin = at[number] + group * len(answers.labels)
            row = np.full(MOST_GROUPS, -1)
            row[: len(answers.labels)] = np.arange(begin, begin + len(answers.labels))
            found.append((column.column, label, answers.labels))
            rows.append(row)
            dispersions.append(table.dispersion[group])
            tables.append(number)
    return found, np.array(rows, np.int64).reshape(len(rows), MOST_GROUPS), dispersions, tables


def _counted(counts: Integers, at: Integers) -> Integers:
    """The counts at these places along the last axis; 0 where there is none."""
    return np.where(at >= 0, counts[..., np.maximum(at, 0)], 0)


def joint_drift(reference: JointReference, parts: Integers, rules: DriftRules) -> JointDrift:
    """The records of all pairs, judged together, and of all segments, judged together.

    Args:
        reference: the training rows.
        parts: int64 [parts, words], the counts of successive parts of the window.
        rules: what counts as drift.
    """
    counts = parts.sum(axis=0) if len(parts) else np.zeros(reference.words, np.int64)
    return JointDrift(
        rows=int(counts[0]),
        pairs=_pairs(reference, counts, parts, rules),
        segments=_segments_drift(reference, counts, parts, rules),
    )


def _pairs(reference: JointReference, counts: Integers, parts: Integers, rules: DriftRules) -> tuple[PairDrift, ...]:
    is_cell = reference.pair_at >= 0
    known, now = reference.pair_counts, _counted(counts, reference.pair_at)
    flat = len(known), MOST_GROUPS * MOST_GROUPS
    seen = _dispersion(_counted(parts, reference.pair_at).reshape(len(parts), *flat))
    needed = statistics.rows_needed(known.reshape(flat), now.reshape(flat))
    rows = now.sum(axis=(1, 2))
    enough = (needed > 0) & (np.minimum(known.sum(axis=(1, 2)), rows / seen) >= needed)
    index, freedom = np.zeros((2, len(known)))
    index[enough], freedom[enough] = dependence_index(known[enough], now[enough], is_cell[enough])
    dispersion = np.maximum(reference.pair_dispersion, seen)
    noise = reference.pair_dispersion / np.maximum(known.sum(axis=(1, 2)), 1) + dispersion / np.maximum(rows, 1)
    enough &= freedom > 0
    p_values = np.ones(len(known))
    found_noise = noise[enough]
    p_values[enough] = significance.noncentral_tail(
        index[enough] / found_noise, freedom[enough], MINIMUM_DEPENDENCE / found_noise
    )
    drifted = _called(p_values, enough, rules.rate)
    unbiased = index - freedom * noise
    associations = [association(known), association(now)]
    shares = [_shares(known), _shares(now)]
    found = []
    for at, (first, second, first_labels, second_labels) in enumerate(reference.pairs):
        size = slice(len(first_labels)), slice(len(second_labels))
        is_known = bool(enough[at])
        found.append(
            PairDrift(
                first=first,
                second=second,
                rows=int(rows[at]),
                rows_needed=int(needed[at]),
                association_reference=_finite(associations[0][at]),
                association=_finite(associations[1][at]) if is_known else None,
                psi_unbiased=float(unbiased[at]) if is_known else None,
                p_value=float(p_values[at]) if is_known else None,
                drifted=drifted[at],
                first_labels=first_labels,
                second_labels=second_labels,
                reference=tuple(shares[0][at][size].reshape(-1).tolist()),
                current=tuple(shares[1][at][size].reshape(-1).tolist()),
            )
        )
    return tuple(found)


def _segments_drift(
    reference: JointReference, counts: Integers, parts: Integers, rules: DriftRules
) -> tuple[SegmentDrift, ...]:
    known, now = reference.segment_counts, _counted(counts, reference.segment_at)
    seen = _dispersion(_counted(parts, reference.segment_at))
    needed = statistics.rows_needed(known, now)
    rows = now.sum(axis=1)
    enough = statistics.enough_rows(known, now) & (rows / seen >= needed) & ((known + now > 0).sum(axis=1) > 1)
    effect = MINIMUM_EFFECT if rules.minimum_effect is None else rules.minimum_effect
    dispersion = reference.segment_dispersion
    p_values, unbiased = np.ones(len(known)), np.zeros(len(known))
    pair = known[enough], now[enough]
    p_values[enough] = significance.p_value(*pair, effect, dispersion[enough], seen[enough])
    unbiased[enough] = statistics.psi_unbiased(*pair)
    drifted = _called(p_values, enough, rules.rate)
    before, after = (_of_table(reference, side.sum(axis=1)) for side in (known, now))
    shares = _shares(known), _shares(now)
    found = []
    for at, (column, label, labels) in enumerate(reference.segments):
        is_known = bool(enough[at])
        found.append(
            SegmentDrift(
                column=column,
                segment=label,
                rows=int(rows[at]),
                rows_needed=int(needed[at]),
                share_reference=float(before[at]),
                share=float(after[at]),
                psi_unbiased=float(unbiased[at]) if is_known else None,
                p_value=float(p_values[at]) if is_known else None,
                drifted=drifted[at],
                labels=labels,
                reference=tuple(shares[0][at, : len(labels)].tolist()),
                current=tuple(shares[1][at, : len(labels)].tolist()),
            )
        )
    return tuple(found)


def dependence_index(known: Integers, now: Integers, is_cell: NDArray[np.bool_]) -> tuple[Reals, Reals]:
    """The population stability index of tables against the training rows', apart from what the margins explain.

    Half a row is added to each cell (Jeffreys). In units of its noise the index is chi-square where nothing but the margins
    changed.

    Args:
        known: int64 [..., G, G], the training rows.
        now: int64 [..., G, G], the rows served.
        is_cell: bool [..., G, G], the cells that a table has.

    Returns:
        float64 [...] each: the index, and its degrees of freedom: those of independence.
    """
    there = is_cell & ((known + now).sum(axis=-1, keepdims=True) > 0) & ((known + now).sum(axis=-2, keepdims=True) > 0)
    before, after = np.where(there, known + 0.5, 0.0), np.where(there, now + 0.5, 0.0)
    total = np.maximum(after.sum(axis=(-2, -1), keepdims=True), 1.0)
    after = after / total
    expected = raked(before, after.sum(axis=-1), after.sum(axis=-2))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(there, (expected - after) * np.log(expected / after), 0.0)
    rows, columns = there.any(axis=-1).sum(axis=-1), there.any(axis=-2).sum(axis=-1)
    freedom = np.maximum(rows - 1, 0) * np.maximum(columns - 1, 0)
    return terms.sum(axis=(-2, -1)), freedom.astype(np.float64)


def raked(table: Reals, rows: Reals, columns: Reals) -> Reals:
    """Tables whose rows and columns are multiplied until they have these sums: their odds ratios stay.

    Args:
        table: float64 [..., R, C], positive where both sums are, 0 elsewhere.
        rows: float64 [..., R], the sums of the rows.
        columns: float64 [..., C], those of the columns; they add up to the same.

    >>> raked(np.array([[3.0, 1.0], [1.0, 3.0]]), np.array([0.8, 0.2]), np.array([0.5, 0.5])).round(3).tolist()
    [[0.473, 0.327], [0.027, 0.173]]
    """
    found = np.asarray(table, np.float64)
    for _ in range(_ROUNDS):
        found = found * _ratio(columns, found.sum(axis=-2))[..., None, :]
        sums = found.sum(axis=-1)
        if np.abs(sums - rows).max(initial=0.0) < _CLOSE:
            break
        found = found * _ratio(rows, sums)[..., :, None]
    return found


def _ratio(wanted: Reals, there: Reals) -> Reals:
    return np.divide(wanted, there, out=np.zeros_like(there), where=there > 0)


def association(tables: Integers) -> Reals:
    """Cramer's V of tables [..., R, C]: 0 for independent columns, 1 where one says all of the other; NaN for one value."""
    total = tables.sum(axis=(-2, -1), keepdims=True)
    rows, columns = tables.sum(axis=-1, keepdims=True), tables.sum(axis=-2, keepdims=True)
    fewest = np.minimum((rows > 0).sum(axis=(-2, -1)), (columns > 0).sum(axis=(-2, -1))) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = rows * columns / total
        statistic = np.where(expected > 0, (tables - expected) ** 2 / expected, 0.0).sum(axis=(-2, -1))
        found: Reals = np.sqrt(statistic / (total[..., 0, 0] * fewest))
    return found


def _dispersion(parts: Integers) -> Reals:
    """How much each table varies from part to part, 1 or more."""
    return statistics.dispersion(parts) if len(parts) else np.ones(parts.shape[1])


def _called(p_values: Reals, enough: NDArray[np.bool_], rate: float) -> list[bool | None]:
    """Which are called drifted, judged together; None where there were too few rows."""
    rejected = iter(significance.benjamini_hochberg(p_values[enough], rate).tolist())
    return [next(rejected) if is_judged else None for is_judged in enough.tolist()]


def _of_table(reference: JointReference, rows: Integers) -> Reals:
    """Each segment's share of the rows of its column."""
    tables = reference.segment_table
    totals = np.bincount(tables, rows, minlength=int(tables.max(initial=-1)) + 1)
    return np.asarray(rows / np.maximum(totals[tables], 1), np.float64)


def _shares(counts: Integers) -> Reals:
    """The share of each cell of a table [tables, ...] among all rows of the table."""
    flat = counts.reshape(len(counts), math.prod(counts.shape[1:]))
    found: Reals = (flat / np.maximum(flat.sum(axis=1, keepdims=True), 1)).reshape(counts.shape)
    return found


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
