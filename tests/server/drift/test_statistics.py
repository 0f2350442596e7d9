"""Distances of counts against scipy's and Evidently's, and what bins are guaranteed to keep of the exact distances."""

from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import distance
from scipy.stats import ks_2samp, wasserstein_distance

from penstock_server.drift import statistics
from penstock_server.drift.fit import fit_number
from penstock_server.drift.statistics import CellCounts

CELLS = 8
COUNTS = arrays(np.int64, CELLS, elements=st.integers(0, 10_000)).filter(lambda counts: counts.sum() > 0)


@given(COUNTS, COUNTS)
def test_jensen_shannon_is_scipys_in_base_two(reference: CellCounts, current: CellCounts) -> None:
    expected = distance.jensenshannon(reference, current, base=2)
    # scipy gives NaN where rounding makes an equal pair's divergence negative.
    assert statistics.jensen_shannon(reference, current) == pytest.approx(np.nan_to_num(expected), abs=3e-8)


@given(COUNTS, COUNTS)
def test_jensen_shannon_is_a_bounded_symmetric_distance(reference: CellCounts, current: CellCounts) -> None:
    found = statistics.jensen_shannon(reference, current)
    assert 0 <= found <= 1
    assert found == pytest.approx(statistics.jensen_shannon(current, reference), abs=1e-7)
    assert statistics.jensen_shannon(reference, 3 * reference) == pytest.approx(0, abs=3e-8)


def test_disjoint_shares_are_at_distance_one() -> None:
    assert statistics.jensen_shannon(np.array([5, 0]), np.array([0, 9])) == 1


def test_psi_by_hand() -> None:
    reference, current = np.array([50, 50, 0]), np.array([75, 25, 0])
    assert statistics.psi(reference, current) == pytest.approx(0.25 * np.log(1.5) + 0.25 * np.log(2))
    p, q = np.array([50.5, 50.5]) / 101, np.array([75.5, 25.5]) / 101
    smoothed = float(np.sum((p - q) * np.log(p / q)))
    assert statistics.psi_smoothed(reference, current) == pytest.approx(smoothed)
    assert statistics.psi_unbiased(reference, current) == pytest.approx(smoothed - 2 / 100)


def test_half_a_row_is_added_to_each_cell_of_either_side() -> None:
    p, q = np.array([8.5, 2.5]) / 11, np.array([3.5, 1.5]) / 5
    expected = float(np.sum((p - q) * np.log(p / q)))
    assert statistics.psi_smoothed(np.array([8, 2]), np.array([3, 1])) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("current", "fill"),
    [
        ([900, 100, 0], 1e-4),
        ([9_998, 2, 0], 1e-4),
        ([9_999, 1, 0], 1e-4 / 1e6),
        ([99_992, 8, 0], 8e-5 / 1e6),
        ([99_995, 5, 0], 5e-5 / 1e6),
    ],
)
def test_psi_fills_an_empty_share_as_evidently_does(current: list[int], fill: float) -> None:
    p = np.array([0.5, 0.25, 0.25])
    q = np.array(current) / sum(current)
    q[2] = fill
    assert statistics.psi(np.array([2, 1, 1]), np.array(current)) == pytest.approx(
        float(np.sum((p - q) * np.log(p / q))), rel=1e-9
    )


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=5))
def test_many_columns_at_once_are_each_alone(pairs: list[tuple[CellCounts, CellCounts]]) -> None:
    reference, current = (np.array(side) for side in zip(*pairs, strict=True))
    for measure in (
        statistics.jensen_shannon,
        statistics.psi,
        statistics.psi_unbiased,
        statistics.rows_needed,
        statistics.enough_rows,
    ):
        each: Any = [measure(*pair) for pair in pairs]
        np.testing.assert_allclose(measure(reference, current), each, rtol=1e-12, atol=1e-12)


@given(COUNTS, COUNTS, st.integers(1, 4))
def test_cells_that_nobody_has_rows_in_do_not_exist(reference: CellCounts, current: CellCounts, empty: int) -> None:
    wider = [np.concatenate([side, np.zeros(empty, np.int64)]) for side in (reference, current)]
    for measure in (statistics.jensen_shannon, statistics.psi, statistics.psi_unbiased, statistics.rows_needed):
        assert measure(*wider) == pytest.approx(measure(reference, current), rel=1e-12, abs=1e-12)


def test_unbiased_psi_without_drift_is_around_zero() -> None:
    rng = np.random.default_rng(4)
    shares = np.full(10, 0.1)
    reference, current = rng.multinomial(5000, shares, 400), rng.multinomial(500, shares, 400)
    assert abs(np.mean(statistics.psi_unbiased(reference, current))) < 0.002
    assert np.mean(statistics.psi(reference, current)) > 0.01


@pytest.mark.parametrize(
    ("reference", "current", "is_enough"),
    [
        ([100, 100, 0], [25, 25, 0], True),
        ([100, 100, 0], [25, 24, 0], False),
        ([100, 100, 0], [49, 0, 1], False),
        ([100, 100, 0], [74, 0, 1], True),
        ([10, 10, 0], [500, 500, 0], False),
        ([0, 0, 0], [0, 0, 0], False),
    ],
)
def test_25_rows_a_cell_are_needed(reference: list[int], current: list[int], is_enough: bool) -> None:
    assert bool(statistics.enough_rows(np.array(reference), np.array(current))) is is_enough


def test_counts_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        statistics.enough_rows(np.zeros((1, 3), np.int64), np.zeros((1, 4), np.int64))
    with pytest.raises(ValueError, match="no rows"):
        statistics.jensen_shannon(np.array([1]), np.array([0]))


def binned(values: Any, edges: Any) -> tuple[CellCounts, Any]:
    cells = np.searchsorted(edges, values, side="right")
    return np.bincount(cells, minlength=len(edges) + 1), np.bincount(cells, values, minlength=len(edges) + 1)


def in_bins(reference: Any, current: Any, bins: int) -> tuple[Any, ...]:
    edges = np.array(fit_number("x", reference, bins).edges)
    ends = np.append(edges, edges[-1] if len(edges) else 0.0)
    return (*zip(binned(reference, edges), binned(current, edges), strict=True), ends)


SAMPLE = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32))


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # scipy's p-value of a single row
@given(SAMPLE, SAMPLE, st.integers(1, 12))
def test_bins_bound_both_exact_distances(reference: Any, current: Any, bins: int) -> None:
    counts, sums, ends = in_bins(reference, current, bins)
    found, slack = statistics.kolmogorov_smirnov(*counts)
    exact = ks_2samp(reference, current, method="asymp").statistic
    assert found - 1e-12 <= exact <= found + slack + 1e-12
    scale = max(1.0, np.abs(reference).max(), np.abs(current).max())
    assert statistics.wasserstein(*counts, sums, ends) <= wasserstein_distance(reference, current) + 1e-9 * scale


GENERATORS = {
    "normal": lambda rng, size, by: rng.normal(by, 1, size),
    "lognormal": lambda rng, size, by: rng.lognormal(0, 1, size) + by,
    "pareto": lambda rng, size, by: rng.pareto(2.5, size) + by,
    "a few numbers": lambda rng, size, by: rng.integers(0, 6, size) + np.ceil(by),
}


@pytest.mark.long
@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_sums_keep_the_wasserstein_distance_within_a_twenty_fifth_of_a_deviation(name: str, shift: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        reference, current = GENERATORS[name](rng, 5000, 0.0), GENERATORS[name](rng, 1000, shift)
        counts, sums, ends = in_bins(reference, current, 20)
        lost = wasserstein_distance(reference, current) - statistics.wasserstein(*counts, sums, ends)
        assert -1e-9 <= lost <= 0.04 * reference.std()
        found, slack = statistics.kolmogorov_smirnov(*counts)
        assert 0 <= ks_2samp(reference, current).statistic - found + 1e-12 <= slack + 1e-12


def test_a_shift_in_one_open_bin_is_seen_in_its_sum() -> None:
    edges = np.array([0.0, 0.0])
    counts = np.array([50, 50])
    moved = statistics.wasserstein(counts, counts, (np.array([-50.0, 50.0]), np.array([-50.0, 250.0])), edges)
    assert moved == pytest.approx(2.0)


def test_sums_that_overflowed_say_nothing() -> None:
    counts, edges = np.array([1, 1]), np.array([0.0, 0.0])
    assert np.isnan(statistics.wasserstein(counts, counts, (np.array([0.0, np.inf]), np.array([0.0, np.inf])), edges))


@pytest.fixture(scope="module")
def tests_of() -> Any:
    """Evidently's drift tests by name, of a reference and a current column."""
    # Evidently 0.7 takes it from pandas when it is imported; pandas 3 has it no more, and no drift test uses it.
    types = import_module("pandas.core.dtypes.common")
    if not hasattr(types, "infer_dtype_from_object"):
        types.infer_dtype_from_object = None
    pytest.importorskip("evidently")
    stattests = import_module("evidently.legacy.calculations.stattests")
    kind = import_module("evidently.legacy.core").ColumnType.Categorical

    def value(name: str, reference: Any, current: Any) -> float:
        test = getattr(stattests, f"{name}_stat_test")
        return float(test.func(pd.Series(reference), pd.Series(current), kind, 0.1)[0])

    return value


SAMPLED = [249, 250, 251, 249, 250, 251, 250, 249, 250, 250, 250, 251, 249, 251, 249, 250, 250, 250, 250, 251]
"""The rows of a training sample in each cell."""
# The rows of a window in each cell, and what Evidently 0.7 makes of both: PSI, and the Jensen-Shannon distance in base e.
SAID_BY_EVIDENTLY = {
    "no drift": (
        [48, 43, 40, 71, 41, 47, 53, 58, 49, 60, 55, 52, 48, 56, 51, 45, 50, 41, 45, 47],
        (0.020542065468414025, 0.05060417680753248),
    ),
    "few rows": ([2, 1, 0, 3, 3, 4, 1, 5, 3, 1, 4, 2, 0, 2, 2, 1, 1, 0, 4, 1], (1.2379752289127512, 0.299358401794297)),
    "a shift": (
        [0, 0, 9, 14, 23, 19, 22, 23, 26, 23, 21, 35, 29, 42, 40, 37, 26, 41, 40, 30],
        (0.7516738623851332, 0.22564890772714483),
    ),
    "a large shift": ([0] * 16 + [28, 142, 216, 314], (6.519645338586622, 0.6674723079880086)),
    "all in one cell": ([0] * 19 + [50], (8.732185915859295, 0.769632883587384)),
    "many rows": (
        [
            *(730, 2134, 2513, 2750, 2797, 2831, 3327, 3253, 3015, 3311),
            *(3336, 3088, 3342, 3448, 3495, 3124, 3518, 2988, 3470, 3530),
        ],
        (0.06922787681750454, 0.09027729618742025),
    ),
}


@pytest.mark.parametrize("case", SAID_BY_EVIDENTLY)
def test_psi_and_jensen_shannon_are_evidentlys(case: str) -> None:
    window, (psi, jensen_shannon) = SAID_BY_EVIDENTLY[case]
    sides = np.array(SAMPLED), np.array(window)
    assert abs(statistics.psi(*sides) - psi) <= 1e-12
    assert abs(statistics.jensen_shannon(*sides) * np.sqrt(np.log(2)) - jensen_shannon) <= 1e-12


def rows_of(counts: list[int]) -> Any:
    """Rows that are counted so: the number of its cell each."""
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize("case", SAID_BY_EVIDENTLY)
@pytest.mark.long  # Evidently takes long to import
def test_evidently_says_so(tests_of: Any, case: str) -> None:
    window, said = SAID_BY_EVIDENTLY[case]
    sides = rows_of(SAMPLED), rows_of(window)
    assert [tests_of(name, *sides) for name in ("psi", "jensenshannon")] == pytest.approx(said, abs=1e-12, rel=0)


@pytest.mark.long  # Evidently takes long to import
def test_the_public_report_says_the_same(tests_of: Any) -> None:
    evidently = import_module("evidently")
    drift_of = import_module("evidently.metrics").ValueDrift
    window, (psi, _) = SAID_BY_EVIDENTLY["a shift"]
    definition = evidently.DataDefinition(categorical_columns=["x"])
    reference, current = (
        evidently.Dataset.from_pandas(pd.DataFrame({"x": rows_of(side).astype(str)}), data_definition=definition)
        for side in (SAMPLED, window)
    )
    report = evidently.Report([drift_of(column="x", method="psi")]).run(current, reference)
    assert abs(psi - float(report.dict()["metrics"][0]["value"])) <= 1e-12


# Cells of a column in training and in a window, of which six in ten rows are missing: the last cell.
KNOWN, NOW = [1000, 990, 1010, 1005, 995, 0], [82, 78, 80, 85, 75, 600]


def test_what_goes_missing_is_drift() -> None:
    """Without its missing rows a column looks as before, while here they are a cell."""
    assert statistics.psi(np.array(KNOWN[:-1]), np.array(NOW[:-1])) < 0.1
    assert statistics.psi(np.array(KNOWN), np.array(NOW)) > 1


@pytest.mark.long  # Evidently takes long to import
def test_what_goes_missing_evidently_does_not_see(tests_of: Any) -> None:
    reference, current = (
        pd.Series(np.append(rows_of(side[:-1]).astype(float), np.full(side[-1], np.nan))) for side in (KNOWN, NOW)
    )
    assert tests_of("psi", reference.dropna(), current.dropna()) < 0.1


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([[30, 20, 10], [10, 20, 30], [20, 20, 20]], 5.0),
        ([[20, 20], [20, 20], [0, 0]], 1.0),
        ([[40, 0], [0, 40]], 80.0),
        ([[40, 0], [20, 0]], 1.0),
        ([[40, 2]], 1.0),
        ([[0, 0], [0, 0]], 1.0),
    ],
)
def test_how_much_parts_of_a_window_vary(parts: list[list[int]], expected: float) -> None:
    found = statistics.dispersion(np.array(parts)[:, None, :])
    assert found.tolist() == pytest.approx([expected])
