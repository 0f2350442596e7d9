"""What is shown while flights stream: a table that refreshes at a terminal, one line every few seconds elsewhere.

`Viewer` makes a `View` of plain values, which `table` and `line` only lay out.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from penstock.names import SHADOW
from penstock_tools import formatting
from penstock_tools.demo.plan import MONTHS, DemoPlan
from penstock_tools.demo.results import HIGH, DemoMetrics, Phase, ShadowMetrics, Tally, highest, percentile

REFRESH_S: Final = 0.25
LINE_S: Final = 3.0
RATE_S: Final = 3.0
TOP_FEATURES: Final = 3


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version's line.

    Attributes:
        roles: rows answered by role, the roles in the order of their first reply.
        share: of all rows so far.
        accuracy: the share of its rows that was right.
    """

    version: str
    roles: Mapping[str, int]
    rows: int
    share: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class View:
    """What the screen shows.

    Attributes:
        elapsed_s: since the stream began.
        done: the share of the stream that was answered, 0 to 1.
        month: being streamed; 0 before the first reply.
        requests_per_s, rows_per_s: over the last seconds; None until time has passed.
        p50_s, p99_s: as the callers see it, over the last requests.
        versions: in order of their first reply.
        drift: the champion's highest scores by feature; empty while its window fills.
        window: rows in the champion's window and rows due there.
    """

    elapsed_s: float
    done: float
    month: int
    requests: int
    rows: int
    failures: int
    requests_per_s: float | None
    rows_per_s: float | None
    p50_s: float | None
    p99_s: float | None
    versions: tuple[VersionRow, ...]
    shadow: ShadowMetrics | None
    drift: tuple[tuple[str, float], ...]
    window: tuple[int, int]
    phase: Phase
    challenger: str


class Rate:
    """The growth of a count per second, over the last seconds."""

    def __init__(self, over_s: float = RATE_S) -> None:
        self._over_s = over_s
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, at_s: float, count: int) -> float | None:
        """Adds the count at a time; returns the growth per second since the oldest one kept, None for the first."""
        while len(self._counts) > 1 and self._counts[1][0] <= at_s - self._over_s:
            self._counts.popleft()
        self._counts.append((at_s, count))
        since_s, since = self._counts[0]
        return (count - since) / (at_s - since_s) if at_s > since_s else None


class Viewer:
    """Makes the view; keeps what the rates need."""

    def __init__(self, plan: DemoPlan, tally: Tally, requests: int) -> None:
        self._plan = plan
        self._tally = tally
        self._expected = requests
        self._requests = Rate()
        self._rows = Rate()

    def view(self, at_s: float, metrics: DemoMetrics) -> View:
        """The view now, `at_s` seconds after the stream began."""
        tally = self._tally
        return View(
            elapsed_s=at_s,
            done=min(1.0, tally.requests / self._expected),
            month=tally.month,
            requests=tally.requests,
            rows=tally.rows,
            failures=tally.failures,
            requests_per_s=self._requests.add(at_s, tally.requests),
            rows_per_s=self._rows.add(at_s, tally.rows),
            p50_s=percentile(tally.recent, 50),
            p99_s=percentile(tally.recent, 99),
            versions=version_rows(tally),
            shadow=metrics.shadow,
            drift=tuple(highest(metrics.settled_drift(self._plan.settled_rows), TOP_FEATURES)),
            window=(metrics.window_rows.get(metrics.champion or "", 0), self._plan.settled_rows),
            phase=tally.phase,
            challenger=tally.challenger,
        )


def version_rows(tally: Tally) -> tuple[VersionRow, ...]:
    """A line for each version that has answered."""
    return tuple(_version_row(tally, version) for version in tally.versions)


def _version_row(tally: Tally, version: str) -> VersionRow:
    score = tally.score(version)
    return VersionRow(
        version=version,
        roles={role: rows for (each, role), rows in tally.rows_by.items() if each == version},
        rows=score.rows,
        share=score.rows / tally.rows,
        accuracy=score.accuracy,
    )


async def show(console: Console, view: Callable[[], View]) -> None:
    """Shows the current view until cancelled; the last one stays on the screen."""
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
    shares = "  ".join(f"v{each.version} {formatting.percent(each.share)}" for each in view.versions)
    agreement = formatting.percent(None if view.shadow is None else view.shadow.agreement)
    drift = ", ".join(f"{feature} {formatting.number(score)}" for feature, score in view.drift[:1])
    parts = [
        f"{view.elapsed_s:5.1f} s",
        formatting.month(view.month),
        f"{view.rows:,} rows",
        formatting.rate(view.rows_per_s),
        f"p50 {formatting.milliseconds(view.p50_s)}",
        f"p99 {formatting.milliseconds(view.p99_s)}",
        shares,
        f"shadow agrees {agreement}",
        f"drift {drift or formatting.UNKNOWN}",
        f"failures {view.failures}",
    ]
    return "  ".join(filter(None, parts))


def table(view: View) -> RenderableType:
    """The view as a panel."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    grid.add_row("month of 2013", months(view.month))
    grid.add_row("traffic", _traffic(view))
    grid.add_row("failures", Text(str(view.failures), style="red bold" if view.failures else "green"))
    grid.add_row("promotion", _promotion(view))
    grid.add_row("shadow", _shadow(view.shadow))
    grid.add_row("drift", _drift(view))
    title = f"flights, {view.elapsed_s:.0f} s, {view.done:.0%}"
    return Panel(Group(grid, Text(), versions(view.versions)), title=title, title_align="left")


def versions(rows: tuple[VersionRow, ...]) -> Table:
    """The table of versions."""
    shown = Table("version", "rows as", box=None, padding=(0, 2), header_style="dim")
    for name in ("rows", "share", "accuracy so far"):
        shown.add_column(name, justify="right")
    for each in rows:
        roles = ", ".join(f"{role or 'no role'} {count:,}" for role, count in each.roles.items())
        shown.add_row(
            each.version, roles, f"{each.rows:,}", formatting.percent(each.share), formatting.percent(each.accuracy)
        )
    return shown


def months(now: int) -> Text:
    """The months of the stream, the current one marked."""
    styles = {number: "bold reverse" if number == now else "" if number < now else "dim" for number in MONTHS}
    return Text(" ").join(Text(formatting.month(number), style=style) for number, style in styles.items())


def _traffic(view: View) -> Text:
    return Text(
        f"{formatting.rate(view.requests_per_s)} requests, {formatting.rate(view.rows_per_s)} rows, "
        f"p50 {formatting.milliseconds(view.p50_s)}, p99 {formatting.milliseconds(view.p99_s)}"
    )


def _promotion(view: View) -> Text:
    sentences = {
        "before": f"version {view.challenger} becomes champion half-way",
        "between": f"version {view.challenger} is champion in the registry; the server follows",
        "after": f"version {view.challenger} is champion",
    }
    return Text(sentences[view.phase], style="" if view.phase == "before" else "bold green")


def _shadow(shadow: ShadowMetrics | None) -> Text:
    if shadow is None or shadow.agreement is None:
        return Text(formatting.UNKNOWN)
    return Text(
        f"version {shadow.version} as {SHADOW}: same class {formatting.percent(shadow.agreement)} of {shadow.compared:,} rows, "
        f"scores apart {formatting.number(shadow.distance, 3)}, time x{formatting.number(shadow.latency_ratio)}"
    )


def _drift(view: View) -> Text:
    if not view.drift:
        rows, due = view.window
        return Text(f"the window fills: {rows:,} of {due:,} rows", style="dim")
    scores = [
        Text(f"{feature} {formatting.number(score)}", style="yellow" if score >= HIGH else "")
        for feature, score in view.drift
    ]
    return Text(", ").join(scores)
