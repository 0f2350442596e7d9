"""An executor: one loaded version with its queue, from a request's rows to its reply.

An inline executor runs its batches on the reactor's thread, which suits models that take microseconds; an executor beside runs
them on a thread of its own that takes the next batch when it is free, which suits models that would hold the reactor.
Both answer through the same code.
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
from penstock_server.models.servable import Outputs, Servable
from penstock_server.prediction.decode import Decoder, Rows
from penstock_server.prediction.encode import Choice, ReplyEncoder, encoded_id
from penstock_server.prediction.report import RequestLog, VersionReport, refusal_reason
from penstock_server.prediction.shadow import Answered, Mirror, Reader

log = structlog.get_logger(__name__)

_DEADLINE: Final = "the answer would come after the deadline"


class PendingRequest:
    """One request on its way: what waits in an executor's queue, with its reply inside.

    Attributes:
        deadline_s: when the caller, or the model's objective, no longer waits for the answer.
        priority: 1 is served first, 9 last.
        size_bytes: of its message.
        encoder: the version's in the role that it played when the request was routed.
        is_waiting: it is in the queue; its rows belong to a batch afterwards, whether the caller leaves or not.
        is_watched: it will hear when the caller leaves.
    """

    __slots__ = (
        "arrived_s",
        "call",
        "chosen",
        "deadline_s",
        "encoder",
        "executor",
        "id_field",
        "is_waiting",
        "is_watched",
        "priority",
        "rows",
        "size_bytes",
        "taken",
    )

    def __init__(
        self,
        executor: "Executor",
        call: Call,
        taken: Rows,
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
        self.taken = taken
        self.rows = taken.rows
        self.size_bytes = size_bytes
        self.arrived_s = arrived_s
        self.deadline_s = deadline_s
        self.id_field = encoded_id(request_id)
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
        """Asks to hear when the caller leaves."""
        self.is_watched = True
        self.call.watch()

    def cancelled(self) -> None:
        """The caller left."""
        self.executor.cancelled(self)


class Executor:
    """A version's queue, runner and reports; all of it on the reactor's thread.

    Attributes:
        encoder: encodes replies in the version's present role.
        mirror: gets a copy of each answered batch; None when there is no shadow.
        request_log: keeps a sample of what is answered; None when nothing is logged.
    """

    def __init__(
        self,
        servable: Servable,
        decoder: Decoder,
        *,
        limits: BatchLimits,
        report: VersionReport,
        reader: Reader,
        clock: Clock,
        activate: Callable[["Executor"], None],
        cost: Cost | None = None,
    ) -> None:
        self.servable = servable
        self.decoder = decoder
        self.report = report
        self.reader = reader
        self.encoder = ReplyEncoder(servable.key, None, servable.outputs)
        self.mirror: Mirror | None = None
        self.request_log: RequestLog | None = None
        self._objective_s = limits.objective_s
        self._queue: BatchQueue[PendingRequest] = BatchQueue(limits, cost)
        self._clock = clock
        self._activate = activate
        self._running = 0
        self._busy_until_s = 0.0
        self.output_at = {spec.name: at for at, spec in enumerate(servable.outputs)}

    def set_role(self, role: Role | None) -> None:
        """Takes a part: replies name it, and a copy goes to the shadow only from a champion that has one."""
        self.encoder = ReplyEncoder(self.servable.key, role, self.servable.outputs)
        self.mirror = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not len(self._queue) and not self._running

    def submit(self, prediction: PendingRequest) -> None:
        """Queues a request.

        Raises:
            OverloadedError: the queue is full, or the model's objective could not be met.
            DeadlinePassedError: the answer would come after the caller's deadline.
        """
        self._add(prediction)
        if len(self._queue) == 1:
            self._activate(self)

    def _add(self, prediction: PendingRequest) -> None:
        if prediction.deadline_s != inf or self._objective_s != inf:
            self._check_time(prediction)
        if not self._queue.add(prediction):
            model, version = self.servable.key
            waiting = f"{len(self._queue):,} requests of {self._queue.rows:,} rows wait"
            raise OverloadedError(f"the queue of model {model!r} version {version} is full: {waiting}; try again later")

    def _check_time(self, prediction: PendingRequest) -> None:
        """Refuses what cannot be answered in time while that costs nothing; other executors' batches are not foreseen."""
        now_s = prediction.arrived_s
        prediction.deadline_s = min(prediction.deadline_s, now_s + self._objective_s)
        start_s = max(now_s, self._busy_until_s)
        if self._queue.is_in_time(prediction, start_s, one=not self.servable.is_batched):
            return
        if self.is_idle:
            self._queue.cost.doubt()
        raise self._too_late(prediction)

    def _too_late(self, prediction: PendingRequest) -> PenstockError:
        if prediction.deadline_s < prediction.arrived_s + self._objective_s:
            return DeadlinePassedError(_DEADLINE)
        model, version = self.servable.key
        late = (
            f"model {model!r} version {version} cannot answer within its objective of {self._objective_s * 1000:g} ms"
        )
        return OverloadedError(f"{late}; try again later")

    def cancelled(self, prediction: PendingRequest) -> None:
        """A caller left; a request whose batch runs keeps its rows, which are between those of others."""
        if prediction.is_waiting:
            self._queue.discard(prediction)
        self.report.refused("cancelled")

    def watch(self) -> None:
        """Looks after callers whose requests did not get into a batch at once: they may leave before their turn."""
        for level in self._queue.newest():
            for prediction in level:
                if prediction.is_watched:
                    break
                prediction.watch()

    def due_s(self) -> float:
        """When `run` should be called: the past for now."""
        return self._queue.due_s()

    def run(self, now_s: float) -> None:
        """Runs and answers one batch."""
        batch = self._take(now_s)
        for prediction in batch.expired:
            self._refuse(prediction, self._too_late(prediction))
        if batch.items:
            self._running += 1
            try:
                self._answer_all(batch, now_s)
            except Exception:
                for prediction in batch.items:
                    self._refuse(prediction, PenstockError("the batch failed"))
                raise
            finally:
                self._running -= 1
                self._busy_until_s = 0.0
        self.report.waiting(self._queue.rows, len(self._queue))

    def close(self) -> None:
        """Refuses what still waits, after a drain that was not enough, and gives back what the executor holds."""
        for prediction in self._queue.clear():
            self._refuse(prediction, NotReadyError("the version was unloaded before the request had its turn"))

    def _take(self, now_s: float) -> Batch[PendingRequest]:
        batch = self._queue.next_batch(now_s, one=not self.servable.is_batched)
        if self._queue.is_timed:
            self._busy_until_s = now_s + self._queue.cost.of(batch.rows)
        for prediction in batch.items:
            prediction.is_waiting = False
        for prediction in batch.expired:
            prediction.is_waiting = False
        return batch

    def _answer_all(self, batch: Batch[PendingRequest], started_s: float, *, is_again: bool = False) -> None:
        items = batch.items
        blocks = _joined(items)
        shapes = items[0].taken.shapes
        cells = None if is_again else self.report.drift_cells()
        try:
            outputs = self.servable.predict(blocks, batch.rows, shapes, cells)
            if self.servable.is_batched and any(len(array) != batch.rows for array in outputs.arrays):
                raise ModelFailedError("the model gave another number of rows than it got")
        except ModelFailedError as error:
            self._counted(cells, batch.rows)
            self._answer_singly(items, started_s, error)
            return
        self._counted(cells, batch.rows)
        compute_s = outputs.features_s + outputs.infer_s
        answered = self._reply(items, outputs, batch.rows, started_s, compute_s)
        ended_s = self._clock()
        if self._queue.is_timed and not is_again:
            self._queue.cost.update(batch.rows, ended_s - started_s)
        self.report.batch(
            arrived_s=[item.arrived_s for item in answered],
            rows=batch.rows,
            started_s=started_s,
            ended_s=ended_s,
            features_s=outputs.features_s,
            infer_s=outputs.infer_s,
        )
        if self.request_log is not None:
            self.request_log.offer(items, answered, outputs.arrays)
        given = outputs.arrays if outputs.refusal is None else self._given(outputs)
        if self.reader.classes is not None:
            self.report.classes(self.reader.classes(given))
        elif self.reader.score is not None:
            self.report.scores(given[self.reader.score])
        if self.mirror is not None:
            self.mirror.offer(Answered(blocks, shapes, batch.rows, outputs.arrays, compute_s))

    def _answer_singly(self, items: list[PendingRequest], started_s: float, error: ModelFailedError) -> None:
        """One request's rows can fail a whole batch; its neighbours are asked again, each alone."""
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
        """Answers each request whose caller is there still; these."""
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
        # The role in a reply is that of the moment when its request was routed; a batch rarely spans a change.
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

    def _refuse(self, prediction: PendingRequest, error: PenstockError) -> None:
        if prediction.is_over:
            return
        prediction.call.pending = None
        self.report.refused(refusal_reason(error))
        prediction.call.fail(error)


class ThreadedExecutor(Executor):
    """An executor whose batches run on a thread of its own; the queue is shared with the reactor under a lock."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._condition = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop, name="-".join(self.servable.key), daemon=True)
        self._thread.start()

    def submit(self, prediction: PendingRequest) -> None:
        prediction.watch()
        with self._condition:
            self._add(prediction)
            self._condition.notify()

    def cancelled(self, prediction: PendingRequest) -> None:
        with self._condition:
            super().cancelled(prediction)

    def due_s(self) -> float:
        return inf

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
        return items[0].taken.blocks
    return tuple(map(b"".join, zip(*[item.taken.blocks for item in items], strict=True)))
