from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from penstock_server.tracing import exporter as module
from penstock_server.tracing import span_file
from penstock_server.tracing.collector import CollectorRefusedError, Taken
from penstock_server.tracing.exporter import (
    BATCH_SPANS,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    SEND_S,
    Exporter,
    resource_of,
    server_of,
)
from penstock_server.tracing.otlp import SpanEncoder
from penstock_server.tracing.span_file import SpanFile, SpanWriter


class FakeCollector:
    """Keeps what it takes; refuses as often as it is told."""

    def __init__(self) -> None:
        self.taken: list[list[int]] = []
        self.refusals: list[CollectorRefusedError] = []
        self.said = Taken()
        self.is_closed = False

    def send(self, request: bytes) -> Taken:
        if self.refusals:
            raise self.refusals.pop(0)
        (resource,) = ExportTraceServiceRequest.FromString(request).resource_spans
        self.taken.append([int.from_bytes(span.span_id, "big") for span in resource.scope_spans[0].spans])
        return self.said

    def close(self) -> None:
        self.is_closed = True


class World:
    def __init__(self, path: Path) -> None:
        span_file.create(path, 2, 0.0)
        self.file = SpanFile(path)
        self.writers = [SpanWriter(self.file, slot) for slot in range(2)]
        self.collector = FakeCollector()
        self.exporter = Exporter(
            self.file,
            SpanEncoder({}, "1", {}),
            self.collector,
            offset_ns=lambda: 0,
            fraction=lambda: 0.5,
        )

    def write(self, *numbers: int, slot: int = 0) -> None:
        for number in numbers:
            self.writers[slot].write(
                kind=0, code=0, trace_id=1, parent_id=0, span_id=number, subject=0, arrived_ns=1, ended_ns=2
            )  # fmt: skip

    def step(self, now_s: float) -> None:
        self.exporter.look()
        while self.exporter.send(now_s):
            pass


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "spans")


def test_the_spans_of_all_workers_are_sent_together(world: World) -> None:
    world.step(0.0)
    assert world.collector.taken == []
    world.write(1, 2)
    world.write(3, slot=1)
    world.step(1.0)
    assert world.collector.taken == [[1, 2, 3]]
    assert world.file.counts() == (3, 0, 0)


def test_spans_are_gathered_for_a_while(world: World) -> None:
    world.write(1)
    world.step(10.0)
    world.write(2)
    world.step(10.0 + SEND_S / 2)
    world.write(3)
    world.step(10.0 + SEND_S)
    assert world.collector.taken == [[1], [2, 3]]


def test_many_spans_are_several_requests(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_SPANS", 5)
    for number in range(1, 11, 2):
        world.write(number, number + 1)
        world.exporter.look()
    world.step(0.0)
    assert world.collector.taken == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert BATCH_SPANS * 1000 <= 4 << 20


def test_what_was_refused_is_sent_again_later_and_later(world: World) -> None:
    world.collector.refusals = [CollectorRefusedError("no", is_final=False) for _ in range(3)]
    world.write(1)
    with capture_logs() as logs:
        world.step(0.0)
        world.write(2)
        for now_s in (FIRST_PAUSE_S / 2, FIRST_PAUSE_S, 2.5 * FIRST_PAUSE_S, 3 * FIRST_PAUSE_S, 6 * FIRST_PAUSE_S):
            world.step(now_s)
    assert world.collector.taken == []
    assert len(world.collector.refusals) == 0
    world.step(7 * FIRST_PAUSE_S)
    assert world.collector.taken == [[1, 2]]
    assert world.file.counts() == (2, 0, 0)
    assert [entry["event"] for entry in logs] == ["the collector of traces takes no spans"]
    assert logs[0]["reason"] == "no"


def test_a_collector_says_when_it_may_be_asked_again_but_not_for_ever(world: World) -> None:
    world.collector.refusals = [CollectorRefusedError("later", is_final=False, retry_after_s=1e9)]
    world.write(1)
    world.step(0.0)
    world.step(LONGEST_PAUSE_S - 0.1)
    assert world.collector.taken == []
    world.step(LONGEST_PAUSE_S)
    assert world.collector.taken == [[1]]


def test_what_is_refused_for_good_is_dropped_and_counted(world: World) -> None:
    world.collector.refusals = [CollectorRefusedError("HTTP 400", is_final=True)]
    world.write(1, 2)
    world.step(0.0)
    world.write(3)
    world.step(LONGEST_PAUSE_S)
    assert world.collector.taken == [[3]]
    assert world.file.counts() == (1, 2, 0)


def test_only_so_many_wait_and_the_oldest_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_SPANS", 3)
    world.collector.refusals = [CollectorRefusedError("no", is_final=False)]
    world.write(1, 2)
    world.step(0.0)
    world.write(3, 4, 5)
    world.step(0.1)
    assert world.file.counts() == (0, 2, 0)
    world.step(LONGEST_PAUSE_S)
    assert world.collector.taken == [[3, 4, 5]]


def test_what_the_collector_dropped_counts_as_failed(world: World) -> None:
    world.collector.said = Taken(1, "one was too old")
    world.write(1, 2, 3)
    with capture_logs() as logs:
        world.step(0.0)
    assert world.file.counts() == (2, 1, 0)
    assert logs[0]["reason"] == "one was too old"


def test_the_end_sends_what_is_left_and_closes(world: World) -> None:
    world.write(1)
    world.step(0.0)
    world.write(2)
    world.exporter.finish(0.1)
    assert world.collector.taken == [[1], [2]]
    assert world.collector.is_closed


def test_the_end_does_not_wait_for_a_collector_that_is_gone(world: World) -> None:
    world.collector.refusals = [CollectorRefusedError("no", is_final=False)]
    world.write(1, 2)
    world.exporter.finish(0.0)
    assert world.file.counts() == (0, 2, 0)
    assert world.collector.is_closed


def test_the_service_is_named_by_the_settings_and_by_the_environment_before_them() -> None:
    assert resource_of("penstock", {}, "i")["service.name"] == "penstock"
    given = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=given,deployment.environment.name=prod"}
    found = resource_of("penstock", given, "i")
    assert (found["service.name"], found["deployment.environment.name"]) == ("given", "prod")
    assert found["service.instance.id"] == "i"
    assert resource_of("penstock", {**given, "OTEL_SERVICE_NAME": "own"}, "i")["service.name"] == "own"


def test_where_the_server_is_called() -> None:
    assert server_of("h", 80) == {"server.address": "h", "server.port": 80}
    assert server_of("unix:/run/p.sock", 0) == {"server.address": "unix:/run/p.sock"}
