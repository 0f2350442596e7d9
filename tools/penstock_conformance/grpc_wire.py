"""Runs the cases of gRPC: sends each request over a channel of grpcio, as bytes, and judges what came back."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from penstock import inference_pb2 as pb
from penstock_conformance.case import Answered, Case, Outcome, Refused, Result, described
from penstock_conformance.samples import DTYPES, from_raw, of_bytes, same

SERVICE: Final = "inference.GRPCInferenceService"
TYPED: Final = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""The field of `InferTensorContents` for each datatype; FP16 has none."""
_TIMEOUT_S: Final = 20.0
_OPTIONS: Final = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True, slots=True)
class GrpcRequest:
    """What is sent.

    Attributes:
        method: of the inference service, or a whole path.
        messages: one, or those of a stream.
        reply: the class of the replies; None for bytes as they are.
        is_stream: whether the method takes and gives streams.
        takes_one: of a stream, whether the method takes one message and the caller leaves after the first reply.
        metadata: sent beside.
        compression: of the messages.
        timeout_s: the call's deadline.
    """

    method: str
    messages: tuple[Message | bytes, ...]
    reply: type[Message] | None = None
    is_stream: bool = False
    takes_one: bool = False
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    compression: grpc.Compression | None = None
    timeout_s: float = _TIMEOUT_S

    @property
    def path(self) -> str:
        """The path of the call."""
        return self.method if self.method.startswith("/") else f"/{SERVICE}/{self.method}"


class GrpcWire:
    """A server that is asked by gRPC.

    Args:
        address: as HOST:PORT.
        names: the server's names of the models, where they are others.
    """

    def __init__(self, address: str, names: Mapping[str, str]) -> None:
        self._channel = grpc.insecure_channel(address, _OPTIONS)
        self._names = names

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def extensions(self) -> frozenset[str]:
        """The extensions that the server names; none where it does not say."""
        try:
            content = self._sent(GrpcRequest("ServerMetadata", (b"",)))[0]
        except grpc.RpcError:
            return frozenset()
        return frozenset(pb.ServerMetadataResponse.FromString(content).extensions)

    def reachable(self, timeout_s: float) -> bool:
        """Whether a server answers at all."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout_s)
        except grpc.FutureTimeoutError:
            return False
        return True

    def run(self, case: Case) -> Result:
        """Tries a case."""
        begun = time.perf_counter()
        request: GrpcRequest = self._renamed(case.request)
        try:
            contents = self._sent(request)
        except grpc.RpcError as error:
            outcome, got = self._on_error(case, error)
        else:
            outcome, got = self._on_replies(case, request, contents)
        return Result(case, outcome, got, time.perf_counter() - begun)

    def _sent(self, request: GrpcRequest) -> list[bytes]:
        payloads = [each if isinstance(each, bytes) else each.SerializeToString() for each in request.messages]
        options: dict[str, Any] = {"timeout": request.timeout_s, "metadata": request.metadata}
        options["compression"] = request.compression
        if request.takes_one:
            one: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(request.path)
            call = one(payloads[0], **options)
            try:
                return [next(call)]
            finally:
                call.cancel()
        if request.is_stream:
            several: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(request.path)
            return list(several(iter(payloads), **options))
        unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(request.path)
        return [unary(payloads[0], **options)]

    def _on_error(self, case: Case, error: grpc.RpcError) -> tuple[Outcome, str]:
        code, details = error.code().name, error.details() or ""
        got = f"{code}: {details[:160]}"
        if isinstance(case.expected, Refused) and code in case.expected.codes:
            return Outcome.PASSED, ""
        if code == "UNIMPLEMENTED" and case.extension:
            return Outcome.NOT_OFFERED, got
        return Outcome.FAILED, got

    def _on_replies(self, case: Case, request: GrpcRequest, contents: list[bytes]) -> tuple[Outcome, str]:
        if isinstance(case.expected, Refused):
            return Outcome.FAILED, f"an answer; expected {described(case.expected)}"
        try:
            replies = [each if request.reply is None else request.reply.FromString(each) for each in contents]
        except DecodeError as error:
            return Outcome.FAILED, f"a reply that is no {request.reply.__name__ if request.reply else ''}: {error}"
        whole = replies if request.is_stream else replies[0]
        try:
            wrong = self._judged(case.expected, whole)
        except (ValueError, LookupError) as error:  # a reply without what every answer has
            wrong = f"a malformed answer: {error}"
        return (Outcome.PASSED, "") if wrong is None else (Outcome.FAILED, wrong)

    def _judged(self, expected: Answered, reply: Any) -> str | None:
        for name, wanted in expected.fields.items():
            value = self._names.get(wanted, wanted) if isinstance(wanted, str) else wanted
            got = getattr(reply, name)
            got = list(got) if isinstance(value, list) else got
            if got != value:
                return f"{name} = {got!r}; expected {value!r}"
        if expected.outputs is not None and (wrong := unlike(outputs_of(reply), expected.outputs)) is not None:
            return wrong
        return None if expected.check is None else expected.check(reply)

    def _renamed(self, request: GrpcRequest) -> GrpcRequest:
        """The request with the server's own names of the models."""
        if not self._names:
            return request
        return replace(request, messages=tuple(map(self._renamed_message, request.messages)))

    def _renamed_message(self, message: Message | bytes) -> Message | bytes:
        if isinstance(message, bytes):
            return message
        field = "model_name" if isinstance(message, pb.ModelInferRequest) else "name"
        own = self._names.get(getattr(message, field, ""))
        if own is None:
            return message
        copy = type(message)()
        copy.CopyFrom(message)
        setattr(copy, field, own)
        return copy


def outputs_of(reply: pb.ModelInferResponse) -> dict[str, tuple[str, NDArray[Any]]]:
    """Datatype and values of each output, raw or typed; raises `ValueError` for contents that may not be."""
    raw = list(reply.raw_output_contents)
    if raw and len(raw) != len(reply.outputs):
        raise ValueError(f"{len(raw)} raw contents for {len(reply.outputs)} outputs")
    found = {}
    for at, tensor in enumerate(reply.outputs):
        if tensor.datatype not in DTYPES:
            raise ValueError(f"output {tensor.name!r} has datatype {tensor.datatype!r}")
        if raw and tensor.HasField("contents") and tensor.contents.ByteSize():
            raise ValueError(f"output {tensor.name!r} has raw and typed contents")
        try:
            values = from_raw(raw[at], tensor.datatype, list(tensor.shape)) if raw else _typed(tensor)
        except ValueError as error:
            raise ValueError(
                f"the contents of output {tensor.name!r} do not fit {list(tensor.shape)}: {error}"
            ) from error
        found[tensor.name] = (tensor.datatype, values)
    return found


def _typed(tensor: Any) -> NDArray[Any]:
    if tensor.datatype not in TYPED:
        raise ValueError(f"{tensor.datatype} has no typed contents")
    elements = list(getattr(tensor.contents, TYPED[tensor.datatype]))
    if tensor.datatype == "BYTES":
        return of_bytes(elements).reshape(list(tensor.shape))
    return np.array(elements, DTYPES[tensor.datatype]).reshape(list(tensor.shape))


def unlike(got: Mapping[str, tuple[str, NDArray[Any]]], expected: Mapping[str, NDArray[Any]]) -> str | None:
    """How outputs differ from those expected; None if they do not."""
    if set(got) != set(expected):
        return f"outputs {sorted(got)}; expected {sorted(expected)}"
    for name, values in expected.items():
        if not same(got[name][1], values):
            return f"{name} = {_short(got[name][1])}; expected {_short(values)}"
    return None


def _short(values: NDArray[Any]) -> str:
    text = repr(values.tolist())
    return f"{values.dtype} {list(values.shape)} {text if len(text) <= 80 else text[:77] + '...'}"


def messages_of(replies: list[pb.ModelStreamInferResponse]) -> Iterator[pb.ModelInferResponse | str]:
    """Each answer of a stream, or its error's text."""
    for reply in replies:
        yield reply.error_message or reply.infer_response
