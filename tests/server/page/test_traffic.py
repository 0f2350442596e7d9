import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.metrics.counters import LATENCY_EDGES_S, REFUSALS, CountersShape, new_counters
from penstock_server.page.traffic import Traffic, TrafficReading, TrafficTotals, quantile, together, totals, traffic

CELLS = len(LATENCY_EDGES_S) + 1


def latency(**cells: int) -> np.ndarray:
    found = np.zeros(CELLS, np.int64)
    for cell, answers in cells.items():
        found[int(cell[1:])] = answers
    return found


def test_totals_are_those_of_all_workers_with_the_failures_that_are_the_servers_fault() -> None:
    workers = [new_counters(CountersShape()) for _ in range(2)]
    for each in workers:
        each.requests += 5
        each.latency[0, 3] += 5
        each.latency[1, 4] += 5
        each.refusals[:] = 1
    found = totals(workers)
    assert (found.requests, found.failures, found.latency[3], found.latency.sum()) == (10, 2 * 5, 10, 10)
    assert len(REFUSALS) > 5
    assert workers[0].latency[0, 3] == 5


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (
            (10, 0, latency(c0=10)),
            (30, 0, latency(c0=10, c2=20)),
            Traffic(10.0, 0.0, LATENCY_EDGES_S[2], LATENCY_EDGES_S[2]),
        ),
        ((0, 0, latency()), (98, 2, latency(c1=90, c5=8)), Traffic(49.0, 0.02, LATENCY_EDGES_S[1], LATENCY_EDGES_S[5])),
        ((0, 0, latency()), (0, 4, latency()), Traffic(0.0, 1.0, None, None)),
        (
            (0, 0, latency()),
            (4, 0, latency(**{f"c{CELLS - 1}": 4})),
            Traffic(2.0, 0.0, None, None),
        ),  # over the last bound
        ((10, 1, latency(c0=10)), (10, 1, latency(c0=10)), None),  # nobody asked
        ((10, 1, latency(c0=10)), (3, 0, latency(c0=3)), None),  # loaded anew
    ],
)
def test_what_is_between_two_readings(
    first: tuple[int, int, np.ndarray], last: tuple[int, int, np.ndarray], found: Traffic | None
) -> None:
    before = TrafficReading(5.0, {("m", "1"): TrafficTotals(*first)})
    after = TrafficReading(7.0, {("m", "1"): TrafficTotals(*last), ("m", "2"): TrafficTotals(*last)})
    assert traffic(before, after).get(("m", "1")) == found
    assert ("m", "2") not in traffic(before, after)
    if found is not None:
        assert together(before, after, [("m", "1")]) == found
    assert together(before, after, []) == Traffic(0.0, None, None, None)


@given(st.lists(st.integers(0, 50), min_size=CELLS, max_size=CELLS), st.floats(0.01, 1))
def test_a_quantile_is_the_first_bound_that_enough_answers_are_within(answers: list[int], q: float) -> None:
    found, total = quantile(q, np.array(answers)), sum(answers)
    within = [sum(answers[: cell + 1]) for cell in range(CELLS - 1)]
    expected = next((edge for edge, count in zip(LATENCY_EDGES_S, within, strict=True) if count >= q * total), None)
    assert found == (expected if total else None)
