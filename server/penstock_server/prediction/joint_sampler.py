"""Counts a sample of a version's rows by two columns at once (`features.joint`), in a bounded share of the reactor's time.

A batch is counted when the next one is due, after its answers have left. Kernels that run a version's batches leave that one to
Python. Which batch it is depends on the time alone, so the sample is that of the traffic.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.cells import JointCells
from penstock_server.features.joint import JointCounter
from penstock_server.models.servable import Outputs, Servable
from penstock_server.prediction.outputs import OutputReader
from penstock_server.prediction.work import Work

INTERVAL_NS: Final = 100_000_000
"""About the time from one batch to the next, on average."""
TIMES: Final = 200
"""It is so many times as long as counting one takes, at least: half a percent of a core."""


class JointSampler:
    """Decides when a batch is counted, and has it counted; on the reactor's thread.

    Args:
        servable: the version, of which it needs the form of blocks.
        counter: counts.
        clock_ns: the system's monotonic clock, which kernels read.
        fraction: a random number from 0 up to 1 at each call.

    Attributes:
        due_ns: int64 [1], when the next batch is to be counted; kernels read it.
    """

    def __init__(
        self,
        servable: Servable,
        counter: JointCounter,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._servable = servable
        self._counter = counter
        self._clock_ns = clock_ns
        self._fraction = fraction
        self.due_ns = np.zeros(1, np.int64)
        self._due_ns = self.due_ns.data
        self._due_ns[0] = clock_ns()

    @property
    def is_due(self) -> bool:
        """Whether the next batch is to be counted."""
        return self._clock_ns() >= self._due_ns[0]

    def sample(self, work: Work, outputs: Outputs, reader: OutputReader) -> None:
        """Counts rows of a batch that ran, if the next is due, and it holds something new and nothing that is refused.

        If it does not, the next is due later all the same: kernels leave to Python each batch that comes while one is due.
        """
        if not self.is_due:
            return
        if work.is_repeat or outputs.refusal is not None:
            self._pause(self._clock_ns())
        else:
            self.count(work.blocks, work.rows, reader.predicted(outputs.arrays))

    def count(self, blocks: Sequence[bytes], rows: int, predicted: NDArray[Any] | None) -> None:
        """Counts rows of a batch.

        Args:
            blocks: its rows, as the version takes them.
            rows: how many there are.
            predicted: for each row the label of its class, or its score; others than one per row are left out.
        """
        began_ns = self._clock_ns()
        if rows:
            is_per_row = predicted is not None and len(predicted) == rows
            numbers, others = self._servable.counted(blocks, rows)
            self._counter.add(numbers, others, rows, predicted if is_per_row else None)
        self._pause(began_ns)

    def _pause(self, began_ns: int) -> None:
        ended_ns = self._clock_ns()
        # Not at even intervals: traffic may have a rhythm.
        pause_ns = max(INTERVAL_NS, TIMES * (ended_ns - began_ns)) * (0.5 + self._fraction())
        self._due_ns[0] = ended_ns + int(pause_ns)


def joint_sampler(servable: Servable, cells: JointCells, counts: NDArray[np.int64]) -> JointSampler | None:
    """What samples the rows of a version; None where none of its columns are counted.

    Args:
        servable: the version.
        cells: the tables to count in.
        counts: int64 [`cells.words`], added to.
    """
    columns = servable.counted_columns
    if columns is None:
        return None
    counter = JointCounter(cells, numbers=columns.numbers, times=columns.times, strings=columns.strings, counts=counts)
    return JointSampler(servable, counter)
