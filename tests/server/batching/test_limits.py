from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import (
    DEVICE_ROWS,
    THREADED_ROWS,
    UNIT_ROWS,
    BatchLimits,
    ModelLimits,
    resolve,
    slice_rows,
)
from penstock_server.errors import InvalidInputError

BUDGET_S = 0.001


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"max_rows": 0}, "max_rows is 0, expected at least 1"),
        ({"queue_rows": 0}, "queue_rows is 0, expected at least 1"),
        ({"queue_requests": -1}, "queue_requests is -1, expected at least 1"),
        ({"queue_mib": 0}, "queue_mib is 0, expected at least 1"),
        ({"max_delay_s": -1.0}, "max_delay_s is -1.0, expected 0 or more seconds"),
        ({"max_delay_s": float("nan")}, "max_delay_s is nan"),
        ({"max_delay_s": inf}, "max_delay_s is inf"),
        ({"objective_ms": 0.0}, "objective_ms is 0.0, expected more than 0 milliseconds"),
        ({"batching": "row"}, "batching is 'row', expected 'rows' or 'request'"),
        ({"models": {"churn": ModelLimits(queue_mib=0)}}, "batching.models.churn.queue_mib is 0"),
    ],
)
def test_limits_check_themselves(limits: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        BatchLimits(**limits)


def test_the_least_that_is_taken() -> None:
    assert BatchLimits(1, 0.0, 1, 1, 1, objective_ms=0.5).objective_s == 0.0005


def test_a_model_has_its_own_limits() -> None:
    limits = BatchLimits(8, 0.5, 99, objective_ms=20.0, models={"fraud": ModelLimits(max_rows=2, objective_ms=5.0)})
    assert limits.of("fraud") == BatchLimits(2, 0.5, 99, objective_ms=5.0)
    assert limits.of("other") is limits
    alone = BatchLimits(batching="rows", models={"fraud": ModelLimits(batching="request")})
    assert (alone.of("fraud").batching, alone.of("other").batching) == ("request", "rows")
    assert (limits.of("fraud").objective_s, BatchLimits().objective_s) == (0.005, inf)


@pytest.mark.parametrize(
    ("max_rows", "cost", "rows", "is_inline"),
    [
        (None, Cost(20e-6, 1e-6), 980, True),  # as far as the budget allows
        (None, Cost(0.0, 0.0), 4096, True),  # unknown, or next to nothing
        (None, Cost(300e-6, 10e-6), 70, True),
        (None, Cost(900e-6, 10e-6), THREADED_ROWS, False),
        (None, Cost(0.02, 0.0), THREADED_ROWS, False),
        (None, Cost(0.0, 0.001), 50, False),  # 50 ms
        (None, Cost(0.0, 0.02), 4, False),  # four rows, since one takes long already
        (None, Cost(0.1, 0.001), THREADED_ROWS, False),  # a batch costs hardly more than a row
        (8, Cost(900e-6, 10e-6), 8, True),  # what is set stays, and decides
        (512, Cost(100e-6, 10e-6), 512, False),
        (1, Cost(BUDGET_S, 0.0), 1, True),  # the budget itself is within it
    ],
)
def test_what_a_cost_makes_of_the_limits(max_rows: int | None, cost: Cost, rows: int, is_inline: bool) -> None:
    assert resolve(BatchLimits(max_rows, queue_rows=7), cost, BUDGET_S) == (
        BatchLimits(rows, queue_rows=7),
        is_inline,
    )


@given(base_s=st.floats(0, 0.01), row_s=st.floats(0, 1e-4))
def test_a_chosen_inline_batch_keeps_the_budget(base_s: float, row_s: float) -> None:
    cost = Cost(base_s, row_s)
    limits, is_inline = resolve(BatchLimits(), cost, BUDGET_S)
    assert limits.most_rows >= UNIT_ROWS
    assert not is_inline or cost.of(limits.most_rows) <= BUDGET_S * (1 + 1e-9)


@pytest.mark.parametrize(
    ("max_rows", "cost", "rows"),
    [
        (512, Cost(0.0, 1e-3), 512),  # a batch, although the budget allows one row
        (8, Cost(1e-4, 1e-6), 900),  # batches are set to be smaller than the budget allows
        (8, Cost(0.0, 0.0), 4096),
    ],
)
def test_a_slice_is_a_batch_or_what_the_budget_allows(max_rows: int, cost: Cost, rows: int) -> None:
    assert slice_rows(BatchLimits(max_rows), cost, 1e-3) == rows


@pytest.mark.parametrize(
    ("max_rows", "cost", "most_rows", "rows"),
    [
        (None, Cost(1e-4, 1e-7), None, DEVICE_ROWS),  # what would run inline on the CPU
        (None, Cost(1e-4, 1e-7), 700, 700),  # as much as the device has memory for
        (None, Cost(0.0, 1e-4), None, 500),  # 50 ms
        (None, Cost(0.0, 1e-4), 700, 500),
        (8, Cost(1e-4, 1e-7), 700, 8),
        (900, Cost(1e-4, 1e-7), 700, 700),
    ],
)
def test_batches_on_a_device_run_on_a_thread_and_may_be_large(
    max_rows: int | None, cost: Cost, most_rows: int | None, rows: int
) -> None:
    limits, is_inline = resolve(BatchLimits(max_rows), cost, BUDGET_S, is_on_device=True, most_rows=most_rows)
    assert (limits.max_rows, is_inline) == (rows, False)
    assert slice_rows(limits, cost, BUDGET_S, is_most=True) == rows, "there may be no memory for more"


@pytest.mark.parametrize(
    ("max_rows", "has_device", "rows"),
    [(None, False, THREADED_ROWS), (None, True, DEVICE_ROWS), (8, False, 8), (8, True, 8)],
)
def test_what_is_warmed_up(max_rows: int | None, has_device: bool, rows: int) -> None:
    assert BatchLimits(max_rows).warmed_rows(has_device=has_device) == rows


def test_what_a_models_files_declare_stands_between_its_own_settings_and_the_others() -> None:
    limits = BatchLimits(max_rows=10, queue_rows=20, models={"m": ModelLimits(max_rows=30)})
    declared = ModelLimits(max_rows=8, queue_rows=9, ready_rows=4)
    found = limits.of("m", declared)
    assert (found.max_rows, found.queue_rows, found.ready_rows) == (30, 9, 4)
    other = limits.of("n", declared)
    assert (other.max_rows, other.queue_rows, other.queue_requests) == (8, 9, limits.queue_requests)
