"""The feature pipeline: turns raw columns into the model's input, and counts drift in the same pass.

It compiles one specification at construction, so that a batch costs one call of a kernel. Serving calls `run` on the bytes
of requests and training calls `transform` on a table; both run the same kernel. Callers check with `count_elements` that the
raw bytes of strings are whole.
"""

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import join_bytes
from penstock_server.errors import InvalidInputError
from penstock_server.features import counting
from penstock_server.features.cells import Cells
from penstock_server.features.compiler import layout
from penstock_server.features.compiler.missing import reaching
from penstock_server.features.compiler.program import TEXT_PAD_BYTES, compile_program
from penstock_server.features.kernel_set import KERNELS
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, StringColumn, TimeColumn
from penstock_server.features.table import Table, numbers_of, row_count, strings_of, times_of
from penstock_server.kernels.compiled import EntryPoint, available, library

BRIEF_VALUES: Final = 2048
"""Up to this many raw values in a batch, about 30 us of work, the kernel keeps the GIL."""

BRIEF_BYTES: Final = 8 << 10
"""Up to this many bytes of texts whose words are counted, which takes about 60 us."""

TEXT_BYTES: Final = 256 << 10
"""Scratch has room for texts of this size, when they are prepared; a longer one gets scratch of its own."""

_PADDING: Final = bytes(layout.WORD_BYTES)
_LENGTH: Final = struct.Struct("<I")
_address = ctypes.addressof
# The cheapest way to get an array's memory; it also checks that the memory is contiguous and writable.
_exposed: Any = ctypes.c_char.from_buffer


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """The rows of a batch that the specification refuses, as the pipeline that it was made from does.

    Attributes:
        found: int64 [rows], for each row the first reason, an index into `reasons`, or -1.
        reasons: what such a row does, such as "has no value of 'age', ...".
    """

    found: NDArray[np.int64]
    reasons: tuple[str, ...]

    def error(self, first: int, count: int, *, before: int = 0) -> InvalidInputError:
        """The error of `count` rows from `first` on, of which at least one is refused; `before` more ran earlier."""
        at = int(np.argmax(self.found[first : first + count] >= 0))
        return InvalidInputError(f"row {before + at} {self.reasons[self.found[first + at]]}")

    def touches(self, first: int, count: int) -> bool:
        """Whether any of `count` rows from `first` on is refused."""
        return bool((self.found[first : first + count] >= 0).any())


class FeatureCall(NamedTuple):
    """How kernels call a pipeline's kernel themselves, for brief batches on the reactor's thread.

    Attributes:
        function, program, scratch: addresses.
        times, strings: how many columns of each there are, behind the block of numbers.
        row_bytes: the size of a row of the output.
        most_rows: of a brief batch.
        most_text: the most bytes of texts in one.
    """

    function: int
    program: int
    scratch: int
    times: int
    strings: int
    row_bytes: int
    most_rows: int
    most_text: int


class Pipeline:
    """A specification, ready to run; several threads may use one at once.

    Args:
        spec: the specification.
        cells: what `run` counts in, for this specification's columns; None counts nothing.

    Attributes:
        spec: the specification.
        columns: the names of the raw columns in the specification's order.
        numbers: the names of those that are numbers, in the same order.
        times: the names of those that are times, in the same order.
        strings: the names of those that are strings, in the same order.
        required: the numbers and times that must not be missing where the specification leaves it to the training data: that
            had none missing there, and a NaN would reach the model.
        width: the number of output columns.
        dtype: of the output: float32 or float64.
        cells_shape: the shape of the counts: columns, words; words is 0 where nothing is counted.

    Raises:
        UnavailableError: the kernels cannot be compiled.
    """

    def __init__(self, spec: FeatureSpec, cells: Cells | None = None) -> None:
        self.spec = spec
        self._is_counting = cells is not None
        self.columns = tuple(column.name for column in spec.columns)
        self.numbers = tuple(column.name for column in spec.columns if isinstance(column, NumberColumn))
        self.times = tuple(column.name for column in spec.columns if isinstance(column, TimeColumn))
        self.strings = tuple(column.name for column in spec.columns if isinstance(column, StringColumn))
        self.required = _required(spec, cells)
        self.width = spec.width
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if spec.datatype == "FP32" else np.float64)
        self.cells_shape = counting.shape(cells) if cells else (len(spec.columns), 0)
        self._last_cells: tuple[NDArray[Any] | None, int] = (None, 0)
        self._program = compile_program(spec, cells)
        self._at = self._program.words.ctypes.data
        # A brief call keeps the GIL, so no other call uses this scratch at the same time; long calls take a spare one.
        self._scratch = self._new_scratch()
        self._scratch_at = self._scratch.ctypes.data
        self._spare: list[NDArray[np.float64]] = []
        self._row_bytes = len(self.numbers) * 8
        self._others = len(self.times) + len(self.strings)
        self._brief_rows = BRIEF_VALUES // len(spec.columns)
        # Two threads may give two batches the same turn, which costs nothing.
        self._turn = 0
        self._run_brief = library(KERNELS).brief["run"]
        self._run_long = library(KERNELS).long["run"]

    def run(
        self,
        numbers: Any,
        others: Sequence[bytes],
        rows: int,
        out: NDArray[Any],
        cells: NDArray[np.int64] | None,
        *,
        is_thinned: bool = False,
    ) -> Refusal | None:
        """Transforms a batch of raw rows, and counts it.

        Args:
            numbers: bytes, or an object that converts to them: float64 [rows, number columns], row-major.
            others: for each time column its int64s [rows], then for each string column its elements, each a 4-byte
                little-endian length and its bytes.
            rows: how many there are.
            out: `dtype` [rows, width], C-contiguous; filled.
            cells: int64 `cells_shape`, C-contiguous; added to. It must be None if the pipeline has no cells. Two calls at
                once that add to the same array may lose counts.
            is_thinned: count no more than `counted_rows` of them.

        Returns:
            The rows that the specification refuses, if there are any. They are filled and counted like the others, but
            their outputs are meaningless.

        Raises:
            InvalidInputError: the sizes do not fit each other; nothing is filled or counted then. If one column has an
                element too many and the next one too few, only `count_elements` notices.
        """
        if type(numbers) is not bytes:
            numbers = bytes(numbers)
        if (
            len(numbers) != rows * self._row_bytes
            or len(others) != self._others
            or out.shape != (rows, self.width)
            or out.dtype != self.dtype
        ):
            raise self._refusal(len(numbers), len(others), rows, out)
        if rows == 0:
            return None
        if self.times:
            numbers, others = self._with_times(numbers, others, rows)
        text = b"".join((*others, _PADDING))
        try:
            out_at = _address(_exposed(out))
            cells_at = out_at if cells is None else self._cells_address(cells)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"out and cells must be C-contiguous and writable: {error}") from None
        flags = 0
        if cells is not None:
            flags = layout.COUNTING | (self._thinned(rows) if is_thinned else 0)
        answer = self._call(numbers, text, rows, out_at, cells_at, out_at, flags)
        if answer == layout.DONE:
            return None
        if answer == layout.TORN:
            size = sum(map(len, others))
            raise InvalidInputError(f"the string columns hold {size} bytes that are not {rows} elements each")
        return self._refused(numbers, text, rows, out_at)

    def counted_rows(self, rows: int) -> int:
        """How many rows of a batch of so many are counted where they are thinned: all of a brief one."""
        return rows >> self._thinning(rows)

    def _thinned(self, rows: int) -> int:
        """The flags that thin what is counted of a batch; of each batch other rows."""
        thinning = self._thinning(rows)
        if not thinning:
            return 0
        self._turn = (self._turn + 1) % layout.TURNS
        return thinning << layout.THINNING_AT | self._turn << layout.TURN_AT

    def _thinning(self, rows: int) -> int:
        return 0 if rows <= self._brief_rows else counting.thinning(rows)

    def kernel_call(self) -> FeatureCall:
        """How other kernels call this pipeline's, as long as the pipeline is kept."""
        return FeatureCall(
            library(KERNELS).addresses["run"],
            self._at,
            self._scratch_at,
            len(self.times),
            len(self.strings),
            self.width * self.dtype.itemsize,
            self._brief_rows,
            BRIEF_BYTES if self._program.text_growth else 1 << 62,
        )

    def _with_times(self, numbers: bytes, others: Sequence[bytes], rows: int) -> tuple[bytes, Sequence[bytes]]:
        """The numbers with the times behind them, as the kernel takes them, and the strings."""
        count = len(self.times)
        times = others[:count]
        for name, column in zip(self.times, times, strict=True):
            if len(column) != 8 * rows:
                raise InvalidInputError(f"the time column {name!r} holds {len(column)} bytes, expected {rows} int64s")
        return b"".join((numbers, *times)), others[count:]

    def _call(  # noqa: PLR0917 - as the kernel has them
        self, numbers: bytes, text: bytes, rows: int, out_at: int, cells_at: int, refused_at: int, flags: int
    ) -> int:
        """The kernel's result; a long call takes its own scratch and leaves it for the next."""
        size = len(text) - layout.WORD_BYTES
        if rows <= self._brief_rows and (size <= BRIEF_BYTES or not self._program.text_growth):
            at = self._scratch_at
            return self._run_brief(self._at, numbers, text, size, rows, out_at, cells_at, at, refused_at, flags)
        is_usual = size <= TEXT_BYTES or not self._program.text_growth
        scratch = self._spare_scratch() if is_usual else self._new_scratch(size)
        at = scratch.ctypes.data
        answer = self._run_long(self._at, numbers, text, size, rows, out_at, cells_at, at, refused_at, flags)
        if is_usual:
            self._spare.append(scratch)
        return answer

    def _refused(self, numbers: bytes, text: bytes, rows: int, out_at: int) -> Refusal:
        """Which rows were refused: a second run finds them, so that the usual run need not record them."""
        found = np.full(rows, -1, np.int64)
        self._call(numbers, text, rows, out_at, out_at, found.ctypes.data, layout.RECORDING)
        return Refusal(found, self._program.refusals)

    def _spare_scratch(self) -> NDArray[np.float64]:
        try:
            return self._spare.pop()
        except IndexError:
            return self._new_scratch()

    def _new_scratch(self, text_bytes: int = TEXT_BYTES) -> NDArray[np.float64]:
        """Scratch for a batch with texts of this size together. Its pages are there only once they are touched."""
        growth = self._program.text_growth
        words = -(-(growth * text_bytes + TEXT_PAD_BYTES) // layout.WORD_BYTES) if growth else 0
        return np.zeros(self._program.scratch_words + words)

    def transform(self, table: Table) -> NDArray[Any]:
        """The output of a whole table of raw columns, `dtype` [rows, width]; other columns are ignored.

        Raises:
            InvalidInputError: a column is missing, is not of its kind, or is not as long as the others, or a row is
                refused.
        """
        out, refusal = self.transform_rows(table)
        if refusal is not None:
            raise refusal.error(0, len(out))
        return out

    def transform_rows(self, table: Table) -> tuple[NDArray[Any], Refusal | None]:
        """The output of a whole table, as `transform`, and the rows that are refused; their outputs are meaningless.

        Raises:
            InvalidInputError: a column is missing, is not of its kind, or is not as long as the others.
        """
        rows = row_count(table, self.columns)
        out = np.empty((rows, self.width), self.dtype)
        numbers = np.empty((rows, len(self.numbers)), np.float64)
        for at, name in enumerate(self.numbers):
            numbers[:, at] = numbers_of(table, name)
        times = [times_of(table, name).tobytes() for name in self.times]
        strings = [join_bytes(strings_of(table, name)) for name in self.strings]
        return out, self.run(numbers, [*times, *strings], rows, out, None)

    def _refusal(self, numbers: int, others: int, rows: int, out: NDArray[Any]) -> InvalidInputError:
        kind = "time and string columns" if self.times else "string columns"
        return InvalidInputError(
            f"a batch of {rows} rows takes {rows * self._row_bytes} bytes of numbers, {self._others} {kind} "
            f"and {self.dtype} out of shape [{rows}, {self.width}]; "
            f"got {numbers} bytes, {others} {kind} and {out.dtype} {list(out.shape)}"
        )

    def _cells_address(self, cells: NDArray[Any]) -> int:
        """The address of the counts; kept, since a worker passes the same array for thousands of batches."""
        known, at = self._last_cells
        if cells is known:
            return at
        if not self._is_counting or cells.shape != self.cells_shape or cells.dtype != np.int64:
            raise self._cells_refusal(cells)
        at = _address(_exposed(cells))
        self._last_cells = (cells, at)
        return at

    def _cells_refusal(self, cells: NDArray[Any]) -> InvalidInputError:
        if not self._is_counting:
            return InvalidInputError("this pipeline has no cells to count in, expected None for cells")
        return InvalidInputError(
            f"cells are {cells.dtype} {list(cells.shape)}, expected int64 {list(self.cells_shape)} as the pipeline counts"
        )


def count_elements(raw: bytes) -> int:
    """How many BYTES elements, each a 4-byte little-endian length and its bytes, fill `raw` exactly; -1 when torn."""
    size = len(raw)
    if size >= _LENGTH.size and _LENGTH.unpack_from(raw)[0] == size - _LENGTH.size:
        return 1
    return _counter()(raw, size)


@cache
def _counter() -> EntryPoint:
    """The kernel that counts; where none is compiled, the same in Python: a model without features waits for no compiler."""
    kernels = available(KERNELS)
    return _count_elements if kernels is None else kernels.brief["count_elements"]


def _count_elements(raw: bytes, size: int) -> int:
    r"""What the kernel does.

    >>> _count_elements(b"\1\0\0\0a" * 3, 15), _count_elements(b"\2\0\0\0a", 5), _count_elements(b"", 0)
    (3, -1, 0)
    """
    at = found = 0
    while at + _LENGTH.size <= size:
        at += _LENGTH.size + _LENGTH.unpack_from(raw, at)[0]
        found += 1
    return found if at == size else -1


def _required(spec: FeatureSpec, cells: Cells | None) -> frozenset[str]:
    if cells is None:
        return frozenset()
    unfilled = reaching(spec)
    return frozenset(
        column.name
        for column, seen in zip(spec.columns, cells.columns, strict=True)
        if column.name in unfilled and not seen.has_missing and column.missing is None
    )
