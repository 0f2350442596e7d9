from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.metrics.counters import REFUSALS, CountersShape, latency_bucket, new_counters
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.routed import RoutedTotals, totals


def answer(recorder: Recorder, *took_s: float, named: bool = False) -> None:
    arrived = [10.0 - took for took in took_s]
    recorder.batch(
        arrived_s=arrived,
        rows=1,
        started_s=10.0,
        ended_s=10.0,
        features_s=0.0,
        infer_s=0.0,
        named_s=arrived if named else (),
    )


def test_what_named_the_version_is_left_out() -> None:
    counters = new_counters(CountersShape())
    recorder = Recorder(counters)
    for _ in range(4):
        recorder.routed()
    answer(recorder, 0.001, 0.5)
    answer(recorder, 0.001, named=True)
    recorder.hit(arrived_s=9.0, rows=1, started_s=10.0, ended_s=10.0)
    recorder.hit(arrived_s=9.0, rows=1, started_s=10.0, ended_s=10.0, is_named=True)
    recorder.refused("internal", is_named=True)
    recorder.refused("model_failed")
    found = totals([counters, counters])
    assert (found.requests, found.failed, found.answered, found.by_key) == (8, 2, 6, (0, 0, 0))
    cells = {at: count for at, count in enumerate(found.latency) if count}
    assert cells == {latency_bucket(1_000_000): 2, latency_bucket(500_000_000): 2, latency_bucket(1_000_000_000): 2}


@pytest.mark.parametrize(
    "reason", [reason for reason in REFUSALS if reason not in ("model_failed", "internal", "invalid_input")]
)
def test_what_is_not_the_versions_fault_is_no_failure(reason: str) -> None:
    counters = new_counters(CountersShape())
    Recorder(counters).refused(reason)
    Recorder(counters).refused(reason, is_named=True)
    assert totals([counters]).failed == 0
    assert counters.named_failed[0] == 0


def test_before_anything_came_there_is_nothing() -> None:
    found = totals([new_counters(CountersShape())])
    assert (found.requests, found.failed, found.answered) == (0, 0, 0)


STEPS: list[Callable[[Recorder, bool], None]] = [
    lambda recorder, named: answer(recorder, 0.01, named=named),
    lambda recorder, named: recorder.refused("internal", is_named=named),
    lambda recorder, named: recorder.hit(arrived_s=9.0, rows=1, started_s=10.0, ended_s=10.0, is_named=named),
]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.booleans())))
def test_totals_are_those_of_the_routed_alone(steps: list[tuple[Callable[[Recorder, bool], None], bool]]) -> None:
    every, routed = new_counters(CountersShape()), new_counters(CountersShape())
    before = RoutedTotals(0, 0, (), ())
    for step, is_named in steps:
        step(Recorder(every), is_named)
        if not is_named:
            step(Recorder(routed), False)
        found = totals([every])
        assert (found.failed, found.answered) >= (before.failed, before.answered)
        before = found
    assert totals([every]) == totals([routed])
