import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from penstock_server.models.classes import ClassOutputs
from penstock_server.models.signature import TensorInfo
from penstock_server.prediction.outputs import OutputReader, class_reader
from penstock_server.prediction.shadow import AnsweredBatch, ShadowTarget, ShadowThread

TIMEOUT_S = 20.0
X = np.array([[1.0, 5.0], [2.0, 1.0], [3.0, 4.0]])


@pytest.fixture
def thread() -> Iterator[ShadowThread]:
    made = ShadowThread(backlog_rows=10)
    yield made
    made.close()


def answered(y: Any = X * 2, rows: int = 3) -> AnsweredBatch:
    return AnsweredBatch((X[:rows].tobytes(),), None, rows, [np.asarray(y)], took_s=0.01)


def target_of(thread: Any, servable: Any, report: Any, order: Any = (0,)) -> ShadowTarget:
    reader = OutputReader(class_reader(servable.outputs, ClassOutputs(scores=frozenset({"y"}))), 0)
    return ShadowTarget(thread, servable=servable, report=report, reader=reader, champion=reader, order=order)


class Collecting:
    """Stands where the thread does, and keeps what it is offered."""

    def __init__(self) -> None:
        self.taken: list[AnsweredBatch] = []

    def offer(self, _target: ShadowTarget, copy: AnsweredBatch) -> bool:
        self.taken.append(copy)
        return len(self.taken) < 2


def test_the_shadow_is_compared_row_by_row(fake_servable: Any, fake_report: Any) -> None:
    report = fake_report()
    other = X * 2
    other[1] = [0.0, 1.0]
    target_of(Collecting(), fake_servable(), report).run(answered(other))
    assert report.shadow == {"agree": 2, "disagree": 1}
    assert report.distances == [0.0, 4.0, 0.0]


def test_a_shadow_whose_requests_run_alone_gets_them_one_by_one(
    executor_of: Any, fake_servable: Any, fake_report: Any, fake_call: Any, infer_request: Any
) -> None:
    """Its answers to a whole batch would be others than it gives to each request."""
    from penstock_server.prediction.executor import PendingRequest

    shadow, report, thread = fake_servable(is_batched=False), fake_report(), Collecting()
    executor = executor_of(fake_servable())
    target = executor.shadow = target_of(thread, shadow, report)
    for rows in (X[:2], X[2:]):
        decoded = executor.decoder.decode(infer_request({"x": rows}))
        executor.submit(
            PendingRequest(executor, fake_call(), decoded, arrived_s=0.0, deadline_s=9.0, request_id="", chosen=None)
        )
    executor.run(0.0)
    (copy,) = thread.taken
    target.run(copy)
    assert shadow.runs == [2, 1]
    assert report.shadow == {"agree": 3, "disagree": 0}
    assert report.distances == [0.0, 0.0, 0.0]


def test_blocks_come_in_the_shadows_order(fake_report: Any) -> None:
    class Two:
        key, is_batched = ("m", "2"), True
        outputs: tuple[TensorInfo, ...] = ()
        asked: Any = None

        def predict(self, blocks: Any, rows: int, shapes: Any, cells: Any) -> Any:
            self.asked = (list(blocks), shapes, cells)
            raise RuntimeError("enough")

    two, report = Two(), fake_report()
    copy = AnsweredBatch((b"a", b"b"), ((1,), (2,)), 1, [], 0.0)
    ShadowTarget(
        Collecting(),  # type: ignore[arg-type]
        servable=two, report=report, reader=OutputReader(None, None), champion=OutputReader(None, None), order=(1, 0),
    ).run(copy)  # fmt: skip
    assert two.asked == ([b"b", b"a"], [(2,), (1,)], None)


def test_a_failing_shadow_is_counted_and_kept_apart(fake_servable: Any, fake_report: Any) -> None:
    servable, report = fake_servable(), fake_report()
    servable.fails = lambda rows: RuntimeError("a bug")
    target_of(Collecting(), servable, report).run(answered())
    assert report.shadow == {"failed": 3}


def test_answers_that_cannot_be_compared_are_failures(fake_servable: Any, fake_report: Any) -> None:
    report = fake_report()
    target_of(Collecting(), fake_servable(), report).run(answered(np.zeros((2, 2))))
    assert report.shadow == {"failed": 3}


def test_what_is_not_copied_is_counted_by_reason(fake_servable: Any, fake_report: Any) -> None:
    report = fake_report()
    target_of(Collecting(), fake_servable(), report, order=None).offer(answered())
    one = target_of(Collecting(), fake_servable(), report)
    one.offer(answered())
    one.offer(answered())
    assert report.shadow == {"incompatible": 3, "busy": 3}


def test_copies_run_on_a_thread_of_their_own_until_too_many_wait(
    thread: ShadowThread, fake_servable: Any, fake_report: Any
) -> None:
    servable, report = fake_servable(), fake_report()
    runs, may_run, names = threading.Semaphore(0), threading.Semaphore(0), []

    def hold() -> None:
        names.append(threading.current_thread().name)
        runs.release()
        assert may_run.acquire(timeout=TIMEOUT_S)

    servable.on_run = hold
    one = target_of(thread, servable, report)
    for _ in range(4):  # three rows each, ten may wait: the last is dropped
        one.offer(answered())
    assert report.shadow["busy"] == 3
    for _ in range(3):
        assert runs.acquire(timeout=TIMEOUT_S)
        may_run.release()
    thread.close()
    assert report.shadow == {"busy": 3, "agree": 9, "disagree": 0}
    assert set(names) == {"shadow"}


def test_a_closed_thread_runs_nothing_more(thread: ShadowThread, fake_servable: Any, fake_report: Any) -> None:
    servable, report = fake_servable(), fake_report()
    thread.close()
    target_of(thread, servable, report).offer(answered())
    assert servable.runs == []


def test_an_executor_copies_what_it_answered(
    executor_of: Any, fake_servable: Any, fake_call: Any, infer_request: Any
) -> None:
    from penstock_server.prediction.executor import PendingRequest

    executor, thread = executor_of(fake_servable()), Collecting()
    executor.shadow = target_of(thread, fake_servable(), executor.report)
    call = fake_call()
    rows = executor.decoder.decode(infer_request({"x": X}))
    executor.submit(PendingRequest(executor, call, rows, arrived_s=0.0, deadline_s=9.0, request_id="", chosen=None))
    executor.run(0.0)
    (copy,) = thread.taken
    assert (copy.blocks, copy.rows, copy.took_s, copy.requests) == ((X.tobytes(),), 3, 0.003, ())
    np.testing.assert_array_equal(copy.arrays[0], X * 2)
    executor.set_role("canary")
    assert executor.shadow is None
