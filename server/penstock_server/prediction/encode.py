"""From a batch's outputs to each request's reply.

All but the id, the timing and the raw outputs of a reply is the same for every request of a version with as many rows,
so that prefix is encoded once and kept. Protobuf fields may come in any order and its messages may be joined, which
makes a reply a handful of joins of bytes.

Source: Protocol Buffers, "Encoding"; field numbers of `ModelInferResponse`.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.inference_pb2 import InferParameter, ModelInferResponse
from penstock.tensors import to_raw
from penstock_server.models.signature import TensorSpec
from penstock_server.names import (
    PARAMETER_BATCH_ROWS,
    PARAMETER_COMPUTE_US,
    PARAMETER_QUEUE_US,
    PARAMETER_ROLE,
    Role,
    VersionKey,
)

_ID: Final = b"\x1a"  # field 3
_PARAMETER: Final = b"\x22"  # field 4
_RAW_OUTPUT: Final = b"\x32"  # field 6
_MAX_PREFIXES: Final = 512


class ReplyEncoder:
    """Encodes the replies of one version in one role."""

    def __init__(self, key: VersionKey, role: Role | None, outputs: Sequence[TensorSpec]) -> None:
        self._outputs = outputs
        self._base = ModelInferResponse(model_name=key[0], model_version=key[1])
        if role is not None:
            self._base.parameters[PARAMETER_ROLE].CopyFrom(InferParameter(string_param=role))
        self._prefixes: dict[tuple[int, ...], bytes] = {}

    def prefix(self, shapes: Sequence[tuple[int, ...]], chosen: Sequence[int] | None = None) -> bytes:
        """The reply's constant part for outputs of these full shapes; `chosen` are the outputs asked for."""
        key = (
            len(chosen) if chosen is not None else -1,
            *(chosen or ()),
            *(size for shape in shapes for size in (-2, *shape)),
        )
        known = self._prefixes.get(key)
        if known is not None:
            return known
        reply = ModelInferResponse()
        reply.CopyFrom(self._base)
        for at in range(len(self._outputs)) if chosen is None else chosen:
            spec = self._outputs[at]
            reply.outputs.add(name=spec.name, datatype=spec.datatype, shape=shapes[at])
        if len(self._prefixes) >= _MAX_PREFIXES:
            self._prefixes.clear()
        encoded: bytes = reply.SerializeToString()
        self._prefixes[key] = encoded
        return encoded


def varint(value: int) -> bytes:
    r"""A non-negative integer in protobuf's base-128 form.

    >>> varint(300)
    b'\xac\x02'
    """
    if value < 128:
        return _SMALL[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL: Final = tuple(bytes((value,)) for value in range(128))


def encoded_id(request_id: str) -> bytes:
    """The reply's id field; nothing when the request had none."""
    if not request_id:
        return b""
    text = request_id.encode()
    return _ID + varint(len(text)) + text


def raw_output(raw: bytes) -> bytes:
    """One entry of `raw_output_contents`."""
    return _RAW_OUTPUT + varint(len(raw)) + raw


class IntegerParameter:
    """Encodes one integer parameter of a reply: all but the number is constant."""

    def __init__(self, name: str) -> None:
        text = name.encode()
        self._key = b"\x0a" + varint(len(text)) + text + b"\x12"

    def encode(self, value: int) -> bytes:
        """The map entry for a value of 0 or more."""
        number = b"\x10" + varint(value)
        entry = self._key + varint(len(number)) + number
        return _PARAMETER + varint(len(entry)) + entry


QUEUE_US: Final = IntegerParameter(PARAMETER_QUEUE_US)
COMPUTE_US: Final = IntegerParameter(PARAMETER_COMPUTE_US)
BATCH_ROWS: Final = IntegerParameter(PARAMETER_BATCH_ROWS)


class BatchOutputs:
    """A batch's outputs in raw form, cut by rows without a copy more than the reply's own.

    Strings have no fixed size and are encoded for each request; numbers are encoded once.
    """

    __slots__ = ("_arrays", "_raws", "_strides")

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = arrays
        self._raws = [None if array.dtype.kind in "OUS" else array.tobytes() for array in arrays]
        self._strides = [array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in arrays]

    def rows(self, at: int, start: int, stop: int) -> bytes:
        """Rows `start` to `stop` of output `at`, in raw form."""
        raw = self._raws[at]
        if raw is None:
            return to_raw(self._arrays[at][start:stop])
        stride = self._strides[at]
        return raw[start * stride : stop * stride]

    def whole(self, at: int) -> bytes:
        """All of output `at`, in raw form."""
        raw = self._raws[at]
        return to_raw(self._arrays[at]) if raw is None else raw
