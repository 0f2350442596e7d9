"""Counts rows by two columns at once: by pairs of raw columns, and by a raw column and what was predicted.

It takes numpy a hundred microseconds, so only a sample of the traffic is counted (`prediction.joint_sampler`).
`drift.joint_fit` chooses the tables, and `drift.dependence` compares them with those of the training rows.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from random import random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.cell_finder import CellFinder, Places
from penstock_server.features.cells import JointCells
from penstock_server.features.table import seconds_of

MOST_ROWS: Final = 64
"""Of a larger batch a part is counted: successive rows from a random place on."""
_LENGTH: Final = struct.Struct("<I")


class JointCounter:
    """Counts samples of one version's rows.

    Args:
        cells: the tables.
        numbers, times, strings: the names of the pipeline's columns, as `Pipeline` has them.
        counts: int64 [`cells.words`], added to: the rows, then the tables.
        fraction: a random number from 0 up to 1 at each call.
    """

    def __init__(
        self,
        cells: JointCells,
        *,
        numbers: Sequence[str],
        times: Sequence[str],
        strings: Sequence[str],
        counts: NDArray[np.int64],
        fraction: Callable[[], float] = random,
    ) -> None:
        self._numbers = {name: at for at, name in enumerate(numbers)}
        self._others = {name: at for at, name in enumerate((*times, *strings))}
        self._times = len(times)
        self._counts = counts
        self._fraction = fraction
        # A column may have two groupings.
        self._finders = {grouping.column: CellFinder(grouping.cells) for grouping in cells.groupings}
        self._groups = [(each.column, np.array(each.group_of, np.int64)) for each in cells.groupings]
        self._starts = np.cumsum([0, *cells.sizes], dtype=np.int64)[:-1]
        self._first = np.array([first for first, _ in cells.tables], np.int64)
        self._second = np.array([second for _, second in cells.tables], np.int64)
        self._widths = np.array([cells.groupings[second].size for _, second in cells.tables], np.int64)

    def add(self, numbers: Any, others: Sequence[bytes], rows: int, predicted: NDArray[Any] | None) -> None:
        """Counts rows of a batch, at most 64.

        Args:
            numbers: float64 [rows, number columns] as bytes.
            others: for each time column its int64s, then for each string column its elements with their lengths.
            rows: of the batch.
            predicted: for each row the label of its class, or its score; None where nothing is predicted.
        """
        begin = int(self._fraction() * (rows - MOST_ROWS + 1)) if rows > MOST_ROWS else 0
        end = min(rows, begin + MOST_ROWS)
        matrix = np.frombuffer(numbers, np.float64).reshape(rows, -1)[begin:end]
        cells: dict[str, Places] = {}
        for name, finder in self._finders.items():
            if not name:
                if predicted is not None:
                    cells[name] = finder.of(predicted[begin:end])
            elif name in self._numbers:
                cells[name] = finder.of(matrix[:, self._numbers[name]])
            elif self._others[name] < self._times:
                moments = np.frombuffer(others[self._others[name]], np.int64)[begin:end]
                cells[name] = finder.of(seconds_of(moments))
            else:
                cells[name] = finder.of_texts(elements(others[self._others[name]], begin, end))
        nowhere = np.full(end - begin, -1)
        groups = np.array([of[cells[name]] if name in cells else nowhere for name, of in self._groups])
        first, second = groups[self._first], groups[self._second]
        at = self._starts[:, None] + first * self._widths[:, None] + second
        self._counts[1:] += np.bincount(at[(first >= 0) & (second >= 0)], minlength=len(self._counts) - 1)
        self._counts[0] += end - begin


def elements(raw: bytes, begin: int, end: int) -> list[bytes]:
    r"""Some of the texts of a column as a request holds it, from one on to before another.

    >>> elements(b"\1\0\0\0a\2\0\0\0bc\0\0\0\0", 1, 3)
    [b'bc', b'']
    """
    return list(_elements(raw, begin, end))


def _elements(raw: bytes, begin: int, end: int) -> Iterator[bytes]:
    at = 0
    for place in range(end):
        first = at + _LENGTH.size
        at = first + _LENGTH.unpack_from(raw, at)[0]
        if place >= begin:
            yield bytes(raw[first:at])
