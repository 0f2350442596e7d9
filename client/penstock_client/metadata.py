"""What a server declares of its models: the inputs and outputs of each, and the index of all.

This module reads the protocol's messages into frozen records. `session` fetches and caches them; `tensors` casts to them.
"""

import json
from dataclasses import dataclass

from penstock import inference_pb2
from penstock.names import PARAMETER_COLUMNS, PARAMETER_MISSING, PARAMETER_OPTIONAL, PARAMETER_TIME
from penstock_client.errors import ServerError


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as a model declares it.

    Attributes:
        shape: the length of each axis, -1 if it varies; empty if the server declares none.
        columns: the names of a matrix's columns, in its order; empty if the server knows none.
        missing: the text that stands for a missing value in a BYTES column; None if none does.
        time: the unit of the times since 1970 that an INT64 column holds, "ns"; None for whole numbers.
        is_optional: an input with a default, which requests may leave out; it holds no rows.

    >>> TensorSpec("age", "INT64", (-1, 1)).is_column, TensorSpec("X", "FP32", (-1, 30)).is_column
    (True, False)
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    missing: str | None = None
    time: str | None = None
    is_optional: bool = False

    @property
    def is_column(self) -> bool:
        """Whether it holds one value per row: shape `[N]` or `[N, 1]`."""
        has_one = len(self.shape) == 1 or (len(self.shape) == 2 and self.shape[1] == 1)
        return has_one and not self.is_optional

    @property
    def is_numeric(self) -> bool:
        """Whether its elements are numbers, booleans included."""
        return self.datatype != "BYTES"


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model as the server describes it; `versions` are those that it can answer with."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class ModelState:
    """One line of the server's index: `state` is such as READY or LOADING, `reason` says why it is not ready."""

    name: str
    version: str
    state: str
    reason: str


def metadata_of(message: inference_pb2.ModelMetadataResponse) -> ModelMetadata:
    """The record of a metadata reply."""
    return ModelMetadata(
        name=message.name,
        versions=tuple(message.versions),
        platform=message.platform,
        inputs=tuple(map(_spec_of, message.inputs)),
        outputs=tuple(map(_spec_of, message.outputs)),
    )


def index_of(message: inference_pb2.RepositoryIndexResponse) -> tuple[ModelState, ...]:
    """The records of an index reply, in its order."""
    return tuple(ModelState(line.name, line.version, line.state, line.reason) for line in message.models)


def _spec_of(tensor: inference_pb2.ModelMetadataResponse.TensorMetadata) -> TensorSpec:
    missing = tensor.parameters[PARAMETER_MISSING].string_param if PARAMETER_MISSING in tensor.parameters else None
    time = tensor.parameters[PARAMETER_TIME].string_param if PARAMETER_TIME in tensor.parameters else None
    is_optional = PARAMETER_OPTIONAL in tensor.parameters and tensor.parameters[PARAMETER_OPTIONAL].bool_param
    return TensorSpec(
        tensor.name, tensor.datatype, tuple(tensor.shape), _columns_of(tensor), missing, time, is_optional
    )


def _columns_of(tensor: inference_pb2.ModelMetadataResponse.TensorMetadata) -> tuple[str, ...]:
    if PARAMETER_COLUMNS not in tensor.parameters:
        return ()
    text = tensor.parameters[PARAMETER_COLUMNS].string_param
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_list or len(set(names)) != len(names) or list(tensor.shape[1:]) not in ([len(names)], [-1]):
        raise ServerError(
            f"the columns of input {tensor.name!r} are expected as {list(tensor.shape[1:])} names, got {text:.80}"
        )
    return tuple(names)
