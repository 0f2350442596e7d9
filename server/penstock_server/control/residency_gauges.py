"""The metrics of models that come and go: cold starts, evictions, and what models take in memory."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.control.residents import COLD_START_EDGES_S, Residents

_MEBIBYTE: Final = 1 << 20


class ResidencyCollector(Collector):
    """Shows what happened to models that come and go.

    Args:
        residents: knows it.
    """

    def __init__(self, residents: Residents) -> None:
        self._residents = residents

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        totals = self._residents.totals
        starts = CounterMetricFamily(
            "penstock_cold_starts",
            "Models that calls waited for: loaded, or failed, which says that they were not loaded before the calls were over.",
            labels=["result"],
        )
        for result, count in totals.cold_starts.items():
            starts.add_metric([result], count)
        took = HistogramMetricFamily(
            "penstock_cold_start_seconds", "Time from the first call for a model to its first answer, of those loaded."
        )
        edges = [*(f"{edge:g}" for edge in COLD_START_EDGES_S), "+Inf"]
        took.add_metric([], list(zip(edges, accumulate(totals.cold_buckets), strict=True)), sum_value=totals.cold_s)
        evictions = CounterMetricFamily(
            "penstock_evictions",
            "Models that left memory: to make room for another, or since the process was measured above its budget.",
            labels=["reason"],
        )
        for reason, evicted in totals.evictions.items():
            evictions.add_metric([reason], evicted)
        models = GaugeMetricFamily(
            "penstock_models_resident", "Models that each worker has in memory.", labels=["worker"]
        )
        taken = GaugeMetricFamily(
            "penstock_models_resident_bytes",
            "What these models take, by what the airlock measured; penstock_worker_resident_bytes is what the process takes.",
            labels=["worker"],
        )
        for slot, (count, size_bytes) in self._residents.in_memory().items():
            models.add_metric([str(slot)], count)
            taken.add_metric([str(slot)], size_bytes)
        budget = GaugeMetricFamily("penstock_worker_budget_bytes", "The resident memory that each worker may have.")
        budget.add_metric([], (self._residents.settings.memory_budget_mib or 0) * _MEBIBYTE)
        yield from (starts, took, evictions, models, taken, budget)
