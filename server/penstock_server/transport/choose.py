"""Chooses the transport: the native one if nghttp2 and its kernels are there, else gRPC's own.

Whether the native one can run is asked by the supervisor, before any worker starts: who listens depends on it. Of gRPC's own
the completion queue is faster, and its module is internal to grpcio, so one real call tests it first, in the worker.
`grpc.aio` works everywhere.
"""

import threading
from typing import Final

import structlog

from penstock_server.call import Call
from penstock_server.errors import UnavailableError
from penstock_server.kernels import compiled
from penstock_server.transport import nghttp2
from penstock_server.transport.interface import Methods, Refused, Scheduler, Transport, ignore_refusal
from penstock_server.transport.kernel_set import KERNELS
from penstock_server.transport.settings import COMPLETION_QUEUE, NATIVE, TransportSettings
from penstock_server.transport.shared_port import SharedPort

log = structlog.get_logger(__name__)

_PATH: Final = "/penstock.SelfCheck/Echo"
_TIMEOUT_S: Final = 5.0
_NOT_COMPILED: Final = "the transport kernels are not compiled for this machine; `penstock compile` does it once"


def choose_transport(
    name: str,
    methods: Methods,
    scheduler: Scheduler,
    settings: TransportSettings,
    refused: Refused = ignore_refusal,
    *,
    port: SharedPort | None = None,
) -> Transport:
    """The transport of this name, ready to run, or grpc.aio when the completion queue does not work here.

    The native one accepts from `port`; the others bind sockets of their own.

    Raises:
        UnavailableError: the native transport cannot run here, as `native_refusal` says before.
    """
    if name == NATIVE:
        return native_transport(methods, scheduler, settings, refused=refused, port=port)
    if name == COMPLETION_QUEUE:
        try:
            # Imported here: when grpcio's internals have changed, the import itself may fail.
            from penstock_server.transport.completion_queue import CompletionQueueTransport

            self_check()
            return CompletionQueueTransport(methods, scheduler, settings, refused=refused)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the internals, grpc.aio works
            log.warning("the completion queue does not work with this grpcio; serving over grpc.aio", cause=str(error))
    from penstock_server.transport.aio import AioTransport

    return AioTransport(methods, scheduler, settings, refused=refused)


def native_transport(
    methods: Methods,
    scheduler: Scheduler,
    settings: TransportSettings,
    *,
    refused: Refused = ignore_refusal,
    port: SharedPort | None = None,
) -> Transport:
    """The native transport, ready to run.

    Raises:
        UnavailableError: nghttp2 or the compiled kernels are not there; says which and why.
    """
    from penstock_server.transport.native import NativeTransport

    library = nghttp2.load()
    kernels = compiled.available(KERNELS)
    if kernels is None:
        raise UnavailableError(_NOT_COMPILED)
    return NativeTransport(methods, scheduler, settings, library=library, kernels=kernels, refused=refused, port=port)


def native_refusal() -> str:
    """Why the native transport cannot run here; empty if it can."""
    try:
        nghttp2.load()
        return _NOT_COMPILED if compiled.available(KERNELS) is None else ""
    except UnavailableError as error:
        return str(error)


class _IdleScheduler:
    is_due = False

    def step(self) -> float:
        return 0.01


def self_check() -> None:
    """Serves one call over a socket of its own; `RuntimeError` when the reply is wrong or the transport does not end."""
    import grpc  # 75 ms and 8 MB, which the supervisor does without

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
