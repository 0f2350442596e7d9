"""The file of labels: a worker acknowledges a label when it lies there, and the joiner takes it.

It is a `ring` of records as `wire` has them. A label that finds no room is refused, never dropped: its sender sends it again.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import LimitedError
from penstock_server.labels.ring import LOST, OwnRing

KIND: Final = "labels"
"""What the names of the files begin with."""
PLACES: Final = 131072
"""Room for labels of 2.6 s at 50,000 a second, where the joiner takes them within one: 8 MiB per worker."""

PAUSE_S: Final = 0.5
"""When a sender of labels that found no room is told to try again."""


class LabelWriter:
    """Writes a worker's labels; on the reactor's thread.

    Args:
        folder: of all files of labels.
        slot: the worker's.

    Raises:
        OSError: there is no room for the file.
    """

    def __init__(self, folder: Path, slot: int, *, places: int = PLACES) -> None:
        self._own = OwnRing(folder, KIND, slot, places)

    def take(self, records: NDArray[np.int64]) -> None:
        """Takes all of these labels. When this returns they outlive this process.

        Raises:
            LimitedError: there is no room for them; none is taken.
        """
        ring = self._own.ring
        if not ring.append(records):
            ring.words[LOST] += len(records)
            raise LimitedError("labels come faster than they are joined; try again soon", PAUSE_S)

    def close(self) -> None:
        """Leaves the file to the joiner, and to the next worker."""
        self._own.close()
