"""Keeps what was counted of each model's versions since their present weights came into force, for `rollout.experiment`.

It looks at the plans that all workers route by: while these change nothing is kept, and what is counted under new weights
begins at nothing. So does everything when the server starts again. Rollouts change weights too, step by step: their own
evidence, which is kept over steps and restarts, is `control.rollouts`'.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.names import CANARY, CHAMPION, VersionKey
from penstock_server.control.own_evidence import by_weight
from penstock_server.labels.totals import LabelTotals, SubjectTotals
from penstock_server.rollout.evidence import VersionTotals
from penstock_server.rollout.experiment import ArmTotals, Experiment, compared, slow_of
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.rollout.spec import QUANTILES
from penstock_server.rollout.step import BOUND_REQUESTS, bounds_of

LOOK_S: Final = 1.0
"""How often it is looked whether weights have changed."""

Counted = tuple[str, VersionTotals]
"""A name of the run that counts, and what it has counted of a version."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What had been counted of a version at one moment."""

    requests: VersionTotals
    labels: SubjectTotals


@dataclass(slots=True)
class _Running:
    """A model's versions under one set of weights.

    Attributes:
        weights: by version.
        runs: who counts each.
        first, now: what had been counted at the first look, and at the last one.
        bounds: by metric, the cell above which a request is slow; from the champion's requests until `measured`.
        measured: what had been counted when that was fixed, which comes before what is compared.
    """

    champion: str
    weights: Mapping[str, float]
    since_s: float
    runs: Mapping[str, str]
    first: Mapping[str, _Seen]
    now: Mapping[str, _Seen]
    bounds: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, _Seen] = field(default_factory=dict)


class Experiments:
    """The models whose traffic several versions share.

    Args:
        plans: by model, the plan that all workers route by; without those that change now.
        counted: what was counted of a version.
        labels: what labels say.
        wall: the time in seconds since 1970.
    """

    def __init__(
        self,
        *,
        plans: Callable[[], Mapping[str, TrafficPlan]],
        counted: Callable[[VersionKey], Counted],
        labels: Callable[[], LabelTotals],
        wall: Callable[[], float],
    ) -> None:
        self._plans = plans
        self._counted = counted
        self._labels = labels
        self._wall = wall
        self._running: dict[str, _Running] = {}

    async def run(self, interval_s: float = LOOK_S) -> None:
        """Looks at an interval, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(interval_s)

    def look(self) -> None:
        """Takes in what was counted. On the loop, on which nobody can change a plan meanwhile."""
        shared = {model: plan for model, plan in self._plans().items() if plan.champion is not None and plan.weighed}
        labels = self._labels() if shared else LabelTotals()
        self._running = {model: self._looked(model, plan, labels) for model, plan in shared.items()}

    def reports(self) -> list[Experiment]:
        """What is known, by model; up to `LOOK_S` old. It takes milliseconds, so it is for other threads."""
        return [self._report(model, running) for model, running in sorted(self._running.items())]

    def _looked(self, model: str, plan: TrafficPlan, labels: LabelTotals) -> _Running:
        champion = plan.champion or ""
        weights = {version: plan.share(version) for version in (champion, *(arm.version for arm in plan.weighed))}
        counted = {version: self._counted((model, version)) for version in weights}
        runs = {version: run for version, (run, _) in counted.items()}
        now = {
            version: _Seen(
                totals,
                _labels_of(labels, (model, version, CHAMPION if version == champion else CANARY), weights[version]),
            )
            for version, (_, totals) in counted.items()
        }
        known = self._running.get(model)
        if known is None or (known.champion, known.weights, known.runs) != (champion, weights, runs):
            return _Running(champion, weights, self._wall(), runs, now, now)
        bounds, measured = known.bounds, known.measured
        if not bounds and sum(now[champion].requests.latency) >= BOUND_REQUESTS:
            bounds, measured = bounds_of(QUANTILES, now[champion].requests.latency), now
        # A new record, so that threads which read the other one see one moment.
        return _Running(champion, weights, known.since_s, runs, known.first, now, bounds, measured)

    def _report(self, model: str, running: _Running) -> Experiment:
        totals = {
            version: _since(running.first[version], now, running.measured.get(version), running.bounds)
            for version, now in running.now.items()
        }
        return compared(model, running.champion, running.weights, totals, running.since_s)


def _since(first: _Seen, now: _Seen, measured: _Seen | None, bounds: Mapping[str, int]) -> ArmTotals:
    old, new = first.labels, now.labels
    slow, count = {}, 0
    if measured is not None:
        before, after = slow_of(measured.requests, bounds), slow_of(now.requests, bounds)
        slow = {metric: after[metric] - before[metric] for metric in bounds}
        count = sum(now.requests.latency) - sum(measured.requests.latency)
    return ArmTotals(
        now.requests.requests - first.requests.requests,
        now.requests.errors - first.requests.errors,
        count,
        slow,
        new.labelled_requests - old.labelled_requests,
        new.wrong_requests - old.wrong_requests,
        (
            float(new.request_values - old.request_values),
            new.request_value_sum - old.request_value_sum,
            new.request_value_squares - old.request_value_squares,
        ),
        now.requests.units[0] - first.requests.units[0],
    )


def _labels_of(labels: LabelTotals, subject: tuple[str, str, str], weight: float) -> SubjectTotals:
    """The labels of answers that a model's version gave in a role with this weight."""
    return by_weight(labels, *subject).get(round(weight, 9), SubjectTotals())
