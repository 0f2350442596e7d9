from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.names import VersionKey, VersionState
from penstock_server.control.reconcile import NextSteps, WorkerSnapshot, effective_plan, next_steps
from penstock_server.rollout.plan import TrafficPlan

MODELS, VERSIONS = ("a", "b"), ("1", "2", "3")
KEYS = [(model, version) for model in MODELS for version in VERSIONS]
LETTERS: dict[str, VersionState] = {"r": "READY", "l": "LOADING", "f": "UNAVAILABLE", "u": "UNLOADING"}


def desired(champion: str | None = None, **others: Any) -> dict[str, TrafficPlan]:
    return {"a": TrafficPlan(champion=champion, **others)}


def held(versions: str = "", plan: TrafficPlan | None = None) -> WorkerSnapshot:
    """A worker with versions of model a, as in "1r 2l": 1 is ready and 2 loads (f failed, u unloads)."""
    return WorkerSnapshot({("a", one[0]): LETTERS[one[1]] for one in versions.split()}, {"a": plan} if plan else {})


def load(*versions: str) -> NextSteps:
    return NextSteps(load=tuple(("a", version) for version in versions))


def serve(plan: TrafficPlan | None = None, *, loading: str = "") -> NextSteps:
    return NextSteps(tuple(("a", version) for version in loading), {} if plan is None else {"a": plan})


def unload(*versions: str) -> NextSteps:
    return NextSteps(unload=tuple(("a", version) for version in versions))


NOTHING = NextSteps()
CASES: dict[str, tuple[dict[str, TrafficPlan], Iterable[str], WorkerSnapshot, NextSteps]] = {
    "nothing desired, nothing held": ({}, "", held(), NOTHING),
    "what is fetched is loaded, the champion first": (
        desired("2", canary="1", shadow="3"), "123", held(), load("2", "1", "3"),
    ),
    "what is not fetched waits": (desired("2", canary="1"), "1", held(), load("1")),
    "a version of two roles is loaded once": (desired("1", canary="2", shadow="2"), "12", held(), load("1", "2")),
    "what loads is left alone": (desired("1"), "1", held("1l"), NOTHING),
    "a ready champion serves": (desired("1"), "1", held("1r"), serve(TrafficPlan("1"))),
    "a canary alone serves nothing": (desired("1", canary="2"), "12", held("1l 2r"), NOTHING),
    "the champion serves before its canary is ready": (
        desired("1", canary="2", canary_weight=0.1), "12", held("1r 2l"), serve(TrafficPlan("1")),
    ),
    "and while its canary is only to be loaded": (
        desired("1", canary="2", canary_weight=0.1), "12", held("1r"), serve(TrafficPlan("1"), loading="2"),
    ),
    "a ready canary takes its share": (
        desired("1", canary="2", canary_weight=0.1), "12", held("1r 2r", TrafficPlan("1")),
        serve(TrafficPlan("1", "2", 0.1)),
    ),
    "a new weight is put in force": (
        desired("1", canary="2", canary_weight=0.2), "12", held("1r 2r", TrafficPlan("1", "2", 0.1)),
        serve(TrafficPlan("1", "2", 0.2)),
    ),
    "the old champion serves while the new one loads": (desired("2"), "12", held("1r 2l", TrafficPlan("1")), NOTHING),
    "the old champion serves on when the new one failed": (
        desired("2"), "12", held("1r 2f", TrafficPlan("1")), NOTHING,
    ),
    "the plan changes before the old champion goes": (
        desired("2"), "12", held("1r 2r", TrafficPlan("1")), serve(TrafficPlan("2")),
    ),
    "the old champion goes": (desired("2"), "2", held("1r 2r", TrafficPlan("2")), unload("1")),
    "a promoted canary is no longer one": (
        desired("2", canary="2", canary_weight=0.5), "2", held("1r 2r", TrafficPlan("1", "2", 0.5)),
        serve(TrafficPlan("2")),
    ),
    "a failed version that is not desired is forgotten": (
        desired("1"), "1", held("1r 2f", TrafficPlan("1")), unload("2"),
    ),
    "a failed version goes while no champion is ready": (desired("3"), "", held("1r 2f"), unload("2")),
    "a failed version that is desired is not tried again": (
        desired("1", canary="2"), "12", held("1r 2f", TrafficPlan("1")), NOTHING,
    ),
    "what still loads is not unloaded": (desired("1"), "1", held("1r 2l", TrafficPlan("1")), NOTHING),
    "what unloads is not unloaded again": (desired("1"), "1", held("1r 2u", TrafficPlan("1")), NOTHING),
    "what unloads is not loaded before it is gone": (desired("1"), "1", held("1u"), NOTHING),
    "what is ready stays while no champion is": (desired("2"), "2", held("1r 2l"), NOTHING),
    "what is ready goes when no champion is desired": (desired(None), "", held("1r 2r"), unload("1", "2")),
    "a shadow without a champion is loaded and serves nothing": (desired(None, shadow="1"), "1", held(), load("1")),
    "a model that is no longer desired stops first": ({}, "", held("1r", TrafficPlan("1")), serve()),
    "and goes then": ({}, "", held("1r"), unload("1")),
    "without a champion nothing serves": (desired(None, shadow="1"), "1", held("1r", TrafficPlan("1")), serve()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_next_steps(case: str) -> None:
    plans, fetched, worker, expected = CASES[case]
    assert next_steps(plans, {("a", version) for version in fetched}, worker) == expected


def test_models_do_not_wait_for_each_other() -> None:
    plans = {"a": TrafficPlan("2"), "b": TrafficPlan("1")}
    worker = WorkerSnapshot(
        {("a", "1"): "READY", ("a", "2"): "LOADING", ("b", "1"): "READY", ("b", "2"): "READY"},
        {"a": TrafficPlan("1"), "b": TrafficPlan("1")},
    )
    assert next_steps(plans, set(), worker) == NextSteps(unload=(("b", "2"),))


@pytest.mark.parametrize(
    ("wanted", "ready", "present", "expected"),
    [
        (TrafficPlan("1"), "", None, None),
        (TrafficPlan("1", "2", 0.2, "3"), "123", None, TrafficPlan("1", "2", 0.2, "3")),
        (TrafficPlan("1", "2", 0.2, "3"), "1", None, TrafficPlan("1")),
        (TrafficPlan("1", "2", 0.2, "3"), "13", None, TrafficPlan("1", shadow="3")),
        (TrafficPlan("1", "2", 0.2), "23", TrafficPlan("3"), TrafficPlan("3", "2", 0.2)),
        (TrafficPlan("1", "2", 0.2), "2", TrafficPlan("2"), TrafficPlan("2")),
        (TrafficPlan("1"), "2", TrafficPlan("3"), None),
        (TrafficPlan(None, "2", 0.2), "123", TrafficPlan("1"), None),
    ],
)
def test_effective_plan(
    wanted: TrafficPlan, ready: str, present: TrafficPlan | None, expected: TrafficPlan | None
) -> None:
    assert effective_plan(wanted, set(ready), present) == expected


class Puppet:
    """A worker that does what it is told, one thing at a time and no sooner than the test says."""

    def __init__(self) -> None:
        self.versions: dict[VersionKey, VersionState] = {}
        self.plans: dict[str, TrafficPlan] = {}
        self.orders: list[tuple[str, Any]] = []

    @property
    def snapshot(self) -> WorkerSnapshot:
        return WorkerSnapshot(dict(self.versions), dict(self.plans))

    @property
    def awaits_plans(self) -> bool:
        return any(kind == "serve" for kind, _ in self.orders)

    def tell(self, steps: NextSteps) -> None:
        for key in steps.load:
            assert key not in self.versions
            self.versions[key] = "LOADING"
            self.orders.append(("load", key))
        if steps.plans is not None:
            self.orders.append(("serve", dict(steps.plans)))
        for key in steps.unload:
            assert self.versions[key] in {"READY", "UNAVAILABLE"}
            self.versions[key] = "UNLOADING"
            self.orders.append(("unload", key))

    def work(self, fails: bool) -> None:
        match self.orders.pop(0):
            case "load", key:
                self.versions[key] = "UNAVAILABLE" if fails else "READY"
            case "unload", key:
                del self.versions[key]
            case "serve", plans:
                self.plans = plans


def advance(plans: dict[str, TrafficPlan], fetched: set[VersionKey], worker: Puppet) -> bool:
    """One round of the supervisor; whether there was anything to do."""
    if worker.awaits_plans:
        return False
    steps = next_steps(plans, fetched, worker.snapshot)
    check(plans, worker, steps)
    worker.tell(steps)
    return steps != NOTHING


def check(plans: dict[str, TrafficPlan], worker: Puppet, steps: NextSteps) -> None:
    if steps.plans is not None:
        assert not steps.unload
        for model, served in steps.plans.items():
            assert all(worker.versions[model, version] == "READY" for version in served.versions)
        for model in worker.plans.keys() & plans.keys():
            assert plans[model].champion is None or model in steps.plans  # what answers goes on answering
    for model, version in steps.unload:
        plan = worker.plans.get(model)
        assert plan is None or version not in plan.versions
        if worker.versions[model, version] == "READY" and model in plans and plans[model].champion is not None:
            # The last that is ready stays until a desired one is, or until one that answers is.
            others = worker.snapshot.ready(model) - {version}
            assert others & {*plans[model].versions} or (plan is not None and plan.champion in others)


ROLES = st.none() | st.sampled_from(VERSIONS)
PLANS = st.dictionaries(
    st.sampled_from(MODELS),
    st.builds(TrafficPlan, champion=ROLES, canary=ROLES, shadow=ROLES, canary_weight=st.sampled_from([0.0, 0.5, 1.0])),
)
EVENTS = st.one_of(
    st.tuples(st.just("desire"), PLANS),
    st.tuples(st.just("fetch"), st.sampled_from(KEYS)),
    st.tuples(st.just("work"), st.booleans()),
    st.tuples(st.just("restart"), st.none()),
    *[st.tuples(st.just("step"), st.none())] * 3,
)


@given(events=st.lists(EVENTS, max_size=60), final=PLANS)
def test_random_walks_keep_answering_and_end_at_the_desired_plans(
    events: list[tuple[str, Any]], final: dict[str, TrafficPlan]
) -> None:
    plans: dict[str, TrafficPlan] = {}
    fetched: set[VersionKey] = set()
    worker = Puppet()
    for kind, value in events:
        match kind:
            case "desire":
                plans = value
            case "fetch":
                fetched.add(value)
            case "work" if worker.orders:
                worker.work(fails=value)
            case "restart":
                worker = Puppet()
            case "step":
                advance(plans, fetched, worker)
    settle(final, set(KEYS), worker)
    failed = {key for key, state in worker.versions.items() if state == "UNAVAILABLE"}
    assert worker.plans.keys() <= final.keys()
    for model, plan in final.items():
        if not any((model, version) in failed for version in plan.versions):
            assert worker.plans.get(model) == full_plan(plan)
    if not failed:
        assert worker.versions == {(m, v): "READY" for m, one in final.items() for v in one.versions}


def settle(plans: dict[str, TrafficPlan], fetched: set[VersionKey], worker: Puppet) -> None:
    for _ in range(100):
        if worker.orders:
            worker.work(fails=False)
        elif not advance(plans, fetched, worker):
            return
    pytest.fail("there is always another step")


def full_plan(desired: TrafficPlan) -> TrafficPlan | None:
    if desired.champion is None:
        return None
    canary = desired.canary if desired.canary != desired.champion else None
    shadow = desired.shadow if desired.shadow != desired.champion else None
    return TrafficPlan(desired.champion, canary, desired.canary_weight if canary else 0.0, shadow)
