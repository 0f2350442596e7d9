"""What a message says about labels becomes records, or one sentence about what is wrong with it."""

import re
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import inference_pb2
from penstock.names import FEEDBACK_MODEL
from penstock.penstock_pb2 import FeedbackRequest
from penstock.tensors import datatype_of, to_raw
from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError
from penstock_server.labels.keys import keys_of, word_of
from penstock_server.labels.wire import (
    CLASS,
    KEY,
    MODEL,
    MOST_LABELS,
    NUMBER,
    PASSED_ON,
    RECEIVED_NS,
    ROW,
    VALUE,
    Labels,
    labels_in,
    labels_of,
    passed_records,
    records_of,
)

NAN = float("nan")


def check(model: str) -> None:
    if model not in ("m", "n"):
        raise NotFoundError(f"model {model!r} is not served")


def asked(*, model: str = "m", **columns: Any) -> inference_pb2.ModelInferRequest:
    request = inference_pb2.ModelInferRequest(model_name=FEEDBACK_MODEL)
    if model:
        request.parameters["model"].string_param = model
    for name, values in columns.items():
        array = np.array(values, object) if isinstance(values[0], str | bytes) else np.array(values)
        request.inputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
        request.raw_input_contents.append(to_raw(array))
    return request


def test_a_label_is_a_record() -> None:
    request = FeedbackRequest(model="m", ids=["a", "b"], classes=["yes", "1.5"], values=[2.0, NAN], rows=[0, 3])
    records = records_of(labels_of(request), check, 77)
    numbers = records.view(np.float64)
    assert records.view(np.uint64)[:, KEY].tolist() == keys_of("m", [b"a", b"b"]).tolist()
    assert records.view(np.uint64)[:, MODEL].tolist() == [word_of("m")] * 2
    assert records.view(np.uint64)[:, CLASS].tolist() == [word_of("yes"), word_of("1.5")]
    assert records[:, RECEIVED_NS].tolist() == [77, 77]
    assert records[:, ROW].tolist() == [0, 3]
    np.testing.assert_array_equal(numbers[:, NUMBER], [NAN, 1.5])
    np.testing.assert_array_equal(numbers[:, VALUE], [2.0, NAN])


@pytest.mark.parametrize(
    ("columns", "same"),
    [
        ({"labels": ["no", "yes"]}, {"classes": ["no", "yes"]}),
        ({"labels": [0, 1]}, {"numbers": [0.0, 1.0]}),
        ({"labels": [True, False]}, {"numbers": [1.0, 0.0]}),
        ({"labels": [0.5, -2.0]}, {"numbers": [0.5, -2.0]}),
        ({"values": [0.5, NAN]}, {"values": [0.5, NAN]}),
        ({"labels": [1, 0], "rows": [5, 6], "values": [1, 2]}, {"numbers": [1, 0], "rows": [5, 6], "values": [1, 2]}),
        ({"labels": [1, 0], "models": ["m", "n"]}, {"numbers": [1, 0], "models": ["m", "n"]}),
    ],
)
def test_the_open_inference_protocol_says_the_same(columns: dict[str, Any], same: dict[str, Any]) -> None:
    model = "" if "models" in columns else "m"
    first = records_of(labels_in(asked(model=model, ids=["a", "b"], **columns)), check, 5)
    second = records_of(labels_of(FeedbackRequest(model=model, ids=["a", "b"], **same)), check, 5)
    np.testing.assert_array_equal(first, second)


def test_typed_contents_say_the_same_as_raw_ones() -> None:
    request = inference_pb2.ModelInferRequest(model_name=FEEDBACK_MODEL)
    request.parameters["model"].string_param = "m"
    ids = request.inputs.add(name="ids", datatype="BYTES", shape=[2, 1])
    ids.contents.bytes_contents.extend([b"a", b"b"])
    labels = request.inputs.add(name="labels", datatype="INT64", shape=[2, 1])
    labels.contents.int64_contents.extend([0, 1])
    np.testing.assert_array_equal(
        records_of(labels_in(request), check, 5), records_of(labels_in(asked(ids=["a", "b"], labels=[0, 1])), check, 5)
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ids": []}, "the message has 0 ids, expected 1 to 16384"),
        ({"ids": ["a"] * (MOST_LABELS + 1), "numbers": [1.0]}, "the message has 16385 ids, expected 1 to 16384"),
        ({"numbers": [1.0, 2.0]}, "the message has 1 ids and 2 numbers, expected as many or none"),
        ({"classes": ["a"], "numbers": [1.0]}, "got 1 classes and 1 numbers, expected labels of one form"),
        ({}, "the message has neither labels nor values"),
        (
            {"numbers": [1.0], "model": ""},
            "expected the model of all labels or the models of each, got both or neither",
        ),
        ({"numbers": [1.0], "models": ["m"]}, "got both or neither"),
        ({"numbers": [1.0], "ids": [""]}, "id 0 takes 0 bytes, expected 1 to 1024"),
        ({"numbers": [1.0], "ids": ["é" * 513]}, "id 0 takes 1026 bytes, expected 1 to 1024"),
        ({"classes": [""]}, "a class takes 0 bytes, expected 1 to 1024"),
        ({"classes": ["x" * 1025]}, "a class takes 1025 bytes, expected 1 to 1024"),
        ({"numbers": [NAN]}, "label 0 is nan, expected a class or a number of at most 1e+100"),
        ({"numbers": [float("inf")]}, "label 0 is inf, expected a class or a number of at most"),
        (
            {"values": [1.0, -1e101], "ids": ["a", "b"]},
            "value 1 is -1e+101, expected a number of at most 1e+100, or NaN",
        ),
        ({"values": [float("-inf")]}, "value 0 is -inf, expected a number of at most 1e+100, or NaN for none"),
        ({"numbers": [1.0], "rows": [-1]}, "rows are numbered from 0 in each request, got -1 to -1"),
        ({"numbers": [1.0], "rows": [1 << 31]}, "rows are numbered from 0"),
        ({"numbers": [1.0], "model": "z"}, "model 'z' is not served"),
        ({"numbers": [1.0], "model": "", "models": ["z"]}, "model 'z' is not served"),
    ],
)
def test_what_is_no_label_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(PenstockError, match=re.escape(said)):
        records_of(labels_of(FeedbackRequest(**{"model": "m", "ids": ["a"]} | fields)), check, 0)


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        (asked(labels=[1]), InvalidInputError, "input 'ids' is missing"),
        (asked(ids=["a"], truth=[1]), InvalidInputError, "unexpected input 'truth', expected each of ids, labels"),
        (asked(ids=[1], labels=[1]), InvalidInputError, "input 'ids' holds numbers, expected BYTES"),
        (asked(ids=["a"], values=["x"]), InvalidInputError, "input 'values' holds texts, expected FP64"),
        (asked(ids=["a"], labels=[1], rows=[0.5]), InvalidInputError, "input 'rows' holds no whole numbers"),
        (asked(ids=["a"], labels=[b"\xff"]), InvalidInputError, "input 'labels' holds bytes that are not UTF-8"),
        (asked(ids=["a"], labels=[[1, 2]]), InvalidInputError, "input 'labels' has shape [1, 2], expected [N]"),
    ],
)
def test_what_the_reserved_model_does_not_take_is_refused(
    request_: inference_pb2.ModelInferRequest, error: type[PenstockError], said: str
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        records_of(labels_in(request_), check, 0)


def test_contents_that_do_not_fill_a_shape_are_refused() -> None:
    request = asked(ids=["a"], labels=[1])
    request.raw_input_contents[1] = b"123"
    with pytest.raises(InvalidInputError, match="input 'labels': INT64 of shape"):
        labels_in(request)
    del request.raw_input_contents[1]
    with pytest.raises(InvalidInputError, match="got 1 raw contents for 2 inputs"):
        labels_in(request)
    request = asked(ids=["a"], labels=[1])
    request.inputs[0].shape[:] = [1 << 40]
    with pytest.raises(InvalidInputError, match=r"input 'ids' has shape \[1099511627776\]"):
        labels_in(request)


def test_another_version_of_the_reserved_model_is_not_there() -> None:
    request = asked(ids=["a"], labels=[1])
    request.model_version = "2"
    with pytest.raises(NotFoundError, match="has no version '2'"):
        labels_in(request)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_labels_or_are_refused(message: bytes) -> None:
    for kind, read in ((FeedbackRequest, labels_of), (inference_pb2.ModelInferRequest, labels_in)):
        with suppress(PenstockError, DecodeError):
            records_of(read(kind.FromString(message)), check, 0)  # type: ignore[operator]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=256))
def test_what_is_passed_on_is_checked_again(content: bytes) -> None:
    try:
        records = passed_records(content, 1000)
    except InvalidInputError:
        return
    assert (records[:, ROW] & PASSED_ON != 0).all()
    assert (records[:, RECEIVED_NS] <= 1000).all()


def test_what_is_passed_on_stays_as_it_is_but_for_its_mark() -> None:
    request = FeedbackRequest(model="m", ids=["a"], classes=["yes"], values=[2.0], rows=[3])
    records = records_of(labels_of(request), check, 77)
    passed = passed_records(records.tobytes(), 100)
    assert passed[0, ROW] == 3 | PASSED_ON
    passed[0, ROW] = 3
    np.testing.assert_array_equal(passed, records)


def test_labels_need_no_text() -> None:
    assert records_of(Labels("m", [b"\xff\x00"], numbers=np.array([1.0])), check, 0)[0, CLASS] == 0
