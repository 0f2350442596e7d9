"""A version as a function from record batch to record batch: what every engine of `penstock batch` runs, and whoever else may.

    with published.version("fraud@champion", registry) as version:
        scorer = Scorer(version, ("fraud", "3"), keep=("id",))
        schema = scorer.schema(batch.schema)   # what comes out, before any row is read
        answers = scorer(batch)                # or scorer.score(batch), which sets bad rows aside

The version is loaded as a server loads it, with its compiled kernels and golden requests checked, and rows are run by the same
calls, so that each gets the server's answer to the last bit. Rows are counted for drift in the same pass. It knows no files,
no database and no processes. One thread at a time may use a scorer.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.names import VersionKey
from penstock.tensors import NUMPY_TYPES
from penstock_server.errors import InvalidInputError, ModelFailedError, first_line, is_out_of_memory
from penstock_server.features.pipeline import count_elements
from penstock_server.metrics.counters import CountersShape, new_counters
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.artifact import Artifact
from penstock_server.models.loader import load
from penstock_server.models.servable import Outputs
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.prediction.decode import decoder_of
from penstock_server.prediction.outputs import OutputReader, count_arrays, reader_of
from penstock_server.python.settings import PythonSettings
from penstock_tools.batch import columns as taking
from penstock_tools.batch.columns import Faults

SLICE_ROWS: Final = 4096
"""Rows that run together. A slice costs some 30 us beside its rows, and what it holds stays in a core's cache."""
MOST_FLAT: Final = 64
"""The most values of a row that get a column each; more are a list."""
_WHOLE_RUN: Final = 1 << 62
_QUOTED: Final = re.compile(r"'([^']+)'")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that gets no answer.

    Attributes:
        row: its place in the batch.
        column: whose value is to blame; "" where none is.
        reason: why.
    """

    row: int
    column: str
    reason: str

    def told(self, first: int = 0) -> str:
        """A sentence; `first` is the number of the batch's first row."""
        # The sentences of a specification name the column themselves.
        is_named = not self.column or f"'{self.column}'" in self.reason
        return (
            f"row {first + self.row:,} {self.reason}"
            if is_named
            else (f"column {self.column!r} of row {first + self.row:,} {self.reason}")
        )


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of a batch.

    Attributes:
        answers: of the rows that are not bad, in their order.
        bad: the others, in theirs.
        outputs: the same answers as the version gave them, one array per output.
    """

    answers: pa.RecordBatch
    bad: tuple[BadRow, ...]
    outputs: tuple[NDArray[Any], ...] = ()


class Scorer:
    """A loaded version that scores record batches.

    Args:
        artifact: its files.
        key: the model's name and the version's.
        keep: columns of the input that go beside the answers.
        columns: names for the columns of the one matrix that the version takes, if its publisher named none.
        prefix: goes before the name of each column of answers.
        allows_python: whether it may run Python.

    Attributes:
        wanted: the columns that it reads.

    Raises:
        InvalidInputError: the version cannot be loaded; it is an ensemble, which other versions answer for; or its inputs are
            no rows.
    """

    def __init__(
        self,
        artifact: Artifact,
        key: VersionKey,
        *,
        keep: Sequence[str] = (),
        columns: Sequence[str] = (),
        prefix: str = "",
        allows_python: bool = False,
    ) -> None:
        if artifact.ensemble is not None:
            raise InvalidInputError("the version is an ensemble; score with the versions of its steps")
        self.key = key
        self._keep = tuple(keep)
        python = PythonSettings(allow=allows_python)
        self._servable, _ = load(key, artifact.path, threads=None, max_rows=SLICE_ROWS, python=python)
        try:
            self._reader = reader_of(self._servable)
            self._taken = self._takings(columns)
            self._answers = _answer_columns(self._servable.outputs, self._tails(), prefix)
        except BaseException:
            self._servable.close()
            raise
        self.wanted = tuple(name for each in self._taken for name in each.columns)
        self._is_alone = not self._servable.is_batched or any(each.width == ANY for each in self._taken)
        self._recorder = self._new_recorder()
        self._counted_rows = 0
        self._known: tuple[pa.Schema, pa.Schema] | None = None

    def close(self) -> None:
        """Frees what the version holds."""
        self._servable.close()

    @property
    def engine(self) -> str:
        """What runs the version's graph, and why; "" where that goes without saying."""
        return self._servable.engine

    @property
    def reader(self) -> OutputReader:
        """Reads classes and scores from its outputs."""
        return self._reader

    @property
    def columns(self) -> pa.Schema:
        """The columns that it reads, with types that hold every value that they may have."""
        return pa.schema([(name, each.holding) for each in self._taken for name in each.columns])

    def schema(self, given: pa.Schema, keep: Sequence[str] | None = None) -> pa.Schema:
        """What comes out of rows of a schema: the columns that are kept, then the answers.

        Args:
            given: of the rows.
            keep: other columns to keep than the scorer was made with.

        Raises:
            InvalidInputError: a column is missing or of another kind, or two that come out would have the same name.
        """
        if keep is None and self._known is not None and self._known[0].equals(given):
            return self._known[1]
        kept = self._keep if keep is None else keep
        taking.check(given, self._taken)
        lacking = [name for name in kept if name not in given.names]
        if lacking:
            raise InvalidInputError(f"the input has no column {lacking[0]!r} to keep; it has {', '.join(given.names)}")
        own = {field.name for answer in self._answers for field in answer.fields}
        taken = [name for name in kept if name in own]
        if taken:
            raise InvalidInputError(
                f"column {taken[0]!r} is kept, and an answer has the same name; give the answers a prefix, or keep it not"
            )
        fields = [given.field(name) for name in kept]
        fields += [field for answer in self._answers for field in answer.fields]
        found = pa.schema(fields, {"penstock.model": self.key[0], "penstock.version": self.key[1]})
        if keep is None:
            self._known = (given, found)
        return found

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The answers to rows, in their order.

        Raises:
            InvalidInputError: a row cannot be answered; names it, its column and the reason. Or as `schema`.
        """
        scored = self.score(batch)
        if scored.bad:
            raise InvalidInputError(scored.bad[0].told())
        return scored.answers

    def score(self, batch: pa.RecordBatch) -> Scored:
        """The answers to rows that can be answered, and the others with their reasons.

        Raises:
            InvalidInputError: as `schema`.
            ModelFailedError: there is not enough memory.
        """
        schema = self.schema(batch.schema)
        parts: list[list[NDArray[Any]]] = []
        places: list[NDArray[np.int64]] = []
        bad: list[BadRow] = []
        step = 1 if self._is_alone else SLICE_ROWS
        read = self._prepared(batch)
        for first in range(0, batch.num_rows, step):
            rows = read.slice(first, step)
            for arrays, at in self._run(rows, np.arange(first, first + rows.num_rows), bad):
                parts.append(arrays)
                places.append(at)
        at = np.concatenate(places) if places else np.empty(0, np.int64)
        kept = [batch.column(name) for name in self._keep]
        if bad:
            kept = [column.take(pa.array(at)) for column in kept]
        outputs = tuple(_joined(each) for each in zip(*parts, strict=True))
        if outputs:
            count_arrays(self._recorder, self._reader, outputs, is_drift=True)
        answers = [
            array
            for place, answer in enumerate(self._answers)
            for array in (answer.arrays(outputs[place]) if outputs else answer.none())
        ]
        bad.sort(key=lambda each: each.row)
        return Scored(pa.RecordBatch.from_arrays([*kept, *answers], schema=schema), tuple(bad), outputs)

    def _prepared(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns that are read, as blocks are filled with them."""
        columns = [each.prepared(batch.column(name)) for each in self._taken for name in each.columns]
        return pa.RecordBatch.from_arrays(columns, self.wanted)

    def take_counts(self) -> "Counted":
        """What was counted since the last call, and starts anew."""
        counters, rows = self._recorder.counters, self._counted_rows
        classes = counters.class_values[: int(counters.class_count[0])].tolist()
        found = Counted(
            rows, counters.drift[0].copy(), dict(zip(classes, counters.classes[: len(classes)].tolist(), strict=True))
        )
        self._recorder, self._counted_rows = self._new_recorder(), 0
        return found

    def _takings(self, columns: Sequence[str]) -> tuple[taking.Taken, ...]:
        pipeline = self._servable.pipeline
        blocks = decoder_of(self._servable).blocks
        if pipeline is None:
            unbatched = [spec for spec in self._servable.model.signature.inputs if spec.shape[:1] not in {(ANY,), (1,)}]
            if unbatched:
                raise InvalidInputError(
                    f"input {unbatched[0].name!r} has the shape {list(unbatched[0].shape)}, whose first dimension is no rows"
                )
            texts = tuple(name for block in blocks if block.datatype == "BYTES" for name in block.names)
            return taking.taken(blocks, texts=texts, columns=columns)
        texts = tuple(column.name for column in pipeline.spec.columns if column.missing == "text")
        blocks = tuple(block for block in blocks if block.names)
        return taking.taken(blocks, times=pipeline.times, texts=texts, required=pipeline.required, columns=columns)

    def _tails(self) -> list[tuple[int, ...]]:
        """The shape of a row of each output; where rows of the inputs are of any length, those of outputs may be too."""
        tails = self._servable.tails
        if not any(each.width == ANY for each in self._taken):
            return tails
        stated = [spec.shape[1:] for spec in self._servable.outputs]
        return [own if ANY in own else tail for own, tail in zip(stated, tails, strict=True)]

    def _run(
        self, rows: pa.RecordBatch, at: NDArray[np.int64], bad: list[BadRow]
    ) -> Iterator[tuple[list[NDArray[Any]], NDArray[np.int64]]]:
        """The outputs of rows, and their places, `at`; what the version refuses or fails on is found out by halves."""
        faults = Faults(len(at))
        named = dict(zip(self.wanted, rows.columns, strict=True))
        blocks = [each.raw(named, len(at), faults) for each in self._taken]
        if faults:
            faulty = faults.at >= 0
            bad += (
                BadRow(int(row), *faults.told[fault]) for row, fault in zip(at[faulty], faults.at[faulty], strict=True)
            )
            if not faulty.all():
                yield from self._run(rows.filter(pa.array(~faulty)), at[~faulty], bad)
            return
        shapes = [self._shape(each, block) for each, block in zip(self._taken, blocks, strict=True)]
        cells = self._recorder.drift_cells()
        try:
            outputs = self._servable.predict(
                self._all_blocks(blocks),
                len(at),
                shapes if self._is_alone and self._servable.pipeline is None else None,
                cells,
            )
        except (InvalidInputError, ModelFailedError) as error:
            if is_out_of_memory(error):
                raise
            if len(at) == 1:
                bad.append(BadRow(int(at[0]), "", f"is not answered: {first_line(error)}"))
                return
            half = len(at) // 2
            yield from self._run(rows.slice(0, half), at[:half], bad)
            yield from self._run(rows.slice(half), at[half:], bad)
            return
        yield self._counted(outputs, at, bad)

    def _counted(
        self, outputs: Outputs, at: NDArray[np.int64], bad: list[BadRow]
    ) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
        """The outputs of the rows that are not refused, whose columns were counted."""
        if self._recorder.drift_cells() is not None:
            self._counted_rows += self._servable.counted_rows(len(at))
        if outputs.refusal is None:
            return outputs.arrays, at
        found = outputs.refusal.found
        refused = found >= 0
        for row, reason in zip(at[refused].tolist(), found[refused].tolist(), strict=True):
            bad.append(self._refused(row, outputs.refusal.reasons[reason]))
        return [array[~refused] for array in outputs.arrays], at[~refused]

    def _refused(self, row: int, reason: str) -> BadRow:
        """A row that the specification refuses, whose sentence names the column."""
        named = _QUOTED.search(reason)
        return BadRow(row, named[1] if named and named[1] in self.wanted else "", reason)

    def _all_blocks(self, blocks: list[bytes]) -> list[bytes]:
        """The blocks with an empty one in front, for a version whose columns have no numbers."""
        pipeline = self._servable.pipeline
        return [b"", *blocks] if pipeline is not None and not pipeline.numbers else blocks

    def _shape(self, each: taking.Taken, block: bytes) -> tuple[int, ...]:
        """The shape of one row alone."""
        if len(each.columns) > 1:
            return (1, len(each.columns))
        tail = list(each.block.row_shape)
        free = [place for place, size in enumerate(tail) if size == ANY]
        if len(free) > 1:
            raise InvalidInputError(
                f"column {each.columns[0]!r} has rows of {len(free)} free dimensions, which no list tells"
            )
        if free:
            others = prod(size for size in tail if size != ANY)
            datatype = each.block.datatype
            values = count_elements(block) if datatype == "BYTES" else len(block) // NUMPY_TYPES[datatype].itemsize
            tail[free[0]] = values // others if others else 0
        return (1, *tail)

    def _new_recorder(self) -> Recorder:
        """Counts in one window that never moves on."""
        baseline = self._servable.artifact.baseline
        if baseline is None or self._servable.counted_columns is None:
            return Recorder(new_counters(CountersShape(sub_windows=1)), _WHOLE_RUN)
        answers = baseline.cells.answers
        shape = CountersShape(*baseline.cells_shape, sub_windows=1, answers=max(1, len(answers)))
        return Recorder(new_counters(shape), _WHOLE_RUN, answers)


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """What was counted of scored rows.

    Attributes:
        rows: that were counted for drift, one in four of nearly all, as servers count their large batches.
        words: int64 [columns + answers, words], as `features.counting` lays them out; empty for a version without a baseline.
        classes: rows by predicted class, by its number; empty where no class is predicted.
    """

    rows: int
    words: NDArray[np.int64]
    classes: dict[int, int]


@dataclass(frozen=True, slots=True)
class _AnswerColumns:
    """The columns that one output becomes."""

    fields: tuple[pa.Field, ...]
    width: int

    def none(self) -> Iterator[pa.Array]:
        """The columns of no rows."""
        return (pa.array([], field.type) for field in self.fields)

    def arrays(self, output: NDArray[Any]) -> Iterator[pa.Array]:
        """The columns of an output, one after the other."""
        kind = self.fields[0].type
        if self.width == ANY:
            rows = [row.reshape(-1) for row in output]
            ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
            values = _values(np.concatenate(rows), kind.value_type) if rows else pa.array([], kind.value_type)
            yield pa.ListArray.from_arrays(pa.array(ends), values)
            return
        whole = output.reshape(len(output), self.width)
        if len(self.fields) == self.width:
            for at, field in enumerate(self.fields):
                yield _values(whole[:, at], field.type)
            return
        yield pa.FixedSizeListArray.from_arrays(_values(whole, kind.value_type), self.width)


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The rows of all parts; an array of arrays where they are not equally long."""
    if len(parts) == 1:
        return parts[0]
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    rows = [row for part in parts for row in part]
    joined = np.empty(len(rows), object)
    for at, row in enumerate(rows):
        joined[at] = row
    return joined


def _values(array: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """An output's values, one after the other."""
    flat = np.ascontiguousarray(array.reshape(-1))
    if flat.dtype.kind not in "OSU":
        return pa.array(flat, kind)
    try:
        return pa.array(flat, kind)
    except (pa.ArrowException, UnicodeDecodeError):
        texts = (each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in flat.tolist())
        return pa.array(list(texts), kind)


def _answer_columns(
    outputs: Sequence[TensorInfo], tails: Sequence[tuple[int, ...]], prefix: str
) -> tuple[_AnswerColumns, ...]:
    """The columns of answers: one for each number of a row, named after the output and the class; many numbers are a list."""
    found = []
    for spec, tail in zip(outputs, tails, strict=True):
        name, kind = f"{prefix}{spec.name}", _arrow_type(spec.datatype)
        width = ANY if ANY in tail else prod(tail)
        if width == 1:
            fields = [pa.field(name, kind)]
        elif width == ANY:
            fields = [pa.field(name, pa.list_(kind))]
        elif width <= MOST_FLAT:
            ends = spec.labels if len(spec.labels) == width else range(width)
            fields = [pa.field(f"{name}_{end}", kind) for end in ends]
        else:
            fields = [pa.field(name, pa.list_(kind, width))]
        found.append(_AnswerColumns(tuple(fields), width))
    names = [field.name for each in found for field in each.fields]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InvalidInputError(f"two answers of the version would be called {repeated!r}")
    return tuple(found)


def _arrow_type(datatype: str) -> pa.DataType:
    return pa.string() if datatype == "BYTES" else pa.from_numpy_dtype(NUMPY_TYPES[datatype])
