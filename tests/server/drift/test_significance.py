"""Tests with error control, against scipy's distributions and by simulation."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, ncx2

from penstock_server.drift import significance


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 22, 52])
@pytest.mark.parametrize("noncentrality", [0.0, 0.3, 9.0, 500.0, 2e5])
def test_noncentral_tail_is_scipys(freedom: int, noncentrality: float) -> None:
    middle, spread = freedom + noncentrality, np.sqrt(2 * (freedom + 2 * noncentrality))
    # Far below the middle scipy's own sum overflows.
    values = np.array([0.8 * middle, middle, middle + 3 * spread, middle + 6 * spread])
    expected = ncx2.sf(values, freedom, noncentrality)
    found = significance.noncentral_tail(values, freedom, noncentrality)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-15)


@given(st.integers(1, 60), st.floats(0, 3000), st.floats(-8, 20), st.floats(1, 60), st.floats(0, 3000))
def test_columns_of_different_noise_are_each_alone(
    freedom: int, noncentrality: float, deviations: float, other: float, another: float
) -> None:
    value = freedom + noncentrality + deviations * np.sqrt(2 * (freedom + 2 * noncentrality))
    alone = significance.noncentral_tail(value, freedom, noncentrality)
    beside = significance.noncentral_tail([other, value], [3, freedom], [another, noncentrality])
    assert 0 <= alone <= 1
    assert beside[1] == pytest.approx(alone, rel=1e-9, abs=1e-15)
    # scipy's own tail loses its digits among small values.
    if value > 0 and alone > 1e-9:
        assert alone == pytest.approx(ncx2.sf(value, freedom, noncentrality), rel=1e-6)


def test_the_tail_of_nothing_is_certain_and_of_everything_impossible() -> None:
    assert significance.noncentral_tail(0, 5, 1) == 1
    assert significance.noncentral_tail(3, 0, 1) == 1
    assert significance.noncentral_tail(1e9, 5, 1) == 0
    assert significance.noncentral_tail([], [], []).shape == (0,)


@given(st.integers(1, 60), st.floats(0, 1e5), st.floats(0, 60))
def test_tails_end_no_later_than_a_normal_number_s(freedom: int, noncentrality: float, deviations: float) -> None:
    root = np.sqrt(freedom + noncentrality)
    most = np.exp(-(deviations**2) / 2)
    tail = significance.noncentral_tail((root + deviations) ** 2, freedom, noncentrality)
    assert tail <= most * (1 + 1e-7)
    assert tail > 0 or deviations > 30
    # A length is a little shorter on average than the root of its square's mean.
    short = np.exp(-(max(deviations - 1, 0) ** 2) / 2)
    assert significance.noncentral_tail(max(root - deviations, 0) ** 2, freedom, noncentrality) >= 1 - short - 1e-7


def test_rounding_takes_no_tail_above_one() -> None:
    assert significance.noncentral_tail(1e-4, 9, 9.0) == 1


def test_terms_grow_with_the_root_of_what_they_are_around() -> None:
    _, (near, far) = significance._windows(np.array([1e4, 1e6]), np.array([1e4, 1e6]))
    assert far < 11 * near
    assert far < 20_000


def test_many_columns_take_little_memory_at_once() -> None:
    tracemalloc.start()
    significance.noncentral_tail(np.full(2000, 1e5), 9, 1e5)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 << 20


def test_tails_fall_as_the_value_rises() -> None:
    values = np.linspace(0, 6000, 500)
    tails = significance.noncentral_tail(values, 22, 900.0)
    assert (np.diff(tails) <= 1e-12).all()


def test_the_rule_rejects_at_its_level_on_the_boundary_and_not_without_drift() -> None:
    """Table of the noncentral test at B = 10, M = 5000, N = 500: 5.2 % at a true PSI of 0.1, 84 % at 0.2."""
    rng = np.random.default_rng(8)
    p = np.full(10, 0.1)

    def rejections(psi: float) -> float:
        reference, current = rng.multinomial(5000, p, 2000), rng.multinomial(500, tilted(p, psi), 2000)
        return float(np.mean(significance.p_value(reference, current) < 0.05))

    assert rejections(0) == 0
    assert 0.035 <= rejections(0.1) <= 0.065
    assert rejections(0.2) == pytest.approx(0.843, abs=0.03)


def test_a_dispersion_takes_back_what_clumps_pretend() -> None:
    """Rows that come five of a kind at a time are a fifth as many."""
    rng = np.random.default_rng(9)
    p = np.full(10, 0.1)
    reference, current = 5 * rng.multinomial(1000, p, 2000), 5 * rng.multinomial(200, p, 2000)
    pretended = np.mean(significance.p_value(reference, current, 0.0) < 0.05)
    assert pretended > 0.9
    assert np.mean(significance.p_value(reference, current, 0.0, 5.0) < 0.05) == pytest.approx(0.05, abs=0.02)


def tilted(p: np.ndarray, psi: float) -> np.ndarray:
    """Shares at this index from `p`, by bisection of a tilt."""
    low, high = 0.0, 2.0
    for _ in range(60):
        tilt = (low + high) / 2
        q = p * np.exp(tilt * np.linspace(-1, 1, len(p)))
        q /= q.sum()
        low, high = (tilt, high) if np.sum((p - q) * np.log(p / q)) < psi else (low, tilt)
    return q


P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(st.lists(st.floats(0, 1), max_size=30), st.sampled_from([0.01, 0.05, 0.2]))
def test_benjamini_hochberg_is_scipys(p_values: list[float], rate: float) -> None:
    found = significance.benjamini_hochberg(p_values, rate)
    adjusted = false_discovery_control(p_values) if p_values else np.array([])
    clear = np.abs(adjusted - rate) > 1e-9
    np.testing.assert_array_equal(found[clear], adjusted[clear] <= rate)


@given(P_VALUES, st.sampled_from([0.01, 0.05, 0.2]))
def test_simes_rejects_exactly_where_a_column_is_rejected(p_values: list[float], rate: float) -> None:
    together = significance.simes(p_values)
    assert 0 <= together <= 1
    if abs(together - rate) > 1e-12:
        assert bool(significance.benjamini_hochberg(p_values, rate).any()) is (together <= rate)


def test_the_rate_itself_is_rejected() -> None:
    assert significance.benjamini_hochberg([0.05, 0.9], 0.1).tolist() == [True, False]
    assert significance.simes([0.05, 0.9]) == 0.1
    assert significance.benjamini_hochberg([], 0.1).tolist() == []


def test_no_p_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        significance.simes([])


def test_rows_served_in_bursts_are_less_significant() -> None:
    known, now = np.array([[2500, 2500]]), np.array([[800, 200]])
    plain = significance.p_value(known, now, 0.1)
    assert significance.p_value(known, now, 0.1, 1.0, 20.0) > 100 * plain
    # The larger dispersion counts.
    assert significance.p_value(known, now, 0.1, 20.0, 1.0) == significance.p_value(known, now, 0.1, 20.0, 20.0)
