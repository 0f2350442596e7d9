"""The hall: composes a server from its rooms, opens them in order and closes them in reverse."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from penstock_server.control.admin import Admin
from penstock_server.control.boards import BoardStore
from penstock_server.control.messages import WorkerSettings
from penstock_server.control.supervisor import Supervisor
from penstock_server.control.watcher import Watcher
from penstock_server.errors import UnavailableError
from penstock_server.features.compiled import ensure_compiled
from penstock_server.models.combined_source import CombinedSource
from penstock_server.models.directory_source import DirectorySource
from penstock_server.models.memory import Memory
from penstock_server.models.mlflow_source import MlflowSource
from penstock_server.models.source import Source
from penstock_server.observe.exposition import ServerFacts, VersionFacts, registry_of
from penstock_server.settings import ServerSettings


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
    """
    async with AsyncExitStack() as stack:
        reservation = stack.enter_context(_reserve(settings.host, settings.port))
        grpc_address = _shown(settings.host, reservation.getsockname()[1])
        # Compiled before any worker starts: they would all wait for the same file.
        await asyncio.to_thread(ensure_compiled)
        boards = stack.enter_context(BoardStore())
        source = CombinedSource(_sources(settings), memory=Memory())
        supervisor = Supervisor(
            address=grpc_address,
            workers=settings.workers,
            settings=_worker_settings(settings),
            source=source,
            boards=boards,
        )
        admin = Admin(
            view=supervisor.view,
            sources=lambda: source.states,
            registry=registry_of(lambda: _facts(supervisor, boards, source)),
        )
        stack.push_async_callback(admin.close)
        http_port = await admin.start(settings.host, settings.http_port)
        watcher = Watcher(source, interval_s=settings.poll_interval_s, wanted=supervisor.want, asked=supervisor.asked)
        await _run(
            settings, supervisor, watcher, lambda: on_ready(Addresses(grpc_address, _shown(settings.host, http_port)))
        )


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


def _worker_settings(settings: ServerSettings) -> WorkerSettings:
    def text(path: Path | None) -> str | None:
        return None if path is None else str(path)

    return WorkerSettings(
        transport=settings.transport,
        limits=settings.batching,
        onnx_threads=settings.serving.threads,
        inline_budget_s=settings.serving.inline_budget_ms / 1000,
        drift_window_rows=settings.drift.window_rows,
        max_message_bytes=settings.grpc.max_message_bytes,
        keepalive_s=settings.grpc.keepalive_s,
        tls_certificate=text(settings.grpc.tls_certificate),
        tls_key=text(settings.grpc.tls_key),
        tls_client_ca=text(settings.grpc.tls_client_ca),
    )


def _facts(supervisor: Supervisor, boards: BoardStore, source: CombinedSource) -> ServerFacts:
    view = supervisor.view()
    versions = []
    for version in view.versions:
        key = (version.model, version.version)
        held = boards.of_version(key)
        if not held:
            continue
        artifact = supervisor.artifact(key)
        manifest = None if artifact is None else artifact.manifest
        baseline = None if artifact is None else artifact.baseline
        has_names = (
            manifest is not None
            and manifest.classes is not None
            and any(isinstance(label, str) for label in manifest.classes)
        )
        versions.append(
            VersionFacts(
                model=version.model,
                version=version.version,
                roles=version.roles,
                weight=version.weight,
                boards=held,
                class_names=[str(label) for label in manifest.classes or ()]
                if manifest is not None and has_names
                else (),
                features=() if baseline is None else [column.name for column in baseline.columns],
                reference=None if baseline is None else baseline.reference,
            )
        )
    return ServerFacts(
        versions=versions,
        slots=boards.of_slots(),
        restarts={worker.slot: worker.restarts for worker in view.workers},
        resident_bytes={worker.slot: size for worker in view.workers if (size := _resident_bytes(worker.pid))},
        sources={state.name: state.state == "answers" for state in source.states},
        reloads=view.reloads,
        failed_reloads=view.failed_reloads,
    )


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * 4096
