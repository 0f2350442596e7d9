"""Drift in a terminal: a table with a line for each feature, strongest evidence first, or one feature in full."""

from typing import Any, Final

from penstock_server.drift.report import ColumnDrift, VersionDrift
from penstock_server.errors import NotFoundError
from penstock_tools.drift import bars
from penstock_tools.drift import format as words

BAR_WIDTH: Final = 20
NARROW: Final = 112
"""Columns of a terminal below which the small histograms are narrower still."""
NARROW_CELLS: Final = 8
_MARK: Final = "●"
_HINT: Final = (
    "JS: Jensen-Shannon distance, 0 as in training to 1 nothing alike.  PSI: less what chance adds.  p: how likely that is"
    " if the true PSI were the tolerated one.  new: values that training did not see."
)


def overview(version: VersionDrift, width: int = NARROW) -> Any:
    """A renderable of a version: what it is, the table, and what its columns mean; `width` is the terminal's."""
    from rich.console import Group
    from rich.text import Text

    lines = [
        Text(words.title(version), style="bold"),
        Text(words.rows_line(version)),
        Text(words.verdict(version), style="red" if version.drifted else "" if version.drifted is None else "green"),
        Text(words.predictions_line(version)),
    ]
    if alarms := words.alarms_line(version):
        lines.append(Text(alarms, style="bold red"))
    return Group(*lines, _table(version, bars.WIDEST if width >= NARROW else NARROW_CELLS), Text(_HINT, style="dim"))


def _table(version: VersionDrift, cells: int) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("feature", no_wrap=True, overflow="ellipsis")
    table.add_column("trained on", no_wrap=True)
    table.add_column("now", no_wrap=True)
    for name in ("JS", "PSI", "p", "missing", "new"):
        table.add_column(name, justify="right", no_wrap=True)
    for column in words.ranked(version.columns):
        table.add_row(*_row(column, cells))
    if version.predictions is not None:
        table.add_section()
        table.add_row(*_row(version.predictions, cells, words.PREDICTIONS))
    return table


def _row(column: ColumnDrift, cells: int, name: str = "") -> list[Any]:
    from rich.text import Text

    shown = Text(name or words.safe(column.name), style="bold red" if column.drifted else "")
    known, now = bars.pair(column.reference, column.current, cells)
    if not column.enough_rows:
        needed = f"{column.rows:,} of {column.rows_needed:,} rows"
        return ["", shown, Text(known, style="dim"), Text(needed, style="dim"), *[""] * 5]
    return [
        Text(_MARK if column.drifted else "", style="red"),
        shown,
        Text(known, style="blue"),
        Text(now, style="red" if column.drifted else "green"),
        words.decimals(column.jensen_shannon),
        words.decimals(column.psi_unbiased),
        words.probability(column.p_value),
        words.percent(column.missing_ratio),
        # A string is unseen, a number out of range: no column has both.
        words.percent(column.unseen_ratio or column.out_of_range_ratio),
    ]


def feature(version: VersionDrift, name: str) -> Any:
    """A renderable of one feature: every cell with its share of the rows trained on and of those now.

    Raises:
        NotFoundError: the version watches no such feature; says which it does.
    """
    from rich.console import Group
    from rich.text import Text

    column = named(version, name)
    figures = {
        "Jensen-Shannon distance": words.decimals(column.jensen_shannon, 4),
        "PSI": words.decimals(column.psi, 4),
        "PSI without what chance adds": words.decimals(column.psi_unbiased, 4),
        "p, if the true PSI were " + f"{column.minimum_effect:g}": words.probability(column.p_value),
        "Kolmogorov-Smirnov distance, at least": words.decimals(column.ks, 4),
        "Wasserstein distance, deviations": words.decimals(column.wasserstein, 4),
        "missing": words.percent(column.missing_ratio),
        "unseen": words.percent(column.unseen_ratio),
        "infinite": words.percent(column.infinite_ratio),
        "outside the range trained on": words.percent(column.out_of_range_ratio),
    }
    state = "drifted" if column.drifted else "as in training" if column.enough_rows else words.too_few(column)
    head = Text(f"{words.safe(column.name)}, a {column.kind}: {state}", style="bold red" if column.drifted else "bold")
    said = [Text(f"  {label}: {value}") for label, value in figures.items() if value]
    return Group(Text(words.title(version)), head, *said, _cells(column))


def named(version: VersionDrift, name: str) -> ColumnDrift:
    """A version's column of this name.

    Raises:
        NotFoundError: there is none; says which there are.
    """
    columns = [*version.columns, *([] if version.predictions is None else [version.predictions])]
    for column in columns:
        if column.name == name:
            return column
    known = ", ".join(words.safe(column.name) for column in columns[:20])
    more = f" and {len(columns) - 20} more" if len(columns) > 20 else ""
    raise NotFoundError(f"{words.title(version)} watches no feature {name!r}; it watches {known or 'none'}{more}")


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
            Text(words.safe(label)),
            f"{known:.1%}",
            Text(bars.bar(known, largest, BAR_WIDTH), style="blue"),
            f"{now:.1%}",
            Text(bars.bar(now, largest, BAR_WIDTH), style=style),
        )
    return table
