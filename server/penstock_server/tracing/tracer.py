"""Which requests of a worker are traced, and what becomes of them; all of it on the reactor's thread.

Where the caller has decided, its decision holds; of the other requests a share is drawn ("parent based" sampling). Compiled
kernels do the same for plain requests (`plain.kernels.traces`).
"""

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from penstock.names import VersionKey
from penstock_server.call import Call
from penstock_server.errors import PenstockError
from penstock_server.tracing import layout
from penstock_server.tracing.context import parent_of
from penstock_server.tracing.span_file import SpanWriter

_PER_S: Final = 1e9
"""Nanoseconds."""
_WORD: Final = (1 << 64) - 1


class SpanContext(NamedTuple):
    """A span that others may be below: the trace, and its own number."""

    trace_id: int
    span_id: int


TracedRequest = tuple[int, SpanContext]
"""The place of a request in its batch, and its span."""


class Run(NamedTuple):
    """The batch that a request was in: when it began on the monotonic clock, what its stages took, and its rows."""

    began_s: float
    features_s: float
    infer_s: float
    rows: int


class TraceWords(NamedTuple):
    """A traced request as kernels have it: both halves of its trace, the span above, its own, and its kind, as signed words."""

    high: int
    low: int
    parent: int
    span: int
    kind: int

    @property
    def context(self) -> SpanContext:
        return SpanContext((self.high & _WORD) << 64 | self.low & _WORD, self.span & _WORD)


class Trace:
    """A request that is traced, until it ends.

    Attributes:
        context: its own span.
    """

    __slots__ = ("_arrived_ns", "_kind", "_parent_id", "_tracer", "context", "is_over")

    def __init__(self, tracer: "Tracer", context: SpanContext, parent_id: int, kind: int, arrived_ns: int) -> None:
        self._tracer = tracer
        self.context = context
        self._parent_id = parent_id
        self._kind = kind
        self._arrived_ns = arrived_ns
        self.is_over = False

    def answered(self, subject: int, rows: int, run: Run, ended_s: float) -> None:
        """It was answered."""
        self._end(0, subject, rows, run, int(ended_s * _PER_S))

    def refused(self, error: PenstockError, subject: int = 0) -> None:
        """It ends with an error."""
        self._end(self._tracer.code_of(error), subject, 0, None, self._tracer.now_ns())

    def cancelled(self, subject: int) -> None:
        """Its caller left."""
        self._end(layout.CANCELLED, subject, 0, None, self._tracer.now_ns())

    def _end(self, code: int, subject: int, rows: int, run: Run | None, ended_ns: int) -> None:
        if self.is_over:
            return
        self.is_over = True
        began_s, features_s, infer_s, batch_rows = run or (0.0, 0.0, 0.0, 0)
        self._tracer.spans.write(
            kind=self._kind,
            code=code,
            trace_id=self.context.trace_id,
            parent_id=self._parent_id,
            span_id=self.context.span_id,
            subject=subject,
            arrived_ns=self._arrived_ns,
            ended_ns=ended_ns,
            began_ns=int(began_s * _PER_S),
            features_ns=int(features_s * _PER_S),
            infer_ns=int(infer_s * _PER_S),
            rows=rows,
            batch_rows=batch_rows,
        )


class Tracer:
    """Decides which requests are traced, and writes their records.

    Args:
        spans: the worker's region.
        code_of: gRPC's number for an error.
        now_s: the monotonic clock.
        bits: a random number of so many bits.

    Attributes:
        spans, code_of: the same.
    """

    def __init__(
        self,
        spans: SpanWriter,
        *,
        code_of: Callable[[PenstockError], int],
        now_s: Callable[[], float],
        bits: Callable[[int], int] = random.getrandbits,
    ) -> None:
        self.spans = spans
        self.code_of = code_of
        self._now_s = now_s
        self._bits = bits

    def now_ns(self) -> int:
        return int(self._now_s() * _PER_S)

    def begin(self, call: Call, arrived_s: float) -> Trace | None:
        """The trace of a request that came now; None if it is not traced."""
        file = self.spans.file
        if not file.is_on:
            return None
        parent = parent_of(call.metadata())
        if parent is None:
            if self._bits(53) >= file.share:
                return None
            trace_id, parent_id = self._bits(128) or 1, 0
        elif parent.is_sampled:
            trace_id, parent_id = parent.trace_id, parent.span_id
        else:
            return None
        return Trace(self, SpanContext(trace_id, self._span_id()), parent_id, call.kind, int(arrived_s * _PER_S))

    def resumed(self, words: TraceWords, arrived_ns: int) -> Trace:
        """The trace of a request that kernels have begun, and that Python ends; it came at `arrived_ns`."""
        return Trace(self, words.context, words.parent & _WORD, words.kind, arrived_ns)

    def subject(self, key: VersionKey, role: str | None) -> int:
        """A number for a version in a role, which records carry; to be given back to `spans`."""
        return self.spans.name((*key, role or ""))

    def shadowed(self, requests: Sequence[SpanContext], subject: int, run: Run, ended_s: float) -> None:
        """Writes for each of these requests that the shadow ran their batch."""
        for trace_id, span_id in requests:
            self.spans.write(
                kind=layout.SHADOW,
                code=0,
                trace_id=trace_id,
                parent_id=span_id,
                span_id=self._span_id(),
                subject=subject,
                arrived_ns=int(run.began_s * _PER_S),
                began_ns=int(run.began_s * _PER_S),
                features_ns=int(run.features_s * _PER_S),
                infer_ns=int(run.infer_s * _PER_S),
                ended_ns=int(ended_s * _PER_S),
                rows=run.rows,
                batch_rows=run.rows,
            )

    def _span_id(self) -> int:
        return self._bits(64) or 1
