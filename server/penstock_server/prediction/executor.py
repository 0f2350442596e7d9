"""An executor: one loaded version with its queue; it takes the rows of requests and sends their replies.

An inline executor runs its batches on the reactor's thread, which suits models that take microseconds. A threaded one
runs them on a thread of its own, which suits models that would hold the reactor. Both answer through the same code.
"""

import threading
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from penstock.names import Role
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT
from penstock_server.batching.queue import Batch, BatchQueue
from penstock_server.call import Call
from penstock_server.clock import Clock
from penstock_server.errors import (
    DeadlinePassedError,
    ModelFailedError,
    NotReadyError,
    OverloadedError,
    PenstockError,
)
from penstock_server.metrics.recorder import Recorder, refusal_reason
from penstock_server.models.servable import OnnxServable, Outputs
from penstock_server.prediction.decode import DecodedRows, Decoder
from penstock_server.prediction.encode import Choice, ReplyEncoder, encoded_id
from penstock_server.prediction.outputs import OutputReader
from penstock_server.prediction.shadow import AnsweredBatch, ShadowTarget
from penstock_server.request_log.sampler import RequestSampler

log = structlog.get_logger(__name__)

_DEADLINE: Final = "the answer would come after the deadline"


def refuse(call: Call, report: Recorder, error: PenstockError) -> None:
    """Ends a call with an error, counted by its reason: the one way out for a request that gets no answer."""
    call.pending = None
    report.refused(refusal_reason(error))
    call.fail(error)


class PendingRequest:
    """One request on its way: what waits in an executor's queue, with its reply inside.

    Attributes:
        deadline_s: the sooner of the caller's deadline and the model's objective.
        priority: 1 is served first, 9 last.
        size_bytes: the size of its message.
        encoder: the version's encoder, in the role that it had when the request was routed.
        is_waiting: it is in the queue, which sets this; afterwards its rows belong to a batch, even if the caller leaves.
        is_watched: it learns when the caller leaves.
    """

    __slots__ = (
        "arrived_s",
        "call",
        "chosen",
        "deadline_s",
        "decoded",
        "encoder",
        "executor",
        "id_field",
        "is_waiting",
        "is_watched",
        "priority",
        "rows",
        "size_bytes",
    )

    def __init__(
        self,
        executor: "Executor",
        call: Call,
        decoded: DecodedRows,
        *,
        arrived_s: float,
        deadline_s: float,
        request_id: str,
        chosen: Choice,
        priority: int = DEFAULT,
        size_bytes: int = 0,
    ) -> None:
        self.executor = executor
        self.call = call
        self.decoded = decoded
        self.rows = decoded.rows
        self.size_bytes = size_bytes
        self.arrived_s = arrived_s
        self.deadline_s = deadline_s
        self.id_field = encoded_id(request_id) if request_id else b""
        self.chosen = chosen
        self.priority = priority
        self.encoder = executor.encoder
        self.is_waiting = True
        self.is_watched = False

    @property
    def is_over(self) -> bool:
        """Answered or cancelled."""
        return self.call.is_over

    def watch(self) -> None:
        """Makes the transport report when the caller leaves."""
        self.is_watched = True
        self.call.watch()

    def cancelled(self) -> None:
        """Gives the request up: its caller left."""
        self.executor.cancelled(self)


class Executor:
    """A version's queue, its runs and its reports; all of it on the reactor's thread.

    Attributes:
        encoder: encodes replies in the version's role now.
        shadow: gets a copy of each answered batch; None when there is no shadow.
        sampler: keeps a sample of what is answered for the request log; None when nothing is logged.
    """

    def __init__(
        self,
        servable: OnnxServable,
        decoder: Decoder,
        *,
        limits: BatchLimits,
        report: Recorder,
        reader: OutputReader,
        clock: Clock,
        activate: Callable[["Executor"], None],
        cost: Cost | None = None,
    ) -> None:
        self.servable = servable
        self.decoder = decoder
        self.report = report
        self.reader = reader
        self.encoder = ReplyEncoder(servable.key, None, servable.outputs)
        self.shadow: ShadowTarget | None = None
        self.sampler: RequestSampler | None = None
        self._objective_s = limits.objective_s
        self._queue: BatchQueue[PendingRequest] = BatchQueue(limits, cost)
        self._clock = clock
        self._activate = activate
        self.output_at = {spec.name: at for at, spec in enumerate(servable.outputs)}

    def set_role(self, role: Role | None) -> None:
        """Sets the role that replies name, and removes the shadow."""
        self.encoder = ReplyEncoder(self.servable.key, role, self.servable.outputs)
        self.shadow = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return self._queue.is_idle

    def submit(self, request: PendingRequest) -> None:
        """Queues a request.

        Raises:
            OverloadedError: the queue is full, or the model's objective could not be met.
            DeadlinePassedError: the answer would come after the caller's deadline.
        """
        self._add(request)
        if len(self._queue) == 1:
            self._activate(self)

    def _add(self, request: PendingRequest) -> None:
        if request.deadline_s != inf or self._objective_s != inf:
            self._check_time(request)
        if not self._queue.add(request):
            model, version = self.servable.key
            waiting = f"{len(self._queue):,} requests of {self._queue.rows:,} rows wait"
            raise OverloadedError(f"the queue of model {model!r} version {version} is full: {waiting}; try again later")

    def _check_time(self, request: PendingRequest) -> None:
        """Refuses a request that cannot be answered in time, before it costs anything; ignores other executors' batches."""
        now_s = request.arrived_s
        request.deadline_s = min(request.deadline_s, now_s + self._objective_s)
        if not self._queue.is_in_time(request, now_s, one=not self.servable.is_batched):
            raise self._too_late(request)

    def _too_late(self, request: PendingRequest) -> PenstockError:
        if request.deadline_s < request.arrived_s + self._objective_s:
            return DeadlinePassedError(_DEADLINE)
        model, version = self.servable.key
        late = (
            f"model {model!r} version {version} cannot answer within its objective of {self._objective_s * 1000:g} ms"
        )
        return OverloadedError(f"{late}; try again later")

    def cancelled(self, request: PendingRequest) -> None:
        """Gives up the request of a caller that left."""
        self._queue.discard(request)
        self.report.refused("cancelled")

    def watch(self) -> None:
        """Watches callers whose requests did not get into a batch at once: they may leave before their turn."""
        for level in self._queue.newest():
            for request in level:
                if request.is_watched:
                    break
                request.watch()

    def due_s(self) -> float:
        """When `run` should be called: a time in the past means now."""
        return self._queue.due_s()

    def run(self, now_s: float) -> None:
        """Runs and answers one batch."""
        batch = self._take(now_s)
        took_s = None
        try:
            for request in batch.expired:
                self._refuse(request, self._too_late(request))
            if batch.items:
                took_s = self._answer_all(batch, now_s)
        except Exception:
            for request in batch.items:
                self._refuse(request, PenstockError("the batch failed"))
            raise
        finally:
            self._queue.ended(batch.rows, took_s)
        self.report.waiting(self._queue.rows, len(self._queue))

    def close(self) -> None:
        """Refuses the requests that still wait after the drain."""
        for request in self._queue.clear():
            self._refuse(request, NotReadyError("the version was unloaded before the request had its turn"))

    def _take(self, now_s: float) -> Batch[PendingRequest]:
        return self._queue.next_batch(now_s, one=not self.servable.is_batched)

    def _answer_all(self, batch: Batch[PendingRequest], started_s: float, *, is_again: bool = False) -> float | None:
        """Runs the batch and answers its requests; returns the seconds taken, or None when they had to run one by one."""
        items = batch.items
        blocks = _joined(items)
        shapes = items[0].decoded.shapes
        cells = None if is_again else self.report.drift_cells()
        try:
            outputs = self.servable.predict(blocks, batch.rows, shapes, cells)
            if self.servable.is_batched and any(len(array) != batch.rows for array in outputs.arrays):
                raise ModelFailedError("the model gave another number of rows than it got")
        except ModelFailedError as error:
            self._counted(cells, batch.rows)
            self._answer_singly(items, started_s, error)
            return None
        self._counted(cells, batch.rows)
        compute_s = outputs.features_s + outputs.infer_s
        answered = self._reply(items, outputs, batch.rows, started_s, compute_s)
        ended_s = self._clock()
        self.report.batch(
            arrived_s=[item.arrived_s for item in answered],
            rows=batch.rows,
            started_s=started_s,
            ended_s=ended_s,
            features_s=outputs.features_s,
            infer_s=outputs.infer_s,
        )
        if self.sampler is not None and (drawn := self.sampler.draw(len(items))):
            self._log(self.sampler, drawn, items, answered, outputs.arrays)
        given = outputs.arrays if outputs.refusal is None else self._given(outputs)
        if self.reader.classes is not None:
            self.report.classes(self.reader.classes(given))
        elif self.reader.score is not None:
            self.report.scores(given[self.reader.score])
        if self.shadow is not None:
            requests = () if self.shadow.is_batched else tuple(item.decoded for item in items)
            self.shadow.offer(AnsweredBatch(blocks, shapes, batch.rows, outputs.arrays, compute_s, requests))
        return ended_s - started_s

    def _log(
        self,
        sampler: RequestSampler,
        drawn: Sequence[int],
        items: list[PendingRequest],
        answered: list[PendingRequest],
        arrays: Sequence[NDArray[Any]],
    ) -> None:
        at = start = 0
        for place in drawn:
            start += sum(item.rows for item in items[at:place])
            at, item = place, items[place]
            if len(answered) == len(items) or item in answered:
                is_whole = not self.servable.is_batched
                own = arrays if is_whole else [array[start : start + item.rows] for array in arrays]
                sampler.keep(
                    id_field=item.id_field, rows=item.rows, blocks=item.decoded.blocks, arrays=own, is_whole=is_whole
                )

    def _answer_singly(self, items: list[PendingRequest], started_s: float, error: ModelFailedError) -> None:
        """Runs each request alone: the rows of one can fail a whole batch."""
        if len(items) == 1:
            log.warning(
                "model failed", model=self.servable.key[0], version=self.servable.key[1], cause=repr(error.__cause__)
            )
            self._refuse(items[0], error)
            return
        for item in items:
            if not item.is_over:
                self._answer_all(Batch([item], [], item.rows), started_s, is_again=True)

    def _counted(self, cells: NDArray[np.int64] | None, rows: int) -> None:
        # The features are counted before the graph runs, so rows that it fails on are in the window too, once.
        if cells is not None:
            self.report.drift_counted(rows)

    def _given(self, outputs: Outputs) -> list[NDArray[Any]]:
        """The outputs of the rows that are not refused."""
        if outputs.refusal is None or not self.servable.is_batched:
            return outputs.arrays
        kept = outputs.refusal.found < 0
        return [array[kept] for array in outputs.arrays]

    def _reply(
        self, items: list[PendingRequest], outputs: Outputs, rows: int, started_s: float, compute_s: float
    ) -> list[PendingRequest]:
        """Answers each request whose caller is still there, and returns these requests."""
        answered: list[PendingRequest] = []
        if not self.servable.is_batched:
            (item,) = items
            if outputs.refusal is not None:
                self._refuse(item, outputs.refusal.error(0, rows))
            elif not item.call.is_over:
                queue_us = _microseconds(started_s - item.arrived_s)
                reply = item.encoder.whole(
                    outputs.arrays,
                    rows,
                    compute_s=compute_s,
                    id_field=item.id_field,
                    chosen=item.chosen,
                    queue_us=queue_us,
                )
                self._finish(item, reply, answered)
            return answered
        # A reply names the role that the version had when its request was routed; a batch rarely spans a change.
        encoder = items[0].encoder
        replies = encoder.batch(outputs.arrays, rows, compute_s)
        start = 0
        for item in items:
            if item.encoder is not encoder:
                encoder = item.encoder
                replies = encoder.batch(outputs.arrays, rows, compute_s)
            if outputs.refusal is not None and outputs.refusal.touches(start, item.rows):
                self._refuse(item, outputs.refusal.error(start, item.rows))
            elif not item.call.is_over:
                queue_us = _microseconds(started_s - item.arrived_s)
                reply = replies.reply(start, item.rows, item.id_field, item.chosen, queue_us)
                self._finish(item, reply, answered)
            start += item.rows
        return answered

    def _finish(self, item: PendingRequest, reply: bytes, answered: list[PendingRequest]) -> None:
        item.call.pending = None
        item.call.finish(reply)
        answered.append(item)

    def _refuse(self, request: PendingRequest, error: PenstockError) -> None:
        if request.is_over:
            return
        refuse(request.call, self.report, error)


class ThreadedExecutor(Executor):
    """An executor whose batches run on a thread of its own; the queue is shared with the reactor under a lock.

    It overrides what touches the queue. `Executor` has no lock, since even an uncontended one would cost every inline
    request time.
    """

    def __init__(
        self,
        servable: OnnxServable,
        decoder: Decoder,
        *,
        limits: BatchLimits,
        report: Recorder,
        reader: OutputReader,
        clock: Clock,
        cost: Cost | None = None,
    ) -> None:
        super().__init__(
            servable,
            decoder,
            limits=limits,
            report=report,
            reader=reader,
            clock=clock,
            activate=lambda _: None,  # its own thread waits for the queue
            cost=cost,
        )
        self._condition = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop, name="-".join(self.servable.key), daemon=True)
        self._thread.start()

    def submit(self, request: PendingRequest) -> None:
        request.watch()
        with self._condition:
            self._add(request)
            self._condition.notify()

    def cancelled(self, request: PendingRequest) -> None:
        with self._condition:
            super().cancelled(request)

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify()
        self._thread.join(timeout=60)
        super().close()

    def _take(self, now_s: float) -> Batch[PendingRequest]:
        with self._condition:
            return super()._take(now_s)

    def _loop(self) -> None:
        while True:
            with self._condition:
                while not self._is_closed and (due := self._queue.due_s()) > (now := self._clock()):
                    self._condition.wait(None if due == inf else due - now)
                if self._is_closed:
                    return
            try:
                self.run(self._clock())
            except Exception:
                log.exception("batch failed", model=self.servable.key[0], version=self.servable.key[1])


def _microseconds(duration_s: float) -> int:
    return max(0, int(duration_s * 1e6))


def _joined(items: Sequence[PendingRequest]) -> tuple[bytes, ...]:
    """The batch's blocks: each input's raw contents, one request after another."""
    if len(items) == 1:
        return items[0].decoded.blocks
    return tuple(map(b"".join, zip(*[item.decoded.blocks for item in items], strict=True)))
