"""The list of all panels for people, which stands in the page on monitoring."""

import re
from collections.abc import Sequence
from typing import Final

from penstock_tools.dashboards.board import Board

_PART: Final = re.compile(r"(<!-- generated: dashboards -->\n).*?(<!-- end -->)", re.DOTALL)


def with_panels(page: str, boards: Sequence[Board]) -> str:
    """The page with this list in the place of the one that it has."""
    listed = "\n".join(map(_section, boards))
    written, count = _PART.subn(lambda found: f"{found[1]}{listed}\n{found[2]}", page)
    if count != 1:
        raise ValueError(
            f"the page has {count} places for the list of panels; expected one, between 'generated' and 'end'"
        )
    return written


def _section(board: Board) -> str:
    lines = [f"### {board.title}", "", board.text, "", "| row | panel | what it shows |", "|---|---|---|"]
    for row in board.rows:
        for at, panel in enumerate(row.panels):
            empty = f" *Empty until {panel.empty_until}.*" if panel.empty_until else ""
            lines.append(f"| {'' if at else row.title} | {panel.title} | {panel.text}{empty} |")
    return "\n".join([*lines, ""])
