from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from penstock_server.control.champions import champion_signals
from penstock_server.control.view import ServerView, VersionView
from penstock_server.drift.report import DriftAlarm, ExpectedAccuracy, VersionDrift
from penstock_server.labels.quality import Quality, QualityInterval
from penstock_server.labels.report import Report, VersionQuality
from penstock_server.labels.totals import LabelTotals, SubjectTotals, VersionLabels
from penstock_server.metrics.prometheus import VersionSnapshot
from penstock_server.models.artifact import Artifact
from penstock_server.retraining.signals import Estimate, SignalledAlarm, Signals

VIEW = ServerView(
    versions=(
        VersionView("fraud", "3", "READY", ("champion",)),
        VersionView("fraud", "4", "READY", ("canary",), 0.1),
        VersionView("plain", "1", "READY", ("champion", "shadow")),
        VersionView("coming", "1", "LOADING", wanted=("champion",)),
    ),
    workers=(),
    problems={},
    reloads=0,
    failed_reloads=0,
)
DRIFT = VersionDrift(
    "fraud", "3", ("champion",), 10, 100, 0.05, (), None, 0, None, None,
    alarmed=("age",), alarms=(DriftAlarm("age", "shares", 5.0, 1e9),), alarmed_importance=0.4,
    expected_accuracy=ExpectedAccuracy(0.9, 0.8, 0.95, 0.92, 500, 0.0),
)  # fmt: skip


def counters(rows: int) -> Any:
    return SimpleNamespace(rows=np.array([rows]))


def test_signals_are_of_champions_and_leave_out_what_is_not_known() -> None:
    created = datetime(2026, 1, 1, tzinfo=UTC)
    manifest: Any = SimpleNamespace(created=created)
    files = {("fraud", "3"): Artifact(Path(), Path(), manifest=manifest), ("plain", "1"): Artifact(Path(), Path())}
    counted = [
        VersionSnapshot("fraud", "3", ("champion",), None, [counters(5), counters(7)]),
        VersionSnapshot("fraud", "4", ("canary",), 0.1, [counters(99)]),
    ]
    found = champion_signals(VIEW, [DRIFT], counted, None, artifact=files.get, identity={("fraud", "3"): "abc"}.get)
    assert list(found) == [
        Signals(
            "fraud", "3", "abc", ("3", "4"), rows=12, published_s=created.timestamp(),
            expected_accuracy=Estimate(0.9, 0.8, 0.95), alarms=(SignalledAlarm("age", 5.0),), alarmed_importance=0.4,
        ),
        Signals("plain", "1", "", ("1",)),
    ]  # fmt: skip


def totals(role: str, labelled: int) -> VersionLabels:
    return VersionLabels("fraud", "3", "abc", role, None, SubjectTotals(rows=2 * labelled, labelled=labelled))


def test_labels_tell_accuracy_and_how_many_came_for_the_champions_answers() -> None:
    known = Report(
        totals=LabelTotals(versions=(totals("champion", 7), totals("canary", 5))),
        qualities=(
            VersionQuality("fraud", "3", "former", Quality(9, 1, accuracy=QualityInterval(0.5, 0.4, 0.6))),
            VersionQuality("fraud", "3", "abc", Quality(9, 2, accuracy=QualityInterval(0.9, 0.8, 0.95))),
        ),
    )
    found = champion_signals(VIEW, [], [], known, artifact=lambda _: None, identity=lambda _: None)
    fraud, plain = found
    assert (fraud.labels, fraud.accuracy) == (7, Estimate(0.9, 0.8, 0.95))
    assert (plain.labels, plain.accuracy) == (0, None)
