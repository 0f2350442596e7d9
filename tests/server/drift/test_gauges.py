from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from prometheus_client.core import Metric

from penstock_server.drift.gauges import DriftCollector, drift_families
from penstock_server.drift.report import (
    ColumnDrift,
    DriftAlarm,
    ExpectedAccuracy,
    JointDrift,
    PairDrift,
    SegmentDrift,
    VersionDrift,
    alarmed_importance,
    by_concern,
    by_significance,
)
from penstock_server.metrics.prometheus import registry_of

NUMBER = ColumnDrift(
    name="age", kind="number", rows=600, rows_needed=500, effective_rows=500, enough_rows=True, jensen_shannon=0.2, psi=0.3,
    psi_unbiased=0.25, ks=0.1, ks_slack=0.05, wasserstein=0.5, missing_ratio=0.01, unseen_ratio=None,
    infinite_ratio=0.0, out_of_range_ratio=0.02, p_value=0.001, drifted=True, dispersion=1.0, minimum_effect=0.1,
    labels=("a",), reference=(1.0,), current=(1.0,),
)  # fmt: skip
STRING = replace(
    NUMBER, name="port", kind="string", jensen_shannon=0.1, p_value=0.5, wasserstein=None, infinite_ratio=None,
    out_of_range_ratio=None, unseen_ratio=0.03, drifted=False,
)  # fmt: skip
SILENT = replace(
    NUMBER, name="new", rows=3, enough_rows=False, jensen_shannon=None, psi=None, psi_unbiased=None, ks=None,
    ks_slack=None, wasserstein=None, missing_ratio=None, infinite_ratio=None, out_of_range_ratio=None, p_value=None,
    drifted=None,
)  # fmt: skip
VERSION = VersionDrift(
    "m", "1", ("champion",), 600, 1000, 0.05, (STRING, SILENT, NUMBER), replace(NUMBER, name="label", kind="class"), 2, 1,
    0.002, (), answers=(replace(NUMBER, name="confidence", kind="score", jensen_shannon=0.4), replace(SILENT, name="y")),
    expected_accuracy=ExpectedAccuracy(0.8, 0.75, 0.85, 0.9, 5000, 0.01),
)  # fmt: skip

LABELS = {"model_name": "m", "model_version": "1"}


def values(versions: list[VersionDrift], series: int = 200) -> dict[str, dict[tuple[str, ...], float]]:
    """Each family's values by their labels after the model and the version."""

    def of(family: Metric) -> dict[tuple[str, ...], float]:
        return {tuple(sample.labels.values())[2:]: sample.value for sample in family.samples}

    return {family.name: of(family) for family in drift_families(versions, series)}


def test_each_figure_has_its_gauge_and_what_cannot_be_said_has_none() -> None:
    found = values([VERSION])
    assert found["data_drift_score"] == {("age",): 0.2, ("port",): 0.1}
    assert found["penstock_feature_drift_psi_unbiased"] == {("age",): 0.25, ("port",): 0.25}
    assert found["penstock_feature_drift_p_value"] == {("age",): 0.001, ("port",): 0.5}
    assert found["penstock_feature_drift_wasserstein"] == {("age",): 0.5}
    assert found["penstock_feature_missing_ratio"] == {("age",): 0.01, ("port",): 0.01}
    assert found["penstock_feature_unseen_ratio"] == {("port",): 0.03}
    assert found["penstock_feature_infinite_ratio"] == {("age",): 0.0}
    assert found["penstock_feature_out_of_range_ratio"] == {("age",): 0.02}
    assert found["penstock_prediction_drift_score"] == {(): 0.2}
    assert found["penstock_prediction_drift_p_value"] == {(): 0.001}
    assert found["penstock_answer_drift_score"] == {("confidence",): 0.4}
    assert found["penstock_answer_drift_p_value"] == {("confidence",): 0.001}
    assert found["penstock_expected_accuracy"] == {(): 0.8}
    assert found["penstock_expected_accuracy_low"] == {(): 0.75}
    assert found["penstock_expected_accuracy_high"] == {(): 0.85}
    assert found["penstock_expected_accuracy_reference"] == {(): 0.9}
    assert found["penstock_expected_accuracy_outside_ratio"] == {(): 0.01}
    assert found["penstock_drift_window_rows"] == {(): 600}
    assert found["penstock_drifted_features"] == {(): 1}
    assert found["penstock_drift_checks"] == found["penstock_drift_looks"] == {(): VERSION.looks}
    assert found["penstock_drift_tested_features"] == {(): 2}
    assert found["penstock_drift_alarm"] == {(): 0}
    assert found["penstock_drift_series_left_out"] == {(): 0}


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"predictions": None}, "penstock_prediction_drift_score"),
        ({"drifted": None}, "penstock_drifted_features"),
        ({"expected_accuracy": None}, "penstock_expected_accuracy"),
        ({"alarmed": None}, "penstock_drift_alarm"),
    ],
)
def test_what_a_version_does_not_know_is_absent(change: dict[str, Any], gone: str) -> None:
    assert values([replace(VERSION, **change)])[gone] == {}


def test_an_alarm_is_one() -> None:
    assert values([replace(VERSION, alarmed=("",))])["penstock_drift_alarm"] == {(): 1}


SINCE = "penstock_feature_drift_alarm_since_timestamp_seconds"
ALARMS = (
    DriftAlarm("age", "shares", 200.0, 1e9),
    DriftAlarm("port", "shares", 300.0, 1e12),
    DriftAlarm("port", "unseen", 250.0, 1e8),
    DriftAlarm("", "shares", 100.0, 1e10),
    DriftAlarm("confidence", "shares", 150.0, 1e10),
)


@pytest.mark.parametrize(
    ("series", "shown"), [(0, {}), (1, {("port",): 250.0}), (2, {("port",): 250.0, ("age",): 200.0})]
)
def test_an_alarm_tells_since_when_for_as_many_features_as_have_series(
    series: int, shown: dict[tuple[str, ...], float]
) -> None:
    found = values([replace(VERSION, alarmed=("", "age", "port"), alarms=ALARMS)], series)
    assert found[SINCE] == shown
    assert found["penstock_prediction_drift_alarm_since_timestamp_seconds"] == {(): 100.0}
    assert found["penstock_answer_drift_alarm_since_timestamp_seconds"] == {("confidence",): 150.0}
    assert (
        values([VERSION])[SINCE] == values([VERSION])["penstock_prediction_drift_alarm_since_timestamp_seconds"] == {}
    )


def test_columns_by_concern_have_the_alarmed_first() -> None:
    matters = replace(NUMBER, name="matters", importance=0.5)
    columns = (SILENT, STRING, NUMBER, matters)
    version = replace(VERSION, columns=columns, alarms=(DriftAlarm("port", "unseen", 1.0, 1e9),))
    assert [one.name for one in by_concern(version)] == ["port", "matters", "age", "new"]
    assert [one.name for one in by_concern(replace(version, alarms=()))] == ["matters", "age", "port", "new"]


@pytest.mark.parametrize(("series", "shown"), [(0, set()), (1, {"age"}), (2, {"age", "port"}), (3, {"age", "port"})])
def test_the_strongest_evidence_is_shown_and_the_rest_counted(series: int, shown: set[str]) -> None:
    found = values([VERSION], series)
    assert {name for (name,) in found["data_drift_score"]} == shown
    assert found["penstock_drift_series_left_out"] == {(): 3 - series}


def test_columns_by_significance() -> None:
    closer = replace(NUMBER, name="closer", jensen_shannon=0.1)
    assert [one.name for one in by_significance([SILENT, STRING, closer, NUMBER])] == ["age", "closer", "port", "new"]


def test_columns_with_the_same_evidence_are_in_the_order_of_their_names() -> None:
    columns = [replace(one, name=name) for one in (SILENT, NUMBER) for name in ("b", "a", "c")]
    for given in permutations(columns):
        assert [(one.p_value, one.name) for one in by_significance(given)] == [
            *((0.001, name) for name in "abc"), *((None, name) for name in "abc"),
        ]  # fmt: skip


def test_every_family_is_described_without_any_version() -> None:
    families = list(drift_families([], 50))
    assert all(family.documentation and not family.samples for family in families)
    assert len({family.name for family in families}) == len(families)


def test_a_scrape_asks_what_is_said_now() -> None:
    said: list[VersionDrift] = []
    registry = registry_of(DriftCollector(lambda: said, series=1))
    assert registry.get_sample_value("penstock_drift_window_rows", LABELS) is None
    said.append(VERSION)
    assert registry.get_sample_value("penstock_drift_window_rows", LABELS) == 600
    assert registry.get_sample_value("penstock_drift_series_left_out", LABELS) == 2


def joint(drifted: bool | None) -> JointDrift:
    """A pair and two segments, of which one is never judged."""
    pair = PairDrift("a", "b", 90, 80, 0.5, 0.5, 0.0, 0.5, drifted, ("x",), ("y",), (1.0,), (1.0,))
    segment = SegmentDrift("a", "x", 90, 80, 0.5, 0.5, 0.0, 0.5, drifted, ("y",), (1.0,), (1.0,))
    return JointDrift(90, (pair,), (segment, replace(segment, drifted=None)))


@pytest.mark.parametrize(
    ("found", "expected"), [(None, {}), (joint(None), {}), (joint(False), {(): 0}), (joint(True), {(): 1})]
)
def test_pairs_and_segments_are_counted_where_they_are_judged(found: JointDrift | None, expected: Any) -> None:
    families = values([replace(VERSION, joint=found)])
    assert families["penstock_drifted_pairs"] == expected
    assert families["penstock_drifted_segments"] == expected


@pytest.mark.parametrize(
    ("importances", "alarmed", "expected"),
    [
        ({"age": 0.3, "port": 0.1, "new": -0.2}, ("age", "", "confidence"), 0.75),
        ({"age": 0.3, "port": 0.1}, (), 0.0),
        ({"age": 0.0, "port": -0.1}, ("age",), None),
        ({"age": None}, ("age",), None),
    ],
)
def test_the_alarmed_columns_have_a_share_of_all_importance(
    importances: dict[str, float | None], alarmed: tuple[str, ...], expected: float | None
) -> None:
    columns = [replace(NUMBER, name=name, importance=value) for name, value in importances.items()]
    found = alarmed_importance(columns, alarmed)
    assert found == (None if expected is None else pytest.approx(expected))
    gauge = values([replace(VERSION, alarmed_importance=found)])["penstock_drift_alarm_importance"]
    assert gauge == ({} if found is None else {(): found})
