"""A server of the simulation: the real control plane, over fake processes, from its start to its end."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.names import VersionKey
from penstock_server import frames
from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.settings import ResidencySettings, WatchdogSettings
from penstock_server.control.source_client import SourceClient, SourceProcess
from penstock_server.control.supervisor import Supervisor
from penstock_server.control.verdict import LoadSettings, Trial, TrialLimits, Verdict
from penstock_server.control.watcher import Watcher
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_server.prediction.routing_table import ServedModel
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources import messages
from penstock_server.sources.combined_source import CombinedSource, LastKnownState
from penstock_server.sources.source import Desired
from tests.simulation.processes import FakeSourceProcess, Handle, Troubles, Writer
from tests.simulation.registry import Content, FakeRegistry, Store, content_of
from tests.simulation.worker import FakeExecutor, FakeWorker
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.loop import Process

LIMITS: Final = TrialLimits(1024, 30.0)
WATCHDOG: Final = WatchdogSettings(silent_s=10.0, run_s=30.0, load_s=60.0, start_s=60.0)
FETCH_S: Final = 30.0
CACHE_KEEP: Final = 2
BASE_BYTES: Final = 100 << 20
"""What a worker takes without models."""


class Starts:
    """What is wrong with the starts of processes, by the kind of process: "worker", "source", "airlock"."""

    def __init__(self) -> None:
        self.failing: set[str] = set()

    def check(self, kind: str) -> None:
        if kind in self.failing:
            raise OSError(11, "Resource temporarily unavailable")


@dataclass(frozen=True)
class Pace:
    """How often a server polls, acts, and looks at its workers."""

    poll_s: float
    reconcile_s: float
    look_s: float


class Counters(CounterStore):
    """The real counters, with the beats of the workers that live."""

    def __init__(self, beat_ns: Callable[[int], int]) -> None:
        super().__init__()
        self._beat_ns = beat_ns

    def beat_ns(self, slot: int) -> int:
        return self._beat_ns(slot)


class Server:
    """One run of a server.

    Args:
        world: where it runs.
        registries: its sources, in their order.
        cache: its cache folder, which outlives it.
        slots: how many workers it has.
        pace: how often it looks.
        residency: whether models are loaded when they are asked for.

    Attributes:
        passed: the files that the airlock let pass.
        told: every version with its files that a poll said to serve.
        loaded: the files that some worker has loaded.
        suspected: for files, when workers ended that loaded or ran them, and may be said to have been ended by them.
    """

    def __init__(
        self,
        world: World,
        registries: dict[str, FakeRegistry],
        store: Store,
        troubles: Troubles,
        starts: Starts,
        *,
        cache: Path,
        slots: int,
        pace: Pace,
        passed: set[int],
        told: set[tuple[str, str, str]],
        damaged: set[str],
        restart: Callable[[], None],
        residency: ResidencySettings = ResidencySettings(),  # noqa: B008 - frozen
    ) -> None:
        self.world = world
        self.process: Process = world.process("supervisor")
        self.registries = registries
        self.passed = passed
        self.restart = restart
        self.told = told
        self.loaded: set[int] = set()
        self.suspected: dict[int, list[float]] = {}
        self.slots = slots
        self.workers: list[FakeWorker] = []
        self.sources: list[FakeSourceProcess] = []
        self.clients: list[SourceClient] = []
        self.desired_since: dict[str, float] = {}
        self.is_stopped = False
        self.asking: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self.supervisor: Any = None
        self.source: Any = None
        self.watcher: Any = None
        self.counters: Any = None
        self._damaged = damaged
        self._last_told: dict[str, tuple[Desired, ...]] = {}
        self._store = store
        self._troubles = troubles
        self._starts = starts
        self._cache = cache
        self.pace = pace
        self.residency = residency
        self._links: list[WorkerProcess] = []
        self._running: asyncio.Task[None] | None = None

    # --- its life

    def start(self) -> None:
        self._running = self.world.loop.start(self.process, self._run())

    async def _run(self) -> None:
        world = self.world
        try:
            await self._serve()
        except UnavailableError as error:
            # Nothing can be started: a server that was never ready says so and ends, and is started again.
            if self.is_ready:
                world.violate(f"a server that was ready gave up: {error}")
            world.say(f"the server gives up: {error}")
            world.loop.call_later(5.0, self._give_up, context=world.network)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - it is what was looked for
            if not world.loop.is_closed():  # else it is one that was killed, which goes now
                world.violate(f"the supervisor failed: {error!r}")

    async def _serve(self) -> None:
        loop, cache = self.world.loop, self._cache
        self.clients = [
            SourceClient(
                name,
                messages.Open(messages.Registry(f"http://{name}"), str(cache), 64.0, 100, 64.0, CACHE_KEEP),
                fetch_timeout_s=FETCH_S,
                start=partial(self._start_source, registry),
                clock=loop.time,
            )
            for name, registry in self.registries.items()
        ]
        self.source = CombinedSource(self.clients, last_known=LastKnownState(cache))
        with Counters(self._beat_ns) as self.counters:
            self.supervisor = Supervisor(
                address="127.0.0.1:8001",
                port=None,
                workers=self.slots,
                start=self._start_worker,
                source=self.source,
                counters=self.counters,
                responder=ControlResponder({}),
                run_trial=self._try,
                proven=ProvenVersions(LIMITS, cache),
                load_settings=lambda model: LoadSettings(),
                unanswered=lambda: self.source.unanswered,
                watchdog=WATCHDOG,
                residency=self.residency,
                resident_bytes=self.resident_bytes,
                read_files=self._read,
                reconcile_s=self.pace.reconcile_s,
                look_s=self.pace.look_s,
                clock=loop.time,
            )
            self.watcher = Watcher(
                self.source, interval_s=self.pace.poll_s, desired=self._on_desired, polled=self.supervisor.on_polled
            )
            await self._until_stopped()
        self._check_ended()

    async def _until_stopped(self) -> None:
        """Runs, and ends, in the order of `penstock_server.app`."""
        supervisor = self.supervisor
        stopping = asyncio.create_task(self._stop.wait())
        watching = asyncio.create_task(self.watcher.run())

        beside = [asyncio.create_task(work) for work in self._beside()]
        tasks = [asyncio.create_task(supervisor.run()), asyncio.create_task(supervisor.failure()), watching, stopping]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            watching.cancel()
            await supervisor.drain(5.0)
        finally:
            tasks += self.asking + beside
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await supervisor.kernels.close()
            await self.source.close()

    def _beside(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What runs beside it, and ends before its sources."""
        return ()

    def _give_up(self) -> None:
        self.world.end(self.process, 1)
        self.restart()

    def _check_ended(self) -> None:
        world = self.world
        if left := [*self.process.children.values()]:
            world.violate(f"a server that has stopped leaves processes: {left}")
        if left := [task.get_coro().__qualname__ for task in world.tasks(self.process) if task is not self._running]:
            world.violate(f"a server that has stopped leaves tasks: {left}")

    async def stop(self) -> None:
        """Ends it as SIGTERM does."""
        if self._running is None or self._running.done() or self.process.is_dead:
            return
        self.world.say("the server is told to stop")
        self._stop.set()
        slept_s = self.world.slept_s
        await asyncio.wait([self._running], timeout=60.0)
        if self.world.slept_s > slept_s:  # the machine did, and the server with it
            await asyncio.wait([self._running], timeout=60.0)
        if not self._running.done() and not self.process.is_dead:
            self.world.violate("the server does not stop")
        self.world.end(self.process, 0)

    def refresh(self) -> None:
        """Somebody asks for a poll, by a worker, of which there are none any more in a server that ends."""
        if self.is_running and not self.process.is_stopped and not self._stop.is_set() and self.watcher is not None:
            self.asking = [task for task in self.asking if not task.done()]
            self.asking.append(self.world.loop.start(self.process, self.watcher.refresh()))

    def wake(self) -> None:
        """A webhook of the registry comes."""
        if self.is_running and not self.process.is_stopped and self.watcher is not None:
            self.process.context.run(self.watcher.wake)

    def kill(self) -> None:
        self.world.end(self.process, -9)

    @property
    def is_running(self) -> bool:
        return not self.process.is_dead and self.supervisor is not None

    @property
    def is_ready(self) -> bool:
        return self.is_running and bool(self.supervisor.ready.is_set())

    @property
    def living(self) -> list[FakeWorker]:
        """The workers whose processes live."""
        self.workers = [worker for worker in self.workers if not worker.process.is_dead]
        return self.workers

    def resident_bytes(self, pid: int) -> int:
        """What a worker's process takes."""
        worker = next((one for one in self.living if one.process.pid == pid), None)
        held = [] if worker is None else [one.content.size_bytes for one in worker.executors.values()]
        return BASE_BYTES + sum(held)

    # --- links of the supervisor

    def _beat_ns(self, slot: int) -> int:
        return max((worker.beat_ns() for worker in self.living if worker.slot == slot), default=0)

    async def _start_worker(self) -> WorkerProcess:
        await asyncio.sleep(self.world.delay_s(0.001, 0.1))
        self._starts.check("worker")
        reader = asyncio.StreamReader(limit=frames.MAX_FRAME_BYTES)
        worker = FakeWorker(self.world, self, reader)
        self.workers.append(worker)
        handle: Any = Handle(self.world, worker.process)
        writer: Any = Writer(worker.commands)
        link = WorkerProcess(handle, reader, writer)
        living = {one.process.pid for one in self.living}
        self._links = [*(one for one in self._links if one.pid in living), link]
        return link

    async def _start_source(self, registry: FakeRegistry, opening: messages.Open) -> SourceProcess:
        await asyncio.sleep(self.world.delay_s(0.001, 0.1))
        self._starts.check("source")
        process = FakeSourceProcess(
            self.world, opening, registry, self._store, self._troubles, partial(self._on_told, registry.name)
        )
        self.sources = [one for one in self.sources if not one.process.is_dead] + [process]
        return process

    async def _read(self, folder: Path) -> Artifact:
        await asyncio.sleep(self.world.delay_s(0.001, 0.5))
        try:
            content = content_of(folder)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"file 'model.onnx' is damaged: {type(error).__name__}") from None
        if content.kind == "damaged":
            raise InvalidInputError("file 'model.onnx' is not what the manifest says")
        return Artifact(folder, folder)

    async def _try(self, trial: Trial) -> Verdict:
        self._starts.check("airlock")
        world = self.world
        process = world.process("airlock")
        try:
            trying = [one for one in self.process.children.values() if one.name == "airlock"]
            if len(trying) > 2:
                world.violate(f"{len(trying)} versions are tried at once")
            await asyncio.sleep(world.delay_s(0.3, 3.0))
            try:
                content = content_of(Path(trial.folder))
            except (OSError, ValueError):
                if not self.is_damaged(trial.folder):
                    world.violate(f"the files of {trial.key} are gone while it is tried")
                return Verdict("file 'model.onnx' is damaged")
            if content.identity != trial.identity:
                world.violate(f"{trial.key} is tried as {trial.identity} with the files of {content.identity}")
            return await self._verdict(content)
        finally:
            world.end(process, -9)

    async def _verdict(self, content: Content) -> Verdict:
        match content.kind:
            case "refused":
                return Verdict("its golden answers differ")
            case "trial dies":
                return Verdict("ended the process that tried it (signal 11, SIGSEGV)")
            case "trial hangs":
                await asyncio.sleep(LIMITS.timeout_s)
                return Verdict("did not finish loading")
        self.passed.add(content.serial)
        return Verdict(batching="rows", memory_bytes=content.size_bytes)

    def _on_told(self, source: str, desired: Desired) -> None:
        self._last_told[source] = (desired, *self._last_told.get(source, ())[:2])
        for model, plan in desired.models.items():
            for version in plan.versions:
                self.told.add((model, version, desired.identity(model, version)))

    def _on_desired(self, desired: Desired) -> None:
        now_s = self.world.loop.now_s
        for model in self.desired_since:
            plan = desired.models.get(model)
            if (plan is None or plan.champion is None) and self._last_told and self._is_told(model):
                self.world.violate(f"{model} is desired no more, and no registry said so")
        self.desired_since = {
            model: self.desired_since.get(model, now_s)
            for model, plan in desired.models.items()
            if plan.champion is not None
        }
        self.world.say(f"desired: {_shown(desired)}")
        self.supervisor.on_desired(desired)

    def _is_told(self, model: str) -> bool:
        """Whether some registry has said at each of its last polls that a version answers for a model.

        One poll is not enough: its answer may be on its way.
        """
        return any(
            len(states) > 1 and all(model in one.models and one.models[model].champion is not None for one in states)
            for states in self._last_told.values()
        )

    # --- what workers report, to be checked

    def is_damaged(self, folder: str) -> bool:
        """Whether a copy was damaged on purpose."""
        return any(one.startswith(folder) for one in self._damaged)

    def on_load(self, worker: FakeWorker, key: VersionKey, content: Content) -> None:
        """A worker begins to load; no other may be the second to try the same files."""
        others = [
            other
            for other in self.living
            if other is not worker and other._loading == key and key not in other.executors
        ]
        # By any worker: the supervisor learns one after the other of those that are killed together, and sends those that
        # take their places what it believes that others still hold. These files have ended nobody when they were loaded.
        if others and content.serial not in self.loaded:
            self.world.violate(f"{key} is loaded by {worker} and {others} at once, and no worker has had it")

    def on_ended(self, worker: FakeWorker, running: list[int]) -> None:
        """A worker ended while it ran these files."""
        found = next((one for one in self._links if one.pid == worker.process.pid), None)
        suspects = {*running}
        if found is not None and found.loading is not None:
            suspects.add(self._serial(found.tried[found.loading]))
        for serial in suspects:
            self.suspected.setdefault(serial, []).append(self.world.loop.now_s)

    def may_be_out(self, key: VersionKey, identity: str) -> bool:
        """Whether good files are kept out, and rightly: faults ended workers twice that loaded or ran them."""
        times_s = self.suspected.get(self._serial(identity), [])
        is_twice = len(times_s) > 1 and times_s[-1] > times_s[0]
        return is_twice and self.supervisor._quarantine.reason(key, identity) is not None

    @staticmethod
    def _serial(identity: str) -> int:
        return int(identity.rpartition("-")[2] or 0)

    def on_lost(self, worker: FakeWorker, model: ServedModel, sent_s: float) -> None:
        """A worker answers for a model no more."""
        since_s = self.desired_since.get(model.name)
        if since_s is None or since_s >= sent_s or not self.is_running:
            return
        if model.plan is None or model.plan.champion not in model.executors:
            return  # it was not in memory, and calls go on waiting for it
        key = model.name, model.plan.champion
        identity = model.executors[key[1]].identity
        if self.supervisor._quarantine.reason(key, identity) is None:
            self.world.violate(f"{worker} answers for {model.name} no more; {key} did, and nothing else can")

    def on_answering(self, worker: FakeWorker, executor: FakeExecutor, asked: str) -> None:
        """A request goes to a version."""
        key, identity = executor.key, executor.identity
        if asked and not asked.startswith("@") and asked != key[1]:
            self.world.violate(f"{worker} answers a request for {asked} with {key}")
        if (*key, identity) not in self.told and (*key, "") not in self.told:
            self.world.violate(f"{worker} answers with {key} of {identity}, which nobody wanted")
        if executor.content.serial not in self.passed:
            self.world.violate(f"{worker} answers with {key} of {executor.content}, which has not passed the airlock")

    def on_answered(self, worker: FakeWorker, executor: FakeExecutor) -> None:
        if not executor.is_draining and executor.path not in self.counted(worker.slot, executor.key):
            self.world.violate(f"{worker} counts an answer of {executor.key} where nobody looks")

    def counted(self, slot: int | None, key: VersionKey) -> list[Path]:
        """The files that a version's counts in a slot are read from, now or once its new files answer."""
        found = (self.counters._versions.get(key, {}).get(slot), self.counters._next.get((slot, key)))
        return [one.path for one in found if one is not None]


def _shown(desired: Desired) -> str:
    def plan_of(plan: TrafficPlan) -> str:
        canaries = "".join(f"+{arm.version}@{arm.weight:g}" for arm in plan.canaries)
        return f"{plan.champion}{canaries}" + "".join(f"~{arm.version}" for arm in plan.shadows)

    def identity_of(model: str) -> str:
        return ",".join(f"{one}={files}" for one, files in sorted(desired.identities.get(model, {}).items()))

    return "; ".join(
        f"{model}:{plan_of(plan)} ({identity_of(model)})" for model, plan in sorted(desired.models.items())
    )
