import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.latency import percentile


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
