"""Large requests through an executor: a real model thread, and the test as the reactor."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_server.batching.cost import Cost
from penstock_server.errors import (
    DeadlinePassedError,
    InvalidInputError,
    ModelFailedError,
    NotReadyError,
    OverloadedError,
    PenstockError,
)
from penstock_server.features.pipeline import Refusal
from penstock_server.labels.keys import key_of
from penstock_server.labels.layout import MOST_ROWS
from penstock_server.models.servable import OnnxServable
from penstock_server.prediction.answerer import PendingRequest
from penstock_server.prediction.classification import TopClasses
from penstock_server.prediction.executor import LARGE_BYTES, Executor
from penstock_server.prediction.shadows import Shadows
from tests.server.prediction.plain_world import Records

NEVER = float("inf")
TIMEOUT_S = 20.0


@pytest.fixture
def new(executor_of: Any, fake_servable: Any, thread: Any) -> Callable[..., Executor]:
    """An inline executor whose slices have four rows."""

    def make(servable: Any = None, **settings: Any) -> Executor:
        made: Executor = executor_of(
            servable or fake_servable(), **{"large_thread": thread, "slice_rows": 4, "max_rows": 4, **settings}
        )
        return made

    return make


@pytest.fixture
def ask(fake_call: Any, infer_request: Any) -> Callable[..., Any]:
    def put(
        executor: Executor, rows: int, *, size_bytes: int = 0, deadline_s: float = NEVER, first: float = 0.0
    ) -> Any:
        x = np.arange(first, first + rows * 2).reshape(rows, 2)
        return submit(
            executor, fake_call(), infer_request({"x": x}, id="r"), deadline_s=deadline_s, size_bytes=size_bytes
        )

    return put


def submit(executor: Executor, call: Any, request: Any, *, chosen: Any = None, **fields: Any) -> Any:
    pending = PendingRequest(
        executor, call, executor.decoder.decode(request),
        **{"arrived_s": 0.0, "deadline_s": NEVER, "request_id": request.id, "chosen": chosen, **fields},
    )  # fmt: skip
    call.pending = pending
    executor.submit(pending)
    return call


def test_the_largest_values_of_slices_are_joined(
    new: Any, fake_call: Any, infer_request: Any, reactor: Any, outputs_of: Any
) -> None:
    executor = new()
    request = infer_request({"x": np.arange(20.0).reshape(10, 2)})
    call = submit(executor, fake_call(), request, chosen=(TopClasses(0, 1, is_by_row=True),))
    reactor.serve(executor)
    found = outputs_of(call.answer)["y"]
    assert [text.decode() for (text,) in found.tolist()] == [f"{4.0 * row + 2:.6f}:1" for row in range(10)]


def test_a_large_request_runs_in_slices_and_is_answered_whole(
    new: Any, ask: Any, reactor: Any, outputs_of: Any, fake_report: Any
) -> None:
    report = fake_report()
    executor = new(report=report)
    call = ask(executor, 10)
    assert call.is_watched
    assert not executor.is_idle
    reactor.serve(executor)
    assert outputs_of(call.answer)["y"].tolist() == (np.arange(20.0).reshape(10, 2) * 2).tolist()
    assert executor.servable.runs == [4, 4, 2]
    reply = pb.ModelInferResponse.FromString(call.answer)
    assert (reply.id, reply.parameters["penstock_batch_rows"].int64_param) == ("r", 10)
    assert reply.parameters["penstock_compute_us"].int64_param == pytest.approx(9000, abs=2)
    (batch,) = report.batches
    assert (batch["rows"], batch["arrived_s"]) == (10, [0.0])
    assert call.pending is None
    assert report.left_waiting == (0, 0)


@pytest.mark.parametrize("rows", [4, 5, 8, 9])
@pytest.mark.parametrize("chosen", [None, (2, 0), (1,)])
def test_slices_answer_as_the_whole_does(
    new: Any,
    executor_of: Any,
    mixed: OnnxServable,
    fake_call: Any,
    infer_request: Any,
    reactor: Any,
    rows: int,
    chosen: Any,
) -> None:
    x = np.random.default_rng(1).normal(size=(rows, 3)).astype("f4")
    texts = np.array(["", "é", "a long text", "b"] * 3, object)[:rows].reshape(rows, 1)
    request = infer_request({"x": x, "text": texts}, id="r")
    sliced, whole = new(mixed), executor_of(mixed, max_rows=100)
    calls = [submit(executor, fake_call(), request, chosen=chosen) for executor in (sliced, whole)]
    reactor.serve(sliced, whole)
    replies = [pb.ModelInferResponse.FromString(call.answer) for call in calls]
    for reply in replies:
        reply.ClearField("parameters")
    assert replies[0] == replies[1]


def test_others_are_answered_between_the_slices(new: Any, ask: Any, reactor: Any) -> None:
    executor = new()
    large = ask(executor, 100)
    for _ in range(5):
        small = ask(executor, 2)
        executor.run(0.0)
        assert isinstance(small.answer, bytes)
        reactor.act()
        assert not large.is_over
    reactor.serve(executor)
    assert isinstance(large.answer, bytes)


def test_batches_of_a_threaded_executor_take_turns_with_slices(
    executor_of: Any, fake_servable: Any, ask: Any, reactor: Any, thread: Any
) -> None:
    executor = executor_of(fake_servable(), thread=thread, slice_rows=4, max_rows=4)
    large = ask(executor, 12)
    small = [ask(executor, 1), ask(executor, 1)]
    reactor.serve(executor)
    assert executor.servable.runs == [4, 2, 4, 4]
    assert all(isinstance(call.answer, bytes) for call in (large, *small))


def test_large_requests_of_several_versions_take_turns(new: Any, fake_servable: Any, ask: Any, reactor: Any) -> None:
    order: list[str] = []

    def servable(version: str) -> Any:
        made = fake_servable(key=("m", version))
        made.on_run = lambda: order.append(version)
        return made

    executors = [new(servable(version)) for version in "12"]
    calls = [ask(executor, 12) for executor in executors]
    reactor.serve(*executors)
    assert order == ["1", "2"] * 3
    assert all(isinstance(call.answer, bytes) for call in calls)


def test_who_leaves_between_slices_costs_no_more(new: Any, ask: Any, reactor: Any, fake_report: Any) -> None:
    report = fake_report()
    executor = new(report=report)
    large, waits = ask(executor, 100), ask(executor, 5)
    reactor.act()
    large.leave()
    reactor.serve(executor)
    assert executor.servable.runs[2:] == [4, 1]
    assert isinstance(waits.answer, bytes)
    assert (report.refusals, report.answered) == ({"cancelled": 1}, 1)
    assert large.answers == []


def test_who_leaves_before_its_turn_is_counted_out(new: Any, ask: Any, fake_report: Any, reactor: Any) -> None:
    report = fake_report()
    executor = new(report=report)
    ask(executor, 8)
    waits = ask(executor, 50)
    assert report.left_waiting == (50, 1)
    waits.leave()
    assert report.left_waiting == (0, 0)
    reactor.serve(executor)
    assert executor.servable.runs == [4, 4]


def test_a_deadline_that_passes_between_slices_ends_the_request(
    new: Any, ask: Any, reactor: Any, fake_clock: Any, fake_report: Any
) -> None:
    clock, report = fake_clock(0.0), fake_report()
    executor = new(clock=clock, report=report)
    large = ask(executor, 100, deadline_s=5.0)
    reactor.act()
    clock.now = 5.0
    reactor.serve(executor)
    assert isinstance(large.answer, DeadlinePassedError)
    assert len(executor.servable.runs) == 2
    assert report.refusals == {"deadline": 1}


def test_one_that_cannot_be_in_time_is_refused_at_once(new: Any, ask: Any, fake_clock: Any) -> None:
    executor = new(clock=fake_clock(0.0), cost=Cost(1.0, 0.5))
    executor._large.queue._probe_at_s = NEVER
    with pytest.raises(DeadlinePassedError):
        ask(executor, 100, deadline_s=75.0)  # 25 slices of 3 s
    ask(executor, 100, deadline_s=77.0)


@pytest.mark.parametrize(
    ("error", "kind"), [(ModelFailedError("no"), ModelFailedError), (RuntimeError("secret"), PenstockError)]
)
def test_a_slice_that_fails_ends_its_request(
    new: Any, ask: Any, reactor: Any, fake_report: Any, error: Exception, kind: type[Exception]
) -> None:
    report = fake_report()
    executor = new(report=report)
    executor.servable.fails = lambda rows: error if 10.0 in rows else None
    fails, fine = ask(executor, 10), ask(executor, 10, first=100.0)
    reactor.serve(executor)
    assert type(fails.answer) is kind
    assert "secret" not in str(fails.answer)
    assert isinstance(fine.answer, bytes)
    assert executor.servable.runs == [4, 4, 4, 4, 2]
    assert report.answered == 1


def test_a_refused_row_is_named_by_its_place_in_the_request(
    new: Any, fake_servable: Any, ask: Any, reactor: Any
) -> None:
    class Refusing(fake_servable):  # type: ignore[misc]
        def predict(self, blocks: Any, rows: int, *rest: Any) -> Any:
            found = np.where(np.frombuffer(blocks[0], "<f8").reshape(rows, 2)[:, 0] == 12, 0, -1)
            outputs = super().predict(blocks, rows, *rest)
            return replace(
                outputs, refusal=Refusal(found, ("holds a value of 'carrier'",)) if (found >= 0).any() else None
            )

    executor = new(Refusing())
    call = ask(executor, 20)
    reactor.serve(executor)
    assert str(call.answer).startswith("row 6 holds a value of 'carrier'")
    assert executor.servable.runs == [4, 4]


def test_rows_are_counted_for_drift_apart_from_the_batches_meanwhile(
    new: Any, ask: Any, reactor: Any, fake_report: Any
) -> None:
    report = fake_report(cells=np.zeros((1, 1), np.int64))
    executor = new(report=report)
    ask(executor, 10)
    ask(executor, 3)
    executor.run(0.0)
    reactor.serve(executor)
    assert (int(report.cells[0, 0]), report.drift_rows) == (13, 13)
    assert len(report.scored) + len(report.labels) == 13
    # Of large slices fewer rows are counted, and all answers.
    executor.servable.counted_rows = lambda rows: rows - 1
    ask(executor, 10)
    reactor.serve(executor)
    assert report.drift_rows == 13 + 3 + 3 + 1
    assert len(report.scored) + len(report.labels) == 23


def test_a_version_that_cannot_be_batched_runs_a_large_request_whole(
    new: Any, fake_servable: Any, ask: Any, reactor: Any, outputs_of: Any
) -> None:
    executor = new(fake_servable(is_batched=False))
    large, small = ask(executor, 10, size_bytes=LARGE_BYTES + 1), ask(executor, 9)
    assert executor.due_s() == 0.0
    executor.run(0.0)  # a small message runs on the reactor, whatever its rows
    assert isinstance(small.answer, bytes)
    reactor.serve(executor)
    assert outputs_of(large.answer)["y"].shape == (10, 2)
    assert executor.servable.runs in ([9, 10], [10, 9])


def test_long_texts_make_a_request_large(
    new: Any, mixed: OnnxServable, fake_call: Any, infer_request: Any, reactor: Any
) -> None:
    executor = new(mixed)
    request = infer_request({"x": np.zeros((1, 3), "f4"), "text": np.array([["long"]], object)})
    call = submit(executor, fake_call(), request, size_bytes=LARGE_BYTES + 1)
    assert executor.due_s() == NEVER
    reactor.serve(executor)
    assert isinstance(call.answer, bytes)


def test_numbers_tell_their_cost_by_their_rows(new: Any, ask: Any) -> None:
    executor = new()
    ask(executor, 4, size_bytes=LARGE_BYTES + 1)
    assert executor.due_s() == 0.0


def test_large_requests_have_a_queue_of_their_own(new: Any, ask: Any) -> None:
    executor = new(queue_rows=6)
    ask(executor, 1000)
    ask(executor, 6)  # waits; does not fill up the others' queue
    with pytest.raises(OverloadedError):
        ask(executor, 5)
    ask(executor, 4)
    ask(executor, 2)


def test_a_reply_that_grows_too_large_ends_the_request(
    new: Any, mixed: OnnxServable, fake_call: Any, infer_request: Any, reactor: Any
) -> None:
    runs: list[int] = []
    executor = new(mixed, reply_bytes=16 + 2000)
    texts = np.full((12, 1), "x" * 400, object)
    request = infer_request({"x": np.zeros((12, 3), "f4"), "text": texts})
    executor.report.drift_cells = lambda: runs.append(1)
    call = submit(executor, fake_call(), request)
    reactor.serve(executor)
    assert isinstance(call.answer, InvalidInputError)
    assert str(call.answer).startswith("the reply to 12 rows takes ")
    assert len(runs) == 2  # of three slices


def test_a_closed_version_refuses_what_waits_and_what_runs(new: Any, ask: Any, reactor: Any, fake_report: Any) -> None:
    report = fake_report()
    executor = new(report=report)
    calls = [ask(executor, 100), ask(executor, 100)]
    executor.close()
    assert [type(call.answer) for call in calls] == [NotReadyError] * 2
    reactor.act()  # the slice that ran
    assert executor.is_idle
    assert (report.refusals, report.left_waiting) == ({"not_ready": 2}, (0, 0))


def test_a_version_that_drains_ends_its_large_requests_first(new: Any, ask: Any, reactor: Any) -> None:
    executor, closed = new(), threading.Event()
    calls = [ask(executor, 20), ask(executor, 20)]
    executor.drain(closed.set)
    assert not closed.is_set()
    reactor.serve(executor)
    assert closed.is_set()
    assert all(isinstance(call.answer, bytes) for call in calls)


class FakeSampler:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def draw(self, requests: int) -> tuple[int, ...]:
        return tuple(range(requests))

    def keep(self, *, arrays: Any, **fields: Any) -> None:
        self.kept.append(([array.tolist() for array in arrays], fields))


def test_a_large_request_is_logged_whole(new: Any, ask: Any, reactor: Any) -> None:
    executor = new()
    executor.sampler = sampler = FakeSampler()
    ask(executor, 10)
    reactor.serve(executor)
    ((arrays, fields),) = sampler.kept
    assert arrays == [(np.arange(20.0).reshape(10, 2) * 2).tolist()]
    assert (fields["rows"], len(fields["blocks"][0]), fields["is_whole"]) == (10, 160, False)


def test_one_too_large_for_the_log_is_counted(new: Any, ask: Any, reactor: Any, fake_report: Any) -> None:
    report = fake_report()
    executor = new(report=report)
    executor.sampler = sampler = FakeSampler()
    ask(executor, 10, size_bytes=1 << 30)
    reactor.serve(executor)
    assert (sampler.kept, report.log_drops) == ([], {"busy": 10})


class Offered:
    """Stands where a shadow does, and keeps what it is offered."""

    is_batched = True
    skips_repeats = False

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def offer(self, batch: Any) -> None:
        self.taken.append(batch)


def test_what_slices_answer_is_recorded_once_the_request_is_answered(
    new: Any, ask: Any, reactor: Any, tmp_path: Path
) -> None:
    records = Records(tmp_path)
    executor = new(max_rows=100, slice_rows=100)
    executor.records = records.of("1", executor.servable)
    executor.shadows = Shadows([(shadow := Offered(), 1.0)])  # type: ignore[list-item]
    call = ask(executor, 300)
    assert records.take() == []
    reactor.serve(executor)
    assert call.answer
    found = records.take()
    assert [(each.key, each.row, each.prediction) for each in found] == [
        (key_of("m", b"r"), row, 1.0) for row in range(MOST_ROWS)
    ]
    # The shadow runs slice by slice.
    assert [[(rows.key, rows.first, rows.rows) for rows in copy.keyed] for copy in shadow.taken] == [
        [(key_of("m", b"r"), first, 100)] for first in (0, 100, 200)
    ]


def test_a_large_request_that_fails_is_not_recorded(new: Any, ask: Any, reactor: Any, tmp_path: Path) -> None:
    records = Records(tmp_path)
    executor = new()
    executor.records = records.of("1", executor.servable)
    executor.servable.fails = lambda rows: ModelFailedError("no") if rows[0, 0] > 10 else None
    call = ask(executor, 12)
    reactor.serve(executor)
    assert isinstance(call.answer, ModelFailedError)
    assert records.take() == []
