"""One process's share of a job: reads a part, scores it, and has it written with its result."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock_server.errors import InvalidInputError
from penstock_server.models import artifact
from penstock_tools.batch.job import Part, PartResult, Recipe
from penstock_tools.batch.scoring import BadRow, Scorer

ROW, COLUMN, REASON = "penstock_row", "penstock_column", "penstock_reason"
"""What goes beside the columns of a bad row."""


class Worker:
    """Scores parts, one after the other.

    Raises:
        InvalidInputError: the version cannot be loaded.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._scorer = Scorer(
            artifact.read(recipe.folder),
            recipe.key,
            keep=recipe.keep,
            columns=recipe.columns,
            prefix=recipe.prefix,
            allows_python=recipe.allows_python,
        )

    @property
    def columns(self) -> pa.Schema:
        """As `Scorer.columns`."""
        return self._scorer.columns

    def schema(self, given: pa.Schema, keep: Sequence[str]) -> pa.Schema:
        """As `Scorer.schema`, with these columns beside the answers."""
        return self._scorer.schema(given, keep)

    def close(self) -> None:
        """Frees what the version holds."""
        self._scorer.close()

    def score(self, part: Part) -> PartResult:
        """Scores a part and writes it.

        Raises:
            InvalidInputError: a row is bad and bad rows are not set aside; names the row, its column and where it is.
            UnavailableError: the part cannot be read, or the answers cannot be written.
        """
        self._scorer.take_counts()  # of a part that failed
        sums = _Sums(part.first_row)
        for batch in part.batches():
            began = time.thread_time()
            scored = self._scorer.score(batch)
            sums.took_s += time.thread_time() - began
            if scored.bad and not self._recipe.sets_aside:
                raise InvalidInputError(
                    f"{part.place}: {scored.bad[0].told(sums.first)}; --bad-rows FILE sets such rows aside"
                )
            sums.add(batch, scored.answers, scored.bad)
        counted = self._scorer.take_counts()
        result = PartResult(
            part.number,
            sums.rows,
            _stream(sums.bad),
            sum(map(len, sums.bad)),
            counted.rows,
            counted.words.tobytes(),
            len(counted.words),
            counted.classes,
            sums.took_s,
        )
        self._recipe.output.write(pa.Table.from_batches(sums.answers), result)
        return result


class _Sums:
    """What was scored of a part; `first` is the number of the next row."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.rows = 0
        self.took_s = 0.0
        self.answers: list[pa.RecordBatch] = []
        self.bad: list[pa.Table] = []

    def add(self, batch: pa.RecordBatch, answers: pa.RecordBatch, bad: tuple[BadRow, ...]) -> None:
        self.answers.append(answers)
        self.rows += answers.num_rows
        if bad:
            self.bad.append(_bad_table(batch, bad, self.first))
        self.first += batch.num_rows


def _bad_table(batch: pa.RecordBatch, bad: tuple[BadRow, ...], first: int) -> pa.Table:
    places = np.array([each.row for each in bad], np.int64)
    rows = pa.Table.from_batches([batch]).take(pa.array(places))
    added: dict[str, Any] = {
        ROW: pa.array(places + first),
        COLUMN: pa.array([each.column for each in bad], pa.string()),
        REASON: pa.array([each.reason for each in bad], pa.string()),
    }
    return pa.table(added | {name: rows[name] for name in rows.column_names})


def _stream(tables: list[pa.Table]) -> bytes:
    if not tables:
        return b""
    sink = pa.BufferOutputStream()
    whole = pa.concat_tables(tables)
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    content: bytes = sink.getvalue().to_pybytes()
    return content
