"""Exercises the completion queue with a real call before it is trusted: its module is internal to grpcio."""

import threading
from typing import Final

import grpc

from penstock_server.call import Call
from penstock_server.transport.completion_queue import CompletionQueueTransport
from penstock_server.transport.interface import Methods
from penstock_server.transport.settings import TransportSettings

_PATH: Final = "/penstock.SelfCheck/Echo"
_TIMEOUT_S: Final = 5.0


class _Idle:
    is_due = False

    def step(self) -> float:
        return 0.01


def self_check() -> None:
    """Serves and makes one call over a socket of its own; `RuntimeError` when the answer is not what it should be."""

    def echo(message: bytes, call: Call) -> None:
        call.finish(message[::-1])

    transport = CompletionQueueTransport(Methods({_PATH: echo}, {}), _Idle(), TransportSettings())
    port = transport.listen_anywhere()
    thread = threading.Thread(target=transport.run, daemon=True)
    thread.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        method = channel.unary_unary(_PATH, request_serializer=bytes, response_deserializer=bytes)
        reply = method(b"penstock", timeout=_TIMEOUT_S)
    transport.drain(0)
    thread.join(_TIMEOUT_S)
    if reply != b"kcotsnep" or thread.is_alive():
        raise RuntimeError(f"an echo came back as {reply!r}, and the queue has {'not ' * thread.is_alive()}ended")
