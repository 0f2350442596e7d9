from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from penstock.names import VersionKey
from penstock_server.control import residency
from penstock_server.control.residents import LEFT_S, TOO_LARGE_S, Registered, Residents, Use, WorkerState
from penstock_server.control.settings import ResidencySettings
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan, VersionStatus

MIB = 1 << 20
BASE = 50
SETTINGS = ResidencySettings(memory_budget_mib=106, pinned=("pinned-*",), stay_s=10.0)


class World:
    """One worker that does at once what it is told, and takes 50 MiB and 10 for each model."""

    def __init__(self, fake_clock: Any, models: Iterable[str], settings: ResidencySettings = SETTINGS) -> None:
        self.clock = fake_clock()
        self.plans = {model: TrafficPlan("1") for model in models}
        self.sizes: dict[VersionKey, int] = {(model, "1"): 10 * MIB for model in models}
        self.needs: dict[str, frozenset[str]] = {}
        self.refused: set[VersionKey] = set()
        self.fallbacks: dict[str, str] = {}
        self.residents = Residents(settings, self.clock)
        self.versions: dict[VersionKey, VersionStatus] = {}
        self.uses: dict[VersionKey, Use] = {}
        self.more = 0

    def round(self, *asked: str, does: bool = True, listens: bool = True) -> list[str]:
        """A round after these were asked for; what the worker is to have then, by name."""
        for model in asked:
            self.residents.ask(0, model)
        taken = BASE + self.more + sum(self.sizes.get(key, 10 * MIB) for key in self.versions) // MIB
        ready = {model for (model, _), one in self.versions.items() if one.state == "READY"}
        state = WorkerState(self.versions, ready, taken * MIB if listens else 0, self.uses)
        registered = Registered(self.plans, self.sizes.get, self.refused.__contains__, self.needs, self.fallbacks)
        self.residents.decide(0, state, registered)
        models, fitting = self.residents.models(0), self.residents.fitting(0, self.plans)
        if does:
            self.versions = {
                (model, version): VersionStatus("READY")
                for model in models
                for version in Registered(fitting, self.sizes.get, fallbacks=self.fallbacks).versions(model)
            }
        return sorted(models)

    def answer(self, model: str, *, is_busy: bool = False) -> None:
        self.uses[model, "1"] = Use(self.clock(), is_busy)


@pytest.fixture
def world(fake_clock: Any) -> World:
    return World(fake_clock, [*"abcdefg", "pinned-p"])


def test_pinned_models_come_in_at_once_and_others_when_they_are_asked_for(world: World) -> None:
    assert world.round(listens=False) == ["pinned-p"]
    assert world.round("a") == ["a", "pinned-p"]
    assert world.round() == ["a", "pinned-p"]


def test_the_least_recently_used_one_leaves_when_the_process_would_take_too_much(world: World) -> None:
    for model in "abcd":
        world.clock.now += 1
        world.round(model)
    world.clock.now += 60
    world.answer("a")
    # Two, so that there is some room for the next.
    assert world.round("e") == ["a", "d", "e", "pinned-p"]
    assert world.residents.totals.evictions == {"room": 2, "measured": 0}
    assert world.round("f") == ["a", "d", "e", "f", "pinned-p"]
    world.clock.now += 60
    world.answer("d", is_busy=True)
    world.clock.now += 60
    assert world.round("g") == ["d", "f", "g", "pinned-p"]


def test_what_came_just_now_stays_and_others_wait(world: World) -> None:
    for model in "abcd":
        world.round(model)
    world.clock.now += 9
    assert world.round("e", does=False) == [*"abcd", "pinned-p"]
    world.clock.now += 1
    assert world.round("e") == ["c", "d", "e", "pinned-p"]


def test_what_is_loading_counts_before_the_process_shows_it(world: World) -> None:
    assert world.round(*"abcdefg", does=False) == [*"abcd", "pinned-p"]
    assert world.residents.asked == ["e", "f", "g"]


def test_a_process_that_has_grown_gives_up_what_nobody_uses(world: World) -> None:
    for model in "abc":
        world.round(model)
    world.clock.now += 60
    world.answer("a")
    world.answer("b")
    world.more = 15
    assert world.round() == ["a", "b", "pinned-p"]
    assert world.residents.totals.evictions == {"room": 0, "measured": 1}


def test_a_model_that_nobody_waits_for_any_more_holds_up_nobody(world: World) -> None:
    world.sizes["a", "1"] = 40 * MIB
    for model in "bcd":
        world.round(model)
    assert world.round("a", "e", does=False) == ["b", "c", "d", "pinned-p"]
    world.clock.now += LEFT_S + 0.1
    assert world.round("e") == ["b", "c", "d", "e", "pinned-p"]
    assert world.residents.totals.cold_starts == {"loaded": 3, "failed": 1}


def test_what_is_not_proven_waits(world: World) -> None:
    size = world.sizes.pop(("a", "1"))
    assert world.round("a") == ["pinned-p"]
    world.sizes["a", "1"] = size
    assert world.round("a") == ["a", "pinned-p"]


def test_what_answers_and_is_not_proven_any_more_stays_and_counts_as_before(world: World) -> None:
    world.round("a")
    world.clock.now += 60
    world.round()
    size = world.sizes.pop(("a", "1"))  # it was registered anew, and its new files are being tried
    world.sizes["b", "1"] = 40 * MIB
    assert world.round("b") == ["a", "pinned-p"]
    assert world.residents.why_not("b") == ""
    world.sizes["a", "1"] = size
    assert world.round() == ["b", "pinned-p"]


def test_what_answers_and_is_refused_takes_its_room_as_if_it_were_pinned(world: World) -> None:
    world.round("a")
    world.clock.now += 60
    world.round()
    del world.sizes["a", "1"]
    world.refused.add(("a", "1"))
    world.sizes["b", "1"] = 17 * MIB
    world.sizes["b", "2"] = 17 * MIB
    world.plans["b"] = TrafficPlan("1", (Arm("2", 0.1),))
    assert world.round("b") == ["a", "b", "pinned-p"]
    world.round()
    assert ("b", "2") not in world.versions
    world.sizes["a", "1"] = 10 * MIB
    world.refused.clear()
    world.clock.now += 60
    world.answer("b")
    assert world.round() == ["b", "pinned-p"]  # since both of its versions fit without the other model
    assert ("b", "2") in world.versions


def test_a_model_that_cannot_answer_any_more_takes_no_room(world: World) -> None:
    world.plans["a"] = TrafficPlan("1", (Arm("2", 0.1),))
    world.sizes["a", "2"] = 10 * MIB
    assert world.round("a", does=False) == ["a", "pinned-p"]
    world.refused.add(("a", "1"))  # it ended the worker twice, which begins anew
    del world.sizes["a", "1"]
    world.versions = {}
    assert world.round() == ["pinned-p"]
    assert world.round("a") == ["pinned-p"]
    assert world.residents.totals.cold_starts == {"loaded": 0, "failed": 1}
    world.sizes["a", "1"] = 10 * MIB
    world.refused.clear()
    assert world.round("a") == ["a", "pinned-p"]


def test_the_version_that_answered_before_comes_where_the_champion_cannot(world: World) -> None:
    world.plans["a"] = TrafficPlan("2")
    world.fallbacks["a"] = "1"
    assert world.round("a") == ["a", "pinned-p"]
    assert world.versions.keys() == {("a", "1"), ("pinned-p", "1")}
    for model in "bcd":
        world.clock.now += 60
        world.round(model)
    world.clock.now += 60
    assert "a" not in world.round("e")  # it can come back
    world.sizes["a", "2"] = 10 * MIB
    world.clock.now += 60
    assert "a" in world.round("a")
    assert ("a", "2") in world.versions


def test_nothing_is_said_not_to_fit_while_something_is_loaded(world: World) -> None:
    world.round("a")
    world.sizes["b", "1"] = 40 * MIB
    world.versions["a", "1"] = VersionStatus("LOADING")  # the process has it already, and has not said so
    assert world.round("b", does=False) == ["a", "pinned-p"]
    assert world.residents.why_not("b") == ""


def test_a_model_that_never_fits_is_refused_for_a_while(world: World) -> None:
    world.sizes["a", "1"] = 60 * MIB
    assert world.round("a") == ["pinned-p"]
    assert "needs about 60 MiB" in world.residents.why_not("a")
    assert world.residents.asked == []
    world.clock.now += TOO_LARGE_S
    world.round()
    assert world.residents.why_not("a") == ""


def test_a_model_that_one_worker_has_or_may_have_fits(world: World) -> None:
    world.sizes["a", "1"] = 60 * MIB
    world.round("a")
    assert world.residents.why_not("a")
    world.residents.ask(1, "a")
    assert world.residents.why_not("a") == ""


@pytest.mark.parametrize("model", ["a", "pinned-p"])
def test_a_canary_that_does_not_fit_stays_out_and_its_champion_in(world: World, model: str) -> None:
    world.round("a")
    world.sizes[model, "2"] = 45 * MIB
    world.plans[model] = TrafficPlan("1", (Arm("2", 0.1),))
    world.round()
    assert (model, "1") in world.versions
    assert (model, "2") not in world.versions
    assert world.residents.is_left_out(model, "2", world.plans[model])
    assert not world.residents.is_left_out(model, "1", world.plans[model])
    assert world.round("b") == ["a", "b", "pinned-p"]
    world.sizes[model, "2"] = 10 * MIB
    world.round()
    assert (model, "2") in world.versions
    world.more = 200
    world.round()
    assert (model, "2") in world.versions  # what the process takes for a while throws out nothing that is asked


def test_a_model_whose_versions_do_not_fit_comes_in_with_its_champion(world: World) -> None:
    world.sizes["a", "2"] = 45 * MIB
    world.plans["a"] = TrafficPlan("1", shadows=(ShadowArm("2", 1.0),))
    world.round("a")
    world.round()
    assert world.versions.keys() == {("a", "1"), ("pinned-p", "1")}
    assert not world.residents.why_not("a")


def test_cold_starts_are_timed_from_the_first_call_to_the_answer(world: World) -> None:
    world.round("a")
    world.clock.now += 0.3
    world.round("a")
    totals = world.residents.totals
    assert (totals.cold_starts, totals.cold_s) == ({"loaded": 1, "failed": 0}, pytest.approx(0.3))
    assert totals.cold_buckets == [0, 0, 0, 1, *[0] * 7]
    world.round("b", does=False)
    world.versions["b", "1"] = VersionStatus("UNAVAILABLE", "damaged")
    world.round(does=False)
    assert totals.cold_starts == {"loaded": 1, "failed": 1}


def test_those_that_callers_wait_for_are_loaded_first(world: World) -> None:
    for model in "ab":
        world.round(model)
        world.clock.now += 1
    world.round("c", does=False)
    assert world.residents.models(0)[:2] == ["c", "b"]


def test_an_ensemble_comes_with_its_models_and_leaves_with_them(
    fake_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residency, "LOW_SHARE", 1.0)
    world = World(fake_clock, [*"abcde", "chain", "pinned-p"])
    world.needs["chain"] = frozenset("ab")
    assert world.round("chain") == ["a", "b", "chain", "pinned-p"]
    world.round("c")
    world.clock.now += 60
    world.answer("chain")  # and so its models did
    assert world.round("d") == ["a", "b", "chain", "d", "pinned-p"]
    world.clock.now += 60
    world.answer("d")
    assert world.round("e") == ["a", "b", "d", "e", "pinned-p"]
    world.clock.now += 60
    world.answer("d")
    assert world.round("c") == ["b", "c", "d", "e", "pinned-p"]
    world.clock.now += 60
    assert {"a", "b", "chain"} < {*world.round("chain")}


def test_the_models_of_a_pinned_ensemble_are_pinned(fake_clock: Any) -> None:
    world = World(fake_clock, [*"abcde", "pinned-chain"])
    world.needs["pinned-chain"] = frozenset("ab")
    assert world.round() == ["a", "b", "pinned-chain"]
    for model in "cde":
        world.clock.now += 60
        assert {"a", "b", "pinned-chain", model} <= {*world.round(model)}


def test_models_that_are_gone_are_forgotten(world: World) -> None:
    world.round("a", "b")
    del world.plans["a"]
    assert world.round() == ["b", "pinned-p"]
    assert world.residents.in_memory() == {0: (2, 20 * MIB)}


def test_without_a_budget_every_model_is_awaited(fake_clock: Any) -> None:
    plans: Mapping[str, TrafficPlan] = {"a": TrafficPlan("1")}
    assert Residents(ResidencySettings(), fake_clock()).is_awaited("a", plans)
    assert not Residents(SETTINGS, fake_clock()).is_awaited("a", plans)
