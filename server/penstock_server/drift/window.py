"""Copies the drift windows of a version's workers, each consistently, and sums them.

A worker moves to the next sub-window of its ring while the supervisor reads; a copy taken during a move is taken again. The
numbers of sub-windows never repeat, so a reader can ask for those after its last look and share no row with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.counting import Counts, counts_of
from penstock_server.metrics.counters import SharedCounters

Marks = tuple[int, ...]
"""For each worker's counters the number of the current sub-window at a look."""

_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Counts over workers and sub-windows.

    Attributes:
        counts: of the features, and of the predictions in the last row.
        rows: that were counted.
        marks: the sub-window that each worker was in.
        counted: equal for two windows exactly when nothing was counted between them.
    """

    counts: Counts
    rows: int
    marks: Marks
    counted: tuple[tuple[int, int], ...]


def window_of(workers: Sequence[SharedCounters], after: Marks | None = None) -> Window:
    """The sum of the workers' windows, all of one shape; with `after` only of the sub-windows that began after it."""
    marks = (-1,) * len(workers) if after is None or len(after) != len(workers) else after
    copies = [_copy(counters, mark) for counters, mark in zip(workers, marks, strict=True)]
    return Window(
        counts_of(np.concatenate([words for words, _, _ in copies])),
        sum(rows for _, rows, _ in copies),
        tuple(at for _, _, at in copies),
        tuple((at, rows) for _, rows, at in copies),
    )


def _copy(counters: SharedCounters, after: int) -> tuple[NDArray[np.int64], int, int]:
    """The words of the sub-windows later than `after`, their rows, and the number of the current one."""
    for _ in range(_ATTEMPTS):
        at = int(counters.drift_at[0])
        chosen = _numbers(at, counters.shape.sub_windows) > after
        words, rows = counters.drift[chosen], int(counters.drift_rows[chosen].sum())
        if int(counters.drift_at[0]) == at:
            break
    return words, rows, at


def _numbers(at: int, size: int) -> NDArray[np.int64]:
    """The number of the sub-window in each place of a ring whose current one is `at`; negative where none was yet."""
    places = np.arange(size)
    return at - (at - places) % size
