"""Arrow columns as the blocks that a version takes, and the rows whose values it cannot hold.

Values are taken as the client and the server take them: nothing changes without a word. What a block cannot hold makes its row
a bad one, with the column's name and the reason, and does not touch the other rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.names import did_you_mean
from penstock.tensors import NUMPY_TYPES
from penstock_server.errors import InvalidInputError
from penstock_server.features.compiler.layout import MISSING_TIME
from penstock_server.models.signature import ANY
from penstock_server.prediction.decode import Block

_TO_NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EXACT: Final = {2: 2**11, 4: 2**24, 8: 2**53}
"""Up to which whole number a float of so many bytes holds every one."""
_TEXT_TYPES: Final = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
)
_NUMBER_TYPES: Final = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
_LIST_TYPES: Final = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_NO_TEXT: Final = pa.scalar(b"", pa.large_binary())
_LONGEST_CODE: Final = 16
_FEW_TEXTS: Final = 64
_LOOKED_AT: Final = 1024
"""Of so many texts it is counted how many are different."""


class Faults:
    """The first fault of each of some rows.

    Args:
        rows: how many.

    Attributes:
        at: int64 [rows], for each row an index into `told`, or -1 if it has none.
        told: column and reason of each fault; "" for what no column is to blame for.
    """

    def __init__(self, rows: int) -> None:
        self.at = np.full(rows, -1, np.int64)
        self.told: list[tuple[str, str]] = []

    def __bool__(self) -> bool:
        return bool(self.told)

    def add(self, rows: NDArray[np.bool_], column: str, reason: str) -> None:
        """Notes a fault of some rows, bool [rows]; one that was noted before stays."""
        if rows.any():
            self.at[rows & (self.at < 0)] = len(self.told)
            self.told.append((column, reason))

    def add_values(self, rows: NDArray[np.bool_], column: str, values: NDArray[Any], cannot: str) -> None:
        """Notes that values cannot be held, each with its own."""
        for at in np.flatnonzero(rows).tolist():
            if self.at[at] < 0:
                self.at[at] = len(self.told)
                self.told.append((column, f"is {values[at]}, {cannot}"))


@dataclass(frozen=True, slots=True)
class Taken:
    """How one block is filled.

    Attributes:
        block: what it holds.
        columns: the table's columns, side by side in each row.
        width: the values of a row in each column, -1 where rows may differ.
        is_time: they are times.
        takes_missing: texts: a missing one is the empty text.
        required: the columns that must have a value.
    """

    block: Block
    columns: tuple[str, ...]
    width: int = 1
    is_time: bool = False
    takes_missing: bool = True
    required: frozenset[str] = frozenset()

    @property
    def is_list(self) -> bool:
        """A row's value is a list."""
        return self.width != 1

    @property
    def holding(self) -> pa.DataType:
        """A type of Arrow that holds every value that its columns may have."""
        if self.is_time:
            return pa.timestamp("ns", "UTC")
        dtype = None if self.block.datatype == "BYTES" else NUMPY_TYPES[self.block.datatype]
        wide = {"f": pa.float64(), "b": pa.bool_(), "u": pa.uint64(), "i": pa.int64()}
        kind = pa.string() if dtype is None else wide[dtype.kind]
        if not self.is_list:
            return kind
        return pa.list_(kind) if self.width == ANY else pa.list_(kind, self.width)

    def prepared(self, column: pa.Array) -> pa.Array:
        """One of its columns as `raw` takes it, which is quicker for many rows at once: texts are elements already."""
        if self.is_list or self.block.datatype != "BYTES":
            return plain(column)
        return self._elements_of(column)

    def raw(self, columns: Mapping[str, pa.Array], rows: int, faults: Faults) -> bytes:
        """The block of some rows, of prepared columns; where a row is faulty it means nothing."""
        if self.is_list:
            return self._of_lists(columns[self.columns[0]], rows, faults)
        if self.block.datatype == "BYTES":
            return _side_by_side([self._present(columns[name], name, faults) for name in self.columns])
        if self.is_time:
            (name,) = self.columns
            return _times(columns[name], name, name in self.required, faults).tobytes()
        dtype = NUMPY_TYPES[self.block.datatype]
        if len(self.columns) == 1:
            (name,) = self.columns
            return self._checked(_numbers(columns[name], dtype, name, faults), name, faults).tobytes()
        matrix = np.empty((rows, len(self.columns)), dtype)
        for at, name in enumerate(self.columns):
            matrix[:, at] = self._checked(_numbers(columns[name], dtype, name, faults), name, faults)
        return matrix.tobytes()

    def _checked(self, values: NDArray[Any], name: str, faults: Faults) -> NDArray[Any]:
        if name in self.required:
            faults.add(np.isnan(values), name, _UNFILLED)
        return values

    def _of_lists(self, lists: pa.Array, rows: int, faults: Faults) -> bytes:
        name = self.columns[0]
        lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy()
        width = self.width if self.width != ANY else max(int(lengths.max(initial=0)), 0)
        faults.add(lengths != width, name, f"is no list of {width} values")
        if faults:
            return b""
        values = pc.list_flatten(lists)
        inner = Faults(len(values))
        if self.block.datatype == "BYTES":
            raw = _side_by_side([self._present(self._elements_of(values), name, inner)])
        else:
            raw = _numbers(values, NUMPY_TYPES[self.block.datatype], name, inner).tobytes()
        for place in sorted(set(inner.at[inner.at >= 0].tolist())):
            faults.add((inner.at == place).reshape(rows, width).any(axis=1), *inner.told[place])
        return raw

    def _elements_of(self, texts: pa.Array) -> pa.Array:
        """Texts as BYTES elements; a missing one is the empty text, or stays missing where that means itself."""
        return elements(texts, is_missing_empty=self.takes_missing)

    def _present(self, array: pa.Array, name: str, faults: Faults) -> pa.Array:
        if array.null_count:
            missing = array.is_null().to_numpy(zero_copy_only=False)
            faults.add(missing, name, "is missing, and each of its texts means itself")
        return array


_UNFILLED: Final = "is missing, and this version was published without a value to fill it with"


def taken(
    blocks: Sequence[Block],
    *,
    times: Sequence[str] = (),
    texts: Sequence[str] = (),
    required: frozenset[str] = frozenset(),
    columns: Sequence[str] = (),
) -> tuple[Taken, ...]:
    """How blocks are filled from a table.

    Args:
        blocks: as the version's decoder has them.
        times: those that hold times.
        texts: those of which the empty text is a text like others, so that none stands for a missing one.
        required: the columns that must have a value.
        columns: names for the columns of the one matrix that a version takes, in its order; empty leaves it one of lists.

    Raises:
        InvalidInputError: the names are not as many as the matrix has columns, or there is no such matrix.
    """
    if columns:
        matrix = blocks[0] if len(blocks) == 1 and len(blocks[0].names) == 1 else None
        if matrix is None or matrix.row_shape not in {(len(columns),), (ANY,)}:
            raise InvalidInputError(
                f"{len(columns)} columns are named, and the version takes "
                + (f"{prod(matrix.row_shape)} in {matrix.names[0]!r}" if matrix else "columns that have names already")
            )
        return (Taken(matrix, tuple(columns), required=required),)
    return tuple(
        Taken(
            block,
            block.names,
            _width(block),
            is_time=block.names[0] in times,
            takes_missing=block.names[0] not in texts,
            required=required,
        )
        for block in blocks
    )


def _width(block: Block) -> int:
    return ANY if ANY in block.row_shape else prod(block.row_shape)


def check(schema: pa.Schema, wanted: Sequence[Taken]) -> None:
    """Checks before anything is read that a table has the columns, and that each is of its kind.

    Raises:
        InvalidInputError: it lacks one, or one is of another kind.
    """
    names = [name for each in wanted for name in each.columns]
    lacking = [name for name in names if name not in schema.names]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise InvalidInputError(
            f"the input lacks column {lacking[0]!r}{did_you_mean(lacking[0], schema.names)}{more}; "
            f"the version takes {', '.join(names)}"
        )
    for each in wanted:
        for name in each.columns:
            if schema.names.count(name) > 1:
                raise InvalidInputError(f"the input has column {name!r} twice; expected each name once")
            found = schema.field(name).type
            if not _is_of(found, each):
                raise InvalidInputError(f"column {name!r} holds {found}, expected {_expected(each)}")


def plain(array: pa.Array) -> pa.Array:
    """A column of values themselves, where it has them by numbers of a dictionary."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _is_of(found: pa.DataType, each: Taken) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if each.is_list:
        if not _is_any(found, _LIST_TYPES):
            return False
        if pa.types.is_fixed_size_list(found) and each.width not in {ANY, found.list_size}:
            return False
        found = found.value_type
    if pa.types.is_null(found):
        return not each.is_list
    if each.is_time:
        return found == pa.int64() or _is_any(found, (pa.types.is_timestamp, pa.types.is_date))
    if each.block.datatype == "BYTES":
        return _is_any(found, _TEXT_TYPES)
    return _is_any(found, _NUMBER_TYPES)


def _is_any(found: pa.DataType, tests: Sequence[Callable[[pa.DataType], bool]]) -> bool:
    return any(test(found) for test in tests)


def _expected(each: Taken) -> str:
    what = "times" if each.is_time else "texts" if each.block.datatype == "BYTES" else "numbers"
    if not each.is_list:
        return what
    return f"lists of {what}" if each.width == ANY else f"lists of {each.width} {what}"


def _numbers(array: pa.Array, dtype: np.dtype[Any], name: str, faults: Faults) -> NDArray[Any]:
    """A column of numbers, [rows], in a block's type; NaN where a float is missing."""
    array = plain(array)
    if pa.types.is_floating(array.type) and dtype.kind == "f" and array.type.bit_width == 8 * dtype.itemsize:
        same: NDArray[Any] = array.to_numpy(zero_copy_only=False)  # a missing one is NaN
        return same
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    elif pa.types.is_decimal(array.type) or pa.types.is_null(array.type):
        array = array.cast(pa.float64())
    missing = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    values = (array if missing is None else pc.fill_null(array, pa.scalar(0).cast(array.type))).to_numpy()
    with np.errstate(invalid="ignore", over="ignore"):
        cast: NDArray[Any] = values.astype(dtype, copy=missing is not None)
    if cast.dtype != values.dtype:
        faults.add_values(_is_lost(values, cast), name, values, f"which {dtype.name} cannot hold")
    if missing is not None:
        if dtype.kind == "f":
            cast[missing] = np.nan
        else:
            faults.add(missing, name, f"is missing, and {dtype.name} has no missing value")
    return cast


def _is_lost(values: NDArray[Any], cast: NDArray[Any]) -> NDArray[np.bool_]:
    """Which numbers are others in the block's type; that floats are rounded to it is no loss."""
    nothing = np.zeros(len(values), np.bool_)
    if cast.dtype.kind != "f":
        with np.errstate(invalid="ignore"):
            return np.asarray((cast.astype(values.dtype) != values) | ((cast < 0) != (values < 0)), np.bool_)
    if values.dtype.kind == "f":
        return np.isinf(cast) & np.isfinite(values) if cast.dtype.itemsize < values.dtype.itemsize else nothing
    limit = _EXACT[cast.dtype.itemsize]
    if values.dtype.itemsize * 8 < limit.bit_length() or not len(values):
        return nothing
    beyond = (values > limit) | (values < -limit) if values.dtype.kind == "i" else values > limit
    if not beyond.any():
        return nothing
    found = nothing.copy()
    found[beyond] = [
        int(a) != int(b) if np.isfinite(b) else True for a, b in zip(values[beyond], cast[beyond], strict=True)
    ]
    return found


def _times(array: pa.Array, name: str, is_required: bool, faults: Faults) -> NDArray[np.int64]:
    """A column of times as int64 nanoseconds since 1970 in UTC, [rows]; a time without a zone counts as UTC."""
    array = plain(array)
    if pa.types.is_null(array.type):
        array = array.cast(pa.int64())
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("s"))
    factor = _TO_NANOSECONDS[array.type.unit] if pa.types.is_timestamp(array.type) else 1
    missing = array.is_null().to_numpy(zero_copy_only=False)
    whole = pc.fill_null(array.view(pa.int64()), 0).to_numpy()
    is_lost = np.abs(whole) > np.iinfo(np.int64).max // factor
    faults.add_values(is_lost, name, whole, f"times {factor} nanoseconds: expected times from 1677-09-22 to 2262-04-11")
    values = np.where(is_lost, 0, whole) * factor
    values[missing] = MISSING_TIME
    if is_required:
        faults.add(missing, name, _UNFILLED)
    return values


def elements(texts: pa.Array, *, is_missing_empty: bool) -> pa.Array:
    """Texts as BYTES elements, each a 4-byte length and its bytes: large_binary [rows]. No text becomes an object of Python.

    Texts that repeat, as those of categories do, become elements once, and are copied from there. Short ones of one length,
    such as codes of airports, take a quarter of that time.

    Args:
        texts: of any type of text, or numbers of a dictionary of them.
        is_missing_empty: a missing text is the empty one; else it stays missing.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not pa.types.is_dictionary(texts.type):
        if pa.types.is_null(texts.type) or pa.types.is_string_view(texts.type):
            texts = texts.cast(pa.large_string())
        texts = texts.cast(pa.large_binary())
        if (length := _length_of_codes(texts)) is not None:
            return _codes(texts, length)
        if not _repeats(texts):
            return _elements(pc.fill_null(texts, b"") if texts.null_count and is_missing_empty else texts)
        texts = texts.dictionary_encode()
    numbers, known = texts.indices, texts.dictionary.cast(pa.large_binary())
    if is_missing_empty and texts.null_count:
        numbers = pc.fill_null(numbers.cast(pa.int64()), len(known))
        known = pa.concat_arrays([known, pa.array([b""], pa.large_binary())])
    return _elements(pc.fill_null(known, b"") if known.null_count and is_missing_empty else known).take(numbers)


def _length_of_codes(texts: pa.Array) -> int | None:
    """The bytes of each text, where all are there, and short, and equally long."""
    if not len(texts) or texts.null_count:
        return None
    lengths = np.diff(_ends(texts))
    length = int(lengths[0])
    return length if length <= _LONGEST_CODE and (lengths == length).all() else None


def _codes(texts: pa.Array, length: int) -> pa.Array:
    """The element of each text of so many bytes."""
    first = int(_ends(texts)[0])
    contents = np.frombuffer(texts.buffers()[2] or b"", np.uint8, len(texts) * length, first)
    contents = contents.reshape(len(texts), length)
    out = np.empty((len(texts), 4 + length), np.uint8)
    # Byte by byte: numpy copies long columns fast, and short rows slowly.
    for at, byte in enumerate(length.to_bytes(4, "little")):
        out[:, at] = byte
    for at in range(length):
        out[:, 4 + at] = contents[:, at]
    ends = np.arange(0, out.size + 1, 4 + length)
    return pa.Array.from_buffers(pa.large_binary(), len(texts), [None, pa.py_buffer(ends), pa.py_buffer(out)])


def _repeats(texts: pa.Array) -> bool:
    looked_at = texts.slice(0, _LOOKED_AT)
    return len(texts) > _FEW_TEXTS and 2 * len(looked_at.unique()) < len(looked_at)


def _elements(texts: pa.Array) -> pa.Array:
    """The element of each text of large_binary; what is missing stays so."""
    lengths = pc.fill_null(pc.binary_length(texts), 0).cast(pa.int32())
    heads = pa.Array.from_buffers(pa.binary(4), len(texts), [None, lengths.buffers()[1]], offset=lengths.offset)
    return pc.binary_join_element_wise(heads.cast(pa.large_binary()), texts, _NO_TEXT)


def _side_by_side(columns: Sequence[pa.Array]) -> bytes:
    """Columns of elements as one block, row by row."""
    whole = columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, _NO_TEXT)
    ends, data = _ends(whole), whole.buffers()[2]
    return b"" if data is None else data.slice(int(ends[0]), int(ends[-1] - ends[0])).to_pybytes()


def _ends(texts: pa.Array) -> NDArray[np.int64]:
    """Where each text of large_binary ends in the buffer of all, int64 [rows + 1] with the first one's beginning in front."""
    offsets = texts.buffers()[1]
    if offsets is None or not len(texts):
        return np.zeros(1, np.int64)
    return np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
