"""A replay in a terminal: its sentences, then classes, distances, and the rows that are farthest apart."""

from collections.abc import Iterator
from typing import Any, Final

from penstock_tools import formatting
from penstock_tools.replay.report import ALPHA, PairedErrors, PairedTruth, Replay, Share

MOST_ROWS: Final = 10
MOST_PAIRS: Final = 12


def overview(replay: Replay) -> Any:
    """A renderable of a replay."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(formatting.safe(replay.title, 100), style="bold"), *map(Text, _sentences(replay))]
    parts += [Text(f"note: {note}", style="yellow") for note in _notes(replay)]
    if replay.by_class:
        parts += [Text(), _classes(replay)]
    if replay.changed:
        parts += [Text(), _changes(replay)]
    if replay.different:
        parts += [Text(), _different(replay)]
    return Group(*parts)


def told(share: Share) -> str:
    """A share in percent with its interval and its counts.

    >>> told(Share(9, 10, 0.9, 0.596, 0.982)), told(Share(0, 0, None, None, None))
    ('90.0% (59.6% to 98.2%; 9 of 10)', '–')
    """
    if share.share is None:
        return formatting.UNKNOWN
    low, high = formatting.percent(share.low), formatting.percent(share.high)
    return f"{formatting.percent(share.share)} ({low} to {high}; {share.rows:,} of {share.of:,})"


def _sentences(replay: Replay) -> Iterator[str]:
    versions = ", ".join(f"{formatting.safe(name)} ({rows:,})" for name, rows in replay.versions.items())
    between = f", answered from {replay.first} to {replay.last}" if replay.first else ""
    yield f"{replay.rows:,} rows{between}" + (f", by version {versions}" if versions else "")
    rate = f" in {replay.took_s:.1f} s" if replay.took_s else ""
    yield f"{replay.compared:,} rows compared{rate}; the same answer: {told(replay.agreement)}"
    found = replay.distances
    if found.median is not None:
        yield (
            f"scores differ by {found.mean:.3g} on average: by {found.median:.3g} in half of the rows, {found.p90:.3g} in "
            f"nine of ten, {found.p99:.3g} in 99 of 100, {found.largest:.3g} at most"
        )
    if replay.truth is not None:
        yield from _truth(replay.truth)
    if replay.errors is not None:
        yield from _errors(replay.errors)


def _truth(truth: PairedTruth) -> Iterator[str]:
    yield f"accuracy by labels: {told(truth.candidate)}, and of what was answered {told(truth.logged)}"
    yield (
        f"right were both {truth.both:,} times, only this version {truth.only_candidate:,}, only the one that answered "
        f"{truth.only_logged:,}, neither {truth.neither:,}: {100 * truth.low:+.2f} to {100 * truth.high:+.2f} points; "
        f"McNemar's e-value {truth.e_value:.3g}" + (", so they differ" if truth.e_value >= 1 / ALPHA else "")
    )


def _errors(errors: PairedErrors) -> Iterator[str]:
    logged, candidate = errors.mean_absolute
    yield (
        f"mean absolute error by {errors.rows:,} labels: {candidate:.4g}, and of what was answered {logged:.4g}; root of the "
        f"mean squared error: {errors.root_mean_squared[1]:.4g} and {errors.root_mean_squared[0]:.4g}"
    )
    yield f"closer to the truth {errors.closer:,} times, farther from it {errors.farther:,}"


def _notes(replay: Replay) -> Iterator[str]:
    for one in replay.incompatible:
        yield f"{one.rows:,} rows were logged without the column {formatting.safe(one.reason)!r}, which the version takes"
    for one in replay.refused:
        yield f"{one.rows:,} rows refused: {formatting.safe(one.reason, 200)}"
    for one in replay.failed:
        yield f"{one.rows:,} rows on which the version fails: {formatting.safe(one.reason, 200)}"
    if replay.distances.infinite:
        yield f"{replay.distances.infinite:,} rows have scores of different shapes, or one is missing"
    if replay.truth is not None and replay.truth.unknown:
        yield f"{replay.truth.unknown:,} labels name no class of the version"


def _table(*headings: str, numbers: tuple[str, ...] = ()) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", overflow="fold")
    return table


def _classes(replay: Replay) -> Any:
    from rich.text import Text

    table = _table("class", "rows", "the same again", numbers=("rows",))
    for one in replay.by_class:
        table.add_row(Text(formatting.safe(one.name)), f"{one.agreement.of:,}", told(one.agreement))
    return table


def _changes(replay: Replay) -> Any:
    from rich.text import Text

    table = _table("answered", "now", "rows", numbers=("rows",))
    for one in replay.changed[:MOST_PAIRS]:
        table.add_row(Text(formatting.safe(one.logged)), Text(formatting.safe(one.candidate)), f"{one.rows:,}")
    return table


def _different(replay: Replay) -> Any:
    from rich.text import Text

    table = _table("request", "row", "time", "version", "answered", "now", "distance", numbers=("row", "distance"))
    for one in replay.different[:MOST_ROWS]:
        table.add_row(
            Text(formatting.safe(one.request_id)),
            f"{one.row}",
            one.time,
            Text(formatting.safe(one.version)),
            Text(_answer(one.logged, one.logged_value)),
            Text(_answer(one.candidate, one.candidate_value)),
            f"{one.distance:.3g}",
        )
    return table


def _answer(name: str | None, value: float | None) -> str:
    if name is not None:
        return formatting.safe(name)
    return formatting.UNKNOWN if value is None else f"{value:.6g}"
