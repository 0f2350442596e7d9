"""Decodes a request's tensors into blocks of rows, and checks them against what the version takes.

Most bad input is refused here: each error names the tensor, what was expected and what came. Raw contents of the right
type pass through unchanged.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from penstock.inference_pb2 import ModelInferRequest
from penstock.names import MATRIX_INPUT
from penstock.tensors import NUMPY_TYPES, typed_to_raw
from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline, count_elements
from penstock_server.models.servable import OnnxServable
from penstock_server.models.signature import ANY, Signature, TensorInfo

_FLOAT64: Final = np.dtype("<f8")
_SHARED_MEMORY: Final = "shared_memory_region"


class DecodedRows(NamedTuple):
    """A request's input: blocks in the order that the version takes them, and how many rows they hold.

    Attributes:
        shapes: each block's full shape, for a version whose requests run alone; None for a batched one.
    """

    blocks: tuple[bytes, ...]
    rows: int
    shapes: tuple[tuple[int, ...], ...] | None = None


class Block(NamedTuple):
    """What one block of a version's rows holds.

    Attributes:
        names: the inputs side by side in each row; one for most.
        datatype: the protocol's name of their type.
        row_shape: a row's dimensions, -1 for any size.
        is_whole: the block is one tensor of any shape, since the version's requests run alone.
    """

    names: tuple[str, ...]
    datatype: str
    row_shape: tuple[int, ...] = ()
    is_whole: bool = False


def block_of(spec: TensorInfo, *, is_batched: bool) -> Block:
    """The block that carries this tensor."""
    return Block((spec.name,), spec.datatype, spec.shape[1:], not is_batched)


class Decoder(Protocol):
    """Reads requests for one version.

    Attributes:
        inputs: what it takes, as metadata shows it.
        blocks: the blocks that it decodes a request into.
    """

    inputs: tuple[TensorInfo, ...]
    blocks: tuple[Block, ...]

    def decode(self, request: ModelInferRequest) -> DecodedRows:
        """The request's rows; `InvalidInputError` when they are not what the version takes."""

    def decode_like(self, request: ModelInferRequest, rows: int, raw: bytes) -> DecodedRows | None:
        """The rows of a request that differs from one decoded before only in the raw contents of its one tensor.

        The contents are as long as that request's, so shape and size need no second check. None when contents decide
        more than values, as strings do with their lengths: then the request must be decoded in full.
        """


def decoder_of(servable: OnnxServable) -> Decoder:
    """The decoder for a version: columns for a feature pipeline, else the graph's own inputs."""
    if servable.pipeline is not None:
        return ColumnDecoder(servable.pipeline)
    return TensorDecoder(servable.model.signature)


def block_order(shadow: Decoder, champion: Decoder) -> tuple[int, ...] | None:
    """For each block of the shadow, the index of the champion's block with the same content; None if any has none."""
    places = {block[:3]: at for at, block in enumerate(champion.blocks)}
    order = tuple(places.get(block[:3], -1) for block in shadow.blocks)
    return None if -1 in order else order


class TensorDecoder:
    """For a plain graph: its own inputs, by name."""

    def __init__(self, signature: Signature) -> None:
        self.inputs = signature.inputs
        self.blocks = tuple(block_of(spec, is_batched=signature.is_batched) for spec in signature.inputs)
        self._is_batched = signature.is_batched
        self._names = [spec.name for spec in signature.inputs]
        self._is_plain = signature.is_batched and len(self.inputs) == 1 and self.inputs[0].datatype != "BYTES"

    def decode(self, request: ModelInferRequest) -> DecodedRows:
        tensors = request.inputs
        raws = _raw_contents(request)
        if len(tensors) == 1 and len(self.inputs) == 1 and tensors[0].name == self._names[0]:
            spec = self.inputs[0]
            block, shape = _checked(tensors[0], raws[0] if raws else None, spec)
            return (
                DecodedRows((block,), shape[0]) if self._is_batched else DecodedRows((block,), _rows(shape), (shape,))
            )
        found = _by_name(tensors, raws, self._names)
        checked = [_checked(*found[spec.name], spec) for spec in self.inputs]
        blocks, shapes = tuple(block for block, _ in checked), tuple(shape for _, shape in checked)
        if not self._is_batched:
            return DecodedRows(blocks, _rows(shapes[0]), shapes)
        counts = {spec.name: shape[0] for spec, shape in zip(self.inputs, shapes, strict=True)}
        return DecodedRows(blocks, _same_rows(counts))

    def decode_like(self, _request: ModelInferRequest, rows: int, raw: bytes) -> DecodedRows | None:
        return DecodedRows((raw,), rows) if self._is_plain else None


class ColumnDecoder:
    """For a version with features: one tensor per column, or one matrix when all columns are numbers."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._numbers = pipeline.numbers
        self._strings = pipeline.strings
        self.inputs = tuple(
            TensorInfo(name, "BYTES", (ANY, 1), missing="")
            if name in set(self._strings)
            else TensorInfo(name, "FP64", (ANY, 1))
            for name in pipeline.columns
        )
        self.blocks = (Block(pipeline.numbers, "FP64"), *(Block((name,), "BYTES") for name in pipeline.strings))
        self._names = list(pipeline.columns)
        self._required = [at for at, name in enumerate(self._numbers) if name in pipeline.required]

    def decode(self, request: ModelInferRequest) -> DecodedRows:
        raws = _raw_contents(request)
        if not self._strings and len(request.inputs) == 1 and self._is_matrix(request.inputs[0]):
            numbers, rows = self._matrix(request.inputs[0], raws[0] if raws else None)
            return DecodedRows((self._refuse_missing(numbers),), rows)
        found = _by_name(request.inputs, raws, self._names)
        counts = {name: _column_rows(found[name][0]) for name in self._names}
        rows = _same_rows(counts)
        strings = tuple(_string_block(*found[name], rows) for name in self._strings)
        return DecodedRows((self._refuse_missing(self._number_block(found, rows)), *strings), rows)

    def decode_like(self, request: ModelInferRequest, rows: int, raw: bytes) -> DecodedRows | None:
        tensor = request.inputs[0]
        if self._strings or not self._is_matrix(tensor):
            return None
        return DecodedRows((self._refuse_missing(_as_float64(raw, NUMPY_TYPES[tensor.datatype])),), rows)

    def _is_matrix(self, tensor: Any) -> bool:
        return len(self._names) > 1 or (tensor.name == MATRIX_INPUT and tensor.name not in self._names)

    def _matrix(self, tensor: Any, raw: bytes | None) -> tuple[bytes, int]:
        width = len(self._numbers)
        if len(tensor.shape) != 2 or tensor.shape[1] != width or tensor.shape[0] < 0:
            raise InvalidInputError(
                f"tensor {tensor.name!r} has shape {list(tensor.shape)}, expected [rows, {width}], one column each for "
                f"{', '.join(self._numbers)}; or one tensor per column"
            )
        return _float64(tensor, raw), tensor.shape[0]

    def _number_block(self, found: dict[str, tuple[Any, bytes | None]], rows: int) -> bytes:
        columns = [_float64(*found[name]) for name in self._numbers]
        if rows == 1 or len(columns) == 1:
            return b"".join(columns)
        matrix = np.empty((rows, len(columns)), _FLOAT64)
        for at, column in enumerate(columns):
            matrix[:, at] = np.frombuffer(column, _FLOAT64)
        return matrix.tobytes()

    def _refuse_missing(self, numbers: bytes) -> bytes:
        if self._required:
            matrix = np.frombuffer(numbers, _FLOAT64).reshape(-1, len(self._numbers))
            for at in self._required:
                missing = np.isnan(matrix[:, at])
                if missing.any():
                    raise InvalidInputError(
                        f"column {self._numbers[at]!r} is NaN in row {int(missing.argmax())}, and this version was "
                        "published without a value to fill it with"
                    )
        return numbers


def _raw_contents(request: ModelInferRequest) -> Sequence[bytes]:
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise InvalidInputError(
            f"raw_input_contents has {len(raws)} entries for {len(request.inputs)} inputs, expected one for each"
        )
    return raws


def _by_name(
    tensors: Sequence[Any], raws: Sequence[bytes], names: Sequence[str]
) -> dict[str, tuple[Any, bytes | None]]:
    found: dict[str, tuple[Any, bytes | None]] = {}
    for at, tensor in enumerate(tensors):
        if tensor.name in found:
            raise InvalidInputError(f"input {tensor.name!r} is given twice")
        found[tensor.name] = (tensor, raws[at] if raws else None)
    if found.keys() != set(names):
        missing = ", ".join(repr(name) for name in names if name not in found)
        extra = ", ".join(repr(name) for name in found if name not in set(names))
        raise InvalidInputError(
            "; ".join([f"missing input {missing}"] * bool(missing) + [f"unknown input {extra}"] * bool(extra))
            + f"; expected {_shown(names)}"
        )
    return found


def _shown(names: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in names[:20])
    return listed if len(names) <= 20 else f"{listed} and {len(names) - 20} more"


def _checked(tensor: Any, raw: bytes | None, spec: TensorInfo) -> tuple[bytes, tuple[int, ...]]:
    """A plain graph's input: its raw contents, whose size fills the shape, and the shape."""
    if tensor.datatype != spec.datatype:
        raise InvalidInputError(f"input {tensor.name!r} has datatype {tensor.datatype!r}, expected {spec.datatype}")
    shape = tuple(tensor.shape)
    if not spec.fits(shape):
        raise InvalidInputError(
            f"input {tensor.name!r} has shape {list(shape)}, expected {list(spec.shape)} (-1 is any size)"
        )
    return _raw(tensor, raw, prod(shape)), shape


def _raw(tensor: Any, raw: bytes | None, elements: int) -> bytes:
    """The tensor's raw contents, checked to hold exactly this many elements."""
    if _SHARED_MEMORY in tensor.parameters:
        raise InvalidInputError(f"input {tensor.name!r} is in shared memory, which is not supported; send its contents")
    if raw is None:
        try:
            return typed_to_raw(tensor)
        except ValueError as error:
            raise InvalidInputError(f"input {tensor.name!r}: {error}") from None
    if tensor.HasField("contents"):
        raise InvalidInputError(
            f"input {tensor.name!r} has contents although raw_input_contents is used; expected one or the other"
        )
    if tensor.datatype == "BYTES":
        if (count := count_elements(raw)) != elements:
            came = "a torn element" if count < 0 else f"{count}"
            raise InvalidInputError(
                f"input {tensor.name!r} takes {elements} BYTES elements, each a 4-byte length and its bytes; got {came}"
            )
    elif len(raw) != elements * NUMPY_TYPES[tensor.datatype].itemsize:
        expected = elements * NUMPY_TYPES[tensor.datatype].itemsize
        raise InvalidInputError(
            f"input {tensor.name!r} of shape {list(tensor.shape)} and datatype {tensor.datatype} takes {expected} bytes, "
            f"got {len(raw)}"
        )
    return raw


def _column_rows(tensor: Any) -> int:
    shape = tensor.shape
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        rows: int = shape[0]
        if rows >= 0:
            return rows
    raise InvalidInputError(f"column {tensor.name!r} has shape {list(shape)}, expected [rows] or [rows, 1]")


def _same_rows(counts: dict[str, int]) -> int:
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name!r} has {rows}" for name, rows in list(counts.items())[:20])
        raise InvalidInputError(f"inputs differ in their rows, expected the same number in each: {listed}")
    return next(iter(counts.values()))


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


def _float64(tensor: Any, raw: bytes | None) -> bytes:
    """A tensor of any numeric datatype as raw float64."""
    dtype = NUMPY_TYPES.get(tensor.datatype)
    if dtype is None:
        raise InvalidInputError(
            f"column {tensor.name!r} has datatype {tensor.datatype!r}, expected a number ({', '.join(NUMPY_TYPES)})"
        )
    block = _raw(tensor, raw, prod(tensor.shape))
    return _as_float64(block, dtype)


def _as_float64(block: bytes, dtype: np.dtype[Any]) -> bytes:
    return block if dtype == _FLOAT64 else np.frombuffer(block, dtype).astype(_FLOAT64).tobytes()


def _string_block(tensor: Any, raw: bytes | None, rows: int) -> bytes:
    if tensor.datatype != "BYTES":
        raise InvalidInputError(f"column {tensor.name!r} has datatype {tensor.datatype!r}, expected BYTES")
    return _raw(tensor, raw, rows)
