"""The rollout controller: looks at each rollout's evidence, and writes the next step to the registry.

What is decided is pure (`rollout.step`), and what is true is in the registry: a controller that ends, hangs or loses the
registry freezes the ramp where it is, and whoever acts next goes on from there. Of several servers that may act, one holds the
model's lease (`rollout.lease`), and everything is written under the condition that it still does, and that nobody has written
since. Nothing waits here for longer than its deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

import msgspec
import structlog

from penstock.names import CHAMPION, VersionKey
from penstock_server.clock import Clock, monotonic
from penstock_server.control.lease_keeper import LeaseKeeper, WritesRegistry
from penstock_server.errors import PenstockError
from penstock_server.metrics.counters import SCORE_EDGES
from penstock_server.rollout.decision import Decision, VersionHealth
from penstock_server.rollout.evidence import Evidence, Snapshot, between, fresh, read_evidence, write_evidence
from penstock_server.rollout.gates import gate_of, interval_of
from penstock_server.rollout.lease import LEASE_S, holder_of
from penstock_server.rollout.progress import (
    EVIDENCE_TAG,
    HISTORY_TAG,
    LEASE_TAG,
    PROGRESS_TAG,
    SPEC_TAG,
    HistoryEntry,
    Progress,
    read_history,
    read_progress,
    write_history,
)
from penstock_server.rollout.registered import Change, DeleteTag, Expected, RegisteredRollout, SetTag
from penstock_server.rollout.spec import RolloutSpec, as_mapping, parse
from penstock_server.rollout.step import Known, RolloutStep, next_step

log = structlog.get_logger(__name__)

SAVE_S: Final = 30.0
"""How often evidence goes into the registry while nothing else is written: so much is lost when a controller is killed."""

LEAVE_S: Final = 3.0
"""How long a server that ends may take to leave its rollouts to others."""


@dataclass(frozen=True, slots=True)
class RolloutView:
    """What is known here of one model's rollout, for people and metrics.

    Attributes:
        version: the version that is rolled out.
        progress: its record; None before it begins, or where the record cannot be read.
        history: what has happened.
        holder: who acts on it, "" for nobody yet.
        is_acting: whether that is this server.
        evidence: what this server knows; that of the registry where another one acts.
        decision: what was decided at the last look; None where another server acts.
        problem: why nothing can be written now; "" where nothing is wrong.
        declared: what it is to do, while there is no record; None where that cannot be read either.
    """

    model: str
    version: str
    progress: Progress | None
    history: tuple[HistoryEntry, ...] = ()
    holder: str = ""
    is_acting: bool = False
    evidence: Evidence = field(default_factory=Evidence)
    decision: Decision | None = None
    problem: str = ""
    declared: RolloutSpec | None = None

    @property
    def spec(self) -> RolloutSpec | None:
        """What it is to do, as far as that is known."""
        return self.declared if self.progress is None else self.progress.spec


@dataclass(slots=True)
class _Model:
    """What the controller keeps about one model between looks."""

    version: str
    evidence: Evidence | None = None
    before: dict[str, Snapshot] = field(default_factory=dict)
    saved_s: float = 0.0
    decision: Decision | None = None
    problem: str = ""


class RolloutController:
    """Acts on the rollouts of all models.

    Args:
        holder: this server's name in leases; no other run of a server has it.
        rollouts: what the registry says, by model.
        registry: where it is written.
        refresh: has the registry read again; returns when that is known here.
        look: what every server has counted of a model's version and champion, each under its address; the first is this one.
        health: how a version stands here.
        wall: the time in seconds since 1970.
        lease_s: how long a lease lasts.
        clock: for leases.
    """

    def __init__(
        self,
        *,
        holder: str,
        rollouts: Callable[[], Mapping[str, RegisteredRollout]],
        registry: WritesRegistry,
        refresh: Callable[[], Awaitable[None]],
        look: Callable[[str, str, str], Awaitable[Mapping[str, Snapshot]]],
        health: Callable[[VersionKey], VersionHealth],
        wall: Callable[[], float],
        lease_s: float = LEASE_S,
        clock: Clock = monotonic,
    ) -> None:
        self._leases = LeaseKeeper(
            holder=holder, tag=LEASE_TAG, registry=registry, refresh=refresh, lease_s=lease_s, clock=clock
        )
        self._rollouts = rollouts
        self._registry = registry
        self._refresh = refresh
        self._look = look
        self._health = health
        self._wall = wall
        self._clock = clock
        self._models: dict[str, _Model] = {}
        self._started_s = wall()

    async def run(self, interval_s: float) -> None:
        """Looks at an interval, until cancelled; then leaves the rollouts to others."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(interval_s)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self.leave()

    async def look(self) -> None:
        """Looks at every rollout once, and takes the steps that are due. One that fails holds up no other."""
        rollouts = self._rollouts()
        for model in self._models.keys() - rollouts.keys():
            del self._models[model]
        self._leases.forget(rollouts.keys())
        for model, found in rollouts.items():
            known = self._models.get(model)
            if known is None or known.version != found.version:
                known = self._models[model] = _Model(found.version)
            try:
                await self._look_at(model, found, known)
                known.problem = ""
            except PenstockError as error:
                if known.problem != str(error):
                    log.warning("a rollout cannot go on", model=model, version=found.version, reason=str(error))
                known.problem = str(error)
                await self._refresh()

    async def leave(self) -> None:
        """Writes what is known of the rollouts that this server acts on, and gives the leases back: others act at once."""
        for model, found in self._rollouts().items():
            known = self._models.get(model)
            if known is not None and self._leases.is_held(model):
                try:
                    await self._leave(model, found, known)
                except PenstockError as error:
                    log.warning("a rollout could not be left", model=model, version=found.version, reason=str(error))

    async def _leave(self, model: str, found: RegisteredRollout, known: _Model) -> None:
        progress, champion = _progress(found), found.aliases.get(CHAMPION, "")
        changes: tuple[Change, ...] = (DeleteTag("", LEASE_TAG),)
        if progress is not None and not progress.has_ended:
            evidence = self._evidence(found, known, progress, await self._look(model, found.version, champion))
            changes = (SetTag(found.version, EVIDENCE_TAG, write_evidence(evidence)), *changes)
        await self._registry.write(model, self._expected(model, found), changes)
        self._leases.forget(self._leases.models - {model})

    def _expected(self, model: str, found: RegisteredRollout) -> Expected:
        """That this server still holds the lease, and nobody has written since the registry was read."""
        progress, champion = found.tags.get(PROGRESS_TAG, ""), found.aliases.get(CHAMPION, "")
        return Expected({LEASE_TAG: self._leases.value(model)}, found.version, progress, champion)

    def views(self) -> list[RolloutView]:
        """What is known now, by model."""
        return [self._view(model, found) for model, found in sorted(self._rollouts().items())]

    def _view(self, model: str, found: RegisteredRollout) -> RolloutView:
        known = self._models.get(model)
        is_acting = known is not None and self._leases.is_held(model)
        evidence = known.evidence if known is not None and is_acting else None
        return RolloutView(
            model,
            found.version,
            _progress(found),
            tuple(read_history(found.tags.get(HISTORY_TAG, "[]"))),
            holder_of(found.lease),
            is_acting,
            _saved_evidence(found) if evidence is None else evidence,
            known.decision if known is not None and is_acting else None,
            "" if known is None else known.problem,
            _declared(found),
        )

    async def _look_at(self, model: str, found: RegisteredRollout, known: _Model) -> None:
        self._leases.seen(model, found.lease)
        progress = _progress(found)
        if progress is not None and progress.has_ended and not next_step(found, _nothing(self._wall())).changes:
            return  # nothing is left to do, so nobody needs the lease
        if not await self._leases.hold(model):
            known.evidence, known.before = None, {}
            return
        await self._act(model, found, known, progress)

    async def _act(self, model: str, found: RegisteredRollout, known: _Model, progress: Progress | None) -> None:
        champion = found.aliases.get(CHAMPION, "")
        looked = await self._look(model, found.version, champion)
        evidence = self._evidence(found, known, progress, looked)
        champion_latency = _sum_cells([snapshot.champion.latency for snapshot in looked.values()])
        step = next_step(
            found,
            Known(
                evidence,
                self._health((model, found.version)),
                champion_latency,
                self._wall(),
                SCORE_EDGES,
            ),
        )
        known.evidence, known.decision = evidence, step.decision
        changes = (*step.changes, *self._beside(found, known, step))
        if not changes:
            return
        await self._registry.write(model, self._expected(model, found), changes)
        known.saved_s = self._clock()
        if step.event:
            log.info("rollout", model=model, version=found.version, what=step.event)
        await self._refresh()

    def _beside(self, found: RegisteredRollout, known: _Model, step: RolloutStep) -> tuple[Change, ...]:
        """What is written along with a step: the evidence it was taken on, and a line of history."""
        evidence = known.evidence or Evidence()
        is_new = PROGRESS_TAG not in found.tags
        changes: list[Change] = []
        is_due = evidence != _saved_evidence(found) and self._clock() - known.saved_s >= SAVE_S
        if step.progress is not None and (step.event or is_due or (is_new and EVIDENCE_TAG in found.tags)):
            changes.append(SetTag(found.version, EVIDENCE_TAG, write_evidence(evidence)))
        if step.event:
            before = [] if is_new else read_history(found.tags.get(HISTORY_TAG, "[]"))
            lines = [*before, HistoryEntry(round(self._wall(), 3), step.event)]
            changes.append(SetTag(found.version, HISTORY_TAG, write_history(lines)))
        return tuple(changes)

    def _evidence(
        self,
        found: RegisteredRollout,
        known: _Model,
        progress: Progress | None,
        looked: Mapping[str, Snapshot],
    ) -> Evidence:
        """What is known with what was counted since the last look; whoever begins to act goes on from what was saved."""
        if progress is None:
            known.before = dict(looked)
            return Evidence()
        evidence = _saved_evidence(found) if known.evidence is None else known.evidence
        for place, snapshot in looked.items():
            before = known.before.get(place)
            if before is None and evidence.updated_s < snapshot.since_s and snapshot.since_s >= self._started_s:
                # A server that began to count after the last look that is on record: nothing of it is in the evidence.
                before = fresh(snapshot)
            if before is not None:
                evidence = evidence.plus(between(before, snapshot, progress.bounds, self._wall()))
        known.before = dict(looked)
        return evidence


def _nothing(now_s: float) -> Known:
    return Known(Evidence(), VersionHealth(), (), now_s, SCORE_EDGES)


def _progress(found: RegisteredRollout) -> Progress | None:
    try:
        return read_progress(found.tags[PROGRESS_TAG])
    except (PenstockError, KeyError):
        return None


def _declared(found: RegisteredRollout) -> RolloutSpec | None:
    try:
        return parse(found.tags[SPEC_TAG])
    except (PenstockError, KeyError):
        return None


def _saved_evidence(found: RegisteredRollout) -> Evidence:
    try:
        return read_evidence(found.tags[EVIDENCE_TAG])
    except (PenstockError, KeyError):
        return Evidence()


def _sum_cells(parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    counted = [part for part in parts if part]
    return tuple(map(sum, zip(*counted, strict=True))) if counted else ()


def shown(view: RolloutView) -> dict[str, Any]:
    """One rollout for people, as /v1/rollouts and `penstock rollout status --json` show it: percent and words."""
    progress, evidence, spec = view.progress, view.evidence, view.spec
    gates = [] if spec is None else [gate_of(metric, spec, evidence, SCORE_EDGES) for metric in spec.gates]
    return {
        "model": view.model,
        "version": view.version,
        "champion": "" if progress is None else progress.champion,
        "status": "declared" if progress is None else progress.status,
        "stage": "" if progress is None else str(progress.present),
        "stages": [] if spec is None else [str(stage) for stage in spec.stages],
        "reason": _reason(view),
        "problem": view.problem,
        "controller": view.holder,
        "acting": view.is_acting,
        "declared": {} if spec is None else as_mapping(spec),
        "in_words": "" if spec is None else spec.in_words(),
        "began": None if progress is None else progress.began_s,
        "since": None if progress is None else progress.since_s,
        "gates": [
            {
                **msgspec.to_builtins(gate),
                "interval": _finite(interval_of(gate.metric, spec, evidence, SCORE_EDGES)) if spec is not None else [],
            }
            for gate in gates
        ],
        "evidence": msgspec.to_builtins(evidence),
        "history": [{"at": entry.at_s, "text": entry.text} for entry in view.history],
    }


def _reason(view: RolloutView) -> str:
    if view.decision is not None:
        return view.decision.reason
    return "" if view.progress is None else view.progress.reason


def _finite(interval: tuple[float, float]) -> list[float | None]:
    """An interval as JSON has it, which knows no infinity."""
    return [end if isfinite(end) else None for end in interval]
