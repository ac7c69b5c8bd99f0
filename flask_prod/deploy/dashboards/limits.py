"""Rate limits: who is refused, who would be, and whether limits hold."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan import Plan
from .panel import GREEN, RED, STAT, YELLOW, Board, Lens, Panel, Query, Row, highest, lens_of, rate, ratio

_LIMITED = "flask_prod_limited_total"
_REQUESTS = "flask_http_request_total"


def board(plan: Plan) -> Board | None:
    """Return the dashboard of limits; None where there are none."""
    if "ratelimit" not in plan.rooms:
        return None
    lens = lens_of(plan)
    others = tuple(_others(plan, lens))
    return Board(
        name="limits",
        title="Limits",
        description="Requests that were refused, and those that a limit in shadow mode would have refused.",
        page="requests",
        rows=(
            Row("Now", _now(lens)),
            Row("Rate limits", _limits(lens)),
            *((Row("Other refusals", others),) if others else ()),
        ),
    )


def _now(lens: Lens) -> tuple[Panel, ...]:
    limited, shadowed = (rate(metric, lens.web) for metric in (_LIMITED, "flask_prod_limit_shadowed_total"))
    return (
        Panel(
            title="Refused by a limit",
            description="The share of requests that was answered 429 by a rate limit.",
            unit="percentunit",
            kind=STAT,
            width=8,
            height=5,
            steps=((0, GREEN), (0.05, YELLOW), (0.1, RED)),
            queries=(Query(ratio(limited, rate(_REQUESTS, lens.web))),),
        ),
        Panel(
            title="Would be refused",
            description="The share of requests that limits in shadow mode would have refused.",
            unit="percentunit",
            kind=STAT,
            width=8,
            height=5,
            queries=(Query(ratio(shadowed, rate(_REQUESTS, lens.web))),),
        ),
        Panel(
            title="Limits without Redis",
            description="1 while limits count in each process, because Redis is away: then they let more pass.",
            unit="short",
            kind=STAT,
            width=8,
            height=5,
            steps=((0, GREEN), (1, RED)),
            queries=(Query(highest("flask_prod_degraded", lens.web, "component"), "{{component}}"),),
        ),
    )


def _limits(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Refusals by policy",
            description="Requests answered 429, by the policy that refused them.",
            unit="reqps",
            stacked=True,
            queries=(Query(rate(_LIMITED, lens.web, "policy"), "{{policy}}"),),
        ),
        Panel(
            title="Shadow refusals by policy",
            description="Requests that a policy in shadow mode would have refused: what enforcing it would cost.",
            unit="reqps",
            stacked=True,
            queries=(Query(rate("flask_prod_limit_shadowed_total", lens.web, "policy"), "{{policy}}"),),
        ),
        Panel(
            title="429 by route",
            description="Answers 429 by the route's template, those of the application's own included.",
            unit="reqps",
            stacked=True,
            queries=(
                Query(
                    rate("flask_http_request_duration_seconds_count", f'{lens.web}, status="429"', "url_rule"),
                    "{{url_rule}}",
                ),
            ),
        ),
    )


def _others(plan: Plan, lens: Lens) -> Iterator[Panel]:
    if "proxy" in plan.rooms:
        yield Panel(
            title="Unknown hosts",
            description="Requests for a host that is not in ALLOWED_HOSTS.",
            unit="reqps",
            queries=(Query(rate("flask_prod_hosts_refused_total", lens.web), "refused"),),
        )
    if "cors" in plan.rooms:
        yield Panel(
            title="Other origins",
            description="Preflights by result, and answers that the scripts of another origin may not read.",
            unit="reqps",
            queries=(
                Query(rate("flask_prod_cors_preflights_total", lens.web, "result"), "preflight {{result}}"),
                Query(rate("flask_prod_cors_origins_refused_total", lens.web), "origin refused"),
            ),
        )
    if "headers" in plan.rooms:
        yield Panel(
            title="Plain HTTP",
            description="Requests without https: browsers are redirected, programs refused.",
            unit="reqps",
            queries=(Query(rate("flask_prod_https_enforced_total", lens.web, "answer"), "{{answer}}"),),
        )
