"""Reads a server's reply as a `Prediction`. Pure; called by `session`.

Raw contents are what servers normally send; typed contents are read too, and parameters that a server leaves out stay
absent.
"""

from typing import Any, Protocol, TypeVar, cast

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from penstock import inference_pb2
from penstock.tensors import Tensor, from_raw, typed_to_raw
from penstock_client.errors import ServerError
from penstock_client.prediction import Prediction, Timing

M = TypeVar("M", bound=Message)


class _Parameters(Protocol):
    """A reply's parameters by name."""

    def __contains__(self, name: object, /) -> bool: ...

    def __getitem__(self, name: str, /) -> inference_pb2.InferParameter: ...


def parsed(kind: type[M], payload: bytes) -> M:
    """The message that the bytes hold.

    Raises:
        ServerError: they hold none.
    """
    message = kind()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise ServerError(f"the reply is no {kind.__name__}: {error}") from error
    return message


def prediction_of(payload: bytes, *, round_trip_s: float) -> Prediction:
    """The prediction in a serialized `ModelInferResponse`.

    Raises:
        ServerError: the reply is malformed.
    """
    message = parsed(inference_pb2.ModelInferResponse, payload)
    return Prediction(
        outputs=_outputs(message),
        model=message.model_name,
        version=message.model_version,
        role=_text(message.parameters, "penstock_role"),
        request_id=message.id or None,
        timing=Timing(
            queue_s=_seconds(message.parameters, "penstock_queue_us"),
            compute_s=_seconds(message.parameters, "penstock_compute_us"),
            batch_rows=_integer(message.parameters, "penstock_batch_rows"),
            round_trip_s=round_trip_s,
        ),
    )


def _outputs(message: inference_pb2.ModelInferResponse) -> dict[str, NDArray[Any]]:
    raw = message.raw_output_contents
    if raw and len(raw) != len(message.outputs):
        raise ServerError(f"the reply has {len(message.outputs)} outputs and {len(raw)} raw contents")
    try:
        return {
            tensor.name: _array(raw[at] if raw else typed_to_raw(cast("Tensor", tensor)), tensor)
            for at, tensor in enumerate(message.outputs)
        }
    except ValueError as error:
        raise ServerError(f"an output of the reply cannot be read: {error}") from error


def _array(raw: bytes, tensor: inference_pb2.ModelInferResponse.InferOutputTensor) -> NDArray[Any]:
    array = from_raw(raw, tensor.datatype, tensor.shape)
    return _decoded(array) if tensor.datatype == "BYTES" else array


def _decoded(array: NDArray[Any]) -> NDArray[Any]:
    """The elements as text where they are UTF-8; read-only, as every output is."""
    texts = np.empty(array.size, dtype=object)
    for at, element in enumerate(array.ravel().tolist()):
        texts[at] = _text_or_bytes(element)
    texts.flags.writeable = False
    return texts.reshape(array.shape)


def _text_or_bytes(element: bytes) -> str | bytes:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return element


def _text(parameters: _Parameters, name: str) -> str | None:
    return parameters[name].string_param or None if name in parameters else None


def _integer(parameters: _Parameters, name: str) -> int | None:
    # Looking a name up in a protobuf map adds it, so presence is asked first.
    if name not in parameters or not parameters[name].HasField("int64_param"):
        return None
    return parameters[name].int64_param


def _seconds(parameters: _Parameters, name: str) -> float | None:
    microseconds = _integer(parameters, name)
    return None if microseconds is None else microseconds / 1e6
