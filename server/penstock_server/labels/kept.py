"""The labels that a joiner has joined with answers, by request id: read from its files, for trainers and for replays.

Nothing is written, so a joiner may run meanwhile; what it joins later is not seen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.labels import state
from penstock_server.labels.keys import keys_of
from penstock_server.labels.segment import ROW, ROWS
from penstock_server.labels.store import ANSWERS
from penstock_server.labels.subjects import Subject

_MIXING: Final = np.uint64(0x9E3779B97F4A7C15)


class KeptLabels:
    """The labels of a model's answers.

    Args:
        folder: of the labels, as `[labels] folder` names it.
        model: the model's name.

    Raises:
        InvalidInputError: the folder holds none.
        OSError: a file cannot be read.
    """

    def __init__(self, folder: Path, model: str) -> None:
        kept = state.peek(folder)
        self._model = model
        self._subjects = kept.subjects
        of_model = np.array([subject.version.model == model for subject in kept.subjects], np.bool_)
        parts = []
        for segment in kept.segments:
            path = folder / ANSWERS / f"{segment.number:012d}{ROWS}"
            try:
                rows = np.memmap(path, ROW, "r", shape=(segment.rows,)) if segment.rows else np.zeros(0, ROW)
            except FileNotFoundError:
                continue  # the joiner has let go of it since
            # Labels of later steps may be half written; of a label that is no class there is no truth.
            is_there = (rows["label_step"] > 0) & (rows["label_step"] <= kept.step) & ~np.isnan(rows["label"])
            found = rows[is_there]
            parts.append(found[of_model[found["subject"]]])
        rows = np.concatenate([np.zeros(0, ROW), *parts])
        places = _mixed(rows["key"], rows["row"])
        # Answers of several versions to one row have the same label.
        self._places, first = np.unique(places, return_index=True)
        self._labels: NDArray[np.float64] = rows["label"][first]
        self._subject_of: NDArray[np.uint32] = rows["subject"][first]

    def __len__(self) -> int:
        return len(self._places)

    def of(self, ids: Sequence[str], rows: Sequence[int]) -> list[str | float | None]:
        """The label of each row of these requests: a class by its name, or a number; None where there is none."""
        wanted = _mixed(keys_of(self._model, [each.encode() for each in ids]), np.array(rows, np.uint64))
        if not len(self._places):
            return [None] * len(wanted)
        at = np.minimum(np.searchsorted(self._places, wanted), len(self._places) - 1)
        is_there = self._places[at] == wanted
        return [self._told(one) if known else None for one, known in zip(at.tolist(), is_there.tolist(), strict=True)]

    def _told(self, at: int) -> str | float:
        label, subject = float(self._labels[at]), self._subjects[int(self._subject_of[at])]
        return _name(subject, label)


def _mixed(keys: NDArray[np.uint64], rows: NDArray[np.uint32] | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A number for each row of a request, as unlikely to be that of another one as its key is."""
    mixed: NDArray[np.uint64] = keys ^ rows.astype(np.uint64) * _MIXING
    return mixed


def _name(subject: Subject, label: float) -> str | float:
    names = subject.version.class_names
    if subject.version.kind == "number" or not label.is_integer():
        return label
    return names[int(label)] if 0 <= label < len(names) else int(label)
