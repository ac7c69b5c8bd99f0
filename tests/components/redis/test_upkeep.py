"""What is done in the background: connections counted, the server's set-up looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask

from flask_prod.components.redis import RedisHandle
from flask_prod.core.component import Finding
from flask_prod.core.errors import Unavailable
from tests.apps import MakeApp, StartValkey
from tests.servers import Valkey

Look = Callable[..., Finding]


def handle_of(app: Flask) -> RedisHandle:
    handle: RedisHandle = app.extensions["prod"].contributions["redis"].handle
    return handle


@pytest.fixture
def look(make_app: MakeApp) -> Look:
    """Give what health says after one round in the background."""

    def look(server: Valkey, **config: Any) -> Finding:
        app = make_app(only=("redis",), **{"ENVIRONMENT": "production", "REDIS_URL": server.url, **config})
        contribution = app.extensions["prod"].contributions["redis"]
        contribution.periodic[0].call()
        finding = contribution.checks[0].probe()
        assert isinstance(finding, Finding)
        return finding

    return look


def test_jobs_on_a_server_that_forgets(look: Look, start_valkey: StartValkey) -> None:
    """Eviction and the lack of persistence are warned about, with what was found, and fail nothing."""
    server = start_valkey(args=["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"])
    server.command("SADD", "rq:queues", "rq:queue:default")
    finding = look(server)

    assert finding.status == "warn"
    assert "maxmemory-policy allkeys-lru" in finding.detail
    assert "appendonly no" in finding.detail
    assert finding.data == {"maxmemory": 50 * 1024**2, "policy": "allkeys-lru", "aof": False, "rdb": False}
    assert look(server, ENVIRONMENT="test").status == "ok"


def test_jobs_on_a_server_that_keeps(look: Look, start_valkey: StartValkey) -> None:
    """A server with an append-only file that drops nothing is well."""
    server = start_valkey(aof=True)
    server.command("SADD", "rq:queues", "rq:queue:default")
    finding = look(server)

    assert (finding.status, finding.detail) == ("ok", "")
    assert finding.data["aof"] is True


def test_a_server_without_jobs(look: Look, valkey: Valkey) -> None:
    """What only the cache and the limits use may forget."""
    assert look(valkey) == Finding()


@pytest.mark.parametrize(("forbidden", "status"), [("-config", "warn"), ("-config -info", "ok")])
def test_a_managed_server(look: Look, start_valkey: StartValkey, forbidden: str, status: str) -> None:
    """Where CONFIG is forbidden INFO answers; where that is forbidden too nothing is said."""
    server = start_valkey(args=["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"])
    server.command("SADD", "rq:queues", "rq:queue:default")
    server.command("ACL", "SETUSER", "default", *forbidden.split())

    assert look(server).status == status


def test_it_is_told_once(make_app: MakeApp, valkey: Valkey, capfd: pytest.CaptureFixture[str]) -> None:
    """One log line says that jobs are at risk, however often it is looked at."""
    valkey.command("SADD", "rq:queues", "rq:queue:default")
    handle = handle_of(make_app(only=("redis", "logs"), REDIS_URL=valkey.url))
    for _ in range(3):
        handle.upkeep._review_at = 0.0
        handle.keep()

    assert capfd.readouterr().out.count("keeps nothing over a restart") == 1


@pytest.mark.alone
def test_away_nothing_is_asked(make_app: MakeApp, valkey: Valkey) -> None:
    """While the server is left alone the background leaves it alone too."""
    handle = handle_of(make_app(only=("redis",), REDIS_URL=valkey.url))
    valkey.pause()
    handle.breaker.trip()
    began = time.monotonic()
    handle.keep()
    assert time.monotonic() - began < 0.1
    valkey.resume()


def test_connections_in_metrics(make_app: MakeApp, redis_url: str) -> None:
    """Used, idle, most; who waited for a connection, and who in vain: without a word about an outage."""
    app = make_app(only=("redis", "metrics"), REDIS_URL=redis_url, REDIS_POOL_SIZE=2)
    handle = handle_of(app)
    handle.ask("GET", "a")
    handle.ask("GET", "a")
    pool = handle.client().connection_pool
    held = [pool.get_connection(), pool.get_connection()]
    for _ in range(4):
        with pytest.raises(Unavailable):
            handle.ask("GET", "a")
    assert not handle.degraded
    pool.release(held.pop())
    handle.keep()
    pool.release(held.pop())

    text = app.test_client().get("/metrics").text
    for line in (
        'flask_prod_redis_connections{purpose="request",state="used"} 1.0',
        'flask_prod_redis_connections{purpose="request",state="idle"} 1.0',
        'flask_prod_redis_connections{purpose="request",state="max"} 2.0',
        'flask_prod_redis_pool_waits_total{purpose="request"} 4.0',
        'flask_prod_redis_pool_timeouts_total{purpose="request"} 4.0',
        'flask_prod_redis_failures_total{error="NoneFree"} 4.0',
        'flask_prod_redis_seconds_count{command="GET"} 2.0',
    ):
        assert line in text, text


def test_a_pool_that_is_too_small_serves_all(make_app: MakeApp, redis_url: str) -> None:
    """Threads that wait for a connection get one in time, and the breaker stays closed."""
    handle = handle_of(make_app(only=("redis",), REDIS_URL=redis_url, REDIS_POOL_SIZE=1, REDIS_CONNECT_TIMEOUT=5))
    failed: list[Exception] = []

    def come() -> None:
        for _ in range(100):
            try:
                handle.ask("GET", "a")
            except Unavailable as error:
                failed.append(error)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert isinstance(handle.client(), redis.Redis)
    assert not handle.degraded


def test_one_process_tells(make_app: MakeApp, redis_url: str, tmp_path: Path) -> None:
    """What every process of a host sees of the server, one of them says."""
    told: list[str] = []
    apps = [make_app(only=("redis", "logs"), REDIS_URL=redis_url, RUN_DIR=str(tmp_path / "run")) for _ in range(2)]
    for app in apps:
        handle = app.extensions["prod"].contributions["redis"].handle
        handle.upkeep._emit = lambda event: told.append(event.name)
        handle.client("jobs")
        handle.keep()

    assert told == ["prod.redis.jobs_at_risk"]
