"""Builds a server from its rooms, runs it until a signal, and closes everything in reverse order."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Final

import msgspec
import structlog

from penstock_server import lifeline
from penstock_server.control import port
from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.helper_process import HelperProcess
from penstock_server.control.http import AdminServer
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.status import ServerStatus
from penstock_server.control.supervisor import Supervisor
from penstock_server.control.trial_process import run_trial
from penstock_server.control.verdict import TrialLimits
from penstock_server.control.watcher import Watcher
from penstock_server.control.worker_process import start_worker
from penstock_server.drift import answer as drift
from penstock_server.drift.gauges import DriftCollector
from penstock_server.drift.monitor import DriftMonitor
from penstock_server.drift.report import DriftRules
from penstock_server.errors import InvalidInputError
from penstock_server.features.compiled import ensure_compiled
from penstock_server.metrics.prometheus import MetricsCollector, registry_of
from penstock_server.metrics.store import CounterStore
from penstock_server.request_log.settings import RequestLogSettings
from penstock_server.settings import ServerSettings
from penstock_server.sources.combined_source import CombinedSource, LastKnownState
from penstock_server.sources.directory_source import DirectorySource
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_server.sources.source import Source

log = structlog.get_logger(__name__)

LAST_RESORT_S: Final = 25.0
"""A server that has not ended this long after its grace is ended as it is."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server listens, each `host:port`."""

    grpc: str
    http: str


async def serve(settings: ServerSettings, on_ready: Callable[[Addresses], None]) -> None:
    """Runs a server until SIGTERM or SIGINT; then drains it and returns.

    Args:
        settings: the server's, already checked.
        on_ready: called once, when every worker accepts calls.

    Raises:
        UnavailableError: a port cannot be bound, or workers cannot start.
        InvalidInputError: a setting needs what is not installed.
    """
    async with AsyncExitStack() as stack:
        last_resort = stack.enter_context(lifeline.LastResort())
        _start_compactor(stack, settings.request_log)
        reserved = stack.enter_context(port.reserve(settings.host, settings.port))
        grpc_address = port.address_of(settings.host, reserved.getsockname()[1])
        # Compiled before any worker starts: otherwise each would compile them for itself.
        await asyncio.to_thread(ensure_compiled)
        counters = stack.enter_context(CounterStore())
        source = CombinedSource(_sources(settings), last_known=LastKnownState())
        responder = ControlResponder({"DriftState": lambda body: drift.answer(body, status.drift)})
        stack.push_async_callback(responder.close)
        limits = TrialLimits(settings.airlock.memory_mib, settings.airlock.timeout_s)
        supervisor = Supervisor(
            address=grpc_address,
            workers=settings.workers,
            start=partial(start_worker, settings.of_worker.to_json()),
            source=source,
            counters=counters,
            responder=responder,
            run_trial=partial(run_trial, limits=limits),
            proven=ProvenVersions(limits),
            load_settings=settings.load_settings,
            unanswered=lambda: source.unanswered,
            watchdog=settings.watchdog,
        )
        status = ServerStatus(
            view=supervisor.view,
            artifact=supervisor.artifact,
            identity=supervisor.identity,
            counters=counters,
            sources=lambda: source.states,
            monitor=DriftMonitor(
                DriftRules(settings.drift.rate, settings.drift.minimum_effect), settings.drift.window_rows
            ),
        )
        admin = AdminServer(
            view=supervisor.view,
            sources=lambda: source.states,
            registry=registry_of(
                MetricsCollector(status.metrics),
                DriftCollector(lambda: status.drift().versions, settings.drift.series),
            ),
            drift=lambda model, version: drift.as_json(status.drift().of(model, version)),
        )
        stack.push_async_callback(admin.close)
        http_port = await admin.start(settings.host, settings.http_port)
        log.info("the HTTP port answers", http=port.address_of(settings.host, http_port))
        watcher = Watcher(
            source,
            interval_s=settings.poll_interval_s,
            desired=supervisor.on_desired,
            polled=supervisor.on_polled,
        )
        addresses = Addresses(grpc_address, port.address_of(settings.host, http_port))
        await _run(
            supervisor,
            watcher,
            status,
            last_resort,
            grace_s=settings.grace_s,
            on_ready=lambda: on_ready(addresses),
        )


def _start_compactor(stack: AsyncExitStack, settings: RequestLogSettings) -> None:
    """Starts the process that makes Parquet files of what workers log, if requests are logged."""
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


def _sources(settings: ServerSettings) -> list[Source]:
    sources: list[Source] = []
    if settings.registry is not None:
        sources.append(MlflowSource(settings.registry, models=settings.models))
    if settings.model_repository is not None:
        sources.append(DirectorySource(settings.model_repository))
    return sources


async def _run(
    supervisor: Supervisor,
    watcher: Watcher,
    status: ServerStatus,
    last_resort: lifeline.LastResort,
    *,
    grace_s: float,
    on_ready: Callable[[], None],
) -> None:
    """Runs the control plane until a signal, a port that cannot be bound, or a bug ends it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    watching = [asyncio.create_task(watcher.run()), asyncio.create_task(status.watch_drift())]
    endings = {
        *watching,
        asyncio.create_task(supervisor.run()),
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
        for task in watching:
            task.cancel()
        last_resort.within(grace_s + LAST_RESORT_S)
        await supervisor.drain(grace_s)
    finally:
        for task in (*endings, ready):
            task.cancel()
        await asyncio.gather(*endings, ready, return_exceptions=True)
