import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import distance
from scipy.stats import false_discovery_control, ncx2

from penstock_server.features.baseline import fit_baseline
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import FeatureSpec, NumberColumn, StringColumn
from penstock_server.observe import drift
from penstock_server.observe.drift import Counts

CELLS = 8
COUNTS = arrays(np.int64, CELLS, elements=st.integers(0, 10_000)).filter(lambda counts: counts.sum() > 0)


@given(COUNTS, COUNTS)
def test_jensen_shannon_is_scipys_in_base_two(reference: Counts, current: Counts) -> None:
    expected = distance.jensenshannon(reference, current, base=2)
    # scipy gives NaN where rounding makes an equal pair's divergence negative.
    assert drift.jensen_shannon(reference, current) == pytest.approx(np.nan_to_num(expected), abs=3e-8)


@given(COUNTS, COUNTS)
def test_jensen_shannon_is_a_bounded_symmetric_distance(reference: Counts, current: Counts) -> None:
    found = drift.jensen_shannon(reference, current)
    assert 0 <= found <= 1
    assert found == pytest.approx(drift.jensen_shannon(current, reference), abs=1e-7)
    assert drift.jensen_shannon(reference, 3 * reference) == pytest.approx(0, abs=3e-8)


def test_disjoint_shares_are_at_distance_one() -> None:
    assert drift.jensen_shannon(np.array([5, 0]), np.array([0, 9])) == 1


def test_psi_by_hand() -> None:
    reference, current = np.array([50, 50, 0]), np.array([75, 25, 0])
    assert drift.psi(reference, current) == pytest.approx(0.25 * np.log(1.5) + 0.25 * np.log(2))
    p, q = np.array([50.5, 50.5]) / 101, np.array([75.5, 25.5]) / 101
    smoothed = float(np.sum((p - q) * np.log(p / q)))
    assert drift.psi_smoothed(reference, current) == pytest.approx(smoothed)
    assert drift.psi_unbiased(reference, current) == pytest.approx(smoothed - 2 / 100)


@pytest.mark.parametrize(
    ("current", "fill"),
    [
        ([900, 100, 0], 1e-4),
        ([99_995, 5, 0], 5e-5 / 1e6),
    ],
)
def test_psi_fills_an_empty_share_as_evidently_does(current: list[int], fill: float) -> None:
    p = np.array([0.5, 0.25, 0.25])
    q = np.array(current) / sum(current)
    q[2] = fill
    assert drift.psi(np.array([2, 1, 1]), np.array(current)) == pytest.approx(float(np.sum((p - q) * np.log(p / q))))


def test_unbiased_psi_without_drift_is_around_zero() -> None:
    rng = np.random.default_rng(4)
    shares = np.full(10, 0.1)
    reference = rng.multinomial(5000, shares)
    found = [drift.psi_unbiased(rng.multinomial(5000, shares), rng.multinomial(500, shares)) for _ in range(400)]
    assert abs(np.mean(found)) < 0.002
    assert np.mean([drift.psi(reference, rng.multinomial(500, shares)) for _ in range(50)]) > 0.01


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 22, 52])
@pytest.mark.parametrize("noncentrality", [0.0, 0.3, 9.0, 500.0, 2e5])
def test_noncentral_tail_is_scipys(freedom: int, noncentrality: float) -> None:
    middle, spread = freedom + noncentrality, np.sqrt(2 * (freedom + 2 * noncentrality))
    # Far below the middle scipy's own sum overflows.
    for value in (0.8 * middle, middle, middle + 3 * spread, middle + 6 * spread):
        expected = ncx2.sf(value, freedom, noncentrality)
        assert drift.noncentral_tail(value, freedom, noncentrality) == pytest.approx(expected, rel=1e-7, abs=1e-15)


def test_noncentral_tail_of_nothing_is_certain() -> None:
    assert drift.noncentral_tail(0, 5, 1) == 1
    assert drift.noncentral_tail(3, 0, 1) == 1


def test_the_rule_rejects_at_its_level_on_the_boundary_and_not_without_drift() -> None:
    """Table of the noncentral test at B = 10, M = 5000, N = 500: 5.2 % at a true PSI of 0.1, 84 % at 0.2."""
    rng = np.random.default_rng(8)
    p = np.full(10, 0.1)

    def rejections(psi: float) -> float:
        q = tilted(p, psi)
        counts = [(rng.multinomial(5000, p), rng.multinomial(500, q)) for _ in range(600)]
        return float(np.mean([drift.p_value(*pair) < 0.05 for pair in counts]))

    assert rejections(0) == 0
    assert rejections(0.1) == pytest.approx(0.05, abs=0.03)
    assert rejections(0.2) > 0.75


def tilted(p: np.ndarray, psi: float) -> np.ndarray:
    """Shares at this index from `p`, by bisection of a tilt."""
    low, high = 0.0, 2.0
    for _ in range(60):
        tilt = (low + high) / 2
        q = p * np.exp(tilt * np.linspace(-1, 1, len(p)))
        q /= q.sum()
        low, high = (tilt, high) if np.sum((p - q) * np.log(p / q)) < psi else (low, tilt)
    return q


@given(st.lists(st.floats(0, 1), max_size=30), st.sampled_from([0.01, 0.05, 0.2]))
def test_benjamini_hochberg_is_scipys(p_values: list[float], rate: float) -> None:
    found = drift.benjamini_hochberg(p_values, rate)
    adjusted = false_discovery_control(p_values) if p_values else np.array([])
    clear = np.abs(adjusted - rate) > 1e-9
    np.testing.assert_array_equal(found[clear], adjusted[clear] <= rate)


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
def test_below_25_rows_a_cell_there_is_no_score(reference: list[int], current: list[int], is_enough: bool) -> None:
    pair = np.array(reference), np.array(current)
    assert drift.enough_rows(*pair) is is_enough
    (score,) = drift.drift_scores(pair[0][None], pair[1][None])
    assert (score is not None) is is_enough


def test_counts_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        drift.drift_scores(np.zeros((1, 3), np.int64), np.zeros((1, 4), np.int64))
    with pytest.raises(ValueError, match="no rows"):
        drift.jensen_shannon(np.array([1]), np.array([0]))


def test_scores_of_rows_that_a_pipeline_counted() -> None:
    rng = np.random.default_rng(6)
    spec = FeatureSpec(
        (NumberColumn("same"), NumberColumn("moved"), NumberColumn("gone"), StringColumn("s", ("a", "b")))
    )

    def table(size: int, shift: float, missing: float, word: str) -> dict[str, list[object] | np.ndarray]:
        gone = rng.normal(size=size)
        gone[rng.random(size) < missing] = np.nan
        words = [word if rng.random() < 0.5 else "a" for _ in range(size)]
        return {"same": rng.normal(size=size), "moved": rng.normal(shift, size=size), "gone": gone, "s": words}

    baseline = fit_baseline(spec, table(20_000, 0, 0, "b"))
    served = fit_cells(spec, baseline, table(5000, 0.5, 0.6, "new"))
    same, moved, gone, words = drift.drift_scores(baseline.reference, served)
    assert same is not None
    assert same < 0.05
    assert None not in (moved, gone, words)
    assert moved is not None
    assert moved > 0.1
    assert gone is not None
    assert gone > 0.5
    assert words is not None
    assert words > 0.5


def fit_cells(spec: FeatureSpec, baseline: object, table: dict[str, list[object] | np.ndarray]) -> Counts:
    """The rows' counts in the baseline's cells, by the pipeline."""
    pipeline = Pipeline(spec, baseline)  # type: ignore[arg-type]
    cells = np.zeros(pipeline.cells_shape, np.int64)
    numbers = np.column_stack([table[name] for name in pipeline.numbers])
    strings = [b"".join(len(word).to_bytes(4, "little") + word.encode() for word in table["s"])]  # type: ignore[attr-defined]
    pipeline.run(numbers, strings, len(numbers), np.empty((len(numbers), pipeline.width), np.float32), cells)
    return cells
