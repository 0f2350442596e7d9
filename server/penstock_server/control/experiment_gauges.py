"""The metrics of experiments: how traffic was shared, and how each canary compares with the champion."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.rollout.experiment import Experiment

_VERSION: Final = ["model_name", "model_version"]


class ExperimentCollector(Collector):
    """Makes the metric families at each scrape; what is not known is absent."""

    def __init__(self, reports: Callable[[], Sequence[Experiment]]) -> None:
        self._reports = reports

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        weight = GaugeMetricFamily(
            "penstock_experiment_weight_ratio", "A version's share of the requests by design.", labels=_VERSION
        )
        exposure = GaugeMetricFamily(
            "penstock_experiment_exposure_ratio",
            "A version's share of the requests that came since the weights are in force.",
            labels=_VERSION,
        )
        mismatch = GaugeMetricFamily(
            "penstock_experiment_mismatch_evidence",
            "How strong the evidence is that requests were not shared by the weights; 1 is enough.",
            labels=["model_name"],
        )
        low, high = (
            GaugeMetricFamily(
                f"penstock_experiment_interval_{end}",
                f"The {end} end of what a canary's metric is between, beside the champion's, at all looks.",
                labels=[*_VERSION, "champion", "metric", "of"],
            )
            for end in ("low", "high")
        )
        for report in self._reports():
            mismatch.add_metric([report.model], report.mismatch)
            for arm in report.arms:
                key = [report.model, arm.version]
                weight.add_metric(key, arm.weight)
                if arm.exposure is not None:
                    exposure.add_metric(key, arm.exposure)
                for each in arm.comparisons:
                    labels = [*key, report.champion, each.metric, each.kind]
                    for family, end in ((low, each.low), (high, each.high)):
                        if end is not None:
                            family.add_metric(labels, end)
        yield from (weight, exposure, mismatch, low, high)
