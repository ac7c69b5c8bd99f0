"""Background jobs: what comes, what goes, what waits, what dies, and who works.

The label `job` of a metric about jobs is `exported_job` in Prometheus, which calls the scrape `job`.
"""

from __future__ import annotations

from ..alerts.jobs import has_outbox
from ..plan import Plan
from .panel import (
    GREEN,
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

_QUEUE = "flask_prod_jobs"


def board(plan: Plan) -> Board | None:
    """Return the dashboard of jobs; None where there are none."""
    if not plan.uses_jobs:
        return None
    lens = lens_of(plan)
    outbox = (Row("Outbox", _outbox(lens)),) if has_outbox(plan) else ()
    return Board(
        name="jobs",
        title="Jobs",
        description="Queues, attempts and workers. What all tell alike (depth, age, workers) is shown once.",
        page="jobs",
        rows=(
            Row("Now", _now(lens)),
            Row("Rates", _rates(lens)),
            Row("Times", _times(lens)),
            Row("Queues and workers", _queues(lens)),
            *outbox,
        ),
    )


def _now(lens: Lens) -> tuple[Panel, ...]:
    failed, started = (rate(f"flask_prod_jobs_{what}_total", lens.all) for what in ("failed", "started"))
    return (
        Panel(
            title="Jobs waiting",
            description="Jobs on all queues that could run now.",
            unit="short",
            kind=STAT,
            width=5,
            height=5,
            queries=(Query(f"sum ({highest(_QUEUE, _state(lens, 'waiting'), 'queue')})"),),
        ),
        Panel(
            title="Oldest waiting job",
            description="How long the job has waited that has waited longest.",
            unit="s",
            kind=STAT,
            width=5,
            height=5,
            steps=((0, GREEN), (60, YELLOW), (600, RED)),
            queries=(Query(highest("flask_prod_jobs_oldest_seconds", lens.all)),),
        ),
        Panel(
            title="Failed attempts",
            description="The share of attempts that failed; most are followed by another.",
            unit="percentunit",
            kind=STAT,
            width=5,
            height=5,
            steps=((0, GREEN), (0.05, YELLOW), (0.1, RED)),
            queries=(Query(ratio(failed, started)),),
        ),
        Panel(
            title="Dead jobs",
            description="Jobs whose last attempt failed and that nobody has looked after.",
            unit="short",
            kind=STAT,
            width=5,
            height=5,
            steps=((0, GREEN), (1, RED)),
            queries=(Query(f"sum ({highest(_QUEUE, _state(lens, 'dead'), 'queue')})"),),
        ),
        Panel(
            title="Workers",
            description="Living worker processes of the service.",
            unit="short",
            kind=STAT,
            width=4,
            height=5,
            steps=((0, RED), (1, GREEN)),
            queries=(Query(f"sum ({highest('flask_prod_jobs_workers', lens.all, 'state')})"),),
        ),
    )


def _state(lens: Lens, state: str) -> str:
    return f'{lens.all}, state="{state}"'


def _rates(lens: Lens) -> tuple[Panel, ...]:
    steps = ("enqueued", "started", "finished", "failed", "retried", "recovered", "dead")
    return (
        Panel(
            title="Jobs by what happens to them",
            description=(
                "Accepted, begun, ended well, failed, tried again, taken over from a worker that was gone, dead."
            ),
            unit="ops",
            width=12,
            queries=tuple(Query(rate(f"flask_prod_jobs_{step}_total", lens.all), step) for step in steps),
        ),
        Panel(
            title="Ended well, by job",
            description="Jobs that ended well, by queue and job.",
            unit="ops",
            width=12,
            stacked=True,
            queries=(
                Query(
                    rate("flask_prod_jobs_finished_total", lens.all, "queue", "exported_job"),
                    "{{queue}} {{exported_job}}",
                ),
            ),
        ),
        Panel(
            title="Failures by job",
            description="Attempts that failed, by queue and job.",
            unit="ops",
            width=12,
            stacked=True,
            queries=(
                Query(
                    rate("flask_prod_jobs_failed_total", lens.all, "queue", "exported_job"),
                    "{{queue}} {{exported_job}}",
                ),
            ),
        ),
        Panel(
            title="Deaths by job",
            description="Jobs whose last attempt failed, in the interval between two points.",
            unit="short",
            width=12,
            stacked=True,
            queries=(
                Query(
                    "sum by (queue, exported_job) "
                    f"(increase(flask_prod_jobs_dead_total{{{lens.all}}}[$__rate_interval]))",
                    "{{queue}} {{exported_job}}",
                ),
            ),
        ),
    )


def _times(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Wait by queue",
            description="95 % of the jobs began within this time after they could run.",
            unit="s",
            width=12,
            queries=(Query(quantile(0.95, "flask_prod_jobs_wait_seconds", lens.all, "queue"), "{{queue}}"),),
        ),
        Panel(
            title="Duration by job",
            description="What 95 % of the attempts at each job stay below.",
            unit="s",
            width=12,
            queries=(
                Query(
                    quantile(0.95, "flask_prod_jobs_duration_seconds", lens.all, "exported_job"),
                    "{{exported_job}}",
                ),
            ),
        ),
    )


def _queues(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Depth",
            description="Jobs by queue and state.",
            unit="short",
            queries=(Query(highest(_QUEUE, lens.all, "queue", "state"), "{{queue}} {{state}}"),),
        ),
        Panel(
            title="Age",
            description="How long the oldest job of each queue has waited.",
            unit="s",
            queries=(Query(highest("flask_prod_jobs_oldest_seconds", lens.all, "queue"), "{{queue}}"),),
        ),
        Panel(
            title="Workers by state",
            description="Living worker processes: busy with a job, idle, or suspended by somebody.",
            unit="short",
            stacked=True,
            queries=(Query(highest("flask_prod_jobs_workers", lens.all, "state"), "{{state}}"),),
        ),
        Panel(
            title="How busy workers are",
            description="Seconds that workers spend in jobs, for each second and living worker.",
            unit="percentunit",
            width=12,
            most=1,
            steps=((0, GREEN), (0.8, YELLOW)),
            queries=(
                Query(
                    f"{rate('flask_prod_jobs_duration_seconds_sum', lens.all)} / "
                    f"sum ({highest('flask_prod_jobs_workers', lens.all, 'state')})",
                    "busy",
                ),
            ),
        ),
        Panel(
            title="Overdue schedules",
            description="How long the next job of each schedule is overdue.",
            unit="s",
            width=12,
            steps=((0, GREEN), (120, RED)),
            queries=(
                Query(highest("flask_prod_jobs_schedule_late_seconds", lens.all, "schedule"), "{{schedule}}"),
            ),
        ),
    )


def _outbox(lens: Lens) -> tuple[Panel, ...]:
    return (
        Panel(
            title="Outbox depth",
            description="Jobs that are in the database and not yet in Redis.",
            unit="short",
            width=12,
            queries=(Query(highest("flask_prod_jobs_outbox_depth", lens.all), "jobs"),),
        ),
        Panel(
            title="Outbox age",
            description="How long the oldest of them has waited; seconds mean that the relay does not send.",
            unit="s",
            width=12,
            queries=(Query(highest("flask_prod_jobs_outbox_age_seconds", lens.all), "age"),),
        ),
    )
