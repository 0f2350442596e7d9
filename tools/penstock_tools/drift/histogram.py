"""A histogram of two sides as inline SVG: the rows trained on as outlines, those now as bars.

Pure. Colours are the page's, by class, so that light and dark are one drawing; every cell tells its numbers to a pointer,
and the whole says what it shows to who cannot see it. All text is escaped.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from penstock_server.drift.report import ColumnDrift
from penstock_tools.drift import format as words

WIDTH: Final = 480
HEIGHT: Final = 120
SMALL_WIDTH: Final = 150
SMALL_HEIGHT: Final = 34
_LABEL_ROOM: Final = 16
_MOST_LABELS: Final = 6
_FILLED: Final = 0.86
"""The part of a cell's width that its bar takes."""


def small(column: ColumnDrift) -> str:
    """A histogram for a line of a table."""
    return _svg(column, SMALL_WIDTH, SMALL_HEIGHT, "")


def large(column: ColumnDrift) -> str:
    """A histogram with the names of some cells below it."""
    labels = "".join(_label(column.labels[at], at, len(column.labels)) for at in _labelled(len(column.labels)))
    return _svg(column, WIDTH, HEIGHT, labels)


def _svg(column: ColumnDrift, width: int, height: int, labels: str) -> str:
    cells = len(column.labels)
    largest = max((*column.reference, *column.current), default=0.0) or 1.0
    step, scale = width / max(cells, 1), height / largest
    below = _LABEL_ROOM if labels else 0
    what = escape(f"{words.safe(column.name)}: {cells} cells, shares of the rows trained on and now")
    # The attributes are for what shows a page without its style, such as a mail.
    return (
        f'<svg viewBox="0 0 {width} {height + below}" width="{width}" height="{height + below}" role="img" '
        f'aria-label="{what}"><g class="now" fill="#74c0a5">{_bars(column.current, step, scale, height)}</g>'
        f'<g class="known" fill="none" stroke="#1864ab">{_bars(column.reference, step, scale, height)}</g>'
        f'<g class="told" fill-opacity="0">{_told(column, step, height)}</g>{labels}</svg>'
    )


def _bars(shares: Sequence[float], step: float, scale: float, height: int) -> str:
    wide = max(step * _FILLED, 0.5)
    return "".join(
        f'<rect x="{at * step:.2f}" y="{height - share * scale:.2f}" width="{wide:.2f}" height="{share * scale:.2f}"/>'
        for at, share in enumerate(shares)
        if share
    )


def _told(column: ColumnDrift, step: float, height: int) -> str:
    """What a pointer on a cell is told, wherever in its height."""
    cells = zip(column.labels, column.reference, column.current, strict=True)
    return "".join(
        f'<rect x="{at * step:.2f}" y="0" width="{step:.2f}" height="{height}"><title>'
        f"{escape(f'{words.safe(label)}: {known:.2%} trained on, {now:.2%} now')}</title></rect>"
        for at, (label, known, now) in enumerate(cells)
    )


def _labelled(cells: int) -> list[int]:
    """The cells whose names are written: the first, the last, and some between."""
    if cells <= _MOST_LABELS:
        return list(range(cells))
    return sorted({round(part * (cells - 1) / (_MOST_LABELS - 1)) for part in range(_MOST_LABELS)})


def _label(label: str, at: int, cells: int) -> str:
    anchor = "start" if at == 0 else "end" if at == cells - 1 else "middle"
    place = {"start": 0.0, "end": float(WIDTH)}.get(anchor, (at + _FILLED / 2) * WIDTH / cells)
    text = escape(words.safe(label, 14))
    return f'<text x="{place:.1f}" y="{HEIGHT + _LABEL_ROOM - 4}" text-anchor="{anchor}">{text}</text>'
