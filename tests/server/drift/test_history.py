import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift import history
from penstock_server.drift.history import History


@given(st.integers(0, 400))
def test_every_start_has_all_that_came_since(slices: int) -> None:
    kept = History((1, 2))
    for at in range(slices):
        kept.add(np.array([[1, at]]), float(at))
    starts = kept.starts
    assert starts.began_s.tolist() == sorted(starts.began_s.tolist(), reverse=True)
    for cells, began_s in zip(starts.cells, starts.began_s, strict=True):
        assert cells[0].tolist() == [slices - began_s, sum(range(int(began_s), slices))]
    # Dense lately, and a slice is at most a small share of its age.
    gaps = -np.diff(starts.began_s, prepend=slices)
    ages = slices - starts.began_s
    assert (gaps <= np.maximum(1, 2 * ages / (history.PER_LEVEL - 2))).all()
    assert slices == 0 or ages[0] == 1


def test_the_oldest_is_forgotten_and_memory_is_bounded() -> None:
    kept = History((1, 2))
    for at in range(10_000):
        kept.add(np.array([[1, 0]]), float(at))
    starts = kept.starts
    assert len(starts.began_s) <= history.PER_LEVEL * history.LEVELS
    assert 2_000 < 10_000 - starts.began_s[-1] < 3_200
    wide = History((1000, 259))
    assert len(wide._levels) * history.PER_LEVEL * 4 * 1000 * 259 <= 2 * history.MOST_BYTES


def told(rows_at_once: int, *, cells: int = 20, slices: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The dispersions after slices of 100 rows, which come so many alike at once."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.integers(0, cells, slices * 100 // rows_at_once + 1), rows_at_once)[: slices * 100]
    kept = History((1, cells))
    for at, part in enumerate(rows.reshape(slices, 100)):
        kept.add(np.bincount(part, minlength=cells)[None], float(at))
    return kept.dispersions


def test_independent_rows_vary_as_such() -> None:
    sizes, found = told(1)
    assert sizes[:3].tolist() == [100, 200, 400]
    assert np.nanmax(found) < 1.6
    assert (found[:2] == 1).all()


@pytest.mark.parametrize("rows_at_once", [10, 50, 200])
def test_rows_that_hang_together_vary_more(rows_at_once: int) -> None:
    """On every scale on which it can be told."""
    sizes, found = told(rows_at_once, slices=1000)
    known = found[~np.isnan(found)]
    assert len(known) >= 4
    assert (known > rows_at_once / 3).all()
    assert (known <= rows_at_once * 2).all()
    # A slice of fewer rows than hang together says nothing.
    assert np.isnan(found[sizes < rows_at_once]).all()


def test_a_lasting_change_is_no_variation() -> None:
    rng = np.random.default_rng(1)
    kept = History((1, 10))
    for at in range(20):
        shares = np.full(10, 0.1) if at < 15 else np.array([0.55] + [0.05] * 9)
        kept.add(rng.multinomial(1000, shares)[None], float(at))
    assert kept.dispersions[1][0] == 1


def test_too_few_slices_tell_nothing() -> None:
    kept = History((1, 2))
    assert kept.starts.cells.shape == (0, 1, 2)
    for at in range(5):
        kept.add(np.array([[50, 50]]), float(at))
    assert np.isnan(kept.dispersions[1]).all()


def test_a_column_of_one_value_has_no_variation_to_tell() -> None:
    kept = History((1, 3))
    for at in range(12):
        kept.add(np.array([[100, 0, 0]]), float(at))
    assert np.isnan(kept.dispersions[1]).all()
