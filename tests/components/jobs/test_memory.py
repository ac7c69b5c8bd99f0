"""Jobs without any server: in a thread, in their order, or within the dispatch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from flask_prod import ProdKit
from flask_prod.components.jobs.memory import MemoryKeeper, NoServer
from flask_prod.core.errors import ConfigError, Unavailable
from tests.apps import MakeApp

ran: list[Any] = []
gone: list[str] = []
kit = ProdKit(only=("jobs",))


@kit.jobs.job
def note(what: int) -> int:
    """Note that it ran."""
    ran.append(what)
    return what


@kit.jobs.job(retry=1, backoff="0s", on_failure=lambda job, reason: gone.append(reason))
def stumble(times: int) -> None:
    """Fail until it has been tried so often."""
    ran.append(times)
    if ran.count(times) <= times:
        raise LookupError("no such thing")


@kit.jobs.job(unique=True)
def once(what: int) -> None:
    """Run."""
    ran.append(what)


@pytest.fixture
def app(make_app: MakeApp) -> Iterator[Flask]:
    """Give an application whose jobs run in a thread."""
    ran.clear()
    gone.clear()
    app = make_app(kit=kit, JOBS_BACKEND="memory")
    with app.app_context():
        yield app


def keeper_of(app: Flask) -> MemoryKeeper:
    keeper = app.extensions["prod"].contributions["jobs"].handle.desk.keeper
    assert isinstance(keeper, MemoryKeeper)
    return keeper


def test_jobs_run_in_their_order(app: Flask) -> None:
    """One thread runs one job after the other."""
    for number in range(50):
        note.dispatch(number)

    assert keeper_of(app).join()
    assert ran == list(range(50))


def test_failed_job_is_tried_again_and_told_of(app: Flask) -> None:
    """Retries are those of the job; its handler is called after the last."""
    stumble.dispatch(1)
    assert keeper_of(app).join()
    assert (ran, gone) == ([1, 1], [])

    stumble.dispatch(5)

    assert keeper_of(app).join()
    assert ran == [1, 1, 5, 5]
    assert len(gone) == 1
    assert "no such thing" in gone[0]


def test_delayed_job_waits(app: Flask) -> None:
    """A job that is due later does not run now, and stops none that is due."""
    note.delay("1h").dispatch(1)
    note.dispatch(2)

    assert keeper_of(app).join()
    assert ran == [2]


def test_unique_job_is_taken_once(app: Flask) -> None:
    """The second of two equal jobs is the first."""
    with keeper_of(app)._changed:  # no job begins meanwhile
        first, second = once.dispatch(1), once.dispatch(1)

    assert keeper_of(app).join()
    assert first.id == second.id
    assert ran == [1]


def test_eager_job_runs_within_the_dispatch(make_app: MakeApp) -> None:
    """It has run when dispatch returns, and what it raises comes out of there."""
    ran.clear()
    with make_app(kit=kit, JOBS_BACKEND="eager").app_context():
        assert note.dispatch(3)._result == 3
        assert ran == [3]
        with pytest.raises(LookupError):
            stumble.dispatch(9)


@pytest.mark.parametrize("backend", ["memory", "eager"])
def test_production_is_refused(make_app: MakeApp, backend: str) -> None:
    """Jobs of several workers would end with their process."""
    with pytest.raises(ConfigError, match=f"JOBS_BACKEND={backend} is for tests and development"):
        make_app(kit=kit, JOBS_BACKEND=backend, ENVIRONMENT="production", SECRET_KEY="x" * 40)


def test_memory_has_no_outbox(make_app: MakeApp) -> None:
    """Two places for one job are a mistake."""
    with pytest.raises(ConfigError, match="leave out JOBS_OUTBOX"):
        make_app(only=("jobs", "database"), JOBS_BACKEND="memory", JOBS_OUTBOX="always")


def test_no_server_says_so(app: Flask) -> None:
    """What only a Redis can do raises Unavailable."""
    redis = app.extensions["prod"].contributions["jobs"].handle.redis
    assert isinstance(redis, NoServer)
    for call in (lambda: redis.ask("PING"), lambda: redis.client().ping(), lambda: kit.jobs.fetch("x")):
        with pytest.raises(Unavailable, match="REDIS_URL"):
            call()
