"""Drift as one self-contained page: a table, the drifted features first, and below it each feature's histogram.

Gives the values; `page.html.j2` is the page. It follows the reader's light or dark setting, and prints.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Final

from penstock_server.drift.report import ColumnDrift, VersionDrift, by_concern
from penstock_tools import formatting
from penstock_tools.drift import sentences

if TYPE_CHECKING:
    from jinja2 import Template

MOST_SECTIONS: Final = 200
"""Features that are drawn large; the others have only their line in the table."""

_HEADINGS: Final = ("feature", "p", "JS", "PSI", "missing", "unseen", "outside", "rows")
_MOST_LABELS: Final = 6


def page(version: VersionDrift, made: datetime | None = None) -> str:
    """The page of a version.

    Args:
        version: what the server reports of it.
        made: the time to show; None for now.
    """
    return _template().render(
        version=version,
        columns=by_concern(version),
        title=sentences.title(version),
        verdict=sentences.verdict(version),
        predictions=sentences.predictions_line(version),
        predictions_name=sentences.PREDICTIONS,
        alarms=sentences.alarms_line(version),
        rows=sentences.rows_line(version),
        made=(made or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        headings=(*_HEADINGS, *(["importance"] if version.importance_measure else [])),
        importance=sentences.importance_line(version),
        most_sections=MOST_SECTIONS,
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("penstock_tools", "drift"),
        autoescape=True,  # names come from the people who published them
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["name"] = formatting.safe
    environment.globals |= {"cells": _cells, "details": _details, "labelled": _labelled, "state": sentences.state}
    return environment.get_template("page.html.j2")


def _cells(version: VersionDrift, column: ColumnDrift) -> Iterator[tuple[float | None, str]]:
    """Each number of a table's line: what it is sorted by, and what is shown."""
    yield from _drift_cells(column)
    if version.importance_measure:
        yield column.importance, sentences.importance(column.importance)


def _drift_cells(column: ColumnDrift) -> Iterator[tuple[float | None, str]]:
    if not column.enough_rows:
        yield from [(None, "")] * 6
        yield column.rows, f"{column.rows:,} of {column.rows_needed:,}"
        return
    yield column.p_value, sentences.probability(column.p_value)
    yield column.jensen_shannon, sentences.decimals(column.jensen_shannon)
    yield column.psi_unbiased, sentences.decimals(column.psi_unbiased)
    for share in (column.missing_ratio, column.unseen_ratio, column.out_of_range_ratio):
        yield share, sentences.share(share)
    yield column.rows, f"{column.rows:,}"


def _details(column: ColumnDrift) -> str:
    numbers = {
        "PSI as Evidently computes it": sentences.decimals(column.psi),
        "Kolmogorov-Smirnov distance at least": sentences.decimals(column.ks),
        "Wasserstein distance in deviations": sentences.decimals(column.wasserstein),
        "infinite": sentences.share(column.infinite_ratio),
    }
    return ", ".join(f"{label} {value}" for label, value in numbers.items() if value)


def _labelled(column: ColumnDrift) -> list[int]:
    """The bins whose names are written below a large histogram: the first, the last, and some between."""
    bins = len(column.labels)
    if bins <= _MOST_LABELS:
        return list(range(bins))
    return sorted({round(part * (bins - 1) / (_MOST_LABELS - 1)) for part in range(_MOST_LABELS)})
