"""Decodes a request's tensors into blocks of rows, and checks them against what the version takes.

Most bad input is refused here: each error names the tensor, what was expected and what came. Raw contents of the right
type pass through unchanged.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import chain
from math import prod
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from msgspec import UnsetType
from numpy.typing import NDArray

from penstock.inference_pb2 import ModelInferRequest
from penstock.names import MATRIX_INPUT, PARAMETER_EXTRA_COLUMNS
from penstock.tensors import (
    BF16,
    DATATYPES,
    NUMPY_TYPES,
    element_bytes,
    join_bytes,
    split_bytes,
    typed_to_raw,
    widened,
)
from penstock_server.errors import InvalidInputError
from penstock_server.features.compiler import layout
from penstock_server.features.pipeline import Pipeline, count_elements
from penstock_server.features.spec.spec import Column, StringColumn, TimeColumn
from penstock_server.models.servable import Servable
from penstock_server.models.signature import ANY, GivenTensor, Signature, TensorInfo
from penstock_server.plain import layout as layout_of_plain
from penstock_server.plain.requests import RawColumn

_FLOAT64: Final = np.dtype("<f8")
MAX_EMPTY: Final = 1 << 20
"""What the other free dimensions of an empty tensor may come to: a graph may make a tensor of them that is not empty."""
_CONVERTED: Final = ("BYTES", BF16)
"""The datatypes of which a request's raw contents are not a block as they are, or not of a size that the shape tells."""
_SHARED_MEMORY: Final = "shared_memory_region"


class DecodedRows(NamedTuple):
    """A request's input: blocks in the order that the version takes them, and how many rows they hold.

    Attributes:
        shapes: each block's full shape, for a plain graph whose requests run alone; None for any other version.
        given: what it gives in place of the defaults of inputs; such a request runs alone.
    """

    blocks: tuple[bytes, ...]
    rows: int
    shapes: tuple[tuple[int, ...], ...] | None = None
    given: tuple[GivenTensor, ...] = ()


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
    if spec.columns:
        return Block(spec.columns, spec.datatype, (), not is_batched)
    return Block((spec.name,), spec.datatype, spec.shape[1:], not is_batched)


class Decoder(Protocol):
    """Reads requests for one version.

    Attributes:
        inputs: what it takes, as metadata shows it.
        blocks: the blocks that it decodes a request into.
        columns: the names that callers may send numbers under, column by column and of any type of number; empty where
            there are none.
        matrix: the one tensor that the version's graph takes, where it gets the rows as callers send them; else None.
    """

    inputs: tuple[TensorInfo, ...]
    blocks: tuple[Block, ...]
    columns: tuple[str, ...]
    matrix: TensorInfo | None

    def decode(self, request: ModelInferRequest) -> DecodedRows:
        """The request's rows; `InvalidInputError` when they are not what the version takes."""

    def plain_columns(self, request: ModelInferRequest) -> Sequence[RawColumn] | None:
        """What is done with each raw tensor of requests of this form; None if kernels cannot do it."""

    def plain_row_bytes(self) -> list[int]:
        """The bytes that a row takes in each block; 0 for texts."""
        ...

    def decode_like(self, request: ModelInferRequest, rows: int, raw: bytes) -> DecodedRows | None:
        """The rows of a request that differs from one decoded before only in the raw contents of its one tensor.

        The contents are as long as that request's, so shape and size need no second check. None when contents decide
        more than values, as strings do with their lengths: then the request must be decoded in full.
        """


def decoder_of(servable: Servable) -> Decoder:
    """The decoder for a version: columns for a feature pipeline, else the graph's own inputs."""
    signature = servable.model.signature
    decoder: Decoder
    if servable.pipeline is not None:
        is_matrix = servable.pipeline.spec.is_identity and len(signature.inputs) == 1
        matrix = signature.inputs[0] if is_matrix else None
        decoder = ColumnDecoder(servable.pipeline, is_batched=servable.is_batched, matrix=matrix)
    else:
        inputs = named_inputs(signature, servable.artifact.columns)
        decoder = TensorDecoder(replace(signature, inputs=inputs, is_batched=servable.is_batched))
    # A column keeps its name where a graph behind features has given it to something else.
    taken = {*decoder.columns, *(spec.name for spec in decoder.inputs)}
    optional = tuple(spec for spec in signature.optional if spec.name not in taken)
    return DefaultsDecoder(decoder, optional) if optional else decoder


def named_inputs(signature: Signature, columns: tuple[str, ...]) -> tuple[TensorInfo, ...]:
    """The inputs, of which one matrix that is the only one gets its columns' names, if there are as many."""
    inputs = signature.inputs
    if len(inputs) == 1 and inputs[0].shape[1:] == (len(columns),) and columns:
        return (replace(inputs[0], columns=columns),)
    return inputs


class TensorDecoder:
    """For a plain graph: its own inputs, by name, or one tensor per column where the columns of its one matrix have names."""

    def __init__(self, signature: Signature) -> None:
        self.inputs = signature.inputs
        self._is_batched = signature.is_batched
        self._names = [spec.name for spec in signature.inputs]
        self.columns = self.inputs[0].columns
        self.matrix = replace(self.inputs[0], columns=()) if len(self.inputs) == 1 else None
        self.blocks = tuple(block_of(spec, is_batched=signature.is_batched) for spec in signature.inputs)
        self._is_plain = signature.is_batched and len(self.inputs) == 1 and self.inputs[0].datatype not in _CONVERTED

    def decode(self, request: ModelInferRequest) -> DecodedRows:
        tensors = request.inputs
        raws = _raw_contents(request)
        if len(tensors) == 1 and len(self.inputs) == 1 and tensors[0].name == self._names[0]:
            spec = self.inputs[0]
            if not self.columns or len(tensors[0].shape) != 1:
                block, shape = _checked(tensors[0], raws[0] if raws else None, spec)
                return self._decoded((block,), (shape,))
        if self.columns:
            return self._matrix(request, raws)
        found = _by_name(request, raws, self._names)
        checked = [_checked(*found[spec.name], spec) for spec in self.inputs]
        blocks, shapes = tuple(block for block, _ in checked), tuple(shape for _, shape in checked)
        if self._is_batched:
            _same_rows({spec.name: shape[0] for spec, shape in zip(self.inputs, shapes, strict=True)})
        return self._decoded(blocks, shapes)

    def plain_row_bytes(self) -> list[int]:
        return [_row_bytes(block) for block in self.blocks]

    def plain_columns(self, request: ModelInferRequest) -> Sequence[RawColumn] | None:
        tensors = request.inputs
        if not self._is_batched or len(request.raw_input_contents) != len(tensors):
            return None
        names = [tensor.name for tensor in tensors]
        if sorted(names) == sorted(self._names):
            found = [_whole(self._names.index(tensor.name), tensor, self.inputs) for tensor in tensors]
            return None if any(column is None for column in found) else [column for column in found if column]
        datatype = self.inputs[0].datatype
        if not self.columns or sorted(names) != sorted(self.columns) or datatype not in _MATRIX_KINDS:
            return None
        if any(tensor.datatype != datatype for tensor in tensors):
            return None
        kind, size = _MATRIX_KINDS[datatype]
        return [RawColumn(kind, 0, size * self.columns.index(name), size) for name in names]

    def decode_like(self, request: ModelInferRequest, rows: int, raw: bytes) -> DecodedRows | None:
        # A column may have come as another type of number than the matrix has.
        is_same = self._is_plain and (not self.columns or request.inputs[0].datatype == self.inputs[0].datatype)
        return DecodedRows((raw,), rows) if is_same else None

    def _decoded(self, blocks: tuple[bytes, ...], shapes: tuple[tuple[int, ...], ...]) -> DecodedRows:
        rows = shapes[0][0] if shapes[0] else 1
        return DecodedRows(blocks, rows) if self._is_batched else DecodedRows(blocks, rows, shapes)

    def _matrix(self, request: ModelInferRequest, raws: Sequence[bytes]) -> DecodedRows:
        """The one matrix from a tensor per column."""
        (spec,) = self.inputs
        found = _by_name(request, raws, self.columns)
        rows = _same_rows({name: _column_rows(found[name][0]) for name in self.columns})
        shape = (rows, len(self.columns))
        if not spec.fits(shape):
            raise InvalidInputError(f"the columns have {rows} rows, expected {spec.shape[0]}")
        if spec.datatype == "BYTES":
            texts = [split_bytes(_string_block(*found[name], rows, count=_count_texts), rows) for name in self.columns]
            return self._decoded((join_bytes(chain.from_iterable(zip(*texts, strict=True))),), (shape,))
        matrix = np.empty(shape, NUMPY_TYPES[spec.datatype])
        with np.errstate(invalid="ignore", over="ignore"):
            for at, name in enumerate(self.columns):
                matrix[:, at] = _as_type(*found[name], matrix.dtype)
        return self._decoded((matrix.tobytes(),), (shape,))


class ColumnDecoder:
    """For a version with features: one tensor per column, or one matrix when all columns are numbers.

    Args:
        pipeline: the features.
        is_batched: the version's requests run together.
        matrix: as its attribute.
    """

    def __init__(self, pipeline: Pipeline, *, is_batched: bool = True, matrix: TensorInfo | None = None) -> None:
        self.pipeline = pipeline
        self.columns = pipeline.numbers
        self.matrix = matrix
        self._numbers = pipeline.numbers
        self._times = pipeline.times
        self._strings = pipeline.strings
        self.inputs = tuple(_column_info(column) for column in pipeline.spec.columns)
        is_whole = not is_batched
        self.blocks = (
            Block(pipeline.numbers, "FP64", is_whole=is_whole),
            *(Block((name,), "INT64", is_whole=is_whole) for name in pipeline.times),
            *(Block((name,), "BYTES", is_whole=is_whole) for name in pipeline.strings),
        )
        self._others = (*pipeline.times, *pipeline.strings)
        self._names = list(pipeline.columns)
        ignored = pipeline.spec.ignored
        self._ignored = frozenset[str]() if isinstance(ignored, UnsetType) else frozenset(ignored)
        self._required = [at for at, name in enumerate(self._numbers) if name in pipeline.required]

    def decode(self, request: ModelInferRequest) -> DecodedRows:
        raws = _raw_contents(request)
        if not self._others and len(request.inputs) == 1 and self._is_matrix(request.inputs[0]):
            numbers, rows = self._matrix(request.inputs[0], raws[0] if raws else None)
            return DecodedRows((self._refuse_missing(numbers),), rows)
        found = _by_name(request, raws, self._names, self._ignored)
        counts = {name: _column_rows(found[name][0]) for name in self._names}
        rows = _same_rows(counts)
        times = (self._time_block(*found[name], rows) for name in self._times)
        strings = (_string_block(*found[name], rows) for name in self._strings)
        return DecodedRows((self._refuse_missing(self._number_block(found, rows)), *times, *strings), rows)

    def plain_row_bytes(self) -> list[int]:
        return [8 * len(self._numbers), *[8] * len(self._times), *[0] * len(self._strings)]

    def plain_columns(self, request: ModelInferRequest) -> Sequence[RawColumn] | None:
        tensors = request.inputs
        if len(request.raw_input_contents) != len(tensors):
            return None
        if not self._others and len(tensors) == 1 and self._is_matrix(tensors[0]):
            if tensors[0].datatype not in _WHOLE_KINDS or self._required:
                return None
            kind, size = _WHOLE_KINDS[tensors[0].datatype]
            return [RawColumn(kind, 0, 0, size * len(self._numbers))]
        if sorted(tensor.name for tensor in tensors) != sorted(self._names):
            return None
        found = [self._plain_column(tensor) for tensor in tensors]
        return None if any(column is None for column in found) else [column for column in found if column]

    def _plain_column(self, tensor: Any) -> RawColumn | None:
        name, datatype = tensor.name, tensor.datatype
        is_required = name in self.pipeline.required
        if name in self._times:
            return RawColumn(layout_of_plain.ROWS, 1 + self._times.index(name), 0, 8, is_required)
        if name in self._strings:
            return RawColumn(layout_of_plain.TEXTS, 1 + len(self._times) + self._strings.index(name))
        if datatype not in _NUMBER_KINDS:
            return None
        kind, size = _NUMBER_KINDS[datatype]
        return RawColumn(kind, 0, 8 * self._numbers.index(name), size, is_required)

    def decode_like(self, request: ModelInferRequest, rows: int, raw: bytes) -> DecodedRows | None:
        tensor = request.inputs[0]
        if self._others or not self._is_matrix(tensor):
            return None
        return DecodedRows((self._refuse_missing(_as_float64(raw, NUMPY_TYPES[tensor.datatype])),), rows)

    def _is_matrix(self, tensor: Any) -> bool:
        return len(self._names) > 1 or (tensor.name == MATRIX_INPUT and tensor.name not in self._names)

    def _matrix(self, tensor: Any, raw: bytes | None) -> tuple[bytes, int]:
        width = len(self._numbers)
        if len(tensor.shape) != 2 or tensor.shape[1] != width or tensor.shape[0] < 0:
            raise InvalidInputError(
                f"tensor {tensor.name!r} has shape {_dimensions(tensor.shape)}, expected [rows, {width}], one column each for "
                f"{', '.join(self._numbers[:20])}{_more(self._numbers)}; or one tensor per column"
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

    def _time_block(self, tensor: Any, raw: bytes | None, rows: int) -> bytes:
        if tensor.datatype != "INT64":
            raise InvalidInputError(
                f"column {tensor.name!r} has datatype {_quoted(tensor.datatype)}, expected INT64: nanoseconds since "
                "1970-01-01 in UTC"
            )
        block = _raw(tensor, raw, rows)
        if tensor.name in self.pipeline.required:
            is_missing = np.frombuffer(block, np.int64) == layout.MISSING_TIME
            if is_missing.any():
                raise self._missing(tensor.name, int(is_missing.argmax()))
        return block

    def _missing(self, name: str, row: int) -> InvalidInputError:
        value = "missing" if name in self._times else "NaN"
        return InvalidInputError(
            f"column {name!r} is {value} in row {row}, and this version was published without a value to fill it with"
        )

    def _refuse_missing(self, numbers: bytes) -> bytes:
        if self._required:
            matrix = np.frombuffer(numbers, _FLOAT64).reshape(-1, len(self._numbers))
            for at in self._required:
                missing = np.isnan(matrix[:, at])
                if missing.any():
                    raise self._missing(self._numbers[at], int(missing.argmax()))
        return numbers


class DefaultsDecoder:
    """For a version with inputs that have defaults: takes out of a request what it gives in place of them.

    Args:
        rows: decodes the rest, which is the rows.
        optional: the inputs that have defaults.
    """

    def __init__(self, rows: Decoder, optional: tuple[TensorInfo, ...]) -> None:
        self._rows = rows
        self._optional = {spec.name: spec for spec in optional}
        self.inputs = (*rows.inputs, *optional)
        self.blocks = rows.blocks
        self.columns = rows.columns
        self.matrix = rows.matrix

    def decode(self, request: ModelInferRequest) -> DecodedRows:
        places = [at for at, tensor in enumerate(request.inputs) if tensor.name in self._optional]
        if not places:
            return self._rows.decode(request)
        raws = _raw_contents(request)
        given: dict[str, GivenTensor] = {}
        for at in places:
            tensor = request.inputs[at]
            if tensor.name in given:
                raise InvalidInputError(f"input {_quoted(tensor.name)} is given twice")
            checked = _checked(tensor, raws[at] if raws else None, self._optional[tensor.name])
            given[tensor.name] = GivenTensor(tensor.name, *checked)
        rest = ModelInferRequest(
            parameters=request.parameters,
            inputs=[tensor for at, tensor in enumerate(request.inputs) if at not in places],
            raw_input_contents=[raw for at, raw in enumerate(raws) if at not in places],
        )
        return self._rows.decode(rest)._replace(given=tuple(given.values()))

    def plain_row_bytes(self) -> list[int]:
        return self._rows.plain_row_bytes()

    def plain_columns(self, request: ModelInferRequest) -> Sequence[RawColumn] | None:
        is_given = any(tensor.name in self._optional for tensor in request.inputs)
        return None if is_given else self._rows.plain_columns(request)

    def decode_like(self, request: ModelInferRequest, rows: int, raw: bytes) -> DecodedRows | None:
        return None if request.inputs[0].name in self._optional else self._rows.decode_like(request, rows, raw)


_MATRIX_KINDS: Final = {
    "FP32": (layout_of_plain.WORDS32, 4),
    "INT32": (layout_of_plain.WORDS32, 4),
    "FP64": (layout_of_plain.DOUBLES, 8),
    "INT64": (layout_of_plain.DOUBLES, 8),
}
"""How columns of these types go into a matrix of the same."""
_NUMBER_KINDS: Final = {"FP64": (layout_of_plain.DOUBLES, 8), "FP32": (layout_of_plain.SINGLES, 4)}
"""How columns of these types go into a matrix of float64s."""

_WHOLE_KINDS: Final = {"FP64": (layout_of_plain.ROWS, 8), "FP32": (layout_of_plain.SINGLE_ROWS, 4)}
"""How whole matrices of these types go into one of float64s."""


def _row_bytes(block: Block) -> int:
    return (
        0
        if block.datatype == "BYTES"
        else prod(block.row_shape) * len(block.names) * NUMPY_TYPES[block.datatype].itemsize
    )


def _whole(at: int, tensor: Any, inputs: Sequence[TensorInfo]) -> RawColumn | None:
    """A tensor that is a block of its own."""
    spec = inputs[at]
    size = prod(tensor.shape[1:])
    if len(tensor.shape) != len(spec.shape) or ANY in spec.shape[1:]:
        return None  # one column of a matrix, or rows of any size
    if spec.datatype == "BYTES":
        return RawColumn(layout_of_plain.TEXTS, at) if size == 1 else None
    if spec.datatype == BF16:
        return None
    return RawColumn(layout_of_plain.ROWS, at, 0, size * NUMPY_TYPES[spec.datatype].itemsize)


def _column_info(column: Column) -> TensorInfo:
    if isinstance(column, TimeColumn):
        return TensorInfo(column.name, "INT64", (ANY, 1), time="ns")
    if isinstance(column, StringColumn):
        return TensorInfo(column.name, "BYTES", (ANY, 1), missing=None if column.missing == "text" else "")
    return TensorInfo(column.name, "FP64", (ANY, 1))


def _raw_contents(request: ModelInferRequest) -> Sequence[bytes]:
    raws = request.raw_input_contents
    if raws and len(raws) != len(request.inputs):
        raise InvalidInputError(
            f"raw_input_contents has {len(raws)} entries for {len(request.inputs)} inputs, expected one for each"
        )
    return raws


def _by_name(
    request: ModelInferRequest, raws: Sequence[bytes], names: Sequence[str], ignored: Collection[str] = frozenset()
) -> dict[str, tuple[Any, bytes | None]]:
    found: dict[str, tuple[Any, bytes | None]] = {}
    for at, tensor in enumerate(request.inputs):
        if tensor.name in found:
            raise InvalidInputError(f"input {_quoted(tensor.name)} is given twice")
        found[tensor.name] = (tensor, raws[at] if raws else None)
    if found.keys() != set(names):
        missing = [name for name in names if name not in found]
        known = {*names, *ignored}
        extra = [name for name in found if name not in known]
        if missing or (extra and not _ignores_extra(request)):
            raise InvalidInputError(
                "; ".join(
                    [f"missing input {_shown(missing)}"] * bool(missing)
                    + [f"unknown input {_shown(extra)}"] * bool(extra)
                )
                + f"; expected {_shown(names)}"
            )
    return found


def _ignores_extra(request: ModelInferRequest) -> bool:
    if PARAMETER_EXTRA_COLUMNS not in request.parameters:
        return False
    asked: str = request.parameters[PARAMETER_EXTRA_COLUMNS].string_param
    if asked not in {"ignore", "refuse"}:
        raise InvalidInputError(
            f"parameter {PARAMETER_EXTRA_COLUMNS!r} is {_quoted(asked)}, expected 'ignore' or 'refuse'"
        )
    return asked == "ignore"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names[:20])) + _more(names)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 20} more" if len(names) > 20 else ""


def _quoted(text: str) -> str:
    """A caller's text as an error shows it."""
    return repr(text) if len(text) <= 100 else f"{text[:100]!r}..."


def _checked(tensor: Any, raw: bytes | None, spec: TensorInfo) -> tuple[bytes, tuple[int, ...]]:
    """A plain graph's input: its raw contents, whose size fills the shape, and the shape."""
    if tensor.datatype != spec.datatype:
        raise InvalidInputError(
            f"input {tensor.name!r} has datatype {_quoted(tensor.datatype)}, expected {spec.datatype}"
        )
    shape = tuple(tensor.shape)
    if not spec.fits(shape):
        raise InvalidInputError(
            f"input {tensor.name!r} has shape {_dimensions(shape)}, expected {list(spec.shape)} (-1 is any size)"
        )
    elements = prod(shape)
    if (
        not elements
        and prod(size for size, own in zip(shape, spec.shape, strict=True) if own == ANY and size) > MAX_EMPTY
    ):
        raise InvalidInputError(
            f"input {tensor.name!r} of shape {_dimensions(shape)} is empty, "
            f"expected its other free dimensions to come to {MAX_EMPTY:,} at most"
        )
    return _raw(tensor, raw, elements, count=_count_texts), shape


def _dimensions(shape: Sequence[int]) -> str:
    """A caller's shape as an error shows it."""
    return str(list(shape)) if len(shape) <= 8 else f"{list(shape[:8])[:-1]}... of {len(shape):,} dimensions"


def _count_texts(raw: bytes) -> int:
    """As `count_elements`, but without the kernels, which a version without features does not need."""
    count = at = 0
    while at + 4 <= len(raw):
        at += 4 + int.from_bytes(raw[at : at + 4], "little")
        count += 1
    return count if at == len(raw) else -1


def _raw(tensor: Any, raw: bytes | None, elements: int, *, count: Callable[[bytes], int] = count_elements) -> bytes:
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
        if (found := count(raw)) != elements:
            came = "a torn element" if found < 0 else f"{found}"
            raise InvalidInputError(
                f"input {tensor.name!r} takes {elements} BYTES elements, each a 4-byte length and its bytes; got {came}"
            )
    elif len(raw) != (expected := elements * element_bytes(tensor.datatype)):
        raise InvalidInputError(
            f"input {tensor.name!r} of shape {_dimensions(tensor.shape)} and datatype {tensor.datatype} takes {expected} "
            f"bytes, got {len(raw)}"
        )
    elif tensor.datatype == BF16:
        return widened(raw).tobytes()
    return raw


def _column_rows(tensor: Any) -> int:
    shape = tensor.shape
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        rows: int = shape[0]
        if rows >= 0:
            return rows
    raise InvalidInputError(f"column {tensor.name!r} has shape {_dimensions(shape)}, expected [rows] or [rows, 1]")


def _same_rows(counts: dict[str, int]) -> int:
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name!r} has {rows}" for name, rows in list(counts.items())[:20])
        raise InvalidInputError(f"inputs differ in their rows, expected the same number in each: {listed}")
    return next(iter(counts.values()))


def _float64(tensor: Any, raw: bytes | None) -> bytes:
    """A tensor of any numeric datatype as raw float64."""
    dtype = NUMPY_TYPES.get(tensor.datatype)
    if dtype is None:
        raise _no_number(tensor)
    block = _raw(tensor, raw, prod(tensor.shape))
    return _as_float64(block, dtype)


def _no_number(tensor: Any) -> InvalidInputError:
    return InvalidInputError(
        f"column {tensor.name!r} has datatype {_quoted(tensor.datatype)}, expected a number ({', '.join(NUMPY_TYPES)})"
    )


def _as_type(tensor: Any, raw: bytes | None, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A column of numbers as the matrix has them; a number that its type cannot hold is refused, rounding is not."""
    own = NUMPY_TYPES.get(tensor.datatype)
    if own is None:
        raise _no_number(tensor)
    values = np.frombuffer(_raw(tensor, raw, prod(tensor.shape)), own)
    if own == dtype:
        return values
    cast = values.astype(dtype)
    if dtype.kind == "b":
        is_lost = cast != values
    elif dtype.kind == "f":
        is_lost = np.isinf(cast) & np.isfinite(values)
    else:
        # Between signed and unsigned numbers of the same size there and back is the same number again.
        is_lost = (cast.astype(own) != values) | ((cast < 0) != (values < 0))
    if is_lost.any():
        at = int(is_lost.argmax())
        raise InvalidInputError(
            f"column {tensor.name!r} is {values[at]} in row {at}, which {DATATYPES[dtype]} cannot hold"
        )
    return cast


def _as_float64(block: bytes, dtype: np.dtype[Any]) -> bytes:
    return block if dtype == _FLOAT64 else np.frombuffer(block, dtype).astype(_FLOAT64).tobytes()


def _string_block(
    tensor: Any, raw: bytes | None, rows: int, *, count: Callable[[bytes], int] = count_elements
) -> bytes:
    if tensor.datatype != "BYTES":
        raise InvalidInputError(f"column {tensor.name!r} has datatype {_quoted(tensor.datatype)}, expected BYTES")
    return _raw(tensor, raw, rows, count=count)
