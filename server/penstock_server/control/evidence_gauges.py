"""The metrics that let a controller read from Prometheus what servers counted, as `control.prometheus_evidence` does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final, TypeVar

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.names import CHAMPION, VersionKey
from penstock_server.control.view import VersionView

_VERSION: Final = ["model_name", "model_version"]
_DIGEST_BYTES: Final = 8

T = TypeVar("T")


class EvidenceCollector(Collector):
    """Makes another collector's families, and says between which changes of weights and counters they were read.

    A scrape runs beside the server, which may move a weight meanwhile. So what is in force is read before the counters and
    after them, and shown only where it is the same.

    Args:
        counters: makes the families of what was counted.
        instance: differs between two runs of a server.
        versions: those that are served.
        weights: the shares of a version and of the champion in force on all workers; None while they change.
        generation: differs between two states of a version's counters of which one began anew; "" where it has none.
    """

    def __init__(
        self,
        counters: Collector,
        *,
        instance: str,
        versions: Callable[[], Sequence[VersionView]],
        weights: Callable[[str, str], tuple[float, float] | None],
        generation: Callable[[VersionKey], str],
    ) -> None:
        self._counters = counters
        self._instance = instance
        self._versions = versions
        self._weights = weights
        self._generation = generation

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        shares, runs = self._shares(), self._runs()
        yield from self._counters.collect()
        share = GaugeMetricFamily(
            "penstock_routed_share_ratio",
            "Share of the requests that name no version by which all workers route; absent while it changes.",
            labels=_VERSION,
        )
        run = GaugeMetricFamily(
            "penstock_counters_info",
            "1 for what counts a version's requests now: another run began at zero.",
            labels=[*_VERSION, "run"],
        )
        for key, value in _in_both(shares, self._shares()):
            share.add_metric(key, value)
        for key, name in _in_both(runs, self._runs()):
            run.add_metric([*key, name], 1)
        yield from (share, run)

    def _shares(self) -> dict[VersionKey, float]:
        """What canaries get, and the champion beside them."""
        versions, found = self._versions(), dict[VersionKey, float]()
        champions = {each.model: each.key for each in versions if CHAMPION in each.roles}
        for version in versions:
            told = None if version.weight is None else self._weights(*version.key)
            if told is not None and version.model in champions:
                found[version.key], found[champions[version.model]] = told
        return found

    def _runs(self) -> dict[VersionKey, str]:
        found = {each.key: self._generation(each.key) for each in self._versions()}
        return {
            key: blake2b(f"{self._instance}/{generation}".encode(), digest_size=_DIGEST_BYTES).hexdigest()
            for key, generation in found.items()
            if generation
        }


def _in_both(before: Mapping[VersionKey, T], after: Mapping[VersionKey, T]) -> list[tuple[VersionKey, T]]:
    return [(key, value) for key, value in after.items() if before.get(key) == value]
