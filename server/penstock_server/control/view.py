"""What the supervisor shows of itself: records for people and metrics, computed from the workers' state."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.names import ROLES, Role, VersionKey, VersionState
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.rollout.plan import TrafficPlan, VersionStatus
from penstock_server.sources.source import Desired

_WORST_LAST: Final[tuple[VersionState, ...]] = ("READY", "LOADING", "UNLOADING", "UNAVAILABLE")


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version over all workers.

    Attributes:
        roles: its roles in the plans in force; a version may be canary and shadow at once.
        wanted: its roles in the desired plan.
        weight: the canary's share, 0 to 1; None for other roles.
        reason: why it is not ready, or what is wrong with its model.
    """

    model: str
    version: str
    state: VersionState
    roles: tuple[Role, ...] = ()
    weight: float | None = None
    reason: str = ""
    wanted: tuple[Role, ...] = ()

    @property
    def key(self) -> VersionKey:
        """Its model's name and its own."""
        return self.model, self.version


@dataclass(frozen=True, slots=True)
class WorkerView:
    slot: int
    pid: int
    is_listening: bool
    restarts: int


@dataclass(frozen=True, slots=True)
class ServerView:
    versions: tuple[VersionView, ...]
    workers: tuple[WorkerView, ...]
    problems: Mapping[str, str]
    is_ready: bool
    reloads: int
    failed_reloads: int
    not_ready_reason: str = ""


def version_statuses(
    model: str,
    desired: TrafficPlan | None,
    workers: Iterable[WorkerProcess],
    fetch_failure: Callable[[VersionKey], str | None],
) -> dict[str, VersionStatus]:
    """The status of each version of a model that is desired or that one of these workers holds.

    It is the worst status over the workers that hold it; while none does, it depends on whether its files can be fetched.
    """
    # Copied, since metrics are read on other threads while the supervisor's thread changes what workers hold.
    held = [{key[1]: one for key, one in list(worker.versions.items()) if key[0] == model} for worker in workers]
    versions = dict.fromkeys(() if desired is None else desired.versions)
    versions |= dict.fromkeys(version for statuses in held for version in statuses)
    return {
        version: _status(fetch_failure((model, version)), [one[version] for one in held if version in one])
        for version in versions
    }


def _status(fetch_failure: str | None, held: Sequence[VersionStatus]) -> VersionStatus:
    if fetch_failure is not None:
        return VersionStatus("UNAVAILABLE", fetch_failure)
    return max(held, key=lambda status: _WORST_LAST.index(status.state), default=VersionStatus("LOADING"))


def version_views(
    desired: Desired, workers: Sequence[WorkerProcess], fetch_failure: Callable[[VersionKey], str | None]
) -> tuple[VersionView, ...]:
    """Every version that is desired or held, by model and version."""
    models = sorted(desired.models.keys() | {model for worker in workers for model, _ in list(worker.versions)})
    views = []
    for model in models:
        plans = [plan for worker in workers if (plan := worker.plans.get(model)) is not None]
        statuses = version_statuses(model, desired.models.get(model), workers, fetch_failure)
        for version, status in sorted(statuses.items()):
            roles = tuple(role for role in ROLES if any(getattr(plan, role) == version for plan in plans))
            weight = next((plan.canary_weight for plan in plans if plan.canary == version), None)
            reason = status.reason or desired.problems.get(model, "")
            plan_wanted = desired.models.get(model)
            wanted = tuple(role for role in ROLES if plan_wanted and getattr(plan_wanted, role) == version)
            views.append(VersionView(model, version, status.state, roles, weight, reason, wanted))
    return tuple(views)
