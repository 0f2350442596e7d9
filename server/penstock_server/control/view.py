"""What the supervisor shows of itself: records for people and metrics, computed from the workers' state."""

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.names import ROLES, Role, VersionKey, VersionState
from penstock_server.capacity.estimate import BatchRuns
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.rollout.plan import TrafficPlan, VersionStatus
from penstock_server.sources.source import Desired

_WORST_LAST: Final[tuple[VersionState, ...]] = ("READY", "STANDBY", "LOADING", "UNLOADING", "UNAVAILABLE")


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version over all workers.

    Attributes:
        roles: its roles in the plans in force; a version may be canary and shadow at once.
        wanted: its roles in the desired plan.
        weight: the canary's share, 0 to 1; None for other roles.
        fraction: the share of the champion's batches that the shadow gets, 0 to 1; None for other roles.
        reason: why it is not ready, what is wrong with its new files, or what is wrong with its model.
        engine: what runs it, in a few words; a colon; and why. "" where no worker has it.
        runs: how it runs its batches; None where no worker has it.
    """

    model: str
    version: str
    state: VersionState
    roles: tuple[Role, ...] = ()
    weight: float | None = None
    fraction: float | None = None
    reason: str = ""
    wanted: tuple[Role, ...] = ()
    engine: str = ""
    runs: BatchRuns | None = None

    @property
    def key(self) -> VersionKey:
        """Its model's name and its own."""
        return self.model, self.version


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker.

    Attributes:
        connections: how many callers are connected to it; None where only its transport knows.
    """

    slot: int
    pid: int
    is_listening: bool
    restarts: int
    transport: str = ""
    connections: int | None = None


@dataclass(frozen=True, slots=True)
class ServerView:
    """The whole server.

    Attributes:
        problems: what is wrong with a model, by its name.
        not_ready_reason: why nothing can be answered, in one sentence; "" when something can.
        quarantined: how many desired versions are kept out, for what they do to a process.
        process_ends: how often a version ended a process of its own, by version; others are absent.
    """

    versions: tuple[VersionView, ...]
    workers: tuple[WorkerView, ...]
    problems: Mapping[str, str]
    reloads: int
    failed_reloads: int
    not_ready_reason: str = ""
    quarantined: int = 0
    process_ends: Mapping[VersionKey, int] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether something can be answered."""
        return not self.not_ready_reason


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a version apart from the workers that hold it.

    Attributes:
        status: LOADING, STANDBY, or UNAVAILABLE with the reason.
        is_barred: it must not answer even where it is loaded.
        note: what is worth knowing of it although it can be served.
    """

    status: VersionStatus
    is_barred: bool = False
    note: str = ""


Statuses = Mapping[str, Mapping[str, VersionStatus]]
"""What a worker holds, by model and version."""


def version_statuses(
    model: str, desired: TrafficPlan | None, held: Sequence[Statuses], standing: Callable[[VersionKey], Standing]
) -> dict[str, VersionStatus]:
    """The status of each version of a model that is desired or that one of the workers holds.

    It is the worst status over the workers that hold it; while none does, it depends on how far it has come.
    """
    of_model = [statuses for one in held if (statuses := one.get(model))]
    versions = dict.fromkeys(() if desired is None else desired.versions)
    for statuses in of_model:
        versions |= dict.fromkeys(statuses)
    return {
        version: _status(standing((model, version)), [one[version] for one in of_model if version in one])
        for version in versions
    }


def held_by(worker: WorkerProcess) -> Statuses:
    """What a worker holds, with what is wrong with versions that answer all the same."""
    # Copied, since metrics are read on other threads while the supervisor's thread changes what workers hold.
    notes, unbound = dict(worker.notes), dict(worker.unbound)
    found: dict[str, dict[str, VersionStatus]] = {}
    for key, status in list(worker.versions.items()):
        model, version = key
        found.setdefault(model, {})[version] = (
            VersionStatus("UNAVAILABLE", unbound[key])
            if key in unbound
            else VersionStatus(status.state, status.reason or notes.get(key, ""))
        )
    return found


def _status(standing: Standing, held: Sequence[VersionStatus]) -> VersionStatus:
    if standing.is_barred or not held:
        return standing.status
    worst = max(held, key=lambda status: _WORST_LAST.index(status.state))
    if worst.state == "READY" and standing.status.state == "UNAVAILABLE":
        reason = f"its new files cannot be loaded, and the former ones answer: {standing.status.reason}"
        return VersionStatus("READY", reason)
    return VersionStatus(worst.state, worst.reason or standing.note) if worst.state == "READY" else worst


def _first(shares: Iterable[float | None]) -> float | None:
    """The first that is there."""
    return next((share for share in shares if share is not None), None)


def version_views(
    desired: Desired,
    workers: Sequence[WorkerProcess],
    standing: Callable[[VersionKey], Standing],
    known: MutableMapping[str, tuple[VersionView, ...]] | None = None,
) -> tuple[VersionView, ...]:
    """Every version that is desired or held, by model and version.

    Args:
        desired: what is desired.
        workers: what holds versions.
        standing: what is known of a version apart from them.
        known: the views of models of which nothing has changed since; those that are missing are added.
    """
    known = {} if known is None else known
    held = [held_by(worker) for worker in workers]
    for model in {model for worker in workers for model in list(worker.touched)}:
        known.pop(model, None)
    views: list[VersionView] = []
    for model in sorted(desired.models.keys() | {model for one in held for model in one}):
        found = known.get(model)
        if found is None:
            found = known[model] = _model_views(model, desired, workers, held, standing)
        views += found
    return tuple(views)


def _model_views(
    model: str,
    desired: Desired,
    workers: Sequence[WorkerProcess],
    held: Sequence[Statuses],
    standing: Callable[[VersionKey], Standing],
) -> tuple[VersionView, ...]:
    plans = [plan for worker in workers if (plan := worker.plans.get(model)) is not None]
    statuses = version_statuses(model, desired.models.get(model), held, standing)
    views = []
    for version, status in sorted(statuses.items()):
        roles = tuple(role for role in ROLES if any(role in plan.roles(version) for plan in plans))
        weight = _first(plan.weight(version) for plan in plans)
        fraction = _first(plan.fraction(version) for plan in plans)
        reason = status.reason or desired.problems.get(model, "")
        plan_wanted = desired.models.get(model)
        wanted = plan_wanted.roles(version) if plan_wanted else ()
        engine = next((found for worker in workers if (found := worker.engines.get((model, version)))), "")
        runs = next((one for worker in workers if (one := worker.runs.get((model, version)))), None)
        views.append(VersionView(model, version, status.state, roles, weight, fraction, reason, wanted, engine, runs))
    return tuple(views)


def shown_workers(view: ServerView) -> list[dict[str, Any]]:
    """Each worker, as JSON has it."""
    return [
        {
            "slot": worker.slot,
            "pid": worker.pid,
            "listening": worker.is_listening,
            "restarts": worker.restarts,
            "transport": worker.transport,
            "connections": worker.connections,
        }
        for worker in view.workers
    ]
