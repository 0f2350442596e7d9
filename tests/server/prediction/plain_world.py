"""Plain requests without sockets: a port that keeps what calls are told, events as the transport makes them, a predictor.

Two worlds with the same versions, of which one has no kernels for plain requests, are to give the same answers and counts.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from penstock import inference_pb2 as pb
from penstock.names import PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits
from penstock_server.call import UNARY, Metadata
from penstock_server.errors import DeadlinePassedError, PenstockError, UnavailableError
from penstock_server.kernels import compiled
from penstock_server.labels import prediction_file
from penstock_server.labels.prediction_file import AnsweredVersion, PredictionWriter
from penstock_server.labels.ring import OwnRing
from penstock_server.metrics.recorder import refusal_reason
from penstock_server.models.signature import Signature
from penstock_server.plain import layout
from penstock_server.plain.kernel_set import KERNELS
from penstock_server.plain.requests import PlainRequests
from penstock_server.prediction.decode import TensorDecoder, decoder_of
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.predictor import PlainForms, Predictor
from penstock_server.prediction.recent import RecentRequests
from penstock_server.prediction.records import VersionRecords, prediction_reader
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.prediction.scheduler import BatchScheduler
from penstock_server.prediction.shadow import ShadowTarget
from penstock_server.response_cache.responses import ResponseCache
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.tracing import span_file
from penstock_server.tracing.tracer import Tracer
from penstock_server.transport import layout as wire
from penstock_server.transport.headers import as_received
from penstock_server.transport.status import status_of

METHOD: Final = 3
RECORDS: Final = 8192
"""The places of a file of records."""
TIMED: Final = (PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US)

_libc: Final = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]
_M_MMAP_THRESHOLD: Final = -3
if hasattr(_libc, "mallopt"):
    # glibc raises the threshold to the size of what is freed, and fills 16 MB with zeros for each world after the first. What
    # comes from the system has them already, and what is not touched takes no time.
    _libc.mallopt(_M_MMAP_THRESHOLD, 1 << 18)


class PortCall:
    """A call of the general path, which ends at the port."""

    def __init__(self, port: "Port", slot: int, deadline_s: float) -> None:
        self._port = port
        self._slot = slot
        self.deadline_s = deadline_s
        self.is_over = False
        self.pending: Any = None
        self.headers: Any = ()
        self.trailers: Any = ()

    kind = UNARY

    def watch(self) -> None:
        pass

    def metadata(self) -> Any:
        return self._port.metadata_of(self._slot)

    def send(self, message: bytes) -> None:
        self.finish(message)

    def finish(self, message: bytes | None = None) -> None:
        self._end(message or b"")

    def fail(self, error: PenstockError) -> None:
        self._end(error)

    def _end(self, end: bytes | PenstockError) -> None:
        if not self.is_over:
            self.is_over = True
            self._port.end(self._slot, end)

    def closed(self) -> None:
        if not self.is_over:
            self.is_over = True
            if self.pending is not None:
                self.pending.cancelled()


class Port:
    """Keeps how each call ended, and holds that none ends twice."""

    def __init__(self) -> None:
        self.calls: dict[int, PortCall] = {}
        self.metadata: dict[int, Metadata] = {}
        self.ends: dict[int, bytes | PenstockError] = {}
        self.replies = 0
        self.is_shared = False
        self.refused = 0
        self._errors: list[PenstockError] = []

    def end(self, slot: int, end: bytes | PenstockError) -> None:
        assert slot not in self.ends, f"call {slot} ends twice"
        self.ends[slot] = end
        self.calls.pop(slot, None)

    def send_replies(self, operations: int, count: int, block: int, *, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        words = (ctypes.c_int64 * (5 * count)).from_address(operations)
        for at in range(count):
            kind, slot, place, size, more = words[5 * at : 5 * at + 5]
            assert (kind, more) in ((wire.SEND_REPLY, 0), (wire.REFUSE, 0))
            if kind == wire.REFUSE:
                self.end(slot, self._errors[int(ctypes.string_at(-place, size))])
                self.refused += 1
            else:
                self.end(slot, ctypes.string_at(block + place, size))
                self.replies += 1

    def ending(self, error: PenstockError) -> bytes:
        self._errors.append(error)
        return str(len(self._errors) - 1).encode()

    def fail(self, slot: int, error: PenstockError) -> None:
        self.end(slot, error)

    def metadata_of(self, slot: int) -> Metadata:
        return self.metadata.get(slot, ())

    def call(self, slot: int, deadline_ns: int) -> Any:
        return self.general(slot, inf if deadline_ns == layout.NEVER else deadline_ns * 1e-9)

    def general(self, slot: int, deadline_s: float) -> PortCall:
        assert slot not in self.calls
        self.calls[slot] = call = PortCall(self, slot, deadline_s)
        return call


class HeldThread:
    """A model thread whose work runs when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self.is_closed = False

    def start(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self.jobs.append((work, then))

    def act(self) -> None:
        """Runs the oldest piece of work, and hands its result back."""
        work, then = self.jobs.pop(0)
        then(work())

    def close(self) -> None:
        self.is_closed = True

    def join(self) -> None:
        pass


class Collected:
    """Stands where the shadow's thread does."""

    def __init__(self) -> None:
        self.copies: list[Any] = []

    def offer(self, target: ShadowTarget, copy: Any) -> bool:
        self.copies.append((target, copy))
        return True

    def post(self, action: Callable[[], None]) -> None:
        action()


class Record(NamedTuple):
    """What a record says but for its time; what may be NaN as bits."""

    key: int
    version: str
    role: str
    row: int
    prediction: float
    score: int
    weight: int


class Records:
    """What is recorded in a world.

    Args:
        folder: of its files; made.
    """

    def __init__(self, folder: Path) -> None:
        own, of_shadow = (OwnRing(folder, prediction_file.KIND, 0, RECORDS) for _ in range(2))
        self.writer, self.shadow_writer = PredictionWriter(own), PredictionWriter(of_shadow)

    def of(self, version: str, servable: Any) -> VersionRecords | None:
        """What writes the records of a version."""
        reader = prediction_reader(_reader(servable), servable.outputs)
        named = AnsweredVersion("m", version)
        return None if reader is None else VersionRecords(self.writer, self.shadow_writer, named, reader)

    def take(self, *, of_shadow: bool = False) -> list[Record]:
        """The records that were written since the last time, in the order of their keys."""
        ring = (self.shadow_writer if of_shadow else self.writer).own.ring
        versions = prediction_file.read_table(ring.path)
        words = ring.read(ring.taken, RECORDS)
        assert not ring.lost
        assert ring.taken + len(words) == ring.written
        ring.release(ring.written)
        return sorted(
            Record(
                key & (1 << 64) - 1,
                versions[subject & (1 << 32) - 1].version,
                prediction_file.ROLES[subject >> 32],
                row,
                float(np.int64(prediction).view(np.float64)),
                score,
                weight,
            )
            for key, _, subject, row, prediction, score, weight, _ in words.tolist()
        )


class World:
    """A predictor before executors of model m, with plain requests or without."""

    def __init__(
        self,
        versions: dict[str, Any],
        *,
        report_of: Callable[[], Any],
        clock: Any,
        is_plain: bool = True,
        plan: TrafficPlan | None = None,
        thread: Any = None,
        reply_bytes: int = 1 << 26,
        cost: Cost | None = None,
        skips_repeats: bool = False,
        spans: Path | None = None,
        records: Path | None = None,
        cache: ResponseCache | None = None,
        **limits: Any,
    ) -> None:
        self.clock = clock
        self.port = Port()
        self.requests = PlainRequests(compiled.library(KERNELS), METHOD, self.port)
        self.streams = np.zeros((64, wire.STREAM_BYTES // 8), np.int64)
        self._connection = np.zeros(wire.CONNECTION_BYTES // 8, np.int64)
        self._headers: list[bytes] = []
        self.tracer = None if spans is None else self._traced(spans)
        self.records = None if records is None else Records(records)
        self.scheduler = BatchScheduler(clock)
        self.scheduler.take_plain(self.requests)
        self.unrouted = report_of()
        self.thread = thread
        self.reports = {version: report_of() for version in versions}
        self.executors = {
            version: Executor(
                servable,
                _decoder(servable),
                limits=BatchLimits(**limits),
                report=self.reports[version],
                reader=_reader(servable),
                clock=clock,
                activate=self.scheduler.activate,
                cost=cost,
                thread=thread,
                reply_bytes=reply_bytes,
                recent=RecentRequests() if skips_repeats else None,
                tracer=self.tracer,
                responses=None if cache is None else cache.version(self.reports[version]),
                records=None if self.records is None else self.records.of(version, servable),
            )
            for version, servable in versions.items()
        }
        self.predictor = Predictor(clock=clock, report=self.unrouted, tracer=self.tracer)
        if is_plain:
            self.predictor.take_plain(PlainForms(self.requests, self.port))
        self.is_plain = is_plain
        self.sent: list[int] = []
        self.left: set[int] = set()
        self.taken = 0
        self.route(plan or TrafficPlan(next(iter(versions))))

    def route(self, plan: TrafficPlan, versions: Sequence[str] | None = None) -> None:
        """Puts a plan in force, in one action, as a worker does."""
        served = {version: self.executors[version] for version in versions or self.executors}
        model = ServedModel("m", plan, served)
        for version, executor in served.items():
            executor.set_role(model.role(version), model.share(version))
        self.predictor.routing_table = RoutingTable({"m": model})

    def _traced(self, file: Path) -> Tracer:
        """Has requests traced into a new file."""
        span_file.create(file, 1, 0.0)
        writer = span_file.SpanWriter(span_file.SpanFile(file), 0)
        self.requests.trace(self.streams.ctypes.data, writer.page, writer.region)
        return Tracer(writer, code_of=lambda error: status_of(error).number, now_s=self.clock)

    def send(self, *messages: bytes, deadline_s: float = inf, metadata: Sequence[Metadata] = ()) -> list[int]:
        """Calls that come in one turn, each with its metadata; their slots."""
        slots = list(range(len(self.sent), len(self.sent) + len(messages)))
        self.sent += slots
        for slot, own in zip(slots, metadata, strict=False):
            self.port.metadata[slot] = own
            self._headers.append(as_received(own))
            place = ctypes.cast(self._headers[-1], ctypes.c_void_p).value
            row = self.streams[slot]
            row[wire.S_CONNECTION // 8] = self._connection.ctypes.data
            row[wire.S_HEADERS // 8], row[wire.S_HEADERS_SIZE // 8] = place, len(self._headers[-1])
        deadline = layout.NEVER if deadline_s == inf else int(deadline_s * 1e9)
        self._turn([(wire.CALL, slot, message, deadline) for slot, message in zip(slots, messages, strict=True)])
        return slots

    def leave(self, *slots: int) -> None:
        """Callers leave."""
        self.left.update(slots)
        self._turn([(wire.CLOSED, slot, b"", layout.NEVER) for slot in slots])

    def expire(self, *slots: int) -> None:
        """The transport sees that deadlines have passed."""
        self._turn([(wire.EXPIRED, slot, b"", layout.NEVER) for slot in slots])

    def _turn(self, happened: Sequence[tuple[int, int, bytes, int]]) -> None:
        events = np.zeros((len(happened), wire.EVENT_BYTES // 8), np.int64)
        for row, (kind, slot, message, deadline) in zip(events, happened, strict=True):
            data = _libc.malloc(max(1, len(message))) if kind == wire.CALL else 0
            if kind == wire.CALL:
                ctypes.memmove(data, message, len(message))
            row[:] = kind, slot, data, len(message), METHOD, deadline, 0, 0
        left = len(events)
        if self.is_plain:
            left = self.requests.sift(events.ctypes.data, len(events), int(self.clock.now * 1e9))
        others = events[events[:, 0] != wire.TAKEN].tolist()
        assert left == len(others)
        self.taken += sum(
            kind == wire.CALL and event == wire.TAKEN
            for (kind, *_), event in zip(happened, events[:, 0].tolist(), strict=True)
        )
        for kind, slot, data, size, _, deadline, _, _ in others:
            self._take(kind, slot, ctypes.string_at(data, size) if kind == wire.CALL else b"", deadline)
            if kind == wire.CALL:
                _libc.free(data)

    def _take(self, kind: int, slot: int, message: bytes, deadline: int) -> None:
        """Does what the transport does with an event that was not taken."""
        if kind == wire.CALL:
            call = self.port.call(slot, deadline)
            try:
                self.predictor.infer(message, call)
            except PenstockError as error:
                call.fail(error)
        elif kind == wire.CLOSED:
            if (found := self.port.calls.pop(slot, None)) is not None:
                found.closed()
        elif (expired := self.port.calls.get(slot)) is not None:
            pending, expired.pending = expired.pending, None
            expired.fail(DeadlinePassedError("the deadline has passed"))
            if pending is not None:
                pending.cancelled()

    def drain(self) -> None:
        """Does what the transport does when the server begins to drain."""
        error = UnavailableError("the server is shutting down")
        self.requests.stop(error, lambda: self.unrouted.refused(refusal_reason(error)))

    def end_of_grace(self) -> None:
        """Ends what the transport ends when the server's grace is over."""
        self.drain()
        for call in list(self.port.calls.values()):
            pending, call.pending = call.pending, None
            call.fail(UnavailableError("the server is shutting down"))
            if pending is not None:
                pending.cancelled()
        for slot in self.requests.give_up():
            self.port.fail(slot, UnavailableError("the server is shutting down"))

    def step(self) -> None:
        """Runs all that is due on the reactor."""
        self.scheduler.step()
        while self.scheduler.is_due:
            self.scheduler.step()

    def run(self) -> None:
        """Runs all that is due, on the thread too."""
        self.step()
        while self.thread is not None and self.thread.jobs:
            self.thread.act()
            self.step()

    def warm(self, *messages: bytes) -> None:
        """Has these messages' forms known, and all of it forgotten but what the kernels learnt."""
        for message in messages:
            (slot,) = self.send(message)
            self.run()
            assert isinstance(self.port.ends[slot], bytes), self.port.ends[slot]
        self.taken = self.port.replies = self.port.refused = 0

    def check_clean(self) -> None:
        """Every call has its end, and nothing of a plain request is left."""
        assert set(self.sent) == set(self.port.ends) | self.left
        assert not self.port.calls
        assert self.requests.is_idle
        assert not self.requests.tables.entry_of.any()
        assert not self.requests.tables.entries[:, layout.N_STATE // 8].any()
        assert np.array_equal(np.sort(self.requests._free), np.arange(layout.MAX_ENTRIES))


def _decoder(servable: Any) -> Any:
    if hasattr(servable, "artifact"):
        return decoder_of(servable)
    return TensorDecoder(Signature(servable.inputs, servable.outputs, servable.is_batched))


def _reader(servable: Any) -> Any:
    from tests.server.prediction.conftest import reader_of

    return reader_of(servable)


def message(*rows: Sequence[float], **fields: Any) -> bytes:
    """A request of rows of two numbers, as most clients send it."""
    return asked({"x": np.array(rows, "<f8").reshape(-1, 2)}, **fields)


def asked(
    arrays: dict[str, Any],
    *,
    outputs: Sequence[str] = (),
    parameters: dict[str, int | str] | None = None,
    **fields: Any,
) -> bytes:
    """A request with raw contents, its fields in the order of their numbers."""
    from penstock.tensors import datatype_of, to_raw

    request = pb.ModelInferRequest(**{"model_name": "m", **fields})
    for name, value in (parameters or {}).items():
        if isinstance(value, str):
            request.parameters[name].string_param = value
        else:
            request.parameters[name].int64_param = value
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
        request.raw_input_contents.append(to_raw(array))
    for name in outputs:
        request.outputs.add(name=name)
    return bytes(request.SerializeToString(deterministic=True))


def values(reply: bytes | PenstockError) -> list[float]:
    """The first output of a reply to `message`."""
    assert isinstance(reply, bytes), reply
    found: list[float] = np.frombuffer(pb.ModelInferResponse.FromString(reply).raw_output_contents[0], "<f8").tolist()
    return found


def without_times(reply: bytes) -> list[tuple[int, bytes]]:
    """A reply's fields in order, byte for byte, but for the numbers that differ from one run to the next."""
    fields = []
    at = 0
    number = partial(_varint, reply)
    while at < len(reply):
        tag, at = number(at)
        size, at = number(at)
        content = reply[at : at + size]
        at += size
        if tag == 0x22 and (name := content[2 : 2 + content[1]]).decode() in TIMED:
            assert content[2 + len(name) :][:1] == b"\x12"
            content = name
        fields.append((tag, content))
    assert at == len(reply)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
