"""Which transport serves: the completion queue when grpcio is as we know it, else grpc.aio, with one warning.

The queue's module is internal to grpcio, so a real call exercises it before it is trusted.
"""

import threading
from typing import Final

import grpc
import structlog

from penstock_server.call import Call
from penstock_server.transport.aio import AioTransport
from penstock_server.transport.interface import Methods, Reactor, Transport
from penstock_server.transport.settings import TransportName, TransportSettings

log = structlog.get_logger(__name__)

COMPLETION_QUEUE: Final = "completion-queue"
AIO: Final = "aio"

_PATH: Final = "/penstock.SelfCheck/Echo"
_TIMEOUT_S: Final = 5.0


def choose_transport(
    name: str, methods: Methods, reactor: Reactor, settings: TransportSettings
) -> tuple[TransportName, Transport]:
    """The transport of this name, ready to run, or the portable one when the fast one does not work here."""
    if name == COMPLETION_QUEUE:
        try:
            # Imported here: when grpcio's internals have moved, the import itself may fail.
            from penstock_server.transport.completion_queue import CompletionQueueTransport

            self_check()
            return COMPLETION_QUEUE, CompletionQueueTransport(methods, reactor, settings)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the internals, the portable way works
            log.warning("the completion queue does not work with this grpcio; serving over grpc.aio", cause=str(error))
    return AIO, AioTransport(methods, reactor, settings)


class _Idle:
    is_due = False

    def step(self) -> float:
        return 0.01


def self_check() -> None:
    """Serves and makes one call over a socket of its own; `RuntimeError` when the answer is not what it should be."""
    from penstock_server.transport.completion_queue import CompletionQueueTransport

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
