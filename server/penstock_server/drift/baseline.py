"""The drift baseline: the training rows, counted in the cells that serving counts in, and their file.

It is fitted to the same rows as a specification, and published with it. This module defines the file and refuses
invalid ones: its parts check themselves when they are made and raise `ValueError`. `fit` makes a baseline from rows,
the kernels count in the same cells, and `statistics` compares counts.
"""

from math import inf
from typing import Annotated, Final, Literal

import msgspec

from penstock_server.drift.joint_baseline import JointBaseline
from penstock_server.drift.report import Order
from penstock_server.drift.significance import MINIMUM_EFFECT
from penstock_server.errors import InvalidInputError
from penstock_server.features import counting
from penstock_server.features.cells import AnswerCells, Cells, ClassCells, JointCells, NumberCells, StringCells
from penstock_server.features.spec import limits
from penstock_server.features.spec.spec import (
    Column,
    FeatureSpec,
    NumberColumn,
    StringColumn,
    TimeColumn,
    decode_file,
    digest,
)

FORMAT: Final = 2
MAX_WORDS: Final = 1 << 19
"""The 64-bit words of one set of counts, 4 MiB; every worker holds eleven of them in shared memory."""
MAX_BINS: Final = 256
MAX_WATCHED: Final = 4096
"""The most values of a string column that are distinguished from unseen ones."""
MAX_ANSWERS: Final = 8
"""The most numbers of a model's answers that are watched beside its predictions."""

MOST_REPEATS: Final = 0.01
"""The share of training rows that may repeat a recent one where served rows that do are retries or probes."""
DISPERSION_BLOCKS: Final = 20
"""The blocks of training rows whose counts are compared for a column's dispersion: a standard error of 7 % at 20 bins."""
FINER: Final = 4
"""Each finer scale of a column's dispersion has so many times as many blocks."""
MOST_SCALES: Final = 16

Count = Annotated[int, msgspec.Meta(ge=0, le=limits.MAX_COUNT)]
Dispersion = Annotated[float, msgspec.Meta(ge=1, le=1e9)]
Scales = Annotated[tuple[Dispersion, ...], msgspec.Meta(max_length=MOST_SCALES)]
Effect = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class NumberBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="number"):
    """A number column: a value's bin is how many edges are <= it.

    Attributes:
        name: the column's.
        edges: finite and increasing; `len(edges) + 1` bins, of which the end ones are open.
        counts: the finite training rows in each bin.
        sums: of their values.
        missing, infinite: the other training rows.
        smallest, largest: of the finite rows; None where there are none.
        deviation: their standard deviation, that of the population.
        dispersion: how much more the counts vary in time than independent rows would.
        finer: the same of blocks a quarter as long, a sixteenth, and so on.
        minimum_effect: the index that is still no drift.
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[Count, ...]
    sums: tuple[float, ...]
    missing: Count = 0
    infinite: Count = 0
    smallest: float | None = None
    largest: float | None = None
    deviation: float = 0.0
    dispersion: Dispersion = 1.0
    minimum_effect: Effect = MINIMUM_EFFECT
    finer: Scales = ()

    def __post_init__(self) -> None:
        limits.name(self.name)
        limits.at_most("bins", len(self.counts), MAX_BINS)
        limits.increasing(self, "edges")
        if not len(self.counts) == len(self.sums) == len(self.edges) + 1:
            raise ValueError(
                f"{len(self.counts)} counts and {len(self.sums)} sums for {len(self.edges)} edges, "
                "expected one more than edges"
            )
        if self.sums:
            limits.finite_each(self, "sums")
        if limits.finite(self, "deviation") < 0:
            raise ValueError(f"deviation is {self.deviation}, expected 0 or more")
        _check_range(self.smallest, self.largest)

    @property
    def cells(self) -> NumberCells:
        """The cells to count it in."""
        return NumberCells(self.edges, self.smallest, self.largest, has_missing=self.missing > 0)

    @property
    def bins(self) -> tuple[int, ...]:
        """The rows in each bin."""
        return self.counts

    @property
    def extra(self) -> tuple[int, int, int]:
        """The rows that are missing, infinite and unseen."""
        return self.missing, self.infinite, 0


class StringBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="string"):
    """A string column: the values that training saw, the most frequent first.

    Attributes:
        name: the column's.
        watched: the values, never the empty string, which is missing.
        counts: the training rows of the first values, which have a bin each; the others share the bin after.
        other: the rows of those others.
        missing: the rows without a value.
        unseen: the rows of values that are not watched, being too many or too long.
        dispersion: how much more the counts vary in time than independent rows would.
        finer: the same of blocks a quarter as long, a sixteenth, and so on.
        minimum_effect: the index that is still no drift.
    """

    name: str
    watched: tuple[str, ...]
    counts: tuple[Count, ...]
    other: Count = 0
    missing: Count = 0
    unseen: Count = 0
    dispersion: Dispersion = 1.0
    minimum_effect: Effect = MINIMUM_EFFECT
    finer: Scales = ()

    def __post_init__(self) -> None:
        limits.name(self.name)
        limits.at_most("counts", len(self.counts), MAX_BINS - 1)
        limits.at_most("watched", len(self.watched), MAX_WATCHED)
        if len(self.counts) > len(self.watched):
            raise ValueError(f"{len(self.counts)} counts for {len(self.watched)} watched values, expected no more")
        for value in self.watched:
            limits.utf8("watched", value, limits.MAX_CATEGORY_BYTES)
        limits.distinct("watched", self.watched)
        if "" in self.watched:
            raise ValueError("the empty string is watched, expected it among the missing")

    @property
    def cells(self) -> StringCells:
        """The cells to count it in."""
        return StringCells(self.watched, len(self.counts), has_missing=self.missing > 0)

    @property
    def bins(self) -> tuple[int, ...]:
        """The rows of each value with a bin of its own, and of the others together."""
        return (*self.counts, self.other)

    @property
    def extra(self) -> tuple[int, int, int]:
        """The rows that are missing, infinite and unseen."""
        return self.missing, 0, self.unseen


class ClassBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="class"):
    """The classes that a model predicted for the training rows.

    Attributes:
        name: the output that holds them.
        classes: as labels are read from the output: the label itself, or its place among the model's class names.
        counts: the rows of each.
        names: the classes' names, if the labels are not names themselves.
        dispersion: how much more the counts vary in time than independent rows would.
        finer: the same of blocks a quarter as long, a sixteenth, and so on.
        minimum_effect: the index that is still no drift.
    """

    name: str
    classes: tuple[int, ...]
    counts: tuple[Count, ...]
    names: tuple[str, ...] = ()
    dispersion: Dispersion = 1.0
    minimum_effect: Effect = MINIMUM_EFFECT
    finer: Scales = ()

    def __post_init__(self) -> None:
        limits.at_most("classes", len(self.classes), MAX_BINS)
        if len(set(self.classes)) < len(self.classes):
            twice = max(self.classes, key=self.classes.count)
            raise ValueError(f"class {twice} appears twice, expected it once")
        if len(self.counts) != len(self.classes) or len(self.names) not in {0, len(self.classes)}:
            raise ValueError(
                f"{len(self.counts)} counts and {len(self.names)} names for {len(self.classes)} classes, "
                "expected as many, or no names"
            )

    @property
    def cells(self) -> ClassCells:
        """The cells to count it in."""
        return ClassCells(self.classes)

    @property
    def bins(self) -> tuple[int, ...]:
        """The rows of each class."""
        return self.counts

    @property
    def extra(self) -> tuple[int, int, int]:
        """The rows that are missing, infinite and unseen: none."""
        return 0, 0, 0


ColumnBaseline = NumberBaseline | StringBaseline
PredictionBaseline = NumberBaseline | ClassBaseline
"""The baseline of the model's classes, or of its output if it has no classes."""

Reads = Literal["value", "largest"]
"""How an answer is read: the output's one number per row, or the largest of several, such as a classifier's confidence."""


class HoldOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a classifier got right of rows that it did not train on, which `expected_accuracy` goes by.

    Attributes:
        correct: the rows of each bin of its confidence that it was right about.
        variance: of the share of right answers from one part of the hold-out to the next, where the confidence is the same and
            beyond what chance gives.
    """

    correct: tuple[Count, ...]
    variance: Share = 0.0


class AnswerBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number of the model's answers that is watched beside its predictions.

    Attributes:
        output: the output that it is read from.
        reads: how.
        numbers: what it was for the training rows, or for those of the hold-out; its name is that of no column, and of no
            other answer.
        holdout: of a confidence, where there was a hold-out.
    """

    output: str
    reads: Reads
    numbers: NumberBaseline
    holdout: HoldOut | None = None

    def __post_init__(self) -> None:
        limits.utf8("output", self.output, limits.MAX_NAME * 4)
        if self.holdout is None:
            return
        pairs = list(zip(self.holdout.correct, self.numbers.counts, strict=False))
        if len(self.holdout.correct) != len(self.numbers.counts) or any(right > rows for right, rows in pairs):
            raise ValueError(
                f"correct is {self.holdout.correct} for {self.numbers.counts} rows of bins, expected as many bins, and no more "
                "than their rows"
            )

    @property
    def name(self) -> str:
        """What it is called."""
        return self.numbers.name

    @property
    def cells(self) -> AnswerCells:
        """The cells to count it in."""
        return AnswerCells(self.numbers.cells, self.output)


def _check_range(smallest: float | None, largest: float | None) -> None:
    if smallest is None and largest is None:
        return
    if smallest is None or largest is None or not -inf < smallest <= largest < inf:
        raise ValueError(f"smallest is {smallest} and largest {largest}, expected a finite range, or neither")


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The baselines of a specification's columns, in its order.

    Attributes:
        columns: one for each column of the specification.
        spec_digest: the specification's digest.
        predictions: the baseline of the model's predictions for the training rows; None if it was not run on them.
        answers: of more numbers of its answers.
        repeats: the share of the training rows that repeat a recent one, as `repeats` finds it; None where nobody looked.
        order: what the training rows are ordered by, as `order` has it.
        ordered_by: the columns that they are ordered by.
        joint: the rows by two columns at once; None where nobody counted them so.
        format: the format's version.
    """

    columns: tuple[ColumnBaseline, ...]
    spec_digest: str
    predictions: PredictionBaseline | None = None
    answers: tuple[AnswerBaseline, ...] = ()
    repeats: Share | None = None
    order: Order = "given"
    ordered_by: tuple[str, ...] = ()
    joint: JointBaseline | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format} is unknown, expected {FORMAT}")
        limits.at_most("columns", len(self.columns), limits.MAX_COLUMNS)
        limits.at_most("columns of order", len(self.ordered_by), limits.MAX_COLUMNS)
        for name in self.ordered_by:
            limits.name(name)
        limits.at_most("answers", len(self.answers), MAX_ANSWERS)
        taken = {column.name for column in self.watched[: -len(self.answers) or None]}
        for answer in self.answers:
            # So that a name alone says what an alarm or a report is about.
            if answer.name in taken:
                raise ValueError(f"answer {answer.name!r} has the name of a column or of another answer")
            taken.add(answer.name)
        limits.at_most("words of counts", len(self.watched) * self.cells_shape[1], MAX_WORDS)
        if self.joint is not None:
            self.joint.check({name: len(column.bins) for name, column in self._by_name.items()})

    @property
    def _by_name(self) -> dict[str, "ColumnBaseline | PredictionBaseline"]:
        """The columns by name, and the predictions by ""."""
        columns: dict[str, ColumnBaseline | PredictionBaseline] = {column.name: column for column in self.columns}
        return columns if self.predictions is None else columns | {"": self.predictions}

    @property
    def hardly_repeats(self) -> bool:
        """Whether a served row that repeats a recent one is a retry or a probe, since training rows hardly ever do."""
        return self.repeats is not None and self.repeats <= MOST_REPEATS

    @property
    def watched(self) -> tuple[ColumnBaseline | PredictionBaseline, ...]:
        """All that is counted: the columns, the predictions, and the other answers."""
        predictions = () if self.predictions is None else (self.predictions,)
        return (*self.columns, *predictions, *(answer.numbers for answer in self.answers))

    @property
    def bins(self) -> int:
        """B: the bins of the column, or of the answer, with most of them."""
        return max((len(column.bins) for column in self.watched), default=0)

    @property
    def cells(self) -> Cells:
        """The cells to count rows and answers in."""
        predictions = () if self.predictions is None else (AnswerCells(self.predictions.cells),)
        answers = (*predictions, *(answer.cells for answer in self.answers))
        return Cells(tuple(column.cells for column in self.columns), self.bins, answers)

    @property
    def joint_cells(self) -> JointCells | None:
        """The tables to count rows in by two columns at once."""
        if self.joint is None:
            return None
        return self.joint.cells({name: column.cells for name, column in self._by_name.items()})

    @property
    def joint_words(self) -> int:
        """The size of the counts of these tables, int64."""
        cells = self.joint_cells
        return 0 if cells is None else cells.words

    def cells_for(self, spec: FeatureSpec) -> Cells:
        """The same, for this specification's pipeline.

        Raises:
            InvalidInputError: the baseline is of another specification.
        """
        check(self, spec)
        return self.cells

    @property
    def cells_shape(self) -> tuple[int, int]:
        """The shape of its columns' counts, int64: columns, words."""
        return len(self.columns), counting.row_words(self.bins)


def encode(baseline: Baseline) -> bytes:
    """The baseline as JSON, as `decode` reads it."""
    return msgspec.json.encode(baseline)


_baselines: Final = msgspec.json.Decoder(Baseline)


def decode(data: bytes) -> Baseline:
    """Decodes a baseline from untrusted JSON; `check` says whether it fits its specification.

    Raises:
        InvalidInputError: not JSON, of another format, or invalid; it names the column.
    """
    return decode_file(data, _baselines, FORMAT, "drift baseline")


def check(baseline: Baseline, spec: FeatureSpec) -> None:
    """Checks that the baseline is of this specification, by its digest and its columns.

    Raises:
        InvalidInputError: it is of another specification; the sentence names what differs.
    """
    if baseline.spec_digest != digest(spec):
        raise InvalidInputError(
            f"the drift baseline is of the feature specification {baseline.spec_digest}, expected {digest(spec)}"
        )
    expected = [(column.name, _KINDS[type(column)]) for column in spec.columns]
    found = [(column.name, type(column)) for column in baseline.columns]
    if found != expected:
        names = ", ".join(column.name for column in spec.columns)
        raise InvalidInputError(f"the drift baseline has other columns than the specification, expected {names}")


_KINDS: Final[dict[type[Column], type[ColumnBaseline]]] = {
    NumberColumn: NumberBaseline,
    StringColumn: StringBaseline,
    TimeColumn: NumberBaseline,
}
