"""The pool alone: growing, shrinking, fairness, and what happens to connections that fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as PoolTimeout

from flask_prod.components.database.pools.adaptive import AdaptivePool
from tests.servers import wait_for


class Connection:
    """As much of a driver's connection as a pool touches."""

    closed = False

    def close(self) -> None:
        self.closed = True

    def rollback(self) -> None:
        return


def make(
    minimum: int = 2, extra: int = 2, connect: Callable[[], Any] = Connection, **options: Any
) -> AdaptivePool:
    return AdaptivePool(connect, minimum, extra, **{"timeout": 0.2, **options})


class Watch:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.lost: list[float] = []

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def timed_out(self, seconds: float) -> None:
        self.lost.append(seconds)


def test_minimum_is_opened_at_once_and_the_rest_under_wait() -> None:
    """Up to the minimum nobody waits; beyond it a connection is opened once nobody gave one back."""
    pool = make()
    pool.watcher = watch = Watch()

    taken = [pool.connect() for _ in range(2)]
    assert watch.waits == []
    taken += [pool.connect() for _ in range(2)]

    assert len(watch.waits) == 2
    assert (pool.opened, pool.checkedout(), pool.overflow(), pool.size()) == (4, 4, 2, 2)
    for one in taken:
        one.close()
    assert (pool.opened, pool.checkedout(), pool.checkedin()) == (4, 0, 4)


def test_connection_that_comes_back_in_time_spares_a_new_one() -> None:
    """A short wait for one that is about to come back is cheaper than opening another."""
    pool = make(1, 5, timeout=5.0)
    first = pool.connect()

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.connect)
        wait_for(lambda: pool.waiting == 1)
        first.close()
        waiting.result().close()

    assert pool.opened <= 2  # 1 unless this machine needed longer than the grace for two statements


@pytest.mark.alone
def test_nobody_waits_longer_than_the_time_limit() -> None:
    """At the bound a caller is refused in time, and told of."""
    pool = make(1, 1)
    pool.watcher = watch = Watch()
    taken = [pool.connect(), pool.connect()]

    began = time.monotonic()
    with pytest.raises(PoolTimeout, match="All 2 connections are in use"):
        pool.connect()

    assert 0.2 <= time.monotonic() - began < 0.5
    assert len(watch.lost) == 1
    assert pool.waiting == 0
    taken[0].close()
    pool.connect().close()


def test_idle_connections_are_closed_down_to_the_minimum() -> None:
    """What was opened under load goes when it was idle for long enough, never more than that."""
    pool = make(2, 3, idle_time=0.05)
    for one in [pool.connect() for _ in range(5)]:
        one.close()

    assert pool.shrink() == 0
    wait_for(lambda: pool.shrink() == 3)
    assert (pool.opened, pool.checkedin()) == (2, 2)
    assert pool.shrink() == 0


def test_whoever_came_first_is_served_first() -> None:
    """A caller that comes later does not overtake those who wait."""
    pool = make(1, 0, timeout=5.0)
    first = pool.connect()
    order: list[int] = []

    def take(number: int) -> None:
        connection = pool.connect()
        order.append(number)
        connection.close()

    with ThreadPoolExecutor(8) as threads:
        for number in range(8):
            threads.submit(take, number)
            wait_for(lambda n=number: pool.waiting == n + 1)  # type: ignore[misc]
        first.close()

    assert order == list(range(8))


def test_failed_connect_leaves_its_place_to_the_next() -> None:
    """An attempt that fails takes no place away, also while others wait for it."""
    broken = threading.Event()

    def connect() -> Connection:
        if broken.is_set():
            time.sleep(0.02)
            raise OSError("refused")
        return Connection()

    pool = make(1, 1, connect, timeout=5.0)
    broken.set()

    def attempt(_: int) -> str:
        try:
            pool.connect().close()
        except OSError as error:
            return str(error)
        return "connected"

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(attempt, range(16))) == {"refused"}
    assert (pool.opened, pool.waiting) == (0, 0)
    broken.clear()
    assert attempt(0) == "connected"


def test_disposed_pool_keeps_nothing() -> None:
    """What is in use when a pool is disposed of is closed when it comes back."""
    pool = make()
    kept, idle = pool.connect(), pool.connect()
    driver: Any = kept.dbapi_connection
    idle.close()

    pool.dispose()
    assert not driver.closed
    kept.close()

    assert driver.closed
    assert (pool.opened, pool.checkedin()) == (0, 0)


def test_recreated_pool_works_alike() -> None:
    """`engine.dispose()` goes on with the same limits, listeners and watcher."""
    pool = make(3, 4, idle_time=9.0, timeout=0.3, recycle=60, pre_ping=False)
    opened: list[object] = []
    event.listen(pool, "connect", lambda connection, record: opened.append(connection))
    pool.watcher = Watch()

    again = pool.recreate()
    again.connect().close()

    assert (again.minimum, again.maximum, again.idle_time, again.timeout(), again._recycle) == (3, 7, 9.0, 0.3, 60)
    assert again.watcher is pool.watcher
    assert len(opened) == 1


def test_endless_pool() -> None:
    """A pool that its owner gave no bound has none."""
    pool = make(1, -1, timeout=0.05)

    taken = [pool.connect() for _ in range(5)]

    assert pool.opened == 5
    for one in taken:
        one.close()


def test_fill_opens_the_minimum() -> None:
    """Warming up opens what stays and no more, and stops when told to."""
    pool = make(3, 5)
    stopped = threading.Event()
    stopped.set()

    assert pool.fill(stopped) == 0
    assert pool.fill(threading.Event()) == 3
    assert (pool.opened, pool.checkedin()) == (3, 3)
    assert pool.fill(threading.Event()) == 0


def test_connection_that_was_opened_early_is_asked_before_its_first_use() -> None:
    """What warming up opened may have died before anybody came: it is asked whether it is alive as any other."""
    pool = make(1, 0, pre_ping=True)
    asked: list[object] = []
    pool._dialect._do_ping_w_event = lambda connection: asked.append(connection) or True  # type: ignore
    pool.fill(threading.Event())

    pool.connect().close()

    assert len(asked) == 1


def test_connection_in_use_has_an_age() -> None:
    """The oldest checkout tells of somebody who never gives back."""
    pool = make()
    assert pool.oldest() == 0
    first = pool.connect()
    time.sleep(0.02)
    pool.connect().close()

    assert pool.oldest() >= 0.02
    first.close()
    assert pool.oldest() == 0


@settings(max_examples=25, deadline=None)
@given(
    minimum=st.integers(1, 3),
    extra=st.integers(0, 3),
    steps=st.lists(st.sampled_from(["use", "invalidate", "detach", "fail"]), min_size=8, max_size=60),
)
def test_any_load_stays_within_the_bounds(minimum: int, extra: int, steps: list[str]) -> None:
    """Whatever eight threads do with their connections: never more than the bound, and no place is lost."""
    alive, most, lock = [0], [0], threading.Lock()

    class Counted(Connection):
        def __init__(self) -> None:
            with lock:
                alive[0] += 1
                most[0] = max(most[0], alive[0])

        def close(self) -> None:
            with lock:
                alive[0] -= not self.closed
            self.closed = True

    pool = make(minimum, extra, Counted, timeout=5.0, idle_time=60.0)

    def visit(step: str) -> None:
        connection = pool.connect()
        if step == "invalidate":
            connection.invalidate()
        elif step == "detach":
            connection.detach()
        elif step == "fail":
            connection.invalidate(OSError("gone"))
        connection.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(visit, steps))

    assert most[0] <= minimum + extra + steps.count("detach")  # who detaches a connection owns it
    assert (pool.checkedout(), pool.waiting) == (0, 0)
    assert pool.opened == pool.checkedin() <= minimum + extra
    pool.dispose()
    assert alive[0] == 0
