"""What the operations page shows: all that is known of models, traffic, rollouts, drift, labels and events, in sections.

Each section is a line of JSON that changes only when what it tells does, but for the traffic, which is told each second. Drift
is evaluated less often, since its windows hardly move in a second. It decides nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version as installed_version
from typing import Any, Final

import msgspec

from penstock.names import VersionKey
from penstock_server.capacity.estimate import ServerCapacity
from penstock_server.clock import Clock, monotonic
from penstock_server.control.capacity import shown as shown_capacity
from penstock_server.control.rollouts import RolloutView, shown
from penstock_server.control.view import ServerView, VersionView, shown_workers
from penstock_server.drift.answer import DriftReport
from penstock_server.drift.report import VersionDrift
from penstock_server.labels.gauges import latest
from penstock_server.labels.report import Report
from penstock_server.log_setup import Line, recent_lines
from penstock_server.metrics.prometheus import VersionSnapshot
from penstock_server.page.traffic import Traffic, TrafficReading, together, totals, traffic
from penstock_server.rollout.plan import weight_in_percent
from penstock_server.sources.combined_source import SourceState

RATE_S: Final = 5.0
"""Rates span about so many seconds, once somebody has looked for as long."""
DRIFT_S: Final = 10.0
"""How often drift is evaluated."""
_UNSHOWN: Final = ("evidence", "declared")
"""Of a rollout: the histograms that its gates are told from, and what `in_words` says in words."""


class Operations:
    """Makes the sections. One thread at a time may call it.

    Args:
        view: what the supervisor knows now.
        sources: the state of each source of models.
        counted: every loaded version with its counters.
        drift: the report on the drift of all of them.
        labels: what the joiner tells; None where no labels are taken.
        rollouts: what is known of rollouts.
        capacity: how much fits.
        page_of: the address of a version in the registry's own pages; "" where there are none.
        rest_address: where REST is, "" for nowhere.
        lines: what was logged of models and workers.
    """

    def __init__(
        self,
        *,
        view: Callable[[], ServerView],
        sources: Callable[[], Sequence[SourceState]],
        counted: Callable[[], Sequence[VersionSnapshot]],
        drift: Callable[[], DriftReport],
        labels: Callable[[], Report | None],
        rollouts: Callable[[], Sequence[RolloutView]],
        capacity: Callable[[], ServerCapacity],
        page_of: Callable[[str, str], str],
        rest_address: str = "",
        lines: Callable[[], Sequence[Line]] = recent_lines,
        clock: Clock = monotonic,
    ) -> None:
        self._view = view
        self._sources = sources
        self._counted = counted
        self._drift = drift
        self._labels = labels
        self._rollouts = rollouts
        self._capacity = capacity
        self._page_of = page_of
        self._rest_address = rest_address
        self._lines = lines
        self._clock = clock
        self._release = installed_version("penstock")
        self._readings: deque[TrafficReading] = deque()
        self._drift_at_s = -DRIFT_S
        self._drift_section = b""

    def sections(self) -> Mapping[str, bytes]:
        """What there is to show now, by section."""
        view = self._view()
        return {
            "server": msgspec.json.encode(self._server(view)),
            "models": msgspec.json.encode(_models(view, self._page_of)),
            "traffic": msgspec.json.encode(self._traffic()),
            "rollouts": msgspec.json.encode([_rollout(each) for each in self._rollouts()]),
            "events": msgspec.json.encode([_event(line) for line in reversed(self._lines())]),
            "accuracy": msgspec.json.encode(_accuracy(self._labels())),
            "drift": self._evaluated_drift(),
        }

    def _server(self, view: ServerView) -> dict[str, Any]:
        return {
            "version": self._release,
            "ready": view.is_ready,
            "reason": view.not_ready_reason,
            "rest_port": int(self._rest_address.rpartition(":")[2]) if self._rest_address else None,
            "workers": shown_workers(view),
            "sources": [{"name": each.name, "state": each.state, "reason": each.reason} for each in self._sources()],
        }

    def _traffic(self) -> dict[str, Any]:
        now_s = self._clock()
        last = TrafficReading(now_s, {(each.model, each.version): totals(each.counters) for each in self._counted()})
        # When nobody has looked for a while, what is known is too old to tell a rate from.
        while self._readings and now_s - self._readings[0].at_s > RATE_S + 1:
            self._readings.popleft()
        self._readings.append(last)
        first = self._readings[0]
        if first is last:
            return {"at": time.time(), "capacity": shown_capacity(self._capacity()), "total": None, "versions": []}
        found = traffic(first, last)
        return {
            "at": time.time(),
            "capacity": shown_capacity(self._capacity()),
            "total": _numbers(together(first, last, found)),
            "versions": [[*key, *_numbers(one)] for key, one in found.items()],
        }

    def _evaluated_drift(self) -> bytes:
        now_s = self._clock()
        if now_s - self._drift_at_s >= DRIFT_S:
            self._drift_section, self._drift_at_s = msgspec.json.encode(_drift(self._drift())), now_s
        return self._drift_section


def _models(view: ServerView, page_of: Callable[[str, str], str]) -> list[dict[str, Any]]:
    """A record of each version, and one of each model of which there is none."""
    known = {version.model for version in view.versions}
    return [_version(version, page_of(version.model, version.version)) for version in view.versions] + [
        {"name": model, "version": "", "state": "UNAVAILABLE", "reason": problem, "roles": [], "wanted": []}
        for model, problem in sorted(view.problems.items())
        if model not in known
    ]


def _version(version: VersionView, page: str) -> dict[str, Any]:
    return {
        "name": version.model,
        "version": version.version,
        "roles": version.roles,
        "wanted": version.wanted,
        "weight": None if version.weight is None else weight_in_percent(version.weight),
        "sample": None if version.fraction is None else weight_in_percent(version.fraction),
        "state": version.state,
        "reason": version.reason,
        "engine": version.engine,
        "page": page,
    }


def _numbers(one: Traffic) -> list[float | None]:
    """Requests per second, the share of errors, and the two times in seconds, to four digits."""
    return [
        None if value is None else float(f"{value:.4g}")
        for value in (one.requests_per_s, one.errors, one.p50_s, one.p99_s)
    ]


def _rollout(view: RolloutView) -> dict[str, Any]:
    known = shown(view)
    has_ended = view.progress is not None and view.progress.has_ended
    return {name: value for name, value in known.items() if name not in _UNSHOWN} | {"ended": has_ended}


def _event(line: Line) -> dict[str, Any]:
    return {"at": line.at_s, "level": line.level, "event": line.event, "about": line.about}


def _accuracy(report: Report | None) -> list[dict[str, Any]] | None:
    """How good each version is by labels, by name; None where no labels are taken."""
    if report is None:
        return None
    found: dict[VersionKey, Any] = {(each.model, each.version): each.quality for each in latest(report.qualities)}
    return [{"model": model, "version": version, "quality": found[model, version]} for model, version in sorted(found)]


def _drift(report: DriftReport) -> dict[str, Any]:
    return {
        "watched": [_watched(version) for version in report.versions],
        "unwatched": [{"model": each.model, "version": each.version} for each in report.unwatched],
    }


def _watched(version: VersionDrift) -> dict[str, Any]:
    return {
        "model": version.model,
        "version": version.version,
        "roles": version.roles,
        "rows": version.rows,
        "window_rows": version.window_rows,
        "columns": len(version.columns),
        "tested": version.tested,
        "drifted": version.drifted,
        "alarms": [{"column": each.column, "kind": each.kind, "since": each.since} for each in version.alarms],
        "importance": version.alarmed_importance,
        "expected_accuracy": version.expected_accuracy,
    }
