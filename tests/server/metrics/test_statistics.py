from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock_server.errors import NotFoundError
from penstock_server.metrics.counters import SharedCounters
from penstock_server.metrics.prometheus import VersionSnapshot
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.statistics import answer, statistics
from tests.examples import examples

NewCounters = Callable[..., SharedCounters]
MS_NS = 1_000_000


def version_of(*workers: SharedCounters, name: str = "m", number: str = "1") -> VersionSnapshot:
    return VersionSnapshot(name, number, ("champion",), None, workers)


def batch(counters: SharedCounters, requests: int, rows: int, ended_s: float = 10.004) -> None:
    """Each request waited 1 ms; features took 1 ms and the graph 2, and 1 ms passed until the answer."""
    Recorder(counters).batch(
        arrived_s=[ended_s - 0.005] * requests,
        rows=rows,
        started_s=ended_s - 0.004,
        ended_s=ended_s,
        features_s=0.001,
        infer_s=0.002,
    )


def test_workers_are_added_up(new_counters: NewCounters) -> None:
    one, two = new_counters(), new_counters()
    batch(one, requests=2, rows=5)
    batch(two, requests=3, rows=6, ended_s=19.0)
    batch(two, requests=1, rows=1, ended_s=20.0)
    for _ in range(2):
        Recorder(one).refused("deadline")
    Recorder(two).refused("invalid_input")
    found = statistics(version_of(one, two), since_1970_ns=1000 * MS_NS)
    assert (found.name, found.version, found.inference_count, found.execution_count) == ("m", "1", 12, 3)
    assert found.last_inference == 21_000
    times = found.inference_stats
    assert (times.success.count, times.success.ns / MS_NS) == (6, pytest.approx(30, abs=1e-3))
    assert (times.queue.count, times.queue.ns / MS_NS) == (6, pytest.approx(6, abs=1e-3))
    # Each request of a batch counts the whole batch, as with Triton: clients divide by the requests.
    assert (times.compute_input.count, times.compute_input.ns) == (6, 6 * MS_NS)
    assert (times.compute_infer.count, times.compute_infer.ns) == (6, 12 * MS_NS)
    assert (times.compute_output.count, times.compute_output.ns / MS_NS) == (6, pytest.approx(6, abs=1e-3))
    assert (times.fail.count, times.fail.ns) == (3, 0)
    assert times.HasField("cache_hit")
    assert times.HasField("cache_miss")


def test_batches_are_told_by_their_size(new_counters: NewCounters) -> None:
    counters = new_counters()
    for rows in (1, 5, 8, 9000):
        batch(counters, requests=2, rows=rows)
    found = statistics(version_of(counters), since_1970_ns=0).batch_stats
    assert [(one.batch_size, one.compute_input.count, one.compute_infer.count) for one in found] == [
        (1, 1, 1), (8, 2, 2), (8192, 1, 1),
    ]  # fmt: skip
    assert [one.compute_infer.ns for one in found] == [2 * MS_NS, 4 * MS_NS, 2 * MS_NS]
    assert [one.compute_input.ns for one in found] == [MS_NS, 2 * MS_NS, MS_NS]


def test_a_version_that_answered_nothing(new_counters: NewCounters) -> None:
    found = statistics(version_of(new_counters()), since_1970_ns=10**18)
    assert (found.last_inference, found.inference_count, found.execution_count) == (0, 0, 0)
    assert not found.batch_stats
    assert found.inference_stats.success == pb.StatisticDuration()


def ask(versions: list[VersionSnapshot], **request: str) -> list[tuple[str, str]]:
    reply = answer(pb.ModelStatisticsRequest(**request).SerializeToString(), lambda: versions, lambda: 0)
    return [(one.name, one.version) for one in pb.ModelStatisticsResponse.FromString(reply).model_stats]


def test_a_request_selects(new_counters: NewCounters) -> None:
    versions = [version_of(new_counters(), number="1"), version_of(new_counters(), name="n", number="2")]
    assert ask([]) == []
    assert ask(versions) == [("m", "1"), ("n", "2")]
    assert ask(versions, name="n") == [("n", "2")]
    assert ask(versions, name="m", version="@champion") == [("m", "1")]
    with pytest.raises(NotFoundError, match="no version '3' of model 'm' is loaded"):
        ask(versions, name="m", version="3")


@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10_000)), max_size=10))
def test_parts_never_exceed_the_whole(new_counters: NewCounters, batches: list[tuple[int, int]]) -> None:
    counters = new_counters()
    for requests, rows in batches:
        batch(counters, requests, rows)
    found = statistics(version_of(counters), since_1970_ns=0)
    times = found.inference_stats
    parts = (times.queue, times.compute_input, times.compute_infer, times.compute_output)
    assert sum(part.ns for part in parts) == pytest.approx(times.success.ns, abs=10)
    assert {part.count for part in parts} == {times.success.count} == {sum(requests for requests, _ in batches)}
    assert sum(one.compute_infer.count for one in found.batch_stats) == found.execution_count == len(batches)


def test_hits_of_the_response_cache_are_answers_that_nothing_ran_for(new_counters: NewCounters) -> None:
    one, two = new_counters(), new_counters()
    batch(one, requests=2, rows=5)
    for counters, rows in ((one, 4), (two, 1)):
        Recorder(counters).hit(arrived_s=20.0, rows=rows, started_s=20.001, ended_s=20.003)
        Recorder(counters).missed(0.0005)
    found = statistics(version_of(one, two), since_1970_ns=0)
    assert (found.inference_count, found.execution_count, found.last_inference) == (5, 1, 20_003)
    times = found.inference_stats
    assert (times.success.count, times.success.ns / MS_NS) == (4, pytest.approx(16, abs=1e-3))
    assert (times.queue.count, times.queue.ns / MS_NS) == (4, pytest.approx(4, abs=1e-3))
    for stage, stage_ms in ((times.compute_input, 2), (times.compute_infer, 4), (times.compute_output, 2)):
        assert (stage.count, stage.ns / MS_NS) == (2, pytest.approx(stage_ms, abs=1e-3))
    assert (times.cache_hit.count, times.cache_hit.ns / MS_NS) == (2, pytest.approx(4, abs=1e-3))
    assert (times.cache_miss.count, times.cache_miss.ns) == (2, MS_NS)
