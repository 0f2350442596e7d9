"""A worker process: composes the data plane, and carries out the supervisor's commands on a thread of its own.

The main thread is the reactor's. Loading happens beside it; what the reactor reads is changed only by actions posted to
it, so the request path has no locks.
"""

import ctypes
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from penstock.names import VersionKey
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import resolve
from penstock_server.clock import monotonic
from penstock_server.control import messages
from penstock_server.control.forwarding import ForwardedCalls
from penstock_server.control.messages import ModelRoutes, RequestLogging, WorkerSettings
from penstock_server.control.worker_link import WorkerLink
from penstock_server.errors import InvalidInputError, PenstockError
from penstock_server.log_setup import configure_logging
from penstock_server.metrics.counters import CountersShape, SharedCounters, open_counters
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.loader import load
from penstock_server.models.servable import OnnxServable
from penstock_server.prediction.decode import block_of, block_order, decoder_of
from penstock_server.prediction.executor import Executor, ThreadedExecutor
from penstock_server.prediction.outputs import reader_of
from penstock_server.prediction.predictor import Predictor
from penstock_server.prediction.routing_table import RoutingTable, ServedModel, VersionStatus
from penstock_server.prediction.scheduler import BatchScheduler
from penstock_server.prediction.shadow import ShadowTarget, ShadowThread
from penstock_server.request_log.sampler import RequestSampler
from penstock_server.request_log.segment import header_of
from penstock_server.request_log.writer import RequestLogWriter
from penstock_server.services.health import Health
from penstock_server.services.inference import inference_methods
from penstock_server.services.penstock import penstock_methods
from penstock_server.services.reflection import reflection_methods
from penstock_server.transport.choose import choose_transport
from penstock_server.transport.interface import Methods
from penstock_server.transport.settings import TransportSettings

log = structlog.get_logger(__name__)

SWITCH_INTERVAL_S: Final = 0.0005
"""How long another thread may keep the interpreter from the reactor; the default of 5 ms would show in the p99."""
DRAIN_S: Final = 30.0
GARBAGE_THRESHOLDS: Final = (50_000, 20, 50)
"""A batch keeps some hundred objects alive for a millisecond, and the collector's default of 700 made it walk them, and
then everything else, several times a batch: a fifth of the CPU. A request leaves no cycle behind."""


class Worker:
    """One process of the data plane."""

    def __init__(self, link: WorkerLink, settings: WorkerSettings, board: Path) -> None:
        self._link = link
        self._settings = settings
        self._executors: dict[VersionKey, Executor] = {}
        self._reactor = BatchScheduler(monotonic)
        self._predictor = Predictor(clock=monotonic, report=Recorder(open_counters(board, CountersShape())))
        self._health = Health(self._predictor)
        self._shadow = ShadowThread()
        self._request_log = _request_log(settings.request_log)
        self._samplers: dict[VersionKey, RequestSampler] = {}
        self._relay = ForwardedCalls(link.tell, self._post)
        methods: Methods = inference_methods(self._predictor) | self._health.methods | reflection_methods()
        methods |= penstock_methods(self._relay.ask)
        self._transport_name, self._transport = choose_transport(
            settings.transport, methods, self._reactor, _transport_settings(settings)
        )

    def run(self) -> None:
        """Serves until told to drain, or until the supervisor is gone."""
        threading.Thread(target=self._obey, name="control", daemon=True).start()
        self._transport.run()
        if self._request_log is not None:
            self._request_log.close()

    def _obey(self) -> None:
        try:
            for command in self._link.commands():
                try:
                    self._carry_out(command)
                except Exception:
                    log.exception("command failed", command=type(command).__name__)
        finally:
            self._drain(5.0)  # whatever ended the commands, a worker that hears none must not serve on

    def _carry_out(self, command: messages.Command) -> None:
        match command:
            case messages.Load():
                self._load(command)
            case messages.Serve():
                self._serve(command)
            case messages.Unload():
                self._unload((command.model, command.version))
            case messages.Listen():
                self._listen(command.address)
            case messages.Drain():
                self._drain(command.grace_s)
            case messages.ControlReply() | messages.ControlError():
                self._relay.answered(command)

    def _listen(self, address: str) -> None:
        try:
            self._transport.listen(address)
        except PenstockError as error:
            self._link.tell(messages.ListenFailed(str(error)))
        else:
            self._link.tell(messages.Listening(self._transport_name))

    def _drain(self, grace_s: float) -> None:
        self._transport.post(self._health.drain)
        self._transport.drain(grace_s)

    def _load(self, command: messages.Load) -> None:
        started = time.monotonic()
        try:
            servable, cost = load(
                (command.model, command.version),
                Path(command.folder),
                threads=self._settings.onnx_threads_of.get(command.model, self._settings.onnx_threads),
                max_rows=self._settings.limits.of(command.model).most_rows,
            )
            board = open_counters(Path(command.board), CountersShape(command.features, command.cells))
            recorder = self._recorder(servable, board)
            executor = self._executor(servable, cost, recorder)
            self._log_requests(executor, servable, recorder)
        except Exception as error:
            if not isinstance(error, InvalidInputError):
                log.exception("load failed", model=command.model, version=command.version)
            reason = str(error) if isinstance(error, PenstockError) else f"loading failed: {type(error).__name__}"
            self._link.tell(messages.LoadFailed(command.model, command.version, reason))
            return
        self._executors[servable.key] = executor
        took_s = time.monotonic() - started
        is_inline = not isinstance(executor, ThreadedExecutor)
        self._link.tell(
            messages.Loaded(command.model, command.version, took_s, is_inline, cost.base_s * 1e6, cost.row_s * 1e6)
        )

    def _executor(self, servable: OnnxServable, cost: Cost, recorder: Recorder) -> Executor:
        settings = self._settings
        limits, is_inline = resolve(settings.limits.of(servable.key[0]), cost, settings.inline_budget_s)
        make: Callable[..., Executor] = (
            partial(Executor, activate=self._reactor.activate) if is_inline else ThreadedExecutor
        )
        return make(
            servable,
            decoder_of(servable),
            limits=limits,
            report=recorder,
            reader=reader_of(servable),
            clock=monotonic,
            cost=cost,
        )

    def _log_requests(self, executor: Executor, servable: OnnxServable, recorder: Recorder) -> None:
        settings, writer = self._settings.request_log, self._request_log
        if settings is not None and writer is not None:
            outputs = [block_of(spec, is_batched=servable.is_batched) for spec in servable.outputs]
            header = header_of(servable.key, executor.decoder.blocks, outputs)
            sampler = RequestSampler(header, sample_ratio=settings.sample_ratio, report=recorder, wake=writer.wake)
            executor.sampler = self._samplers[servable.key] = sampler
            writer.add(sampler)

    def _recorder(self, servable: OnnxServable, board: SharedCounters) -> Recorder:
        baseline = servable.artifact.baseline
        predictions = None if baseline is None else baseline.cells.predictions
        return Recorder(board, self._settings.drift_window_rows, predictions)

    def _serve(self, command: messages.Serve) -> None:
        models = {name: self._served(name, routes) for name, routes in command.models.items()}
        routing_table = RoutingTable(models, command.is_settled)

        def swap() -> None:
            for model in models.values():
                self._assign_roles(model)
            self._predictor.routing_table = routing_table
            self._health.changed()

        self._on_reactor(swap)
        self._link.tell(messages.Served(command.generation))

    def _served(self, name: str, routes: ModelRoutes) -> ServedModel:
        executors = {version: executor for (model, version), executor in self._executors.items() if model == name}
        statuses = {version: VersionStatus(status.state, status.reason) for version, status in routes.statuses.items()}
        return ServedModel(name, routes.plan, executors, statuses)

    def _assign_roles(self, model: ServedModel) -> None:
        for version, executor in model.executors.items():
            role = model.role(version)
            executor.set_role(role)
            if (sampler := self._samplers.get(executor.servable.key)) is not None:
                sampler.role = role or ""
        if model.plan is not None:
            champion = model.executors[model.plan.champion]
            shadow = model.executors.get(model.plan.shadow or "")
            champion.shadow = None if shadow is None else self._shadow_target(champion, shadow)

    def _shadow_target(self, champion: Executor, shadow: Executor) -> ShadowTarget:
        return ShadowTarget(
            self._shadow,
            servable=shadow.servable,
            report=shadow.report,
            reader=shadow.reader,
            champion=champion.reader,
            order=block_order(shadow.decoder, champion.decoder),
        )

    def _unload(self, key: VersionKey) -> None:
        executor = self._executors.pop(key, None)
        if executor is not None:
            self._on_reactor(lambda: None)  # whoever read the former routing_table has queued its request now
            deadline = time.monotonic() + DRAIN_S
            while not executor.is_idle and time.monotonic() < deadline:
                time.sleep(0.005)
            if isinstance(executor, ThreadedExecutor):
                executor.close()  # waits for its thread, which the reactor must not
            else:
                self._on_reactor(executor.close)
            if (sampler := self._samplers.pop(key, None)) is not None:
                sampler.close()
            del executor
            gc.collect()  # walks only what came after the start; the rest is frozen
            _return_memory()
        self._link.tell(messages.Unloaded(*key))

    def _post(self, action: Callable[[], None]) -> None:
        self._transport.post(action)

    def _on_reactor(self, action: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            try:
                action()
            finally:
                done.set()

        self._transport.post(run)
        if not done.wait(DRAIN_S):
            log.error("the reactor does not answer", waited_s=DRAIN_S)


def _request_log(settings: RequestLogging | None) -> RequestLogWriter | None:
    if settings is None:
        return None
    writer = RequestLogWriter(
        Path(settings.spool),
        rotate_bytes=settings.rotate_bytes,
        rotate_s=settings.rotate_s,
        spool_bytes=settings.spool_bytes,
    )
    writer.start()
    return writer


def _transport_settings(settings: WorkerSettings) -> TransportSettings:
    def path(text: str | None) -> Path | None:
        return None if text is None else Path(text)

    return TransportSettings(
        max_message_bytes=settings.max_message_bytes,
        keepalive_s=settings.keepalive_s,
        connection_age_s=settings.connection_age_s,
        max_streams=settings.max_streams,
        tls_certificate=path(settings.tls_certificate),
        tls_key=path(settings.tls_key),
        tls_client_ca=path(settings.tls_client_ca),
    )


def _return_memory() -> None:
    """Gives freed memory back to the system, which the C library otherwise keeps; glibc only."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def main() -> None:
    """Runs a worker; started by the supervisor with a socket, its settings and its board."""
    descriptor, settings, board = sys.argv[1:4]
    configure_logging()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    link = WorkerLink(socket.socket(fileno=int(descriptor)))
    worker = Worker(link, msgspec.json.decode(settings, type=WorkerSettings), Path(board))
    gc.collect()
    gc.freeze()  # modules and their like stay, and need not be walked again
    worker.run()
    # Everything is answered and nothing is to be saved; taking the interpreter down under grpc's threads can hang.
    os._exit(0)


if __name__ == "__main__":
    main()
