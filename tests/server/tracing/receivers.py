"""Collectors of this process, over HTTP and gRPC, which keep what they are sent and answer as they are told."""

import gzip
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TIMEOUT_S = 30.0


class Received:
    """What a collector was sent, and how it is to answer: an HTTP status or a gRPC code, once each; then it takes all."""

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[tuple[ExportTraceServiceRequest, dict[str, str]]] = queue.SimpleQueue()
        self.refusals: list[Any] = []
        self.answer = ExportTraceServiceResponse()
        self.address = ""

    def take(self, content: bytes, headers: dict[str, str]) -> None:
        self.requests.put((ExportTraceServiceRequest.FromString(content), headers))

    def next(self) -> tuple[ExportTraceServiceRequest, dict[str, str]]:
        """The next request, awaited."""
        return self.requests.get(timeout=TIMEOUT_S)

    def spans(self, count: int) -> list[Span]:
        """So many spans or more, awaited, of as many requests as they take."""
        found: list[Span] = []
        while len(found) < count:
            request, _ = self.next()
            found += [
                span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
            ]
        return found


@contextmanager
def http_collector() -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            if received.refusals:
                status, headers = received.refusals.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            if self.headers["content-encoding"] == "gzip":
                content = gzip.decompress(content)
            received.take(content, {**dict(self.headers), ":path": self.path})
            answer = received.answer.SerializeToString()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    received.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_collector() -> Iterator[Received]:
    received = Received()

    def export(content: bytes, context: Any) -> bytes:
        if received.refusals:
            context.abort(received.refusals.pop(0), "not now")
        received.take(content, dict(context.invocation_metadata()))
        return received.answer.SerializeToString()

    server = grpc.server(ThreadPoolExecutor(2))
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("opentelemetry.proto.collector.trace.v1.TraceService", handlers),)
    )
    received.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()
