"""The supervisor: keeps every worker alive and serving what is wanted.

It reacts to four things: a new wish, a version fetched, a worker's event, a worker's end. Each changes a record and asks
for a step; the step compares wish and records through `lifecycle.next_steps` and sends what is missing. So nothing has
to be remembered between steps, and whatever was lost is said again.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from penstock.names import ROLES, VersionKey, VersionState
from penstock_server.clock import Clock, monotonic
from penstock_server.control import messages
from penstock_server.control.fetcher import ArtifactFetcher
from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.messages import ModelRoutes, Status, WorkerSettings
from penstock_server.control.reconcile import Load, Serve, Unload, next_steps
from penstock_server.control.status import ServerView, VersionView, WorkerView
from penstock_server.control.worker_process import WorkerProcess, start_worker
from penstock_server.errors import UnavailableError
from penstock_server.metrics.counters import CountersShape
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.source import Desired, Source

log = structlog.get_logger(__name__)

RESTART_AFTER_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_S: Final = 60.0
"""A worker that lived this long is started again at once."""
HOPELESS_ENDS: Final = 4
"""So many quick ends in a row before the server was ever ready are no accident."""
RECONSIDER_S: Final = 1.0
_STATES: Final[dict[str, VersionState]] = {
    "ready": "READY",
    "loading": "LOADING",
    "failed": "UNAVAILABLE",
    "unloading": "UNLOADING",
}


class Supervisor:
    """Owns the worker processes.

    Args:
        address: where every worker listens, `host:port`.
        workers: how many there are.
        settings: what each is told at birth.
        source: where versions' files come from.
        boards: where they count.
        desk: answers what they are asked and cannot know.
    """

    def __init__(
        self,
        *,
        address: str,
        workers: int,
        settings: WorkerSettings,
        source: Source,
        boards: CounterStore,
        desk: ControlResponder,
        clock: Clock = monotonic,
    ) -> None:
        self._address = address
        self._settings = settings
        self._boards = boards
        self._desk = desk
        self._clock = clock
        self._desired = Desired()
        self._is_asked = False
        self._is_stopping = False
        self._workers: dict[int, WorkerProcess] = {}
        self._slots = range(workers)
        self._restarts: Counter[int] = Counter()
        self._generation = 0
        self._sent: dict[int, messages.Serve] = {}
        self._pending: dict[int, tuple[int, dict[str, TrafficPlan]]] = {}
        self._change = asyncio.Event()
        self._fetcher = ArtifactFetcher(source, clock=clock, changed=self._change.set)
        self._reloads = 0
        self._failed_reloads = 0
        self.ready = asyncio.Event()
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def want(self, desired: Desired) -> None:
        """A new wish."""
        self._desired = desired
        for model, problem in desired.problems.items():
            log.warning("registry", model=model, problem=problem)
        self._change.set()

    def asked(self) -> None:
        """The source was asked once: an empty wish is now an answer."""
        if not self._is_asked:
            self._is_asked = True
            self._change.set()

    async def run(self) -> None:
        """Keeps workers and steps going until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for slot in self._slots:
                tasks.create_task(self._keep(slot))
            while True:
                self._step()
                try:
                    await asyncio.wait_for(self._change.wait(), RECONSIDER_S)
                except TimeoutError:
                    continue
                self._change.clear()

    async def failure(self) -> bool:
        """Waits for ever, unless workers cannot start or bind the port; raises `UnavailableError` then."""
        raise UnavailableError(await self._failure)

    def _fail(self, reason: str) -> None:
        if not self._failure.done():
            self._failure.set_result(reason)

    async def drain(self, grace_s: float) -> None:
        """Lets every worker finish, and ends those that do not."""
        self._is_stopping = True
        await self._fetcher.close()
        workers = list(self._workers.values())
        for worker in workers:
            worker.tell(messages.Drain(grace_s))
        try:
            await asyncio.wait_for(asyncio.gather(*(worker.ended.wait() for worker in workers)), grace_s + 2.0)
        except TimeoutError:
            log.warning("workers did not end in time; they are killed", grace_s=grace_s)
        for worker in self._workers.values():
            worker.kill()

    async def _keep(self, slot: int) -> None:
        """Starts the worker of a slot again whenever it ends."""
        quick_ends = 0
        while not self._is_stopping:
            started = self._clock()
            worker = await start_worker(slot, self._settings, self._boards.slot(slot))
            self._workers[slot] = worker
            self._change.set()
            try:
                code = await worker.listen(self._learn)
            except asyncio.CancelledError:
                worker.kill()
                raise
            finally:
                worker.ended.set()
            del self._workers[slot]
            self._sent.pop(slot, None)
            self._pending.pop(slot, None)
            if self._is_stopping:
                return
            self._restarts[slot] += 1
            quick_ends = 0 if self._clock() - started > STEADY_S else quick_ends + 1
            log.error("worker ended; starting another", slot=slot, pid=worker.pid, code=code)
            if quick_ends >= HOPELESS_ENDS and not self.ready.is_set():
                self._fail(f"workers end as soon as they start (exit code {code}); the log above says why")
            await asyncio.sleep(RESTART_AFTER_S[min(quick_ends, len(RESTART_AFTER_S)) - 1] if quick_ends else 0)

    def _learn(self, worker: WorkerProcess, event: messages.Event) -> None:
        match event:
            case messages.Loaded(model, version):
                worker.versions[model, version] = "ready"
                self._reloads += 1
                log.info(
                    "version loaded", slot=worker.slot, model=model, version=version, took_s=round(event.took_s, 3),
                    runs="inline" if event.is_inline else "beside", cost_us=f"{event.base_us:.0f} + {event.row_us:.2f} n",
                )  # fmt: skip
            case messages.LoadFailed(model, version, reason):
                worker.versions[model, version] = "failed"
                worker.reasons[model, version] = reason
                self._failed_reloads += 1
                log.error("version cannot be served", slot=worker.slot, model=model, version=version, reason=reason)
            case messages.Served(generation):
                sent, plans = self._pending.get(worker.slot, (0, {}))
                if sent == generation:
                    worker.plans = plans
                    del self._pending[worker.slot]
            case messages.Unloaded(model, version):
                worker.versions.pop((model, version), None)
                worker.reasons.pop((model, version), None)
                self._boards.forget(worker.slot, (model, version))
                log.info("version unloaded", slot=worker.slot, model=model, version=version)
            case messages.Listening(transport):
                worker.is_listening = True
                worker.transport = transport
            case messages.ListenFailed(reason):
                self._fail(reason)
            case messages.ControlRequest():
                self._desk.take(event, worker.tell)
                return  # nothing changed
        self._change.set()

    def _step(self) -> None:
        if self._is_stopping:
            return
        keys = {(model, version) for model, wish in self._desired.models.items() for version in wish.versions}
        self._fetcher.want(keys | self._held())
        for worker in self._workers.values():
            self._boards.keep(worker.slot, keys | worker.versions.keys())
            self._advance(worker)
        if len(self._workers) == len(self._slots) and all(worker.is_listening for worker in self._workers.values()):
            self.ready.set()

    def _held(self) -> set[VersionKey]:
        """Versions that some worker holds: their baselines are read at scrape, even while they go."""
        return {key for worker in self._workers.values() for key in worker.versions} & self._fetcher.artifacts.keys()

    def _advance(self, worker: WorkerProcess) -> None:
        """Tells one worker what comes next; a plan on its way is awaited before anything follows it."""
        artifacts = self._fetcher.artifacts
        if worker.slot in self._pending:
            return
        for step in next_steps(self._desired.models, artifacts.keys(), worker.snapshot()):
            match step:
                case Load(key):
                    worker.versions[key] = "loading"
                    worker.tell(self._load(worker.slot, key, artifacts[key]))
                case Serve(plans):
                    self._serve(worker, dict(plans))
                case Unload(key):
                    worker.versions[key] = "unloading"
                    worker.tell(messages.Unload(*key))
        if worker.slot not in self._pending:
            self._serve(worker, worker.plans)
        if self._is_settled(worker) and worker.slot not in self._pending and not worker.is_listening:
            worker.tell(messages.Listen(self._address))

    def _load(self, slot: int, key: VersionKey, artifact: Artifact) -> messages.Load:
        features, cells = (0, 0) if artifact.baseline is None else artifact.baseline.cells_shape
        board = self._boards.version(slot, key, CountersShape(features, cells))
        return messages.Load(*key, folder=str(artifact.path), board=str(board), features=features, cells=cells)

    def _serve(self, worker: WorkerProcess, plans: dict[str, TrafficPlan]) -> None:
        """Sends plans and standings, unless the worker has them already."""
        models = {
            model: ModelRoutes(plans.get(model), self._statuses(model, [worker]))
            for model in self._desired.models.keys() | plans.keys()
        }
        command = messages.Serve(0, models, self._is_settled(worker))
        if self._sent.get(worker.slot) == command:
            return
        self._sent[worker.slot] = command
        self._generation += 1
        self._pending[worker.slot] = (self._generation, plans)
        worker.tell(messages.Serve(self._generation, models, command.is_settled))

    def _is_settled(self, worker: WorkerProcess) -> bool:
        """Whether everything wanted has been tried once: loaded, or failed with a reason.

        It stays so: a version that is loaded later, aside, takes nothing from those that answer.
        """
        if worker.has_settled:
            return True
        if not self._is_asked and not self._desired.models:
            return False
        worker.has_settled = all(
            worker.versions.get((model, version)) in {"ready", "failed"}
            or self._fetcher.reason((model, version)) is not None
            for model, wish in self._desired.models.items()
            for version in wish.versions
        )
        return worker.has_settled

    def _statuses(self, model: str, workers: Iterable[WorkerProcess]) -> dict[str, Status]:
        """How each known version of a model stands, the worst over these workers."""
        statuses: dict[str, Status] = {}
        wish = self._desired.models.get(model)
        for version in () if wish is None else wish.versions:
            reason = self._fetcher.reason((model, version))
            statuses[version] = Status("LOADING") if reason is None else Status("UNAVAILABLE", reason)
        for worker in workers:
            for (name, version), state in worker.versions.items():
                if name == model:
                    found = Status(_STATES[state], worker.reasons.get((name, version), ""))
                    known = statuses.get(version)
                    if known is None or known.state in {"READY", "LOADING"}:
                        statuses[version] = found
        return statuses

    def view(self) -> ServerView:
        """What is known now."""
        workers = list(self._workers.values())
        models = sorted(self._desired.models.keys() | {model for worker in workers for model, _ in worker.versions})
        versions = [
            self._version_view(model, version, status)
            for model in models
            for version, status in sorted(self._statuses(model, workers).items())
        ]
        return ServerView(
            versions=tuple(versions),
            workers=tuple(
                WorkerView(worker.slot, worker.pid, worker.is_listening, self._restarts[worker.slot])
                for worker in workers
            ),
            wanted=dict(self._desired.models),
            problems=dict(self._desired.problems),
            is_ready=self._is_ready(workers),
            reloads=self._reloads,
            failed_reloads=self._failed_reloads,
        )

    def _is_ready(self, workers: Sequence[WorkerProcess]) -> bool:
        """Every worker accepts calls, and has at least one model that answers, if any is wanted."""
        if self._is_stopping or not self.ready.is_set() or not workers:
            return False
        return all(worker.is_listening and (worker.plans or not self._desired.models) for worker in workers)

    def artifact(self, key: VersionKey) -> Artifact | None:
        """The files of a version, if they are at hand."""
        return self._fetcher.artifacts.get(key)

    def _version_view(self, model: str, version: str, status: Status) -> VersionView:
        plans = [worker.plans[model] for worker in self._workers.values() if model in worker.plans]
        roles = tuple(role for role in ROLES if any(getattr(plan, role) == version for plan in plans))
        weights = [plan.canary_weight for plan in plans if plan.canary == version]
        reason = status.reason or self._desired.problems.get(model, "")
        return VersionView(model, version, status.state, roles, weights[0] if weights else None, reason)
