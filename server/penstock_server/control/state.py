"""What the supervisor knows at one moment, for people and for metrics: frozen records, no decisions."""

from dataclasses import dataclass

from penstock.names import Role, VersionKey, VersionState
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
