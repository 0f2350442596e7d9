import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from penstock_server.errors import ModelFailedError
from penstock_server.features import counting
from penstock_server.features.cells import AnswerCells, ClassCells
from penstock_server.features.pipeline import Refusal
from penstock_server.metrics.counters import CountersShape
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.classes import ClassOutputs
from penstock_server.models.servable import Outputs
from penstock_server.models.signature import TensorInfo
from penstock_server.prediction.block_copies import BlockCopy
from penstock_server.prediction.decode import DecodedRows
from penstock_server.prediction.outputs import NamedLabels, OutputReader, class_reader
from penstock_server.prediction.shadow import AnsweredBatch, ShadowTarget, ShadowThread, by_request
from penstock_server.prediction.shadows import Shadows

TIMEOUT_S = 20.0
SAME = (BlockCopy(0),)
X = np.array([[1.0, 5.0], [2.0, 1.0], [3.0, 4.0]])


@pytest.fixture
def thread() -> Iterator[ShadowThread]:
    made = ShadowThread(lambda action: action(), backlog_rows=10)
    yield made
    made.close()


def answered(y: Any = X * 2, rows: int = 3) -> AnsweredBatch:
    return AnsweredBatch((X[:rows].tobytes(),), None, rows, [np.asarray(y)], took_s=0.01)


def target_of(thread: Any, servable: Any, report: Any, order: Any = SAME, **more: Any) -> ShadowTarget:
    reader = OutputReader(class_reader(servable.outputs, ClassOutputs(scores=frozenset({"y"}))), 0)
    return ShadowTarget(thread, servable=servable, report=report, reader=reader, champion=reader, order=order, **more)


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


def test_the_rows_of_a_request_count_as_one(fake_servable: Any, fake_report: Any) -> None:
    report = fake_report()
    other = X * 2
    other[1] = [0.0, 1.0]
    target_of(Collecting(), fake_servable(), report).run(replace(answered(other), counts=(2, 1)))
    assert report.shadow_shares == [0.5, 0.0]
    assert report.shadow_means == [0.5, 0.0]  # a distance counts as 1 at most


def test_a_further_part_of_a_request_does_not_count_again(fake_servable: Any, fake_report: Any) -> None:
    report = fake_report()
    target_of(Collecting(), fake_servable(), report).run(answered())
    assert (report.shadow["agree"], report.shadow_shares) == (3, [])


def test_every_request_of_a_batch_that_fails_differs(fake_servable: Any, fake_report: Any) -> None:
    servable, report = fake_servable(), fake_report()
    servable.fails = lambda rows: RuntimeError("a bug")
    target_of(Collecting(), servable, report).run(replace(answered(), counts=(1, 2)))
    assert (report.shadow_shares, report.shadow_means) == ([1.0, 1.0], [])


@given(st.data(), st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_what_rows_say_of_each_request(data: st.DataObject, counts: list[int]) -> None:
    rows = sum(counts)
    flags = st.lists(st.booleans(), min_size=rows, max_size=rows).map(lambda found: np.array(found, np.bool_))
    answered_rows, own, agree = data.draw(flags), data.draw(flags), data.draw(flags)
    distance = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.25, 3.0, inf]), min_size=rows, max_size=rows)))
    shares, means = by_request(counts, answered_rows, own & agree, answered_rows & own, distance)
    expected_shares, expected_means, start = [], [], 0
    for count in counts:
        mine = range(start, start + count)
        start += count
        asked = [at for at in mine if answered_rows[at]]
        both = [at for at in asked if own[at]]
        expected_shares += [sum(not (own[at] and agree[at]) for at in asked) / len(asked)] if asked else []
        expected_means += [sum(min(distance[at], 1.0) for at in both) / len(both)] if both else []
    assert shares.tolist() == pytest.approx(expected_shares)
    assert means.tolist() == pytest.approx(expected_means)


def refusal(*found: int) -> Refusal:
    return Refusal(np.array(found), ("has no value",))


def test_rows_that_one_of_both_refused_are_not_compared(fake_servable: Any, fake_report: Any) -> None:
    report, shadow = fake_report(), fake_servable()
    predict = shadow.predict

    def refuses_the_last(*arguments: Any) -> Any:
        return replace(predict(*arguments), refusal=refusal(-1, -1, 0))

    shadow.predict = refuses_the_last
    batch = replace(answered(X * 2 + [[0.0], [9.0], [9.0]]), refusal=refusal(-1, 0, -1))
    target_of(Collecting(), shadow, report).run(batch)
    assert report.shadow == {"agree": 1, "disagree": 0, "refused": 1}
    assert report.distances == [0.0]


def test_named_classes_are_the_same_by_their_names(fake_report: Any, fake_servable: Any) -> None:
    shadow: Any = SimpleNamespace(
        key=("m", "2"),
        is_batched=True,
        predict=lambda *_: Outputs([np.array(["ham", "spam", "new"], object)], 0.0, 0.0),
    )
    report = fake_report()
    ShadowTarget(
        Collecting(),  # type: ignore[arg-type]
        servable=shadow,
        report=report,
        reader=OutputReader(NamedLabels(0, {"ham": 0, "spam": 1}), None),
        champion=OutputReader(NamedLabels(0, {"spam": 0, "ham": 1}), None),
        order=SAME,
    ).run(answered(np.array(["ham", "ham", "spam"], object)))
    assert report.shadow == {"agree": 1, "disagree": 2}


def test_a_shadow_whose_requests_run_alone_gets_them_one_by_one(
    executor_of: Any, fake_servable: Any, fake_report: Any, fake_call: Any, infer_request: Any
) -> None:
    """Its answers to a whole batch would be others than it gives to each request."""
    from penstock_server.prediction.executor import PendingRequest

    shadow, report, thread = fake_servable(is_batched=False), fake_report(), Collecting()
    executor = executor_of(fake_servable())
    target = target_of(thread, shadow, report)
    executor.shadows = Shadows([(target, 1.0)])
    for rows in (X[:2], X[2:]):
        decoded = executor.decoder.decode(infer_request({"x": rows}))
        executor.submit(
            PendingRequest(executor, fake_call(), decoded, arrived_s=0.0, deadline_s=9.0, request_id="", chosen=None)
        )
    executor.run(0.0)
    (copy,) = thread.taken
    target.run(copy)
    assert shadow.runs == [2, 1]
    assert (report.shadow_shares, report.shadow_means) == ([0.0, 0.0], [0.0, 0.0])
    assert report.shadow == {"agree": 3, "disagree": 0}
    assert report.distances == [0.0, 0.0, 0.0]


def test_blocks_come_in_the_shadows_order(fake_report: Any) -> None:
    class Two:
        key, is_batched = ("m", "2"), True
        outputs: tuple[TensorInfo, ...] = ()
        asked: Any = None

        def predict(self, blocks: Any, rows: int, shapes: Any, cells: Any, given: Any = ()) -> Any:
            self.asked = (list(blocks), shapes, cells)
            raise RuntimeError("enough")

    two, report = Two(), fake_report()
    copy = AnsweredBatch((b"a", b"b"), ((1,), (2,)), 1, [], 0.0)
    ShadowTarget(
        Collecting(),  # type: ignore[arg-type]
        servable=two, report=report, reader=OutputReader(None, None), champion=OutputReader(None, None),
        order=(BlockCopy(1), BlockCopy(0)),
    ).run(copy)  # fmt: skip
    assert two.asked == ([b"b", b"a"], [(2,), (1,)], None)


def test_a_failing_shadow_is_counted_and_kept_apart(fake_servable: Any, fake_report: Any) -> None:
    servable, report = fake_servable(), fake_report()
    servable.fails = lambda rows: RuntimeError("a bug")
    target_of(Collecting(), servable, report).run(answered())
    assert report.shadow == {"failed": 3}


def test_a_failing_shadow_logs_at_a_bounded_rate(fake_servable: Any, fake_report: Any) -> None:
    servable = fake_servable()
    servable.fails = lambda rows: RuntimeError("a bug")
    target = target_of(Collecting(), servable, fake_report())
    with capture_logs() as lines:
        for _ in range(100):
            target.run(answered())
    assert 1 <= len(lines) < 10
    assert lines[0]["event"] == "shadow failed"


def test_a_comparison_that_cannot_be_recorded_ends_no_thread(
    fake_servable: Any, fake_report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = fake_report()
    monkeypatch.setattr(report, "shadow_compared", lambda **_: 1 / 0)
    target_of(Collecting(), fake_servable(), report).run(answered())
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
    from penstock_server.prediction.answerer import PendingRequest

    executor, thread = executor_of(fake_servable()), Collecting()
    executor.shadows = Shadows([(target_of(thread, fake_servable(), executor.report), 1.0)])
    call = fake_call()
    rows = executor.decoder.decode(infer_request({"x": X}))
    executor.submit(PendingRequest(executor, call, rows, arrived_s=0.0, deadline_s=9.0, request_id="", chosen=None))
    executor.run(0.0)
    (copy,) = thread.taken
    assert (copy.blocks, copy.rows, copy.took_s, copy.requests) == ((X.tobytes(),), 3, 0.003, ())
    np.testing.assert_array_equal(copy.arrays[0], X * 2)
    executor.set_role("canary")
    assert executor.shadows is None


CLASSES = [AnswerCells(ClassCells((0, 1)))]


class Watched:
    """A shadow whose baseline has two columns of three bins, and two classes: of three rows, one is of the first class."""

    def __init__(self, new_counters: Any, servable: Any, thread: Any = None, *, joint: Any = None) -> None:
        shape = CountersShape(2, counting.row_words(3), 4)
        self.posted: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.post = self.posted.put
        self.counters = new_counters(shape)
        self.report = Recorder(self.counters, 40, CLASSES)
        self.servable, self._predict = servable, servable.predict
        servable.predict = self._counting
        self.target = target_of(
            thread or self,
            servable,
            self.report,
            apart=Recorder(new_counters(replace(shape, sub_windows=1)), answers=CLASSES),
            joint=joint,
        )

    def _counting(self, blocks: Any, rows: int, shapes: Any, cells: Any) -> Any:
        if cells is not None:
            cells[:, 1] += rows
        return self._predict(blocks, rows, shapes, None)

    @property
    def window(self) -> tuple[list[int], list[list[int]]]:
        """The rows of the sub-windows, and the first two cells of both columns and of the classes, over all of them."""
        return self.counters.drift_rows.tolist(), self.counters.drift[:, :, :2].sum(axis=0).tolist()


@pytest.fixture
def watched(new_counters: Any, fake_servable: Any) -> Watched:
    return Watched(new_counters, fake_servable())


def test_what_a_shadow_runs_is_counted_apart_and_handed_over(watched: Watched) -> None:
    watched.target.run(answered())
    watched.target.run(answered())
    nothing = ([0, 0, 0, 0], [[0, 0], [0, 0], [0, 0]])
    assert watched.posted.empty()
    watched.target.hand_over()
    assert watched.window == nothing
    watched.posted.get_nowait()()
    assert watched.window == ([6, 0, 0, 0], [[0, 6], [0, 6], [2, 4]])
    # It answers nobody, so it is in no other count of answers.
    assert watched.counters.classes.sum() == watched.counters.rows[0] == 0
    watched.target.hand_over()
    assert watched.posted.empty()


def test_a_copy_of_repeats_is_compared_and_not_counted(watched: Watched) -> None:
    watched.target.run(replace(answered(), is_repeat=True))
    watched.target.hand_over()
    assert watched.posted.empty()
    assert watched.counters.shadow.tolist() == [3, 0, 0, 0]


def test_repeats_that_run_one_by_one_are_not_counted_either(watched: Watched) -> None:
    watched.servable.is_batched = False
    requests = tuple(DecodedRows((rows.tobytes(),), len(rows)) for rows in (X[:2], X[2:]))
    copy = replace(answered(), requests=requests)
    watched.target.run(replace(copy, is_repeat=True))
    watched.target.hand_over()
    assert (watched.servable.runs, watched.posted.empty()) == ([2, 1], True)
    watched.target.run(copy)
    watched.target.hand_over()
    watched.posted.get_nowait()()
    assert watched.window == ([3, 0, 0, 0], [[0, 3], [0, 3], [1, 2]])


def test_a_full_sub_window_is_handed_over_while_more_waits(watched: Watched) -> None:
    for _ in range(4):
        assert watched.posted.empty()
        watched.target.run(answered())
    watched.posted.get_nowait()()
    assert watched.window == ([12, 0, 0, 0], [[0, 12], [0, 12], [4, 8]])
    watched.target.run(answered())
    assert watched.posted.empty()


def test_rows_that_the_graph_fails_on_are_in_the_window(watched: Watched) -> None:
    watched.servable.fails = lambda rows: ModelFailedError("failed")
    watched.target.run(answered())
    watched.target.hand_over()
    watched.posted.get_nowait()()
    assert watched.window == ([3, 0, 0, 0], [[0, 3], [0, 3], [0, 0]])
    assert watched.counters.shadow.tolist() == [0, 0, 3, 0]


def test_a_copy_is_counted_by_two_columns_when_one_is_due(new_counters: Any, fake_servable: Any) -> None:
    counted: list[Any] = []
    joint = SimpleNamespace(is_due=False, sample=lambda *facts: counted.append(facts))
    watched = Watched(new_counters, fake_servable(), joint=joint)
    watched.target.run(answered())
    assert watched.posted.empty()
    joint.is_due = True
    watched.target.run(replace(answered(), is_repeat=True))
    assert watched.posted.empty()
    watched.target.run(answered())
    assert not counted
    watched.posted.get_nowait()()
    ((work, outputs, _),) = counted
    assert (work.servable, work.blocks, work.rows) == (watched.servable, [X.tobytes()], 3)
    np.testing.assert_array_equal(outputs.arrays[0], X * 2)


def test_the_thread_hands_over_what_it_ran(new_counters: Any, fake_servable: Any) -> None:
    posted: queue.SimpleQueue[Any] = queue.SimpleQueue()
    thread = ShadowThread(posted.put)
    watched = Watched(new_counters, fake_servable(), thread)
    plain = target_of(thread, fake_servable(), Recorder(new_counters()))
    for _ in range(3):
        plain.offer(answered())
        watched.target.offer(answered())
    rows = 0
    while rows < 9:
        posted.get(timeout=TIMEOUT_S)()
        rows = int(watched.counters.drift_rows.sum())
    thread.close()
    assert watched.window == ([9, 0, 0, 0], [[0, 9], [0, 9], [3, 6]])
    assert posted.empty()


@pytest.mark.parametrize(
    ("skips_repeats", "has_baseline", "expected"),
    [(True, False, [False, True, False]), (False, False, [False] * 3), (True, True, [False] * 3)],
)
def test_a_champion_without_baseline_knows_repeats_for_its_shadow(
    executor_of: Any,
    fake_servable: Any,
    fake_report: Any,
    fake_call: Any,
    infer_request: Any,
    skips_repeats: bool,
    has_baseline: bool,
    expected: list[bool],
) -> None:
    """With a baseline of its own, whose rows repeat, it counts each."""
    from penstock_server.prediction.answerer import PendingRequest

    executor = executor_of(fake_servable(), report=fake_report(np.zeros((1, 9), np.int64) if has_baseline else None))
    thread = Collecting()
    executor.set_shadows(
        Shadows([(target_of(thread, fake_servable(), executor.report, skips_repeats=skips_repeats), 1.0)])
    )
    for rows in (X, X, X[:1]):
        decoded = executor.decoder.decode(infer_request({"x": rows}))
        executor.submit(
            PendingRequest(executor, fake_call(), decoded, arrived_s=0.0, deadline_s=inf, request_id="", chosen=None)
        )
        executor.run(0.0)
    assert [copy.is_repeat for copy in thread.taken] == expected
