"""Reads a reply of the plain kind without protobuf's objects: raw contents, and the parameters that a Penstock server sends.

It takes only bytes that it understands whole, with the outputs' heads together and the contents
last, and gives the same prediction as `prediction`, to which it leaves all others.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from penstock import inference_pb2
from penstock.names import PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US, PARAMETER_ROLE
from penstock.tensors import BF16, NUMPY_TYPES
from penstock_client.prediction import Prediction, Timing, texts_of
from penstock_client.steps import Failure

# The tags of ModelInferResponse's fields, and of those within a parameter.
_MODEL, _VERSION, _ID, _PARAMETERS, _OUTPUTS, _RAW = (number << 3 | 2 for number in range(1, 7))
_TEXTS: Final = (_MODEL, _VERSION, _ID)
_KEY, _VALUE = 1 << 3 | 2, 2 << 3 | 2
_INT64_PARAM, _STRING_PARAM = 2 << 3, 3 << 3 | 2
_ROLE: Final = PARAMETER_ROLE.encode()
_QUEUE_US: Final = PARAMETER_QUEUE_US.encode()
_COMPUTE_US: Final = PARAMETER_COMPUTE_US.encode()
_BATCH_ROWS: Final = PARAMETER_BATCH_ROWS.encode()
_NUMBERS: Final = frozenset((_QUEUE_US, _COMPUTE_US, _BATCH_ROWS))
_MOST_KNOWN: Final = 1024


class _NotPlainError(Exception):
    """The reply is left to protobuf."""


@dataclass(frozen=True, slots=True)
class _Output:
    """The head of one output; `dtype` is None for BYTES."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    raw_bytes: int

    def array(self, raw: bytes) -> NDArray[Any]:
        """The contents."""
        if self.dtype is None:
            return texts_of(raw, self.shape)
        if len(raw) != self.raw_bytes:
            raise _NotPlainError
        array = np.frombuffer(raw, self.dtype)
        return array if len(self.shape) == 1 else array.reshape(self.shape)


_known: dict[bytes, tuple[_Output, ...]] = {}
"""The heads of all outputs of a reply, by their bytes. Threads change it by single operations."""


def plain_prediction(outcome: bytes | Failure, *, round_trip_s: float, explains: bool) -> Prediction | None:
    """The prediction of an attempt that was answered by a plain reply; None for anything else."""
    if explains or not isinstance(outcome, bytes):
        return None
    try:
        return _read(outcome, round_trip_s)
    except (_NotPlainError, IndexError, ValueError):
        return None


def _read(payload: bytes, round_trip_s: float) -> Prediction:
    texts: dict[int, str] = {}
    numbers: dict[bytes, int] = {}
    heads, at = b"", 0
    while (tag := payload[at]) != _RAW:
        if tag == _PARAMETERS:
            end = at + 2 + payload[at + 1]
            _parameter(payload, at + 2, end, texts, numbers)
            at = end
        elif tag == _OUTPUTS and not heads:
            begin = at
            while payload[at] == _OUTPUTS:
                size, at = _size(payload, at + 1)
                at += size
            heads = payload[begin:at]
        elif tag in _TEXTS and tag not in texts:
            texts[tag], at = _text(payload, at + 1)
        else:
            raise _NotPlainError
    outputs = {}
    for output in _known.get(heads) or _learned(heads):
        if payload[at] != _RAW:
            raise _NotPlainError
        size, at = _size(payload, at + 1)
        end = at + size
        outputs[output.name] = output.array(payload[at:end])
        at = end
    if at != len(payload):
        raise _NotPlainError
    queue_us, compute_us = numbers.get(_QUEUE_US), numbers.get(_COMPUTE_US)
    return Prediction(
        outputs,
        texts.get(_MODEL, ""),
        texts.get(_VERSION, ""),
        texts.get(_PARAMETERS) or None,
        texts.get(_ID) or None,
        Timing(
            None if queue_us is None else queue_us / 1e6,
            None if compute_us is None else compute_us / 1e6,
            numbers.get(_BATCH_ROWS),
            round_trip_s,
        ),
    )


def _text(payload: bytes, at: int) -> tuple[str, int]:
    """A short text, and where the next field begins."""
    size = payload[at]
    if size > 127:
        raise _NotPlainError
    end = at + 1 + size
    return payload[at + 1 : end].decode(), end


def _size(payload: bytes, at: int) -> tuple[int, int]:
    """A length, and where what is so long begins."""
    size = payload[at]
    at += 1
    if size < 128:
        return size, at
    size &= 127
    for shift in (7, 14, 21):
        byte = payload[at]
        at += 1
        size |= (byte & 127) << shift
        if byte < 128:
            return size, at
    raise _NotPlainError


def _parameter(payload: bytes, at: int, end: int, texts: dict[int, str], numbers: dict[bytes, int]) -> None:
    """Reads a known parameter; the role goes to the texts, under the tag of parameters."""
    begin = at + 2 + payload[at + 1]
    name = payload[at + 2 : begin]
    is_plain = payload[at] == _KEY and payload[begin] == _VALUE and begin + 2 + payload[begin + 1] == end
    if not is_plain or name in numbers:
        raise _NotPlainError
    value = payload[begin + 2 : end]
    if name in _NUMBERS:
        numbers[name] = _number(value)
    elif name == _ROLE and _PARAMETERS not in texts:
        texts[_PARAMETERS] = _string(value)
    else:
        raise _NotPlainError


def _string(value: bytes) -> str:
    if value[0] != _STRING_PARAM or value[1] != len(value) - 2 or value[1] > 127:
        raise _NotPlainError
    return value[2:].decode()


def _number(value: bytes) -> int:
    # A number in five bytes is below 2**35: hours in microseconds.
    if value[0] != _INT64_PARAM or len(value) > 6:
        raise _NotPlainError
    number = 0
    for place, byte in enumerate(value[1:-1]):
        if byte < 128:
            raise _NotPlainError
        number |= (byte & 127) << 7 * place
    if value[-1] > 127:
        raise _NotPlainError
    return number | value[-1] << 7 * (len(value) - 2)


def _learned(heads: bytes) -> tuple[_Output, ...]:
    """The outputs that these bytes head, as protobuf reads them."""
    try:
        tensors = inference_pb2.ModelInferResponse.FromString(heads).outputs
    except DecodeError:
        raise _NotPlainError from None
    found = tuple(map(_output, tensors))
    if not found or len({output.name for output in found}) != len(found):
        raise _NotPlainError
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[heads] = found
    return found


def _output(tensor: inference_pb2.ModelInferResponse.InferOutputTensor) -> _Output:
    dtype = NUMPY_TYPES.get(tensor.datatype)
    shape = tuple(tensor.shape)
    is_known = tensor.datatype == "BYTES" or (dtype is not None and tensor.datatype != BF16)
    if tensor.HasField("contents") or not is_known or min(shape, default=0) < 0:
        raise _NotPlainError
    return _Output(tensor.name, dtype, shape, 0 if dtype is None else dtype.itemsize * prod(shape))
