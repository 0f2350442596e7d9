from dataclasses import asdict, fields, replace
from typing import Any

import msgspec
import pytest

from penstock import penstock_pb2 as pb
from penstock_server.drift.answer import DriftReport, UnwatchedVersion, answer, as_json, as_message
from penstock_server.drift.report import (
    ColumnDrift,
    DriftAlarm,
    ExpectedAccuracy,
    JointDrift,
    PairDrift,
    SegmentDrift,
    VersionDrift,
)
from penstock_server.errors import NotFoundError

COLUMN = ColumnDrift(
    name="delay", kind="number", rows=900, rows_needed=75, effective_rows=75, enough_rows=True, jensen_shannon=0.25, psi=0.5,
    psi_unbiased=-0.01, ks=0.125, ks_slack=0.5, wasserstein=0.75, missing_ratio=0.1, unseen_ratio=None,
    infinite_ratio=0.0, out_of_range_ratio=0.2, p_value=0.01, drifted=True, dispersion=1.5, minimum_effect=0.1,
    labels=("< 1", "missing"), reference=(1.0, 0.0), current=(0.9, 0.1), importance=0.5, detectable=0.25,
)  # fmt: skip
SILENT = replace(
    COLUMN, name="airport", kind="string", rows=3, enough_rows=False, jensen_shannon=None, psi=None, psi_unbiased=None,
    ks=None, ks_slack=None, wasserstein=None, missing_ratio=None, infinite_ratio=None, out_of_range_ratio=None,
    p_value=None, drifted=None, importance=None, detectable=None,
)  # fmt: skip
PAIR = PairDrift(
    first="delay", second="airport", rows=90, rows_needed=80, association_reference=0.5, association=None, psi_unbiased=None,
    p_value=None, drifted=None, first_labels=("a", "b"), second_labels=("c",), reference=(0.25, 0.75), current=(0.5, 0.5),
)  # fmt: skip
SEGMENT = SegmentDrift(
    column="airport", segment="OSL", rows=90, rows_needed=80, share_reference=0.5, share=0.25, psi_unbiased=0.125, p_value=0.5,
    drifted=False, labels=("no", "yes"), reference=(0.25, 0.75), current=(0.5, 0.5),
)  # fmt: skip
EXPECTED = ExpectedAccuracy(0.8, 0.75, 0.85, 0.9, 5000, 0.01)
ONE = VersionDrift(
    model="m", version="1", roles=("champion",), rows=900, window_rows=10_000, rate=0.05, columns=(COLUMN, SILENT),
    predictions=replace(COLUMN, name="label", kind="class"), answers=(replace(COLUMN, name="confidence", kind="score"),),
    tested=1, drifted=1, global_p_value=0.01, alarmed=("delay", ""),
    alarms=(DriftAlarm("delay", "shares", 1e9, 1e8), DriftAlarm("", "unseen", 2e9, 3e7)), looks=9, order="sorted",
    ordered_by=("day", "hour"), joint=JointDrift(90, (PAIR,), (SEGMENT,)), alarmed_importance=0.75, expected_accuracy=EXPECTED,
)  # fmt: skip
TWO = replace(
    ONE, version="2", roles=("canary", "shadow"), columns=(), predictions=None, answers=(), expected_accuracy=None,
    tested=0, drifted=None, global_p_value=None, alarmed=None, alarms=(), joint=None, alarmed_importance=None,
)  # fmt: skip
OTHER = UnwatchedVersion("n", "7", ("champion",))
REPORT = DriftReport((ONE, TWO), (OTHER,))


@pytest.mark.parametrize(
    ("model", "version", "found"),
    [
        ("", "", REPORT),
        ("m", "", DriftReport((ONE, TWO))),
        ("m", "2", DriftReport((TWO,))),
        ("m", "@shadow", DriftReport((TWO,))),
        ("", "@champion", DriftReport((ONE,), (OTHER,))),
        ("n", "7", DriftReport((), (OTHER,))),
    ],
)
def test_a_part_can_be_asked_for(model: str, version: str, found: DriftReport) -> None:
    assert REPORT.of(model, version) == found


@pytest.mark.parametrize(
    ("model", "version", "said"),
    [
        ("x", "", "no version of model 'x' is loaded"),
        ("m", "3", "no version '3' of model 'm' is loaded"),
        ("m", "champion", "no version 'champion' of model 'm' is loaded"),
        ("", "@nobody", "no version '@nobody' of any model is loaded"),
    ],
)
def test_what_is_not_loaded_is_said(model: str, version: str, said: str) -> None:
    with pytest.raises(NotFoundError, match=said):
        REPORT.of(model, version)


def test_no_models_are_no_error_unless_one_is_named() -> None:
    assert DriftReport().of("") == DriftReport()
    with pytest.raises(NotFoundError):
        DriftReport().of("m")


def plain(message: Any) -> dict[str, Any]:
    """A message's fields, absent ones as None."""
    return {
        field.name: None if field.has_presence and not message.HasField(field.name) else getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
    }


def test_a_column_travels_whole() -> None:
    message = as_message(REPORT)
    for column, sent in zip(ONE.columns, message.versions[0].columns, strict=True):
        expected = {field.name: getattr(column, field.name) for field in fields(column)}
        assert {name: tuple(v) if hasattr(v, "append") else v for name, v in plain(sent).items()} == expected


def test_pairs_and_segments_travel_whole() -> None:
    one, two = as_message(REPORT).versions
    assert (one.joint.rows, two.HasField("joint")) == (90, False)
    for record, sent in ((PAIR, one.joint.pairs[0]), (SEGMENT, one.joint.segments[0])):
        expected = {field.name: getattr(record, field.name) for field in fields(record)}
        assert {name: tuple(v) if hasattr(v, "append") else v for name, v in plain(sent).items()} == expected


def test_a_version_travels_whole() -> None:
    one, two = as_message(REPORT).versions
    assert (one.model, one.version, list(one.roles), one.rows) == ("m", "1", ["champion"], 900)
    assert (one.window_rows, one.rate, one.tested, one.drifted, one.global_p_value) == (10_000, 0.05, 1, 1, 0.01)
    assert (one.predictions.name, list(one.alarms.columns)) == ("label", ["delay", ""])
    assert [answer.name for answer in one.answers] == ["confidence"]
    assert plain(one.expected_accuracy) == asdict(EXPECTED)
    assert one.alarmed_importance == 0.75
    absent = ("alarmed_importance", "predictions", "expected_accuracy", "drifted", "global_p_value", "alarms")
    assert not any(two.HasField(name) for name in absent)
    (unwatched,) = as_message(REPORT).unwatched
    assert (unwatched.model, unwatched.version, list(unwatched.roles)) == ("n", "7", ["champion"])


def test_a_question_is_answered_on_the_wire() -> None:
    reply = answer(pb.DriftStateRequest(model="m", version="@champion").SerializeToString(), lambda: REPORT)
    assert pb.DriftStateResponse.FromString(reply) == as_message(DriftReport((ONE,)))


def test_json_holds_the_same() -> None:
    assert msgspec.json.decode(as_json(REPORT), type=DriftReport) == REPORT
    nothing = replace(ONE, columns=(replace(COLUMN, psi=float("nan")),), predictions=None)
    assert msgspec.json.decode(as_json(DriftReport((nothing,))))["versions"][0]["columns"][0]["psi"] is None
