"""How requests become messages and replies become answers, as steps that kernels follow.

Each function makes the steps of one request or reply that Python has read. They hold for all that have the same bytes but for
numbers, texts, the id and the trace; what is not plain has none.

Source of the places: msgspec leaves raw parts of JSON where they lie in the body.
"""

import re
from collections.abc import Callable, Sequence
from math import prod
from typing import Final, NamedTuple

import msgspec
import numpy as np

from penstock import inference_pb2 as pb
from penstock.names import ATTRIBUTIONS, PARAMETER_ROLE
from penstock.wire import read_field, varint
from penstock_server.rest import layout
from penstock_server.rest.http import Request
from penstock_server.rest.open_inference import ReplyText
from penstock_server.rest.predictions import roles
from penstock_server.transport import headers

MOST_BYTES: Final = layout.MOST_KEPT_BYTES
"""A larger request is not alike to others."""
_MOST_MESSAGE_BYTES: Final = 48 * 1024
_MOST_ANSWER_BYTES: Final = 4095
"""Larger ones are compressed for callers who wish it."""
_MOST_ID_BYTES: Final = 127
_ID_FIELD, _RAW_FIELD, _VERSION_FIELD = 3, 7, 2
_RAW: Final = b"\x3a"
_HEAD_END: Final = b"\r\n\r\n"
_NOTHING: Final = msgspec.Raw(b"")
LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,7})[ \t]*\r\n", re.IGNORECASE)
TRACEPARENT: Final = re.compile(rb"\r\ntraceparent:[ \t]*([0-9a-f-]{55})[ \t]*\r\n", re.IGNORECASE)
_SPACE: Final = rb"[ \t\r\n]*"
_NUMBER: Final = rb"-?[0-9][0-9.eE+-]*"
_TEXT: Final = rb'"[^"\\]*"'
_NUMBERS: Final = re.compile(rb"%b(?:%b,%b%b)*" % (_NUMBER, _SPACE, _SPACE, _NUMBER))
_TEXTS: Final = re.compile(rb"%b(?:%b,%b%b)*" % (_TEXT, _SPACE, _SPACE, _TEXT))
_OTHERWISE: Final = frozenset(
    {b"content-encoding", b"inference-header-content-length", b"transfer-encoding", b"expect", b"upgrade"}
)
"""With these fields a body is no plain JSON, or a connection is no plain one."""


class Step(NamedTuple):
    """A step of `layout`, with the bytes that it names."""

    kind: int
    content: bytes = b""
    size: int = 0
    more: int = 0


class Tensor(msgspec.Struct):
    """A tensor of a body, with its data where they lie."""

    datatype: str
    shape: list[int]
    data: msgspec.Raw


class _InferBody(msgspec.Struct):
    inputs: list[Tensor]
    id: msgspec.Raw = _NOTHING


class Parts(NamedTuple):
    """What of a body differs from one request to the next, in the order of the message."""

    tensors: Sequence[Tensor]
    identifier: msgspec.Raw = _NOTHING


_infer_body: Final = msgspec.json.Decoder(_InferBody).decode
_row_body: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def infer_parts(body: bytes, _message: bytes) -> Parts | None:
    """The parts of a request of the Open Inference Protocol."""
    try:
        decoded = _infer_body(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return Parts(decoded.inputs, decoded.id)


def row_parts(body: bytes, message: bytes) -> Parts | None:
    """The parts of a row of `POST /predict/MODEL`, whose message has a tensor for each column, or one for the row."""
    request = pb.ModelInferRequest.FromString(message)
    try:
        values = _row_body(body)
        whole = values.get("features")
        data = list(values.values())
        if whole is not None and bytes(whole).startswith(b"["):
            data = [whole] if len(request.inputs) == 1 else _elements(whole)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if len(data) != len(request.inputs):
        return None
    return Parts(
        [Tensor(each.datatype, list(each.shape), value) for each, value in zip(request.inputs, data, strict=True)]
    )


class Example(NamedTuple):
    """What Python has made of a request.

    Attributes:
        raw: the request as it came: its head, and its body behind that.
        request: what was read.
        message: what was made of it.
        block: the metadata of the call, as kernels have them.
    """

    raw: bytes
    request: Request
    message: bytes
    block: bytes

    @property
    def head(self) -> bytes:
        """Up to the empty line and with it."""
        return self.raw[: self.raw.find(_HEAD_END) + len(_HEAD_END)]


def form_steps(example: Example, way: Callable[[bytes, bytes], Parts | None]) -> list[Step] | None:
    """How requests like this one become messages like its own; None if there is no plain way.

    Args:
        example: the request.
        way: finds the parts of its body, of the body and the message.
    """
    raw, request, message, block = example
    head = example.head
    length = LENGTH.search(head)
    if (
        length is None
        or len(raw) > MOST_BYTES
        or len(message) > _MOST_MESSAGE_BYTES
        or len(block) > layout.HEADERS_BYTES
        or not request.is_kept
        or not request.headers.keys().isdisjoint(_OTHERWISE)
        or raw[len(head) :] != request.body
    ):
        return None
    parts = way(request.body, message)
    if parts is None:
        return None
    slots = [(length.span(1), Step(layout.LENGTH))]
    if (trace := TRACEPARENT.search(head)) is not None:
        place = block.find(headers.pair("traceparent", trace[1]))
        if place < 0:
            return None
        value_at = place + len(headers.pair("traceparent", b""))
        slots.append((trace.span(1), Step(layout.TRACE, more=value_at)))
    slots.append(((len(head), len(head)), Step(layout.BODY)))
    names, tensors = _head_of(message)
    slots.append(((len(head), len(head)), Step(layout.PUT, names)))
    puts: list[tuple[tuple[int, int], Step]] = [((len(head), len(head)), Step(layout.PUT, tensors))]
    if (identifier := bytes(parts.identifier)) not in (b"", b"null"):
        if len(identifier) > _MOST_ID_BYTES or b"\\" in identifier:
            return None
        at = _place(raw, request.body, parts.identifier) + 1
        span = (at, at + len(identifier) - 2)
        puts = [(span, Step(layout.IDENTIFIER)), ((span[1], span[1]), Step(layout.PUT, tensors))]
    slots.sort(key=lambda slot: slot[0])
    slots += puts
    for tensor in parts.tensors:
        if (found := _tensor_slots(tensor, _place(raw, request.body, tensor.data))) is None:
            return None
        slots += found
    return _with_literals(raw, slots)


def _with_literals(raw: bytes, slots: Sequence[tuple[tuple[int, int], Step]]) -> list[Step] | None:
    """The steps of these places, and what stands between them; None if they are not in this order."""
    steps: list[Step] = []
    at = 0
    for (begin, end), step in slots:
        if begin < at:
            return None
        if begin > at:
            steps.append(Step(layout.LITERAL, raw[at:begin]))
        if step.kind != layout.PUT or step.content:
            steps.append(step)
        at = end
    if at < len(raw):
        steps.append(Step(layout.LITERAL, raw[at:]))
    return steps


def _place(raw: bytes, body: bytes, part: msgspec.Raw) -> int:
    """Where a part of the body lies in the request."""
    inside = np.frombuffer(memoryview(part), np.uint8).ctypes.data - np.frombuffer(body, np.uint8).ctypes.data
    return int(inside) + len(raw) - len(body)


def _head_of(message: bytes) -> tuple[bytes, bytes]:
    """What of a message comes before its id, and what comes between that and its contents."""
    at = names_end = tensors_at = 0
    while at < len(message):
        number, _, _, _, following = read_field(message, at, len(message))
        if number == _RAW_FIELD:
            break
        if number <= _VERSION_FIELD:
            names_end = tensors_at = following
        elif number == _ID_FIELD:
            tensors_at = following
        at = following
    return message[:names_end], message[tensors_at:at]


def _tensor_slots(tensor: Tensor, place: int) -> list[tuple[tuple[int, int], Step]] | None:
    """Where the elements of a tensor stand whose data begin at a place; None if they are not numbers or texts alone."""
    data = bytes(tensor.data)
    if tensor.datatype == "BYTES":
        runs = list(_TEXTS.finditer(data))
        if len(runs) != 1:
            return None
        count = sum(1 for _ in re.finditer(_TEXT, runs[0][0]))
        return [((place + runs[0].start(), place + runs[0].end()), Step(layout.STRINGS, size=count))]
    kind = layout.KINDS.get(tensor.datatype)
    if kind is None:
        return None
    runs = list(_NUMBERS.finditer(data))
    counts = [run[0].count(b",") + 1 for run in runs]
    if not runs or sum(counts) != prod(tensor.shape):
        return None
    size = layout.KIND_BYTES[kind] * sum(counts)
    first = place + runs[0].start()
    slots = [((first, first), Step(layout.PUT, _RAW + varint(size)))]
    return slots + [
        ((place + run.start(), place + run.end()), Step(layout.NUMBERS, size=count, more=kind))
        for run, count in zip(runs, counts, strict=True)
    ]


def text_steps(text: ReplyText) -> list[Step] | None:
    """How replies of a text become the bodies of answers; None if there is no plain way."""
    steps = [Step(layout.LITERAL, text.opening), Step(layout.IDENTIFIED, b'"id":"')]
    first, second, third, last = text.timed
    for number, part in enumerate((first, second, third)):
        steps += (Step(layout.LITERAL, part), Step(layout.MICROSECONDS, size=number))
    steps.append(Step(layout.LITERAL, last))
    for (head, _, datatype, shape, _), following in zip(text.raws, text.between, strict=True):
        kind = layout.KINDS.get(datatype)
        if kind is None:
            return None
        steps += (
            Step(layout.EXPECT, head),
            Step(layout.LITERAL, b"["),
            Step(layout.NUMBERS, size=prod(shape), more=kind),
            Step(layout.LITERAL, b"]" + following),
        )
    return steps if _longest(steps) <= _MOST_ANSWER_BYTES else None


def row_text_steps(text: ReplyText, message: bytes) -> list[Step] | None:
    """How replies of a text become the bodies of answers to one row, as `predictions.predict_answer` makes them."""
    reply = pb.ModelInferResponse.FromString(message)
    prediction, probabilities = roles(reply.outputs, 1)
    names = [name for name in (prediction, probabilities) if name]
    if [tensor.name for tensor in reply.outputs] != names or ATTRIBUTIONS in names:
        return None
    head = {
        "model": reply.model_name,
        "version": reply.model_version,
        "role": reply.parameters[PARAMETER_ROLE].string_param,
    }
    before = msgspec.json.encode(head)[:-1] + b',"prediction":'
    steps = []
    for expected, _, datatype, shape, name in text.raws:
        kind, size = layout.KINDS.get(datatype), prod(shape)
        if kind is None or not size:
            return None
        steps += [Step(layout.LITERAL, before), Step(layout.EXPECT, expected)]
        if name == probabilities:
            steps += [Step(layout.LARGEST, size=size, more=kind), Step(layout.LITERAL, b',"probabilities":')]
        steps += [
            Step(layout.LITERAL, b"[" if size > 1 else b""),
            Step(layout.NUMBERS, size=size, more=kind),
            Step(layout.LITERAL, b"]" if size > 1 else b""),
        ]
        before = b',"probability":'
    steps.append(Step(layout.LITERAL, b"}"))
    return steps if _longest(steps) <= _MOST_ANSWER_BYTES else None


def _longest(steps: Sequence[Step]) -> int:
    """How long the body of an answer may become."""
    return _MOST_ID_BYTES + sum(
        step.size * (layout.NUMBER_BYTES + 1)
        if step.kind == layout.NUMBERS
        else len(step.content) + layout.NUMBER_BYTES
        for step in steps
    )
