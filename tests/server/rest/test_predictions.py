import json
from typing import Any

import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock.names import ATTRIBUTIONS
from penstock_server.errors import InvalidInputError
from penstock_server.rest.predictions import (
    instance_rows,
    invocation_rows,
    predict_answer,
    predict_rows,
    predictions,
)
from penstock_server.rest.rows import GivenRows, signature_of
from tests.server.rest.models import columns_model, matrix_model

COLUMNS = signature_of(columns_model())
MATRIX = signature_of(matrix_model())
NAMED = {"amount": [1.5], "country": ["NO"], "at": [None]}


def encoded(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"features": [1.5, "NO", None]}, GivenRows(1, {}, [[1.5, "NO", None]], is_single=True)),
        ({"features": [[1.5, "NO", None]]}, GivenRows(1, {}, [[1.5, "NO", None]])),
        ([[1.5, "NO", None]], GivenRows(1, {}, [[1.5, "NO", None]])),
        (
            {"amount": 1.5, "country": "NO", "at": None},
            GivenRows(1, {n: (v[0],) for n, v in NAMED.items()}, is_single=True),
        ),
        ({"features": {"amount": 1.5}}, GivenRows(1, {"amount": (1.5,)}, is_single=True)),
        (NAMED, GivenRows(1, NAMED)),
    ],
)
def test_predict_takes_rows_as_people_write_them(body: Any, expected: GivenRows) -> None:
    assert predict_rows(encoded(body), COLUMNS) == expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        ({}, "the body is an object, expected"),
        (7, "the body is 7, expected"),
        ({"features": [1], "version": 2}, "unknown 'version' beside 'features'; options go into the query"),
        ({"a": [1], "b": []}, "as many values as the others"),
    ],
)
def test_what_predict_does_not_take_is_refused(body: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        predict_rows(encoded(body), COLUMNS)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"dataframe_split": {"columns": list(NAMED), "index": [0], "data": [[1.5, "NO", None]]}}, GivenRows(1, NAMED)),
        ({"dataframe_records": [{"amount": 1.5, "country": "NO", "at": None}]}, GivenRows(1, NAMED)),
        ({"instances": [{"amount": 1.5, "country": "NO", "at": None}]}, GivenRows(1, NAMED)),
        ({"inputs": NAMED, "params": {}}, GivenRows(1, NAMED)),
        ({"inputs": [[1.5, "NO", None]]}, GivenRows(1, {}, [[1.5, "NO", None]])),
        ({"dataframe_split": {"data": [[1.5, "NO", None]]}}, GivenRows(1, {}, [[1.5, "NO", None]])),
    ],
)
def test_invocations_take_mlflow_s_four_forms(body: Any, expected: GivenRows) -> None:
    assert invocation_rows(encoded(body), "application/json", COLUMNS) == expected


def test_invocations_take_csv() -> None:
    text = '\ufeffcountry,amount,at,extra\r\n"N,O",1.5,2026-01-31,x\r\n\r\n,,,\r\n'
    rows = invocation_rows(text.encode(), "text/csv; charset=utf-8", COLUMNS)
    assert rows == GivenRows(
        2, {"country": ["N,O", None], "amount": [1.5, None], "at": ["2026-01-31", None], "extra": ["x", None]}
    )


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ({"data": []}, "", "one of dataframe_split, dataframe_records, instances, inputs"),
        ({"instances": [], "inputs": []}, "", "one of dataframe_split"),
        ([], "", "one of dataframe_split"),
        ({"instances": 7}, "", "'instances' takes a list of rows, got 7"),
        ({"instances": [[1]], "params": {"a": 1}}, "", '"params" are given'),
        ({"dataframe_split": [1]}, "", 'takes an object with "columns" and "data"'),
        ({"dataframe_split": {"columns": [1], "data": [[1]]}}, "", '"columns" takes a list of texts'),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "", "takes 1 values"),
        (b"", "text/csv", "the body is empty"),
        (b"\xff", "text/csv", "not CSV in UTF-8"),
        (b"amount\nx\n", "text/csv", "column 'amount' of datatype FP64 has 'x'"),
        (b'a\n"b\n', "text/csv", "not CSV"),
    ],
)
def test_what_invocations_do_not_take_is_refused(body: Any, kind: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        invocation_rows(encoded(body), kind, COLUMNS)


def test_instances_of_one_number_are_rows() -> None:
    assert instance_rows(b'{"instances": [1, 2]}', MATRIX) == GivenRows(2, {}, [1, 2])
    with pytest.raises(InvalidInputError, match='"instances" or "inputs"'):
        instance_rows(b'{"rows": []}', MATRIX)


def reply(rows: int, *, explained: int = 0) -> bytes:
    message = pb.ModelInferResponse(model_name="m", model_version="2")
    message.parameters["penstock_role"].string_param = "canary"
    message.outputs.add(name="label", datatype="INT64", shape=[rows])
    message.raw_output_contents.append(np.arange(rows, dtype="<i8").tobytes())
    message.outputs.add(name="probabilities", datatype="FP32", shape=[rows, 2])
    message.raw_output_contents.append(np.array([[0.25, 0.75]] * rows, "<f4").tobytes())
    message.outputs.add(name="score", datatype="FP64", shape=[rows, 1])
    message.raw_output_contents.append(np.full((rows, 1), np.inf).tobytes())
    if explained:
        added = message.outputs.add(name=ATTRIBUTIONS, datatype="FP64", shape=[rows, 2, explained])
        added.parameters["columns"].string_param = '["a", "b"]'
        added.parameters["of"].string_param = "the log-odds"
        added.parameters["base"].string_param = "[0.5]"
        message.raw_output_contents.append(np.arange(rows * 2 * explained, dtype="<f8").tobytes())
    return message.SerializeToString()


def test_one_row_is_answered_by_itself() -> None:
    assert predict_answer(reply(1, explained=1), GivenRows(1, {}, is_single=True)) == {
        "model": "m", "version": "2", "role": "canary",
        "prediction": 0, "probability": 0.75, "probabilities": [0.25, 0.75],
        "attributions": {"of": "the log-odds", "base": [0.5], "columns": {"a": 0.0, "b": 1.0}},
        "outputs": {"score": "Infinity"},
    }  # fmt: skip


def test_several_rows_are_answered_in_order() -> None:
    answer = predict_answer(reply(2, explained=2), GivenRows(2, {}))
    assert answer["predictions"] == [0, 1]
    assert (answer["probability"], answer["probabilities"]) == ([0.75] * 2, [[0.25, 0.75]] * 2)
    assert answer["attributions"]["columns"] == [{"a": [0.0, 1.0], "b": [2.0, 3.0]}, {"a": [4.0, 5.0], "b": [6.0, 7.0]}]
    assert predictions(reply(2), GivenRows(2, {})) == [0, 1]


def test_a_regression_has_no_probability() -> None:
    message = pb.ModelInferResponse(model_name="m", raw_output_contents=[np.array([1.5, 2.5], "<f4").tobytes()])
    message.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    answer = predict_answer(message.SerializeToString(), GivenRows(1, {}, is_single=True))
    assert answer == {"model": "m", "version": "", "role": "", "prediction": [1.5, 2.5]}


def test_a_model_without_outputs_is_said() -> None:
    with pytest.raises(InvalidInputError, match="has no outputs"):
        predictions(pb.ModelInferResponse().SerializeToString(), GivenRows(1, {}))
