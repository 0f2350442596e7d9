"""Monitors the versions' drift over time, in the supervisor: evaluates their windows and keeps their alarms.

Several threads call it: scrapes, requests and the supervisor's own checks. While nothing new was counted, they get the
same evaluation.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import structlog

from penstock.names import VersionKey
from penstock_server.clock import Clock
from penstock_server.drift import statistics
from penstock_server.drift.dependence import JointReference, joint_drift
from penstock_server.drift.detector import Detector, Integers
from penstock_server.drift.evaluate import version_drift
from penstock_server.drift.joint_window import JointWindow
from penstock_server.drift.keeping import DetectorKeeper, Learnt, name_of
from penstock_server.drift.reference import Reference
from penstock_server.drift.report import DriftAlarm, DriftRules, JointDrift, VersionDrift, alarmed_importance
from penstock_server.drift.window import WindowReader
from penstock_server.metrics.counters import SharedCounters

log = structlog.get_logger(__name__)

PREDICTIONS: Final = ""
"""The name of the predictions among alarms; no column has it."""
SAVE_S: Final = 60.0
"""What was learnt is kept for the next process this often, and when a process ends in order."""
SLICE_ROWS: Final = 100
"""A look waits for so many rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A version with a drift baseline.

    Attributes:
        key: its model's name and its own.
        roles: its roles.
        counters: one per worker, at least one.
        reference: the training rows.
        joint: these by two columns at once; None where they are not counted so.
    """

    key: VersionKey
    roles: tuple[str, ...]
    counters: Sequence[SharedCounters]
    reference: Reference
    joint: JointReference | None = None


class _Version:
    """What is kept of one version."""

    def __init__(self, reference: Reference, joint: JointReference | None, rules: DriftRules) -> None:
        size = len(reference.names)
        least = rules.minimum_effect
        effect = reference.minimum_effect if least is None else np.full(size, least)
        self.reference = reference
        self.rules = rules
        self.reader = WindowReader(rules.window_s)
        self.joint = joint
        self.joint_window = None if joint is None else JointWindow(joint.words, rules.window_rows, rules.window_s)
        self.detector = Detector(reference, effect, rules.run_length)
        self.waiting: Integers | None = None
        self.began_s: float | None = None
        self.looks = 0
        self.saved_looks = 0
        self.counted: object = None
        self.report: VersionDrift | None = None

    def look_jointly(self, workers: Sequence[SharedCounters], now_s: float) -> int:
        """Takes what came by two columns at once; equal numbers mean that nothing did."""
        if self.joint_window is None:
            return 0
        self.joint_window.look(workers, now_s)
        return self.joint_window.looks

    @property
    def joint_drift(self) -> JointDrift | None:
        """What the window shows by two columns at once; None where they are not counted so."""
        if self.joint is None or self.joint_window is None:
            return None
        return joint_drift(self.joint, self.joint_window.parts, self.rules)

    @property
    def alarms(self) -> tuple[DriftAlarm, ...]:
        """Those that are on."""
        return tuple(
            DriftAlarm(name, kind, one.since_s, one.once_in_looks)
            for (name, kind), one in self.detector.detected.each().items()
        )


class DriftMonitor:
    """The drift of all versions.

    Args:
        rules: gives those of a model.
        keeper: keeps what is learnt of versions through unloads and restarts.
        clock: seconds since 1970.
        changed: called when a version's alarms change, on the thread of `look`; by default they are logged.
    """

    def __init__(
        self,
        rules: Callable[[str], DriftRules],
        *,
        keeper: DetectorKeeper | None = None,
        clock: Clock = time.time,
        changed: Callable[[VersionKey, tuple[DriftAlarm, ...]], None] | None = None,
    ) -> None:
        self._rules = rules
        self._keeper = keeper or DetectorKeeper(None)
        self._clock = clock
        self._saved_s = clock()
        self._changed = changed or _log_alarms
        self._versions: dict[VersionKey, _Version] = {}
        # What is to be written; not while the lock is held, which scrapes wait for.
        self._learnt: deque[Learnt] = deque()
        self._lock = threading.Lock()

    def drift_of(self, version: Watched) -> VersionDrift:
        """The report on the version's window now."""
        with self._lock:
            kept = self._of(version)
            now_s = self._clock()
            window = kept.reader.window(version.counters, now_s)
            counted = window.counted, kept.look_jointly(version.counters, now_s)
            if kept.report is None or kept.counted != counted:
                kept.report = version_drift(
                    *version.key,
                    version.roles,
                    reference=version.reference,
                    window=window.counts,
                    rows=window.rows,
                    window_rows=kept.rules.window_rows,
                    rules=kept.rules,
                    dispersion=statistics.dispersion(window.parts),
                    joint=kept.joint_drift,
                )
                kept.counted = counted
            alarms = kept.alarms
            alarmed = tuple(sorted({alarm.column for alarm in alarms}))
            return replace(
                kept.report,
                roles=version.roles,
                alarmed=alarmed,
                alarms=alarms,
                looks=kept.looks,
                alarmed_importance=alarmed_importance(kept.report.columns, alarmed),
            )

    def look(self, versions: Sequence[Watched]) -> None:
        """Looks at versions of which enough rows came, and forgets all other versions than these."""
        with self._lock:
            for key in self._versions.keys() - {version.key for version in versions}:
                self._put_away(key)
            for version in versions:
                self._look(version)
            is_time = self._clock() - self._saved_s >= SAVE_S
        if is_time:
            self.save()
        else:
            self._write()

    def save(self) -> None:
        """Keeps what was learnt for the next process."""
        with self._lock:
            self._saved_s = self._clock()
            for key, kept in self._versions.items():
                if kept.looks != kept.saved_looks:
                    self._learnt.append(Learnt(name_of(key, kept.reference), kept.detector.to_arrays()))
                    kept.saved_looks = kept.looks
        self._write()

    def _write(self) -> None:
        while self._learnt:
            self._keeper.save(self._learnt.popleft())

    def _put_away(self, key: VersionKey) -> None:
        kept = self._versions.pop(key)
        self._learnt.append(self._keeper.put_away(key, kept.reference, kept.detector))

    def _of(self, version: Watched) -> _Version:
        kept = self._versions.get(version.key)
        if kept is None or kept.reference is not version.reference:
            if kept is not None:
                self._put_away(version.key)
            kept = self._versions[version.key] = _Version(version.reference, version.joint, self._rules(version.key[0]))
            kept.detector = self._keeper.back(version.key, version.reference, kept.detector)
        return kept

    def _look(self, version: Watched) -> None:
        kept, now_s = self._of(version), self._clock()
        kept.look_jointly(version.counters, now_s)
        cells = kept.reader.slice(version.counters, now_s)[: len(version.reference.names)]
        waiting = cells if kept.waiting is None else kept.waiting + cells
        if kept.began_s is None:
            kept.began_s = now_s
        if not waiting.sum(axis=1).max(initial=0) >= SLICE_ROWS:
            kept.waiting = waiting
            return
        former = kept.detector.detected
        found = kept.detector.look(waiting, kept.began_s)
        kept.waiting, kept.began_s = None, now_s
        kept.looks += 1
        if found.each().keys() != former.each().keys():
            self._changed(version.key, kept.alarms)


def _log_alarms(key: VersionKey, alarms: tuple[DriftAlarm, ...]) -> None:
    model, version = key
    if not alarms:
        log.info("drift alarm is over", model=model, version=version)
        return
    log.warning("drift alarm", model=model, version=version, alarms=list(map(_told, alarms)))


def _told(alarm: DriftAlarm) -> Mapping[str, object]:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(alarm.since))
    return {"column": alarm.column or "(predictions)", "kind": alarm.kind, "since": since}
