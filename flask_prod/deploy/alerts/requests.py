"""Alerts about what callers see: errors, the objective's burn rates, latency, limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..plan import Plan
from . import recording
from .rule import CRITICAL, WARNING, Alert, Case, Recording, Scope

_PAGE = "requests"
_ENOUGH = 20
"""Requests in five minutes below which one failure is no rate."""

_RATIO = "{{ $value | humanizePercentage }}"
_DAYS = 30
"""What the objective is measured over."""

_MOST = 0.9
"""A share of failures that no alert can wait for: the objective allows more than there is."""

_FAILURES = 5
"""Failed requests that it takes at the least to call somebody: one of fifty at night is no outage."""


def recordings(plan: Plan, scope: Scope) -> Iterator[Recording]:
    """Yield what the alerts and dashboards build on."""
    yield from recording.recordings(scope)


def alerts(plan: Plan, scope: Scope) -> Iterator[Alert]:
    """Yield them."""
    yield _error_rate(scope)
    yield _success_rate(scope)
    yield _latency(scope)
    for burn in BURNS:
        if burn.times * (1 - plan.deploy.slo) < _MOST:
            yield _burn(scope, plan.deploy.slo, burn)
    yield _no_traffic(scope)
    if "ratelimit" in plan.rooms:
        yield _limited(scope)


def traffic(scope: Scope, minutes: int, **per_minute: float) -> Mapping[str, str]:
    """Return series of so many requests a minute by status: `s200=95, s500=5`."""
    return {
        f'flask_http_request_total{{{scope.web}, method="GET", status="{status[1:]}"}}': f"0+{count:g}x{minutes}"
        for status, count in per_minute.items()
    }


def _error_rate(scope: Scope) -> Alert:
    return Alert(
        name="ErrorRateHigh",
        values=("job:flask_http_request_errors:ratio_rate5m",),
        limit=0.05,
        guard=f"job:flask_http_requests:rate5m * 300 >= {_ENOUGH}",
        wait="5m",
        severity=CRITICAL,
        about="availability",
        page=_PAGE,
        summary="More than 5 % of requests fail",
        description=f"{_RATIO} of the requests of the last 5 minutes were answered 5xx.",
        fires=Case(
            series=traffic(scope, 40, s200=949, s500=51),
            labels={"job": scope.name},
            description="5.1% of the requests of the last 5 minutes were answered 5xx.",
        ),
        quiet=Case(series=traffic(scope, 40, s200=951, s500=49)),
    )


def _success_rate(scope: Scope) -> Alert:
    def cart(good: int, refused: int) -> Mapping[str, str]:
        name, route = "flask_http_request_duration_seconds_count", 'method="POST", url_rule="/cart"'
        return {
            f'{name}{{{scope.web}, {route}, status="200"}}': f"0+{good}x60",
            f'{name}{{{scope.web}, {route}, status="400"}}': f"0+{refused}x60",
            # What asks for pages that do not exist is none of ours.
            f'{name}{{{scope.web}, method="GET", url_rule="unmatched", status="404"}}': "0+500x60",
        }

    return Alert(
        name="SuccessRateLow",
        values=("job:flask_http_request_success:ratio_rate5m",),
        compare="<",
        limit=0.95,
        guard=f"job:flask_http_requests:rate5m * 300 >= {_ENOUGH}",
        wait="15m",
        severity=WARNING,
        about="availability",
        page=_PAGE,
        summary="Less than 95 % of requests succeed",
        description=(
            f"Only {_RATIO} of the requests for routes of the service were answered below 400: the others were "
            "refused (4xx) or failed (5xx)."
        ),
        fires=Case(
            at="45m",
            series={**cart(949, 51), **traffic(scope, 60, s200=1000)},
            labels={"job": scope.name},
            description=(
                "Only 94.9% of the requests for routes of the service were answered below 400: the others were "
                "refused (4xx) or failed (5xx)."
            ),
        ),
        quiet=Case(at="45m", series={**cart(951, 49), **traffic(scope, 60, s200=1000)}),
    )


def _latency(scope: Scope) -> Alert:
    def spread(slow: int) -> Mapping[str, str]:
        """Of a hundred requests a minute so many take between one and two and a half seconds."""
        name = f'flask_http_request_duration_seconds_bucket{{{scope.web}, method="GET", status="200", url_rule="/"'
        counts = {"0.5": 100 - slow, "1.0": 100 - slow, "2.5": 100, "+Inf": 100}
        buckets = {f'{name}, le="{le}"}}': f"0+{count}x40" for le, count in counts.items()}
        return {**buckets, **traffic(scope, 40, s200=100)}

    return Alert(
        name="LatencyHigh",
        values=("job:flask_http_request_duration_seconds:p95_5m",),
        limit=1.0,
        guard=f"job:flask_http_requests:rate5m * 300 >= {_ENOUGH}",
        wait="10m",
        severity=WARNING,
        about="latency",
        page=_PAGE,
        summary="One request in twenty takes longer than a second",
        description="95 % of the requests of the last 5 minutes took up to {{ $value | humanizeDuration }}.",
        fires=Case(
            series=spread(6),
            labels={"job": scope.name},
            description="95 % of the requests of the last 5 minutes took up to 1.25s.",
        ),
        quiet=Case(series=spread(4)),
    )


@dataclass(frozen=True)
class Burn:
    """How fast the budget of 30 days burns, over a long window, and a short one that ends the alert soon."""

    name: str
    times: float
    long: str
    short: str
    wait: str
    severity: str
    at: str
    """When its cases are looked at: after the long window and the wait."""

    step: str


BURNS = (
    Burn("Fast", 14.4, "1h", "5m", "2m", CRITICAL, "70m", "1m"),
    Burn("Quick", 6, "6h", "30m", "15m", CRITICAL, "7h", "10m"),
    Burn("Slow", 3, "1d", "2h", "1h", WARNING, "28h", "30m"),
    Burn("Creeping", 1, "3d", "6h", "3h", WARNING, "76h", "30m"),
)


def _burn(scope: Scope, slo: float, burn: Burn) -> Alert:
    budget = 1 - slo
    limit = round(burn.times * budget, 10)
    failures = f'sum by (job) (increase(flask_http_request_total{{{scope.web}, status=~"5.."}}[{burn.long}]))'
    told = (
        f"{_RATIO} of the requests of {burn.long} failed. At this rate the error budget of {_DAYS} days "
        f"({budget * 100:.4g}%) is used up in {_DAYS / burn.times:.3g} days."
    )

    def failing(share: float) -> Mapping[str, str]:
        failed = round(share * limit * 1_000_000)
        return traffic(scope, 160, s200=1_000_000 - failed, s500=failed)

    return Alert(
        name=f"ErrorBudgetBurn{burn.name}",
        values=tuple(f"job:flask_http_request_errors:ratio_rate{window}" for window in (burn.long, burn.short)),
        limit=limit,
        guard=f"{failures} >= {_FAILURES}" if burn.severity == CRITICAL else "",
        wait=burn.wait,
        severity=burn.severity,
        about="availability",
        page=_PAGE,
        step=burn.step,
        summary=f"The error budget burns {burn.times:g} times as fast as it may",
        description=told,
        fires=Case(
            series=failing(1.05),
            at=burn.at,
            labels={"job": scope.name},
            description=told.replace(_RATIO, f"{limit * 105:.4g}%"),
        ),
        quiet=Case(series=failing(0.95), at=burn.at),
    )


def _no_traffic(scope: Scope) -> Alert:
    def until(minute: int) -> Mapping[str, str]:
        """Return ten requests a minute for 40 minutes, then none from *minute* on."""
        name = f'flask_http_request_total{{{scope.web}, method="GET", status="200"}}'
        return {name: f"0+10x{minute} {minute * 10}+0x60"}

    return Alert(
        name="NoTraffic",
        values=("job:flask_http_requests:rate5m",),
        compare="<=",
        limit=0,
        guard=f"sum by (job) (rate(flask_http_request_total{{{scope.web}}}[1h])) > 0.05",
        wait="10m",
        severity=WARNING,
        about="traffic",
        page=_PAGE,
        summary="No request arrives any more",
        description="There were requests within the last hour, and there has been none for 15 minutes.",
        fires=Case(
            series=until(40),
            at="58m",
            labels={"job": scope.name},
            description="There were requests within the last hour, and there has been none for 15 minutes.",
        ),
        quiet=Case(series=until(45), at="58m"),
    )


def _limited(scope: Scope) -> Alert:
    def refused(count: int) -> Mapping[str, str]:
        name = f'flask_prod_limited_total{{{scope.web}, policy="public"}}'
        return {name: f"0+{count}x60", **traffic(scope, 60, s200=1000 - count, s429=count)}

    return Alert(
        name="ManyRequestsLimited",
        values=(
            f"sum by (job) (rate(flask_prod_limited_total{{{scope.web}}}[10m]))\n/\n"
            f"sum by (job) (rate(flask_http_request_total{{{scope.web}}}[10m]))",
        ),
        limit=0.1,
        guard=f"job:flask_http_requests:rate5m * 300 >= {_ENOUGH}",
        wait="10m",
        severity=WARNING,
        about="limits",
        page=_PAGE,
        summary="More than a tenth of the requests is refused by a rate limit",
        description=f"{_RATIO} of the requests of the last 10 minutes were answered 429.",
        fires=Case(
            series=refused(105),
            labels={"job": scope.name},
            description="10.5% of the requests of the last 10 minutes were answered 429.",
        ),
        quiet=Case(series=refused(95)),
    )
