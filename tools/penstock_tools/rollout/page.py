"""A rollout and an experiment as one self-contained page: stages, gates, intervals, history.

Gives the values; `page.html.j2` is the page. It follows the reader's light or dark setting, prints, and asks the network for
nothing.
"""

from datetime import UTC, datetime
from functools import cache
from math import log
from typing import TYPE_CHECKING, Final, NamedTuple

from penstock_tools import output
from penstock_tools.rollout import words
from penstock_tools.rollout.fetch import Served

if TYPE_CHECKING:
    from jinja2 import Template

WIDTH: Final = 200
"""Of a drawn interval."""
_MOST_RATIO: Final = 4.0
"""Ratios from a quarter to this are drawn, on a scale of logarithms."""


class Whisker(NamedTuple):
    """An interval as it is drawn: its ends, and where there is no difference or the margin is, 0 to `WIDTH`."""

    left: float
    right: float
    mark: float


def page(served: Served, made: datetime | None = None) -> str:
    """The page of what a server knows of a model; `made` is the time to show, None for now."""
    return _template().render(
        model=served.model,
        rollout=served.rollout,
        experiment=served.experiment,
        made=(made or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
    )


def whisker(kind: str, low: float | None, high: float | None, margin: float = 0.0) -> Whisker | None:
    """An interval as it is drawn; None where there is nothing to draw.

    Args:
        kind: "ratio", marked at 1; "difference", marked at 0; or "share", marked at the margin.
        low: the lower end; None for none.
        high: the upper end; None for none.
        margin: what is tolerated.
    """
    if kind == "ratio":
        return None if high is None and not low else Whisker(_of_ratio(low or 0.0), _of_ratio(high), _of_ratio(1.0))
    if kind == "share":
        top = min(1.0, max(2 * margin, 1.1 * (1.0 if high is None else high)))
        return Whisker(*(WIDTH * min(1.0, each / top) for each in (low or 0.0, 1.0 if high is None else high, margin)))
    if kind != "difference" or (low is None and high is None):
        return None
    most = max(abs(each) for each in (low or 0.0, high or 0.0, margin)) or 1.0
    ends = (-most if low is None else low, most if high is None else high)
    return Whisker(*(WIDTH * (each / most + 1) / 2 for each in (*ends, 0.0)))


def _of_ratio(ratio: float | None) -> float:
    bounded = _MOST_RATIO if ratio is None else min(_MOST_RATIO, max(1 / _MOST_RATIO, ratio))
    return WIDTH * (log(bounded) / log(_MOST_RATIO) + 1) / 2


@cache
def _template() -> "Template":
    functions = {
        "between": words.between,
        "kind_of_gate": words.kind_of_gate,
        "mismatch": words.mismatch,
        "moment": words.moment,
        "note": words.INTERVALS,
        "share": words.share,
        "value": words.metric_value,
        "whisker": whisker,
        "width": WIDTH,
    }
    return output.template("rollout", "page.html.j2", functions)
