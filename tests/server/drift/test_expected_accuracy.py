from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift.baseline import HoldOut
from penstock_server.drift.expected_accuracy import LEAST_ROWS, expected_accuracy, fit_holdout
from penstock_server.errors import InvalidInputError

NOWHERE = np.zeros(2, np.int64)
RNG = np.random.default_rng(1)


def rows_of(*bins: int, missing: int = 0, infinite: int = 0) -> Any:
    return np.array([*bins, missing, infinite, 0], np.int64)


def estimated(holdout: HoldOut, known: Any, current: Any, outside: Any = NOWHERE, dispersion: float = 1.0) -> Any:
    found = expected_accuracy(holdout, known, current, outside, dispersion)
    assert found is not None
    return found


def test_it_is_the_formula() -> None:
    found = estimated(HoldOut((30, 80), 0.0004), rows_of(50, 100), rows_of(300, 100), dispersion=4.0)
    a, b = 30.5 / 51, 80.5 / 101
    p, q = a * (1 - a), b * (1 - b)
    value = 0.75 * a + 0.25 * b
    spread = sqrt((0.75 * p + 0.25 * q) * 4 / 400 + 0.75**2 * p / 50 + 0.25**2 * q / 100 + 0.0004)
    assert found.value == pytest.approx(value, abs=1e-15)
    assert (found.low, found.high) == pytest.approx((value - 1.959964 * spread, value + 1.959964 * spread), abs=1e-12)
    assert (found.reference, found.reference_rows, found.outside_ratio) == (110 / 150, 150, 0.0)


PARTS = st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1), st.integers(0, 500)), min_size=1, max_size=8)


@given(PARTS, st.integers(0, 50), st.integers(0, 50), st.floats(0, 0.01))
def test_it_lies_between_the_bins_and_in_its_band(parts: Any, missing: int, above: int, variance: float) -> None:
    rows, window = [50 + rows for rows, _, _ in parts], [10 + now for _, _, now in parts]
    correct = [int(share * count) for count, (_, share, _) in zip(rows, parts, strict=True)]
    current, outside = rows_of(*window, missing=missing), np.array([0, min(above, window[-1])])
    holdout = HoldOut(tuple(correct), variance)
    found = expected_accuracy(holdout, rows_of(*rows), current, outside)
    if sum(window) < 25:
        assert found is None
        return
    assert found is not None
    shares = [(right + 0.5) / (count + 1) for right, count in zip(correct, rows, strict=True)]
    assert min(shares) - 1e-12 <= found.value <= max(shares) + 1e-12
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.outside_ratio == pytest.approx((missing + outside.sum()) / (sum(window) + missing))
    wider = expected_accuracy(holdout, rows_of(*rows), current, outside, 2.0)
    assert wider is None or wider.low <= found.low <= found.high <= wider.high
    surer = expected_accuracy(holdout, rows_of(*rows), 10 * current, outside)
    assert surer is not None
    assert surer.value == pytest.approx(found.value)
    assert surer.high - surer.low <= found.high - found.low + 1e-12


def test_rows_without_a_confidence_are_left_out_and_told() -> None:
    holdout, known = HoldOut((30, 80)), rows_of(50, 100)
    some = estimated(holdout, known, rows_of(30, 10, missing=50, infinite=10), np.array([1, 4]))
    assert some.value == estimated(holdout, known, rows_of(30, 10)).value
    assert some.outside_ratio == 0.65


@pytest.mark.parametrize(("rows", "dispersion"), [(24, 1.0), (0, 1.0), (200, 9.0)])
def test_too_few_rows_say_nothing(rows: int, dispersion: float) -> None:
    assert expected_accuracy(HoldOut((30, 80)), rows_of(50, 100), rows_of(0, rows), NOWHERE, dispersion) is None


def drawn(rows: int, low: float = 0.5, off: Any = 0.0) -> tuple[Any, Any]:
    """Confidences from `low` to 1, right as often as they say, and `off` more often."""
    confidence = RNG.uniform(low, 1, rows)
    return confidence, RNG.random(rows) < confidence + off


def counted(numbers: Any, confidence: Any) -> Any:
    bins = np.searchsorted(numbers.edges, confidence, side="right")
    return rows_of(*np.bincount(bins, minlength=len(numbers.counts)))


def test_a_holdout_is_cut_at_its_own_quantiles() -> None:
    confidence, right = drawn(4000)
    numbers, holdout = fit_holdout("confidence", confidence, right)
    assert numbers.name == "confidence"
    assert len(numbers.counts) == 20
    assert max(numbers.counts) - min(numbers.counts) <= 2
    assert sum(holdout.correct) == right.sum()
    in_bin = np.searchsorted(numbers.edges, confidence, side="right") == 7
    assert holdout.correct[7] == right[in_bin].sum()


def test_harder_rows_show_and_the_band_holds() -> None:
    numbers, holdout = fit_holdout("confidence", *drawn(20_000))
    known = rows_of(*numbers.counts)
    held, errors = 0, []
    for at in range(200):
        confidence, right = drawn(1000, low=0.5 + 0.4 * (at % 2))
        found = estimated(holdout, known, counted(numbers, confidence))
        held += found.low <= right.mean() <= found.high
        errors.append(found.value - right.mean())
        assert found.value == pytest.approx(0.75 + 0.2 * (at % 2), abs=0.02)
    assert held >= 180
    assert abs(np.mean(errors)) < 0.005


def test_a_relation_that_wanders_along_the_holdout_widens_the_band() -> None:
    steady = fit_holdout("c", *drawn(20_000))[1]
    wandering = fit_holdout("c", *drawn(20_000, off=np.repeat(RNG.normal(0, 0.05, 20), 1000)))[1]
    assert steady.variance < 0.0004
    assert 0.03 < sqrt(wandering.variance) < 0.08


def test_rows_without_a_confidence_are_no_part_of_a_holdout() -> None:
    confidence, right = drawn(1000)
    confidence[::4] = np.nan
    numbers, holdout = fit_holdout("c", confidence, right)
    assert numbers.missing == 250
    assert sum(holdout.correct) == right[~np.isnan(confidence)].sum()


def test_a_small_holdout_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=f"the hold-out has 199 rows with an answer, expected {LEAST_ROWS} or more"
    ):
        fit_holdout("c", *drawn(199))
