"""The outbox: in the caller's transaction, relayed in order, by one process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_prod import ProdKit
from flask_prod.components.jobs.engine import Engine
from flask_prod.components.jobs.outbox.relay import look
from flask_prod.components.jobs.outbox.table import Outbox
from flask_prod.core.errors import ConfigError, Unavailable
from tests.apps import MakeApp, StartFaultProxy
from tests.servers import HOST, Valkey, free_port

from ..work import add, prod, send_mail


@pytest.fixture
def boxed(make_app: MakeApp, redis_url: str, database_url: str) -> Iterator[Flask]:
    """Give an application that sends all its jobs through the outbox, in its context."""
    app = make_app(kit=kit_with_database(), REDIS_URL=redis_url, DATABASE_URL=database_url, JOBS_OUTBOX="always")
    outbox_of(app).create()
    with app.app_context():
        yield app


def test_tenants_have_sessions_of_their_own(make_app: MakeApp, redis_url: str, tmp_path: Path) -> None:
    """Where contexts have sessions of tenants, jobs go to the shared database in a transaction of their own."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/shared.db", "DATABASE_TENANTS": "database"}
    app = make_app(kit=kit_with_database(), REDIS_URL=redis_url, JOBS_OUTBOX="always", **settings)
    outbox_of(app).create()

    with app.app_context():
        add.dispatch(a=1, b=2)
        with app.extensions["prod"].contributions["database"].handle.engine.connect() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(outbox_of(app).table)) == 1


def kit_with_database() -> ProdKit:
    """Return a kit that has the jobs of the tests, and the database room."""
    kit = ProdKit(only=("jobs", "database", "metrics", "health"))
    for task in prod.jobs.tasks:
        kit.jobs.tasks.add(task)
    return kit


def engine_of(app: Flask) -> Engine:
    handle = app.extensions["prod"].contributions["jobs"].handle
    engine: Engine = handle.build() if hasattr(handle, "build") else handle
    return engine


def outbox_of(app: Flask) -> Outbox:
    return engine_of(app).backend.outbox()


def session_of(app: Flask) -> Any:
    return app.extensions["prod"].contributions["database"].handle.session


def relay_of(app: Flask) -> Any:
    relay = engine_of(app).backend.relay
    assert relay is not None
    return relay


def rows(app: Flask) -> list[Any]:
    outbox = outbox_of(app)
    with outbox.engine.connect() as connection:
        return list(connection.execute(sa.select(outbox.table).order_by(outbox.table.c.id)))


def test_rolled_back_transaction_dispatches_nothing(boxed: Flask) -> None:
    """A job belongs to the caller's transaction: rolled back, it was never dispatched."""
    add.dispatch(1)
    session_of(boxed).rollback()
    add.dispatch(2)
    session_of(boxed).commit()

    assert relay_of(boxed).relay() == 1
    assert [job.args for job in engine_of(boxed).queue("default").jobs] == [[2]]


def test_savepoint_that_is_rolled_back_takes_its_jobs_along(boxed: Flask) -> None:
    """What a savepoint undoes is not sent, what stands around it is."""
    session = session_of(boxed)
    add.dispatch(1)
    savepoint = session.begin_nested()
    add.dispatch(2)
    savepoint.rollback()
    session.commit()

    relay_of(boxed).relay()

    assert [job.args for job in engine_of(boxed).queue("default").jobs] == [[1]]


def test_order_is_kept_per_queue(boxed: Flask) -> None:
    """Jobs come into Redis in the order of their dispatch, queue by queue, in more than one batch."""
    session = session_of(boxed)
    for number in range(250):
        (add if number % 2 else add.on("emails")).dispatch(number)
    session.commit()

    assert relay_of(boxed).relay() == 250
    queues = {name: [job.args[0] for job in engine_of(boxed).queue(name).jobs] for name in ("default", "emails")}
    assert queues == {"default": list(range(1, 250, 2)), "emails": list(range(0, 250, 2))}


def test_job_is_the_same_in_redis(boxed: Flask) -> None:
    """Id, arguments, retries and time limit are those of the dispatch; a delay ends when it would have."""
    job = send_mail.delay("1h").dispatch(7)
    session_of(boxed).commit()

    relay_of(boxed).relay()

    found = engine_of(boxed).fetch(job.id)
    assert (found.args, found.retries_left, found.timeout) == ([7], job.retries_left, job.timeout)
    assert engine_of(boxed).queue("emails").scheduled_job_registry.get_job_ids() == [job.id]


def test_relay_that_ends_between_push_and_note_makes_no_second_job(
    boxed: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next relay sends the same ids, and Redis has them already."""
    for number in range(3):
        add.dispatch(number)
    session_of(boxed).commit()
    relay = relay_of(boxed)
    waiting = relay._waiting()
    relay._keeper.accept([_order(boxed, row) for row in waiting])  # and then it was killed

    assert relay.relay() == 3
    assert engine_of(boxed).queue("default").count == 3


def test_redis_that_lost_its_last_second_gets_it_again(
    make_app: MakeApp, valkey: Valkey, database_url: str
) -> None:
    """What was sent to another run of Redis is sent once more."""
    app = make_app(kit=kit_with_database(), REDIS_URL=valkey.url, DATABASE_URL=database_url, JOBS_OUTBOX="always")
    outbox_of(app).create()
    with app.app_context():
        job = add.dispatch(1)
        session_of(app).commit()
        assert relay_of(app).relay() == 1
        valkey.kill()
        valkey.start()  # it keeps nothing
        _patiently(relay_of(app).relay)

        assert engine_of(app).queue("default").job_ids == [job.id]


def test_only_one_relay_sends(boxed: Flask, make_app: MakeApp, redis_url: str) -> None:
    """The second of two relays waits until the first has gone."""
    first, second = relay_of(boxed), relay_of(_neighbour(make_app, boxed))
    assert first._leads()
    assert not second._leads()

    first.close()

    assert second._leads()


def test_unsent_rows_are_forgotten_only_when_sent(boxed: Flask) -> None:
    """A sent row goes after JOBS_OUTBOX_KEEP; one that waits stays for ever."""
    add.dispatch(1)
    session_of(boxed).commit()
    relay_of(boxed).relay()
    table = outbox_of(boxed).table
    add.dispatch(2)
    session_of(boxed).commit()
    with outbox_of(boxed).engine.begin() as connection:
        connection.execute(sa.update(table).values(moved=time.time() - 3600))
        connection.execute(sa.update(table).where(table.c.status == "waiting").values(created=time.time() - 3600))

    relay_of(boxed)._send_again("")

    assert [row.status for row in rows(boxed)] == ["waiting"]


def test_row_that_nobody_can_read_holds_nobody_up(boxed: Flask) -> None:
    """It is dead with a reason, and what is behind it is sent."""
    add.dispatch(1)
    add.dispatch(2)
    session_of(boxed).commit()
    table, first = outbox_of(boxed).table, rows(boxed)[0].id
    with outbox_of(boxed).engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.id == first).values(body="{nonsense"))

    relay_of(boxed).relay()

    assert [row.status for row in rows(boxed)] == ["dead", "sent"]
    assert engine_of(boxed).queue("default").count == 1


def test_forgotten_commit_is_told(boxed: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A context that ends without commit says that its jobs are gone; a rollback says nothing."""
    with boxed.app_context():
        add.dispatch(1)
        session_of(boxed).rollback()
    assert "neither committed" not in caplog.text

    with boxed.app_context(), caplog.at_level(logging.ERROR):
        add.dispatch(1)

    assert "1 jobs were dispatched in a transaction that was neither committed nor rolled back" in caplog.text
    assert rows(boxed) == []


def test_session_of_another_database_is_refused(boxed: Flask) -> None:
    """The relay would never see a row there."""
    engine = sa.create_engine("sqlite://")
    session = sa.orm.Session(engine)
    with pytest.raises(ValueError, match="another database"):
        add.within(session).dispatch(1)
    session.close()
    engine.dispose()


def test_session_of_ones_own(boxed: Flask) -> None:
    """`within` writes in the given session's transaction."""
    with outbox_of(boxed).database.session_factory() as session:
        add.within(session).dispatch(1)
        assert relay_of(boxed)._waiting() == []
        session.commit()
    assert relay_of(boxed).relay() == 1


def test_session_needs_the_outbox(app: Flask) -> None:
    """Without JOBS_OUTBOX nothing is written in a session, so `within` is refused."""
    with pytest.raises(ValueError, match="JOBS_OUTBOX"):
        add.within(object()).dispatch(1)


@pytest.mark.alone
@pytest.mark.parametrize("mode", ["refuse", "blackhole"])
def test_fallback_takes_what_redis_does_not(
    make_app: MakeApp, valkey: Valkey, fault_proxy: StartFaultProxy, database_url: str, mode: str
) -> None:
    """A dispatch is accepted within 250 ms while Redis is away, goes out when it is back, and needs no commit."""
    proxy = fault_proxy(valkey.port)
    url = f"redis://{HOST}:{proxy.port}/0"
    app = make_app(kit=kit_with_database(), REDIS_URL=url, DATABASE_URL=database_url, JOBS_OUTBOX="fallback")
    outbox_of(app).create()
    with app.app_context():
        first = add.dispatch(1)
        assert rows(app) == []
        proxy.set(mode)
        began = time.monotonic()
        second = add.dispatch(2)
        took = time.monotonic() - began
        proxy.set("pass")
        _patiently(relay_of(app).relay)

        assert engine_of(app).queue("default").job_ids == [first.id, second.id]
    assert took < 0.25


@pytest.mark.alone
@pytest.mark.parametrize("mode", ["refuse", "blackhole"])
def test_dispatch_without_outbox_fails_soon(
    make_app: MakeApp, valkey: Valkey, fault_proxy: StartFaultProxy, mode: str
) -> None:
    """Unavailable within 250 ms, however Redis is away."""
    proxy = fault_proxy(valkey.port)
    app = make_app(kit=prod, REDIS_URL=f"redis://{HOST}:{proxy.port}/0")
    with app.app_context():
        add.dispatch(1)
        proxy.set(mode)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            add.dispatch(2)
        assert time.monotonic() - began < 0.25


def test_fallback_within_a_transaction_that_writes(make_app: MakeApp, tmp_path: Path) -> None:
    """On SQLite, whose only lock the caller holds, the row goes into the caller's transaction at once."""
    url = f"sqlite:///{tmp_path / 'own.db'}"
    redis = f"redis://{HOST}:{free_port()}/0"
    app = make_app(kit=kit_with_database(), REDIS_URL=redis, DATABASE_URL=url, JOBS_OUTBOX="fallback")
    outbox_of(app).create()
    with app.app_context():
        session = session_of(app)
        session.execute(sa.text("CREATE TABLE orders (id INTEGER)"))
        session.execute(sa.text("INSERT INTO orders VALUES (1)"))
        began = time.monotonic()
        add.dispatch(1)
        assert time.monotonic() - began < 1
        session.commit()
        assert len(rows(app)) == 1


def test_table_that_is_missing_is_named(make_app: MakeApp, redis_url: str, database_url: str) -> None:
    """Dispatch, health check and command say what to run; then it works."""
    kit = kit_with_database()
    app = make_app(kit=kit, REDIS_URL=redis_url, DATABASE_URL=database_url, JOBS_OUTBOX="always")
    with app.app_context():
        with pytest.raises(Unavailable, match="flask prod jobs outbox create"):
            add.dispatch(1)
        session_of(app).rollback()
    assert look(outbox_of(app), 60).status == "fail"

    runner = app.test_cli_runner()
    (command,) = app.extensions["prod"].contributions["jobs"].commands
    outputs = [runner.invoke(command, ["outbox", *words]).output for words in ([], ["create"], ["create"])]

    assert "outbox create" in outputs[0]
    assert outputs[1:] == ["The table jobs_outbox was made.\n", "The table jobs_outbox is there already.\n"]
    assert look(outbox_of(app), 60).status == "ok"
    assert "CREATE TABLE jobs_outbox" in runner.invoke(command, ["outbox", "ddl"]).output


def test_age_warns(boxed: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that waits for longer than JOBS_OUTBOX_WARN shows in the health check, with depth and age."""
    add.dispatch(1)
    session_of(boxed).commit()
    table = outbox_of(boxed).table
    with outbox_of(boxed).engine.begin() as connection:
        connection.execute(sa.update(table).values(created=time.time() - 90))

    finding = look(outbox_of(boxed), 60)

    assert finding.status == "warn"
    assert finding.data["depth"] == 1
    monkeypatch.setattr(relay_of(boxed), "start", lambda: None)  # the request would start it, and empty the outbox
    relay_of(boxed)._measure()
    page = boxed.test_client().get("/metrics").text
    assert "flask_prod_jobs_outbox_depth 1.0" in page
    assert "flask_prod_jobs_outbox_age_seconds 9" in page


def test_thread_relays_by_itself(boxed: Flask, wait_for: Callable[..., Any]) -> None:
    """The first request starts the relay; a commit wakes it."""
    boxed.test_client().get("/health/live")
    add.dispatch(1)
    session_of(boxed).commit()
    wait_for(lambda: engine_of(boxed).queue("default").count == 1, 5, "the relay")


def test_outbox_needs_a_database(make_app: MakeApp, redis_url: str) -> None:
    """A kit without the database room does not start, and says why."""
    with pytest.raises(ConfigError, match="JOBS_OUTBOX=always needs the database room"):
        make_app(only=("jobs",), REDIS_URL=redis_url, JOBS_OUTBOX="always")


def _neighbour(make_app: MakeApp, app: Flask) -> Flask:
    urls = {
        "REDIS_URL": app.config["REDIS_URL"],
        "DATABASE_URL": app.config["DATABASE_URL"],
        "JOBS_OUTBOX": "always",
    }
    return make_app(kit=kit_with_database(), **urls)


def _order(app: Flask, row: Any) -> Any:
    from flask_prod.components.jobs.outbox.table import order_of

    return order_of(engine_of(app), row)


def _patiently(call: Callable[[], int], seconds: float = 15.0) -> None:
    """Call until it has sent something: the breaker lets a Redis that is back through after a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if call():
                return
        except Unavailable:
            pass
        time.sleep(0.1)
    raise TimeoutError("the relay sent nothing")
