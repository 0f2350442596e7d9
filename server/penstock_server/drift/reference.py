"""A drift baseline as arrays, ready to be compared with windows, and a label for each bin.

`evaluate` compares. The supervisor makes one reference per version, from its baseline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.baseline import (
    FINER,
    Baseline,
    ClassBaseline,
    ColumnBaseline,
    HoldOut,
    NumberBaseline,
    PredictionBaseline,
    StringBaseline,
)
from penstock_server.drift.importance import Importance
from penstock_server.drift.order import RowOrder
from penstock_server.drift.report import Kind
from penstock_server.features.cells import ROUNDING
from penstock_server.features.counting import EXTRA_CELLS, INFINITE, MISSING, UNSEEN

EXTRA_LABELS: Final = ("(missing)", "(infinite)", "(unseen)")
OTHERS: Final = "(others)"


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The training rows of R columns: raw ones, then the predictions if `has_predictions`, then other answers.

    B bins are the most of a column.

    Attributes:
        names, kinds: of each.
        labels: what each of a column's bins holds.
        cells: int64 [R, B + 3]: each column's bins, zeros up to B, then the missing, the infinite and the unseen.
        sums: float64 [R, B]: of the values in each bin; zeros where there are no numbers.
        edges: float64 [R, B]: where each bin ends, the last edge again where it has no end; zeros without numbers.
        is_cell: bool [R, B + 3]: the cells that a column's rows may be in.
        is_number: bool [R].
        deviation, dispersion, minimum_effect: float64 [R].
        scales: float64 [R, K]: the dispersion of the training rows' blocks, and of blocks a quarter as long, a sixteenth, ...
        columns: how many are raw columns.
        holdout: what a classifier got right of a hold-out, and the place of its confidence; None where there was none.
        importance: of each; None where it is not known.
        importance_measure: what it is; "" where there is none.
        order: what the training rows are ordered by.
    """

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    labels: tuple[tuple[str, ...], ...]
    cells: NDArray[np.int64]
    sums: NDArray[np.float64]
    edges: NDArray[np.float64]
    is_cell: NDArray[np.bool_]
    is_number: NDArray[np.bool_]
    deviation: NDArray[np.float64]
    dispersion: NDArray[np.float64]
    minimum_effect: NDArray[np.float64]
    scales: NDArray[np.float64]
    has_predictions: bool
    columns: int
    holdout: tuple[int, HoldOut] | None
    importance: tuple[float | None, ...]
    importance_measure: str
    order: RowOrder

    @property
    def digest(self) -> str:
        """Equal for the same columns in the same cells with the same training rows, in hexadecimal."""
        found = sha256(repr((self.names, self.kinds, self.labels, self.has_predictions)).encode())
        for array in (self.cells, self.edges, self.scales):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def reference_of(baseline: Baseline, importance: Importance | None = None) -> Reference:
    """The arrays of a baseline, with how much each column matters to the model where that was published."""
    values = {} if importance is None else importance.values
    columns = baseline.watched
    answers = len(columns) - len(baseline.columns)
    cells = np.zeros((len(columns), baseline.bins + EXTRA_CELLS), np.int64)
    sums, edges = np.zeros((2, len(columns), baseline.bins))
    for at, column in enumerate(columns):
        cells[at, : len(column.bins)] = column.bins
        cells[at, -EXTRA_CELLS:] = column.extra
        if isinstance(column, NumberBaseline):
            sums[at, : len(column.sums)] = column.sums
            edges[at] = [
                *column.edges,
                *[column.edges[-1] if column.edges else 0.0] * (baseline.bins - len(column.edges)),
            ]
    kinds = [_kind(column, is_answer=at >= len(baseline.columns)) for at, column in enumerate(columns)]
    return Reference(
        names=tuple(column.name for column in columns),
        kinds=tuple(kinds),
        labels=tuple(map(bin_labels, columns)),
        cells=cells,
        sums=sums,
        edges=edges,
        is_cell=np.array([_is_cell(column, baseline.bins) for column in columns], np.bool_).reshape(cells.shape),
        is_number=np.array([isinstance(column, NumberBaseline) for column in columns], np.bool_),
        deviation=np.array([getattr(column, "deviation", 0.0) for column in columns], np.float64),
        dispersion=np.array([column.dispersion for column in columns], np.float64),
        minimum_effect=np.array([column.minimum_effect for column in columns], np.float64),
        scales=_scales(columns),
        has_predictions=baseline.predictions is not None,
        columns=len(baseline.columns),
        holdout=_holdout(baseline),
        importance=(*(values.get(column.name) for column in baseline.columns), *[None] * answers),
        importance_measure="" if importance is None else importance.measure,
        order=RowOrder(baseline.order, baseline.ordered_by),
    )


def _scales(columns: Sequence[ColumnBaseline | PredictionBaseline]) -> NDArray[np.float64]:
    """The dispersions of all scales; where a column has fewer, rows of a shorter stretch vary in proportion to its length."""
    size = 1 + max((len(column.finer) for column in columns), default=0)
    found = np.ones((len(columns), size))
    for at, column in enumerate(columns):
        known = (column.dispersion, *column.finer)
        found[at, : len(known)] = known
        for place in range(len(known), size):
            found[at, place] = 1 + (found[at, place - 1] - 1) / FINER
    return found


def _holdout(baseline: Baseline) -> tuple[int, HoldOut] | None:
    first = len(baseline.watched) - len(baseline.answers)
    known = ((place, answer.holdout) for place, answer in enumerate(baseline.answers, first))
    return next(((place, holdout) for place, holdout in known if holdout is not None), None)


def bin_labels(column: ColumnBaseline | PredictionBaseline) -> tuple[str, ...]:
    """What each bin of a column holds, for people to read."""
    match column:
        case NumberBaseline():
            return range_labels(column.edges)
        case StringBaseline():
            return (*column.watched[: len(column.counts)], OTHERS)
        case ClassBaseline():
            return column.names or tuple(map(str, column.classes))


def _kind(column: ColumnBaseline | PredictionBaseline, *, is_answer: bool) -> Kind:
    if isinstance(column, ClassBaseline):
        return "class"
    if isinstance(column, StringBaseline):
        return "string"
    return "score" if is_answer else "number"


def _is_cell(column: ColumnBaseline | PredictionBaseline, bins: int) -> list[bool]:
    own = len(column.bins)
    is_number = isinstance(column, NumberBaseline)
    is_extra = {MISSING: not isinstance(column, ClassBaseline), INFINITE: is_number, UNSEEN: not is_number}
    return [*[True] * own, *[False] * (bins - own), *(is_extra[at] for at in range(EXTRA_CELLS))]


def range_labels(edges: Sequence[float]) -> tuple[str, ...]:
    """What the bins between these edges hold, for people to read."""
    if not edges:
        return ("any",)
    between = [_between(low, high) for low, high in pairwise(edges)]
    sign = ">" if between and between[-1].startswith("=") else ">="
    return (f"< {_short(edges[0])}", *between, f"{sign} {_short(edges[-1])}")


def _between(low: float, high: float) -> str:
    # A bin as narrow as the rounding that it allows for was made for one value.
    if high - low <= 3 * ROUNDING * max(abs(low), abs(high)):
        return f"= {_short(low / 2 + high / 2)}"
    return f"{_short(low)} to {_short(high)}"


def _short(value: float) -> str:
    return f"{value:.5g}"
