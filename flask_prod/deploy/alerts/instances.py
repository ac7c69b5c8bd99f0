"""Alerts about the processes themselves: there, healthy, within their memory, heard."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan import Plan
from .rule import CRITICAL, WARNING, Alert, Case, Recording, Scope

_PAGE = "instances"
_MB = 1024 * 1024


def recordings(plan: Plan, scope: Scope) -> Iterator[Recording]:
    """Yield what the alerts and dashboards build on."""
    yield Recording(
        record="job_instance:flask_prod_memory:ratio",
        expr=f"flask_prod_memory_bytes{{{scope.all}}}\n/\nflask_prod_memory_limit_bytes{{{scope.all}}}",
    )


def alerts(plan: Plan, scope: Scope) -> Iterator[Alert]:
    """Yield them."""
    yield _down(plan, scope)
    yield _none(plan, scope)
    yield _memory(plan, scope)
    if "health" in plan.rooms:
        yield _unhealthy(scope)
        yield _check(scope)
        yield _certificate(scope, 14, WARNING, "CertificateExpiresSoon")
        yield _certificate(scope, 3, CRITICAL, "CertificateExpires")
    if "redis" in plan.rooms or "tracing" in plan.rooms:
        yield _degraded(scope)
    if "logs" in plan.rooms:
        yield _log_lines(plan, scope)


def instance(plan: Plan) -> str:
    """Return what an instance of the web server is called in the cases."""
    return f"10.0.0.1:{plan.port}"


def _at(plan: Plan) -> str:
    return f'instance="{instance(plan)}"'


def _down(plan: Plan, scope: Scope) -> Alert:
    series = f"up{{{scope.web}, {_at(plan)}}}"
    return Alert(
        name="InstanceDown",
        values=(f"up{{{scope.all}}}",),
        compare="<",
        limit=1,
        wait="1m",
        severity=CRITICAL,
        about="instance",
        page=_PAGE,
        summary="An instance does not answer Prometheus",
        description="{{ $labels.instance }} of {{ $labels.job }} has not answered a scrape for a minute.",
        fires=Case(
            series={series: "1x10 0x5"},
            at="13m",
            labels={"job": scope.name, "instance": instance(plan)},
            description=f"{instance(plan)} of {scope.name} has not answered a scrape for a minute.",
        ),
        quiet=Case(series={series: "1x10 0 1x10"}, at="12m"),
    )


def _none(plan: Plan, scope: Scope) -> Alert:
    return Alert(
        name="NoInstance",
        values=(f"absent(up{{{scope.web}}})",),
        limit=0,
        wait="5m",
        severity=CRITICAL,
        about="instance",
        page=_PAGE,
        summary="There is no instance to scrape",
        description="Prometheus finds no instance at all: nothing is deployed, or discovery is broken.",
        fires=Case(
            series={f"up{{{scope.web}, {_at(plan)}}}": "1x5 _x20"},
            at="20m",
            labels={"job": scope.name},
            description="Prometheus finds no instance at all: nothing is deployed, or discovery is broken.",
        ),
        quiet=Case(series={f"up{{{scope.web}, {_at(plan)}}}": "0x30"}, at="20m"),
    )


def _memory(plan: Plan, scope: Scope) -> Alert:
    limit = plan.deploy.memory

    def use(share: float) -> dict[str, str]:
        return {
            f"flask_prod_memory_bytes{{{scope.web}, {_at(plan)}}}": f"{round(limit * share)}x40",
            f"flask_prod_memory_limit_bytes{{{scope.web}, {_at(plan)}}}": f"{limit}x40",
        }

    return Alert(
        name="MemoryHigh",
        values=("job_instance:flask_prod_memory:ratio",),
        limit=0.85,
        wait="10m",
        severity=WARNING,
        about="memory",
        page=_PAGE,
        summary="An instance uses more than 85 % of its memory",
        description=(
            "{{ $labels.instance }} of {{ $labels.job }} uses {{ $value | humanizePercentage }} of the memory "
            "that it may use."
        ),
        fires=Case(
            series=use(0.86),
            labels={"job": scope.name, "instance": instance(plan)},
            description=f"{instance(plan)} of {scope.name} uses 86% of the memory that it may use.",
        ),
        quiet=Case(series=use(0.84)),
    )


def _unhealthy(scope: Scope) -> Alert:
    return Alert(
        name="ServiceUnhealthy",
        values=(f"max by (job) (flask_prod_health_state{{{scope.web}}})",),
        compare=">=",
        limit=2,
        wait="1m",
        severity=CRITICAL,
        about="health",
        page=_PAGE,
        summary="A critical health check fails",
        description="The service calls itself unhealthy: a critical check fails or is unknown.",
        fires=Case(
            series={f"flask_prod_health_state{{{scope.web}}}": "0x5 2x25"},
            labels={"job": scope.name},
            description="The service calls itself unhealthy: a critical check fails or is unknown.",
        ),
        quiet=Case(series={f"flask_prod_health_state{{{scope.web}}}": "1x40"}),
    )


def _check(scope: Scope) -> Alert:
    series = f'flask_prod_health_check_state{{{scope.web}, check="mail"}}'
    return Alert(
        name="HealthCheckFailing",
        values=(f"max by (job, check) (flask_prod_health_check_state{{{scope.web}}})",),
        compare=">=",
        limit=2,
        wait="5m",
        severity=WARNING,
        about="health",
        page=_PAGE,
        summary="A health check fails",
        description="The check {{ $labels.check }} has failed for 5 minutes.",
        fires=Case(
            series={series: "2x40"},
            labels={"job": scope.name, "check": "mail"},
            description="The check mail has failed for 5 minutes.",
        ),
        quiet=Case(series={series: "1x40"}),
    )


def _degraded(scope: Scope) -> Alert:
    series = f'flask_prod_degraded{{{scope.web}, component="redis"}}'
    return Alert(
        name="DependencyDegraded",
        values=(f"max by (job, component) (flask_prod_degraded{{{scope.all}}})",),
        compare=">=",
        limit=1,
        wait="2m",
        severity=WARNING,
        about="dependency",
        page=_PAGE,
        summary="The service goes on without something it depends on",
        description="{{ $labels.job }} has gone on without {{ $labels.component }} for 2 minutes.",
        fires=Case(
            series={series: "0x5 1x25"},
            labels={"job": scope.name, "component": "redis"},
            description=f"{scope.name} has gone on without redis for 2 minutes.",
        ),
        quiet=Case(series={series: "0x40"}),
    )


def _log_lines(plan: Plan, scope: Scope) -> Alert:
    series = f"flask_prod_log_lines_dropped_total{{{scope.web}, {_at(plan)}}}"
    return Alert(
        name="LogLinesDropped",
        values=(f"increase(flask_prod_log_lines_dropped_total{{{scope.all}}}[10m])",),
        limit=0,
        severity=WARNING,
        about="logs",
        page=_PAGE,
        summary="Log lines are lost",
        description=(
            "{{ $labels.instance }} of {{ $labels.job }} has dropped {{ $value | humanize }} lines in 10 minutes: "
            "whoever reads its output is too slow."
        ),
        fires=Case(
            series={series: "0+0x20 1+1x20"},
            at="40m",
            labels={"job": scope.name, "instance": instance(plan)},
            description=(
                f"{instance(plan)} of {scope.name} has dropped 10 lines in 10 minutes: whoever reads its output "
                "is too slow."
            ),
        ),
        quiet=Case(series={series: "7x40"}),
    )


def _certificate(scope: Scope, days: int, severity: str, name: str) -> Alert:
    """Return the alert; the cases begin at the epoch, so that a moment is its distance."""
    metric = "flask_prod_certificate_expiry_timestamp_seconds"

    def ends(day: float) -> dict[str, str]:
        return {f'{metric}{{{scope.web}, certificate="served"}}': f"{round(day * 86400) + 1800}x40"}

    description = "The certificate {{ $labels.certificate }} expires in {{ $value | humanizeDuration }}."
    return Alert(
        name=name,
        values=(f"min by (job, certificate) ({metric}{{{scope.web}}}) - time()",),
        compare="<",
        limit=days * 86400,
        wait="10m",
        severity=severity,
        about="certificate",
        page=_PAGE,
        summary=f"A certificate expires in less than {days} days",
        description=description,
        fires=Case(
            series=ends(days - 0.25),
            labels={"job": scope.name, "certificate": "served"},
            description=f"The certificate served expires in {days - 1}d 18h 0m 0s.",
        ),
        quiet=Case(series=ends(days + 0.25)),
    )
