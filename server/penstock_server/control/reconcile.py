"""What a worker should do next, so that in the end it serves what is wanted: a pure function of snapshots.

It holds the promises of a reload. A version serves only when it is loaded and proven. While something is wanted, the
last version that is ready goes on answering until a wanted one is. What nobody needs is unloaded only after the plan
without it is in force.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal

from penstock.names import VersionKey
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.source import WantedModel

LoadState = Literal["loading", "ready", "failed", "unloading"]


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """What one worker holds.

    Attributes:
        versions: the state of each version that it was told to load.
        plans: the traffic plan of each model in force; a model with no champion ready has none.
    """

    versions: Mapping[VersionKey, LoadState] = field(default_factory=dict)
    plans: Mapping[str, TrafficPlan] = field(default_factory=dict)

    def ready(self, model: str) -> frozenset[str]:
        """The versions of a model that can answer."""
        return frozenset(
            version for (name, version), state in self.versions.items() if name == model and state == "ready"
        )


@dataclass(frozen=True, slots=True)
class Load:
    """Load this version aside."""

    key: VersionKey


@dataclass(frozen=True, slots=True)
class Serve:
    """Put these plans in force, whole."""

    plans: Mapping[str, TrafficPlan]


@dataclass(frozen=True, slots=True)
class Unload:
    """Drain and close this version."""

    key: VersionKey


Step = Load | Serve | Unload


def next_steps(
    wanted: Mapping[str, WantedModel], fetched: AbstractSet[VersionKey], worker: WorkerSnapshot
) -> list[Step]:
    """What the worker should be told now; empty when it holds all that can be had.

    Args:
        wanted: the versions and roles of each model.
        fetched: the versions whose files are at hand; others are not loaded yet.
        worker: what it holds.
    """
    steps: list[Step] = [Load(key) for key in _wanted_keys(wanted) if key in fetched and key not in worker.versions]
    plans = effective_plans(wanted, worker)
    if plans != worker.plans:
        # What the old plan used is unloaded only once the new one is in force.
        return [*steps, Serve(plans)]
    needed = set(_wanted_keys(wanted)) | {key for model, plan in plans.items() for key in _keys(model, plan)}
    # With no plan in force a wished champion is on its way; what is ready may be wished for again before it comes.
    awaiting = {model for model, wish in wanted.items() if wish.champion is not None and model not in plans}
    idle = [
        key
        for key, state in worker.versions.items()
        if key not in needed and (state == "failed" or (state == "ready" and key[0] not in awaiting))
    ]
    return [*steps, *(Unload(key) for key in idle)]


def effective_plans(wanted: Mapping[str, WantedModel], worker: WorkerSnapshot) -> dict[str, TrafficPlan]:
    """The plans that can be in force now, given what is ready."""
    plans = {
        model: effective_plan(wish, worker.ready(model), worker.plans.get(model)) for model, wish in wanted.items()
    }
    return {model: plan for model, plan in plans.items() if plan is not None}


def effective_plan(wish: WantedModel, ready: AbstractSet[str], present: TrafficPlan | None) -> TrafficPlan | None:
    """One model's plan: the wish as far as its versions are ready, the present champion until the wished one is."""
    champion = wish.champion
    if champion is None:
        return None
    if champion not in ready:
        if present is None or present.champion not in ready:
            return None
        champion = present.champion
    canary = _other(wish.canary, champion, ready)
    return TrafficPlan(
        champion=champion,
        canary=canary,
        canary_weight=wish.canary_weight if canary is not None else 0.0,
        shadow=_other(wish.shadow, champion, ready),
    )


def _other(version: str | None, champion: str, ready: AbstractSet[str]) -> str | None:
    return version if version in ready and version != champion else None


def _wanted_keys(wanted: Mapping[str, WantedModel]) -> Iterable[VersionKey]:
    # The champion is loaded first: it is what requests wait for.
    for model, wish in wanted.items():
        for version in dict.fromkeys((wish.champion, wish.canary, wish.shadow)):
            if version is not None:
                yield model, version


def _keys(model: str, plan: TrafficPlan) -> Iterable[VersionKey]:
    return ((model, version) for version in (plan.champion, plan.canary, plan.shadow) if version is not None)
