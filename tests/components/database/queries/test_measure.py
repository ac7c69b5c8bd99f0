"""What is told of queries: how many, how long, what went wrong, which were slow or repeated."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import bindparam, event, exc, text

from flask_prod.components.database.queries import slow as slow_queries
from flask_prod.components.database.queries.slow import Query, SlowQueries
from flask_prod.core.component import Event
from flask_prod.core.record import RequestRecord, enter, leave

from .telling import Told, measured

SECRET = "canary-4711"


@pytest.fixture
def record() -> Iterator[RequestRecord]:
    """Serve a request while the test runs."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http", "SERVER_NAME": "x"}
    record = RequestRecord(environ, "0" * 32, 0.0)
    record.route = "/orders"
    enter(record)
    yield record
    leave(record)


def sleepy(told: Told, seconds: float = 0.03) -> Told:
    """Give SQLite a function that takes its time."""

    def sleep(value: str) -> str:
        time.sleep(seconds)
        return value

    @event.listens_for(told.engine, "connect")
    def connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.create_function("sleepy", 1, sleep)

    return told


def test_request_knows_its_queries(record: RequestRecord) -> None:
    """A request's record has the number of its queries, failed ones included, and the seconds they took."""
    told = sleepy(measured())
    with told.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.execute(text("SELECT sleepy(1)"))
        with pytest.raises(exc.OperationalError):
            connection.execute(text("SELECT nothing"))
    told.engine.dispose()

    assert record.db_queries == 3
    assert 0.03 <= record.db_seconds < 1


def test_outside_of_requests() -> None:
    """Queries outside of requests are measured too, and so are those without SQLAlchemy's own statements."""
    told = measured()
    with told.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        connection.exec_driver_sql("CREATE TABLE t (a INT)")
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", [(1,), (2,)])
    told.engine.dispose()

    assert told.observed == [(word, "other", "primary") for word in ("SELECT", "CREATE", "INSERT")]


def test_errors_by_kind(tmp_path: Path) -> None:
    """Errors are counted by a word that says what to do about them."""
    told = measured(f"sqlite:///{tmp_path}/a.db?timeout=0")
    with told.engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a TEXT UNIQUE)"))
        connection.execute(text("INSERT INTO t VALUES ('a')"))
    with told.engine.connect() as connection:
        for statement in ("INSERT INTO t VALUES ('a')", "SELECT nothing"):
            with pytest.raises(exc.DBAPIError):
                connection.execute(text(statement))
        connection.rollback()
        with sqlite3.connect(tmp_path / "a.db") as other:
            other.execute("INSERT INTO t VALUES ('b')")
            with pytest.raises(exc.OperationalError):
                connection.execute(text("INSERT INTO t VALUES ('c')"))
        other.close()
    told.engine.dispose()
    away = measured("sqlite:////nowhere/a.db")
    with pytest.raises(exc.OperationalError):
        away.engine.connect()

    assert [kind for kind, _ in told.errors] == ["integrity", "other", "locked"]
    assert away.errors == [("connection", "primary")]


def test_errors_of_postgres(postgres_url: str) -> None:
    """A statement that ran into its time limit is a timeout, and so is told apart from a broken connection."""
    told = measured(postgres_url)
    with told.engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 20"))
        with pytest.raises(exc.OperationalError):
            connection.execute(text("SELECT pg_sleep(5)"))
        connection.rollback()
        with pytest.raises(exc.OperationalError):
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    told.engine.dispose()

    assert [kind for kind, _ in told.errors] == ["timeout", "connection"]


def test_connection_that_is_replaced_is_no_error(postgres_url: str) -> None:
    """A connection that died while nobody used it is replaced before its next use: no query has failed."""
    told = measured(postgres_url, pool_pre_ping=True)
    with told.engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 1000)", (pid,))
    with told.engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != pid
    told.engine.dispose()

    assert told.errors == []


def test_slow_query_has_a_line(record: RequestRecord) -> None:
    """A slow query's line says how long, what, for which route and from which line; never a value."""
    told = sleepy(measured(slow=0.02))
    with told.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.execute(text(f"SELECT sleepy(:a), '{SECRET}'"), {"a": SECRET})
    told.engine.dispose()

    (line,) = told.events
    assert (line.name, line.severity) == ("prod.database.slow_query", "warning")
    assert line.fields["statement"] == "SELECT sleepy(?), ?"
    assert line.fields["route"] == "/orders"
    assert "queries/test_measure.py:" in str(line.fields["at"])
    assert "in test_slow_query_has_a_line" in line.message
    assert SECRET not in str(line)


def test_slow_failure_has_a_line() -> None:
    """A query that fails slowly is slow, and its line has the class of the error."""
    told = sleepy(measured(slow=0.02))
    with told.engine.connect() as connection:
        connection.execute(text("CREATE TABLE t (a TEXT UNIQUE)"))
        connection.execute(text("INSERT INTO t VALUES (:a)"), {"a": SECRET})
        with pytest.raises(exc.IntegrityError):
            connection.execute(text("INSERT INTO t VALUES (sleepy(:a))"), {"a": SECRET})
    told.engine.dispose()

    (line,) = (one for one in told.events if "error" in one.fields)  # a busy machine may be slow with others too
    assert line.fields["error"] == "IntegrityError"
    assert SECRET not in str(line)


def test_slow_queries_are_told_twice_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement has two lines in any minute; the next one says how many were held back."""
    moments = iter((100.0, 101.0, 102.0, 159.0, 160.5, 160.6, 161.5, 161.6))
    monkeypatch.setattr(slow_queries, "monotonic", lambda: next(moments))
    events: list[Event] = []
    slow = SlowQueries(events.append, 0.5)

    for _ in range(7):
        slow.tell(Query(1.0, "SELECT", "orders", "primary", "SELECT 1"), "a")
    slow.tell(Query(1.0, "SELECT", "lines", "primary", "SELECT 2"), "b")

    assert [line.fields.get("held_back") for line in events] == [None, None, 2, 1, None]
    assert [line.fields["table"] for line in events] == ["orders"] * 4 + ["lines"]


def test_remembered_statements_are_bounded() -> None:
    """Statements without end, each of its own, do not fill the memory."""
    slow = SlowQueries(lambda line: None, 0.5)
    for number in range(2000):
        slow.tell(Query(1.0, "SELECT", "other", "primary", ""), str(number))

    assert len(slow._told) <= 500


def test_statements_that_differ_in_values_are_one(record: RequestRecord) -> None:
    """However many values stand after IN, it is one slow statement."""
    told = sleepy(measured(slow=0.02))
    statement = text("SELECT sleepy(1) WHERE 1 IN :ids").bindparams(bindparam("ids", expanding=True))
    with told.engine.connect() as connection:
        for count in range(1, 6):
            connection.execute(statement, {"ids": list(range(count + 1))})
    told.engine.dispose()

    assert len(told.events) == 2


def test_repeated_query_is_told_in_development(record: RequestRecord) -> None:
    """More than ten times the same in one request: one line, with the count, the line of code and the remedy."""
    told = measured(environment="development")
    assert told.telemetry.repeats is not None
    with told.engine.connect() as connection:
        for number in range(11):
            connection.execute(text("SELECT :a"), {"a": f"{SECRET}{number}"})
        for _ in range(10):
            connection.execute(text("SELECT 2"))
    told.engine.dispose()
    told.telemetry.repeats.observe(record)

    (line,) = told.events
    assert line.name == "prod.database.repeated_query"
    assert (line.fields["count"], line.fields["statement"]) == (11, "SELECT ?")
    assert "/orders asked the same 11 times" in line.message
    assert "selectinload" in line.message
    assert "in test_repeated_query_is_told_in_development" in str(line.fields["at"])
    assert SECRET not in str(line)


def test_nothing_is_repeated_in_production(record: RequestRecord) -> None:
    """In production nobody counts by statement."""
    told = measured(environment="production")
    with told.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    told.engine.dispose()

    assert told.telemetry.repeats is None
    assert record.db_statements is None


def test_lock_of_a_child() -> None:
    """A child forked while another thread wrote such a line can write its own."""
    events: list[Event] = []
    slow = SlowQueries(events.append, 0.5)
    slow._lock.acquire()

    slow.after_fork()
    slow.tell(Query(1.0, "SELECT", "orders", "primary", "SELECT 1"), "a")

    assert len(events) == 1
