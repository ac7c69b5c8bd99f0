"""A thousand jobs while workers, their children, and Redis are killed: none is lost, few run twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps import StartValkey
from tests.server.worker_shop import Shop
from tests.servers import Process, Valkey, children, wait_for

pytestmark = pytest.mark.faults

SHORT = float(os.environ.get("FAULTS_SECONDS", "20")) < 20
ROUNDS = 1 if SHORT else 5
JOBS = 300 if SHORT else 1000
PAUSE = 0.1
"""Seconds of one job."""
EVERY = 2.0
"""Seconds between two kills."""
PROCESSES = 2
WORKERS = 2
LONGEST = 180.0


class Battle:
    """Workers that are killed and started again, and the jobs they share."""

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop = shop
        self.kills = 0
        self._random = random.Random(seed)
        self._workers = [self._start() for _ in range(WORKERS)]

    def kill_one(self) -> None:
        """Kill a child, a supervisor, or a supervisor with all its children, and replace a supervisor."""
        place = self._random.randrange(WORKERS)
        worker, kind = self._workers[place], self._random.choice(("child", "supervisor", "both"))
        below = sorted(children(worker.pid))
        victims = {"child": below[:1], "supervisor": [worker.pid], "both": [worker.pid, *below]}[kind]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.kills += 1
        if kind != "child":
            worker.wait(5)
            self._workers[place] = self._start()

    def _start(self) -> Process:
        return self.shop.start("--processes", str(PROCESSES))


def runs(shop: Shop) -> Counter[str]:
    """Return how often each job has begun."""
    return Counter(words[0] for words in shop.marks("tick"))


def finished(shop: Shop, ids: list[str]) -> int:
    with shop.redis.pipeline(transaction=False) as pipe:
        for job_id in ids:
            pipe.hget(f"rq:job:{job_id}", "status")
        return sum(status == b"finished" for status in pipe.execute())


def dispatch(shop: Shop) -> list[str]:
    with shop.app.app_context():
        return [shop.module.tick.dispatch(PAUSE).id for _ in range(JOBS)]


@pytest.fixture
def shop(tmp_path: Path, redis_url: str) -> Iterator[Shop]:
    """Give an application whose workers miss one another soon."""
    with Shop(tmp_path, redis_url) as shop:
        yield shop


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_killed_workers(shop: Shop, turn: int) -> None:
    """With a kill -9 every 2 s no job is lost, all end well, and few begin twice, each with the same id."""
    ids = dispatch(shop)
    battle = Battle(shop, turn)
    end = time.monotonic() + LONGEST
    while finished(shop, ids) < JOBS and time.monotonic() < end:
        time.sleep(EVERY)
        if len(runs(shop)) < JOBS:
            battle.kill_one()
    began = runs(shop)
    twice = sum(began.values()) - len(began)
    print(f"{JOBS} jobs, {battle.kills} kills, {twice} begun again")
    assert finished(shop, ids) == JOBS
    assert set(began) == set(ids)
    assert twice <= battle.kills * PROCESSES * WORKERS
    assert shop.marks("given-up") == []


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_restarted_redis(tmp_path: Path, start_valkey: StartValkey, turn: int) -> None:
    """With Redis killed and started again with its AOF no job is lost, and few begin twice."""
    valkey: Valkey = start_valkey(aof=True)
    with Shop(tmp_path, valkey.url) as shop:
        ids = dispatch(shop)
        time.sleep(1.2)  # the AOF is written once a second
        Battle(shop, turn)
        wait_for(lambda: len(runs(shop)) > JOBS // 5, LONGEST, "a fifth of the jobs")
        valkey.kill()
        time.sleep(1.5)
        valkey.start()
        wait_for(lambda: finished(shop, ids) == JOBS, LONGEST, "the end of all jobs")
        began = runs(shop)
        twice = sum(began.values()) - len(began)
        print(f"{JOBS} jobs, {twice} begun again")
        assert set(began) == set(ids)
        assert twice <= 1 / PAUSE * PROCESSES * WORKERS  # at most those of one second
        assert shop.marks("given-up") == []
