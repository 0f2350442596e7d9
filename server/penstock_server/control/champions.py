"""What the rules of retraining look at, from what the server knows of each model's champion. Pure."""

from collections.abc import Callable, Iterator, Sequence

from penstock.names import VersionKey
from penstock_server.control.view import ServerView
from penstock_server.drift.report import VersionDrift
from penstock_server.metrics.prometheus import VersionSnapshot
from penstock_server.models.artifact import Artifact
from penstock_server.retraining.signals import Alarm, Estimate, Signals

CHAMPION = "champion"


def champion_signals(
    view: ServerView,
    drift: Sequence[VersionDrift],
    counted: Sequence[VersionSnapshot],
    *,
    artifact: Callable[[VersionKey], Artifact | None],
    identity: Callable[[VersionKey], str | None],
) -> Iterator[Signals]:
    """The signals of each model whose champion answers.

    Args:
        view: what the supervisor knows.
        drift: of the versions that have a baseline.
        counted: of the loaded versions.
        artifact: the files of a version, if they have been fetched.
        identity: the identity of these files.
    """
    rows = {(one.model, one.version): sum(int(counters.rows[0]) for counters in one.counters) for one in counted}
    reports = {(one.model, one.version): one for one in drift}
    for version in view.versions:
        if CHAMPION not in version.roles:
            continue
        files, report = artifact(version.key), reports.get(version.key)
        manifest = None if files is None else files.manifest
        expected = None if report is None else report.expected_accuracy
        yield Signals(
            version.model,
            version.version,
            identity(version.key) or "",
            tuple(each.version for each in view.versions if each.model == version.model),
            rows=rows.get(version.key, 0),
            published_s=None if manifest is None else manifest.created.timestamp(),
            expected_accuracy=None if expected is None else Estimate(expected.value, expected.low, expected.high),
            alarms=_alarms(report),
            alarmed_importance=None if report is None else report.alarmed_importance,
        )


def _alarms(report: VersionDrift | None) -> tuple[Alarm, ...] | None:
    if report is None or report.alarmed is None:
        return None
    return tuple(Alarm(alarm.column, alarm.since) for alarm in report.alarms)
