from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from flask_prod.components.jobs.engine import Engine
from flask_prod.components.jobs.schedule import clock as clock_module
from flask_prod.components.jobs.schedule.clock import Clock, schedule_states
from tests import servers
from tests.apps import MakeApp

from ..orders import report, shop, tidy

DAY = 86400


class Time:
    """A clock on the wall that tests can set."""

    def __init__(self) -> None:
        self.now = float(int(time.time()) // 600 * 600 + 5)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Give the time that schedules see."""
    wall = Time()
    monkeypatch.setattr(clock_module, "time", wall)
    return wall


@pytest.fixture
def app(make_app: MakeApp, redis_url: str) -> Iterator[Flask]:
    """Give an application with these jobs, in its context."""
    app = make_app(kit=shop, REDIS_URL=redis_url)
    with app.app_context():
        yield app


def queued(engine: Engine, name: str) -> int:
    return sum(job.func_name == name for job in engine.queue("default").jobs)


def test_a_slot_runs_once(engine: Engine, wall: Time) -> None:
    """A slot that has come is dispatched once, and the next one when it comes."""
    clock = Clock(engine)
    clock.tick()
    assert queued(engine, tidy.name) == 0  # it begins with the first slot to come
    for _ in range(3):
        wall.now += 600
        clock.tick()
        clock.tick()
    assert queued(engine, tidy.name) == 3


def test_two_leaders(engine: Engine, wall: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the lock let several workers lead, each slot has one job: that is decided where jobs are kept."""
    clocks = [Clock(engine) for _ in range(8)]
    monkeypatch.setattr(engine.desk.keeper, "leads", lambda seconds: True)
    for clock in clocks:
        clock.tick()
    for _ in range(5):
        wall.now += 600
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(Clock.tick, clocks))
    assert queued(engine, tidy.name) == 5


def test_no_second_run_of_a_job_that_is_gone(engine: Engine, wall: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot whose job has long ended and been forgotten does not run again for a worker that comes late."""
    monkeypatch.setattr(engine.desk.keeper, "leads", lambda seconds: True)
    first, second = Clock(engine), Clock(engine)
    first.tick()
    second.tick()
    wall.now += 600
    first.tick()
    engine.redis.client("jobs").delete(*(job.key for job in engine.queue("default").jobs))
    engine.redis.client("jobs").delete(engine.queue("default").key)
    second.tick()
    assert engine.queue("default").count == 0


def test_one_leads(app: Flask, engine: Engine, make_app: MakeApp, redis_url: str, wall: Time) -> None:
    """One of two workers leads; when it leaves, the other one does with its next look."""
    other: Engine = make_app(kit=shop, REDIS_URL=redis_url).extensions["prod"].contributions["jobs"].handle
    first, second = Clock(engine), Clock(other)
    first.tick()
    second.tick()
    assert (first._leads, second._leads) == (True, False)
    first.close()
    wall.now += 6
    second.tick()
    assert second._leads


@pytest.mark.parametrize(("late", "runs"), [(30, 1), (90, 0)])
def test_skip(engine: Engine, wall: Time, late: int, runs: int) -> None:
    """A slot missed by more than a minute is skipped; one that is a little late runs."""
    Clock(engine).tick()
    wall.now += 595 + 600 + late  # two slots have passed, the second one so long ago
    engine.redis.client("jobs").delete(engine.redis.key("lock", "jobs-schedules"))
    Clock(engine).tick()
    assert queued(engine, tidy.name) == runs


def test_run_once(engine: Engine, wall: Time) -> None:
    """With run_once, however many slots were missed, one job makes up for them; then it goes on as ever."""
    Clock(engine).tick()
    wall.now += 5 * DAY
    engine.redis.client("jobs").delete(engine.redis.key("lock", "jobs-schedules"))
    clock = Clock(engine)
    clock.tick()
    assert queued(engine, report.name) == 1
    clock.tick()
    assert queued(engine, report.name) == 1
    wall.now += DAY
    clock.tick()
    assert queued(engine, report.name) == 2


def test_redis_away(make_app: MakeApp, valkey: servers.Valkey, wall: Time) -> None:
    """A Redis that is away stops no worker: a tick is over at once, and the schedule goes on afterwards."""
    app = make_app(kit=shop, REDIS_URL=valkey.url)
    engine: Engine = app.extensions["prod"].contributions["jobs"].handle
    clock = Clock(engine)
    clock.tick()
    valkey.pause()
    wall.now += 600
    began = time.perf_counter()
    for _ in range(5):
        clock.tick()
    assert time.perf_counter() - began < 1
    valkey.resume()
    servers.wait_for(lambda: _ran(clock, wall, engine))


def _ran(clock: Clock, wall: Time, engine: Engine) -> bool:
    wall.now += 1
    clock.tick()
    return not engine.redis.degraded and queued(engine, tidy.name) == 1


def test_states(app: Flask, engine: Engine, wall: Time) -> None:
    """Each schedule is shown with its last and next slots, and how the last one stands."""
    assert {one.state for one in schedule_states(engine)} == {"never seen by a worker"}
    clock = Clock(engine)
    clock.tick()
    wall.now += 600
    clock.tick()
    states: dict[str, Any] = {one.name: one for one in schedule_states(engine)}
    assert states[tidy.name].state == "queued"
    assert len(states[tidy.name].next) == 3
    assert states[tidy.name].schedule == "every 10m"
    assert states[report.name].state == "waiting"
    assert states[report.name].schedule == "0 3 * * * Europe/Berlin"
    wall.now += 3 * DAY
    assert "late" in {one.name: one for one in schedule_states(engine)}[tidy.name].state
