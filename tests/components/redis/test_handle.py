"""Calls to Redis against a real server that stops, freezes, refuses and comes back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis import Redis as Client

from flask_prod.components.redis import RedisHandle, RedisSettings
from flask_prod.core.component import Event
from flask_prod.core.errors import NotInstalled, Unavailable
from flask_prod.core.ports import GaugePort, NoMeter
from flask_prod.core.values import SecretUrl
from tests.apps import MakeApp, StartFaultProxy, StartValkey
from tests.servers import Valkey, free_port, wait_for


class Witness(NoMeter):
    """Keeps the values of the gauge of degraded operation, and the events."""

    def __init__(self) -> None:
        self.degraded: list[float] = []
        self.events: list[Event] = []

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> GaugePort:
        return self if name == "flask_prod_degraded" else super().gauge(name, documentation, labels)

    def set(self, value: float, *labels: str) -> None:
        assert labels == ("redis",)
        self.degraded.append(value)


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def make_handle(witness: Witness) -> Any:
    handles: list[RedisHandle] = []

    def make(url: str, **settings: Any) -> RedisHandle:
        handle = RedisHandle(
            RedisSettings(url=SecretUrl(url), **settings), "shop:test", witness, witness.events.append
        )
        handles.append(handle)
        return handle

    yield make
    for handle in handles:
        handle.close()


MakeHandle = Callable[..., RedisHandle]


def get(handle: RedisHandle) -> tuple[float, bool]:
    """Return how long one read took and whether it was answered."""
    began = time.perf_counter()
    try:
        handle.attempt(lambda client: client.get("x"))
    except Unavailable:
        return time.perf_counter() - began, False
    return time.perf_counter() - began, True


@pytest.mark.alone
def test_a_frozen_server_costs_little_and_only_at_first(
    make_handle: MakeHandle, valkey: Valkey, witness: Witness
) -> None:
    """The first three calls wait 100 ms each, the next ones not at all; when it is back, so are we within 3 s."""
    handle = make_handle(valkey.url)
    assert get(handle)[1]
    valkey.pause()

    first = [get(handle) for _ in range(3)]
    later = [get(handle) for _ in range(50)]

    assert all(not answered and seconds < 0.3 for seconds, answered in first)
    assert min(seconds for seconds, _ in first) < 0.19  # a timeout is not tried again
    assert sum(seconds for seconds, _ in later) < 0.3
    assert handle.degraded
    assert witness.degraded[-1] == 1.0

    valkey.resume()
    wait_for(lambda: get(handle)[1], 3.0, "recovery")
    assert witness.degraded[-1] == 0.0
    assert [event.name for event in witness.events] == ["prod.redis.degraded", "prod.redis.recovered"]


def test_a_pause_that_many_threads_meet_is_no_outage(
    make_handle: MakeHandle, valkey: Valkey, witness: Witness
) -> None:
    """A server that stands still for 150 ms, as on a machine with too much to do, opens nothing for 16 threads."""
    handle = make_handle(valkey.url)
    stop = threading.Event()

    def come() -> None:
        while not stop.is_set():
            get(handle)

    threads = [threading.Thread(target=come) for _ in range(16)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    valkey.pause()
    time.sleep(0.15)
    valkey.resume()
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()

    assert not handle.degraded
    assert not witness.events


def test_a_restart_between_two_calls_is_not_noticed(make_handle: MakeHandle, valkey: Valkey) -> None:
    """Pooled connections that died are replaced without an error."""
    handle = make_handle(valkey.url)
    assert get(handle)[1]
    valkey.stop()
    valkey.start()

    assert all(get(handle)[1] for _ in range(3))


@pytest.mark.alone
def test_nobody_there_at_the_start(make_handle: MakeHandle, witness: Witness) -> None:
    """Starting without a server takes less than 300 ms, and requests find the breaker open already."""
    handle = make_handle(f"redis://127.0.0.1:{free_port()}/0")
    began = time.perf_counter()
    handle.start()

    assert time.perf_counter() - began < 0.3
    assert handle.degraded
    assert get(handle)[0] < 0.01
    assert [event.name for event in witness.events] == ["prod.redis.degraded"]


@pytest.mark.alone
@pytest.mark.parametrize(
    "mode",
    [
        "blackhole",
        "blackhole up",
        "blackhole down",
        "synhole",
        "refuse",
        "reset",
        "cut 0",
        "cut 3",
        "corrupt 1",
        "throttle 1",
        "latency 150",
    ],
)
def test_every_fault_of_the_network_is_survived(
    make_handle: MakeHandle, valkey: Valkey, fault_proxy: StartFaultProxy, mode: str, witness: Witness
) -> None:
    """No fault escapes as another exception, none takes long, and each ends when the network is well again."""
    proxy = fault_proxy(valkey.port)
    handle = make_handle(f"redis://127.0.0.1:{proxy.port}/0")
    assert get(handle)[1]
    proxy.set(mode)

    spent = [get(handle)[0] for _ in range(30)]
    assert max(spent) < 0.45, spent
    assert sum(spent) < 1.5, spent

    proxy.set("pass")
    wait_for(lambda: get(handle)[1], 4.0, "recovery")
    wait_for(lambda: not handle.degraded or not get(handle)[1], 4.0, "a closed breaker")
    assert len(witness.events) <= 2


def test_out_of_memory_is_an_outage_for_writers(
    make_handle: MakeHandle, start_valkey: StartValkey, witness: Witness
) -> None:
    """A server that refuses writes is left alone although it answers reads, until it takes writes again."""
    server = start_valkey(args=["--maxmemory", "1", "--maxmemory-policy", "noeviction"])
    handle = make_handle(server.url)
    for _ in range(3):
        with pytest.raises(Unavailable):
            handle.attempt(lambda client: client.set("x", 1))
        get(handle)
    assert handle.degraded

    time.sleep(1.3)
    get(handle)
    assert handle.degraded
    assert witness.degraded == [1.0]

    server.command("CONFIG", "SET", "maxmemory", "0")
    wait_for(lambda: get(handle)[1] and not handle.degraded, 3.0, "recovery")


def test_a_key_of_the_wrong_type_fails_its_own_call_alone(make_handle: MakeHandle, valkey: Valkey) -> None:
    """One bad key does not take Redis away from the others; nothing but bad keys does."""
    handle = make_handle(valkey.url)
    handle.client().lpush("bad", "1")
    for _ in range(10):
        with pytest.raises(Unavailable):
            handle.attempt(lambda client: client.get("bad"))
        assert get(handle)[1]
    assert not handle.degraded

    for _ in range(3):
        with pytest.raises(Unavailable):
            handle.attempt(lambda client: client.get("bad"))
    assert handle.degraded


def test_many_errors_are_shown(
    make_handle: MakeHandle, valkey: Valkey, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten answers in ten seconds that are errors are told of, although Redis is used for what works."""
    monkeypatch.setattr("flask_prod.components.redis.outage._WINDOW", 1.0)
    handle = make_handle(valkey.url)
    handle.client().lpush("bad", "1")
    for number in range(12):
        assert witness.degraded == ([1.0] if number >= 10 else [])
        with pytest.raises(Unavailable):
            handle.attempt(lambda client: client.get("bad"))
        assert get(handle)[1]
    assert not handle.degraded
    assert "answers with errors (ResponseError)" in witness.events[0].message

    handle.keep()
    assert witness.degraded == [1.0]
    time.sleep(1.1)
    handle.keep()
    assert witness.degraded == [1.0, 0.0]
    assert [event.name for event in witness.events] == ["prod.redis.degraded", "prod.redis.recovered"]


def test_a_flapping_server_tells_twice_a_minute_at_most(make_handle: MakeHandle, witness: Witness) -> None:
    """The gauge follows every change; the log does not."""
    handle = make_handle(f"redis://127.0.0.1:{free_port()}/0")
    for _ in range(5):
        handle.breaker.trip()
        handle.breaker._next_probe = 0.0
        assert handle.breaker.admit()
        handle.breaker.end_probe(True)

    assert witness.degraded == [1.0, 0.0] * 5
    assert [event.name for event in witness.events] == ["prod.redis.degraded", "prod.redis.recovered"]


def test_an_exception_of_the_caller_is_the_callers(make_handle: MakeHandle, redis_url: str) -> None:
    """What a call raises for reasons of its own passes through and says nothing about Redis."""
    handle = make_handle(redis_url)

    def broken(_: Client) -> None:
        raise KeyError("mine")

    for _ in range(5):
        with pytest.raises(KeyError):
            handle.attempt(broken)
    assert not handle.degraded


def test_keys_carry_service_and_environment(make_handle: MakeHandle) -> None:
    """Two services on one server cannot meet."""
    assert make_handle("").key("limit", "a") == "shop:test:limit:a"


def test_without_an_address_there_is_no_client(make_app: MakeApp) -> None:
    """No REDIS_URL: not configured, no check, and advice for who asks for a client."""
    room = make_app(only=("redis",)).extensions["prod"].contributions["redis"]

    assert not room.handle.configured
    assert room.checks == ()
    with pytest.raises(NotInstalled, match="REDIS_URL"):
        room.handle.client()


def test_the_check_tells_an_outage(make_app: MakeApp, valkey: Valkey) -> None:
    """Health sees what requests see, and an outage of Redis is not critical."""
    check = make_app(only=("redis",), REDIS_URL=valkey.url).extensions["prod"].contributions["redis"].checks[0]
    assert (check.name, check.critical, check.probe().status) == ("redis", False, "ok")

    valkey.stop()
    assert check.probe().status == "fail"


def test_purposes_wait_as_long_as_they_may(make_handle: MakeHandle) -> None:
    """Requests give up soon, jobs after seconds, blocking calls never."""
    handle = make_handle("redis://127.0.0.1:1/0")
    limits = {
        purpose: (options["socket_connect_timeout"], options["socket_timeout"], options["retry"].get_retries())
        for purpose in ("request", "jobs", "blocking")
        for options in [handle.client(purpose).get_connection_kwargs()]
    }

    assert limits == {"request": (0.1, 0.1, 1), "jobs": (0.2, 3.0, 0), "blocking": (5.0, None, 10)}
    with pytest.raises(ValueError, match="no Redis client for 'other'"):
        handle.client("other")


def test_a_forked_child_has_connections_of_its_own(make_app: MakeApp, redis_url: str) -> None:
    """Parent and child talk at once without mixing answers, and the child's end closes nothing of the parent."""
    handle = make_app(only=("redis",), REDIS_URL=redis_url).extensions["prod"].contributions["redis"].handle
    client = handle.client()
    before = client.client_id()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            mine = client.client_id()
            right = all(
                handle.attempt(lambda c, n=n: c.echo(f"child{n}")) == f"child{n}".encode() for n in range(200)
            )
            code = 0 if right and mine != before else 1
        finally:
            os._exit(code)
    answers = [handle.attempt(lambda c, n=n: c.echo(f"parent{n}")) for n in range(200)]
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert answers == [f"parent{n}".encode() for n in range(200)]
    assert client.client_id() == before


def test_closing_leaves_no_connection(make_handle: MakeHandle, valkey: Valkey) -> None:
    """After close the server sees nobody but the one who asks."""
    handle = make_handle(valkey.url)
    threads = [threading.Thread(target=get, args=(handle,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handle.close()

    with Client.from_url(valkey.url) as other:
        wait_for(lambda: len(other.client_list()) == 1, 2.0, "closed connections")
