from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Flask
from rq.job import Job
from rq.queue import Queue

from flask_prod.components.jobs.engine import Engine
from flask_prod.components.jobs.worker import AppWorker, worker_name

from .work import add, prod


@pytest.fixture
def worker(engine: Engine) -> AppWorker:
    """Give a worker of this process; it forks for each job, as ever."""
    return AppWorker(engine, ("default",), worker_name(engine))


def test_stop_at_the_moment_of_taking(worker: AppWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that comes after a job was taken and before it has begun loses nothing: the job runs (rq#2236)."""
    job, later = add.dispatch(1, b=2), add.dispatch(5)
    take = worker._take

    def take_and_be_stopped(burst: bool) -> tuple[Job, Queue] | None:
        found = take(burst)
        worker.request_stop()
        return found

    monkeypatch.setattr(worker, "_take", take_and_be_stopped)
    worker.work(logging_level="WARNING")
    assert (job.return_value(), job.get_status().value) == (3, "finished")
    assert later.get_status().value == "queued"


def test_force_without_a_child(worker: AppWorker) -> None:
    """A second stop while no job runs changes nothing: the first one is enough."""
    worker.request_stop()
    worker.request_force_stop()
    assert worker.stopping


def test_metrics_are_counted_in_the_worker(
    worker: AppWorker, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished and failed jobs are counted by queue and registered name, in the worker and not in its child."""
    counted: list[tuple[str, ...]] = []

    class Counter:
        def __init__(self, name: str) -> None:
            self.name = name

        def inc(self, *labels: str) -> None:
            counted.append((self.name, *labels))

    for name in ("enqueued", "finished", "failed"):
        monkeypatch.setattr(engine, name, Counter(name))
    add.dispatch(1)
    add.dispatch("text")  # type: ignore[arg-type]  # fails when it runs
    worker.work(burst=True, logging_level="WARNING")
    name = "tests.components.jobs.work.add"
    assert counted == [
        ("enqueued", "default", name),
        ("enqueued", "default", name),
        ("finished", "default", name),
        ("failed", "default", name),
    ]


def test_seen_twice_is_not_stuck(worker: AppWorker, engine: Engine) -> None:
    """A job that is in passing each time somebody looks, with an end in between, is not taken for a stuck one."""
    queue = engine.queue("default")
    client = engine.redis.client("jobs")
    housekeeper: Any = worker._housekeeper
    housekeeper._patience = 0.3
    for _ in range(2):
        client.rpush(queue.intermediate_queue_key, "passing")
        housekeeper.clean(queue, [])
        client.delete(queue.intermediate_queue_key)
        housekeeper.clean(queue, [])
        time.sleep(0.4)
    assert queue.job_ids == []


def test_two_housekeepers(app: Flask, engine: Engine, worker: AppWorker) -> None:
    """Only one worker at a time looks after a queue, so an abandoned job is tried again once."""
    queue, client = engine.queue("default"), engine.redis.client("jobs")
    job = prod.jobs.fetch(add.retry(2).dispatch(1).id)
    client.lpop(queue.key)
    client.hset(job.key, "status", "started")
    client.zadd(queue.started_job_registry.key, {f"{job.id}:execution": 1})
    client.set(f"{queue.key}:flask-prod-housekeeper", "another")
    worker.clean_registries()
    assert queue.scheduled_job_registry.get_job_count(cleanup=False) == 0
    client.delete(f"{queue.key}:flask-prod-housekeeper")
    worker.clean_registries()
    worker.clean_registries()
    assert queue.scheduled_job_registry.get_job_count(cleanup=False) == 1
    assert prod.jobs.fetch(job.id).retries_left == 1
