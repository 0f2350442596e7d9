"""The drift metrics: gauges from each version's report, with a limited number of series.

A model can have thousands of columns, too many series for a metrics store. So only the columns that `by_significance` ranks
first have series, and a gauge says how many were left out. An unknown value is an absent gauge, not a zero.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock_server.drift.report import DriftAlarm, PairDrift, SegmentDrift, VersionDrift, by_significance

_VERSION: Final = ("model_name", "model_version")
_COLUMN: Final = (*_VERSION, "feature_name")
_COLUMN_GAUGES: Final = {
    "data_drift_score": (
        "jensen_shannon",
        "Jensen-Shannon distance, base 2, between the window and the baseline: 0 none, 1 full.",
    ),
    "penstock_feature_drift_psi_unbiased": (
        "psi_unbiased",
        "Population stability index between the window and the baseline, less its mean without drift.",
    ),
    "penstock_feature_drift_p_value": (
        "p_value",
        "Probability of an index this large if the true one is the largest that is still no drift.",
    ),
    "penstock_feature_drift_wasserstein": (
        "wasserstein",
        "Lower bound of the Wasserstein distance, in standard deviations of the baseline.",
    ),
    "penstock_feature_missing_ratio": ("missing_ratio", "Share of the window's rows without a value."),
    "penstock_feature_unseen_ratio": (
        "unseen_ratio",
        "Share of the window's rows with a value that training never saw.",
    ),
    "penstock_feature_infinite_ratio": ("infinite_ratio", "Share of the window's rows with an infinite number."),
    "penstock_feature_out_of_range_ratio": (
        "out_of_range_ratio",
        "Share of the window's rows below the smallest or above the largest training value.",
    ),
}
"""Each gauge of columns: the field that it shows, and its description."""
_PREDICTION_GAUGES: Final = {
    "penstock_prediction_drift_score": (
        "jensen_shannon",
        "Jensen-Shannon distance, base 2, between the predictions in the window and those for the training rows.",
    ),
    "penstock_prediction_drift_p_value": ("p_value", "As penstock_feature_drift_p_value, of the model's predictions."),
}
_ANSWER: Final = (*_VERSION, "answer_name")
_ANSWER_GAUGES: Final = {
    "penstock_answer_drift_score": (
        "jensen_shannon",
        "As penstock_prediction_drift_score, of another number of the answers, such as a classifier's confidence.",
    ),
    "penstock_answer_drift_p_value": (
        "p_value",
        "As penstock_feature_drift_p_value, of a number of the model's answers.",
    ),
}

_EXPECTED_GAUGES: Final = {
    "penstock_expected_accuracy": (
        "value",
        "Share of right answers that is expected in the window, if the relation between features and truth held.",
    ),
    "penstock_expected_accuracy_low": ("low", "The lower end of the band of penstock_expected_accuracy, 95 percent."),
    "penstock_expected_accuracy_high": ("high", "The upper end of the same band."),
    "penstock_expected_accuracy_reference": ("reference", "Share of right answers on the hold-out."),
    "penstock_expected_accuracy_outside_ratio": (
        "outside_ratio",
        "Share of the window's rows that the model is surer of than of any row of the hold-out, or less sure.",
    ),
}


class DriftCollector(Collector):
    """Makes the families of drift at each scrape.

    Args:
        versions: gives the report of each watched version.
        series: the columns of a version that have series of their own.
    """

    def __init__(self, versions: Callable[[], Sequence[VersionDrift]], series: int) -> None:
        self._versions = versions
        self._series = series

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from drift_families(self._versions(), self._series)


def drift_families(versions: Sequence[VersionDrift], series: int) -> Iterator[Metric]:
    """Every family, with at most `series` columns of each version."""
    chosen = [(version, by_significance(version.columns)[:series]) for version in versions]
    for name, (field, text) in _COLUMN_GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=_COLUMN)
        for version, columns in chosen:
            for column in columns:
                _add(family, [version.model, version.version, column.name], getattr(column, field))
        yield family
    yield from _records(versions, "predictions", _PREDICTION_GAUGES)
    yield from _records(versions, "expected_accuracy", _EXPECTED_GAUGES)
    for name, (field, text) in _ANSWER_GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=_ANSWER)
        for version in versions:
            for answer in version.answers:
                _add(family, [version.model, version.version, answer.name], getattr(answer, field))
        yield family
    yield from _alarms(versions, series)
    yield from _of_versions(versions, series)


def _records(versions: Sequence[VersionDrift], record: str, gauges: Mapping[str, tuple[str, str]]) -> Iterator[Metric]:
    """A gauge for each of these fields of a record that a version has one of, or none."""
    for name, (field, text) in gauges.items():
        family = GaugeMetricFamily(name, text, labels=_VERSION)
        for version in versions:
            _add(family, [version.model, version.version], getattr(getattr(version, record), field, None))
        yield family


def _alarms(versions: Sequence[VersionDrift], series: int) -> Iterator[Metric]:
    """When the drift began that alarms are about: the strongest of a version's, as many features as have other series."""
    features = GaugeMetricFamily(
        "penstock_feature_drift_alarm_since_timestamp_seconds",
        "When the drift of a feature with an alarm began, in seconds since 1970; absent without an alarm.",
        labels=_COLUMN,
    )
    predictions = GaugeMetricFamily(
        "penstock_prediction_drift_alarm_since_timestamp_seconds",
        "When the drift of the predictions began, in seconds since 1970; absent without an alarm.",
        labels=_VERSION,
    )
    answers = GaugeMetricFamily(
        "penstock_answer_drift_alarm_since_timestamp_seconds",
        "When the drift of a number of the model's answers began, in seconds since 1970; absent without an alarm.",
        labels=_ANSWER,
    )
    for version in versions:
        labels = [version.model, version.version]
        since: dict[str, float] = {}
        for alarm in sorted(version.alarms, key=_certainty):
            since[alarm.column] = min(alarm.since, since.get(alarm.column, alarm.since))
        _add(predictions, labels, since.pop("", None))
        for answer in version.answers:
            _add(answers, [*labels, answer.name], since.pop(answer.name, None))
        for name in list(since)[:series]:
            features.add_metric([*labels, name], since[name])
    yield from (features, predictions, answers)


def _certainty(alarm: DriftAlarm) -> tuple[float, str]:
    return -alarm.once_in_looks, alarm.column


def _of_versions(versions: Sequence[VersionDrift], series: int) -> Iterator[Metric]:
    window = GaugeMetricFamily("penstock_drift_window_rows", "Counted rows in the drift window.", labels=_VERSION)
    drifted = GaugeMetricFamily(
        "penstock_drifted_features",
        "Features that drifted, judged together at the configured false discovery rate.",
        labels=_VERSION,
    )
    tested = GaugeMetricFamily(
        "penstock_drift_tested_features",
        "Features with enough counted rows in the window to be judged.",
        labels=_VERSION,
    )
    looks = GaugeMetricFamily(
        "penstock_drift_looks",
        "As penstock_drift_checks_total, under the name that it had first.",
        labels=_VERSION,
    )
    checks = CounterMetricFamily(
        "penstock_drift_checks",
        "How often it was looked for drift alarms since the version was loaded.",
        labels=_VERSION,
    )
    alarm = GaugeMetricFamily(
        "penstock_drift_alarm", "1 while a feature or the answers have a drift alarm.", labels=_VERSION
    )
    importance = GaugeMetricFamily(
        "penstock_drift_alarm_importance",
        "Share of the features' importance to the model that lies in those with a drift alarm, 0 to 1.",
        labels=_VERSION,
    )
    pairs = GaugeMetricFamily(
        "penstock_drifted_pairs",
        "Pairs of features that depend on each other otherwise than in training, judged together.",
        labels=_VERSION,
    )
    segments = GaugeMetricFamily(
        "penstock_drifted_segments",
        "Values or ranges of features for which the predictions drifted, judged together.",
        labels=_VERSION,
    )
    left_out = GaugeMetricFamily(
        "penstock_drift_series_left_out", "Features without series of their own here.", labels=_VERSION
    )
    for version in versions:
        labels = [version.model, version.version]
        window.add_metric(labels, version.rows)
        tested.add_metric(labels, version.tested)
        looks.add_metric(labels, version.looks)
        checks.add_metric(labels, version.looks)
        left_out.add_metric(labels, max(len(version.columns) - series, 0))
        _add(drifted, labels, version.drifted)
        _add(importance, labels, version.alarmed_importance)
        if version.joint is not None:
            _add(pairs, labels, _drifted(version.joint.pairs))
            _add(segments, labels, _drifted(version.joint.segments))
        _add(alarm, labels, None if version.alarmed is None else int(bool(version.alarmed)))
    yield from (window, drifted, tested, looks, checks, alarm, importance, pairs, segments, left_out)


def _drifted(found: Sequence[PairDrift] | Sequence[SegmentDrift]) -> int | None:
    """How many drifted of those that were judged; None if none was."""
    judged = [one.drifted for one in found if one.drifted is not None]
    return sum(judged) if judged else None


def _add(family: GaugeMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)
