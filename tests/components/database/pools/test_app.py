"""The pool of an application: under load, in metrics, on its page, in events, and when a process begins."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_prod import ProdKit
from flask_prod.components.database import AppDatabase
from flask_prod.components.database.pools import adaptive, watch
from flask_prod.components.database.pools.adaptive import AdaptivePool
from flask_prod.components.database.pools.instruments import Instruments
from flask_prod.components.database.pools.watch import Watch, percentile
from flask_prod.core.ports import NoMeter
from tests.components.database.conftest import MakeShop
from tests.servers import wait_for
from tests.traps.shops import samples, total

TOKEN = {"Authorization": "Bearer ops-token"}


def sleepy(app: Flask, database: AppDatabase) -> None:
    @app.get("/sleep/<float:seconds>")
    def sleep(seconds: float) -> str:
        database.session.execute(text("SELECT pg_sleep(:s)"), {"s": seconds})
        return "slept"


def test_64_requests_on_a_pool_of_8(make_shop: MakeShop, postgres_url: str) -> None:
    """With a query of 100 ms all are answered; the pool grows within its bound, and shrinks again when idle."""
    app, database = make_shop(
        ProdKit(only=["database", "metrics"]), DATABASE_URL=postgres_url, OPS_TOKEN="ops-token",
        DATABASE_MAX_IDLE_CONNS=8, DATABASE_MAX_OPEN_CONNS=24, DATABASE_CONN_MAX_IDLE_TIME="300ms",
    )  # fmt: skip
    sleepy(app, database)
    pool = database.engine.pool
    assert isinstance(pool, AdaptivePool)
    most = 0

    def visit(_: int) -> int:
        nonlocal most
        status = app.test_client().get("/sleep/0.1").status_code
        most = max(most, pool.opened)
        return status

    with ThreadPoolExecutor(64) as threads:
        statuses = list(threads.map(visit, range(64)))
    client = app.test_client()
    page = client.get("/debug/pool", headers=TOKEN).get_json()["pools"][0]
    database.tend()
    metrics = samples(client.get("/metrics").text)

    assert statuses == [200] * 64
    assert 8 < most <= 24
    assert page["waits_last_minute"] >= 30
    assert page["wait_p95_ms"] >= page["wait_p50_ms"] > 0
    assert (page["min"], page["max"], page["in_use"], page["waiting"], page["timeouts"]) == (8, 24, 0, 0, 0)
    assert (
        total(metrics, "flask_prod_database_pool_wait_seconds_count", pool="primary") == page["waits_last_minute"]
    )
    assert total(metrics, "flask_prod_database_pool_connections", state="max") == 24
    wait_for(lambda: database.tend() or pool.opened == 8)  # type: ignore[func-returns-value]


def test_page_is_for_who_sends_the_token(make_shop: MakeShop, tmp_path: Path) -> None:
    """Without OPS_TOKEN there is no page; with it, whoever does not send it learns nothing."""
    url = f"sqlite:///{tmp_path}/shop.db"
    without, _ = make_shop(DATABASE_URL=url)
    app, database = make_shop(DATABASE_URL=url, OPS_TOKEN="ops-token", DATABASE_MAX_OPEN_CONNS=3)
    client = app.test_client()

    assert without.test_client().get("/debug/pool", headers=TOKEN).status_code == 404
    assert client.get("/debug/pool").status_code == 404
    assert client.get("/debug/pool", headers={"Authorization": "Bearer wrong"}).status_code == 404
    with database.engine.connect():
        page = client.get("/debug/pool", headers=TOKEN).get_json()
    assert page["pid"] > 0
    about = page["pools"][0]
    assert (about["pool"], about["database"], about["kind"]) == ("primary", "sqlite", "AdaptivePool")
    assert (about["min"], about["max"], about["open"], about["in_use"]) == (3, 3, 1, 1)
    assert about["oldest_checkout_ms"] > 0
    assert str(tmp_path) not in str(page)


def reviewed(watched: Watch, pool: AdaptivePool) -> list[str]:
    told = [watched.review(pool) for _ in range(3)]
    return [event.name for event in told if event is not None]


def make_pool(extra: int = 0) -> AdaptivePool:
    class Connection:
        def rollback(self) -> None: ...
        def close(self) -> None: ...

    connect: Any = Connection
    return AdaptivePool(connect, 2, extra, timeout=0.1)


def test_full_pool_is_told_of_once_and_again_when_it_is_over() -> None:
    """One event per bad time, not one per round, and one when there is room again."""
    pool, watched = make_pool(), Watch("primary", Instruments.of(NoMeter()))

    taken = [pool.connect(), pool.connect()]
    began = reviewed(watched, pool) + reviewed(watched, pool)
    for one in taken:
        one.close()
    ended = reviewed(watched, pool) + reviewed(watched, pool)

    assert began == ["prod.database.pool_busy"]
    assert ended == ["prod.database.pool_normal"]


def test_moment_that_means_nothing_is_not_told_of() -> None:
    """A pool that is full at one look and empty at the next has no problem."""
    pool, watched = make_pool(), Watch("primary", Instruments.of(NoMeter()))

    for _ in range(4):
        taken = [pool.connect(), pool.connect()]
        assert watched.review(pool) is None
        for one in taken:
            one.close()
        assert watched.review(pool) is None


def test_long_waits_are_told_of_although_the_pool_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A p95 of waits over 100 ms is a bad time; a minute later it is over."""
    pool, watched = make_pool(), Watch("primary", Instruments.of(NoMeter()))
    pool.checkouts = 100
    for _ in range(4):
        watched.waited(0.2)
    assert reviewed(watched, pool) == []  # 4 of 100

    for _ in range(4):
        watched.waited(0.2)
    told = [event for event in (watched.review(pool) for _ in range(3)) if event is not None]
    assert [event.name for event in told] == ["prod.database.pool_busy"]
    assert told[0].fields["wait_p95"] == 0.2
    assert "DATABASE_MAX_OPEN_CONNS" in told[0].message

    later = time.monotonic() + 61
    monkeypatch.setattr(watch, "monotonic", lambda: later)
    assert reviewed(watched, pool) == ["prod.database.pool_normal"]


def test_share_of_waits() -> None:
    """Who did not wait counts with no wait."""
    assert percentile([], 100, 0.95) == 0
    assert percentile([0.3], 100, 0.95) == 0
    assert percentile([0.1] * 3 + [0.3] * 3, 100, 0.95) == 0.1
    assert percentile([0.1, 0.2, 0.3], 3, 0.5) == 0.2
    assert percentile([0.1, 0.2, 0.3], 3, 0.95) == 0.3


def test_warm_up_opens_what_stays(make_shop: MakeShop, postgres_url: str) -> None:
    """When a process begins to serve it opens its minimum in the background, and closes all at its end."""
    app, database = make_shop(DATABASE_URL=postgres_url, DATABASE_WARM_UP=True, DATABASE_MAX_IDLE_CONNS=3)
    pool: Any = database.engine.pool

    app.extensions["prod"].lifecycle.start()
    wait_for(lambda: pool.checkedin() == 3)
    app.extensions["prod"].lifecycle.close()

    assert pool.checkedin() == 0


def test_warm_up_of_a_server_that_is_away(make_shop: MakeShop) -> None:
    """A start without a database is a start."""
    app, database = make_shop(DATABASE_URL="postgresql://127.0.0.1:1/shop", DATABASE_WARM_UP=True)

    app.extensions["prod"].lifecycle.start()
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == "flask-prod-database-opening"])

    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert app.test_client().get("/nothing").status_code == 404


def test_grace_is_shorter_than_what_is_called_long() -> None:
    """Growing under wait does not look like a problem."""
    assert adaptive.GRACE < watch.LONG / 5
