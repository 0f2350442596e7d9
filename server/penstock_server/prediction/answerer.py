"""Answers the requests of one version: replies, refusals, and what is counted, logged and copied of them.

Its executor decides what runs and when. What ran comes here, a batch or a large request at a time, on the reactor's thread.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.names import Role
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT
from penstock_server.batching.queue import Batch
from penstock_server.call import Call
from penstock_server.clock import Clock
from penstock_server.errors import (
    DeadlinePassedError,
    InvalidInputError,
    ModelFailedError,
    OverloadedError,
    PenstockError,
    RefusedByModelError,
)
from penstock_server.labels.prediction_file import NAMED, ROLES, KeyedRows, Route
from penstock_server.metrics.recorder import Recorder, refusal_reason
from penstock_server.models.servable import Outputs, Servable
from penstock_server.prediction.decode import DecodedRows, Decoder
from penstock_server.prediction.encode import Choice, ReplyEncoder, encoded_id, id_of
from penstock_server.prediction.failure_log import FailureLog
from penstock_server.prediction.joint_sampler import JointSampler
from penstock_server.prediction.outputs import OutputReader, count_answers
from penstock_server.prediction.records import Predicted, VersionRecords
from penstock_server.prediction.shadow import AnsweredBatch
from penstock_server.prediction.shadows import Shadows
from penstock_server.prediction.work import Work
from penstock_server.request_log.sampler import QUEUE_BYTES, RequestSampler
from penstock_server.response_cache.responses import VersionResponses
from penstock_server.tracing.context import trace_id_of
from penstock_server.tracing.tracer import Run, Trace, TracedRequest, Tracer

_DEADLINE: Final = "the answer would come after the deadline"
PASSED: Final = "the deadline had passed when the request arrived"
_ENVELOPE_BYTES: Final = 16
"""What a stream adds to a reply."""


def refuse(
    call: Call,
    report: Recorder,
    error: PenstockError,
    trace: Trace | None = None,
    subject: int = 0,
    *,
    is_named: bool = False,
    key: str = "",
) -> None:
    """Ends a call with an error, counted by its reason: the one way out for a request that gets no answer.

    Args:
        call: of the request.
        report: counts it.
        error: tells the caller why.
        trace: of the request.
        subject: what traces call the version that it asks for.
        is_named: it named the version.
        key: by which it came to the version if it named none; "" if by chance.
    """
    call.pending = None
    report.refused(refusal_reason(error), is_named=is_named, key=key)
    if trace is not None:
        trace.refused(error, subject)
    # Its frames hold the request and the call, and a call may keep the error: a cycle that the collector sees late.
    error.__traceback__ = None
    call.fail(error)


class HasRows(Protocol):
    """A request whose rows are decoded."""

    @property
    def decoded(self) -> DecodedRows:
        """Its rows."""


class PendingRequest:
    """One request on its way: what waits in an executor's queue, with its reply inside.

    Attributes:
        deadline_s: the sooner of the caller's deadline and the model's objective.
        priority: 1 is served first, 9 last.
        size_bytes: the size of its message.
        encoder: the version's encoder, in the role that it had when the request was routed.
        rows: how many it brings; never changed.
        is_alone: no other request shares its batch.
        is_large: it runs by slices, with `LargeRequests`.
        is_waiting: it is in a queue, which sets this; afterwards its rows belong to a batch, even if the caller leaves.
        is_watched: it learns when the caller leaves.
        cache_key: under which its answer is kept in the response cache; empty where none is kept.
        trace: writes how it went; None if it is not traced.
        route: how it came to the version.
        routing_key: by which, if it named no version; "" if by chance.
    """

    __slots__ = (
        "arrived_s",
        "cache_key",
        "call",
        "chosen",
        "deadline_s",
        "decoded",
        "encoder",
        "executor",
        "id_field",
        "is_alone",
        "is_large",
        "is_waiting",
        "is_watched",
        "priority",
        "route",
        "routing_key",
        "rows",
        "size_bytes",
        "trace",
    )

    def __init__(
        self,
        executor: "Answerer",
        call: Call,
        decoded: DecodedRows,
        *,
        arrived_s: float,
        deadline_s: float,
        request_id: str,
        chosen: Choice,
        priority: int = DEFAULT,
        size_bytes: int = 0,
        cache_key: bytes = b"",
        trace: Trace | None = None,
        route: Route = NAMED,
        routing_key: str = "",
    ) -> None:
        self.cache_key = cache_key
        self.route = route
        self.routing_key = routing_key
        self.executor = executor
        self.trace = trace
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
        # What it gives in place of a default holds for its rows alone, and nobody has proven these independent with it.
        self.is_alone = bool(decoded.given)
        self.is_large = False
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


class Answerer(ABC):
    """Answers the requests of one version, whose executor it is; on the reactor's thread.

    Args:
        reply_bytes: the largest message that can be sent.
        joint: counts a sample of the rows by two columns at once; None where nothing is counted so.
        responses: where its answers are kept; None if they are not.
        tracer: writes how traced requests went; None where nothing is traced.
        records: writes what was answered, for labels; None where nothing is recorded.

    Attributes:
        tracer, records: the same.
        route: how requests that name no version come to it now.
        subject: what traces call the version in its role now.
        encoder: encodes replies in the version's role now.
        shadows: get copies of answered batches; None when there are none.
        sampler: keeps a sample of what is answered for the request log; None when nothing is logged.
        limits: of its batches and its queue.
        output_at: the position of each output by its name.
        reply_bytes: the largest reply that can be sent, in a stream too.
        failures: the log of what failed.
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
        reply_bytes: int,
        joint: JointSampler | None,
        responses: VersionResponses | None,
        tracer: Tracer | None = None,
        records: VersionRecords | None = None,
    ) -> None:
        self.joint = joint
        self.records = records
        self.route = NAMED
        self.responses = responses
        self.tracer = tracer
        self._role: Role | None = None
        self.subject = 0 if tracer is None else tracer.subject(servable.key, None)
        self.servable = servable
        self.decoder = decoder
        self.report = report
        self.reader = reader
        self.encoder = ReplyEncoder(servable.key, None, servable.outputs)
        self.shadows: Shadows | None = None
        self.sampler: RequestSampler | None = None
        self.output_at = {spec.name: at for at, spec in enumerate(servable.outputs)}
        self.reply_bytes = reply_bytes - _ENVELOPE_BYTES
        self.limits = limits
        self._objective_s = limits.objective_s
        self._clock = clock
        self.failures = FailureLog(servable.key, clock)

    @abstractmethod
    def cancelled(self, request: PendingRequest) -> None:
        """Gives up the request of a caller that left."""

    def set_role(self, role: Role | None, share: float = 0.0) -> None:
        """Sets the role that replies name and the share of the requests that name no version, and removes the shadows."""
        self.route = _route_of(role, share)
        self.encoder = ReplyEncoder(self.servable.key, role, self.servable.outputs)
        self.shadows = None
        if self.tracer is not None and role != self._role:
            self.tracer.spans.release(self.subject)
            self.subject = self.tracer.subject(self.servable.key, role)
        self._role = role

    def has_role(self, role: Role | None, share: float) -> bool:
        """Whether this is its role, and its share of the requests that name no version."""
        return role == self._role and self.route == _route_of(role, share)

    def set_shadows(self, shadows: Shadows | None) -> None:
        """Sets the shadows, which get copies of answered batches."""
        self.shadows = shadows

    @property
    def is_copied(self) -> bool:
        """Whether a shadow gets the next batch that is answered."""
        return self.shadows is not None and self.shadows.is_due

    def set_sampler(self, sampler: RequestSampler) -> None:
        """Sets what keeps a sample of the answers for the request log."""
        self.sampler = sampler

    def answer(self, batch: Batch[PendingRequest], work: Work, started_s: float, outputs: Outputs) -> None:
        """Answers a batch that ran, and counts it."""
        compute_s = outputs.features_s + outputs.infer_s
        drawn = self._drawn(batch.items, work)
        answered = self._reply(batch, outputs, started_s, compute_s)
        ended_s = self._clock()
        self.report.batch(
            arrived_s=[item.arrived_s for item in answered],
            rows=batch.rows,
            started_s=started_s,
            ended_s=ended_s,
            features_s=outputs.features_s,
            infer_s=outputs.infer_s,
            named_s=[item.arrived_s for item in answered if item.route.is_named],
        )
        self._trace(answered, Run(started_s, outputs.features_s, outputs.infer_s, batch.rows), ended_s)
        self._tell(batch, work, drawn, answered, outputs)
        if self.responses is not None:
            self.keep([item.cache_key for item in batch.items], batch.counts, outputs)

    def answer_kept(self, request: PendingRequest, work: Work, started_s: float, outputs: Outputs) -> None:
        """Answers a request with what the version gave for the same rows before, and counts it; no batch has run."""
        batch = Batch([request], [request.rows], [], 0)
        drawn = self._drawn(batch.items, work)
        answered = self._reply(batch, outputs, started_s, 0.0)
        ended_s = self._clock()
        if answered:
            self.report.hit(
                arrived_s=request.arrived_s,
                rows=request.rows,
                started_s=started_s,
                ended_s=ended_s,
                is_named=request.route.is_named,
            )
        self._trace(answered, Run(started_s, 0.0, 0.0, 0), ended_s)
        self._tell(batch, work, drawn, answered, outputs)

    def _drawn(self, items: Sequence[PendingRequest], work: Work) -> dict[int, str]:
        """The places of those to keep for the request log, with their traces: the metadata go with the call."""
        # The log has rows and answers; with other values than the defaults these are no answers to such rows.
        if self.sampler is None or work.given:
            return {}
        return {place: _trace_id(items[place]) for place in self.sampler.draw(len(items))}

    def _tell(
        self,
        batch: Batch[PendingRequest],
        work: Work,
        drawn: Mapping[int, str],
        answered: list[PendingRequest],
        outputs: Outputs,
    ) -> None:
        """Keeps those that were drawn for the request log, and counts and copies what was answered."""
        items = batch.items
        keyed = self._record(batch, answered, outputs)
        traced: Sequence[TracedRequest] = ()
        if self.tracer is not None:
            traced = [(at, item.trace.context) for at, item in enumerate(items) if item.trace is not None]
        if drawn and self.sampler is not None:
            self._log(self.sampler, drawn, batch, answered, outputs.arrays)
        self.observe(work, outputs, items, traced, keyed=keyed, counts=batch.counts)

    def _record(
        self, batch: Batch[PendingRequest], answered: list[PendingRequest], outputs: Outputs
    ) -> Sequence[KeyedRows]:
        """Writes the records of those that were answered and have an id, and returns these; none where none are written."""
        if self.records is None:
            return ()
        is_answered, keyed, routes, start = {*map(id, answered)}, [], [], 0
        for place, (item, rows) in enumerate(zip(batch.items, batch.counts, strict=True)):
            if item.id_field and id(item) in is_answered:
                keyed.append(KeyedRows(place, self.records.key_of(id_of(item.id_field)), start, rows))
                routes.append(item.route)
            start += rows
        predicted = self.predicted(outputs) if keyed else None
        if predicted is None:
            return ()
        self.records.write(keyed, routes, predicted)
        return keyed

    def predicted(self, outputs: Outputs) -> Predicted | None:
        """What is recorded of a batch's rows; None where nothing is, or if they are not as the version's outputs should be."""
        if self.records is None:
            return None
        try:
            return self.records.reader.read(outputs.arrays)
        except Exception as error:  # noqa: BLE001 - logged; an answer counts more than its record
            self.failures.failed("answers could not be recorded", error, with_traceback=True)
            return None

    def keep(self, keys: Sequence[bytes], counts: Sequence[int], outputs: Outputs) -> None:
        """Keeps the answers to the requests of a batch that were looked for, each as a copy of its own.

        Args:
            keys: under which; an empty one keeps nothing.
            counts: the rows of each request.
            outputs: of the batch.
        """
        responses, start, rows = self.responses, 0, sum(counts)
        if responses is None:
            return
        for key, count in zip(keys, counts, strict=True):
            if key and (outputs.refusal is None or not outputs.refusal.touches(start, count)):
                own = slice(start, start + count) if self.servable.is_batched else ...
                share = count / max(1, rows)
                arrays = [array[own].copy() for array in outputs.arrays]
                responses.put(key, Outputs(arrays, outputs.features_s * share, outputs.infer_s * share))
            start += count

    def count_kept(self, work: Work) -> None:
        """Counts rows for drift whose answer is kept, as their run would count them."""
        cells = None if work.is_repeat else self.report.drift_cells()
        if cells is not None:
            self.servable.count(work.blocks, work.rows, cells)
            self.report.drift_counted(self.servable.counted_rows(work.rows))

    def finish_large(
        self,
        request: PendingRequest,
        reply: bytes,
        rows: int,
        *,
        started_s: float,
        features_s: float,
        infer_s: float,
        kept: Sequence[Sequence[NDArray[Any]]] | None,
        predicted: Sequence[Predicted] = (),
    ) -> None:
        """Answers a large request, and counts it.

        `kept` are the outputs of its slices, for the request log, and `predicted` what is recorded of them.
        """
        answered: list[PendingRequest] = []
        trace_id = "" if kept is None else _trace_id(request)
        if not request.is_over:
            self._finish(request, reply, answered)
        ended_s = self._clock()
        self.report.batch(
            arrived_s=[item.arrived_s for item in answered],
            rows=rows,
            started_s=started_s,
            ended_s=ended_s,
            features_s=features_s,
            infer_s=infer_s,
            named_s=[item.arrived_s for item in answered if item.route.is_named],
        )
        self._trace(answered, Run(started_s, features_s, infer_s, rows), ended_s)
        if answered and predicted and self.records is not None:
            keyed = KeyedRows(0, self.records.key_of(id_of(request.id_field)), 0, rows)
            whole = Predicted(*map(np.concatenate, zip(*predicted, strict=True)))
            self.records.write([keyed], [request.route], whole)
        if answered and kept is not None and self.sampler is not None:
            decoded = request.decoded
            self.sampler.keep(
                id_field=request.id_field,
                rows=rows,
                blocks=decoded.blocks,
                arrays=[np.concatenate(slices) if len(slices) > 1 else slices[0] for slices in zip(*kept, strict=True)],
                is_whole=not self.servable.is_batched,
                trace_id=trace_id,
                weight=request.route.weight,
            )

    def failed(self, request: PendingRequest, error: Exception) -> None:
        """Ends a request that ran alone and failed."""
        if isinstance(error, RefusedByModelError):
            pass  # the caller's doing, which tells nothing about the version
        elif isinstance(error, ModelFailedError):
            self.failures.failed("model failed", error.__cause__ or error)
        elif not isinstance(error, PenstockError):
            self.failures.failed("batch failed", error, with_traceback=True)
            error = PenstockError("the batch failed")
        self.refuse(request, error)

    def now_s(self) -> float:
        return self._clock()

    def refuse_call(
        self, call: Call, error: PenstockError, trace: Trace | None = None, *, is_named: bool = False, key: str = ""
    ) -> None:
        """Ends a call with an error; `is_named` if it named the version, and by which `key` it came if it did not."""
        refuse(call, self.report, error, trace, self.subject, is_named=is_named, key=key)

    def refuse(self, request: PendingRequest, error: PenstockError) -> None:
        """Ends a request with an error, unless it is over."""
        if request.is_over:
            return
        self.refuse_call(request.call, error, request.trace, is_named=request.route.is_named, key=request.routing_key)

    def too_late(self, request: PendingRequest) -> PenstockError:
        """The error of a request that cannot be answered before its deadline."""
        if request.deadline_s < request.arrived_s + self._objective_s:
            return DeadlinePassedError(_DEADLINE)
        return self._missed()

    def _missed(self) -> PenstockError:
        """The error of a request that cannot be answered within the model's objective."""
        model, version = self.servable.key
        late = (
            f"model {model!r} version {version} cannot answer within its objective of {self._objective_s * 1000:g} ms"
        )
        return OverloadedError(f"{late}; try again later")

    def full(self) -> PenstockError:
        """The error of a request for which the queue has no room."""
        model, version = self.servable.key
        limits = self.limits
        most = f"{limits.queue_requests:,} requests of {limits.queue_rows:,} rows and {limits.queue_mib:,} MiB"
        return OverloadedError(
            f"the queue of model {model!r} version {version} is full: at most {most} wait; try again later"
        )

    def refusals(self) -> tuple[PenstockError, ...]:
        """The errors with which kernels refuse plain requests, in the order of the reasons in `plain.layout`."""
        return (self.full(), DeadlinePassedError(_DEADLINE), self._missed(), DeadlinePassedError(PASSED))

    def too_large(self, rows: int, size: int) -> InvalidInputError:
        """The error of a request of so many rows whose reply takes this many bytes."""
        return InvalidInputError(
            f"the reply to {rows:,} rows takes {size:,} bytes, expected at most {self.reply_bytes:,}; "
            "ask for fewer rows or outputs at once"
        )

    def observe(
        self,
        work: Work,
        outputs: Outputs,
        requests: Sequence[HasRows],
        traced: Sequence[TracedRequest] = (),
        *,
        keyed: Sequence[KeyedRows] = (),
        counts: Sequence[int] = (),
    ) -> None:
        """Counts what was predicted, and copies the batch to the shadows that it is drawn for.

        The requests are those that were joined, in order; a slice, which is a part of one, has none. Of these, some are traced,
        and some have an id by which the shadows' answers are recorded. `counts` are the rows of each, and none for a further
        slice of a request.
        """
        is_batched, is_drift = self.servable.is_batched, not work.is_repeat
        count_answers(self.report, self.reader, outputs, is_batched=is_batched, is_drift=is_drift)
        self.sample_jointly(work, outputs)
        if self.shadows is None or not (drawn := self.shadows.draw(work.rows)):
            return
        copy = AnsweredBatch(
            work.blocks,
            work.shapes,
            work.rows,
            outputs.arrays,
            outputs.features_s + outputs.infer_s,
            refusal=outputs.refusal,
            requests=() if self.shadows.is_batched else tuple(request.decoded for request in requests),
            is_repeat=work.is_repeat,
            is_overridden=bool(work.given),
            traced=traced,
            keyed=keyed,
            counts=counts,
        )
        for target in drawn:
            target.offer(copy)

    def sample_jointly(self, work: Work, outputs: Outputs) -> None:
        """Counts some rows of a batch by two columns at once, if the next is due."""
        if self.joint is not None:
            self.joint.sample(work, outputs, self.reader)

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
                self.refuse(item, outputs.refusal.error(0, rows))
            elif size > self.reply_bytes and item.chosen is None:
                self.refuse(item, self.too_large(item.rows, size))
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
                self.refuse(item, outputs.refusal.error(start, count))
            elif not item.call.is_over:
                queue_us = _microseconds(started_s - item.arrived_s)
                reply = replies.reply(start, count, item.id_field, item.chosen, queue_us)
                self._finish(item, reply, answered)
            start += count
        return answered

    def _finish(self, item: PendingRequest, reply: bytes, answered: list[PendingRequest]) -> None:
        if len(reply) > self.reply_bytes:
            self.refuse(item, self.too_large(item.rows, len(reply)))
            return
        item.call.pending = None
        item.call.finish(reply)
        answered.append(item)

    def _trace(self, answered: Sequence[PendingRequest], run: Run, ended_s: float) -> None:
        """Writes how those of these requests went that are traced."""
        for item in answered if self.tracer is not None else ():
            if item.trace is not None:
                item.trace.answered(self.subject, item.rows, run, ended_s)
                self.report.exemplify(
                    item.trace.context.trace_id,
                    arrived_s=item.arrived_s,
                    started_s=run.began_s,
                    ended_s=ended_s,
                    features_s=run.features_s,
                    infer_s=run.infer_s,
                )

    def _log(
        self,
        sampler: RequestSampler,
        drawn: Mapping[int, str],
        batch: Batch[PendingRequest],
        answered: list[PendingRequest],
        arrays: Sequence[NDArray[Any]],
    ) -> None:
        items, counts = batch.items, batch.counts
        at = start = 0
        for place, trace_id in drawn.items():
            start += sum(counts[at:place])
            at, item = place, items[place]
            if len(answered) == len(items) or item in answered:
                is_whole = not self.servable.is_batched
                own = arrays if is_whole else [array[start : start + counts[at]] for array in arrays]
                sampler.keep(
                    id_field=item.id_field,
                    rows=counts[at],
                    blocks=item.decoded.blocks,
                    arrays=own,
                    is_whole=is_whole,
                    trace_id=trace_id,
                    weight=item.route.weight,
                )

    def draws_for_log(self, request: PendingRequest) -> bool:
        """Whether a large request is to be kept for the request log, if it is answered."""
        if self.sampler is None or request.is_alone or not self.sampler.draw(1):
            return False
        if request.size_bytes <= QUEUE_BYTES:
            return True
        self.report.request_log_dropped("busy", request.rows)
        return False


def _route_of(role: Role | None, share: float) -> Route:
    """How requests that name no version come to one with this role and share."""
    return NAMED if role is None else Route(ROLES.index(role), share)


def _trace_id(request: PendingRequest) -> str:
    """The trace that a request belongs to, as the request log has it; "" if there is none."""
    if request.trace is not None:
        return f"{request.trace.context.trace_id:032x}"
    return "" if request.is_over else trace_id_of(request.call.metadata())


def _microseconds(duration_s: float) -> int:
    return max(0, int(duration_s * 1e6))
