"""How two versions' answers to the same rows differ; pure, row by row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.prediction.outputs import ClassReader

TOLERANCE = 1e-3
"""Scores within this distance agree, when there are no classes to compare."""


def agreement(
    champion: Sequence[NDArray[Any]],
    shadow: Sequence[NDArray[Any]],
    *,
    classes: tuple[ClassReader | None, ClassReader | None],
    scores: tuple[int | None, int | None],
    rows: int,
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each row got the same class, and how far apart its scores are.

    Args:
        champion: the champion's outputs.
        shadow: the shadow's.
        classes: the class reader of each.
        scores: the output that holds the scores of each.
        rows: N.

    Returns:
        bool [N] and float64 [N], the largest absolute difference over a row's scores; NaN equals NaN, and scores of
        different shapes are infinitely far apart. Without classes, rows agree whose scores are within `TOLERANCE`.
    """
    distance = _distance(_pick(champion, scores[0]), _pick(shadow, scores[1]), rows)
    if classes[0] is None or classes[1] is None:
        return distance <= TOLERANCE, distance
    return classes[0](champion) == classes[1](shadow), distance


def _pick(outputs: Sequence[NDArray[Any]], at: int | None) -> NDArray[Any] | None:
    return None if at is None else outputs[at]


def _distance(left: NDArray[Any] | None, right: NDArray[Any] | None, rows: int) -> NDArray[np.float64]:
    if left is None or right is None:
        return np.zeros(rows)
    if left.size != right.size:
        return np.full(rows, np.inf)
    a, b = left.reshape(rows, -1).astype(np.float64), right.reshape(rows, -1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    largest: NDArray[np.float64] = np.nan_to_num(gap, nan=np.inf, posinf=np.inf).max(axis=1, initial=0.0)
    return largest
