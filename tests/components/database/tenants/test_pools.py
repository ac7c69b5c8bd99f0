"""A bounded number of tenants' pools: the one not used for longest goes, one in use stays."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from flask_prod.components.database.tenants.pools import TenantPools


class Opened:
    """Opens engines on SQLite files, and knows how often."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder = folder
        self.names: list[str] = []
        self.counts: list[int] = []
        self.engines: list[Engine] = []
        self.pools = TenantPools(self.open, most, self.counts.append)

    def open(self, name: str) -> Engine:
        self.names.append(name)
        engine = create_engine(f"sqlite:///{self.folder / name}.db")
        self.engines.append(engine)
        return engine


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path, 2)
    yield made
    for engine in made.engines:
        engine.dispose()


def use(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def idle(engine: Engine) -> int:
    return engine.pool.checkedin()  # type: ignore[attr-defined, no-any-return]


def test_engine_is_kept(opened: Opened) -> None:
    """Who asks again gets the same engine."""
    assert opened.pools.engine("a") is opened.pools.engine("a")
    assert opened.names == ["a"]


def test_least_recently_used_is_closed(opened: Opened) -> None:
    """Beyond the bound the tenant that was not asked for longest has no connection open any more."""
    first, second = opened.pools.engine("a"), opened.pools.engine("b")
    use(first)
    use(second)
    opened.pools.engine("a")

    opened.pools.engine("c")

    assert opened.pools.names() == ["a", "c"]
    assert (idle(first), idle(second)) == (1, 0)
    assert opened.counts == [1, 2, 2]


def test_one_in_use_is_not_closed(opened: Opened) -> None:
    """A connection that is taken out, or a context's session without one, keep a tenant's pool open."""
    with opened.pools.engine("a").connect() as connection:
        opened.pools.lease("b")
        with pytest.raises(PoolTimeout, match="DATABASE_TENANT_POOLS"):
            opened.pools.engine("c")
        assert connection.scalar(text("SELECT 7")) == 7

    opened.pools.engine("c")
    assert opened.pools.names() == ["b", "c"]
    opened.pools.release("b")
    opened.pools.engine("d")
    assert opened.pools.names() == ["c", "d"]


def test_engine_that_was_kept_is_the_one(opened: Opened) -> None:
    """Whoever held on to an engine that was closed goes on with it, and so does everybody else."""
    kept = opened.pools.engine("a")
    opened.pools.engine("b")
    opened.pools.engine("c")

    use(kept)

    assert opened.pools.engine("a") is kept
    assert opened.names == ["a", "b", "c"]


def test_engine_that_nobody_kept_is_opened_anew(opened: Opened) -> None:
    """An engine that was closed and let go of is made again."""
    for name in ("a", "b", "c"):
        opened.pools.engine(name)
    opened.engines.clear()
    gc.collect()

    opened.pools.engine("a")

    assert opened.names == ["a", "b", "c", "a"]


def test_all_ask_at_once(opened: Opened) -> None:
    """Threads that ask for a new tenant at the same time get one engine, and the bound holds."""
    start = threading.Barrier(8)

    def ask(number: int) -> Engine:
        start.wait()
        engine = opened.pools.engine("a")
        use(engine)
        return engine

    with ThreadPoolExecutor(8) as threads:
        engines = set(threads.map(ask, range(8)))

    assert len(engines) == 1
    assert opened.pools.names() == ["a"]


def test_child_begins_anew(opened: Opened) -> None:
    """A forked child has none of its parent's sessions, whose leases would keep pools open for good."""
    opened.pools.lease("a")

    opened.pools.after_fork()
    opened.pools.engine("b")
    opened.pools.engine("c")

    assert opened.pools.names() == ["b", "c"]
