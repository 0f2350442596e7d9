"""What is put together by hand is what protobuf reads, and as OpenTelemetry's conventions have it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from penstock_server.call import HTTP, STREAMED, UNARY
from penstock_server.tracing import layout
from penstock_server.tracing.otlp import SpanEncoder

OFFSET = 1_700_000_000_000_000_000
WORD = st.integers(-(1 << 63), (1 << 63) - 1)


def record(**fields: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A record; what is not given is 0."""
    row = np.zeros((1, layout.RECORD_WORDS), np.int64)
    for name, value in fields.items():
        row[0, getattr(layout, f"RECORD_{name.upper()}") // 8] = value
    return row


def encoder(random: Any = None) -> SpanEncoder:
    numbers = iter(range(1, 1000))

    def numbered(size: int) -> bytes:
        return b"".join(next(numbers).to_bytes(8, "big") for _ in range(size // 8))

    return SpanEncoder(
        {"service.name": "penstock"}, "1.2", {"server.address": "h", "server.port": 80}, random or numbered
    )


def spans_of(
    *records: np.ndarray[Any, np.dtype[np.int64]], names: Any = lambda _: ("m", "7", "champion")
) -> list[Span]:
    blocks = list(encoder().spans(np.concatenate(records), names, OFFSET))
    found = [list(ScopeSpans.FromString(block.content).spans) for block in blocks]
    assert [len(spans) for spans in found] == [block.total for block in blocks]
    return [span for spans in found for span in spans]


def attributes(span: Any) -> dict[str, str | int]:
    return {
        pair.key: pair.value.string_value if pair.value.HasField("string_value") else pair.value.int_value
        for pair in span.attributes
    }


ANSWERED = {
    "trace_high": 1, "trace_low": 2, "parent": 3, "span": 4, "subject": 1, "arrived": 1000, "began": 1500, "features": 200,
    "infer": 300, "ended": 2100, "rows": 8, "batch_rows": 64,
}  # fmt: skip


def test_a_request_has_a_span_and_one_for_each_stage() -> None:
    root, *stages = spans_of(record(**ANSWERED))
    assert (root.name, root.kind) == ("inference.GRPCInferenceService/ModelInfer", Span.SPAN_KIND_SERVER)
    assert root.trace_id == (1).to_bytes(8, "big") + (2).to_bytes(8, "big")
    assert (root.span_id, root.parent_span_id) == ((4).to_bytes(8, "big"), (3).to_bytes(8, "big"))
    assert (root.start_time_unix_nano - OFFSET, root.end_time_unix_nano - OFFSET) == (1000, 2100)
    assert attributes(root) == {
        "rpc.system.name": "grpc", "rpc.method": "inference.GRPCInferenceService/ModelInfer",
        "rpc.response.status_code": "OK", "server.address": "h", "server.port": 80, "penstock.model.name": "m",
        "penstock.model.version": "7", "penstock.model.role": "champion", "penstock.rows": 8, "penstock.batch.rows": 64,
    }  # fmt: skip
    assert root.status.code == Status.STATUS_CODE_UNSET
    assert [(span.name, span.start_time_unix_nano - OFFSET, span.end_time_unix_nano - OFFSET) for span in stages] == [
        ("queue", 1000, 1500),
        ("features", 1500, 1700),
        ("model", 1700, 2000),
    ]
    for span in stages:
        assert (span.trace_id, span.parent_span_id, span.kind) == (
            root.trace_id,
            root.span_id,
            Span.SPAN_KIND_INTERNAL,
        )
    assert len({span.span_id for span in (root, *stages)}) == 4


def test_flags_say_that_the_span_above_is_elsewhere() -> None:
    """OpenTelemetry's `SpanFlags`: the W3C flags, whether it is known where the parent is, and whether it is remote."""
    root, stage, *_ = spans_of(record(**ANSWERED))
    first, *_ = spans_of(record(**ANSWERED | {"parent": 0}))
    assert (root.flags, stage.flags, first.flags) == (0x301, 0x101, 0x101)
    assert first.parent_span_id == b""


def test_a_graph_alone_has_no_stage_for_features() -> None:
    assert [span.name for span in spans_of(record(**ANSWERED | {"features": 0}))][1:] == ["queue", "model"]


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        (UNARY, "inference.GRPCInferenceService/ModelInfer", "rpc.method"),
        (STREAMED, "inference.GRPCInferenceService/ModelStreamInfer", "rpc.method"),
        (HTTP, "POST", "http.request.method"),
    ],
)
def test_a_span_is_named_by_how_its_request_came(kind: int, name: str, key: str) -> None:
    root, *_ = spans_of(record(**ANSWERED, kind=kind))
    assert root.name == name
    assert attributes(root)[key] == name
    assert ("rpc.system.name" in attributes(root)) == (kind != HTTP)


@pytest.mark.parametrize(
    ("code", "name", "is_error"),
    [
        (1, "CANCELLED", False),
        (3, "INVALID_ARGUMENT", False),
        (4, "DEADLINE_EXCEEDED", True),
        (5, "NOT_FOUND", False),
        (8, "RESOURCE_EXHAUSTED", False),
        (12, "UNIMPLEMENTED", True),
        (13, "INTERNAL", True),
        (14, "UNAVAILABLE", True),
        (99, "UNKNOWN", True),
    ],
)
def test_an_error_is_one_by_the_conventions_for_servers(code: int, name: str, is_error: bool) -> None:
    (root,) = spans_of(record(trace_low=1, span=2, arrived=5, ended=9, code=code))
    assert attributes(root)["rpc.response.status_code"] == name
    assert attributes(root).get("error.type") == (name if is_error else None)
    assert (root.status.code == Status.STATUS_CODE_ERROR) == is_error
    assert "penstock.rows" not in attributes(root)


def test_the_shadow_stands_below_its_request() -> None:
    shadow, *stages = spans_of(record(**ANSWERED, kind=layout.SHADOW))
    assert (shadow.name, shadow.kind) == ("shadow", Span.SPAN_KIND_INTERNAL)
    assert shadow.parent_span_id == (3).to_bytes(8, "big")
    assert [span.name for span in stages] == ["features", "model"]
    assert "server.address" not in attributes(shadow)
    assert attributes(shadow)["penstock.model.version"] == "7"


def test_what_has_no_name_is_traced_all_the_same() -> None:
    root, *_ = spans_of(record(**ANSWERED), names=lambda _: ())
    assert not any(key.startswith("penstock.model") for key in attributes(root))


@given(st.lists(st.tuples(WORD, WORD, WORD, WORD), min_size=1, max_size=4))
def test_any_numbers_are_read_as_they_are(ids: list[tuple[int, int, int, int]]) -> None:
    rows = [
        record(trace_high=high, trace_low=low, parent=parent, span=span, arrived=1, ended=2)
        for high, low, parent, span in ids
    ]
    found = spans_of(*rows)
    wanted = [tuple(number & (1 << 64) - 1 for number in each) for each in ids]
    assert [
        (
            int.from_bytes(span.trace_id[:8], "big"),
            int.from_bytes(span.trace_id[8:], "big"),
            int.from_bytes(span.parent_span_id, "big"),
            int.from_bytes(span.span_id, "big"),
        )
        for span in found
    ] == wanted


def test_what_did_not_run_has_no_stage_for_the_model() -> None:
    """Its answer was kept."""
    found = spans_of(record(**ANSWERED | {"features": 0, "infer": 0}))
    assert [span.name for span in found][1:] == ["queue"]


def test_requests_of_several_forms_are_told_apart() -> None:
    found = spans_of(
        record(**ANSWERED | {"span": 11}),
        record(**ANSWERED | {"span": 12, "subject": 2}),
        record(**ANSWERED | {"span": 13, "parent": 0}),
        record(**ANSWERED | {"span": 14}),
        record(**ANSWERED | {"span": 15, "rows": 9}),
        names=lambda number: ("m", str(number), ""),
    )
    roots = {int.from_bytes(span.span_id, "big"): span for span in found if span.kind == Span.SPAN_KIND_SERVER}
    assert sorted(roots) == [11, 12, 13, 14, 15]
    assert {number: attributes(span)["penstock.model.version"] for number, span in roots.items()} == {
        11: "1", 12: "2", 13: "1", 14: "1", 15: "1",
    }  # fmt: skip
    assert (roots[13].parent_span_id, attributes(roots[15])["penstock.rows"]) == (b"", 9)
    below = [int.from_bytes(span.parent_span_id, "big") for span in found if span.name == "model"]
    assert sorted(below) == [11, 12, 13, 14, 15]


def test_a_request_holds_all_spans_of_one_service() -> None:
    made = encoder()
    spans = list(made.spans(np.concatenate([record(**ANSWERED), record(**ANSWERED)]), lambda _: (), OFFSET))
    (resource,) = ExportTraceServiceRequest.FromString(made.request(spans)).resource_spans
    assert [(pair.key, pair.value.string_value) for pair in resource.resource.attributes] == [
        ("service.name", "penstock")
    ]
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("penstock", "1.2")
    assert len(scope.spans) == sum(each.total for each in spans) == 8
    assert [span.name for span in scope.spans] == [
        *["inference.GRPCInferenceService/ModelInfer"] * 2,
        *["queue"] * 2,
        *["features"] * 2,
        *["model"] * 2,
    ]
