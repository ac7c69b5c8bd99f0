"""What callers see: rate, errors, duration, and how many requests there are at once."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan import Plan
from .panel import (
    GREEN,
    HEAT,
    RED,
    STAT,
    YELLOW,
    Board,
    Lens,
    Panel,
    Query,
    Row,
    highest,
    lens_of,
    quantile,
    rate,
    ratio,
)

_REQUESTS = "flask_http_request_total"
_SECONDS = "flask_http_request_duration_seconds"
_FAILED = 'status=~"5.."'


def board(plan: Plan) -> Board:
    """Return the dashboard to look at first."""
    lens = lens_of(plan)
    return Board(
        name="service",
        title="Service",
        description="Requests by rate, errors and duration, as their callers see them. Look here first.",
        page="requests",
        rows=(
            Row("Now", tuple(_now(lens))),
            Row("Rate", _rate(lens)),
            Row("Errors", _errors(lens)),
            Row("Duration", _duration(lens)),
            Row("At once", _at_once(lens)),
            Row("Condition", tuple(_condition(plan, lens))),
        ),
    )


def _now(lens: Lens) -> Iterator[Panel]:
    failed = ratio(rate(_REQUESTS, f"{lens.web}, {_FAILED}"), rate(_REQUESTS, lens.web))
    yield Panel(
        title="Requests per second",
        description="All requests that were answered, refused ones included; probes and scrapes do not count.",
        unit="reqps",
        kind=STAT,
        width=5,
        height=5,
        queries=(Query(rate(_REQUESTS, lens.web)),),
    )
    yield Panel(
        title="Failed requests",
        description="The share of requests that were answered 5xx.",
        unit="percentunit",
        kind=STAT,
        width=5,
        height=5,
        steps=((0, GREEN), (0.01, YELLOW), (0.05, RED)),
        queries=(Query(failed),),
    )
    yield Panel(
        title="Slowest twentieth",
        description="95 % of the requests took less than this, from the first byte in to the last byte out.",
        unit="s",
        kind=STAT,
        width=5,
        height=5,
        steps=((0, GREEN), (0.5, YELLOW), (1, RED)),
        queries=(Query(quantile(0.95, _SECONDS, lens.web)),),
    )
    yield Panel(
        title="Requests in flight",
        description="Requests that are being served at this moment, in all instances.",
        unit="short",
        kind=STAT,
        width=4,
        height=5,
        queries=(Query(f"sum (flask_prod_http_requests_in_flight{{{lens.web}}})"),),
    )
    yield Panel(
        title="Instances",
        description="Instances that answer Prometheus, the workers of background jobs included.",
        unit="short",
        kind=STAT,
        width=5,
        height=5,
        steps=((0, RED), (1, GREEN)),
        queries=(Query(f"sum by (job) (up{{{lens.all}}})", "{{job}}"),),
    )


def _rate(lens: Lens) -> tuple[Panel, ...]:
    count = f"{_SECONDS}_count"
    return (
        Panel(
            title="Requests by route",
            description="By the route's template; `unmatched` are paths that no route has.",
            unit="reqps",
            width=12,
            stacked=True,
            queries=(Query(rate(count, lens.web, "method", "url_rule"), "{{method}} {{url_rule}}"),),
        ),
        Panel(
            title="Requests by status",
            description="By the status that was answered; 429 are refusals of a rate limit.",
            unit="reqps",
            width=6,
            stacked=True,
            queries=(Query(rate(_REQUESTS, lens.web, "status"), "{{status}}"),),
        ),
        Panel(
            title="Bytes",
            description="Bodies of answers that were sent, and of requests as their Content-Length said.",
            unit="Bps",
            width=6,
            queries=(
                Query(rate("flask_prod_http_response_bytes_total", lens.web), "sent"),
                Query(rate("flask_prod_http_request_bytes_total", lens.web), "received"),
            ),
        ),
    )


def _errors(lens: Lens) -> tuple[Panel, ...]:
    count = f"{_SECONDS}_count"
    failed = rate(count, f"{lens.web}, {_FAILED}", "url_rule")
    return (
        Panel(
            title="Failures by route",
            description="Requests answered 5xx, by the route's template and status.",
            unit="reqps",
            stacked=True,
            queries=(
                Query(rate(count, f"{lens.web}, {_FAILED}", "url_rule", "status"), "{{url_rule}} {{status}}"),
            ),
        ),
        Panel(
            title="Share of failures by route",
            description="The share of each route's own requests that was answered 5xx.",
            unit="percentunit",
            most=1,
            queries=(Query(f"{failed} / {rate(count, lens.web, 'url_rule')}", "{{url_rule}}"),),
        ),
        Panel(
            title="Exceptions",
            description="Requests that an exception ended, those that a handler of the application answered too.",
            unit="reqps",
            queries=(
                Query(
                    rate("flask_http_request_exceptions_total", lens.web, "method", "status"),
                    "{{method}} {{status}}",
                ),
            ),
        ),
    )


def _duration(lens: Lens) -> tuple[Panel, ...]:
    shares = {"50 %": 0.5, "95 %": 0.95, "99 %": 0.99}
    return (
        Panel(
            title="Duration",
            description=(
                "What half, 95 % and 99 % of the requests stay below. Points are exemplars: they lead to traces."
            ),
            unit="s",
            steps=((0, GREEN), (1, RED)),
            queries=tuple(
                Query(quantile(share, _SECONDS, lens.web), name, exemplars=share == 0.95)
                for name, share in shares.items()
            ),
        ),
        Panel(
            title="Duration by route",
            description="What 95 % of the requests of each route stay below.",
            unit="s",
            queries=(Query(quantile(0.95, _SECONDS, lens.web, "url_rule"), "{{url_rule}}"),),
        ),
        Panel(
            title="Spread of durations",
            description=(
                "How many requests took how long: two bands mean two kinds of requests behind one average."
            ),
            unit="s",
            kind=HEAT,
            queries=(
                Query(f"sum by (le) (increase({_SECONDS}_bucket{{{lens.web}}}[$__rate_interval]))", "{{le}}"),
            ),
        ),
    )


def _at_once(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="In flight by instance",
            description=(
                "Requests that each instance serves at this moment. At the number of its threads it is full."
            ),
            unit="short",
            width=12,
            queries=(
                Query(f"sum by (instance) (flask_prod_http_requests_in_flight{{{lens.web}}})", "{{instance}}"),
            ),
        ),
        Panel(
            title="Connections by instance",
            description="Connections that are open in the workers, idle ones included.",
            unit="short",
            width=12,
            queries=(Query(f"sum by (instance) (flask_prod_http_connections{{{lens.web}}})", "{{instance}}"),),
        ),
    )


def _condition(plan: Plan, lens: Lens) -> Iterator[Panel]:
    if "health" in plan.rooms:
        yield Panel(
            title="Health checks",
            description="What each check found: 0 ok, 1 warn, 2 fail. The worst instance counts.",
            unit="short",
            most=2,
            steps=((0, GREEN), (1, YELLOW), (2, RED)),
            queries=(Query(highest("flask_prod_health_check_state", lens.web, "check"), "{{check}}"),),
        )
    yield Panel(
        title="Versions",
        description="Instances by the version that they run: two of them meet while a release goes out.",
        unit="short",
        stacked=True,
        queries=(Query(f"count by (version) (flask_prod_build_info{{{lens.web}}})", "{{version}}"),),
    )
    yield Panel(
        title="Events",
        description=(
            "Changes of state that the rooms tell of, such as a breaker that opened, without those for "
            "information."
        ),
        unit="short",
        stacked=True,
        queries=(
            Query(
                f'sum by (event, severity) (increase(flask_prod_events_total{{{lens.all}, severity!="info"}}'
                "[$__rate_interval]))",
                "{{event}} ({{severity}})",
            ),
        ),
    )
