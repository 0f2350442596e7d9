"""How often pairs are called wrongly, and from which change on, is simulated in `bench.drift.dependence`."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock_server.drift.baseline import Baseline, ClassBaseline, NumberBaseline
from penstock_server.drift.dependence import (
    JointReference,
    association,
    dependence_index,
    joint_drift,
    joint_reference_of,
    raked,
)
from penstock_server.drift.joint_baseline import GroupedColumn, JointBaseline, JointTable
from penstock_server.drift.report import DriftRules, JointDrift

GROUPS = (0, 1, -1, -1, -1)
PAIR, SEGMENT = (4000, 1000, 1000, 4000), (4500, 500, 2500, 2500)


def reference(dispersion: float = 1.0) -> JointReference:
    """Two dependent columns of two groups, and a class whose share depends on the first."""
    columns = tuple(NumberBaseline(name, (0.0,), (5000, 5000), (0.0, 0.0)) for name in ("x", "y"))
    joint = JointBaseline(
        (
            GroupedColumn("x", GROUPS, ("x < 0", "x >= 0")),
            GroupedColumn("y", GROUPS, ("y < 0", "y >= 0")),
            GroupedColumn("", GROUPS, ("no", "yes")),
        ),
        (JointTable(0, 1, PAIR, (dispersion,)),),
        (JointTable(0, 2, SEGMENT, (dispersion, dispersion)),),
    )
    found = joint_reference_of(
        Baseline(columns, "digest", predictions=ClassBaseline("label", (0, 1), (7000, 3000)), joint=joint)
    )
    assert found is not None
    return found


def drift(pair: Any, segment: Any, *, parts: int = 10, dispersion: float = 1.0) -> JointDrift:
    """Of a window of so many equal parts."""
    words = np.array([sum(pair), *pair, *segment])
    counts = np.tile(words, (parts, 1)).reshape(parts, len(words))
    return joint_drift(reference(dispersion), counts, DriftRules())


def test_a_baseline_without_tables_has_no_reference() -> None:
    assert joint_reference_of(Baseline((), "digest")) is None


def test_the_same_rows_do_not_drift() -> None:
    found = drift((40, 10, 10, 40), (45, 5, 25, 25))
    assert found.rows == 1000
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.rows, pair.rows_needed, pair.drifted) == ("x", "y", 1000, 100, False)
    assert pair.association_reference == pytest.approx(0.6)
    assert pair.association == pytest.approx(0.6)
    assert pair.reference == pair.current == (0.4, 0.1, 0.1, 0.4)
    assert (pair.first_labels, pair.second_labels) == (("x < 0", "x >= 0"), ("y < 0", "y >= 0"))
    low, high = found.segments
    assert (low.column, low.segment, low.rows, low.drifted) == ("x", "x < 0", 500, False)
    assert (low.labels, low.reference, low.current) == (("no", "yes"), (0.9, 0.1), (0.9, 0.1))
    assert (high.share_reference, high.share) == (0.5, 0.5)


def test_margins_alone_are_no_drift_of_a_pair() -> None:
    """Most rows are high now in both columns; the odds ratio is 16 as before."""
    (pair,) = drift((10, 20, 20, 640), (45, 5, 25, 25)).pairs
    assert pair.drifted is False
    assert pair.psi_unbiased == pytest.approx(0, abs=0.01)
    assert pair.association == pytest.approx(0.303, abs=0.001)


def test_columns_that_no_longer_belong_together_drift() -> None:
    (pair,) = drift((25, 25, 25, 25), (45, 5, 25, 25)).pairs
    assert pair.drifted is True
    assert pair.association == 0
    assert pair.p_value is not None
    assert pair.p_value < 1e-9


def test_a_segment_drifts_alone() -> None:
    low, high = drift((40, 10, 10, 40), (45, 5, 45, 5)).segments
    assert (low.drifted, high.drifted) == (False, True)
    assert high.current == (0.9, 0.1)


@pytest.mark.parametrize("parts", [0, 1])
def test_few_rows_are_not_judged(parts: int) -> None:
    found = drift((4, 1, 1, 4), (4, 1, 2, 3), parts=parts)
    assert found.pairs[0].drifted is found.pairs[0].p_value is found.pairs[0].association is None
    assert [one.drifted for one in found.segments] == [None, None]


def test_rows_that_hang_together_are_worth_fewer() -> None:
    """Each part has rows of one kind only."""
    words = np.array([[200, *(100 * 2 * np.eye(4, dtype=int)[at % 4]), 0, 0, 0, 0] for at in range(8)])
    (pair,) = joint_drift(reference(), words, DriftRules()).pairs
    assert pair.rows == 1600
    assert pair.drifted is None


def test_training_rows_that_vary_in_time_are_tolerant() -> None:
    changed = (36, 14, 14, 36)
    assert drift(changed, (45, 5, 25, 25), parts=100).pairs[0].drifted is True
    assert drift(changed, (45, 5, 25, 25), parts=100, dispersion=50.0).pairs[0].drifted is False


TABLES = arrays(np.int64, (3, 4), elements=st.integers(1, 1000))


@given(TABLES, TABLES)
def test_raking_keeps_odds_ratios_and_gives_the_margins(table: Any, other: Any) -> None:
    rows, columns = other.sum(axis=1) / other.sum(), other.sum(axis=0) / other.sum()
    found = raked(table.astype(float), rows, columns)
    assert np.allclose(found.sum(axis=1), rows, atol=1e-4)
    assert np.allclose(found.sum(axis=0), columns, atol=1e-4)

    def odds(of: Any) -> Any:
        return of[:-1, :-1] * of[1:, 1:] / (of[1:, :-1] * of[:-1, 1:])

    assert np.allclose(np.log(odds(found)), np.log(odds(table)), atol=1e-6)


@given(TABLES, arrays(np.float64, 3, elements=st.floats(0.1, 10)), arrays(np.float64, 4, elements=st.floats(0.1, 10)))
def test_multiplied_rows_and_columns_have_no_index(table: Any, rows: Any, columns: Any) -> None:
    scaled = table * 1_000_000
    moved = np.round(scaled * rows[:, None] * columns).astype(np.int64) + 1
    index, freedom = dependence_index(scaled, moved, np.ones((3, 4), np.bool_))
    assert freedom == 6
    assert abs(float(index)) < 1e-4


def test_a_column_of_one_value_has_no_freedom() -> None:
    table = np.array([[5, 0], [7, 0]])
    index, freedom = dependence_index(table, table, np.ones((2, 2), np.bool_))
    assert (float(index), float(freedom)) == (pytest.approx(0), 0)
    assert np.isnan(association(table))


@pytest.mark.parametrize(
    ("table", "expected"), [([[5, 0], [0, 5]], 1.0), ([[5, 5], [5, 5]], 0.0), ([[10, 20, 30], [30, 20, 10]], 0.4082)]
)
def test_association_is_cramers_v(table: Any, expected: float) -> None:
    assert float(association(np.array(table))) == pytest.approx(expected, abs=1e-4)
