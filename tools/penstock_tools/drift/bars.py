"""Histograms of blocks for a terminal: one character a cell, or one line a cell.

Pure. Both sides of a pair are drawn to one scale, so that their heights can be compared.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
PARTS: Final = " ▏▎▍▌▋▊▉█"
WIDEST: Final = 24
"""The cells of a small histogram, unless there is less room."""

Shares = Sequence[float]


def pair(reference: Shares, current: Shares, widest: int = WIDEST) -> tuple[str, str]:
    """Two small histograms of the same cells; neighbours are added up where there are more than `widest`.

    >>> pair([0.5, 0.5, 0.0], [0.25, 0.74, 0.01])
    ('▆▆ ', '▃█▁')
    >>> pair([0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], widest=2)
    ('▄▄', '█ ')
    """
    known, now = narrowed(reference, widest), narrowed(current, widest)
    largest = max(*known, *now, 1e-12)
    return _row(known, largest), _row(now, largest)


def narrowed(shares: Shares, widest: int) -> Shares:
    """The shares, or those of at most `widest` groups of neighbours."""
    size = ceil(len(shares) / widest)
    return shares if size <= 1 else [sum(shares[at : at + size]) for at in range(0, len(shares), size)]


def _row(shares: Shares, largest: float) -> str:
    # Rounded up, so that a cell with any rows shows.
    return "".join(BLOCKS[ceil(min(share / largest, 1.0) * (len(BLOCKS) - 1))] for share in shares)


def bar(share: float, largest: float, width: int) -> str:
    """One horizontal bar, to an eighth of a character.

    >>> bar(0.5, 1.0, 4), bar(0.28, 1.0, 4), bar(0.0, 1.0, 4)
    ('██', '█▏', '')
    """
    eighths = ceil(min(share / max(largest, 1e-12), 1.0) * width * 8)
    return "█" * (eighths // 8) + (PARTS[eighths % 8] if eighths % 8 else "")
