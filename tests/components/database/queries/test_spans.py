"""Statements as spans: what they do, without what they store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import exc, make_url, text

from flask_prod.components.database.queries.spans import describe, place_of, sanitized
from flask_prod.core.ports import NO_SPAN, NoTracer, SpanPort
from tests.components.database.queries.telling import measured


class Recording:
    """A tracer that keeps what it is told, while it is on."""

    def __init__(self) -> None:
        self.on = True
        self.spans: list[tuple[str, dict[str, Any]]] = []

    def span(
        self, name: str, kind: str = "internal", attributes: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[SpanPort]:
        return self._open(name, dict(attributes or {})) if self.on else NO_SPAN

    @contextmanager
    def _open(self, name: str, attributes: dict[str, Any]) -> Iterator[SpanPort]:
        yield _Span(attributes)
        self.spans.append((name, attributes))

    def carrier(self) -> dict[str, str]:
        return {}

    continued = NoTracer().continued


class _Span:
    def __init__(self, attributes: dict[str, Any]) -> None:
        self._attributes = attributes

    def set(self, name: str, value: str | int | float | bool) -> None:
        self._attributes[name] = value

    def fail(self, error: BaseException) -> None:
        raise AssertionError("a driver's message repeats values")


@pytest.mark.parametrize(
    ("statement", "name", "shown"),
    [
        (
            "SELECT name FROM users WHERE id = :id AND card = '4111' LIMIT 10",
            "SELECT users",
            "SELECT name FROM users WHERE id = :id AND card = ? LIMIT ?",
        ),
        (
            "INSERT INTO shop.orders VALUES (1, 'it''s', -2.5e3)",
            "INSERT shop.orders",
            "INSERT INTO shop.orders VALUES (?, ?, ?)",
        ),
        ('update "t1" set a=$1, b=$2', "UPDATE t1", 'update "t1" set a=$1, b=$2'),
        ("DELETE FROM t2 -- why not", "DELETE t2", "DELETE FROM t2"),
        ("/* hint */ SELECT 0xFF", "SELECT", "SELECT ?"),
        ("(SELECT a FROM b) UNION SELECT c FROM d", "SELECT b", "(SELECT a FROM b) UNION SELECT c FROM d"),
        ("CREATE TABLE IF NOT EXISTS x (a INT)", "CREATE x", "CREATE TABLE IF NOT EXISTS x (a INT)"),
        ("SELECT $tag$it's secret$tag$", "SELECT", "SELECT ?"),
        ("BEGIN", "BEGIN", "BEGIN"),
        ("", "SQL", ""),
    ],
)
def test_statement_is_described(statement: str, name: str, shown: str) -> None:
    """Operation and table are named, the text has `?` for each value."""
    told = describe(statement)

    assert told["name"] == name
    assert told["attributes"].get("db.query.text", "") == shown


@pytest.mark.parametrize(
    "statement",
    [
        r"SELECT 'a\', 'secret-value'",
        "SELECT 1 -- it's\n , 'secret-value'",
        "SELECT 1 /* ' */, 'secret-value'",
        "SELECT E'secret-value\\''",
        "SELECT 'secret-value",
        "SELECT 'secret-value" + "x" * 20_000 + "'",
        "SELECT $$secret-value",
    ],
)
def test_what_is_not_sure_is_not_shown(statement: str) -> None:
    """Where a text might end elsewhere than we think, the span has operation and table alone."""
    told = describe(statement)

    assert "secret-value" not in str(told)
    assert told["name"] == "SELECT"


def test_double_quotes_are_texts_in_mysql() -> None:
    """MySQL writes texts in double quotes, too, and comments after a hash."""
    assert sanitized('SELECT "secret"', texts_in_double_quotes=True) == "SELECT ?"
    assert sanitized("SELECT 1 # it's\n, 'secret'", texts_in_double_quotes=True) == ""


@given(st.text(max_size=200), st.booleans())
def test_any_text_is_taken(statement: str, quotes: bool) -> None:
    """Whatever comes as a statement, describing it neither raises nor takes long."""
    describe(statement, quotes)


@pytest.mark.alone
def test_long_nonsense_takes_no_time() -> None:
    """A statement made to keep an expression busy is done within milliseconds."""
    for part in ("/**/", "(", "'", "$a$", "$", "--\n", "1.", '"', "FROM "):
        began = time.perf_counter()
        describe(part * (8192 // len(part)))
        assert time.perf_counter() - began < 0.2


def test_place_has_no_credentials() -> None:
    """Host, port and database are told, user and password are not, nor where a file lies."""
    place = place_of(make_url("postgresql+psycopg://me:secret@db:5433/shop"))

    assert place == {
        "db.system.name": "postgresql", "db.namespace": "shop", "server.address": "db", "server.port": 5433
    }  # fmt: skip
    assert place_of(make_url("sqlite:////home/me/shop.db")) == {"db.system.name": "sqlite"}


def test_statements_are_measured_without_parameters() -> None:
    """Each statement is one span, without parameters and the driver's message; unsampled requests have none."""
    tracer = Recording()
    engine = measured(tracer=tracer).engine

    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE t (a TEXT UNIQUE)"))
        connection.execute(text("INSERT INTO t VALUES (:a)"), [{"a": "secret-1"}, {"a": "secret-2"}])
        with pytest.raises(exc.IntegrityError):
            connection.execute(text("INSERT INTO t VALUES (:a)"), {"a": "secret-1"})
        tracer.on = False
        connection.execute(text("SELECT 1"))
    engine.dispose()

    assert [name for name, _ in tracer.spans] == ["CREATE t", "INSERT t", "INSERT t"]
    assert tracer.spans[2][1]["error.type"] == "IntegrityError"
    assert "error.type" not in tracer.spans[1][1]
    assert "secret" not in str(tracer.spans)
