"""The file of answers: a worker writes a record for each answered row of a request with an id, and the joiner takes them.

It is a `ring` of records of 64 bytes; beside it lies a table of the versions that the records are about, as JSON.
"""

import threading
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server import atomic
from penstock_server.labels import layout
from penstock_server.labels.layout import MOST_ROWS
from penstock_server.labels.ring import LOST, RECORD_WORDS, OwnRing

KIND: Final = "predictions"
"""What the names of the files begin with."""
RECORDS: Final = 131072
"""How many there is room for: at 80,000 answered rows a second the joiner may be late by 1.6 s. 8 MiB."""
KEY, TIME_NS, VERSION_ROLE, ROW, PREDICTION, SCORE, WEIGHT = (
    at // 8
    for at in (
        layout.ANSWER_KEY, layout.ANSWER_TIME, layout.ANSWER_VERSION_ROLE, layout.ANSWER_ROW, layout.ANSWER_PREDICTION,
        layout.ANSWER_SCORE, layout.ANSWER_WEIGHT,
    )
)  # fmt: skip
"""Words of a record."""
ROLES: Final = ("champion", "canary", "shadow", "named")
"""By number."""

AnswerKind = Literal["class", "number"]


class Route(NamedTuple):
    """How a request came to the version that answers it.

    Attributes:
        role: that in which the version was chosen, as `layout` numbers them.
        weight: with which probability it was chosen; NaN where nothing was to be chosen.
    """

    role: int
    weight: float

    @property
    def is_named(self) -> bool:
        """Whether the request said which version it wants."""
        return self.role == layout.NAMED


NAMED: Final = Route(layout.NAMED, nan)
"""The request said which version it wants."""


class KeyedRows(NamedTuple):
    """The rows of a request with an id, in a batch.

    Attributes:
        place: of the request in the batch.
        key: of its id, as `keys` has them.
        start: where its rows begin in the batch.
        rows: how many of them are there.
        first: which of the request's rows is the first that is there.
    """

    place: int
    key: int
    start: int
    rows: int
    first: int = 0


class AnsweredVersion(msgspec.Struct, frozen=True):
    """What records are about.

    Attributes:
        identity: of the version's files.
        kind: "class" where predictions are class labels.
        class_names: names for class labels that are indices; empty when labels are numbers.
    """

    model: str
    version: str
    identity: str = ""
    kind: AnswerKind = "class"
    class_names: tuple[str, ...] = ()


_table: Final = msgspec.json.Decoder(tuple[AnsweredVersion, ...])


def table_of(ring: Path) -> Path:
    """Where the versions of a ring's records stand."""
    return ring.with_suffix(".json")


def read_table(ring: Path) -> tuple[AnsweredVersion, ...]:
    """The versions of a ring's records, by their places; none if it cannot be read."""
    try:
        return _table.decode(table_of(ring).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return ()


class PredictionWriter:
    """Writes records of one worker, on one thread; places in the table are given to any.

    Args:
        own: the worker's file.
    """

    def __init__(self, own: OwnRing) -> None:
        self.own = own
        self._versions = list(read_table(own.ring.path))
        self._lock = threading.Lock()

    def place_of(self, version: AnsweredVersion) -> int:
        """The version's place in the table, where it is written if it is new.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            if version not in self._versions:
                atomic.write(table_of(self.own.ring.path), msgspec.json.encode([*self._versions, version]))
                self._versions.append(version)
            return self._versions.index(version)

    def write(
        self,
        requests: Sequence[KeyedRows],
        routes: Sequence[Route],
        *,
        time_ns: int,
        place: int,
        predictions: NDArray[np.float64],
        scores: NDArray[np.float64],
    ) -> bool:
        """Writes the records of a batch's requests, all or none; false if there is no room, which is counted.

        Args:
            requests: with ids, of the batch.
            routes: how each of them came to the version.
            time_ns: when they were answered, since 1970.
            place: of the version.
            predictions: of the batch's rows, [N]; rows that a version gave no answer for have no records.
            scores: of the same rows, [N].
        """
        table = np.array([(row.start, row.rows, row.first) for row in requests], np.int64).reshape(-1, 3)
        starts, rows, firsts = table.T
        counts = np.maximum(0, np.minimum(np.minimum(rows, MOST_ROWS - firsts), len(predictions) - starts))
        of, total = np.repeat(np.arange(len(requests)), counts), int(counts.sum())
        within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        at = starts[of] + within
        records = np.zeros((total, RECORD_WORDS), np.int64)
        numbers: NDArray[np.float64] = records.view(np.float64)
        records[:, KEY] = np.array([request.key for request in requests], np.uint64).view(np.int64)[of]
        records[:, TIME_NS] = time_ns
        records[:, VERSION_ROLE] = place | np.array([role for role, _ in routes], np.int64)[of] << layout.ROLE_SHIFT
        records[:, ROW] = firsts[of] + within
        numbers[:, PREDICTION] = predictions[at]
        numbers[:, SCORE] = scores[at]
        numbers[:, WEIGHT] = np.array([weight for _, weight in routes], np.float64)[of]
        is_written = self.own.ring.append(records)
        if not is_written:
            self.own.ring.words[LOST] += total
        return is_written
