"""Which bins of a histogram have their names written below it, and where: as many as fit without touching one another.

Pure. A page knows neither the reader's font nor its width, so the widths of texts are estimated from a wide font, and letters
that the estimate does not know count as the widest. What is left out can still be read where a pointer rests.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, cos, radians, sin
from typing import Final

from penstock_tools import formatting

FONT: Final = 10.0
"""The size of the names, in the drawing's units."""
SLANT: Final = 45
"""Degrees by which names rise that have no room side by side; they end below their bin."""

_LONGEST: Final = 14
"""Characters of a slanted name; level ones have room for more."""
_LONGEST_LEVEL: Final = 26
_GAP: Final = 4.0
_END: Final = 6.0
"""What a slanted name takes to the right of its bin's middle."""
_LINE: Final = 1.15 * FONT
"""The height of a line: letters, and what hangs below them."""
_COS, _SIN = cos(radians(SLANT)), sin(radians(SLANT))
_WIDTHS: Final = (
    ("ijl.,:;'|! ", 0.36),
    ('()[]/\\-frtI"`', 0.45),
    ("0123456789_$?", 0.64),
    ("mwMW%@", 0.99),
    ("abcdeghknopqsuvxyz", 0.65),
    ("<>=+~#&", 0.85),
)
_EMS: Final = {character: width for characters, width in _WIDTHS for character in characters}
_WIDE: Final = 1.05
_CAPITAL: Final = 0.80


@dataclass(frozen=True, slots=True)
class Tick:
    """A name below a histogram.

    Attributes:
        bin: whose it is.
        place: the middle of its bin.
        text: the name, cut.
        x: the text's middle, or its end if it is slanted.
    """

    bin: int
    place: float
    text: str
    x: float


@dataclass(frozen=True, slots=True)
class Axis:
    """The names below a histogram.

    Attributes:
        left: the room that slanted names take beside the bins.
        step: the width of a bin.
        height: the room below the bins.
        is_slanted: whether the names are.
        ticks: from the left to the right.
    """

    left: float
    step: float
    height: float
    is_slanted: bool
    ticks: tuple[Tick, ...]


def axis(labels: Sequence[str], width: float, *, is_ordered: bool) -> Axis:
    """The names for a drawing of this width.

    Args:
        labels: of all bins.
        width: of the drawing.
        is_ordered: whether a reader guesses the bins between two names. Others have slanted names if the level ones do not fit.
    """
    bins = len(labels)
    step = width / max(bins, 1)
    texts = [formatting.safe(label, _LONGEST_LEVEL) for label in labels]
    fitting = _level(texts, width)
    if is_ordered or len(fitting) == bins:
        ticks = tuple(_tick(at, texts[at], step, width) for at in fitting)
        return Axis(0.0, step, FONT + 6 if ticks else 0.0, is_slanted=False, ticks=ticks)
    return _slanted([formatting.safe(label, _LONGEST) for label in labels], width)


def text_width(text: str) -> float:
    """An estimate of a text's width from above.

    >>> text_width("ORD"), text_width("< 1.5")
    (24.0, 28.5)
    """
    return round(FONT * sum(map(_em, text)), 6)


def _em(character: str) -> float:
    known = _EMS.get(character)
    if known is not None:
        return known
    if unicodedata.combining(character):
        return 0.0
    return _CAPITAL if "A" <= character <= "Z" else _WIDE


def _tick(at: int, text: str, step: float, width: float) -> Tick:
    """A level name in the middle of its bin, or as near to it as the drawing's sides allow."""
    place, half = (at + 0.5) * step, text_width(text) / 2
    return Tick(at, place, text, min(max(place, half), max(width - half, half)))


def _level(texts: Sequence[str], width: float) -> list[int]:
    """The bins whose level names fit: those of all, or of every second, third ... and of the last."""
    bins = len(texts)
    for every in range(1, bins + 1):
        chosen = _one_in(every, bins)
        ticks = [_tick(at, texts[at], width / bins, width) for at in chosen]
        spans = [(tick.x - text_width(tick.text) / 2, tick.x + text_width(tick.text) / 2) for tick in ticks]
        if spans[-1][1] <= width and all(before[1] + _GAP <= after[0] for before, after in pairwise(spans)):
            return chosen
    return []


def _one_in(every: int, bins: int) -> list[int]:
    """The bins from the first on, so many apart, and the last one with as much room.

    >>> _one_in(2, 5), _one_in(2, 6), _one_in(6, 6)
    ([0, 2, 4], [0, 2, 5], [5])
    """
    return [at for at in range(0, bins - 1, every) if at <= bins - 1 - every] + [bins - 1]


def _slanted(texts: Sequence[str], width: float) -> Axis:
    """Every bin's name, or that of every second, third ... and of the last: parallel lines, a line's height apart."""
    bins, room = len(texts), width - _END
    lengths = [text_width(text) for text in texts]
    # The bins get what the longest name would leave beside them, or more; so no name begins left of the drawing.
    least = (room - max(lengths) * _COS) / bins
    left = max(0.0, *(length * _COS - (at + 0.5) * least for at, length in enumerate(lengths)))
    step = (room - left) / bins
    every = ceil(_LINE / _SIN / step)
    chosen = _one_in(every, bins)
    places = [left + (at + 0.5) * step for at in chosen]
    ticks = tuple(Tick(at, place, texts[at], place) for at, place in zip(chosen, places, strict=True))
    height = max(lengths[at] for at in chosen) * _SIN + _LINE
    return Axis(left, step, height, is_slanted=True, ticks=ticks)
