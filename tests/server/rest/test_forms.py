"""Forms: whatever kernels make of a request or a reply, Python makes the same of it."""

import json
import random
import re
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.call import Metadata
from penstock_server.errors import PenstockError
from penstock_server.kernels import compiled
from penstock_server.prediction.encode import ReplyEncoder, TensorInfo, encoded_id
from penstock_server.rest import layout
from penstock_server.rest.answers import Answer
from penstock_server.rest.forms import TENSORS, Forms
from penstock_server.rest.http import BadRequestError, RequestReader
from penstock_server.rest.kernel_set import KERNELS
from penstock_server.rest.open_inference import PLAIN, Messages, Replies, reply_body
from penstock_server.rest.steps import MOST_BYTES, Example
from penstock_server.transport.headers import as_received
from tests.examples import examples


def new_forms() -> Forms:
    return Forms(compiled.library(KERNELS))


TARGET: Final = "/v2/models/m/infer"
TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request_of(body: bytes, headers: dict[str, str] | None = None, target: str = TARGET) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {"Host": "a"}).items())
    return f"POST {target} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read(raw: bytes) -> bytes | None:
    """The message that Python makes of a request; None if it makes none, or the connection ends with it."""
    try:
        (request,) = RequestReader(1 << 20).receive(raw)
        if (request.target, request.is_kept) != (TARGET.encode(), True) or b"content-encoding" in request.headers:
            return None
        message, form = Messages().infer("m", "", request.body, None)
    except (BadRequestError, PenstockError, ValueError):
        return None
    return message if form is PLAIN else None


def learn(forms: Forms, raw: bytes, metadata: Metadata = ()) -> None:
    (request,) = RequestReader(1 << 20).receive(raw)
    message = read(raw)
    assert message is not None
    forms.learn(Example(raw, request, message, as_received(metadata)), TENSORS, Answer)


def learnt(raw: bytes) -> Forms:
    """Forms that have seen a request twice."""
    forms = new_forms()
    for _ in range(2):
        learn(forms, raw)
    return forms


def made(forms: Forms, raw: bytes) -> bytes | None:
    found = [message for number in forms.known if (message := forms.made(number, raw)) is not None]
    assert len(found) <= 1
    return found[0] if found else None


def tensor(datatype: str, shape: list[int], data: Any, name: str = "X") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


SHAPES: Final[dict[str, Any]] = {
    "a row of floats": {"inputs": [tensor("FP32", [1, 3], [1.5, -2.25, 3])]},
    "a nested row": {"inputs": [tensor("FP64", [1, 3], [[1.5, 0.1, 3e-7]])]},
    "nested rows": {"inputs": [tensor("FP64", [2, 2], [[1.5, 2.5], [3.5, 4.5]])]},
    "whole numbers": {"inputs": [tensor("INT64", [2, 1], [1, -2]), tensor("INT8", [1, 2], [[1, 2]], "b")]},
    "unsigned": {"inputs": [tensor("UINT8", [2], [1, 255]), tensor("UINT16", [1], [7]), tensor("UINT32", [1], [9])]},
    "texts": {"inputs": [tensor("BYTES", [2, 1], ["ab", ""]), tensor("FP32", [2, 1], [1.0, 2.0], "b")]},
    "an id": {"id": "ab-1", "inputs": [tensor("FP32", [1, 1], [[0.5]])]},
    "parameters": {
        "id": "ab-1",
        "inputs": [tensor("FP32", [1, 1], [0.5]) | {"parameters": {"a": 1}}],
        "parameters": {"priority": 1},
        "outputs": [{"name": "y"}],
    },
}


def varied(value: Any, draw: random.Random) -> Any:
    """The same with other numbers and texts."""
    if isinstance(value, list):
        return [varied(each, draw) for each in value]
    if isinstance(value, str):
        return "".join(draw.choices("abcXYZ 09-_.", k=draw.randint(0, 200)))
    if isinstance(value, int):
        return draw.randint(0, 127)
    return draw.choice([draw.gauss(0, 1), draw.random() * 10 ** draw.randint(-9, 9), float(draw.randint(-5, 5)), 0.0])


def with_others(body: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    other = body | {"inputs": [each | {"data": varied(each["data"], draw)} for each in body["inputs"]]}
    return other | {"id": f"other {draw.random()}"} if "id" in body else other


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " :\t")])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_make_the_messages_that_python_makes(shape: str, separators: tuple[str, str]) -> None:
    draw = random.Random(0)
    raw = request_of(json.dumps(SHAPES[shape], separators=separators).encode())
    forms = learnt(raw)
    assert made(forms, raw) == read(raw) is not None
    for _ in range(50):
        other = request_of(json.dumps(with_others(SHAPES[shape], draw), separators=separators).encode())
        assert made(forms, other) == read(other) is not None


@pytest.fixture(scope="module")
def forms_by_shape() -> dict[str, Forms]:
    return {shape: learnt(request_of(json.dumps(body).encode())) for shape, body in SHAPES.items()}


@given(data=st.data())
@examples(500)
def test_what_kernels_make_of_damaged_requests_python_makes_too(
    forms_by_shape: dict[str, Forms], data: st.DataObject
) -> None:
    shape = data.draw(st.sampled_from(sorted(SHAPES)))
    raw = request_of(json.dumps(SHAPES[shape]).encode())
    forms = forms_by_shape[shape]
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        size = data.draw(st.integers(0, 3))
        damaged[at : at + size] = data.draw(
            st.one_of(
                st.binary(max_size=3), st.sampled_from([b"0", b"1e5", b"-", b".", b",", b'"', b"e", b" ", b"[", b"]"])
            )
        )
    head, found, body = bytes(damaged).partition(b"\r\n\r\n")
    if found and data.draw(st.booleans()):  # most damage changes the length
        damaged = bytearray(re.sub(rb"Length: \d+", b"Length: %d" % len(body), head) + found + body)
    message = made(forms, bytes(damaged))
    assert message is None or message == read(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        "[null, 1.0, 2.0]", '["NaN", 1.0, 2.0]', "[NaN, 1.0, 2.0]", "[true, 1.0, 2.0]", "[1e39, 1.0, 2.0]", "[01, 1.0, 2.0]",
        "[1.0, 2.0]", "[1.0, 2.0, 3.0, 4.0]", "[1.0, 2.0, 3.0", "[1.0 2.0, 3.0]", "[1.0,, 2.0, 3.0]", "[[1.0, 2.0, 3.0]]",
        "[-0, 1.0, 2.0]", "[1., 1.0, 2.0]", "[+1, 1.0, 2.0]",
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left(data: str) -> None:
    body = json.dumps(SHAPES["a row of floats"])
    raw = request_of(body.encode())
    other = request_of(body.replace("[1.5, -2.25, 3]", data).encode())
    assert other != raw
    assert made(learnt(raw), other) is None


@pytest.mark.parametrize(
    ("shape", "data"),
    [("whole numbers", "[1.0, 2]"), ("whole numbers", "[1e3, 2]"), ("unsigned", "[256, 1]"), ("unsigned", "[-1, 1]")],
)
def test_what_is_not_in_the_range_of_whole_numbers_is_left(shape: str, data: str) -> None:
    body = json.dumps(SHAPES[shape])
    first = json.dumps(SHAPES[shape]["inputs"][0]["data"])
    assert made(learnt(request_of(body.encode())), request_of(body.replace(first, data, 1).encode())) is None


@pytest.mark.parametrize("text", ['"\\u0041"', '"é"', '"\x7f"', '"a', "1", "null"])
def test_texts_that_are_not_plain_are_left(text: str) -> None:
    body = json.dumps(SHAPES["texts"])
    other = body.replace('["ab", ""]', f'[{text}, ""]')
    assert made(learnt(request_of(body.encode())), request_of(other.encode())) is None


BODY: Final = json.dumps(SHAPES["a row of floats"]).encode()


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "close"},
        {"Expect": "100-continue"},
        {"Content-Encoding": "identity"},
        {"Connection": "upgrade", "Upgrade": "h2c"},
    ],
)
def test_heads_that_ask_for_more_are_not_learnt(headers: dict[str, str]) -> None:
    forms = new_forms()
    raw = request_of(BODY, headers)
    (request,) = RequestReader(1 << 20).receive(raw)
    message, _ = Messages().infer("m", "", request.body, None)
    for _ in range(3):
        forms.learn(Example(raw, request, message, b""), TENSORS, Answer)
    assert forms.known == []


def test_an_id_behind_the_tensors_is_not_learnt() -> None:
    assert learnt(request_of(json.dumps(SHAPES["a row of floats"] | {"id": "a"}).encode())).known == []


def test_a_shape_with_the_same_text_as_the_data_is_no_data() -> None:
    body = b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1],"data":[1]}]}'
    forms = learnt(request_of(body))
    assert made(forms, request_of(body.replace(b'"shape":[1]', b'"shape":[2]'))) is None
    other = request_of(body.replace(b'"data":[1]', b'"data":[2]'))
    assert made(forms, other) == read(other) is not None


def test_a_head_that_comes_once_is_not_learnt() -> None:
    forms = new_forms()
    learn(forms, request_of(BODY))
    learn(forms, request_of(BODY, {"Host": "b"}))
    assert forms.known == []


def test_a_traceparent_may_be_another_each_time() -> None:
    forms = new_forms()
    for last in "12":
        value = TRACEPARENT[:-1] + last
        learn(forms, request_of(BODY, {"traceparent": value, "Host": "a"}), [("traceparent", value)])
    other = request_of(BODY, {"traceparent": TRACEPARENT.replace("b7", "c8"), "Host": "a"})
    assert made(forms, other) == read(other) is not None
    assert made(forms, request_of(BODY, {"traceparent": TRACEPARENT.replace("b7", "x8"), "Host": "a"})) is None


def test_long_requests_are_not_learnt() -> None:
    count = MOST_BYTES // 2
    assert learnt(request_of(json.dumps({"inputs": [tensor("FP32", [count], [1] * count)]}).encode())).known == []


def test_there_are_not_more_forms_than_there_is_room_for() -> None:
    forms = new_forms()
    for number in range(layout.MOST_FORMS + 3):
        for _ in range(2):
            learn(forms, request_of(BODY, {"Host": f"{number}"}))
    assert len(forms.known) == layout.MOST_FORMS
    assert made(forms, request_of(BODY, {"Host": "0"})) is None
    assert made(forms, request_of(BODY, {"Host": f"{layout.MOST_FORMS + 2}"})) is not None


def test_one_head_has_not_many_forms() -> None:
    forms = new_forms()
    for size in range(1, 40):
        body = json.dumps({"inputs": [tensor("FP32", [size], [0.5] * size)]}).encode()
        learn(forms, request_of(body))
    assert 1 < len(forms.known) < 20


SPECS: Final = (
    TensorInfo("label", "INT64", (-1,)),
    TensorInfo('p"%d', "FP32", (-1, 3), parameters=(("of", "50 % {}"),)),
    TensorInfo("small", "INT8", (-1,)),
    TensorInfo("wide", "FP64", (-1,)),
    TensorInfo("counts", "UINT16", (-1,)),
)


class Texts:
    """Replies of one version, the first of which kernels have learnt of."""

    def __init__(self) -> None:
        self.forms = new_forms()
        self.encoder = ReplyEncoder(("m", "1"), "champion", SPECS)
        Replies(self.forms.learn_text).body(self.reply("a", [1], 0), PLAIN)

    def reply(self, request_id: str, values: list[Any], micros: int) -> bytes:
        whole, real = values[0], values[-1]
        arrays = [
            np.full(1, whole, "<i8"), np.full((1, 3), real, "<f4"), np.full(1, whole % 128 - 64, "i1"),
            np.full(1, real, "<f8"), np.full(1, whole % 65536, "<u2"),
        ]  # fmt: skip
        return self.encoder.batch(arrays, 1, micros * 1e-6).reply(0, 1, encoded_id(request_id), None, micros)


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts()


@given(
    request_id=st.one_of(st.just(""), st.text(max_size=8), st.from_regex(r"[ -~]{1,100}", fullmatch=True)),
    whole=st.integers(-(1 << 62), 1 << 62),
    real=st.floats(width=32, allow_nan=False, allow_infinity=False),
    micros=st.integers(0, 1 << 40),
)
@examples(500)
def test_kernels_write_the_bodies_that_python_writes(
    texts: Texts, request_id: str, whole: int, real: float, micros: int
) -> None:
    message = texts.reply(request_id, [whole, real], micros)
    body = texts.forms.written(0, message)
    is_plain = all(" " <= character < "\x7f" and character not in '"\\' for character in request_id)
    assert (body is not None) == is_plain
    if body is not None:
        # Two orders of the same parameters.
        assert json.loads(body) == json.loads(reply_body(message, PLAIN)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_replies_that_json_cannot_say_plainly_are_left(texts: Texts, value: float) -> None:
    assert texts.forms.written(0, texts.reply("", [1, value], 1)) is None


def test_replies_of_another_version_are_left(texts: Texts) -> None:
    arrays = [np.zeros(1, "<i8"), np.zeros((1, 3), "<f4"), np.zeros(1, "i1"), np.zeros(1), np.zeros(1, "<u2")]
    other = ReplyEncoder(("m", "2"), "champion", SPECS).batch(arrays, 1, 0.0).reply(0, 1, b"", None, 1)
    assert texts.forms.written(0, other) is None


@given(data=st.data())
@examples(500)
def test_what_kernels_write_of_damaged_replies_is_what_they_say(texts: Texts, data: st.DataObject) -> None:
    message = bytearray(texts.reply("abc", [5, 0.5], 7))
    at = data.draw(st.integers(0, len(message)))
    message[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    body = texts.forms.written(0, bytes(message))
    if body is not None:
        assert json.loads(body) == json.loads(reply_body(bytes(message), PLAIN)[0])
