"""The database as the service sees it: connections, waits, queries, errors, replicas, backups."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan import Plan
from .panel import GREEN, RED, YELLOW, Board, Lens, Panel, Query, Row, highest, lens_of, quantile, rate

_POOL = "flask_prod_database_pool_connections"
_QUERY = "flask_prod_database_query_seconds"


def board(plan: Plan) -> Board | None:
    """Return the dashboard of the database; None where there is none."""
    if "database" not in plan.rooms:
        return None
    lens = lens_of(plan)
    backups = (Row("Backups", _backups(lens)),) if "backups" in plan.rooms else ()
    return Board(
        name="database",
        title="Database",
        description="Pools, queries and replicas, as web processes and job workers see them.",
        page="database",
        rows=(
            Row("Pool", tuple(_pool(lens))),
            Row("Queries", _queries(lens)),
            Row("Errors", _errors(lens)),
            Row("Replicas", _replicas(lens)),
            *backups,
        ),
    )


def _pool(lens: Lens) -> Iterator[Panel]:
    used, most = (f'{_POOL}{{{lens.all}, state="{state}"}}' for state in ("in_use", "max"))
    yield Panel(
        title="Pool in use",
        description="The part of its connections that the fullest process of an instance uses.",
        unit="percentunit",
        most=1,
        steps=((0, GREEN), (0.8, YELLOW), (0.9, RED)),
        queries=(Query(f"{used} / ignoring (state) ({most} > 0)", "{{instance}} {{pool}}"),),
    )
    yield Panel(
        title="Pool connections",
        description=(
            "Connections of the fullest process: in use, open, those beyond what stays, and the most there may be."
        ),
        unit="short",
        queries=(Query(highest(_POOL, lens.all, "pool", "state"), "{{pool}} {{state}}"),),
    )
    yield Panel(
        title="Threads that wait",
        description="Threads of the fullest process that wait for a connection at this moment.",
        unit="short",
        queries=(
            Query(
                highest("flask_prod_database_pool_waiting", lens.all, "instance", "pool"), "{{instance}} {{pool}}"
            ),
        ),
    )
    yield Panel(
        title="Wait for a connection",
        description="How long those waited who had to: half of them, and 95 % of them, for less than this.",
        unit="s",
        queries=tuple(
            Query(
                quantile(share, "flask_prod_database_pool_wait_seconds", lens.all, "pool"), f"{{{{pool}}}} {name}"
            )
            for name, share in (("50 %", 0.5), ("95 %", 0.95))
        ),
    )
    yield Panel(
        title="Waits in vain",
        description="Waits that ended without a connection, by pool.",
        unit="cps",
        queries=(Query(rate("flask_prod_database_pool_timeouts_total", lens.all, "pool"), "{{pool}}"),),
    )
    yield Panel(
        title="Connections made and lost",
        description="Connections that were opened, closed, or found broken; many that are opened cost time.",
        unit="cps",
        queries=(Query(rate("flask_prod_database_connections_total", lens.all, "change"), "{{change}}"),),
    )


def _queries(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Queries by table",
            description="Statements by the table that they begin with.",
            unit="ops",
            stacked=True,
            queries=(Query(rate(f"{_QUERY}_count", lens.all, "operation", "table"), "{{operation}} {{table}}"),),
        ),
        Panel(
            title="Time by table",
            description="What 95 % of the statements on each table stay below.",
            unit="s",
            queries=(Query(quantile(0.95, _QUERY, lens.all, "operation", "table"), "{{operation}} {{table}}"),),
        ),
        Panel(
            title="Time spent by table",
            description=(
                "Seconds that all statements together take in a second: the table to look at is the largest one."
            ),
            unit="short",
            stacked=True,
            queries=(Query(rate(f"{_QUERY}_sum", lens.all, "table"), "{{table}}"),),
        ),
        Panel(
            title="Queries per request",
            description=(
                "Statements of all kinds for each request; a jump after a release is a loop that asks one by one."
            ),
            unit="short",
            width=12,
            queries=(
                Query(
                    f"{rate(f'{_QUERY}_count', lens.web)} / {rate('flask_http_request_total', lens.web)}",
                    "queries",
                ),
            ),
        ),
        Panel(
            title="Queries by role",
            description="Statements by the engine that they went to: the primary, or a replica.",
            unit="ops",
            width=12,
            stacked=True,
            queries=(Query(rate(f"{_QUERY}_count", lens.all, "role"), "{{role}}"),),
        ),
    )


def _errors(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Failed queries",
            description=(
                "By kind: a time limit, a conflict of transactions, a constraint, a lock, a lost connection."
            ),
            unit="cps",
            width=12,
            stacked=True,
            queries=(Query(rate("flask_prod_database_query_errors_total", lens.all, "kind"), "{{kind}}"),),
        ),
        Panel(
            title="Requests refused because of the database",
            description="Requests that were answered 503 or 504, by what was missing.",
            unit="reqps",
            width=12,
            stacked=True,
            queries=(Query(rate("flask_prod_database_refused_total", lens.web, "reason"), "{{reason}}"),),
        ),
    )


def _replicas(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Replicas in rotation",
            description="1 while reads go to this replica; empty without DATABASE_REPLICA_URLS.",
            unit="short",
            most=1,
            steps=((0, RED), (1, GREEN)),
            queries=(
                Query(f"min by (server) (flask_prod_database_replica_in_rotation{{{lens.web}}})", "{{server}}"),
            ),
        ),
        Panel(
            title="Lag",
            description="How far each replica is behind the primary.",
            unit="s",
            queries=(Query(highest("flask_prod_database_replica_lag_seconds", lens.web, "server"), "{{server}}"),),
        ),
        Panel(
            title="Reads on replicas",
            description="Transactions that replicas served, and marked reads that went to the primary, by reason.",
            unit="ops",
            stacked=True,
            queries=(
                Query(
                    rate("flask_prod_database_reads_total", lens.web, "server", "reason"), "{{server}} {{reason}}"
                ),
            ),
        ),
    )


def _backups(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Age of the last backup",
            description="How long ago the last known backup was made: so much is lost with the database.",
            unit="s",
            width=24,
            queries=(Query(f"time() - max (flask_prod_backup_timestamp_seconds{{{lens.all}}} > 0)", "age"),),
        ),
    )
