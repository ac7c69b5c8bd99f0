"""Alerts about Redis and the cache."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan import Plan
from .rule import WARNING, Alert, Case, Recording, Scope

_PAGE = "redis"
_LOOKUPS = 0.5
"""Look-ups in a second below which a cache's misses say nothing."""


def recordings(plan: Plan, scope: Scope) -> Iterator[Recording]:
    """Yield what the alerts and dashboards build on."""
    if "cache" in plan.rooms:
        yield from _lookups(scope)


def alerts(plan: Plan, scope: Scope) -> Iterator[Alert]:
    """Yield them."""
    if "redis" in plan.rooms:
        yield _failures(scope)
        yield _pool(scope)
    if "cache" in plan.rooms:
        yield _misses(scope)


def _failures(scope: Scope) -> Alert:
    metric = "flask_prod_redis_failures_total"

    def failing(count: int) -> dict[str, str]:
        return {f'{metric}{{{scope.web}, error="TimeoutError"}}': f"0+{count}x40"}

    return Alert(
        name="RedisFailures",
        values=(f"sum by (job, error) (rate({metric}{{{scope.all}}}[5m]) * 60)",),
        limit=20,
        wait="5m",
        severity=WARNING,
        about="dependency",
        page=_PAGE,
        summary="Calls to Redis fail",
        description="{{ $value | humanize }} calls a minute fail with {{ $labels.error }}.",
        fires=Case(
            series=failing(21),
            labels={"job": scope.name, "error": "TimeoutError"},
            description="21 calls a minute fail with TimeoutError.",
        ),
        quiet=Case(series=failing(19)),
    )


def _pool(scope: Scope) -> Alert:
    metric = "flask_prod_redis_pool_timeouts_total"
    series = f'{metric}{{{scope.web}, purpose="request"}}'
    return Alert(
        name="RedisPoolTimeouts",
        values=(f"sum by (job, purpose) (increase({metric}{{{scope.all}}}[5m]))",),
        limit=0,
        severity=WARNING,
        about="redis-pool",
        page=_PAGE,
        summary="Calls wait for a Redis connection in vain",
        description="{{ $value | humanize }} calls for {{ $labels.purpose }} found no connection in 5 minutes.",
        fires=Case(
            series={series: "0x10 1+1x30"},
            at="20m",
            labels={"job": scope.name, "purpose": "request"},
            description="5 calls for request found no connection in 5 minutes.",
        ),
        quiet=Case(series={series: "3x40"}, at="20m"),
    )


def _misses(scope: Scope) -> Alert:
    def missing(count: int) -> dict[str, str]:
        name = f'flask_prod_cache_lookups_total{{{scope.web}, backend="redis"'
        return {
            f'{name}, result="miss", tier="none"}}': f"0+{count}x60",
            f'{name}, result="hit", tier="redis"}}': f"0+{100 - count}x60",
        }

    return Alert(
        name="CacheMissesHigh",
        values=("job:flask_prod_cache_misses:ratio_rate15m",),
        limit=0.5,
        guard=f"job:flask_prod_cache_lookups:rate15m > {_LOOKUPS:g}",
        wait="15m",
        severity=WARNING,
        about="cache",
        page=_PAGE,
        summary="More than half of the look-ups miss the cache",
        description="{{ $value | humanizePercentage }} of the look-ups of the last 15 minutes were misses.",
        fires=Case(
            series=missing(52),
            at="50m",
            labels={"job": scope.name},
            description="52% of the look-ups of the last 15 minutes were misses.",
        ),
        quiet=Case(series=missing(48), at="50m"),
    )


def _lookups(scope: Scope) -> Iterator[Recording]:
    total = f"sum by (job) (rate(flask_prod_cache_lookups_total{{{scope.web}}}[15m]))"
    missed = f'sum by (job) (rate(flask_prod_cache_lookups_total{{{scope.web}, result="miss"}}[15m]))'
    yield Recording(record="job:flask_prod_cache_lookups:rate15m", expr=total)
    yield Recording(record="job:flask_prod_cache_misses:ratio_rate15m", expr=f"{missed}\n/\n{total}")
