"""No row of one tenant is ever seen by another, whatever both do at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, exc, select, text

from .conftest import NAMES, Item, Open, Shop

QUERIES = 10_000
"""What the two tests of many queries ask together."""

Seen = list[str]


def orm(shop: Shop, name: str) -> Seen:
    session = shop.prod.db.tenant(name).session
    return [item.owner for item in session.scalars(select(Item).limit(5))]


def core(shop: Shop, name: str) -> Seen:
    with shop.prod.db.tenant(name).engine.connect() as connection:
        return list(connection.scalars(select(Item.owner).limit(5)))


def by_hand(shop: Shop, name: str) -> Seen:
    session = shop.prod.db.tenant(name).session
    return list(session.scalars(text("SELECT owner FROM item LIMIT 5")))


def raw(shop: Shop, name: str) -> Seen:
    connection = shop.prod.db.tenant(name).engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT owner FROM item LIMIT 5")
        return [row[0] for row in cursor.fetchall()]
    finally:
        connection.close()


def after_rollback(shop: Shop, name: str) -> Seen:
    with shop.prod.db.tenant(name).engine.connect() as connection:
        connection.execute(text("INSERT INTO item (owner) VALUES (:owner)"), {"owner": name})
        connection.rollback()
        return list(connection.scalars(text("SELECT owner FROM item LIMIT 5")))


def after_error(shop: Shop, name: str) -> Seen:
    session = shop.prod.db.tenant(name).session
    with suppress(exc.ProgrammingError):
        session.execute(text("SELECT nothing FROM nowhere"))
    session.rollback()
    return by_hand(shop, name)


def after_astray(shop: Shop, name: str) -> Seen:
    """Leave the connection with another path than it came with."""
    with shop.prod.db.tenant(name).engine.connect() as connection:
        seen = list(connection.scalars(text("SELECT owner FROM item LIMIT 5")))
        connection.execute(text("SET search_path TO public"))
        connection.commit()
    return seen


def after_loss(shop: Shop, name: str) -> Seen:
    """Lose the connection in the middle, and go on with a new one."""
    with shop.prod.db.tenant(name).engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        connection.rollback()
        connection.invalidate()
        return list(connection.scalars(text("SELECT owner FROM item LIMIT 5")))


def written(shop: Shop, name: str) -> Seen:
    session = shop.prod.db.tenant(name).session
    session.add(Item(owner=name))
    session.commit()
    return orm(shop, name)


def autocommit(shop: Shop, name: str) -> Seen:
    engine = shop.prod.db.tenant(name).engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT owner FROM item LIMIT 5")))


WAYS = (orm, core, by_hand, raw, after_rollback, after_error, after_astray, after_loss, written, autocommit)
Step = tuple[Callable[[Shop, str], Seen], str]


class Watch:
    """Runs plans of steps in threads, counts queries, and keeps rows that were not the asker's."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.queries = 0
        self.strange: list[tuple[str, str, Seen]] = []
        self._lock = Lock()

    def run(self, plans: Sequence[Sequence[Step]]) -> None:
        with ThreadPoolExecutor(len(plans)) as threads:
            list(threads.map(self._one, plans))

    def count(self, *_: object) -> None:
        with self._lock:
            self.queries += 1

    def _one(self, plan: Sequence[Step]) -> None:
        for way, name in plan:
            with self.shop.app.app_context():
                seen = way(self.shop, name)
            if not seen or set(seen) != {name}:
                self.strange.append((way.__name__, name, seen))


def drive(watch: Watch, examples: int, shortest: int = 1) -> None:
    """Have hypothesis think of what four threads do at the same time."""
    steps = st.tuples(st.sampled_from(WAYS), st.sampled_from(NAMES[:2]))
    plan = st.lists(steps, min_size=shortest, max_size=24)

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(plan, min_size=4, max_size=4))
    def together(plans: list[list[Step]]) -> None:
        watch.run(plans)
        assert not watch.strange

    event.listen(Engine, "after_cursor_execute", watch.count)
    try:
        together()
    finally:
        event.remove(Engine, "after_cursor_execute", watch.count)


@pytest.mark.parametrize("kind", ["schemas", "databases"])
def test_two_tenants_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    """Two tenants ask at once and in every way there is: no answer holds a row of the other."""
    make: Open = request.getfixturevalue(f"with_{kind}")
    watch = Watch(make(DATABASE_MAX_OPEN_CONNS=3).stock(*NAMES[:2]))

    drive(watch, 10)

    assert watch.strange == []


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["schemas", "databases"])
def test_ten_thousand_queries(kind: str, request: pytest.FixtureRequest) -> None:
    """After 10,000 queries of two tenants, half of them with schemas, not one row was seen by the other."""
    make: Open = request.getfixturevalue(f"with_{kind}")
    watch = Watch(make(DATABASE_MAX_OPEN_CONNS=3).stock(*NAMES[:2]))

    for _ in range(20):  # takes three or four
        drive(watch, 25, shortest=20)
        if watch.queries >= QUERIES // 2:
            break

    assert watch.strange == []
    assert watch.queries >= QUERIES // 2
