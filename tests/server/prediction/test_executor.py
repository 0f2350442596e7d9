import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

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
from penstock_server.models.servable import OnnxServable
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.prediction.answerer import PendingRequest, refuse
from penstock_server.prediction.executor import LARGE_BYTES, Executor
from penstock_server.prediction.model_thread import ModelThread
from tests.examples import examples

TIMEOUT_S = 20.0
NEVER = float("inf")


@pytest.fixture
def servable(fake_servable: Any) -> Any:
    return fake_servable()


@pytest.fixture
def report(fake_report: Any) -> Any:
    return fake_report()


@pytest.fixture(scope="session")
def ask(fake_call: Any, infer_request: Any) -> Callable[..., Any]:
    """Puts a request of the fake servable in an executor; `values` are x's first column."""

    def put(executor: Executor, *values: float, deadline_s: float = NEVER, arrived_s: float = 0.0) -> Any:
        x = np.array([[value, -value] for value in values]).reshape(len(values), 2)
        return submit(executor, fake_call(), infer_request({"x": x}), deadline_s=deadline_s, arrived_s=arrived_s)

    return put


def submit(
    executor: Executor,
    call: Any,
    request: Any,
    *,
    chosen: Any = None,
    deadline_s: float = NEVER,
    arrived_s: float = 0.0,
    priority: int = 5,
) -> Any:
    prediction = PendingRequest(
        executor, call, executor.decoder.decode(request),
        arrived_s=arrived_s, deadline_s=deadline_s, request_id=request.id, chosen=chosen,
        priority=priority,
    )  # fmt: skip
    call.pending = prediction
    executor.submit(prediction)
    return call


def drain(executor: Executor) -> None:
    while executor.due_s() != NEVER:
        executor.run(0.0)


def late_clock(executor: Executor) -> None:
    """No probe runs, as if the last one were still fresh."""
    executor._queue._probe_at_s = NEVER


def values_in(call: Any, outputs_of: Any) -> list[float]:
    found: list[float] = outputs_of(call.answer)["y"][:, 0].tolist()
    return found


def test_waiting_requests_run_together(executor_of: Any, servable: Any, ask: Any, outputs_of: Any, report: Any) -> None:
    executor = executor_of(servable, report=report)
    calls = [ask(executor, 1.0), ask(executor), ask(executor, 2.0, 3.0)]
    executor.run(0.0)
    assert servable.runs == [3]
    assert [values_in(call, outputs_of) for call in calls] == [[2.0], [], [4.0, 6.0]]
    assert executor.is_idle
    assert [call.pending for call in calls] == [None] * 3
    assert (report.answered, report.left_waiting) == (3, (0, 0))


def test_a_reply_tells_who_answered_and_what_it_took(executor_of: Any, servable: Any, ask: Any, report: Any) -> None:
    executor = executor_of(servable, report=report)
    executor.set_role("canary")
    call = ask(executor, 1.0, arrived_s=99.5)
    ask(executor, 2.0, 3.0)
    executor.run(100.0)
    reply = pb.ModelInferResponse.FromString(call.answer)
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in reply.parameters.items()
    }
    assert (reply.model_name, reply.model_version) == ("m", "1")
    assert parameters == {
        "penstock_role": "canary", "penstock_queue_us": 500_000, "penstock_compute_us": 3000, "penstock_batch_rows": 3,
    }  # fmt: skip
    (batch,) = report.batches
    assert (batch["rows"], batch["started_s"], batch["features_s"], batch["infer_s"]) == (3, 100.0, 0.001, 0.002)


def test_only_those_who_wait_longer_are_watched(executor_of: Any, servable: Any, ask: Any) -> None:
    executor = executor_of(servable, max_rows=1)
    calls = [ask(executor, float(number)) for number in range(3)]
    assert not any(call.is_watched for call in calls)
    executor.run(0.0)
    executor.watch()
    assert [call.is_watched for call in calls] == [False, True, True]
    calls.append(ask(executor, 4.0))
    executor.watch()
    assert calls[3].is_watched


REFUSED = "holds a value of 'carrier' that the training data did not have"


def refusing(fake_servable: Any, **settings: Any) -> Any:
    """A servable whose features refuse 13."""

    class Refusing(fake_servable):  # type: ignore[misc]
        def predict(self, blocks: Any, rows: int, *rest: Any) -> Any:
            found = np.where(np.frombuffer(blocks[0], "<f8").reshape(rows, 2)[:, 0] == 13, 0, -1)
            outputs = super().predict(blocks, rows, *rest)
            return replace(outputs, refusal=Refusal(found, (REFUSED,)) if (found >= 0).any() else None)

    return Refusing(**settings)


def test_a_refused_row_refuses_its_request_and_leaves_the_neighbours_their_answers(
    executor_of: Any, fake_servable: Any, ask: Any, outputs_of: Any, report: Any
) -> None:
    servable = refusing(fake_servable)
    executor = executor_of(servable, report=report)
    calls = [ask(executor, 1.0), ask(executor, 2.0, 13.0, 3.0), ask(executor), ask(executor, 4.0, 5.0)]
    executor.run(0.0)
    assert servable.runs == [6]
    assert [values_in(calls[at], outputs_of) for at in (0, 2, 3)] == [[2.0], [], [8.0, 10.0]]
    assert isinstance(calls[1].answer, InvalidInputError)
    assert str(calls[1].answer) == f"row 1 {REFUSED}"
    assert (report.answered, report.refusals) == (3, {"invalid_input": 1})
    assert 26.0 not in report.scored
    assert [call.pending for call in calls] == [None] * 4


def test_a_request_that_runs_alone_is_refused_alone(
    executor_of: Any, fake_servable: Any, ask: Any, report: Any
) -> None:
    executor = executor_of(refusing(fake_servable, is_batched=False), report=report)
    calls = [ask(executor, 13.0), ask(executor, 1.0)]
    drain(executor)
    assert isinstance(calls[0].answer, InvalidInputError)
    assert isinstance(calls[1].answer, bytes)
    assert report.refusals == {"invalid_input": 1}


def test_an_executor_is_activated_when_its_queue_fills(executor_of: Any, servable: Any, ask: Any) -> None:
    activations: list[Executor] = []
    executor = executor_of(servable, activate=activations.append)
    ask(executor, 1.0)
    ask(executor, 2.0)
    assert activations == [executor]
    assert executor.is_active
    executor.run(0.0)
    ask(executor, 3.0)
    assert activations == [executor]  # the scheduler has not dropped it
    executor.run(0.0)
    executor.is_active = False
    ask(executor, 3.0)
    assert activations == [executor, executor]


def test_what_cannot_be_joined_runs_alone(executor_of: Any, fake_servable: Any, ask: Any, outputs_of: Any) -> None:
    servable = fake_servable(is_batched=False)
    executor = executor_of(servable)
    calls = [ask(executor, 1.0), ask(executor, 2.0, 3.0)]
    executor.run(0.0)
    assert [call.is_over for call in calls] == [True, False]
    executor.run(0.0)
    assert servable.runs == [1, 2]
    assert values_in(calls[1], outputs_of) == [4.0, 6.0]


def test_a_full_queue_refuses_by_name(executor_of: Any, servable: Any, ask: Any) -> None:
    executor = executor_of(servable, queue_rows=2)
    ask(executor, 1.0, 2.0)
    with pytest.raises(OverloadedError, match="the queue of model 'm' version 1 is full: at most"):
        ask(executor, 3.0)


def test_what_would_miss_the_objective_is_refused_at_once(
    executor_of: Any, servable: Any, ask: Any, report: Any, fake_clock: Any
) -> None:
    clock = fake_clock(0.0)
    executor = executor_of(servable, report=report, clock=clock, cost=Cost(1.0, 1.0), objective_ms=4000.0)
    waits = ask(executor, 1.0)  # one row a batch takes half of the objective
    with pytest.raises(OverloadedError, match=r"model 'm' version 1 cannot answer within its objective of 4000 ms"):
        ask(executor, 2.0)
    with pytest.raises(DeadlinePassedError, match="the answer would come after the deadline"):
        ask(executor, 3.0, deadline_s=2.5)
    executor.run(0.0)
    assert isinstance(waits.answer, bytes)
    assert servable.runs == [1]


def test_an_objective_missed_in_the_queue_is_overload(executor_of: Any, servable: Any, ask: Any, report: Any) -> None:
    executor = executor_of(servable, report=report, objective_ms=4000.0)
    late = ask(executor, 1.0)
    executor.run(4.0)
    assert isinstance(late.answer, OverloadedError)
    assert report.refusals == {"overloaded": 1}


def test_an_executor_learns_what_batches_cost(executor_of: Any, servable: Any, ask: Any, fake_clock: Any) -> None:
    clock = fake_clock(0.0)
    executor = executor_of(servable, clock=clock, objective_ms=4000.0)
    ask(executor, 1.0)
    servable.on_run = lambda: setattr(clock, "now", 5.0)
    executor.run(0.0)
    late_clock(executor)
    with pytest.raises(OverloadedError):
        ask(executor, 1.0, arrived_s=5.0)


def test_a_cost_that_refuses_everybody_heals_by_what_runs(
    executor_of: Any, servable: Any, ask: Any, fake_clock: Any
) -> None:
    clock = fake_clock(0.0)
    executor = executor_of(servable, clock=clock, cost=Cost(50.0, 0.0), objective_ms=4000.0)
    servable.on_run = lambda: setattr(clock, "now", clock.now + 1.0)
    answered = refused = 0
    for _ in range(1000):
        clock.now += 1.0
        try:
            call = ask(executor, 1.0, arrived_s=clock.now)
        except OverloadedError:
            refused += 1
            continue
        executor.run(clock.now)
        assert isinstance(call.answer, bytes)
        answered += 1
    assert answered > 500
    assert refused > 100  # a slow model is not made slower by those who ask


def test_tiny_timeouts_of_one_caller_make_nobody_late(
    executor_of: Any, servable: Any, ask: Any, fake_clock: Any
) -> None:
    clock = fake_clock(0.0)
    executor = executor_of(servable, clock=clock, cost=Cost(1.0, 0.5), objective_ms=4000.0)
    servable.on_run = lambda: setattr(clock, "now", clock.now + 1.0 + 0.5 * servable.runs[-1])
    for _ in range(1000):
        clock.now += 0.001
        try:
            ask(executor, 1.0, arrived_s=clock.now, deadline_s=clock.now + 1e-5)
        except DeadlinePassedError:
            continue
        executor.run(clock.now)
    assert len(servable.runs) < 10
    assert executor._queue.cost.of(2) == pytest.approx(2.0)
    asked_s = clock.now
    waits = []
    for _ in range(6):
        with suppress(OverloadedError):
            waits.append(ask(executor, 1.0, arrived_s=asked_s))
    assert 2 <= len(waits) < 6
    while executor.due_s() <= clock.now:
        executor.run(clock.now)
    assert all(isinstance(call.answer, bytes) for call in waits)
    assert clock.now - asked_s <= 4.0


def test_priorities_are_served_first_and_all_are_watched(
    executor_of: Any, servable: Any, fake_call: Any, infer_request: Any
) -> None:
    executor = executor_of(servable, max_rows=1)
    request = infer_request({"x": np.zeros((1, 2))})
    calls = {}
    for priority in (9, 5, 1):
        calls[priority] = submit(executor, fake_call(), request, priority=priority)
    executor.watch()
    assert all(call.is_watched for call in calls.values())
    order = []
    while not executor.is_idle:
        executor.run(0.0)
        order.append([priority for priority, call in calls.items() if call.is_over])
    assert order == [[1], [5, 1], [9, 5, 1]]


def test_who_passed_the_deadline_is_told(executor_of: Any, servable: Any, ask: Any, report: Any) -> None:
    executor = executor_of(servable, report=report)
    late, early = ask(executor, 1.0, deadline_s=5.0), ask(executor, 2.0, deadline_s=6.0)
    executor.run(5.0)
    assert isinstance(late.answer, DeadlinePassedError)
    assert isinstance(early.answer, bytes)
    assert report.refusals == {"deadline": 1}
    assert servable.runs == [1]


def test_a_cancelled_request_is_not_run(
    executor_of: Any, servable: Any, ask: Any, report: Any, outputs_of: Any
) -> None:
    executor = executor_of(servable, report=report)
    gone, stays = ask(executor, 1.0), ask(executor, 2.0)
    gone.leave()
    executor.run(0.0)
    assert servable.runs == [1]
    assert (gone.answers, values_in(stays, outputs_of)) == ([], [4.0])
    assert report.refusals == {"cancelled": 1}


def test_a_caller_that_leaves_while_its_batch_runs_moves_nobodys_rows(
    executor_of: Any, servable: Any, ask: Any, report: Any, outputs_of: Any
) -> None:
    executor = executor_of(servable, report=report)
    first = ask(executor, 1.0)
    servable.on_run = first.leave
    others = [ask(executor, 2.0, 3.0), ask(executor, 4.0)]
    executor.run(0.0)
    assert [values_in(call, outputs_of) for call in others] == [[4.0, 6.0], [8.0]]
    assert (first.answers, first.late_answers) == ([], 0)
    assert (report.answered, report.refusals, report.left_waiting) == (2, {"cancelled": 1}, (0, 0))


def test_a_failing_request_fails_alone(executor_of: Any, servable: Any, ask: Any, report: Any, outputs_of: Any) -> None:
    servable.fails = lambda rows: ModelFailedError("the model failed on this input") if (rows == 13.0).any() else None
    executor = executor_of(servable, report=report)
    calls = [ask(executor, 1.0), ask(executor, 13.0), ask(executor, 2.0)]
    drain(executor)
    assert [values_in(call, outputs_of) for call in (calls[0], calls[2])] == [[2.0], [4.0]]
    assert isinstance(calls[1].answer, ModelFailedError)
    assert (report.answered, report.refusals) == (2, {"model_failed": 1})
    assert servable.runs == [3, 1, 1, 1]


def test_rows_are_counted_for_drift_once(executor_of: Any, servable: Any, ask: Any, fake_report: Any) -> None:
    report = fake_report(cells=np.zeros((1, 1), np.int64))
    executor = executor_of(servable, report=report)
    servable.fails = lambda rows: ModelFailedError("no") if (rows == 13.0).any() else None
    for values in ([1.0, 2.0], [13.0]):
        ask(executor, *values)
    drain(executor)
    ask(executor, 3.0)
    executor.run(0.0)
    assert (int(report.cells[0, 0]), report.drift_rows) == (4, 4)


@pytest.mark.parametrize("is_apart", [False, True])
def test_a_batch_brings_as_many_counted_rows_as_its_version_says(
    executor_of: Any, servable: Any, ask: Any, fake_report: Any, monkeypatch: pytest.MonkeyPatch, is_apart: bool
) -> None:
    report = fake_report(cells=np.zeros((1, 1), np.int64))
    executor = executor_of(servable, report=report)
    if is_apart:
        executor._own_cells = np.zeros_like(report.cells)
    monkeypatch.setattr(servable, "counted_rows", lambda rows: rows // 2)
    ask(executor, *map(float, range(9)))
    drain(executor)
    assert report.drift_rows == 4


def test_the_largest_number_of_each_row_is_told_where_there_are_no_classes(
    executor_of: Any, servable: Any, ask: Any, report: Any
) -> None:
    servable.outputs = (TensorInfo("y", "FP64", (ANY, 1)),)
    executor = executor_of(servable, report=report)
    ask(executor, 1.0, 2.0)
    executor.run(0.0)
    assert (report.scored, report.labels) == ([2.0, 4.0], [])


def test_a_bug_fails_its_request_and_no_more(executor_of: Any, servable: Any, ask: Any, report: Any) -> None:
    servable.fails = lambda rows: RuntimeError("secret") if (rows == 13.0).any() else None
    executor = executor_of(servable, report=report)
    calls = [ask(executor, 13.0), ask(executor, 1.0)]
    drain(executor)
    assert [type(call.answer) for call in calls] == [PenstockError, bytes]
    assert "secret" not in str(calls[0].answer)
    assert report.refusals == {"internal": 1}
    assert executor.is_idle


def test_a_bug_while_a_reply_is_made_ends_every_call(
    executor_of: Any, servable: Any, ask: Any, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = executor_of(servable, report=report)
    calls = [ask(executor, 1.0), ask(executor, 2.0)]
    monkeypatch.setattr(executor.encoder, "batch", lambda *_: 1 / 0)
    executor.run(0.0)
    assert [type(call.answer) for call in calls] == [PenstockError] * 2
    assert executor.is_idle


def test_a_bug_while_a_late_request_is_refused_loses_nobody(
    executor_of: Any, servable: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = executor_of(servable)
    late, fine = ask(executor, 1.0, deadline_s=5.0), ask(executor, 2.0)
    monkeypatch.setattr(late, "fail", lambda error: 1 / 0)
    executor.run(5.0)
    assert fine.is_over
    assert executor.is_idle


def test_a_failed_batch_takes_turns_with_other_executors(executor_of: Any, servable: Any, ask: Any) -> None:
    servable.fails = lambda rows: ModelFailedError("no") if (rows == 13.0).any() else None
    executor = executor_of(servable)
    calls = [ask(executor, value) for value in (13.0, 1.0, 2.0)]
    answered = []
    for _ in range(4):
        assert executor.due_s() == 0.0
        executor.run(0.0)
        answered.append(sum(call.is_over for call in calls))
    assert answered == [0, 1, 2, 3]
    assert servable.runs == [3, 1, 1, 1]


def test_who_waits_to_run_alone_may_leave_or_be_late(executor_of: Any, servable: Any, ask: Any, report: Any) -> None:
    servable.fails = lambda rows: ModelFailedError("no") if (rows == 13.0).any() else None
    executor = executor_of(servable, report=report)
    fails, gone, late = ask(executor, 13.0), ask(executor, 1.0), ask(executor, 2.0, deadline_s=5.0)
    executor.run(0.0)
    gone.leave()
    while executor.due_s() <= 5.0:
        executor.run(5.0)
    assert [type(call.answer) for call in (fails, late)] == [ModelFailedError, DeadlinePassedError]
    assert servable.runs == [3, 1]
    assert report.refusals == {"model_failed": 1, "cancelled": 1, "deadline": 1}
    assert executor.is_idle


def test_a_failing_model_logs_one_line_a_second(executor_of: Any, servable: Any, ask: Any, fake_clock: Any) -> None:
    clock = fake_clock(0.0)
    executor = executor_of(servable, clock=clock)
    servable.fails = lambda rows: ModelFailedError("no")
    with capture_logs() as lines:
        for _ in range(100):
            ask(executor, 1.0)
            executor.run(clock.now)
            clock.now += 0.03
    assert [(line["event"], line["left_out"]) for line in lines] == [
        ("model failed", 0), ("model failed", 33), ("model failed", 33),
    ]  # fmt: skip


def test_another_number_of_rows_is_a_failed_model(executor_of: Any, servable: Any, ask: Any, report: Any) -> None:
    honest = servable.predict
    servable.predict = lambda blocks, rows, *rest: honest([blocks[0] * 2], rows * 2, *rest)
    executor = executor_of(servable, report=report)
    call = ask(executor, 1.0)
    executor.run(0.0)
    assert isinstance(call.answer, ModelFailedError)
    assert report.refusals == {"model_failed": 1}


def test_a_threaded_executor_runs_its_model_on_its_thread_and_answers_on_the_reactor(
    executor_of: Any, servable: Any, ask: Any, outputs_of: Any, reactor: Any, thread: Any
) -> None:
    threads: list[str] = []
    servable.on_run = lambda: threads.append(threading.current_thread().name)
    executor = executor_of(servable, thread=thread)
    calls = [ask(executor, float(number)) for number in range(20)]
    assert all(call.is_watched for call in calls)
    executor.run(0.0)
    assert executor.due_s() == NEVER  # one batch at a time
    assert not any(call.is_over for call in calls)
    assert not executor.is_idle
    reactor.act()
    assert [values_in(call, outputs_of) for call in calls] == [[2.0 * number] for number in range(20)]
    assert threads == ["model"]
    assert executor.is_idle


def test_a_thread_gets_the_next_batch_before_the_replies_to_the_last(
    executor_of: Any, servable: Any, ask: Any, reactor: Any, thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = executor_of(servable, thread=thread)
    first = ask(executor, 1.0)
    executor.run(0.0)
    second = ask(executor, 2.0, 3.0)
    order: list[str] = []
    start, finish = thread.start, first.finish
    monkeypatch.setattr(thread, "start", lambda *work: (order.append("start"), start(*work)))
    monkeypatch.setattr(first, "finish", lambda message: (order.append("reply"), finish(message)))
    reactor.serve(executor)
    assert order == ["start", "reply"]
    assert isinstance(second.answer, bytes)
    assert servable.runs == [1, 2]


@pytest.mark.parametrize(
    ("rows", "short_s", "is_alone", "runs_on"),
    [(3, 4.0, True, "reactor"), (4, 4.0, True, "model"), (3, 4.0, False, "model"), (1, 0.0, True, "model")],
)
def test_short_batches_run_on_the_reactor_while_nobody_else_is_asked(
    executor_of: Any,
    servable: Any,
    ask: Any,
    reactor: Any,
    thread: Any,
    rows: int,
    short_s: float,
    is_alone: bool,
    runs_on: str,
) -> None:
    threads: list[str] = []
    servable.on_run = lambda: threads.append(threading.current_thread().name)
    executor = executor_of(
        servable, thread=thread, short_s=short_s, is_alone=lambda one, now_s: is_alone, cost=Cost(0.0, 1.0)
    )
    calls = [ask(executor, 1.0) for _ in range(rows)]
    executor.run(0.0)
    assert all(call.is_over for call in calls) == (runs_on == "reactor")
    reactor.serve(executor)
    assert [name == "model" for name in threads] == [runs_on == "model"]


def test_texts_may_be_longer_than_their_rows_tell(
    executor_of: Any, mixed: Any, infer_request: Any, fake_call: Any, reactor: Any, thread: Any
) -> None:
    executor = executor_of(mixed, thread=thread, short_s=9.0, cost=Cost(0.0, 1.0))
    for length, runs_inline in ((10, True), (LARGE_BYTES, False)):
        arrays = {"x": np.zeros((1, 3), np.float32), "text": np.array([["t" * length]], object)}
        call = submit(executor, fake_call(), infer_request(arrays))
        executor.run(0.0)
        assert call.is_over == runs_inline
        reactor.serve(executor)
        assert isinstance(call.answer, bytes)


def test_batches_come_back_from_the_thread_when_they_are_half_as_long(
    executor_of: Any, servable: Any, ask: Any, reactor: Any, thread: Any
) -> None:
    executor = executor_of(servable, thread=thread, short_s=4.0, cost=Cost(0.0, 1.0))
    runs_inline = []
    for rows in (3, 4, 3, 1, 3):
        calls = [ask(executor, 1.0) for _ in range(rows)]
        executor.run(0.0)
        runs_inline.append(calls[0].is_over)
        reactor.serve(executor)
    assert runs_inline == [True, False, False, True, True]


def test_replies_do_not_wait_for_a_short_batch_on_the_reactor(
    executor_of: Any, servable: Any, ask: Any, reactor: Any, thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = executor_of(servable, thread=thread, short_s=4.0, cost=Cost(0.0, 1.0))
    first = ask(executor, *[1.0] * 5)
    executor.run(0.0)
    second = ask(executor, 2.0)
    reactor.act()
    assert (first.is_over, second.is_over) == (True, False)
    assert executor.due_s() == 0.0
    executor.run(0.0)
    assert second.is_over
    assert servable.runs == [5, 1]


def test_a_threaded_executor_outlives_a_bug(
    executor_of: Any, servable: Any, ask: Any, reactor: Any, thread: Any
) -> None:
    servable.fails = lambda rows: RuntimeError("secret") if (rows == 13.0).any() else None
    executor = executor_of(servable, thread=thread)
    calls = [ask(executor, 13.0), ask(executor, 1.0)]
    reactor.serve(executor)
    assert [type(call.answer) for call in calls] == [PenstockError, bytes]


def test_who_leaves_while_a_thread_runs_the_batch_moves_nobodys_rows(
    executor_of: Any, servable: Any, ask: Any, report: Any, outputs_of: Any, reactor: Any, thread: Any
) -> None:
    runs, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        runs.set()
        assert may_end.wait(TIMEOUT_S)

    servable.on_run = hold
    executor = executor_of(servable, report=report, thread=thread)
    calls = [ask(executor, 1.0, 2.0), ask(executor, 3.0), ask(executor, 4.0, 5.0)]
    executor.run(0.0)
    assert runs.wait(TIMEOUT_S)
    later = [ask(executor, 6.0), ask(executor, 7.0)]
    calls[0].leave()
    later[0].leave()
    may_end.set()
    reactor.serve(executor)
    assert [values_in(call, outputs_of) for call in (*calls[1:], later[1])] == [[6.0], [8.0, 10.0], [14.0]]
    assert report.refusals == {"cancelled": 2}
    assert (report.answered, report.left_waiting) == (3, (0, 0))


def test_what_a_failed_stream_gives_up_in_another_queue_moves_nobodys_rows(
    executor_of: Any, fake_servable: Any, ask: Any, outputs_of: Any, reactor: Any, thread: Any
) -> None:
    failing, inline = fake_servable(key=("slow", "1")), executor_of(fake_servable())
    failing.fails = lambda rows: ModelFailedError("no")
    threaded = executor_of(failing, thread=thread)
    streamed = [ask(threaded, 0.0), ask(inline, 1.0, 2.0, 3.0)]
    others = [ask(inline, 4.0), ask(inline, 5.0, 6.0)]
    # As a stream does whose caller wants a status: its first failure ends all of its requests.
    fail = streamed[0].fail
    streamed[0].fail = lambda error: (fail(error), streamed[1].leave())
    threaded.run(0.0)
    inline_servable = inline.servable
    inline_servable.on_run = lambda: reactor.act() if not streamed[0].is_over else None
    inline.run(0.0)  # the failure arrives while the batch with the stream's other request runs
    assert isinstance(streamed[0].answer, ModelFailedError)
    assert [values_in(call, outputs_of) for call in others] == [[8.0], [10.0, 12.0]]


@pytest.fixture(params=["inline", "threaded"])
def thread_or_none(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("thread") if request.param == "threaded" else None


def test_what_still_waits_when_a_version_closes_is_refused(
    executor_of: Any, servable: Any, ask: Any, report: Any, thread_or_none: Any
) -> None:
    executor = executor_of(servable, report=report, thread=thread_or_none, max_delay_s=3600.0, max_rows=9)
    waits, gone = ask(executor, 1.0), ask(executor, 2.0)
    gone.leave()
    executor.close()
    assert isinstance(waits.answer, NotReadyError)
    assert str(waits.answer) == "the version was unloaded before the request had its turn"
    assert report.refusals == {"cancelled": 1, "not_ready": 1}
    assert report.left_waiting == (0, 0)
    assert executor.is_idle
    assert servable.runs == []


def test_a_closed_version_refuses(executor_of: Any, servable: Any, ask: Any, thread_or_none: Any) -> None:
    executor = executor_of(servable, thread=thread_or_none)
    executor.close()
    with pytest.raises(NotReadyError, match="model 'm' version 1 is being unloaded"):
        ask(executor, 1.0)
    assert executor.is_idle


def test_a_version_answers_what_it_took_before_it_closes(
    executor_of: Any, servable: Any, ask: Any, reactor: Any, thread_or_none: Any
) -> None:
    activations: list[Executor] = []
    executor = executor_of(servable, thread=thread_or_none, max_delay_s=3600.0, max_rows=9, activate=activations.append)
    waits, closed = ask(executor, 1.0), threading.Event()
    executor.is_active = False
    executor.drain(closed.set)
    assert activations[-1] is executor
    with pytest.raises(NotReadyError):
        ask(executor, 2.0)
    assert not closed.is_set()
    reactor.serve(executor)
    assert isinstance(waits.answer, bytes)
    assert closed.is_set()


def test_an_idle_version_closes_at_once(executor_of: Any, servable: Any, thread_or_none: Any) -> None:
    closed: list[bool] = []
    executor_of(servable, thread=thread_or_none).drain(lambda: closed.append(True))
    assert closed == [True]


def test_the_last_caller_that_leaves_lets_a_version_close(executor_of: Any, servable: Any, ask: Any) -> None:
    executor, closed = executor_of(servable), threading.Event()
    call = ask(executor, 1.0)
    executor.drain(closed.set)
    call.leave()
    assert closed.is_set()


def test_a_model_that_hangs_keeps_no_call_when_its_version_closes(
    executor_of: Any, servable: Any, ask: Any, report: Any, reactor: Any, thread: Any
) -> None:
    runs, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        runs.set()
        assert may_end.wait(TIMEOUT_S)

    servable.on_run = hang
    executor, closed = executor_of(servable, report=report, thread=thread), threading.Event()
    calls = [ask(executor, 1.0)]
    executor.run(0.0)
    assert runs.wait(TIMEOUT_S)
    calls.append(ask(executor, 2.0))
    executor.drain(closed.set)
    assert not closed.is_set()
    executor.close()
    assert closed.is_set()
    assert [type(call.answer) for call in calls] == [NotReadyError] * 2
    may_end.set()
    reactor.act()  # outputs that nobody waits for
    assert executor.is_idle
    assert (report.refusals, report.left_waiting) == ({"not_ready": 2}, (0, 0))


def test_who_leaves_takes_the_requests_memory_along(executor_of: Any, servable: Any, ask: Any) -> None:
    executor = executor_of(servable)
    ask(executor, 1.0)
    gone = ask(executor, 2.0)
    gone.leave()
    assert gone.pending.decoded.blocks == ()


def test_a_reply_that_cannot_be_sent_is_refused_before_it_is_computed(
    executor_of: Any, servable: Any, fake_call: Any, infer_request: Any
) -> None:
    executor = executor_of(servable, reply_bytes=16 + 10 * 16)
    submit(executor, fake_call(), infer_request({"x": np.zeros((10, 2))}))
    message = "the reply to 11 rows takes 176 bytes, expected at most 160; ask for fewer rows or outputs at once"
    with pytest.raises(InvalidInputError, match=message):
        submit(executor, fake_call(), infer_request({"x": np.zeros((11, 2))}))
    assert servable.runs == []


def test_only_the_outputs_asked_for_must_fit(executor_of: Any, fake_call: Any, mixed: Any, infer_request: Any) -> None:
    executor = executor_of(mixed, reply_bytes=16 + 1000)
    arrays = {"x": np.zeros((100, 3), "f4"), "text": np.full((100, 1), "", object)}
    submit(executor, fake_call(), infer_request(arrays), chosen=(2,))
    with pytest.raises(InvalidInputError):
        submit(executor, fake_call(), infer_request(arrays), chosen=(0,))
    with pytest.raises(InvalidInputError):
        submit(executor, fake_call(), infer_request(arrays))


@pytest.mark.parametrize("is_batched", [True, False])
def test_a_reply_that_turned_out_too_large_is_refused(
    executor_of: Any, fake_servable: Any, ask: Any, report: Any, is_batched: bool
) -> None:
    executor = executor_of(fake_servable(is_batched=is_batched), report=report, reply_bytes=16 + 40)
    call = ask(executor, 1.0, 2.0) if is_batched else ask(executor, 1.0, 2.0, 3.0)
    executor.run(0.0)
    assert isinstance(call.answer, InvalidInputError)
    assert report.refusals == {"invalid_input": 1}


def test_a_batch_whose_neighbours_fail_teaches_nothing_of_the_cost(
    executor_of: Any, servable: Any, ask: Any, fake_clock: Any
) -> None:
    clock = fake_clock(0.0)
    executor = executor_of(servable, clock=clock, cost=Cost(1.0, 0.0), objective_ms=4000.0)
    servable.fails = lambda rows: ModelFailedError("no") if (rows == 13.0).any() else None
    servable.on_run = lambda: setattr(clock, "now", clock.now + 50.0)
    for value in (1.0, 13.0):
        ask(executor, value)
    executor.run(0.0)
    late_clock(executor)
    executor._singles.clear()
    assert ask(executor, 1.0, arrived_s=clock.now).pending is not None, "refused, though the cost is the warm-up's"


TEXTS = st.text(max_size=4)
REQUESTS = st.tuples(
    st.just("ask"),
    st.lists(st.tuples(st.floats(-100, 100, width=32), TEXTS), max_size=4),
    st.none() | st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple),
)
EVENTS = st.one_of(REQUESTS, REQUESTS, st.tuples(st.just("leave"), st.integers(0, 9)), st.tuples(st.just("run")))


@examples(60)
@given(events=st.lists(EVENTS, max_size=25))
def test_batched_answers_equal_answers_alone(
    executor_of: Any, fake_call: Any, fake_report: Any, infer_request: Any, mixed: OnnxServable, events: list[Any]
) -> None:
    report = fake_report()
    executor, alone = executor_of(mixed, report=report, max_rows=6), executor_of(mixed)
    calls: list[Any] = []
    expected: list[Any] = []
    for event in events:
        match event:
            case ("ask", rows, chosen):
                x = np.array([[value, 1, -value] for value, _ in rows], "<f4").reshape(len(rows), 3)
                texts = np.array([text for _, text in rows], object).reshape(len(rows), 1)
                request = infer_request({"x": x, "text": texts}, id=str(len(calls)))
                calls.append(submit(executor, fake_call(), request, chosen=chosen))
                expected.append(submit(alone, fake_call(), request, chosen=chosen))
                drain(alone)
            case ("leave", at) if at < len(calls):
                calls[at].leave()
            case ("run",):
                executor.run(0.0)
    drain(executor)
    assert executor.is_idle
    stayed = [(got, single) for got, single in zip(calls, expected, strict=True) if got.answers]
    assert len(stayed) == report.answered == len(calls) - report.refusals.total()
    for got, single in stayed:
        assert without_timing(got.answer) == without_timing(single.answer)


def without_timing(message: bytes) -> Any:
    reply = pb.ModelInferResponse.FromString(message)
    reply.ClearField("parameters")
    return reply


class FakeSampler:
    """Draws the places that it is given, and keeps what it gets."""

    def __init__(self, *places: int) -> None:
        self.places = places
        self.drawn_from: list[int] = []
        self.kept: list[dict[str, Any]] = []

    def draw(self, requests: int) -> tuple[int, ...]:
        self.drawn_from.append(requests)
        return self.places

    def keep(self, *, arrays: Any, **fields: Any) -> None:
        self.kept.append({"arrays": [array.tolist() for array in arrays], **fields})


def test_each_logged_request_has_its_own_rows(executor_of: Any, servable: Any, ask: Any) -> None:
    executor = executor_of(servable)
    executor.sampler = sampler = FakeSampler(0, 2)
    for values in ([1.0], [2.0, 3.0], [4.0, 5.0]):
        ask(executor, *values)
    executor.run(0.0)
    assert sampler.drawn_from == [3]
    assert [(one["rows"], one["blocks"], one["arrays"]) for one in sampler.kept] == [
        (1, (np.array([1.0, -1.0]).tobytes(),), [[[2.0, -2.0]]]),
        (2, (np.array([4.0, -4.0, 5.0, -5.0]).tobytes(),), [[[8.0, -8.0], [10.0, -10.0]]]),
    ]


def test_only_what_was_answered_is_logged(executor_of: Any, servable: Any, ask: Any) -> None:
    executor = executor_of(servable)
    executor.sampler = sampler = FakeSampler(0, 1, 2)
    calls = [ask(executor, 1.0), ask(executor, 2.0, 3.0), ask(executor, 4.0)]
    servable.on_run = calls[1].leave
    executor.run(0.0)
    assert [one["arrays"] for one in sampler.kept] == [[[[2.0, -2.0]]], [[[8.0, -8.0]]]]


def test_a_request_that_runs_alone_is_logged_whole(executor_of: Any, fake_servable: Any, ask: Any) -> None:
    executor = executor_of(fake_servable(is_batched=False))
    executor.sampler = sampler = FakeSampler(0)
    ask(executor, 1.0, 2.0)
    executor.run(0.0)
    (one,) = sampler.kept
    assert (one["is_whole"], one["rows"], one["arrays"]) == (True, 2, [[[2.0, -2.0], [4.0, -4.0]]])


def test_nothing_failed_is_logged(executor_of: Any, servable: Any, ask: Any) -> None:
    executor = executor_of(servable)
    executor.sampler = sampler = FakeSampler(0)
    servable.fails = lambda rows: ModelFailedError("no") if 2.0 in rows else None
    for value in (1.0, 2.0, 3.0):
        ask(executor, value)
    drain(executor)
    assert [one["arrays"] for one in sampler.kept] == [[[[2.0, -2.0]]], [[[6.0, -6.0]]]]


class Stream:
    """Requests that end together when one of them fails, as those of a stream do whose caller wants a status."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def add(self, call: Any) -> None:
        self.calls.append(call)
        fail = call.fail

        def end(error: PenstockError) -> None:
            fail(error)
            for other in self.calls:
                other.leave()

        call.fail = end


class Mix:
    """Streams, failures, callers who leave, deadlines, priorities and large requests, in any order."""

    def __init__(self, executors: list[Executor], reactor: Any, ask: Callable[..., Any], seed: int) -> None:
        self.executors = executors
        self.reactor = reactor
        self.ask = ask
        self.rng = random.Random(seed)
        self.asked: list[tuple[Any, Any]] = []
        self.streams = [Stream() for _ in range(4)]

    def run(self, requests: int) -> None:
        for number in range(requests):
            self.one(number)
            self.disturb()
            self.turn(lambda: self.rng.random() < 0.3)
        while not all(executor.is_idle for executor in self.executors):
            self.turn(lambda: True)

    def one(self, number: int) -> None:
        rng, now_s = self.rng, time.monotonic()
        rows = rng.choice([0, 1, 1, 1, 2, 5, 16, 17, 40])
        sign = -1 if rng.random() < 0.05 else 1  # negative rows fail
        x = np.arange(2.0 * rows).reshape(rows, 2) + sign * (1 + number * 100)
        deadline_s = now_s + rng.choice([1e-5, 1e-3, 1.0]) if rng.random() < 0.2 else NEVER
        stream = rng.choice(self.streams) if rng.random() < 0.3 else Stream()
        priority = rng.choice([5, 5, 5, 1, 9])
        call = self.ask(
            rng.choice(self.executors), x, stream, arrived_s=now_s, deadline_s=deadline_s, priority=priority
        )
        self.asked.append((call, x))

    def disturb(self) -> None:
        if self.rng.random() < 0.1:
            self.rng.choice(self.asked)[0].leave()
        if self.rng.random() < 0.02:
            self.streams[self.rng.randrange(4)] = Stream()

    def turn(self, is_chosen: Callable[[], bool]) -> None:
        for executor in self.executors:
            if is_chosen() and executor.due_s() <= (now_s := time.monotonic()):
                executor.run(now_s)
        while self.reactor.act_now():
            pass


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_nobody_gets_rows_of_another(
    executor_of: Any,
    fake_servable: Any,
    fake_call: Any,
    fake_report: Any,
    infer_request: Any,
    outputs_of: Any,
    reactor: Any,
    thread: Any,
    seed: int,
) -> None:
    reports = [fake_report() for _ in range(3)]
    large_thread = ModelThread("large", reactor.post)
    rng = random.Random(seed)

    def executor(at: int) -> Any:
        servable = fake_servable(key=("m", str(at)), is_batched=at != 2)
        servable.fails = lambda rows: ModelFailedError("no") if (rows[:, 0] < 0).any() else None
        own = thread if at == 1 else None
        limits = {"max_rows": 16, "queue_requests": 64, "cost": Cost(1e-5, 1e-6)}
        return executor_of(
            servable,
            report=reports[at],
            clock=time.monotonic,
            thread=own,
            large_thread=large_thread,
            slice_rows=16,
            short_s=2e-5,
            is_alone=lambda one, now_s: bool(rng.getrandbits(1)),
            **limits,
        )

    def ask(executor: Executor, x: Any, stream: Stream, **fields: Any) -> Any:
        call = fake_call()
        stream.add(call)
        try:
            submit(executor, call, infer_request({"x": x}), **fields)
        except PenstockError as error:
            refuse(call, executor.report, error)
        return call

    mix = Mix([executor(at) for at in range(3)], reactor, ask, seed)
    mix.run(1500)
    large_thread.close()
    large_thread.join()
    assert all(call.is_over for call, _ in mix.asked)
    answered = [(call.answer, x) for call, x in mix.asked if call.answers and isinstance(call.answer, bytes)]
    for answer, x in answered:
        np.testing.assert_array_equal(outputs_of(answer)["y"], x * 2)
    assert len(answered) == sum(report.answered for report in reports) > 300
    assert sum(report.refusals.total() for report in reports) == len(mix.asked) - len(answered)
    for one in mix.executors:
        for queue in (one._queue, *([] if one._large is None else [one._large.queue])):
            assert (queue.rows, queue.requests, queue.size_bytes, queue.is_idle) == (0, 0, 0, True)
    assert [report.left_waiting for report in reports] == [(0, 0)] * 3
