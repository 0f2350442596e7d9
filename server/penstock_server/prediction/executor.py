"""An executor: one loaded version with its queue; it takes the rows of requests and sends their replies.

All of it runs on the reactor's thread: queues, calls and counters have that one owner. An inline executor runs its model
there too, which suits models that take microseconds. A threaded one hands each batch to a model thread, as values that
nobody changes, and gets the outputs back as a message. Large requests take a third road (`prediction.large_requests`).
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf, prod
from typing import Any, Final

from numpy.typing import NDArray

from penstock.names import Role
from penstock.tensors import NUMPY_TYPES
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT
from penstock_server.batching.queue import Batch, BatchQueue
from penstock_server.call import Call
from penstock_server.clock import Clock
from penstock_server.errors import (
    DeadlinePassedError,
    InvalidInputError,
    ModelFailedError,
    NotReadyError,
    OverloadedError,
    PenstockError,
)
from penstock_server.metrics.recorder import Recorder, refusal_reason
from penstock_server.models.servable import OnnxServable, Outputs
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.prediction.decode import DecodedRows, Decoder
from penstock_server.prediction.encode import Choice, ReplyEncoder, encoded_id
from penstock_server.prediction.failure_log import FailureLog
from penstock_server.prediction.model_thread import ModelThread
from penstock_server.prediction.outputs import OutputReader
from penstock_server.prediction.shadow import AnsweredBatch, ShadowTarget
from penstock_server.prediction.work import Work, computed
from penstock_server.request_log.sampler import RequestSampler

_DEADLINE: Final = "the answer would come after the deadline"
_UNLOADED: Final = "the version was unloaded before the request had its turn"
_NOTHING: Final = DecodedRows((), 0)
MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""The largest reply where no limit is given: the default of the transports."""
_ENVELOPE_BYTES: Final = 16
"""What a stream adds to a reply."""


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
        rows: how many it brings; never changed.
        is_waiting: it is in a queue, which sets this; afterwards its rows belong to a batch, even if the caller leaves.
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
        self.is_waiting = False
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

    Args:
        activate: makes the scheduler call `run` when the queue is due.
        thread: runs its batches; None runs them inline.
        reply_bytes: the largest reply that can be sent.

    Attributes:
        encoder: encodes replies in the version's role now.
        shadow: gets a copy of each answered batch; None when there is no shadow.
        sampler: keeps a sample of what is answered for the request log; None when nothing is logged.
        is_active: the scheduler has it on its list; both of them set this.
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
        thread: ModelThread | None = None,
        reply_bytes: int = MESSAGE_BYTES,
    ) -> None:
        self.servable = servable
        self.decoder = decoder
        self.report = report
        self.reader = reader
        self.encoder = ReplyEncoder(servable.key, None, servable.outputs)
        self.shadow: ShadowTarget | None = None
        self.sampler: RequestSampler | None = None
        self.is_active = False
        self.output_at = {spec.name: at for at, spec in enumerate(servable.outputs)}
        self._objective_s = limits.objective_s
        self._queue: BatchQueue[PendingRequest] = BatchQueue(limits, cost)
        self._clock = clock
        self._activate = activate
        self._thread = thread
        # The batch that its thread runs.
        self._running: Batch[PendingRequest] | None = None
        # The requests of a batch that failed, each to run alone.
        self._singles: deque[Batch[PendingRequest]] = deque()
        self._failures = FailureLog(servable.key, clock)
        self._reply_bytes = reply_bytes - _ENVELOPE_BYTES
        self._row_bytes = [_row_bytes(spec) for spec in servable.outputs]
        self._sendable_rows = self._reply_bytes // max(1, sum(self._row_bytes)) if servable.is_batched else inf
        self._is_ending = False
        self._on_closed: Callable[[], None] | None = None

    @property
    def is_inline(self) -> bool:
        """Whether its batches run on the reactor's thread."""
        return self._thread is None

    def set_role(self, role: Role | None) -> None:
        """Sets the role that replies name, and removes the shadow."""
        self.encoder = ReplyEncoder(self.servable.key, role, self.servable.outputs)
        self.shadow = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return self._queue.is_idle and not self._singles and self._running is None

    def submit(self, request: PendingRequest) -> None:
        """Queues a request.

        Raises:
            InvalidInputError: the reply could not be sent.
            OverloadedError: the queue is full, or the model's objective could not be met.
            DeadlinePassedError: the answer would come after the caller's deadline.
            NotReadyError: the version is being unloaded.
        """
        if self._is_ending:
            model, version = self.servable.key
            raise NotReadyError(f"model {model!r} version {version} is being unloaded")
        if request.rows > self._sendable_rows:
            self._check_reply(request)
        self._admit(self._queue, request)
        if self._thread is not None:
            request.watch()
        if not self.is_active and self._running is None:
            self.is_active = True
            self._activate(self)

    def _admit(self, queue: BatchQueue[PendingRequest], request: PendingRequest) -> None:
        if request.deadline_s != inf or self._objective_s != inf:
            self._check_time(queue, request)
        if not queue.add(request):
            model, version = self.servable.key
            waiting = f"{queue.requests:,} requests of {queue.rows:,} rows wait"
            raise OverloadedError(f"the queue of model {model!r} version {version} is full: {waiting}; try again later")

    def _check_reply(self, request: PendingRequest) -> None:
        """Refuses what cannot be sent before it is computed."""
        places = range(len(self._row_bytes)) if request.chosen is None else request.chosen
        size = request.rows * sum(self._row_bytes[at] for at in places)
        if size > self._reply_bytes:
            raise self._too_large(request, size)

    def _too_large(self, request: PendingRequest, size: int) -> InvalidInputError:
        return InvalidInputError(
            f"the reply to {request.rows:,} rows takes {size:,} bytes, expected at most {self._reply_bytes:,}; "
            "ask for fewer rows or outputs at once"
        )

    def _check_time(self, queue: BatchQueue[PendingRequest], request: PendingRequest) -> None:
        """Refuses a request that cannot be answered in time, before it costs anything; ignores other executors' batches."""
        now_s = request.arrived_s
        request.deadline_s = min(request.deadline_s, now_s + self._objective_s)
        if not queue.admits(request, now_s, one=not self.servable.is_batched):
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
        self.report.refused("cancelled")
        if self._queue.discard(request):
            # It keeps its place for a while, but not its memory.
            request.decoded = _NOTHING
            self._report_waiting()
            self._close_if_drained()

    def watch(self) -> None:
        """Watches callers whose requests did not get into a batch at once: they may leave before their turn."""
        for level in self._queue.newest():
            for request in level:
                if request.is_watched:
                    break
                request.watch()

    def due_s(self) -> float:
        """When `run` should be called: a time in the past means now, never while its thread has a batch."""
        if self._running is not None:
            return inf
        return 0.0 if self._singles else self._queue.due_s()

    def run(self, now_s: float) -> None:
        """Starts one batch. Inline it is answered on return; else once the thread has given its outputs back."""
        # A batch that runs again was counted the first time: features are counted before the graph runs.
        cells = None if self._singles else self.report.drift_cells()
        batch = self._take(now_s)
        if batch.expired:
            self._guard(batch, partial(self._refuse_all, batch.expired))
        if not batch.items:
            self._report_waiting()
            self._close_if_drained()
            return
        work = Work(self.servable, _joined(batch.items), batch.rows, batch.items[0].decoded.shapes, cells)
        if self._thread is None:
            self._answer_inline(batch, work, now_s)
        else:
            self._running = batch
            self._report_waiting()
            self._thread.start(partial(computed, work), partial(self._came_back, batch, work, now_s))

    def _take(self, now_s: float) -> Batch[PendingRequest]:
        if not self._singles:
            return self._queue.next_batch(now_s, one=not self.servable.is_batched)
        batch = self._singles.popleft()
        (item,) = batch.items
        if item.is_over:
            return Batch([], [], [], 0)
        return batch if now_s < item.deadline_s else Batch([], [], [item], 0)

    def _answer_inline(self, batch: Batch[PendingRequest], work: Work, started_s: float) -> None:
        result = computed(work)
        self._count_drift(work, result)
        self._answer(batch, work, started_s, result)
        ended_s = self._clock()
        self._queue.ended(batch, ended_s, ended_s - started_s if isinstance(result, Outputs) else None)
        self._report_waiting()
        self._close_if_drained()

    def _came_back(
        self, batch: Batch[PendingRequest], work: Work, started_s: float, result: Outputs | Exception
    ) -> None:
        """Takes a batch back from the thread, and gives it the next one before the replies: it computes meanwhile."""
        ended_s = self._clock()
        self._running = None
        self._queue.ended(batch, ended_s, ended_s - started_s if isinstance(result, Outputs) else None)
        self._count_drift(work, result)
        if isinstance(result, Outputs):
            self._go_on(ended_s)
            self._answer(batch, work, started_s, result)
        else:
            self._answer(batch, work, started_s, result)
            self._go_on(ended_s)
        self._close_if_drained()

    def _go_on(self, now_s: float) -> None:
        due_s = self.due_s()
        if due_s <= now_s:
            self.run(now_s)
        elif due_s != inf:
            self._wake()

    def _wake(self) -> None:
        if not self.is_active:
            self.is_active = True
            self._activate(self)

    def _count_drift(self, work: Work, result: Outputs | Exception) -> None:
        # The features are counted before the graph runs, so rows that it fails on are in the window too.
        if work.cells is not None and isinstance(result, Outputs | ModelFailedError):
            self.report.drift_counted(work.rows)

    def _answer(self, batch: Batch[PendingRequest], work: Work, started_s: float, result: Outputs | Exception) -> None:
        if isinstance(result, Outputs):
            self._guard(batch, partial(self._answer_all, batch, work, started_s, result))
        else:
            self._guard(batch, partial(self._answer_singly, batch, result))

    def _guard(self, batch: Batch[PendingRequest], action: Callable[[], None]) -> None:
        """Whatever a bug leaves of a batch is refused: a call that was taken ends."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - logged, and told to those who wait
            self._failures.failed("batch failed", error, with_traceback=True)
            for request in batch.items:
                self._refuse(request, PenstockError("the batch failed"))

    def _answer_all(self, batch: Batch[PendingRequest], work: Work, started_s: float, outputs: Outputs) -> None:
        items = batch.items
        compute_s = outputs.features_s + outputs.infer_s
        answered = self._reply(batch, outputs, started_s, compute_s)
        self.report.batch(
            arrived_s=[item.arrived_s for item in answered],
            rows=batch.rows,
            started_s=started_s,
            ended_s=self._clock(),
            features_s=outputs.features_s,
            infer_s=outputs.infer_s,
        )
        if self.sampler is not None and (drawn := self.sampler.draw(len(items))):
            self._log(self.sampler, drawn, batch, answered, outputs.arrays)
        self._observe(work, outputs)

    def _observe(self, work: Work, outputs: Outputs) -> None:
        """Counts what was predicted, and copies the batch to the shadow."""
        given = outputs.arrays if outputs.refusal is None else self._given(outputs)
        if self.reader.classes is not None:
            self.report.classes(self.reader.classes(given))
        elif self.reader.score is not None:
            self.report.scores(given[self.reader.score])
        if self.shadow is not None:
            compute_s = outputs.features_s + outputs.infer_s
            self.shadow.offer(AnsweredBatch(work.blocks, work.shapes, work.rows, outputs.arrays, compute_s))

    def _log(
        self,
        sampler: RequestSampler,
        drawn: Sequence[int],
        batch: Batch[PendingRequest],
        answered: list[PendingRequest],
        arrays: Sequence[NDArray[Any]],
    ) -> None:
        items, counts = batch.items, batch.counts
        at = start = 0
        for place in drawn:
            start += sum(counts[at:place])
            at, item = place, items[place]
            if len(answered) == len(items) or item in answered:
                is_whole = item.decoded.shapes is not None
                own = arrays if is_whole else [array[start : start + counts[at]] for array in arrays]
                sampler.keep(
                    id_field=item.id_field, rows=counts[at], blocks=item.decoded.blocks, arrays=own, is_whole=is_whole
                )

    def _answer_singly(self, batch: Batch[PendingRequest], error: Exception) -> None:
        """Lets each request run alone, in turns with other executors: the rows of one can fail a whole batch."""
        items = batch.items
        if len(items) > 1:
            singles = zip(items, batch.counts, strict=True)
            self._singles.extend(Batch([item], [rows], [], rows) for item, rows in singles)
            return
        if isinstance(error, PenstockError):
            self._failures.failed("model failed", error.__cause__ or error)
            self._refuse(items[0], error)
        else:
            self._failures.failed("batch failed", error, with_traceback=True)
            self._refuse(items[0], PenstockError("the batch failed"))

    def _given(self, outputs: Outputs) -> list[NDArray[Any]]:
        """The outputs of the rows that are not refused."""
        if outputs.refusal is None or not self.servable.is_batched:
            return outputs.arrays
        kept = outputs.refusal.found < 0
        return [array[kept] for array in outputs.arrays]

    def _reply(
        self, batch: Batch[PendingRequest], outputs: Outputs, started_s: float, compute_s: float
    ) -> list[PendingRequest]:
        """Answers each request whose caller is still there, and returns these requests."""
        answered: list[PendingRequest] = []
        rows = batch.rows
        if not self.servable.is_batched:
            (item,) = batch.items
            size = sum(array.nbytes for array in outputs.arrays)
            if outputs.refusal is not None:
                self._refuse(item, outputs.refusal.error(0, rows))
            elif size > self._reply_bytes and item.chosen is None:
                self._refuse(item, self._too_large(item, size))
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
        encoder = batch.items[0].encoder
        replies = encoder.batch(outputs.arrays, rows, compute_s)
        start = 0
        # Cut by what was joined: a request that ended meanwhile leaves its rows where they are.
        for item, count in zip(batch.items, batch.counts, strict=True):
            if item.encoder is not encoder:
                encoder = item.encoder
                replies = encoder.batch(outputs.arrays, rows, compute_s)
            if outputs.refusal is not None and outputs.refusal.touches(start, count):
                self._refuse(item, outputs.refusal.error(start, count))
            elif not item.call.is_over:
                queue_us = _microseconds(started_s - item.arrived_s)
                reply = replies.reply(start, count, item.id_field, item.chosen, queue_us)
                self._finish(item, reply, answered)
            start += count
        return answered

    def _finish(self, item: PendingRequest, reply: bytes, answered: list[PendingRequest]) -> None:
        if len(reply) > self._reply_bytes:
            self._refuse(item, self._too_large(item, len(reply)))
            return
        item.call.pending = None
        item.call.finish(reply)
        answered.append(item)

    def _refuse_all(self, requests: Sequence[PendingRequest]) -> None:
        for request in requests:
            self._refuse(request, self._too_late(request))

    def _refuse(self, request: PendingRequest, error: PenstockError) -> None:
        if request.is_over:
            return
        refuse(request.call, self.report, error)

    def _report_waiting(self) -> None:
        self.report.waiting(self._queue.rows, self._queue.requests)

    def drain(self, closed: Callable[[], None]) -> None:
        """Takes no request from now on, answers those that wait, closes, and then calls `closed`."""
        self._is_ending = True
        self._on_closed = closed
        self._queue.hurry()
        if self.due_s() != inf:
            self._wake()
        self._close_if_drained()

    def _close_if_drained(self) -> None:
        if self._on_closed is not None and self.is_idle:
            self.close()

    def close(self) -> None:
        """Ends the executor now: refuses all that waits, and what its thread still runs."""
        self._is_ending = True
        running = [] if self._running is None else self._running.items
        self._running = None
        singles = [item for batch in self._singles for item in batch.items]
        self._singles.clear()
        for request in (*self._queue.clear(), *singles, *running):
            self._refuse(request, NotReadyError(_UNLOADED))
        self._report_waiting()
        if self._thread is not None:
            self._thread.close()
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed()

    def join(self) -> None:
        """Waits for the end of its thread, for a few seconds at most; not on the reactor."""
        if self._thread is not None:
            self._thread.join()


def _row_bytes(spec: TensorInfo) -> int:
    """The bytes that a row of this output takes in a reply; the least where that varies."""
    item = 4 if spec.datatype == "BYTES" else NUMPY_TYPES[spec.datatype].itemsize
    return prod(0 if size == ANY else size for size in spec.shape[1:]) * item


def _microseconds(duration_s: float) -> int:
    return max(0, int(duration_s * 1e6))


def _joined(items: Sequence[PendingRequest]) -> tuple[bytes, ...]:
    """The batch's blocks: each input's raw contents, one request after another."""
    if len(items) == 1:
        return items[0].decoded.blocks
    return tuple(map(b"".join, zip(*[item.decoded.blocks for item in items], strict=True)))
