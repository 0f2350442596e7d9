"""The metrics of the registry's webhooks."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.control.webhook import Outcome


class WebhookCollector(Collector):
    """Shows how many webhooks came.

    Args:
        counts: how many, by what became of them.
    """

    def __init__(self, counts: Mapping[Outcome, int]) -> None:
        self._counts = counts

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "penstock_webhooks",
            "Webhooks of the registry: accepted ones woke the poll, repeated ones had come before, and refused ones were not "
            "signed with the server's secret, or came too late.",
            labels=["result"],
        )
        for result, count in self._counts.items():
            family.add_metric([result], count)
        yield family
