import numpy as np
import pytest

from bench.judges import rules
from bench.judges.rules import NEVER
from bench.judges.worlds import EDGES_MS, MINUTES, RAMP, Counts, Seen, Traffic

CELLS = len(EDGES_MS) + 1
FAST, SLOW = 10, 28
"""Cells below 100 ms and above 500 ms."""


def seen(errors: list[int], slow: list[int] | None = None, requests: int = 1000) -> Seen:
    """A canary with these errors and slow requests in its first minutes, and a champion without any."""
    failed, late = (np.zeros((2, 1, MINUTES), np.int64) for _ in range(2))
    failed[1, 0, : len(errors)] = errors
    late[1, 0, : len(slow or [])] = slow or []
    latency = np.zeros((2, 1, MINUTES, CELLS), np.int64)
    latency[..., FAST], latency[..., SLOW] = requests - late, late
    before = np.zeros(CELLS, np.int64)
    before[FAST] = 1000
    return Seen(RAMP, np.full((2, 1, MINUTES), requests), failed, latency, before, failed[0])


@pytest.mark.parametrize(
    ("rule", "errors", "slow", "expected"),
    [
        (rules.argo, [10, 11], [], 2),
        (rules.argo, [10], [0, 0, 11], 3),
        (rules.argo, [10] * MINUTES, [], NEVER),
        (rules.flagger, [11, 0, 11, 0, 11, 11, 11], [], 7),
        (rules.flagger, [11] * 4, [], NEVER),
        (rules.argo_example, [51] * 20, [], 20),
        (rules.argo_example, [51] * 19 + [0], [], NEVER),
        (rules.sagemaker, [11] * 20, [], 20),
        (rules.sagemaker, [11] * 10 + [0] * 10 + [11] * 10, [], NEVER),
        (rules.sagemaker, [], [300] * 10, 10),
        (rules.sagemaker, [], [300] * 5, NEVER),
        (rules.kayenta, [10, 12] * 5, [], 10),
        (rules.kayenta, [0] * 11 + [10], [], NEVER),
        (rules.z_test, [2, 2], [], 2),
        (rules.z_test, [0], [100], 1),
        (rules.z_test, [], [], NEVER),
        (rules.penstock, [0, 8], [], 2),
        (rules.penstock, [0, 0, 0, 0], [0, 0, 8], 3),
        (rules.penstock, [], [], NEVER),
    ],
)
def test_when_each_rule_rolls_back(rule, errors: list[int], slow: list[int], expected: float) -> None:
    assert rule(seen(errors, slow)).tolist() == [expected]


def test_a_rule_without_requests_says_nothing() -> None:
    nothing = seen([], requests=0)
    for judge in rules.JUDGES:
        assert judge.rule(nothing).tolist() == [NEVER], judge.name


def test_errors_by_key_are_the_first_and_the_fourth() -> None:
    hour = seen([40, 40, 40])
    one_key = np.zeros((3, *hour.errors.shape), np.int64)
    one_key[:, 1, 0, 0] = 1, 1, 32
    by_key = Seen(
        hour.shares, hour.requests, hour.errors, hour.latency, hour.latency_before, hour.errors_before, one_key
    )
    assert rules.penstock_by_error(by_key).tolist() == [1]
    assert rules.penstock(by_key).tolist() == [NEVER]


def test_errors_that_come_together_count_less() -> None:
    hour = seen([5])
    together = Seen(
        hour.shares, hour.requests, hour.errors, hour.latency, hour.latency_before,
        20 * np.random.default_rng(0).poisson(2, (1, MINUTES)),
    )  # fmt: skip
    assert rules.penstock(together).tolist() == [1]
    assert rules.penstock_by_time(together).tolist() == [NEVER]


def one_cell(at: int) -> Counts:
    return 100 * np.eye(CELLS, dtype=np.int64)[at]


def test_latencies_from_cells() -> None:
    assert rules.p99_ms(one_cell(FAST)) == pytest.approx(
        EDGES_MS[FAST - 1] + 0.99 * (EDGES_MS[FAST] - EDGES_MS[FAST - 1])
    )
    assert rules.p99_ms(one_cell(CELLS - 1)) == EDGES_MS[-1]
    assert rules.p99_ms(np.zeros(CELLS, np.int64)) == rules.mean_ms(np.zeros(CELLS, np.int64)) == 0
    assert rules.mean_ms(one_cell(FAST) + one_cell(FAST + 1)) == pytest.approx(
        (EDGES_MS[FAST - 1] + 2 * EDGES_MS[FAST] + EDGES_MS[FAST + 1]) / 4
    )


def test_an_equal_version_is_shown_to_be_as_good() -> None:
    when = rules.promoted(Traffic()(np.random.default_rng(0), 50))
    assert np.median(when) < 30
    twice = rules.promoted(Traffic(worse=2.0)(np.random.default_rng(0), 50))
    assert np.isfinite(twice).mean() <= 0.05
