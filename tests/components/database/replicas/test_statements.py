"""Statements that only read, told from those that might do more."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Executable,
    Integer,
    Sequence,
    String,
    case,
    cast,
    column,
    delete,
    exists,
    extract,
    func,
    insert,
    literal_column,
    select,
    text,
    union_all,
    update,
    values,
)
from sqlalchemy.orm import aliased, joinedload, selectinload

from flask_prod.components.database.replicas.statements import changes, reads_only, text_reads_only

from .conftest import Product, Shelf

NEW = insert(Product).values(name="new").returning(Product.id).cte("new")

READS: dict[str, Executable] = {
    "one object": select(Product).where(Product.id == 1),
    "a number": select(func.count()).select_from(Product),
    "a window": select(func.sum(Product.stock).over(partition_by=Product.name)).group_by(Product.name),
    "what belongs to it": select(Shelf).options(selectinload(Shelf.products), joinedload(Shelf.products)),
    "a join": select(Product).join(Product.shelf).where(Shelf.id.in_([1, 2])),
    "existence": select(exists().where(Product.id == 1)),
    "some of a collection": select(Shelf).where(Shelf.products.any(Product.stock > 3)),
    "a union": union_all(select(Product.id), select(Shelf.id)),
    "a subquery": select(select(Product.id).subquery()),
    "a case": select(
        case((Product.stock > 1, "x"), else_="y"), cast(Product.stock, String), func.lower(Product.name)
    ),
    "an order in words": select(Product).order_by(text("name desc")),
    "an alias": select(aliased(Product)),
    "a common table": select(select(Product.id).cte("some")),
    "a lateral join": select(Product, select(Shelf.id).where(Shelf.id == Product.shelf_id).lateral()),
    "values": select(values(column("a", Integer), name="v").data([(1,)])),
    "rows of a function": select(func.generate_series(1, 3).table_valued("x")),
    "a part of a time": select(extract("year", func.now())),
}
OTHERS: dict[str, Executable] = {
    "a lock": select(Product).with_for_update(),
    "a shared lock": select(Product).with_for_update(read=True),
    "a lock further in": select(Product).where(Product.id.in_(select(Product.id).with_for_update())),
    "a common table that writes": select(NEW),
    "one that is only added": select(Product.id).add_cte(NEW),
    "one in a subquery": select(Product).where(Product.id.in_(select(NEW.c.id))),
    "a lock by function": select(func.pg_advisory_xact_lock(1)),
    "a lock among conditions": select(Product).where(func.pg_try_advisory_lock(Product.id)),
    "a counter": select(func.nextval("products_id_seq")),
    "a sequence": select(Sequence("products_id_seq").next_value()),
    "a notification in words": select(literal_column("pg_notify('a', 'b')")),
    "objects of a write": select(Product).from_statement(insert(Product).values(name="x").returning(Product)),
    "an insert": insert(Product).values(name="x"),
    "an update": update(Product).values(name="x"),
    "a delete": delete(Product),
}
UNKNOWN: dict[str, Executable] = {
    "a function of one's own": select(func.place_order(1)),
    "one among conditions": select(Product).where(Product.stock == func.place_order(1)),
    "one of a package": select(func.orders.count(1)),
    "text": text("SELECT 1"),
    "words that call": select(Product).where(text("place_order(1) > 2")),
    "objects of text": select(Product).from_statement(text("SELECT * FROM products")),
    "a prefix": select(Product.id).prefix_with(text("STRAIGHT_JOIN")),
}


@pytest.mark.parametrize("name", READS)
def test_reads(name: str) -> None:
    """What only reads may go to a replica, however it is written."""
    assert reads_only(READS[name])
    assert reads_only(READS[name], vouched=True)


@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str) -> None:
    """What writes, locks or counts stays on the primary, even where the query asks for a replica."""
    assert not reads_only(OTHERS[name])
    assert not reads_only(OTHERS[name], vouched=True)


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown(name: str) -> None:
    """What nobody can tell goes to a replica only where the query itself says so."""
    assert not reads_only(UNKNOWN[name])
    assert reads_only(UNKNOWN[name], vouched=True)


@pytest.mark.parametrize(
    ("written", "reads"),
    [
        ("SELECT 'DELETE FROM x; DROP TABLE y' FROM z", True),
        ("/* a comment */ WITH a AS (SELECT 1) SELECT * FROM a", True),
        ("SELECT 1;", True),
        ("WITH gone AS (DELETE FROM products RETURNING *) SELECT * FROM gone", False),
        ("SELECT 1; DROP TABLE products", False),
        ("SELECT pg_advisory_lock (3)", False),
        ("SELECT * FROM products FOR UPDATE", False),
        ("SELECT * INTO copy FROM products", False),
        ("SELECT -- nothing\n nextval('x')", False),
        ("SET search_path TO a", False),
        ("UPDATE products SET stock = 1", False),
    ],
)
def test_text(written: str, reads: bool) -> None:
    """Words in strings and comments mean nothing; every other word that could write does."""
    assert text_reads_only(written) is reads


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        (select(Product), False),
        (select(Product).with_for_update(), False),
        (select(func.place_order(1)), False),
        (select(func.nextval("x")), True),
        (select(NEW), True),
        (update(Product).values(stock=1), True),
        (text("SELECT 1"), False),
        (text("SET LOCAL statement_timeout = 0"), False),
        (text("WITH gone AS (DELETE FROM products RETURNING *) SELECT 1 FROM gone"), True),
        (text("CALL place_order()"), True),
    ],
)
def test_changes(statement: Any, changed: bool) -> None:
    """Whoever changed something is told from who only looked or locked: only the first reads from the primary."""
    compiled = statement.compile()

    assert changes(compiled, str(compiled)) is changed
    assert changes(compiled, "") is changed  # remembered


def test_a_judgement_is_remembered() -> None:
    """Statements that differ in their values alone are judged once."""
    first, second = select(Product).where(Product.id == 1), select(Product).where(Product.id == 2)

    assert reads_only(first)
    assert first._generate_cache_key().key == second._generate_cache_key().key  # type: ignore[union-attr]  # has one
