from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.names import VersionKey, VersionState
from penstock_server.control.reconcile import (
    NextSteps,
    Versions,
    WorkerSnapshot,
    effective_plan,
    load_order,
    next_steps,
    one_first,
)
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan

MODELS, VERSIONS = ("a", "b"), ("1", "2", "3")
KEYS = [(model, version) for model in MODELS for version in VERSIONS]
LETTERS: dict[str, VersionState] = {"r": "READY", "l": "LOADING", "f": "UNAVAILABLE", "u": "UNLOADING", "s": "READY"}


def desired(
    champion: str | None = None,
    *,
    canary: str = "",
    canary_weight: float = 0.0,
    shadow: str = "",
    others: tuple[str, ...] = (),
) -> dict[str, TrafficPlan]:
    """A plan for model a with a canary for each letter of `canary`, and a shadow for each of `shadow`."""
    arms = tuple(Arm(version, canary_weight) for version in canary)
    return {"a": TrafficPlan(champion, arms, tuple(map(ShadowArm, shadow)), others)}


def held(versions: str = "", plan: TrafficPlan | None = None) -> WorkerSnapshot:
    """A worker with versions of model a, as in "1r 2l": 1 is ready and 2 loads (f failed, u unloads, s is replaced)."""
    states = {("a", one[0]): LETTERS[one[1]] for one in versions.split()}
    loading = next((("a", one[0]) for one in versions.split() if one[1] in "ls"), None)
    return WorkerSnapshot(states, {"a": plan} if plan else {}, dict.fromkeys(states, ""), loading)


def load(version: str) -> NextSteps:
    return NextSteps(load=("a", version))


def serve(plan: TrafficPlan | None = None, *, loading: str = "") -> NextSteps:
    return NextSteps(("a", loading) if loading else None, {} if plan is None else {"a": plan})


def unload(*versions: str) -> NextSteps:
    return NextSteps(unload=tuple(("a", version) for version in versions))


NOTHING = NextSteps()
CASES: dict[str, tuple[dict[str, TrafficPlan], Iterable[str], WorkerSnapshot, NextSteps]] = {
    "nothing desired, nothing held": ({}, "", held(), NOTHING),
    "what is fetched is loaded, the champion first": (
        desired("2", canary="1", shadow="3"), "123", held(), load("2"),
    ),
    "what is not fetched waits": (desired("2", canary="1"), "1", held(), load("1")),
    "a version of two roles is loaded once": (
        desired("1", canary="2", shadow="2"), "12", held("1r", TrafficPlan("1")), load("2"),
    ),
    "one at a time": (desired("1", canary="2"), "12", held("1l"), NOTHING),
    "nothing else while files are replaced": (desired("1", canary="2"), "12", held("1s", TrafficPlan("1")), NOTHING),
    "what is replaced stays": (desired("2"), "12", held("1s 2r", TrafficPlan("2")), NOTHING),
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
        serve(TrafficPlan("1", (Arm("2", 0.1),))),
    ),
    "a new weight is put in force": (
        desired("1", canary="2", canary_weight=0.2), "12", held("1r 2r", TrafficPlan("1", (Arm("2", 0.1),))),
        serve(TrafficPlan("1", (Arm("2", 0.2),))),
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
        desired("2", canary="2", canary_weight=0.5), "2", held("1r 2r", TrafficPlan("1", (Arm("2", 0.5),))),
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
    known = Versions({("a", version): "" for version in fetched})
    assert next_steps(plans, known, worker) == expected


def test_champions_of_all_models_are_loaded_first_and_what_ended_a_worker_last() -> None:
    plans = {
        "a": TrafficPlan("1", (Arm("2", 0.1),)),
        "b": TrafficPlan("1", shadows=(ShadowArm("3"),)),
        "c": TrafficPlan("1"),
    }
    known = Versions(doubtful={("a", "2"), ("c", "1")})
    assert load_order(plans, known, {}) == [("a", "1"), ("b", "1"), ("b", "3"), ("c", "1"), ("a", "2")]


@pytest.mark.parametrize(
    ("known", "plans", "expected"),
    [
        (Versions({("a", "2"): ""}, fallbacks={"a": "1"}), {}, ["2"]),
        (Versions(fallbacks={"a": "1"}), {}, ["2", "1"]),
        (Versions({("a", "2"): ""}, doubtful={("a", "2")}, fallbacks={"a": "1"}), {}, ["1", "2"]),
        (Versions({("a", "2"): ""}, barred={("a", "2")}, fallbacks={"a": "1"}), {}, ["2", "1"]),
        (Versions(fallbacks={"a": "1"}), {"a": TrafficPlan("3")}, ["2"]),
        (Versions(fallbacks={"a": "2"}), {}, ["2"]),
    ],
)
def test_what_answered_before_is_loaded_where_nothing_answers_and_the_champion_cannot(
    known: Versions, plans: dict[str, TrafficPlan], expected: list[str]
) -> None:
    assert load_order(desired("2"), known, plans) == [("a", version) for version in expected]


def test_a_fallback_that_could_not_be_loaded_is_not_loaded_again_and_again() -> None:
    known = Versions({("a", "1"): "x"}, fallbacks={"a": "1"})
    worker = WorkerSnapshot({("a", "1"): "UNAVAILABLE"}, tried={("a", "1"): "x"})
    assert next_steps({"a": TrafficPlan("2")}, known, worker) == NextSteps()
    other = Versions({("a", "1"): "y"}, fallbacks={"a": "1"})
    assert next_steps({"a": TrafficPlan("2")}, other, worker).load == ("a", "1")
    assert next_steps({"a": TrafficPlan("2")}, Versions(), worker).unload == (("a", "1"),)


def test_the_fallback_answers_until_the_champion_does_and_goes_then() -> None:
    known = Versions({("a", "1"): ""}, fallbacks={"a": "1"})
    assert next_steps(desired("2"), known, held()) == load("1")
    assert next_steps(desired("2"), known, held("1r")) == serve(TrafficPlan("1"))
    known = Versions({("a", "1"): "", ("a", "2"): ""}, fallbacks={"a": "1"})
    assert next_steps(desired("2"), known, held("1r", TrafficPlan("1"))) == load("2")
    assert next_steps(desired("2"), known, held("1r 2r", TrafficPlan("1"))) == serve(TrafficPlan("2"))
    assert next_steps(desired("2"), known, held("1r 2r", TrafficPlan("2"))) == unload("1")


def test_what_is_barred_answers_no_more_and_goes() -> None:
    known = Versions({("a", "1"): ""}, barred={("a", "2")})
    plans = desired("1", canary="2", canary_weight=0.5)
    assert next_steps(plans, known, held("1r 2r", TrafficPlan("1", (Arm("2", 0.5),)))) == serve(TrafficPlan("1"))
    assert next_steps(plans, known, held("1r 2r", TrafficPlan("1"))) == unload("2")
    assert next_steps(plans, known, held("1r", TrafficPlan("1"))) == NOTHING
    alone = Versions(barred={("a", "1")})
    assert next_steps(desired("1"), alone, held("1r", TrafficPlan("1"))) == serve()
    assert next_steps(desired("1"), alone, held("1r")) == unload("1")


@pytest.mark.parametrize("state", "rf")
def test_other_files_are_loaded_once(state: str) -> None:
    plan = TrafficPlan("1") if state == "r" else None
    known = Versions({("a", "1"): "new"})
    worker = held(f"1{state}", plan)
    assert next_steps(desired("1"), known, worker) == load("1")
    tried = WorkerSnapshot(worker.versions, worker.plans, {("a", "1"): "new"})
    assert next_steps(desired("1"), known, tried) == NOTHING


def test_other_files_wait_until_the_former_ones_are_unloaded() -> None:
    assert next_steps(desired("1"), Versions({("a", "1"): "other files"}), held("1u")) == NOTHING


def test_what_is_barred_is_not_loaded() -> None:
    known = Versions({("a", "1"): "", ("a", "2"): ""}, barred={("a", "1")})
    assert next_steps(desired("1"), known, held()) == NOTHING
    assert next_steps(desired("1", canary="2"), known, held()) == load("2")


def test_a_version_is_loaded_by_one_worker_first() -> None:
    one, two = ("a", "1"), ("a", "2")
    loadable = {one: "x", two: "x"}
    assert one_first(loadable, set(), set()) == loadable
    assert one_first(loadable, {one}, set()) == {two: "x"}
    assert one_first(loadable, {one}, {(one, "x")}) == loadable
    assert one_first(loadable, {one}, {(one, "y")}) == {two: "x"}


def test_models_do_not_wait_for_each_other() -> None:
    plans = {"a": TrafficPlan("2"), "b": TrafficPlan("1")}
    worker = WorkerSnapshot(
        {("a", "1"): "READY", ("a", "2"): "LOADING", ("b", "1"): "READY", ("b", "2"): "READY"},
        {"a": TrafficPlan("1"), "b": TrafficPlan("1")},
    )
    assert next_steps(plans, Versions(), worker) == NextSteps(unload=(("b", "2"),))


@pytest.mark.parametrize(
    ("wanted", "ready", "present", "expected"),
    [
        (TrafficPlan("1"), "", None, None),
        (
            TrafficPlan("1", (Arm("2", 0.2),), (ShadowArm("3"),)),
            "123",
            None,
            TrafficPlan("1", (Arm("2", 0.2),), (ShadowArm("3"),)),
        ),
        (TrafficPlan("1", (Arm("2", 0.2),), (ShadowArm("3"),)), "1", None, TrafficPlan("1")),
        (
            TrafficPlan("1", (Arm("2", 0.2),), (ShadowArm("3"),)),
            "13",
            None,
            TrafficPlan("1", shadows=(ShadowArm("3"),)),
        ),
        (TrafficPlan("3", others=("2", "1")), "13", None, TrafficPlan("3", others=("1",))),
        (TrafficPlan("1", (Arm("2", 0.2),)), "23", TrafficPlan("3"), TrafficPlan("3", (Arm("2", 0.2),))),
        (TrafficPlan("1", (Arm("2", 0.2),)), "2", TrafficPlan("2"), TrafficPlan("2")),
        (TrafficPlan("1"), "2", TrafficPlan("3"), None),
        (TrafficPlan(None, (Arm("2", 0.2),)), "123", TrafficPlan("1"), None),
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
        self.tried: dict[VersionKey, str] = {}
        self.held: dict[VersionKey, str] = {}
        self.plans: dict[str, TrafficPlan] = {}
        self.orders: list[tuple[str, Any]] = []

    @property
    def loading(self) -> VersionKey | None:
        return next((key for kind, key in self.orders if kind == "load"), None)

    @property
    def snapshot(self) -> WorkerSnapshot:
        return WorkerSnapshot(dict(self.versions), dict(self.plans), dict(self.tried), self.loading)

    @property
    def awaits_plans(self) -> bool:
        return any(kind == "serve" for kind, _ in self.orders)

    def tell(self, steps: NextSteps, identities: dict[VersionKey, str]) -> None:
        if steps.load is not None:
            key = steps.load
            assert self.loading is None
            assert key not in self.versions or self.tried[key] != identities[key]
            self.tried[key] = identities[key]
            if key not in self.held:
                self.versions[key] = "LOADING"
            self.orders.append(("load", key))
        if steps.plans is not None:
            self.orders.append(("serve", dict(steps.plans)))
        for key in steps.unload:
            assert self.versions[key] in {"READY", "UNAVAILABLE"}
            assert key != self.loading
            self.versions[key] = "UNLOADING"
            self.orders.append(("unload", key))

    def work(self, fails: bool) -> None:
        match self.orders.pop(0):
            case "load", key:
                if fails:
                    self.versions[key] = "READY" if key in self.held else "UNAVAILABLE"
                else:
                    self.versions[key] = "READY"
                    self.held[key] = self.tried[key]
            case "unload", key:
                for one in (self.versions, self.tried, self.held):
                    one.pop(key, None)
            case "serve", plans:
                self.plans = plans


class World:
    """What the supervisor knows beside the worker."""

    def __init__(self) -> None:
        self.identities: dict[VersionKey, str] = {}
        self.out: set[tuple[VersionKey, str]] = set()
        self.doubtful: set[VersionKey] = set()
        self.fallbacks: dict[str, str] = {}

    def known(self, worker: Puppet) -> Versions:
        return Versions(
            loadable={key: one for key, one in self.identities.items() if (key, one) not in self.out},
            barred=frozenset(key for key, one in worker.held.items() if (key, one) in self.out),
            doubtful=frozenset(self.doubtful),
            fallbacks=dict(self.fallbacks),
        )


def advance(plans: dict[str, TrafficPlan], world: World, worker: Puppet) -> bool:
    """One round of the supervisor; whether there was anything to do."""
    if worker.awaits_plans:
        return False
    known = world.known(worker)
    steps = next_steps(plans, known, worker.snapshot)
    check(plans, known, worker, steps)
    worker.tell(steps, world.identities)
    world.fallbacks = {model: plan.champion for model, plan in worker.plans.items() if plan.champion} or world.fallbacks
    return steps != NOTHING


def check(plans: dict[str, TrafficPlan], known: Versions, worker: Puppet, steps: NextSteps) -> None:
    assert steps.load not in known.barred
    if steps.plans is not None:
        assert not steps.unload
        for model, served in steps.plans.items():
            assert all(worker.versions[model, version] == "READY" for version in served.versions)
            assert not known.barred & {(model, version) for version in served.versions}
        for model in worker.plans.keys() & plans.keys():
            # What answers goes on answering, unless it must not.
            is_barred = (model, worker.plans[model].champion) in known.barred
            assert plans[model].champion is None or model in steps.plans or is_barred
    for model, version in steps.unload:
        plan = worker.plans.get(model)
        assert plan is None or version not in plan.versions
        is_missed = model in plans and plans[model].champion is not None and (model, version) not in known.barred
        if worker.versions[model, version] == "READY" and is_missed:
            # The last that is ready stays until a desired one is, or until one that answers is.
            others = worker.snapshot.ready(model) - {version}
            assert others & {*plans[model].versions} or (plan is not None and plan.champion in others)


ROLES = st.none() | st.sampled_from(VERSIONS)
PLANS = st.dictionaries(
    st.sampled_from(MODELS),
    st.builds(
        TrafficPlan,
        champion=ROLES,
        canaries=st.lists(
            st.builds(Arm, st.sampled_from(VERSIONS), st.sampled_from([0.0, 0.5])),
            max_size=2,
            unique_by=attrgetter("version"),
        ).map(tuple),
        shadows=st.lists(st.builds(ShadowArm, st.sampled_from(VERSIONS)), max_size=2, unique=True).map(tuple),
        others=st.lists(st.sampled_from("123"), max_size=2, unique=True).map(tuple),
    ),
)
EVENTS = st.one_of(
    st.tuples(st.just("desire"), PLANS),
    *[st.tuples(st.just("pass"), st.tuples(st.sampled_from(KEYS), st.sampled_from("xy")))] * 2,
    st.tuples(st.just("work"), st.booleans()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("crash"), st.sampled_from(KEYS)),
    *[st.tuples(st.just("step"), st.none())] * 3,
)


@given(events=st.lists(EVENTS, max_size=60), final=PLANS)
def test_random_walks_keep_answering_and_end_at_the_desired_plans(
    events: list[tuple[str, Any]], final: dict[str, TrafficPlan]
) -> None:
    plans: dict[str, TrafficPlan] = {}
    world, worker = World(), Puppet()
    for kind, value in events:
        match kind:
            case "desire":
                plans = value
            case "pass":  # its files are there and have passed the airlock; other files, if there were some
                key, identity = value
                world.identities[key] = identity
                world.doubtful.discard(key)
            case "work" if worker.orders:
                worker.work(fails=value)
            case "restart":
                worker = Puppet()
            case "crash":  # a version ends the worker, once or for the second time
                if value in world.doubtful and value in worker.held:
                    world.out.add((value, worker.held[value]))
                world.doubtful.add(value)
                worker = Puppet()
            case "step":
                advance(plans, world, worker)
    world.fallbacks = {}
    for key in KEYS:
        world.identities[key] = "final"
    settle(final, world, worker)
    failed = {key for key, state in worker.versions.items() if state == "UNAVAILABLE"}
    assert not failed  # other files are tried again
    assert worker.plans == {model: full for model, plan in final.items() if (full := full_plan(plan)) is not None}
    assert worker.versions == {(m, v): "READY" for m, one in final.items() for v in one.versions}
    assert all(identity == "final" for identity in worker.held.values())


def settle(plans: dict[str, TrafficPlan], world: World, worker: Puppet) -> None:
    for _ in range(200):
        if worker.orders:
            worker.work(fails=False)
        elif not advance(plans, world, worker):
            return
    pytest.fail("there is always another step")


def full_plan(desired: TrafficPlan) -> TrafficPlan | None:
    if desired.champion is None:
        return None
    return TrafficPlan(
        desired.champion,
        tuple(arm for arm in desired.canaries if arm.version != desired.champion),
        tuple(arm for arm in desired.shadows if arm.version != desired.champion),
        desired.others,
    )


def test_where_nothing_answers_and_the_champion_failed_the_fallback_is_loaded() -> None:
    known = Versions(loadable={("m", "1"): "one", ("m", "2"): "two"}, fallbacks={"m": "1"})
    worker = WorkerSnapshot({("m", "2"): "UNAVAILABLE"}, tried={("m", "2"): "two"})
    assert next_steps({"m": TrafficPlan("2")}, known, worker).load == ("m", "1")
