"""What a call of gRPC is in REST, and what an answer in REST is in gRPC: messages in, messages out, without I/O.

Tensors travel as raw contents behind the JSON where the server offers Triton's binary extension, else as JSON.

Source: Open Inference Protocol v2, REST; Triton Inference Server, "Binary Tensor Data Extension", "Model Repository Extension".
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

import grpc
import numpy as np
from numpy.typing import NDArray

from penstock import inference_pb2
from penstock.names import INFER_METHOD, INFERENCE_SERVICE
from penstock.tensors import BF16, from_raw, join_bytes, numpy_type, split_bytes, to_raw
from penstock_client.balance import HEALTH_METHOD, SERVING
from penstock_client.http2 import outcome
from penstock_client.http2.hpack import Fields
from penstock_client.steps import PUSHBACK_KEY, Failure

BINARY_EXTENSION: Final = "binary_tensor_data"
HEADER_BYTES: Final = "Inference-Header-Content-Length"
_SIZE: Final = "binary_data_size"
_JSON: Final = "application/json"
_RAW: Final = "application/octet-stream"
_NOT_READY: Final = (400, 503)
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_WORDS: Final = {None: math.nan, "NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How JSON says floats for which it has no number."""
_MOST_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Request:
    """A request of HTTP, without what every request has."""

    verb: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of HTTP; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


SERVER_METADATA: Final = Request("GET", "/v2")


def offers_binary(reply: Reply) -> bool:
    """Whether a server's metadata name the binary extension."""
    found = _parsed(reply.body) if reply.status == 200 else None
    return isinstance(found, dict) and BINARY_EXTENSION in (found.get("extensions") or ())


def request_of(path: str, payload: bytes, *, is_binary: bool) -> Request | Failure:
    """The request that a call of gRPC is, or why there is none.

    Args:
        path: of the method.
        payload: the message.
        is_binary: whether the server takes raw contents.

    >>> request_of("/inference.GRPCInferenceService/ServerReady", b"", is_binary=False)
    Request(verb='GET', path='/v2/health/ready', headers=(), body=b'')
    """
    service, _, method = path.lstrip("/").rpartition("/")
    if path == HEALTH_METHOD:
        return Request("GET", "/v2/health/ready")
    if service != INFERENCE_SERVICE or (method != INFER_METHOD and method not in _PLAIN):
        return outcome.failure(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not among the methods of REST; ask by gRPC")
    if method == INFER_METHOD:
        return _infer(inference_pb2.ModelInferRequest.FromString(payload), is_binary=is_binary)
    return _PLAIN[method](payload)


def outcome_of(path: str, reply: Reply) -> bytes | Failure:
    """The reply's message, or the failure that it means."""
    method = path.rpartition("/")[2]
    is_health = method in ("ServerLive", "ServerReady", "ModelReady", "Check")
    if is_health and reply.status in (200, *_NOT_READY):
        return _health(method, reply)
    if reply.status != 200:
        return _failure(reply)
    try:
        if method == INFER_METHOD:
            return _inferred(reply)
        found = json.loads(reply.body)
        return _metadata(found) if method == "ModelMetadata" else _index(found)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return outcome.failure(grpc.StatusCode.INTERNAL, f"the answer to {method} cannot be read: {error}")


def _model_path(name: str, version: str) -> str:
    return f"/v2/models/{quote(name, safe='')}" + (f"/versions/{quote(version, safe='@')}" if version else "")


def _model_ready(payload: bytes) -> Request:
    asked = inference_pb2.ModelReadyRequest.FromString(payload)
    return Request("GET", f"{_model_path(asked.name, asked.version)}/ready")


def _model_metadata(payload: bytes) -> Request:
    asked = inference_pb2.ModelMetadataRequest.FromString(payload)
    return Request("GET", _model_path(asked.name, asked.version))


def _repository_index(payload: bytes) -> Request:
    asked = inference_pb2.RepositoryIndexRequest.FromString(payload)
    body = json.dumps({"ready": True} if asked.ready else {}).encode()
    return Request("POST", "/v2/repository/index", (("Content-Type", _JSON),), body)


_PLAIN: Final = {
    "ServerLive": lambda _: Request("GET", "/v2/health/live"),
    "ServerReady": lambda _: Request("GET", "/v2/health/ready"),
    "ModelReady": _model_ready,
    "ModelMetadata": _model_metadata,
    "RepositoryIndex": _repository_index,
}


def _infer(asked: inference_pb2.ModelInferRequest, *, is_binary: bool) -> Request | Failure:
    path = f"{_model_path(asked.model_name, asked.model_version)}/infer"
    parameters = {name: _value(each) for name, each in asked.parameters.items()}
    outputs: list[dict[str, Any]] = [{"name": output.name} for output in asked.outputs]
    if is_binary and outputs:
        outputs = [{**output, "parameters": {"binary_data": True}} for output in outputs]
    elif is_binary:
        parameters["binary_data_output"] = True
    inputs: list[dict[str, Any]] = []
    for tensor, raw in zip(asked.inputs, asked.raw_input_contents, strict=True):
        described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if is_binary:
            inputs.append({**described, "parameters": {_SIZE: len(raw)}})
            continue
        try:
            inputs.append({**described, "data": _data(raw, tensor.datatype, tensor.shape)})
        except UnicodeDecodeError:
            details = f"input {tensor.name!r} holds bytes that are no text, which JSON cannot say; ask by gRPC"
            return outcome.failure(grpc.StatusCode.INVALID_ARGUMENT, details)
    whole: dict[str, Any] = {"inputs": inputs}
    whole |= {
        name: value for name, value in (("id", asked.id), ("parameters", parameters), ("outputs", outputs)) if value
    }
    head = json.dumps(whole, separators=(",", ":")).encode()
    if not is_binary:
        return Request("POST", path, (("Content-Type", _JSON),), head)
    headers = (("Content-Type", _RAW), (HEADER_BYTES, str(len(head))))
    return Request("POST", path, headers, b"".join((head, *asked.raw_input_contents)))


def _value(parameter: inference_pb2.InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def _data(raw: bytes, datatype: str, shape: Sequence[int]) -> list[Any]:
    """Raw contents as JSON's elements, flat; floats without a number are words."""
    if datatype == "BYTES":
        return [element.decode() for element in split_bytes(raw, math.prod(shape))]
    values: list[Any] = from_raw(raw, datatype, shape).ravel().tolist()
    if numpy_type(datatype).kind == "f" and not all(map(math.isfinite, values)):
        return [value if math.isfinite(value) else _word(value) for value in values]
    return values


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _health(method: str, reply: Reply) -> bytes:
    found = _parsed(reply.body)
    # A status is enough; where there is a body, it has the last word.
    said = next((found[name] for name in ("ready", "live") if name in found), True) if isinstance(found, dict) else True
    is_well = reply.status == 200 and said is not False
    if method == "Check":
        return SERVING if is_well else b"\x08\x02"
    return inference_pb2.ModelReadyResponse(ready=is_well).SerializeToString()


def _failure(reply: Reply) -> Failure:
    found = _parsed(reply.body)
    details = (found.get("error") or found.get("detail")) if isinstance(found, dict) else None
    code = _CODES.get(reply.status, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.NOT_FOUND and not (isinstance(found, dict) and "error" in found):
        # Of a server that knows the protocol, the body would say which model is not there.
        code = grpc.StatusCode.UNIMPLEMENTED
    text = details if isinstance(details, str) else reply.body.decode(errors="replace")[:_MOST_SHOWN].strip()
    return outcome.failure(code, text or f"the server answered with HTTP status {reply.status}", _trailers(reply))


def _trailers(reply: Reply) -> Fields:
    """What the server says about another attempt, as gRPC's trailers say it."""
    own = reply.headers.get(PUSHBACK_KEY)
    if own is not None:
        return ((PUSHBACK_KEY, own),)
    after = reply.headers.get("retry-after", "")
    return ((PUSHBACK_KEY, str(int(after) * 1000)),) if after.isascii() and after.isdigit() else ()


def _metadata(found: Mapping[str, Any]) -> bytes:
    message = inference_pb2.ModelMetadataResponse(
        name=found["name"], versions=found.get("versions") or (), platform=found.get("platform") or ""
    )
    for tensors, declared in ((found.get("inputs"), message.inputs), (found.get("outputs"), message.outputs)):
        for tensor in tensors or ():
            made = declared.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
            _set_parameters(made.parameters, tensor.get("parameters"))
    return message.SerializeToString()


def _index(found: Sequence[Mapping[str, Any]]) -> bytes:
    message = inference_pb2.RepositoryIndexResponse()
    for line in found:
        message.models.add(**{name: str(line.get(name) or "") for name in ("name", "version", "state", "reason")})
    return message.SerializeToString()


def _inferred(reply: Reply) -> bytes:
    size = reply.headers.get(HEADER_BYTES.lower())
    head = reply.body if size is None else reply.body[: int(size)]
    at = len(head)
    found = json.loads(head)
    message = inference_pb2.ModelInferResponse(
        model_name=found["model_name"], model_version=str(found.get("model_version") or ""), id=found.get("id") or ""
    )
    _set_parameters(message.parameters, found.get("parameters"))
    for tensor in found["outputs"]:
        parameters = dict(tensor.get("parameters") or {})
        raw_bytes = parameters.pop(_SIZE, None)
        made = message.outputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        _set_parameters(made.parameters, parameters)
        if raw_bytes is None:
            message.raw_output_contents.append(_raw(tensor["data"], tensor["datatype"], tensor["shape"]))
            continue
        if at + raw_bytes > len(reply.body):
            raise ValueError(f"output {tensor['name']!r} has {raw_bytes} bytes, and {len(reply.body) - at} are there")
        message.raw_output_contents.append(reply.body[at : at + raw_bytes])
        at += raw_bytes
    return message.SerializeToString()


def _raw(data: Any, datatype: str, shape: Sequence[int]) -> bytes:
    """JSON's elements, flat or nested, as raw contents; raises `ValueError` or `TypeError` for what they cannot be."""
    if datatype == "BYTES":
        elements = np.array(data, object).ravel().tolist()
        return join_bytes([each.encode() for each in elements])
    dtype = numpy_type(datatype)
    values: NDArray[Any] = np.array(data, object).ravel()
    if dtype.kind == "f":
        values = np.array([_WORDS[each] if each is None or isinstance(each, str) else each for each in values], dtype)
    array = values.astype(dtype).reshape(shape)
    return to_raw(array, datatype if datatype == BF16 else "")


def _set_parameters(parameters: Any, found: Mapping[str, Any] | None) -> None:
    for name, value in (found or {}).items():
        if isinstance(value, bool):
            parameters[name].bool_param = value
        elif isinstance(value, int):
            parameters[name].int64_param = value
        elif isinstance(value, float):
            parameters[name].double_param = value
        elif isinstance(value, str):
            parameters[name].string_param = value


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def unsent(failure: Failure) -> Failure:
    """The failure of a request that no server has begun with."""
    return replace(failure, is_unsent=True)
