"""Drift reports as a message of `penstock.v1` and as JSON, for the models and versions that a request selects.

`monitor` makes the reports. The RPC and the HTTP port answer through the same functions, on a thread of the supervisor.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgspec

from penstock import penstock_pb2 as pb
from penstock_server.drift.report import ColumnDrift, DriftAlarm, JointDrift, PairDrift, SegmentDrift, VersionDrift
from penstock_server.metrics.selection import not_loaded, selected


@dataclass(frozen=True, slots=True)
class UnwatchedVersion:
    """A loaded version that was published without a baseline."""

    model: str
    version: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Every loaded version: the reports of those with a baseline, and those without."""

    versions: tuple[VersionDrift, ...] = ()
    unwatched: tuple[UnwatchedVersion, ...] = ()

    def of(self, model: str, version: str = "") -> "DriftReport":
        """The part of the report on a model and a version.

        Args:
            model: its name; "" for all.
            version: its number or an alias such as "@champion"; "" for all.

        Raises:
            NotFoundError: no such version is loaded.
        """
        found = DriftReport(selected(self.versions, model, version), selected(self.unwatched, model, version))
        if (model or version) and not (found.versions or found.unwatched):
            raise not_loaded(model, version)
        return found


def answer(body: bytes, report: Callable[[], DriftReport]) -> bytes:
    """The `DriftStateResponse` to a `DriftStateRequest`, both encoded.

    Raises:
        NotFoundError: no version that it selects is loaded.
    """
    request = pb.DriftStateRequest.FromString(body)
    return as_message(report().of(request.model, request.version)).SerializeToString()


def as_message(report: DriftReport) -> pb.DriftStateResponse:
    return pb.DriftStateResponse(
        versions=[_version(version) for version in report.versions],
        unwatched=[
            pb.UnwatchedVersion(model=one.model, version=one.version, roles=one.roles) for one in report.unwatched
        ],
    )


def as_json(report: DriftReport) -> bytes:
    """A report as JSON: the records' fields by their names; an unknown value is null."""
    return msgspec.json.encode(report)


def _version(version: VersionDrift) -> pb.VersionDrift:
    predictions, alarmed, expected = version.predictions, version.alarmed, version.expected_accuracy
    return pb.VersionDrift(
        model=version.model,
        version=version.version,
        roles=version.roles,
        rows=version.rows,
        window_rows=version.window_rows,
        rate=version.rate,
        columns=[_column(column) for column in version.columns],
        predictions=None if predictions is None else _column(predictions),
        answers=[_column(answer) for answer in version.answers],
        expected_accuracy=None if expected is None else pb.ExpectedAccuracy(**asdict(expected)),
        tested=version.tested,
        drifted=version.drifted,
        global_p_value=version.global_p_value,
        importance_measure=version.importance_measure,
        looks=version.looks,
        order=version.order,
        ordered_by=version.ordered_by,
        alarms=None if alarmed is None else pb.Alarms(columns=alarmed, alarms=map(_alarm, version.alarms)),
        joint=None if version.joint is None else _joint(version.joint),
        alarmed_importance=version.alarmed_importance,
    )


def _joint(joint: JointDrift) -> pb.JointDrift:
    return pb.JointDrift(
        rows=joint.rows,
        pairs=[pb.PairDrift(**_fields(pair)) for pair in joint.pairs],
        segments=[pb.SegmentDrift(**_fields(segment)) for segment in joint.segments],
    )


def _alarm(alarm: DriftAlarm) -> pb.Alarm:
    return pb.Alarm(column=alarm.column, kind=alarm.kind, since=alarm.since, once_in_looks=alarm.once_in_looks)


def _column(column: ColumnDrift) -> pb.ColumnDrift:
    return pb.ColumnDrift(**_fields(column))


def _fields(record: ColumnDrift | PairDrift | SegmentDrift) -> dict[str, Any]:
    """The record's fields have the message's names, and None is an absent field."""
    return {field.name: getattr(record, field.name) for field in fields(record)}
