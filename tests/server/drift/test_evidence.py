from math import lgamma, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift import evidence
from tests.examples import examples

UNIFORM = np.full(4, 0.25)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([25, 25, 25, 25], -2.739635),
        ([40, 30, 20, 10], -3.230997),
        ([70, 10, 10, 10], 9.144223),
        ([0, 0, 0, 100], 56.967353),
        ([0, 0, 0, 0], 0.0),
    ],
)
def test_evidence_of_known_counts(counts: list[int], expected: float) -> None:
    assert float(evidence.log_e_values(UNIFORM, np.array(counts, float), 0.05)) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([25, 25, 25, 25], -5.178581),
        ([40, 30, 20, 10], -4.111352),
        ([70, 10, 10, 10], 12.324716),
        ([0, 0, 0, 100], 79.488767),
    ],
)
def test_evidence_of_known_counts_by_another_prior(
    counts: list[int], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "CONCENTRATION", 4.0)
    assert float(evidence.log_e_values(UNIFORM, np.array(counts, float), 0.05)) == pytest.approx(expected, abs=5e-7)


@given(st.lists(st.integers(0, 400), min_size=2, max_size=9), st.integers(0, 2**32 - 1), st.floats(0, 0.3))
def test_the_likeliest_shares_of_the_null_are_found(counts: list[int], seed: int, tolerated: float) -> None:
    """No shares within the tolerance are likelier, as far as a search by another way finds."""
    rng = np.random.default_rng(seed)
    c = np.array(counts, float)
    p = rng.dirichlet(np.full(len(c), 3.0)) + 1e-4
    p /= p.sum()
    if not c.sum():
        return
    found = float(evidence.log_e_values(p, c, tolerated))
    mixture = (
        lgamma(20) - lgamma(20 + c.sum()) + sum(lgamma(20 * a + n) - lgamma(20 * a) for a, n in zip(p, c, strict=True))
    )
    likelihood = mixture - found
    low, high, own = 0.0, 1.0, c / c.sum()
    for _ in range(200):
        way = (low + high) / 2
        shares = (1 - way) * p + way * own
        entropy = np.inf if (shares <= 0).any() else float((p * np.log(p / shares)).sum())
        low, high = (way, high) if entropy <= tolerated else (low, way)
    shares = (1 - low) * p + low * own
    expected = sum(n * log(share) for n, share in zip(c, shares, strict=True) if n)
    assert likelihood == pytest.approx(expected, rel=1e-6, abs=1e-5)
    for _ in range(20):
        other = rng.dirichlet(np.maximum(c, 0.1))
        if (p * np.log(p / np.maximum(other, 1e-300))).sum() <= tolerated:
            assert (c[c > 0] * np.log(other[c > 0])).sum() <= likelihood + 1e-5


@pytest.mark.parametrize("index", [0.0, 0.05])
def test_evidence_is_at_most_1_on_average_within_the_null(index: float) -> None:
    rng = np.random.default_rng(3)
    shares = UNIFORM * np.exp(np.sqrt(2 * index) * np.array([-1, -1, 1, 1]) * 0.99)
    shares /= shares.sum()
    assert (UNIFORM * np.log(UNIFORM / shares)).sum() <= 0.05
    counts = rng.multinomial(60, shares, 40_000).astype(float)
    assert np.exp(evidence.log_e_values(UNIFORM, counts, 0.05)).mean() < 1


def test_cells_that_a_column_does_not_have_change_nothing() -> None:
    counts = np.array([[40.0, 30, 20, 10], [70, 10, 10, 10]])
    wide = np.pad(counts, ((0, 0), (0, 3)))
    found = evidence.log_e_values(np.pad(UNIFORM, (0, 3)), wide, 0.05)
    np.testing.assert_allclose(found, evidence.log_e_values(UNIFORM, counts, 0.05), rtol=1e-12)


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.001, 0.5))
def test_more_than_a_share_is_evidence_and_less_is_none(count: int, others: int, share: float) -> None:
    found = float(evidence.log_e_values_above(share, count, count + others))
    if count <= share * (count + others):
        assert found <= 1e-9
    assert float(evidence.log_e_values_above(share, count + others, count + others)) >= found - 1e-9


def test_evidence_above_a_share_is_at_most_1_on_average_below_it() -> None:
    rng = np.random.default_rng(4)
    counts = rng.binomial(200, 0.01, 40_000)
    assert np.exp(evidence.log_e_values_above(0.01, counts, 200)).mean() < 1
    assert float(evidence.log_e_values_above(0.01, 30, 200)) > 25


@pytest.mark.parametrize(("cells", "rows", "expected"), [(21, 10_000, 0.051), (1, 10, 0.05), (21, 100, 0.15)])
def test_few_training_rows_are_tolerant(cells: int, rows: int, expected: float) -> None:
    assert float(evidence.tolerance(0.1, rows, cells)) == pytest.approx(expected)


@examples(50)
@given(st.floats(1e-4, 1e9))
def test_the_logarithm_of_gamma(value: float) -> None:
    found = float(evidence.log_gamma(np.array([value]))[0])
    assert found == pytest.approx(lgamma(value), rel=1e-12, abs=1e-13)
