"""A worker process: composes the data plane, and handles the supervisor's commands on their own thread.

The main thread is the reactor's. A version loads on a thread of its own, since a load may take minutes and must hold up
neither a drain nor a promotion; what it made is handed to the commands' thread, which alone holds the executors. What the
reactor reads is changed only by actions posted to it, so the request path has no locks.
"""

import gc
import os
import queue
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from penstock.names import FEEDBACK_MODEL, VersionKey, VersionState
from penstock_server import lifeline
from penstock_server.access.credentials import Credentials
from penstock_server.access.gate import AccessGate
from penstock_server.access.guard import Guard
from penstock_server.access.keeper import CredentialKeeper
from penstock_server.access.limits import CallerBuckets
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import BatchLimits, resolve, slice_rows
from penstock_server.clock import monotonic
from penstock_server.control import messages
from penstock_server.control.forwarding import ForwardedCalls
from penstock_server.control.worker_link import WorkerLink
from penstock_server.errors import InvalidInputError, PenstockError, StandbyError
from penstock_server.kernels import compiled
from penstock_server.labels.label_file import LabelWriter
from penstock_server.labels.settings import LabelSettings
from penstock_server.log_setup import configure_logging, set_level
from penstock_server.memory import MemoryReturn, return_memory
from penstock_server.metrics.counters import CountersShape, SharedCounters, new_counters, open_counters
from penstock_server.metrics.failed_keys import FailedKeys, FailureTables
from penstock_server.metrics.recorder import Recorder, refusal_reason
from penstock_server.models.artifact import Artifact, is_ensemble, read
from penstock_server.models.ensemble_servable import BoundStep, EnsembleServable
from penstock_server.models.loader import load
from penstock_server.models.servable import Servable
from penstock_server.plain.kernel_set import KERNELS as PLAIN_KERNELS
from penstock_server.plain.requests import PlainRequests
from penstock_server.prediction.block_copies import block_copies
from penstock_server.prediction.decode import Decoder, block_of, decoder_of
from penstock_server.prediction.ensembles import BoundExecutors, bind, why_not
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.joint_sampler import joint_sampler
from penstock_server.prediction.model_thread import ModelThread
from penstock_server.prediction.outputs import OutputReader, reader_of
from penstock_server.prediction.predictor import PlainForms, Predictor
from penstock_server.prediction.recent import RecentRequests
from penstock_server.prediction.records import RecordFiles, VersionRecords
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.prediction.scheduler import BatchScheduler
from penstock_server.prediction.served_models import ServedModels
from penstock_server.prediction.shadow import ShadowTarget, ShadowThread
from penstock_server.prediction.shadows import Shadows
from penstock_server.prediction.waiting_room import WaitingRoom
from penstock_server.request_log.sampler import RequestSampler
from penstock_server.request_log.segment import header_of
from penstock_server.request_log.settings import RequestLogSettings
from penstock_server.request_log.writer import RequestLogWriter
from penstock_server.response_cache.responses import ResponseCache, VersionResponses
from penstock_server.response_cache.verdict import caching_verdict
from penstock_server.rollout.plan import TrafficPlan, VersionStatus
from penstock_server.services.feedback import Feedback
from penstock_server.services.health import Health
from penstock_server.services.inference import MODEL_INFER, inference_methods
from penstock_server.services.known_callers import KnownCallers
from penstock_server.services.penstock import penstock_methods
from penstock_server.services.reflection import reflection_methods
from penstock_server.services.triton import triton_methods
from penstock_server.settings import WorkerSettings
from penstock_server.tracing import span_file
from penstock_server.tracing.settings import TracingSettings
from penstock_server.tracing.tracer import Run, SpanContext, Tracer
from penstock_server.transport.choose import choose_transport
from penstock_server.transport.guest import GuestThread
from penstock_server.transport.interface import Methods, Refused, last_words_s
from penstock_server.transport.local import CallMaker, DirectCalls
from penstock_server.transport.native import NativeTransport
from penstock_server.transport.shared_port import SharedPort
from penstock_server.transport.status import status_of
from penstock_server.transport.tls_files import TlsContext

if TYPE_CHECKING:
    from penstock_server.rest.server import RestServer

log = structlog.get_logger(__name__)

LIMITS_FILE: Final = "limits"
"""The buckets of callers, beside the counters, where all workers of a server find them."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How long another thread may keep the interpreter from the reactor; the default of 5 ms would show in the p99."""
DRAIN_S: Final = 30.0
"""How long an unload waits for the version's requests; and how often a command that waits for the reactor says so."""
FREED_S: Final = 0.1
"""How long a version may take to be freed once it is closed: until the actions and commands that know it have returned."""
ORPHAN_GRACE_S: Final = 5.0
"""How long calls may take to finish when the supervisor is gone."""
GARBAGE_THRESHOLDS: Final = (50_000, 20, 50)
"""A batch keeps about a hundred objects alive for a millisecond. With the default threshold of 700 the collector walked
them, and then everything else, several times per batch: a fifth of the CPU. Requests leave no reference cycles."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What a load made: all that serving the version needs."""

    executor: Executor
    sampler: RequestSampler | None
    cost: Cost
    took_s: float


@dataclass(frozen=True, slots=True)
class _LoadedEnsemble:
    """A chain of models, whose versions are bound as they come and go."""

    key: VersionKey
    identity: str
    artifact: Artifact
    recorder: Recorder
    took_s: float


class Worker:
    """One process of the data plane.

    Args:
        link: the socket to the supervisor.
        settings: the part of the server's settings that a worker gets.
        counters: the file that counts requests refused before a version is found.
        port: what it accepts from; None if it binds sockets of its own.
        rest_port: where it serves REST; None if it does not.
        slot: its own among the server's.
    """

    def __init__(
        self,
        link: WorkerLink,
        settings: WorkerSettings,
        counters: Path,
        port: SharedPort | None = None,
        rest_port: SharedPort | None = None,
        *,
        slot: int = 0,
    ) -> None:
        self._link = link
        self._settings = settings
        self._executors: dict[VersionKey, Executor] = {}
        self._served = ServedModels(self._executors, is_lazy=settings.residency.is_on)
        self._is_settled = False
        own_counters = open_counters(counters, CountersShape())
        self._scheduler = BatchScheduler(monotonic, own_counters.beat_ns.data)
        self._large = ModelThread("large", self._post)
        report = Recorder(own_counters)
        self._tracer = _tracer(settings.tracing, counters.parent / span_file.FILE, slot)
        self._predictor = Predictor(clock=monotonic, report=report, thread=self._large, tracer=self._tracer)
        self._room = self._waiting_room()
        self._inbox: queue.SimpleQueue[messages.Command | _Loaded | _LoadedEnsemble | None] = queue.SimpleQueue()
        self._health = Health(self._predictor)
        self._shadow = ShadowThread(self._post)
        self._request_log = _request_log(settings.request_log)
        most_bytes = settings.response_cache.max_bytes
        self._responses = ResponseCache(most_bytes) if most_bytes else None
        self._records = _record_files(settings.labels, slot)
        self._failures = FailureTables(counters.parent)
        self._samplers: dict[VersionKey, RequestSampler] = {}
        self._ensembles: dict[VersionKey, _LoadedEnsemble] = {}
        self._bound: dict[VersionKey, BoundExecutors] = {}
        # Why ensembles cannot answer, "" for those that can, as the supervisor was told.
        self._unbound: dict[VersionKey, str] = {}
        # The ends of executors of ensembles that were bound otherwise: versions that they use are not closed before.
        self._ending: list[threading.Event] = []
        self._forwarded = ForwardedCalls(link.send, self._post)
        labels = _label_writer(settings.labels, slot)
        self._feedback = Feedback(settings.labels, labels, self._predictor, thread=self._large)
        methods: Methods = (
            inference_methods(self._predictor, self._feedback) | self._health.methods | reflection_methods()
        )
        allows_control = settings.grpc.allow_control or settings.access.is_on
        methods |= penstock_methods(self._forwarded.forward, allows_control=allows_control) | self._feedback.methods
        methods |= triton_methods(
            self._predictor,
            self._forwarded.forward,
            workers=settings.workers,
            allows_control=allows_control,
            spans=None if self._tracer is None else self._tracer.spans.file,
            sample_ratio=settings.tracing.sample_ratio,
        )

        def refused(error: PenstockError) -> None:
            report.refused(refusal_reason(error))

        self._keeper = CredentialKeeper(settings.access, self._use) if settings.access.is_on else None
        self._gate = None
        if self._keeper is not None:
            buckets = CallerBuckets(counters.parent / LIMITS_FILE)
            self._gate = AccessGate(settings.access, buckets=buckets, want_keys=self._keeper.want_keys)
        self._guard = Guard(self._gate, refused=refused)
        guarded = self._guard.guarded(methods)
        self._transport = choose_transport(
            settings.transport,
            guarded,
            self._scheduler,
            settings.grpc,
            refused,
            port=port,
        )
        self._known: KnownCallers | None = None
        if isinstance(self._transport, NativeTransport):
            self._take_plain(self._transport)
        self._rest: RestServer | None = None
        self._rest_thread: GuestThread | None = None
        if rest_port is not None:
            self._serve_rest(rest_port, guarded, refused)

    def _serve_rest(self, port: SharedPort, methods: Methods, refused: Refused) -> None:
        """Has the reactor's thread serve REST too."""
        # Imported here: a worker without REST needs neither the parser nor the templates.
        from penstock_server.rest.forms import Forms
        from penstock_server.rest.kernel_set import KERNELS as REST_KERNELS
        from penstock_server.rest.routes import Routes
        from penstock_server.rest.server import HTTP, RestServer
        from penstock_server.rest.signatures import Signatures

        most_bytes = self._settings.grpc.max_message_bytes
        caller: CallMaker = self._transport if isinstance(self._transport, NativeTransport) else DirectCalls(methods)
        forms = None
        if isinstance(self._transport, NativeTransport) and (kernels := compiled.available(REST_KERNELS)) is not None:
            forms = Forms(kernels, self._transport, lambda: self._predictor.routing_table)
        describer = DirectCalls(inference_methods(self._predictor, self._feedback, waits=False))
        signatures = Signatures(describer, generation=lambda: self._predictor.routing_table)
        routes = Routes(caller, signatures, post=self._post, most_bytes=most_bytes, forms=forms)
        files = self._settings.grpc.tls
        self._rest = RestServer(
            port,
            routes.answer,
            most_bytes=most_bytes,
            refused=refused,
            tls=None if files is None else TlsContext(files, HTTP, requires_certificate=True),
            forms=forms,
            adopt=routes.adopt,
        )
        if isinstance(self._transport, NativeTransport):
            self._transport.take_in(self._rest)
        else:
            self._rest_thread = GuestThread(self._rest, self._post)

    def _waiting_room(self) -> WaitingRoom | None:
        """Where calls wait for models that are loaded when they are asked for; None where all are loaded at once."""
        residency = self._settings.residency
        if not residency.is_on:
            return None
        room = WaitingRoom(
            lambda model: self._link.send(messages.Wanted(model)),
            self._post,
            clock=monotonic,
            wait_s=residency.wait_s,
            most_calls=residency.waiting_calls,
        )
        self._predictor.take_room(room)
        return room

    def _take_plain(self, transport: NativeTransport) -> None:
        """Has compiled kernels take the requests that they can, where there are kernels."""
        # Their replies are not compressed.
        may_be_plain = self._settings.serving.plain_requests and self._settings.grpc.compression == "none"
        kernels = compiled.available(PLAIN_KERNELS) if may_be_plain else None
        if kernels is not None:
            requests = PlainRequests(kernels, transport.number_of(MODEL_INFER), transport)
            if self._gate is not None:
                self._known = KnownCallers(self._gate, requests, transport)
                self._guard.admitted = self._known.admitted
            if self._tracer is not None:
                requests.trace(transport.streams_at, self._tracer.spans.page, self._tracer.spans.region)
            transport.sifter = requests
            self._scheduler.take_plain(requests)
            self._predictor.take_plain(PlainForms(requests, transport))

    def _use(self, credentials: Credentials) -> None:
        """Has callers checked against these from now on; from any thread."""

        def use() -> None:
            if self._gate is not None:
                self._gate.use(credentials)
            if self._known is not None:
                self._known.forget()

        self._post(use)

    def run(self) -> None:
        """Serves until a command drains it, or until the supervisor is gone."""
        for name, work in (("link", self._receive_commands), ("control", self._handle_commands)):
            threading.Thread(target=work, name=name, daemon=True).start()
        memory = MemoryReturn()
        memory.start()
        if self._keeper is not None:
            self._keeper.start()
        self._transport.run()
        if self._keeper is not None:
            self._keeper.close()
        memory.close()
        self._large.close()
        if self._request_log is not None:
            self._request_log.close()

    def _receive_commands(self) -> None:
        try:
            for command in self._link.commands():
                match command:
                    case messages.Drain():
                        self._drain(command.grace_s)  # must not wait for an unload
                    case messages.ControlReply() | messages.ControlError():
                        self._forwarded.on_reply(command)
                    case messages.SetLogLevel():
                        set_level(command.level)
                    case _:
                        self._inbox.put(command)
        finally:
            self._inbox.put(None)

    def _handle_commands(self) -> None:
        try:
            while (item := self._inbox.get()) is not None:
                try:
                    self._handle_command(item)
                except Exception:
                    log.exception("command failed", command=type(item).__name__)
        finally:
            # Whatever ended the commands, a worker without a supervisor must not go on serving.
            self._drain(ORPHAN_GRACE_S)

    def _handle_command(self, command: messages.Command | _Loaded | _LoadedEnsemble) -> None:
        match command:
            case messages.Load():
                threading.Thread(target=self._load, args=(command,), name="load", daemon=True).start()
            case _Loaded():
                self._take_in(command)
            case _LoadedEnsemble():
                self._take_in_ensemble(command)
            case messages.Serve():
                self._serve(command)
            case messages.Unload():
                self._unload((command.model, command.version))
            case messages.Listen():
                self._listen(command.address)

    def _listen(self, address: str) -> None:
        try:
            self._transport.listen(address)
            if self._rest is not None:
                self._rest.listen()
        except PenstockError as error:
            self._link.send(messages.ListenFailed(str(error)))
            return
        if self._rest_thread is not None:
            self._rest_thread.start()
        self._link.send(messages.Listening(self._transport.described))

    def _drain(self, grace_s: float) -> None:
        self._transport.post(self._health.drain)
        if self._rest_thread is not None:
            ends_s = monotonic() + grace_s
            self._rest_thread.drain(grace_s, last_words_s(grace_s))
            grace_s = max(0.0, ends_s - monotonic())
        self._transport.drain(grace_s)

    def _load(self, command: messages.Load) -> None:
        """Loads a version, and hands it to the commands' thread; on a thread of its own."""
        started, how = time.monotonic(), self._settings.load_settings(command.model)
        try:
            if is_ensemble(Path(command.folder)):
                self._inbox.put(self._load_ensemble(command, started))
                return
            servable, cost = load(
                (command.model, command.version),
                Path(command.folder),
                threads=how.threads,
                max_rows=how.max_rows,
                batching=command.batching,
                proven=command.engine,
                python=how.python,
                compiled_models=how.compiled_models,
                execution=how.execution,
            )
            servable.report_ends(
                lambda how: self._link.send(messages.ProcessEnded(command.model, command.version, how))
            )
            shape = CountersShape(command.features, command.cells, answers=command.answers, joint=command.joint)
            counters = open_counters(Path(command.counters), shape)
            servable.report_runs(counters.running_since_ns.data)
            recorder = self._recorder(servable, counters)
            executor = self._executor(servable, cost, recorder, command.identity)
            sampler = self._sampler(executor, servable, recorder)
        except Exception as error:
            if not isinstance(error, InvalidInputError):
                log.exception("load failed", model=command.model, version=command.version)
            reason = str(error) if isinstance(error, PenstockError) else f"loading failed: {type(error).__name__}"
            self._link.send(messages.LoadFailed(command.model, command.version, reason))
            return
        self._inbox.put(_Loaded(executor, sampler, cost, time.monotonic() - started))

    def _load_ensemble(self, command: messages.Load, started_s: float) -> _LoadedEnsemble:
        counters = open_counters(Path(command.counters), CountersShape(steps=command.steps))
        recorder = Recorder(counters, self._settings.drift.of(command.model).window_rows, ())
        artifact = read(Path(command.folder))
        key = (command.model, command.version)
        return _LoadedEnsemble(key, command.identity, artifact, recorder, time.monotonic() - started_s)

    def _take_in_ensemble(self, loaded: _LoadedEnsemble) -> None:
        """Takes an ensemble in, in place of other files of it; it answers once its models are there."""
        ensemble = loaded.artifact.ensemble
        assert ensemble is not None
        self._ensembles[loaded.key] = loaded
        engine = f"ensemble: {', '.join(step.name for step in ensemble.steps)}"
        self._link.send(messages.Loaded(*loaded.key, loaded.took_s, True, 0.0, 0.0, engine))
        self._swap_routes()

    def _take_in(self, loaded: _Loaded) -> None:
        """Takes a loaded version in. When other files of the version are served, it takes their place."""
        executor, cost = loaded.executor, loaded.cost
        key = executor.servable.key
        former, former_sampler = self._executors.get(key), self._samplers.pop(key, None)
        self._executors[key] = executor
        self._served.change(key[0])
        if loaded.sampler is not None and self._request_log is not None:
            self._samplers[key] = loaded.sampler
            executor.set_sampler(loaded.sampler)
            self._request_log.add(loaded.sampler)
        if former is not None:
            self._retire(former, former_sampler)
        self._link.send(
            messages.Loaded(
                *key,
                loaded.took_s,
                executor.is_inline,
                cost.base_s * 1e6,
                cost.row_s * 1e6,
                executor.servable.engine,
                max_rows=executor.limits.most_rows,
                short_rows=executor.short_rows,
                objective_s=executor.limits.objective_s,
                is_joined=executor.servable.is_batched,
                queue_requests=executor.limits.queue_requests,
                queue_rows=executor.limits.queue_rows,
            )
        )

    def _executor(self, servable: Servable, cost: Cost, recorder: Recorder, identity: str) -> Executor:
        settings = self._settings
        reader = reader_of(servable)
        limits, is_inline = self._resolved(servable, cost)
        is_inline = is_inline and not servable.is_elsewhere
        decoder = decoder_of(servable)
        thread = None if is_inline else ModelThread("-".join(servable.key), self._post)
        common: dict[str, Any] = {
            "report": recorder,
            "reader": reader,
            "clock": monotonic,
            "activate": self._scheduler.activate,
            "short_s": 0.0 if servable.is_elsewhere or servable.is_on_device else settings.serving.inline_budget_s,
            "is_alone": self._scheduler.is_alone,
            "reply_bytes": settings.grpc.max_message_bytes,
            "tracer": self._tracer,
            "records": self._records_of(servable, reader, identity),
        }
        config = servable.artifact.config
        if config is not None:
            common["policy"] = config.policy
        baseline = servable.artifact.baseline
        if baseline is not None and baseline.hardly_repeats and settings.drift.skip_repeats:
            common["recent"] = RecentRequests()
        if baseline is not None and baseline.joint_cells is not None and servable.is_batched:
            common["joint"] = joint_sampler(servable, baseline.joint_cells, recorder.counters.joint)
        explaining = None
        if servable.explaining is not None:
            explaining = self._explaining(*servable.explaining, decoder, thread, common)
        return Executor(
            servable,
            decoder,
            limits=limits,
            cost=cost,
            thread=thread,
            large_thread=self._large if is_inline else None,
            slice_rows=self._slice_rows(servable, limits, cost),
            explaining=explaining,
            responses=self._responses_of(servable, recorder),
            **common,
        )

    def _resolved(self, servable: Servable, cost: Cost) -> tuple[BatchLimits, bool]:
        """A version's limits, and whether it runs inline."""
        config, budget_s = servable.artifact.config, self._settings.serving.inline_budget_s
        limits = self._settings.batching.of(servable.key[0], None if config is None else config.limits)
        return resolve(limits, cost, budget_s, is_on_device=servable.is_on_device, most_rows=servable.most_rows)

    def _slice_rows(self, servable: Servable, limits: BatchLimits, cost: Cost) -> int:
        """The rows of a slice of a large request: never more than a configuration allows, which the model may not take."""
        config = servable.artifact.config
        is_most = servable.is_on_device or (config is not None and config.has_rows)
        return slice_rows(limits, cost, self._settings.serving.inline_budget_s, is_most=is_most)

    def _explaining(
        self, servable: Servable, cost: Cost, decoder: Decoder, thread: ModelThread | None, common: dict[str, Any]
    ) -> Executor:
        """The executor of requests for attributions. It shares the version's thread, or has one where it needs one."""
        limits, is_inline = self._resolved(servable, cost)
        if thread is None and not is_inline:
            thread = ModelThread("-".join((*servable.key, "explain")), self._post)
        return Executor(
            servable,
            decoder,
            limits=limits,
            cost=cost,
            thread=thread,
            large_thread=None if thread is not None else self._large,
            slice_rows=self._slice_rows(servable, limits, cost),
            counts_apart=thread is not None,
            responses=self._responses_of(servable, common["report"]),
            **common,
        )

    def _responses_of(self, servable: Servable, recorder: Recorder) -> VersionResponses | None:
        """Where the answers of a version are kept; None if they are not."""
        verdict = caching_verdict(servable, self._settings.response_cache.of(servable.key[0]))
        if verdict.note and servable.artifact.ensemble is not None:
            # Of other versions the airlock has told it, which knows no steps.
            model, version = servable.key
            log.warning("about a version", model=model, version=version, note=verdict.note)
        return self._responses.version(recorder) if verdict.is_on and self._responses is not None else None

    def _records_of(self, servable: Servable, reader: OutputReader, identity: str) -> VersionRecords | None:
        """What writes a version's answers down, for labels; None if nothing is to."""
        model, version = servable.key
        if self._records is None or not self._settings.labels.is_on_for(model):
            return None
        try:
            return self._records.of(servable, reader, identity)
        except OSError as error:
            log.error(
                "a version's answers are not written down for labels", model=model, version=version, error=str(error)
            )
            return None

    def _sampler(self, executor: Executor, servable: Servable, recorder: Recorder) -> RequestSampler | None:
        settings, writer = self._settings.request_log, self._request_log
        if writer is None:
            return None
        outputs = [block_of(spec, is_batched=servable.is_batched) for spec in servable.outputs]
        header = header_of(servable.key, executor.decoder.blocks, outputs)
        return RequestSampler(header, sample_ratio=settings.sample_ratio, report=recorder, wake=writer.wake)

    def _recorder(self, servable: Servable, counters: SharedCounters) -> Recorder:
        baseline = servable.artifact.baseline
        answers = () if baseline is None else baseline.cells.answers
        return Recorder(counters, self._settings.drift.of(servable.key[0]).window_rows, answers)

    def _serve(self, command: messages.Serve) -> None:
        routes = command.applied(self._served.routes)
        routes.pop(FEEDBACK_MODEL, None)
        self._served.route(routes, (*command.models, *command.removed))
        self._is_settled = command.is_settled
        self._swap_routes()
        self._link.send(messages.Served(command.generation))

    def _swap_routes(self) -> None:
        """Puts the last plans in force, over the versions that are loaded now."""
        self._on_reactor(self._route_swap())

    def _route_swap(self) -> Callable[[], None]:
        """The reactor's action that puts the last plans in force, over the versions that are loaded now."""
        for model in self._served.refresh():
            self._failures.of(model.name, _sharing(model.plan))
        models = self._served.models
        self._failures.keep(models)
        replaced = self._bind_ensembles(models)
        bound = [(*key, executors) for key, executors in self._bound.items()]
        failed_keys = self._failures.tables
        routing_table = RoutingTable(models, self._is_settled)

        def swap() -> None:
            # Compared with the table in force, which an action before this one may have changed.
            former = self._predictor.routing_table
            rerouted = routing_table.rerouted(former) & models.keys()
            for name in rerouted:
                self._assign_roles(models[name], failed_keys.get(name))
            for name, version, executors in bound:
                if name in rerouted:
                    executors.set_role(models[name].role(version), models[name].share(version))
            self._predictor.routing_table = routing_table
            self._health.changed()
            for executor, closed in replaced:
                executor.drain(closed.set)
            if self._room is not None:
                self._room.routes_changed(routing_table.replaced(former))

        for executor, closed in replaced:
            threading.Thread(target=_join, args=(executor, closed), name="unbind", daemon=True).start()
        return swap

    def _bind_ensembles(self, models: dict[str, ServedModel]) -> list[tuple[Executor, threading.Event]]:
        """Adds the ensembles to the models, bound to the versions in these, and returns what answered for them otherwise."""
        former, self._bound = self._bound, {}
        plain = dict(models)
        for key, loaded in self._ensembles.items():
            model, version = key
            if model not in models:
                continue
            reason = ""
            try:
                bound = bind(loaded.artifact, plain)
                held = former.get(key)
                is_same = held is not None and held.bound.is_like(bound) and held.first.report is loaded.recorder
                executors = held if is_same and held is not None else BoundExecutors(bound, self._executor_of(loaded))
                self._bound[key] = executors
                models[model] = models[model].with_executor(version, executors.first)
            except PenstockError as error:
                reason = why_not(error)
                state: VersionState = "LOADING" if isinstance(error, StandbyError) else "UNAVAILABLE"
                models[model] = models[model].with_status(version, VersionStatus(state, reason))
            if self._unbound.get(key) != reason:
                self._unbound[key] = reason
                self._link.send(messages.EnsembleBound(*key, reason))
        replaced = [
            (executor, threading.Event())
            for key, held in former.items()
            if self._bound.get(key) is not held
            for executor in held.every
        ]
        self._ending = [event for event in self._ending if not event.is_set()] + [event for _, event in replaced]
        return replaced

    def _executor_of(self, loaded: _LoadedEnsemble) -> Callable[[tuple[BoundStep, ...]], Executor]:
        """Makes executors of an ensemble for bound steps."""

        def make(steps: tuple[BoundStep, ...]) -> Executor:
            ensemble, counters = loaded.artifact.ensemble, loaded.recorder.counters
            assert ensemble is not None
            servable = EnsembleServable(loaded.key, loaded.artifact, ensemble, steps, counters.steps)
            servable.report_runs(counters.running_since_ns.data)
            costs = [self._cost_of(step.servable) for step in steps if step.servable is not None]
            cost = Cost(sum(each.base_s for each in costs), sum(each.row_s for each in costs))
            executor = self._executor(servable, cost, loaded.recorder, loaded.identity)
            sampler = self._sampler(executor, servable, loaded.recorder)
            if sampler is not None and self._request_log is not None:
                executor.set_sampler(sampler)
                self._request_log.add(sampler)
            return executor

        return make

    def _cost_of(self, servable: Servable) -> Cost:
        executor = self._executors.get(servable.key)
        return Cost(0.0, 0.0) if executor is None else executor.cost

    def _assign_roles(self, model: ServedModel, failed_keys: FailedKeys | None) -> None:
        for version, executor in model.executors.items():
            executor.report.failed_keys = failed_keys
            role = model.role(version)
            executor.set_role(role, model.share(version))
            if (sampler := self._samplers.get(executor.servable.key)) is not None:
                sampler.role = role or ""
        if model.plan is None:
            return
        champion = model.executors.get(model.plan.champion or "")
        arms = [arm for arm in model.plan.shadows if arm.version in model.executors and arm.fraction > 0]
        if champion is not None and arms:
            targets = [self._shadow_target(champion, model.executors[arm.version]) for arm in arms]
            fractions = (arm.fraction for arm in arms)
            champion.set_shadows(Shadows([*zip(targets, fractions, strict=True)]))

    def _shadow_target(self, champion: Executor, shadow: Executor) -> ShadowTarget:
        shape = shadow.report.counters.shape
        apart = new_counters(replace(shape, sub_windows=1, joint=0)) if shape.features else None
        return ShadowTarget(
            self._shadow,
            servable=shadow.servable,
            report=shadow.report,
            reader=shadow.reader,
            champion=champion.reader,
            order=block_copies(shadow.decoder, champion.decoder),
            apart=None if apart is None else self._recorder(shadow.servable, apart),
            skips_repeats=shadow.skips_repeats,
            joint=shadow.joint,
            traced=None if self._tracer is None else partial(_write_shadow, self._tracer, shadow),
            records=shadow.records,
        )

    def _unload(self, key: VersionKey) -> None:
        executor = self._executors.pop(key, None)
        self._served.change(key[0])
        sampler = self._samplers.pop(key, None)
        unloaded = messages.Unloaded(*key)
        if self._ensembles.pop(key, None) is not None:
            self._unbound.pop(key, None)
            self._swap_routes()
        if executor is None:
            self._link.send(unloaded)
        else:
            self._retire(executor, sampler, unloaded)

    def _retire(
        self, executor: Executor, sampler: RequestSampler | None, then: messages.Unloaded | None = None
    ) -> None:
        """Puts routes without an executor in force, lets it answer what it took, and frees it; then sends an event."""
        closed = threading.Event()
        swap = self._route_swap()

        def retire() -> None:
            # In one action: no request comes between. Those that a route still leads here are refused, and none waits.
            try:
                swap()
            finally:
                executor.drain(closed.set)

        self._post(retire)
        # On a thread of its own: the next command must not wait for a version's last requests, nor for ensembles that use it.
        leaving = [(executor, sampler)]
        ending = (leaving, [closed, *self._ending], then)
        threading.Thread(target=self._end, args=ending, name="unload", daemon=True).start()

    def _end(
        self,
        leaving: list[tuple[Executor, RequestSampler | None]],
        ends: list[threading.Event],
        then: messages.Unloaded | None,
    ) -> None:
        """Waits until a version has answered what it took, and frees its memory; sends the event whatever happens."""
        executor, sampler = leaving.pop()  # a thread keeps what it was given until its end
        model, version = executor.servable.key
        try:
            if not all(end.wait(DRAIN_S) for end in ends):
                log.warning("requests of an unloaded version did not end in time", model=model, version=version)
                self._on_reactor(executor.close)
            executor.join()
            executor.servable.close()
            if sampler is not None:
                sampler.close()
            freed = threading.Event()
            watched = weakref.ref(executor.servable, lambda _: freed.set())
            del executor, sampler
            if not freed.wait(FREED_S):
                # Somebody has it still, or it is part of a cycle. The collector walks over all that was made after the
                # start, of all models, and nobody else has the interpreter meanwhile: 16 ms with 200 models.
                gc.collect()
            del watched
            return_memory()
        finally:
            if then is not None:
                self._link.send(then)

    def _post(self, action: Callable[[], None]) -> None:
        self._transport.post(action)

    def _on_reactor(self, action: Callable[[], None]) -> None:
        """Runs an action on the reactor's thread, and waits for its end."""
        done = threading.Event()

        def run() -> None:
            try:
                action()
            finally:
                done.set()

        self._post(run)
        while not done.wait(DRAIN_S):
            log.error("the reactor did not run an action in time", waited_s=DRAIN_S)


def _tracer(settings: TracingSettings, file: Path, slot: int) -> Tracer | None:
    """What traces this worker's requests; None if none is to be."""
    if not settings.is_on:
        return None
    writer = span_file.SpanWriter(span_file.SpanFile(file), slot)
    return Tracer(writer, code_of=lambda error: status_of(error).number, now_s=monotonic)


def _sharing(plan: TrafficPlan | None) -> tuple[str, ...]:
    """The versions that share a model's requests; none where one has them all."""
    if plan is None or plan.champion is None or not plan.weighed:
        return ()
    return (plan.champion, *(arm.version for arm in plan.weighed))


def _record_files(settings: LabelSettings, slot: int) -> RecordFiles | None:
    """What this worker writes answers into, for labels; None if it does not."""
    if not settings.is_on or settings.folder is None:
        return None
    try:
        return RecordFiles(settings.folder, slot)
    except OSError as error:
        # Answers are worth more than their records.
        log.error("answers are not written down for labels", folder=str(settings.folder), error=str(error))
        return None


def _write_shadow(tracer: Tracer, shadow: Executor, requests: Sequence[SpanContext], run: Run, ended_s: float) -> None:
    """Writes that the shadow ran for some requests."""
    tracer.shadowed(requests, shadow.subject, run, ended_s)


def _join(executor: Executor, closed: threading.Event) -> None:
    """Waits until an executor of an ensemble has answered what it took; its versions are others'."""
    closed.wait(DRAIN_S)
    executor.join()
    if executor.sampler is not None:
        executor.sampler.close()


def _label_writer(settings: LabelSettings, slot: int) -> LabelWriter | None:
    """What keeps this worker's labels; None if none are taken."""
    if not settings.is_on or settings.folder is None:
        return None
    try:
        return LabelWriter(settings.folder, slot)
    except OSError as error:
        # Answers are worth more than labels, whose senders are told.
        log.error("labels are not taken", folder=str(settings.folder), error=str(error))
        return None


def _request_log(settings: RequestLogSettings) -> RequestLogWriter | None:
    if settings.spool is None:
        return None
    writer = RequestLogWriter(
        settings.spool,
        rotate_bytes=settings.rotate_bytes,
        rotate_s=settings.rotate_s,
        spool_bytes=settings.spool_bytes,
    )
    writer.start()
    return writer


def _inherited(descriptors: str, slot: int) -> SharedPort | None:
    return SharedPort.inherited([int(each) for each in descriptors.split(",")], slot) if descriptors else None


def main() -> None:
    """Runs a worker: the supervisor starts it with a socket and its settings, and says when it begins."""
    descriptor, settings, parent, *inherited = sys.argv[1:6]
    lifeline.end_after_parent(int(parent))
    configure_logging()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    link = WorkerLink(socket.socket(fileno=int(descriptor)))
    start = next(link.commands(), None)
    if not isinstance(start, messages.Start):
        return  # a spare process that is not needed
    set_level(start.log_level)
    port, rest = (_inherited(descriptors, start.slot) for descriptors in inherited)
    worker = Worker(link, WorkerSettings.from_json(settings), Path(start.counters), port, rest, slot=start.slot)
    gc.collect()
    gc.freeze()  # modules and their objects stay, and need not be walked again
    worker.run()
    # Every call is answered and nothing is left to save; ending the interpreter under grpc's threads can hang.
    os._exit(0)


if __name__ == "__main__":
    main()
