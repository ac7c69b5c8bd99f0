"""Commands in one round trip, and locks, against a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from flask_prod.components.redis import RedisHandle, RedisSettings
from flask_prod.core.errors import Unavailable
from flask_prod.core.ports import NoMeter
from flask_prod.core.values import SecretUrl
from tests.apps import StartValkey
from tests.servers import Valkey


def handle_for(url: str) -> RedisHandle:
    return RedisHandle(RedisSettings(url=SecretUrl(url)), "shop:test", NoMeter(), lambda event: None)


@pytest.fixture
def handle(redis_url: str) -> Iterator[RedisHandle]:
    made = handle_for(redis_url)
    yield made
    made.close()


def test_words_of_every_kind(handle: RedisHandle) -> None:
    """Texts, bytes and numbers go as they are written."""
    for value, stored in (("ü", "ü".encode()), (b"\x00\r\n", b"\x00\r\n"), (7, b"7"), (0.5, b"0.5")):
        assert handle.ask("SET", "k", value, "PX", 5000) == b"OK"
        assert handle.ask("GET", "k") == stored
    assert 0 < handle.ask("PTTL", "k") <= 5000
    assert handle.ask("GET", "none") is None


def test_an_error_is_unavailable(handle: RedisHandle) -> None:
    """What the server refuses is a failure, and one of a single key opens nothing."""
    handle.ask("LPUSH", "list", 1)
    for _ in range(5):
        with pytest.raises(Unavailable):
            handle.ask("GET", "list")
        assert handle.ask("LLEN", "list") == 1
    assert not handle.degraded


def test_a_pipeline_keeps_errors_in_their_places(handle: RedisHandle) -> None:
    """One bad key costs nothing but its own answer."""
    handle.ask("LPUSH", "list", 1)
    answers = handle.pipeline([("SET", "a", 1), ("GET", "list"), ("INCR", "a"), ("GET", "none")])

    assert [answers[0], *answers[2:]] == [b"OK", 2, None]
    assert isinstance(answers[1], Exception)
    assert handle.pipeline([]) == []
    with pytest.raises(Unavailable):
        handle.pipeline([("GET", "list"), ("INCR", "list")])


@pytest.mark.alone
def test_a_request_of_many_commands_waits_once(valkey: Valkey) -> None:
    """With a frozen server ten commands in a row cost what one costs, and it is noticed within a second."""
    handle = handle_for(valkey.url)
    handle.start()
    valkey.pause()
    began = time.monotonic()
    for n in range(10):
        with pytest.raises(Unavailable):
            handle.ask("GET", n)
    assert time.monotonic() - began < 0.2

    while not handle.degraded and time.monotonic() < began + 2:
        with pytest.raises(Unavailable):
            handle.pipeline([("GET", "a")])
    assert time.monotonic() - began < 1
    valkey.resume()
    handle.close()


def test_refusals_in_pipelines_count(start_valkey: StartValkey) -> None:
    """A server that is out of memory is left alone, also when it is asked by pipelines only."""
    server = start_valkey(args=["--maxmemory", "1", "--maxmemory-policy", "noeviction"])
    handle = handle_for(server.url)
    for _ in range(3):
        handle.pipeline([("GET", "a"), ("SET", "a", 1)])

    assert handle.degraded
    handle.close()


def test_a_lock_has_one_owner(handle: RedisHandle, redis_url: str) -> None:
    """While one has it nobody else gets it; only the owner gives it back."""
    other = handle_for(redis_url)
    token = handle.lock("report", 5)
    assert token
    assert other.lock("report", 5) is None
    assert not other.unlock("report", "another")
    assert handle.unlock("report", token)
    assert not handle.unlock("report", token)
    assert other.lock("report", 5)
    other.close()


def test_a_lock_ends_and_can_be_prolonged(handle: RedisHandle) -> None:
    """A crashed owner blocks nobody for longer than it said; a living one may say so again."""
    token = handle.lock("report", 0.15) or ""
    assert handle.prolong("report", token, 0.4)
    time.sleep(0.2)
    assert handle.lock("report", 5) is None
    time.sleep(0.3)

    assert not handle.prolong("report", token, 5)
    assert handle.lock("report", 5)
    assert not handle.unlock("report", token)
