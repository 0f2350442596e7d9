import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.batching.cost import Cost, CostModel

UNKNOWN = Cost(0.0, 0.0)
TRUE = Cost(1.0, 0.5)


@pytest.mark.parametrize(
    ("span_s", "most", "rows"), [(3.0, 64, 4), (3.4, 64, 4), (1.2, 64, 1), (0.1, 64, 1), (99.0, 64, 64), (3.0, 2, 2)]
)
def test_rows_within(span_s: float, most: int, rows: int) -> None:
    assert TRUE.rows_within(span_s, most) == rows


def test_a_cost_without_slope_bounds_no_rows() -> None:
    assert Cost(2.0, 0.0).rows_within(2.0, 9) == 9
    assert Cost(2.0, 0.0).rows_within(1.0, 9) == 1


def test_it_starts_from_the_warm_up() -> None:
    assert CostModel(TRUE, 64).cost == TRUE


@pytest.mark.parametrize("start", [UNKNOWN, Cost(0.1, 0.05), Cost(9.0, 4.0), TRUE])
def test_it_finds_the_line(start: Cost) -> None:
    sizes, model = random.Random(1), CostModel(start, 64)
    for _ in range(1000):
        rows = sizes.randint(1, 64)
        model.update(rows, TRUE.of(rows))
    assert [model.of(rows) for rows in (1, 30, 64)] == pytest.approx([TRUE.of(rows) for rows in (1, 30, 64)], rel=0.1)


def test_batches_of_one_size_move_the_line_and_keep_its_slope() -> None:
    model = CostModel(TRUE, 16)
    for _ in range(1000):
        model.update(8, 6.0)
    assert model.of(8) == pytest.approx(6.0)
    assert model.cost.row_s == pytest.approx(0.5, rel=0.1)


def test_one_pause_is_no_slowdown() -> None:
    model = CostModel(TRUE, 64)
    model.update(32, 1e6)
    assert model.of(32) < 1.1 * TRUE.of(32)


def test_a_line_too_high_is_doubted_down() -> None:
    model = CostModel(Cost(1e3, 1e2), 64)
    for _ in range(1000):
        model.doubt()
    assert model.of(64) < 1e-3


@given(
    start=st.builds(Cost, st.floats(0, 10), st.floats(0, 1)),
    batches=st.lists(st.tuples(st.integers(0, 64), st.floats(0, 1e3)), max_size=60),
)
def test_neither_part_is_ever_negative(start: Cost, batches: list[tuple[int, float]]) -> None:
    model = CostModel(start, 64)
    for rows, took_s in batches:
        model.update(rows, took_s)
        assert model.cost.base_s >= 0
        assert 0 <= model.cost.row_s < float("inf")
