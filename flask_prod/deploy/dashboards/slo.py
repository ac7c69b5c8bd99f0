"""The objective: how much of what may fail has failed, and how fast the rest goes."""

from __future__ import annotations

from ..alerts.recording import WINDOWS
from ..alerts.requests import BURNS
from ..plan import Plan
from .panel import GREEN, RED, STAT, YELLOW, Board, Lens, Panel, Query, Row, lens_of

_DAYS = "30d"
_REQUESTS = "flask_http_request_total"


def board(plan: Plan) -> Board:
    """Return the dashboard of the objective DEPLOY_SLO; it shows the service, never one instance."""
    lens, budget = lens_of(plan), 1 - plan.deploy.slo
    return Board(
        name="slo",
        title="Objective",
        description=(
            f"{plan.deploy.slo:.4%} of the requests of 30 days are to be answered other than 5xx. Computed by the "
            "recording rules that the alerts use, so the choice of an instance changes nothing here."
        ).replace("00%", "%"),
        page="requests",
        span="now-7d",
        rows=(
            Row("30 days", _month(lens, plan.deploy.slo)),
            Row("How fast the budget goes", _burns(lens, budget)),
            Row("What it is made of", _parts(lens)),
        ),
    )


def _month(lens: Lens, slo: float) -> tuple[Panel, ...]:
    total = f"sum (increase({_REQUESTS}{{{lens.service}}}[{_DAYS}]))"
    failed = f'(sum (increase({_REQUESTS}{{{lens.service}, status=~"5.."}}[{_DAYS}])) or vector(0))'
    budget = f"{1 - slo:.6g}"
    return (
        Panel(
            title="Availability",
            description="The share of the requests of the last 30 days that were not answered 5xx.",
            unit="percentunit",
            kind=STAT,
            width=6,
            height=6,
            steps=((0, RED), (slo, GREEN)),
            queries=(Query(f"1 - {failed} / {total}", now=True),),
        ),
        Panel(
            title="Error budget left",
            description=(
                "What is left of the failures that the objective allows in 30 days; below zero it is missed."
            ),
            unit="percentunit",
            kind=STAT,
            width=6,
            height=6,
            steps=((0, RED), (0.1, YELLOW), (0.3, GREEN)),
            queries=(Query(f"1 - {failed} / {total} / {budget}", now=True),),
        ),
        Panel(
            title="Requests that failed",
            description="Requests of the last 30 days that were answered 5xx.",
            unit="short",
            kind=STAT,
            width=6,
            height=6,
            queries=(Query(failed, now=True),),
        ),
        Panel(
            title="Requests that may still fail",
            description="So many more 5xx in the same 30 days, and the objective is missed.",
            unit="short",
            kind=STAT,
            width=6,
            height=6,
            steps=((0, RED), (1, GREEN)),
            queries=(Query(f"{total} * {budget} - {failed}", now=True),),
        ),
    )


def _burns(lens: Lens, budget: float) -> tuple[Panel, ...]:
    pairs = ", ".join(f"{burn.times:g} times over {burn.long} and {burn.short}" for burn in BURNS)
    return (
        Panel(
            title="Burn rates",
            description=(
                "How many times as fast as the objective allows requests fail, by window; at 1 the budget lasts "
                f"just 30 days. Alerts fire above {pairs}."
            ),
            unit="short",
            width=16,
            height=10,
            steps=(
                (0, GREEN),
                *((burn.times, RED if burn.severity == "critical" else YELLOW) for burn in BURNS[::-1]),
            ),
            queries=tuple(
                Query(f"job:flask_http_request_errors:ratio_rate{window}{{{lens.service}}} / {budget:.6g}", window)
                for window in WINDOWS
            ),
        ),
        Panel(
            title="Alerts that fire",
            description="Alerts of this service, by name and severity; their pages say what to do.",
            unit="short",
            height=10,
            queries=(
                Query(
                    f'count by (alertname, severity) (ALERTS{{alertstate="firing", service="{lens.scope.name}", '
                    'environment=~"$environment"})',
                    "{{alertname}} ({{severity}})",
                ),
            ),
        ),
    )


def _parts(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Availability by window",
            description="The share of requests that were not answered 5xx, over five minutes, an hour and a day.",
            unit="percentunit",
            most=1,
            queries=tuple(
                Query(f"1 - job:flask_http_request_errors:ratio_rate{window}{{{lens.service}}}", window)
                for window in ("5m", "1h", "1d")
            ),
        ),
        Panel(
            title="Success",
            description=(
                "The share of requests for known routes that were answered below 400; refusals count against it."
            ),
            unit="percentunit",
            most=1,
            steps=((0, RED), (0.95, GREEN)),
            queries=(Query(f"job:flask_http_request_success:ratio_rate5m{{{lens.service}}}", "success"),),
        ),
        Panel(
            title="Slowest twentieth over time",
            description="What 95 % of the requests of five minutes stay below; an alert fires above a second.",
            unit="s",
            steps=((0, GREEN), (1, RED)),
            queries=(Query(f"job:flask_http_request_duration_seconds:p95_5m{{{lens.service}}}", "95 %"),),
        ),
    )
