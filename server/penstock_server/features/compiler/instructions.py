"""The draft of a program: instructions over numbered values, and the data that they point to.

`lower` appends to a `Draft`, and `program` encodes it. Each value is written once. `passes` decides later, from its
last read, which register holds it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_server.features.compiler import layout
from penstock_server.features.spec import limits

MAX_WORDS: Final = 1 << 24
"""The most words that a program may take while it is written: 128 MiB."""
MAX_ENTRIES: Final = 1 << 18
"""The most entries that its instructions may have together."""

UNSEEN: Final = "holds a value of {} that the training data did not have, expected one that it had"
MISSING: Final = "has no value of {}, expected one: this version takes no missing value there"
LARGE: Final = "holds a value of {} that is infinite or too large, expected a magnitude of at most"

Value = int
"""A column of numbers while a program is written, by its number."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One column's part of an instruction: what it reads, what it writes, and the words after that.

    Attributes:
        writes: values whose registers must be side by side.
    """

    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    words: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Instruction:
    """One operation for several columns; `layout` says what its entries' words mean."""

    operation: int
    entries: tuple[Entry, ...]


@dataclass(slots=True)
class Draft:
    """The instructions and data so far.

    Attributes:
        refusals: for each refusal what its row does, such as "holds a value of 'age' that ...".
        shared: the positions of tables that several instructions may read, by what they are made of.
        counted: the most columns that an encoder of grams counts in.
        summed: the most columns that one projects onto.
        text_growth: the most bytes that a byte of a text becomes when it is prepared; 0 where none is.
    """

    instructions: list[Instruction] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    values: int = 0
    size: int = layout.HEADER_WORDS
    data: list[NDArray[np.int64]] = field(default_factory=list)
    taken: int = 0
    entries: int = 0
    shared: dict[Hashable | None, int] = field(default_factory=dict)
    counted: int = 0
    summed: int = 0
    text_growth: int = 0

    def new(self, count: int = 1) -> tuple[Value, ...]:
        """Values that nothing has written yet."""
        self.take(count)
        first = self.values
        self.values += count
        return tuple(range(first, first + count))

    def append(self, operation: int, entries: Sequence[Entry]) -> None:
        """Appends an instruction, unless it would do nothing."""
        self.entries += len(entries)
        limits.at_most("columns to work on", self.entries, MAX_ENTRIES)
        if entries:
            self.instructions.append(Instruction(operation, tuple(entries)))

    def put(self, words: ArrayLike) -> int:
        """The position of these words among the data."""
        block = np.asarray(words, np.int64)
        self.take(len(block))
        at = self.size
        self.size += len(block)
        self.data.append(block)
        return at

    def put_reals(self, values: ArrayLike) -> int:
        """The position of these numbers among the data, None as NaN."""
        return self.put(np.asarray(values, np.float64).ravel().view(np.int64))

    def take(self, words: int) -> None:
        """Counts `words` towards the program's limit; called before they are made."""
        self.taken += words
        limits.at_most("words in its program", self.taken, MAX_WORDS)

    @property
    def state_words(self) -> int:
        """The scratch that counting grams needs: encoders share it, one after another."""
        return layout.RING + 3 * self.counted + self.summed if self.counted else 0

    def refusal(self, column: str, reason: str = UNSEEN) -> int:
        """The number of a new refusal about this column; `reason` has a place for its name."""
        self.refusals.append(reason.format(column))
        return len(self.refusals) - 1

    def refuse(self, value: Value, column: str, *, missing: bool, largest: float | None) -> None:
        """Refuses the rows whose value is NaN, if `missing`, or of a larger magnitude than `largest`."""
        if missing:
            (is_nan,) = written = self.new()
            self.append(layout.IS_NAN, [Entry((value,), written)])
            # A code of 1 is none of the codes below 1.
            self.append(layout.REFUSE_CODE, [Entry((is_nan,), (), (1, self.refusal(column, MISSING)))])
        if largest is not None:
            words = (bits(-largest), bits(largest), self.refusal(column, f"{LARGE} {largest:.6g}"))
            self.append(layout.REFUSE_OUTSIDE, [Entry((value,), (), words)])


def bits(value: float | None) -> int:
    """A real number as a word, None as NaN."""
    return int(np.float64(np.nan if value is None else value).view(np.int64))
