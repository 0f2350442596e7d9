"""Records of what a version answered to requests with ids, for labels that come later: how they are read, and who writes them.

Kernels write those of plain requests (`plain.kernels.records`), and are told here where everything is. The reactor's thread and
the shadow's thread have a file each, so that neither waits for the other.
"""

import time
from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.labels import layout as record_layout
from penstock_server.labels.keys import key_of
from penstock_server.labels.prediction_file import KIND, RECORDS, AnsweredVersion, KeyedRows, PredictionWriter, Route
from penstock_server.labels.ring import OwnRing
from penstock_server.models.servable import Servable
from penstock_server.models.signature import TensorInfo
from penstock_server.plain import layout
from penstock_server.prediction.outputs import Arrays, ClassReader, LabelOutput, Largest, OutputReader
from penstock_server.rollout.plan import salt_of

_OF_SHADOW: Final = Route(record_layout.SHADOW, nan)


class Predicted(NamedTuple):
    """What a batch's records say of its rows: float64 [N] each; a score is NaN where there is none."""

    predictions: NDArray[np.float64]
    scores: NDArray[np.float64]


class PredictionReader(NamedTuple):
    """How a version's predictions are read from its outputs.

    Attributes:
        classes: reads the label of a row's class; None where there is none.
        number: the output that is the prediction then, one number for each row.
        score: the output with the scores; None where there are none.
    """

    classes: ClassReader | None
    number: int | None
    score: int | None

    def read(self, outputs: Arrays) -> Predicted:
        """The predictions and scores of a batch."""
        if self.classes is not None:
            predictions = self.classes(outputs)
        else:
            assert self.number is not None
            predictions = outputs[self.number].reshape(-1)
        rows = len(predictions)
        scores = np.full(rows, nan) if self.score is None else _scores(outputs[self.score], rows)
        return Predicted(predictions.astype(np.float64), scores)


def _scores(array: NDArray[Any], rows: int) -> NDArray[np.float64]:
    """The score of each row: a single one, the second of two, or the largest of more; NaN if they have none."""
    if not rows or array.size % rows or not array.size:
        return np.full(rows, nan)
    by_row = array.reshape(rows, -1)
    found = by_row[:, -1] if by_row.shape[1] <= 2 else by_row.max(axis=1)
    return found.astype(np.float64)


def prediction_reader(reader: OutputReader, specs: Sequence[TensorInfo]) -> PredictionReader | None:
    """How predictions are read; None of a version that gives neither a class nor one number for each row.

    Args:
        reader: of the version's outputs.
        specs: of the same outputs.
    """
    if reader.classes is not None:
        score = reader.classes.output if isinstance(reader.classes, Largest) else reader.score
        return PredictionReader(reader.classes, None, score)
    number = reader.score
    if number is None or any(size != 1 for size in specs[number].shape[1:]):
        return None
    return PredictionReader(None, number, None)


class VersionRecords:
    """Writes the records of one version.

    Args:
        writer: of the reactor's thread.
        shadow_writer: of the shadow's.
        version: what the records are about.
        reader: of its predictions.
        unix_ns: the time since 1970.

    Attributes:
        reader: the same.
        words: what kernels write them by, as `plain.layout` has it.

    Raises:
        OSError: the version cannot be written down.
    """

    def __init__(
        self,
        writer: PredictionWriter,
        shadow_writer: PredictionWriter,
        version: AnsweredVersion,
        reader: PredictionReader,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.reader = reader
        self._writer = writer
        self._shadow_writer = shadow_writer
        self._model = version.model
        self._place = writer.place_of(version)
        self._shadow_place = shadow_writer.place_of(version)
        self._unix_ns = unix_ns
        self.words = np.zeros(layout.RECORDING_BYTES // 8, np.int64)
        salt = salt_of(version.model)
        for at, value in (
            (layout.J_RING, writer.own.ring.words.ctypes.data),
            (layout.J_VERSION, self._place),
            (layout.J_SALT, int.from_bytes(salt[:8], "little", signed=True)),
            (layout.J_SALT_2, int.from_bytes(salt[8:], "little", signed=True)),
            (layout.J_SCORE_OUTPUT, layout.NONE),
        ):
            self.words[at // 8] = value

    def key_of(self, request_id: bytes) -> int:
        """The key of an id."""
        return key_of(self._model, request_id)

    def write(self, requests: Sequence[KeyedRows], routes: Sequence[Route], predicted: Predicted) -> None:
        """Writes the records of requests that were answered, with the route of each; on the reactor's thread."""
        if requests:
            self._writer.write(
                requests,
                routes,
                time_ns=self._unix_ns(),
                place=self._place,
                predictions=predicted.predictions,
                scores=predicted.scores,
            )

    def write_shadow(self, requests: Sequence[KeyedRows], outputs: Arrays) -> None:
        """Writes what the version gave as the shadow; on the shadow's thread."""
        if requests:
            predictions, scores = self.reader.read(outputs)
            self._shadow_writer.write(
                requests,
                [_OF_SHADOW] * len(requests),
                time_ns=self._unix_ns(),
                place=self._shadow_place,
                predictions=predictions,
                scores=scores,
            )


class RecordFiles:
    """The files of a worker.

    Args:
        folder: where they are.
        slot: the worker's.
        places: of a new file.

    Raises:
        OSError: there is no room, or they cannot be written.
    """

    def __init__(self, folder: Path, slot: int, places: int = RECORDS) -> None:
        # What one thread has locked, the other finds in use, and takes another.
        self._writer, self._shadow_writer = (PredictionWriter(OwnRing(folder, KIND, slot, places)) for _ in range(2))

    def of(self, servable: Servable, reader: OutputReader, identity: str) -> VersionRecords | None:
        """What writes a version's records; None if it predicts nothing that a label could be compared with.

        Args:
            servable: the version.
            reader: of its outputs.
            identity: of its files.

        Raises:
            OSError: the version cannot be written down.
        """
        found = prediction_reader(reader, servable.outputs)
        if found is None:
            return None
        manifest = servable.artifact.manifest
        names = () if manifest is None or manifest.classes is None else tuple(map(str, manifest.classes))
        version = AnsweredVersion(
            *servable.key,
            identity,
            "number" if found.classes is None else "class",
            () if isinstance(found.classes, LabelOutput) else names,
        )
        return VersionRecords(self._writer, self._shadow_writer, version, found)
