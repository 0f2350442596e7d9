"""The latest answers of each version that have a label, in a bounded number: what its quality now is told from."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.labels.prediction_file import AnsweredVersion
from penstock_server.labels.quality import Quality, quality_of_classes, quality_of_numbers
from penstock_server.labels.segment import Rows

ROWS: Final = 10_000
"""Of a version: the interval of an accuracy of 90 % is then 1.2 points wide."""
_COLUMNS: Final = ("time_ns", "prediction", "label", "score")


class Windows:
    """The windows of all versions."""

    def __init__(self, rows: int = ROWS) -> None:
        self._rows = rows
        self._columns: dict[AnsweredVersion, list[NDArray[Any]]] = {}
        self._known: dict[AnsweredVersion, Quality] = {}

    def add(self, version: AnsweredVersion, rows: Rows) -> None:
        """Takes in labelled rows of a version, which are later than those before."""
        if not len(rows):
            return
        held = self._columns.get(version, [rows[name][:0] for name in _COLUMNS])
        self._columns[version] = [
            np.concatenate([column, rows[name]])[-self._rows :] for column, name in zip(held, _COLUMNS, strict=True)
        ]
        self._known.pop(version, None)

    def forget_before(self, before_ns: int) -> None:
        """Forgets versions whose last row is older than this."""
        for version in [each for each, columns in self._columns.items() if columns[0][-1] < before_ns]:
            del self._columns[version]
            self._known.pop(version, None)

    def qualities(self) -> Iterator[tuple[AnsweredVersion, Quality]]:
        """How good each version is."""
        for version, columns in self._columns.items():
            if version not in self._known:
                times, answers, truths, scores = columns
                since_ns = int(times.min())
                self._known[version] = (
                    quality_of_numbers(answers, truths, since_ns)
                    if version.kind == "number"
                    else quality_of_classes(answers, truths, scores, len(version.class_names), since_ns)
                )
            yield version, self._known[version]
