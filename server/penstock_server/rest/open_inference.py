"""The Open Inference Protocol's REST messages, with Triton's binary extension, and the gRPC messages that say the same.

A body is JSON, or JSON and then the raw contents of tensors, of which the header `Inference-Header-Content-Length` tells
where they begin. Both ways: `binary_data` of an output, or `binary_data_output` of a request, asks for raw contents.

Source: Open Inference Protocol v2, REST; Triton Inference Server, "Binary Tensor Data Extension".
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from penstock import inference_pb2 as pb
from penstock.names import PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US
from penstock.tensors import NUMPY_TYPES
from penstock.wire import read_field, varint
from penstock_server.errors import InvalidInputError
from penstock_server.parse import OPEN_INFERENCE, parse
from penstock_server.rest.tensors import json_of_raw, raw_of_json, shown

BINARY: Final = b"application/octet-stream"
_HEADS: Final = 256
"""How many heads of messages are kept."""
_LONGEST_HEAD: Final = 1024
_ID: Final = b"\x1a"
_RAW: Final = b"\x3a"
_SIZE: Final = "binary_data_size"
_BINARY: Final = "binary_data"
_ALL_BINARY: Final = "binary_data_output"
_OUTPUT_FIELD, _RAW_FIELD = 5, 6
_RAW_OUTPUT: Final = b"\x32"
TIMING: Final = (PARAMETER_QUEUE_US, PARAMETER_COMPUTE_US, PARAMETER_BATCH_ROWS)
_KEY_BYTES: Final = 40
_TEXTS: Final = 256
_LONGEST_REPLY: Final = 4096
"""How many texts are kept, and of how long a reply."""
_TRIES: Final = 4
"""How often replies that begin alike may turn out to have no text, before no more are looked at."""
_NO_DATA: Final = msgspec.Raw(b"")
_WORDS: Final = (b"NaN", b"Infinity")

Parameters = dict[str, Any]
DecodedT = TypeVar("DecodedT")


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters | None = None
    data: msgspec.Raw = _NO_DATA


class _Requested(msgspec.Struct):
    name: str
    parameters: Parameters | None = None


class _InferRequest(msgspec.Struct):
    inputs: list[_Input]
    id: str = ""
    parameters: Parameters | None = None
    outputs: list[_Requested] | None = None


_decode: Final = msgspec.json.Decoder(_InferRequest).decode
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """Which outputs a caller wants as raw contents.

    Attributes:
        is_binary: those that are not named.
        outputs: those that are.
    """

    is_binary: bool = False
    outputs: Mapping[str, bool] = field(default_factory=dict)


PLAIN: Final = ReplyForm()


class Messages:
    """Makes `ModelInfer` messages of bodies. What a client's requests have in common is encoded once."""

    def __init__(self) -> None:
        self._heads: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}

    def infer(self, model: str, version: str, body: bytes, json_bytes: int | None) -> tuple[bytes, ReplyForm]:
        """The message of a request, and how its reply is wanted.

        Args:
            model: from the request's path.
            version: from the path; empty where it names none.
            body: the request's body.
            json_bytes: how much of the body is JSON, where raw contents follow; None if it all is.

        Raises:
            InvalidInputError: the body is no request; says where and why.
        """
        request = decoded(body if json_bytes is None else body[:json_bytes], _decode)
        rest = memoryview(body)[len(body) if json_bytes is None else json_bytes :]
        raws: list[bytes] = []
        is_plain = not request.parameters and not request.outputs
        at = 0
        for tensor in request.inputs:
            size = None
            if tensor.parameters:
                size = tensor.parameters.pop(_SIZE, None)
                is_plain = is_plain and not tensor.parameters
            if size is None:
                if tensor.data is _NO_DATA:
                    raise InvalidInputError(f"tensor {tensor.name!r} has neither data nor {_SIZE}")
                _check_shape(tensor)
                raws.append(raw_of_json(tensor.data, tensor.datatype, tensor.shape, tensor.name))
                continue
            if type(size) is not int or not 0 <= size <= len(rest) - at:
                raise InvalidInputError(
                    f"{_SIZE} of tensor {tensor.name!r} is {shown(size)}, expected 0 to {len(rest) - at:,}, "
                    "the bytes that are left behind the JSON"
                )
            if tensor.data is not _NO_DATA:
                raise InvalidInputError(f"tensor {tensor.name!r} has both data and {_SIZE}")
            raws.append(bytes(rest[at : at + size]))
            at += size
        if at != len(rest):
            raise InvalidInputError(f"{len(rest) - at:,} bytes behind the JSON belong to no tensor")
        form = _form(request) if not is_plain else PLAIN
        names, tensors = self._head(model, version, request, is_plain=is_plain)
        parts = [names]
        if request.id:
            encoded = request.id.encode()
            parts += (_ID, varint(len(encoded)), encoded)
        parts.append(tensors)
        for raw in raws:
            parts += (_RAW, varint(len(raw)), raw)
        return b"".join(parts), form

    def _head(self, model: str, version: str, request: _InferRequest, *, is_plain: bool) -> tuple[bytes, bytes]:
        """The message without id and contents: what comes before the id, and what comes after it."""
        if not is_plain:
            return _head(model, version, request)
        key = (model, version, *((each.name, each.datatype, *each.shape) for each in request.inputs))
        head = self._heads.get(key)
        if head is None:
            head = _head(model, version, request)
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            if sum(map(len, head)) <= _LONGEST_HEAD:
                self._heads[key] = head
        return head


class ReplyText(NamedTuple):
    """What replies have in common that differ only in id, timing and numbers.

    Attributes:
        prefix: of the message, up to the id.
        raws: for each output the head of its raw contents, their bytes, and its datatype and name.
        tail_bytes: what all raw contents take at the end of the message.
        opening: the JSON up to the id.
        timed: from there to the first output's data, in four parts, with the three numbers of the timing between them.
        between: what follows each output's data.
    """

    prefix: bytes
    raws: tuple[tuple[bytes, int, str, list[int], str], ...]
    tail_bytes: int
    opening: bytes
    timed: tuple[bytes, ...]
    between: tuple[bytes, ...]


class Replies:
    """Makes bodies of `ModelInferResponse` messages. What the replies of a version have in common is made once.

    Args:
        learnt: is told each text, with a reply and the body that it becomes.
    """

    def __init__(self, learnt: Callable[[ReplyText, bytes, bytes], None] | None = None) -> None:
        self._learnt = learnt
        self._texts: dict[bytes, list[ReplyText]] = {}
        self._count = 0
        self._others: Counter[bytes] = Counter()

    def body(self, message: bytes, form: ReplyForm) -> tuple[bytes, int | None]:
        """As `reply_body`."""
        if form is not PLAIN:
            return reply_body(message, form)
        for text in self._texts.get(message[:_KEY_BYTES], ()):
            if message.startswith(text.prefix) and (body := _filled(text, message)) is not None:
                return body, None
        if len(message) <= _LONGEST_REPLY:
            self._learn(message)
        return reply_body(message, form)

    def _learn(self, message: bytes) -> None:
        key = message[:_KEY_BYTES]
        if self._others[key] >= _TRIES:
            return
        if self._count >= _TEXTS:
            self._texts.clear()
            self._others.clear()
            self._count = 0
        self._count += 1
        text = text_of(message)
        if text is None:
            self._others[key] += 1
        else:
            self._texts.setdefault(key, []).append(text)
            if self._learnt is not None and (body := _filled(text, message)) is not None:
                self._learnt(text, message, body)


def text_of(message: bytes) -> ReplyText | None:
    """What replies like this one have in common; None if it is not written as the server writes replies of numbers."""
    at, prefix_end, tail_at = 0, 0, len(message)
    while at < len(message):
        number, _, _, _, following = read_field(message, at, len(message))
        if number == _OUTPUT_FIELD:
            prefix_end = following
        elif number == _RAW_FIELD:
            tail_at = min(tail_at, at)
        at = following
    reply = pb.ModelInferResponse.FromString(message)
    timing = pb.ModelInferResponse.FromString(message[prefix_end:tail_at]).parameters
    if (
        not reply.outputs
        or tail_at < prefix_end
        or sorted(timing) != sorted(TIMING)
        or any(tensor.datatype not in NUMPY_TYPES for tensor in reply.outputs)
    ):
        return None
    prefix = pb.ModelInferResponse.FromString(message[:prefix_end])
    names = {"model_name": prefix.model_name, "model_version": prefix.model_version}
    outputs = [
        _encode(
            {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
            | ({"parameters": plain_parameters(tensor.parameters)} if tensor.parameters else {})
        )[:-1]
        + b',"data":'
        for tensor in prefix.outputs
    ]
    parameters = plain_parameters(prefix.parameters)
    first, second, third = (_encode(name) + b":" for name in TIMING)
    before = b'"parameters":' + _encode(parameters)[:-1] + (b"," if parameters else b"")
    raws = tuple(
        (_RAW_OUTPUT + varint(len(raw)), len(raw), tensor.datatype, list(tensor.shape), tensor.name)
        for tensor, raw in zip(prefix.outputs, reply.raw_output_contents, strict=True)
    )
    return ReplyText(
        prefix=message[:prefix_end],
        raws=raws,
        tail_bytes=sum(len(head) + size for head, size, _, _, _ in raws),
        opening=_encode(names)[:-1] + b",",
        timed=(before + first, b"," + second, b"," + third, b'},"outputs":[' + outputs[0]),
        between=(*(b"}," + output for output in outputs[1:]), b"}]}"),
    )


def _filled(text: ReplyText, message: bytes) -> bytes | None:
    """The body of a reply that has the text's prefix; None if it is written otherwise after that."""
    at = len(message) - text.tail_bytes
    middle = pb.ModelInferResponse.FromString(message[len(text.prefix) : at])
    timing = middle.parameters
    if len(timing) != len(TIMING):
        return None
    queue, compute, rows = [timing[name].int64_param for name in TIMING]
    first, second, third, last = text.timed
    parts = [text.opening, b"%b%d%b%d%b%d%b" % (first, queue, second, compute, third, rows, last)]
    if middle.id:
        parts.insert(1, b'"id":%b,' % _encode(middle.id))
    for (head, size, datatype, shape, name), following in zip(text.raws, text.between, strict=True):
        start = at + len(head)
        if message[at:start] != head:
            return None
        at = start + size
        parts += (_encode(json_of_raw(message[start:at], datatype, shape, name)), following)
    return b"".join(parts)


def reply_body(message: bytes, form: ReplyForm) -> tuple[bytes, int | None]:
    """A `ModelInferResponse` as the body of an answer, and how much of it is JSON if raw contents follow.

    Raises:
        InvalidInputError: an output cannot be said in JSON.
    """
    reply = parse(pb.ModelInferResponse, message, OPEN_INFERENCE)
    answer: dict[str, Any] = {"model_name": reply.model_name, "model_version": reply.model_version}
    if reply.id:
        answer["id"] = reply.id
    if reply.parameters:
        answer["parameters"] = plain_parameters(reply.parameters)
    outputs: list[dict[str, Any]] = []
    raws: list[bytes] = []
    for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True):
        shape = list(tensor.shape)
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
        if tensor.parameters:
            output["parameters"] = plain_parameters(tensor.parameters)
        if form.outputs.get(tensor.name, form.is_binary):
            output.setdefault("parameters", {})[_SIZE] = len(raw)
            raws.append(raw)
        else:
            output["data"] = json_of_raw(raw, tensor.datatype, shape, tensor.name)
        outputs.append(output)
    answer["outputs"] = outputs
    body = _encode(answer)
    return (b"".join((body, *raws)), len(body)) if raws else (body, None)


def plain_parameters(parameters: Mapping[str, Any]) -> Parameters:
    """Parameters of a message as JSON has them."""
    return {
        name: getattr(each, each.WhichOneof("parameter_choice") or "bool_param") for name, each in parameters.items()
    }


def set_parameters(parameters: Any, given: Parameters) -> None:
    """Sets parameters of a message.

    Raises:
        InvalidInputError: one of them is neither a boolean, a number, nor a text.
    """
    for name, value in given.items():
        match value:
            case bool():
                parameters[name].bool_param = value
            case int() if -(1 << 63) <= value < 1 << 63:
                parameters[name].int64_param = value
            case int() if 0 <= value < 1 << 64:
                parameters[name].uint64_param = value
            case float():
                parameters[name].double_param = value
            case str():
                parameters[name].string_param = value
            case _:
                raise InvalidInputError(
                    f"parameter {name[:100]!r} is {shown(value)}, expected a boolean, a number or a text"
                )


def decoded(body: bytes, decode: Callable[[bytes], DecodedT]) -> DecodedT:
    """What a body of JSON says, with the bare words NaN and Infinity as texts.

    Raises:
        InvalidInputError: it is not JSON, or not what `decode` takes; says where.
    """
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"the body is not what is expected here: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if not any(word in body for word in _WORDS):
            raise InvalidInputError(f"the body is not JSON: {error}") from None
    try:
        # Python's own module reads the words, as its counterpart writes them.
        return decode(_encode(json.loads(body, parse_constant=str)))
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"the body is not what is expected here: {error}") from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from None


def json_length(header: bytes | None, body_bytes: int) -> int | None:
    """The value of `Inference-Header-Content-Length`; None where there is none.

    Raises:
        InvalidInputError: it is no number, or more than the body has.
    """
    if header is None:
        return None
    if not header.isdigit() or len(header) > 18 or int(header) > body_bytes:
        shown_value = header[:20].decode("latin-1")
        raise InvalidInputError(
            f"inference-header-content-length is {shown_value!r}, expected a number up to {body_bytes:,}, the body's bytes"
        )
    return int(header)


def _check_shape(tensor: _Input) -> None:
    if any(size < 0 for size in tensor.shape):
        raise InvalidInputError(f"the shape of tensor {tensor.name!r} is {tensor.shape}, expected no negative number")


def _head(model: str, version: str, request: _InferRequest) -> tuple[bytes, bytes]:
    names: bytes = pb.ModelInferRequest(model_name=model, model_version=version).SerializeToString()
    message = pb.ModelInferRequest()
    if request.parameters:
        set_parameters(message.parameters, {k: v for k, v in request.parameters.items() if k != _ALL_BINARY})
    for tensor in request.inputs:
        try:
            added = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        except (ValueError, OverflowError):
            raise InvalidInputError(f"the shape of tensor {tensor.name!r} has a number that is too large") from None
        if tensor.parameters:
            set_parameters(added.parameters, tensor.parameters)
    for output in request.outputs or ():
        requested = message.outputs.add(name=output.name)
        if output.parameters:
            set_parameters(requested.parameters, {k: v for k, v in output.parameters.items() if k != _BINARY})
    encoded: bytes = message.SerializeToString()
    return names, encoded


def _form(request: _InferRequest) -> ReplyForm:
    is_binary = _flag(request.parameters, _ALL_BINARY, "the request")
    outputs = {
        output.name: _flag(output.parameters, _BINARY, f"output {output.name!r}", default=is_binary)
        for output in request.outputs or ()
    }
    return ReplyForm(is_binary, outputs) if is_binary or any(outputs.values()) else PLAIN


def _flag(parameters: Parameters | None, name: str, whose: str, *, default: bool = False) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise InvalidInputError(f"parameter {name!r} of {whose} is {shown(value)}, expected true or false")
    return value
