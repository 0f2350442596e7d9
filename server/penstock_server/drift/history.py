"""What was counted since each of some moments: dense lately and sparser long ago, in bounded memory.

Counts come in slices. Slices lie in levels; where a level is full its two oldest become one of the next level, so a slice's
length is always a small share of its age (an exponential histogram: Datar, Gionis, Indyk and Motwani, 2002). From the slices
also follows how much the counts vary in time, on the scale of each level.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift import statistics

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]

PER_LEVEL: Final = 12
LEVELS: Final = 8
"""Twelve slices in each of eight levels reach back 3,060 slices, and the oldest are as long as a twelfth of their age."""
MOST_BYTES: Final = 32 << 20
LEAST_LEVELS: Final = 3
LEAST_PAIRS: Final = 5
LEAST_FREEDOM: Final = PER_LEVEL - 3
"""With fewer neighbours, or fewer degrees of freedom in what they differ by, it is not known how much counts vary. A full level
has eleven slices at least, of which one pair is left out: a column of two values has one degree in each of the others."""
_SIGMAS: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Counts of successive rows.

    Attributes:
        cells: int32 [columns, cells].
        began_s: when its first row may have come, in seconds since 1970.
    """

    cells: NDArray[np.int32]
    began_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Starts:
    """What was counted from each beginning of a slice until now.

    Attributes:
        cells: int64 [starts, columns, cells], the latest start first.
        began_s: float64 [starts].
    """

    cells: Integers
    began_s: Reals


class History:
    """The slices of one version's counts.

    Args:
        shape: columns and cells of the counts.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        columns, cells = shape
        levels = MOST_BYTES // max(1, 4 * columns * cells * PER_LEVEL)
        # Each the newest last.
        self._levels: list[list[Slice]] = [[] for _ in range(min(LEVELS, max(LEAST_LEVELS, levels)))]

    def add(self, cells: Integers, began_s: float) -> None:
        """Adds the newest slice, int64 [columns, cells]; forgets the oldest where there is no room."""
        new = Slice(cells.astype(np.int32), began_s)
        for level in self._levels:
            level.append(new)
            if len(level) <= PER_LEVEL:
                return
            older, newer = level.pop(0), level.pop(0)
            new = Slice(older.cells + newer.cells, older.began_s)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All that is kept, as `restore` takes it."""
        parts = [(at, part) for at, level in enumerate(self._levels) for part in level]
        return {
            "level": np.array([at for at, _ in parts], np.int64),
            "began_s": np.array([part.began_s for _, part in parts], np.float64),
            "cells": np.array([part.cells for _, part in parts], np.int32).reshape(len(parts), *self.shape),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Puts what was kept in place of what there is.

        Raises:
            ValueError: it is of another shape.
        """
        level, began_s, cells = arrays["level"], arrays["began_s"], arrays["cells"]
        if cells.shape != (len(level), *self.shape) or began_s.shape != level.shape or cells.dtype != np.int32:
            raise ValueError(f"the slices are {list(cells.shape)}, expected those of counts {list(self.shape)}")
        if len(level) and not 0 <= level.min() <= level.max() < len(self._levels):
            raise ValueError(f"there are levels up to {level.max()}, expected {len(self._levels)} levels")
        self._levels = [[] for _ in self._levels]
        for at, began, counted in zip(level.tolist(), began_s.tolist(), cells, strict=True):
            self._levels[at].append(Slice(counted, began))

    @property
    def starts(self) -> Starts:
        """What was counted since each slice began."""
        slices = [part for level in self._levels for part in reversed(level)]
        if not slices:
            return Starts(np.zeros((0, *self.shape), np.int64), np.zeros(0))
        cells = np.cumsum(np.array([part.cells for part in slices]), axis=0, dtype=np.int64)
        return Starts(cells, np.array([part.began_s for part in slices]))

    @property
    def dispersions(self) -> tuple[Reals, Reals]:
        """How much counts vary from slice to slice on the scale of each level, as a multiple of what independent rows do.

        Neighbours are compared, and of each level the pair that differs most is left out: so a lasting change does not count
        as variation. A level that does not vary significantly more than independent rows has 1.

        Returns:
            The mean rows of a slice, float64 [levels]; and the multiples, float64 [levels, columns], 1 or more, NaN where too
            little was seen to tell.
        """
        sizes, found = np.full(len(self._levels), np.inf), np.full((len(self._levels), self.shape[0]), np.nan)
        for at, level in enumerate(self._levels):
            if len(level) > LEAST_PAIRS:
                cells = np.array([part.cells for part in level], np.float64)
                sizes[at] = cells.sum(axis=2).max(axis=1).mean()
                found[at] = _dispersion(cells)
        return sizes, found


def _dispersion(cells: Reals) -> Reals:
    """The multiples of one level, [columns], from float64 [slices, columns, cells]."""
    differences, freedom = statistics.neighbours(cells)
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = np.nan_to_num(differences / freedom).argmax(axis=0)
    columns = np.arange(cells.shape[1])
    differences[worst, columns], freedom[worst, columns] = 0.0, 0.0
    total = freedom.sum(axis=0)
    # Rows that hang together fill few cells, and then neighbours say little.
    needed = np.maximum(LEAST_FREEDOM, (cells.any(axis=0)).sum(axis=1) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = differences.sum(axis=0) / total
        certain = 1 + _SIGMAS * np.sqrt(2 / total)
    multiples: Reals = np.where(total < needed, np.nan, np.where(found > certain, found, 1.0))
    return multiples
