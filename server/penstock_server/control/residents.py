"""Knows which models each worker is to have in memory, where they are loaded when they are asked for.

It is the memory behind `control.residency`, which decides: since when a model is in, when it last answered (which the worker's
counters tell, so that no request pays for it), and what the process really takes. The supervisor asks once a round, and brings
the worker to what is said here as it does to a desired state.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from penstock.names import VersionKey, VersionState
from penstock_server.clock import Clock
from penstock_server.control.residency import EVICTION_REASONS, LOW_SHARE, EvictionReason, Held, changes
from penstock_server.control.settings import ResidencySettings
from penstock_server.rollout.plan import TrafficPlan, VersionStatus

log = structlog.get_logger(__name__)

COLD_START_EDGES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
ROOM_SHARE: Final = 0.95
"""Of the budget; what is left is for what a load takes for a moment, and for requests."""
TOO_LARGE_S: Final = 60.0
"""After this time a model that did not fit may be asked for again: something else may have left."""
LEFT_S: Final = 3.0
"""A worker asks once a second for a model that calls wait for; after this time nobody waits any more."""
_IN_MEMORY: Final = frozenset({"READY", "UNLOADING"})
_MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Use:
    """What a worker's counters say of a version.

    Attributes:
        answered_s: when it last answered, by the monotonic clock; 0 before the first time.
        is_busy: calls of it wait or run.
    """

    answered_s: float
    is_busy: bool


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What is known of a worker when it is decided what it is to have in memory.

    Attributes:
        versions: the state of each version that it was told to load.
        champions: the models that answer in it now.
        resident_bytes: what its process takes; 0 while it does not accept calls, when nothing can be asked of it either.
        uses: what its counters say, by version.
    """

    versions: Mapping[VersionKey, VersionStatus]
    champions: AbstractSet[str]
    resident_bytes: int
    uses: Mapping[VersionKey, Use]


@dataclass(frozen=True, slots=True)
class Registered:
    """What is known of the models.

    Attributes:
        plans: what each of them is to serve.
        size: what a version takes in memory, in bytes; None for one that cannot be loaded, or not yet.
        is_refused: whether it is known that a version cannot be loaded.
        needs: the models that an ensemble asks, by its name; without models that ask none.
        fallbacks: the version of each model that answered before; it is loaded where its champion cannot be.
    """

    plans: Mapping[str, TrafficPlan]
    size: Callable[[VersionKey], int | None]
    is_refused: Callable[[VersionKey], bool] = lambda _: False
    needs: Mapping[str, AbstractSet[str]] = field(default_factory=dict)
    fallbacks: Mapping[str, str] = field(default_factory=dict)

    def versions(self, model: str) -> tuple[str, ...]:
        """The versions that a worker loads for a model, first the one that answers."""
        champion, others = self.plans[model].champion, self.plans[model].versions[1:]
        if champion is None:
            return ()
        fallback = self.fallbacks.get(model, champion)
        if self.size((model, champion)) is None and self.size((model, fallback)) is not None:
            champion = fallback
        return (champion, *(version for version in others if version != champion))

    def size_of(self, model: str) -> int | None:
        """What a model takes with all its versions; None while none of them is known that could answer."""
        versions = self.versions(model)
        if not versions or self.size((model, versions[0])) is None:
            return None
        return self.bytes_of((model, version) for version in versions)

    def bytes_of(self, keys: Iterable[VersionKey]) -> int:
        """What these versions take, as far as they are proven."""
        return sum(self.size(key) or 0 for key in keys)


class _Worker:
    """One worker.

    Attributes:
        since_s: when each model was let in.
        used_s: when it was last asked for, or answered.
        asked_s: when each model was asked for that is not in.
        cold_s: when each model was asked for that is in and does not answer yet.
        too_large: why a model does not fit, and when that was found.
        alone: the models whose champion is alone in memory, since the other versions do not fit.
        size_bytes: what the models take that are in, by what they took when they were tried.
        sizes: what each of their versions takes.
    """

    def __init__(self) -> None:
        self.since_s: dict[str, float] = {}
        self.used_s: dict[str, float] = {}
        self.asked_s: dict[str, float] = {}
        self.cold_s: dict[str, float] = {}
        self.too_large: dict[str, tuple[str, float]] = {}
        self.alone: set[str] = set()
        self.size_bytes = 0
        self.sizes: dict[VersionKey, int] = {}


@dataclass(slots=True)
class Totals:
    """What has happened since the start.

    Attributes:
        cold_starts: models that were loaded since a call waited for them, or were not, by result.
        cold_buckets: of those that were loaded by the time from the first call to the answer; the last above all edges.
        cold_s: the sum of these times.
        evictions: by reason.
    """

    cold_starts: Counter[str] = field(default_factory=lambda: Counter({"loaded": 0, "failed": 0}))
    cold_buckets: list[int] = field(default_factory=lambda: [0] * (len(COLD_START_EDGES_S) + 1))
    cold_s: float = 0.0
    evictions: Counter[EvictionReason] = field(default_factory=lambda: Counter(dict.fromkeys(EVICTION_REASONS, 0)))


class Residents:
    """Which models each worker is to have in memory.

    Args:
        settings: the budget.
        clock: the time.

    Attributes:
        totals: what has happened.
    """

    def __init__(self, settings: ResidencySettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._workers: dict[int, _Worker] = {}
        self._pinned: tuple[Mapping[str, TrafficPlan], frozenset[str]] = ({}, frozenset())
        self.totals = Totals()

    @property
    def is_on(self) -> bool:
        """Whether models come and go; else every worker has all of them."""
        return self.settings.is_on

    @property
    def asked(self) -> list[str]:
        """The models that some worker's callers wait for and that are not in there, the first asked for first."""
        asked = sorted((at_s, model) for worker in self._workers.values() for model, at_s in worker.asked_s.items())
        return list(dict.fromkeys(model for _, model in asked))

    def ask(self, slot: int, model: str) -> None:
        """A worker's callers wait for a model."""
        worker, now_s = self._worker(slot), self._clock()
        worker.used_s[model] = now_s
        if model in worker.since_s:
            worker.cold_s.setdefault(model, now_s)
        else:
            worker.asked_s.setdefault(model, now_s)

    def why_not(self, model: str) -> str:
        """Why a model will not fit, in one sentence; "" if it may, as where some worker has it or is about to."""
        workers = list(self._workers.values())
        if any(model in one.since_s or model in one.asked_s for one in workers):
            return ""
        return next((one.too_large[model][0] for one in workers if model in one.too_large), "")

    def is_left_out(self, model: str, version: str, plan: TrafficPlan) -> bool:
        """Whether a version does not fit beside its model's champion, which is more important."""
        return version != plan.champion and any(model in one.alone for one in self._workers.values())

    def alone(self, slot: int) -> AbstractSet[str]:
        """The models whose champion a worker is to have in memory without their other versions."""
        return self._worker(slot).alone

    def fitting(self, slot: int, plans: Mapping[str, TrafficPlan]) -> Mapping[str, TrafficPlan]:
        """The plans as far as a worker has room for them: where not all versions of a model fit, its champion's alone."""
        alone = self.alone(slot) & plans.keys()
        return {**plans, **{model: TrafficPlan(plans[model].champion) for model in alone}} if alone else plans

    def models(self, slot: int) -> list[str]:
        """The models that a worker is to have in memory: those that callers wait for first, then the last used ones."""
        worker = self._worker(slot)
        rest = (model for model in worker.since_s if model not in worker.cold_s)
        last_used = sorted(rest, key=lambda model: worker.used_s[model], reverse=True)
        return [*(model for model in worker.cold_s if model in worker.since_s), *last_used]

    def is_awaited(self, model: str, plans: Mapping[str, TrafficPlan]) -> bool:
        """Whether a worker waits for a model before it accepts calls, where it waits for all that it can load."""
        return not self.is_on or model in self._all_pinned(plans)

    def in_memory(self) -> dict[int, tuple[int, int]]:
        """By slot, how many models are in, and what they take by what they took when they were tried."""
        return {slot: (len(worker.since_s), worker.size_bytes) for slot, worker in list(self._workers.items())}

    def decide(self, slot: int, state: WorkerState, registered: Registered) -> AbstractSet[str]:
        """Lets models in, and has others leave; the models that begin or cease not to fit, all of them or some versions."""
        worker, now_s = self._worker(slot), self._clock()
        former_large, former_alone = {*worker.too_large}, {*worker.alone}
        self._forget(worker, registered.plans, now_s)
        for model in sorted(self._all_pinned(registered.plans)):
            self._let_in(worker, model, registered, now_s)
        self._look(worker, state, registered, now_s)
        self._drop_mute(worker, state, registered)
        # Before it accepts calls, its process is still importing, and nobody waits.
        if state.resident_bytes:
            is_loading = any(one.state == "LOADING" for one in state.versions.values())
            if not is_loading:
                self._leave_alone(slot, state, registered)
            fitting = replace(registered, plans=self.fitting(slot, registered.plans))
            self._change(slot, state, fitting, now_s, is_loading=is_loading)
        return (former_large ^ worker.too_large.keys()) | (former_alone ^ worker.alone)

    @property
    def _budget_bytes(self) -> int:
        return int(ROOM_SHARE * (self.settings.memory_budget_mib or 0) * _MEBIBYTE)

    def _change(self, slot: int, state: WorkerState, registered: Registered, now_s: float, *, is_loading: bool) -> None:
        worker = self._worker(slot)
        sizes = {model: registered.size_of(model) for model in worker.asked_s}
        asked = {
            model: size + self._missing_bytes(worker, model, registered)
            for model, size in sizes.items()
            if size is not None
        }
        found = changes(
            self._held(worker, state, registered),
            asked,
            used_bytes=self._used_bytes(worker, state, registered),
            budget_bytes=self._budget_bytes,
            stay_s=self.settings.stay_s,
            now_s=now_s,
            is_loading=is_loading,
        )
        for model, reason in found.too_large.items():
            worker.too_large[model] = (reason, now_s)
            del worker.asked_s[model]
            self.totals.cold_starts["failed"] += 1
            log.error("a model does not fit", slot=slot, model=model, reason=reason)
        for model, cause in found.evict.items():
            for going in {model, *(name for name in worker.since_s if model in registered.needs.get(name, ()))}:
                worker.since_s.pop(going, None)
                worker.cold_s.pop(going, None)
                for one in self._workers.values():
                    one.too_large.pop(going, None)  # it did fit here
            self.totals.evictions[cause] += 1
            log.info("a model leaves memory", slot=slot, model=model, reason=cause)
        for model in found.let_in:
            worker.too_large.pop(model, None)
            self._let_in(worker, model, registered, now_s)

    def _leave_alone(self, slot: int, state: WorkerState, registered: Registered) -> None:
        """Finds the models whose champion is to be in memory without the other versions, which do not fit."""
        worker = self._worker(slot)
        fitting = replace(registered, plans=self.fitting(slot, registered.plans))
        held = self._held(worker, state, fitting)
        # What is taken with every model gone that may leave.
        rest_bytes = self._used_bytes(worker, state, fitting)
        rest_bytes -= sum(one.size_bytes for one in held.values() if not one.is_pinned)
        for model in {**worker.since_s, **worker.asked_s}:
            others = registered.versions(model)[1:]
            own_bytes = held[model].size_bytes if model in held and held[model].is_pinned else 0
            needed_bytes = rest_bytes - own_bytes + (registered.size_of(model) or 0)
            if model not in worker.asked_s and model not in worker.alone:
                # What is in memory stays there: a process may grow for a while by what it is asked.
                others = tuple(version for version in others if (model, version) not in state.versions)
            if model in worker.alone and (not others or needed_bytes <= LOW_SHARE * self._budget_bytes):
                worker.alone.discard(model)
            elif model not in worker.alone and others and needed_bytes > self._budget_bytes:
                worker.alone.add(model)
                log.warning("versions do not fit beside their champion", slot=slot, model=model, versions=others)

    def _forget(self, worker: _Worker, plans: Mapping[str, TrafficPlan], now_s: float) -> None:
        for known in (worker.since_s, worker.used_s, worker.cold_s, worker.asked_s):
            for model in known.keys() - plans.keys():
                del known[model]
        worker.too_large = {
            model: found
            for model, found in worker.too_large.items()
            if model in plans and now_s - found[1] < TOO_LARGE_S
        }
        for model in [model for model in worker.asked_s if now_s - worker.used_s[model] > LEFT_S]:
            del worker.asked_s[model]
            self.totals.cold_starts["failed"] += 1
        worker.alone &= worker.since_s.keys() | worker.asked_s.keys()

    def _let_in(self, worker: _Worker, model: str, registered: Registered, now_s: float) -> None:
        for each in (model, *sorted(registered.needs.get(model, ()))):
            if each in registered.plans and each not in worker.since_s:
                worker.since_s[each] = now_s
                worker.used_s.setdefault(each, now_s)
            if each in worker.asked_s:
                worker.cold_s[each] = worker.asked_s.pop(each)

    def _look(self, worker: _Worker, state: WorkerState, registered: Registered, now_s: float) -> None:
        """Takes in when each model last answered, and which of those that callers wait for answer now."""
        for (model, _), use in state.uses.items():
            if model in worker.since_s:
                worker.used_s[model] = max(worker.used_s[model], use.answered_s)
        for model, needed in registered.needs.items():
            for each in needed & worker.since_s.keys() if model in worker.since_s else ():
                worker.used_s[each] = max(worker.used_s[each], worker.used_s[model])
        for model, asked_s in list(worker.cold_s.items()):
            champion = state.versions.get((model, registered.plans[model].champion or ""))
            if champion is not None and champion.state == "UNAVAILABLE" and model not in state.champions:
                del worker.cold_s[model]
                self.totals.cold_starts["failed"] += 1
            elif model in state.champions:
                del worker.cold_s[model]
                took_s = now_s - asked_s
                self.totals.cold_starts["loaded"] += 1
                self.totals.cold_buckets[bisect_left(COLD_START_EDGES_S, took_s)] += 1
                self.totals.cold_s += took_s

    def _drop_mute(self, worker: _Worker, state: WorkerState, registered: Registered) -> None:
        """Forgets models that cannot answer: what may be loaded of them is their canaries, which nobody could reach."""
        for model in [model for model in worker.since_s if model not in state.champions]:
            champion = registered.plans[model].champion
            if registered.size_of(model) is None and champion is not None and registered.is_refused((model, champion)):
                del worker.since_s[model]
                if worker.cold_s.pop(model, None) is not None:
                    self.totals.cold_starts["failed"] += 1

    def _held(self, worker: _Worker, state: WorkerState, registered: Registered) -> dict[str, Held]:
        pinned = worker.since_s.keys() & self._all_pinned(registered.plans)
        pinned |= {each for model in pinned for each in registered.needs.get(model, ())}
        busy = {key[0] for key, use in state.uses.items() if use.is_busy and key in state.versions}
        stuck = {model for model in worker.since_s.keys() & state.champions if registered.size_of(model) is None}
        refused = {model for model in stuck if registered.is_refused((model, registered.plans[model].champion or ""))}
        worker.sizes = self._sizes(worker, state, registered)
        of_model: Counter[str] = Counter()
        for key, size_bytes in worker.sizes.items():
            of_model[key[0]] += size_bytes
        held = {
            model: Held(
                of_model[model],
                worker.used_s[model],
                since_s,
                # What could not come back stays, so that something answers: until other files of it are proven.
                is_pinned=model in pinned | refused,
                is_busy=model in busy | stuck | worker.cold_s.keys(),
            )
            for model, since_s in worker.since_s.items()
        }
        worker.size_bytes = sum(one.size_bytes for one in held.values())
        return held

    def _sizes(self, worker: _Worker, state: WorkerState, registered: Registered) -> dict[VersionKey, int]:
        """What each version takes that leaves with its model: those that are to be there, and those that still are.

        A version whose new files are being tried, or that gave way to another, is not known by its size any more, and takes
        what it took: else its memory would count as that of nobody, and other models would not seem to fit.
        """
        found = {
            (model, version): registered.size((model, version)) or 0
            for model in worker.since_s
            for version in registered.versions(model)
        }
        for key, one in state.versions.items():
            if key[0] in worker.since_s and one.state in _IN_MEMORY:
                found[key] = max(found.get(key, registered.size(key) or 0), worker.sizes.get(key, 0))
        return found

    def _missing_bytes(self, worker: _Worker, model: str, registered: Registered) -> int:
        """What the models take that an ensemble asks and that are not in."""
        more = registered.needs.get(model, frozenset()) & registered.plans.keys() - worker.since_s.keys()
        return sum(registered.size_of(each) or 0 for each in more)

    def _used_bytes(self, worker: _Worker, state: WorkerState, registered: Registered) -> int:
        """What the process takes, once it has loaded what it is to have and given back what is to leave."""
        coming = registered.bytes_of(
            (model, version)
            for model in worker.since_s
            for version in registered.versions(model)
            if _state(state, (model, version)) == "LOADING"
        )
        going = registered.bytes_of(
            key for key, one in state.versions.items() if key[0] not in worker.since_s and one.state in _IN_MEMORY
        )
        return state.resident_bytes + coming - going

    def _all_pinned(self, plans: Mapping[str, TrafficPlan]) -> frozenset[str]:
        """The models that never leave; the same plans are asked about in each round."""
        if self._pinned[0] is not plans:
            self._pinned = plans, frozenset(filter(self.settings.is_pinned, plans))
        return self._pinned[1]

    def _worker(self, slot: int) -> _Worker:
        if slot not in self._workers:
            self._workers[slot] = _Worker()
        return self._workers[slot]


def _state(state: WorkerState, key: VersionKey) -> VersionState:
    """How far a version is that is to be loaded: one that the worker was not told of yet counts as loading."""
    status = state.versions.get(key)
    return "LOADING" if status is None else status.state
