from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from flask_prod import NotInstalled, ProdKit
from flask_prod.components.jobs.engine import Engine
from tests.apps import MakeApp

from .work import add, prod, send_mail


def test_plain_call() -> None:
    """A job is still its function: callable, with its name and docstring, before any application exists."""
    assert add(2, b=3) == 5
    assert (add.__name__, add.__doc__) == ("add", "Add two numbers.")


def test_registered_by_name() -> None:
    """Jobs are registered under RQ's own spelling of their name."""
    assert prod.jobs.names() == ("tests.components.jobs.work.add", "tests.components.jobs.work.send_mail")


def test_outside_of_an_application() -> None:
    """Dispatch without an application says what is missing."""
    with pytest.raises(NotInstalled, match=r"app\.app_context"):
        add.dispatch(1)


def test_room_left_out(make_app: MakeApp) -> None:
    """Dispatch in an application without jobs says so."""
    with make_app(kit=ProdKit(only=())).app_context(), pytest.raises(NotInstalled, match="jobs is left out"):
        add.dispatch(1)


def test_configured_dispatchers(app: Flask, engine: Engine) -> None:
    """on(), retry() and delay() each change one thing of one dispatch, in any order, and not the job."""
    job = add.on("emails").retry(2).delay("5m").dispatch(1)
    due = engine.queue("emails").scheduled_job_registry.get_scheduled_time(job)

    assert engine.short(job.origin) == "emails"
    assert (job.retries_left, job.get_status()) == (2, "scheduled")
    assert timedelta(seconds=298) < due - datetime.now(UTC) < timedelta(seconds=302)
    assert add.dispatch(1).retries_left is None


def test_at_needs_a_zone() -> None:
    """A moment without a time zone is refused: it would be another one on each machine."""
    with pytest.raises(ValueError, match="time zone"):
        add.at(datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue": "a:b"}, "queue name"),
        ({"retry": -1}, "retry must be"),
        ({"timeout": 0}, "timeout must be"),
        ({"backoff": "soon"}, "backoff is"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    """Options that make no sense are refused where they are written."""
    with pytest.raises(ValueError, match=words):
        prod.jobs.job(**options)


def test_two_kits_have_two_lists() -> None:
    """A job of one kit is not a job of another."""
    assert ProdKit().get("jobs").names() == ()


def test_options_reach_the_job(app: Flask) -> None:
    """The options of the decorator are those of RQ's job."""
    job = send_mail.dispatch(user_id=7)
    assert (job.timeout, job.retries_left) == (30, 3)
    assert job.retry_intervals is not None
    assert 1 <= job.retry_intervals[0] <= 5
