"""A real gRPC server in this process, for the load generator."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from bench.load.plan import LoadPlan


class Echo(grpc.GenericRpcHandler):
    """Answers what it was sent; counts calls and refuses every third when asked to."""

    def __init__(self) -> None:
        self.seen: Counter[bytes] = Counter()
        self.deadlines: set[bool] = set()
        self.refuses = False
        self.released = threading.Event()
        self.released.set()
        self._lock = threading.Lock()

    def service(self, details):
        if details.method == "/echo.Echo/Call":
            return grpc.unary_unary_rpc_method_handler(self.call)
        return None

    def call(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.seen[request] += 1
            number = self.seen.total()
            self.deadlines.add((context.time_remaining() or 1e9) < 60)
        self.released.wait(30)
        if self.refuses and number % 3 == 0:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "every third")
        return request


@contextmanager
def serving(handler: Echo, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, handlers=[handler], options=[("grpc.so_reuseport", 0)])
        place = "127.0.0.1:0"
        port = server.add_secure_port(place, credentials) if credentials else server.add_insecure_port(place)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            handler.released.set()
            server.stop(0).wait()


def plan(address: str, **changes) -> LoadPlan:
    settings = {"messages": (b"a", b"bb"), "connections": 2, "streams": 4, "max_requests": 120, "duration_s": 30.0}
    return LoadPlan(address, "/echo.Echo/Call", **(settings | changes))
