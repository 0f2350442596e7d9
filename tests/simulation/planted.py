"""Bugs that are planted into the control plane, to prove that the simulation finds such ones.

Each takes the place of a rule that the code keeps.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from penstock_server.control import fetcher, reconcile, supervisor
from penstock_server.control.airlock import Airlock
from penstock_server.control.fetcher import ArtifactFetcher
from penstock_server.control.lease_keeper import LeaseKeeper
from penstock_server.control.quarantine import FORGIVEN_S, Quarantine
from penstock_server.control.residents import Residents
from penstock_server.control.rollouts import RolloutController
from penstock_server.control.source_client import SourceClient
from penstock_server.control.watchdog import Vigil
from penstock_server.control.worker_pool import WorkerPool
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.metrics.store import CounterStore
from penstock_server.rollout.evidence import fresh
from penstock_server.rollout.lease import ModelLease
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.combined_source import Member
from penstock_server.sources.source import Desired


def _unloads_at_once(desired: Any, known: Any, worker: Any) -> Any:
    steps = reconcile.next_steps(desired, known, worker)
    needed = set(reconcile.plan_keys(desired))
    extra = tuple(key for key, state in worker.versions.items() if key not in needed and state == "READY")
    return replace(steps, unload=extra)


def _gives_way(desired: Any, ready: Any, present: Any, fallback: Any = None) -> Any:
    if desired.champion not in ready:
        return None
    return _effective_plan(desired, ready, present, fallback)


def _trusts(desired: Any, ready: Any, present: Any, fallback: Any = None) -> Any:
    return None if desired.champion is None else TrafficPlan(desired.champion, desired.canaries, desired.shadows)


def _loads_more(worker: Any) -> Any:
    return replace(_snapshot(worker), loading=None)


def _forgets_the_identity(quarantine: Any, key: Any, identity: str) -> Any:
    ends = quarantine._ends.get(key)
    return None if ends is None or len(ends.times_s) < 2 else "is kept out"


def _forgives(quarantine: Any, key: Any, identity: str) -> Any:
    ends = quarantine._ends.get(key)
    is_old = ends is not None and quarantine._clock() - ends.times_s[-1] > FORGIVEN_S
    return None if is_old else _reason(quarantine, key, identity)


async def _forgets_when_away(member: Any) -> None:
    await _poll(member)
    if member.state.state == "away":
        member.known = Desired()


def _drops_early(store: Any, slot: int, keys: Any) -> None:
    for key in list(store._versions):
        store.forget(slot, key)


async def _leaves_trials(airlock: Any) -> None:
    airlock._is_closed = True


async def _starts_once(pool: Any, slot: int) -> None:
    with suppress(OSError):
        pool._counters.still(slot)
        worker = await pool._spare.take()
        worker.begin(slot, pool._counters.slot(slot))
        await pool._follow(worker)


async def _leaves_processes(client: Any) -> None:
    client._is_closed = True


def _acts_at_once(keeper: Any, model: str) -> bool:
    return keeper._leases.get(model, ModelLease()).wrote_s is not None


def _looks_back(controller: Any, found: Any, known: Any, progress: Any, looked: Any) -> Any:
    """Takes all that each server has counted for what came since the last look, where there was none."""
    if progress is not None:
        for place, snapshot in looked.items():
            known.before.setdefault(place, fresh(snapshot))
    return _evidence(controller, found, known, progress, looked)


_evidence = RolloutController._evidence
_effective_plan, _snapshot, _poll = reconcile.effective_plan, WorkerProcess.snapshot, Member.poll
_reason = Quarantine.reason


@dataclass(frozen=True)
class Plant:
    """What stands in the place of a rule, and a seed that finds it out."""

    place: Any
    rule: str
    instead: Any
    seed: str


PLANTED: Final = {
    "a version is unloaded before the plan without it is in force": Plant(
        supervisor, "next_steps", _unloads_at_once, "0"
    ),
    "the former champion gives way before the next is ready": Plant(reconcile, "effective_plan", _gives_way, "1"),
    "a version is served before it is loaded": Plant(reconcile, "effective_plan", _trusts, "0"),
    "a version registered anew keeps its old files": Plant(
        ArtifactFetcher, "_is_there", lambda own, key, identity: key in own._artifacts, "7"
    ),
    "a worker is told to load while it loads": Plant(WorkerProcess, "snapshot", _loads_more, "1"),
    "all workers try a new version at once": Plant(
        supervisor, "one_first", lambda loadable, loading, held: dict(loadable), "0"
    ),
    "the quarantine is not lifted when files change": Plant(Quarantine, "reason", _forgets_the_identity, "44"),
    "what is kept out comes back after an hour": Plant(Quarantine, "reason", _forgives, "9"),
    "what is desired is forgotten while a poll fails": Plant(Member, "poll", _forgets_when_away, "3"),
    "counters are dropped while they are counted in": Plant(CounterStore, "keep", _drops_early, "0"),
    "a worker that hangs is not noticed": Plant(Vigil, "cause", lambda vigil, limits: None, "0"),
    "trials go on when the server ends": Plant(Airlock, "close", _leaves_trials, "28"),
    "a fetch that failed is not tried again": Plant(fetcher, "RETRY_AWAY_S", 1e9, "8"),
    "a worker that ended is not replaced": Plant(WorkerPool, "_keep_alive", _starts_once, "2"),
    "a champion stays out with the canaries that do not fit beside it": Plant(
        Residents, "_leave_alone", lambda *_: None, "87"
    ),
    "the server does not wait for its sources' processes": Plant(SourceClient, "close", _leaves_processes, "0"),
}
"""By what goes wrong."""
ROLLOUTS_PLANTED: Final = {
    "a server acts as soon as it has written its name": Plant(LeaseKeeper, "is_held", _acts_at_once, "1"),
    "what was counted before is counted again": Plant(RolloutController, "_evidence", _looks_back, "10"),
}
"""The same of rollouts."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Has the code do it wrong."""
    plant = {**PLANTED, **ROLLOUTS_PLANTED}[name]
    with patch.object(plant.place, plant.rule, plant.instead):
        yield
