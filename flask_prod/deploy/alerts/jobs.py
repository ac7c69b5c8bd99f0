"""Alerts about background jobs: failures, queues, workers, schedules, the outbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..plan import Plan
from .rule import CRITICAL, WARNING, Alert, Case, Recording, Scope

_PAGE = "jobs"
_LATE = 120
"""Seconds after its time at which a scheduled job counts as missed; the kit lets one be a minute late."""

_OUTBOX_DEEP = 1000
"""Rows; the relay sends as many in a few seconds, so they mean that it does not send."""


def recordings(plan: Plan, scope: Scope) -> Iterator[Recording]:
    """Yield what the alerts and dashboards build on."""
    if plan.uses_jobs:
        yield from _queues(scope)


def alerts(plan: Plan, scope: Scope) -> Iterator[Alert]:
    """Yield them."""
    if not plan.uses_jobs:
        return
    yield _failing(scope)
    yield _dead(scope)
    yield _waiting(scope, "JobsWaitLong", _age(plan, "JOBS_WARN_AGE", 600), WARNING)
    yield _waiting(scope, "JobsWaitTooLong", 3 * _age(plan, "JOBS_WARN_AGE", 600), CRITICAL)
    yield _workers(scope)
    yield _schedule(scope)
    if has_outbox(plan):
        yield _outbox_age(scope, _age(plan, "JOBS_OUTBOX_WARN", 60))
        yield _outbox_depth(scope)


def has_outbox(plan: Plan) -> bool:
    """Tell whether a relay brings jobs from the database to Redis."""
    outbox, backend = plan.values.get("JOBS_OUTBOX", "off"), plan.values.get("JOBS_BACKEND", "auto")
    return outbox != "off" and backend in ("auto", "redis")


def _age(plan: Plan, key: str, otherwise: float) -> float:
    return float(plan.values.get(key) or otherwise)


def _failing(scope: Scope) -> Alert:
    def failed(count: int) -> Mapping[str, str]:
        labels = f'{scope.web}, queue="emails", exported_job="send"'
        return {
            f"flask_prod_jobs_started_total{{{labels}}}": "0+200x60",
            f"flask_prod_jobs_failed_total{{{labels}}}": f"0+{count}x60",
        }

    return Alert(
        name="JobsFail",
        values=("queue:flask_prod_jobs_failed:ratio_rate15m",),
        limit=0.1,
        # Two failures in a quarter of an hour are what retries are for.
        guard="queue:flask_prod_jobs_failed:rate15m * 900 > 2",
        wait="10m",
        severity=WARNING,
        about="jobs",
        page=_PAGE,
        summary="More than a tenth of the attempts at jobs fails",
        description=(
            "{{ $value | humanizePercentage }} of the attempts at jobs of the queue {{ $labels.queue }} failed in "
            "the last 15 minutes."
        ),
        fires=Case(
            series=failed(21),
            at="40m",
            labels={"queue": "emails"},
            description="10.5% of the attempts at jobs of the queue emails failed in the last 15 minutes.",
        ),
        quiet=Case(series=failed(19), at="40m"),
    )


def _dead(scope: Scope) -> Alert:
    series = f'flask_prod_jobs{{{scope.web}, queue="emails", state="dead"}}'
    return Alert(
        name="DeadJobs",
        values=('queue_state:flask_prod_jobs:max{state="dead"}',),
        limit=0,
        wait="5m",
        severity=WARNING,
        about="dead-jobs",
        page=_PAGE,
        summary="There are jobs whose last attempt has failed",
        description="{{ $value | humanize }} jobs of the queue {{ $labels.queue }} are dead.",
        fires=Case(
            series={series: "0x10 3x30"},
            labels={"queue": "emails", "state": "dead"},
            description="3 jobs of the queue emails are dead.",
        ),
        quiet=Case(series={series: "0x40", series.replace("dead", "running"): "9x40"}),
    )


def _waiting(scope: Scope, name: str, limit: float, severity: str) -> Alert:
    series = f'flask_prod_jobs_oldest_seconds{{{scope.web}, queue="emails"}}'
    return Alert(
        name=name,
        values=("queue:flask_prod_jobs_oldest_seconds:max",),
        limit=limit,
        wait="2m",
        severity=severity,
        about="queue",
        page=_PAGE,
        summary=f"Jobs wait for longer than {limit / 60:g} minutes",
        description="The oldest job of the queue {{ $labels.queue }} has waited for {{ $value | humanize }} s.",
        fires=Case(
            series={series: f"{limit + 10:g}x40"},
            labels={"queue": "emails"},
            description=f"The oldest job of the queue emails has waited for {_humanize(limit + 10)} s.",
        ),
        quiet=Case(series={series: f"{limit - 10:g}x40"}),
    )


def _humanize(value: float) -> str:
    """Return a number as Prometheus' `humanize` writes it."""
    return f"{value / 1000:.4g}k" if value >= 1000 else f"{value:.4g}"


def _workers(scope: Scope) -> Alert:
    def living(busy: str, idle: str) -> Mapping[str, str]:
        name = f"flask_prod_jobs_workers{{{scope.web}"
        return {f'{name}, state="busy"}}': busy, f'{name}, state="idle"}}': idle}

    return Alert(
        name="NoJobWorkers",
        values=(f"sum by (job) (max by (job, state) (flask_prod_jobs_workers{{{scope.web}}}))",),
        compare="<",
        limit=1,
        wait="2m",
        severity=CRITICAL,
        about="job-workers",
        page=_PAGE,
        summary="No worker runs jobs",
        description="No worker process has been seen for 2 minutes: jobs wait, and nothing runs by schedule.",
        fires=Case(
            series=living("1x5 0x30", "0x40"),
            labels={"job": scope.name},
            description="No worker process has been seen for 2 minutes: jobs wait, and nothing runs by schedule.",
        ),
        quiet=Case(series=living("0x40", "1x40")),
    )


def _schedule(scope: Scope) -> Alert:
    series = f'flask_prod_jobs_schedule_late_seconds{{{scope.web}, schedule="report"}}'
    return Alert(
        name="ScheduleMissed",
        values=(f"max by (job, schedule) (flask_prod_jobs_schedule_late_seconds{{{scope.web}}})",),
        limit=_LATE,
        wait="1m",
        severity=WARNING,
        about="schedule",
        page=_PAGE,
        summary="A scheduled job has not been started at its time",
        description="The schedule {{ $labels.schedule }} is {{ $value | humanizeDuration }} late.",
        fires=Case(
            series={series: f"{_LATE + 10}x40"},
            labels={"job": scope.name, "schedule": "report"},
            description=f"The schedule report is 2m {_LATE + 10 - 120}s late.",
        ),
        quiet=Case(series={series: f"{_LATE - 10}x40"}),
    )


def _outbox_age(scope: Scope, limit: float) -> Alert:
    series = f"flask_prod_jobs_outbox_age_seconds{{{scope.web}}}"
    return Alert(
        name="OutboxOld",
        values=(f"max by (job) (flask_prod_jobs_outbox_age_seconds{{{scope.all}}})",),
        limit=limit,
        wait="2m",
        severity=WARNING,
        about="outbox",
        page=_PAGE,
        summary="Jobs stay in the outbox",
        description="A job has waited for {{ $value | humanize }} s in the outbox, on its way to Redis.",
        fires=Case(
            series={series: f"{limit + 5:g}x40"},
            labels={"job": scope.name},
            description=f"A job has waited for {_humanize(limit + 5)} s in the outbox, on its way to Redis.",
        ),
        quiet=Case(series={series: f"{limit - 5:g}x40"}),
    )


def _outbox_depth(scope: Scope) -> Alert:
    series = f"flask_prod_jobs_outbox_depth{{{scope.web}}}"
    return Alert(
        name="OutboxDeep",
        values=(f"max by (job) (flask_prod_jobs_outbox_depth{{{scope.all}}})",),
        limit=_OUTBOX_DEEP,
        wait="5m",
        severity=WARNING,
        about="outbox",
        page=_PAGE,
        summary=f"More than {_OUTBOX_DEEP:,} jobs wait in the outbox",
        description="{{ $value | humanize }} jobs wait in the outbox.",
        fires=Case(
            series={series: f"{_OUTBOX_DEEP + 50}x40"},
            labels={"job": scope.name},
            description=f"{_humanize(_OUTBOX_DEEP + 50)} jobs wait in the outbox.",
        ),
        quiet=Case(series={series: f"{_OUTBOX_DEEP - 50}x40"}),
    )


def _queues(scope: Scope) -> Iterator[Recording]:
    for what in ("started", "failed", "finished"):
        yield Recording(
            record=f"queue:flask_prod_jobs_{what}:rate15m",
            expr=f"sum by (queue) (rate(flask_prod_jobs_{what}_total{{{scope.all}}}[15m]))",
        )
    yield Recording(
        record="queue:flask_prod_jobs_failed:ratio_rate15m",
        expr="queue:flask_prod_jobs_failed:rate15m\n/\nqueue:flask_prod_jobs_started:rate15m",
    )
    yield Recording(
        record="queue_state:flask_prod_jobs:max",
        # Each instance shows the same queues: the highest is the truth, a sum would count them several times.
        expr=f"max by (queue, state) (flask_prod_jobs{{{scope.all}}})",
    )
    yield Recording(
        record="queue:flask_prod_jobs_oldest_seconds:max",
        expr=f"max by (queue) (flask_prod_jobs_oldest_seconds{{{scope.all}}})",
    )
