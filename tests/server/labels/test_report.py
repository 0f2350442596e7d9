"""The joiner's report: as a file, as metrics, and as JSON."""

from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from penstock_server.errors import NotFoundError
from penstock_server.labels import report as report_module
from penstock_server.labels.answer import as_json
from penstock_server.labels.gauges import LabelCollector
from penstock_server.labels.quality import Quality, QualityInterval
from penstock_server.labels.report import Kept, PeerCounts, Report, ReportReader, VersionQuality
from penstock_server.labels.totals import (
    LabelTotals,
    ModelCounts,
    PairLabels,
    PairTotals,
    SubjectTotals,
    VersionLabels,
)

TOTALS = LabelTotals(
    7,
    (
        VersionLabels(
            "fraud",
            "2",
            "old",
            "canary",
            0.05,
            SubjectTotals(10, 8, 2, request_values=3, request_value_sum=-1.5, request_value_squares=2.0),
        ),
        VersionLabels("fraud", "2", "new", "canary", 0.05, SubjectTotals(1, 1, 1)),
        VersionLabels("fraud", "1", "a", "champion", None, SubjectTotals(100, 50, 5)),
    ),
    (PairLabels("fraud", "1", "3", PairTotals(5, 4, 3, 2)),),
    {"fraud": 60.0},
)
QUALITIES = (
    VersionQuality("fraud", "1", "a", Quality(50, 5, QualityInterval(0.9, 0.8, 0.95), calibration_error=0.03)),
    VersionQuality("fraud", "2", "new", Quality(1, 9)),
    VersionQuality("fraud", "2", "old", Quality(8, 3, QualityInterval(0.75, 0.4, 0.9))),
)
REPORT = Report(
    1,
    Kept(1000, 84000, 1 << 20, 3, 2, 1, 4, 5),
    TOTALS,
    QUALITIES,
    {"fraud": ModelCounts({"matched": 9, "unknown": 1}, {"matched": 2}, [1] * 12, 99.0)},
    {"http://b:1": PeerCounts(3, 1)},
)


def samples(report: Report | None) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(LabelCollector(lambda: report))
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_a_report_is_read_as_it_was_written_and_again_when_it_changes(tmp_path: Path) -> None:
    reader = ReportReader(tmp_path)
    assert reader.report() == Report()
    report_module.write(tmp_path, REPORT)
    assert reader.report() == REPORT
    assert reader.report() is reader.report()
    assert reader.totals() == TOTALS
    report_module.write(tmp_path, Report(2))
    assert reader.report() == Report(2)
    (tmp_path / report_module.NAME).write_bytes(b"half")
    assert reader.report() == Report(2)


def test_without_labels_there_is_no_report() -> None:
    reader = ReportReader(None)
    assert reader.report() is None
    assert reader.totals() == LabelTotals()
    assert samples(None) == {}


def test_metrics_say_how_good_versions_are() -> None:
    found = samples(REPORT)
    assert found["model_accuracy_rolling", "fraud", "1"] == 0.9
    assert found["model_accuracy_rolling_low", "fraud", "1"] == 0.8
    assert found["model_accuracy_rolling_high", "fraud", "1"] == 0.95
    # Of version 2 the newest files count, of whose one row no accuracy is known.
    assert ("model_accuracy_rolling", "fraud", "2") not in found
    assert found["penstock_rolling_answers", "fraud", "2"] == 1
    assert found["penstock_calibration_error_rolling", "fraud", "1"] == 0.03
    assert not any(name[0] == "penstock_auc_rolling" for name in found)


def test_metrics_say_what_became_of_labels() -> None:
    found = samples(REPORT)
    assert found["penstock_labels_total", "fraud", "matched", "caller"] == 9
    assert found["penstock_labels_total", "fraud", "matched", "peer"] == 2
    assert found["penstock_label_delay_seconds_count", "fraud"] == 12
    assert found["penstock_label_delay_seconds_bucket", "fraud", "5"] == 2
    assert found["penstock_labels_passed_on_total", "http://b:1", "failed"] == 1
    assert found["penstock_labelled_answers_total", "fraud", "2", "canary", "0.05", "right"] == 6
    assert found["penstock_labelled_answers_total", "fraud", "2", "canary", "0.05", "wrong"] == 3
    assert found["penstock_labelled_answers_total", "fraud", "1", "champion", "", "unlabelled"] == 50
    assert found["penstock_request_value_summed", "fraud", "2", "canary", "0.05"] == -1.5
    assert found["penstock_labelled_pairs_total", "fraud", "1", "3", "only_champion"] == 4
    assert found["penstock_kept_answer_bytes",] == 84000
    assert found["penstock_answers_not_kept_total",] == 1


def test_the_page_has_the_expected_accuracy_beside_that_of_the_labels() -> None:
    found = msgspec.json.decode(as_json(REPORT, "fraud", lambda: {("fraud", "1"): 0.88}))
    (model,) = found["models"]
    assert (model["name"], model["maturity_s"], model["labels"]) == ("fraud", 60.0, {"matched": 9, "unknown": 1})
    assert {each["version"]: each["expected_accuracy"] for each in model["versions"]} == {"1": 0.88, "2": None}
    assert [each["quality"]["rows"] for each in model["versions"]] == [1, 50]
    assert model["pairs"][0]["totals"]["only_shadow"] == 3
    assert found["kept"]["answers"] == 1000


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(NotFoundError, match="penstock serve --labels takes them"):
        as_json(None, "", dict)
    with pytest.raises(NotFoundError, match="nothing is known of labels of model 'fares'"):
        as_json(REPORT, "fares", dict)
    assert msgspec.json.decode(as_json(Report(), "", dict))["models"] == []


def test_totals_are_added_up_for_who_asks() -> None:
    assert TOTALS.of("fraud", "2").wrong == 3
    assert TOTALS.of("fraud", "2", "shadow").rows == 0
    assert TOTALS.pair("fraud", "1", "3").neither == 2
    assert TOTALS.pair("fraud", "1", "9") == PairTotals()
