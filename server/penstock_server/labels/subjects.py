"""What kept answers are about: a version in a role with a share of the traffic; and what a label is among its classes."""

from collections.abc import Sequence
from math import isnan, nan
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.labels.keys import word_of
from penstock_server.labels.prediction_file import AnsweredVersion

INVALID: Final = nan
"""The class of a label that is none of the version's."""


class Subject(msgspec.Struct, frozen=True):
    """What some answers are about.

    Attributes:
        version: that gave them.
        role: in which it did, by number.
        weight: the share of the traffic that it had; NaN where requests named it, or nothing was to be chosen.
    """

    version: AnsweredVersion
    role: int
    weight: float = nan

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subject) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(self._parts)

    @property
    def _parts(self) -> tuple[object, ...]:
        # NaN equals no other NaN.
        return self.version, self.role, None if isnan(self.weight) else self.weight


class ClassTable:
    """The classes of a version, as its answers count them.

    Args:
        version: whose labels are to be compared.
    """

    def __init__(self, version: AnsweredVersion) -> None:
        self._is_number = version.kind == "number"
        names = version.class_names
        words = {word_of(name): float(place) for place, name in enumerate(names)}
        numbers = {number: float(place) for place, name in enumerate(names) if not isnan(number := _number(name))}
        if not numbers:
            # The model answers indices, or its names are no numbers: then a number is one.
            numbers = {float(place): float(place) for place in range(len(names))}
        self._words, self._of_words = _columns(words, np.uint64)
        self._numbers, self._of_numbers = _columns(numbers, np.float64)
        self._has_names = bool(names)

    def classes(self, numbers: NDArray[np.float64], words: NDArray[np.uint64]) -> NDArray[np.float64]:
        """What labels are among the version's answers, [N]: classes by number, or numbers; NaN for what is none of them."""
        if self._is_number:
            return numbers
        if not self._has_names:
            # Labels are counted as the numbers that they are.
            return np.where(numbers == np.trunc(numbers), numbers, INVALID)
        found = _looked_up(words, self._words, self._of_words)
        by_number = _looked_up(numbers, self._numbers, self._of_numbers)
        return np.where(np.isnan(found), by_number, found)


def _number(name: str) -> float:
    if name.casefold() in ("true", "false"):
        return float(name.casefold() == "true")
    try:
        return float(name)
    except ValueError:
        return nan


def _columns(found: dict[int, float] | dict[float, float], kind: type[np.generic]) -> Sequence[NDArray[np.generic]]:
    keys = np.array(list(found), kind)
    order = np.argsort(keys)
    return keys[order], np.array(list(found.values()), np.float64)[order]


def _looked_up(
    asked: NDArray[np.generic], keys: NDArray[np.generic], values: NDArray[np.generic]
) -> NDArray[np.float64]:
    if not len(keys):
        return np.full(len(asked), INVALID)
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    result: NDArray[np.float64] = np.where(keys[at] == asked, values[at], INVALID)
    return result
