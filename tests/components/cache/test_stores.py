"""Three stores with one behaviour, and what each does in its own bad hour."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flask_prod import ConfigError
from flask_prod.components.cache import FileStore, MemoryStore, RedisStore, Store
from flask_prod.components.redis import RedisHandle, RedisSettings
from flask_prod.core.component import Event
from flask_prod.core.ports import NoMeter
from flask_prod.core.values import SecretUrl
from tests.servers import Valkey, wait_for

MB = 1024**2


def redis_store(url: str, namespace: str = "shop:test") -> tuple[RedisStore, RedisHandle]:
    gauge = NoMeter().gauge("degraded", "")
    handle = RedisHandle(RedisSettings(url=SecretUrl(url)), namespace, gauge, lambda _event: None)
    return RedisStore(handle, "", MemoryStore(MB, 100)), handle


@pytest.fixture(params=["memory", "file", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield MemoryStore(MB, 100)
    elif request.param == "file":
        yield FileStore(tmp_path / "cache", MB, 100, lambda _event: None)
    else:
        built, handle = redis_store(request.getfixturevalue("redis_url"))
        yield built
        handle.close()


def test_entries(store: Store) -> None:
    """What is stored is found, what is deleted is not."""
    assert store.get_many(["a", "b"]) == [None, None]
    assert store.set_many({"a": b"1", "b": b"\x00\xff"}, 60)
    assert store.get_many(["a", "x", "b"]) == [b"1", None, b"\x00\xff"]
    assert store.delete_many(["a", "x"]) == ["a"]
    assert store.get_many(["a", "b"]) == [None, b"\x00\xff"]


def test_add(store: Store) -> None:
    """Only the first one stores."""
    assert store.add("a", b"1", 60)
    assert not store.add("a", b"2", 60)
    assert store.get_many(["a"]) == [b"1"]


def test_add_by_many(store: Store) -> None:
    """Of eight threads that add at once, one succeeds, and its entry is the one that stays."""
    for number in range(30):
        barrier = threading.Barrier(8)

        def add(thread: int, key: str = str(number), barrier: threading.Barrier = barrier) -> bytes:
            barrier.wait(5)
            return b"%d" % thread if store.add(key, b"%d" % thread, 60) else b""

        with ThreadPoolExecutor(8) as pool:
            won = [data for data in pool.map(add, range(8)) if data]

        assert store.get_many([str(number)]) == won


def test_time_to_live(store: Store) -> None:
    """An entry ends with its time; zero is for ever."""
    store.set_many({"short": b"1"}, 0.05)
    store.set_many({"long": b"2"}, 0)
    store.add("added", b"3", 0.05)
    time.sleep(0.12)

    assert store.get_many(["short", "long", "added"]) == [None, b"2", None]
    assert store.add("added", b"4", 60)


def test_clear(store: Store) -> None:
    """Everything is forgotten."""
    store.set_many({str(n): b"x" for n in range(50)}, 60)

    assert store.clear()
    assert store.get_many([str(n) for n in range(50)]) == [None] * 50


def test_threads(store: Store) -> None:
    """Eight threads that read, write and delete see whole entries only."""

    def work(seed: int) -> bool:
        good = True
        for n in range(60):
            key = str((seed + n) % 5)
            store.set_many({key: key.encode() * 100}, 60)
            found = store.get_many([key])[0]
            good = good and found in (None, key.encode() * 100)
            if n % 7 == 0:
                store.delete_many([key])
        return good

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_memory_is_bounded_by_bytes() -> None:
    """The longest unused entries make room; the store never holds more than it may."""
    store = MemoryStore(10_000, 1000)
    for n in range(100):
        store.set_many({str(n): b"x" * 800}, 60)
        store.get_many(["0"])

    finding = store.probe()

    assert finding is not None
    assert int(str(finding.data["bytes"])) <= 10_000
    assert store.get_many(["0"])[0] is not None  # used all the time
    assert store.get_many(["50"])[0] is None


def test_memory_is_bounded_by_entries() -> None:
    """Many small entries do not grow without end, and replacing one frees its bytes."""
    store = MemoryStore(MB, 10)
    for n in range(1000):
        store.set_many({str(n % 20): b"x"}, 60)

    finding = store.probe()

    assert finding is not None
    assert finding.data["entries"] == 10


def test_files_are_bounded(tmp_path: Path) -> None:
    """The oldest files go once there are too many."""
    store = FileStore(tmp_path, MB, 20, lambda _event: None)
    for n in range(514):
        store.set_many({str(n): b"x"}, 60)

    assert len(os.listdir(tmp_path)) <= 20 + 256 + 1


def test_full_disk_is_a_miss_and_one_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes no more costs nothing but the cache, and is said once."""
    events: list[Event] = []
    store = FileStore(tmp_path, MB, 20, events.append)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)

    assert not store.set_many({"a": b"1"}, 60)
    assert not store.set_many({"a": b"1"}, 60)
    assert store.get_many(["a"]) == [None]
    assert [event.name for event in events] == ["prod.cache.unwritable"]


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A folder of the cache that cannot be written stops the start with its setting's name."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="CACHE_DIR"):
        FileStore(tmp_path / "file" / "cache", MB, 20, lambda _event: None)


def test_clear_leaves_neighbours_alone(redis_url: str) -> None:
    """Other services, environments and rooms on the same Redis keep their keys, wildcard names included (44)."""
    mine, my_handle = redis_store(redis_url, "shop*:test")
    theirs, their_handle = redis_store(redis_url, "shopping:test")
    mine.set_many({"a": b"1"}, 60)
    theirs.set_many({"a": b"2"}, 60)
    my_handle.attempt(lambda client: client.set(my_handle.key("limit", "x"), "5"))

    assert mine.get_many(["a"]) == [b"1"]
    assert mine.clear()
    assert mine.get_many(["a"]) == [None]
    assert theirs.get_many(["a"]) == [b"2"]
    assert my_handle.attempt(lambda client: client.get(my_handle.key("limit", "x"))) == b"5"
    my_handle.close()
    their_handle.close()


@pytest.mark.parametrize("fault", ["pause", "kill"])
def test_outage(valkey: Valkey, fault: str) -> None:
    """A frozen or dead Redis costs the first call 300 ms and the next none; the process goes on by itself (10)."""
    store, handle = redis_store(valkey.url)
    store.set_many({"a": b"old", "gone": b"old"}, 0)
    getattr(valkey, fault)()

    began = time.perf_counter()
    first = store.get_many(["a"])
    stored = store.set_many({"a": b"new"}, 60)
    waited = time.perf_counter() - began
    store.delete_many(["gone"])
    began = time.perf_counter()
    for _ in range(100):
        assert store.get_many(["a"]) == [b"new"]
    hundred = time.perf_counter() - began

    assert first == [None]
    assert stored
    assert waited < 0.3
    assert hundred < 0.3
    if fault == "pause":
        valkey.resume()
    handle.close()


def test_what_an_outage_hid_is_not_served_afterwards(valkey: Valkey) -> None:
    """Keys written or deleted while Redis was away are out of date there: when it is back, they are gone."""
    store, handle = redis_store(valkey.url)
    store.set_many({"changed": b"old", "deleted": b"old", "untouched": b"old"}, 0)
    valkey.pause()
    store.set_many({"changed": b"new"}, 60)
    store.delete_many(["deleted"])
    valkey.resume()

    wait_for(lambda: store.get_many(["untouched"]) == [b"old"], 5, "Redis in use again")

    assert store.get_many(["changed", "deleted", "untouched"]) == [None, None, b"old"]
    handle.close()


def test_clear_during_an_outage_is_made_up_for(valkey: Valkey) -> None:
    """Who cleared the cache while Redis was away finds it empty when it is back."""
    store, handle = redis_store(valkey.url)
    store.set_many({"a": b"old"}, 0)
    valkey.pause()

    assert not store.clear()
    valkey.resume()
    wait_for(lambda: store.set_many({"b": b"1"}, 60) and not store._away, 5, "Redis in use again")

    assert store.get_many(["a"]) == [None]
    handle.close()


def test_many_threads_in_an_outage(valkey: Valkey) -> None:
    """Sixteen threads that meet a frozen Redis all go on within the time that one may take."""
    store, handle = redis_store(valkey.url)
    valkey.pause()
    barrier = threading.Barrier(16)

    def ask(_number: int) -> float:
        barrier.wait(5)
        began = time.perf_counter()
        store.get_many(["a"])
        return time.perf_counter() - began

    with ThreadPoolExecutor(16) as pool:
        worst = max(pool.map(ask, range(16)))

    assert worst < 0.4
    valkey.resume()
    handle.close()
