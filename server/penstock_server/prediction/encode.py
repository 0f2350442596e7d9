"""Encodes a batch's outputs into each request's reply.

Everything in a reply but the id, the timing and the raw outputs is the same for all requests of a version with the same
number of rows, so this prefix is encoded once and cached. Protobuf fields may come in any order and encoded messages
may be joined, so a reply is a few joins of bytes.

Source: Protocol Buffers, "Encoding"; field numbers of `ModelInferResponse`.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from penstock.inference_pb2 import InferParameter, ModelInferResponse
from penstock.names import (
    PARAMETER_BATCH_ROWS,
    PARAMETER_COMPUTE_US,
    PARAMETER_QUEUE_US,
    PARAMETER_ROLE,
    Role,
    VersionKey,
)
from penstock.tensors import BF16, to_raw
from penstock.wire import varint
from penstock_server.models.signature import TensorInfo
from penstock_server.prediction.classification import DATATYPE, TopClasses, output_of

_ID: Final = b"\x1a"  # field 3
_PARAMETER: Final = b"\x22"  # field 4
_RAW_OUTPUT: Final = b"\x32"  # field 6
LAYOUT_BYTES: Final = 1 << 20
"""What one version's layouts may take. A caller decides by its numbers of rows how many there are, so there is a bound; a
layout is made in 20 us."""
_LAYOUT_COST: Final = 512
"""The bytes that a layout takes besides its prefix, with its tuples and its entry."""
_HEAD_COST: Final = 100
_KEPT_VALUES: Final = 4096

Choice = tuple[int | TopClasses, ...] | None
"""The positions of the outputs that a request names, or their largest values; None for all outputs as they are."""


class _Layout(NamedTuple):
    """What replies with the same number of rows and the same outputs share.

    Attributes:
        prefix: everything but the id, the timing and the raw outputs.
        outputs: for each output its position, the bytes of its rows (-1 where they vary, as for strings), the head of its
            entry in `raw_output_contents`, and what of it is asked for.
    """

    prefix: bytes
    outputs: tuple[tuple[int, int, bytes, int | TopClasses], ...]


class ReplyEncoder:
    """Encodes the replies of one version in one role.

    Attributes:
        specs: the version's outputs.
        narrowed: the positions of those that are BF16.
        shapes: how often the shapes of its outputs have changed; layouts hold for one of these times.
    """

    def __init__(self, key: VersionKey, role: Role | None, outputs: Sequence[TensorInfo]) -> None:
        self.specs = outputs
        self.narrowed = [at for at, spec in enumerate(outputs) if spec.datatype == BF16]
        self.shapes = 0
        self._base = ModelInferResponse(model_name=key[0], model_version=key[1])
        if role is not None:
            self._base.parameters[PARAMETER_ROLE].CopyFrom(InferParameter(string_param=role))
        self._start_over([])

    def batch(self, arrays: Sequence[NDArray[Any]], rows: int, compute_s: float) -> "BatchReplies":
        """The replies to one batch, from its output arrays, with the rows along their first axes."""
        self.fit(arrays)
        return BatchReplies(self, arrays, COMPUTE_US.encode(int(compute_s * 1e6)) + BATCH_ROWS.encode(rows))

    def fit(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Learns how wide the rows of a batch's outputs are."""
        tails = [array.shape[1:] for array in arrays]
        if tails != self._tails:
            self._start_over(tails)
            self.shapes += 1

    def whole(
        self,
        arrays: Sequence[NDArray[Any]],
        rows: int,
        *,
        compute_s: float,
        id_field: bytes,
        chosen: Choice,
        queue_us: int,
    ) -> bytes:
        """The reply to a request that ran alone, with outputs of any shape."""
        reply = self._described(tuple(array.shape for array in arrays), chosen)
        reply.raw_output_contents.extend(raw_of(arrays, place, self.specs) for place in _places(arrays, chosen))
        timing = COMPUTE_US.encode(int(compute_s * 1e6)) + BATCH_ROWS.encode(rows) + QUEUE_US.encode(queue_us)
        encoded: bytes = reply.SerializeToString()
        return b"".join((encoded, id_field, timing))

    def joined(
        self,
        shapes: Sequence[tuple[int, ...]],
        raws: Sequence[Sequence[bytes]],
        rows: int,
        *,
        compute_s: float,
        id_field: bytes,
        chosen: Choice,
        queue_us: int,
    ) -> bytes:
        """The reply to a request that ran in slices: the shape of every output, and the parts of each one chosen."""
        timing = COMPUTE_US.encode(int(compute_s * 1e6)) + BATCH_ROWS.encode(rows) + QUEUE_US.encode(queue_us)
        parts = [self._described(shapes, chosen).SerializeToString(), id_field, timing]
        for slices in raws:
            parts += (_RAW_OUTPUT, varint(sum(map(len, slices))), *slices)
        return b"".join(parts)

    def layout(self, rows: int, chosen: Choice, arrays: Sequence[NDArray[Any]]) -> _Layout:
        """The layout of replies of this many rows and these outputs."""
        known = self._layouts.get((rows, chosen))
        if known is None:
            shapes = [(rows, *tail) for tail in self._tails]
            outputs = []
            for place in _places(arrays, chosen):
                size = -1
                if isinstance(place, int) and arrays[place].dtype.kind not in "OUS":
                    size = prod(shapes[place]) * (2 if self.specs[place].datatype == BF16 else arrays[place].itemsize)
                head = _RAW_OUTPUT + varint(size) if size >= 0 else b""
                outputs.append((output_of(place), size, head, place))
            known = _Layout(self._described(shapes, chosen).SerializeToString(), tuple(outputs))
            self._remember((rows, chosen), known)
        return known

    def _remember(self, key: tuple[int, Choice], layout: _Layout) -> None:
        heads = sum(len(head) + _HEAD_COST for _, _, head, _ in layout.outputs)
        self._layout_bytes += _LAYOUT_COST + len(layout.prefix) + heads
        if self._layout_bytes > LAYOUT_BYTES:
            self._start_over(self._tails)
        else:
            self._layouts[key] = layout

    def _start_over(self, tails: list[tuple[int, ...]]) -> None:
        """Without layouts, for outputs whose rows have these shapes."""
        self._tails = tails
        self._layouts: dict[tuple[int, Choice], _Layout] = {}
        self._layout_bytes = 0

    def _described(self, shapes: Sequence[tuple[int, ...]], chosen: Choice) -> ModelInferResponse:
        reply = ModelInferResponse()
        reply.CopyFrom(self._base)
        for place in _places(shapes, chosen):
            at = output_of(place)
            spec, shape, datatype = self.specs[at], shapes[at], self.specs[at].datatype
            if isinstance(place, TopClasses):
                shape, datatype = place.shape(shape), DATATYPE
            added = reply.outputs.add(name=spec.name, datatype=datatype, shape=shape)
            for name, text in spec.parameters:
                added.parameters[name].string_param = text
        return reply


class BatchReplies:
    """One batch's outputs in raw form, cut into replies with one copy per reply.

    Numbers are put in raw form once for the batch; strings have no fixed size and are encoded for each request.
    """

    __slots__ = ("_arrays", "_encoder", "_raws", "_timing")

    def __init__(self, encoder: ReplyEncoder, arrays: Sequence[NDArray[Any]], timing: bytes) -> None:
        self._encoder = encoder
        self._arrays = arrays
        self._timing = timing
        self._raws = [b"" if array.dtype.kind in "OUS" else array.tobytes() for array in arrays]
        for at in encoder.narrowed:
            self._raws[at] = to_raw(arrays[at], BF16)

    def reply(self, start: int, rows: int, id_field: bytes, chosen: Choice, queue_us: int) -> bytes:
        """The encoded reply to the request whose rows begin at `start`."""
        layout = self._encoder.layout(rows, chosen, self._arrays)
        parts = [layout.prefix, id_field, self._timing, QUEUE_US.encode(queue_us)]
        for at, size, head, place in layout.outputs:
            if size >= 0:
                # Every row has the same size, so the request's first row begins where `start` rows end.
                begin = start * size // rows if rows else 0
                parts += (head, self._raws[at][begin : begin + size])
            else:
                raw = raw_of({at: self._arrays[at][start : start + rows]}, place, self._encoder.specs)
                parts += (_RAW_OUTPUT, varint(len(raw)), raw)
        return b"".join(parts)


def raw_of(
    arrays: Sequence[NDArray[Any]] | Mapping[int, NDArray[Any]], place: int | TopClasses, specs: Sequence[TensorInfo]
) -> bytes:
    """What a request asks for of one output, in raw form."""
    if isinstance(place, int):
        return to_raw(arrays[place], specs[place].datatype)
    return to_raw(place.texts(arrays[place.output], specs[place.output].labels))


def _places(outputs: Sequence[object], chosen: Choice) -> Sequence[int | TopClasses]:
    return range(len(outputs)) if chosen is None else chosen


def encoded_id(request_id: str) -> bytes:
    """The reply's encoded id field; empty when the request had no id."""
    if not request_id:
        return b""
    text = request_id.encode()
    return _ID + varint(len(text)) + text


def id_of(id_field: bytes) -> bytes:
    """The id in UTF-8 that `encoded_id` has encoded; empty for none."""
    at = 1
    while at < len(id_field) and id_field[at] & 0x80:
        at += 1
    return id_field[at + 1 :]


class IntegerParameter:
    """Encodes one integer parameter of a reply: all but the number is constant, and small numbers are cached."""

    def __init__(self, name: str) -> None:
        text = name.encode()
        self._key = b"\x0a" + varint(len(text)) + text + b"\x12"
        self._known: dict[int, bytes] = {}

    def encode(self, value: int) -> bytes:
        """The map entry for a value of 0 or more."""
        known = self._known.get(value)
        if known is not None:
            return known
        number = b"\x10" + varint(value)
        entry = self._key + varint(len(number)) + number
        encoded = _PARAMETER + varint(len(entry)) + entry
        if value < _KEPT_VALUES:
            self._known[value] = encoded
        return encoded


QUEUE_US: Final = IntegerParameter(PARAMETER_QUEUE_US)
COMPUTE_US: Final = IntegerParameter(PARAMETER_COMPUTE_US)
BATCH_ROWS: Final = IntegerParameter(PARAMETER_BATCH_ROWS)
