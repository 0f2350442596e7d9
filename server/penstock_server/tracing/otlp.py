"""Makes OpenTelemetry's messages of records: a span for a request, and one for each of its stages.

Spans that differ only in their numbers and times are as long as each other on the wire, so all of a kind are written at once:
their bytes in a row of an array each, and then the numbers in their columns. A message built for each would cost ten times as
much.

Source: OpenTelemetry protocol 1.x (`opentelemetry/proto/trace/v1/trace.proto`), semantic conventions for RPC, v1.45.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from penstock.names import INFERENCE_SERVICE
from penstock.wire import varint
from penstock_server.call import HTTP, STREAMED, UNARY
from penstock_server.tracing import layout

_CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_SERVERS_FAULT: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Which codes make a server's span an error, by the conventions for gRPC."""
_METHODS: Final = {
    UNARY: f"{INFERENCE_SERVICE}/ModelInfer",
    STREAMED: f"{INFERENCE_SERVICE}/ModelStreamInfer",
}
_SAMPLED: Final = 0x101
_HAS_REMOTE_PARENT: Final = 0x200
"""Of a span's flags: sampled, and it is known whether the parent is in another process."""

# Tags of fields: their number, and the type on the wire.
_TRACE: Final = b"\x0a\x10"
_SPAN: Final = b"\x12\x08"
_PARENT: Final = b"\x22\x08"
_START: Final = b"\x39"
_END: Final = b"\x41"
_FLAGS: Final = b"\x85\x01"
_SCOPE_SPANS: Final = b"\x12"
_SPANS: Final = b"\x12"
_RESOURCE_SPANS: Final = b"\x0a"

_KEY: Final = [
    at // 8
    for at in (
        layout.RECORD_KIND, layout.RECORD_CODE, layout.RECORD_SUBJECT, layout.RECORD_ROWS, layout.RECORD_BATCH_ROWS,
    )
]  # fmt: skip
"""What all spans of one form share."""

Words = NDArray[np.int64]
Value = str | int
Attributes = Mapping[str, Value]
Names = Callable[[int], tuple[str, ...]]
"""From a subject's number to model, version and role; nothing if it has no name."""


class Spans(NamedTuple):
    """Some spans as a request has them, one behind the other, and how many they are."""

    content: bytes
    total: int


class _Form(NamedTuple):
    """A span whose numbers are zeros, with its tag and length; where they are, and the width of each."""

    content: bytes
    places: Mapping[str, tuple[int, int]]


class _Ids(NamedTuple):
    """The numbers of some spans' traces, [spans, 2], of their own, and of those above, which may be signed words."""

    traces: Words
    spans: Words
    parents: Words


class SpanEncoder:
    """Encodes records.

    Args:
        resource: the attributes of this service.
        version: of the software.
        server: attributes of every request's span, such as `server.address`.
        random: so many random bytes, for the numbers of stages.
    """

    def __init__(
        self,
        resource: Attributes,
        version: str,
        server: Attributes,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._before = ResourceSpans(resource=Resource(attributes=_pairs(resource))).SerializeToString()
        self._scope = ScopeSpans(scope=InstrumentationScope(name="penstock", version=version)).SerializeToString()
        self._server = server
        self._random = random
        self._form_of = lru_cache(maxsize=4096)(self._made_form)

    def request(self, spans: Sequence[Spans]) -> bytes:
        """An `ExportTraceServiceRequest` with these spans."""
        scope = b"".join([self._scope, *(each.content for each in spans)])
        resource = b"".join([self._before, _SCOPE_SPANS, varint(len(scope)), scope])
        return b"".join([_RESOURCE_SPANS, varint(len(resource)), resource])

    def spans(self, records: Words, names: Names, offset_ns: int) -> Iterator[Spans]:
        """The spans of some records: of the requests themselves, then of their stages.

        Args:
            records: [records, `layout.RECORD_WORDS`].
            names: of their subjects.
            offset_ns: what the monotonic clock is behind the time since 1970.
        """
        named = {number: names(number) for number in np.unique(records[:, layout.RECORD_SUBJECT // 8]).tolist()}
        for (kind, code, subject, rows, batch_rows, has_parent), own in _alike(records):
            form = self._form_of(kind, code, named[subject], rows, batch_rows, has_parent)
            arrived, ended = (own[:, at // 8] + offset_ns for at in (layout.RECORD_ARRIVED, layout.RECORD_ENDED))
            ids = _Ids(_traces(own), own[:, layout.RECORD_SPAN // 8], own[:, layout.RECORD_PARENT // 8])
            yield _written(form, ids, arrived, ended)
        for name, own, start, took in _stages(records):
            numbers = np.frombuffer(self._random(8 * len(own)), np.int64)
            began = start + offset_ns
            yield _written(
                _stage(name), _Ids(_traces(own), numbers, own[:, layout.RECORD_SPAN // 8]), began, began + took
            )

    def _made_form(self, kind: int, code: int, names: tuple[str, ...], *numbers: int) -> _Form:
        """What all spans of such requests share; of numbers, their rows, those of the batch, and whether a span is above."""
        rows, batch_rows, has_parent = numbers
        status = _CODES[code] if 0 <= code < len(_CODES) else "UNKNOWN"
        attributes: dict[str, Value] = {}
        if kind in _METHODS:
            name = _METHODS[kind]
            attributes |= {"rpc.system.name": "grpc", "rpc.method": name, "rpc.response.status_code": status}
        elif kind == HTTP:
            name = "POST"
            attributes |= {"http.request.method": "POST"}
        else:
            name = "shadow"
        is_request = kind != layout.SHADOW
        if is_request:
            attributes |= self._server
        is_error = status in _SERVERS_FAULT
        if is_error:
            attributes["error.type"] = status
        attributes |= {f"penstock.model.{part}": value for part, value in zip(_PARTS, names, strict=False) if value}
        if rows:
            attributes |= {"penstock.rows": rows, "penstock.batch.rows": batch_rows}
        before = Span(name=name, kind=Span.SPAN_KIND_SERVER if is_request else Span.SPAN_KIND_INTERNAL)
        after = Span(attributes=_pairs(attributes))
        if is_error:
            after.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR))
        return _form(before, after, has_parent=bool(has_parent), is_remote=is_request and bool(has_parent))


_PARTS: Final = ("name", "version", "role")


@lru_cache(maxsize=8)
def _stage(name: str) -> _Form:
    return _form(Span(name=name, kind=Span.SPAN_KIND_INTERNAL), Span(), has_parent=True, is_remote=False)


def _form(before: Span, after: Span, *, has_parent: bool, is_remote: bool) -> _Form:
    """A form: parts of a message one behind the other are the message of all parts.

    Args:
        before: what comes before the times, which have higher numbers of fields.
        after: what comes behind them.
        has_parent: there is a span above.
        is_remote: it is another process's.
    """
    flags = _SAMPLED | (_HAS_REMOTE_PARENT if is_remote else 0)
    parts: list[tuple[str, bytes, int]] = [("trace", _TRACE, 16), ("span", _SPAN, 8)]
    if has_parent:
        parts.append(("parent", _PARENT, 8))
    parts += [("", before.SerializeToString(), 0), ("start", _START, 8), ("end", _END, 8)]
    parts.append(("", after.SerializeToString() + _FLAGS + flags.to_bytes(4, "little"), 0))
    head = _SPANS + varint(sum(len(constant) + width for _, constant, width in parts))
    content, places = bytearray(head), {}
    for name, constant, width in parts:
        content += constant
        if name:
            places[name] = (len(content), width)
        content += bytes(width)
    return _Form(bytes(content), places)


def _written(form: _Form, ids: _Ids, starts: Words, ends: Words) -> Spans:
    """Spans of one form."""
    count = len(starts)
    block = np.tile(np.frombuffer(form.content, np.uint8), (count, 1))
    for name, values, kind in (
        ("trace", ids.traces, ">i8"),
        ("span", ids.spans, ">i8"),
        ("parent", ids.parents, ">i8"),
        ("start", starts, "<i8"),
        ("end", ends, "<i8"),
    ):
        if name in form.places:
            at, width = form.places[name]
            block[:, at : at + width] = np.ascontiguousarray(values.astype(kind)).view(np.uint8).reshape(count, width)
    return Spans(block.tobytes(), count)


def _alike(records: Words) -> Iterator[tuple[tuple[int, ...], Words]]:
    """The records whose spans have one form, by what they share: `_KEY`, and whether there is a span above."""
    places: dict[tuple[int, ...], list[int]] = {}
    keys = np.column_stack([records[:, _KEY], records[:, layout.RECORD_PARENT // 8] != 0])
    for at, key in enumerate(map(tuple, keys.tolist())):
        places.setdefault(key, []).append(at)
    for key, found in places.items():
        yield key, records[found]


def _traces(records: Words) -> Words:
    """The numbers of their traces, [records, 2]."""
    return records[:, [layout.RECORD_TRACE_HIGH // 8, layout.RECORD_TRACE_LOW // 8]]


def _stages(records: Words) -> Iterator[tuple[str, Words, Words, Words]]:
    """Each stage with the records that went through it, when it began in each, and what it took, in nanoseconds."""
    ran = records[records[:, layout.RECORD_BEGAN // 8] != 0]
    kind, arrived, began, features, infer = (
        ran[:, at // 8]
        for at in (
            layout.RECORD_KIND, layout.RECORD_ARRIVED, layout.RECORD_BEGAN, layout.RECORD_FEATURES, layout.RECORD_INFER,
        )
    )  # fmt: skip
    for name, is_there, start, took in (
        ("queue", kind != layout.SHADOW, arrived, np.maximum(0, began - arrived)),
        ("features", features != 0, began, features),
        ("model", infer != 0, began + features, infer),  # none, where the answer was kept
    ):
        if is_there.any():
            yield name, ran[is_there], start[is_there], took[is_there]


def _pairs(attributes: Attributes) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value))
        for key, value in attributes.items()
    ]
