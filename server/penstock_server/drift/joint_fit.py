"""Chooses and counts the tables of a baseline's rows by two columns at once; the tools call it when they publish.

Pairs are those that tell most of each other in the training rows: whether they go on belonging together is what the columns
one by one cannot show. A pair that was independent in training and becomes dependent is seen only if it is among them.
Segments are of the columns that tell most of the predictions.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_server.drift.baseline import (
    Baseline,
    ClassBaseline,
    ColumnBaseline,
    NumberBaseline,
    PredictionBaseline,
    StringBaseline,
)
from penstock_server.drift.codes import Codes
from penstock_server.drift.fit import dispersion
from penstock_server.drift.joint_baseline import MOST_GROUPS, GroupedColumn, JointBaseline, JointTable
from penstock_server.drift.reference import EXTRA_LABELS, OTHERS, bin_labels, range_labels
from penstock_server.features.cell_finder import CellFinder
from penstock_server.features.counting import EXTRA_CELLS, MISSING, UNSEEN

PAIR_GROUPS: Final = 4
MOST_PAIRS: Final = 40
MOST_SEGMENTED: Final = 32
"""The columns whose values are segments."""
MISSING_SHARE: Final = 0.02
"""From this share of the rows on, missing values are a group of their own; else rows without a value are in no table."""
_MOST_COLUMNS: Final = 300
_MOST_ROWS: Final = 20_000
"""Pairs are chosen among the columns with the most information, by rows that are spread evenly."""

Places = NDArray[np.int64]


def with_joint(baseline: Baseline, codes: Codes, predicted: ArrayLike | None = None) -> Baseline:
    """The baseline with the tables of the same rows.

    Args:
        baseline: with its predictions, if there are any.
        codes: the cells of the rows, as `codes_of` gives them, in the order of time.
        predicted: what was predicted for the rows: labels, or scores; None where the baseline has no predictions.
    """
    columns = [_Column(known, codes[:, at], baseline.bins) for at, known in enumerate(baseline.columns)]
    answers = None
    if baseline.predictions is not None and predicted is not None:
        cells = CellFinder(baseline.predictions.cells).of(np.asarray(predicted).reshape(-1))
        answers = _Column(baseline.predictions, cells, len(baseline.predictions.bins), name="")
    tables = _Tables()
    pairs = [tables.pair(columns[first], columns[second]) for first, second in _most_dependent(columns)]
    segments = []
    if answers is not None and answers.segment.size > 1:
        shared = [_information(column.segment.groups, answers.segment.groups) for column in columns]
        chosen = [at for at in np.argsort(shared, kind="stable")[::-1].tolist() if columns[at].segment.size > 1]
        segments = [tables.segment(columns[at], answers) for at in chosen[:MOST_SEGMENTED]]
    joint = JointBaseline(tuple(tables.columns), tuple(pairs), tuple(segments))
    return msgspec.structs.replace(baseline, joint=joint if joint.tables else None)


class _Grouped:
    """A column's rows in groups: which cell belongs to which, their labels, and the group of each row."""

    def __init__(self, name: str, group_of: Sequence[int], labels: Sequence[str], cells: Places) -> None:
        self.known = GroupedColumn(name, tuple(group_of), tuple(labels))
        self.size = len(labels)
        self.groups = np.array(group_of, np.int64)[cells]


class _Column:
    """A column in the groups that pairs take, and in those of segments."""

    def __init__(
        self,
        known: ColumnBaseline | PredictionBaseline,
        codes: Codes | Places,
        bins: int,
        *,
        name: str | None = None,
    ) -> None:
        name = known.name if name is None else name
        places = codes.astype(np.int64)
        cells = np.where(places >= bins, places - bins + len(known.bins), places)
        self.pair = self.segment = _Grouped(name, *_grouped(known, PAIR_GROUPS), cells)
        # Of numbers a few ranges say as much as many.
        if not isinstance(known, NumberBaseline):
            self.segment = _Grouped(name, *_grouped(known, MOST_GROUPS), cells)


def _grouped(known: ColumnBaseline | PredictionBaseline, most: int) -> tuple[list[int], list[str]]:
    """The group of each cell, and the groups' labels."""
    rows = sum(known.bins) + sum(known.extra)
    has_missing = known.extra[MISSING] > MISSING_SHARE * rows
    extra = [-1] * EXTRA_CELLS
    if isinstance(known, NumberBaseline):
        groups, labels = _ranges(known, most)
    else:
        groups, labels, others = _values(known, most - has_missing)
        extra[UNSEEN] = others
    if has_missing:
        extra[MISSING] = len(labels)
        labels.append(EXTRA_LABELS[MISSING])
    return [*groups, *extra], labels


def _ranges(known: NumberBaseline, most: int) -> tuple[list[int], list[str]]:
    """Neighbouring bins with about as many rows in each group; a bin without rows is in that of the bin before."""
    counts = np.array(known.counts, np.float64)
    filled = np.flatnonzero(counts)
    if not len(filled):
        return [0] * len(counts), list(range_labels(()))
    middles = (np.cumsum(counts) - counts / 2)[filled] / counts.sum()
    _, found = np.unique(np.minimum((middles * most).astype(np.int64), most - 1), return_inverse=True)
    before = np.maximum(np.searchsorted(filled, np.arange(len(counts)), side="right") - 1, 0)
    groups = found[before].tolist()
    begins = [edge for edge, (one, next_one) in zip(known.edges, pairwise(groups), strict=True) if one != next_one]
    return groups, list(range_labels(begins))


def _values(known: StringBaseline | ClassBaseline, most: int) -> tuple[list[int], list[str], int]:
    """The most frequent values in a group each, and the others in one more, if there are any: its place, else -1."""
    labels, counts = bin_labels(known), known.bins
    # The last bin of texts holds the others already.
    values = range(len(counts) - isinstance(known, StringBaseline))
    frequent = sorted((at for at in values if counts[at]), key=lambda at: (-counts[at], at))
    has_others = isinstance(known, StringBaseline) or len(frequent) > most
    own = sorted(frequent[: most - has_others])
    others = len(own) if has_others else -1
    places = {at: group for group, at in enumerate(own)}
    return (
        [places.get(at, others) for at in range(len(counts))],
        [labels[at] for at in own] + [OTHERS] * has_others,
        others,
    )


class _Tables:
    """Counts tables, and keeps the grouped columns that they are of."""

    def __init__(self) -> None:
        self.columns: list[GroupedColumn] = []

    def pair(self, first: _Column, second: _Column) -> JointTable:
        cells = _joined(first.pair, second.pair)
        known = cells[cells >= 0]
        return self._table(first.pair, second.pair, cells, (dispersion(known),))

    def segment(self, column: _Column, answers: _Column) -> JointTable:
        of, answered = column.segment, answers.segment
        dispersions = [
            dispersion(answered.groups[(of.groups == group) & (answered.groups >= 0)]) for group in range(of.size)
        ]
        return self._table(of, answered, _joined(of, answered), tuple(dispersions))

    def _table(self, first: _Grouped, second: _Grouped, cells: Places, dispersions: tuple[float, ...]) -> JointTable:
        counts = np.bincount(cells[cells >= 0], minlength=first.size * second.size)
        return JointTable(self._place(first), self._place(second), tuple(counts.tolist()), dispersions)

    def _place(self, grouped: _Grouped) -> int:
        if grouped.known not in self.columns:
            self.columns.append(grouped.known)
        return self.columns.index(grouped.known)


def _joined(first: _Grouped, second: _Grouped) -> Places:
    """The cell of each row in the table of two columns; -1 where it is in none."""
    is_in = (first.groups >= 0) & (second.groups >= 0)
    return np.where(is_in, first.groups * second.size + second.groups, -1)


def _most_dependent(columns: Sequence[_Column]) -> list[tuple[int, int]]:
    """The pairs that share most information: twice as many as there are columns, and no more than 40."""
    rows = len(columns[0].pair.groups) if columns else 0
    chosen = np.linspace(0, rows - 1, min(rows, _MOST_ROWS)).astype(np.int64) if rows else np.zeros(0, np.int64)
    groups = np.array([column.pair.groups[chosen] for column in columns], np.int64).reshape(len(columns), len(chosen))
    usable = [at for at, column in enumerate(columns) if column.pair.size > 1]
    if len(usable) > _MOST_COLUMNS:
        usable = sorted(sorted(usable, key=lambda at: -_entropy(groups[at]))[:_MOST_COLUMNS])
    size = max((columns[at].pair.size for at in usable), default=1)
    is_in = groups[usable][:, None, :] == np.arange(size)[None, :, None]
    one_hot = is_in.reshape(len(usable) * size, -1).astype(np.float32)
    together = (one_hot @ one_hot.T).astype(np.float64).reshape(len(usable), size, len(usable), size)
    shared = _informations(together.transpose(0, 2, 1, 3))
    first, second = np.triu_indices(len(usable), 1)
    order = np.argsort(-shared[first, second], kind="stable")[: min(2 * len(columns), MOST_PAIRS)]
    return [(usable[first[at]], usable[second[at]]) for at in order.tolist()]


def _entropy(groups: Places) -> float:
    shares = np.unique(groups, return_counts=True)[1] / max(len(groups), 1)
    return float(-(shares * np.log(shares)).sum())


def _information(first: Places, second: Places) -> float:
    is_in = (first >= 0) & (second >= 0)
    width = int(second.max(initial=0)) + 1
    size = (int(first.max(initial=0)) + 1) * width
    table = np.bincount(first[is_in] * width + second[is_in], minlength=size).reshape(-1, width)
    return float(_informations(table.astype(np.float64)))


def _informations(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mutual information, in nats, of tables of counts [..., first, second]."""
    total = np.maximum(tables.sum(axis=(-2, -1), keepdims=True), 1.0)
    joint = tables / total
    margins = joint.sum(axis=-1, keepdims=True) * joint.sum(axis=-2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = np.where(joint > 0, joint * np.log(joint / margins), 0.0).sum(axis=(-2, -1))
    return found
