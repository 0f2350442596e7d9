"""The flights as requests: thinned to the rows wanted, in the order of time, a few rows each.

Decides what a request holds and which key it is routed by. Sending is `traffic`'s business.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock_tools.demo import flights

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one request.

    Attributes:
        month: of 2013, that of the first row.
        key: the routing key, the number of the first flight: a flight meets one version every day.
        rows: columns by name.
        answers: the truth, of shape [rows]: 1 where the flight arrived late, else 0.
    """

    month: int
    key: str
    rows: dict[str, NDArray[Any]]
    answers: NDArray[np.int64]


def thinned(frame: "pd.DataFrame", rows: int) -> "pd.DataFrame":
    """At most that many rows of the frame, evenly spaced, in its order."""
    if rows >= len(frame):
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, rows).astype(np.int64)]


def batches(frame: "pd.DataFrame", size: int) -> Iterator[Batch]:
    """The frame in its order, `size` rows at a time; the last may have fewer."""
    table, answers = flights.table(frame), flights.answers(frame)
    months, carriers, numbers = (frame[name].to_numpy() for name in ("month", "carrier", "flight"))
    for start in range(0, len(frame), size):
        part = slice(start, start + size)
        yield Batch(
            month=int(months[start]),
            key=f"{carriers[start]}{numbers[start]}",
            rows={name: column[part] for name, column in table.items()},
            answers=answers[part],
        )


def until(is_done: Callable[[], bool], stream: Iterable[Batch], *, at_most: int) -> Iterator[Batch]:
    """The stream, and then its last batch again for as long as something is not done, but so many times at most."""
    last: Batch | None = None
    for batch in stream:
        last = batch
        yield batch
    for _ in range(at_most):
        if last is None or is_done():
            return
        yield last
