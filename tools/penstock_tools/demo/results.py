"""What came back: counts by version and role, durations, answers that were right, and failures.

Decides when the promotion shows: the first reply of the new version as champion. One task's owner writes it, the screen
and the summary read it; nothing here waits or asks the time.
"""

from array import array
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal

from penstock.names import CHAMPION

RECENT: Final = 4_000
"""Requests whose durations make the percentiles of the moment."""

Phase = Literal["before", "between", "after"]
"""Before the promotion was written, until the first reply that shows it, and from then on."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One request's answer.

    Attributes:
        at_s: when it came, in seconds since the stream began.
        took_s: from sending to the answer.
        right: rows whose predicted class was the true one.
    """

    at_s: float
    took_s: float
    month: int
    version: str
    role: str
    rows: int
    right: int


@dataclass(slots=True)
class Score:
    """Rows that a version answered, and of these the right ones."""

    rows: int = 0
    right: int = 0

    @property
    def accuracy(self) -> float | None:
        """The share that was right; None before the first row."""
        return self.right / self.rows if self.rows else None


@dataclass(slots=True)
class Tally:
    """The stream's results so far.

    Attributes:
        challenger: the version that is to be promoted.
        rows_by: rows by (version, role).
        scores: by (phase, version).
        month: that of the latest reply; 0 before the first.
        promoted_s: when the registry had the promotion.
        switched_s: when the first reply showed it.
        errors: what failures said, with their numbers.
    """

    challenger: str
    requests: int = 0
    rows: int = 0
    month: int = 0
    failures: int = 0
    rows_by: Counter[tuple[str, str]] = field(default_factory=Counter)
    scores: dict[tuple[Phase, str], Score] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    promoted_s: float | None = None
    switched_s: float | None = None
    durations: "array[float]" = field(default_factory=lambda: array("d"))
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def phase(self) -> Phase:
        """Where the promotion stands."""
        if self.promoted_s is None:
            return "before"
        return "between" if self.switched_s is None else "after"

    def answered(self, reply: Reply) -> None:
        """Counts a reply."""
        if reply.role == CHAMPION:
            self._note_champion(reply)
        self.requests += 1
        self.rows += reply.rows
        self.month = max(self.month, reply.month)
        self.rows_by[reply.version, reply.role] += reply.rows
        score = self.scores.setdefault((self.phase, reply.version), Score())
        score.rows += reply.rows
        score.right += reply.right
        self.durations.append(reply.took_s)
        self.recent.append(reply.took_s)

    def _note_champion(self, reply: Reply) -> None:
        if reply.version == self.challenger and self.switched_s is None:
            # A server may act on the alias before whoever wrote it has returned.
            self.promoted(reply.at_s)
            self.switched_s = reply.at_s

    def failed(self, why: str) -> None:
        """Counts a request that got no answer."""
        self.requests += 1
        self.failures += 1
        self.errors[why] += 1

    def promoted(self, at_s: float) -> None:
        """The registry has the promotion."""
        if self.promoted_s is None:
            self.promoted_s = at_s

    @property
    def versions(self) -> list[str]:
        """Those that have answered, in order of their first reply."""
        return list(dict.fromkeys(version for _, version in self.scores))

    def score(self, version: str | None = None, phase: Phase | None = None) -> Score:
        """The score of a version or of all, over one phase or all of them."""
        chosen = [
            score for (when, who), score in self.scores.items() if version in (None, who) and phase in (None, when)
        ]
        return Score(sum(each.rows for each in chosen), sum(each.right for each in chosen))

    def share(self, version: str, phase: Phase | None = None) -> float | None:
        """The version's share of the rows, of all or of one phase; None where there were none."""
        total = self.score(phase=phase).rows
        return self.score(version, phase).rows / total if total else None


def percentile(values: Iterable[float], percent: float) -> float | None:
    """The nearest-rank percentile: the smallest value that at least `percent` of the values do not exceed.

    Returns:
        None where there are no values.

    >>> percentile([3.0, 1.0, 2.0], 50), percentile([], 99)
    (2.0, None)
    """
    ordered = sorted(values)
    return ordered[max(0, ceil(percent / 100 * len(ordered)) - 1)] if ordered else None
