"""Operation and table of a statement, without reading it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    delete,
    func,
    insert,
    literal,
    select,
    table,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, selectinload
from sqlalchemy.orm import relationship as related
from sqlalchemy.schema import CreateTable, DropTable

from flask_prod.components.database.queries.labels import MOST_TABLES, OTHER, Labeller, keyword


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list[Line]] = related("Line")


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


plain = Table("plain", MetaData(), Column("id", Integer), schema="shop")
ordered = select(Order.id).cte()


@pytest.mark.parametrize(
    ("statement", "labels"),
    [
        (select(Order), ("SELECT", "orders")),
        (select(Order.id).where(Order.id == 7), ("SELECT", "orders")),
        (select(Line).join(Order), ("SELECT", "lines")),
        (select(aliased(Line)), ("SELECT", "lines")),
        (select(ordered.c.id), ("SELECT", "orders")),
        (select(select(Line).subquery()), ("SELECT", "lines")),
        (select(Order.id).union(select(Line.id)), ("SELECT", "orders")),
        (select(func.count()).select_from(Line), ("SELECT", "lines")),
        (select(func.now()), ("SELECT", OTHER)),
        (select(literal(1)).select_from(table("unknown")), ("SELECT", OTHER)),
        (select(plain.c.id), ("SELECT", "shop.plain")),
        (insert(Order).values(id=1), ("INSERT", "orders")),
        (insert(Order).from_select(["id"], select(Line.id)), ("INSERT", "orders")),
        (update(Order).values(id=1), ("UPDATE", "orders")),
        (delete(Line).where(Line.id == 7), ("DELETE", "lines")),
        (CreateTable(plain), ("CREATE", "shop.plain")),
        (DropTable(plain), ("DROP", "shop.plain")),
        (text("SELECT * FROM orders"), ("SELECT", OTHER)),
        (text("/*C*/ -- x\n (select 1)"), ("SELECT", OTHER)),
        (text("SELECT id FROM orders").columns(Order.id), ("SELECT", OTHER)),
        (text("PRAGMA user_version"), ("OTHER", OTHER)),
    ],
)
def test_labels(statement: Any, labels: tuple[str, str]) -> None:
    """SQLAlchemy's own statements tell both; of one written by hand only the first word is read."""
    compiled = statement.compile()

    assert Labeller().label(compiled, str(compiled)) == labels


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("", "OTHER"),
        ("  \n;(( SELECT 1", "SELECT"),
        ("-- only a comment", "OTHER"),
        ("/* never closed SELECT", "OTHER"),
        ("/* a */ /* b */update x", "UPDATE"),
        ("WITH x AS (SELECT 1) SELECT 1", "WITH"),
        ("EXPLAIN SELECT 1", "OTHER"),
        ("selectx", "OTHER"),
        ("/*" + "x" * 10_000 + "*/ SELECT", "OTHER"),
    ],
)
def test_keyword(statement: str, word: str) -> None:
    """It is the first word after comments, and one of a few."""
    assert keyword(statement) == word


@given(st.text(max_size=300))
def test_any_text_has_a_keyword(statement: str) -> None:
    """Whatever is sent as a statement, the label is one of a few."""
    assert keyword(statement) == "OTHER" or keyword(statement).isalpha()


@pytest.mark.alone
def test_nonsense_takes_no_time() -> None:
    """What would keep a backtracking expression busy is done at once."""
    for part in ("/**/", "(", "--\n", "/*", ";", "-"):
        began = time.perf_counter()
        keyword(part * (4096 // len(part)))
        assert time.perf_counter() - began < 0.1


def test_tables_are_bounded() -> None:
    """A program that makes tables by number has one series for those beyond the bound."""
    labeller = Labeller()
    seen = set()
    for number in range(MOST_TABLES + 50):
        made = Table(f"t{number}", MetaData(), Column("id", Integer))
        compiled = select(made).compile()
        seen.add(labeller.label(compiled, str(compiled))[1])

    assert len(seen) == MOST_TABLES + 1
    assert OTHER in seen


def test_looked_at_once() -> None:
    """What was found is kept with the compiled statement."""
    compiled = select(Order).compile()
    assert Labeller().label(compiled, "") == ("SELECT", "orders")
    compiled.statement = None

    assert Labeller().label(compiled, "") == ("SELECT", "orders")


def test_orm_by_a_real_session() -> None:
    """What a session sends by itself is told too: unit of work, lazy and eager loads, refreshes."""
    from .telling import measured

    told = measured()
    Base.metadata.create_all(told.engine)
    told.observed.clear()
    with Session(told.engine) as session:
        session.add(Order(id=1, lines=[Line(id=1), Line(id=2)]))
        session.commit()
        order = session.scalars(select(Order).options(selectinload(Order.lines))).one()
        session.expire_all()
        assert len(order.lines) == 2
        session.delete(order.lines[0])
        session.commit()
    told.engine.dispose()

    assert [labels[:2] for labels in told.observed] == [
        ("INSERT", "orders"), ("INSERT", "lines"), ("SELECT", "orders"), ("SELECT", "lines"),
        ("SELECT", "orders"), ("SELECT", "lines"), ("DELETE", "lines"),
    ]  # fmt: skip
