import pytest

from penstock_server.batching.cost import Cost, batch_rows, finish_s, finish_singly_s, is_patient

COST = Cost(1.0, 0.5)


@pytest.mark.parametrize(("objective_s", "rows"), [(float("inf"), 64), (10.0, 8), (0.5, 1), (1e6, 64)])
def test_a_batch_takes_half_of_the_objective(objective_s: float, rows: int) -> None:
    assert batch_rows(COST, objective_s, 64) == rows


@pytest.mark.parametrize(
    ("rows", "end_s"),
    [(0, 11.0), (1, 11.5), (4, 13.0), (5, 16.0), (8, 16.0), (9, 19.0)],
)
def test_behind_a_full_batch_the_next_counts_as_full(rows: int, end_s: float) -> None:
    assert finish_s(10.0, COST, rows=rows, largest=4) == end_s


def test_singly() -> None:
    assert finish_singly_s(10.0, COST, rows=6, requests=3) == 16.0


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
