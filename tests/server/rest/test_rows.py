from typing import Any

import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock.tensors import from_raw
from penstock_server.errors import InvalidInputError
from penstock_server.rest.rows import MISSING_TIME, GivenRows, Options, columns_of, message_of, rows_of, signature_of
from tests.server.rest.models import columns_model, image_model, matrix_model, tensors_model

COLUMNS = signature_of(columns_model())
MATRIX = signature_of(matrix_model())
NAMED_MATRIX = signature_of(matrix_model("amount", "a", "b"))
IMAGE = signature_of(image_model())
TENSORS = signature_of(tensors_model())
NOON = 1_769_860_800_000_000_000


def tensors(message: bytes) -> dict[str, Any]:
    request = pb.ModelInferRequest.FromString(message)
    return {
        each.name: from_raw(raw, each.datatype, list(each.shape)).tolist()
        for each, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


def test_a_signature_says_what_a_row_has() -> None:
    assert [(each.name, each.datatype, each.missing, each.is_time) for each in COLUMNS.by_column] == [
        ("amount", "FP64", None, False),
        ("country", "BYTES", "?", False),
        ("at", "INT64", None, True),
    ]
    assert COLUMNS.explains
    assert [each.name for each in NAMED_MATRIX.by_column] == ["a", "b"]
    assert MATRIX.by_column == IMAGE.by_column == TENSORS.by_column == ()


@pytest.mark.parametrize(
    ("value", "is_single", "count"),
    [
        ([1.5, "NO", NOON], True, 1),
        ({"amount": 1.5, "country": "NO", "at": "2026-01-31T12:00:00"}, True, 1),
        ([{"amount": 1.5, "country": "NO", "at": "2026-01-31 12:00:00+00:00"}], False, 1),
        ([[1.5, "NO", "2026-01-31T13:00:00+01:00"], [1.5, "NO", NOON]], False, 2),
    ],
)
def test_rows_come_as_lists_or_as_objects(value: Any, is_single: bool, count: int) -> None:
    rows = rows_of(value, COLUMNS)
    assert (rows.is_single, rows.count) == (is_single, count)
    assert tensors(message_of(COLUMNS, rows, Options())) == {
        "amount": [[1.5]] * count,
        "country": [[b"NO"]] * count,
        "at": [[NOON]] * count,
    }


def test_what_is_missing_is_said_as_the_model_says_it() -> None:
    found = tensors(message_of(COLUMNS, rows_of([None, None, None], COLUMNS), Options()))
    assert np.isnan(found["amount"][0][0])
    assert (found["country"], found["at"]) == ([[b"?"]], [[MISSING_TIME]])


def test_columns_come_as_lists() -> None:
    rows = columns_of({"b": [1, 2, 3], "a": [4, 5, 6]})
    assert (rows.count, rows.is_single) == (3, False)
    assert tensors(message_of(NAMED_MATRIX, rows, Options())) == {"b": [1, 2, 3], "a": [4, 5, 6]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [([1, 2], [[1, 2]]), ([[1, 2], [3, 4]], [[1, 2], [3, 4]])],
)
def test_a_matrix_without_names_takes_rows(value: Any, expected: Any) -> None:
    assert tensors(message_of(MATRIX, rows_of(value, MATRIX), Options())) == {"X": expected}
    assert tensors(message_of(NAMED_MATRIX, rows_of(value, NAMED_MATRIX), Options())) == {"X": expected}


def test_rows_may_be_nested() -> None:
    one = [[1, 2, 3], [4, 5, 6]]
    assert rows_of(one, IMAGE).is_single
    assert tensors(message_of(IMAGE, rows_of(one, IMAGE), Options())) == {"pixels": [one]}
    assert tensors(message_of(IMAGE, rows_of([one, one], IMAGE), Options())) == {"pixels": [one, one]}


def test_several_tensors_come_by_name() -> None:
    rows = rows_of([{"a": [1, 2, 3], "b": True}], TENSORS)
    assert tensors(message_of(TENSORS, rows, Options())) == {"a": [[1, 2, 3]], "b": [True]}


def test_what_is_not_known_goes_along_for_the_version_to_refuse_or_pass_over() -> None:
    message = message_of(NAMED_MATRIX, columns_of({"a": [1], "b": [2], "c": [3]}), Options(ignores_extra=True))
    request = pb.ModelInferRequest.FromString(message)
    assert [each.name for each in request.inputs] == ["a", "b", "c"]
    assert request.parameters["extra_columns"].string_param == "ignore"


def test_options_are_parameters() -> None:
    message = message_of(MATRIX, rows_of([1, 2], MATRIX), Options(version="@canary", routing_key="k", explain=True))
    request = pb.ModelInferRequest.FromString(message)
    assert (request.model_name, request.model_version) == ("amount", "@canary")
    assert request.parameters["routing_key"].string_param == "k"
    assert request.parameters["explain"].bool_param


@pytest.mark.parametrize(
    ("signature", "value", "said"),
    [
        (COLUMNS, 7, "expected a row or a list of rows, got 7"),
        (COLUMNS, [1, "NO"], "a row has 2 values, expected 3: 'amount', 'country', 'at'"),
        (COLUMNS, ["a", "NO", NOON], "tensor 'amount' of datatype FP64 takes numbers, got 'a'"),
        (COLUMNS, [1, 2, NOON], "tensor 'country' of datatype BYTES takes texts, got 2"),
        (COLUMNS, [1, "NO", "noon"], "column 'at' takes times, such as .* got 'noon'"),
        (COLUMNS, [1, "NO", True], "column 'at' takes times"),
        (COLUMNS, [{"amount": 1}, {"country": "NO"}], "one row has 'amount' and another has not"),
        (MATRIX, [1, 2, 3], r"a row of input 'X' has the shape \[3\], expected \[2\] values"),
        (MATRIX, [[1, 2], [3]], "of different lengths"),
        (MATRIX, {"a": 1}, "the model's columns have no names; expected rows of its inputs 'X'"),
        (IMAGE, [[1, 2, 3]], r"has the shape \[1, 3\], expected \[2, -1\]"),
        (TENSORS, [[1, 2, 3], True], "takes several tensors, 'a', 'b'; send them to /v2/models/two/infer"),
    ],
)
def test_rows_that_the_model_does_not_take_are_refused(signature: Any, value: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        message_of(signature, rows_of(value, signature), Options())


@pytest.mark.parametrize("value", [{"a": [1], "b": [1, 2]}, {"a": [1], "b": 2}, {}])
def test_columns_of_different_lengths_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="as many values as the others"):
        columns_of(value)


def test_no_rows_are_a_tensor_without_rows() -> None:
    assert rows_of([], MATRIX) == GivenRows(0, {}, [])
    request = pb.ModelInferRequest.FromString(message_of(MATRIX, rows_of([], MATRIX), Options()))
    assert list(request.inputs[0].shape) == [0, 2]
