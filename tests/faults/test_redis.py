"""Limits and cache under load while Redis is killed, swallowed by the network, full, or slow."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest
import redis

from tests.apps import StartFaultProxy, StartGunicorn, StartValkey
from tests.servers import HOST, Answer, Gunicorn, Valkey, wait_for
from tests.traps.shops import samples

from .load import SHORT, Load, in_time, percentile, success

pytestmark = pytest.mark.faults

SECONDS = float(os.environ.get("FAULTS_SECONDS", "20"))
"""How long each state of a case lasts: as long without the fault, which is the yardstick, as with it."""

MODULE = "python:flask_prod.server.gunicorn_conf"
SHOP = """
import os

from flask import Flask

from flask_prod import ProdKit

prod = ProdKit()
app = Flask("shop")
prod.init_app(app)

@app.get("/")
@prod.limit("wide", "1000000/1h")
@prod.cache.cached(ttl="1s")
def home():
    return "home"

@app.get("/limited")
@prod.limit("wide", "1000000/1h")
def limited():
    return "limited"

@app.post("/login")
@prod.limit("login", "1000/1m", critical=True)
def login():
    return "in"
"""
WORKERS = 2
ENVIRON = {
    "WEB_CONCURRENCY": str(WORKERS),
    "WEB_THREADS": "8",
    "ENVIRONMENT": "production",
    "SECURITY_FORCE_HTTPS": "false",
    "LOG_OUTPUT": os.devnull,
}


class ServeShop(Protocol):
    """Serves the shop by two workers with a Redis at this port."""

    def __call__(self, port: int, **env: str) -> Gunicorn:
        """Serve it."""


@pytest.fixture
def serve(gunicorn: StartGunicorn) -> ServeShop:
    """Give a factory of servers."""

    def start(port: int, **env: str) -> Gunicorn:
        chosen = {"RATE_LIMIT_PUBLIC": "1000000", "REDIS_URL": f"redis://{HOST}:{port}/0", **env}
        return gunicorn("app:app", source=SHOP, config=MODULE, env={**ENVIRON, **chosen}, ready="/health/live")

    return start


def degraded(server: Gunicorn) -> float:
    """Return the gauge of degraded operation: the highest of all workers."""
    found = samples(server.get("/metrics").text)
    return max(
        value
        for (name, labels), value in found.items()
        if name == "flask_prod_degraded" and ("component", "redis") in labels
    )


@pytest.mark.alone
def test_t01_redis_is_killed(serve: ServeShop, valkey: Valkey) -> None:
    """kill -9 of Redis under load: 99.9 % succeed, and the slowest hundredth is at most 50 ms slower after 1 s."""
    server = serve(valkey.port)
    with Load(server) as load:
        time.sleep(1)  # caches and connections
        began = time.monotonic()
        time.sleep(3 if SHORT else SECONDS)
        killed = time.monotonic()
        valkey.kill()
        time.sleep(3 if SHORT else SECONDS)
        end = time.monotonic()

    before, after = load.between(began, killed), load.between(killed, end)
    assert success(after) >= 0.999
    late = load.between(killed + 1, end)
    assert percentile(late, 0.99) <= percentile(before, 0.99) + 0.05
    assert degraded(server) == 1


FAULTS = (
    "blackhole", "reset", "blackhole up", "blackhole down", "synhole", "refuse", "cut 0", "cut 3", "throttle 1",
    "latency 150",
)  # fmt: skip
"""Every way of the proxy to fail in which nothing useful arrives in time."""


@pytest.mark.alone
@pytest.mark.parametrize("fault", in_time(FAULTS))
def test_t02_the_network_fails(serve: ServeShop, valkey: Valkey, fault_proxy: StartFaultProxy, fault: str) -> None:
    """However the network fails: nobody waits 300 ms longer, once it is known the slowest hundredth waits 50 ms
    longer at most, throughput stays above 80 %, and three seconds after its return Redis is used again."""
    proxy = fault_proxy(valkey.port)
    server = serve(proxy.port)
    with Load(server) as load:
        time.sleep(1)
        marks = [time.monotonic()]
        for mode in ("pass", fault, "pass", fault):
            proxy.set(mode)
            time.sleep(SECONDS / 4 + (mode == "pass"))  # a second to find back to Redis
            marks.append(time.monotonic())
        assert degraded(server) == 1
        proxy.set("pass")
        wait_for(lambda: degraded(server) == 0, 3, "recovery")

    assert success(load.between(marks[0], marks[-1])) >= 0.999
    rounds = [slower(load, *marks[:3]), slower(load, *marks[2:])]
    # The machine is not ours alone: a fault of the kit's own is there in both rounds.
    assert not all(rounds), rounds


def slower(load: Load, began: float, broken: float, end: float) -> list[str]:
    """Return what the fault made slower than promised."""
    before, after = load.between(began, broken), load.between(broken, end)
    longest = percentile(after, 1) - percentile(before, 1)
    found = [f"longest request {longest:.3f} s longer"] if longest > 0.3 else []
    known = load.between(broken + 1, end)
    added = percentile(known, 0.99) - percentile(before, 0.99) if known else 0.0
    found += [f"p99 {added:.3f} s longer"] if added > 0.05 else []
    share = (len(after) / (end - broken)) / (len(before) / (broken - began))
    return found + ([f"throughput {share:.2f}"] if share < 0.8 else [])


def test_t02_corrupt_answers(serve: ServeShop, valkey: Valkey, fault_proxy: StartFaultProxy) -> None:
    """Answers of Redis with flipped bits never become a server error."""
    proxy = fault_proxy(valkey.port)
    server = serve(proxy.port)
    with Load(server, clients=4) as load:
        time.sleep(0.5)
        proxy.set("corrupt 0.2")
        time.sleep(SECONDS / 2)
        proxy.set("pass")
        time.sleep(2)

    assert {visit.status for visit in load.visits} <= {200, 429}
    wait_for(lambda: server.get("/").status == 200 and degraded(server) == 0, 5, "recovery")


BACKGROUND = ('"rq:queues"', '"CONFIG"', '"PING"', '"CLIENT"', ':log-level"')
"""What the kit asks beside requests, every few seconds or minutes."""


@contextlib.contextmanager
def monitored(valkey: Valkey) -> Iterator[list[str]]:
    """Collect the commands that clients send, without those that a script runs inside the server."""
    seen: list[str] = []
    with socket.create_connection((HOST, valkey.port), 5) as connection, connection.makefile("rb") as lines:
        connection.sendall(b"MONITOR\r\n")
        assert lines.readline() == b"+OK\r\n"

        def read() -> None:
            with contextlib.suppress(OSError, ValueError):
                for line in lines:
                    text = line.decode(errors="replace").strip()
                    if " lua]" not in text:
                        seen.append(text)

        thread = threading.Thread(target=read)
        thread.start()
        yield seen
        time.sleep(0.1)
        connection.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.alone
def test_t04_one_round_trip(serve: ServeShop, valkey: Valkey, fault_proxy: StartFaultProxy) -> None:
    """A request with two limits and their headers costs one round trip to Redis, also a slow one."""
    proxy = fault_proxy(valkey.port)
    server = serve(proxy.port)
    with redis.Redis(port=valkey.port) as client:
        # Each worker brings the script once, when it starts; the second may come later than the first answer.
        wait_for(lambda: client.info("commandstats").get("cmdstat_script|load", {}).get("calls") == WORKERS)
    for _ in range(4 * WORKERS):
        assert server.get("/limited").status == 200
    proxy.set("latency 50")

    count, taken = 40, []
    with monitored(valkey) as commands:
        for _ in range(count):
            began = time.monotonic()
            answer = server.get("/limited")
            taken.append(time.monotonic() - began)
            assert answer.status == 200
            assert answer.headers["RateLimit"].count(";r=") == 2

    asked = [command for command in commands if not any(word in command for word in BACKGROUND)]
    assert len(asked) <= count, [command for command in asked if '"EVALSHA"' not in command]
    assert 0.05 <= sorted(taken)[count // 2] < 0.1


@pytest.mark.parametrize("fault", ["full", "wrong type"])
def test_t06_redis_refuses(serve: ServeShop, start_valkey: StartValkey, fault: str) -> None:
    """A Redis that is out of memory, or has something else under every key, costs no request."""
    valkey = start_valkey()
    server = serve(valkey.port)
    assert server.get("/").status == 200
    client = redis.Redis(port=valkey.port)
    if fault == "full":
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")

    statuses = set()
    for _ in range(60):
        if fault == "wrong type":
            spoil(client)
        statuses |= {answer.status for answer in crowd(server, "/", 4)}

    assert statuses == {200}
    assert degraded(server) == 1
    client.close()


def spoil(client: redis.Redis) -> None:
    """Put a list in the place of everything."""
    for key in client.scan_iter():
        both = client.pipeline(transaction=True)
        both.delete(key)
        both.lpush(key, "x")
        both.execute()


def crowd(server: Gunicorn, path: str, count: int, client: str = "") -> list[Answer]:
    """Send requests by several clients at once, so that every worker has to serve."""
    headers = {"X-Forwarded-For": client} if client else {}
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: server.get(path, headers), range(count)))


def test_t08_redis_comes_back(serve: ServeShop, valkey: Valkey) -> None:
    """In an outage a client gets at most twice its quota; three seconds after it all workers count together."""
    quota = 40
    server = serve(valkey.port, RATE_LIMIT_PUBLIC=str(quota), TRUSTED_PROXIES="1")
    crowd(server, "/limited", 8, "192.0.2.1")

    valkey.kill()
    allowed, end = 0, time.monotonic() + 1.5 * SECONDS
    while time.monotonic() < end:
        allowed += sum(answer.status == 200 for answer in crowd(server, "/limited", 8, "192.0.2.2"))
        time.sleep(0.1)
    assert quota / 2 <= allowed <= 2 * quota

    valkey.start()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        crowd(server, "/limited", 4, "192.0.2.3")
        time.sleep(0.1)
    statuses = [answer.status for answer in crowd(server, "/limited", 3 * quota, "192.0.2.4")]
    assert statuses.count(200) == quota
    assert degraded(server) == 0


@pytest.mark.alone
def test_t09_critical_routes_close(serve: ServeShop, valkey: Valkey) -> None:
    """While Redis is away a critical route answers 503 with Retry-After, each time and at once."""
    server = serve(valkey.port)
    assert server.request("POST", "/login").status == 200
    valkey.kill()

    answers, taken = [], []
    for _ in range(400):
        began = time.monotonic()
        answers.append(server.request("POST", "/login"))
        taken.append(time.monotonic() - began)

    assert {answer.status for answer in answers} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
    assert sorted(taken)[int(0.99 * len(taken))] <= 0.05
    assert server.get("/").status == 200
