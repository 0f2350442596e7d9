"""A lane: the plain requests that wait for one version, as its executor sees them."""

import ctypes
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.names import PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US
from penstock.wire import varint
from penstock_server.errors import PenstockError
from penstock_server.kernels.compiled import Library
from penstock_server.labels.prediction_file import NAMED, KeyedRows, Route
from penstock_server.plain import layout
from penstock_server.plain.memory import Tables, address_of, address_of_rows
from penstock_server.tracing.tracer import TraceWords

MAX_LAYOUTS: Final = 512
"""Numbers of rows and forms of one version whose answers' constant parts are kept."""
_NS: Final = 1e-9
_PARAMETERS: Final = [
    b"\x0a" + varint(len(name)) + name.encode()
    for name in (PARAMETER_COMPUTE_US, PARAMETER_BATCH_ROWS, PARAMETER_QUEUE_US)
]
_NAMES: Final = b"".join([*(len(key).to_bytes(8, "little") for key in _PARAMETERS), *_PARAMETERS])
"""The parameters of a reply as kernels write them."""


class ReplyLayout(NamedTuple):
    """The constant part of a reply: its prefix, and for each output its position and the head of its raw contents."""

    prefix: bytes
    outputs: Sequence[tuple[int, bytes]]


class RawOutput(NamedTuple):
    """The rows of an output as they are sent; `offsets` where each begins if they are not of one size."""

    data: Any
    row_bytes: int
    offsets: NDArray[np.int64] | None = None


class Form(NamedTuple):
    """What a plan's requests share beyond their rows.

    Attributes:
        chosen: the outputs that they ask for; None for all.
        encoder: encodes their replies.
        route: how they came to the version.
    """

    chosen: tuple[int, ...] | None
    encoder: Any
    route: Route = NAMED


class Message(NamedTuple):
    """A request of a batch as the general path takes it; times in nanoseconds."""

    slot: int
    content: bytes
    arrived: int
    deadline: int
    priority: int
    form: Form


class LaneBatch:
    """The requests of one batch, in order.

    Attributes:
        count: how many there are.
        rows: all of them.
        is_repeat: all of them repeat recent ones, so that they say nothing new about the traffic.
        address: of the table of its entries.
        is_over: their places were given back.
    """

    __slots__ = ("_entries_at", "address", "count", "is_over", "is_repeat", "rows", "words")

    def __init__(self, words: NDArray[np.int64], address: int, entries_at: int) -> None:
        self.words = words
        self.address = address
        self._entries_at = entries_at
        self.count = 0
        self.rows = 0
        self.is_repeat = False
        self.is_over = False

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Their places in the table of entries."""
        return (np.abs(self.words[: self.count]) - self._entries_at) // layout.ENTRY_BYTES

    @property
    def answered(self) -> NDArray[np.int64]:
        """The places in the batch of those that are answered."""
        return np.flatnonzero(self.words[: self.count] < 0)


class Lane:
    """The requests that wait for one version.

    Attributes:
        number: its row in the table of lanes.
        forms: what the requests of each plan share.
        row_bytes: of its blocks, 0 for texts.
        answers_at: the address of what its answers are made of.
    """

    def __init__(
        self,
        tables: Tables,
        kernels: Library,
        number: int,
        row: NDArray[np.int64],
        row_bytes: Sequence[int],
        *,
        wake: Callable[[], None],
    ) -> None:
        self.number = number
        self.forms: dict[int, Form] = {}
        self.row_bytes = row_bytes
        self._tables = tables
        self._gather = kernels.brief["gather"]
        self._answer = kernels.brief["answer"]
        self._missing_layout = kernels.brief["missing_layout"]
        self._empty = kernels.brief["empty"]
        self._pass_on = kernels.brief["pass_on"]
        self._end_batch = kernels.brief["end_batch"]
        self._finish = kernels.brief["finish_batch"]
        self._learn_cost = kernels.brief["learn_cost"]
        self._wake = wake
        self._cells = row.data
        self._levels = np.zeros((layout.LEVELS, layout.LEVEL_BYTES // 8), np.int64)
        self._endings: list[bytes] = []
        self._ending_table = np.zeros((layout.REASONS, layout.ENDING_BYTES // 8), np.int64)
        self._blocks = np.zeros((len(row_bytes), layout.BLOCK_BYTES // 8), np.int64)
        self._blocks[:, layout.B_ROW_BYTES // 8] = row_bytes
        self._set(layout.L_LEVELS, self._levels.ctypes.data)
        self._set(layout.L_ENDINGS, self._ending_table.ctypes.data)
        self._set(layout.L_OBJECTIVE, layout.NEVER)
        self._set(layout.L_DELAYED_UNTIL, layout.NEVER)
        self._set(layout.L_HALFWAY, layout.NEVER)
        self._set(layout.L_BLOCKS, self._blocks.ctypes.data)
        self._set(layout.L_BLOCK_COUNT, len(row_bytes))
        self._layouts = np.zeros((MAX_LAYOUTS, layout.LAYOUT_BYTES // 8), np.int64)
        self._layout_count = 0
        self._layout_memory: list[Any] = []
        self._layout_key: object = None
        self._spare: list[tuple[NDArray[np.int64], int]] = []
        self._names = np.frombuffer(_NAMES, np.uint8)
        self._scratch = np.zeros(layout.SCRATCH_BYTES, np.uint8)
        self._latency = np.zeros(layout.LATENCY_BYTES // 8, np.int64)
        self._latency_memory: Sequence[NDArray[Any]] = ()
        self._outputs = np.zeros((layout.MAX_OUTPUTS, layout.OUTPUT_BYTES // 8), np.int64)
        self._words = np.zeros(layout.ANSWER_BYTES // 8, np.int64)
        self._answers = self._words.data
        self._answers[layout.W_OUTPUTS // 8] = self._outputs.ctypes.data
        self._answers[layout.W_NAMES // 8] = self._names.ctypes.data
        self._answers[layout.W_SCRATCH // 8] = self._scratch.ctypes.data
        self._answers[layout.W_LATENCY // 8] = self._latency.ctypes.data
        self._answers[layout.W_STATE // 8] = tables.address
        self._answers[layout.W_LAYOUTS // 8] = self._layouts.ctypes.data
        self._recording: NDArray[np.int64] | None = None
        self._row_at: int = row.ctypes.data
        self._take_over: Callable[[int, LaneBatch], None] | None = None
        self.answers_at: int = self._words.ctypes.data

    def _set(self, at: int, value: int) -> None:
        self._cells[at // 8] = value

    def open(
        self,
        *,
        most_requests: int,
        most_rows: int,
        most_bytes: int,
        usual_rows: int,
        objective_s: float,
        delay_s: float,
        errors: Sequence[PenstockError],
        codes: Sequence[int],
        latency: Sequence[NDArray[Any]],
        routed: NDArray[np.int64],
        refusals: Sequence[NDArray[np.int64]],
        most_reply_bytes: int,
    ) -> None:
        """Takes requests from now on, within these bounds.

        Args:
            most_requests: that may wait.
            most_rows: of all that wait.
            most_bytes: of all that wait.
            usual_rows: of a request that may wait here.
            objective_s: in which each is to be answered, infinite for none.
            delay_s: how long one may wait for others.
            errors: with which requests are refused, by the reasons of `layout`.
            codes: gRPC's numbers for them.
            latency: where the latencies of requests are counted, as `metrics.recorder.Recorder.latency_cells` has it.
            routed: [1], counts the requests that name no version.
            refusals: where requests without an answer are counted, by the same reasons, and last those that are cancelled.
            most_reply_bytes: of a reply. What is larger is not answered, and still runs.
        """
        self._set(layout.L_MAX_REQUESTS, most_requests)
        self._set(layout.L_MAX_ROWS, most_rows)
        self._set(layout.L_MAX_BYTES, most_bytes)
        self._set(layout.L_USUAL_ROWS, usual_rows)
        self._set(layout.L_OBJECTIVE, layout.NEVER if objective_s == inf else int(objective_s / _NS))
        self._set(layout.L_DELAY, int(delay_s / _NS))
        self._endings = [self._tables.ending(error) for error in errors]
        self._ending_table[:] = [
            (address_of(ending), len(ending), code) for ending, code in zip(self._endings, codes, strict=True)
        ]
        self._latency_memory = latency
        edges, *cells = (each.ctypes.data for each in latency)
        self._latency[:] = edges, len(latency[0]), *cells
        self._refusals = (refusals, np.array([cell.ctypes.data for cell in refusals], np.int64))
        self._set(layout.L_COUNTS, self._refusals[1].ctypes.data)
        self._routed = routed
        self._set(layout.L_ROUTED, routed.ctypes.data)
        self._answers[layout.W_MOST // 8] = most_reply_bytes
        self._set(layout.L_IS_OPEN, 1)

    def set_subject(self, number: int) -> None:
        """What traces call the version."""
        self._set(layout.L_SUBJECT, number)

    def record(self, words: NDArray[np.int64]) -> None:
        """Has the answers to requests with ids recorded from now on, by words as `layout` has them."""
        self._recording = words
        self._answers[layout.W_RECORDS // 8] = words.ctypes.data

    def keyed(self, batch: LaneBatch) -> list[KeyedRows]:
        """The requests of a batch with an id that are answered, where answers are recorded."""
        numbers, counts = batch.numbers, self.row_counts(batch)
        keys = self._tables.entries[numbers, layout.N_KEY // 8].view(np.uint64).tolist()
        starts, rows = (np.cumsum(counts) - counts).tolist(), counts.tolist()
        return [
            KeyedRows(place, keys[place], starts[place], rows[place])
            for place in batch.answered.tolist()
            if keys[place]
        ]

    def trace_of(self, number: int) -> TraceWords | None:
        """How a request of a batch is traced; None if it is not."""
        entry = self._tables.entries[number]
        span = int(entry[layout.N_SPAN // 8])
        if not span:
            return None
        high, low, parent, kind = (
            int(entry[at // 8]) for at in (layout.N_TRACE_HIGH, layout.N_TRACE_LOW, layout.N_PARENT, layout.N_KIND)
        )
        return TraceWords(high, low, parent, span, kind)

    def take_trace(self, number: int) -> TraceWords | None:
        """The same; kernels write nothing of it any more."""
        found = self.trace_of(number)
        self._tables.entries[number, layout.N_SPAN // 8] = 0
        return found

    def traced(self, batch: LaneBatch) -> list[int]:
        """The places of the requests of a batch that are traced."""
        places: list[int] = np.flatnonzero(self._tables.entries[batch.numbers, layout.N_SPAN // 8]).tolist()
        return places

    def arrived(self, number: int) -> int:
        """When a request of a batch came, in nanoseconds."""
        return int(self._tables.entries[number, layout.N_ARRIVED // 8])

    def watch_repeats(self) -> None:
        """Tells from now on which batches repeat recent requests alone."""
        self._seen = np.zeros(layout.SEEN, np.int64)
        self._set(layout.L_SEEN, self._seen.ctypes.data)

    def set_others(self, requests: int, rows: int, size_bytes: int) -> None:
        """What waits in the version's queue, which counts towards the same bounds."""
        self._set(layout.L_OTHER_REQUESTS, requests)
        self._set(layout.L_OTHER_ROWS, rows)
        self._set(layout.L_OTHER_BYTES, size_bytes)

    def shut(self) -> None:
        """Takes no request from now on."""
        self._set(layout.L_IS_OPEN, 0)

    def hurry(self) -> None:
        """Has no request wait for others from now on."""
        self._set(layout.L_DELAY, 0)

    def set_cost(self, base_s: float, row_s: float, largest: int) -> None:
        """What batches take, by which requests with a deadline are admitted, and how many rows the largest holds."""
        self._set(layout.L_BASE, int(base_s / _NS))
        self._set(layout.L_ROW, int(row_s / _NS))
        self._set(layout.L_LARGEST, largest)

    def set_busy_until(self, until_s: float) -> None:
        """When the batch that runs should end; 0 when none does."""
        self._set(layout.L_BUSY_UNTIL, int(until_s / _NS))

    def set_probe_at(self, when_s: float) -> None:
        """When a request may run again to find out what a batch costs."""
        self._set(layout.L_PROBE_AT, layout.NEVER if when_s == inf else max(0, int(max(0.0, when_s) / _NS)))

    def due_s(self, most_rows: int, cost_s: float) -> float:
        """When the next batch should run, as `BatchQueue.due_s` says it; it would take `cost_s`."""
        if not self.requests:
            return inf
        if not self._cells[layout.L_DELAY // 8] or self.rows >= most_rows:
            return 0.0
        return min(
            self._cells[layout.L_DELAYED_UNTIL // 8] * _NS, self._cells[layout.L_HALFWAY // 8] * _NS - cost_s / 2
        )

    @property
    def is_timed(self) -> bool:
        """Whether a request had a deadline."""
        return bool(self._cells[layout.L_TIMED // 8])

    @property
    def requests(self) -> int:
        """How many wait."""
        return self._cells[layout.L_REQUESTS // 8]

    @property
    def rows(self) -> int:
        """The rows that wait."""
        return self._cells[layout.L_ROWS // 8]

    @property
    def size_bytes(self) -> int:
        """The bytes of the messages that wait."""
        return self._cells[layout.L_BYTES // 8]

    def take_left(self) -> int:
        """How many callers have left since the last time."""
        left = self._cells[layout.L_LEFT // 8]
        self._set(layout.L_LEFT, 0)
        return left

    @property
    def is_fused(self) -> bool:
        """Whether kernels run its batches."""
        return self._take_over is not None

    def fuse(self, address: int, take_over: Callable[[int, "LaneBatch"], None]) -> None:
        """Has kernels run its batches from now on, by what is at this address.

        Args:
            address: of words as `layout` has them for a fused lane.
            take_over: gets the batches that kernels leave to Python, and why.
        """
        self._take_over = take_over
        self._set(layout.L_FUSED, address)

    def output(self, number: int, size: int) -> bytes:
        """So many bytes of an output of the batch that kernels have run last."""
        return self._tables.output(number, size)

    def unfuse(self) -> None:
        """Has Python run its batches again."""
        self._take_over = None
        self._set(layout.L_FUSED, 0)

    def look(self, why: int) -> None:
        """Something of it has changed, or a batch was left to Python, as `layout` says."""
        if why == layout.TOUCHED:
            self._wake()
            return
        batch = self._new_batch()
        taken_at, count = self._tables.taken_batch()
        ctypes.memmove(batch.address, taken_at, 8 * count)
        self._fill(batch, count)
        if self._take_over is not None:
            self._take_over(why, batch)

    def next_batch(self, most_rows: int, now_s: float, most: int = layout.MOST_REQUESTS) -> LaneBatch:
        """Takes the next batch off the lane; its rows are in the blocks until the one after it.

        What is too late is refused: the owner counts it, then `tell_refused` ends its call.
        """
        batch = self._new_batch()
        address = self._tables.address
        self._fill(batch, self._gather(address, self.number, most_rows, most, batch.address, int(now_s / _NS)))
        return batch

    def tell_refused(self) -> None:
        """Ends the calls that were refused."""
        self._tables.tell_refused()

    def take_all(self) -> LaneBatch:
        """Takes requests that wait off the lane, to be refused; up to as many as a batch holds."""
        batch = self._new_batch()
        self._fill(batch, self._empty(self._tables.address, self.number, batch.address, layout.MOST_REQUESTS))
        return batch

    def split(self, batch: LaneBatch, is_chosen: Sequence[bool]) -> tuple[LaneBatch, LaneBatch]:
        """The chosen requests of a batch and the others, as a batch each, of which `batch` is one from now on."""
        other = self._new_batch()
        if all(is_chosen):
            return batch, other
        if not any(is_chosen):
            return other, batch
        chosen = np.array(is_chosen)
        words, counts = batch.words[: batch.count].copy(), self.row_counts(batch)
        for half, is_of in ((batch, chosen), (other, ~chosen)):
            taken = words[is_of]
            half.words[: len(taken)] = taken
            half.count, half.rows = len(taken), int(counts[is_of].sum())
        return batch, other

    def pass_on(self, batch: LaneBatch, other: "Lane", now_s: float) -> None:
        """Has the requests of a batch wait in another lane, which refuses those for which it has no room or no time.

        Left in the batch are those on which the general path is to decide. The owner ends the calls of those that are refused
        by `tell_refused`.
        """
        address = self._tables.address
        batch.count = self._pass_on(address, batch.address, batch.count, other.number, int(now_s / _NS))

    def _new_batch(self) -> LaneBatch:
        if not self._spare:
            words = np.zeros(layout.MOST_REQUESTS, np.int64)
            return LaneBatch(words, words.ctypes.data, self._tables.entries_at)
        return LaneBatch(*self._spare.pop(), self._tables.entries_at)

    def _fill(self, batch: LaneBatch, count: int) -> None:
        batch.count = count
        batch.rows = self._cells[layout.L_TAKEN_ROWS // 8]
        batch.is_repeat = bool(self._cells[layout.L_REPEATED // 8])

    def blocks(self) -> tuple[bytes, ...]:
        """The rows of the batch that was taken last, as a version takes them."""
        return tuple(ctypes.string_at(data, size) if size else b"" for data, _, size, _ in self._blocks.tolist())

    def message(self, number: int) -> Message:
        """A request of a batch that is not over."""
        entry = self._tables.entries[number].tolist()
        return Message(
            entry[layout.N_SLOT // 8],
            ctypes.string_at(entry[layout.N_DATA // 8], entry[layout.N_SIZE // 8]),
            entry[layout.N_ARRIVED // 8],
            entry[layout.N_DEADLINE // 8],
            entry[layout.N_PRIORITY // 8],
            self.forms[entry[layout.N_PLAN // 8]],
        )

    def slot(self, number: int) -> int:
        """The call of a request of a batch that is not over."""
        return int(self._tables.entries[number, layout.N_SLOT // 8])

    def rows_of(self, number: int) -> int:
        """The rows of a request of a batch that is not over."""
        return int(self._tables.entries[number, layout.N_ROWS // 8])

    def reply_bytes(self, number: int) -> int:
        """How large the reply to a request was that `answer` left as too large."""
        return int(self._tables.entries[number, layout.N_RAW_AT // 8])

    def let_go(self, number: int) -> None:
        """Leaves a running request's call to others; its rows stay in the batch."""
        self._tables.let_go(number)

    def row_counts(self, batch: LaneBatch) -> NDArray[np.int64]:
        """The rows of each request of a batch."""
        counts: NDArray[np.int64] = self._tables.entries[batch.numbers, layout.N_ROWS // 8]
        return counts

    def running(self, batch: LaneBatch) -> NDArray[np.int64]:
        """The numbers of the requests of a batch whose callers are still there."""
        states = self._tables.entries[batch.numbers, layout.N_STATE // 8]
        numbers: NDArray[np.int64] = batch.numbers[states == layout.RUNNING]
        return numbers

    def answer(
        self,
        batch: LaneBatch,
        outputs: Sequence[RawOutput],
        *,
        key: object,
        layout_of: Callable[[int, Form], ReplyLayout],
        features_s: float,
        infer_s: float,
        began_s: float,
        ended_s: float,
        predicted: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    ) -> int:
        """Writes the replies of a batch, and counts what those that are answered took; how many are.

        Args:
            batch: what ran.
            outputs: its rows.
            key: as long as it is equal, layouts stay valid.
            layout_of: the constant part of a reply, by its rows and its form.
            features_s: what its features took.
            infer_s: what its model took; its replies say the sum of both.
            began_s: when the batch began.
            ended_s: when it was computed.
            predicted: what is recorded of each of its rows, predictions and scores; None records nothing.
        """
        self._lay_out(batch, key, layout_of)
        self._set_outputs(outputs)
        self._set_batch(batch, began_s, ended_s)
        self._answers[layout.W_COMPUTED // 8] = int((features_s + infer_s) * 1e6)
        self._answers[layout.W_FEATURES // 8] = int(features_s / _NS)
        self._answers[layout.W_INFER // 8] = int(infer_s / _NS)
        count = self._answered(predicted)
        if count < 0:
            raise MemoryError("no memory for the answers of a batch")
        return count

    def _answered(self, predicted: tuple[NDArray[np.float64], NDArray[np.float64]] | None) -> int:
        """Answers the batch that the answers know, and records it by what Python has read of its outputs."""
        words = self._recording
        if words is None:
            return self._answer(self.answers_at)
        at = layout.J_PREDICTIONS // 8, layout.J_SCORES // 8
        if predicted is None:
            self._answers[layout.W_RECORDS // 8] = 0
        else:
            words[at[0]], words[at[1]] = (each.ctypes.data for each in predicted)
        try:
            return self._answer(self.answers_at)
        finally:
            words[at[0]] = words[at[1]] = 0
            self._answers[layout.W_RECORDS // 8] = words.ctypes.data

    def send_replies(self, *, is_shared: bool = False) -> None:
        """Sends the replies that were written; if it is shared, other threads may have the interpreter meanwhile."""
        self._tables.send_replies(is_shared=is_shared)

    def finish(
        self,
        fused: int,
        batch: LaneBatch,
        outputs: Sequence[NDArray[Any]],
        *,
        began_s: float,
        ended_s: float,
        features_s: float,
        infer_s: float,
    ) -> int:
        """Writes the replies of a batch and counts it as `plain.kernels.fused` does; what is left to do.

        Args:
            fused: the address of the version's words.
            batch: what ran.
            outputs: its rows, C-contiguous numbers in this machine's order of bytes.
            began_s: when the batch began.
            ended_s: when it was computed.
            features_s: what its features took.
            infer_s: what its model took.
        """
        if [array.shape[1:] for array in outputs] != self._layout_key:
            return layout.TO_LAY_OUT
        self._set_outputs([RawOutput(array, array.nbytes // max(1, len(array))) for array in outputs])
        self._set_batch(batch, began_s, ended_s)
        return self._finish(fused, int(features_s / _NS), int(infer_s / _NS))

    def learn_cost(self, fused: int, rows: int, took_s: float) -> None:
        """Learns from what a batch took, where that matters."""
        self._learn_cost(fused, self._row_at, rows, int(took_s / _NS))

    def _set_batch(self, batch: LaneBatch, began_s: float, ended_s: float) -> None:
        """Says which batch is answered, when it began and when it was computed."""
        answers = self._answers
        answers[layout.W_BATCH // 8] = batch.address
        answers[layout.W_COUNT // 8] = batch.count
        answers[layout.W_ROWS // 8] = batch.rows
        answers[layout.W_REPEATED // 8] = batch.is_repeat
        answers[layout.W_BEGAN // 8] = int(began_s / _NS)
        answers[layout.W_ENDED // 8] = int(ended_s / _NS)

    def _set_outputs(self, outputs: Sequence[RawOutput]) -> None:
        """Says where the rows of each output are."""
        answers = self._answers
        if len(self._outputs) < len(outputs):
            self._outputs = np.zeros((len(outputs), layout.OUTPUT_BYTES // 8), np.int64)
            answers[layout.W_OUTPUTS // 8] = self._outputs.ctypes.data
        table = self._outputs.data
        for number, (data, row_bytes, offsets) in enumerate(outputs):
            table[number, layout.A_DATA // 8] = address_of_rows(data)
            table[number, layout.A_ROW_BYTES // 8] = row_bytes
            table[number, layout.A_OFFSETS // 8] = 0 if offsets is None else offsets.ctypes.data

    def _lay_out(self, batch: LaneBatch, key: object, layout_of: Callable[[int, Form], ReplyLayout]) -> None:
        """Makes the layouts that a batch needs and that are not there."""
        if key != self._layout_key or self._layout_count > MAX_LAYOUTS:
            self._layout_key = key
            self._forget_layouts()
        words_at = batch.address
        while True:
            missing = self._missing_layout(
                words_at, batch.count, self._answers[layout.W_LAYOUTS // 8], self._layout_count
            )
            if missing < 0:
                return
            entry = self._tables.entries[batch.numbers[missing]]
            plan, rows = int(entry[layout.N_PLAN // 8]), int(entry[layout.N_ROWS // 8])
            self._add_layout(plan, rows, layout_of(rows, self.forms[plan]))

    def _add_layout(self, plan: int, rows: int, made: ReplyLayout) -> None:
        if self._layout_count == len(self._layouts):
            self._layouts = np.concatenate([self._layouts, np.zeros_like(self._layouts)])
            self._answers[layout.W_LAYOUTS // 8] = self._layouts.ctypes.data
        heads = [np.frombuffer(head or b"\0", np.uint8) for _, head in made.outputs]
        prefix = np.frombuffer(made.prefix, np.uint8)
        table = np.array(
            [(at, kept.ctypes.data, len(head)) for (at, head), kept in zip(made.outputs, heads, strict=True)], np.int64
        )
        self._layout_memory += [*heads, prefix, table, made]
        self._layouts[self._layout_count] = (
            plan, rows, prefix.ctypes.data, len(made.prefix), table.ctypes.data, len(heads),
        )  # fmt: skip
        self._layout_count += 1
        self._answers[layout.W_LAYOUT_COUNT // 8] = self._layout_count

    def forget_forms(self) -> None:
        """The numbers of plans are given anew: nothing waits."""
        self.forms.clear()
        self._forget_layouts()

    def _forget_layouts(self) -> None:
        self._layout_count = self._answers[layout.W_LAYOUT_COUNT // 8] = 0
        self._layout_memory.clear()

    def end(self, batch: LaneBatch) -> None:
        """Gives the places of a batch back. Those of its calls that still run are nobody's then."""
        batch.is_over = True
        self._end_batch(self._tables.address, batch.address, batch.count)
        if len(self._spare) < 3:
            self._spare.append((batch.words, batch.address))

    def close(self) -> None:
        """Frees its memory; nothing waits, and every batch is over."""
        libc = ctypes.CDLL(None)
        libc.free.argtypes = [ctypes.c_void_p]
        for data in self._blocks[:, layout.B_DATA // 8].tolist():
            libc.free(data)
        self._blocks[:, layout.B_DATA // 8] = 0
        self.unfuse()
