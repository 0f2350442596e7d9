from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from penstock_server.tracing.collector import CollectorRefusedError, Taken, collector_of, pairs_in
from tests.server.tracing.receivers import Received, grpc_collector, http_collector

REQUEST = ExportTraceServiceRequest()
REQUEST.resource_spans.add().scope_spans.add().spans.add(name="x" * 1000)
BYTES = REQUEST.SerializeToString()


@pytest.fixture(params=["http/protobuf", "grpc"])
def protocol(request: Any) -> str:
    found: str = request.param
    return found


@pytest.fixture
def received(protocol: str) -> Iterator[Received]:
    with (grpc_collector if protocol == "grpc" else http_collector)() as made:
        yield made


def test_a_request_arrives_with_its_headers(received: Received, protocol: str) -> None:
    collector = collector_of(received.address, protocol, {"OTEL_EXPORTER_OTLP_HEADERS": "Api-Key=a%20b,x-team=fraud"})
    assert collector.send(BYTES) == Taken()
    request, headers = received.next()
    assert request == REQUEST
    lower = {name.lower(): value for name, value in headers.items()}
    assert (lower["api-key"], lower["x-team"]) == ("a b", "fraud")
    assert lower.get(":path", "/v1/traces") == "/v1/traces"
    collector.close()


@pytest.mark.parametrize("compression", ["gzip", "none", ""])
def test_a_request_is_compressed_if_that_is_asked_for(received: Received, protocol: str, compression: str) -> None:
    collector_of(received.address, protocol, {"OTEL_EXPORTER_OTLP_COMPRESSION": compression}).send(BYTES)
    request, headers = received.next()
    assert request == REQUEST
    if protocol != "grpc":  # which hides it from handlers
        assert {name.lower(): value for name, value in headers.items()}.get("content-encoding") == (
            compression if compression == "gzip" else None
        )


def test_headers_for_traces_come_first(received: Received, protocol: str) -> None:
    environment = {"OTEL_EXPORTER_OTLP_HEADERS": "k=all", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "k=traces"}
    collector_of(received.address, protocol, environment).send(BYTES)
    assert {name.lower(): value for name, value in received.next()[1].items()}["k"] == "traces"


def test_what_it_says_of_spans_that_it_dropped_is_heard(received: Received, protocol: str) -> None:
    received.answer.partial_success.rejected_spans = 3
    received.answer.partial_success.error_message = "too old"
    assert collector_of(received.address, protocol, {}).send(BYTES) == Taken(3, "too old")


@pytest.mark.parametrize("endpoint", ["{}", "{}/", "{}/v1/traces"])
def test_the_path_is_added_once(endpoint: str) -> None:
    with http_collector() as received:
        collector_of(endpoint.format(received.address), "http/protobuf", {}).send(BYTES)
        assert received.next()[1][":path"] == "/v1/traces"


@pytest.mark.parametrize(
    ("status", "headers", "is_final", "retry_after_s"),
    [
        (429, {"Retry-After": "7"}, False, 7.0),
        (503, {}, False, None),
        (502, {"Retry-After": "Fri, 31 Dec 2049 23:59:59 GMT"}, False, None),
        (504, {}, False, None),
        (400, {}, True, None),
        (401, {}, True, None),
        (500, {}, True, None),
        # Nor do headers, which may hold a key, follow to another place.
        (302, {"Location": "http://127.0.0.1:1/"}, True, None),
    ],
)
def test_which_answers_over_http_mean_that_it_may_be_sent_again(
    status: int, headers: dict[str, str], is_final: bool, retry_after_s: float | None
) -> None:
    with http_collector() as received:
        received.refusals.append((status, headers))
        with pytest.raises(CollectorRefusedError, match=str(status)) as caught:
            collector_of(received.address, "http/protobuf", {}).send(BYTES)
    assert (caught.value.is_final, caught.value.retry_after_s) == (is_final, retry_after_s)


@pytest.mark.parametrize(
    ("code", "is_final"),
    [
        (grpc.StatusCode.UNAVAILABLE, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
        (grpc.StatusCode.ABORTED, False),
        (grpc.StatusCode.INVALID_ARGUMENT, True),
        (grpc.StatusCode.UNAUTHENTICATED, True),
        (grpc.StatusCode.UNIMPLEMENTED, True),
    ],
)
def test_which_codes_mean_that_it_may_be_sent_again(code: grpc.StatusCode, is_final: bool) -> None:
    with grpc_collector() as received:
        received.refusals.append(code)
        with pytest.raises(CollectorRefusedError, match=code.name) as caught:
            collector_of(received.address, "grpc", {}).send(BYTES)
    assert caught.value.is_final == is_final


def test_nobody_there_may_come_back(protocol: str) -> None:
    with (grpc_collector if protocol == "grpc" else http_collector)() as gone:
        address = gone.address
    with pytest.raises(CollectorRefusedError) as caught:
        collector_of(address, protocol, {}).send(BYTES)
    assert not caught.value.is_final


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        (" a = 1 , b=2", {"a": "1", "b": "2"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=%2C", {"a": ","}),
        ("nothing,=x,a=", {"a": ""}),
    ],
)
def test_pairs_of_a_variable(text: str, pairs: dict[str, str]) -> None:
    assert pairs_in(text) == pairs
