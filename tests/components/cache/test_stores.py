"""Four stores with one behaviour, and what each does in its own bad hour."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_prod import ConfigError
from flask_prod.components.cache import FileStore, MemoryStore, RedisStore, Store, TieredStore
from flask_prod.components.cache.board import Board
from flask_prod.components.cache.entry import Entry, Stamps, pack
from flask_prod.components.cache.locks import Handover, HostLocks
from flask_prod.components.cache.pending import Pending
from flask_prod.components.redis import RedisHandle, RedisSettings
from flask_prod.core.component import Event
from flask_prod.core.ports import NoMeter
from flask_prod.core.values import SecretUrl
from tests.servers import Valkey, wait_for

MB = 1024**2


def redis_handle(url: str, namespace: str = "shop:test") -> RedisHandle:
    return RedisHandle(RedisSettings(url=SecretUrl(url)), namespace, NoMeter(), lambda _event: None)


def redis_store(
    url: str, namespace: str = "shop:test", pending: Path | None = None
) -> tuple[RedisStore, RedisHandle]:
    handle = redis_handle(url, namespace)
    return RedisStore(handle, "", MemoryStore(MB, 100), Pending(pending), lambda: None), handle


def tiered_store(url: str) -> tuple[TieredStore, RedisHandle]:
    handle = redis_handle(url)
    local = MemoryStore(MB, 100)
    memory = MemoryStore(MB, 100, local.board)
    store = TieredStore(handle, "", local, Pending(None), lambda: None, memory=memory)
    store.start()
    wait_for(lambda: store.live, 5, "a listener that hears")
    return store, handle


def file_store(folder: Path, most_entries: int = 100, emit: Any = lambda _event: None) -> FileStore:
    return FileStore(folder, MB, most_entries, emit, lambda: None)


@pytest.fixture(params=["memory", "file", "redis", "tiered"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield MemoryStore(MB, 100)
    elif request.param == "file":
        yield file_store(tmp_path / "cache")
    else:
        build = redis_store if request.param == "redis" else tiered_store
        built, handle = build(request.getfixturevalue("redis_url"))
        yield built
        built.close()
        handle.close()


def entry(data: bytes, ttl: float = 60.0, tags: Stamps = ()) -> Entry:
    ends = time.time() + ttl if ttl else 0.0
    return Entry(b"j", data, time.time(), ends, ends, 0.0, tags)


def put(store: Store, entries: dict[str, bytes], ttl: float) -> bool:
    return store.set_many({key: entry(data, ttl) for key, data in entries.items()})


def read(store: Store, keys: list[str]) -> list[bytes | None]:
    return [found.payload if found else None for found in store.get_many(keys)]


def compute(store: Store, key: str, data: bytes, *tags: str) -> bool:
    """Keep an entry as the loader does."""
    ticket = store.ticket(key, tags)
    return store.keep(key, entry(data, tags=ticket.stamps), ticket)


def test_entries(store: Store) -> None:
    """What is stored is found, what is deleted is not."""
    assert read(store, ["a", "b"]) == [None, None]
    assert put(store, {"a": b"1", "b": b"\x00\xff"}, 60)
    assert read(store, ["a", "x", "b"]) == [b"1", None, b"\x00\xff"]
    assert store.delete_many(["a", "x"]) == ["a"]
    assert read(store, ["a", "b"]) == [None, b"\x00\xff"]


def test_add(store: Store) -> None:
    """Only the first one stores."""
    assert store.add("a", entry(b"1", 60))
    assert not store.add("a", entry(b"2", 60))
    assert read(store, ["a"]) == [b"1"]


def test_add_by_many(store: Store) -> None:
    """Of eight threads that add at once, one succeeds, and its entry is the one that stays."""
    for number in range(30):
        barrier = threading.Barrier(8)

        def add(thread: int, key: str = str(number), barrier: threading.Barrier = barrier) -> bytes:
            barrier.wait(5)
            return b"%d" % thread if store.add(key, entry(b"%d" % thread, 60)) else b""

        with ThreadPoolExecutor(8) as pool:
            won = [data for data in pool.map(add, range(8)) if data]

        assert read(store, [str(number)]) == won


def test_time_to_live(store: Store) -> None:
    """An entry ends with its time; zero is for ever."""
    put(store, {"short": b"1"}, 0.05)
    put(store, {"long": b"2"}, 0)
    store.add("added", entry(b"3", 0.05))
    time.sleep(0.12)

    assert read(store, ["short", "long", "added"]) == [None, b"2", None]
    assert store.add("added", entry(b"4", 60))


def test_tags(store: Store) -> None:
    """An invalidated tag takes all of its entries along, at once, and no others."""
    compute(store, "list", b"1", "products")
    compute(store, "detail", b"2", "products", "product:5")
    compute(store, "other", b"3", "carts")
    compute(store, "plain", b"4")
    for _ in range(2):
        for hint in ((), ("product:5",), ("products", "product:5")):
            assert store.get("detail", hint) is not None

    assert store.invalidate(["product:5"])
    assert store.get("detail") is None
    assert read(store, ["list", "detail", "other", "plain"]) == [b"1", None, b"3", b"4"]
    assert store.invalidate(["products", "never used"])
    assert read(store, ["list", "other"]) == [None, b"3"]
    compute(store, "list", b"5", "products")
    assert store.get("list", ("products",)) is not None


def test_what_was_begun_before_an_invalidation_is_not_served_after_it(store: Store) -> None:
    """A ticket from before an invalidation, or a deletion, is worth nothing afterwards."""
    by_tag, by_key, by_all = store.ticket("a", ["t"]), store.ticket("b"), store.ticket("c")
    store.invalidate(["t"])
    store.keep("a", entry(b"old", tags=by_tag.stamps), by_tag)
    store.delete_many(["b"])
    store.keep("b", entry(b"old"), by_key)
    store.clear()
    store.keep("c", entry(b"old"), by_all)

    assert read(store, ["a", "b", "c"]) == [None, None, None]
    assert store.get("a", ("t",)) is None


def test_stale_entries_are_found(store: Store) -> None:
    """A store keeps an entry until nobody may have it, and says whether it is fresh."""
    now = time.time()
    store.set_many(
        {"a": Entry(b"j", b"1", now - 10, now - 1, now + 60), "b": Entry(b"j", b"1", 1, now - 2, now - 1)}
    )

    found = store.get("a")

    assert found is not None
    assert not found.is_fresh(now)
    assert store.get("b") is None


def test_increment(store: Store) -> None:
    """Each of many callers gets a number of its own; what is no number is refused, and the first time counts."""
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: store.increment("n", 1, 60), range(80)))

    assert sorted(number or 0 for number in numbers) == list(range(1, 81))
    assert read(store, ["n"]) == [b"80"]
    assert store.increment("n", -100, 60) == -20
    put(store, {"set": b"5"}, 60)
    assert store.increment("set", 2, 0) == 7
    assert 0 < (store.ttl("n") or 0) <= 60
    put(store, {"text": b'"x"'}, 60)
    with pytest.raises(TypeError, match="whole number"):
        store.increment("text", 1, 60)


def test_ttl(store: Store) -> None:
    """What is left of an entry's time is known."""
    put(store, {"a": b"1", "b": b"[1]"}, 30)
    put(store, {"ever": b"[2]"}, 0)

    assert all(29 < (store.ttl(key) or 0) <= 30 for key in "ab")
    assert store.ttl("ever") == float("inf")
    assert store.ttl("nothing") is None


def test_locks(store: Store) -> None:
    """One at a time; who is done lets the next one in."""
    release = store.lock("a", 5)
    assert release is not None
    if isinstance(store, MemoryStore):
        return  # one without a folder has nothing to lock
    assert store.lock("a", 5) is None
    other = store.lock("b", 5)
    assert other is not None
    release()
    again = store.lock("a", 5)
    assert again is not None
    again()
    other()


def test_patterns(store: Store) -> None:
    """Keys that match are forgotten; files have no names to match."""
    put(store, {"user:1:a": b"[1]", "user:2:a": b"[2]", "else": b"[3]"}, 60)
    if isinstance(store, FileStore):
        with pytest.raises(NotImplementedError, match="tags"):
            store.delete_pattern("user:*")
        return

    assert store.delete_pattern("user:*") == 2
    assert read(store, ["user:1:a", "user:2:a"]) == [None, None]


def test_clear(store: Store) -> None:
    """Everything is forgotten."""
    put(store, {str(n): b"x" for n in range(50)}, 60)

    assert store.clear()
    assert read(store, [str(n) for n in range(50)]) == [None] * 50


def test_threads(store: Store) -> None:
    """Eight threads that read, write and delete see whole entries only."""

    def work(seed: int) -> bool:
        good = True
        for n in range(60):
            key = str((seed + n) % 5)
            put(store, {key: key.encode() * 100}, 60)
            found = read(store, [key])[0]
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
        put(store, {str(n): b"x" * 800}, 60)
        read(store, ["0"])

    finding = store.probe()

    assert finding is not None
    assert int(str(finding.data["bytes"])) <= 10_000
    assert read(store, ["0"])[0] is not None  # used all the time
    assert read(store, ["50"])[0] is None


def test_memory_is_bounded_by_entries() -> None:
    """Many small entries do not grow without end, and replacing one frees its bytes."""
    store = MemoryStore(MB, 10)
    for n in range(1000):
        put(store, {str(n % 20): b"x"}, 60)

    finding = store.probe()

    assert finding is not None
    assert finding.data["entries"] == 10


def test_files_are_bounded(tmp_path: Path) -> None:
    """The oldest files go once there are too many."""
    store = file_store(tmp_path, 20)
    for n in range(514):
        put(store, {str(n): b"x"}, 60)

    assert len(os.listdir(tmp_path)) <= 20 + 256 + 2


def test_full_disk_is_a_miss_and_one_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes no more costs nothing but the cache, and is said once."""
    events: list[Event] = []
    store = file_store(tmp_path, 20, events.append)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)

    assert not put(store, {"a": b"1"}, 60)
    assert not put(store, {"a": b"1"}, 60)
    assert read(store, ["a"]) == [None]
    assert [event.name for event in events] == ["prod.cache.unwritable"]


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A folder of the cache that cannot be written stops the start with its setting's name."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="CACHE_DIR"):
        file_store(tmp_path / "file" / "cache")


def test_clear_leaves_neighbours_alone(redis_url: str) -> None:
    """Other services, environments and rooms on the same Redis keep their keys, wildcard names included (44)."""
    mine, my_handle = redis_store(redis_url, "shop*:test")
    theirs, their_handle = redis_store(redis_url, "shopping:test")
    put(mine, {"a": b"1"}, 60)
    put(theirs, {"a": b"2"}, 60)
    my_handle.attempt(lambda client: client.set(my_handle.key("limit", "x"), "5"))

    assert read(mine, ["a"]) == [b"1"]
    assert mine.clear()
    assert read(mine, ["a"]) == [None]
    assert read(theirs, ["a"]) == [b"2"]
    assert my_handle.attempt(lambda client: client.get(my_handle.key("limit", "x"))) == b"5"
    my_handle.close()
    their_handle.close()


@pytest.mark.alone
@pytest.mark.parametrize("fault", ["pause", "kill"])
def test_outage(valkey: Valkey, fault: str) -> None:
    """A frozen or dead Redis costs the first call 300 ms and the next none; the process goes on by itself (10)."""
    store, handle = redis_store(valkey.url)
    put(store, {"a": b"old", "gone": b"old"}, 0)
    getattr(valkey, fault)()

    began = time.perf_counter()
    first = read(store, ["a"])
    stored = put(store, {"a": b"new"}, 60)
    waited = time.perf_counter() - began
    store.delete_many(["gone"])
    began = time.perf_counter()
    for _ in range(100):
        assert read(store, ["a"]) == [b"new"]
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
    put(store, {"changed": b"old", "deleted": b"old", "untouched": b"old"}, 0)
    valkey.pause()
    put(store, {"changed": b"new"}, 60)
    store.delete_many(["deleted"])
    valkey.resume()

    wait_for(lambda: read(store, ["untouched"]) == [b"old"], 5, "Redis in use again")

    assert read(store, ["changed", "deleted", "untouched"]) == [None, None, b"old"]
    handle.close()


def test_clear_during_an_outage_is_made_up_for(valkey: Valkey) -> None:
    """Who cleared the cache while Redis was away finds it empty when it is back."""
    store, handle = redis_store(valkey.url)
    put(store, {"a": b"old"}, 0)
    valkey.pause()

    assert not store.clear()
    valkey.resume()
    wait_for(lambda: put(store, {"b": b"1"}, 60) and not store._standby.away, 5, "Redis in use again")

    assert read(store, ["a"]) == [None]
    handle.close()


@pytest.mark.alone
def test_many_threads_in_an_outage(valkey: Valkey) -> None:
    """Sixteen threads that meet a frozen Redis all go on within the time that one may take."""
    store, handle = redis_store(valkey.url)
    valkey.pause()
    barrier = threading.Barrier(16)

    def ask(_number: int) -> float:
        barrier.wait(5)
        began = time.perf_counter()
        read(store, ["a"])
        return time.perf_counter() - began

    with ThreadPoolExecutor(16) as pool:
        worst = max(pool.map(ask, range(16)))

    assert worst < 0.4
    valkey.resume()
    handle.close()


def test_memories_of_one_host_are_told_at_once(tmp_path: Path) -> None:
    """What one process invalidates, deletes, sets or clears, no memory of the host serves any more (55)."""
    first, second = (MemoryStore(MB, 100, Board(tmp_path / "board")) for _ in range(2))
    for key in ("tagged", "deleted", "set", "cleared"):
        compute(second, key, b"old", "tag" if key == "tagged" else "other")

    first.invalidate(["tag"])
    first.delete_many(["deleted"])
    first.set_many({"set": entry(b"new")})

    assert read(second, ["tagged", "deleted", "set", "cleared"]) == [None, None, None, b"old"]
    first.clear()
    assert read(second, ["cleared"]) == [None]


def test_workers_that_set_the_same_keep_it(tmp_path: Path) -> None:
    """Two memories that look, miss and set the same value leave one another alone."""
    first, second = (MemoryStore(MB, 100, Board(tmp_path / "board")) for _ in range(2))
    put(first, {"a": b"[1]"}, 60)
    put(second, {"a": b"[1]"}, 60)
    assert [read(first, ["a"]), read(second, ["a"])] == [[b"[1]"], [b"[1]"]]

    put(second, {"a": b"[2]"}, 60)
    assert [read(first, ["a"]), read(second, ["a"])] == [[None], [b"[2]"]]


def test_board_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    """A cleaner of temporary files costs the cache its entries; it does not part the processes for good."""
    first, second = (MemoryStore(MB, 100, Board(tmp_path / "board")) for _ in range(2))
    compute(second, "a", b"old", "tag")
    (tmp_path / "board").unlink()
    first.tick()
    second.tick()
    assert read(second, ["a"]) == [None]

    compute(second, "a", b"old", "tag")
    first.invalidate(["tag"])

    assert read(second, ["a"]) == [None]


def test_costly_results_are_handed_over(tmp_path: Path) -> None:
    """A memory that waited for another process takes its result, and never one that was invalidated meanwhile."""
    first, second = (
        MemoryStore(MB, 100, Board(tmp_path / "board"), HostLocks(tmp_path / "lock"), Handover(tmp_path))
        for _ in range(2)
    )
    release = first.lock("a", 5)
    assert second.lock("a", 5) is None
    ticket = first.ticket("a", ["tag"])
    ends = time.time() + 60
    first.keep("a", Entry(b"j", b"1", time.time(), ends, ends, 0.5, ticket.stamps), ticket)
    assert release is not None
    release()

    found = second.again("a", ("tag",))
    assert found is not None
    assert found.payload == b"1"
    first.invalidate(["tag"])
    assert second.again("a", ("tag",)) is None


def test_tiers(redis_url: str) -> None:
    """The second look is answered by the memory; what a process of another host changes is forgotten in time."""
    (mine, my_handle), (theirs, their_handle) = tiered_store(redis_url), tiered_store(redis_url)
    compute(mine, "a", b"[1]", "tag")
    compute(mine, "b", b"[1]")
    for key in "ab":
        assert [mine.get(key).tier, theirs.get(key).tier, theirs.get(key).tier] == ["memory", "redis", "memory"]  # type: ignore[union-attr]

    mine.invalidate(["tag"])
    mine.set_many({"b": entry(b"[2]")})
    wait_for(lambda: read(theirs, ["a", "b"]) == [None, b"[2]"], 2, "the news")
    wait_for(lambda: theirs.get("a") is None, 2, "the memory's news")  # a listener that was late to be heard

    for store, handle in ((mine, my_handle), (theirs, their_handle)):
        store.close()
        handle.close()


@pytest.mark.parametrize("stuck", [False, True])
def test_lost_messages_are_bounded(valkey: Valkey, stuck: bool) -> None:
    """A process that hears nothing for two seconds asks Redis itself: so old can an entry be, and no older."""
    (mine, my_handle), (theirs, their_handle) = tiered_store(valkey.url), tiered_store(valkey.url)
    compute(mine, "a", b"[1]", "tag")
    theirs.get("a")
    theirs._listener._take = lambda _answer: None  # type: ignore[union-attr]  # its messages are lost, and its answers
    if stuck:  # nor does it say that it has lost anything
        theirs._listener._on_lost = lambda: None  # type: ignore[union-attr]
    mine.invalidate(["tag"])

    began = time.monotonic()
    wait_for(lambda: theirs.get("a") is None, 4, "the bound")

    assert time.monotonic() - began < 2.6
    for store, handle in ((mine, my_handle), (theirs, their_handle)):
        store.close()
        handle.close()


def test_another_process_makes_up_for_one_that_died(valkey: Valkey, tmp_path: Path) -> None:
    """What was invalidated in an outage by a process that is gone is forgotten by the next one that sees Redis."""
    first, first_handle = redis_store(valkey.url, pending=tmp_path / "pending")
    second, second_handle = redis_store(valkey.url, pending=tmp_path / "pending")
    compute(first, "a", b"[1]", "tag")
    valkey.pause()
    second.get("a")
    assert not first.invalidate(["tag"])
    first_handle.close()
    valkey.resume()

    wait_for(lambda: not second._standby.away or second._standby.is_back(), 5, "Redis in use again")

    assert second.get("a") is None
    second_handle.close()


def test_pending_names_survive_damage(tmp_path: Path) -> None:
    """A file that cannot be read stands for everything; too many names do, too."""
    forgotten: list[Any] = []
    path = tmp_path / "pending"
    path.write_text("{broken")
    assert Pending(path).settle(forgotten.append)
    pending = Pending(path)
    pending.add(str(n) for n in range(10_002))
    pending.add(["one more"])
    assert pending.settle(forgotten.append)
    assert pending.settle(forgotten.append)

    assert forgotten == [None, None]


POISON = st.binary(max_size=400) | st.binary(max_size=80).map(lambda tail: b"FP2" + tail)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(poison=POISON, cut=st.integers(0, 60), flip=st.integers(0, 60))
def test_poison(redis_url: str, tmp_path: Path, poison: bytes, cut: int, flip: int) -> None:
    """Whatever bytes lie in Redis or in a file: a miss and a counter, nothing run, nothing raised (19, T32)."""
    good = pack("a", entry(b"[1, 2, 3]"))
    flip, cut = flip % len(good), cut % len(good)
    damaged = good[:flip] + bytes([good[flip] ^ 0x41]) + good[flip + 1 :]
    counted: list[int] = []
    store, handle = redis_store(redis_url)
    files = file_store(tmp_path / "cache")
    store._damaged = files._damaged = lambda: counted.append(1)
    for data in (poison, good[:cut], damaged):
        number = data.isdigit() or (data[:1] == b"-" and data[1:].isdigit())
        counted.clear()
        handle.ask("SET", handle.key("cache", "a"), data)
        files._path("a").write_bytes(data)

        assert number or (store.get("a"), store.get_many(["a"]), files.get("a")) == (None, [None], None)
        assert number or len(counted) == 3
    handle.close()
