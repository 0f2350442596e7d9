import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock_server.drift.fit import dispersion


@given(arrays(np.int64, st.integers(0, 200), elements=st.integers(0, 5)))
def test_it_is_never_below_one_and_always_finite(cells: np.ndarray) -> None:
    assert 1 <= dispersion(cells) < 1e9


def test_independent_rows_have_one() -> None:
    rng = np.random.default_rng(0)
    found = [dispersion(rng.integers(0, 20, 10_000)) for _ in range(50)]
    assert np.mean(found) == pytest.approx(1.03, abs=0.03)
    assert max(found) < 1.4


@pytest.mark.parametrize("length", [2, 5, 20])
def test_rows_that_come_in_clumps_have_the_clumps_length(length: int) -> None:
    rng = np.random.default_rng(1)
    found = [dispersion(np.repeat(rng.integers(0, 10, 4000), length)) for _ in range(30)]
    assert np.mean(found) == pytest.approx(length, rel=0.1)


def test_a_chain_has_the_ratio_of_its_long_variance() -> None:
    """A state that is kept with probability r: the variance of counts grows by (1 + r) / (1 - r)."""
    rng = np.random.default_rng(2)
    kept = 0.8
    found = []
    for _ in range(20):
        states = rng.integers(0, 5, 20_000)
        begins = rng.random(20_000) >= kept
        begins[0] = True
        chain = states[np.maximum.accumulate(np.where(begins, np.arange(20_000), 0))]
        found.append(dispersion(chain))
    assert np.mean(found) == pytest.approx((1 + kept) / (1 - kept), rel=0.15)


@pytest.mark.parametrize("cells", [[], [1], [1] * 1000, list(range(19))])
def test_where_nothing_can_be_said_it_is_one(cells: list[int]) -> None:
    assert dispersion(np.array(cells, np.int64)) == 1
