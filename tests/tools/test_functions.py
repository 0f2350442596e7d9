import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_tools.functions import cyclical


@given(st.floats(-1e6, 1e6), st.floats(0.1, 1e4), st.integers(-5, 5))
def test_a_cycle_ends_where_it_begins(value, period, times):
    here, there = cyclical([[value], [value + times * period]], period)
    np.testing.assert_allclose(here, there, atol=1e-5)
    assert np.hypot(*here) == pytest.approx(1.0)


def test_each_column_gives_its_sine_and_its_cosine():
    got = cyclical(pd.DataFrame({"hour": [0, 6], "day": [7, np.nan]}), [24, 28])
    np.testing.assert_allclose(got, [[0, 1, 1, 0], [1, 0, np.nan, np.nan]], atol=1e-12)


@pytest.mark.parametrize(
    ("values", "period", "message"),
    [
        ([1.0], 2, r"the shape \[1\]"),
        ([[1.0, 2.0]], [1, 2, 3], r"the period \[3\]"),
        ([[1.0]], 0, "the period is 0"),
        ([[1.0]], np.nan, "the period is nan"),
    ],
)
def test_what_is_no_cycle_is_refused(values, period, message):
    with pytest.raises(ValueError, match=message):
        cyclical(values, period)
