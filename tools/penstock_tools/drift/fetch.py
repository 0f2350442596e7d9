"""Fetches a server's drift report over gRPC or HTTP, as the server's own records.

Decides which version is meant when none is named.
"""

import urllib.parse
from typing import Any, Final

import msgspec

from penstock import penstock_pb2 as pb
from penstock.names import CHAMPION
from penstock_client import ModelNotFoundError, UnsupportedError
from penstock_server.drift.answer import DriftReport, UnwatchedVersion
from penstock_server.drift.report import (
    ColumnDrift,
    DriftAlarm,
    ExpectedAccuracy,
    JointDrift,
    PairDrift,
    SegmentDrift,
    VersionDrift,
)
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_tools.client_commands import http
from penstock_tools.client_commands.connection import PLAIN, Encryption, connected

TIMEOUT_S: Final = 10.0
NOT_FOUND: Final = 404


def fetch(server: str, model: str, encryption: Encryption = PLAIN) -> DriftReport:
    """What a server reports of a model's versions.

    Args:
        server: its gRPC address as host:port, or its HTTP address as http://host:port.
        model: the model's name.
        encryption: how the connection is encrypted.

    Raises:
        InvalidInputError: it is no address, or another service answers there.
        NotFoundError: it has no such model.
        UnavailableError: nothing answers there.
    """
    is_http = server.startswith(("http://", "https://"))
    return _over_http(server, model, encryption) if is_http else _over_grpc(server, model, encryption)


def version_of(report: DriftReport, model: str, version: str = "") -> VersionDrift:
    """The version named by number or alias; without a name the champion, else the first.

    Raises:
        NotFoundError: it is not loaded, or was published without a baseline; says what to do.
    """
    try:
        meant = report.of(model, version)
    except NotFoundError as error:
        loaded = ", ".join(f"{one.version} ({', '.join(one.roles) or 'no role'})" for one in _all(report.of(model)))
        raise NotFoundError(f"{error}; there are {loaded}") from error
    candidates = _all(meant)
    first = min(candidates, key=lambda one: CHAMPION not in one.roles)
    if isinstance(first, VersionDrift):
        return first
    raise NotFoundError(
        f"version {first.version} of model {model!r} was published without a drift baseline, so there is nothing to "
        "compare with; publish it again with --sample"
    )


def _all(report: DriftReport) -> list[VersionDrift | UnwatchedVersion]:
    return [*report.versions, *report.unwatched]


def _over_grpc(server: str, model: str, encryption: Encryption) -> DriftReport:
    with connected(server, encryption, timeout_s=TIMEOUT_S) as client:
        try:
            return report_of(client.drift_state(model))
        except ModelNotFoundError as error:
            raise _unknown(server, error.details) from error
        except UnsupportedError as error:
            raise InvalidInputError(f"the server at {server} has no drift report; is it a Penstock server?") from error


def _over_http(server: str, model: str, encryption: Encryption) -> DriftReport:
    address = f"{server.rstrip('/')}/v1/drift/{urllib.parse.quote(model, safe='')}"
    try:
        body = http.get(address, encryption, timeout_s=TIMEOUT_S)
    except http.StatusError as error:
        if error.status == NOT_FOUND:
            raise _unknown(server, _decoded(error.body, dict[str, str], server).get("error", "")) from error
        raise
    except UnavailableError as error:
        raise _no_answer(server) from error
    found: DriftReport = _decoded(body, DriftReport, server)
    return found


def _decoded(body: bytes, kind: Any, server: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"the answer of {server} is not that of a Penstock server; is it the --http-port of penstock?"
        ) from error


def _unknown(server: str, details: str) -> NotFoundError:
    return NotFoundError(f"{details} at {server}; `penstock models` shows what is")


def _no_answer(server: str) -> UnavailableError:
    return UnavailableError(
        f"no server answers at {server}; start one with `penstock serve`, or name its address with --server"
    )


def report_of(message: pb.DriftStateResponse) -> DriftReport:
    """The records of a reply."""
    return DriftReport(
        tuple(_version(version) for version in message.versions),
        tuple(UnwatchedVersion(one.model, one.version, tuple(one.roles)) for one in message.unwatched),
    )


def _version(version: pb.VersionDrift) -> VersionDrift:
    return VersionDrift(
        **{
            **_fields(version),
            "columns": tuple(map(_column, version.columns)),
            "predictions": _column(version.predictions) if version.HasField("predictions") else None,
            "answers": tuple(map(_column, version.answers)),
            "expected_accuracy": ExpectedAccuracy(**_fields(version.expected_accuracy))
            if version.HasField("expected_accuracy")
            else None,
            "alarmed": tuple(version.alarms.columns) if version.HasField("alarms") else None,
            "alarms": tuple(DriftAlarm(**_fields(alarm)) for alarm in version.alarms.alarms),
            "joint": _joint(version.joint) if version.HasField("joint") else None,
        }
    )


def _joint(joint: pb.JointDrift) -> JointDrift:
    return JointDrift(
        joint.rows,
        tuple(PairDrift(**_fields(pair)) for pair in joint.pairs),
        tuple(SegmentDrift(**_fields(segment)) for segment in joint.segments),
    )


def _column(column: pb.ColumnDrift) -> ColumnDrift:
    return ColumnDrift(**_fields(column))


def _fields(message: Any) -> dict[str, Any]:
    """A message's own values by name; None where one is absent, and messages within are left to the caller."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None:
            value = getattr(message, field.name)
            is_absent = field.has_presence and not message.HasField(field.name)
            found[field.name] = None if is_absent else value if isinstance(value, str | int | float) else tuple(value)
    return found
