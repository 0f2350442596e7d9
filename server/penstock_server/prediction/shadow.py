"""Runs the shadow on copies of the batches that the champion has answered, and compares the answers.

A copy is offered after the answers have left, a whole batch at a time, so the comparison of durations is fair and the
champion pays one append per batch. One thread runs all shadows of a worker. When it falls behind, copies are dropped
and counted. Nothing it does can change an answer.

Drift is counted apart, since the version may be asked by its number too, and then the reactor counts for it: the thread hands
over what it counted a few milliseconds later, of many copies at once.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.clock import monotonic
from penstock_server.features import counting
from penstock_server.features.pipeline import Refusal
from penstock_server.labels.prediction_file import KeyedRows
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.servable import Outputs, Servable, Shapes
from penstock_server.prediction.block_copies import BlockCopy
from penstock_server.prediction.decode import DecodedRows
from penstock_server.prediction.failure_log import FailureLog
from penstock_server.prediction.joint_sampler import JointSampler
from penstock_server.prediction.model_thread import Post
from penstock_server.prediction.outputs import Agreement, NamedLabels, OutputReader, agreement, count_answers
from penstock_server.prediction.records import VersionRecords
from penstock_server.prediction.work import Work
from penstock_server.tracing.tracer import Run, SpanContext, TracedRequest

BACKLOG_ROWS: Final = 8192
GATHER_S: Final = 0.005
"""How long the thread sleeps before it looks again: waking it for each batch would cost the request path more."""


@dataclass(frozen=True, slots=True)
class AnsweredBatch:
    """A batch that the champion has answered.

    Attributes:
        blocks, shapes: the batch as the champion's servable took it.
        arrays: the champion's outputs.
        refusal: the rows that the champion refused, whose outputs say nothing; None if there are none.
        took_s: the champion's time for features and graph.
        requests: the same rows by request, for shadows whose requests run alone, which get no part of a request; empty
            where there are none.
        is_repeat: the rows are those of recent requests, which drift does not count.
        is_overridden: the request gave other values than the defaults of the champion's inputs, which the shadow may not have.
        traced: those of its requests that are traced.
        keyed: those with an id whose answers are recorded.
        counts: the rows of each request; none for a further part of a large request, which counts with its first.
    """

    blocks: Sequence[bytes]
    shapes: Shapes | None
    rows: int
    arrays: Sequence[NDArray[Any]]
    took_s: float
    refusal: Refusal | None = None
    requests: Sequence[DecodedRows] = ()
    is_repeat: bool = False
    is_overridden: bool = False
    traced: Sequence[TracedRequest] = ()
    keyed: Sequence[KeyedRows] = ()
    counts: Sequence[int] = ()


class ShadowThread:
    """Runs offered copies, oldest first; `offer` never waits. All shadows share its time and its backlog.

    Args:
        post: runs an action soon on the reactor's thread.
        backlog_rows: rows that may wait.

    Attributes:
        post: the same.
    """

    def __init__(self, post: Post, backlog_rows: int = BACKLOG_ROWS) -> None:
        self.post = post
        self._backlog_rows = backlog_rows
        self._waiting: deque[tuple[ShadowTarget, AnsweredBatch]] = deque()
        self._taken_rows = 0
        self._offered_rows = 0
        self._has_work = threading.Event()
        self._is_stopped = False
        # At the reactor's priority: if the system starved it while it holds the interpreter's lock, the reactor would stop.
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, target: "ShadowTarget", batch: AnsweredBatch) -> bool:
        """Queues a copy; False when too many rows wait."""
        if self._offered_rows - self._taken_rows + batch.rows > self._backlog_rows:
            return False
        self._offered_rows += batch.rows
        self._waiting.append((target, batch))
        if not self._has_work.is_set():
            self._has_work.set()
        return True

    def close(self) -> None:
        """Ends the thread after the copy it is running."""
        self._is_stopped = True
        self._has_work.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._is_stopped:
            if not self._waiting:
                self._has_work.wait()
                time.sleep(GATHER_S)
            self._has_work.clear()
            self._run_round()

    def _run_round(self) -> None:
        """Runs the copies that wait now, and hands over what was counted.

        Its variables end with it: while it waits the thread must not keep the last batch's memory, or an unloaded version.
        """
        ran = set()
        for _ in range(len(self._waiting)):
            if self._is_stopped:
                break
            target, batch = self._waiting.popleft()
            target.run(batch)
            self._taken_rows += batch.rows
            ran.add(target)
        for target in ran:
            target.hand_over()


class ShadowTarget:
    """One champion's shadow.

    Args:
        servable, report, reader: the shadow version.
        apart: counts its drift for the time being, in counters of one sub-window that are the shadow thread's own; None where
            the version has no drift baseline.
        skips_repeats: whether its drift counts no repeats.
        joint: counts a sample of its rows by two columns at once, on the reactor's thread; None where nothing is counted so.
        order: for each of the shadow's blocks, which of the champion's it is; None when the two take different inputs:
            then every copy is dropped as incompatible.
        champion: how to read the champion's answers.
        traced: writes that the shadow ran for some requests, and when that ended; on the reactor's thread.
        records: writes what the shadow answered, for labels; None where nothing is recorded.

    Attributes:
        skips_repeats: the same.
    """

    def __init__(
        self,
        thread: ShadowThread,
        *,
        servable: Servable,
        report: Recorder,
        reader: OutputReader,
        champion: OutputReader,
        order: Sequence[BlockCopy] | None,
        apart: Recorder | None = None,
        skips_repeats: bool = False,
        joint: JointSampler | None = None,
        traced: Callable[[Sequence[SpanContext], Run, float], None] | None = None,
        records: VersionRecords | None = None,
    ) -> None:
        self._thread = thread
        self._records = records
        self._traced = traced
        self._servable = servable
        self._report = report
        self._reader = reader
        self._champion = _in_places_of(champion, reader)
        self._order = order
        self._apart = apart
        self._counted_rows = 0
        self._joint = joint
        self.skips_repeats = skips_repeats
        self._failures = FailureLog(servable.key, monotonic)

    @property
    def is_batched(self) -> bool:
        """Whether the shadow may run a whole batch of the champion's; else it runs the batch's requests one by one."""
        return self._servable.is_batched

    def offer(self, batch: AnsweredBatch) -> None:
        """Copies a batch to the shadow, or counts why not."""
        is_part = not self._servable.is_batched and not batch.requests
        if self._order is None or is_part or batch.is_overridden:
            self._report.shadow_dropped("incompatible", batch.rows)
        elif not self._thread.offer(self, batch):
            self._report.shadow_dropped("busy", batch.rows)

    def left_out(self, rows: int) -> None:
        """Counts rows that were not drawn for the shadow."""
        self._report.shadow_dropped("sampled_out", rows)

    def run(self, batch: AnsweredBatch) -> None:
        """Runs the shadow on a batch and compares; on the shadow's thread. Raises nothing, which would end the thread."""
        if len(batch.requests) > 1 and not self.is_batched:
            for request in _single(batch):
                self.run(request)
            return
        order = self._order or ()
        shapes = None if batch.shapes is None else [batch.shapes[copy.at] for copy in order]
        apart = None if batch.is_repeat else self._apart
        try:
            blocks = [copy.of(batch.blocks) for copy in order]
            cells = None if apart is None else apart.drift_cells()
            began_s = monotonic()
            outputs = self._servable.predict(blocks, batch.rows, shapes, cells)
            if batch.traced and self._traced is not None:
                run = Run(began_s, outputs.features_s, outputs.infer_s, batch.rows)
                self._thread.post(partial(self._traced, [span for _, span in batch.traced], run, monotonic()))
            if apart is not None:
                count_answers(apart, self._reader, outputs, is_batched=self._servable.is_batched)
                if self._joint is not None and self._joint.is_due:
                    work = Work(self._servable, blocks, batch.rows, shapes, None)
                    self._thread.post(partial(self._joint.sample, work, outputs, self._reader))
            found = agreement(
                batch.arrays,
                outputs.arrays,
                classes=(self._champion.classes, self._reader.classes),
                scores=(self._champion.score, self._reader.score),
                rows=batch.rows,
            )
            self._compared(batch, outputs, found)
            if batch.keyed and self._records is not None:
                refusal = outputs.refusal
                keyed = [each for each in batch.keyed if refusal is None or not refusal.touches(each.start, each.rows)]
                self._records.write_shadow(keyed, outputs.arrays)
        except Exception as error:  # noqa: BLE001 - counted, and logged at a bounded rate
            self._failures.failed("shadow failed", error, with_traceback=True)
            self._report.shadow_failed(batch.rows)
            self._report.shadow_requests(np.ones(len(batch.counts)), np.empty(0))
        if apart is not None:
            self._counted_rows += self._servable.counted_rows(batch.rows)
            if self._counted_rows >= self._report.sub_window_rows:
                self.hand_over()

    def _compared(self, batch: AnsweredBatch, outputs: Outputs, found: Agreement) -> None:
        """Counts a comparison of the rows that both answered; what the champion refused is no loss of the shadow."""
        champions, own = _answered(batch.refusal, batch.rows), _answered(outputs.refusal, batch.rows)
        both = champions & own
        self._report.shadow_refused(int(np.count_nonzero(champions & ~own)))
        self._report.shadow_compared(
            agree=found.agree[both],
            distance=found.distance[both],
            classes=None if found.classes is None else (found.classes[0][both], found.classes[1][both]),
            champion_s=batch.took_s,
            shadow_s=outputs.features_s + outputs.infer_s,
        )
        if batch.counts:
            self._report.shadow_requests(*by_request(batch.counts, champions, own & found.agree, both, found.distance))

    def hand_over(self) -> None:
        """Has the reactor add what was counted apart to the version's counters; on the shadow's thread."""
        if self._apart is None:
            return
        self._counted_rows = 0
        (counts,) = self._apart.counters.drift
        # Of a copy that failed, rows are there if the graph failed on them, as in any other version's counts.
        if rows := counting.rows_of(counts):
            self._thread.post(partial(self._report.drift_added, counts.copy(), rows))
            counts[...] = 0


def _in_places_of(champion: OutputReader, shadow: OutputReader) -> OutputReader:
    """How to read the champion's answers, with named classes numbered as the shadow's are."""
    if isinstance(champion.classes, NamedLabels) and isinstance(shadow.classes, NamedLabels):
        return champion._replace(classes=champion.classes._replace(places=shadow.classes.places))
    return champion


def by_request(
    counts: Sequence[int],
    answered: NDArray[np.bool_],
    agree: NDArray[np.bool_],
    both: NDArray[np.bool_],
    distance: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a batch's rows say of each request, as the unit that tests count: its rows are one draw.

    Args:
        counts: the rows of each request, which add up to N.
        answered: [N] rows that the champion answered.
        agree: [N] those of them that the shadow answered alike.
        both: [N] rows that both answered.
        distance: [N] of their scores.

    Returns:
        Of requests of which the champion answered a row, the share of those rows that do not agree; and of requests of which
        both answered a row, the mean distance of those rows, each of which is at most 1.
    """
    request = np.repeat(np.arange(len(counts)), counts)
    of_champion, of_both = (np.bincount(request, rows, len(counts)) for rows in (answered, both))
    differing = np.bincount(request, answered & ~agree, len(counts))
    near = np.minimum(np.nan_to_num(distance, nan=1.0, posinf=1.0), 1.0)
    far = np.bincount(request, np.where(both, near, 0.0), len(counts))
    has_champion, has_both = of_champion > 0, of_both > 0
    return differing[has_champion] / of_champion[has_champion], far[has_both] / of_both[has_both]


def _answered(refusal: Refusal | None, rows: int) -> NDArray[np.bool_]:
    """Which rows a version answered, bool [rows]."""
    return np.ones(rows, np.bool_) if refusal is None else refusal.found < 0


def _single(batch: AnsweredBatch) -> Iterator[AnsweredBatch]:
    """The batch's requests, each as a batch of its own with its share of the time."""
    start = 0
    for place, request in enumerate(batch.requests):
        end = start + request.rows
        arrays = [array[start:end] for array in batch.arrays]
        took_s = batch.took_s / len(batch.requests)
        traced = [(0, span) for at, span in batch.traced if at == place]
        keyed = [each._replace(place=0, start=0) for each in batch.keyed if each.place == place]
        yield AnsweredBatch(
            request.blocks,
            request.shapes,
            request.rows,
            arrays,
            took_s,
            None if batch.refusal is None else Refusal(batch.refusal.found[start:end], batch.refusal.reasons),
            is_repeat=batch.is_repeat,
            traced=traced,
            keyed=keyed,
            counts=(request.rows,),
        )
        start = end
