"""Runs and answers the plain requests of a version: batches that kernels gather from its lane, and whose replies they write.

A batch that fails is handed to the executor as requests of the general path, each to run alone: so there is one place that
says what is wrong. Every request that was taken ends: with its reply, with an error, or as a call of the general path.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import join_bytes
from penstock_server.call import Call
from penstock_server.errors import NotReadyError, PenstockError
from penstock_server.features.pipeline import Refusal
from penstock_server.labels.prediction_file import KeyedRows
from penstock_server.metrics.recorder import refusal_reason
from penstock_server.models.servable import Outputs
from penstock_server.plain import layout
from penstock_server.plain.lane import Form, Lane, LaneBatch, Message, RawOutput, ReplyLayout
from penstock_server.prediction.answerer import Answerer, PendingRequest
from penstock_server.prediction.decode import DecodedRows
from penstock_server.prediction.encode import encoded_id
from penstock_server.prediction.fusing import Fused
from penstock_server.prediction.work import Work
from penstock_server.tracing.context import trace_id_of
from penstock_server.tracing.tracer import Trace, TracedRequest
from penstock_server.transport.interface import PlainPort

_NS: Final = 1e-9


class ReadRequest(NamedTuple):
    """A message as the general path reads it."""

    request_id: str
    routing_key: str
    decoded: DecodedRows


Reader = Callable[[bytes], ReadRequest]
"""Reads a message in the general way."""


class PlainBatches:
    """The plain requests of one executor.

    Args:
        answerer: of the version.
        lane: where they wait.
        port: the transport that has their calls.
        read: reads a message in the general way.
        key_of: reads the routing key of a message, "" for none.
        run_alone: has a request run alone.
        give_back: takes the lane back.
        is_threaded: its batches run on a thread, which has the next one while this one is answered.

    Attributes:
        fused: what kernels answer its batches by; None if Python does it.
        run_alone: the same.
        cache_keys: under which answers are kept, by the numbers of requests; None where none are.
    """

    def __init__(
        self,
        answerer: Answerer,
        lane: Lane,
        port: PlainPort,
        *,
        read: Reader,
        key_of: Callable[[bytes], str],
        run_alone: Callable[[PendingRequest], None],
        give_back: Callable[[Lane], None],
        is_threaded: bool = False,
    ) -> None:
        self._answerer = answerer
        self.lane = lane
        self._port = port
        self._read = read
        self._key_of = key_of
        self._give_back = give_back
        self._is_threaded = is_threaded
        self.fused: Fused | None = None
        self.cache_keys: dict[int, bytes] | None = None
        self.run_alone = run_alone
        # Those that are not over: on a thread one may run while the one before it is answered.
        self._batches: list[LaneBatch] = []

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, runs or is being answered."""
        return not self._batches and not self.lane.requests

    def next_batch(self, most_rows: int, now_s: float) -> LaneBatch:
        """Takes the next batch, which `end` or `answer` gives back; what comes too late is refused."""
        batch = self.lane.next_batch(most_rows, now_s)
        self._batches.append(batch)
        self.lane.tell_refused()
        return batch

    def take_over(self, batch: LaneBatch) -> None:
        """Takes a batch that kernels have taken and leave to Python; as `next_batch` does."""
        self._batches.append(batch)

    def work(self, batch: LaneBatch, cells: NDArray[np.int64] | None) -> Work:
        """What the version is to run."""
        return Work(self._answerer.servable, self.lane.blocks(), batch.rows, None, cells, batch.is_repeat)

    def end(self, batch: LaneBatch) -> None:
        """Gives a batch back."""
        if not batch.is_over:
            self._batches.remove(batch)
            self.lane.end(batch)

    def answer(self, batch: LaneBatch, work: Work, started_s: float, result: Outputs | Exception) -> None:
        """Answers a batch that ran, and gives it back; raises nothing."""
        if batch.is_over:
            return  # its version was closed meanwhile
        try:
            if isinstance(result, Outputs):
                self._reply(batch, work, started_s, result)
                self._keep(batch, result)
            else:
                self._run_alone(batch, result)
        except Exception as error:  # noqa: BLE001 - logged, and told to those who wait
            self.fail(batch, error)
        finally:
            self.end(batch)

    def fail(self, batch: LaneBatch, error: Exception) -> None:
        """Whatever a bug leaves of a batch is refused: a call that was taken ends."""
        self._answerer.failures.failed("batch failed", error, with_traceback=True)
        self._refuse_running(batch, PenstockError("the batch failed"))

    def close(self, error: NotReadyError) -> None:
        """Refuses everything that waits or runs, and gives the lane back."""
        self.lane.shut()
        while self.lane.requests:
            self._batches.append(self.lane.take_all())
        for batch in tuple(self._batches):
            self._refuse_running(batch, error)
            self.end(batch)
        self._give_back(self.lane)

    def _reply(self, batch: LaneBatch, work: Work, started_s: float, outputs: Outputs) -> None:
        answerer = self._answerer
        drawn = self.draw(batch)
        if not drawn and self._is_finished(batch, work, started_s, outputs):
            return
        if outputs.refusal is not None:
            self._refuse_rows(batch, outputs.refusal)

        traced = self.traced_requests(batch)
        ended_s = answerer.now_s()
        count = self.write(
            batch,
            outputs,
            features_s=outputs.features_s,
            infer_s=outputs.infer_s,
            began_s=started_s,
            ended_s=ended_s,
        )
        # First, so that it is counted when the callers know of it.
        answerer.report.stages(
            requests=count,
            rows=batch.rows,
            ended_s=ended_s,
            features_s=outputs.features_s,
            infer_s=outputs.infer_s,
        )
        self.lane.send_replies(is_shared=self._is_threaded)
        if count < batch.count:
            self.refuse_too_large(batch)
        if drawn:
            self.log(batch, drawn, outputs)
        self.observe(batch, work, outputs, traced)

    def _keep(self, batch: LaneBatch, outputs: Outputs) -> None:
        """Keeps the answers of a batch, where they are to be kept."""
        if self.cache_keys is not None:
            keys = [self.cache_keys.pop(number, b"") for number in batch.numbers.tolist()]
            self._answerer.keep(keys, self.lane.row_counts(batch).tolist(), outputs)

    def draw(self, batch: LaneBatch) -> dict[int, str]:
        """The places of the requests to keep for the request log, with their traces: the metadata go with the call."""
        sampler = self._answerer.sampler
        if sampler is None:
            return {}
        return {place: self._trace_id(int(batch.numbers[place])) for place in sampler.draw(batch.count)}

    def write(
        self,
        batch: LaneBatch,
        outputs: Outputs,
        *,
        features_s: float,
        infer_s: float,
        began_s: float,
        ended_s: float,
    ) -> int:
        """Writes the replies of a batch, and returns how many; others are too large."""

        def layout_of(rows: int, form: Form) -> ReplyLayout:
            form.encoder.fit(outputs.arrays)
            made = form.encoder.layout(rows, form.chosen, outputs.arrays)
            return ReplyLayout(made.prefix, [(at, head) for at, _, head, _ in made.outputs])

        return self.lane.answer(
            batch,
            [_raw(array) for array in outputs.arrays],
            key=tails(outputs),
            layout_of=layout_of,
            features_s=features_s,
            infer_s=infer_s,
            began_s=began_s,
            ended_s=ended_s,
            predicted=self._answerer.predicted(outputs),
        )

    def _is_finished(self, batch: LaneBatch, work: Work, started_s: float, outputs: Outputs) -> bool:
        """Has a kernel answer and count a batch; false if Python is to do it."""
        answerer, fused = self._answerer, self.fused
        if fused is None or outputs.refusal is not None or answerer.is_copied or not fused.takes(outputs.arrays):
            return False
        left = self.lane.finish(
            fused.address,
            batch,
            outputs.arrays,
            began_s=started_s,
            ended_s=answerer.now_s(),
            features_s=outputs.features_s,
            infer_s=outputs.infer_s,
        )
        if left == layout.TO_LAY_OUT:
            return False
        self.lane.send_replies(is_shared=self._is_threaded)
        if left == layout.TO_FAIL:
            raise MemoryError("no memory for the answers of a batch")
        if left == layout.TO_COUNT:
            answerer.observe(work, outputs, ())
            fused.learn_classes()
        else:
            answerer.sample_jointly(work, outputs)
            if answerer.shadows is not None:
                answerer.shadows.draw(work.rows)  # which gives it to nobody
        if left:
            self.refuse_too_large(batch)
        return True

    def refuse_too_large(self, batch: LaneBatch) -> None:
        """Refuses the requests of a batch that was answered whose replies are too large."""
        for number in self.lane.running(batch).tolist():
            rows = self.lane.rows_of(number)
            self._end_call(number, self._answerer.too_large(rows, self.lane.reply_bytes(number)))

    def _refuse_rows(self, batch: LaneBatch, refusal: Refusal) -> None:
        """Refuses the requests of which a row is refused."""
        running = set(self.lane.running(batch).tolist())
        for number, (start, end) in zip(batch.numbers.tolist(), pairwise(self._starts(batch)), strict=True):
            if number in running and refusal.touches(start, end - start):
                self._end_call(number, refusal.error(start, end - start))

    def requests_for_shadow(self, batch: LaneBatch) -> Sequence[ReadRequest]:
        """The requests one by one, where a shadow runs them so: it came after they were taken."""
        shadows = self._answerer.shadows
        if shadows is None or shadows.is_batched or not shadows.is_due:
            return ()
        return [self._read(self.lane.message(number).content) for number in batch.numbers.tolist()]

    def observe(self, batch: LaneBatch, work: Work, outputs: Outputs, traced: Sequence[TracedRequest]) -> None:
        """Has a batch that was answered counted, and copied to the shadows; some of its requests are traced."""
        counts = self.lane.row_counts(batch).tolist() if self._answerer.is_copied else ()
        requests, keyed = self.requests_for_shadow(batch), self.keyed(batch)
        self._answerer.observe(work, outputs, requests, traced, keyed=keyed, counts=counts)

    def keyed(self, batch: LaneBatch) -> Sequence[KeyedRows]:
        """The requests of a batch with an id that are answered, where a shadow's answers are recorded too."""
        answerer = self._answerer
        return () if answerer.records is None or not answerer.is_copied else self.lane.keyed(batch)

    def traced_requests(self, batch: LaneBatch) -> list[TracedRequest]:
        """The requests of a batch that are traced, for the shadows."""
        tracer = self._answerer.tracer
        if tracer is None or not self._answerer.is_copied:
            return []
        numbers = batch.numbers
        found = [(place, self.lane.trace_of(int(numbers[place]))) for place in self.lane.traced(batch)]
        return [(place, words.context) for place, words in found if words is not None]

    def _trace_id(self, number: int) -> str:
        """The trace that a request belongs to, as the request log has it; "" if there is none."""
        words = self.lane.trace_of(number)
        if words is not None:
            return f"{words.context.trace_id:032x}"
        return trace_id_of(self._port.metadata_of(self.lane.slot(number)))

    def _trace(self, number: int) -> Trace | None:
        """The trace of a request that kernels do not end, if it is traced."""
        tracer = self._answerer.tracer
        words = None if tracer is None else self.lane.take_trace(number)
        return None if tracer is None or words is None else tracer.resumed(words, self.lane.arrived(number))

    def log(self, batch: LaneBatch, drawn: Mapping[int, str], outputs: Outputs) -> None:
        """Keeps some requests for the request log, read in the general way; by their place, with their traces."""
        sampler = self._answerer.sampler
        starts = self._starts(batch)
        answered = set(batch.answered.tolist())
        for place, trace_id in drawn.items():
            if place not in answered:
                continue
            message = self.lane.message(int(batch.numbers[place]))
            request_id, _, rows = self._read(message.content)
            id_field = encoded_id(request_id)
            own = [array[starts[place] : starts[place + 1]] for array in outputs.arrays]
            if sampler is not None:
                sampler.keep(
                    id_field=id_field,
                    rows=rows.rows,
                    blocks=rows.blocks,
                    arrays=own,
                    trace_id=trace_id,
                    weight=message.form.route.weight,
                )

    def _starts(self, batch: LaneBatch) -> list[int]:
        """Where the rows of each request begin, and where the last ends."""
        starts: list[int] = np.concatenate([[0], np.cumsum(self.lane.row_counts(batch))]).tolist()
        return starts

    def _run_alone(self, batch: LaneBatch, error: Exception) -> None:
        """Has the requests of a batch that failed run alone: the rows of one can fail all. One that was alone has failed."""
        is_alone = batch.count == 1
        self.let_go(batch, (lambda pending: self._answerer.failed(pending, error)) if is_alone else self.run_alone)

    def let_go(self, batch: LaneBatch, then: Callable[[PendingRequest], None]) -> None:
        """Leaves the requests of a batch whose callers are still there to the general path, which does this with each."""
        for number in self.lane.running(batch).tolist():
            message = self.lane.message(number)
            trace = self._trace(number)
            self.lane.let_go(number)
            call = self._port.call(message.slot, message.deadline)
            try:
                pending = self._pending(message, call, trace)
                call.pending = pending
                then(pending)
            except PenstockError as refused:
                self._refuse_call(message, call, refused, trace)
            except Exception as bug:  # noqa: BLE001 - logged, and told to the caller
                self._answerer.failures.failed("batch failed", bug, with_traceback=True)
                self._refuse_call(message, call, PenstockError("the batch failed"), trace)

    def _refuse_call(self, message: Message, call: Call, error: PenstockError, trace: Trace | None) -> None:
        self._answerer.refuse_call(
            call, error, trace, is_named=message.form.route.is_named, key=self._counted_key(message)
        )

    def _counted_key(self, message: Message) -> str:
        """The routing key of a request that ends with an error, if it matters; "" if not."""
        is_drawn = self._answerer.report.failed_keys is not None and not message.form.route.is_named
        return self._key_of(message.content) if is_drawn else ""

    def _pending(self, message: Message, call: Call, trace: Trace | None) -> PendingRequest:
        """A request of a batch as the general path has it."""
        request_id, key, rows = self._read(message.content)
        pending = PendingRequest(
            self._answerer,
            call,
            rows,
            arrived_s=message.arrived * _NS,
            deadline_s=call.deadline_s,
            request_id=request_id,
            chosen=message.form.chosen,
            priority=message.priority,
            size_bytes=len(message.content),
            trace=trace,
            route=message.form.route,
            routing_key=key,
        )
        pending.encoder = message.form.encoder
        return pending

    def _refuse_running(self, batch: LaneBatch, error: PenstockError) -> None:
        for number in self.lane.running(batch).tolist():
            self._end_call(number, error)

    def _end_call(self, number: int, error: PenstockError) -> None:
        """Ends the call of a running request with an error."""
        message = self.lane.message(number)
        if (trace := self._trace(number)) is not None:
            trace.refused(error, self._answerer.subject)
        key = self._counted_key(message)
        self.lane.let_go(number)
        self._answerer.report.refused(refusal_reason(error), is_named=message.form.route.is_named, key=key)
        self._port.fail(message.slot, error)


def tails(outputs: Outputs) -> list[tuple[int, ...]]:
    """The shape of a row of each output."""
    return [array.shape[1:] for array in outputs.arrays]


def parts(blocks: Sequence[bytes], counts: Sequence[int], row_bytes: Sequence[int]) -> list[tuple[bytes, ...]]:
    """The blocks of each request of a batch.

    Args:
        blocks: of the batch.
        counts: the rows of each request.
        row_bytes: of each block.
    """
    if len(counts) == 1:
        return [tuple(blocks)]
    return [
        tuple([block[start * size : end * size] for block, size in zip(blocks, row_bytes, strict=True)])
        for start, end in pairwise(accumulate(counts, initial=0))
    ]


def _raw(array: NDArray[Any]) -> RawOutput:
    """The rows of an output as they are sent."""
    if array.dtype.kind in "OUS":
        raws = [join_bytes(row) for row in array.reshape(len(array), -1).tolist()]
        offsets = np.zeros(len(raws) + 1, np.int64)
        np.cumsum([len(raw) for raw in raws], out=offsets[1:])
        return RawOutput(b"".join(raws), 0, offsets)
    if not array.flags.c_contiguous or not array.dtype.isnative:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return RawOutput(array, array.nbytes // max(1, len(array)))
