"""Leased quota: few round trips for hot clients, and never more than the points."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from random import Random
from urllib.error import HTTPError
from urllib.request import urlopen

from hypothesis import given
from hypothesis import strategies as st

from flask_prod import ProdKit
from flask_prod.components.ratelimit.engine import COUNT, LOOK, LocalEngine, Verdict, remaining
from flask_prod.components.ratelimit.leases import Leases, first_of
from flask_prod.components.ratelimit.policy import Policy
from tests.apps import MakeApp, StartGunicorn
from tests.components.ratelimit.monitor import Monitor
from tests.servers import Valkey

ONLY = ("redis", "ratelimit")
KEYS = (b"k",)


class Fleet:
    """Some processes that lease from one counter, on a clock that a test sets."""

    def __init__(self, policy: Policy, processes: int, size: int) -> None:
        self.now = 1_763_000_000.0
        self.policy = policy
        self.counter = LocalEngine(lambda: self.now)
        self.leases = [Leases(size, processes, lambda: self.now) for _ in range(processes)]
        self.trips = 0

    def request(self, process: int) -> Verdict:
        leases = self.leases[process]
        spent = leases.spend(KEYS)
        if isinstance(spent, Verdict):
            return spent
        self.trips += 1
        begun = leases.now()
        verdict = self.counter.consume(KEYS, (self.policy,), COUNT, max(1, spent))
        if spent:
            leases.keep(KEYS, verdict, begun, spent)
        return first_of(verdict)


@given(
    st.integers(1, 400),
    st.sampled_from([2, 7, 64]),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.sampled_from([0, 1, 20, 400, 1500, 9000]))),
)
def test_never_more_than_the_points(points: int, size: int, steps: list[tuple[int, int, int]]) -> None:
    """Whatever the order of processes and times, no window passes more than the points."""
    fleet = Fleet(Policy("p", points, 10_000), 4, size)
    passed: Counter[int] = Counter()
    for process, times, milliseconds in steps:
        fleet.now += milliseconds / 1000
        for _ in range(times):
            verdict = fleet.request(process)
            if not verdict.refused:
                passed[int(fleet.now * 1000) // 10_000] += 1
                left = remaining(fleet.policy, verdict.rows[0], verdict.now)
                assert 0 <= left < points

    assert all(count <= points for count in passed.values())


@given(st.integers(1, 2000), st.integers())
def test_what_is_lost_is_bounded(points: int, seed: int) -> None:
    """Refused too early by what other processes hold: less than a lease each, never half of the points."""
    fleet = Fleet(Policy("p", points, 3_600_000), 4, 64)
    random = Random(seed)
    burst = random.choice([1, 20, 300])
    order = [process for _ in range(2500) for process in [random.randrange(4)] * random.randint(1, burst)]
    passed = sum(not fleet.request(process).refused for process in order[:2500])

    assert points - 3 * 63 <= passed <= points
    assert passed >= points * 0.5


def test_a_hot_client_costs_few_round_trips() -> None:
    """Leases double up to the setting: ten thousand requests are about a hundred and sixty trips."""
    fleet = Fleet(Policy("p", 1_000_000, 3_600_000), 1, 64)
    for _ in range(10_000):
        assert not fleet.request(0).refused

    assert fleet.trips < 180
    row = fleet.counter.consume(KEYS, (fleet.policy,), LOOK).rows[0]
    assert 10_000 <= row[1] < 10_064


def test_a_slow_client_loses_nothing() -> None:
    """Who comes once in two seconds is never given more than he uses."""
    fleet = Fleet(Policy("p", 100, 3_600_000), 1, 64)
    passed = 0
    for _ in range(150):
        passed += not fleet.request(0).refused
        fleet.now += 2

    assert passed == 100


def test_a_lease_ends_with_its_window() -> None:
    """What was counted in one window is not spent in the next, nor after a second."""
    for seconds in (0.1, 1.1):
        fleet = Fleet(Policy("p", 1000, 10_000), 1, 64)
        fleet.now += 9.95 if seconds == 0.1 else 2
        for _ in range(4):
            fleet.request(0)
        assert fleet.trips == 3
        assert fleet.leases[0]._held[KEYS].left == 3

        fleet.now += seconds
        fleet.request(0)
        assert fleet.trips == 4


def test_a_failed_trip_keeps_nothing() -> None:
    """After an outage in the middle of a lease the next request asks again."""
    fleet = Fleet(Policy("p", 1000, 3_600_000), 1, 64)
    fleet.request(0)
    leases = fleet.leases[0]
    assert leases.spend(KEYS) == 2
    assert leases.spend(KEYS) == 0  # another thread, meanwhile
    leases.keep(KEYS, None, leases.now(), 2)

    assert leases.spend(KEYS) == 1


def test_round_trips_and_headers(make_app: MakeApp, valkey: Valkey) -> None:
    """A client that comes often costs a tenth of the commands; each answer still says one less than the last."""
    prod = ProdKit(only=ONLY)
    app = make_app(kit=prod, REDIS_URL=valkey.url, RATE_LIMIT_LEASE=64, RATE_LIMIT_PUBLIC=10_000)
    app.add_url_rule("/", "index", prod.limit("items", "20000/1h", cost=2)(lambda: "ok"))
    client = app.test_client()
    client.get("/")
    with closing(Monitor(valkey)) as monitor:
        left = [client.get("/").headers["RateLimit"] for _ in range(300)]
        commands = monitor.commands(valkey)

    assert set(commands) - {b"EXISTS"} == {b"EVALSHA"}  # the log's level, every ten seconds
    assert len(commands) < 30
    assert [int(item.split('"items";r=')[1].split(";")[0]) for item in left] == [
        19_996 - 2 * n for n in range(300)
    ]
    with app.app_context():
        assert prod.limiter.reset("127.0.0.1") == 2
        assert client.get("/").headers["X-RateLimit-Remaining"] == "9999"


SHOP = """
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=("redis", "ratelimit"))

def create_app():
    app = Flask("shop")

    @app.route("/")
    @prod.limit("hot", "400/1h")
    def index():
        return "ok"

    prod.init_app(app)
    return app
"""


def test_leases_of_several_processes(gunicorn: StartGunicorn, redis_url: str) -> None:
    """Four workers under a flood pass no more than the points, and at most their unspent leases less."""
    server = gunicorn(
        source=SHOP,
        args=["-w", "4", "-k", "gthread", "--threads", "4"],
        env={
            "REDIS_URL": redis_url,
            "RATE_LIMIT_PUBLIC": "",
            "ENVIRONMENT": "test",
            "RATE_LIMIT_LEASE": "16",
            "WEB_CONCURRENCY": "4",
        },
        ready="/ready",
    )
    barrier = threading.Barrier(32)

    def come(number: int) -> int:
        if number < 32:
            barrier.wait(20)
        try:
            with urlopen(server.url, timeout=20) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    with ThreadPoolExecutor(32) as pool:
        seen = Counter(pool.map(come, range(700)))

    assert 400 - 4 * 15 <= seen[200] <= 400
    assert seen[200] + seen[429] == 700
