from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError, NotReadyError
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan, key_place, weight_from_percent, weight_in_percent
from tests.examples import examples

KEYS = [f"customer-{number}" for number in range(1000)]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (TrafficPlan("1"), ("1", "champion")),
        (TrafficPlan("1", (Arm("2"),)), ("1", "champion")),
        (TrafficPlan("1", (Arm("2", 1.0),)), ("2", "canary")),
        (TrafficPlan("1", (Arm("2", 0.0), Arm("3", 1.0, "canary-b"))), ("3", "canary")),
        (TrafficPlan("1", shadows=(ShadowArm("2"),)), ("1", "champion")),
    ],
)
@pytest.mark.parametrize("key", ["", "customer-7", "\udcff"])
def test_choose(plan: TrafficPlan, expected: tuple[str, str], key: str) -> None:
    assert plan.choose("churn", key) == expected


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_weight_is_a_share(weight: float) -> None:
    with pytest.raises(InvalidInputError, match=r"a canary's weight is .* percent, expected 0 to 100 percent"):
        TrafficPlan("1", (Arm("2", weight),))
    with pytest.raises(InvalidInputError, match="expected 0 to 100 percent"):
        weight_from_percent(100 * weight)


@pytest.mark.parametrize(("percent", "share"), [(0, 0.0), (100, 1.0), (12.5, 0.125)])
def test_people_write_weights_in_percent(percent: float, share: float) -> None:
    assert weight_from_percent(percent) == share
    assert weight_in_percent(share) == percent


@pytest.mark.parametrize(("weights", "fits"), [((0.5, 0.5), True), ((1 / 3,) * 3, True), ((0.5, 0.51), False)])
def test_canaries_share_the_keys(weights: tuple[float, ...], fits: bool) -> None:
    arms = tuple(Arm(str(number), weight, f"canary-{number}") for number, weight in enumerate(weights))
    if fits:
        assert sum(arm.weight for arm in TrafficPlan("9", arms).weighed) == pytest.approx(1)
    else:
        with pytest.raises(InvalidInputError, match="weights add up to 101 percent, expected 100 at most"):
            TrafficPlan("9", arms)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_sample_is_a_share(fraction: float) -> None:
    with pytest.raises(InvalidInputError, match=r"a shadow's sample is .* percent, expected 0 to 100 percent"):
        ShadowArm("2", fraction)


def test_a_plan_knows_who_has_which_role() -> None:
    plan = TrafficPlan(
        "1", (Arm("2", 0.1), Arm("3", 0.2, "canary-b")), (ShadowArm("3", 0.5), ShadowArm("4", 1.0, "shadow-b"))
    )
    assert [plan.named(alias) for alias in ("champion", "canary", "canary-b", "shadow", "shadow-b", "canary-c")] == [
        "1", "2", "3", "3", "4", None,
    ]  # fmt: skip
    assert [plan.roles(version) for version in "12345"] == [
        ("champion",), ("canary",), ("canary", "shadow"), ("shadow",), (),
    ]  # fmt: skip
    assert [plan.weight(version) for version in "1234"] == [None, 0.1, 0.2, None]
    assert [plan.fraction(version) for version in "1234"] == [None, None, 0.5, 1.0]


def test_a_plan_needs_its_versions_once_the_champion_first() -> None:
    assert TrafficPlan().versions == ()
    assert TrafficPlan("2", (Arm("1", 0.1),), (ShadowArm("1"),)).versions == ("2", "1")
    assert TrafficPlan(None, (Arm("1", 0.1),), (ShadowArm("3"),)).versions == ("1", "3")
    assert TrafficPlan("2", (Arm("1", 0.1),), others=("3", "1")).versions == ("2", "1", "3")


def test_without_a_champion_nothing_is_chosen() -> None:
    with pytest.raises(NotReadyError, match="model 'churn' has no champion"):
        TrafficPlan(canaries=(Arm("2", 1.0),)).choose("churn", "customer-7")


def on_canary(model: str, weight: float, keys: list[str]) -> set[str]:
    plan = TrafficPlan("1", (Arm("2", weight),))
    return {key for key in keys if plan.choose(model, key)[1] == "canary"}


@examples(30)
@given(model=st.text(), weight=st.floats(0, 1))
def test_the_share_of_keys_is_the_weight(model: str, weight: float) -> None:
    expected = weight * len(KEYS)
    assert abs(len(on_canary(model, weight, KEYS)) - expected) <= 6 * sqrt(expected * (1 - weight)) + 1


@given(
    model=st.text(),
    weights=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    keys=st.lists(st.text(), max_size=50),
)
def test_raising_the_weight_moves_no_key_off_the_canary(model: str, weights: list[float], keys: list[str]) -> None:
    # A request without a key gets another place each time, so the empty key is no promise.
    keys = [key for key in keys if key]
    assert on_canary(model, weights[0], keys) <= on_canary(model, weights[1], keys)


ALIASES = ("canary", "canary-b", "canary-c", "canary-d")
WEIGHTS = st.lists(st.integers(0, 25), min_size=4, max_size=4)
"""Of the four aliases, in percent."""


def shared(weights: Sequence[float]) -> dict[str, set[str]]:
    """The keys of each version: "0" is the champion, and "1" has the first of the aliases."""
    arms = [Arm(str(at), each / 100, alias) for at, (each, alias) in enumerate(zip(weights, ALIASES, strict=True), 1)]
    plan = TrafficPlan("0", tuple(arms))
    found: dict[str, set[str]] = {str(at): set() for at in range(5)}
    for key in KEYS:
        found[plan.choose("m", key)[0]].add(key)
    return found


@examples(50)
@given(weights=WEIGHTS)
def test_places_are_dealt_without_gaps_and_by_weight(weights: list[int]) -> None:
    arms = tuple(Arm(alias, each / 100, alias) for alias, each in zip(ALIASES, weights, strict=True))
    places = TrafficPlan("0", arms).places
    ends = [0, *(each.end for each in places)]
    assert ends == sorted(set(ends))
    assert ends[-1] == 2**53
    for arm in arms:
        own = sum(
            end - start
            for each, (start, end) in zip(places, pairwise(ends), strict=True)
            if each.version == arm.version
        )
        assert abs(own - arm.weight * 2**53) <= 4


@examples(50)
@given(weights=WEIGHTS, at=st.integers(0, 3), more=st.integers(1, 25))
def test_a_raise_takes_keys_from_others_only_where_they_meet(weights: list[int], at: int, more: int) -> None:
    before, raised = shared(weights), list(weights)
    raised[at] = min(raised[at] + more, 100 - sum(weights) + weights[at])
    after = shared(raised)
    own = str(at + 1)
    assert before[own] <= after[own]
    gained = after[own] - before[own]
    for other in {"1", "2", "3", "4"} - {own}:
        lost = before[other] - after[other]
        assert lost <= gained or at > 0  # where three meet, one makes way for the next
        if at == 0:
            assert not lost  # the ramp takes from the champion alone


def test_a_canary_begins_where_its_alias_does_whoever_else_is_there() -> None:
    alone, beside = shared([0, 0, 5, 0]), shared([5, 5, 5, 5])
    assert alone["3"] == beside["3"]
    assert alone["3"] != shared([0, 5, 0, 0])["2"]


def test_two_plans_are_equal_after_one_was_used() -> None:
    used, other = (TrafficPlan("1", (Arm("2", 0.5),)) for _ in range(2))
    used.choose("m", "key")
    assert used == other
    assert msgspec.json.encode(used) == msgspec.json.encode(other)


@examples(30)
@given(models=st.lists(st.text(), min_size=2, max_size=2, unique=True), weight=st.floats(0.2, 0.8))
def test_models_choose_independently(models: list[str], weight: float) -> None:
    both = on_canary(models[0], weight, KEYS) & on_canary(models[1], weight, KEYS)
    expected = weight**2 * len(KEYS)
    assert abs(len(both) - expected) <= 6 * sqrt(expected * (1 - weight**2))


@given(model=st.text(), key=st.text())
def test_places_are_between_0_and_1_and_stay(model: str, key: str) -> None:
    place = key_place(model, key)
    assert 0 <= place < 1
    assert key_place(model, key) == place


def test_a_place_is_the_same_in_every_release() -> None:
    # Changing these would move callers between versions in the middle of a rollout.
    assert key_place("churn", "customer-7") == pytest.approx(0.0794979324, abs=1e-9)


def test_the_last_place_is_below_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "penstock_server.rollout.plan.blake2b", lambda *_, **__: SimpleNamespace(digest=lambda: b"\xff" * 8)
    )
    assert key_place("churn", "customer-7") < 1
    assert TrafficPlan("1", (Arm("2", 1.0),)).choose("churn", "customer-7") == ("2", "canary")


def test_requests_without_a_key_are_shared_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.09, 0.1, 0.5])
    monkeypatch.setattr("penstock_server.rollout.plan.getrandbits", lambda bits: int(next(draws) * 2**bits) + 1)
    plan: Any = TrafficPlan("1", (Arm("2", 0.1),))
    assert [plan.choose("churn", "")[1] for _ in range(3)] == ["canary", "champion", "champion"]


@pytest.mark.parametrize(
    ("plan", "shares"),
    [
        (TrafficPlan("1"), {"1": 1.0, "2": 0.0}),
        (TrafficPlan("1", (Arm("2", 0.4),), (ShadowArm("3"),), ("4",)), {"1": 0.6, "2": 0.4, "3": 0.0, "4": 0.0}),
        (TrafficPlan("1", (Arm("2", 0.4), Arm("3", 0.6, "canary-b"))), {"1": 0.0, "2": 0.4, "3": 0.6}),
        (TrafficPlan(None, (Arm("2", 0.0),)), {"1": 0.0, "2": 0.0}),
        (TrafficPlan("1", (Arm("1", 0.25),)), {"1": 1.0}),
    ],
)
def test_a_version_answers_with_its_share(plan: TrafficPlan, shares: dict[str, float]) -> None:
    assert {version: plan.share(version) for version in shares} == shares
