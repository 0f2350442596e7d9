"""The requests that every server is sent, and the check that it answers them rightly.

A fast server with wrong answers must not enter a table. Called by `__main__`, `compare` and `promotions`.
"""

import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import numpy as np
from numpy.typing import NDArray

from bench import models, strings
from penstock import inference_pb2 as pb
from penstock.tensors import NUMPY_TYPES

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
DISTINCT: Final = 64
"""How many different requests are sent in turn: one row sent for ever would flatter branch predictors."""

Outputs: TypeAlias = dict[str, NDArray[Any]]
"""Arrays by output name."""

_TOLERANCE: Final = 1e-4
_PATIENCE_S: Final = 0.02


class WrongAnswerError(Exception):
    """A server answered, but not what the model says."""


def messages(model: str, *, rows: int, copies: int = 1) -> tuple[bytes, ...]:
    """Serialized requests of so many rows each, to the copies of the model in turn."""
    if model == strings.NAME:
        table = strings.table(rows * DISTINCT, seed=1)
        slices = (slice(start, start + rows) for start in range(0, rows * DISTINCT, rows))
        return tuple(strings.request(table, part).SerializeToString() for part in slices)
    names, parts = models.copies(model, copies), tensors(model, rows)
    count = max(copies, DISTINCT)
    return tuple(request(names[i % copies], parts[i % DISTINCT]).SerializeToString() for i in range(count))


def request(model: str, rows: NDArray[np.float32]) -> pb.ModelInferRequest:
    """One request."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=models.INPUT, datatype="FP32", shape=rows.shape)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[rows.tobytes()])


def expected(file: Path, model: str, *, rows: int) -> list[Outputs]:
    """The outputs of a model's file for each of `messages`, computed here."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = (session.run(names, {models.INPUT: part}) for part in tensors(model, rows))
    return [dict(zip(names, arrays, strict=True)) for arrays in answers]


def first_answer(address: str, message: bytes, *, timeout_s: float) -> pb.ModelInferResponse:
    """The first good answer of a server that may still be loading; asks again until the time is over.

    Raises:
        TimeoutError: there was none, and says what came last.
    """
    give_up_at = time.monotonic() + timeout_s
    with channel(address) as opened:
        call = infer(opened)
        while True:
            try:
                return call(message, timeout=timeout_s)
            except grpc.RpcError as error:
                if time.monotonic() >= give_up_at:
                    raise TimeoutError(f"no answer from {address} within {timeout_s} s: {error}") from error
            time.sleep(_PATIENCE_S)


def check(
    address: str,
    sent: tuple[bytes, ...],
    outputs: list[Outputs],
    *,
    read: Callable[[pb.ModelInferResponse], Outputs] | None = None,
) -> None:
    """Sends each message once and compares the answers, read by `decode` or another; outputs are taken in turn.

    Raises:
        WrongAnswerError: an answer differs from the expected outputs.
    """
    with channel(address) as opened:
        call = infer(opened)
        for message, wanted in zip(sent, cycle(outputs), strict=False):
            if difference := compare(wanted, (read or decode)(call(message, timeout=10))):
                raise WrongAnswerError(f"{address} answers wrongly: {difference}")


def compare(wanted: Outputs, got: Outputs) -> str | None:
    """What is different about an answer, in a few words; None when nothing is."""
    if wanted.keys() != got.keys():
        return f"expected outputs {sorted(wanted)}, got {sorted(got)}"
    for name, array in wanted.items():
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


def channel(address: str) -> grpc.Channel:
    """A channel of its own: two servers in turn on one port must not share a connection."""
    return grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))


def infer(opened: grpc.Channel) -> "grpc.UnaryUnaryMultiCallable[bytes, pb.ModelInferResponse]":
    """ModelInfer, taking serialized requests."""
    return opened.unary_unary(METHOD, response_deserializer=pb.ModelInferResponse.FromString)


def tensors(model: str, rows: int) -> list[NDArray[np.float32]]:
    """What the model's file takes for each of the distinct requests."""
    if model == strings.NAME:
        return list(strings.encoded(strings.table(rows * DISTINCT, seed=1)).reshape(DISTINCT, rows, -1))
    return list(models.sample(model, rows=rows * DISTINCT).reshape(DISTINCT, rows, -1))
