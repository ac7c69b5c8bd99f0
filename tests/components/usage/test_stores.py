"""Hours in a real Redis and in SQLite: the same answers, once each, bounded, gone after their time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_prod.components.usage.engine import OTHER, ROUTE, Batch
from flask_prod.components.usage.stores import FileStore, RedisStore, UsageStore
from flask_prod.core.errors import Unavailable
from tests.apps import MakeApp

OpenStore = Callable[[], UsageStore]


@pytest.fixture(params=["redis", "file"])
def store(
    request: pytest.FixtureRequest, make_app: MakeApp, tmp_path: Path, redis_url: str
) -> Iterator[UsageStore]:
    if request.param == "file":
        yield FileStore(lambda: tmp_path / "usage.sqlite3", 7200, 5)
        return
    app = make_app(only=("redis",), REDIS_URL=redis_url)
    yield RedisStore(app.extensions["prod"].contributions["redis"].handle, 7200, 5)


def batch(hour: int, **callers: float) -> Batch:
    return Batch(hour, {(ROUTE, "/items", name): [count, 1, 2, 3, 0.25] for name, count in callers.items()})


def requests(store: UsageStore, hour: int) -> dict[str, float]:
    return {name[2]: cell[0] for _, cells in store.read(hour, hour) for name, cell in cells.items()}


def test_add(store: UsageStore) -> None:
    """Batches of one hour add up, number by number; hours stay apart."""
    store.add(batch(100, a=1))
    store.add(batch(100, a=2, b=5))
    store.add(batch(101, a=7))

    assert dict(store.read(99, 102)) == {
        100: {(ROUTE, "/items", "a"): [3, 2, 4, 6, 0.5], (ROUTE, "/items", "b"): [5, 1, 2, 3, 0.25]},
        101: {(ROUTE, "/items", "a"): [7, 1, 2, 3, 0.25]},
    }


def test_bound(store: UsageStore) -> None:
    """An hour has so many callers; what comes later is counted together, however many processes bring it."""
    for start in (0, 10, 20):
        store.add(batch(100, **{f"c{number}": 1.0 for number in range(start, start + 5)}))

    found = requests(store, 100)
    assert len(found) <= 6
    assert found[OTHER] == 10
    assert sum(found.values()) == 15


def test_hostile_names(store: UsageStore) -> None:
    """Names with quotes, line breaks and other letters come back in one line."""
    store.add(Batch(100, {(ROUTE, "/ü/<id>", 'a"b\n; drop table usage'): [1, 0, 0, 0, 0.0]}))

    assert [name for _, cells in store.read(100, 100) for name in cells] == [
        (ROUTE, "/ü/<id>", 'a"b?; drop table usage')
    ]


def test_together(store: UsageStore) -> None:
    """Several threads and stores add at the same time, and nothing is lost."""

    def add() -> None:
        for _ in range(25):
            store.add(batch(100, a=1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert requests(store, 100) == {"a": 100}


def test_redis_once(make_app: MakeApp, redis_url: str) -> None:
    """A batch that is sent again because its answer got lost counts once, and both keys end by themselves."""
    handle = make_app(only=("redis",), REDIS_URL=redis_url).extensions["prod"].contributions["redis"].handle
    store = RedisStore(handle, 7200, 5)
    again = batch(100, a=3)
    store.add(again)
    store.add(again)

    assert requests(store, 100) == {"a": 3}
    client = handle.client("jobs")
    keys = list(client.scan_iter("*usage*"))
    assert len(keys) == 2
    assert all(0 < client.ttl(key) <= 7200 + 3600 for key in keys)


def test_file_forgets(tmp_path: Path) -> None:
    """Hours that are older than USAGE_KEEP go when a new one begins."""
    store = FileStore(lambda: tmp_path / "usage.sqlite3", 7200, 5)
    for hour in (100, 101, 102, 103):
        store.add(batch(hour, a=1))

    assert [hour for hour, _ in store.read(90, 110)] == [101, 102, 103]


@pytest.mark.parametrize("place", [None, "/dev/null/usage"])
def test_file_nowhere(place: str | None) -> None:
    """Where no file can be written, that is said by the exception that lets a batch wait."""
    store = FileStore(lambda: Path(place) if place else None, 7200, 5)

    with pytest.raises(Unavailable):
        store.add(batch(100, a=1))
