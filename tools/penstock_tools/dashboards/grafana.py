"""Makes Grafana's JSON of a board, by the builders that Grafana generates from its schema."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmaps
from grafana_foundation_sdk.models import prometheus as queries

from penstock_tools.dashboards.board import Board, Panel, Query

SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG: Final = "penstock"
_HEIGHTS: Final = {"number": 4, "lines": 8, "stacked": 8, "heatmap": 8, "bars": 8, "table": 9, "states": 7}
_GREEN, _ORANGE, _RED = "green", "orange", "red"
_NO_COLUMN: Final = {"Time": True}


def to_json(board: Board, others: Sequence[Board]) -> str:
    """The text of the file that Grafana reads.

    Args:
        board: the dashboard.
        others: those that it has links to.
    """
    built = (
        dashboard.Dashboard(f"Penstock / {board.title}")
        .uid(f"penstock-{board.name}")
        .description(board.text)
        .tags([TAG])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    for variable in _variables(board):
        built.with_variable(variable)
    for other in others:
        built.link(
            dashboard.DashboardLink(other.title)
            .type(models.DashboardLinkType.LINK)
            .url(f"/d/penstock-{other.name}")
            .keep_time(True)
            .include_vars(True)
            .tags([])
        )
    number = 0
    for row in board.rows:
        number += 1
        built.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            built.with_panel(_panel(panel).id(number))
    return json.dumps(built.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _variables(board: Board) -> list[Any]:
    names = {
        "job": "label_values(penstock_ready, job)",
        "instance": 'label_values(penstock_ready{job=~"$job"}, instance)',
    }
    if board.picks_models:
        names["model"] = 'label_values(penstock_version_state{job=~"$job", instance=~"$instance"}, model_name)'
    chosen = [
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
        for name, query in names.items()
    ]
    return [dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"), *chosen]


def _panel(panel: Panel) -> Any:
    """The builder of a panel; those of the kinds have these methods in common, and no class."""
    built = _BUILDERS[panel.kind](panel)
    built.title(panel.title).description(_help(panel)).datasource(SOURCE)
    built.span(panel.width).height(_HEIGHTS[panel.kind])
    for at, query in enumerate(panel.queries):
        built.with_target(_target(panel, query, chr(ord("A") + at)))
    if panel.empty_until:
        built.no_value(f"Empty until {panel.empty_until}")
    return built


def _help(panel: Panel) -> str:
    return f"{panel.text} Empty until {panel.empty_until}." if panel.empty_until else panel.text


def _target(panel: Panel, query: Query, letter: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(SOURCE)
    target.editor_mode(queries.QueryEditorMode.CODE)
    if panel.kind in ("table", "bars"):
        return (
            target.instant()
            .format(queries.PromQueryFormat.TABLE if panel.kind == "table" else queries.PromQueryFormat.TIME_SERIES)
            .legend_format(query.legend or "__auto")
        )
    target.range().legend_format(query.legend or "__auto")
    if panel.kind == "heatmap":
        target.format(queries.PromQueryFormat.HEATMAP)
    # Points of the graph that lead to traces, where the server has some.
    if "_bucket" in query.expr:
        target.exemplar(True)
    return target


def _lines(panel: Panel, *, fill: int = 10, stacking: looks.StackingMode = looks.StackingMode.NONE) -> Any:
    built = (
        timeseries.Panel()
        .unit(panel.unit)
        .draw_style(looks.GraphDrawStyle.LINE)
        .line_interpolation(looks.LineInterpolation.LINEAR)
        .line_width(1)
        .fill_opacity(fill)
        .show_points(looks.VisibilityMode.NEVER)
        .stacking(common.StackingConfig().mode(stacking).group("A"))
        .legend(
            common.VizLegendOptions()
            .display_mode(looks.LegendDisplayMode.TABLE)
            .placement(looks.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
    )
    if panel.is_log:
        built.scale_distribution(common.ScaleDistributionConfig().type(looks.ScaleDistribution.LOG).log(10))
    elif panel.least is not None:
        built.min(panel.least)
    if panel.most is not None:
        built.max(panel.most)
    if panel.thresholds:
        built.thresholds(_thresholds(panel))
        built.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED))
    return built


def _stacked(panel: Panel) -> Any:
    return _lines(panel, fill=40, stacking=looks.StackingMode.NORMAL)


def _number(panel: Panel) -> Any:
    built = (
        stat.Panel()
        .unit(panel.unit)
        .graph_mode(looks.BigValueGraphMode.AREA)
        .color_mode(looks.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(panel))
    )
    return built if panel.most is None else built.max(panel.most)


def _bars(panel: Panel) -> Any:
    return (
        bargauge.Panel()
        .unit(panel.unit)
        .orientation(looks.VizOrientation.HORIZONTAL)
        .display_mode(looks.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(panel))
        .min(panel.least if panel.least is not None else 0)
    )


def _table(panel: Panel) -> Any:
    """One line per set of labels, with a column per query where there are several."""
    built = table.Panel().unit(panel.unit).filterable(True)
    names = {f"Value #{chr(ord('A') + at)}": query.legend for at, query in enumerate(panel.queries)}
    if len(panel.queries) == 1:
        names["Value"] = panel.queries[0].legend
    hidden = {**_NO_COLUMN, **{column: True for column, name in names.items() if not name}}
    shown = {column: name for column, name in names.items() if name}
    built.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    options = {"excludeByName": hidden, "renameByName": shown, "indexByName": {}}
    return built.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))


def _heatmap(panel: Panel) -> Any:
    return (
        heatmap.Panel()
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().scheme("Spectral").steps(64).mode(heatmaps.HeatmapColorMode.SCHEME))
        .y_axis(heatmap.YAxisConfig().unit(panel.unit))
        .cell_gap(1)
    )


def _states(panel: Panel) -> Any:
    return (
        statetimeline.Panel()
        .unit(panel.unit)
        .merge_values(True)
        .show_value(looks.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().show_legend(False).calcs([]))
        .thresholds(_thresholds(panel))
    )


_BUILDERS: Final[dict[str, Callable[[Panel], Any]]] = {
    "lines": _lines,
    "stacked": _stacked,
    "number": _number,
    "bars": _bars,
    "table": _table,
    "heatmap": _heatmap,
    "states": _states,
}


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """Green, orange and red upwards; downwards where the thresholds fall."""
    bounds = panel.thresholds
    colors = [_GREEN, _ORANGE, _RED][3 - len(bounds) - 1 :] if len(bounds) == 2 else [_GREEN, _RED][: len(bounds) + 1]
    if list(bounds) != sorted(bounds):
        bounds, colors = bounds[::-1], colors[::-1]
    steps = [models.Threshold(color=colors[0], value=None)]
    steps += [models.Threshold(color=color, value=bound) for bound, color in zip(bounds, colors[1:], strict=True)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
