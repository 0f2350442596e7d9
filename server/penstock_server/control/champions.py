"""What the rules of retraining look at, from what the server knows of each model's champion. Pure."""

from collections.abc import Callable, Iterator, Sequence

from penstock.names import CHAMPION, VersionKey
from penstock_server.control.view import ServerView
from penstock_server.drift.report import ExpectedAccuracy, VersionDrift
from penstock_server.labels.gauges import latest
from penstock_server.labels.quality import QualityInterval
from penstock_server.labels.report import Report
from penstock_server.metrics.prometheus import VersionSnapshot
from penstock_server.models.artifact import Artifact
from penstock_server.retraining.signals import Estimate, SignalledAlarm, Signals


def champion_signals(
    view: ServerView,
    drift: Sequence[VersionDrift],
    counted: Sequence[VersionSnapshot],
    labels: Report | None,
    *,
    artifact: Callable[[VersionKey], Artifact | None],
    identity: Callable[[VersionKey], str | None],
) -> Iterator[Signals]:
    """The signals of each model whose champion answers.

    Args:
        view: what the supervisor knows.
        drift: of the versions that have a baseline.
        counted: of the loaded versions.
        labels: what the joiner of labels tells; None where none are taken.
        artifact: the files of a version, if they have been fetched.
        identity: the identity of these files.
    """
    rows = {(one.model, one.version): sum(int(counters.rows[0]) for counters in one.counters) for one in counted}
    accuracies = {
        (one.model, one.version): one.quality.accuracy for one in latest(() if labels is None else labels.qualities)
    }
    reports = {(one.model, one.version): one for one in drift}
    for version in view.versions:
        if CHAMPION not in version.roles:
            continue
        files, report = artifact(version.key), reports.get(version.key)
        manifest = None if files is None else files.manifest
        yield Signals(
            version.model,
            version.version,
            identity(version.key) or "",
            tuple(each.version for each in view.versions if each.model == version.model),
            rows=rows.get(version.key, 0),
            labels=None if labels is None else labels.totals.of(*version.key, CHAMPION).labelled,
            published_s=None if manifest is None else manifest.created.timestamp(),
            accuracy=_estimate(accuracies.get(version.key)),
            expected_accuracy=_estimate(None if report is None else report.expected_accuracy),
            alarms=_alarms(report),
            alarmed_importance=None if report is None else report.alarmed_importance,
        )


def _estimate(found: QualityInterval | ExpectedAccuracy | None) -> Estimate | None:
    return None if found is None else Estimate(found.value, found.low, found.high)


def _alarms(report: VersionDrift | None) -> tuple[SignalledAlarm, ...] | None:
    if report is None or report.alarmed is None:
        return None
    return tuple(SignalledAlarm(alarm.column, alarm.since) for alarm in report.alarms)
