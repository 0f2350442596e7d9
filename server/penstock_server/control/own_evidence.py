"""What this server has counted of a version and its champion, for rollouts."""

from collections.abc import Callable

import numpy as np

from penstock.names import CANARY, CHAMPION, VersionKey
from penstock_server.labels.totals import LabelTotals, SubjectTotals
from penstock_server.metrics import routed
from penstock_server.metrics.store import CounterStore
from penstock_server.rollout.evidence import LabelCounts, ShadowTotals, Snapshot, VersionTotals, weight_key


class OwnEvidence:
    """Reads the counters that workers write.

    Args:
        instance: differs between two runs of a server.
        since_s: when this one began, in seconds since 1970.
        weights: the shares of a version and of the champion in force on all workers; None while they change.
        counters: what the workers counted.
        labels: what labels say of a model's version and champion; None where none are taken.
    """

    def __init__(
        self,
        *,
        instance: str,
        since_s: float,
        weights: Callable[[str, str], tuple[float, float] | None],
        counters: CounterStore,
        labels: Callable[[str, str, str], LabelCounts | None] = lambda *_: None,
    ) -> None:
        self._instance = instance
        self._since_s = since_s
        self._weights = weights
        self._counters = counters
        self._labels = labels

    def snapshot(self, model: str, version: str, champion: str) -> Snapshot:
        """What was counted of a version and its champion since this server began."""
        keys = (model, version), (model, champion)
        weights = self._weights(model, version)
        return Snapshot(
            "/".join((self._instance, *(self._counters.generation(key) for key in keys))),
            weight_key(*weights) if weights is not None and min(weights) > 0 else "",
            self._since_s,
            version=self._routed(keys[0]),
            champion=self._routed(keys[1]),
            shadow=self._shadow(keys[0]),
            labels=self._labels(model, version, champion),
        )

    def counted(self, key: VersionKey) -> tuple[str, VersionTotals]:
        """What was counted of a version, and by which run: where that is another one, it began anew."""
        return f"{self._instance}/{self._counters.generation(key)}", self._routed(key)

    def _routed(self, key: VersionKey) -> VersionTotals:
        counters = self._counters.of_version(key)
        if not counters:
            return VersionTotals()
        found = routed.totals(counters)
        first, fourth, counted = found.by_key
        return VersionTotals(found.requests, found.failed, found.latency, (first, fourth, counted))

    def _shadow(self, key: VersionKey) -> ShadowTotals:
        counters = self._counters.of_version(key)
        if not counters:
            return ShadowTotals()
        agree, disagree, failed, refused = np.sum([one.shadow for one in counters], axis=0).tolist()
        distances, differing = (
            tuple(np.sum([getattr(one, name) for one in counters], axis=0).tolist())
            for name in ("request_scores", "differing")
        )
        return ShadowTotals(agree, disagree, failed + refused, distances, differing)


def label_counts(totals: LabelTotals, model: str, version: str, champion: str) -> LabelCounts:
    """What labels say of a version as canary beside its champion, and as its shadow.

    Of each request the first row counts: all its rows went to one version, and what is drawn once counts once. Answers are
    paired by the weights that they were given under: a canary's weight and its champion's make 1 where no other canary has
    any.
    """
    ours, theirs = (by_weight(totals, model, *which) for which in ((version, CANARY), (champion, CHAMPION)))
    wrong, values = {}, np.zeros(6)
    for weight, mine in ours.items():
        other = theirs.get(round(1 - weight, 9))
        if 0 < weight < 1 and other is not None:
            wrong[weight_key(weight, 1 - weight)] = (
                *(mine.labelled_requests, mine.wrong_requests),
                *(other.labelled_requests, other.wrong_requests),
            )
            values += [n for each in (mine, other) for n in _values(each)]
    pairs = totals.pair(model, champion, version)
    return LabelCounts(wrong, pairs.requests, tuple(values.tolist()))


def _values(totals: SubjectTotals) -> tuple[float, float, float]:
    return totals.request_values, totals.request_value_sum, totals.request_value_squares


def by_weight(totals: LabelTotals, model: str, version: str, role: str) -> dict[float, SubjectTotals]:
    """A version's totals in a role by its weight, over all files that it had; those without a weight are left out."""
    found: dict[float, SubjectTotals] = {}
    for each in totals.versions:
        if (each.model, each.version, each.role) == (model, version, role) and each.weight is not None:
            weight = round(each.weight, 9)
            found[weight] = each.totals if weight not in found else found[weight].plus(each.totals)
    return found
