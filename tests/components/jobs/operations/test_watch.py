"""What metrics say of jobs before anything has happened, and of schedules that nobody runs."""

from __future__ import annotations

import time

import pytest
from flask import Flask

from flask_prod import ProdKit
from flask_prod.components.jobs.dispatch.accept import Slot
from flask_prod.components.jobs.engine import Engine
from tests.apps import MakeApp

prod = ProdKit(only=("jobs", "metrics"))


@prod.every("10m")
def tidy() -> None:
    """Tidy up."""


@pytest.fixture
def app(make_app: MakeApp, redis_url: str) -> Flask:
    """Give an application with a scheduled job."""
    return make_app(kit=prod, REDIS_URL=redis_url)


def value(app: Flask, series: str) -> float | None:
    """Return what the page shows for a series; None when it has none."""
    lines = app.test_client().get("/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series)), None)


def test_lateness_of_schedules(app: Flask) -> None:
    """A schedule is as late as its next slot is overdue; not at all while that is to come, or nobody began it."""
    engine: Engine = app.extensions["prod"].contributions["jobs"].handle
    (schedule,) = engine.tasks.schedules()
    series = f'flask_prod_jobs_schedule_late_seconds{{schedule="{schedule.name}"}}'
    engine.watch()
    assert value(app, series) == 0

    slot = int(time.time()) // 600 * 600 - 1200
    engine.desk.keeper.pass_slot(Slot(schedule.name, slot))
    engine.watch()
    assert value(app, series) == pytest.approx(time.time() - slot - 600, abs=5)

    engine.desk.keeper.pass_slot(Slot(schedule.name, int(time.time())))
    engine.watch()
    assert value(app, series) == 0


def test_zero_at_first(app: Flask) -> None:
    """What may happen to a job is shown as zero from the start of the process: rates see its first time."""
    app.extensions["prod"].lifecycle.start()

    for what in ("started", "finished", "failed", "retried", "dead", "recovered"):
        assert value(app, f'flask_prod_jobs_{what}_total{{job="{tidy.name}",queue="default"}}') == 0, what
