"""The suite finds what is wrong, and only that: a server with one fault each, and one with none."""

import json
import subprocess
import sys

import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_conformance import cases, cli, report
from penstock_conformance.case import Answered, Case, Outcome, Refused, Result, described
from penstock_conformance.contract import DATATYPES, MODELS, SUM, identity
from penstock_conformance.grpc_cases import infer
from penstock_conformance.grpc_wire import GrpcWire, outputs_of, unlike
from penstock_conformance.run import chosen, tried

ALL = cases.grpc()


def asked(server, *only, names=None, absent=frozenset()):
    wire = GrpcWire(server.address, names or {})
    try:
        return {result.case.id: result for result in tried(wire, chosen(ALL, [], only), absent, lambda _: None)}
    finally:
        wire.close()


def outcomes(results):
    return {name: result.outcome for name, result in results.items()}


def test_there_are_three_hundred_cases_and_each_says_its_rule_and_where_it_is_written():
    assert len(ALL) >= 300
    assert len({case.id for case in ALL}) == len(ALL)
    for case in ALL:
        assert case.rule.endswith(".")
        assert case.source
        assert case.section
        assert not case.model or case.model in MODELS


def test_every_datatype_is_tried_raw_and_typed_where_it_can_be():
    ids = {case.id for case in ALL}
    for datatype in DATATYPES:
        assert {f"grpc.raw.{datatype}.{name}" for name in ("one", "matrix", "extremes", "many", "short", "long")} <= ids
        assert (f"grpc.typed.{datatype}.matrix" in ids) is (datatype != "FP16")


@pytest.mark.parametrize("datatype", DATATYPES)
def test_values_that_come_back_pass(fake, datatype):
    found = asked(fake, f"grpc.raw.{datatype}.[moe]*", f"grpc.typed.{datatype}.[me]*")
    assert {
        name: result.got for name, result in found.items() if result.outcome is Outcome.FAILED and "odd" not in name
    } == {}


FAULTS = {
    "another value": (identity("FP32"), lambda rows: {"OUTPUT": rows["INPUT"] + np.float32(1)}, "grpc.raw.FP32.matrix"),
    "another type": (
        identity("FP32"),
        lambda rows: {"OUTPUT": rows["INPUT"].astype(np.float64)},
        "grpc.raw.FP32.matrix",
    ),
    "another shape": (identity("FP32"), lambda rows: {"OUTPUT": rows["INPUT"].ravel()}, "grpc.raw.FP32.matrix"),
    "another name": (identity("FP32"), lambda rows: {"OUT": rows["INPUT"]}, "grpc.raw.FP32.matrix"),
    "one more": (SUM, lambda rows: {"SUM": rows["A"], "DIFFERENCE": rows["A"], "MORE": rows["A"]}, "grpc.outputs.all"),
    "no negative zero": (
        identity("FP32"),
        lambda rows: {"OUTPUT": rows["INPUT"] + np.float32(0)},
        "grpc.raw.FP32.extremes",
    ),
    "texts cut": (
        identity("BYTES"),
        lambda rows: {
            "OUTPUT": [[text.rstrip("\x00") if isinstance(text, str) else text for text in rows["INPUT"][0]]]
        },
        "grpc.strings.raw.nul",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_answer_fails_and_says_how(fake, name):
    model, answer, case = FAULTS[name]
    assert asked(fake, case)[case].outcome is Outcome.PASSED
    fake.models[model].answer = answer
    result = asked(fake, case)[case]
    assert result.outcome is Outcome.FAILED
    assert "expected" in result.got


def test_an_answer_where_an_error_is_due_fails(fake):
    fake.models[SUM].answer = lambda rows: {"SUM": rows["A"], "DIFFERENCE": rows["A"]}
    result = asked(fake, "grpc.requests.missing-input")["grpc.requests.missing-input"]
    assert (result.outcome, result.got) == (Outcome.FAILED, "an answer; expected an error: INVALID_ARGUMENT")


def test_an_error_of_another_code_fails_and_is_quoted(fake):
    def broken(rows):
        raise KeyError("B")

    fake.models[SUM].answer = broken
    result = asked(fake, "grpc.requests.missing-input")["grpc.requests.missing-input"]
    assert result.outcome is Outcome.FAILED
    assert result.got.startswith("UNKNOWN: ")


def test_what_a_server_does_not_offer_is_no_failure(fake):
    found = outcomes(asked(fake, "grpc.reflection.*", "grpc.repository.statistics", "grpc.health-service.watch"))
    assert set(found.values()) == {Outcome.NOT_OFFERED}


def test_a_model_that_a_server_does_not_have_is_no_failure(fake):
    fake.models.clear()
    found = asked(fake, "grpc.versions.*", absent=frozenset({"versions_FP32"}))
    assert set(outcomes(found).values()) == {Outcome.NOT_OFFERED}


def test_streams_are_matched_by_their_ids(fake):
    found = outcomes(asked(fake, "grpc.streams.*"))
    assert {name for name, outcome in found.items() if outcome is Outcome.FAILED} == set()
    fake.models[identity("FP32")].answer = lambda rows: {"OUTPUT": rows["INPUT"] * 0}
    assert asked(fake, "grpc.streams.10")["grpc.streams.10"].outcome is Outcome.FAILED


def test_other_names_of_models_are_asked_for(fake):
    fake.models["own"] = fake.models.pop(SUM)
    found = asked(fake, "grpc.requests.name", "grpc.health.model.*", names={SUM: "own"})
    assert set(outcomes(found).values()) == {Outcome.PASSED}
    assert fake.calls("ModelInfer")[0].request.model_name == "own"


REPLY = pb.ModelInferResponse
TEXT = REPLY.InferOutputTensor(name="OUTPUT", datatype="BYTES", shape=[1])
HEAD = REPLY.InferOutputTensor(name="OUTPUT", datatype="FP32", shape=[2])


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (REPLY(outputs=[HEAD], raw_output_contents=[b"", b""]), "2 raw contents for 1 outputs"),
        (REPLY(outputs=[HEAD], raw_output_contents=[b"1234"]), "do not fit"),
        (REPLY(outputs=[REPLY.InferOutputTensor(name="OUTPUT", datatype="FLOAT")]), "datatype 'FLOAT'"),
        (REPLY(outputs=[REPLY.InferOutputTensor(name="OUTPUT", datatype="FP16", shape=[1])]), "no typed contents"),
        (REPLY(outputs=[TEXT], raw_output_contents=[b"\x09\0\0\0a"]), "longer than the contents"),
    ],
)  # fmt: skip
def test_replies_that_may_not_be_are_told(reply, words):
    with pytest.raises(ValueError, match=words):
        outputs_of(reply)


def test_raw_and_typed_contents_together_are_told():
    both = REPLY(outputs=[HEAD], raw_output_contents=[b"12345678"])
    both.outputs[0].contents.fp32_contents.extend([1, 2])
    with pytest.raises(ValueError, match="raw and typed"):
        outputs_of(both)


def test_typed_replies_are_read():
    head = REPLY.InferOutputTensor(name="OUTPUT", datatype="INT8", shape=[2])
    head.contents.int_contents.extend([-1, 5])
    assert unlike(outputs_of(REPLY(outputs=[head])), {"OUTPUT": np.array([-1, 5], np.int8)}) is None


def test_requests_are_as_the_protocol_has_them():
    message = infer("m", {"a": np.array([[1, 2]], np.int16)})
    assert (message.inputs[0].datatype, list(message.inputs[0].shape)) == ("INT16", [1, 2])
    assert message.raw_input_contents[0] == b"\x01\x00\x02\x00"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "penstock_conformance", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_prints_a_table_and_failures_and_writes_all(fake, tmp_path):
    fake.models[identity("FP32")].answer = lambda rows: {"OUTPUT": rows["INPUT"] + np.float32(1)}
    file = tmp_path / "results.json"
    done = run(fake.address, "--only", "grpc.raw.FP32.matrix", "--only", "grpc.health.live", "--json", str(file))
    assert done.returncode == 1
    assert "all                            1       1            0" in done.stdout
    assert "grpc.raw.FP32.matrix\n  rule:     Raw contents are the elements in row-major order" in done.stdout
    written = json.loads(file.read_text())
    assert written["counts"] == {"passed": 1, "failed": 1, "not offered": 0}
    assert [case["id"] for case in written["cases"]] == ["grpc.health.live", "grpc.raw.FP32.matrix"]


def test_the_command_says_how_it_went_by_its_exit_status(fake, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_REACH_S", 0.2)
    assert cli.main([fake.address, "--section", "health", "--only", "*.live"]) == 0
    assert cli.main(["127.0.0.1:1"]) == 2
    assert cli.main([]) == 2
    assert "no server answers at 127.0.0.1:1" in capsys.readouterr().err


def test_the_command_shows_cases_and_models_and_writes_models(tmp_path, capsys):
    assert cli.main(["--list", "--section", "server metadata"]) == 0
    assert cli.main(["--models"]) == 0
    assert cli.main(["--write-models", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "grpc.server-metadata.name  The server says its name." in out
    assert "versions_FP32, versions 1 and 2: INPUT FP32 [-1, 4] -> OUTPUT FP32 [-1, 4]; OUTPUT is INPUT plus" in out
    assert (tmp_path / "versions_FP32" / "2" / "model.onnx").is_file()


def test_written_models_do_what_the_contract_says(tmp_path):
    import onnxruntime

    from penstock_conformance.contract import write

    write(tmp_path)
    rows = {
        SUM: {"A": np.ones((2, 4), np.float32), "B": np.full((2, 4), 3, np.float32)},
        "versions_FP32": {"INPUT": np.zeros((1, 4), np.float32)},
        "pick_INT64": {"INPUT": np.array([3, 0])},
        "fixed_FP32": {"INPUT": np.ones((1, 2, 3), np.float32)},
        identity("BYTES"): {"INPUT": np.array([["a"]], object)},
    }
    found = {
        name: onnxruntime.InferenceSession(tmp_path / name / MODELS[name].versions[-1] / "model.onnx").run(None, given)
        for name, given in rows.items()
    }
    assert [each[0, 0] for each in found[SUM]] == [4, -2]
    assert found["versions_FP32"][0].tolist() == [[2, 2, 2, 2]]
    assert found["pick_INT64"][0].tolist() == [40, 10]
    assert found["fixed_FP32"][0].shape == (1, 2, 3)
    assert found[identity("BYTES")][0].tolist() == [["a"]]
    assert "version_policy { all {} }" in (tmp_path / "versions_FP32" / "config.pbtxt").read_text()


def test_a_record_says_what_was_expected():
    case = Case("a", "s", "R.", "here", None, Answered({"x": np.zeros(2)}, {"id": "1"}))
    (line,) = report.record([Result(case, Outcome.FAILED, "got")], {})["cases"]
    assert line["expected"] == "an answer with id = '1', x: float64 [2]"
    assert described(Refused(("NOT_FOUND",))) == "an error: NOT_FOUND"
