"""Watches the versions' drift over time, in the supervisor: evaluates windows once, and keeps the alarms.

Scrapes, questions and the watch itself come from several threads and find the same evaluation while nothing was counted
since. A window for an alarm shares no row with the one before: it begins when the last was looked at.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from penstock.names import VersionKey
from penstock_server.clock import Clock, monotonic
from penstock_server.drift.alarm import AlarmState, after_window
from penstock_server.drift.evaluate import DriftRules, columns_drift, version_drift
from penstock_server.drift.reference import Reference
from penstock_server.drift.report import VersionDrift
from penstock_server.drift.window import Marks, window_of
from penstock_server.metrics.counters import SharedCounters

log = structlog.get_logger(__name__)

PREDICTIONS: Final = ""
"""The name under which predictions raise an alarm; no column has it."""
LEAST_SHARE: Final = 0.9
"""Of a window's rows that a new one must hold: the sub-window that is being filled does not count."""


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A version that is watched.

    Attributes:
        key: its model's name and its own.
        roles: the parts that it plays.
        boards: one a worker, at least one.
        reference: what it was trained on.
    """

    key: VersionKey
    roles: tuple[str, ...]
    boards: Sequence[SharedCounters]
    reference: Reference


@dataclass(slots=True)
class _Memory:
    marks: Marks = ()
    alarm: AlarmState = field(default_factory=AlarmState)
    counted: object = None
    found: VersionDrift | None = None


class DriftMonitor:
    """The drift of all versions.

    Args:
        rules: what is called drift.
        window_rows: rows of each worker's window, and of an alarm's over all workers.
        changed: hears of a version's alarms when they change, on the thread that looks.
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
        self._changed = changed or _say
        self._memories: dict[VersionKey, _Memory] = {}
        self._lock = threading.Lock()

    def drift_of(self, version: Watched) -> VersionDrift:
        """What can be said of the version's window now."""
        window = window_of(version.boards)
        with self._lock:
            memory = self._memories.setdefault(version.key, _Memory())
            counted = (window.counted, id(version.reference))
            if memory.found is None or memory.counted != counted:
                memory.found = version_drift(
                    *version.key,
                    version.roles,
                    reference=version.reference,
                    window=window.counts,
                    rows=window.rows,
                    window_rows=self._window_rows,
                    rules=self._rules,
                )
                memory.counted = counted
            alarmed = tuple(sorted(memory.alarm.since_s))
            return replace(memory.found, roles=version.roles, alarmed=alarmed)

    def look(self, versions: Sequence[Watched]) -> None:
        """Steps the alarms of versions with a new window; forgets the versions that are gone."""
        with self._lock:
            kept = {version.key for version in versions}
            for key in self._memories.keys() - kept:
                del self._memories[key]
            for version in versions:
                self._look(version, self._memories.setdefault(version.key, _Memory()))

    def alarm_of(self, key: VersionKey) -> AlarmState:
        """How a version's alarms stand."""
        with self._lock:
            memory = self._memories.get(key)
            return AlarmState() if memory is None else memory.alarm

    def _look(self, version: Watched, memory: _Memory) -> None:
        window = window_of(version.boards, memory.marks)
        if window.rows < LEAST_SHARE * self._window_rows:
            return
        columns, predictions = columns_drift(version.reference, window.counts, self._rules)
        drifted = {column.name: column.drifted for column in columns}
        if predictions is not None:
            drifted[PREDICTIONS] = predictions.drifted
        former, memory.marks = memory.alarm, window.marks
        memory.alarm = after_window(former, drifted, self._clock())
        if memory.alarm.since_s.keys() != former.since_s.keys():
            self._changed(version.key, memory.alarm)


def _say(key: VersionKey, alarm: AlarmState) -> None:
    model, version = key
    columns = [name or "(predictions)" for name in sorted(alarm.since_s)]
    if columns:
        log.warning("drift alarm", model=model, version=version, columns=columns)
    else:
        log.info("drift alarm is over", model=model, version=version)
