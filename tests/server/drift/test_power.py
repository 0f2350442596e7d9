"""The smallest detectable index, against scipy's distributions, the published table of powers, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import ncx2

from penstock_server.drift.power import about_detectable, smallest_detectable
from penstock_server.drift.significance import p_value

ROWS = 5000


def even(cells: int, rows: int = ROWS) -> np.ndarray:
    return np.full(cells, rows // cells)


def by_scipy(cells: int, window: int, effect: float, dispersion: float, rate: float, power: float) -> float:
    noise = dispersion * (1 / ROWS + 1 / window)
    threshold = ncx2.isf(rate, cells - 1, effect / noise) if effect else ncx2.isf(rate, cells - 1, 1e-12)
    return noise * brentq(lambda around: ncx2.sf(threshold, cells - 1, around) - power, 0, 10 * threshold + 100)


@pytest.mark.long
@pytest.mark.parametrize("cells", [2, 5, 10, 20])
@pytest.mark.parametrize("window", [500, 5000])
@pytest.mark.parametrize(("effect", "dispersion"), [(0.1, 1.0), (0.0, 1.0), (0.1, 17.0), (0.4, 1.5)])
@pytest.mark.parametrize(("rate", "power"), [(0.05, 0.8), (0.01, 0.95), (0.2, 0.3)])
def test_it_is_scipys(cells: int, window: int, effect: float, dispersion: float, rate: float, power: float) -> None:
    found = smallest_detectable(even(cells), window, effect, dispersion, rate=rate, power=power)
    assert found == pytest.approx(by_scipy(cells, window, effect, dispersion, rate, power), rel=1e-4)


@pytest.mark.parametrize(
    ("cells", "within"), [(2, 0.03), (3, 0.012), (5, 0.006), (10, 0.003), (20, 0.002), (60, 0.001)]
)
@pytest.mark.parametrize("noise", [0.3, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("effect", [0.0, 0.1, 0.4])
def test_about_is_near_the_exact_index(cells: int, within: float, noise: float, effect: float) -> None:
    window = 100 * cells
    dispersion = noise / (1 / (100 * cells) + 1 / window)
    exact = smallest_detectable(even(cells, 100 * cells), window, effect, dispersion)
    found = about_detectable(np.array([cells - 1.0]), np.array([noise]), np.array([effect]))
    assert found == pytest.approx(exact, rel=within)


def test_about_takes_all_columns_at_once_and_sees_nothing_in_one_cell() -> None:
    freedom, noise, effect = np.array([0.0, 1.0, 9.0]), np.array([0.1, 0.001, 0.01]), np.array([0.1, 0.1, 0.3])
    found = about_detectable(freedom, noise, effect, rate=0.01, power=0.95)
    assert np.isinf(found[0])
    for at in (1, 2):
        alone = about_detectable(freedom[at : at + 1], noise[at : at + 1], effect[at : at + 1], rate=0.01, power=0.95)
        assert found[at] == alone[0] > effect[at]
    assert (found[1:] > about_detectable(freedom, noise, effect)[1:]).all()
    assert about_detectable(np.empty(0), np.empty(0), np.empty(0)).shape == (0,)


PUBLISHED = [
    # cells, rows in the window, index, the share of windows that were called drift
    (10, 250, 0.20, 0.587),
    (10, 250, 0.25, 0.840),
    (10, 500, 0.15, 0.410),
    (10, 500, 0.20, 0.843),
    (10, 1000, 0.15, 0.637),
    (10, 5000, 0.15, 0.967),
    (20, 500, 0.15, 0.376),
    (20, 500, 0.20, 0.804),
]


@pytest.mark.parametrize(("cells", "window", "index", "power"), PUBLISHED)
def test_it_is_near_the_table_of_simulated_powers(cells: int, window: int, index: float, power: float) -> None:
    assert smallest_detectable(even(cells), window, power=power) == pytest.approx(index, rel=0.05)


def tilted(cells: int, index: float) -> np.ndarray:
    """Shares that rise along the cells, at this index from even ones."""

    def shares(slope: float) -> np.ndarray:
        weights = np.exp(slope * np.linspace(-1, 1, cells))
        return weights / weights.sum()

    def excess(slope: float) -> float:
        found = shares(slope)
        return float(((found - 1 / cells) * np.log(found * cells)).sum()) - index

    return shares(brentq(excess, 0, 20))


@pytest.mark.parametrize(
    ("cells", "window", "effect"), [(10, 250, 0.1), (20, 2000, 0.1), (4, 400, 0.05), (10, 1000, 0.0)]
)
def test_so_many_windows_of_that_index_are_called_drift(cells: int, window: int, effect: float) -> None:
    rng = np.random.default_rng(cells)
    index = float(smallest_detectable(even(cells), window, effect))
    reference = rng.multinomial(ROWS, np.full(cells, 1 / cells), 2000)
    current = rng.multinomial(window, tilted(cells, index), 2000)
    called = (p_value(reference, current, effect) < 0.05).mean()
    assert called == pytest.approx(0.8, abs=0.05)


@given(
    st.lists(st.lists(st.integers(0, 5000), min_size=12, max_size=12), min_size=1, max_size=4),
    st.integers(1, 50_000),
    st.floats(0, 2),
    st.floats(1, 300),
)
def test_columns_are_each_alone_and_see_no_more_than_is_tolerated(
    counts: list[list[int]], window: int, effect: float, dispersion: float
) -> None:
    found = smallest_detectable(np.array(counts), window, effect, dispersion)
    assert found.shape == (len(counts),)
    assert (found > effect).all()
    for row, one in zip(counts, found.tolist(), strict=True):
        # The inner sums go in blocks of one width for all columns.
        assert one == pytest.approx(float(smallest_detectable(np.array(row), window, effect, dispersion)), rel=1e-9)
        cells = sum(count > 0 for count in row)
        assert np.isinf(one) == (cells < 2 or min(sum(row), window) < 25 * cells)


@pytest.mark.long
@given(st.integers(2, 20), st.integers(500, 20_000), st.floats(1, 50))
def test_more_rows_show_smaller_drift_and_clumps_larger_only(cells: int, window: int, dispersion: float) -> None:
    reference = even(cells, 50_000)
    here = smallest_detectable(reference, window, 0.1, dispersion)
    assert smallest_detectable(reference, 2 * window, 0.1, dispersion) < here
    assert smallest_detectable(reference, window, 0.1, 1.1 * dispersion) > here
    assert smallest_detectable(reference, window, 0.1, dispersion, rate=0.01) > here
    assert smallest_detectable(reference, window, 0.1, dispersion, power=0.9) > here
