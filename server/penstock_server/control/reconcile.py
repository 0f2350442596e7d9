"""Decides what a worker should do next to serve the desired plans: a pure function of snapshots.

It keeps the guarantees of a reload. A version serves only when it is loaded and its golden requests pass. While a
champion is desired, the last ready version goes on answering until a desired one is ready. A version that is no longer
needed is unloaded only after the plans without it are in force.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from penstock.names import VersionKey, VersionState
from penstock_server.rollout.plan import TrafficPlan


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """What one worker holds.

    Attributes:
        versions: the state of each version that it got a command to load.
        plans: the traffic plan of each model in force; a model with no champion ready has none.
    """

    versions: Mapping[VersionKey, VersionState] = field(default_factory=dict)
    plans: Mapping[str, TrafficPlan] = field(default_factory=dict)

    def ready(self, model: str) -> frozenset[str]:
        """The versions of a model that can answer."""
        return frozenset(
            version for (name, version), state in self.versions.items() if name == model and state == "READY"
        )


@dataclass(frozen=True, slots=True)
class NextSteps:
    """What a worker should do now; nothing if it serves all that can be served.

    Attributes:
        load: the versions to load, in this order, while others answer.
        plans: the plans to put in force, whole; None when those in force are right.
        unload: the versions to drain and close; none while plans are to change, which may use them.
    """

    load: tuple[VersionKey, ...] = ()
    plans: Mapping[str, TrafficPlan] | None = None
    unload: tuple[VersionKey, ...] = ()


def next_steps(
    desired: Mapping[str, TrafficPlan], fetched: AbstractSet[VersionKey], worker: WorkerSnapshot
) -> NextSteps:
    """The steps that bring the worker closer to the desired plans.

    Args:
        desired: the plan of each model.
        fetched: the versions with local files; others are not loaded yet.
        worker: what it holds.
    """
    load = tuple(key for key in plan_keys(desired) if key in fetched and key not in worker.versions)
    plans = effective_plans(desired, worker)
    if plans != worker.plans:
        # What the old plan used is unloaded only once the new one is in force.
        return NextSteps(load, plans)
    needed = {*plan_keys(desired), *plan_keys(plans)}
    # With no plan in force, a desired champion is still loading, and a ready version may be desired again until then.
    awaiting = {model for model, plan in desired.items() if plan.champion is not None and model not in plans}
    unload = (
        key
        for key, state in worker.versions.items()
        if key not in needed and (state == "UNAVAILABLE" or (state == "READY" and key[0] not in awaiting))
    )
    return NextSteps(load, None, tuple(unload))


def effective_plans(desired: Mapping[str, TrafficPlan], worker: WorkerSnapshot) -> dict[str, TrafficPlan]:
    """The plans that can be in force now, given what is ready."""
    plans = {
        model: effective_plan(plan, worker.ready(model), worker.plans.get(model)) for model, plan in desired.items()
    }
    return {model: plan for model, plan in plans.items() if plan is not None}


def effective_plan(desired: TrafficPlan, ready: AbstractSet[str], present: TrafficPlan | None) -> TrafficPlan | None:
    """The desired plan as far as its versions are ready, with the present champion until the desired one is."""
    champion = desired.champion
    if champion is None:
        return None
    if champion not in ready:
        champion = None if present is None else present.champion
        if champion not in ready:
            return None
    canary = _other(desired.canary, champion, ready)
    return TrafficPlan(
        champion=champion,
        canary=canary,
        canary_weight=desired.canary_weight if canary is not None else 0.0,
        shadow=_other(desired.shadow, champion, ready),
    )


def _other(version: str | None, champion: str | None, ready: AbstractSet[str]) -> str | None:
    return version if version in ready and version != champion else None


def plan_keys(plans: Mapping[str, TrafficPlan]) -> list[VersionKey]:
    """The versions of these plans, each model's champion first."""
    return [(model, version) for model, plan in plans.items() for version in plan.versions]
