"""Dashboards in Grafana's own form, built with its SDK; the same data make the same text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_uppercase
from typing import TypeAlias

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as ways
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from ..alerts import Scope
from ..plan import Plan
from .panel import GRAPH, GREEN, HEAT, STAT, Board, Panel, Query

_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_EVERYTHING = ".*"
"""What `All` stands for: series without the label too, where Prometheus serves one environment only."""

_Picture: TypeAlias = timeseries.Panel | stat.Panel | heatmap.Panel


def document(board: Board, plan: Plan) -> str:
    """Return a dashboard as JSON."""
    built = (
        dashboard.Dashboard(f"{plan.name} / {board.title}")
        .uid(board.uid(plan))
        .description(board.description)
        .tags(["flask-prod", plan.name])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time(board.span, "now")
        .timezone("browser")
        .version(1)
    )
    _add_variables(built, Scope(plan.name, plan.uses_jobs))
    _add_links(built, board, plan)
    _add_panels(built, board)
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _add_variables(built: dashboard.Dashboard, scope: Scope) -> None:
    built.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for name, label in (("environment", "Environment"), ("instance", "Instance")):
        built.with_variable(
            dashboard.QueryVariable(name)
            .label(label)
            .query(f"label_values(up{{{scope.all}}}, {name})")
            .datasource(_SOURCE)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(_EVERYTHING)
            .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
        )


def _add_links(built: dashboard.Dashboard, board: Board, plan: Plan) -> None:
    """Lead to the other dashboards of the service, for the same time and choice, and to what to do."""
    built.link(
        dashboard.DashboardLink("Dashboards")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([plan.name])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
        .icon("external link")
    )
    if board.page and plan.runbooks.startswith(("http://", "https://", "/")):
        built.link(
            dashboard.DashboardLink("Runbook")
            .type(models.DashboardLinkType.LINK)
            .url(f"{plan.runbooks}/{board.page}.md")
            .tooltip("What to do about each alert")
            .target_blank(True)
            .icon("doc")
        )


def _add_panels(built: dashboard.Dashboard, board: Board) -> None:
    line = 0
    for row in board.rows:
        place = models.GridPos(h=1, w=24, x=0, y=line)
        built.with_row(dashboard.Row(row.title).id(row.number).grid_pos(place))
        line += 1
        for panel, column, top in row.placed(line):
            place = models.GridPos(h=panel.height, w=panel.width, x=column, y=top)
            built.with_panel(_panel(panel).grid_pos(place))
        line = max(top + panel.height for panel, _, top in row.placed(line))


def _panel(panel: Panel) -> _Picture:
    picture = _KINDS[panel.kind](panel)
    picture.title(panel.title).description(panel.description).id(panel.number).datasource(_SOURCE)
    picture.unit(panel.unit)
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        picture.with_target(_target(query, letter, panel.kind))
    return picture


def _target(query: Query, letter: str, kind: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(_SOURCE)
    if query.legend:
        target.legend_format(query.legend)
    if kind == HEAT:
        target.format(PromQueryFormat.HEATMAP)
    if query.exemplars:
        target.exemplar(True)
    return target.instant() if query.now else target.range()


def _graph(panel: Panel) -> timeseries.Panel:
    graph = (
        timeseries.Panel()
        .legend(
            common.VizLegendOptions()
            .display_mode(ways.LegendDisplayMode.TABLE)
            .placement(ways.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max", "lastNotNull"])
            .sort_by("Last *")
            .sort_desc(True)
        )
        .tooltip(common.VizTooltipOptions().mode(ways.TooltipDisplayMode.MULTI).sort(ways.SortOrder.DESCENDING))
        .fill_opacity(30 if panel.stacked else 10)
        .line_width(1)
        .show_points(ways.VisibilityMode.NEVER)
        .min(0)
    )
    if panel.stacked:
        graph.stacking(common.StackingConfig().mode(ways.StackingMode.NORMAL))
    if panel.most is not None:
        graph.max(panel.most)
    if panel.steps:
        graph.thresholds(_thresholds(panel))
        graph.thresholds_style(common.GraphThresholdsStyleConfig().mode(ways.GraphTresholdsStyleMode.DASHED))
    return graph


def _stat(panel: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .graph_mode(ways.BigValueGraphMode.NONE if panel.queries[0].now else ways.BigValueGraphMode.AREA)
        .color_mode(ways.BigValueColorMode.VALUE)
        .text_mode(ways.BigValueTextMode.AUTO)
        .thresholds(_thresholds(panel))
        .no_value("-")
    )


def _heat(panel: Panel) -> heatmap.Panel:
    return (
        heatmap.Panel()
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).exponent(0.5)
        )
        .y_axis(heatmap.YAxisConfig().unit(panel.unit))
        .scale_distribution(common.ScaleDistributionConfig().type(ways.ScaleDistribution.LINEAR))
    )


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = panel.steps or ((0.0, GREEN),)
    first, *others = steps
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps(
            [
                models.Threshold(value=None, color=first[1]),
                *(models.Threshold(value=value, color=color) for value, color in others),
            ]
        )
    )


_KINDS: Mapping[str, Callable[[Panel], _Picture]] = {GRAPH: _graph, STAT: _stat, HEAT: _heat}
