"""Labels as callers give them become requests to the reserved model."""

import re
from typing import Any

import grpc
import numpy as np
import pytest

from penstock import inference_pb2
from penstock.tensors import from_raw
from penstock_client import Client, InvalidRequestError, UnsupportedError
from penstock_client.errors import ServerError
from penstock_client.feedback import CHUNK, feedback_of, payloads, taken
from penstock_client.testing import FakeServer


def columns(payload: bytes) -> dict[str, list[Any]]:
    request = inference_pb2.ModelInferRequest.FromString(payload)
    assert request.model_name == "penstock.feedback"
    assert request.parameters["model"].string_param == "m"
    return {
        tensor.name: from_raw(raw, tensor.datatype, tensor.shape).tolist()
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        ({"a": 1, "b": 0}, {}, {"ids": [b"a", b"b"], "labels": [1, 0]}),
        ({"a": "x", "b": 2}, {}, {"ids": [b"a", b"b"], "labels": [b"x", b"2"]}),
        ({"a": [True, False]}, {}, {"ids": [b"a", b"a"], "labels": [True, False], "rows": [0, 1]}),
        ({"a": 1.5}, {"values": {"a": 2}}, {"ids": [b"a"], "labels": [1.5], "values": [2.0]}),
        (None, {"values": {"a": 2}}, {"ids": [b"a"], "values": [2.0]}),
        (
            np.array(["x", "y"]),
            {"ids": ["a", "b"], "rows": [0, 4], "values": [1, 2]},
            {"ids": [b"a", b"b"], "labels": [b"x", b"y"], "values": [1.0, 2.0], "rows": [0, 4]},
        ),
    ],
)
def test_labels_are_tensors(labels: Any, options: dict[str, Any], expected: dict[str, list[Any]]) -> None:
    feedback = feedback_of(labels, **{"ids": None, "values": None, "rows": None} | options)
    (payload,) = payloads("m", feedback)
    assert columns(payload) == expected


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        ([1], {}, "expected labels by id, as in {'a-17': 1}, or ids beside a list of labels"),
        ({"a": 1}, {"ids": ["a"]}, "labels by id need neither ids nor rows"),
        ({"a": 1}, {"values": [1.0]}, "values are expected by id where labels are"),
        ({"a": 1}, {"values": {"b": 1.0}}, "id 'b' has a value and no label"),
        ([1, 2], {"ids": ["a"]}, "expected a list of 1 labels, one for each id, got shape [2]"),
        ([1], {"ids": ["a"], "values": {"a": 1}}, "values are expected as a list where labels are one"),
        ([1], {"ids": ["a"], "values": ["x"]}, "values are expected as numbers"),
        ([1], {"ids": ["a"], "rows": [0.5]}, "rows are expected as whole numbers, got float64"),
        ({}, {}, "expected at least one label or value"),
        ([1j], {"ids": ["a"]}, "labels are expected as texts, numbers or booleans"),
    ],
)
def test_what_is_no_label_is_refused(labels: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(said)):
        feedback_of(labels, **{"ids": None, "values": None, "rows": None} | options)


def test_long_lists_go_in_several_requests() -> None:
    ids = [str(each) for each in range(CHUNK + 1)]
    feedback = feedback_of(np.arange(CHUNK + 1), ids=ids, values=None, rows=None)
    found = [columns(payload)["labels"] for payload in payloads("m", feedback)]
    assert [len(each) for each in found] == [CHUNK, 1]
    assert found[0] + found[1] == list(range(CHUNK + 1))


def test_a_client_says_how_many_were_taken() -> None:
    with FakeServer() as server, Client(server.address) as client:
        assert client.feedback("m", {"a": 1, "b": 2}) == 2
        assert client.feedback("m", np.zeros(CHUNK + 2), ids=["x"] * (CHUNK + 2)) == CHUNK + 2
        assert len(server.labels) == 2 + CHUNK + 2
        assert len(server.calls("ModelInfer")) == 3


def test_a_server_that_takes_no_labels_is_called_that() -> None:
    with FakeServer() as server, Client(server.address) as client:
        server.fail(grpc.StatusCode.NOT_FOUND, "model 'penstock.feedback' is not known")
        with pytest.raises(UnsupportedError, match="the server takes no labels"):
            client.feedback("m", {"a": 1})


def test_an_answer_without_a_count_is_the_server_s_fault() -> None:
    with pytest.raises(ServerError, match="has no output 'taken'"):
        taken(inference_pb2.ModelInferResponse().SerializeToString())
