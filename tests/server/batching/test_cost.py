import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.batching.cost import Cost, CostModel, batch_rows, finish_s, finish_singly_s, is_patient

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


@pytest.mark.parametrize("times", [3.0, 10.0, 1000.0])
def test_probes_bring_a_line_that_is_too_high_down(times: float) -> None:
    model = CostModel(Cost(times * TRUE.base_s, times * TRUE.row_s), 64)
    probes = 0
    while model.of(1) > 2 * TRUE.of(1):
        model.update(1, TRUE.of(1), is_probe=True)
        probes += 1
    assert probes <= 40
    for _ in range(30):
        model.update(1, TRUE.of(1), is_probe=True)
    assert model.of(1) >= TRUE.of(1)


def test_a_probe_that_took_longer_counts_as_any_batch() -> None:
    probed, usual = CostModel(TRUE, 64), CostModel(TRUE, 64)
    probed.update(10, 2 * TRUE.of(10), is_probe=True)
    usual.update(10, 2 * TRUE.of(10))
    assert probed.cost == usual.cost


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


def test_the_first_batch_after_a_warm_up_keeps_the_line() -> None:
    model = CostModel(TRUE, 64)
    model.update(10, 6.0)
    assert [model.of(rows) for rows in (10, 64)] == pytest.approx([6.0, 33.0])


def test_the_first_batch_without_a_warm_up_is_on_the_line() -> None:
    model = CostModel(UNKNOWN, 64)
    model.update(10, 6.0)
    assert model.of(10) == pytest.approx(6.0)


def test_batches_of_one_row_keep_the_slope() -> None:
    model = CostModel(TRUE, 64)
    for _ in range(2000):
        model.update(1, 1.5)
    assert model.of(1) == pytest.approx(1.5)
    assert model.cost.row_s == pytest.approx(0.5, rel=0.15)


def test_a_lasting_slowdown_is_believed() -> None:
    model = CostModel(TRUE, 64)
    for _ in range(60):
        model.update(10, 60.0)
    assert model.of(10) > 3 * TRUE.of(10)


def test_a_batch_counts_as_three_times_what_was_expected_at_most() -> None:
    just, far = CostModel(TRUE, 64), CostModel(TRUE, 64)
    just.update(10, 3 * TRUE.of(10))
    far.update(10, 1e6)
    assert far.cost == just.cost
    assert just.of(10) > TRUE.of(10)
    almost = CostModel(TRUE, 64)
    almost.update(10, 2.5 * TRUE.of(10))
    assert almost.of(10) < just.of(10)


def test_a_batch_without_rows_comes_first() -> None:
    model = CostModel(UNKNOWN, 64)
    model.update(0, 1.0)
    assert model.of(0) == pytest.approx(1.0)
    assert model.cost.row_s == 0


@pytest.mark.parametrize(("objective_s", "rows"), [(float("inf"), 64), (10.0, 8), (0.5, 1), (1e6, 64)])
def test_a_batch_takes_half_of_the_objective(objective_s: float, rows: int) -> None:
    assert batch_rows(TRUE, objective_s, 64) == rows


@pytest.mark.parametrize(
    ("rows", "end_s"),
    [(0, 11.0), (1, 11.5), (4, 13.0), (5, 16.0), (8, 16.0), (9, 19.0)],
)
def test_behind_a_full_batch_the_next_counts_as_full(rows: int, end_s: float) -> None:
    assert finish_s(10.0, TRUE, rows=rows, largest=4) == end_s


def test_singly_each_request_has_the_price_of_a_batch() -> None:
    assert finish_singly_s(10.0, Cost(2.0, 0.5), rows=6, requests=3) == 19.0


def test_a_full_batch_ahead_has_its_own_price() -> None:
    assert finish_s(10.0, Cost(2.0, 0.5), rows=5, largest=4) == 18.0
    assert finish_s(10.0, Cost(2.0, 0.5), rows=4, largest=4) == 14.0


@pytest.mark.parametrize(
    ("end_s", "own_s", "is_fine"),
    [
        (1.0, 1.0, True),  # nothing waits before it
        (9.9, 9.9, True),  # its own run takes nearly all there is
        (5.5, 1.0, True),  # waits for half of the nine seconds beside its own run
        (5.6, 1.0, False),
        (10.0, 1.0, False),
    ],
)
def test_half_of_what_a_deadline_leaves_may_be_waited(end_s: float, own_s: float, is_fine: bool) -> None:
    assert is_patient(100.0, 100.0 + end_s, 110.0, own_s=own_s) is is_fine


def test_a_model_that_runs_single_rows_keeps_its_slope() -> None:
    model = CostModel(TRUE, 1)
    model.update(1, TRUE.of(1))
    assert model.cost.row_s == pytest.approx(TRUE.row_s)


class Reference:
    """The same line from all batches kept with their weights, instead of from running averages."""

    def __init__(self, cost: Cost, max_rows: int) -> None:
        self.cost = cost
        self.slope_s = cost.row_s
        self.batches = [(1.0, cost.of(1), 0.5), (float(max_rows), cost.of(max_rows), 0.5)]
        self.seen = 50

    def update(self, rows: int, took_s: float) -> None:
        self.seen += 1
        weight = max(0.02, 1 / self.seen)
        took_s = min(took_s, 3.0 * self.cost.of(rows))
        self.batches = [(n, s, w * (1 - weight)) for n, s, w in self.batches] + [(float(rows), took_s, weight)]
        mean_rows = sum(n * w for n, _, w in self.batches)
        mean_s = sum(s * w for _, s, w in self.batches)
        variance = sum((n - mean_rows) ** 2 * w for n, _, w in self.batches)
        covariance = sum((n - mean_rows) * (s - mean_s) * w for n, s, w in self.batches)
        stiffness = 0.001 * mean_rows**2
        row_s = (covariance + stiffness * self.slope_s) / (variance + stiffness)
        row_s = min(max(row_s, 0.0), mean_s / mean_rows)
        self.slope_s += 0.02 * (row_s - self.slope_s)
        self.cost = Cost(max(0.0, mean_s - row_s * mean_rows), row_s)


@given(
    st.integers(2, 64),
    st.lists(st.tuples(st.integers(1, 64), st.floats(0.01, 100.0)), min_size=1, max_size=60),
)
def test_running_averages_give_the_line_of_all_weighted_batches(
    max_rows: int, batches: list[tuple[int, float]]
) -> None:
    model, reference = CostModel(TRUE, max_rows), Reference(TRUE, max_rows)
    for rows, took_s in batches:
        model.update(rows, took_s)
        reference.update(rows, took_s)
        for asked in (1, 64):
            assert model.of(asked) == pytest.approx(reference.cost.of(asked), rel=1e-6, abs=1e-9)
