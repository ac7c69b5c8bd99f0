"""Limits while Redis is stopped, frozen, or talks nonsense."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_prod import ProdKit
from tests.apps import MakeApp, StartFaultProxy, StartValkey
from tests.servers import Valkey, free_port, wait_for

ONLY = ("redis", "ratelimit")


def shop(make_app: MakeApp, url: str, **config: Any) -> tuple[ProdKit, FlaskClient]:
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=url, **{"RATE_LIMIT_PUBLIC": 5, **config})
    app.add_url_rule("/", "index", ok)
    app.add_url_rule("/free", "free", prod.limiter.exempt(free))
    app.add_url_rule("/lib", "lib", prod.limiter.limit("2/minute")(lib))
    app.add_url_rule("/login", "login", prod.limiter.policy("auth", critical=True)(login))
    return prod, app.test_client()


def ok() -> str:
    return "ok"


def free() -> str:
    return "ok"


def lib() -> str:
    return "ok"


def login() -> str:
    return "ok"


def timed(client: FlaskClient, path: str = "/") -> tuple[int, float]:
    began = time.perf_counter()
    return client.get(path).status_code, time.perf_counter() - began


def test_nobody_on_the_port(make_app: MakeApp) -> None:
    """Requests are answered, limits still limit, exemptions hold, Flask-Limiter's decorators too."""
    _, client = shop(make_app, f"redis://127.0.0.1:{free_port()}/0")

    assert [client.get("/").status_code for _ in range(6)] == [200] * 5 + [429]
    assert [client.get("/free").status_code for _ in range(12)] == [200] * 12
    assert client.get("/").headers["X-RateLimit-Remaining"] == "0"


def test_decorators_fall_back_too(make_app: MakeApp) -> None:
    """A limit of Flask-Limiter goes on in the process, without its 500s and without its warnings per request."""
    _, client = shop(make_app, f"redis://127.0.0.1:{free_port()}/0", RATE_LIMIT_PUBLIC="")

    assert [client.get("/lib").status_code for _ in range(3)] == [200, 200, 429]
    assert [client.get("/free").status_code for _ in range(12)] == [200] * 12


def test_fallback_limits_of_the_library_spare_the_exempt(make_app: MakeApp) -> None:
    """RATELIMIT_IN_MEMORY_FALLBACK holds in an outage, and not for what is exempt."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    _, client = shop(make_app, url, RATE_LIMIT_PUBLIC="", RATELIMIT_IN_MEMORY_FALLBACK="1/minute")

    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    assert [client.get("/free").status_code for _ in range(5)] == [200] * 5


@pytest.mark.alone
def test_a_frozen_server_costs_300_ms_once(make_app: MakeApp, valkey: Valkey) -> None:
    """Each request is answered in less than a second, the first three pay, the rest nothing; then it recovers."""
    _, client = shop(make_app, valkey.url, RATE_LIMIT_PUBLIC=1000)
    baseline = min(timed(client)[1] for _ in range(5))
    valkey.pause()
    spent = [timed(client) for _ in range(20)]

    assert {code for code, _ in spent} == {200}
    assert max(seconds for _, seconds in spent) < baseline + 0.3
    assert sum(seconds for _, seconds in spent[3:]) < 0.3

    valkey.resume()
    handle = client.application.extensions["prod"].contributions["redis"].handle
    wait_for(lambda: client.get("/").status_code == 200 and not handle.degraded, 5.0, "recovery")


@pytest.mark.alone
def test_the_two_stores_cost_one_wait_in_one_request(make_app: MakeApp, valkey: Valkey) -> None:
    """A view under our limit and the library's waits at most 300 ms on a frozen server."""
    _, client = shop(make_app, valkey.url)
    client.get("/lib")
    valkey.pause()

    code, seconds = timed(client, "/lib")
    assert (code, seconds < 0.35) == (200, True), seconds


def test_limits_are_shared_again_after_the_outage(make_app: MakeApp, valkey: Valkey) -> None:
    """Within 5 s of its return Redis counts again."""
    _, client = shop(make_app, valkey.url, RATE_LIMIT_PUBLIC=1000)
    client.get("/")
    valkey.stop()
    for _ in range(10):
        assert client.get("/").status_code == 200
    valkey.start()

    def counted() -> bool:
        client.get("/")
        return valkey.command("EXISTS", "shop:test:limit:{127.0.0.1}:public") == b":1"

    wait_for(counted, 5.0, "a counter in Redis")


@pytest.mark.alone
def test_critical_views_fail_closed(make_app: MakeApp, valkey: Valkey) -> None:
    """Sign-in is refused rather than open while nobody can count; soon, with Retry-After, and only that view."""
    _, client = shop(make_app, valkey.url, RATE_LIMIT_PUBLIC=100)
    assert client.get("/login").status_code == 200
    valkey.stop()
    for _ in range(5):
        began = time.perf_counter()
        answer = client.get("/login")
        assert answer.status_code == 503
        assert answer.headers.getlist("Retry-After") == ["2"]
        assert time.perf_counter() - began < 0.05
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(("fail", "codes"), [("open", {200}), ("closed", {503}), ("local", {200, 429})])
def test_what_holds_in_an_outage_is_a_setting(make_app: MakeApp, fail: str, codes: set[int]) -> None:
    """RATE_LIMIT_FAIL says it for all limits, the library's included."""
    _, client = shop(make_app, f"redis://127.0.0.1:{free_port()}/0", RATE_LIMIT_FAIL=fail, RATE_LIMIT_PUBLIC=9)
    assert {client.get("/").status_code for _ in range(20)} == codes

    _, client = shop(make_app, f"redis://127.0.0.1:{free_port()}/0", RATE_LIMIT_FAIL=fail, RATE_LIMIT_PUBLIC="")
    assert {client.get("/lib").status_code for _ in range(20)} == codes


def test_a_policy_may_say_otherwise(make_app: MakeApp) -> None:
    """One policy fails closed by its rule while the others go on."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    app.add_url_rule("/otp", "otp", prod.limiter.policy("otp", "5/15m closed")(lambda: "ok"))
    app.add_url_rule("/news", "news", prod.limiter.policy("news", "1/15m open")(lambda: "ok"))
    client = app.test_client()

    assert client.get("/otp").status_code == 503
    assert [client.get("/news").status_code for _ in range(3)] == [200] * 3


def test_several_processes_divide_the_quota(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an outage each of four workers gives a quarter, so that all together give what Redis would."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    _, client = shop(make_app, f"redis://127.0.0.1:{free_port()}/0", RATE_LIMIT_PUBLIC=40)

    assert [client.get("/").status_code for _ in range(12)] == [200] * 10 + [429] * 2


@pytest.mark.alone
@pytest.mark.parametrize(
    "mode", ["blackhole", "blackhole down", "synhole", "reset", "cut 20", "corrupt 0.5", "throttle 1"]
)
def test_no_fault_of_the_network_fails_a_request(
    make_app: MakeApp, valkey: Valkey, fault_proxy: StartFaultProxy, mode: str
) -> None:
    """Whatever the network does to Redis, requests are answered by 200 or 429 in time, also decorated ones."""
    proxy = fault_proxy(valkey.port)
    _, client = shop(make_app, f"redis://127.0.0.1:{proxy.port}/0", RATE_LIMIT_PUBLIC=100_000)
    client.get("/")
    proxy.set(mode)
    spent = [timed(client, path) for _ in range(20) for path in ("/", "/lib")]

    assert {code for code, _ in spent} <= {200, 429}
    assert max(seconds for _, seconds in spent) < 0.5


def test_out_of_memory_and_wrong_types(make_app: MakeApp, start_valkey: StartValkey, valkey: Valkey) -> None:
    """A server that takes no writes, and one whose keys are all wrong, fail no request and show as degraded."""
    full = start_valkey(args=["--maxmemory", "1", "--maxmemory-policy", "noeviction"])
    _, client = shop(make_app, full.url, RATE_LIMIT_PUBLIC=3)
    assert [client.get("/").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert client.application.extensions["prod"].contributions["redis"].handle.degraded

    _, client = shop(make_app, valkey.url, RATE_LIMIT_PUBLIC=10)
    valkey.command("LPUSH", "shop:test:limit:{127.0.0.1}:public", "x")
    assert [client.get("/").status_code for _ in range(12)] == [200] * 10 + [429] * 2
    assert client.application.extensions["prod"].contributions["redis"].handle.degraded


@pytest.mark.alone
def test_threads_in_an_outage(make_app: MakeApp, valkey: Valkey) -> None:
    """Sixteen threads on a server that freezes under them: nobody fails, nobody waits much longer than before."""
    _, client = shop(make_app, valkey.url, RATE_LIMIT_PUBLIC=100_000)
    app = client.application
    calm: list[tuple[int, float]] = []
    seen: list[tuple[int, float]] = []
    frozen = threading.Event()
    end = time.monotonic() + 1.5

    def come() -> None:
        mine = app.test_client()
        while time.monotonic() < end:
            kept = seen if frozen.is_set() else calm
            kept.append(timed(mine))

    threads = [threading.Thread(target=come) for _ in range(16)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    frozen.set()
    valkey.pause()
    for thread in threads:
        thread.join()
    valkey.resume()

    assert {code for code, _ in (*calm, *seen)} == {200}
    waits = sorted(seconds for _, seconds in seen)
    # Sixteen busy threads wait for one another too, and for whoever else uses the machine.
    others = 5 * max(seconds for _, seconds in calm)
    assert waits[int(len(waits) * 0.99)] < 0.6 + others
    assert waits[-1] < 2 + others
