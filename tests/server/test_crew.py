"""The supervisor of workers: crashes, limits, recycling, orders, stops."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import alive, children, wait_for

from .worker_shop import Shop


@pytest.fixture
def shop(tmp_path: Path, redis_url: str) -> Iterator[Shop]:
    """Give an application with jobs and no worker yet."""
    with Shop(tmp_path, redis_url) as shop:
        yield shop


def status(shop: Shop, job_id: str) -> str:
    return str(shop.engine.fetch(job_id).get_status().value)


def key(shop: Shop, word: str) -> str:
    return shop.engine.redis.key("jobs", word)


def test_poison_among_good_jobs(shop: Shop) -> None:
    """A job that kills its process is dead after three; a hundred good ones behind it end in a minute (T21)."""
    poison = shop.dispatch("crash")
    good = [shop.dispatch("tick") for _ in range(100)]
    began = time.monotonic()
    shop.start()
    wait_for(lambda: all(status(shop, job.id) == "finished" for job in good), 60, "the good jobs")
    wait_for(lambda: status(shop, poison.id) == "failed", 10, "the end of the poison")
    assert time.monotonic() - began < 60
    assert len(shop.marks("crash")) == 3
    assert [job_id for job_id, *_ in shop.wait_for_marks("given-up")] == [poison.id]


def test_one_process_for_many_jobs(shop: Shop) -> None:
    """A worker process runs job after job; only a crash, an age or a limit ends it."""
    for _ in range(20):
        shop.dispatch("tick")
    shop.start("--burst").wait(20)
    assert len({pid for _, pid in shop.marks("tick")}) == 1


def test_isolated_jobs(shop: Shop) -> None:
    """With --isolate each job has a process of its own."""
    for _ in range(5):
        shop.dispatch("tick")
    shop.start("--burst", "--isolate").wait(20)
    assert len({pid for _, pid in shop.marks("tick")}) == 5


def test_recycled_processes(shop: Shop) -> None:
    """With --max-jobs a process ends after so many jobs, and another one goes on."""
    for _ in range(9):
        shop.dispatch("tick")
    shop.start("--burst", "--max-jobs", "3").wait(20)
    pids = [pid for _, pid in shop.marks("tick")]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_a_job_that_ignores_its_limit(shop: Shop) -> None:
    """A job that swallows the exception of its time limit is killed; after three processes it is dead."""
    job, noted = shop.dispatch("deaf"), shop.dispatch("note", "after")
    shop.start()
    shop.wait_for_marks("note", 1, 40)
    wait_for(lambda: status(shop, job.id) == "failed", 10, "its end")
    result = shop.engine.fetch(job.id).latest_result()
    assert result is not None
    assert "did not end within its time limit of 1 s" in str(result.exc_string)
    assert len(shop.marks("deaf")) == 3
    wait_for(lambda: status(shop, noted.id) == "finished", 5, "the next job")


def test_time_limit(shop: Shop) -> None:
    """A job that takes too long gets RQ's exception, in a process that goes on."""
    with shop.app.app_context():
        job = shop.module.slow.retry(0).dispatch(10)
    shop.redis.hset(job.key, "timeout", 1)
    shop.dispatch("tick")
    shop.start("--burst").wait(20)
    result = shop.engine.fetch(job.id).latest_result()
    assert "JobTimeoutException" in str(result and result.exc_string)
    assert shop.marks("begin")[0][0] == shop.marks("tick")[0][1]


def test_stop_with_a_long_job(tmp_path: Path, redis_url: str) -> None:
    """SIGTERM during a job of a minute ends the worker in its grace; the job runs again once, elsewhere (T23)."""
    with Shop(tmp_path, redis_url, SHUTDOWN_SECONDS="4") as shop:
        job = shop.dispatch("long_once")
        first = shop.start("--processes", "2")
        shop.wait_for_marks("long")
        shop.start()
        began = time.monotonic()
        first.send(signal.SIGTERM)
        assert first.wait(10) == 0
        assert time.monotonic() - began < 4
        wait_for(lambda: status(shop, job.id) == "finished", 10, "the second run")
        time.sleep(6)  # longer than a lease
        assert shop.marks("long") == [[job.id]] * 2
        found = shop.engine.fetch(job.id)
        assert (found.interrupted, found.crashes) == (1, 0)  # type: ignore[attr-defined]


def test_restart(shop: Shop) -> None:
    """A restart asked for in Redis lets jobs end, and loads the code anew, unless that does not load."""
    source = shop.folder / "shop.py"
    worker = shop.start("--processes", "2")
    before = wait_for(lambda: len(children(worker.pid)) == 2 and children(worker.pid), 10, "two workers")
    shop.dispatch("slow", 2)
    shop.wait_for_marks("begin")

    text = source.read_text()
    source.write_text("a syntax error")
    shop.redis.set(key(shop, "restart"), "1")
    wait_for(lambda: "No restart" in worker.stderr, 15, "the refusal")
    assert alive(min(before))

    source.write_text(text.replace('mark("note", *words)', 'mark("note", "new")'))
    shop.redis.set(key(shop, "restart"), "2")
    wait_for(lambda: not any(alive(pid) for pid in before), 20, "the end of the old ones")
    shop.dispatch("note", "old")
    assert shop.wait_for_marks("note") == [["new"]]
    assert len(shop.marks("end")) == 1
    assert worker.running


def test_paused_queue(shop: Shop) -> None:
    """From a paused queue nothing is taken within seconds, from the others it is; it goes on when it may."""
    shop.redis.sadd(key(shop, "paused"), "default")
    shop.start()
    time.sleep(1.5)
    paused = shop.dispatch("note", "later")
    shop.dispatch("urgent", "now")
    shop.wait_for_marks("urgent")
    time.sleep(0.5)
    assert status(shop, paused.id) == "queued"
    shop.redis.srem(key(shop, "paused"), "default")
    shop.wait_for_marks("note", 1, 5)


def test_suspended_workers(shop: Shop) -> None:
    """`rq suspend` stops the taking, `rq resume` goes on."""
    shop.redis.set("rq:suspended", 1)
    shop.start()
    time.sleep(1.5)
    shop.dispatch("note", "x")
    time.sleep(1)
    assert shop.marks("note") == []
    shop.redis.delete("rq:suspended")
    shop.wait_for_marks("note", 1, 5)


def test_a_stopped_job(shop: Shop) -> None:
    """A running job that somebody stops ends within seconds, is kept as stopped, and does not run again."""
    job = shop.dispatch("slow", 30)
    shop.start()
    shop.wait_for_marks("begin")
    shop.redis.sadd(key(shop, "stops"), job.id)
    wait_for(lambda: status(shop, job.id) == "stopped", 5, "the stop")
    shop.dispatch("note", "after")
    shop.wait_for_marks("note")
    assert (len(shop.marks("begin")), shop.marks("given-up")) == (1, [])


def test_scheduled_jobs_while_all_are_busy(shop: Shop) -> None:
    """The supervisor moves due jobs also while every child is busy: another host may run them."""
    shop.dispatch("slow", 6)
    shop.start()
    shop.wait_for_marks("begin")
    with shop.app.app_context():
        due = shop.module.note.delay(0).dispatch("x")
    wait_for(lambda: status(shop, due.id) == "queued", 4, "the move")
    assert os.path.exists(shop.folder / "marks")
