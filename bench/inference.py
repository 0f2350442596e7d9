"""The requests that every server gets, and the check of its answers: a fast server with wrong answers is not measured."""

import ssl
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import numpy as np
from numpy.typing import NDArray

from bench import models, strings
from bench.load.plan import endpoint
from bench.servers.onnx_session import OneThreadModel
from penstock import inference_pb2 as pb
from penstock.names import INFER_METHOD, INFERENCE_SERVICE
from penstock.tensors import NUMPY_TYPES

METHOD: Final = f"/{INFERENCE_SERVICE}/{INFER_METHOD}"
DISTINCT: Final = 64
"""How many different requests are sent in turn: with always the same row, branch predictors would do too well."""

Outputs: TypeAlias = dict[str, NDArray[Any]]
"""Arrays by output name."""

_TOLERANCE: Final = 1e-4
_POLL_S: Final = 0.02


class WrongAnswerError(Exception):
    """A server's answer is not the model's output."""


def messages(model: str, *, rows: int, copies: int = 1) -> tuple[bytes, ...]:
    """Serialized requests of this many rows each, for the copies of the model in turn."""
    if model in strings.PIPELINES:
        table = strings.table(rows * DISTINCT, seed=1, model=model)
        slices = (slice(start, start + rows) for start in range(0, rows * DISTINCT, rows))
        return tuple(strings.request(table, part, model).SerializeToString() for part in slices)
    names, parts = models.copies(model, copies), tensors(model, rows)
    count = max(copies, DISTINCT)
    return tuple(request(names[i % copies], parts[i % DISTINCT]).SerializeToString() for i in range(count))


def keyed(messages: Sequence[bytes]) -> tuple[bytes, ...]:
    """The same requests, each with an id and a routing key of its own."""
    requests = [pb.ModelInferRequest.FromString(message) for message in messages]
    for number, made in enumerate(requests):
        made.id = f"request-{number}"
        made.parameters["routing_key"].string_param = f"customer {number}"
    return tuple(made.SerializeToString() for made in requests)


def request(model: str, rows: NDArray[np.float32]) -> pb.ModelInferRequest:
    """One request."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=models.INPUT, datatype="FP32", shape=rows.shape)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[rows.tobytes()])


def expected(file: Path, model: str, *, rows: int) -> list[Outputs]:
    """The outputs of a model's file for each of `messages`, computed here."""
    session = OneThreadModel(file)
    return [session.run(part) for part in tensors(model, rows)]


def first_answer(address: str, message: bytes, *, timeout_s: float, is_tls: bool = False) -> pb.ModelInferResponse:
    """The first good answer of a server that may still be loading; tries again until the time is over.

    Raises:
        TimeoutError: there was none; quotes the last error.
    """
    give_up_at = time.monotonic() + timeout_s
    with channel(address, is_tls=is_tls) as opened:
        call = infer(opened)
        while True:
            try:
                return call(message, timeout=timeout_s)
            except grpc.RpcError as error:
                if time.monotonic() >= give_up_at:
                    raise TimeoutError(f"no answer from {address} within {timeout_s} s: {error}") from error
            time.sleep(_POLL_S)


def check(
    address: str,
    sent: tuple[bytes, ...],
    outputs: list[Outputs],
    *,
    read: Callable[[pb.ModelInferResponse], Outputs] | None = None,
    is_tls: bool = False,
) -> None:
    """Sends each message once and compares the answers, read by `decode` or `read`; outputs are taken in turn.

    Raises:
        WrongAnswerError: an answer differs from the expected outputs.
    """
    with channel(address, is_tls=is_tls) as opened:
        call = infer(opened)
        for message, expected in zip(sent, cycle(outputs), strict=False):
            if difference := compare(expected, (read or decode)(call(message, timeout=10))):
                raise WrongAnswerError(f"{address} answers wrongly: {difference}")


def compare(expected: Outputs, got: Outputs) -> str | None:
    """What differs in an answer, in one sentence; None if nothing does."""
    if expected.keys() != got.keys():
        return f"expected outputs {sorted(expected)}, got {sorted(got)}"
    for name, array in expected.items():
        if got[name].shape != array.shape:
            return f"expected output {name!r} of shape {list(array.shape)}, got {list(got[name].shape)}"
        if not np.allclose(got[name], array, atol=_TOLERANCE):
            return f"output {name!r} differs from onnxruntime's"
    return None


def decode(response: pb.ModelInferResponse) -> Outputs:
    """The raw outputs of a response by name."""
    return {
        output.name: np.frombuffer(raw, NUMPY_TYPES[output.datatype]).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def channel(address: str, *, is_tls: bool = False) -> grpc.Channel:
    """A channel with its own connection: two servers, one after the other on one port, must not share it.

    With TLS it trusts whatever certificate the server shows now.
    """
    options = (("grpc.use_local_subchannel_pool", 1),)
    if not is_tls:
        return grpc.insecure_channel(address, options=options)
    shown = ssl.get_server_certificate(endpoint(address)).encode()
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(shown), options=options)


def infer(opened: grpc.Channel) -> "grpc.UnaryUnaryMultiCallable[bytes, pb.ModelInferResponse]":
    """ModelInfer, taking serialized requests."""
    return opened.unary_unary(METHOD, response_deserializer=pb.ModelInferResponse.FromString)


def tensors(model: str, rows: int) -> list[NDArray[np.float32]]:
    """The tensor that the model's file takes for each of the distinct requests."""
    if model in strings.PIPELINES:
        return list(
            strings.encoded(strings.table(rows * DISTINCT, seed=1, model=model), model).reshape(DISTINCT, rows, -1)
        )
    return list(models.sample(model, rows=rows * DISTINCT).reshape(DISTINCT, rows, -1))
