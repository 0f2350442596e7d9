"""Monitors the versions' drift over time, in the supervisor: evaluates their windows and keeps their alarms.

Several threads call it: scrapes, requests and the supervisor's own checks. While nothing new was counted, they get the
same evaluation. An alarm's window shares no row with the one before: it begins after the sub-window in which the last
one was evaluated.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from penstock.names import VersionKey
from penstock_server.clock import Clock, monotonic
from penstock_server.drift.alarm import AlarmState, after_window
from penstock_server.drift.evaluate import columns_drift, version_drift
from penstock_server.drift.reference import Reference
from penstock_server.drift.report import DriftRules, VersionDrift
from penstock_server.drift.window import Marks, window_of
from penstock_server.metrics.counters import SharedCounters

log = structlog.get_logger(__name__)

PREDICTIONS: Final = ""
"""The name of the predictions among alarms; no column has it."""
LEAST_SHARE: Final = 0.9
"""The share of a window's rows that an alarm's window must hold: it lacks the sub-window that the last check was in."""


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A version with a drift baseline.

    Attributes:
        key: its model's name and its own.
        roles: its roles.
        counters: one per worker, at least one.
        reference: the training rows.
    """

    key: VersionKey
    roles: tuple[str, ...]
    counters: Sequence[SharedCounters]
    reference: Reference


@dataclass(slots=True)
class _LastLook:
    marks: Marks = ()
    alarm: AlarmState = field(default_factory=AlarmState)
    counted: object = None
    report: VersionDrift | None = None


class DriftMonitor:
    """The drift of all versions.

    Args:
        rules: what counts as drift.
        window_rows: rows of each worker's window, and of an alarm's window over all workers.
        changed: called when a version's alarms change, on the thread of `look`; by default they are logged.
    """

    def __init__(
        self,
        rules: DriftRules,
        window_rows: int,
        *,
        clock: Clock = monotonic,
        changed: Callable[[VersionKey, AlarmState], None] | None = None,
    ) -> None:
        self._rules = rules
        self._window_rows = window_rows
        self._clock = clock
        self._changed = changed or _log_alarm
        self._last: dict[VersionKey, _LastLook] = {}
        self._lock = threading.Lock()

    def drift_of(self, version: Watched) -> VersionDrift:
        """The report on the version's window now."""
        window = window_of(version.counters)
        with self._lock:
            last = self._last.setdefault(version.key, _LastLook())
            counted = (window.counted, id(version.reference))
            if last.report is None or last.counted != counted:
                last.report = version_drift(
                    *version.key,
                    version.roles,
                    reference=version.reference,
                    window=window.counts,
                    rows=window.rows,
                    window_rows=self._window_rows,
                    rules=self._rules,
                )
                last.counted = counted
            alarmed = tuple(sorted(last.alarm.since_s))
            return replace(last.report, roles=version.roles, alarmed=alarmed)

    def look(self, versions: Sequence[Watched]) -> None:
        """Updates the alarms of versions that have a new window, and forgets all other versions than these."""
        with self._lock:
            kept = {version.key for version in versions}
            for key in self._last.keys() - kept:
                del self._last[key]
            for version in versions:
                self._look(version, self._last.setdefault(version.key, _LastLook()))

    def _look(self, version: Watched, last: _LastLook) -> None:
        window = window_of(version.counters, last.marks)
        if window.rows < LEAST_SHARE * self._window_rows:
            return
        columns, predictions = columns_drift(version.reference, window.counts, self._rules)
        drifted = {column.name: column.drifted for column in columns}
        if predictions is not None:
            drifted[PREDICTIONS] = predictions.drifted
        former, last.marks = last.alarm, window.marks
        last.alarm = after_window(former, drifted, self._clock())
        if last.alarm.since_s.keys() != former.since_s.keys():
            self._changed(version.key, last.alarm)


def _log_alarm(key: VersionKey, alarm: AlarmState) -> None:
    model, version = key
    columns = [name or "(predictions)" for name in sorted(alarm.since_s)]
    if columns:
        log.warning("drift alarm", model=model, version=version, columns=columns)
    else:
        log.info("drift alarm is over", model=model, version=version)
