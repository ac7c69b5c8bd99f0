from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import wait_for

from . import worker_shop
from .worker_shop import Shop

MORE = """

@jobs.every("2s")
def tick():
    mark("tick", get_current_job().id, get_current_job().meta["slot"])


@jobs.job
def steps():
    jobs.progress(0.4, "half")
    mark("steps", os.getpid())
    time.sleep(60)


@jobs.job
async def double(number):
    mark("double", number * 2)
    return number * 2


@jobs.job(retry=3, backoff=0, never=ValueError, on_failure=given_up)
def picky():
    mark("picky")
    raise ValueError("never")
"""


@pytest.fixture
def shop(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Give a shop with schedules."""
    monkeypatch.setattr(worker_shop, "SOURCE", worker_shop.SOURCE + MORE)
    with Shop(tmp_path, redis_url) as shop:
        yield shop


def test_two_workers_one_run(shop: Shop) -> None:
    """Two workers run each slot once; when the one that leads is stopped, the other goes on without a gap."""
    first = shop.start()
    shop.start()
    shop.wait_for_marks("tick", 3)
    os.kill(first.pid, signal.SIGTERM)
    first.wait(10)
    count = len(shop.marks("tick"))
    shop.wait_for_marks("tick", count + 3, 20)
    slots = [int(slot) for _, slot in shop.marks("tick")]
    assert len(slots) == len(set(slots))
    assert all(slot % 2 == 0 for slot in slots)


def test_leader_killed(shop: Shop) -> None:
    """When the leader is killed, another worker leads within 20 s, and no slot runs twice."""
    first = shop.start()
    shop.wait_for_marks("tick", 2)
    shop.start()
    shop.kill(first)
    count, began = len(shop.marks("tick")), time.monotonic()
    shop.wait_for_marks("tick", count + 2, 25)
    assert time.monotonic() - began < 25
    slots = [slot for _, slot in shop.marks("tick")]
    assert len(slots) == len(set(slots))


def test_progress_and_cancel_of_a_running_job(shop: Shop) -> None:
    """A running job tells how far it is; canceled, it is stopped within seconds, and does not run again."""
    shop.start()
    job = shop.dispatch("steps")
    shop.wait_for_marks("steps")
    shown = shop.engine.office.show(job.id)
    assert (shown.status, shown.progress, shown.message) == ("started", 0.4, "half")

    began = time.monotonic()
    with shop.app.app_context():
        assert shop.module.jobs.cancel(job.id) == "started"
    wait_for(lambda: shop.engine.office.show(job.id).status == "stopped", 10, "the stop")
    assert time.monotonic() - began < 5
    assert len(shop.marks("steps")) == 1


def test_async_and_rules(shop: Shop) -> None:
    """An async job is awaited, and an exception of `never` ends a job at its first attempt."""
    double, picky = shop.dispatch("double", 21), shop.dispatch("picky")
    shop.start("--burst").wait(20)
    assert shop.engine.fetch(double.id).return_value() == 42
    assert len(shop.marks("picky")) == 1
    assert shop.engine.office.show(picky.id).status == "failed"
    assert [words[0] for words in shop.marks("given-up")] == [picky.id]
