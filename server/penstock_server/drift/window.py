"""What is in the drift windows of a version's workers now: a consistent copy, summed.

A board's ring turns under the reader; a copy that was taken while it turned is taken again. Sub-windows are numbered for
ever, so that a reader who remembers where it was can ask for later ones alone, and share no row with its last look.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.counting import Counts, counts_of
from penstock_server.metrics.counters import SharedCounters

Marks = tuple[int, ...]
"""For each board the number of its current sub-window, when somebody looked."""

_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Counts over boards and sub-windows.

    Attributes:
        counts: of the features, and of the predictions in the last row.
        rows: that were counted.
        marks: where each board was.
        counted: what has been counted so far; the same again while nothing has.
    """

    counts: Counts
    rows: int
    marks: Marks
    counted: tuple[tuple[int, int], ...]


def window_of(boards: Sequence[SharedCounters], after: Marks | None = None) -> Window:
    """The boards' windows, all of one shape; with `after` only the sub-windows that began after those marks."""
    places = (-1,) * len(boards) if after is None or len(after) != len(boards) else after
    copies = [_copy(board, place) for board, place in zip(boards, places, strict=True)]
    return Window(
        counts_of(np.concatenate([words for words, _, _ in copies])),
        sum(rows for _, rows, _ in copies),
        tuple(at for _, _, at in copies),
        tuple((at, rows) for _, rows, at in copies),
    )


def _copy(board: SharedCounters, after: int) -> tuple[NDArray[np.int64], int, int]:
    """The words of the sub-windows later than `after`, their rows, and the number of the current one."""
    for _ in range(_ATTEMPTS):
        at = int(board.drift_at[0])
        chosen = _numbers(at, board.shape.sub_windows) > after
        words, rows = board.drift[chosen], int(board.drift_rows[chosen].sum())
        if int(board.drift_at[0]) == at:
            break
    return words, rows, at


def _numbers(at: int, size: int) -> NDArray[np.int64]:
    """The number of the sub-window in each place of a ring whose current one is `at`; negative where none was yet."""
    places = np.arange(size)
    return at - (at - places) % size
