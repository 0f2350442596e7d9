import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.capacity.cost_fit import CostFit

GUESS = (20e-6, 10e-6, 4e-6)
COSTS = st.tuples(*(st.floats(each / 3, each * 3) for each in GUESS))


def seconds(costs: tuple[float, ...], turns: float, connections: float, requests: float) -> float:
    return sum(cost * count for cost, count in zip(costs, (turns, connections, requests), strict=True))


def test_the_guess_stands_until_something_is_seen() -> None:
    assert CostFit(GUESS).costs == pytest.approx(GUESS)


@given(COSTS)
def test_loads_that_differ_tell_each_cost(costs: tuple[float, float, float]) -> None:
    fit = CostFit(GUESS)
    for _ in range(60):
        for counts in ((3000, 3000, 3000), (900, 7000, 40_000), (4000, 9000, 12_000)):
            fit.add(seconds(costs, *counts), counts)
    assert fit.costs == pytest.approx(costs, rel=0.5)


@given(COSTS, st.floats(1, 200))
def test_one_load_tells_what_it_costs(costs: tuple[float, float, float], per_turn: float) -> None:
    fit, counts = CostFit(GUESS), (2000.0, 2000 * min(8.0, per_turn), 2000 * per_turn)
    for _ in range(60):
        fit.add(seconds(costs, *counts), counts)
    assert seconds(fit.costs, *counts) == pytest.approx(seconds(costs, *counts), rel=0.05)


def test_a_light_load_does_not_change_what_a_heavy_one_has_told() -> None:
    fit = CostFit(GUESS)
    for _ in range(60):
        fit.add(0.9, (2000, 16_000, 150_000))
    before = seconds(fit.costs, 10, 80, 1000)
    for _ in range(60):  # each request finds a processor that sleeps
        fit.add(0.01, (100, 100, 100))
    assert seconds(fit.costs, 10, 80, 1000) == pytest.approx(before, rel=0.15)


def test_a_change_is_learned_within_a_minute() -> None:
    fit, counts = CostFit(GUESS), (2000.0, 16_000.0, 60_000.0)
    for factor in (1, 3):
        for _ in range(60):
            fit.add(factor * 0.3, counts)
    assert seconds(fit.costs, *counts) == pytest.approx(0.9, rel=0.1)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1e4), st.floats(0, 1e5), st.floats(0, 1e6)), max_size=30))
def test_whatever_is_seen_no_cost_is_lost(seen: list[tuple[float, float, float, float]]) -> None:
    fit = CostFit(GUESS)
    for busy_s, *counts in seen:
        fit.add(busy_s, counts)
    assert all(cost >= 0.2 * guess * (1 - 1e-9) for cost, guess in zip(fit.costs, GUESS, strict=True))
