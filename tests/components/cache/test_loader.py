"""One computation per miss, in the process and across processes; stale, early and failed ones included."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.exceptions import NotFound

from flask_prod.components.cache.board import Board
from flask_prod.components.cache.counters import build_counters
from flask_prod.components.cache.entry import Entry
from flask_prod.components.cache.loader import Loader, Made, Order, Want
from flask_prod.components.cache.locks import Handover, HostLocks
from flask_prod.components.cache.memory import MemoryStore
from flask_prod.core.ports import NoMeter

from .test_stores import MB, redis_store

forked = multiprocessing.get_context("fork")


class Counting:
    """A counter that a test can read."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def inc(self, *labels: str) -> None:
        self.seen.append(labels[0])

    def counting(self, *labels: str) -> Callable[[], None]:
        return lambda: self.inc(*labels)

    def show(self, *labels: str) -> None:
        """Show nothing: a test looks at what was counted."""


class Work:
    """A computation that counts its runs."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.runs = 0

    def __call__(self) -> tuple[Any, Made | None]:
        self.runs += 1
        run = self.runs
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return run, Made(b"j", b"%d" % run)

    def want(self, order: Order = Order(60.0), tags: tuple[str, ...] = ()) -> Want:  # noqa: B008  # it is frozen
        return Want("key", tags, order, self, lambda entry: int(entry.payload))


def host_store(folder: Path) -> MemoryStore:
    return MemoryStore(
        MB, 100, Board(folder / "board"), HostLocks(folder / "lock"), Handover(folder)
    )  # as one worker of several has it


@pytest.fixture
def loader() -> Loader:
    counters = replace(build_counters(NoMeter()), looked=Counting(), missed=Counting())
    return Loader(MemoryStore(MB, 100), 5.0, counters)


def seen(loader: Loader) -> tuple[list[str], list[str]]:
    counters: Any = loader._counters
    return counters.looked.seen, counters.missed.seen


def end(loader: Loader, seconds_ago: float) -> None:
    """Let the entry end so many seconds ago."""
    store: Any = loader.store
    entry: Entry = store.get("key")
    changed = {"expires": time.time() - seconds_ago}
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    store.hold("key", Entry(**{**fields, **changed}), store.board.marks("key"))


def test_hit_and_miss(loader: Loader) -> None:
    """The second caller gets what the first one computed, and both are counted."""
    work = Work()

    assert [loader.obtain(work.want()), loader.obtain(work.want())] == [1, 1]
    assert seen(loader) == (["miss", "hit"], ["computed"])


def test_threads_compute_once(loader: Loader) -> None:
    """Sixteen callers at once make one computation."""
    work = Work(0.2)

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: loader.obtain(work.want()), range(16)))

    assert results == [1] * 16
    assert sorted(seen(loader)[1]) == ["coalesced"] * 15 + ["computed"]


@pytest.mark.alone
def test_stale_while_one_computes(loader: Loader) -> None:
    """After its end one caller computes an entry anew; the others have the old one without waiting."""
    work = Work(0.2)
    order = Order(60.0, stale=30.0)
    loader.obtain(work.want(order))
    end(loader, 1)
    began = time.perf_counter()

    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: (loader.obtain(work.want(order)), time.perf_counter() - began), range(8))
        )

    assert sorted(value for value, _ in answers) == [1] * 7 + [2]
    assert sum(seconds < 0.15 for _, seconds in answers) == 7
    assert work.runs == 2
    assert seen(loader)[0].count("stale") == 8


def test_stale_has_an_end(loader: Loader) -> None:
    """Longer after its end than allowed, everybody waits for the new one."""
    work = Work()
    loader.obtain(work.want(Order(60.0, stale=30.0, stale_on_error=90.0)))
    end(loader, 31)

    assert loader.obtain(work.want(Order(60.0, stale=30.0, stale_on_error=90.0))) == 2


def test_stale_on_error(loader: Loader) -> None:
    """When the computation fails, the old result is served for as long as allowed, then the failure is seen."""
    work, order = Work(), Order(60.0, stale_on_error=30.0)
    loader.obtain(work.want(order))
    work.error = RuntimeError("the database is away")
    end(loader, 5)
    assert loader.obtain(work.want(order)) == 1
    assert seen(loader)[1][-1] == "failed"

    end(loader, 31)
    with pytest.raises(RuntimeError):
        loader.obtain(work.want(order))


def test_what_a_view_answers_on_purpose_is_no_error(loader: Loader) -> None:
    """A 404 is an answer: the old page does not stand for it."""
    work, order = Work(), Order(60.0, stale=60.0, stale_on_error=60.0)
    loader.obtain(work.want(order))
    work.error = NotFound()
    end(loader, 5)

    with pytest.raises(NotFound):
        loader.obtain(work.want(order))


def test_invalidated_entries_are_never_stale(loader: Loader) -> None:
    """Whoever invalidates says that it is wrong: it is not served stale, and not for a failure either."""
    work, order = Work(), Order(60.0, stale=60.0, stale_on_error=60.0)
    loader.obtain(work.want(order, ("tag",)))
    end(loader, 1)
    loader.store.invalidate(["tag"])
    loader.store.delete_many(["key"])
    work.error = RuntimeError("away")

    with pytest.raises(RuntimeError):
        loader.obtain(work.want(order, ("tag",)))


def test_early_refresh() -> None:
    """The nearer its end and the dearer its computation, the likelier a caller computes an entry anew."""
    order = Order(60.0, early=1.0)
    now = time.time()

    def due(cost: float, left: float) -> int:
        entry = Entry(b"j", b"1", now, now + left, now + left, cost)
        return sum(order.is_due(entry, now) for _ in range(2000))

    assert due(0.1, 30) == 0
    assert 10 < due(1.0, 3) < 300  # e**-3 of 2,000 is 100
    assert due(1.0, 0.01) > 1900
    assert Order(60.0).is_due(Entry(b"j", b"1", now, now + 0.001, now + 1, 9.0), now) is False


def test_early_refresh_is_made_by_one(loader: Loader) -> None:
    """While one caller computes early, the others go on with what is still fresh."""
    work, order = Work(0.2), Order(60.0, early=10.0)
    loader.obtain(work.want(order))
    end(loader, -0.001)
    end(loader, -0.5)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: loader.obtain(work.want(order)), range(8)))

    assert work.runs <= 3
    assert set(results) <= {1, 2, 3}


def test_times_to_live_differ() -> None:
    """Of entries stored together none lives longer than asked for, and they do not end together."""
    ticket = MemoryStore(MB, 10).ticket("key")
    now = time.time()
    lives = [Order(100.0, jitter=0.2).entry(Made(b"j", b"1"), 0.0, ticket).expires - now for _ in range(200)]

    assert 80 <= min(lives) < 85
    assert 95 < max(lives) <= 100.1


def test_invalidation_during_a_computation(loader: Loader) -> None:
    """Who comes after an invalidation does not wait for, nor get, what was begun before it."""
    work = Work(0.3)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(loader.obtain, work.want(tags=("tag",)))
        time.sleep(0.1)
        loader.store.invalidate(["tag"])
        second = pool.submit(loader.obtain, work.want(tags=("tag",)))

        assert (first.result(5), second.result(5)) == (1, 2)
    assert loader.obtain(work.want(tags=("tag",))) == 2


def in_processes(count: int, build: Callable[[], Loader], seconds: float) -> tuple[int, set[str]]:
    """Let as many processes want the same at once; return how often it was computed, and the results."""
    runs, results = forked.Value("i", 0), forked.Queue()

    def work() -> tuple[Any, Made | None]:
        with runs.get_lock():
            runs.value += 1
        time.sleep(seconds)
        return "made", Made(b"j", b"made")

    def child() -> None:
        want = Want("key", ("tag",), Order(60.0), work, lambda entry: entry.payload.decode())
        results.put(build().obtain(want))

    children = [forked.Process(target=child) for _ in range(count)]
    for each in children:
        each.start()
    found = {results.get(timeout=20) for _ in children}
    for each in children:
        each.join(10)
    return runs.value, found


def test_processes_of_a_host_compute_once(tmp_path: Path) -> None:
    """Four workers without Redis: one computes, the others take its result into their memories."""
    counters = build_counters(NoMeter())

    assert in_processes(4, lambda: Loader(host_store(tmp_path), 5.0, counters), 0.4) == (1, {"made"})


def test_processes_with_redis_compute_once(redis_url: str) -> None:
    """Four workers that share Redis compute once."""
    counters = build_counters(NoMeter())

    assert in_processes(4, lambda: Loader(redis_store(redis_url)[0], 5.0, counters), 0.4) == (1, {"made"})


@pytest.mark.alone
@pytest.mark.parametrize("backend", ["host", "redis"])
def test_crashed_owner_blocks_nobody(tmp_path: Path, redis_url: str, backend: str) -> None:
    """When the process that computes is killed, another one computes: at once on a host, in 2 s with Redis."""

    def build() -> Loader:
        store = host_store(tmp_path) if backend == "host" else redis_store(redis_url)[0]
        return Loader(store, 5.0, build_counters(NoMeter()))

    def die() -> tuple[Any, Made | None]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    child = forked.Process(target=lambda: build().obtain(Want("key", (), Order(60.0), die, lambda entry: entry)))
    child.start()
    child.join(10)
    began = time.perf_counter()

    assert build().obtain(Work().want()) == 1
    assert time.perf_counter() - began < (0.5 if backend == "host" else 2.6)


@pytest.mark.alone
def test_result_that_cannot_be_kept_holds_nobody_up(tmp_path: Path) -> None:
    """What may not be shared is computed by each caller, and nobody waits longer than once."""
    loader = Loader(host_store(tmp_path), 5.0, build_counters(NoMeter()))
    runs: list[int] = []
    lock = threading.Lock()

    def make() -> tuple[Any, Made | None]:
        with lock:
            runs.append(1)
        time.sleep(0.1)
        return len(runs), None

    want = Want("key", (), Order(60.0), make, lambda entry: entry)
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: loader.obtain(want), range(8)))

    assert len(runs) == 8
    assert time.perf_counter() - began < 0.5
