"""The screen while flights stream: a table that refreshes at a terminal, a line now and then elsewhere."""

import asyncio
from collections.abc import Callable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from penstock.names import SHADOW
from penstock_tools.demo import format as words
from penstock_tools.demo.metrics import Shadow
from penstock_tools.demo.onset import HIGH
from penstock_tools.demo.plan import MONTHS
from penstock_tools.demo.view import VersionRow, View

REFRESH_S: Final = 0.25
LINE_S: Final = 3.0


async def show(console: Console, view: Callable[[], View]) -> None:
    """Shows the view of each moment, until cancelled; the last one stays on the screen."""
    if not console.is_terminal:
        await _show_lines(console, view)
        return
    with Live(table(view()), console=console, auto_refresh=False) as live:
        try:
            while True:
                await asyncio.sleep(REFRESH_S)
                live.update(table(view()), refresh=True)
        finally:
            live.update(table(view()), refresh=True)


async def _show_lines(console: Console, view: Callable[[], View]) -> None:
    while True:
        await asyncio.sleep(LINE_S)
        console.print(Text(line(view())), soft_wrap=True)


def line(view: View) -> str:
    """The view in one line."""
    shares = "  ".join(f"v{each.version} {words.percent(each.share)}" for each in view.versions)
    agreement = words.percent(None if view.shadow is None else view.shadow.agreement)
    drift = ", ".join(f"{feature} {words.number(score)}" for feature, score in view.drift[:1])
    parts = [
        f"{view.elapsed_s:5.1f} s",
        words.month(view.month),
        f"{view.rows:,} rows",
        words.rate(view.rows_per_s),
        f"p50 {words.milliseconds(view.p50_s)}",
        f"p99 {words.milliseconds(view.p99_s)}",
        shares,
        f"shadow agrees {agreement}",
        f"drift {drift or words.UNKNOWN}",
        f"failures {view.failures}",
    ]
    return "  ".join(filter(None, parts))


def table(view: View) -> RenderableType:
    """The view as a panel."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("month of 2013", months(view.month))
    facts.add_row("traffic", _traffic(view))
    facts.add_row("failures", Text(str(view.failures), style="red bold" if view.failures else "green"))
    facts.add_row("promotion", _promotion(view))
    facts.add_row("shadow", _shadow(view.shadow))
    facts.add_row("drift", _drift(view))
    title = f"flights, {view.elapsed_s:.0f} s, {view.done:.0%}"
    return Panel(Group(facts, Text(), versions(view.versions)), title=title, title_align="left")


def versions(rows: tuple[VersionRow, ...]) -> Table:
    """The versions' lines."""
    shown = Table("version", "rows as", box=None, padding=(0, 2), header_style="dim")
    for name in ("rows", "share", "accuracy so far"):
        shown.add_column(name, justify="right")
    for each in rows:
        roles = ", ".join(f"{role or 'no role'} {count:,}" for role, count in each.roles.items())
        shown.add_row(each.version, roles, f"{each.rows:,}", words.percent(each.share), words.percent(each.accuracy))
    return shown


def months(now: int) -> Text:
    """The months of the stream, the one of now marked."""
    styles = {number: "bold reverse" if number == now else "" if number < now else "dim" for number in MONTHS}
    return Text(" ").join(Text(words.month(number), style=style) for number, style in styles.items())


def _traffic(view: View) -> Text:
    return Text(
        f"{words.rate(view.requests_per_s)} requests, {words.rate(view.rows_per_s)} rows, "
        f"p50 {words.milliseconds(view.p50_s)}, p99 {words.milliseconds(view.p99_s)}"
    )


def _promotion(view: View) -> Text:
    said = {
        "before": f"half-way, version {view.challenger} becomes champion",
        "between": f"version {view.challenger} is champion in the registry; the server follows",
        "after": f"version {view.challenger} is champion",
    }
    return Text(said[view.phase], style="" if view.phase == "before" else "bold green")


def _shadow(shadow: Shadow | None) -> Text:
    if shadow is None or shadow.agreement is None:
        return Text(words.UNKNOWN)
    return Text(
        f"version {shadow.version} as {SHADOW}: same class {words.percent(shadow.agreement)} of {shadow.compared:,} rows, "
        f"scores apart {words.number(shadow.distance, 3)}, time x{words.number(shadow.latency_ratio)}"
    )


def _drift(view: View) -> Text:
    if not view.drift:
        rows, due = view.window
        return Text(f"the window fills: {rows:,} of {due:,} rows", style="dim")
    scores = [
        Text(f"{feature} {words.number(score)}", style="yellow" if score >= HIGH else "")
        for feature, score in view.drift
    ]
    return Text(", ").join(scores)
