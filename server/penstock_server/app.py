"""The hall: composes a server from its rooms, opens them in order and closes them in reverse."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
import structlog

from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.helper_process import HelperProcess
from penstock_server.control.http import AdminServer
from penstock_server.control.messages import RequestLogging, WorkerSettings
from penstock_server.control.status import ServerStatus
from penstock_server.control.supervisor import Supervisor
from penstock_server.control.watcher import Watcher
from penstock_server.drift import answer as drift
from penstock_server.drift.gauges import DriftCollector
from penstock_server.drift.monitor import DriftMonitor
from penstock_server.drift.report import DriftRules
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.features.compiled import ensure_compiled
from penstock_server.metrics.prometheus import MetricsCollector, registry_of
from penstock_server.metrics.store import CounterStore
from penstock_server.request_log.files import SPOOL
from penstock_server.settings import DriftSettings, RequestLogSettings, ServerSettings
from penstock_server.sources.combined_source import CombinedSource, LastKnownState
from penstock_server.sources.directory_source import DirectorySource
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_server.sources.source import Source

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
"""How often drift is looked for; a look that finds no new window costs some microseconds a version."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server listens, each `host:port`."""

    grpc: str
    http: str


async def serve(settings: ServerSettings, on_ready: Callable[[Addresses], None]) -> None:
    """Runs a server until SIGTERM or SIGINT; then drains and returns.

    Args:
        settings: checked.
        on_ready: called once, when every worker accepts calls.

    Raises:
        UnavailableError: a port cannot be bound.
        InvalidInputError: a setting asks for what is not installed.
    """
    async with AsyncExitStack() as stack:
        _keep_request_log(stack, settings.request_log)
        reservation = stack.enter_context(_reserve(settings.host, settings.port))
        grpc_address = _shown(settings.host, reservation.getsockname()[1])
        # Compiled before any worker starts: they would all wait for the same file.
        await asyncio.to_thread(ensure_compiled)
        boards = stack.enter_context(CounterStore())
        source = CombinedSource(_sources(settings), memory=LastKnownState())
        desk = ControlResponder({"DriftState": lambda body: drift.answer(body, facts.drift)})
        stack.push_async_callback(desk.close)
        supervisor = Supervisor(
            address=grpc_address,
            workers=settings.workers,
            settings=_worker_settings(settings),
            source=source,
            boards=boards,
            desk=desk,
        )
        facts = ServerStatus(
            view=supervisor.view,
            artifact=supervisor.artifact,
            boards=boards,
            sources=lambda: source.states,
            watch=DriftMonitor(_drift_rules(settings.drift), settings.drift.window_rows),
        )
        admin = AdminServer(
            view=supervisor.view,
            sources=lambda: source.states,
            registry=registry_of(
                MetricsCollector(facts.of_server),
                DriftCollector(lambda: facts.drift().versions, settings.drift.series),
            ),
            drift=lambda model, version: drift.as_json(facts.drift().of(model, version)),
        )
        stack.push_async_callback(admin.close)
        http_port = await admin.start(settings.host, settings.http_port)
        watcher = Watcher(source, interval_s=settings.poll_interval_s, wanted=supervisor.want, asked=supervisor.asked)
        looking = asyncio.create_task(_look(facts))
        stack.callback(looking.cancel)
        await _run(
            settings, supervisor, watcher, lambda: on_ready(Addresses(grpc_address, _shown(settings.host, http_port)))
        )


def _keep_request_log(stack: AsyncExitStack, settings: RequestLogSettings) -> None:
    """Starts the process that makes Parquet of what workers log, if anything is to be logged."""
    if settings.directory is None:
        return
    if find_spec("pyarrow") is None:
        raise InvalidInputError(
            "request_log.directory needs pyarrow, which is not installed; run: pip install 'penstock[log]'"
        )
    argument = msgspec.json.encode((str(settings.directory.absolute()), settings.max_bytes)).decode()
    helper = HelperProcess("penstock_server.request_log.compactor", argument)
    # Closed last, after the workers have closed their segments.
    stack.push_async_callback(helper.close)
    helper.start()


async def _run(
    settings: ServerSettings, supervisor: Supervisor, watcher: Watcher, on_ready: Callable[[], None]
) -> None:
    """Keeps the control plane going until a signal, a port that cannot be bound, or a bug ends it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    watching = asyncio.create_task(watcher.run())
    endings = {
        asyncio.create_task(supervisor.run()),
        watching,
        asyncio.create_task(stop.wait()),
        asyncio.create_task(supervisor.failure()),
    }
    ready = asyncio.create_task(supervisor.ready.wait())
    try:
        done, _ = await asyncio.wait({*endings, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready in done:
            on_ready()
            done, _ = await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        watching.cancel()
        await supervisor.drain(settings.grace_s)
    finally:
        for task in (*endings, ready):
            task.cancel()
        await asyncio.gather(*endings, ready, return_exceptions=True)


def _reserve(host: str, port: int) -> socket.socket:
    """Holds the gRPC port for the workers, which share it; raises when another program listens there.

    A socket that is bound but does not listen gets no connections, and keeps the port while workers come and go.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if port:
            # Workers bind with SO_REUSEPORT, which would let two servers share a port by mistake.
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {host}:{port} for gRPC: {error.strerror or error}; choose another with --port"
        ) from error
    return held


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sources(settings: ServerSettings) -> list[Source]:
    sources: list[Source] = []
    if settings.registry is not None:
        sources.append(MlflowSource(settings.registry, models=settings.models))
    if settings.model_repository is not None:
        sources.append(DirectorySource(settings.model_repository))
    return sources


async def _look(facts: ServerStatus) -> None:
    """Looks for drift once a second until cancelled; what goes wrong with it stops nothing else."""
    while True:
        try:
            await asyncio.to_thread(facts.look)
        except Exception:
            log.exception("the drift watch failed")
        await asyncio.sleep(LOOK_S)


def _drift_rules(settings: DriftSettings) -> DriftRules:
    return DriftRules(settings.rate, settings.minimum_effect)


def _worker_settings(settings: ServerSettings) -> WorkerSettings:
    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    return WorkerSettings(
        transport=settings.transport,
        limits=settings.batching,
        onnx_threads=settings.serving.threads,
        onnx_threads_of={name: own.threads for name, own in settings.serving.models.items()},
        inline_budget_s=settings.serving.inline_budget_ms / 1000,
        drift_window_rows=settings.drift.window_rows,
        max_message_bytes=settings.grpc.max_message_bytes,
        keepalive_s=settings.grpc.keepalive_s,
        connection_age_s=settings.grpc.connection_age_s,
        max_streams=settings.grpc.max_streams,
        tls_certificate=text(settings.grpc.tls_certificate),
        tls_key=text(settings.grpc.tls_key),
        tls_client_ca=text(settings.grpc.tls_client_ca),
        request_log=_request_logging(settings.request_log),
    )


def _request_logging(settings: RequestLogSettings) -> RequestLogging | None:
    if settings.directory is None:
        return None
    return RequestLogging(
        spool=str(settings.directory.absolute() / SPOOL),
        sample_ratio=settings.sample_ratio,
        # What waits to become Parquet may not crowd out what did.
        spool_bytes=settings.max_bytes // 2,
        rotate_bytes=settings.rotate_bytes,
        rotate_s=settings.rotate_s,
    )
