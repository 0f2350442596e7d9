"""The metrics of retraining: what became of calls for it, when the last one was, and whether one is under way."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.retraining.retrainer import RetrainingStatus

_MODEL: Final = ["model_name"]
_RULE: Final = [*_MODEL, "rule"]


class RetrainingCollector(Collector):
    """Makes the metric families at each scrape."""

    def __init__(self, status: Callable[[], RetrainingStatus]) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        found = self._status()
        totals = CounterMetricFamily(
            "penstock_retraining_triggers", "Calls for retraining, by what became of them.", labels=[*_RULE, "outcome"]
        )
        for (model, rule, outcome), count in sorted(found.totals.items()):
            totals.add_metric([model, rule, outcome], count)
        last = GaugeMetricFamily(
            "penstock_retraining_last_trigger_timestamp_seconds", "When a rule called last.", labels=_RULE
        )
        met = GaugeMetricFamily(
            "penstock_retraining_rule_met", "Whether a rule's conditions hold: 1 if they do.", labels=_RULE
        )
        flight = GaugeMetricFamily(
            "penstock_retraining_in_flight", "Whether a retraining is under way: 1 if one is.", labels=_MODEL
        )
        for model, one in sorted(found.models.items()):
            for rule, at_s in {call.rule: call.at_s for call in one.state.calls}.items():
                last.add_metric([model, rule], at_s)
            for decision in one.decisions:
                met.add_metric([model, decision.rule], float(decision.is_met))
            flight.add_metric([model], float(any(call.is_open for call in one.state.calls)))
        yield from (totals, last, met, flight)
