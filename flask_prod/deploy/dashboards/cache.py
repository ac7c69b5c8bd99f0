"""The cache and Redis: what is found, what it costs to look, and what goes wrong."""

from __future__ import annotations

from ..plan import Plan
from .panel import GREEN, RED, YELLOW, Board, Lens, Panel, Query, Row, highest, lens_of, quantile, rate

_LOOKUPS = "flask_prod_cache_lookups_total"


def board(plan: Plan) -> Board | None:
    """Return the dashboard of the cache and of Redis, of whichever there is; None without both."""
    lens = lens_of(plan)
    cache = (Row("Hits and misses", _hits(lens)), Row("Cost", _cost(lens))) if "cache" in plan.rooms else ()
    redis = (Row("Redis", _redis(lens)),) if "redis" in plan.rooms else ()
    if not cache and not redis:
        return None
    return Board(
        name="cache",
        title="Cache and Redis" if cache and redis else "Cache" if cache else "Redis",
        description="How much of what is asked for is found, how fast, and how the connections to Redis fare.",
        page="redis",
        rows=(*cache, *redis),
    )


def _hits(lens: Lens) -> tuple[Panel, ...]:
    found = rate(_LOOKUPS, f'{lens.all}, result!="miss"', "backend")
    return (
        Panel(
            title="Hit ratio",
            description="The share of look-ups that found an entry, old ones that were served meanwhile included.",
            unit="percentunit",
            most=1,
            steps=((0, RED), (0.5, YELLOW), (0.8, GREEN)),
            queries=(Query(f"{found} / {rate(_LOOKUPS, lens.all, 'backend')}", "{{backend}}"),),
        ),
        Panel(
            title="Look-ups",
            description="By result, and by the tier that had the entry.",
            unit="ops",
            stacked=True,
            queries=(Query(rate(_LOOKUPS, lens.all, "result", "tier"), "{{result}} {{tier}}"),),
        ),
        Panel(
            title="Misses",
            description=(
                "By what became of them: computed, waited for another's computation, failed, or nobody's to "
                "compute."
            ),
            unit="ops",
            stacked=True,
            queries=(Query(rate("flask_prod_cache_misses_total", lens.all, "outcome"), "{{outcome}}"),),
        ),
    )


def _cost(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Time of a look-up",
            description="What 95 % of the look-ups stay below, by back end and tier.",
            unit="s",
            queries=(
                Query(
                    quantile(0.95, "flask_prod_cache_seconds", lens.all, "backend", "tier"), "{{backend}} {{tier}}"
                ),
            ),
        ),
        Panel(
            title="Not cached",
            description="Pages and values that were not kept, by reason.",
            unit="ops",
            stacked=True,
            queries=(Query(rate("flask_prod_cache_refused_total", lens.all, "reason"), "{{reason}}"),),
        ),
        Panel(
            title="Memory of entries",
            description="Bytes that entries take in the memory of the fullest process of an instance.",
            unit="bytes",
            queries=(
                Query(
                    highest("flask_prod_cache_bytes", lens.all, "instance", "backend"), "{{instance}} {{backend}}"
                ),
            ),
        ),
    )


def _redis(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Time of commands",
            description="What 95 % of the calls that were answered stay below; `call` is one of several commands.",
            unit="s",
            steps=((0, GREEN), (0.1, YELLOW)),
            queries=(Query(quantile(0.95, "flask_prod_redis_seconds", lens.all, "command"), "{{command}}"),),
        ),
        Panel(
            title="Commands",
            description="Calls that were answered.",
            unit="ops",
            stacked=True,
            queries=(Query(rate("flask_prod_redis_seconds_count", lens.all, "command"), "{{command}}"),),
        ),
        Panel(
            title="Failed calls",
            description="Calls to Redis that failed, by error.",
            unit="ops",
            stacked=True,
            queries=(Query(rate("flask_prod_redis_failures_total", lens.all, "error"), "{{error}}"),),
        ),
        Panel(
            title="Redis connections",
            description="Connections of the fullest process, by purpose: used, idle, and the most there may be.",
            unit="short",
            queries=(
                Query(
                    highest("flask_prod_redis_connections", lens.all, "purpose", "state"), "{{purpose}} {{state}}"
                ),
            ),
        ),
        Panel(
            title="Calls that waited",
            description="Calls that found all connections in use, and those that waited in vain.",
            unit="ops",
            queries=(
                Query(rate("flask_prod_redis_pool_waits_total", lens.all, "purpose"), "{{purpose}} waited"),
                Query(rate("flask_prod_redis_pool_timeouts_total", lens.all, "purpose"), "{{purpose}} in vain"),
            ),
        ),
        Panel(
            title="Without Redis",
            description="1 while a room goes on without Redis; the worst instance counts.",
            unit="short",
            most=1,
            steps=((0, GREEN), (1, RED)),
            queries=(Query(highest("flask_prod_degraded", lens.all, "component"), "{{component}}"),),
        ),
    )
