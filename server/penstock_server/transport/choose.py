"""Which transport serves: the completion queue when grpcio is as we know it, else grpc.aio, with one warning."""

from typing import Final, Literal

import structlog

from penstock_server.transport.aio import AioTransport
from penstock_server.transport.interface import Methods, Reactor, Transport
from penstock_server.transport.settings import TransportSettings

log = structlog.get_logger(__name__)

TransportName = Literal["completion-queue", "aio"]
COMPLETION_QUEUE: Final = "completion-queue"
AIO: Final = "aio"


def choose_transport(
    name: str, methods: Methods, reactor: Reactor, settings: TransportSettings
) -> tuple[TransportName, Transport]:
    """The transport of this name, ready to run, or the portable one when the fast one does not work here."""
    if name == COMPLETION_QUEUE:
        try:
            # Imported here: when grpcio's internals have moved, the import itself may fail.
            from penstock_server.transport.completion_queue import CompletionQueueTransport
            from penstock_server.transport.self_check import self_check

            self_check()
            return COMPLETION_QUEUE, CompletionQueueTransport(methods, reactor, settings)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the internals, the portable way works
            log.warning("the completion queue does not work with this grpcio; serving over grpc.aio", cause=str(error))
    return AIO, AioTransport(methods, reactor, settings)
