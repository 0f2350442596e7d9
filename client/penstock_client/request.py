"""Writes a prediction's request as bytes: the options, checked here, and the tensors that `tensors` laid out.

The bytes are written without protobuf's objects, which cost several times as much; they hold the fields in their order.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from penstock.names import PARAMETER_EXPLAIN, PARAMETER_EXTRA_COLUMNS, PARAMETER_PRIORITY, PARAMETER_ROUTING_KEY
from penstock.tensors import to_raw
from penstock.wire import varint
from penstock_client.errors import InvalidRequestError
from penstock_client.tensors import Extra, InputTensor

UINT64_LIMIT = 2**64

# The tags of inference.proto's fields: the number, and that a length follows (2) or a number (0).
_MODEL, _VERSION, _ID, _PARAMETERS, _INPUTS, _OUTPUTS, RAW_CONTENTS = (number << 3 | 2 for number in range(1, 8))
_NAME, _DATATYPE, _SHAPE = (number << 3 | 2 for number in range(1, 4))
_KEY, _VALUE = 1 << 3 | 2, 2 << 3 | 2
_BOOL_PARAM, _STRING_PARAM, _UINT64_PARAM = 1 << 3, 3 << 3 | 2, 5 << 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """The options of one prediction, without its rows.

    Attributes:
        version: a version's name or an alias such as "@champion"; empty leaves the choice to the server.
        outputs: the names of the outputs to return; None for all.
        routing_key: requests with the same key go to the same version while a canary grows.
        request_id: sent as the request's id and echoed; None sends none.
        priority: the server's queue priority, 1 the highest; None leaves it to the server.
        extra: "ignore" leaves out columns that the model does not take, "refuse" refuses them.
        explain: asks for attributions too.
    """

    model: str
    version: str = ""
    outputs: Sequence[str] | None = None
    routing_key: str | None = None
    request_id: str | None = None
    priority: int | None = None
    extra: Extra = "ignore"
    explain: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the request has neither id nor parameters."""
        return self.routing_key is None and self.request_id is None and self.priority is None and self.explain is False

    def check(self) -> None:
        """Raises `InvalidRequestError` for an option of the wrong type or range."""
        if not self.model:
            raise InvalidRequestError("the model's name is empty")
        if isinstance(self.outputs, str):
            raise InvalidRequestError(f"outputs is expected as a list of names, got the string {self.outputs!r}")
        for name in self.outputs or ():
            _check_text("an output's name", name)
        for name in ("model", "version", "routing_key", "request_id"):
            _check_text(name, getattr(self, name))
        if self.priority is not None and not 0 <= self.priority < UINT64_LIMIT:
            raise InvalidRequestError(f"priority is expected from 0 to 2**64 - 1, got {self.priority}")
        if self.extra not in get_args(Extra):
            raise InvalidRequestError(f"extra is expected as 'ignore' or 'refuse', got {self.extra!r}")


def _check_text(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError(f"{name} is expected as a string, got {value!r}")


def infer_payload(options: RequestOptions, tensors: Sequence[InputTensor], *, for_any_version: bool = False) -> bytes:
    """The serialized `ModelInferRequest`, its tensors raw; with `for_any_version` a server takes what it needs of them."""
    parts = [names(options), parameters(options, for_any_version=for_any_version), inputs_and_outputs(options, tensors)]
    for tensor in tensors:
        raw = to_raw(tensor.values, tensor.datatype)
        parts += (delimited(RAW_CONTENTS, len(raw)), raw)
    return b"".join(parts)


def names(options: RequestOptions) -> bytes:
    """The model and its version, as a request has them."""
    return _text(_MODEL, options.model) + _text(_VERSION, options.version)


def parameters(options: RequestOptions, *, for_any_version: bool = False) -> bytes:
    """The id and the parameters, as a request has them; raises `InvalidRequestError` as `check` does."""
    options.check()
    parts = [_text(_ID, options.request_id or "")]
    if options.routing_key is not None:
        parts.append(_parameter(PARAMETER_ROUTING_KEY, _field(_STRING_PARAM, options.routing_key.encode())))
    if for_any_version:
        parts.append(_parameter(PARAMETER_EXTRA_COLUMNS, _field(_STRING_PARAM, b"ignore")))
    if options.explain:
        parts.append(_parameter(PARAMETER_EXPLAIN, bytes((_BOOL_PARAM, 1))))
    if options.priority is not None:
        parts.append(_parameter(PARAMETER_PRIORITY, bytes((_UINT64_PARAM,)) + varint(operator.index(options.priority))))
    return b"".join(parts)


def inputs_and_outputs(options: RequestOptions, tensors: Sequence[InputTensor]) -> bytes:
    """The heads of the tensors and the outputs asked for, as a request has them."""
    heads = (
        _text(_NAME, tensor.name)
        + _text(_DATATYPE, tensor.datatype)
        + (_field(_SHAPE, b"".join(map(varint, tensor.values.shape))) if tensor.values.shape else b"")
        for tensor in tensors
    )
    outputs = (_field(_OUTPUTS, _text(_NAME, name)) for name in options.outputs or ())
    return b"".join((*(_field(_INPUTS, head) for head in heads), *outputs))


def delimited(tag: int, size: int) -> bytes:
    """What comes before the bytes of a field."""
    return bytes((tag,)) + varint(size)


def _field(tag: int, content: bytes) -> bytes:
    return delimited(tag, len(content)) + content


def _text(tag: int, text: str) -> bytes:
    """A field of text, which protobuf leaves out where it is empty."""
    return _field(tag, text.encode()) if text else b""


def _parameter(name: str, value: bytes) -> bytes:
    return _field(_PARAMETERS, _text(_KEY, name) + _field(_VALUE, value))
