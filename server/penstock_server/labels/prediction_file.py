"""The file of answers: a worker writes a record for each answered row of a request with an id, and the joiner takes them.

It is a `ring` of records of 64 bytes; beside it lies a table of the versions that the records are about, as JSON.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server import atomic
from penstock_server.labels.ring import LOST, OwnRing

KIND: Final = "predictions"
"""What the names of the files begin with."""
RECORDS: Final = 131072
"""How many there is room for: at 80,000 answered rows a second the joiner may be late by 1.6 s. 8 MiB."""
KEY, TIME_NS, VERSION_ROLE, ROW, PREDICTION, SCORE, WEIGHT = range(7)
"""Words of a record: the first 8 bytes, as a little-endian number, of BLAKE2b of the id with the model's salt
(`rollout.plan.salt_of`); when it was answered, in nanoseconds since 1970; the version's place in the table, and its role from
bit 32 on; the row in its request; and three numbers of float64: the prediction (a class label as it is counted, or a number),
the score (the probability of the second of two classes, of more the largest probability; NaN for none), and the share of the
traffic that the version had (NaN where the request named it)."""
ROLES: Final = ("champion", "canary", "shadow", "named")
"""By number."""

AnswerKind = Literal["class", "number"]


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
    """Writes a worker's records.

    Args:
        own: the worker's file.
    """

    def __init__(self, own: OwnRing) -> None:
        self.own = own
        self._versions = list(read_table(own.ring.path))

    def place_of(self, version: AnsweredVersion) -> int:
        """The version's place in the table, where it is written if it is new."""
        if version not in self._versions:
            self._versions.append(version)
            atomic.write(table_of(self.own.ring.path), msgspec.json.encode(self._versions))
        return self._versions.index(version)

    def write(
        self,
        key: int,
        *,
        time_ns: int,
        place: int,
        role: int,
        predictions: Sequence[float],
        scores: Sequence[float] = (),
        weight: float = math.nan,
    ) -> bool:
        """Writes the records of one request's rows; false if there is no room, which is counted."""
        records = np.zeros((len(predictions), 8), np.int64)
        numbers: NDArray[np.float64] = records.view(np.float64)
        records[:, KEY] = np.uint64(key).astype(np.int64)
        records[:, TIME_NS] = time_ns
        records[:, VERSION_ROLE] = place | role << 32
        records[:, ROW] = np.arange(len(predictions))
        numbers[:, PREDICTION] = predictions
        numbers[:, SCORE] = scores if len(scores) else math.nan
        numbers[:, WEIGHT] = weight
        is_written = self.own.ring.append(records)
        if not is_written:
            self.own.ring.words[LOST] += len(records)
        return is_written
