"""What others publish and change: heard, and when not, said so."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis import Redis as Client

from flask_prod.components.redis import RedisHandle, RedisSettings
from flask_prod.components.redis.listener import BOUND
from flask_prod.core.ports import NoMeter
from flask_prod.core.values import SecretUrl
from tests.apps import StartFaultProxy
from tests.servers import HOST, Valkey, free_port, wait_for


@dataclass
class Ear:
    """Keeps what was heard, and how often it was said that something was missed."""

    heard: list[bytes | None] = field(default_factory=list)
    lost: int = 0

    def hear(self, message: bytes | None) -> None:
        self.heard.append(message)

    def lose(self) -> None:
        self.lost += 1


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def make_handle() -> Iterator[Callable[[str], RedisHandle]]:
    handles: list[RedisHandle] = []

    def make(url: str) -> RedisHandle:
        handles.append(RedisHandle(RedisSettings(url=SecretUrl(url)), "shop:test", NoMeter(), lambda event: None))
        return handles[-1]

    yield make
    for handle in handles:
        handle.close()


MakeHandle = Callable[[str], RedisHandle]


def test_a_channel(make_handle: MakeHandle, redis_url: str, ear: Ear) -> None:
    """Messages of a channel arrive, those of others do not."""
    listener = make_handle(redis_url).listen("news", ear.hear, ear.lose)
    wait_for(lambda: listener.live, 3, "a listener")
    with Client.from_url(redis_url) as other:
        other.publish("olds", "0")
        other.publish("news", "1")
        other.publish("news", "2")
        wait_for(lambda: len(ear.heard) == 2, 3, "messages")

    assert ear.heard == [b"1", b"2"]
    assert ear.lost == 1  # what was published before it listened


def test_changes_of_keys(make_handle: MakeHandle, redis_url: str, ear: Ear) -> None:
    """Writes, deletions and expiry of keys under a prefix are heard, also our own; FLUSHALL is None."""
    handle = make_handle(redis_url)
    listener = handle.watch("shop:test:tag:", ear.hear, ear.lose)
    wait_for(lambda: listener.live, 3, "a listener")
    with Client.from_url(redis_url) as other:
        other.set("shop:test:other", "1")
        other.set("shop:test:tag:a", "1")
        wait_for(lambda: len(ear.heard) == 1, 3, "a write")
        other.delete("shop:test:tag:a")
        wait_for(lambda: len(ear.heard) == 2, 3, "a deletion")
        handle.ask("SET", "shop:test:tag:b", 1, "PX", 50)
        wait_for(lambda: len(ear.heard) == 4, 3, "a write and an end")
        other.flushall()
        wait_for(lambda: len(ear.heard) == 5, 3, "a flush")

    assert ear.heard == [b"shop:test:tag:a"] * 2 + [b"shop:test:tag:b"] * 2 + [None]


def test_silence_is_no_loss(make_handle: MakeHandle, redis_url: str, ear: Ear) -> None:
    """A channel on which nothing happens stays live: the listener asks whether anybody is there."""
    listener = make_handle(redis_url).listen("news", ear.hear, ear.lose)
    wait_for(lambda: listener.live, 3, "a listener")
    end = time.monotonic() + BOUND + 1
    while time.monotonic() < end:
        assert listener.live
        time.sleep(0.02)
    assert ear.lost == 1


def test_a_restart(make_handle: MakeHandle, valkey: Valkey, ear: Ear) -> None:
    """A server that goes away is a loss at once, and one more when the next connection is in place."""
    listener = make_handle(valkey.url).listen("news", ear.hear, ear.lose)
    wait_for(lambda: listener.live, 3, "a listener")
    valkey.kill()
    wait_for(lambda: not listener.live and ear.lost == 2, 0.5, "the loss")

    valkey.start()
    wait_for(lambda: listener.live, 3, "the listener's return")
    assert ear.lost == 3
    with Client.from_url(valkey.url) as other:
        other.publish("news", "again")
    wait_for(lambda: ear.heard == [b"again"], 3, "a message")


@pytest.mark.parametrize(
    "mode", ["blackhole", "blackhole down", "synhole", "refuse", "reset", "cut 3", "corrupt 1"]
)
def test_faults_of_the_network(
    make_handle: MakeHandle, valkey: Valkey, fault_proxy: StartFaultProxy, ear: Ear, mode: str
) -> None:
    """However the network fails, it is known within the bound, and the listener comes back by itself."""
    proxy = fault_proxy(valkey.port)
    listener = make_handle(f"redis://{HOST}:{proxy.port}/0").watch("t:", ear.hear, ear.lose)
    wait_for(lambda: listener.live, 3, "a listener")
    proxy.set(mode)
    with Client.from_url(valkey.url) as other:
        other.set("t:1", "1")  # a write that must be heard, or be counted as missed
    wait_for(lambda: ear.lost >= 2, BOUND + 1, "the loss")

    proxy.set("pass")
    wait_for(lambda: listener.live, 5, "the listener's return")
    with Client.from_url(valkey.url) as other:
        other.set("t:2", "1")
    wait_for(lambda: b"t:2" in ear.heard, 3, "a change")


def test_nobody_there_at_the_start(make_handle: MakeHandle, ear: Ear) -> None:
    """Without a server nothing is raised: the listener is deaf, says so, and ends when it is told to."""
    listener = make_handle(f"redis://{HOST}:{free_port()}/0").listen("news", ear.hear, ear.lose)
    time.sleep(0.2)
    assert not listener.live

    began = time.monotonic()
    listener.stop()
    assert time.monotonic() - began < 1


def test_a_function_that_raises(
    make_handle: MakeHandle, redis_url: str, ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of the listener's own function is logged, and the next message is heard."""

    def hear(message: bytes | None) -> Any:
        ear.hear(message)
        raise KeyError("mine")

    listener = make_handle(redis_url).listen("news", hear, ear.lose)
    wait_for(lambda: listener.live, 3, "a listener")
    with Client.from_url(redis_url) as other:
        other.publish("news", "1")
        other.publish("news", "2")
    wait_for(lambda: len(ear.heard) == 2, 3, "messages")
    assert "a listener's own function failed" in caplog.text


@pytest.mark.alone
def test_stopping_is_quick_and_silent(make_handle: MakeHandle, redis_url: str, ear: Ear) -> None:
    """Stopped, it ends without waiting for anything and calls nothing."""
    listener = make_handle(redis_url).listen("news", ear.hear, ear.lose)
    wait_for(lambda: listener.live, 3, "a listener")
    began = time.monotonic()
    listener.stop()

    assert time.monotonic() - began < 0.3
    assert not listener.live
    assert ear.lost == 1


def test_a_fork_leaves_the_parents_listener_alone(make_handle: MakeHandle, redis_url: str, ear: Ear) -> None:
    """A child that closes all it has does not end what its parent hears."""
    handle = make_handle(redis_url)
    listener = handle.listen("news", ear.hear, ear.lose)
    wait_for(lambda: listener.live, 3, "a listener")
    pid = os.fork()
    if pid == 0:
        try:
            handle.after_fork()
            handle.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    with Client.from_url(redis_url) as other:
        other.publish("news", "1")
    wait_for(lambda: ear.heard == [b"1"], 3, "a message")
    assert ear.lost == 1
