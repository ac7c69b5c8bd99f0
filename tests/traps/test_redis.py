"""Traps of a Redis that is away, hangs, or comes back."""

from __future__ import annotations

import contextlib
import time

import pytest
import redis

from tests.servers import HttpSink, Valkey, wait_for

from .conftest import OpenShop, Reported
from .shops import Samples, Shop

FALLBACK = {"in_memory_fallback_enabled": True}
"""What Flask-Limiter's chapter about outages recommends."""


def page(shop: Shop) -> None:
    """Give the shop a page that is limited and cached."""
    shop.app.add_url_rule("/", "home", shop.cache.cached(timeout=60)(lambda: "home"))


def timed(shop: Shop) -> tuple[int, float]:
    """Visit the page; return the status and the seconds it took."""
    began = time.monotonic()
    return shop.visit("/").status_code, time.monotonic() - began


@pytest.mark.trap("while Redis is down every request is a 500")
def test_trap_09_redis_is_down(open_shop: OpenShop, closed_redis: str) -> None:
    """Without Redis the service serves, answers probes, and still limits."""
    shop = open_shop(redis_url=closed_redis, limit=2)
    shop.app.add_url_rule("/", "home", lambda: "home")

    first = shop.visit("/").status_code
    assert first == 200, f"GET / was answered {first}"
    assert shop.visit("/healthz").status_code == 200
    assert shop.statuses(2) == [200, 429]
    wait_for(lambda: shop.visit("/healthz").text == "degraded", 5, "health's word for it")


@pytest.mark.alone
@pytest.mark.trap("while Redis hangs every request waits for many seconds, with the limiter's fallback on too")
def test_trap_10_redis_hangs(open_shop: OpenShop, valkey: Valkey) -> None:
    """A Redis that does not answer costs the first request less than a second, and the next ones nothing."""
    shop = open_shop(redis_url=valkey.url, limit=100, by_hand={"limiter": FALLBACK})
    page(shop)
    assert shop.visit("/").status_code == 200

    valkey.pause()
    try:
        for _ in range(4):
            status, seconds = timed(shop)
            assert status == 200
            assert seconds < 1, f"the page took {seconds:.0f} s"
        assert timed(shop)[1] < 0.1
    finally:
        valkey.resume()


@pytest.mark.trap(
    "in an outage the limiter's fallback limits exempt endpoints too: probes get 429, pods are killed"
)
def test_trap_11_exemptions_hold(open_shop: OpenShop, closed_redis: str) -> None:
    """Probes, scrapes and what the user exempted are exempt in an outage as well."""
    by_hand = {"limiter": {"in_memory_fallback": ["5 per minute"]}, "metrics": "plain"}
    shop = open_shop(redis_url=closed_redis, limit=5, by_hand=by_hand)
    shop.app.add_url_rule("/", "home", lambda: "home")
    shop.app.add_url_rule("/free", "free", shop.limiter.exempt(lambda: "free"))
    assert shop.visit("/").status_code == 200

    for path in ("/healthz", "/metrics", "/free"):
        statuses = shop.statuses(10, path)
        assert set(statuses) == {200}, f"{path} was answered 429 after {statuses.index(429)} times"


@pytest.mark.trap("swallow_errors=True, the maintainer's advice, means no limit at all in an outage")
def test_trap_51_sign_in_during_an_outage(open_shop: OpenShop, closed_redis: str) -> None:
    """Passwords cannot be tried without end because Redis is away."""
    shop = open_shop(redis_url=closed_redis, by_hand={"limiter": {"swallow_errors": True}})
    guarded = shop.limiter.limit("5/minute")(lambda: "wrong password")
    shop.app.add_url_rule("/login", "login", guarded, methods=["POST"])

    statuses = shop.statuses(20, "/login", method="POST")

    assert statuses == [200] * 5 + [429] * 15, f"{statuses.count(200)} of 20 attempts passed a limit of 5"


@pytest.mark.trap("a Redis outage sends several events per request to Sentry, until the quota is gone")
def test_trap_37_one_report_per_outage(
    open_shop: OpenShop, closed_redis: str, http_sink: HttpSink, reported: Reported
) -> None:
    """An outage is one report, not one per request."""
    by_hand = {"limiter": {"swallow_errors": True}}
    shop = open_shop(redis_url=closed_redis, limit=100, sentry_dsn=http_sink.dsn, by_hand=by_hand)
    page(shop)

    assert shop.statuses(20) == [200] * 20

    events = len(reported(at_least=1))
    assert 1 <= events <= 2, f"20 requests sent {events} events"


def degraded(found: Samples) -> float | None:
    """Return what the gauge of degraded operation says, None where there is none."""
    values = [
        value for (name, labels), value in found.items() if "degraded" in name and ("component", "redis") in labels
    ]
    return max(values, default=None)


@pytest.mark.trap("after an outage limits stay in the process for an unknown time, and no metric says so")
def test_trap_66_recovery(open_shop: OpenShop, valkey: Valkey) -> None:
    """A gauge tells of the outage; limits are shared again less than five seconds after Redis is back."""
    by_hand = {"limiter": FALLBACK, "metrics": "plain"}
    shop = open_shop(redis_url=valkey.url, limit=10_000, by_hand=by_hand)
    shop.app.add_url_rule("/", "home", lambda: "home")
    assert shop.visit("/").status_code == 200
    before = degraded(shop.scrape())

    valkey.kill()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert shop.visit("/").status_code == 200
        time.sleep(0.05)
    during = degraded(shop.scrape())
    valkey.start()
    seconds = until_shared(shop, valkey)

    assert seconds < 5, f"limits were shared again after {seconds:.0f} s"
    states = (before, during, degraded(shop.scrape()))
    assert states == (0, 1, 0), "no metric says that limits are degraded" if states[1] is None else f"{states}"


def until_shared(shop: Shop, valkey: Valkey) -> float:
    """Return the seconds, 10 at most, until a request leaves something in an empty Redis."""
    began = time.monotonic()
    with redis.Redis.from_url(valkey.url) as client:
        while time.monotonic() - began < 10:
            assert shop.visit("/").status_code == 200
            if any(b"imit" in key.lower() for key in client.scan_iter()):
                break
            time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.trap("nothing: this works by hand and has to go on working")
def test_trap_65_failover(open_shop: OpenShop, valkey: Valkey) -> None:
    """A Redis that was restarted between two requests is noticed by nobody, and limits go on."""
    shop = open_shop(redis_url=valkey.url, limit=5)
    page(shop)
    assert shop.visit("/").status_code == 200

    valkey.stop()
    valkey.start()
    assert shop.visit("/").status_code == 200

    with contextlib.suppress(ValueError):
        assert shop.statuses(8).index(429) <= 5
        return
    pytest.fail("no limit after the restart")
