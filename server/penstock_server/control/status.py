"""Joins what the supervisor, the counters and the drift monitor know, for metrics, HTTP and control requests.

It decides nothing, and caches only the array form of each baseline. Several threads read it.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from penstock.names import VersionKey
from penstock_server import memory
from penstock_server.control.champions import champion_signals
from penstock_server.control.view import ServerView, VersionView
from penstock_server.drift.answer import DriftReport, UnwatchedVersion
from penstock_server.drift.dependence import JointReference, joint_reference_of
from penstock_server.drift.monitor import DriftMonitor, Watched
from penstock_server.drift.reference import Reference, reference_of
from penstock_server.labels.report import Report
from penstock_server.metrics import shadow_report
from penstock_server.metrics.prometheus import MetricsSnapshot, VersionSnapshot
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_server.retraining.signals import Signals
from penstock_server.sources.combined_source import SourceState
from penstock_server.tracing.span_file import SpanFile

log = structlog.get_logger(__name__)

DRIFT_INTERVAL_S: Final = 1.0
"""The pause between two checks for drift; one that finds no new window takes microseconds per version."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class ServerStatus:
    """What is known of the whole server now.

    Args:
        view: what the supervisor knows.
        artifact: the files of a version, if they have been fetched.
        identity: the identity of these files.
        counters: what the workers counted.
        sources: the state of each source of models.
        monitor: the drift of all versions.
        spans: of traced requests; None if nothing is traced.
    """

    def __init__(
        self,
        *,
        view: Callable[[], ServerView],
        artifact: Callable[[VersionKey], Artifact | None],
        identity: Callable[[VersionKey], str | None],
        counters: CounterStore,
        sources: Callable[[], tuple[SourceState, ...]],
        monitor: DriftMonitor,
        spans: SpanFile | None = None,
    ) -> None:
        self._spans = spans
        self._view = view
        self._artifact = artifact
        self._identity = identity
        self._counters = counters
        self._sources = sources
        self._monitor = monitor
        self._references: dict[VersionKey, tuple[Artifact, Reference, JointReference | None]] = {}

    def expected_accuracies(self) -> dict[VersionKey, float]:
        """The accuracy of each version that is expected without labels, where that can be told."""
        return {
            (version.model, version.version): version.expected_accuracy.value
            for version in self.drift().versions
            if version.expected_accuracy is not None
        }

    def metrics(self) -> MetricsSnapshot:
        """What a scrape shows."""
        view, states = self._view(), self._sources()
        return MetricsSnapshot(
            versions=self._loaded(view),
            slots=self._counters.of_slots(),
            restarts={worker.slot: worker.restarts for worker in view.workers},
            resident_bytes={
                worker.slot: size for worker in view.workers if (size := memory.resident_bytes(worker.pid))
            },
            cpu_s={worker.slot: used for worker in view.workers if (used := _cpu_s(worker.pid)) is not None},
            connections={worker.slot: worker.connections for worker in view.workers if worker.connections is not None},
            sources={state.name: state.state == "answers" for state in states},
            answered_s={state.name: state.answered_s for state in states if state.answered_s is not None},
            states={version.key: version.state for version in view.versions},
            is_ready=view.is_ready,
            reloads=view.reloads,
            failed_reloads=view.failed_reloads,
            quarantined=view.quarantined,
            process_ends=view.process_ends,
            offset_ns=time.time_ns() - time.monotonic_ns(),
            spans=None if self._spans is None else self._spans.counts(),
        )

    def versions(self) -> list[VersionSnapshot]:
        """Every loaded version with what was counted of it."""
        return self._loaded(self._view())

    def drift(self) -> DriftReport:
        """The drift of every loaded version."""
        loaded = [version for version in self._view().versions if self._counters.of_version(version.key)]
        watched = [(version, self._watched(version)) for version in loaded]
        return DriftReport(
            tuple(self._monitor.drift_of(found) for _, found in watched if found is not None),
            tuple(
                UnwatchedVersion(version.model, version.version, version.roles)
                for version, found in watched
                if found is None
            ),
        )

    def shadows(self) -> bytes:
        """What /v1/shadows shows."""
        return shadow_report.to_json(self._loaded(self._view()))

    def signals(self, labels: Report | None) -> list[Signals]:
        """What the rules of retraining look at: each model's champion, with what is known from labels, if some are taken."""
        view = self._view()
        known = view, self.drift().versions, self._loaded(view), labels
        return list(champion_signals(*known, artifact=self._artifact, identity=self._identity))

    async def watch_drift(self) -> None:
        """Checks for drift at an interval, until cancelled; its errors stop nothing else."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except Exception:
                log.exception("the drift monitor failed")
            await asyncio.sleep(DRIFT_INTERVAL_S)

    def look(self) -> None:
        """Lets the monitor check every version that has a baseline."""
        found = [one for version in self._view().versions if (one := self._watched(version)) is not None]
        self._monitor.look(found)
        for key in self._references.keys() - {one.key for one in found}:
            self._references.pop(key, None)

    def _loaded(self, view: ServerView) -> list[VersionSnapshot]:
        return [self._version(version) for version in view.versions if self._counters.of_version(version.key)]

    def _version(self, version: VersionView) -> VersionSnapshot:
        return VersionSnapshot(
            model=version.model,
            version=version.version,
            roles=version.roles,
            weight=version.weight,
            counters=self._counters.of_version(version.key),
            class_names=_class_names(self._artifact(version.key)),
            steps=self._steps(version.key),
            fraction=version.fraction,
        )

    def _steps(self, key: VersionKey) -> list[str]:
        artifact = self._artifact(key)
        ensemble = None if artifact is None else artifact.ensemble
        names = [] if ensemble is None else [step.name for step in ensemble.steps]
        # Other files of the version, which still answer, may have other steps.
        is_counted = all(counters.shape.steps == len(names) for counters in self._counters.of_version(key))
        return names if is_counted else []

    def _watched(self, version: VersionView) -> Watched | None:
        artifact = self._artifact(version.key)
        # Other files of the version, which still answer, count in cells of their own.
        counters = self._counters.of_version(version.key, self._identity(version.key))
        if artifact is None or artifact.baseline is None or not counters:
            return None
        cached = self._references.get(version.key)
        if cached is None or cached[0] is not artifact:
            baseline = artifact.baseline
            cached = (artifact, reference_of(baseline, artifact.importance), joint_reference_of(baseline))
            self._references[version.key] = cached
        return Watched(version.key, version.roles, counters, *cached[1:])


def _class_names(artifact: Artifact | None) -> list[str]:
    """Names for labels that are indices; none where labels are numbers."""
    manifest = None if artifact is None else artifact.manifest
    classes = () if manifest is None else manifest.classes or ()
    return [str(label) for label in classes] if any(isinstance(label, str) for label in classes) else []


def _cpu_s(pid: int) -> float | None:
    """What a process has used of the CPU, in seconds; None if it is gone."""
    try:
        # The name of the command comes second, in parentheses, and may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    except (OSError, IndexError, ValueError):
        return None
