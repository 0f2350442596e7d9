"""Drift as one self-contained page: the alarms, a table of the features, and each feature's histogram.

Gives the values; `page.html.j2` is the page, and `axis` places the names below histograms. It follows the reader's light or
dark setting, prints, and on a narrow screen has a card for each line of the table.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from penstock_server.drift.report import ColumnDrift, PairDrift, SegmentDrift, VersionDrift, by_concern
from penstock_tools import output
from penstock_tools.drift import sentences
from penstock_tools.drift.axis import FONT, SLANT, Axis, axis

if TYPE_CHECKING:
    from jinja2 import Template

MOST_SECTIONS: Final = 200
"""Features that are drawn large; the others have only their line in the table."""

MOST_TOGETHER: Final = 40
"""Pairs, and segments, that are drawn."""
Drifted = TypeVar("Drifted", PairDrift, SegmentDrift)

_WIDTH: Final = 340
"""Of a large histogram, in units as large as a pixel where it is drawn at its own size."""


def page(version: VersionDrift, made: datetime | None = None) -> str:
    """The page of a version.

    Args:
        version: what the server reports of it.
        made: the time to show; None for now.
    """
    return _template().render(
        version=version,
        columns=[*by_concern(version), *version.answered],
        title=sentences.title(version),
        verdict=sentences.verdict(version),
        predictions=sentences.predictions_line(version),
        expected=sentences.expected_line(version),
        assumption=sentences.assumption(version),
        alarms=sorted(version.alarms, key=lambda alarm: alarm.since),
        alarms_head=sentences.alarms_head(version),
        order=sentences.order_line(version),
        rows=sentences.rows_line(version),
        joint=sentences.joint_line(version),
        pairs=_strongest(() if version.joint is None else version.joint.pairs),
        segments=_strongest(() if version.joint is None else version.joint.segments),
        made=(made or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        headings=_headings(version),
        importance=sentences.importance_line(version),
        is_drawn=lambda at: at < MOST_SECTIONS or at >= len(version.columns),
    )


@cache
def _template() -> "Template":
    return output.template(
        "drift",
        "page.html.j2",
        {
            "axis": _axis,
            "called": sentences.called,
            "cells": _cells,
            "details": _details,
            "font": f"{FONT:g}",
            "moment": sentences.moment,
            "pair_told": sentences.pair_told,
            "segment_axis": _segment_axis,
            "segment_told": sentences.segment_told,
            "since": sentences.since,
            "slant": SLANT,
            "state": sentences.state,
            "told": sentences.alarm_told,
            "width": _WIDTH,
        },
    )


def _strongest(found: Sequence[Drifted]) -> list[Drifted]:
    """Those that drifted, the largest index first, as many as are drawn."""
    drifted = (one for one in found if one.drifted)
    return sorted(drifted, key=lambda one: -(one.psi_unbiased or 0.0))[:MOST_TOGETHER]


def _headings(version: VersionDrift) -> tuple[str, ...]:
    since = ["since (UTC)"] if version.alarms else []
    importance = ["importance"] if version.importance_measure else []
    return ("feature", *since, "p", "JS", "PSI", "detects", "missing", "new", "rows", *importance)


def _cells(version: VersionDrift, column: ColumnDrift) -> Iterator[tuple[str, float | None, str]]:
    """Each number of a table's line after the name: its heading, what it is sorted by, and what is shown."""
    since = sentences.since(version, column)
    # A string is unseen, a number out of range: no column has both.
    new = column.out_of_range_ratio if column.unseen_ratio is None else column.unseen_ratio
    cells: dict[str, tuple[float | None, str]] = {
        "since (UTC)": (since, sentences.moment(since)),
        "p": (column.p_value, sentences.probability(column.p_value)),
        "JS": (column.jensen_shannon, sentences.decimals(column.jensen_shannon)),
        "PSI": (column.psi_unbiased, sentences.decimals(column.psi_unbiased)),
        "detects": (column.detectable, sentences.decimals(column.detectable, 2)),
        "missing": (column.missing_ratio, sentences.share(column.missing_ratio)),
        "new": (new, sentences.share(new)),
        "rows": (column.rows, _rows(column)),
        "importance": (column.importance, sentences.importance(column.importance)),
    }
    for heading in _headings(version)[1:]:
        yield heading, *cells[heading]


def _rows(column: ColumnDrift) -> str:
    if not column.enough_rows:
        return f"{column.rows:,} of {column.rows_needed:,}"
    like = f" like {column.effective_rows:,}" if column.effective_rows < column.rows else ""
    return f"{column.rows:,}{like}"


def _details(version: VersionDrift, column: ColumnDrift) -> list[tuple[str, str]]:
    """What is written below a large histogram, without what is not known."""
    numbers = {
        "p": sentences.probability(column.p_value),
        "JS distance": sentences.decimals(column.jensen_shannon),
        "PSI": sentences.decimals(column.psi_unbiased),
        "detects PSI": sentences.decimals(column.detectable, 2),
        "Evidently's PSI": sentences.decimals(column.psi),
        "KS at least": sentences.decimals(column.ks),
        "Wasserstein": sentences.decimals(column.wasserstein),
        "missing": sentences.share(column.missing_ratio),
        "unseen": sentences.share(column.unseen_ratio),
        "outside": sentences.share(column.out_of_range_ratio),
        "infinite": sentences.share(column.infinite_ratio),
        "rows": _rows(column),
        "importance": sentences.importance(column.importance) if version.importance_measure else "",
    }
    return [(label, value) for label, value in numbers.items() if value]


def _axis(column: ColumnDrift) -> Axis:
    return axis(column.labels, _WIDTH, is_ordered=column.kind in {"number", "score"})


def _segment_axis(segment: SegmentDrift) -> Axis:
    return axis(segment.labels, _WIDTH, is_ordered=False)
