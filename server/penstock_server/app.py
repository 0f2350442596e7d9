"""Builds a server from its rooms, runs it until a signal, and closes everything in reverse order."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from socket import socket
from typing import Any, Final

import msgspec
import structlog

from penstock.names import (
    DRIFT_STATE_METHOD,
    LOAD_METHOD,
    LOG_SETTINGS_METHOD,
    ROLLOUT_COMMAND_METHOD,
    ROLLOUT_STATE_METHOD,
    STATISTICS_METHOD,
)
from penstock_server import checks, lifeline
from penstock_server.access.credentials import Credentials
from penstock_server.access.gate import AccessGate
from penstock_server.access.keeper import CredentialKeeper
from penstock_server.access.settings import AccessSettings
from penstock_server.capacity.estimate import TurnCost
from penstock_server.capacity.gauges import CapacityCollector
from penstock_server.capacity.meter import CapacityMeter
from penstock_server.compiled_models.kernel_set import KERNELS as MODEL_KERNELS
from penstock_server.control import log_settings, port, preemption, rollout_calls
from penstock_server.control.capacity import follow
from penstock_server.control.evidence_gauges import EvidenceCollector
from penstock_server.control.experiment_gauges import ExperimentCollector
from penstock_server.control.experiments import Experiments
from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.helper_process import HelperProcess
from penstock_server.control.http import AdminServer
from penstock_server.control.kernels import KernelCompiler
from penstock_server.control.loading import load
from penstock_server.control.operations import Operations
from penstock_server.control.own_evidence import OwnEvidence, label_counts
from penstock_server.control.prometheus_evidence import PrometheusEvidence
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.refusal_tags import RefusalTags
from penstock_server.control.replicas import TIMEOUT_S, Replicas
from penstock_server.control.residency_gauges import ResidencyCollector
from penstock_server.control.rollout_gauges import RolloutCollector
from penstock_server.control.rollouts import RolloutController
from penstock_server.control.settings import PreemptionSettings
from penstock_server.control.shared_calls import SharedCalls, run_on
from penstock_server.control.source_client import SourceClient
from penstock_server.control.status import ServerStatus
from penstock_server.control.supervisor import Supervisor
from penstock_server.control.trial_process import TrialRunner
from penstock_server.control.verdict import TrialLimits
from penstock_server.control.view import ServerView
from penstock_server.control.watcher import Watcher
from penstock_server.control.webhook import WebhookReceiver
from penstock_server.control.webhook_gauges import WebhookCollector
from penstock_server.control.worker_process import start_worker
from penstock_server.cores import core_share
from penstock_server.drift import answer as drift
from penstock_server.drift.gauges import DriftCollector
from penstock_server.drift.keeping import DetectorKeeper
from penstock_server.drift.monitor import DriftMonitor
from penstock_server.labels import answer as label_answer
from penstock_server.labels.gauges import LabelCollector
from penstock_server.labels.report import ReportReader
from penstock_server.labels.settings import LabelSettings, argument_of
from penstock_server.metrics import statistics
from penstock_server.metrics.prometheus import MetricsCollector, of_this_process, registry_of
from penstock_server.metrics.store import CounterStore
from penstock_server.paths import cache_dir, data_dir, file_name_for
from penstock_server.plain.kernel_set import KERNELS as PLAIN_KERNELS
from penstock_server.request_log.settings import RequestLogSettings
from penstock_server.rest.kernel_set import KERNELS as REST_KERNELS
from penstock_server.retraining.gauges import RetrainingCollector
from penstock_server.retraining.record import CALLS_TAG, MAX_TAG_BYTES
from penstock_server.retraining.record import LEASE_TAG as RETRAINING_LEASE_TAG
from penstock_server.retraining.retrainer import Retrainer, RetrainingStatus
from penstock_server.retraining.signals import Signals
from penstock_server.rollout.evidence import Snapshot
from penstock_server.rollout.settings import RolloutSettings
from penstock_server.settings import ServerSettings
from penstock_server.sources import directory_source, messages
from penstock_server.sources.combined_source import CombinedSource, LastKnownState
from penstock_server.sources.registry import WORKSPACE, source_name, version_page
from penstock_server.sources.source import Source
from penstock_server.tracing import span_file
from penstock_server.tracing.settings import Service
from penstock_server.transport.address import UNIX
from penstock_server.transport.kernel_set import KERNELS as TRANSPORT_KERNELS
from penstock_server.transport.settings import AIO, COMPLETION_QUEUE, NATIVE, TransportName
from penstock_server.transport.shared_port import SharedPort
from penstock_server.transport.tls_files import TlsContext

log = structlog.get_logger(__name__)

TURN_COSTS: Final[dict[TransportName, TurnCost]] = {
    NATIVE: TurnCost(25e-6, 10e-6, 2.5e-6),
    COMPLETION_QUEUE: TurnCost(20e-6, 5e-6, 30e-6),
    AIO: TurnCost(20e-6, 5e-6, 300e-6),
}
"""What turns took over each transport on one machine: what is learned of their cost begins there."""
HURRIED_S: Final = 2.0
"""How long the end may take after a second signal; then the process ends as it is."""
JOINER_RESTART_S: Final = 0.5
"""The pause before labels are joined again: workers have room for those of 2.6 s."""
RESTART_S: Final = 2.0
"""The pause before a part of the control plane that failed runs again."""
ONE_SIGNAL_S: Final = 0.3
"""Signals within this time are one: some programs send one to the process and one to its group."""
LAST_RESORT_S: Final = 25.0
"""A server that has not ended this long after its grace is ended as it is."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server that is ready listens, each `host:port`, and what it serves.

    Attributes:
        rest: empty where REST is not served.
        version: Penstock's own.
        served, unserved: each model with its version, or with the reason.
    """

    grpc: str
    http: str
    version: str = ""
    served: tuple[str, ...] = ()
    unserved: tuple[str, ...] = ()
    rest: str = ""


async def serve(settings: ServerSettings, on_ready: Callable[[Addresses], None]) -> None:
    """Runs a server until SIGTERM or SIGINT; then drains it and returns. A second signal ends it at once.

    The HTTP port answers first: probes and people learn from it what the server waits for.

    Args:
        settings: the server's, already checked.
        on_ready: called once, when something can be answered.

    Raises:
        UnavailableError: a port cannot be bound, or workers cannot start.
        InvalidInputError: a setting needs what is not installed or not there.
    """
    checks.check(settings)
    checks.raise_descriptor_limit()
    warnings, wanted = list(checks.warnings(settings)), settings.transport
    settings = checks.runnable(settings)
    async with AsyncExitStack() as stack:
        last_resort = stack.enter_context(lifeline.LastResort())
        ports = _bind(stack, settings)
        grpc_address, http_socket = ports.grpc, ports.http
        settings = _with_label_folder(settings, grpc_address)
        rest_address = "" if ports.rest is None else port.address_of(settings.http_host, ports.rest.number)
        for warning in warnings:
            log.warning(warning)
        http_address = port.address_of(settings.http_host, http_socket.getsockname()[1])
        _start_compactor(stack, settings.request_log)
        counters = stack.enter_context(CounterStore())
        labels = _start_joiner(stack, settings.labels)
        spans = _start_exporter(stack, settings, counters.folder / span_file.FILE, grpc_address)
        source = CombinedSource(_sources(settings), last_known=LastKnownState())
        stack.push_async_callback(source.close)
        responder = ControlResponder(
            {
                DRIFT_STATE_METHOD: lambda body: drift.answer(body, status.drift),
                STATISTICS_METHOD: lambda body: statistics.answer(body, status.versions, _since_1970_ns),
                ROLLOUT_STATE_METHOD: lambda body: rollout_calls.state(body, rollouts.views),
            },
            {
                LOAD_METHOD: lambda body: load(body, refresh=watcher.refresh, supervisor=supervisor),
                LOG_SETTINGS_METHOD: _on_loop(lambda body: log_settings.answer(body, supervisor.set_log_level)),
                ROLLOUT_COMMAND_METHOD: lambda body: rollout_calls.command(
                    body, rollouts=lambda: source.combined().rollouts, registry=source, refresh=watcher.refresh
                ),
            },
        )
        stack.push_async_callback(responder.close)
        supervisor = _supervisor(stack, settings, ports, source=source, counters=counters, responder=responder)
        _compile_kernels(stack, settings, is_native=wanted == NATIVE, has_rest=ports.rest is not None)
        keeper = DetectorKeeper(_kept_folder(settings, "drift", grpc_address))
        keeper.sweep(time.time(), settings.drift.window_hours * 3600)
        monitor = DriftMonitor(settings.drift.rules_of, keeper=keeper)
        stack.callback(monitor.save)
        status = ServerStatus(
            view=supervisor.view,
            artifact=supervisor.artifact,
            identity=supervisor.identity,
            counters=counters,
            sources=lambda: source.states,
            monitor=monitor,
            spans=spans,
        )
        instance, started_s = uuid.uuid4().hex, time.time()
        own = OwnEvidence(
            instance=instance,
            since_s=started_s,
            weights=supervisor.weights_in_force,
            counters=counters,
            labels=lambda *which: label_counts(labels.totals(), *which) if settings.labels.enabled else None,
        )
        experiments = Experiments(
            plans=supervisor.plans_in_force, counted=own.counted, labels=labels.totals, wall=time.time
        )
        rollouts = RolloutController(
            holder=f"{grpc_address} {instance[:8]}",
            rollouts=lambda: source.combined().rollouts,
            registry=source,
            refresh=lambda: watcher.refresh(),  # noqa: PLW0108 - it is made below
            look=_evidence(settings.rollouts, own),
            health=supervisor.health,
            wall=time.time,
            lease_s=settings.rollouts.lease_s,
        )
        calls = SharedCalls(
            holder=f"{grpc_address} {instance[:8]}",
            lease_tag=RETRAINING_LEASE_TAG,
            calls_tag=CALLS_TAG,
            tags=lambda: source.combined().model_tags,
            registry=source,
            refresh=lambda: watcher.refresh(),  # noqa: PLW0108 - it is made below
            lease_s=settings.retraining.lease_s,
            max_bytes=MAX_TAG_BYTES,
            run=run_on(asyncio.get_running_loop()),
        )
        retraining = _start_retrainer(stack, settings, lambda: status.signals(labels.report()), calls, grpc_address)
        meter = CapacityMeter(
            TURN_COSTS[settings.transport],
            workers=settings.workers,
            cores=core_share(),
            max_streams=settings.grpc.max_streams,
        )
        http_tls = settings.http.tls
        operations = Operations(
            view=supervisor.view,
            sources=lambda: source.states,
            counted=status.versions,
            drift=status.drift,
            labels=labels.report,
            rollouts=rollouts.views,
            capacity=meter.known,
            page_of=partial(_page_of, settings, source),
            rest_address=rest_address,
        )
        webhooks = WebhookReceiver(settings.webhook, lambda: watcher.wake()) if settings.webhook.is_on else None  # noqa: PLW0108 - it is made below
        admin = AdminServer(
            view=supervisor.view,
            sources=lambda: source.states,
            registry=registry_of(
                EvidenceCollector(
                    MetricsCollector(status.metrics),
                    instance=instance,
                    versions=lambda: supervisor.view().versions,
                    weights=supervisor.weights_in_force,
                    generation=counters.generation,
                ),
                DriftCollector(lambda: status.drift().versions, settings.drift.series),
                RetrainingCollector(retraining),
                LabelCollector(labels.report),
                RolloutCollector(rollouts.views),
                ExperimentCollector(experiments.reports),
                of_this_process(),
                CapacityCollector(meter.known),
                *(() if webhooks is None else (WebhookCollector(webhooks.counts),)),
                *((ResidencyCollector(supervisor.residents),) if settings.residency.is_on else ()),
            ),
            drift=lambda model, version: drift.as_json(status.drift().of(model, version)),
            retraining=lambda: retraining().to_json(),
            labels=lambda model: label_answer.as_json(labels.report(), model, status.expected_accuracies),
            shadows=status.shadows,
            evidence=own.snapshot,
            rollouts=rollouts.views,
            experiments=experiments.reports,
            capacity=meter.known,
            operations=operations.sections,
            command=lambda *what: rollout_calls.act(
                *what, rollouts=lambda: source.combined().rollouts, registry=source, refresh=watcher.refresh
            ),
            grpc_address=grpc_address,
            rest_address=rest_address,
            connections=checks.http_connections(),
            tls=None if http_tls is None else TlsContext(http_tls, "http/1.1", requires_certificate=False).current,
            gate=_gate(stack, settings.access),
            opens_metrics=settings.access.metrics == "open",
            webhooks=webhooks,
        )
        stack.push_async_callback(admin.close)
        admin.start(http_socket)
        log.info("the HTTP port answers", http=http_address)
        watcher = Watcher(
            source,
            interval_s=settings.poll_interval_s,
            desired=supervisor.on_desired,
            polled=supervisor.on_polled,
        )
        watched: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "following the sources": watcher.run,
            "watching drift": status.watch_drift,
            "following experiments": experiments.run,
            "following the capacity": partial(follow, meter, supervisor.view, counters),
            **_refusal_tags(settings, supervisor, source),
            **_asking_the_cloud(settings.preemption),
        }
        if settings.rollouts.enabled:
            watched["acting on rollouts"] = partial(rollouts.run, settings.rollouts.look_s)
        await _run(
            supervisor,
            watched,
            last_resort,
            grace_s=settings.grace_s,
            on_ready=lambda: on_ready(_addresses(grpc_address, http_address, rest_address, supervisor.view())),
        )


def _refusal_tags(
    settings: ServerSettings, supervisor: Supervisor, source: CombinedSource
) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
    """What says in the registry which versions are refused, if it is to be said."""
    if not settings.airlock.tag_refused or settings.registry is None:
        return {}
    tags = RefusalTags(
        refused=supervisor.refused,
        ready=lambda: {version.key for version in supervisor.view().versions if version.state == "READY"},
        desired=source.combined,
        registry=source,
    )
    return {"saying in the registry what is refused": tags.run}


def _compile_kernels(stack: AsyncExitStack, settings: ServerSettings, *, is_native: bool, has_rest: bool) -> None:
    """Has kernels compiled that are not there yet, while the server starts.

    Without them the workers serve over gRPC's completion queue, plain requests as all others, and all graphs in onnxruntime.
    """
    of_rest = (REST_KERNELS,) if has_rest else ()
    behind = (TRANSPORT_KERNELS, PLAIN_KERNELS, *of_rest) if is_native else ()
    for kernels in (*behind, *((MODEL_KERNELS,) if settings.serving.compiled_models else ())):
        compiler = KernelCompiler(kernels, lambda: None, is_waited_for=False)
        compiler.require()
        stack.push_async_callback(compiler.close)


def _evidence(
    settings: RolloutSettings, own: OwnEvidence
) -> Callable[[str, str, str], Coroutine[Any, Any, Mapping[str, Snapshot]]]:
    """Asks this server and the others that the settings name what they counted; or Prometheus, which knows of all of them."""
    # Whoever waits for as long as half of its lease for one that hangs has lost it.
    timeout_s = min(TIMEOUT_S, settings.lease_s / 8)
    if settings.prometheus is not None:
        return PrometheusEvidence(settings.prometheus, settings.token_file, timeout_s).look
    replicas = Replicas(settings.replicas, settings.token_file, timeout_s)

    async def look(model: str, version: str, champion: str) -> Mapping[str, Snapshot]:
        return {"": own.snapshot(model, version, champion), **await replicas.look(model, version, champion)}

    return look


def _on_loop(respond: Callable[[bytes], bytes]) -> Callable[[bytes], Coroutine[Any, Any, bytes]]:
    """Has a responder answer on the loop, whose the workers' sockets are."""

    async def answer(body: bytes) -> bytes:
        return respond(body)

    return answer


def _gate(stack: AsyncExitStack, settings: AccessSettings) -> AccessGate | None:
    """Who may read what over HTTP; None where nobody is asked. What tokens are checked against is kept fresh on a thread."""
    if not settings.is_on:
        return None
    loop = asyncio.get_running_loop()

    def use(credentials: Credentials) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server ends
            loop.call_soon_threadsafe(gate.use, credentials)

    keeper = CredentialKeeper(settings, use)
    gate = AccessGate(settings, want_keys=keeper.want_keys)
    stack.callback(keeper.close)
    keeper.start()
    return gate


def check_ports(settings: ServerSettings) -> None:
    """Checks that a server with these settings could bind its ports.

    Raises:
        UnavailableError: it could not.
    """
    with ExitStack() as stack:
        _bind(stack, checks.runnable(settings))


@dataclass(frozen=True, slots=True)
class _Ports:
    """A server's ports, bound.

    Attributes:
        grpc: the address at which workers will listen.
        shared: their port, if they share it.
        rest: the REST port, if there is one.
    """

    grpc: str
    shared: SharedPort | None
    http: socket
    rest: SharedPort | None


def _bind(stack: ExitStack | AsyncExitStack, settings: ServerSettings) -> _Ports:
    """Binds the ports, which the stack keeps."""
    shared = rest = None
    if settings.transport == NATIVE:
        place = port.shared_port(settings.grpc_host, settings.port, settings.workers)
        grpc_address, shared = stack.enter_context(place)
    else:
        grpc_address = stack.enter_context(port.listening_address(settings.grpc_host, settings.port))
    http = stack.enter_context(port.reserve_http(settings.http_host, settings.http_port))
    if settings.rest_port is not None:
        rest = stack.enter_context(port.rest_port(settings.http_host, settings.rest_port, settings.workers))
    return _Ports(grpc_address, shared, http, rest)


def _addresses(grpc: str, http: str, rest: str, view: ServerView) -> Addresses:
    champions = [version for version in view.versions if "champion" in version.roles and version.state == "READY"]
    others = [version for version in view.versions if version.state == "UNAVAILABLE"]
    models = {version.model for version in view.versions}
    return Addresses(
        grpc,
        http,
        _version("penstock"),
        tuple(f"{each.model} {each.version}" for each in champions),
        (
            *(f"{each.model} {each.version}: {each.reason}" for each in others),
            *(f"{model}: {problem}" for model, problem in view.problems.items() if model not in models),
        ),
        rest,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its sources
        return ""


def _since_1970_ns() -> int:
    """What the monotonic clock is behind the wall clock."""
    return time.time_ns() - time.monotonic_ns()


def _kept_folder(settings: ServerSettings, what: str, grpc_address: str) -> Path | None:
    """Where something is kept for the next process at this address; None where the system chose the port."""
    if settings.port == 0 and not settings.grpc_host.startswith(UNIX):
        return None
    return cache_dir() / what / file_name_for(grpc_address)


def _start_retrainer(
    stack: AsyncExitStack,
    settings: ServerSettings,
    signals: Callable[[], Sequence[Signals]],
    calls: SharedCalls,
    grpc_address: str,
) -> Callable[[], RetrainingStatus]:
    """Starts the thread that has models trained anew, if there are rules for that; gives what it knows."""
    retraining, folder = settings.retraining, _kept_folder(settings, "retraining", grpc_address)
    if not retraining.is_on:
        return lambda: RetrainingStatus({}, {}, enabled=False)
    retrainer = Retrainer(
        retraining,
        signals,
        None if folder is None else folder / "state.json",
        fleet=calls if retraining.shared and settings.registry is not None else None,
        link=partial(version_page, settings.registry or "", workspace=_workspace(settings)),
    )
    # It may wait for an answer, or for the end of a command.
    stack.push_async_callback(asyncio.to_thread, retrainer.close)
    retrainer.start()
    return retrainer.status


def _with_label_folder(settings: ServerSettings, grpc_address: str) -> ServerSettings:
    """The settings with the folder in which labels are kept, if some are taken."""
    labels = settings.labels
    if not labels.is_on:
        return settings
    folder = labels.folder or data_dir() / "labels" / file_name_for(grpc_address)
    return replace(settings, labels=replace(labels, folder=folder.absolute()))


def _asking_the_cloud(settings: PreemptionSettings) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
    """Has the server drain, as on SIGTERM, when the cloud takes the machine away; nothing where nobody is to be asked."""
    if settings.cloud is None:
        return {}
    leave = partial(os.kill, os.getpid(), signal.SIGTERM)
    return {"asking whether the cloud takes this machine away": partial(preemption.follow, settings, leave)}


def _page_of(settings: ServerSettings, source: CombinedSource, model: str, version: str) -> str:
    """The address of a version's page in MLflow; "" where it does not come from there, or there are no pages."""
    is_there = source.source_of(model) == _registry_name(settings)
    return version_page(settings.registry or "", model, version, workspace=_workspace(settings)) if is_there else ""


def _start_compactor(stack: AsyncExitStack, settings: RequestLogSettings) -> None:
    """Starts the process that makes Parquet files of what workers log, if requests are logged."""
    if settings.directory is None:
        return
    argument = msgspec.json.encode((str(settings.directory.absolute()), settings.max_bytes)).decode()
    helper = HelperProcess("penstock_server.request_log.compactor", argument)
    # Closed last, after the workers have closed their segments.
    stack.push_async_callback(helper.close)
    helper.start()


def _start_joiner(stack: AsyncExitStack, settings: LabelSettings) -> ReportReader:
    """Starts the process that joins labels with answers, if labels are taken; reads what it tells."""
    if not settings.is_on:
        return ReportReader(None)
    helper = HelperProcess("penstock_server.labels.process", argument_of(settings), restart_after_s=JOINER_RESTART_S)
    # Closed after the workers, which still write.
    stack.push_async_callback(helper.close)
    helper.start()
    return ReportReader(settings.folder)


def _start_exporter(
    stack: AsyncExitStack, settings: ServerSettings, file: Path, grpc_address: str
) -> span_file.SpanFile | None:
    """Starts the process that sends the spans of traced requests, if some are traced; the file that they go through."""
    tracing = settings.tracing
    if tracing.endpoint is None:
        return None
    span_file.create(file, settings.workers, tracing.sample_ratio)
    host, _, port_number = grpc_address.rpartition(":")
    server = (grpc_address, 0) if grpc_address.startswith(UNIX) else (host, int(port_number))
    service = Service(str(file), tracing.endpoint, tracing.protocol, tracing.service, *server)
    helper = HelperProcess("penstock_server.tracing.exporter", msgspec.json.encode(service).decode())
    # Closed after the workers, which still write.
    stack.push_async_callback(helper.close)
    helper.start()
    return span_file.SpanFile(file)


def _registry_name(settings: ServerSettings) -> str:
    return source_name(settings.registry or "", settings.models, _workspace(settings))


def _workspace(settings: ServerSettings) -> str:
    return settings.workspace or os.environ.get(WORKSPACE, "")


def _supervisor(
    stack: AsyncExitStack,
    settings: ServerSettings,
    ports: _Ports,
    *,
    source: CombinedSource,
    counters: CounterStore,
    responder: ControlResponder,
) -> Supervisor:
    """The supervisor; the trials of its airlock end with the server."""
    limits = TrialLimits(settings.airlock.memory_mib, settings.airlock.timeout_s)
    trials = TrialRunner(limits, has_spare=settings.airlock.spare_processes)
    stack.push_async_callback(trials.close)
    supervisor = Supervisor(
        address=ports.grpc,
        port=ports.shared,
        rest_port=ports.rest,
        workers=settings.workers,
        start=partial(
            start_worker,
            settings.of_worker.to_json(),
            () if ports.shared is None else ports.shared.descriptors,
            () if ports.rest is None else ports.rest.descriptors,
        ),
        source=source,
        counters=counters,
        responder=responder,
        run_trial=trials.run,
        proven=ProvenVersions(limits),
        load_settings=settings.load_settings,
        unanswered=lambda: source.unanswered,
        watchdog=settings.watchdog,
        bounds=settings.airlock,
        residency=settings.residency,
    )
    stack.push_async_callback(supervisor.kernels.close)
    return supervisor


def _sources(settings: ServerSettings) -> list[Source]:
    """The sources, each in processes of its own, which start when they are first polled."""
    found: list[tuple[str, messages.Registry | messages.Directory]] = []
    if settings.registry is not None:
        found.append(
            (_registry_name(settings), messages.Registry(settings.registry, settings.models, settings.workspace))
        )
    if settings.model_repository is not None:
        folder = settings.model_repository.absolute()
        found.append((directory_source.name_of(folder), messages.Directory(str(folder))))
    fetch, cache = settings.fetch, settings.cache
    return [
        SourceClient(
            name,
            messages.Open(
                source, str(cache_dir()), fetch.max_mib, fetch.max_files, cache.max_mib, cache.keep, settings.policy
            ),
            fetch_timeout_s=fetch.timeout_s,
            has_spare=settings.airlock.spare_processes,
        )
        for name, source in found
    ]


async def _keep_running(what: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs something that should not end, and again when it fails: calls are answered without it."""
    while True:
        try:
            await run()
        except Exception:
            log.exception("a part of the control plane failed; starting it again", what=what)
        await asyncio.sleep(RESTART_S)


async def _run(
    supervisor: Supervisor,
    watched: Mapping[str, Callable[[], Coroutine[Any, Any, None]]],
    last_resort: lifeline.LastResort,
    *,
    grace_s: float,
    on_ready: Callable[[], None],
) -> None:
    """Runs the control plane until a signal, a port that cannot be bound, or a bug ends it."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    stopped_s = inf

    def on_signal(number: signal.Signals) -> None:
        nonlocal stopped_s
        now = loop.time()
        stopped_s = min(stopped_s, now)
        if now - stopped_s > ONE_SIGNAL_S and not hurry.is_set():
            log.warning("a second signal: ending without waiting for calls", signal=number.name)
            hurry.set()
            loop.call_later(HURRIED_S, os._exit, 128 + number)
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, on_signal, name)
    watching = [asyncio.create_task(_keep_running(what, run)) for what, run in watched.items()]
    endings: set[asyncio.Task[Any]] = {
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
        draining, hurried = asyncio.create_task(supervisor.drain(grace_s)), asyncio.create_task(hurry.wait())
        endings |= {draining, hurried}
        done, _ = await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (*endings, ready):
            if not task.cancelling():  # one that ends has something to write
                task.cancel()
        await asyncio.gather(*endings, ready, return_exceptions=True)
