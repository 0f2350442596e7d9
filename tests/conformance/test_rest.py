"""The cases of REST find what is wrong, and only that: a server with one fault each, and one with none."""

import json

import numpy as np
import pytest

from penstock_conformance import cases, cli
from penstock_conformance.case import Outcome
from penstock_conformance.contract import MODELS, SUM, identity
from penstock_conformance.rest_wire import RestReply, RestWire, outputs_of
from penstock_conformance.run import chosen, tried
from tests.client.rest.front import Front

ALL = cases.rest()


@pytest.fixture
def front(fake):
    front = Front(fake)
    yield front
    front.stop()


def asked(front, *only, names=None):
    wire = RestWire(front.address.removeprefix("http://"), names or {})
    return {result.case.id: result for result in tried(wire, chosen(ALL, [], only), frozenset(), lambda _: None)}


def outcomes(results):
    return {name: result.outcome for name, result in results.items()}


def test_each_case_says_its_rule_and_where_it_is_written():
    assert len({case.id for case in ALL}) == len(ALL)
    for case in ALL:
        assert case.rule.endswith(".")
        assert case.source
        assert not case.model or case.model in MODELS


def test_values_that_come_back_pass(front):
    found = asked(
        front,
        "rest.tensors.*.flat",
        "rest.tensors.INT64.one",
        "rest.outputs.[ba]*",
        "rest.requests.id.*",
        "rest.metadata.tensors.*",
    )
    assert {name: result.got for name, result in found.items() if result.outcome is not Outcome.PASSED} == {}


def test_raw_contents_that_come_back_pass(front):
    found = asked(front, "rest.binary.*.matrix", "rest.binary.*.extremes", "rest.binary.FP32.output", "rest.binary.two")
    assert {name: result.got for name, result in found.items() if result.outcome is not Outcome.PASSED} == {}


def test_a_server_without_the_binary_extension_does_not_offer_it(front):
    front.is_binary = False
    assert set(outcomes(asked(front, "rest.binary.*")).values()) == {Outcome.NOT_OFFERED}


FAULTS = {
    "another value": (
        identity("FP32"),
        lambda rows: {"OUTPUT": rows["INPUT"] + np.float32(1)},
        "rest.tensors.FP32.flat",
    ),
    "another type": (
        identity("INT8"),
        lambda rows: {"OUTPUT": rows["INPUT"].astype(np.int16)},
        "rest.tensors.INT8.flat",
    ),
    "another shape": (identity("BOOL"), lambda rows: {"OUTPUT": rows["INPUT"].ravel()}, "rest.tensors.BOOL.flat"),
    "one more": (SUM, lambda rows: {"SUM": rows["A"], "DIFFERENCE": rows["A"], "MORE": rows["A"]}, "rest.outputs.all"),
    "raw, another value": (identity("FP64"), lambda rows: {"OUTPUT": -rows["INPUT"]}, "rest.binary.FP64.matrix"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_answer_fails_and_says_how(front, name):
    model, answer, case = FAULTS[name]
    assert asked(front, case)[case].outcome is Outcome.PASSED
    front.fake.models[model].answer = answer
    result = asked(front, case)[case]
    assert result.outcome is Outcome.FAILED
    assert "expected" in result.got


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        ((400, {}, b"bad"), "no error text: 400: bad"),
        ((400, {}, b'{"error": {"text": "bad"}}'), "no error text"),
        ((500, {}, b'{"error": "bad"}'), "500: "),
        ((200, {}, b'{"outputs": []}'), "an answer; expected an error: 400 or 422"),
        (False, "no answer: RemoteDisconnected"),
    ],
)
def test_a_refusal_has_a_status_and_says_why(front, answer, got):
    case = "rest.requests.missing-input"
    front.answers[:] = [front.answer("/v2", {}, b""), answer]
    assert asked(front, case)[case].got.startswith(got)
    front.answers[:] = [front.answer("/v2", {}, b""), (400, {}, b'{"error": "B is missing"}')]
    assert asked(front, case)[case].outcome is Outcome.PASSED


def reply(outputs, raw=b"", **headers):
    head = json.dumps({"outputs": outputs}).encode()
    size = {"inference-header-content-length": str(len(head))} if raw else {}
    return RestReply(200, {**size, **headers}, head + raw, {"outputs": outputs})


def output(**fields):
    return {"name": "y", "datatype": "INT8", "shape": [2], **fields}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (reply([output(data=[1, 2, 3])]), "cannot reshape"),
        (reply([output(data=["1", "2"])]), "data of INT8 hold"),
        (reply([output(data=[1.0, 2.0])]), "data of INT8 hold"),
        (reply([output(data=[True, False])]), "data of INT8 hold"),
        (reply([output(datatype="BOOL", data=[0, 1])]), "data of BOOL hold"),
        (reply([output(datatype="int8", data=[0, 1])]), "datatype 'int8'"),
        (reply([output(parameters={"binary_data_size": 2})], b"\1\2\3"), "1 bytes of the answer belong to no output"),
    ],
)
def test_answers_that_may_not_be_are_told(found, words):
    with pytest.raises(ValueError, match=words):
        outputs_of(found)


def test_answers_are_read_nested_flat_and_raw():
    values = np.array([[1, 2]], np.int8)
    for found in (
        reply([output(shape=[1, 2], data=[[1, 2]])]),
        reply([output(shape=[1, 2], data=[1, 2])]),
        reply([output(shape=[1, 2], parameters={"binary_data_size": 2})], b"\1\2"),
    ):
        assert outputs_of(found)["y"][1].tolist() == values.tolist()
    words = outputs_of(reply([output(datatype="FP32", shape=[3], data=[None, "Infinity", 1])]))["y"][1]
    assert np.array_equal(words, [np.nan, np.inf, 1], equal_nan=True)


def test_other_names_of_models_stand_in_the_path(front):
    front.fake.models["own name"] = front.fake.models.pop(SUM)
    found = asked(front, "rest.requests.name", names={SUM: "own%20name"})
    assert front.seen[-1][1] == "/v2/models/own%20name/infer"
    assert "model_name" in found["rest.requests.name"].got


def test_the_command_asks_by_rest_alone_or_by_both(front, capsys, monkeypatch):
    address = front.address.removeprefix("http://")
    assert cli.main(["--http", address, "--section", "REST outputs", "--only", "*.all"]) == 0
    assert cli.main([front.fake.address, "--http", address, "--only", "*.health.live"]) == 0
    out = capsys.readouterr().out
    assert "REST health                    1       0            0" in out
    assert "all                            2       0            0" in out
    assert cli.main(["--http", "127.0.0.1:1"]) == 2
    assert "no server of HTTP answers at 127.0.0.1:1" in capsys.readouterr().err
