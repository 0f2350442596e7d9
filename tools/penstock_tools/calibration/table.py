"""A check of drift alarms in a terminal: its sentences, then the alarms, the months and the columns."""

from typing import Any, Final

from penstock_tools import formatting
from penstock_tools.calibration import report
from penstock_tools.calibration.report import Check

MOST_ALARMS: Final = 30
MOST_COLUMNS: Final = 40
_MOST_NAMED: Final = 6


def overview(check: Check) -> Any:
    """A renderable of a check."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [
        Text(formatting.safe(check.title, 100), style="bold"),
        Text(report.rate_line(check), style="red" if check.alarms else "green"),
    ]
    parts += [Text(line) for line in (report.months_line(check), report.chance_line(check)) if line]
    parts += [Text(f"note: {note}", style="yellow") for note in check.notes]
    parts += [Text(), *_alarms(check)] if check.alarms else []
    parts += [Text(), _months(check)] if check.months else []
    parts += [Text(), *_columns(check)]
    return Group(*parts)


def _table(*headings: str, numbers: tuple[str, ...] = ()) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    return table


def _alarms(check: Check) -> list[Any]:
    from rich.text import Text

    table = _table("alarm", "", "since", "went on", "went off")
    for alarm in check.alarms[:MOST_ALARMS]:
        ended = "still on" if alarm.ended is None else report.when(alarm.ended)
        table.add_row(
            Text(formatting.safe(alarm.column)),
            report.what(alarm.kind),
            report.when(alarm.since),
            report.when(alarm.noticed),
            ended,
        )
    return [table, *_more(len(check.alarms) - MOST_ALARMS, "alarms")]


def _months(check: Check) -> Any:
    from rich.text import Text

    table = _table("month", "rows", "went on", "on at any time", numbers=("rows", "went on"))
    for month in check.months:
        more = f" and {len(month.on) - _MOST_NAMED} more" if len(month.on) > _MOST_NAMED else ""
        named = ", ".join(map(formatting.safe, month.on[:_MOST_NAMED]))
        table.add_row(month.name, f"{month.rows:,}", f"{month.began:,}" if month.began else "", Text(named + more))
    return table


def _columns(check: Check) -> list[Any]:
    from rich.text import Text

    delays = [f"PSI {index:g}" for index in check.indexes]
    table = _table(
        "column", "kind", "alarms", "least PSI", *delays, numbers=("alarms", "least PSI", *delays)
    )  # fmt: skip
    table.columns[0].no_wrap = True
    for column in check.columns[:MOST_COLUMNS]:
        table.add_row(
            Text(formatting.safe(column.name)),
            column.kind,
            f"{column.alarms:,}" if column.alarms else "",
            report.smallest_told(column),
            *(report.delay_told(delay, check.most_rows) for delay in column.delays),
        )
    hint = "least PSI: the smallest that a server's window shows."
    if delay := report.delays_line(check):
        hint += f"  {', '.join(delays)}: the {delay}"
    return [table, *_more(len(check.columns) - MOST_COLUMNS, "columns"), Text(hint, style="dim")]


def _more(number: int, things: str) -> list[Any]:
    from rich.text import Text

    return [Text(f"and {number:,} more {things}; --html FILE shows all", style="dim")] if number > 0 else []
