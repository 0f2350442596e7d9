"""Decides what a worker should do next to serve the desired plans: a pure function of snapshots.

It keeps the guarantees of a reload. A version serves only when it is loaded and its golden requests pass. While a
champion is desired, the last ready version goes on answering until a desired one is ready. A version that is no longer
needed is unloaded only after the plans without it are in force. A worker loads one version at a time, what answers first.
"""

from collections.abc import Iterator, Mapping
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
        tried: the identity of the files that it last got a command to load, for each of these versions.
        loading: the version that it loads now; a ready version loads when other files replace its own.
    """

    versions: Mapping[VersionKey, VersionState] = field(default_factory=dict)
    plans: Mapping[str, TrafficPlan] = field(default_factory=dict)
    tried: Mapping[VersionKey, str] = field(default_factory=dict)
    loading: VersionKey | None = None

    def ready(self, model: str) -> frozenset[str]:
        """The versions of a model that can answer."""
        return frozenset(
            version for (name, version), state in self.versions.items() if name == model and state == "READY"
        )


@dataclass(frozen=True, slots=True)
class NextSteps:
    """What a worker should do now; nothing if it serves all that can be served.

    Attributes:
        load: the version to load while others answer.
        plans: the plans to put in force, whole; None when those in force are right.
        unload: the versions to drain and close; none while plans are to change, which may use them.
    """

    load: VersionKey | None = None
    plans: Mapping[str, TrafficPlan] | None = None
    unload: tuple[VersionKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Versions:
    """What is known of versions beside what workers hold.

    Attributes:
        loadable: the identity of the files of each version that may be loaded: fetched, and passed by the airlock.
        barred: the versions that must not answer, although a worker may hold them.
        doubtful: the versions that ended a worker; they are loaded last.
        fallbacks: the version of each model that answered well before; it answers while the desired champion cannot.
    """

    loadable: Mapping[VersionKey, str] = field(default_factory=dict)
    barred: AbstractSet[VersionKey] = frozenset()
    doubtful: AbstractSet[VersionKey] = frozenset()
    fallbacks: Mapping[str, str] = field(default_factory=dict)


def next_steps(desired: Mapping[str, TrafficPlan], known: Versions, worker: WorkerSnapshot) -> NextSteps:
    """The steps that bring the worker closer to the desired plans.

    Args:
        desired: the plan of each model.
        known: which versions may be loaded and may answer.
        worker: what it holds.
    """
    load = None if worker.loading is not None else next(_to_load(desired, known, worker), None)
    plans = effective_plans(desired, known, worker)
    if plans != worker.plans:
        # What the old plan used is unloaded only once the new one is in force.
        return NextSteps(load, plans)
    needed = {*plan_keys(desired), *plan_keys(plans)} - known.barred
    # With no plan in force, a desired champion is still loading, and a ready version may be desired again until then.
    awaiting = {model for model, plan in desired.items() if plan.champion is not None and model not in plans}
    # A fallback that could not be loaded stays known, or it would be loaded again and again.
    fallbacks = known.fallbacks.items()
    unload = (
        key
        for key, state in worker.versions.items()
        if key not in needed
        and key != worker.loading
        and (
            (state == "UNAVAILABLE" and key not in fallbacks)
            or (state == "READY" and (key[0] not in awaiting or key in known.barred))
        )
    )
    return NextSteps(load, None, tuple(unload))


def _to_load(desired: Mapping[str, TrafficPlan], known: Versions, worker: WorkerSnapshot) -> Iterator[VersionKey]:
    """What the worker can load now, the most important first."""
    failed = {key for key, state in worker.versions.items() if state == "UNAVAILABLE"}
    for key in load_order(desired, known, worker.plans, failed):
        identity = known.loadable.get(key)
        if identity is None or key in known.barred:
            continue
        state = worker.versions.get(key)
        if state is None or (state in {"READY", "UNAVAILABLE"} and worker.tried.get(key, identity) != identity):
            yield key


def load_order(
    desired: Mapping[str, TrafficPlan],
    known: Versions,
    plans: Mapping[str, TrafficPlan],
    failed: AbstractSet[VersionKey] = frozenset(),
) -> list[VersionKey]:
    """The versions to load: first what can answer for a model, then canaries and shadows, at last what ended a worker.

    Args:
        desired: the plan of each model.
        known: which versions may be loaded and may answer.
        plans: those in force in the worker.
        failed: what the worker could not load, although others may have.
    """
    champions = [(model, plan.champion) for model, plan in desired.items() if plan.champion is not None]
    # Where nothing answers and the champion cannot be loaded, or not safely, what answered before does.
    fallbacks = [
        (model, known.fallbacks[model])
        for model, version in champions
        if model in known.fallbacks
        and model not in plans
        and ((model, version) not in known.loadable or (model, version) in known.doubtful | known.barred | failed)
    ]
    order = dict.fromkeys([*champions, *fallbacks, *plan_keys(desired)])
    return sorted(order, key=lambda key: key in known.doubtful)


def effective_plans(
    desired: Mapping[str, TrafficPlan], known: Versions, worker: WorkerSnapshot
) -> dict[str, TrafficPlan]:
    """The plans that can be in force now, given what is ready and may answer."""
    plans = {}
    for model, plan in desired.items():
        ready = {version for version in worker.ready(model) if (model, version) not in known.barred}
        plans[model] = effective_plan(plan, ready, worker.plans.get(model), known.fallbacks.get(model))
    return {model: plan for model, plan in plans.items() if plan is not None}


def effective_plan(
    desired: TrafficPlan, ready: AbstractSet[str], present: TrafficPlan | None, fallback: str | None = None
) -> TrafficPlan | None:
    """The desired plan as far as its versions are ready, with the present champion until the desired one is.

    Without a present champion, the fallback answers.
    """
    if desired.champion is None:
        return None
    choices = (desired.champion, None if present is None else present.champion, fallback)
    champion = next((version for version in choices if version in ready), None)
    if champion is None:
        return None
    besides = ready - {champion}
    return TrafficPlan(
        champion=champion,
        canaries=tuple(arm for arm in desired.canaries if arm.version in besides),
        shadows=tuple(arm for arm in desired.shadows if arm.version in besides),
        others=tuple(version for version in desired.others if version in ready),
    )


def one_first(
    loadable: Mapping[VersionKey, str], loading: AbstractSet[VersionKey], held: AbstractSet[tuple[VersionKey, str]]
) -> dict[VersionKey, str]:
    """What another worker may load now: a version is loaded by one worker first, so that it can end only that one.

    Args:
        loadable: what may be loaded, by its files' identity.
        loading: what some worker loads now.
        held: what some worker has loaded, with the identity of its files.
    """
    return {key: identity for key, identity in loadable.items() if key not in loading or (key, identity) in held}


def plan_keys(plans: Mapping[str, TrafficPlan]) -> list[VersionKey]:
    """The versions of these plans, each model's champion first."""
    return [(model, version) for model, plan in plans.items() for version in plan.versions]
