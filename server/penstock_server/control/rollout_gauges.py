"""The metrics of rollouts: where each is, who acts on it, and what its gates say."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.control.rollouts import RolloutView

_VERSION: Final = ["model_name", "model_version"]


class RolloutCollector(Collector):
    """Makes the metric families at each scrape."""

    def __init__(self, views: Callable[[], Sequence[RolloutView]]) -> None:
        self._views = views

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        status = GaugeMetricFamily(
            "penstock_rollout_status",
            "What a rollout does: 1 for its status.",
            labels=[*_VERSION, "champion", "status"],
        )
        stage = GaugeMetricFamily(
            "penstock_rollout_stage_weight_ratio",
            "The canary's share at the present stage; 0 as shadow.",
            labels=_VERSION,
        )
        acting = GaugeMetricFamily(
            "penstock_rollout_acting", "Whether this server acts on the rollout: 1 if it does.", labels=_VERSION
        )
        evidence = GaugeMetricFamily(
            "penstock_rollout_evidence",
            "How strong the evidence is that the version is worse, or within the margin; 1 is enough.",
            labels=[*_VERSION, "metric", "that"],
        )
        since = GaugeMetricFamily(
            "penstock_rollout_stage_since_timestamp_seconds",
            "When the present stage of a rollout that has not ended began, in seconds since 1970.",
            labels=_VERSION,
        )
        deadline = GaugeMetricFamily(
            "penstock_rollout_deadline_timestamp_seconds",
            "After which time a rollout that has not ended keeps its share and waits for somebody, in seconds since 1970.",
            labels=_VERSION,
        )
        for view in self._views():
            key = [view.model, view.version]
            acting.add_metric(key, float(view.is_acting))
            if view.progress is not None:
                status.add_metric([*key, view.progress.champion, view.progress.status], 1.0)
                stage.add_metric(key, view.progress.present.weight)
            if view.progress is not None and not view.progress.has_ended:
                since.add_metric(key, view.progress.since_s)
                deadline.add_metric(key, view.progress.began_s + view.progress.spec.deadline_s)
            for gate in () if view.decision is None else view.decision.gates:
                evidence.add_metric([*key, gate.metric, "worse"], gate.worse)
                evidence.add_metric([*key, gate.metric, "within"], gate.within)
        yield from (status, stage, since, deadline, acting, evidence)
