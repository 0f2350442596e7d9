"""The supervisor: keeps every worker serving the desired plans.

It reacts to a new desired state, a fetched version, a verdict of the airlock, a worker's event, a worker's end. Each
changes a record and wakes `run`, which compares the desired state with the records through `reconcile.next_steps` and
sends the missing commands. Nothing is remembered between two rounds, so the next round repairs a lost message. The
workers' processes belong to `control.worker_pool`.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from typing import Final

import msgspec
import structlog

from penstock.names import VersionKey
from penstock_server import memory
from penstock_server.clock import Clock, monotonic
from penstock_server.control import gates, messages
from penstock_server.control.airlock import Airlock, RunTrial
from penstock_server.control.fallback import Fallbacks, agreed_champions, common_champions, common_files
from penstock_server.control.fetcher import ArtifactFetcher, FetchesFiles, ReadFiles
from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.kernels import KernelCompiler
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.quarantine import Quarantine
from penstock_server.control.readiness import Signs, WorkerSigns, not_ready_reason
from penstock_server.control.reconcile import Versions, load_order, next_steps, one_first, plan_keys
from penstock_server.control.residents import Registered, Residents, Use, WorkerState
from penstock_server.control.settings import AirlockSettings, ResidencySettings, WatchdogSettings
from penstock_server.control.verdict import LoadSettings, Trial, Verdict
from penstock_server.control.view import (
    ServerView,
    Standing,
    VersionView,
    WorkerView,
    held_by,
    version_statuses,
    version_views,
)
from penstock_server.control.worker_pool import LOOK_S, StartWorker, WorkerPool
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.errors import NotFoundError, UnavailableError
from penstock_server.features.kernel_set import KERNELS as FEATURE_KERNELS
from penstock_server.log_setup import LogLevel, set_level
from penstock_server.metrics.counters import CountersShape
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_server.rollout.decision import VersionHealth
from penstock_server.rollout.plan import ModelRoutes, TrafficPlan, VersionStatus
from penstock_server.sources.source import Desired
from penstock_server.transport.shared_port import SharedPort

log = structlog.get_logger(__name__)

_STANDBY: Final = "not in memory; it is loaded when it is asked for"
_LEFT_OUT: Final = "does not fit in memory beside the champion; residency.memory_budget_mib is too small for both"
PLAN_SHARE: Final = 0.02
"""What may be loaded is worked out anew at each round, unless that takes more than this share of the time: then less often."""
BUSY_PLAN_SHARE: Final = 0.2
"""The same while something waits for it: versions are being fetched or tried, which of thousands takes long enough."""
RECONCILE_S: Final = 1.0
"""The longest time between two rounds, so that fetches that failed are tried again."""
PATIENCE_S: Final = 10.0
"""Workers accept calls without the models of a source that has not answered for this long since the start."""


class Supervisor:
    """Brings the workers to the desired state, and knows how far they are.

    Args:
        address: where every worker listens, `host:port` or `unix:/path`.
        port: what workers accept from; None if they bind sockets of their own.
        rest_port: where they serve REST; None if they do not.
        workers: how many there are.
        start: starts one.
        source: hands out versions' files.
        counters: where workers count.
        responder: answers the control requests that workers forward.
        run_trial: tries a version in the airlock.
        proven: remembers what has passed it.
        load_settings: how a model is loaded, by its name.
        unanswered: the sources of which nothing is known yet, by name.
        watchdog: when a worker counts as hung.
        read_files: reads the files of a version; see `ArtifactFetcher`.
        reconcile_s: the longest time between two rounds.
        look_s: the time between two looks at the workers' signs of life.
        bounds: what a version may need and take that has passed the airlock.
        residency: whether models are loaded when they are asked for.
        resident_bytes: the resident memory of a process.

    Attributes:
        residents: which models each worker has in memory, where they come and go.
        kernels: compiles the feature kernels, once a version needs them.
        ready: set once the server was ready.
    """

    def __init__(
        self,
        *,
        address: str,
        port: SharedPort | None,
        workers: int,
        start: StartWorker,
        source: FetchesFiles,
        counters: CounterStore,
        responder: ControlResponder,
        run_trial: RunTrial,
        proven: ProvenVersions,
        load_settings: Callable[[str], LoadSettings],
        unanswered: Callable[[], Sequence[str]],
        watchdog: WatchdogSettings,
        rest_port: SharedPort | None = None,
        read_files: ReadFiles | None = None,
        reconcile_s: float = RECONCILE_S,
        look_s: float = LOOK_S,
        bounds: AirlockSettings = AirlockSettings(),  # noqa: B008 - frozen
        residency: ResidencySettings = ResidencySettings(),  # noqa: B008 - frozen
        resident_bytes: Callable[[int], int] = memory.resident_bytes,
        clock: Clock = monotonic,
    ) -> None:
        self._bounds = bounds
        self._gated: dict[VersionKey, str] = {}
        self._address = address
        self._port = port
        self._ports = [each for each in (port, rest_port) if each is not None]
        self._counters = counters
        self._responder = responder
        self._load_settings = load_settings
        self._unanswered = unanswered
        self._reconcile_s = reconcile_s
        self._clock = clock
        self._started_s = clock()
        self._desired = Desired()
        self._is_polled = False
        self._is_stopping = False
        self._reloads = 0
        self._failed_reloads = 0
        self._change = asyncio.Event()
        # Set at the end of the present round.
        self._round = asyncio.Event()
        self._fetcher = ArtifactFetcher(source, clock=clock, changed=self._plan_soon, read_files=read_files)
        self._run_trial = run_trial
        self._airlock = Airlock(self._try, proven, changed=self._plan_soon)
        self._quarantine = Quarantine(clock)
        self._process_ends: Counter[VersionKey] = Counter()
        self._fallbacks = Fallbacks()
        self.residents = Residents(residency, clock)
        self._resident_bytes = resident_bytes
        # What may be loaded, when that was worked out, how long it took, and whether it must be, or should be, done again.
        self._known = Versions()
        self._loadable: AbstractSet[VersionKey] = frozenset()
        self._needed: Mapping[str, frozenset[str]] = {}
        self._planned_s, self._plan_took_s = float("-inf"), 0.0
        self._must_plan, self._should_plan = True, False
        # How each version stood then, by what desired state and which versions that answered before.
        self._standings: dict[VersionKey, Standing] = {}
        self._stood: tuple[Desired, Mapping[str, str]] = (Desired(), {})
        # The views of models of which nothing has changed since.
        self._views: dict[str, tuple[VersionView, ...]] = {}
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.kernels = KernelCompiler(FEATURE_KERNELS, self._plan_now, clock=clock)
        self.ready = asyncio.Event()
        self._pool = WorkerPool(
            workers,
            start=start,
            counters=counters,
            quarantine=self._quarantine,
            limits=watchdog,
            on_event=self._on_event,
            changed=self._plan_now,
            was_ready=self.ready.is_set,
            fail=self._fail,
            look_s=look_s,
            clock=clock,
        )

    def on_desired(self, desired: Desired) -> None:
        """Takes in a new desired state."""
        for model, problem in desired.problems.items():
            if self._desired.problems.get(model) != problem:
                log.warning("the source reports a problem", model=model, problem=problem)
        self._desired = desired
        self._plan_now()

    def on_polled(self) -> None:
        """Records that the source was polled: from now on an empty desired state is an answer, not the lack of one."""
        self._is_polled = True
        self._change.set()

    def _plan_now(self) -> None:
        """Something has changed that what may be loaded depends on."""
        self._must_plan = True
        self._change.set()

    def _plan_soon(self) -> None:
        """The same, of which much may happen at once: a version was fetched or tried."""
        self._should_plan = True
        self._change.set()

    async def run(self) -> None:
        """Keeps workers alive and brings them closer to the desired state, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._pool.run_in(tasks)
            while True:
                try:
                    self._reconcile()
                except Exception as error:
                    # What it holds is right; the next round tries again what could not be done, as without descriptors.
                    if not isinstance(error, OSError) and not self.ready.is_set():
                        raise
                    log.exception("a round failed; trying again")
                    self._must_plan = True
                self._round.set()
                self._round = asyncio.Event()
                # Not wait_for, which in Python 3.11 loses a cancellation that comes together with a change.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._change.wait()
                self._change.clear()

    def _pause_s(self) -> float:
        """Until the next round, if nothing happens before."""
        if self._is_stopping or not self._should_plan:
            return self._reconcile_s
        return min(self._reconcile_s, max(0.0, self._plan_due_s() - self._clock()))

    def _plan_due_s(self) -> float:
        """When what may be loaded is worked out again."""
        if self._must_plan:
            return float("-inf")
        return self._planned_s + self._plan_took_s / (BUSY_PLAN_SHARE if self._should_plan else PLAN_SHARE)

    async def act(self) -> None:
        """Acts on all that is known now."""
        self._plan_now()
        await self._round.wait()

    async def next_round(self) -> None:
        """Returns when something has changed and was acted on; after `RECONCILE_S` in any case."""
        await self._round.wait()

    def want(self, model: str) -> None:
        """Has a model loaded into every worker, where models are loaded when they are asked for."""
        if self.residents.is_on and model in self._desired.models:
            self._should_plan = True
            for slot, worker in self._pool.workers.items():
                if model not in worker.plans:
                    self.residents.ask(slot, model)
            self._change.set()

    def champion_status(self, model: str) -> tuple[str, VersionStatus]:
        """The version that is to answer for a model, and how it stands: READY once every worker answers with it.

        Raises:
            NotFoundError: no source has such a model, or a version of it that is to answer.
        """
        plan, problem = self._desired.models.get(model), self._desired.problems.get(model, "")
        if plan is None or plan.champion is None:
            raise NotFoundError(f"no source has a champion of model {model!r}{f': {problem}' if problem else ''}")
        key = (model, plan.champion)
        identity = self._desired.identities.get(model, {}).get(plan.champion, "")
        workers = list(self._pool.workers.values())
        if workers and all(_answers(worker, key, identity) for worker in workers):
            return plan.champion, VersionStatus("READY")
        if self._fetcher.is_fetching(key):
            return plan.champion, VersionStatus("LOADING", "its files are being fetched")
        status = self._standing(key).status
        if status.state == "STANDBY":
            status = VersionStatus("LOADING", status.reason)
        failed = (failure for worker in workers if (failure := _failure(worker, key)) is not None)
        if status.state != "UNAVAILABLE":
            status = next(failed, VersionStatus("LOADING", status.reason))
        return plan.champion, status

    def weights_in_force(self, model: str, version: str) -> tuple[float, float] | None:
        """The shares of a canary and of the champion, 0 to 1, if all workers route by them now."""
        plan = self.plans_in_force().get(model)
        weight = None if plan is None else plan.weight(version)
        if plan is None or not weight:
            return None
        return weight, max(0.0, 1 - sum(arm.weight for arm in plan.canaries))

    def plans_in_force(self) -> dict[str, TrafficPlan]:
        """By model, the plan that all workers route by now; none where they are being told another one."""
        workers = list(self._pool.workers.values())
        if not workers or any(worker.is_serve_pending for worker in workers):
            return {}
        first, *others = workers
        if self.residents.is_on:
            # A worker that has a model not in memory routes nothing of it, and will route by the desired plan.
            plans = {model: plan for worker in workers for model, plan in worker.plans.items()}
            return {
                model: plan
                for model, plan in plans.items()
                if all(one.plans.get(model, plan) == plan for one in workers)
            }
        return {
            model: plan for model, plan in first.plans.items() if all(one.plans.get(model) == plan for one in others)
        }

    def health(self, key: VersionKey) -> VersionHealth:
        """How a version stands: ready in every worker, or refused as it is."""
        workers = list(self._pool.workers.values())
        if self._fetcher.failure(key) is None and (refusal := self._refusal(key)) is not None:
            return VersionHealth(is_ready=False, is_refused=True, reason=refusal)
        held = [held_by(worker) for worker in workers]
        status = version_statuses(key[0], self._desired.models.get(key[0]), held, self._standing).get(key[1])
        if status is None:
            return VersionHealth(is_ready=False)
        # A version that answers may have something that is worth knowing.
        return (
            VersionHealth()
            if status.state in {"READY", "STANDBY"}
            else VersionHealth(is_ready=False, reason=status.reason)
        )

    def refused(self) -> dict[VersionKey, str]:
        """The desired versions that are refused as they are, with the reasons; without what could not be fetched just now."""
        return {
            key: reason
            for key in plan_keys(self._desired.models)
            if self._fetcher.is_damaged_or_here(key) and (reason := self._refusal(key)) is not None
        }

    def set_log_level(self, level: LogLevel) -> None:
        """Has the supervisor and all workers log from this level on."""
        set_level(level)
        for worker in self._pool.workers.values():
            worker.send(messages.SetLogLevel(level))

    async def failure(self) -> bool:
        """Never returns; raises `UnavailableError` when workers cannot start or cannot bind the port."""
        raise UnavailableError(await self._failure)

    async def drain(self, grace_s: float) -> None:
        """Lets every worker finish its calls, and kills those that take longer; fetches and trials end at once."""
        self._is_stopping = True
        for port in self._ports:
            port.refuse()  # at once: a worker may hang, or be busy with its calls
        await self._pool.drain(grace_s, self._fetcher.close(), self._airlock.close())

    def _fail(self, reason: str) -> None:
        if not self._failure.done():
            self._failure.set_result(reason)

    def _on_event(self, worker: WorkerProcess, event: messages.Event) -> None:
        match event:
            case messages.Loaded(model, version):
                identity = worker.on_loaded((model, version), event.engine, event.runs)
                self._counters.replace(worker.slot, (model, version), identity)
                self._reloads += 1
                log.info(
                    "version loaded", slot=worker.slot, model=model, version=version, took_s=round(event.took_s, 3),
                    runs="inline" if event.is_inline else "own thread",
                    cost_us=f"{event.base_us:.0f} + {event.row_us:.2f} n", engine=event.engine,
                )  # fmt: skip
            case messages.LoadFailed(model, version, reason):
                worker.on_load_failed((model, version), reason)
                self._fetcher.doubt((model, version))
                self._failed_reloads += 1
                log.error("version cannot be served", slot=worker.slot, model=model, version=version, reason=reason)
            case messages.EnsembleBound() | messages.ProcessEnded() | messages.Wanted():
                self._note(worker, event)
            case messages.Served(generation):
                worker.on_served(generation)
            case messages.Unloaded(model, version):
                worker.on_unloaded((model, version))
                self._counters.forget(worker.slot, (model, version))
                log.info("version unloaded", slot=worker.slot, model=model, version=version)
            case messages.Listening(transport):
                worker.is_listening = True
                worker.transport = transport
                log.info("worker accepts calls", slot=worker.slot, pid=worker.pid, transport=transport)
            case messages.ListenFailed(reason) if self.ready.is_set():
                log.error("worker cannot accept calls; replacing it", slot=worker.slot, reason=reason)
                worker.kill()
            case messages.ListenFailed(reason):
                self._fail(reason)
            case messages.ControlRequest():
                self._responder.respond(event, worker.send)
                return  # nothing changed
        self._must_plan = self._must_plan or isinstance(event, messages.LoadFailed | messages.ProcessEnded)
        self._should_plan = self._should_plan or isinstance(event, messages.Unloaded)
        self._change.set()

    def _note(
        self, worker: WorkerProcess, event: messages.EnsembleBound | messages.ProcessEnded | messages.Wanted
    ) -> None:
        """Notes what became of a version that the worker goes on with, or which model its callers wait for."""
        if isinstance(event, messages.Wanted):
            self.residents.ask(worker.slot, event.model)
            self._should_plan = self._should_plan or not self._is_on_call(event.model)  # so that it is tried first
            return
        key = event.model, event.version
        if isinstance(event, messages.ProcessEnded):
            self._note_end(worker, key, event.how)
            return
        worker.on_bound(key, event.reason)
        if event.reason:
            log.warning("ensemble waits", slot=worker.slot, model=key[0], version=key[1], reason=event.reason)
        else:
            log.info("ensemble answers", slot=worker.slot, model=key[0], version=key[1])

    def _note_end(self, worker: WorkerProcess, key: VersionKey, how: str) -> None:
        """Notes that a version ended the process that runs it."""
        self._process_ends[key] += 1
        if self._quarantine.note_process(key, worker.identities.get(key, ""), how):
            log.error("version kept out: it ends its processes", model=key[0], version=key[1], how=how)

    def _reconcile(self) -> None:
        if self._is_stopping:
            return
        if self._plan_due_s() <= self._clock():
            self._plan()
        loaded = self._loaded()
        for port in self._ports:
            port.keep(self._pool.workers)
        for worker in self._pool.workers.values():
            worker.forget_failures(self._fetcher.artifacts)
            self._reconcile_worker(worker, self._desired_of(worker), loaded)
        self._note_what_answers()
        if not self.ready.is_set() and self.view().is_ready:
            self.ready.set()

    def _plan(self) -> None:
        """Works out what is to be fetched, what is to be tried, and what may be loaded: of all models."""
        started_s = self._clock()
        self._must_plan = self._should_plan = False
        workers = self._pool.workers.values()
        wanted = {*plan_keys(self._desired.models), *self._fallbacks.versions.items()}
        held = {key for worker in workers for key in worker.versions}
        # Versions that some worker holds: metrics and drift need their files until they are unloaded.
        others = sorted(wanted | (held & self._fetcher.artifacts.keys()))
        order = load_order(self._asked_first(), Versions(fallbacks=self._fallbacks.versions), {})
        self._fetcher.require([*order, *others], self._fallbacks.required(self._desired.identities))
        self._airlock.require(self._trials(order))
        self._gated = self._refused_by_gates(order, self._loaded())
        self._quarantine.keep(wanted | held)
        for key in self._process_ends.keys() - wanted - held:
            del self._process_ends[key]
        self._known = self._found()
        self._loadable = self._known.loadable.keys()
        self._needed = self._needs()
        changed = self._restood(wanted | held)
        for worker in workers:
            self._counters.keep(worker.slot, wanted | worker.versions.keys())
            worker.touched |= changed
        for model in changed:
            self._views.pop(model, None)
        self._planned_s = self._clock()
        self._plan_took_s = self._planned_s - started_s

    def _restood(self, keys: AbstractSet[VersionKey]) -> set[str]:
        """Notes how these versions stand, and gives the models of which something is otherwise than at the last time."""
        former, former_desired = self._standings, self._stood
        self._standings = {key: self._standing(key) for key in keys}
        self._stood = (self._desired, self._fallbacks.versions)
        changed = {key[0] for key, standing in self._standings.items() if former.get(key) != standing}
        changed |= {key[0] for key in former.keys() - keys}
        for now, before in (
            (self._desired.models, former_desired[0].models),
            (self._desired.problems, former_desired[0].problems),
            (self._fallbacks.versions, former_desired[1]),
        ):
            if now is not before:
                changed |= {model for model in now.keys() | before.keys() if now.get(model) != before.get(model)}
        return changed

    def _asked_first(self) -> Mapping[str, TrafficPlan]:
        """The desired plans, those first of models that callers wait for."""
        plans = self._desired.models
        asked = [model for model in self.residents.asked if model in plans]
        return {model: plans[model] for model in (*asked, *plans)} if asked else plans

    def _desired_of(self, worker: WorkerProcess) -> Mapping[str, TrafficPlan]:
        """What one worker is to serve: all that is desired, unless models come and go."""
        plans = self._desired.models
        if not self.residents.is_on:
            return plans
        state = WorkerState(
            worker.versions,
            worker.plans.keys(),
            self._resident_bytes(worker.pid) if worker.is_listening else 0,
            {key: Use(*found) for key, found in self._counters.uses(worker.slot).items()},
        )
        registered = Registered(plans, self._size, self._is_refused, self._needed, self._fallbacks.versions)
        if changed := self.residents.decide(worker.slot, state, registered):
            worker.touched |= changed
            self._plan_now()
        fitting = self.residents.fitting(worker.slot, plans)
        return {model: fitting[model] for model in self.residents.models(worker.slot)}

    def _size(self, key: VersionKey) -> int | None:
        """What a version takes in memory; None if it cannot be loaded, or not yet."""
        if key not in self._loadable:
            return None
        verdict = self._airlock.verdict(key, self._fetcher.identity(key))
        return None if verdict is None else verdict.memory_bytes

    def _is_refused(self, key: VersionKey) -> bool:
        return self._refusal(key) is not None

    def _needs(self) -> dict[str, frozenset[str]]:
        """The models that the champion of each ensemble asks."""
        artifacts = self._fetcher.artifacts
        return {
            model: frozenset(artifact.ensemble.models)
            for (model, version), artifact in artifacts.items()
            if artifact.ensemble is not None and self._desired.models.get(model, TrafficPlan()).champion == version
        }

    def _trials(self, order: Sequence[VersionKey]) -> list[Trial]:
        """The versions to try, in this order."""
        artifacts = self._fetcher.artifacts
        if any(artifact.features is not None for artifact in artifacts.values()):
            self.kernels.require()
        return [
            Trial(*key, self._fetcher.identity(key), str(artifacts[key].path), self._how(key[0], artifacts[key]))
            for key in order
            if key in artifacts and not self._awaits_kernels(key)
        ]

    async def _try(self, trial: Trial) -> Verdict:
        verdict = await self._run_trial(trial)
        if not verdict.has_passed:
            self._fetcher.doubt(trial.key)
        return verdict

    def _how(self, model: str, artifact: Artifact) -> LoadSettings:
        how = self._load_settings(model)
        # The airlock's limits are for so many threads, so it is told before it reads the version's files.
        return how if how.threads is not None else msgspec.structs.replace(how, threads=artifact.threads)

    def _awaits_kernels(self, key: VersionKey) -> bool:
        """Whether a version has features and there are no kernels yet, which a trial would compile for itself."""
        artifact = self._fetcher.artifacts.get(key)
        return artifact is not None and artifact.features is not None and not self.kernels.is_ready

    def _refused_by_gates(
        self, order: Sequence[VersionKey], loaded: AbstractSet[tuple[VersionKey, str]]
    ) -> dict[VersionKey, str]:
        """The versions that passed the airlock, and are too large or too slow."""
        if self._bounds.memory_budget_mib is None and self._bounds.latency_factor is None:
            return {}
        identities = {key: self._fetcher.identity(key) for key in self._fetcher.artifacts}
        found = {key: self._airlock.verdict(key, identity) for key, identity in identities.items()}
        refused = gates.refusals(
            order,
            {key: verdict for key, verdict in found.items() if verdict is not None and verdict.has_passed},
            loaded={key for key, identity in identities.items() if (key, identity) in loaded},
            answering=self._champions(),
            settings=self._bounds,
        )
        for key, reason in refused.items():
            if key not in self._gated:
                log.error("version cannot be served", model=key[0], version=key[1], reason=reason)
        return refused

    def _found(self) -> Versions:
        """What may be loaded by any worker."""
        keys = {*plan_keys(self._desired.models), *self._fallbacks.versions.items()} & self._fetcher.artifacts.keys()
        identities = {key: self._fetcher.identity(key) for key in keys}
        return Versions(
            loadable={
                key: identity
                for key, identity in identities.items()
                if (verdict := self._airlock.verdict(key, identity)) is not None
                and verdict.has_passed
                and key not in self._gated
                and self._quarantine.reason(key, identity) is None
            },
            doubtful=frozenset(
                key for key, identity in identities.items() if self._quarantine.is_doubtful(key, identity)
            ),
            fallbacks=self._fallbacks.versions,
        )

    def _loaded(self) -> set[tuple[VersionKey, str]]:
        """What some worker has loaded, with the identity of its files."""
        return {item for worker in self._pool.workers.values() for item in worker.identities.items()}

    def _known_to(
        self, worker: WorkerProcess, known: Versions, loaded: AbstractSet[tuple[VersionKey, str]]
    ) -> Versions:
        """What this worker may load and may let answer."""
        loading = {other.loading for other in self._pool.workers.values() if other.loading is not None}
        loadable = one_first(known.loadable, loading, loaded)
        if not worker.is_listening:
            # Nobody waits for canaries and shadows: they are loaded while it answers. So is what ended a worker before.
            first = {
                *known.fallbacks.items(),
                *((model, plan.champion) for model, plan in self._desired.models.items()),
            }
            loadable = {
                key: identity
                for key, identity in loadable.items()
                if key in first and not self._can_wait(worker, known, key)
            }
        return replace(known, loadable=loadable, barred=frozenset(filter(self._is_barred(worker), worker.identities)))

    def _can_wait(self, worker: WorkerProcess, known: Versions, key: VersionKey) -> bool:
        """Whether a version ended a worker before, and another will answer for its model."""
        model, version = key
        other = known.fallbacks.get(model, version)
        return (
            key in known.doubtful
            and other != version
            and (model, other) in known.loadable
            and worker.versions.get((model, other), VersionStatus("LOADING")).state != "UNAVAILABLE"
        )

    def _is_barred(self, worker: WorkerProcess) -> Callable[[VersionKey], bool]:
        return lambda key: self._quarantine.reason(key, worker.identities.get(key, "")) is not None

    def _reconcile_worker(
        self,
        worker: WorkerProcess,
        desired: Mapping[str, TrafficPlan],
        loaded: AbstractSet[tuple[VersionKey, str]],
    ) -> None:
        """Sends one worker its next commands; none while it has not confirmed the last plans.

        Nor one that is ending, which would be said to have ended over a load that it never began.
        """
        if worker.is_serve_pending or worker.is_ending:
            return
        steps = next_steps(desired, self._known_to(worker, self._known, loaded), worker.snapshot())
        if steps.load is not None:
            self._load(worker, steps.load)
        for key in steps.unload:
            worker.on_unloading(key)
        self._serve(worker, worker.plans if steps.plans is None else dict(steps.plans))
        for key in steps.unload:
            worker.send(messages.Unload(*key))  # after the statuses, which say to callers why it does not answer
        if self._is_settled(worker) and not worker.is_serve_pending:
            worker.listen(self._address)

    def _load(self, worker: WorkerProcess, key: VersionKey) -> None:
        artifact, identity = self._fetcher.artifacts[key], self._fetcher.identity(key)
        verdict = self._airlock.verdict(key, identity)
        shape, baseline = CountersShape(), artifact.baseline
        if baseline is not None:
            answers = len(baseline.cells.answers)
            shape = CountersShape(*baseline.cells_shape, answers=answers, joint=baseline.joint_words)
        if artifact.ensemble is not None:
            shape = CountersShape(steps=len(artifact.ensemble.steps))
        counters = self._counters.version(worker.slot, key, shape, identity)
        command = messages.Load(
            *key,
            folder=str(artifact.path),
            counters=str(counters),
            features=shape.features,
            cells=shape.cells,
            answers=shape.answers,
            joint=shape.joint,
            steps=shape.steps,
            batching=None if verdict is None else verdict.batching,
            engine=None if verdict is None else verdict.engine,
            identity=identity,
        )
        worker.load(command, identity)

    def _serve(self, worker: WorkerProcess, plans: dict[str, TrafficPlan]) -> None:
        held = [held_by(worker)]
        routes = worker.routes
        names = self._desired.models.keys() | plans.keys() | self._desired.problems.keys()
        changed = {model for model, one in routes.items() if one.plan is not plans.get(model)}
        for model in (worker.touched | changed | names - routes.keys()) & names:
            found = ModelRoutes(
                plans.get(model),
                version_statuses(model, self._desired.models.get(model), held, self._standing),
                self._desired.problems.get(model, ""),
                self._is_on_call(model),
            )
            if routes.get(model) != found:
                routes[model] = found
        for model in routes.keys() - names:
            del routes[model]
        for model in worker.touched:
            self._views.pop(model, None)
        worker.touched.clear()
        worker.serve(dict(routes), self._is_settled(worker))

    def _is_on_call(self, model: str) -> bool:
        """Whether a model is loaded when it is asked for, and can be."""
        if not self.residents.is_on or model not in self._desired.models:
            return False
        champions = {self._desired.models[model].champion, self._fallbacks.versions.get(model)}
        return any((model, version) in self._loadable for version in champions) and not self.residents.why_not(model)

    def _champions(self) -> dict[str, str]:
        """The version of each model that answers in every worker; where models come and go, in those that have the model."""
        plans = [worker.plans for worker in self._pool.workers.values()]
        return agreed_champions(plans) if self.residents.is_on else common_champions(plans)

    def _note_what_answers(self) -> None:
        workers = list(self._pool.workers.values())
        champions = self._champions() if len(workers) == self._pool.slots else {}
        common = common_files(champions, [one.identities for one in workers], all_hold=not self.residents.is_on)
        self._fallbacks = self._fallbacks.after(common, self._desired.models.keys(), self._clock())

    def _is_settled(self, worker: WorkerProcess) -> bool:
        """Whether for each model something answers, or every version that could has been tried.

        Once true it stays true: loading a later version takes nothing from those that answer.
        """
        if not worker.has_settled and (self._is_polled or self._desired.models):
            is_known = not self._unanswered() or self._clock() - self._started_s > PATIENCE_S
            models = self._desired.models
            worker.has_settled = is_known and all(
                plan.champion is None or model in worker.plans or self._has_tried(worker, model, plan.champion)
                for model, plan in models.items()
                if self.residents.is_awaited(model, models)
            )
        return worker.has_settled

    def _has_tried(self, worker: WorkerProcess, model: str, champion: str) -> bool:
        """Whether a worker in which nothing answers for the model has nothing left to try."""
        versions = {champion, self._fallbacks.versions.get(model, champion)}
        return all(
            self._refusal((model, version)) is not None
            or self._awaits_kernels((model, version))  # most of a minute, which other models need not wait
            or ((model, version) in worker.versions and worker.versions[model, version].state == "UNAVAILABLE")
            for version in versions
        )

    def _refusal(self, key: VersionKey) -> str | None:
        """Why a version's present files cannot be loaded; None while that is not known."""
        if (failure := self._fetcher.failure(key)) is not None:
            return failure
        if key not in self._fetcher.artifacts:
            return None
        if self._awaits_kernels(key):
            return self.kernels.failure or None
        identity = self._fetcher.identity(key)
        verdict = self._airlock.verdict(key, identity)
        if verdict is not None and not verdict.has_passed:
            return verdict.reason
        if key in self._gated:
            return self._gated[key]
        return self._quarantine.reason(key, identity)

    def _standing(self, key: VersionKey) -> Standing:
        """What is known of a version apart from the workers that hold it."""
        refusal = self._refusal(key)
        if refusal is not None:
            is_barred = any(self._is_barred(worker)(key) for worker in list(self._pool.workers.values()))
            return Standing(VersionStatus("UNAVAILABLE", refusal), is_barred)
        if key not in self._fetcher.artifacts:
            return Standing(VersionStatus("LOADING", "its files are being fetched"))
        if self._awaits_kernels(key):
            return Standing(VersionStatus("LOADING", self.kernels.reason))
        verdict = self._airlock.verdict(key, self._fetcher.identity(key))
        if verdict is not None and self.residents.is_on:
            too_large = self.residents.why_not(key[0])
            if self.residents.is_left_out(*key, self._desired.models.get(key[0], TrafficPlan())):
                too_large = _LEFT_OUT
            status = VersionStatus("UNAVAILABLE", too_large) if too_large else VersionStatus("STANDBY", _STANDBY)
            return Standing(status, note=verdict.note)
        if verdict is not None:
            return Standing(VersionStatus("LOADING"), note=verdict.note)
        is_tried = self._airlock.is_trying(key)
        return Standing(
            VersionStatus("LOADING", "is being tried in a process of its own" if is_tried else "waits to be tried")
        )

    def view(self) -> ServerView:
        """What is known now."""
        workers = list(self._pool.workers.values())
        versions = version_views(self._desired, workers, self._standing, self._views)
        return ServerView(
            versions=versions,
            workers=tuple(
                WorkerView(
                    worker.slot,
                    worker.pid,
                    worker.is_listening,
                    self._pool.restarts[worker.slot],
                    worker.transport,
                    None if self._port is None else self._port.connections(worker.slot),
                )
                for worker in workers
            ),
            problems=self._desired.problems,
            not_ready_reason=not_ready_reason(self._signs(workers), self._desired, versions),
            reloads=self._reloads,
            failed_reloads=self._failed_reloads + self._airlock.failures,
            quarantined=self._quarantined(),
            process_ends=dict(self._process_ends),
        )

    def _quarantined(self) -> int:
        """How many desired versions are kept out by the airlock or because they ended workers."""
        keys = set(plan_keys(self._desired.models)) & set(self._fetcher.artifacts)
        return sum(self._fetcher.failure(key) is None and self._refusal(key) is not None for key in keys)

    def _signs(self, workers: Sequence[WorkerProcess]) -> Signs:
        can_load = self.residents.is_on and any(map(self._is_on_call, self._desired.models))
        return Signs(
            is_stopping=self._is_stopping,
            was_ready=self.ready.is_set(),
            is_polled=self._is_polled,
            unanswered=self._unanswered(),
            slots=self._pool.slots,
            workers=[WorkerSigns(one.is_listening, one.is_silent, bool(one.plans) or can_load) for one in workers],
        )

    def artifact(self, key: VersionKey) -> Artifact | None:
        """The files of a version, if they have been fetched."""
        return self._fetcher.artifacts.get(key)

    def identity(self, key: VersionKey) -> str:
        """The identity of these files."""
        return self._fetcher.identity(key)


def _answers(worker: WorkerProcess, key: VersionKey, identity: str) -> bool:
    """Whether a worker answers with a version, from files of this identity; "" for any."""
    plan = worker.plans.get(key[0])
    is_in_force = plan is not None and plan.champion == key[1] and not worker.is_serve_pending
    return is_in_force and identity in ("", worker.identities.get(key))


def _failure(worker: WorkerProcess, key: VersionKey) -> VersionStatus | None:
    """Why a worker could not load a version, or the new files of one; None if it has not failed."""
    if key in worker.notes:
        return VersionStatus("UNAVAILABLE", worker.notes[key])
    status = worker.versions.get(key)
    return status if status is not None and status.state == "UNAVAILABLE" else None
