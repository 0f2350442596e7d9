"""Puts together what the supervisor, its boards and the drift watch know, for metrics and for questions.

It decides nothing and keeps nothing but a form of each baseline that is dear to make. `app` hands it to whoever shows the
server: it is read from several threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.names import Role, VersionKey, VersionState
from penstock_server.drift.answer import DriftReport, UnwatchedVersion
from penstock_server.drift.monitor import DriftMonitor, Watched
from penstock_server.drift.reference import Reference, reference_of
from penstock_server.metrics.prometheus import MetricsSnapshot, VersionSnapshot
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_server.sources.combined_source import SourceState
from penstock_server.sources.source import WantedModel


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version over all workers.

    Attributes:
        roles: the parts it plays in the plans in force; a version may be canary and shadow at once.
        weight: the canary's share, 0 to 1; None for other roles.
        reason: why it is not ready, or what is wrong about it.
    """

    model: str
    version: str
    state: VersionState
    roles: tuple[Role, ...] = ()
    weight: float | None = None
    reason: str = ""

    @property
    def key(self) -> VersionKey:
        """Its model's name and its own."""
        return self.model, self.version


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker slot."""

    slot: int
    pid: int
    is_listening: bool
    restarts: int


@dataclass(frozen=True, slots=True)
class ServerView:
    """The whole server."""

    versions: tuple[VersionView, ...]
    workers: tuple[WorkerView, ...]
    wanted: dict[str, WantedModel]
    problems: dict[str, str]
    is_ready: bool
    reloads: int
    failed_reloads: int


_PAGE_BYTES = 4096


class ServerStatus:
    """What is known of the whole server at the moment of asking.

    Args:
        view: what the supervisor knows now.
        artifact: the files of a version, if they are at hand.
        boards: the workers' counts.
        sources: how the sources of models stand.
        watch: the drift of all versions.
    """

    def __init__(
        self,
        *,
        view: Callable[[], ServerView],
        artifact: Callable[[VersionKey], Artifact | None],
        boards: CounterStore,
        sources: Callable[[], tuple[SourceState, ...]],
        watch: DriftMonitor,
    ) -> None:
        self._view = view
        self._artifact = artifact
        self._boards = boards
        self._sources = sources
        self._watch = watch
        self._references: dict[VersionKey, tuple[Artifact, Reference]] = {}

    def of_server(self) -> MetricsSnapshot:
        """What a scrape shows."""
        view = self._view()
        return MetricsSnapshot(
            versions=[self._version(version) for version in view.versions if self._boards.of_version(version.key)],
            slots=self._boards.of_slots(),
            restarts={worker.slot: worker.restarts for worker in view.workers},
            resident_bytes={worker.slot: size for worker in view.workers if (size := _resident_bytes(worker.pid))},
            sources={state.name: state.state == "answers" for state in self._sources()},
            reloads=view.reloads,
            failed_reloads=view.failed_reloads,
        )

    def drift(self) -> DriftReport:
        """What is said of the drift of every loaded version."""
        loaded = [version for version in self._view().versions if self._boards.of_version(version.key)]
        watched = [(version, self._watched(version)) for version in loaded]
        return DriftReport(
            tuple(self._watch.drift_of(found) for _, found in watched if found is not None),
            tuple(
                UnwatchedVersion(version.model, version.version, version.roles)
                for version, found in watched
                if found is None
            ),
        )

    def look(self) -> None:
        """Lets the watch look at every version that has a baseline."""
        found = [self._watched(version) for version in self._view().versions]
        self._watch.look([one for one in found if one is not None])
        kept = {one.key for one in found if one is not None}
        for key in self._references.keys() - kept:
            self._references.pop(key, None)

    def _version(self, version: VersionView) -> VersionSnapshot:
        return VersionSnapshot(
            model=version.model,
            version=version.version,
            roles=version.roles,
            weight=version.weight,
            counters=self._boards.of_version(version.key),
            class_names=_class_names(self._artifact(version.key)),
        )

    def _watched(self, version: VersionView) -> Watched | None:
        artifact, boards = self._artifact(version.key), self._boards.of_version(version.key)
        if artifact is None or artifact.baseline is None or not boards:
            return None
        held = self._references.get(version.key)
        if held is None or held[0] is not artifact:
            held = (artifact, reference_of(artifact.baseline))
            self._references[version.key] = held
        return Watched(version.key, version.roles, boards, held[1])


def _class_names(artifact: Artifact | None) -> list[str]:
    """Names for labels that are indices; none where labels are numbers."""
    manifest = None if artifact is None else artifact.manifest
    classes = () if manifest is None else manifest.classes or ()
    return [str(label) for label in classes] if any(isinstance(label, str) for label in classes) else []


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * _PAGE_BYTES
