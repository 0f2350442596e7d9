"""What a prediction is to the caller, and how it is read from a server's reply.

Servers normally send raw contents; typed contents are read too. Parameters that a server leaves out stay absent.
"""

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeVar, cast

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from penstock import inference_pb2
from penstock.names import (
    ATTRIBUTIONS,
    PARAMETER_BASE,
    PARAMETER_BATCH_ROWS,
    PARAMETER_CLASSES,
    PARAMETER_COLUMNS,
    PARAMETER_COMPUTE_US,
    PARAMETER_METHOD,
    PARAMETER_OF,
    PARAMETER_QUEUE_US,
    PARAMETER_ROLE,
)
from penstock.tensors import Tensor, from_raw, split_bytes, typed_to_raw
from penstock_client.errors import ServerError, UnsupportedError

M = TypeVar("M", bound=Message)
Parameters = Mapping[str, inference_pb2.InferParameter]


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of the answered attempt went; None where the server does not say.

    Attributes:
        queue_s: seconds the request waited at the server.
        compute_s: seconds the model ran.
        batch_rows: rows of the batch that it ran in, other callers' included; 0 where the answer was kept from an earlier one.
        round_trip_s: seconds from sending to the answer, seen here; earlier attempts and pauses are not in it. NaN in a stream.
    """

    queue_s: float | None
    compute_s: float | None
    batch_rows: int | None
    round_trip_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Attributions:
    """How much each raw column moved each row's answer: Shapley values. They add up, with the base, to what is explained.

    Attributes:
        values: float64 [rows, columns]; [rows, columns, classes] where the model answers several numbers.
        columns: the raw columns' names.
        base: float64 [1], or [classes]: the expected answer, without any row.
        of: what is explained, such as "the log-odds" or "the prediction".
        classes: the classes or targets, in the order of the last axis; the one class that a single number speaks for; or
            empty.
        method: how they were computed.
    """

    values: NDArray[np.float64]
    columns: tuple[str, ...]
    base: NDArray[np.float64]
    of: str
    classes: tuple[str, ...]
    method: str

    def top(self, row: int, most: int = 10, *, output: int = 0) -> list[tuple[str, float]]:
        """The columns that moved a row most, with their values, the largest first.

        Args:
            row: its place in the request.
            most: how many columns.
            output: of several numbers, which one.
        """
        own = self.values[row] if self.values.ndim == 2 else self.values[row, :, output]
        order = np.argsort(-np.abs(own), kind="stable")[:most]
        return [(self.columns[at], float(own[at])) for at in order.tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction(Mapping[str, NDArray[Any]]):
    """A model's outputs by name, in the order that the server gave them.

    The arrays are read-only views of the reply; copy one to change it. Outputs of datatype BYTES are arrays of objects:
    `str` where the bytes are UTF-8, else `bytes`.

    Attributes:
        outputs: the arrays by name.
        model: the name of the model that answered.
        version: the version that answered.
        role: why that version, such as "champion" or "canary"; None where the server does not say.
        request_id: the request's id, which labels are joined by; None where it had none.
        timing: where the time went.
        attributions: how much each raw column moved the answers; None unless asked for with `explain`.
    """

    outputs: Mapping[str, NDArray[Any]]
    model: str
    version: str
    role: str | None
    request_id: str | None
    timing: Timing
    attributions: Attributions | None = None

    def columns(self) -> dict[str, NDArray[Any]]:
        """The outputs as columns of one value per row: a matrix `p` of three columns is `p_0`, `p_1` and `p_2`.

        Raises:
            ValueError: the outputs have not one row each for the same rows, such as a number without an axis.

        >>> timing = Timing(None, None, None, 0.0)
        >>> outputs = {"label": np.array([1, 0]), "p": np.array([[0.1, 0.9], [0.8, 0.2]])}
        >>> Prediction(outputs, "m", "1", None, None, timing).columns()
        {'label': array([1, 0]), 'p_0': array([0.1, 0.8]), 'p_1': array([0.9, 0.2])}
        """
        found: dict[str, NDArray[Any]] = {}
        rows = {array.shape[:1] for array in self.outputs.values()}
        if len(rows) > 1 or () in rows:
            shapes = {name: list(array.shape) for name, array in self.outputs.items()}
            raise ValueError(f"columns take outputs with the same number of rows, got shapes {shapes}")
        for name, array in self.outputs.items():
            width = prod(array.shape[1:])
            flat = array.reshape(len(array), width)
            names = [name] if width == 1 else [f"{name}_{at}" for at in range(width)]
            found |= {each: flat[:, at] for at, each in enumerate(names)}
        return found

    def frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """The outputs as a pandas or polars DataFrame, with the columns of `columns`; the library is imported here.

        Raises:
            ValueError: as `columns`.
            ImportError: the library is not installed.

        >>> timing = Timing(None, None, None, 0.0)
        >>> Prediction({"fare": np.array([82.0, 14.0])}, "fares", "3", None, None, timing).frame()
           fare
        0  82.0
        1  14.0
        """
        if library not in ("pandas", "polars"):
            raise ValueError(f"library is expected as 'pandas' or 'polars', got {library!r}")
        return importlib.import_module(library).DataFrame(self.columns())

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


def parsed(kind: type[M], payload: bytes) -> M:
    """The message that the bytes hold.

    Raises:
        ServerError: they hold none.
    """
    message = kind()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise ServerError(f"the reply is not a {kind.__name__}: {error}") from error
    return message


def prediction_of(payload: bytes, *, round_trip_s: float, explains: bool = False) -> Prediction:
    """The prediction in a serialized `ModelInferResponse`; where it `explains`, with attributions apart from its outputs.

    Raises:
        ServerError: the reply is malformed.
        UnsupportedError: attributions were asked for, and it has none.
    """
    return prediction_in(
        parsed(inference_pb2.ModelInferResponse, payload), round_trip_s=round_trip_s, explains=explains
    )


def prediction_in(
    message: inference_pb2.ModelInferResponse, *, round_trip_s: float, explains: bool = False
) -> Prediction:
    """The prediction in a `ModelInferResponse`; raises as `prediction_of` does."""
    outputs = _outputs(message)
    return Prediction(
        attributions=_attributions(message, outputs) if explains else None,
        outputs=outputs,
        model=message.model_name,
        version=message.model_version,
        role=_text(message.parameters, PARAMETER_ROLE),
        request_id=message.id or None,
        timing=Timing(
            queue_s=_seconds(message.parameters, PARAMETER_QUEUE_US),
            compute_s=_seconds(message.parameters, PARAMETER_COMPUTE_US),
            batch_rows=_integer(message.parameters, PARAMETER_BATCH_ROWS),
            round_trip_s=round_trip_s,
        ),
    )


def _attributions(message: inference_pb2.ModelInferResponse, outputs: dict[str, NDArray[Any]]) -> Attributions:
    """The attributions of a reply, taken out of its outputs."""
    values = outputs.pop(ATTRIBUTIONS, None)
    if values is None:
        raise UnsupportedError("the server gave no attributions; is it a Penstock server of a release that has them?")
    found = next(tensor.parameters for tensor in message.outputs if tensor.name == ATTRIBUTIONS)
    base = np.array(_listed(found, PARAMETER_BASE), np.float64)
    columns, classes = _listed(found, PARAMETER_COLUMNS), _listed(found, PARAMETER_CLASSES)
    if values.ndim < 2 or values.shape[1] != len(columns) or (len(base) if values.ndim == 3 else 1) != len(base):
        raise ServerError(
            f"attributions of shape {list(values.shape)} for {len(columns)} columns and a base of {len(base)}"
        )
    return Attributions(
        values=values,
        columns=tuple(map(str, columns)),
        base=base,
        of=_text(found, PARAMETER_OF) or "the answer",
        classes=tuple(map(str, classes)),
        method=_text(found, PARAMETER_METHOD) or "",
    )


def _listed(parameters: Parameters, name: str) -> list[Any]:
    """A parameter that is a JSON list; empty where it is not there."""
    text = _text(parameters, name)
    try:
        found = [] if text is None else json.loads(text)
    except ValueError as error:
        raise ServerError(f"the parameter {name!r} of the attributions is no JSON: {error}") from error
    if not isinstance(found, list):
        raise ServerError(f"the parameter {name!r} of the attributions is no list")
    return found


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
    return texts_of(raw, tensor.shape) if tensor.datatype == "BYTES" else from_raw(raw, tensor.datatype, tensor.shape)


def texts_of(raw: bytes, shape: Sequence[int]) -> NDArray[Any]:
    """The elements of raw BYTES contents, as text where they are UTF-8; read-only, as every output is."""
    texts = np.empty(prod(shape), dtype=object)
    for at, element in enumerate(split_bytes(raw, texts.size)):
        texts[at] = _text_or_bytes(element)
    texts.flags.writeable = False
    return texts.reshape(shape)


def _text_or_bytes(element: bytes) -> str | bytes:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return element


def _text(parameters: Parameters, name: str) -> str | None:
    return parameters[name].string_param or None if name in parameters else None


def _integer(parameters: Parameters, name: str) -> int | None:
    # A look-up in a protobuf map adds the name, so presence is checked first.
    if name not in parameters or not parameters[name].HasField("int64_param"):
        return None
    return parameters[name].int64_param


def _seconds(parameters: Parameters, name: str) -> float | None:
    microseconds = _integer(parameters, name)
    return None if microseconds is None else microseconds / 1e6
