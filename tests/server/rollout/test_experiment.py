import numpy as np
import pytest

from penstock_server.rollout.evidence import VersionTotals
from penstock_server.rollout.experiment import ArmTotals, Experiment, compared, slow_of

WEIGHTS = {"1": 0.7, "2": 0.2, "3": 0.1}


def of(totals: dict[str, ArmTotals], weights: dict[str, float] | None = None) -> Experiment:
    return compared("m", "1", WEIGHTS if weights is None else weights, totals, 5.0)


def arms(requests: tuple[int, ...], errors: tuple[int, ...] = (0, 0, 0)) -> dict[str, ArmTotals]:
    return {version: ArmTotals(*each) for version, *each in zip(WEIGHTS, requests, errors, strict=True)}


@pytest.mark.parametrize(
    ("requests", "is_mismatched"),
    [((0, 0, 0), False), ((7000, 2000, 1000), False), ((70_000, 18_000, 10_000), True), ((700, 200, 0), True)],
)
def test_requests_that_are_not_shared_by_the_weights_show(requests: tuple[int, ...], is_mismatched: bool) -> None:
    found = of(arms(requests))
    assert found.is_mismatched is is_mismatched
    shares = [arm.exposure for arm in found.arms]
    assert shares == [each / sum(requests) if sum(requests) else None for each in requests]


def test_weights_that_are_kept_are_called_a_mismatch_no_more_often_than_said() -> None:
    """At every look of hour-long experiments: of 400, with a chance of 0.001 each, 0.4 on average and hardly ever 3."""
    chance = np.random.default_rng(7)
    alarms = 0
    for _ in range(400):
        counts = np.cumsum(chance.multinomial(300, list(WEIGHTS.values()), size=30), axis=0)
        alarms += any(of(arms(tuple(map(int, row)))).is_mismatched for row in counts)
    assert alarms <= 2


def test_each_canary_is_compared_with_the_champion() -> None:
    found = of(arms((70_000, 20_000, 10_000), (700, 400, 100)))
    assert [(arm.version, arm.role, arm.weight) for arm in found.arms] == [
        ("1", "champion", 0.7), ("2", "canary", 0.2), ("3", "canary", 0.1),
    ]  # fmt: skip
    champion, worse, same = found.arms
    assert champion.comparisons == ()
    (errors,) = worse.comparisons
    assert (errors.metric, errors.kind, errors.version, errors.champion) == ("errors", "ratio", 0.02, 0.01)
    assert errors.low is not None
    assert errors.high is not None
    assert 1.5 < errors.low < 2 < errors.high < 2.7
    (errors,) = same.comparisons
    assert errors.low is not None
    assert errors.high is not None
    assert errors.low < 1 < errors.high


def test_labels_values_and_latencies_are_compared_where_they_are_known() -> None:
    slow = {"p50": 500, "p95": 50, "p99": 10}
    ours = ArmTotals(1000, 0, 1000, slow, 800, 80, (500.0, 1000.0, 2500.0))
    theirs = ArmTotals(1000, 0, 1000, slow, 800, 40, (500.0, 500.0, 1000.0))
    found = of({"1": theirs, "2": ours}, {"1": 0.5, "2": 0.5})
    by_metric = {each.metric: each for each in found.arms[1].comparisons}
    assert list(by_metric) == ["errors", "p50", "p95", "p99", "accuracy", "value"]
    accuracy, value = by_metric["accuracy"], by_metric["value"]
    assert (accuracy.version, accuracy.champion) == (0.9, 0.95)
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert 1 < accuracy.low < 2 < accuracy.high
    assert (value.kind, value.version, value.champion) == ("difference", 2.0, 1.0)
    assert value.low is not None
    assert 0 < value.low < 1
    assert (by_metric["errors"].low, by_metric["errors"].high) == (0.0, None)
    assert by_metric["p50"].version == 0.5


def test_nothing_is_compared_with_a_champion_that_gets_nothing() -> None:
    found = of(arms((0, 600, 400)), {"1": 0.0, "2": 0.6, "3": 0.4})
    assert [arm.comparisons for arm in found.arms] == [(), (), ()]
    assert not found.is_mismatched


def test_slow_requests_are_those_above_a_cell() -> None:
    assert slow_of(VersionTotals(10, 0, (1, 2, 3, 4)), {"p50": 1, "p99": 3}) == {"p50": 7, "p99": 0}


def test_errors_of_keys_that_fail_again_have_an_interval_of_their_own() -> None:
    ours, theirs = ArmTotals(1000, 400, first_errors=10), ArmTotals(1000, 10, first_errors=10)
    errors, first = of({"1": theirs, "2": ours}, {"1": 0.5, "2": 0.5}).arms[1].comparisons
    assert (errors.metric, first.metric, first.version, first.champion) == ("errors", "first_errors", 0.01, 0.01)
    assert errors.low is not None
    assert first.low is not None
    assert first.low < 1 < errors.low
