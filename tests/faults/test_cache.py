"""The cache under load while the network swallows its Redis: nobody waits long, and nothing old comes back."""

from __future__ import annotations

import os
import time

import pytest

from tests.apps import StartFaultProxy, StartGunicorn
from tests.servers import HOST, Gunicorn, Valkey, wait_for

from .load import Load, in_time, percentile, success

pytestmark = pytest.mark.faults

SECONDS = float(os.environ.get("FAULTS_SECONDS", "20"))
"""How long each state of a case lasts: as long without the fault, which is the yardstick, as with it."""

SHOP = """
import time
from pathlib import Path

from flask import Flask

from flask_prod import ProdKit

prod = ProdKit()
app = Flask("shop")
prod.init_app(app)
PRICE = Path(__file__).with_name("price")

@prod.cache.cached(ttl="1m", tags=["prices", "price:{number}"])
def price(number):
    time.sleep(0.005)
    return PRICE.read_text() if PRICE.exists() else "0"

@app.get("/")
def home():
    return "".join(price(number) for number in range(5))

@app.post("/price/<value>")
def change(value):
    PRICE.write_text(value)
    return str(prod.cache.invalidate("prices"))
"""
ENVIRON = {
    "WEB_CONCURRENCY": "2",
    "WEB_THREADS": "8",
    "ENVIRONMENT": "production",
    "SECURITY_FORCE_HTTPS": "false",
    "LOG_OUTPUT": os.devnull,
    "RATE_LIMIT_ENABLED": "false",
}


def serve(gunicorn: StartGunicorn, port: int, backend: str) -> Gunicorn:
    """Serve the shop by two workers."""
    env = {**ENVIRON, "REDIS_URL": f"redis://{HOST}:{port}/0", "CACHE_BACKEND": backend}
    config = "python:flask_prod.server.gunicorn_conf"
    return gunicorn("app:app", source=SHOP, config=config, env=env, ready="/health/live")


@pytest.mark.alone
@pytest.mark.parametrize("backend", in_time(["tiered", "redis"]))
def test_t02_redis_is_swallowed(
    gunicorn: StartGunicorn, valkey: Valkey, fault_proxy: StartFaultProxy, backend: str
) -> None:
    """Success stays at 99.9 %, no request takes 300 ms longer, throughput stays above 80 %; 3 s after its return
    Redis is used again, and what was invalidated meanwhile is not served by anybody."""
    proxy = fault_proxy(valkey.port)
    server = serve(gunicorn, proxy.port, backend)
    with Load(server) as load:
        time.sleep(1)
        marks = [time.monotonic()]
        for mode in ("pass", "blackhole", "pass", "blackhole"):
            proxy.set(mode)
            time.sleep(SECONDS / 4 + (mode == "pass"))
            marks.append(time.monotonic())
        assert server.request("POST", "/price/7").text == "False"
        assert {server.get("/").text for _ in range(20)} == {"77777"}
        proxy.set("pass")
        back = time.monotonic()
        wait_for(lambda: 'component="redis"} 0' in server.get("/metrics").text, 3, "recovery")
        while time.monotonic() < back + 3:
            assert server.get("/").text == "77777"
        wait_for(lambda: server.request("POST", "/price/8").text == "True", 3, "an invalidation in Redis")
        assert {server.get("/").text for _ in range(20)} == {"88888"}

    assert success(load.visits) >= 0.999
    rounds = [slower(load, *marks[:3]), slower(load, *marks[2:])]
    # The machine is not ours alone: a fault of the kit's own is there in both rounds.
    assert not all(rounds), rounds


def slower(load: Load, began: float, fault: float, end: float) -> list[str]:
    """Say what the fault did to the requests that began after it."""
    before, after = load.between(began, fault), load.between(fault, end)
    late = load.between(fault + 0.5, end)
    worst = max(visit.seconds for visit in after) - max(visit.seconds for visit in before)
    share = len(after) / (end - fault) * (fault - began) / len(before)
    found = [f"the slowest request took {worst:.3f} s longer"] if worst > 0.3 else []
    found += [f"only {share:.0%} of the throughput were left"] if share < 0.8 else []
    added = percentile(late, 0.99) - percentile(before, 0.99)
    return found + ([f"the slowest hundredth took {added:.3f} s longer"] if added > 0.05 else [])
