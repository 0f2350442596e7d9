"""Drift in a terminal: a table with one line per feature, or one feature in full.

The features that drifted come first, those that matter most to the model before others; the others come by significance.

Histograms are blocks: one character per bin, or one line per bin. Both histograms of a pair have one scale.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, Final

from penstock_server.drift.report import ColumnDrift, VersionDrift, by_concern
from penstock_server.errors import NotFoundError
from penstock_tools import formatting
from penstock_tools.drift import sentences

BAR_WIDTH: Final = 20
NARROW: Final = 112
"""Columns of a terminal below which the small histograms are narrower."""
NARROW_CELLS: Final = 8
_MARK: Final = "●"
BLOCKS: Final = " ▁▂▃▄▅▆▇█"
PARTS: Final = " ▏▎▍▌▋▊▉█"
WIDEST: Final = 24
"""The bins of a small histogram, unless the terminal is narrow."""
_HINT: Final = (
    "JS: Jensen-Shannon distance, from 0 (as in training) to 1 (nothing in common).  PSI: without what chance adds.  p: the"
    " probability of so large a PSI if the true one were the tolerated one.  new: values that training did not have."
)

Shares = Sequence[float]


def overview(version: VersionDrift, width: int = NARROW) -> Any:
    """A renderable of a version: its verdict, the table, and what the columns mean; `width` is the terminal's."""
    from rich.console import Group
    from rich.text import Text

    lines = [
        Text(sentences.title(version), style="bold"),
        Text(sentences.rows_line(version)),
        Text(
            sentences.verdict(version), style="red" if version.drifted else "" if version.drifted is None else "green"
        ),
        Text(sentences.predictions_line(version)),
    ]
    if alarms := sentences.alarms_line(version):
        lines.append(Text(alarms, style="bold red"))
    hint = f"{_HINT}  {sentences.importance_line(version)}".rstrip()
    return Group(*lines, _table(version, WIDEST if width >= NARROW else NARROW_CELLS), Text(hint, style="dim"))


def _table(version: VersionDrift, cells: int) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("feature", no_wrap=True, overflow="ellipsis")
    table.add_column("trained on", no_wrap=True)
    table.add_column("now", no_wrap=True)
    for name in ("JS", "PSI", "p", "missing", "new"):
        table.add_column(name, justify="right", no_wrap=True)
    if version.importance_measure:
        table.add_column("importance", justify="right", no_wrap=True)
    for column in by_concern(version.columns):
        table.add_row(*_row(column, cells), *_importance(version, column))
    if version.predictions is not None:
        table.add_section()
        table.add_row(*_row(version.predictions, cells, sentences.PREDICTIONS), *_importance(version, None))
    return table


def _importance(version: VersionDrift, column: ColumnDrift | None) -> list[str]:
    """A row's last cell, where the version has one."""
    if not version.importance_measure:
        return []
    return [sentences.importance(None if column is None else column.importance)]


def _row(column: ColumnDrift, cells: int, name: str = "") -> list[Any]:
    from rich.text import Text

    shown = Text(name or formatting.safe(column.name), style="bold red" if column.drifted else "")
    known, now = pair(column.reference, column.current, cells)
    if not column.enough_rows:
        needed = f"{column.rows:,} of {column.rows_needed:,} rows"
        return ["", shown, Text(known, style="dim"), Text(needed, style="dim"), *[""] * 5]
    return [
        Text(_MARK if column.drifted else "", style="red"),
        shown,
        Text(known, style="blue"),
        Text(now, style="red" if column.drifted else "green"),
        sentences.decimals(column.jensen_shannon),
        sentences.decimals(column.psi_unbiased),
        sentences.probability(column.p_value),
        sentences.share(column.missing_ratio),
        # A string is unseen, a number out of range: no column has both.
        sentences.share(column.unseen_ratio or column.out_of_range_ratio),
    ]


def feature(version: VersionDrift, name: str) -> Any:
    """A renderable of one feature: each bin with its share of the training rows and of the rows now.

    Raises:
        NotFoundError: the version watches no such feature; names those it watches.
    """
    from rich.console import Group
    from rich.text import Text

    column = named(version, name)
    numbers = {
        "Jensen-Shannon distance": sentences.decimals(column.jensen_shannon, 4),
        "PSI": sentences.decimals(column.psi, 4),
        "PSI without what chance adds": sentences.decimals(column.psi_unbiased, 4),
        "p, if the true PSI were " + f"{column.minimum_effect:g}": sentences.probability(column.p_value),
        "Kolmogorov-Smirnov distance, at least": sentences.decimals(column.ks, 4),
        "Wasserstein distance, deviations": sentences.decimals(column.wasserstein, 4),
        "missing": sentences.share(column.missing_ratio),
        "unseen": sentences.share(column.unseen_ratio),
        "infinite": sentences.share(column.infinite_ratio),
        "outside the range trained on": sentences.share(column.out_of_range_ratio),
        f"importance, {version.importance_measure}": sentences.importance(column.importance),
    }
    head = f"{formatting.safe(column.name)}, a {column.kind}: {sentences.state(column)}"
    lines = [Text(f"  {label}: {value}") for label, value in numbers.items() if value]
    return Group(
        Text(sentences.title(version)),
        Text(head, style="bold red" if column.drifted else "bold"),
        *lines,
        _cells(column),
    )


def named(version: VersionDrift, name: str) -> ColumnDrift:
    """A version's column of this name.

    Raises:
        NotFoundError: there is none; names those there are.
    """
    columns = [*version.columns, *([] if version.predictions is None else [version.predictions])]
    for column in columns:
        if column.name == name:
            return column
    known = ", ".join(formatting.safe(column.name) for column in columns[:20])
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    raise NotFoundError(f"{sentences.title(version)} watches no feature {name!r}; it watches {known or 'none'}{more}")


def _cells(column: ColumnDrift) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right", no_wrap=True, overflow="ellipsis", max_width=24)
    for heading, justify in (("trained on", "right"), ("", "left"), ("now", "right"), ("", "left")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    largest = max((*column.reference, *column.current), default=0.0)
    style = "red" if column.drifted else "green"
    for label, known, now in zip(column.labels, column.reference, column.current, strict=True):
        table.add_row(
            Text(formatting.safe(label)),
            f"{known:.1%}",
            Text(bar(known, largest, BAR_WIDTH), style="blue"),
            f"{now:.1%}",
            Text(bar(now, largest, BAR_WIDTH), style=style),
        )
    return table


def pair(reference: Shares, current: Shares, widest: int = WIDEST) -> tuple[str, str]:
    """Two small histograms of the same bins; neighbours are added up where there are more than `widest`.

    >>> pair([0.5, 0.5, 0.0], [0.25, 0.74, 0.01])
    ('▆▆ ', '▃█▁')
    >>> pair([0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], widest=2)
    ('▄▄', '█ ')
    """
    known, now = narrowed(reference, widest), narrowed(current, widest)
    largest = max(*known, *now, 1e-12)
    return _blocks(known, largest), _blocks(now, largest)


def narrowed(shares: Shares, widest: int) -> Shares:
    """The shares, or those of at most `widest` groups of neighbours."""
    size = ceil(len(shares) / widest)
    return shares if size <= 1 else [sum(shares[at : at + size]) for at in range(0, len(shares), size)]


def _blocks(shares: Shares, largest: float) -> str:
    # Rounded up, so that a bin with any rows shows.
    return "".join(BLOCKS[ceil(min(share / largest, 1.0) * (len(BLOCKS) - 1))] for share in shares)


def bar(share: float, largest: float, width: int) -> str:
    """One horizontal bar, to an eighth of a character.

    >>> bar(0.5, 1.0, 4), bar(0.28, 1.0, 4), bar(0.0, 1.0, 4)
    ('██', '█▏', '')
    """
    eighths = ceil(min(share / max(largest, 1e-12), 1.0) * width * 8)
    return "█" * (eighths // 8) + (PARTS[eighths % 8] if eighths % 8 else "")
