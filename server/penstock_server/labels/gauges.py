"""The metrics of labels: what became of them, and how good each version is by them.

An unknown value is an absent gauge, not a zero. What was counted of a version number whose files have changed is added up; of
its quality the latest files' counts.
"""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.labels.quality import Quality, QualityInterval
from penstock_server.labels.report import Kept, Report, VersionQuality
from penstock_server.labels.totals import DELAY_EDGES_S, LabelTotals, SubjectTotals

_VERSION: Final = ("model_name", "model_version")
_SHARE: Final = (*_VERSION, "role", "weight")
_INTERVALS: Final = {
    "accuracy": (
        "model_accuracy_rolling",
        "Share of right classes among the latest answers that are old enough and labelled.",
    ),
    "auc": ("penstock_auc_rolling", "Area under the ROC curve of the same answers."),
    "mean_absolute_error": ("penstock_absolute_error_rolling", "Mean absolute error of the same answers."),
}
"""Gauges with an interval of 95 percent beside them, by the field of a quality."""
_NUMBERS: Final = {
    "rows": ("penstock_rolling_answers", "How many answers the rolling qualities of a version are told from."),
    "calibration_error": (
        "penstock_calibration_error_rolling",
        "Expected calibration error of the same answers: how far confidence and the share of right ones are apart.",
    ),
    "root_mean_squared_error": (
        "penstock_squared_error_root_rolling",
        "Root of the mean squared error of the same answers.",
    ),
    "mean_error": ("penstock_error_rolling", "Mean of answer less truth, of the same answers."),
}
_MOST_VERSIONS: Final = 500
"""With series of their own: those of which something was labelled last."""


class LabelCollector(Collector):
    """Makes the metric families from the joiner's last report at each scrape; none where no labels are taken."""

    def __init__(self, report: Callable[[], Report | None]) -> None:
        self._report = report

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        report = self._report()
        if report is None:
            return
        yield from _states(report)
        yield from _qualities(latest(report.qualities)[-_MOST_VERSIONS:])
        yield from _totals(report.totals)
        yield from _kept(report.kept)


def latest(qualities: tuple[VersionQuality, ...]) -> list[VersionQuality]:
    """Of each version number the quality of its latest files."""
    ordered = sorted(qualities, key=lambda each: each.quality.since_ns)
    return list({(each.model, each.version): each for each in ordered}.values())


def _states(report: Report) -> Iterator[Metric]:
    labels = CounterMetricFamily(
        "penstock_labels", "Labels, by what became of them and who sent them.", labels=["model_name", "state", "origin"]
    )
    delay = HistogramMetricFamily(
        "penstock_label_delay_seconds", "Time from an answer to its label.", labels=["model_name"]
    )
    peers = CounterMetricFamily("penstock_labels_passed_on", "Labels sent to each peer.", labels=["peer", "result"])
    for model, counts in sorted(report.models.items()):
        for origin, states in (("caller", counts.states), ("peer", counts.from_peers)):
            for state, count in sorted(states.items()):
                labels.add_metric([model, state, origin], count)
        buckets, total = [], 0
        for edge, count in zip((*(f"{edge:.6g}" for edge in DELAY_EDGES_S), "+Inf"), counts.delays, strict=True):
            total += count
            buckets.append((edge, float(total)))
        delay.add_metric([model], buckets, sum_value=counts.delay_sum_s)
    for peer, sent in sorted(report.peers.items()):
        peers.add_metric([peer, "sent"], sent.sent)
        peers.add_metric([peer, "failed"], sent.failed)
    yield from (labels, delay, peers)


def _qualities(versions: list[VersionQuality]) -> Iterator[Metric]:
    for field, (name, text) in _INTERVALS.items():
        gauges = {
            "value": GaugeMetricFamily(name, text, labels=_VERSION),
            "low": GaugeMetricFamily(f"{name}_low", f"The lower end of {name}, 95 percent.", labels=_VERSION),
            "high": GaugeMetricFamily(f"{name}_high", f"The upper end of {name}, 95 percent.", labels=_VERSION),
        }
        for version in versions:
            interval: QualityInterval | None = getattr(version.quality, field)
            for end, gauge in gauges.items() if interval is not None else ():
                gauge.add_metric([version.model, version.version], getattr(interval, end))
        yield from gauges.values()
    for field, (name, text) in _NUMBERS.items():
        gauge = GaugeMetricFamily(name, text, labels=_VERSION)
        for version in versions:
            value = _number(version.quality, field)
            if value is not None:
                gauge.add_metric([version.model, version.version], value)
        yield gauge


def _number(quality: Quality, field: str) -> float | None:
    value: float | None = getattr(quality, field)
    return value


def _totals(totals: LabelTotals) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "penstock_labelled_answers",
        "Answers that are old enough, by what their label says; unlabelled have none that came in time.",
        labels=[*_SHARE, "result"],
    )
    requests = CounterMetricFamily(
        "penstock_labelled_requests",
        "The same of the first rows of requests, which versions are compared by: all rows of a request go to one version.",
        labels=[*_SHARE, "result"],
    )
    values = CounterMetricFamily(
        "penstock_request_values",
        "Requests whose first row has a value that was known in time, by which versions are compared.",
        labels=_SHARE,
    )
    # Gauges, since values may be negative.
    sums = GaugeMetricFamily("penstock_request_value_summed", "Sum of these values.", labels=_SHARE)
    squares = GaugeMetricFamily("penstock_request_value_squares", "Sum of their squares.", labels=_SHARE)
    added: dict[tuple[str, ...], SubjectTotals] = {}
    for each in totals.versions:
        key: tuple[str, ...] = (
            each.model,
            each.version,
            each.role,
            # All digits: what a canary and the champion were given is paired by weights that make 1.
            "" if each.weight is None else repr(each.weight),
        )
        added[key] = each.totals if key not in added else added[key].plus(each.totals)
    for key, own in sorted(added.items()):
        for result, count in (
            ("right", own.labelled - own.wrong), ("wrong", own.wrong), ("unlabelled", own.rows - own.labelled),
        ):  # fmt: skip
            answers.add_metric([*key, result], count)
        requests.add_metric([*key, "right"], own.labelled_requests - own.wrong_requests)
        requests.add_metric([*key, "wrong"], own.wrong_requests)
        if own.request_values:
            values.add_metric(key, own.request_values)
            sums.add_metric(key, own.request_value_sum)
            squares.add_metric(key, own.request_value_squares)
    pairs = CounterMetricFamily(
        "penstock_labelled_pairs",
        "Rows that a champion and its shadow both answered, by whose class was right.",
        labels=["model_name", "champion_version", "model_version", "result"],
    )
    first_pairs = CounterMetricFamily(
        "penstock_labelled_request_pairs",
        "The same of the first rows of requests.",
        labels=["model_name", "champion_version", "model_version", "result"],
    )
    for pair in totals.pairs:
        for result, first in zip(
            ("both", "only_champion", "only_shadow", "neither"), pair.totals.requests, strict=True
        ):
            pairs.add_metric([pair.model, pair.champion, pair.shadow, result], getattr(pair.totals, result))
            first_pairs.add_metric([pair.model, pair.champion, pair.shadow, result], first)
    yield from (answers, requests, values, sums, squares, pairs, first_pairs)


def _kept(kept: Kept) -> Iterator[Metric]:
    for name, text, value in (
        ("penstock_kept_answers", "Answers that are kept for labels.", kept.answers),
        ("penstock_kept_answer_bytes", "What their files take.", kept.bytes),
        ("penstock_waiting_labels", "Labels that wait for an answer.", kept.waiting),
    ):
        yield GaugeMetricFamily(name, text, value=value)
    for name, text, value in (
        ("penstock_answers_not_kept", "Answers for which workers found no room.", kept.lost),
        (
            "penstock_answers_deleted_early",
            "Answers that were deleted before they were old enough to count.",
            kept.early,
        ),
        ("penstock_labels_refused", "Labels for which workers found no room, whose senders were told.", kept.refused),
    ):
        yield CounterMetricFamily(name, text, value=value)
