from typing import Any

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


@pytest.mark.parametrize("slices", [0, 1, 12, 13, 200])
def test_what_is_kept_is_restored_and_goes_on_as_before(slices: int) -> None:
    """Twelve slices are the most that the first level has."""
    kept, restored = History((2, 3)), History((2, 3))
    restored.add(np.ones((2, 3), np.int64), -1.0)  # what there is, is replaced
    for at in range(slices):
        kept.add(np.arange(6).reshape(2, 3) + at, float(at))
    restored.restore(kept.to_arrays())
    for at in range(slices, slices + 30):
        assert restored.starts.began_s.tolist() == kept.starts.began_s.tolist()
        assert restored.starts.cells.tolist() == kept.starts.cells.tolist()
        for history_ in (kept, restored):
            history_.add(np.arange(6).reshape(2, 3) + at, float(at))


def test_a_level_has_twelve_slices_before_two_become_one() -> None:
    kept = History((1, 2))
    for at in range(history.PER_LEVEL):
        kept.add(np.array([[1, 0]]), float(at))
    assert set(kept.to_arrays()["level"].tolist()) == {0}
    kept.add(np.array([[1, 0]]), float(history.PER_LEVEL))
    assert kept.to_arrays()["level"].tolist() == [0] * 11 + [1]
    assert kept.to_arrays()["cells"][-1].tolist() == [[2, 0]]


SOUND = {"level": np.array([0, 7]), "began_s": np.array([2.0, 1.0]), "cells": np.ones((2, 1, 2), np.int32)}


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"cells": np.ones((2, 1, 3), np.int32)}, r"slices are \[2, 1, 3\], expected those of counts \[1, 2\]"),
        ({"cells": np.ones((2, 2, 2), np.int32)}, r"slices are \[2, 2, 2\]"),
        ({"cells": np.ones((3, 1, 2), np.int32)}, r"slices are \[3, 1, 2\]"),
        ({"cells": np.ones((2, 1, 2), np.int64)}, r"slices are \[2, 1, 2\]"),
        ({"began_s": np.array([2.0])}, r"slices are \[2, 1, 2\]"),
        ({"level": np.array([0, 8])}, "levels up to 8, expected 8 levels"),
        ({"level": np.array([-1, 7])}, "expected 8 levels"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(changed: dict[str, Any], refusal: str) -> None:
    kept = History((1, 2))
    kept.restore(SOUND)
    with pytest.raises(ValueError, match=refusal):
        kept.restore(SOUND | changed)
    assert kept.starts.began_s.tolist() == [2.0, 1.0]


def test_the_widest_counts_have_as_many_levels_as_memory_allows_and_three_at_least() -> None:
    def levels(columns: int) -> int:
        return len(History((columns, 256))._levels)

    level_bytes = history.PER_LEVEL * 256 * 4  # of one column
    most = history.MOST_BYTES // (5 * level_bytes)  # columns of which five levels fit
    assert (levels(1), levels(most), levels(most + 1), levels(10 * most)) == (
        history.LEVELS,
        5,
        4,
        history.LEAST_LEVELS,
    )
    assert len(History((0, 5))._levels) == history.LEVELS


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


def dispersion(*slices: list[int]) -> float:
    """The first level's dispersion of one column, whose slices have these cells."""
    kept = History((1, len(slices[0])))
    for at, cells in enumerate(slices):
        kept.add(np.array([cells]), float(at))
    return float(kept.dispersions[1][0, 0])


FEW, MANY = [40, 60], [60, 40]


def test_pairs_of_neighbours_are_told_by_hand() -> None:
    """Of two cells each pair has one degree of freedom, and a statistic of 8: 4 x 10**2 / 50."""
    alternating = [FEW, MANY] * 6
    assert dispersion(*alternating[:11]) == pytest.approx(8.0)
    assert dispersion(*alternating[:12]) == pytest.approx(8.0)


def test_nine_degrees_of_freedom_are_the_fewest_that_tell() -> None:
    alternating = [FEW, MANY] * 6
    assert np.isnan(dispersion(*alternating[:10]))  # nine pairs less the one that differs most
    assert not np.isnan(dispersion(*alternating[:11]))


def test_six_slices_are_the_fewest_that_tell() -> None:
    many = [[40, 60, 50, 50], [60, 40, 50, 50]] * 3
    assert np.isnan(dispersion(*many[: history.LEAST_PAIRS]))
    assert dispersion(*many) > 1


def test_the_pair_that_differs_most_for_its_degrees_of_freedom_is_left_out() -> None:
    """The last pair has the largest statistic, and two degrees of freedom."""
    alternating = [[*FEW, 0], [*MANY, 0]] * 6
    last = 3**2 / 77 + 7**2 / 113 + 10
    assert dispersion(*alternating[:11], [37, 53, 10]) == pytest.approx((9 * 8 + last) / (9 + 2))


@pytest.mark.parametrize(("filled", "is_told"), [(11, True), (12, False)])
def test_pairs_that_fill_fewer_cells_than_there_are_tell_nothing(filled: int, is_told: bool) -> None:
    """Twelve slices of one cell each: ten degrees of freedom, of ten or eleven that all the cells would have."""
    slices = (100 * np.eye(12, dtype=np.int64)[np.arange(12) % filled]).tolist()
    assert np.isfinite(dispersion(*slices)) == is_told


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([[50, 50], [50, 50]], 1.0),
        ([[46, 54], [54, 46]], 1.0),  # 1.28
        ([[142, 158], [158, 142]], 1.0),  # 1.71
        ([[45, 55], [55, 45]], 2.0),
    ],
)
def test_what_is_not_significantly_more_is_one(slices: list[list[int]], expected: float) -> None:
    """Of ten degrees of freedom 1.89 is."""
    assert dispersion(*slices * 6) == pytest.approx(expected)
