"""Runs a graph in batches of a few sizes, each in a session of its own, for devices that are slow at each change of size.

onnxruntime plans a convolution on CUDA anew whenever its input has another shape than the last one (since 1.20, with cuDNN 9):
some 6 ms for each, which ten of them repeat at each batch of another size. A session that sees one size only plans once. What
is too few for a size is filled up with copies of its last row, whose answers are dropped: only rows that are independent of
each other may be run so.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Feeds = dict[str, NDArray[Any]]
Run = Callable[[Sequence[str], Feeds], list[NDArray[Any]]]
"""Runs a graph as a session does: the names of outputs, and the inputs."""

SIZES: Final = (1, 4, 16, 64, 256, 1024, 4096)
_REPEATS: Final = 3
_LEAST_GAIN: Final = 0.9
"""A size whose rows cost more than this part of what they cost in the one before gives too little for a session's memory."""
_LONGEST_S: Final = 0.25
_CHANGE_S: Final = 0.001
_CHANGE: Final = 2.0
"""A change of size is slow if it takes this many times what the batch does, and a millisecond."""


@dataclass(frozen=True, slots=True)
class Sized:
    """What runs batches of one size, and what one takes."""

    run: Run
    took_s: float


def is_slow_at_changes(run: Callable[[int], object], clock: Callable[[], float] = perf_counter) -> bool:
    """Whether batches of another size than the last one take much longer; `run` runs one of so many rows."""
    same_s = changed_s = inf
    run(2)
    for _ in range(_REPEATS):
        started = clock()
        run(2)
        same_s = min(same_s, clock() - started)
    for _ in range(_REPEATS):
        run(1)
        started = clock()
        run(2)
        changed_s = min(changed_s, clock() - started)
    return changed_s > _CHANGE * same_s + _CHANGE_S


def opened(
    open_run: Callable[[], Run],
    outputs: Sequence[str],
    feeds_of: Callable[[int], Feeds],
    most: int,
    clock: Callable[[], float] = perf_counter,
) -> dict[int, Sized]:
    """What runs batches of each size that is worth a session; none where not even two are.

    Args:
        open_run: opens another session. It raises where there is no memory for it, and so does what it gives.
        outputs: the outputs' names.
        feeds_of: inputs of so many rows.
        most: the largest batch.
        clock: tells seconds.
    """
    found: dict[int, Sized] = {}
    for size in SIZES[: bisect_left(SIZES, most) + 1]:
        try:
            run = open_run()
            feeds, took_s = feeds_of(size), inf
            for _ in range(_REPEATS):
                started = clock()
                run(outputs, feeds)
                took_s = min(took_s, clock() - started)
        except Exception:  # noqa: BLE001 - onnxruntime's own, for want of memory
            break
        if found:
            last = max(found)
            if took_s / size > _LEAST_GAIN * found[last].took_s / last:
                break
        found[size] = Sized(run, took_s)
        if took_s > _LONGEST_S:
            break
    return found if len(found) > 1 else {}


def first_sizes(times_s: Mapping[int, float], most: int) -> list[int]:
    """By a batch's rows, from none to `most`, the size to run first of those that together take the least time."""
    least_s, first = [0.0], [min(times_s)]
    for rows in range(1, most + 1):
        took_s, size = min((each_s + least_s[max(0, rows - size)], size) for size, each_s in times_s.items())
        least_s.append(took_s)
        first.append(size)
    return first


class SizedBatches:
    """Runs batches of any size as batches of these.

    Attributes:
        sizes: they.
    """

    def __init__(self, sized: Mapping[int, Sized], batched: frozenset[str], most: int) -> None:
        """`batched` are the inputs whose first axis is the rows; batches have up to `most`, or are cut."""
        self.sizes = tuple(sorted(sized))
        self._runs = {size: each.run for size, each in sized.items()}
        self._batched = batched
        self._first = first_sizes({size: each.took_s for size, each in sized.items()}, max(most, self.sizes[-1]))

    def __call__(self, outputs: Sequence[str], feeds: Feeds) -> list[NDArray[Any]]:
        """The outputs for these inputs; raises what a session does."""
        rows = next(len(array) for name, array in feeds.items() if name in self._batched)
        parts: list[list[NDArray[Any]]] = []
        at = 0
        while at < rows or not parts:
            size = self._first[min(rows - at, len(self._first) - 1)]
            end = min(rows, at + size)
            part = {
                name: _filled(array[at:end], size) if name in self._batched else array for name, array in feeds.items()
            }
            parts.append([array[: end - at] for array in self._runs[size](outputs, part)])
            at = end
        return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _filled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """So many rows: these, and the last one over and over."""
    missing = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing and len(rows) else rows
