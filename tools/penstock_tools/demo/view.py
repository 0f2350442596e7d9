"""What the screen shows at a moment, as plain values: the table's model, pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from penstock_tools.demo.metrics import Facts, Shadow
from penstock_tools.demo.onset import highest
from penstock_tools.demo.plan import Plan
from penstock_tools.demo.results import Phase, Tally, percentile

RATE_S: Final = 3.0
TOP_FEATURES: Final = 3


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version's line.

    Attributes:
        roles: rows answered by role, the roles in the order in which they were first played.
        share: of all rows so far.
        accuracy: the share of its rows that was right.
    """

    version: str
    roles: Mapping[str, int]
    rows: int
    share: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class View:
    """What the screen shows.

    Attributes:
        elapsed_s: since the stream began.
        done: the share of the stream that was answered, 0 to 1.
        month: being streamed; 0 before the first reply.
        requests_per_s, rows_per_s: over the last seconds; None until time has passed.
        p50_s, p99_s: as the callers see it, over the last requests.
        versions: in order of their first reply.
        drift: the champion's highest scores by feature; empty while its window fills.
        window: rows in the champion's window and rows due there.
    """

    elapsed_s: float
    done: float
    month: int
    requests: int
    rows: int
    failures: int
    requests_per_s: float | None
    rows_per_s: float | None
    p50_s: float | None
    p99_s: float | None
    versions: tuple[VersionRow, ...]
    shadow: Shadow | None
    drift: tuple[tuple[str, float], ...]
    window: tuple[int, int]
    phase: Phase
    challenger: str


class Rate:
    """How fast a count grows, over the last seconds."""

    def __init__(self, over_s: float = RATE_S) -> None:
        self._over_s = over_s
        self._looks: deque[tuple[float, int]] = deque()

    def look(self, at_s: float, count: int) -> float | None:
        """Takes the count of a moment; the growth a second since the oldest look that is kept, None without one."""
        while len(self._looks) > 1 and self._looks[1][0] <= at_s - self._over_s:
            self._looks.popleft()
        self._looks.append((at_s, count))
        since_s, since = self._looks[0]
        return (count - since) / (at_s - since_s) if at_s > since_s else None


class Viewer:
    """Makes a view of each moment; keeps what rates need."""

    def __init__(self, plan: Plan, tally: Tally, requests: int) -> None:
        self._plan = plan
        self._tally = tally
        self._expected = requests
        self._requests = Rate()
        self._rows = Rate()

    def view(self, at_s: float, facts: Facts) -> View:
        """The view at a moment, in seconds since the stream began."""
        tally = self._tally
        return View(
            elapsed_s=at_s,
            done=min(1.0, tally.requests / self._expected),
            month=tally.month,
            requests=tally.requests,
            rows=tally.rows,
            failures=tally.failures,
            requests_per_s=self._requests.look(at_s, tally.requests),
            rows_per_s=self._rows.look(at_s, tally.rows),
            p50_s=percentile(tally.recent, 50),
            p99_s=percentile(tally.recent, 99),
            versions=version_rows(tally),
            shadow=facts.shadow,
            drift=tuple(highest(facts.settled_drift(self._plan.settled_rows), TOP_FEATURES)),
            window=(facts.window_rows.get(facts.champion or "", 0), self._plan.settled_rows),
            phase=tally.phase,
            challenger=tally.challenger,
        )


def version_rows(tally: Tally) -> tuple[VersionRow, ...]:
    """A line for each version that has answered."""
    return tuple(_version_row(tally, version) for version in tally.versions)


def _version_row(tally: Tally, version: str) -> VersionRow:
    score = tally.score(version)
    return VersionRow(
        version=version,
        roles={role: rows for (each, role), rows in tally.rows_by.items() if each == version},
        rows=score.rows,
        share=score.rows / tally.rows,
        accuracy=score.accuracy,
    )
