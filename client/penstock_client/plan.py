"""Writes the request of one row, or of an array, by what an earlier request of the same form was: bytes around bytes.

A `Plan` is learned from a request that went the general way, through `rows`, `tensors`, `values` and `request`. It takes only
values for which that way has nothing to decide, and leaves the rest to it. Both write the same bytes.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from penstock.tensors import BF16
from penstock_client.errors import PenstockClientError
from penstock_client.metadata import ModelMetadata, TensorSpec
from penstock_client.request import RAW_CONTENTS, RequestOptions, delimited, inputs_and_outputs, names, parameters
from penstock_client.rows import Rows
from penstock_client.tensors import Layout, columns_of

_MOST_PLANS: Final = 256

Encoder = Callable[[Any], bytes]
"""One value as an entry of the request's raw contents; raises one of `_UNLIKE` for what the general way must decide."""

_UNLIKE: Final = (TypeError, ValueError, OverflowError, struct.error)
_INTEGERS: Final = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
}
# The whole numbers that a float column takes: these are exact in it.
_FLOATS: Final = {"FP32": ("f", 2**24), "FP64": ("d", 2**53)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the requests of one form have in common.

    Attributes:
        declared: the model's description that it was learned with.
        before: the bytes before the id.
        after: the bytes between parameters and raw contents; those of an array include the head of its contents.
        columns: each column's name and encoder; empty for an array.
    """

    declared: ModelMetadata
    before: bytes
    after: bytes
    columns: tuple[tuple[str, Encoder], ...] = ()


class Plans:
    """The plans of one client's requests. Threads may share it: it changes by single operations only."""

    def __init__(self) -> None:
        self._plans: dict[Any, Plan] = {}

    def payload(
        self, options: RequestOptions, rows: Rows, declared: Mapping[tuple[str, str], ModelMetadata]
    ) -> bytes | None:
        """The serialized request, if there is a plan for it."""
        try:
            plan = self._plans.get(_form(options, rows))
        except TypeError:  # an option that no form can have
            return None
        if plan is None or declared.get((options.model, options.version)) is not plan.declared:
            return None
        try:
            own = b"" if options.is_plain else parameters(options)
        except PenstockClientError:
            return None
        if not plan.columns:
            return b"".join((plan.before, own, plan.after, rows.tobytes()))  # type: ignore[union-attr]
        parts = [plan.before, own, plan.after]
        try:
            for name, encoder in plan.columns:
                parts.append(encoder(rows[name]))  # type: ignore[index,call-overload]
        except _UNLIKE:
            return None
        return b"".join(parts)

    def learn(self, options: RequestOptions, rows: Rows, layout: Layout, declared: ModelMetadata) -> None:
        """Makes a plan from a request that went the general way, if its form allows."""
        if layout.is_guessed:
            return
        try:
            form = _form(options, rows)
            is_known = form in self._plans and self._plans[form].declared is declared
        except TypeError:
            return
        plan = None if is_known else _plan(options, rows, layout, declared)
        if plan is not None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans = {}
            self._plans[form] = plan


def _form(options: RequestOptions, rows: Rows) -> tuple[object, ...]:
    """What requests of one plan have in common; raises `TypeError` where there is no plan."""
    outputs = options.outputs
    if outputs is not None:
        if type(outputs) not in (list, tuple):
            raise TypeError
        outputs = tuple(outputs)
    if type(rows) is dict:
        return options.model, options.version, options.extra, options.explain, outputs, tuple(rows)
    if type(rows) is np.ndarray:
        return options.model, options.version, options.extra, options.explain, outputs, rows.shape, rows.dtype
    raise TypeError


def _plan(options: RequestOptions, rows: Rows, layout: Layout, declared: ModelMetadata) -> Plan | None:
    tensors = layout.tensors
    head = inputs_and_outputs(options, tensors)
    if isinstance(rows, np.ndarray):
        # An array of the tensor's own type is sent as it is, whatever it holds.
        (tensor, *others) = tensors
        is_sent_as_it_is = tensor.values.dtype == rows.dtype and rows.dtype.isnative and tensor.datatype != BF16
        if others or rows.dtype.kind not in "biuf" or not is_sent_as_it_is:
            return None
        return Plan(declared, names(options), head + delimited(RAW_CONTENTS, tensor.values.nbytes))
    if not isinstance(rows, dict) or not all(type(name) is str for name in rows):
        return None
    if not tensors or not all(tensor.values.shape in ((1,), (1, 1)) for tensor in tensors):
        return None
    specs = columns_of(rows, declared.inputs)
    if [spec.name for spec in specs] != [tensor.name for tensor in tensors]:
        return None
    columns = tuple(
        (spec.name, encoder) for spec in specs if spec.is_column and (encoder := _encoder(spec)) is not None
    )
    return Plan(declared, names(options), head, columns) if len(columns) == len(specs) else None


def _encoder(spec: TensorSpec) -> Encoder | None:
    """How one value of a column is written; None if only the general way knows."""
    if spec.datatype == "BYTES":
        return _text_encoder(spec.missing)
    if spec.datatype in _FLOATS:
        return _float_encoder(*_FLOATS[spec.datatype])
    if spec.datatype in _INTEGERS:
        return _integer_encoder(_INTEGERS[spec.datatype])
    return None


def _float_encoder(kind: str, exact: int) -> Encoder:
    layout = struct.Struct(f"<BB{kind}")
    pack, size = layout.pack, layout.size - 2

    def encode(value: Any) -> bytes:
        # A float that is too large raises OverflowError here. numpy's float64 is one of Python's.
        if isinstance(value, float):
            return pack(RAW_CONTENTS, size, value)
        if value is None:
            return pack(RAW_CONTENTS, size, math.nan)
        if type(value) is int and -exact <= value <= exact:
            return pack(RAW_CONTENTS, size, value)
        raise TypeError

    return encode


def _integer_encoder(kind: str) -> Encoder:
    layout = struct.Struct(f"<BB{kind}")
    pack, size = layout.pack, layout.size - 2

    def encode(value: Any) -> bytes:
        if type(value) is int:
            return pack(RAW_CONTENTS, size, value)
        raise TypeError

    return encode


def _text_encoder(missing: str | None) -> Encoder:
    absent = None if missing is None else _text_entry(missing.encode())

    def encode(value: Any) -> bytes:
        if type(value) is str:
            return _text_entry(value.encode())
        if value is None and absent is not None:
            return absent
        raise TypeError

    return encode


def _text_entry(element: bytes) -> bytes:
    size = len(element)
    if size < 124:
        return _SHORT_TEXT.pack(RAW_CONTENTS, size + 4, size) + element
    return delimited(RAW_CONTENTS, size + 4) + size.to_bytes(4, "little") + element


_SHORT_TEXT: Final = struct.Struct("<BBI")
