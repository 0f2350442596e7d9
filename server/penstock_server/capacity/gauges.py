"""The metrics of capacity: what an autoscaler goes by."""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.capacity.estimate import ServerCapacity


class CapacityCollector(Collector):
    """Makes the metric families from what is known at each scrape; what is not known has no series."""

    def __init__(self, known: Callable[[], ServerCapacity]) -> None:
        self._known = known

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        known = self._known()
        ratio = GaugeMetricFamily(
            "penstock_capacity_ratio",
            "How much of the server's capacity is used: 1 when no more fits, more than 1 while requests are refused.",
        )
        requests = GaugeMetricFamily(
            "penstock_capacity_requests_per_second",
            "Requests per second that fit within the objective, of the kinds that come now.",
        )
        model_ratio = GaugeMetricFamily(
            "penstock_model_capacity_ratio",
            "How much is used of what fits of a model beside the others.",
            labels=["model_name"],
        )
        model_requests = GaugeMetricFamily(
            "penstock_model_capacity_requests_per_second",
            "Requests per second of a model that fit within the objective, while the others are asked as now.",
            labels=["model_name"],
        )
        ratio.add_metric([], known.ratio)
        if known.requests_per_s is not None:
            requests.add_metric([], known.requests_per_s)
        for model, room in known.models.items():
            model_ratio.add_metric([model], room.ratio)
            model_requests.add_metric([model], room.requests_per_s)
        yield from (ratio, requests, model_ratio, model_requests)
