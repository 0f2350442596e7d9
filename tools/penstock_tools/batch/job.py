"""What a job is, and what became of its parts: the records that inputs, engines and outputs share.

A job scores an input in parts. A part's answers and its result become known together or not at all, so a job that was killed
goes on with the parts that have none, and each row is answered once.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.names import VersionKey

BATCH_ROWS: Final = 65_536
"""Rows that are read and scored at once; a part has several such batches."""
PART_ROWS: Final = 262_144


@dataclass(frozen=True, slots=True)
class Part:
    """Successive rows of an input.

    Attributes:
        number: from 0.
        first_row: the number of its first row in the input.
        place: where it is, for people.
        batches: reads them; it can be sent to another process.
    """

    number: int
    first_row: int
    place: str
    batches: Callable[[], Iterable[pa.RecordBatch]]


class Input(Protocol):
    """Rows to be scored, in an order that is the same each time.

    Attributes:
        schema: of the rows.
        rows: how many there are; None where that is not known before they are read.
        is_anywhere: any process, on any machine that sees the input, can read a part.
        identity: tells whether it has changed.
    """

    schema: pa.Schema
    is_anywhere: bool
    identity: str

    @property
    def rows(self) -> int | None: ...

    def narrow(self, names: Collection[str]) -> None:
        """Reads only these columns."""
        ...

    def parts(self) -> Iterator[Part]:
        """All parts in their order."""
        ...


class PartResult(msgspec.Struct, frozen=True):
    """What became of a part.

    Attributes:
        part: its number.
        rows: that were answered.
        bad: the rows that were not, as an Arrow stream with their number, column and reason; empty where there are none.
        bad_rows: how many.
        counted: rows that were counted for drift.
        words: the counts, int64 as bytes, as `features.counting` lays them out.
        columns: how many columns they are of.
        classes: rows by predicted class.
        took_s: the seconds of one core that scoring took, without reading and writing.
    """

    part: int
    rows: int
    bad: bytes = b""
    bad_rows: int = 0
    counted: int = 0
    words: bytes = b""
    columns: int = 0
    classes: dict[int, int] = {}
    took_s: float = 0.0

    def counts(self) -> NDArray[np.int64]:
        """The counts, int64 [columns, words]."""
        return (
            np.frombuffer(self.words, np.int64).reshape(self.columns, -1)
            if self.columns
            else np.empty((0, 0), np.int64)
        )


class Output(Protocol):
    """Where answers go. Parts may be written by several processes, each with an output of its own made by pickling."""

    def is_finished(self, name: str) -> bool:
        """Whether the job of this name has written its answers; none of a job without one."""
        ...

    def begin(self, job: "Job", schema: pa.Schema) -> Mapping[int, PartResult] | None:
        """Prepares for a job, or goes on with it.

        Returns:
            What became of parts that are written already; None where the job is finished, and was killed after that.

        Raises:
            InvalidInputError: there is something else, such as another job that was not finished.
        """
        ...

    def write(self, answers: pa.Table, result: PartResult) -> None:
        """Writes a part with its result, both or none; nothing if it is there already."""
        ...

    def finish(self, results: Sequence[PartResult]) -> None:
        """Makes all parts visible at once, and forgets the job's parts."""
        ...


class Job(msgspec.Struct, frozen=True):
    """A job, as outputs keep it.

    Attributes:
        id: differs between jobs of which one cannot go on where another stopped.
        name: as somebody gave it; one of that name that is finished is not done again.
        key: the model and its version.
        input, output: their addresses, without secrets.
        part_rows: about the rows of a part.
    """

    id: str
    name: str
    key: VersionKey
    input: str
    output: str
    part_rows: int


def job_id(*parts: Any) -> str:
    """Sixteen hexadecimal digits that tell jobs apart."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a process needs to score parts.

    Attributes:
        folder: of the version.
        key: the model and its version.
        keep, columns, prefix: as `scoring.Scorer` takes them.
        sets_aside: bad rows are set aside; else the first one ends the job.
        allows_python: as `Scorer` takes it.
        output: where answers go.
    """

    folder: Path
    key: VersionKey
    keep: tuple[str, ...]
    columns: tuple[str, ...]
    prefix: str
    sets_aside: bool
    allows_python: bool
    output: Output


def waiting(parts: Iterable[Part], done: Collection[int]) -> Iterator[Part]:
    """The parts that are not done."""
    return (part for part in parts if part.number not in done)
