"""Follows the registry for one model: fetches, tries and loads its versions beside the stream, and says which answer.

It is made of the parts of a server's control plane. The source is read and new versions are tried in processes of their
own, and `control.reconcile` decides what is loaded and which plan is in force. So a promotion means here what it means
there: the champion answers until its successor is loaded and proven. All of it runs on a thread of its own, and the stream
takes what is in force before each batch.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from penstock.names import VersionKey, VersionState
from penstock_server.clock import monotonic
from penstock_server.control.airlock import Airlock
from penstock_server.control.fetcher import ArtifactFetcher
from penstock_server.control.kernels import KernelCompiler
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.reconcile import Versions, WorkerSnapshot, load_order, next_steps, plan_keys
from penstock_server.control.source_client import SourceClient
from penstock_server.control.trial_process import TrialRunner
from penstock_server.control.verdict import LoadSettings, Trial, TrialLimits
from penstock_server.control.watcher import Watcher
from penstock_server.errors import PenstockError
from penstock_server.features.kernel_set import KERNELS
from penstock_server.models.artifact import Artifact
from penstock_server.paths import cache_dir
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources import messages
from penstock_server.sources.combined_source import CombinedSource, LastKnownState
from penstock_server.sources.registry import source_name
from penstock_server.sources.settings import CacheSettings, FetchSettings
from penstock_server.sources.source import Desired, Source
from penstock_tools.stream.version import StreamVersion

log = structlog.get_logger(__name__)

RECONCILE_S: Final = 1.0
"""The longest time between two looks, so that what failed is tried again."""
LIMITS: Final = TrialLimits(memory_mib=4096, timeout_s=120.0)
"""Of a version's trial; a server's defaults."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers now.

    Attributes:
        plan: in force; its versions are loaded.
        versions: what is loaded, by version.
    """

    plan: TrafficPlan
    versions: Mapping[str, StreamVersion]


@dataclass(slots=True)
class _Held:
    """What the follower has loaded, and what it is about to."""

    states: dict[VersionKey, VersionState] = field(default_factory=dict)
    tried: dict[VersionKey, str] = field(default_factory=dict)
    loaded: dict[str, StreamVersion] = field(default_factory=dict)
    reasons: dict[VersionKey, str] = field(default_factory=dict)
    loading: VersionKey | None = None
    plan: TrafficPlan | None = None


def registry_source(registry: str, model: str) -> Source:
    """An MLflow registry, of which one model is followed."""
    fetch, cache = FetchSettings(), CacheSettings()
    opening = messages.Open(
        messages.Registry(registry, (model,)),
        str(cache_dir()),
        fetch.max_mib,
        fetch.max_files,
        cache.max_mib,
        cache.keep,
    )
    return SourceClient(source_name(registry, (model,)), opening, fetch_timeout_s=fetch.timeout_s, has_spare=False)


class Follower:
    """Keeps the versions of a model loaded that the registry says.

    Args:
        model: its name.
        source: makes where it comes from; called on the follower's thread.
        load: makes a version of its files, for this key; called on a thread of its own. `PenstockError` if it cannot be used.
        interval_s: from one poll of the source to the next.
        how: how versions are loaded, as the trial of each does too.
    """

    def __init__(
        self,
        model: str,
        source: Callable[[], Source],
        load: Callable[[VersionKey, Artifact, str], StreamVersion],
        *,
        interval_s: float,
        how: LoadSettings,
    ) -> None:
        self._model = model
        self._source = source
        self._load = load
        self._interval_s = interval_s
        self._how = how
        self._held = _Held()
        self._desired = Desired()
        self._serving: Serving | None = None
        self._is_serving = threading.Event()
        self._retired: list[StreamVersion] = []
        self._problem = "the registry has not answered yet"
        self._source_reason = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Starts its thread."""
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Waits until something can answer; false if nothing can after so many seconds."""
        return self._is_serving.wait(timeout_s)

    @property
    def serving(self) -> Serving | None:
        """What is in force, for those who only look."""
        return self._serving

    @property
    def problem(self) -> str:
        """Why nothing answers, in one sentence."""
        return self._source_reason or self._problem

    def take(self) -> Serving:
        """What is in force from now on; on the stream's thread, which no longer uses what was in force before.

        Raises:
            RuntimeError: the follower's thread has failed, which is a bug.
        """
        if self._failure is not None:
            raise RuntimeError("the thread that follows the registry has failed") from self._failure
        serving = self._serving
        assert serving is not None
        while self._retired:
            self._retired.pop().close()
        return serving

    def close(self) -> None:
        """Ends its thread and processes, and frees every version."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        for each in (*self._retired, *self._held.loaded.values()):
            each.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._follow())
        except BaseException as error:
            log.exception("following the registry failed")
            self._failure = error

    async def _follow(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        source = CombinedSource([self._source()], last_known=LastKnownState())
        change = asyncio.Event()
        fetcher = ArtifactFetcher(source, clock=monotonic, changed=change.set)
        proven = ProvenVersions(LIMITS)
        airlock = Airlock(TrialRunner(LIMITS, has_spare=False).run, proven, changed=change.set)
        kernels = KernelCompiler(KERNELS, change.set)

        def desire(desired: Desired) -> None:
            self._desired = desired
            change.set()

        def polled() -> None:
            state = source.states[0]
            self._source_reason = state.reason if state.state != "answers" else ""
            if self._model not in self._desired.models and state.state == "answers":
                self._problem = self._desired.problems.get(self._model) or f"there is no model {self._model!r}"

        watcher = Watcher(source, interval_s=self._interval_s, desired=desire, polled=polled)
        tasks = [asyncio.create_task(watcher.run()), asyncio.create_task(self._stopping.wait())]
        changed = None
        try:
            while not tasks[1].done():
                self._look(fetcher, airlock, kernels, change)
                changed = asyncio.create_task(change.wait())
                done, _ = await asyncio.wait(
                    {*tasks, changed}, timeout=RECONCILE_S, return_when=asyncio.FIRST_COMPLETED
                )
                changed.cancel()
                change.clear()
                if tasks[0] in done:
                    tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await airlock.close()
            await fetcher.close()
            await kernels.close()
            await source.close()

    def _look(self, fetcher: ArtifactFetcher, airlock: Airlock, kernels: KernelCompiler, change: asyncio.Event) -> None:
        """Does what can be done now to serve what the source desires."""
        held = self._held
        plan = self._desired.models.get(self._model)
        desired = {} if plan is None else {self._model: plan}
        fetcher.require({*plan_keys(desired), *held.states}, self._desired.identities)
        artifacts = fetcher.artifacts
        if any(artifact.features is not None for artifact in artifacts.values()):
            kernels.require()
        trials = [
            Trial(*key, fetcher.identity(key), str(artifacts[key].path), self._how)
            for key in load_order(desired, Versions(), {})
            if key in artifacts and (artifacts[key].features is None or kernels.is_ready)
        ]
        airlock.require(trials)
        loadable = {
            trial.key: trial.identity
            for trial in trials
            if (verdict := airlock.verdict(trial.key, trial.identity)) is not None and verdict.has_passed
        }
        present = {} if held.plan is None else {self._model: held.plan}
        steps = next_steps(desired, Versions(loadable), WorkerSnapshot(held.states, present, held.tried, held.loading))
        if steps.load is not None:
            self._begin(steps.load, artifacts[steps.load], loadable[steps.load], change)
        if steps.plans is not None:
            self._put_in_force(steps.plans.get(self._model))
            change.set()
        for key in steps.unload:
            self._unload(key)
        if plan is not None and held.plan is None:
            self._problem = self._why(plan, fetcher, airlock, kernels)

    def _begin(self, key: VersionKey, artifact: Artifact, identity: str, change: asyncio.Event) -> None:
        """Loads a version on a thread of its own."""
        held, loop = self._held, asyncio.get_running_loop()
        held.loading = key
        held.tried[key] = identity
        held.states.setdefault(key, "LOADING")

        def take_in(found: StreamVersion | None, reason: str) -> None:
            held.loading = None
            if found is None:
                log.error("version cannot be loaded", model=key[0], version=key[1], reason=reason)
                held.reasons[key] = reason
                if key[1] not in held.loaded:
                    held.states[key] = "UNAVAILABLE"
            else:
                former = held.loaded.get(key[1])
                held.loaded[key[1]] = found
                held.states[key] = "READY"
                if held.plan is not None:
                    self._put_in_force(held.plan)
                if former is not None:
                    self._retired.append(former)
                log.info("version loaded", model=key[0], version=key[1])
            change.set()

        def work() -> None:
            try:
                found, reason = self._load(key, artifact, identity), ""
            except PenstockError as error:
                found, reason = None, str(error)
            except Exception as error:
                log.exception("load failed", model=key[0], version=key[1])
                found, reason = None, f"loading failed: {type(error).__name__}"
            loop.call_soon_threadsafe(take_in, found, reason)

        threading.Thread(target=work, name="load", daemon=True).start()

    def _put_in_force(self, plan: TrafficPlan | None) -> None:
        """Has this plan's versions answer from the next batch on; None leaves those that answer."""
        held = self._held
        held.plan = plan
        if plan is None:
            log.warning("the registry has no champion any more; the last one answers on", model=self._model)
            return
        self._serving = Serving(plan, dict(held.loaded))
        self._is_serving.set()
        log.info(
            "versions in force",
            model=self._model,
            champion=plan.champion,
            canaries={arm.version: arm.weight for arm in plan.canaries},
            shadows={arm.version: arm.fraction for arm in plan.shadows},
        )

    def _unload(self, key: VersionKey) -> None:
        held = self._held
        serving = self._serving
        if serving is not None and key[1] in serving.plan.versions:
            return  # the last champion answers on
        held.states.pop(key, None)
        held.tried.pop(key, None)
        held.reasons.pop(key, None)
        found = held.loaded.pop(key[1], None)
        if found is not None:
            if serving is not None:
                self._serving = Serving(serving.plan, dict(held.loaded))
            self._retired.append(found)
            log.info("version unloaded", model=key[0], version=key[1])

    def _why(self, plan: TrafficPlan, fetcher: ArtifactFetcher, airlock: Airlock, kernels: KernelCompiler) -> str:
        """Why no version answers."""
        if plan.champion is None:
            return self._desired.problems.get(self._model) or f"model {self._model!r} has no champion"
        key = (self._model, plan.champion)
        verdict = airlock.verdict(key, fetcher.identity(key)) if key in fetcher.artifacts else None
        refused = verdict.reason if verdict is not None else ""
        reason = (
            fetcher.failure(key) or refused or self._held.reasons.get(key) or kernels.reason or "it is being loaded"
        )
        return f"model {self._model!r} version {plan.champion}: {reason}"
