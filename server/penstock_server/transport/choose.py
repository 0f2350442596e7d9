"""Chooses the transport: the completion queue if it works with the installed grpcio, else grpc.aio.

The queue's module is internal to grpcio, so one real call tests it first.
"""

import threading
from typing import Final

import grpc
import structlog

from penstock_server.call import Call
from penstock_server.transport.aio import AioTransport
from penstock_server.transport.interface import Methods, Refused, Scheduler, Transport, ignore_refusal
from penstock_server.transport.settings import TransportName, TransportSettings

log = structlog.get_logger(__name__)

COMPLETION_QUEUE: Final = "completion-queue"
AIO: Final = "aio"

_PATH: Final = "/penstock.SelfCheck/Echo"
_TIMEOUT_S: Final = 5.0


def choose_transport(
    name: str, methods: Methods, scheduler: Scheduler, settings: TransportSettings, refused: Refused = ignore_refusal
) -> tuple[TransportName, Transport]:
    """The transport of this name, ready to run, or the portable one when the fast one does not work here."""
    if name == COMPLETION_QUEUE:
        try:
            # Imported here: when grpcio's internals have changed, the import itself may fail.
            from penstock_server.transport.completion_queue import CompletionQueueTransport

            self_check()
            return COMPLETION_QUEUE, CompletionQueueTransport(methods, scheduler, settings, refused=refused)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the internals, grpc.aio works
            log.warning("the completion queue does not work with this grpcio; serving over grpc.aio", cause=str(error))
    return AIO, AioTransport(methods, scheduler, settings, refused=refused)


class _IdleScheduler:
    is_due = False

    def step(self) -> float:
        return 0.01


def self_check() -> None:
    """Serves one call over a socket of its own; `RuntimeError` when the reply is wrong or the transport does not end."""
    from penstock_server.transport.completion_queue import CompletionQueueTransport

    def echo(message: bytes, call: Call) -> None:
        call.finish(message[::-1])

    transport = CompletionQueueTransport(Methods({_PATH: echo}, {}), _IdleScheduler(), TransportSettings())
    port = transport.listen_anywhere()
    thread = threading.Thread(target=transport.run, daemon=True)
    thread.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            method = channel.unary_unary(_PATH, request_serializer=bytes, response_deserializer=bytes)
            reply = method(b"penstock", timeout=_TIMEOUT_S)
    finally:
        transport.drain(1.0)
        thread.join(_TIMEOUT_S)
    if reply != b"kcotsnep" or thread.is_alive():
        raise RuntimeError(
            f"the self-check expected the reply b'kcotsnep' and a thread that ends, got {reply!r} and a thread that "
            f"{'still runs' if thread.is_alive() else 'ended'}"
        )
