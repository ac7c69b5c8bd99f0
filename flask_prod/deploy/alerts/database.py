"""Alerts about the database: pools, replicas, backups."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan import Plan
from .instances import instance
from .rule import CRITICAL, WARNING, Alert, Case, Recording, Scope

_PAGE = "database"
_REPLICA_LAG = 30
"""Seconds; a replica further behind than this serves what nobody expects any more."""


def recordings(plan: Plan, scope: Scope) -> Iterator[Recording]:
    """Yield what the alerts and dashboards build on."""
    if "database" in plan.rooms:
        name = "flask_prod_database_pool_connections"
        used, most = (f'{name}{{{scope.all}, state="{state}"}}' for state in ("in_use", "max"))
        yield Recording(
            record="job_instance_pool:flask_prod_database_pool_used:ratio",
            expr=f"{used}\n/ ignoring (state)\n({most} > 0)",
        )


def alerts(plan: Plan, scope: Scope) -> Iterator[Alert]:
    """Yield them."""
    if "database" in plan.rooms:
        yield _pool(plan, scope, "DatabasePoolBusy", 0.8, WARNING)
        yield _pool(plan, scope, "DatabasePoolExhausted", 0.9, CRITICAL)
        yield _timeouts(plan, scope)
        yield _refused(scope)
        if has_replicas(plan):
            yield _lag(scope)
            yield _out(scope)
    if "backups" in plan.rooms:
        yield _backup_age(plan, scope)
        yield _no_backup(scope)


def has_replicas(plan: Plan) -> bool:
    """Tell whether the service reads from replicas: their addresses are in the settings, or among its secrets."""
    return bool(plan.values.get("DATABASE_REPLICA_URLS")) or "DATABASE_REPLICA_URLS" in plan.secrets


def _pool(plan: Plan, scope: Scope, name: str, limit: float, severity: str) -> Alert:
    metric = f'flask_prod_database_pool_connections{{{scope.web}, instance="{instance(plan)}", pool="primary"'

    def used(share: float) -> dict[str, str]:
        return {f'{metric}, state="in_use"}}': f"{share * 100:g}x40", f'{metric}, state="max"}}': "100x40"}

    return Alert(
        name=name,
        values=("job_instance_pool:flask_prod_database_pool_used:ratio",),
        limit=limit,
        wait="5m",
        severity=severity,
        about="database-pool",
        page=_PAGE,
        summary=f"More than {limit * 100:g} % of a connection pool is in use",
        description=(
            "A process of {{ $labels.instance }} uses {{ $value | humanizePercentage }} of its pool "
            "{{ $labels.pool }}."
        ),
        fires=Case(
            series=used(limit + 0.01),
            labels={"job": scope.name, "instance": instance(plan), "pool": "primary"},
            description=f"A process of {instance(plan)} uses {limit * 100 + 1:g}% of its pool primary.",
        ),
        quiet=Case(series=used(limit - 0.01)),
    )


def _timeouts(plan: Plan, scope: Scope) -> Alert:
    metric = "flask_prod_database_pool_timeouts_total"
    series = f'{metric}{{{scope.web}, instance="{instance(plan)}", pool="primary"}}'
    return Alert(
        name="DatabasePoolTimeouts",
        values=(f"sum by (job, pool) (increase({metric}{{{scope.all}}}[5m]))",),
        limit=0,
        severity=WARNING,
        about="database-pool",
        page=_PAGE,
        summary="Requests wait for a database connection in vain",
        description="{{ $value | humanize }} waits for a connection of the pool {{ $labels.pool }} were in vain.",
        fires=Case(
            series={series: "0x10 1+1x30"},
            at="20m",
            labels={"job": scope.name, "pool": "primary"},
            description="5 waits for a connection of the pool primary were in vain.",
        ),
        quiet=Case(series={series: "3x40"}, at="20m"),
    )


def _refused(scope: Scope) -> Alert:
    metric = "flask_prod_database_refused_total"

    def refusing(count: int) -> dict[str, str]:
        return {f'{metric}{{{scope.web}, reason="server"}}': f"0+{count}x40"}

    return Alert(
        name="DatabaseRefuses",
        values=(f"sum by (job, reason) (rate({metric}{{{scope.web}}}[5m]) * 60)",),
        limit=10,
        wait="2m",
        severity=CRITICAL,
        about="database",
        page=_PAGE,
        summary="Requests fail because of the database",
        description=(
            "{{ $value | humanize }} requests a minute are answered 503 or 504 because of the database "
            "({{ $labels.reason }})."
        ),
        fires=Case(
            series=refusing(11),
            labels={"job": scope.name, "reason": "server"},
            description="11 requests a minute are answered 503 or 504 because of the database (server).",
        ),
        quiet=Case(series=refusing(9)),
    )


def _lag(scope: Scope) -> Alert:
    metric = "flask_prod_database_replica_lag_seconds"
    series = f'{metric}{{{scope.web}, server="replica-1"}}'
    return Alert(
        name="ReplicaLags",
        values=(f"max by (job, server) ({metric}{{{scope.web}}})",),
        limit=_REPLICA_LAG,
        wait="5m",
        severity=WARNING,
        about="replica",
        page=_PAGE,
        summary="A replica is far behind the primary",
        description="{{ $labels.server }} is {{ $value | humanizeDuration }} behind the primary.",
        fires=Case(
            series={series: f"{_REPLICA_LAG + 2}x40"},
            labels={"job": scope.name, "server": "replica-1"},
            description=f"replica-1 is {_REPLICA_LAG + 2}s behind the primary.",
        ),
        quiet=Case(series={series: f"{_REPLICA_LAG - 2}x40"}),
    )


def _out(scope: Scope) -> Alert:
    metric = "flask_prod_database_replica_in_rotation"
    series = f'{metric}{{{scope.web}, server="replica-1"}}'
    return Alert(
        name="ReplicaOut",
        values=(f"min by (job, server) ({metric}{{{scope.web}}})",),
        compare="<",
        limit=1,
        wait="5m",
        severity=WARNING,
        about="replica",
        page=_PAGE,
        summary="A replica takes no reads",
        description="{{ $labels.server }} has been out of the rotation for 5 minutes: the primary reads for it.",
        fires=Case(
            series={series: "1x5 0x30"},
            labels={"job": scope.name, "server": "replica-1"},
            description="replica-1 has been out of the rotation for 5 minutes: the primary reads for it.",
        ),
        quiet=Case(series={series: "1x5 0x3 1x30"}, at="9m"),
    )


def _backup_age(plan: Plan, scope: Scope) -> Alert:
    metric = "flask_prod_backup_timestamp_seconds"
    limit = float(plan.values.get("BACKUP_MAX_AGE") or 26 * 3600)
    hours = limit / 3600

    def made() -> dict[str, str]:
        """Return a backup made a second after the epoch, where the cases begin."""
        return {f"{metric}{{{scope.web}}}": f"1x{round(limit / 600) + 20}"}

    return Alert(
        name="BackupTooOld",
        values=(f"time() - max by (job) ({metric}{{{scope.all}}} > 0)",),
        limit=limit,
        wait="15m",
        severity=WARNING,
        about="backups",
        page=_PAGE,
        step="10m",
        summary=f"The last backup is older than {hours:g} hours",
        description="The last backup was made {{ $value | humanizeDuration }} ago.",
        fires=Case(
            series=made(),
            at=f"{round(limit / 60) + 30}m",
            labels={"job": scope.name},
            description=f"The last backup was made {_spoken(limit + 1799)} ago.",
        ),
        quiet=Case(series=made(), at=f"{round(limit / 60) - 10}m"),
    )


def _spoken(seconds: float) -> str:
    """Return a duration as Prometheus writes it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h {minutes}m {rest}s" if days else f"{hours}h {minutes}m {rest}s"


def _no_backup(scope: Scope) -> Alert:
    metric = "flask_prod_backup_timestamp_seconds"
    return Alert(
        name="NoBackup",
        values=(f"max by (job) ({metric}{{{scope.all}}})",),
        compare="<=",
        limit=0,
        wait="1h",
        severity=WARNING,
        about="backups",
        page=_PAGE,
        summary="No backup is known",
        description="The service has not seen a single backup: there is none, or BACKUP_URL cannot be read.",
        fires=Case(
            series={f"{metric}{{{scope.web}}}": "0x100"},
            at="90m",
            labels={"job": scope.name},
            description="The service has not seen a single backup: there is none, or BACKUP_URL cannot be read.",
        ),
        quiet=Case(series={f"{metric}{{{scope.web}}}": "0x30 1800x70"}, at="90m"),
    )
