"""An executor: one loaded version with its queue; it takes the rows of requests and sends their replies.

All of it runs on the reactor's thread: queues, calls and counters have that one owner. An inline executor runs its model
there too, which suits models that take microseconds. A threaded one hands its batches to a model thread, as values that
nobody changes, and gets the outputs back as a message; while nobody else is asked, it runs short ones on the reactor, since the
way to the thread and back takes longer than many a batch. Large requests take a third road (`prediction.large_requests`).
"""

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.names import Role
from penstock.tensors import element_bytes
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.policy import RequestPolicy
from penstock_server.batching.queue import Batch, BatchQueue
from penstock_server.clock import Clock
from penstock_server.errors import (
    ModelFailedError,
    NotReadyError,
    PenstockError,
)
from penstock_server.metrics.recorder import Recorder, refusal_reason
from penstock_server.models.servable import Outputs, Servable
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.plain import layout
from penstock_server.plain.lane import Lane, LaneBatch
from penstock_server.prediction.answerer import Answerer, PendingRequest
from penstock_server.prediction.classification import output_of
from penstock_server.prediction.decode import DecodedRows, Decoder
from penstock_server.prediction.fusing import fused
from penstock_server.prediction.joint_sampler import JointSampler
from penstock_server.prediction.kept_batches import KeptBatches
from penstock_server.prediction.large_requests import LargeRequests
from penstock_server.prediction.model_thread import ModelThread
from penstock_server.prediction.outputs import OutputReader
from penstock_server.prediction.plain_batches import PlainBatches
from penstock_server.prediction.recent import RecentRequests
from penstock_server.prediction.records import VersionRecords
from penstock_server.prediction.shadows import Shadows
from penstock_server.prediction.work import Work, computed
from penstock_server.request_log.sampler import RequestSampler
from penstock_server.response_cache.responses import VersionResponses
from penstock_server.tracing.tracer import Tracer

_UNLOADED: Final = "the version was unloaded before the request had its turn"
_NOTHING: Final = DecodedRows((), 0)
LARGE_BYTES: Final = 128 * 1024
"""A larger message is neither decoded nor run on the reactor where its rows do not tell what it costs."""
MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""The largest reply where no limit is given: the default of the transports."""


class Executor(Answerer):
    """A version's queue, its runs and its reports; all of it on the reactor's thread.

    Args:
        activate: makes the scheduler call `run` when the queue is due.
        thread: runs its batches; None runs them inline.
        short_s: what a batch may take that a threaded executor runs inline while it is alone.
        is_alone: tells whether no other executor has run a batch lately, as this one does now; None: never.
        large_thread: runs the large requests of an inline executor; None runs those inline too.
        slice_rows: the rows of a slice of a large request; a batch's when not given.
        recent: the requests that drift counts no second time; None where it counts each.
        explaining: the executor of the same version with attributions; None if it gives none.
        counts_apart: another executor of the version counts drift meanwhile, on another thread.
        reply_bytes: the largest message that can be sent.
        joint: counts a sample of the rows by two columns at once; None where nothing is counted so.
        tracer: writes how traced requests went; None where nothing is traced.
        policy: what the model's files say of requests' priorities and timeouts; None where they say nothing.
        responses: where its answers are kept; None if they are not.
        records: writes what was answered, for labels; None where nothing is recorded.

    Attributes:
        recent: the requests that drift counts no second time; None where it counts each.
        by_key: the executor for a request of a routing key, where several share the requests; None where this one has all.
        is_active: the scheduler has it on its list; both of them set this.
        is_ending: it takes no more requests.
        is_closed: it will run nothing more.
    """

    def __init__(
        self,
        servable: Servable,
        decoder: Decoder,
        *,
        limits: BatchLimits,
        report: Recorder,
        reader: OutputReader,
        clock: Clock,
        activate: Callable[["Executor"], None],
        cost: Cost | None = None,
        thread: ModelThread | None = None,
        short_s: float = 0.0,
        is_alone: "Callable[[Executor, float], bool] | None" = None,
        large_thread: ModelThread | None = None,
        slice_rows: int | None = None,
        recent: RecentRequests | None = None,
        explaining: "Executor | None" = None,
        counts_apart: bool = False,
        reply_bytes: int = MESSAGE_BYTES,
        joint: JointSampler | None = None,
        tracer: Tracer | None = None,
        policy: RequestPolicy | None = None,
        responses: VersionResponses | None = None,
        records: VersionRecords | None = None,
    ) -> None:
        super().__init__(
            servable,
            decoder,
            limits=limits,
            report=report,
            reader=reader,
            clock=clock,
            reply_bytes=reply_bytes,
            joint=joint,
            responses=responses,
            tracer=tracer,
            records=records,
        )
        self.is_active = False
        self.is_ending = False
        self.is_closed = False
        self.explaining = explaining
        self.policy = policy
        self.by_key: Callable[[str], Executor] | None = None
        self._plain_of: Callable[[], Executor | None] = _nobody
        if explaining is not None:
            # Weakly, since only the collector would free the two of them.
            explaining._plain_of = weakref.ref(self)  # noqa: SLF001 - of its own kind
        cells = report.drift_cells() if counts_apart else None
        self._own_cells = None if cells is None else np.zeros_like(cells)
        self._queue: BatchQueue[PendingRequest] = BatchQueue(limits, cost)
        self._activate = activate
        self._thread = thread
        self._short_s = short_s
        self._tells_alone = is_alone
        self._is_on_thread = False
        # The batch that its thread runs.
        self._running: Batch[PendingRequest] | LaneBatch | None = None
        # The requests of a batch that failed, each to run alone.
        self._singles: deque[Batch[PendingRequest]] = deque()
        self._row_bytes = [_row_bytes(spec) for spec in servable.outputs]
        self._sendable_rows = self.reply_bytes // max(1, sum(self._row_bytes)) if servable.is_batched else inf
        self.recent = recent
        self._slice_rows = slice_rows or limits.most_rows
        self._large = self._large_requests(large_thread, limits, cost or Cost(0.0, 0.0))
        self._usual_rows = min(self._sendable_rows, self._slice_rows) if servable.is_batched else inf
        # Rows of numbers all cost the same; only text, and tensors of any shape, may be larger than their rows tell.
        self._is_free = not servable.is_batched or any(block.datatype == "BYTES" for block in decoder.blocks)
        self._usual_bytes = LARGE_BYTES if thread is None and self._large is not None and self._is_free else inf
        self._on_closed: Callable[[], None] | None = None
        self.plain_batches: PlainBatches | None = None
        self.kept_batches: KeptBatches | None = None
        # What is kept is found by the rows of each request, which kernels join.
        self._knows_sizes = responses is None or all(decoder.plain_row_bytes())
        self._is_plain_next = False

    def _large_requests(
        self, large_thread: ModelThread | None, limits: BatchLimits, cost: Cost
    ) -> LargeRequests | None:
        # A threaded executor that cannot cut requests has a thread for them already.
        thread = large_thread if self._thread is None else self._thread if self.servable.is_batched else None
        if thread is None:
            return None
        rows = self._slice_rows
        sliced = Cost(cost.base_s, cost.row_s + cost.base_s / rows)
        queue: BatchQueue[PendingRequest] = BatchQueue(replace(limits, max_delay_s=0.0), sliced)
        return LargeRequests(self, queue, thread, clock=self._clock, slice_rows=rows, ended=self._large_ended)

    @property
    def cost(self) -> Cost:
        """What a batch takes, as far as it is known."""
        return self._queue.cost.cost

    @property
    def short_rows(self) -> int:
        """The rows of the largest batch that runs on the reactor although there is a thread, by its cost now."""
        cost = self.cost
        is_any = self._thread is not None and cost.of(1) < self._short_s
        return cost.rows_within(self._short_s, self.limits.most_rows) if is_any else 0

    @property
    def is_inline(self) -> bool:
        """Whether its batches run on the reactor's thread."""
        return self._thread is None

    @property
    def skips_repeats(self) -> bool:
        """Whether drift counts no requests that repeat recent ones."""
        return self.recent is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        is_large_idle = self._large is None or self._large.is_idle
        plain = (self.plain_batches, self.kept_batches)
        is_plain_idle = all(each is None or each.is_idle for each in plain)
        return self._queue.is_idle and not self._singles and self._running is None and is_large_idle and is_plain_idle

    def submit(self, request: PendingRequest) -> None:
        """Queues a request, or answers it at once with what is kept of its rows.

        Raises:
            InvalidInputError: the reply could not be sent.
            OverloadedError: the queue is full, or the model's objective could not be met.
            DeadlinePassedError: the answer would come after the caller's deadline.
            NotReadyError: the version is being unloaded.
        """
        if self.is_ending:
            model, version = self.servable.key
            raise NotReadyError(f"model {model!r} version {version} is being unloaded")
        if (request.rows > self._usual_rows or request.size_bytes > self._usual_bytes) and self._submit_large(request):
            return
        if self.responses is not None and self._is_kept(self.responses, request):
            return
        self.queue_up(request)

    def queue_up(self, request: PendingRequest) -> None:
        """Queues a request that is to run; raises what `submit` raises of a full queue and of late requests."""
        self._admit(self._queue, request, one=request.is_alone or not self.servable.is_batched)
        if self._thread is not None:
            request.watch()
        if not self.is_active and self._running is None:
            self.is_active = True
            self._activate(self)

    def _is_kept(self, responses: VersionResponses, request: PendingRequest) -> bool:
        """Answers a request whose answer is kept; false if it is to run, and to be kept then.

        It does not wait, so neither its priority nor what waits matters.
        """
        began_s = self._clock()
        blocks, rows, shapes, given = request.decoded
        key = request.cache_key or responses.key(*request.decoded)
        outputs = responses.get(key)
        if outputs is None:
            request.cache_key = key
            self.report.missed(self._clock() - began_s)
            return False
        try:
            work = Work(self.servable, blocks, rows, shapes, None, self._is_repeat([request]), given)
            self.count_kept(work)
            self.answer_kept(request, work, began_s, outputs)
        except Exception as error:  # noqa: BLE001 - logged, and told to the caller
            self.failed(request, error)
        return True

    def _submit_large(self, request: PendingRequest) -> bool:
        """Refuses a request whose reply could not be sent, and queues it apart when it is large."""
        if request.rows > self._sendable_rows:
            self._check_reply(request)
        large = self._large
        is_cut = self.servable.is_batched and request.rows > self._slice_rows
        if large is None or not (is_cut or request.size_bytes > self._usual_bytes):
            return False
        request.is_large = True
        self._admit(large.queue, request, one=True)
        request.watch()
        large.go_on()
        self._report_waiting()
        return True

    def _admit(self, queue: BatchQueue[PendingRequest], request: PendingRequest, *, one: bool) -> None:
        plain = self.plain_batches
        lane = plain.lane if plain is not None and queue is self._queue else None
        if request.deadline_s != inf or self._objective_s != inf:
            self._check_time(queue, request, one=one, ahead_rows=0 if lane is None else lane.rows)
        if (lane is not None and self._is_full_with(lane, request)) or not queue.add(request):
            raise self.full()
        self._tell_lane()

    def _is_full_with(self, lane: Lane, request: PendingRequest) -> bool:
        """Whether the queue is full if what waits in the lane counts."""
        queue, limits = self._queue, self._queue.limits
        return bool(lane.requests) and (
            queue.rows + lane.rows + request.rows > limits.queue_rows
            or queue.size_bytes + lane.size_bytes + request.size_bytes > limits.queue_bytes
            or queue.requests + lane.requests >= limits.queue_requests
        )

    def _tell_lane(self) -> None:
        """Tells the lane what waits beside it: both together respect the queue's limits."""
        if self.plain_batches is not None:
            queue = self._queue
            self.plain_batches.lane.set_others(queue.requests, queue.rows, queue.size_bytes)
            self.plain_batches.lane.set_probe_at(queue.probe_at_s)

    def _check_reply(self, request: PendingRequest) -> None:
        """Refuses what cannot be sent before it is computed."""
        places = range(len(self._row_bytes)) if request.chosen is None else request.chosen
        size = request.rows * sum(self._row_bytes[output_of(place)] for place in places)
        if size > self.reply_bytes:
            raise self.too_large(request.rows, size)

    def _check_time(
        self, queue: BatchQueue[PendingRequest], request: PendingRequest, *, one: bool, ahead_rows: int
    ) -> None:
        """Refuses a request that cannot be answered in time, before it costs anything; ignores other executors' batches."""
        now_s = request.arrived_s
        request.deadline_s = min(request.deadline_s, now_s + self._objective_s)
        if not queue.admits(request, now_s, one=one, ahead_rows=ahead_rows):
            raise self.too_late(request)

    def cancelled(self, request: PendingRequest) -> None:
        """Gives up the request of a caller that left."""
        self.report.refused("cancelled")
        if request.trace is not None:
            request.trace.cancelled(self.subject)
        queue = self._large.queue if request.is_large and self._large is not None else self._queue
        if queue.discard(request):
            # It keeps its place for a while, but not its memory.
            request.decoded = _NOTHING
            self._tell_lane()
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
        if self.kept_batches is not None and self.kept_batches.lane.requests:
            return 0.0
        if self._running is not None:
            return inf
        return min(self._others_due_s(), self._plain_due_s())

    def _others_due_s(self) -> float:
        """When the next batch of requests that are not plain should run."""
        return 0.0 if self._singles else self._queue.due_s()

    def _plain_due_s(self) -> float:
        plain, queue = self.plain_batches, self._queue
        if plain is None or not plain.lane.requests:
            return inf
        return plain.lane.due_s(queue.ready_rows, queue.cost.of(plain.lane.rows)) if queue.limits.max_delay_s else 0.0

    def run(self, now_s: float) -> None:
        """Starts one batch. One that runs inline is answered on return, others once the thread has given their outputs back."""
        if self.kept_batches is not None and self.kept_batches.lane.requests:
            self.kept_batches.look_up(now_s)
            self._report_waiting()
            self._close_if_drained()
            if self._running is not None or min(self._others_due_s(), self._plain_due_s()) > now_s:
                return
        plain = self.plain_batches
        if plain is not None and self._plain_due_s() <= now_s and (self._is_plain_next or self._others_due_s() > now_s):
            self._is_plain_next = False
            self._run_plain(plain, now_s)
            return
        self._is_plain_next = True
        # A batch that runs again was counted the first time: features are counted before the graph runs.
        is_again = bool(self._singles)
        batch = self._take(now_s)
        self._tell_lane()
        if batch.expired:
            self._refuse_all(batch)
        if not batch.items:
            self._report_waiting()
            self._close_if_drained()
            return
        is_repeat = not is_again and self._is_repeat(batch.items)
        cells = None if is_again or is_repeat else self._cells()
        first = batch.items[0].decoded
        work = Work(self.servable, _joined(batch.items), batch.rows, first.shapes, cells, is_repeat, given=first.given)
        thread = self._thread_for(work, now_s)
        if thread is None:
            self._answer_inline(batch, work, now_s)
        else:
            self._running = batch
            if self.plain_batches is not None:
                self.plain_batches.lane.set_busy_until(now_s + self._queue.cost.of(batch.rows))
            self._report_waiting()
            thread.start(partial(computed, work), partial(self._came_back, batch, work, now_s))

    def _is_alone(self, now_s: float) -> bool:
        return self._tells_alone is not None and self._tells_alone(self, now_s)

    def _is_repeat(self, items: Sequence[PendingRequest]) -> bool:
        """Whether all of these requests repeat recent ones."""
        if self.recent is None:
            return False
        # Each is asked for: it is recent from now on.
        repeats = sum(self.recent.has(item.decoded.blocks) for item in items)
        return repeats == len(items)

    def _thread_for(self, work: Work, now_s: float) -> ModelThread | None:
        """What a batch runs on; None for the reactor."""
        is_alone = self._is_alone(now_s)
        is_inline = self._thread is None or (is_alone and self._is_short(work.rows) and self._is_small(work))
        self._is_on_thread = not is_inline
        return None if is_inline else self._thread

    def _is_short(self, rows: int) -> bool:
        """Whether a batch of so many rows may run inline. Batches come back from the thread when they are half as long."""
        short_s = self._short_s / 2 if self._is_on_thread else self._short_s
        return self._queue.cost.of(rows) < short_s

    def _is_small(self, work: Work) -> bool:
        """Whether a batch costs what its rows tell."""
        return not self._is_free or sum(map(len, work.blocks)) <= LARGE_BYTES

    def _run_plain(self, plain: PlainBatches, now_s: float) -> None:
        """Starts a batch of plain requests."""
        batch = plain.next_batch(self._queue.largest_rows, now_s)
        if batch.count:
            self._run_batch(plain, batch, now_s, None if batch.is_repeat else self._cells())
        else:
            plain.end(batch)
            self._report_waiting()
            self._close_if_drained()

    def _run_batch(self, plain: PlainBatches, batch: LaneBatch, now_s: float, cells: NDArray[np.int64] | None) -> None:
        try:
            work = plain.work(batch, cells)
        except Exception as error:  # noqa: BLE001 - logged, and told to those who wait
            plain.fail(batch, error)
            plain.end(batch)
            self._close_if_drained()
            return
        thread = self._thread_for(work, now_s)
        if thread is None:
            result = computed(work)
            self._count_drift(work, result)
            plain.answer(batch, work, now_s, result)
            ended_s = self._clock()
            self._learn_cost(plain, batch, ended_s - now_s, result)
            self._report_waiting()
            self._close_if_drained()
        else:
            self._running = batch
            until_s = now_s + self._queue.cost.of(batch.rows)
            plain.lane.set_busy_until(until_s)
            self._queue.set_busy_until(until_s)
            self._report_waiting()
            thread.start(partial(computed, work), partial(self._plain_came_back, plain, batch, work, now_s))

    def _take_over(self, why: int, batch: LaneBatch) -> None:
        """Goes on with a batch that kernels leave."""
        plain = self.plain_batches
        assert plain is not None
        plain.take_over(batch)
        if why in (layout.TO_RUN, layout.TO_REFUSE):
            # Rows that the features refuse were counted with the others.
            is_counted = why == layout.TO_RUN and not batch.is_repeat
            self._run_batch(plain, batch, self._clock(), self._cells() if is_counted else None)
            return
        try:
            if why == layout.TO_FAIL:
                plain.fail(batch, MemoryError("no memory for a batch"))
            elif why == layout.TO_COUNT and plain.fused is not None:
                plain.fused.count_answers(batch.rows, is_repeat=batch.is_repeat)
            plain.refuse_too_large(batch)
        finally:
            plain.end(batch)
            self._close_if_drained()

    def _plain_came_back(
        self, plain: PlainBatches, batch: LaneBatch, work: Work, started_s: float, result: Outputs | Exception
    ) -> None:
        """Takes a plain batch back from the thread, as `_came_back` does with others."""
        if batch.is_over:
            return  # the version was closed meanwhile
        ended_s = self._clock()
        self._running = None
        plain.lane.set_busy_until(0.0)
        self._queue.set_busy_until(-inf)
        try:
            self._learn_cost(plain, batch, ended_s - started_s, result)
            self._count_drift(work, result)
            if isinstance(result, Outputs):
                self._go_on(ended_s)
        finally:
            plain.answer(batch, work, started_s, result)
        if not isinstance(result, Outputs):
            self._go_on(ended_s)
        self._close_if_drained()

    def _learn_cost(self, plain: PlainBatches, batch: LaneBatch, took_s: float, result: Outputs | Exception) -> None:
        if not plain.lane.is_timed or not isinstance(result, Outputs):
            return
        if plain.fused is not None:
            plain.lane.learn_cost(plain.fused.address, batch.rows, took_s)
        else:
            self._queue.cost.update(batch.rows, took_s)
            self._tell_cost(plain.lane)

    def _tell_subject(self) -> None:
        """Tells the lanes what traces call the version."""
        for plain in (self.plain_batches, self.kept_batches):
            if plain is not None:
                plain.lane.set_subject(self.subject)

    def _tell_cost(self, lane: Lane) -> None:
        cost = self._queue.cost.cost
        lane.set_cost(cost.base_s, cost.row_s, self._queue.largest_rows)
        lane.set_probe_at(self._queue.probe_at_s)

    def run_alone(self, request: PendingRequest) -> None:
        """Has a request of a batch that did not go as usual run alone."""
        self._singles.append(Batch([request], [request.rows], [], request.rows))
        self._wake()

    def take_plain(self, plain: PlainBatches, kept: KeptBatches | None = None) -> None:
        """Has plain requests wait in a lane from now on; where answers are kept, they come through `kept` before."""
        limits = self._queue.limits
        self.plain_batches, self.kept_batches = plain, kept
        self._tell_lane()
        self._tell_cost(plain.lane)
        bounds: dict[str, Any] = {
            "latency": self.report.latency_cells(),
            "routed": self.report.counters.routed,
            "refusals": self.report.refusal_cells([*map(refusal_reason, self.refusals()), "cancelled"]),
            "most_reply_bytes": self.reply_bytes,
            "usual_rows": int(min(self._usual_rows, self._queue.max_rows, self._sendable_rows)),
            "errors": self.refusals(),
            "codes": [0 if self.tracer is None else self.tracer.code_of(error) for error in self.refusals()],
        }
        plain.lane.open(
            **bounds,
            most_requests=limits.queue_requests,
            most_rows=limits.queue_rows,
            most_bytes=limits.queue_bytes,
            objective_s=limits.objective_s,
            delay_s=limits.max_delay_s,
        )
        if kept is not None:
            # What came in one turn is looked for in the same: nothing waits there.
            most = layout.NEVER
            kept.lane.open(**bounds, most_requests=most, most_rows=most, most_bytes=most, objective_s=inf, delay_s=0.0)
        self._tell_subject()
        if self.recent is not None:
            plain.lane.watch_repeats()
        if self.records is not None:
            for each in (plain, kept):
                if each is not None:
                    each.lane.record(self.records.words)
        self._fuse()

    def _fuse(self) -> None:
        """Has kernels answer the batches of its lane, and run them if they can do all that these take now."""
        plain = self.plain_batches
        if plain is None:
            return
        may_leave_out = self.shadows is None or self.shadows.is_sampled
        plain.fused = made = fused(
            self.servable,
            may_run=self._thread is None and may_leave_out and self.responses is None and not self.is_ending,
            lane=plain.lane,
            report=self.report,
            reader=self.reader,
            queue=self._queue,
            sampler=self.sampler,
            joint=self.joint,
            records=self.records,
            copies=None if self.shadows is None else self.shadows.passing,
        )
        if made is not None and made.runs:
            plain.lane.fuse(made.address, self._take_over)
            self._report_waiting()
        elif plain.lane.is_fused:
            plain.lane.unfuse()
            if plain.lane.requests:
                self._wake()

    @property
    def _plain(self) -> "Executor | None":
        """The one that answers where no attributions are asked for, if this one gives them."""
        return self._plain_of()

    @property
    def can_take_plain(self) -> bool:
        """Whether its requests may be plain: they run together, and so do those of its shadows."""
        return (
            self.servable.is_batched
            and not self.encoder.narrowed
            and self._plain is None
            and self._own_cells is None
            and self.policy is None
            and self.by_key is None
            and self._knows_sizes
            and not self.is_ending
            and (self.shadows is None or self.shadows.is_batched)
        )

    def plain_changed(self) -> None:
        """Something has come into its lane, or has left it."""
        plain = self.plain_batches
        if plain is None:
            return
        if plain.lane.take_left():
            self._report_waiting()
            self._close_if_drained()
        if plain.lane.requests and not self.is_active and self._running is None:
            self.is_active = True
            self._activate(self)

    def plain_came(self) -> None:
        """Plain requests have come whose answers may be kept, or a caller of one has left."""
        kept = self.kept_batches
        if kept is None:
            return
        if kept.lane.take_left():
            self._close_if_drained()
        if kept.lane.requests:
            self._wake()

    def _cells(self) -> NDArray[np.int64] | None:
        """Where the next batch is counted; counts of its own are free again once they were added."""
        if self._own_cells is None:
            return self.report.drift_cells()
        self._own_cells[...] = 0
        return self._own_cells

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
        if work.cells is not None:
            self._count_drift(work, result)
        self._answer(batch, work, started_s, result)
        ended_s = self._clock()
        self._ended(batch, ended_s, ended_s - started_s if isinstance(result, Outputs) else None)
        self._report_waiting()
        self._close_if_drained()

    def _ended(self, batch: Batch[PendingRequest], ended_s: float, took_s: float | None) -> None:
        """Records that a batch ended, and tells the lane what was learnt of its cost."""
        self._queue.ended(batch, ended_s, took_s)
        if self.plain_batches is not None:
            self._tell_cost(self.plain_batches.lane)

    def _came_back(
        self, batch: Batch[PendingRequest], work: Work, started_s: float, result: Outputs | Exception
    ) -> None:
        """Takes a batch back from the thread, and gives it the next one before the replies: it computes meanwhile."""
        ended_s = self._clock()
        self._running = None
        if self.plain_batches is not None:
            self.plain_batches.lane.set_busy_until(0.0)
        self._ended(batch, ended_s, ended_s - started_s if isinstance(result, Outputs) else None)
        self._count_drift(work, result)
        if isinstance(result, Outputs):
            self._go_on(ended_s)
            self._answer(batch, work, started_s, result)
        else:
            self._answer(batch, work, started_s, result)
            self._go_on(ended_s)
        self._close_if_drained()

    def _go_on(self, now_s: float) -> None:
        """Starts the next batch if it is due, unless it would run inline: the last one is answered first."""
        due_s = self.due_s()
        if due_s <= now_s and not (self._is_alone(now_s) and self._is_short(self._next_rows)):
            self.run(now_s)
        elif due_s != inf:
            self._wake()

    @property
    def _next_rows(self) -> int:
        """The rows of the next batch, unless some come too late."""
        lane_rows = 0 if self.plain_batches is None else self.plain_batches.lane.rows
        return min(self._queue.rows + lane_rows, self._queue.largest_rows)

    def _wake(self) -> None:
        if not self.is_active:
            self.is_active = True
            self._activate(self)

    def _count_drift(self, work: Work, result: Outputs | Exception) -> None:
        # The features are counted before the graph runs, so rows that it fails on are in the window too.
        if work.cells is not None and isinstance(result, Outputs | ModelFailedError):
            counted = self.servable.counted_rows(work.rows)
            if self._own_cells is None:
                self.report.drift_counted(counted)
            else:
                self.report.drift_added(self._own_cells, counted)

    def _answer(self, batch: Batch[PendingRequest], work: Work, started_s: float, result: Outputs | Exception) -> None:
        try:
            if isinstance(result, Outputs):
                self.answer(batch, work, started_s, result)
            else:
                self._answer_singly(batch, result)
        except Exception as error:  # noqa: BLE001 - logged, and told to those who wait
            self._give_up(batch, error)

    def _refuse_all(self, batch: Batch[PendingRequest]) -> None:
        try:
            for request in batch.expired:
                self.refuse(request, self.too_late(request))
        except Exception as error:  # noqa: BLE001 - logged, and told to those who wait
            self._give_up(batch, error)

    def _give_up(self, batch: Batch[PendingRequest], error: Exception) -> None:
        """Whatever a bug leaves of a batch is refused: a call that was taken ends."""
        self.failures.failed("batch failed", error, with_traceback=True)
        for request in batch.items:
            self.refuse(request, PenstockError("the batch failed"))

    def _answer_singly(self, batch: Batch[PendingRequest], error: Exception) -> None:
        """Lets each request run alone, in turns with other executors: the rows of one can fail a whole batch."""
        items = batch.items
        if len(items) > 1:
            singles = zip(items, batch.counts, strict=True)
            self._singles.extend(Batch([item], [rows], [], rows) for item, rows in singles)
            return
        self.failed(items[0], error)

    def _large_ended(self) -> None:
        self._report_waiting()
        self._close_if_drained()

    def _report_waiting(self) -> None:
        plain = self._plain or self
        rows, requests = plain._waiting  # noqa: SLF001 - of its own kind
        if plain.explaining is not None:
            more_rows, more_requests = plain.explaining._waiting  # noqa: SLF001
            rows, requests = rows + more_rows, requests + more_requests
        if plain.plain_batches is not None:
            if plain.plain_batches.fused is not None:
                queue = plain._queue  # noqa: SLF001
                plain.plain_batches.fused.set_beside(rows - queue.rows, requests - queue.requests)
            lane = plain.plain_batches.lane
            rows, requests = rows + lane.rows, requests + lane.requests
        self.report.waiting(rows, requests)

    @property
    def _waiting(self) -> tuple[int, int]:
        """The rows and the requests that wait."""
        if self._large is None:
            return self._queue.rows, self._queue.requests
        return self._queue.rows + self._large.queue.rows, self._queue.requests + self._large.queue.requests

    def set_role(self, role: Role | None, share: float = 0.0) -> None:
        if self.has_role(role, share) and self.shadows is None:
            return
        had_shadows = self.shadows is not None
        super().set_role(role, share)
        self._tell_subject()
        if had_shadows:
            self._fuse()  # which takes half a millisecond of the reactor, and asks for no role
        if self.explaining is not None:
            self.explaining.set_role(role, share)

    def set_shadows(self, shadows: Shadows | None) -> None:
        super().set_shadows(shadows)
        if shadows is not None and shadows.skips_repeats and self.recent is None and self.report.drift_cells() is None:
            # Only a shadow has a baseline, so it looks for repeats on the shadow's behalf.
            self.recent = RecentRequests()
            if self.plain_batches is not None:
                self.plain_batches.lane.watch_repeats()
        self._fuse()
        if self.explaining is not None:
            self.explaining.set_shadows(shadows)

    def set_sampler(self, sampler: RequestSampler) -> None:
        super().set_sampler(sampler)
        self._fuse()
        if self.explaining is not None:
            self.explaining.set_sampler(sampler)

    def drain(self, closed: Callable[[], None]) -> None:
        """Takes no request from now on, answers those that wait, closes, and then calls `closed`."""
        self.is_ending = True
        self._forget_responses()
        if self.explaining is None:
            self._drain(closed)
        else:
            # They may share a thread, which this one closes.
            self.explaining.drain(partial(self._drain, closed))

    def _drain(self, closed: Callable[[], None]) -> None:
        self._on_closed = closed
        if self.kept_batches is not None:
            self.kept_batches.lane.shut()
        if self.plain_batches is not None:
            self.plain_batches.lane.shut()
            self.plain_batches.lane.hurry()
            if not self.is_idle:
                self._fuse()
        self._queue.hurry()
        if self.due_s() != inf:
            self._wake()
        self._close_if_drained()

    def _forget_responses(self) -> None:
        if self.responses is not None:
            self.responses.close()

    def _close_if_drained(self) -> None:
        if self._on_closed is not None and self.is_idle:
            self.close()

    def close(self) -> None:
        """Ends the executor now: refuses all that waits, and what its thread still runs."""
        self.is_ending = True
        if self.explaining is not None and not self.explaining.is_closed:
            self.explaining.close()
        self.is_closed = True
        self._forget_responses()
        running = self._running.items if isinstance(self._running, Batch) else []
        lanes = (self.kept_batches, self.plain_batches)
        self.plain_batches = self.kept_batches = None
        for lane in lanes:
            if lane is not None:
                lane.close(NotReadyError(_UNLOADED))
        self._running = None
        singles = [item for batch in self._singles for item in batch.items]
        self._singles.clear()
        for request in (*self._queue.clear(), *singles, *running):
            self.refuse(request, NotReadyError(_UNLOADED))
        large, self._large = self._large, None  # which knows this one: only the collector would free both
        if large is not None:
            large.close(NotReadyError(_UNLOADED))
        self._report_waiting()
        if self.tracer is not None:
            self.tracer.spans.release(self.subject)
            self.subject = 0
        if self._thread is not None and (self._plain is None or self._plain._thread is not self._thread):  # noqa: SLF001
            self._thread.close()
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed()

    def join(self) -> None:
        """Waits for the end of its thread, for a few seconds at most; not on the reactor."""
        if self.explaining is not None:
            self.explaining.join()
        if self._thread is not None:
            self._thread.join()


def _nobody() -> None:
    """What an executor that explains for no other one is the second of."""


def _row_bytes(spec: TensorInfo) -> int:
    """The bytes that a row of this output takes in a reply; the least where that varies."""
    item = 4 if spec.datatype == "BYTES" else element_bytes(spec.datatype)
    return prod(0 if size == ANY else size for size in spec.shape[1:]) * item


def _joined(items: Sequence[PendingRequest]) -> tuple[bytes, ...]:
    """The batch's blocks: each input's raw contents, one request after another."""
    if len(items) == 1:
        return items[0].decoded.blocks
    return tuple(map(b"".join, zip(*[item.decoded.blocks for item in items], strict=True)))
