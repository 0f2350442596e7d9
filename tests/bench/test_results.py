import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.plan import LoadResult
from bench.results import Measurement, measurement, percentile, summarise


def measured(server: str, number: int, rate: float, *, cpu_us: float | None = 10.0, failures=None) -> Measurement:
    return Measurement("s", server, number, rate, cpu_us, 1.0, 2.0, 100, failures or {})


def test_a_load_result_becomes_rates_and_percentiles() -> None:
    result = LoadResult(12, 10, {"late": 2}, 2.0, np.arange(1, 11) / 1000, probed=0.5)
    found = measurement("s", "a", 3, result)
    assert (found.requests_per_s, found.cpu_us, found.failed, found.round) == (5.0, pytest.approx(50_000), 2, 3)
    assert (found.p50_ms, found.p99_ms) == (pytest.approx(5.0), pytest.approx(10.0))


def test_goodput_counts_answers_within_the_deadline_against_capacity() -> None:
    result = LoadResult(12, 10, {"late": 2}, 2.0, np.arange(1, 11) / 1000)
    found = measurement("s", "a", 0, result, capacity_per_s=4.0, deadline_s=0.004)
    assert (found.goodput_per_s, found.goodput_share) == (2.0, 0.5)
    assert summarise([found], baseline="b")[0].goodput_share == 0.5
    assert measurement("s", "a", 0, result).goodput_share is None


def test_without_successes_values_are_absent_and_not_zero() -> None:
    found = measurement("s", "a", 0, LoadResult(1, 0, {"x": 1}, 1.0, np.array([]), probed=0.5))
    assert (found.cpu_us, found.p50_ms, found.p99_ms) == (None, None, None)


def test_ratios_are_medians_of_the_rounds_own_ratios() -> None:
    """The machine slows down tenfold after the first round: the ratio does not notice."""
    rounds = [
        *(measured("base", 0, 1000, cpu_us=100), measured("fast", 0, 4000, cpu_us=20)),
        *(measured("base", 1, 100, cpu_us=100), measured("fast", 1, 400, cpu_us=20)),
        *(measured("base", 2, 100, cpu_us=100), measured("fast", 2, 450, cpu_us=20, failures={"x": 3})),
    ]
    base, fast = summarise(rounds, baseline="base")
    assert (base.server, base.throughput_ratio, base.requests_per_s) == ("base", None, 100)
    assert (fast.throughput_ratio, fast.cpu_ratio, fast.p99_ratio) == (4.0, 5.0, 1.0)
    assert (fast.failed, fast.attempted) == (3, 300)


def test_rounds_without_a_pair_or_a_value_say_nothing() -> None:
    rounds = [measured("base", 0, 100, cpu_us=None), measured("fast", 0, 300), measured("fast", 1, 9)]
    fast = summarise(rounds, baseline="base")[1]
    assert (fast.throughput_ratio, fast.cpu_ratio) == (3.0, None)
    alone = summarise([measured("fast", 0, 300)], baseline="base")[0]
    assert alone.throughput_ratio is None


def test_a_baseline_that_answered_nothing_gives_no_ratio() -> None:
    assert summarise([measured("base", 0, 0), measured("fast", 0, 300)], baseline="base")[1].throughput_ratio is None


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([3.0], 50, 3.0), ([1.0, 2.0], 50, 1.0), ([1.0, 2.0], 51, 2.0), ([4.0, 1.0, 3.0, 2.0], 100, 4.0)],
)
def test_percentiles_are_nearest_ranks(values, percent, expected) -> None:
    assert percentile(np.array(values), percent) == expected


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200), st.integers(1, 100))
def test_a_percentile_is_the_smallest_that_enough_values_do_not_exceed(values, percent) -> None:
    rank = math.ceil(percent * len(values) / 100)
    assert percentile(np.array(values), percent) == sorted(values)[rank - 1]


def test_without_values_there_is_no_percentile() -> None:
    assert percentile(np.array([]), 99) is None


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentile_out_of_range_is_refused(percent) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 100"):
        percentile(np.array([1.0]), percent)
