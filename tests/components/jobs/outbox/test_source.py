"""Jobs from a table, by real workers and without Redis."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_prod.components.jobs.delivery.source import (
    Again,
    Dead,
    Delivery,
    Finished,
    Presence,
    Released,
    SourceAway,
)
from flask_prod.components.jobs.outbox.source import DatabaseSource
from flask_prod.components.jobs.outbox.table import Outbox
from tests.apps import MakeApp
from tests.servers import Process

from ..work import add
from .test_outbox import engine_of, kit_with_database, outbox_of, rows, session_of

SHOP = """
import os, time
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=("jobs", "database"))

@prod.job(retry=2, backoff="0s")
def write(number, seconds=0, fail=False):
    with open("ran", "a") as file:
        file.write(f"{number}\\n")
    time.sleep(seconds)
    if fail:
        raise LookupError("no such thing")

def create_app():
    app = Flask("shop")
    prod.init_app(app)
    return app
"""


@pytest.fixture
def app(make_app: MakeApp, database_url: str) -> Iterator[Flask]:
    """Give an application whose jobs lie in a database, in its context."""
    app = make_app(kit=kit_with_database(), DATABASE_URL=database_url, JOBS_OUTBOX="always")
    outbox_of(app).create()
    with app.app_context():
        yield app


@pytest.fixture
def source(app: Flask) -> DatabaseSource:
    """Give its jobs as a worker sees them."""
    source = engine_of(app).backend.source(engine_of(app), "me", ("default",))
    assert isinstance(source, DatabaseSource)
    return source


def taken(source: DatabaseSource, token: str = "aa01") -> Delivery:
    delivery = source.take(("emails", "default"), token)
    assert delivery is not None
    return delivery


def test_taken_job_is_nobody_elses(app: Flask, source: DatabaseSource) -> None:
    """Each job is taken once, in order, after the commit."""
    add.dispatch(1)
    assert source.take(("default",), "aa01") is None
    add.dispatch(2)
    session_of(app).commit()

    found = [taken(source, f"aa0{number}").job.args for number in (1, 2)]

    assert found == [[1], [2]]
    assert source.take(("default",), "aa03") is None


def test_outcomes(app: Flask, source: DatabaseSource) -> None:
    """A job ends well, is tried again, is put back, or is dead and told of once."""
    for number in range(4):
        add.retry(1).dispatch(number)
    session_of(app).commit()
    well, again, back, dead = (taken(source, f"aa0{number}") for number in range(4))

    assert source.settle(well, Finished())[0]
    assert source.settle(again, Again(3600, "later"))[0]
    assert source.settle(back, Released())[0]
    assert source.settle(dead, Dead("LookupError", "a traceback\0"))[0]
    assert not source.settle(dead, Finished())[0]

    assert [row.status for row in rows(app)] == ["finished", "waiting", "waiting", "dead"]
    assert taken(source).job.id == back.job.id
    assert source.take(("default",), "aa09") is None
    assert [untold.job.id for untold in source.tell()] == [dead.job.id]
    assert list(source.tell()) == []


def test_poison_is_dead_after_its_crashes(app: Flask, source: DatabaseSource) -> None:
    """A job runs again after each of JOBS_MAX_CRASHES - 1 processes that it has cost."""
    add.dispatch(1)
    session_of(app).commit()
    became = []
    for number in range(3):
        delivery = taken(source, f"b{number}01")
        became += source.lost(f"b{number}", "crash", "It was killed.")
        assert delivery.job.id == became[-1][0]
    assert [what for _, what in became] == ["crash", "crash", "dead"]


def test_lease_that_ended_is_given_back(app: Flask, source: DatabaseSource) -> None:
    """A worker that nobody has heard of for long loses its job; one that beats keeps it."""
    add.dispatch(1)
    session_of(app).commit()
    delivery = taken(source)
    table = outbox_of(app).table
    with outbox_of(app).engine.begin() as connection:
        connection.execute(sa.update(table).values(lease=time.time() - 1))
    assert source.beat([delivery.token]) == [(delivery.job.id, delivery.token)]
    assert source.look_after() == []
    with outbox_of(app).engine.begin() as connection:
        connection.execute(sa.update(table).values(lease=time.time() - 1))

    assert source.look_after() == [(delivery.job.id, "crash")]


def test_outage_takes_no_lease(app: Flask, source: DatabaseSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage, a lease that ended meanwhile is judged when its holder could have prolonged it."""
    add.dispatch(1)
    session_of(app).commit()
    delivery = taken(source)
    with outbox_of(app).engine.begin() as connection:
        connection.execute(sa.update(outbox_of(app).table).values(lease=time.time() - 1))
    with monkeypatch.context() as outage:
        outage.setattr(Outbox, "engine", property(_refuse))
        with pytest.raises(SourceAway):
            source.beat([delivery.token])

    assert source.look_after() == []
    moment = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    assert source.look_after() == [(delivery.job.id, "crash")]


def _refuse(_: Outbox) -> sa.Engine:
    raise sa.exc.OperationalError("SELECT 1", {}, OSError("the server is restarted"))


def test_unique_job_is_written_once(app: Flask, source: DatabaseSource) -> None:
    """While one waits, the second is the first."""
    from ..test_memory import once

    engine_of(app).tasks.add(once)
    first, second = once.dispatch(1), once.dispatch(1)
    session_of(app).commit()
    assert (first.id, len(rows(app))) == (second.id, 1)


def test_one_leads(app: Flask, make_app: MakeApp, database_url: str) -> None:
    """Schedules have one leader over all workers, and know their last slots."""
    from flask_prod.components.jobs.dispatch.accept import Slot

    other = make_app(kit=kit_with_database(), DATABASE_URL=database_url, JOBS_OUTBOX="always")
    first, second = engine_of(app).desk.keeper, engine_of(other).desk.keeper
    assert [first.leads(30), second.leads(30), first.leads(30)] == [True, False, True]
    first.resign()
    assert second.leads(30)
    first.pass_slot(Slot("nightly", 120))
    first.pass_slot(Slot("nightly", 60))
    assert second.slots() == {"nightly": 120}


def test_jobs_are_seen(app: Flask, source: DatabaseSource) -> None:
    """`flask prod jobs`, metrics and the health check see what lies in the table, and who takes it."""
    jobs = app.extensions["prod"].contributions["jobs"]
    for _ in range(3):
        add.dispatch(1)
    add.delay("1h").dispatch(1)
    session_of(app).commit()
    assert source.settle(taken(source, "aa01"), Dead("LookupError", "why"))[0]
    taken(source, "aa02")

    assert "no worker serves it" in jobs.checks[0].probe().detail
    source.present([Presence("me.1", 1, 0.0, "busy", 0, 0, 0.0), Presence("me.2", 2, 0.0, "idle", 0, 0, 0.0)], [])
    seen = {state.queue: state for state in engine_of(app).overview()}["default"]
    assert (seen.waiting, seen.scheduled, seen.running, seen.failed, seen.workers) == (1, 1, 1, 1, 2)
    assert jobs.checks[0].probe().status == "ok"
    jobs.periodic[0].call()
    text = app.test_client().get("/metrics").text
    assert 'flask_prod_jobs{queue="default",state="dead"} 1.0' in text
    assert 'flask_prod_jobs_workers{state="busy"} 1.0' in text
    assert "flask_prod_jobs_outbox_depth 2.0" in text

    source.present([], ["me.1", "me.2"])
    assert engine_of(app).overview()[0].workers == 0


def test_commands_without_redis(app: Flask, source: DatabaseSource) -> None:
    """`flask prod jobs` shows the table; what needs a Redis says so, and what to use in its place."""
    with pytest.raises(ValueError, match="limits need a REDIS_URL"):
        add.limited("bank", 1).dispatch(1)
    command, runner = app.extensions["prod"].contributions["jobs"].commands[0], app.test_cli_runner()
    assert "default" in runner.invoke(command).output
    assert "outbox requeue" in runner.invoke(command, ["dead"]).output
    assert "is there a worker?" in runner.invoke(command, ["ping", "--timeout", "0.1"]).output
    outbox_of(app).table.drop(outbox_of(app).engine)
    lost = runner.invoke(command)
    assert (lost.exit_code, "jobs in the database cannot be seen" in lost.output) == (1, True)


def test_real_worker(database_url: str, tmp_path: Path, wait_for: Callable[..., Any]) -> None:
    """`flask prod worker` runs all jobs without Redis, loses none to a kill -9, and keeps the dead."""
    (tmp_path / "app.py").write_text(SHOP)
    env = {
        "DATABASE_URL": database_url, "JOBS_OUTBOX": "always", "ENVIRONMENT": "test",
        "JOBS_OUTBOX_INTERVAL": "100ms", "JOBS_RECOVERY": "4s", "ENV_FILE": os.devnull, "SECRETS_DIR": os.devnull,
        # On a busy machine a lease of this length may end while its job still runs: that is no crash too many.
        "JOBS_MAX_CRASHES": "50",
    }  # fmt: skip
    send = (
        "from app import *\nwith create_app().app_context():\n"
        "  for n in range(40): write.dispatch(n)\n  write.dispatch(40, seconds=3)\n"
        "  write.dispatch(41, fail=True)\n  prod.db.session.commit()\n"
    )
    flask = [sys.executable, "-m", "flask", "--app", "app"]
    worker, table = Process(tmp_path), sa.create_engine(database_url, poolclass=sa.NullPool)
    for words in ([*flask, "prod", "jobs", "outbox", "create"], [sys.executable, "-c", send]):
        worker.launch(words, env, tmp_path)
        assert worker.wait(60) == 0, worker.stderr
    worker.launch([*flask, "prod", "worker", "--processes", "2"], env, tmp_path)
    try:
        ran = tmp_path / "ran"
        wait_for(lambda: ran.exists() and "40" in ran.read_text().split(), 60, "the long job")
        worker.send(signal.SIGKILL)
        worker.wait(10)
        worker.launch([*flask, "prod", "worker"], env, tmp_path)
        wait_for(lambda: ran.read_text().split().count("40") >= 2, 60, "the second attempt")
        wait_for(lambda: _ended(table) == {"finished": 41, "dead": 1}, 60, "the end of all jobs")
    finally:
        worker.finish(15)
    assert {int(number) for number in ran.read_text().split()} == set(range(42))
    worker.launch([*flask, "prod", "jobs", "outbox", "dead"], env, tmp_path)
    assert worker.wait(60) == 0
    assert "LookupError: no such thing" in worker.stdout


def _ended(table: sa.Engine) -> dict[str, int]:
    """Return how many jobs there are of each status; SQLite's one lock may be somebody else's just now."""
    time.sleep(0.1)
    count = sa.text("SELECT status, count(*) FROM jobs_outbox WHERE job <> '' GROUP BY status")
    try:
        with table.connect() as connection:
            return {str(status): int(number) for status, number in connection.execute(count)}
    except sa.exc.OperationalError:
        return {}
