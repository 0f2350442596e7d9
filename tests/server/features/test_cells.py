from math import inf, isfinite, nan
from sys import float_info

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.features.cells import NumberCells, storable

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE, FINITE)
def test_a_training_value_is_in_range_as_fp32_too(first: float, second: float) -> None:
    low, high = NumberCells((), min(first, second), max(first, second)).range
    assert isfinite(low)
    assert isfinite(high)
    assert low <= first <= high
    # Beyond float32's range a value becomes infinite, and below it one loses its digits.
    if all(value == 0 or 1e-30 < abs(value) < 1e38 for value in (first, second)):
        assert low <= float(np.float32(first)) <= high


def test_without_training_values_every_finite_number_is_in_range() -> None:
    assert NumberCells(()).range == (-float_info.max, float_info.max)


@pytest.mark.parametrize(("value", "expected"), [(1.5, 1.5), (inf, 1), (-inf, -1), (nan, 1)])
def test_what_overflowed_is_the_largest_float(value: float, expected: float) -> None:
    assert storable(value) == (expected if isfinite(value) else expected * float_info.max)
