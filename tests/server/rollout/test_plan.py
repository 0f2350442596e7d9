from math import sqrt
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError, NotReadyError
from penstock_server.rollout.plan import TrafficPlan, key_place, weight_from_percent, weight_in_percent
from tests.examples import examples

KEYS = [f"customer-{number}" for number in range(1000)]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (TrafficPlan("1"), ("1", "champion")),
        (TrafficPlan("1", canary="2"), ("1", "champion")),
        (TrafficPlan("1", canary="2", canary_weight=1.0), ("2", "canary")),
        (TrafficPlan("1", canary_weight=1.0), ("1", "champion")),
        (TrafficPlan("1", shadow="2"), ("1", "champion")),
    ],
)
@pytest.mark.parametrize("key", ["", "customer-7", "\udcff"])
def test_choose(plan: TrafficPlan, expected: tuple[str, str], key: str) -> None:
    assert plan.choose("churn", key) == expected


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_weight_is_a_share(weight: float) -> None:
    with pytest.raises(InvalidInputError, match=r"a canary's weight is .* percent, expected 0 to 100 percent"):
        TrafficPlan("1", canary="2", canary_weight=weight)
    with pytest.raises(InvalidInputError, match="expected 0 to 100 percent"):
        weight_from_percent(100 * weight)


@pytest.mark.parametrize(("percent", "share"), [(0, 0.0), (100, 1.0), (12.5, 0.125)])
def test_people_write_weights_in_percent(percent: float, share: float) -> None:
    assert weight_from_percent(percent) == share
    assert weight_in_percent(share) == percent


def test_a_plan_needs_its_versions_once_the_champion_first() -> None:
    assert TrafficPlan().versions == ()
    assert TrafficPlan("2", "1", 0.1, "1").versions == ("2", "1")
    assert TrafficPlan(None, "1", 0.1, "3").versions == ("1", "3")
    assert TrafficPlan("2", "1", 0.1, others=("3", "1")).versions == ("2", "1", "3")


def test_without_a_champion_nothing_is_chosen() -> None:
    with pytest.raises(NotReadyError, match="model 'churn' has no champion"):
        TrafficPlan(canary="2", canary_weight=1.0).choose("churn", "customer-7")


def on_canary(model: str, weight: float, keys: list[str]) -> set[str]:
    plan = TrafficPlan("1", canary="2", canary_weight=weight)
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
    assert TrafficPlan("1", canary="2", canary_weight=1.0).choose("churn", "customer-7") == ("2", "canary")


def test_requests_without_a_key_are_shared_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.09, 0.1, 0.5])
    monkeypatch.setattr("penstock_server.rollout.plan.random", lambda: next(draws))
    plan: Any = TrafficPlan("1", canary="2", canary_weight=0.1)
    assert [plan.choose("churn", "")[1] for _ in range(3)] == ["canary", "champion", "champion"]
