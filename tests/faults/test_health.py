"""Probes while Redis and the database are swallowed by the network, hang, or have no connection left."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.servers import FaultProxy, Gunicorn, Postgres, Valkey, wait_for
from tests.traps.shops import samples

from .load import Load, percentile

pytestmark = pytest.mark.faults

SECONDS = float(os.environ.get("FAULTS_SECONDS", "20"))
TOKEN = "a-long-token-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
MODULE = "python:flask_prod.server.gunicorn_conf"
SHOP = """
import os
import threading
import time

from flask import Flask
from sqlalchemy import text

from flask_prod import ProdKit

prod = ProdKit()
app = Flask("shop")
prod.init_app(app)
taken = []


def called(name):
    with open(os.environ["CALLS"] + "." + name, "a") as file:
        file.write(f"{time.monotonic():.2f}\\n")


def count(name):
    for contribution in app.extensions["prod"].contributions.values():
        for check in contribution.checks:
            if check.name == name:
                object.__setattr__(check, "probe", counted(name, check.probe))


def counted(name, probe):
    def ask():
        called(name)
        return probe()
    return ask


for name in ("database", "redis"):
    count(name)


@prod.health.check("broken", critical=False, interval="1s", timeout="300ms")
def broken():
    called("broken")
    if os.path.exists(os.environ["CALLS"] + ".break"):
        return object()


@prod.health.check("hangs", critical=False, interval="1s", timeout="300ms")
def hangs():
    if os.path.exists(os.environ["CALLS"] + ".break"):
        time.sleep(3600)


@app.get("/row")
def row():
    return str(prod.db.session.execute(text("SELECT 1")).scalar())


@app.get("/exhaust")
def exhaust():
    try:
        while len(taken) < 4:
            taken.append(prod.db.engine.connect())
    finally:
        return "taken"


@app.get("/release")
def release():
    while taken:
        taken.pop().close()
    return "released"
"""


class Shop:
    """The shop by two workers, with a proxy in front of each of its servers."""

    def __init__(self, server: Gunicorn, redis: FaultProxy, database: FaultProxy, calls: Path) -> None:
        self.server = server
        self.redis = redis
        self.database = database
        self.calls = calls
        self.log = server.folder / "log"

    def status(self, *names: str) -> set[str]:
        """Return what all of these checks are in the worker that happens to answer."""
        checks = self.server.get("/health", BEARER).json["checks"]
        return {checks[name]["status"] for name in names}

    def everywhere(self, status: str, *names: str) -> bool:
        """Tell whether ten answers in a row, by whichever worker, have these checks in this status."""
        return all(self.status(*names) == {status} for _ in range(10))

    def gauge(self, check: str) -> float:
        """Return the gauge of a check."""
        found = samples(self.server.get("/metrics").text)
        return max(
            value
            for (name, labels), value in found.items()
            if name == "flask_prod_health_check_state" and ("check", check) in labels
        )

    def lines(self, check: str) -> list[dict[str, Any]]:
        """Return the log lines about changes of a check."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [
            line
            for line in lines
            if str(line.get("event")).startswith("prod.health.") and f"{check}: " in line["fields"]["changes"]
        ]

    def most_calls(self, name: str, since: float) -> int:
        """Return how often a dependency was asked in the busiest ten seconds."""
        times = [float(line) for line in Path(f"{self.calls}.{name}").read_text().split()]
        return max(
            (sum(begin <= one < begin + 10 for one in times) for begin in times if begin >= since), default=0
        )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Serve one shop for all tests of this module; each leaves its servers well."""
    calls = tmp_path_factory.mktemp("calls") / "calls"
    with ExitStack() as stack:
        valkey, postgres = stack.enter_context(Valkey()), stack.enter_context(Postgres())
        redis, database = (stack.enter_context(FaultProxy(one.port)) for one in (valkey, postgres))
        env = {
            "CALLS": str(calls), "RUN_DIR": str(calls.parent / "run"),
            "HEALTH_TOKEN": TOKEN, "ENVIRONMENT": "production", "WEB_THREADS": "8",
            "SECURITY_FORCE_HTTPS": "false", "WEB_CONCURRENCY": "2", "RATE_LIMIT_PUBLIC": "1000000",
            "REDIS_URL": f"redis://127.0.0.1:{redis.port}/0", "DATABASE_MAX_OPEN_CONNS": "4",
            "DATABASE_URL": postgres.url().replace(str(postgres.port), str(database.port)),
        }  # fmt: skip
        server = Gunicorn("app:app", source=SHOP, config=MODULE, env=env, ready="/health/live")
        server.env["LOG_OUTPUT"] = str(server.folder / "log")
        with server:
            one = Shop(server, redis, database, calls)
            wait_for(lambda: one.everywhere("ok", "redis", "database", "broken", "hangs"), 15)
            yield one


@pytest.fixture
def well(shop: Shop) -> Iterator[Shop]:
    """Give the shop, and wait until it is well again afterwards."""
    yield shop
    shop.redis.set("pass")
    shop.database.set("pass")
    wait_for(lambda: shop.everywhere("ok", "redis", "database"), 20)


def taking(condition: Callable[[], Any], seconds: float) -> float:
    """Return the seconds until *condition* came true."""
    began = time.monotonic()
    wait_for(condition, seconds)
    return time.monotonic() - began


def test_t16_told_where_nobody_asks(well: Shop) -> None:
    """Without a request a dependency's failure is in /health, gauge and one line in 15 s; its return in 10 s.

    The first test of this module: a check is told of twice a minute at most.
    """
    before = len(well.lines("database"))
    well.database.set("blackhole")
    down = taking(lambda: well.everywhere("fail", "database"), 20)
    gauge = taking(lambda: well.gauge("database") == 2, 5)
    lines = well.lines("database")[before:]
    well.database.set("pass")
    back = taking(lambda: well.everywhere("ok", "database"), 20)

    print(f"down after {down:.1f} s, back after {back:.1f} s")
    assert down + gauge <= 15
    assert back <= 10
    assert len(lines) == 1
    assert len(well.lines("database")) == before + 2


@pytest.mark.alone
def test_t13_probes_under_black_holes(well: Shop) -> None:
    """Redis and database black-holed: live and ready answer 200 within 100 ms, and few calls reach either."""
    began = time.monotonic()
    well.redis.set("blackhole")
    well.database.set("blackhole")
    seconds = max(10.0, SECONDS)
    with Load(well.server, "/health/live", clients=2) as live, Load(well.server, "/health/ready", 2) as ready:
        time.sleep(seconds)
    wait_for(lambda: well.everywhere("fail", "database", "redis"), 10)
    calls = {name: well.most_calls(name, began) for name in ("database", "redis")}
    rate = (len(live.visits) + len(ready.visits)) / seconds
    slowest = percentile(live.visits, 0.99), percentile(ready.visits, 0.99)

    print(
        f"{rate:.0f} probes/s, slowest of a hundred {[round(one * 1000, 1) for one in slowest]} ms, calls {calls}"
    )
    assert {visit.status for visit in live.visits + ready.visits} == {200}
    assert max(slowest) < 0.1
    assert max(calls.values()) <= 12
    assert well.server.get("/health").status == 503


def test_t16_told_where_requests_ask(well: Shop) -> None:
    """Where requests use it, the failure is told within 5 s, by whichever worker they came to."""
    well.server.get("/row")
    well.database.set("refuse")
    with Load(well.server, "/row", clients=2) as load:
        down = taking(lambda: well.everywhere("fail", "database"), 20)
        time.sleep(2)
    well.database.set("pass")
    back = taking(lambda: well.everywhere("ok", "database"), 20)

    print(f"down after {down:.1f} s, back after {back:.1f} s: {Counter(visit.status for visit in load.visits)}")
    assert well.most_calls("database", time.monotonic() - down - 20) <= 12
    assert down <= 5, well.server.get("/health/history", BEARER).text
    assert back <= 10


def test_redis_that_requests_use(well: Shop) -> None:
    """A breaker that opens is told within 5 s: its flag is read, no request waits for a check."""
    well.redis.set("blackhole")
    with Load(well.server, "/row", clients=2):
        down = taking(lambda: well.everywhere("fail", "redis"), 20)
    well.redis.set("pass")
    back = taking(lambda: well.everywhere("ok", "redis"), 20)

    print(f"down after {down:.1f} s, back after {back:.1f} s")
    assert down <= 5
    assert back <= 10


def test_nonsense_harms_no_other(well: Shop) -> None:
    """A check that hangs for ever and one that returns nonsense are told, and the others stay as they are."""
    flag = Path(f"{well.calls}.break")
    flag.touch()
    took = taking(lambda: well.everywhere("fail", "broken", "hangs"), 10)
    flag.unlink()

    assert took <= 5
    assert well.status("redis", "database") == {"ok"}
    assert well.server.get("/health").text == "degraded"
    wait_for(lambda: well.everywhere("ok", "broken"), 10)


@pytest.mark.alone
def test_exhausted_pool(well: Shop) -> None:
    """With every connection of a worker in use the probes answer at once, and no outage is told."""
    for _ in range(8):
        well.server.get("/exhaust", timeout=20)
    try:
        with Load(well.server, "/health/ready", clients=2) as ready, Load(well.server, "/health/live", 2) as live:
            time.sleep(6)
        told = well.status("database")
    finally:
        for _ in range(16):
            well.server.get("/release")

    assert {visit.status for visit in ready.visits + live.visits} == {200}
    assert max(percentile(ready.visits, 0.99), percentile(live.visits, 0.99)) < 0.1
    assert told <= {"ok", "warn"}
