"""The window of rows that were counted by two columns at once: the latest parts of what workers have added up.

Workers only add; what came since the last look is the difference. Parts are kept apart, so that it is known how much they vary.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.metrics.counters import SharedCounters

Integers = NDArray[np.int64]
PARTS: Final = 10


@dataclass(slots=True)
class _Part:
    """Some rows: their counts, and when the first of them may have come, in seconds since 1970."""

    counts: Integers
    began_s: float


class JointWindow:
    """Follows one version's workers.

    Args:
        words: of the counts.
        rows: of the window, about.
        window_s: how old they may be.
    """

    def __init__(self, words: int, rows: int, window_s: float) -> None:
        self._words = words
        self._part_rows = max(1, rows // PARTS)
        self._window_s = window_s
        self._seen: list[tuple[SharedCounters, Integers]] = []
        self._parts: deque[_Part] = deque()
        self.looks = 0

    def look(self, workers: Sequence[SharedCounters], now_s: float) -> None:
        """Takes what came since the last look, and lets go of what is too old."""
        came = self._came(workers)
        if came[0]:
            if not self._parts or self._parts[-1].counts[0] >= self._part_rows:
                self._parts.append(_Part(np.zeros(self._words, np.int64), now_s))
            self._parts[-1].counts += came
            self.looks += 1
        while self._parts and (len(self._parts) > PARTS or self._parts[0].began_s < now_s - self._window_s):
            self._parts.popleft()
            self.looks += 1

    @property
    def parts(self) -> Integers:
        """The counts of each part, int64 [parts, words], the oldest first."""
        return np.array([part.counts for part in self._parts], np.int64).reshape(len(self._parts), self._words)

    def _came(self, workers: Sequence[SharedCounters]) -> Integers:
        known = {id(counters): counts for counters, counts in self._seen}
        total = np.zeros(self._words, np.int64)
        self._seen = []
        for counters in workers:
            counts = counters.joint.copy()
            if len(counts) == self._words:
                total += counts - known.get(id(counters), 0)
            self._seen.append((counters, counts))
        return total
