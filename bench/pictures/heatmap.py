"""A heat map of drift as SVG: features by months, with the distance as colour and number, and a dot for drift.

It follows the reader's light or dark setting and embeds no fonts. Features are sorted by their largest distance after
training; a cell with too few rows to judge stays blank.
"""

from collections.abc import Collection, Sequence
from html import escape
from typing import Final

from penstock_server.drift.report import ColumnDrift
from penstock_tools import formatting

Months = Sequence[tuple[int, Sequence[ColumnDrift]]]
"""Months by number with their columns, the same in each."""

CELL_WIDTH: Final = 58
CELL_HEIGHT: Final = 26
LEFT: Final = 150
TOP: Final = 66
BELOW: Final = 58
DEEPEST: Final = 0.7
"""The distance of the deepest colour; few distances are larger."""
_STYLE: Final = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}.soft{fill:#57606a}.bold{font-weight:600}"
    ".empty{fill:#eaeef2}.heat{fill:#d9480f}.dot{fill:#24292f}.line{stroke:#57606a}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.empty{fill:#21262d}.heat{fill:#f76707}"
    ".dot{fill:#e6edf3}.line{stroke:#9198a1}}"
)


def drawing(months: Months, trained: Collection[int]) -> str:
    """The picture.

    Args:
        months: the measured months.
        trained: the months of the reference.
    """
    order = ranked(months, trained)
    width, height = LEFT + CELL_WIDTH * len(months) + 10, TOP + CELL_HEIGHT * len(order) + BELOW
    body = "".join(_row(months, index, at) for at, index in enumerate(order))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-labelledby="title about"><title id="title">Drift of each feature by month</title>'
        f'<desc id="about">{escape(_described(months, trained))}</desc><style>{_STYLE}</style>'
        f"{_head(months, trained)}{body}{_legend(TOP + CELL_HEIGHT * len(order) + 24)}</svg>\n"
    )


def ranked(months: Months, trained: Collection[int]) -> list[int]:
    """The indices of the columns, sorted by their largest distance in a month after training, largest first."""
    later = [columns for number, columns in months if number not in trained] or [columns for _, columns in months]

    def largest(index: int) -> float:
        return max((columns[index].jensen_shannon or 0.0 for columns in later), default=0.0)

    return sorted(range(len(later[0]) if later else 0), key=lambda index: (-largest(index), index))


def _described(months: Months, trained: Collection[int]) -> str:
    """The picture in words, for screen readers."""
    drifted = {
        number: [formatting.safe(each.name) for each in columns if each.drifted]
        for number, columns in months
        if number not in trained
    }
    return " ".join(
        f"{formatting.month(number)}: {', '.join(names) or 'none'} drifted." for number, names in drifted.items()
    )


def _head(months: Months, trained: Collection[int]) -> str:
    parts = [
        f'<text class="bold" x="10" y="20">Distance of each month\'s flights from those of {_span(trained)}</text>'
    ]
    for at, (number, _) in enumerate(months):
        style = "soft" if number in trained else "bold"
        parts.append(
            f'<text class="{style}" x="{_middle(at)}" y="{TOP - 8}" text-anchor="middle">{formatting.month(number)}</text>'
        )
    known = [at for at, (number, _) in enumerate(months) if number in trained]
    if known:
        left, right = LEFT + known[0] * CELL_WIDTH + 4, LEFT + (known[-1] + 1) * CELL_WIDTH - 4
        parts.append(f'<path class="line" d="M{left} {TOP - 24}H{right}"/>')
        middle = (left + right) / 2
        parts.append(f'<text class="soft" x="{middle}" y="{TOP - 28}" text-anchor="middle">trained on</text>')
    return "".join(parts)


def _span(trained: Collection[int]) -> str:
    first, last = formatting.month(min(trained)), formatting.month(max(trained))
    return first if first == last else f"{first} to {last}"


def _row(months: Months, index: int, at: int) -> str:
    top = TOP + at * CELL_HEIGHT
    name = escape(formatting.safe(months[0][1][index].name, 20))
    label = f'<text x="{LEFT - 10}" y="{top + 17}" text-anchor="end">{name}</text>'
    return label + "".join(_cell(columns[index], column, top) for column, (_, columns) in enumerate(months))


def _cell(column: ColumnDrift, at: int, top: int) -> str:
    left, distance = LEFT + at * CELL_WIDTH, column.jensen_shannon
    box = f'x="{left + 1}" y="{top + 1}" width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}" rx="3"'
    ground = f'<rect class="empty" {box}/>'
    if distance is None:
        return ground
    depth = min(distance / DEEPEST, 1.0) * 0.9
    style = "bold" if column.drifted else "soft"
    dot = f'<circle class="dot" cx="{left + 10}" cy="{top + 13}" r="3"/>' if column.drifted else ""
    number = f'<text class="{style}" x="{_middle(at) + 5}" y="{top + 17}" text-anchor="middle">{distance:.2f}</text>'
    return f'{ground}<rect class="heat" fill-opacity="{depth:.3f}" {box}/>{dot}{number}'


def _legend(top: int) -> str:
    rule = "called drift: more than a PSI of 0.1, and than what varies in time anyway (Benjamini-Hochberg, 5%)"
    return (
        f'<circle class="dot" cx="{LEFT + 10}" cy="{top}" r="3"/>'
        f'<text class="soft" x="{LEFT + 22}" y="{top + 4}">{rule}</text>'
        f'<text class="soft" x="{LEFT + 22}" y="{top + 22}">Jensen-Shannon distance: 0 as in training, 1 nothing alike</text>'
    )


def _middle(at: int) -> float:
    return LEFT + (at + 0.5) * CELL_WIDTH
