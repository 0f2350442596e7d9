"""What goes beside a call's message: the caller's headers, and the trace that the caller is in."""

import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from penstock_client import AsyncClient, Client, InvalidRequestError
from penstock_client.headers import call_headers

ROW = {"age": 41, "city": "Oslo"}
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def span(state=()):
    context = SpanContext(TRACE, SPAN, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState(state))
    return trace.use_span(NonRecordingSpan(context))


def test_no_span_adds_nothing():
    assert call_headers(None) == call_headers({}) == ()
    assert call_headers({"traceparent": "own"}) == (("traceparent", "own"),)


def test_the_current_span_goes_with_the_call_in_place_of_an_older_one():
    with span():
        assert call_headers(None) == (("traceparent", PARENT),)
        assert call_headers({"X-Tenant": "a", "Traceparent": "own", "tracestate": "x=1"}) == (
            ("x-tenant", "a"),
            ("traceparent", PARENT),
        )
    with span([("vendor", "1")]):
        assert call_headers(None) == (("traceparent", PARENT), ("tracestate", "vendor=1"))


def test_opentelemetry_is_not_imported_for_it():
    code = "import sys, penstock_client.headers as h; h.call_headers(None); print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_import_that_is_under_way_in_another_thread_is_no_trace(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", type(sys)("opentelemetry.trace"))
    assert call_headers(None) == ()


@pytest.mark.usefixtures("transport")
def test_headers_of_a_call_go_with_all_that_it_takes_and_with_no_other(server):
    with Client(server.address, headers={"authorization": "Bearer x"}) as client:
        for name in ("a", "b"):
            with span():
                client.predict("fares", ROW, headers={"X-Tenant": name})
        client.predict("fares", ROW)
        list(client.predict_many("fares", [ROW, ROW], headers={"x-tenant": "many"}))
    seen = [
        (call.method, call.headers.get("x-tenant"), call.headers.get("traceparent"), call.headers["authorization"])
        for call in server.seen
    ]
    assert seen == [
        ("ModelMetadata", "a", PARENT, "Bearer x"),
        ("ModelInfer", "a", PARENT, "Bearer x"),
        ("ModelInfer", "b", PARENT, "Bearer x"),
        ("ModelInfer", None, None, "Bearer x"),
        ("ModelInfer", "many", None, "Bearer x"),
        ("ModelInfer", "many", None, "Bearer x"),
    ]


@pytest.mark.usefixtures("transport")
async def test_headers_of_a_call_go_with_it_asyncio(server):
    async with AsyncClient(server.address) as client:
        with span():
            await client.predict("fares", ROW, headers={"x-tenant": "a"})
        async for _ in client.predict_many("fares", [ROW], headers={"x-tenant": "b"}):
            pass
    assert [call.headers.get("x-tenant") for call in server.seen] == ["a", "a", "b"]
    assert [call.headers.get("traceparent") for call in server.seen] == [PARENT, PARENT, None]


@pytest.mark.parametrize(
    "headers",
    [
        {"a b": "c"},
        {"": "c"},
        {"a": "ø"},
        {"a": " b"},
        {"a-bin": "b"},
        {"grpc-timeout": "1S"},
        {"TE": "x"},
        {"a": "b" * 9000},
    ],
)
def test_headers_that_cannot_be_sent_are_refused(server, headers):
    with (
        Client(server.address) as client,
        pytest.raises(InvalidRequestError, match="cannot be sent with a call") as failed,
    ):
        client.predict("fares", ROW, headers=headers)
    assert (failed.value.model, failed.value.server) == ("fares", server.address)
    assert server.seen == []
