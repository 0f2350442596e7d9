from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.names import VersionKey
from penstock_server.control.reconcile import (
    Load,
    LoadState,
    Serve,
    Step,
    Unload,
    WorkerSnapshot,
    effective_plan,
    next_steps,
)
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.source import WantedModel

MODELS, VERSIONS = ("a", "b"), ("1", "2", "3")
KEYS = [(model, version) for model in MODELS for version in VERSIONS]


def wish(champion: str | None = None, **others: Any) -> dict[str, WantedModel]:
    return {"a": WantedModel(champion=champion, **others)}


def held(plan: TrafficPlan | None = None, **versions: LoadState) -> WorkerSnapshot:
    return WorkerSnapshot(
        {("a", name.removeprefix("v")): state for name, state in versions.items()}, {"a": plan} if plan else {}
    )


def load(version: str) -> Load:
    return Load(("a", version))


def unload(version: str) -> Unload:
    return Unload(("a", version))


CASES: dict[str, tuple[dict[str, WantedModel], Iterable[str], WorkerSnapshot, list[Step]]] = {
    "nothing wanted, nothing held": ({}, "", held(), []),
    "what is fetched is loaded, the champion first": (
        wish("2", canary="1", shadow="3"), "123", held(), [load("2"), load("1"), load("3")],
    ),
    "what is not fetched waits": (wish("2", canary="1"), "1", held(), [load("1")]),
    "a version of two roles is loaded once": (wish("1", canary="2", shadow="2"), "12", held(), [load("1"), load("2")]),
    "what loads is left alone": (wish("1"), "1", held(v1="loading"), []),
    "a ready champion serves": (wish("1"), "1", held(v1="ready"), [Serve({"a": TrafficPlan("1")})]),
    "a canary alone serves nothing": (wish("1", canary="2"), "12", held(v1="loading", v2="ready"), []),
    "the champion serves before its canary is ready": (
        wish("1", canary="2", canary_weight=0.1), "12", held(v1="ready", v2="loading"), [Serve({"a": TrafficPlan("1")})],
    ),
    "a ready canary takes its share": (
        wish("1", canary="2", canary_weight=0.1), "12", held(TrafficPlan("1"), v1="ready", v2="ready"),
        [Serve({"a": TrafficPlan("1", "2", 0.1)})],
    ),
    "the old champion serves while the new one loads": (
        wish("2"), "12", held(TrafficPlan("1"), v1="ready", v2="loading"), [],
    ),
    "the old champion serves on when the new one failed": (
        wish("2"), "12", held(TrafficPlan("1"), v1="ready", v2="failed"), [],
    ),
    "the plan changes before the old champion goes": (
        wish("2"), "12", held(TrafficPlan("1"), v1="ready", v2="ready"), [Serve({"a": TrafficPlan("2")})],
    ),
    "the old champion goes": (wish("2"), "2", held(TrafficPlan("2"), v1="ready", v2="ready"), [unload("1")]),
    "a promoted canary is no longer one": (
        wish("2", canary="2", canary_weight=0.5), "2", held(TrafficPlan("1", "2", 0.5), v1="ready", v2="ready"),
        [Serve({"a": TrafficPlan("2")})],
    ),
    "a failed version that nobody wants is forgotten": (
        wish("1"), "1", held(TrafficPlan("1"), v1="ready", v2="failed"), [unload("2")],
    ),
    "a failed version that is wanted is not tried again": (
        wish("1", canary="2"), "12", held(TrafficPlan("1"), v1="ready", v2="failed"), [],
    ),
    "what is ready stays while no champion is": (wish("2"), "2", held(v1="ready", v2="loading"), []),
    "a model that is no longer wanted stops first": ({}, "", held(TrafficPlan("1"), v1="ready"), [Serve({})]),
    "and goes then": ({}, "", held(v1="ready"), [unload("1")]),
    "without a champion nothing serves": (
        wish(None, shadow="1"), "1", held(TrafficPlan("1"), v1="ready"), [Serve({})],
    ),
    "what unloads is left alone": (wish("1"), "1", held(v1="unloading"), []),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_next_steps(case: str) -> None:
    wanted, fetched, worker, expected = CASES[case]
    assert next_steps(wanted, {("a", version) for version in fetched}, worker) == expected


@pytest.mark.parametrize(
    ("wished", "ready", "present", "expected"),
    [
        (WantedModel("1"), "", None, None),
        (WantedModel("1", "2", 0.2, "3"), "123", None, TrafficPlan("1", "2", 0.2, "3")),
        (WantedModel("1", "2", 0.2, "3"), "1", None, TrafficPlan("1")),
        (WantedModel("1", "2", 0.2, "3"), "13", None, TrafficPlan("1", shadow="3")),
        (WantedModel("1", "2", 0.2), "23", TrafficPlan("3"), TrafficPlan("3", "2", 0.2)),
        (WantedModel("1", "2", 0.2), "2", TrafficPlan("2"), TrafficPlan("2")),
        (WantedModel("1"), "2", TrafficPlan("3"), None),
        (WantedModel(None, "2", 0.2), "123", TrafficPlan("1"), None),
    ],
)
def test_effective_plan(
    wished: WantedModel, ready: str, present: TrafficPlan | None, expected: TrafficPlan | None
) -> None:
    assert effective_plan(wished, set(ready), present) == expected


class Puppet:
    """A worker that does what it is told, one thing at a time and no sooner than the test says."""

    def __init__(self) -> None:
        self.versions: dict[VersionKey, LoadState] = {}
        self.plans: dict[str, TrafficPlan] = {}
        self.orders: list[Step] = []

    @property
    def snapshot(self) -> WorkerSnapshot:
        return WorkerSnapshot(dict(self.versions), dict(self.plans))

    @property
    def awaits_plan(self) -> bool:
        return any(isinstance(order, Serve) for order in self.orders)

    def tell(self, step: Step) -> None:
        match step:
            case Load(key):
                assert key not in self.versions
                self.versions[key] = "loading"
            case Unload(key):
                assert self.versions[key] in {"ready", "failed"}
                self.versions[key] = "unloading"
        self.orders.append(step)

    def work(self, fails: bool) -> None:
        match self.orders.pop(0):
            case Load(key):
                self.versions[key] = "failed" if fails else "ready"
            case Unload(key):
                del self.versions[key]
            case Serve(plans):
                self.plans = dict(plans)


def advance(wanted: dict[str, WantedModel], fetched: set[VersionKey], worker: Puppet) -> bool:
    """One step of the supervisor; whether there was anything to do."""
    if worker.awaits_plan:
        return False
    steps = next_steps(wanted, fetched, worker.snapshot)
    for step in steps:
        check(wanted, worker, step)
        worker.tell(step)
    return bool(steps)


def check(wanted: dict[str, WantedModel], worker: Puppet, step: Step) -> None:
    match step:
        case Serve(plans):
            for model, served in plans.items():
                used = {served.champion, served.canary, served.shadow} - {None}
                assert all(worker.versions[model, str(version)] == "ready" for version in used)
            for model in worker.plans.keys() & wanted.keys():
                assert wanted[model].champion is None or model in plans  # what answers goes on answering
        case Unload((model, version)):
            plan = worker.plans.get(model)
            assert plan is None or version not in {plan.champion, plan.canary, plan.shadow}
            if worker.versions[model, version] == "ready" and model in wanted and wanted[model].champion is not None:
                # The last that is ready stays until a wanted one is, or until one that answers is.
                others = worker.snapshot.ready(model) - {version}
                assert others & wanted[model].versions or (plan is not None and plan.champion in others)


ROLES = st.none() | st.sampled_from(VERSIONS)
WISHES = st.dictionaries(
    st.sampled_from(MODELS),
    st.builds(WantedModel, champion=ROLES, canary=ROLES, shadow=ROLES, canary_weight=st.sampled_from([0.0, 0.5, 1.0])),
)
EVENTS = st.one_of(
    st.tuples(st.just("wish"), WISHES),
    st.tuples(st.just("fetch"), st.sampled_from(KEYS)),
    st.tuples(st.just("work"), st.booleans()),
    st.tuples(st.just("restart"), st.none()),
    *[st.tuples(st.just("step"), st.none())] * 3,
)


@given(events=st.lists(EVENTS, max_size=60), final=WISHES)
def test_random_walks_keep_answering_and_end_at_the_wish(
    events: list[tuple[str, Any]], final: dict[str, WantedModel]
) -> None:
    wanted: dict[str, WantedModel] = {}
    fetched: set[VersionKey] = set()
    worker = Puppet()
    for kind, value in events:
        match kind:
            case "wish":
                wanted = value
            case "fetch":
                fetched.add(value)
            case "work" if worker.orders:
                worker.work(fails=value)
            case "restart":
                worker = Puppet()
            case "step":
                advance(wanted, fetched, worker)
    settle(final, set(KEYS), worker)
    failed = {key for key, state in worker.versions.items() if state == "failed"}
    assert worker.plans.keys() <= final.keys()
    for model, wanted_model in final.items():
        if not any((model, version) in failed for version in wanted_model.versions):
            assert worker.plans.get(model) == full_plan(wanted_model)
    if not failed:
        assert worker.versions == {(m, v): "ready" for m, one in final.items() for v in one.versions}


def settle(wanted: dict[str, WantedModel], fetched: set[VersionKey], worker: Puppet) -> None:
    for _ in range(100):
        if worker.orders:
            worker.work(fails=False)
        elif not advance(wanted, fetched, worker):
            return
    pytest.fail("there is always another step")


def full_plan(wanted: WantedModel) -> TrafficPlan | None:
    if wanted.champion is None:
        return None
    canary = wanted.canary if wanted.canary != wanted.champion else None
    shadow = wanted.shadow if wanted.shadow != wanted.champion else None
    return TrafficPlan(wanted.champion, canary, wanted.canary_weight if canary else 0.0, shadow)
