"""Rows of `/predict/MODEL` in kernels: whatever they make of a body or a reply, Python makes the same of it."""

import json
import random
from typing import Any, Final

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import PenstockError
from penstock_server.kernels import compiled
from penstock_server.prediction.encode import ReplyEncoder, TensorInfo
from penstock_server.rest.answers import Answer
from penstock_server.rest.forms import ROW, Forms
from penstock_server.rest.http import RequestReader
from penstock_server.rest.kernel_set import KERNELS
from penstock_server.rest.predictions import predict_answer, predict_rows
from penstock_server.rest.rows import GivenRows, Input, Options, RowSignature, message_of
from penstock_server.rest.steps import Example
from tests.examples import examples

COLUMNS: Final = RowSignature(
    "m", (Input("amount", "FP64"), Input("hour", "INT64", (1,)), Input("country", "BYTES", missing=""))
)
MATRIX: Final = RowSignature("m", (Input("x", "FP32", (3,)),))
NAMED: Final = RowSignature("m", (Input("x", "FP32", (3,)),), columns=("a", "b", "c"))
TIMED: Final = RowSignature("m", (Input("at", "INT64", is_time=True), Input("amount", "FP64")))
BODIES: Final[dict[str, tuple[RowSignature, Any]]] = {
    "an object by column": (COLUMNS, {"amount": 900.5, "hour": 2, "country": "US"}),
    "columns in another order": (COLUMNS, {"country": "US", "hour": 2, "amount": 900}),
    "a list by column": (COLUMNS, {"features": [900.5, 2, "US"]}),
    "a row of a matrix": (MATRIX, {"features": [1.5, -2, 3e-7]}),
    "names of a matrix's columns": (NAMED, {"b": 1.5, "a": 2.5, "c": -3}),
}


def raw_of(body: bytes) -> bytes:
    return b"POST /predict/m HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def read(raw: bytes, signature: RowSignature) -> bytes | None:
    """The message that Python makes of a row; None if it makes none."""
    (request,) = RequestReader(1 << 20).receive(raw)
    try:
        rows = predict_rows(request.body, signature)
        return message_of(signature, rows, Options()) if rows.is_single else None
    except PenstockError:
        return None


def learnt(body: bytes, signature: RowSignature) -> Forms:
    forms = Forms(compiled.library(KERNELS))
    raw = raw_of(body)
    (request,) = RequestReader(1 << 20).receive(raw)
    message = read(raw, signature)
    assert message is not None
    for _ in range(2):
        forms.learn(Example(raw, request, message, b""), ROW, Answer)
    return forms


def made(forms: Forms, raw: bytes) -> bytes | None:
    return next((message for number in forms.known if (message := forms.made(number, raw)) is not None), None)


def varied(value: Any, draw: random.Random) -> Any:
    if isinstance(value, list):
        return [varied(each, draw) for each in value]
    if isinstance(value, str):
        return "".join(draw.choices("abcXYZ 09-_.", k=draw.randint(0, 20)))
    return draw.randint(-999, 999) if isinstance(value, int) else draw.gauss(0, 100)


@pytest.mark.parametrize("name", BODIES)
def test_kernels_make_the_messages_that_python_makes(name: str) -> None:
    signature, body = BODIES[name]
    draw = random.Random(0)
    forms = learnt(json.dumps(body).encode(), signature)
    for _ in range(50):
        other = raw_of(json.dumps({key: varied(value, draw) for key, value in body.items()}).encode())
        assert made(forms, other) == read(other, signature) is not None


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
@examples(200)
def test_what_kernels_make_of_damaged_rows_python_makes_too(name: str, data: st.DataObject) -> None:
    signature, body = BODIES[name]
    damaged = bytearray(json.dumps(body).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        tokens = st.sampled_from([b"0", b"1e5", b"-", b".", b",", b'"', b"e", b" ", b"[", b"]", b"null", b"true"])
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(tokens)
    raw = raw_of(bytes(damaged))
    message = made(learnt_once(name), raw)
    assert message is None or message == read(raw, signature)


LEARNT: Final[dict[str, Forms]] = {}


def learnt_once(name: str) -> Forms:
    if name not in LEARNT:
        signature, body = BODIES[name]
        LEARNT[name] = learnt(json.dumps(body).encode(), signature)
    return LEARNT[name]


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        (TIMED, {"at": "2026-01-31", "amount": 1.5}),
        (COLUMNS, {"amount": 900.5, "hour": 2, "country": None}),
        (COLUMNS, {"amount": 900.5, "hour": 2, "country": "US", "other": 3}),
        (COLUMNS, {"amount": None, "hour": 2, "country": "US"}),
    ],
)
def test_rows_that_are_not_plain_are_not_learnt(signature: RowSignature, body: Any) -> None:
    assert learnt(json.dumps(body).encode(), signature).known == []


def test_rows_are_forgotten_with_the_versions_that_they_were_for() -> None:
    served: list[object] = [object()]
    forms = Forms(compiled.library(KERNELS), None, lambda: served[0])
    signature, body = BODIES["a row of a matrix"]
    raw = raw_of(json.dumps(body).encode())
    (request,) = RequestReader(1 << 20).receive(raw)
    message = read(raw, signature)
    assert message is not None
    for _ in range(2):
        forms.learn(Example(raw, request, message, b""), ROW, Answer)
    forms.look_after()
    assert made(forms, raw) == message
    served[0] = object()
    forms.look_after()
    assert made(forms, raw) is None
    for _ in range(2):
        forms.learn(Example(raw, request, message, b""), ROW, Answer)
    assert made(forms, raw) == message


LABEL, SURE, VALUE = (
    TensorInfo("label", "INT64", (-1,)),
    TensorInfo("p", "FP32", (-1, 3)),
    TensorInfo("y", "FP64", (-1, 1)),
)
ONE: Final = GivenRows(1, {}, is_single=True)


def reply_of(specs: tuple[TensorInfo, ...], arrays: list[Any]) -> bytes:
    return ReplyEncoder(("m", "1"), "champion", specs).batch(arrays, 1, 1e-5).reply(0, 1, b"", None, 3)


def body_of(message: bytes) -> bytes:
    return msgspec.json.encode(predict_answer(message, ONE))


@given(
    label=st.integers(-(1 << 62), 1 << 62),
    sure=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    is_classifier=st.booleans(),
)
@examples(300)
def test_kernels_write_the_answers_that_python_writes(label: int, sure: list[float], *, is_classifier: bool) -> None:
    def reply(label: int, sure: list[float]) -> bytes:
        if is_classifier:
            return reply_of((LABEL, SURE), [np.array([label], "<i8"), np.array([sure], "<f4")])
        return reply_of((VALUE,), [np.array([[sure[0]]], "<f8")])

    forms = Forms(compiled.library(KERNELS))
    first = reply(1, [0.5, 0.25, 0.25])
    forms.learn_row_text(first, body_of(first))
    message = reply(label, sure)
    assert forms.written(0, message) == body_of(message)


@pytest.mark.parametrize(
    ("specs", "arrays"),
    [
        ((SURE, LABEL), [np.zeros((1, 3), "<f4"), np.zeros(1, "<i8")]),
        ((LABEL, SURE, VALUE), [np.zeros(1, "<i8"), np.zeros((1, 3), "<f4"), np.zeros((1, 1), "<f8")]),
        ((TensorInfo("label", "BYTES", (-1,)),), [np.array([b"yes"], object)]),
    ],
)
def test_answers_that_are_not_plain_are_left(specs: tuple[TensorInfo, ...], arrays: list[Any]) -> None:
    message = reply_of(specs, arrays)
    forms = Forms(compiled.library(KERNELS))
    forms.learn_row_text(message, body_of(message))
    assert forms.written(0, message) is None


def test_the_largest_probability_is_written_once_more() -> None:
    message = reply_of((LABEL, SURE), [np.array([2], "<i8"), np.array([[0.1, 0.2, 0.7]], "<f4")])
    forms = Forms(compiled.library(KERNELS))
    forms.learn_row_text(message, body_of(message))
    written = forms.written(0, message)
    assert written is not None
    answer = json.loads(written)
    assert (answer["prediction"], answer["probability"]) == (2, answer["probabilities"][2])
