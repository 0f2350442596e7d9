"""Writes what the drift counts of a raw column need, as the words that `layout_counts` describes.

`program` calls it once a version, and puts the words where the kernels find them. A number's bin is found through a guide:
a table over equal steps of the value, fine enough that a step holds two edges at most, so that two comparisons settle it.
"""

from collections.abc import Sequence
from sys import float_info
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.features import layout_counts as layout
from penstock_server.features.baseline_columns import ROUNDING, NumberBaseline, StringBaseline, storable

GUIDE_SIZES: Final = (32, 64, 128, 256, 512)
"""Places in a guide; edges too close for the last are searched for one by one."""
MOST_REACH: Final = 2
"""The edges in one place that the kernel compares without a branch."""


def number_words(baseline: NumberBaseline) -> list[int]:
    """The words of a number column."""
    edges = np.array(baseline.edges, np.float64)
    low, scale, places = 0.0, 0.0, np.zeros(len(edges), np.int64)
    size = 1
    for size in GUIDE_SIZES if len(edges) else ():
        low, scale = float(edges[0]), _scale(edges, size)
        places = place_in_guide(edges, low, scale, size - 1)
        if np.bincount(places).max() <= MOST_REACH:
            break
    guide = np.searchsorted(places, np.arange(size), side="left")
    reach = int(np.bincount(places).max()) if len(edges) else 0
    reals = _bits([low, scale, float(size - 1), *reference_range(baseline)])
    # No value is >= NaN, so that a search ends there.
    ending = _bits([np.nan] * MOST_REACH)
    return [len(edges), layout.GUIDE + size, reach, *reals, *guide.tolist(), *_bits(edges), *ending]


def string_words(baseline: StringBaseline, values: Sequence[str], bins: int) -> list[int]:
    """The words of a string column: the cell of each of the look-up's `values`, and of what is none of them.

    A row of counts has so many `bins`. The empty string is missing, and what the baseline does not know is unseen.
    """
    unseen = bins + layout.UNSEEN
    cells = {value: min(cell, len(baseline.counts)) for cell, value in enumerate(baseline.watched)}
    cells[""] = bins + layout.MISSING
    return [*(cells.get(value, unseen) for value in values), unseen]


def place_in_guide(values: NDArray[np.float64], low: float, scale: float, top: int) -> NDArray[np.int64]:
    """Each value's place in a guide, as the kernel computes it: it never falls as the value rises."""
    with np.errstate(over="ignore", invalid="ignore"):
        places = (values - low) * scale
    places = np.where(places > 0, places, 0.0)
    return np.where(places < top, places, top).astype(np.int64)


def _scale(edges: NDArray[np.float64], size: int) -> float:
    """Steps a unit, so that the last edge is in the last place."""
    with np.errstate(over="ignore", divide="ignore"):
        return float((size - 1) / (edges[-1] - edges[0])) if len(edges) > 1 else 0.0


def reference_range(baseline: NumberBaseline) -> tuple[float, float]:
    """The smallest and the largest value of the reference, as much further apart as float32 rounds; both are finite."""
    if baseline.smallest is None or baseline.largest is None:
        return -float_info.max, float_info.max
    smallest, largest = baseline.smallest, baseline.largest
    return storable(smallest - ROUNDING * abs(smallest)), storable(largest + ROUNDING * abs(largest))


def _bits(values: Sequence[float] | NDArray[np.float64]) -> list[int]:
    words: list[int] = np.array(values, np.float64).view(np.int64).tolist()
    return words
