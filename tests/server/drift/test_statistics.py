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


def coded(shift: float, rows: int, seed: int) -> tuple[Any, Any]:
    """Rows as the cells that they are counted in."""
    rng = np.random.default_rng(seed)
    reference, current = rng.gamma(2, 1, 5000), rng.gamma(2, 1, rows) + shift
    edges = fit_number("x", reference).edges
    return np.searchsorted(edges, reference, side="right"), np.searchsorted(edges, current, side="right")


def counted(sides: tuple[Any, Any]) -> tuple[Any, Any]:
    size = int(max(side.max() for side in sides)) + 1
    return np.bincount(sides[0], minlength=size), np.bincount(sides[1], minlength=size)


EVIDENTLY_CASES = [(0.0, 1000, 0), (0.0, 40, 1), (0.5, 500, 2), (3.0, 700, 3), (40.0, 50, 4), (0.2, 60_000, 5)]


@pytest.mark.parametrize(("shift", "rows", "seed"), EVIDENTLY_CASES)
@pytest.mark.slow
def test_psi_is_evidentlys(tests_of: Any, shift: float, rows: int, seed: int) -> None:
    sides = coded(shift, rows, seed)
    assert abs(statistics.psi(*counted(sides)) - tests_of("psi", *sides)) <= 1e-12


@pytest.mark.parametrize(("shift", "rows", "seed"), EVIDENTLY_CASES)
@pytest.mark.slow
def test_jensen_shannon_is_evidentlys_in_another_base(tests_of: Any, shift: float, rows: int, seed: int) -> None:
    sides = coded(shift, rows, seed)
    found = statistics.jensen_shannon(*counted(sides)) * np.sqrt(np.log(2))
    assert abs(found - tests_of("jensenshannon", *sides)) <= 1e-12


@pytest.mark.slow
def test_the_public_report_says_the_same(tests_of: Any) -> None:
    evidently = import_module("evidently")
    drift_of = import_module("evidently.metrics").ValueDrift
    sides = coded(0.5, 500, 2)
    definition = evidently.DataDefinition(categorical_columns=["x"])
    reference, current = (
        evidently.Dataset.from_pandas(pd.DataFrame({"x": side.astype(str)}), data_definition=definition)
        for side in sides
    )
    report = evidently.Report([drift_of(column="x", method="psi")]).run(current, reference)
    assert abs(statistics.psi(*counted(sides)) - float(report.dict()["metrics"][0]["value"])) <= 1e-12


@pytest.mark.slow
def test_what_goes_missing_it_does_not_see(tests_of: Any) -> None:
    """Without its missing rows a column looks as before, while here they are a cell."""
    rng = np.random.default_rng(8)
    reference = pd.Series(rng.integers(0, 5, 5000).astype(float))
    current = pd.Series(np.where(rng.random(1000) < 0.6, np.nan, rng.integers(0, 5, 1000)))
    assert tests_of("psi", reference.dropna(), current.dropna()) < 0.1
    known = np.append(np.bincount(reference.astype(int), minlength=5), 0)
    now = np.append(np.bincount(current.dropna().astype(int), minlength=5), current.isna().sum())
    assert statistics.psi(known, now) > 1


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
