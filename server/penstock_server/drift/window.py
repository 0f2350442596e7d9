"""Copies the drift windows of a version's workers, each consistently, and sums them; and what came since a last look.

A worker moves to the next sub-window of its ring while the supervisor reads; a copy taken during a move is taken again. The
numbers of sub-windows never repeat, so a reader can tell what it has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.counting import EXTRA_CELLS, Counts, bins_of, counts_of
from penstock_server.metrics.counters import SharedCounters

Integers = NDArray[np.int64]

_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Counts over workers and sub-windows.

    Attributes:
        counts: of the features, and of the predictions in the last row.
        parts: the cells of each worker's each sub-window, int64 [parts, columns, cells].
        rows: that were counted.
        counted: equal for two windows exactly when nothing was counted between them, and nothing has left.
    """

    counts: Counts
    parts: Integers
    rows: int
    counted: tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class _Seen:
    """What a worker's counters held at the last look.

    Attributes:
        counters: whose they are.
        at: the number of the current sub-window.
        cells: of it.
        rows: of it.
        ended_s: by the number of a sub-window, when it last had new rows, as far as looks can tell.
    """

    counters: SharedCounters
    at: int = -1
    cells: Integers | None = None
    rows: int = 0
    ended_s: dict[int, float] = field(default_factory=dict)


class WindowReader:
    """Reads the windows of one version's workers, and slices: what came since the last one.

    Args:
        window_s: how old rows in a window may be.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._seen: list[_Seen] = []

    def window(self, workers: Sequence[SharedCounters], now_s: float) -> Window:
        """The sum of the workers' windows, all of one shape, without sub-windows whose rows are too old."""
        copies = [_copy(seen.counters, self._is_new(seen, now_s)) for seen in self._of(workers)]
        words = np.concatenate([words for words, _, _ in copies])
        extra = bins_of(words.shape[-1]) + EXTRA_CELLS
        return Window(
            counts_of(words),
            words[:, :, :extra],
            sum(rows for _, rows, _ in copies),
            tuple((at, rows, len(words)) for words, rows, at in copies),
        )

    def slice(self, workers: Sequence[SharedCounters], now_s: float) -> Integers:
        """The cells, int64 [columns, cells], of rows that were counted since the last slice.

        Where more rows came than a worker's window holds, the latest.
        """
        return np.asarray(sum(_cells_since(seen, now_s) for seen in self._of(workers)), np.int64)

    def _of(self, workers: Sequence[SharedCounters]) -> list[_Seen]:
        """What was seen of these workers."""
        known = {id(seen.counters): seen for seen in self._seen}
        self._seen = [known.get(id(counters)) or _Seen(counters) for counters in workers]
        return self._seen

    def _is_new(self, seen: _Seen, now_s: float) -> int:
        """The number of the oldest sub-window with rows that are not too old."""
        old = [number for number, ended_s in seen.ended_s.items() if ended_s < now_s - self._window_s]
        return max(old, default=-1) + 1


def _cells_since(seen: _Seen, now_s: float) -> Integers:
    """The cells of a worker's rows since it was last seen, which this is now."""
    counters = seen.counters
    size = counters.shape.sub_windows
    extra = bins_of(counters.shape.cells) + EXTRA_CELLS
    for _ in range(_ATTEMPTS):
        at = int(counters.drift_at[0])
        cells, rows = counters.drift[:, :, :extra].copy(), counters.drift_rows.copy()
        if int(counters.drift_at[0]) == at:
            break
    current = cells[at % size]
    # The worker clears the sub-window after its current one before it goes there.
    if seen.cells is not None and 0 <= at - seen.at < size - 1:
        found = np.maximum(cells[seen.at % size] - seen.cells, 0)
        for number in range(seen.at + 1, at + 1):
            found += cells[number % size]
    else:
        found = cells.sum(axis=0)
    for number in range(max(seen.at, at - size + 1, 0), at + 1):
        if number != seen.at or rows[number % size] != seen.rows:
            seen.ended_s[number] = now_s
    for number in [number for number in seen.ended_s if number <= at - size]:
        del seen.ended_s[number]
    seen.at, seen.cells, seen.rows = at, current, int(rows[at % size])
    return np.asarray(found, np.int64)


def _copy(counters: SharedCounters, oldest: int) -> tuple[Integers, int, int]:
    """The words of the sub-windows from number `oldest` on, their rows, and the number of the current one."""
    for _ in range(_ATTEMPTS):
        at = int(counters.drift_at[0])
        chosen = _numbers(at, counters.shape.sub_windows) >= oldest
        words, rows = counters.drift[chosen], int(counters.drift_rows[chosen].sum())
        if int(counters.drift_at[0]) == at:
            break
    return words, rows, at


def _numbers(at: int, size: int) -> Integers:
    """The number of the sub-window in each place of a ring whose current one is `at`; negative where none was yet."""
    places = np.arange(size)
    return at - (at - places) % size
