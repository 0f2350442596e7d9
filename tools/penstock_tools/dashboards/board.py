"""A dashboard as data: panels with what they ask Prometheus, in rows, and the few words of PromQL that they are made of.

Grafana's variables stand in the queries (`$job`, `$model`, `$__rate_interval`). `dashboards.grafana` makes Grafana's JSON of a
board, and `dashboards.page` the list for people. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["lines", "stacked", "number", "table", "bars", "heatmap", "states"]
WIDTH: Final = 24
"""Of a dashboard, in Grafana's columns."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a panel asks.

    Attributes:
        expr: in PromQL, with Grafana's variables.
        legend: the name of each series, with labels in `{{}}`; of a column, where the panel is a table.
    """

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        text: what it shows and how to read it, in one or two sentences, for the panel's help and the page.
        unit: Grafana's name of the unit, such as "reqps", "s" or "percentunit".
        width: in columns, of which a dashboard has 24.
        thresholds: where a value turns orange and red; of one, where it turns red. Falling ones are bad below.
        empty_until: what has to happen before it shows anything, as "a version is canary"; "" where it always does.
        is_log: the axis is logarithmic.
        least, most: the ends of the axis; None leaves them to Grafana.
    """

    title: str
    kind: Kind
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 8
    thresholds: tuple[float, ...] = ()
    empty_until: str = ""
    is_log: bool = False
    least: float | None = 0.0
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard.

    Attributes:
        name: of its file and in its address.
        picks_models: whether it can be narrowed to some models.
    """

    name: str
    title: str
    text: str
    rows: tuple[Row, ...]
    picks_models: bool = True

    @property
    def panels(self) -> Iterator[Panel]:
        """Those of all rows, in their order."""
        for row in self.rows:
            yield from row.panels


def of_servers(metric: str, *matchers: str) -> str:
    """The metric's series of the servers that are chosen."""
    chosen = ", ".join(('job=~"$job"', 'instance=~"$instance"', *matchers))
    return f"{metric}{{{chosen}}}"


def of_models(metric: str, *matchers: str) -> str:
    """The metric's series of the servers and models that are chosen."""
    return of_servers(metric, 'model_name=~"$model"', *matchers)


def recorded(rule: str) -> str:
    """What a recording rule says of the models that are chosen, over all servers."""
    return f'{rule}{{job=~"$job", model_name=~"$model"}}'


def per_second(series: str) -> str:
    """How fast counters grow."""
    return f"rate({series}[$__rate_interval])"


def within(series: str) -> str:
    """By how much counters grew from one point of the graph to the next."""
    return f"increase({series}[$__rate_interval])"


def added(expr: str, *labels: str) -> str:
    """The sum over everything but these labels."""
    return f"sum by ({', '.join(labels)}) ({expr})" if labels else f"sum({expr})"


def highest(expr: str, *labels: str) -> str:
    """The highest value over everything but these labels: of what all servers know alike, or the worst of them."""
    return f"max by ({', '.join(labels)}) ({expr})" if labels else f"max({expr})"


def mean(expr: str, *labels: str) -> str:
    """The mean over everything but these labels: of shares that servers know of their own rows each."""
    return f"avg by ({', '.join(labels)}) ({expr})" if labels else f"avg({expr})"


def ratio(part: str, whole: str, *labels: str) -> str:
    """How fast some counters grow, over how fast others do, of these labels each."""
    return f"{added(per_second(part), *labels)} / {added(per_second(whole), *labels)}"


def portions(series: str, *labels: str) -> str:
    """The share that each of these labels has of its model's growth; `model_name` is one of the labels."""
    return f"{added(per_second(series), *labels)} / on (model_name) group_left () {added(per_second(series), 'model_name')}"


def quantile(q: float, buckets: str, *labels: str) -> str:
    """A quantile of what histograms counted lately, of these labels each."""
    return f"histogram_quantile({q:g}, {added(per_second(buckets), 'le', *labels)})"


def quantiles(buckets: str, *labels: str) -> tuple[Query, ...]:
    """The median, and what nine of ten and 99 of 100 are below."""
    name = " ".join(f"{{{{{label}}}}}" for label in labels)
    return tuple(Query(quantile(q, buckets, *labels), f"{name} p{q * 100:g}".strip()) for q in (0.5, 0.9, 0.99))
