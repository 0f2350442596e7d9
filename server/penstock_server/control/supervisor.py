"""The supervisor: keeps every worker alive and serving the desired plans.

It reacts to four things: a new desired state, a fetched version, a worker's event, a worker's end. Each changes a
record and wakes `run`, which compares the desired state with the records through `reconcile.next_steps` and sends the
missing commands. Nothing is remembered between two rounds, so the next round repairs a lost message.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from penstock.names import VersionKey
from penstock_server.clock import Clock, monotonic
from penstock_server.control import messages
from penstock_server.control.fetcher import ArtifactFetcher, FetchesFiles
from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.kernels import KernelCompiler
from penstock_server.control.reconcile import next_steps, plan_keys
from penstock_server.control.view import ServerView, WorkerView, version_statuses, version_views
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.errors import UnavailableError
from penstock_server.metrics.counters import CountersShape
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_server.rollout.plan import ModelRoutes, TrafficPlan, VersionStatus
from penstock_server.sources.source import Desired

log = structlog.get_logger(__name__)

PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""The pause before a worker is replaced, by how many in its slot ended quickly in a row; the last is the longest."""
STEADY_S: Final = 60.0
"""A worker that runs longer than this did not end quickly."""
HOPELESS_ENDS: Final = 4
"""After this many quick ends in one slot, before the server was ever ready, the server gives up."""
KILL_AFTER_S: Final = 2.0
"""A worker that outlives the grace by this time is killed."""
RECONCILE_S: Final = 1.0
"""The longest time between two rounds, so that fetches that failed are tried again."""

StartWorker = Callable[[int, Path], Awaitable[WorkerProcess]]
"""Starts the process of a worker slot; the path is its file of counters."""


class Supervisor:
    """Owns the worker processes.

    Args:
        address: where every worker listens, `host:port`.
        workers: how many there are.
        start: starts one.
        source: hands out versions' files.
        counters: where workers count.
        responder: answers the control requests that workers forward.

    Attributes:
        kernels: compiles the feature kernels, once a version needs them.
        ready: set once every worker has accepted calls.
    """

    def __init__(
        self,
        *,
        address: str,
        workers: int,
        start: StartWorker,
        source: FetchesFiles,
        counters: CounterStore,
        responder: ControlResponder,
        clock: Clock = monotonic,
    ) -> None:
        self._address = address
        self._slots = range(workers)
        self._start = start
        self._counters = counters
        self._responder = responder
        self._clock = clock
        self._desired = Desired()
        self._is_polled = False
        self._is_stopping = False
        self._workers: dict[int, WorkerProcess] = {}
        self._restarts: Counter[int] = Counter()
        self._reloads = 0
        self._failed_reloads = 0
        self._change = asyncio.Event()
        self._fetcher = ArtifactFetcher(source, clock=clock, changed=self._change.set)
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.kernels = KernelCompiler(self._change.set, clock=clock)
        self.ready = asyncio.Event()

    def on_desired(self, desired: Desired) -> None:
        """Takes in a new desired state."""
        self._desired = desired
        for model, problem in desired.problems.items():
            log.warning("the source reports a problem", model=model, problem=problem)
        self._change.set()

    def on_polled(self) -> None:
        """Records that the source was polled: from now on an empty desired state is an answer, not the lack of one."""
        if not self._is_polled:
            self._is_polled = True
            self._change.set()

    async def run(self) -> None:
        """Keeps workers alive and brings them closer to the desired state, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for slot in self._slots:
                tasks.create_task(self._keep_alive(slot))
            while True:
                self._reconcile()
                # Not wait_for, which in Python 3.11 loses a cancellation that comes together with a change.
                with suppress(TimeoutError):
                    async with asyncio.timeout(RECONCILE_S):
                        await self._change.wait()
                self._change.clear()

    async def failure(self) -> bool:
        """Never returns; raises `UnavailableError` when workers cannot start or cannot bind the port."""
        raise UnavailableError(await self._failure)

    async def drain(self, grace_s: float) -> None:
        """Lets every worker finish its calls, and kills those that take longer."""
        self._is_stopping = True
        await self._fetcher.close()
        workers = list(self._workers.values())
        for worker in workers:
            if worker.may_have_calls:
                worker.send(messages.Drain(grace_s))
            else:
                worker.kill()  # it may still be importing or loading, and would hear of it seconds later
        try:
            await asyncio.wait_for(asyncio.gather(*(worker.ended.wait() for worker in workers)), grace_s + KILL_AFTER_S)
        except TimeoutError:
            log.warning("workers did not end in time; killing them", grace_s=grace_s)
        for worker in self._workers.values():
            worker.kill()

    async def _keep_alive(self, slot: int) -> None:
        """Starts another worker in a slot whenever its worker ends."""
        quick_ends = 0
        while not self._is_stopping:
            started_s = self._clock()
            worker = await self._start(slot, self._counters.slot(slot))
            code = await self._follow(worker)
            if self._is_stopping:
                return
            self._restarts[slot] += 1
            quick_ends = 0 if self._clock() - started_s > STEADY_S else quick_ends + 1
            log.error("worker ended; starting another", slot=slot, pid=worker.pid, code=code)
            if quick_ends >= HOPELESS_ENDS and not self.ready.is_set():
                self._fail(f"workers end as soon as they start (exit code {code}); the log above says why")
            await asyncio.sleep(PAUSES_S[min(max(quick_ends - 1, 0), len(PAUSES_S) - 1)])

    async def _follow(self, worker: WorkerProcess) -> int:
        """Reacts to a worker's events until it ends; its exit code."""
        self._workers[worker.slot] = worker
        self._change.set()
        try:
            return await worker.follow(self._on_event)
        except asyncio.CancelledError:
            worker.kill()
            raise
        finally:
            del self._workers[worker.slot]
            worker.ended.set()

    def _fail(self, reason: str) -> None:
        if not self._failure.done():
            self._failure.set_result(reason)

    def _on_event(self, worker: WorkerProcess, event: messages.Event) -> None:
        match event:
            case messages.Loaded(model, version):
                worker.versions[model, version] = VersionStatus("READY")
                self._reloads += 1
                log.info(
                    "version loaded", slot=worker.slot, model=model, version=version, took_s=round(event.took_s, 3),
                    runs="inline" if event.is_inline else "own thread",
                    cost_us=f"{event.base_us:.0f} + {event.row_us:.2f} n",
                )  # fmt: skip
            case messages.LoadFailed(model, version, reason):
                worker.versions[model, version] = VersionStatus("UNAVAILABLE", reason)
                self._failed_reloads += 1
                log.error("version cannot be served", slot=worker.slot, model=model, version=version, reason=reason)
            case messages.Served(generation):
                worker.on_served(generation)
            case messages.Unloaded(model, version):
                worker.versions.pop((model, version), None)
                self._counters.forget(worker.slot, (model, version))
                log.info("version unloaded", slot=worker.slot, model=model, version=version)
            case messages.Listening():
                worker.is_listening = True
            case messages.ListenFailed(reason):
                self._fail(reason)
            case messages.ControlRequest():
                self._responder.respond(event, worker.send)
                return  # nothing changed
        self._change.set()

    def _reconcile(self) -> None:
        if self._is_stopping:
            return
        desired = set(plan_keys(self._desired.models))
        self._fetcher.require(desired | self._held_keys(), self._desired.identities)
        for worker in self._workers.values():
            self._counters.keep(worker.slot, desired | worker.versions.keys())
            self._reconcile_worker(worker)
        if len(self._workers) == len(self._slots) and all(worker.is_listening for worker in self._workers.values()):
            self.ready.set()

    def _held_keys(self) -> set[VersionKey]:
        """Versions that some worker holds: metrics and drift need their files until they are unloaded."""
        return {key for worker in self._workers.values() for key in worker.versions} & self._fetcher.artifacts.keys()

    def _reconcile_worker(self, worker: WorkerProcess) -> None:
        """Sends one worker its next commands; none while it has not confirmed the last plans."""
        if worker.is_serve_pending:
            return
        artifacts = self._loadable()
        steps = next_steps(self._desired.models, artifacts.keys(), worker.snapshot())
        for key in steps.load:
            worker.versions[key] = VersionStatus("LOADING")
            worker.send(self._load_command(worker.slot, key, artifacts[key]))
        for key in steps.unload:
            worker.versions[key] = VersionStatus("UNLOADING")
        self._serve(worker, worker.plans if steps.plans is None else dict(steps.plans))
        for key in steps.unload:
            worker.send(messages.Unload(*key))  # after the statuses, which say to callers why it does not answer
        if self._is_settled(worker) and not worker.is_serve_pending:
            worker.listen(self._address)

    def _loadable(self) -> dict[VersionKey, Artifact]:
        """The fetched versions that workers can load now: those with features wait for the kernels."""
        artifacts = self._fetcher.artifacts
        if any(artifact.features is not None for artifact in artifacts.values()):
            self.kernels.require()
        return {key: artifact for key, artifact in artifacts.items() if not self._awaits_kernels(key)}

    def _awaits_kernels(self, key: VersionKey) -> bool:
        artifact = self._fetcher.artifacts.get(key)
        return artifact is not None and artifact.features is not None and not self.kernels.is_ready

    def _failure_of(self, key: VersionKey) -> str | None:
        """Why a version cannot be loaded, as far as no worker knows it."""
        if self._awaits_kernels(key) and self.kernels.failure:
            return self.kernels.failure
        return self._fetcher.failure(key)

    def _load_command(self, slot: int, key: VersionKey, artifact: Artifact) -> messages.Load:
        features, cells = (0, 0) if artifact.baseline is None else artifact.baseline.cells_shape
        counters = self._counters.version(slot, key, CountersShape(features, cells))
        return messages.Load(*key, folder=str(artifact.path), counters=str(counters), features=features, cells=cells)

    def _serve(self, worker: WorkerProcess, plans: dict[str, TrafficPlan]) -> None:
        models = {
            model: ModelRoutes(
                plans.get(model),
                version_statuses(model, self._desired.models.get(model), [worker], self._failure_of),
            )
            for model in self._desired.models.keys() | plans.keys()
        }
        worker.serve(models, self._is_settled(worker))

    def _is_settled(self, worker: WorkerProcess) -> bool:
        """Whether every desired version has been tried once: it is loaded, or failed with a reason.

        Once true it stays true: loading a later version takes nothing from those that answer.
        """
        if not worker.has_settled and (self._is_polled or self._desired.models):
            worker.has_settled = all(
                self._failure_of(key) is not None
                or self._awaits_kernels(key)
                or (key in worker.versions and worker.versions[key].state in {"READY", "UNAVAILABLE"})
                for key in plan_keys(self._desired.models)
            )
        return worker.has_settled

    def view(self) -> ServerView:
        """What is known now."""
        workers = list(self._workers.values())
        return ServerView(
            versions=tuple(
                replace(each, reason=self.kernels.reason) if self._awaits_kernels(each.key) else each
                for each in version_views(self._desired, workers, self._failure_of)
            ),
            workers=tuple(
                WorkerView(worker.slot, worker.pid, worker.is_listening, self._restarts[worker.slot])
                for worker in workers
            ),
            problems=self._desired.problems,
            is_ready=self._is_ready(workers),
            reloads=self._reloads,
            failed_reloads=self._failed_reloads,
            not_ready_reason="" if self._is_ready(workers) else self._not_ready_reason(workers),
        )

    def _not_ready_reason(self, workers: list[WorkerProcess]) -> str:
        if self._is_stopping:
            return "the server is stopping"
        if self.kernels.reason:
            return self.kernels.reason
        listening = sum(worker.is_listening for worker in workers)
        if listening < len(self._slots):
            return f"{listening} of {len(self._slots)} workers accept calls"
        return "no desired model can be answered yet"

    def _is_ready(self, workers: list[WorkerProcess]) -> bool:
        """Whether every worker accepts calls, and has at least one model that answers if any is desired."""
        if self._is_stopping or not self.ready.is_set() or not workers:
            return False
        is_any_desired = any(plan.versions for plan in self._desired.models.values())
        return all(worker.is_listening and (worker.plans or not is_any_desired) for worker in workers)

    def artifact(self, key: VersionKey) -> Artifact | None:
        """The files of a version, if they have been fetched."""
        return self._fetcher.artifacts.get(key)
