from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from rq.rate_limit import RateLimit

from flask_prod.components.jobs.delivery.processes import Board
from flask_prod.components.jobs.delivery.source import Again, Dead, Delivery, Finished, Released, SourceAway
from flask_prod.components.jobs.delivery.worker import Limits, Worker, attempt_token, new_worker_token
from flask_prod.components.jobs.engine import Engine
from flask_prod.components.jobs.operations.limits import LimitState
from flask_prod.components.jobs.redis_store.housekeeping import Housekeeper
from flask_prod.components.jobs.redis_store.source import RedisSource

from ..work import add, prod

QUEUES = ("emails", "default")


@pytest.fixture
def source(engine: Engine) -> RedisSource:
    """Give the source of a worker in this process."""
    return RedisSource(engine, "tester", QUEUES)


@pytest.fixture
def worker(engine: Engine, source: RedisSource) -> Iterator[Worker]:
    """Give a worker in this process, whose handlers of signals are taken away afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    board = Board(1)
    yield Worker(engine, source, dict.fromkeys(QUEUES, 0), board, board.slots[0], new_worker_token())
    for number, handler in before.items():
        signal.signal(number, handler)


def status(job_id: str) -> str:
    return prod.jobs.fetch(job_id).get_status().value


def test_stop_at_the_moment_of_taking(
    worker: Worker, source: RedisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job taken at the very moment of the stop is first in its queue at once, and nothing is counted."""
    job, later = add.dispatch(1, b=2), add.dispatch(5)
    take = source.take

    def take_and_be_stopped(*args: Any) -> Delivery | None:
        found = take(*args)
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(source, "take", take_and_be_stopped)
    assert worker.run() == 0
    assert prod.jobs.queue("default").job_ids == [job.id, later.id]
    assert (status(job.id), prod.jobs.fetch(job.id).interrupted) == ("queued", 0)  # type: ignore[attr-defined]


def test_signs_of_life(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker gives signs of life while its source is away, and while all its queues are paused."""
    slot, seen = worker._slot, []
    answers = iter((SourceAway("away"), SourceAway("away"), None))

    def call() -> None:
        slot.look()
        seen.append(slot.seen)
        error = next(answers)
        if error is not None:
            raise error

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    slot.clear()
    worker._insist(call)
    worker._board.closed = 3
    worker._next()
    slot.look()

    assert [slot.born, *seen, slot.seen] == sorted({slot.born, *seen, slot.seen})


def test_metrics_are_counted(worker: Worker, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to jobs is counted by queue and registered name."""
    counted: list[tuple[str, ...]] = []

    class Counter:
        def __init__(self, name: str) -> None:
            self.name = name

        def inc(self, *labels: str) -> None:
            counted.append((self.name, *labels))

    names = ("enqueued", "started", "finished", "failed", "retried", "dead")
    for name in names:
        monkeypatch.setattr(engine.counts, name, Counter(name))
    add.dispatch(1)
    add.dispatch(2**40, 2**40)
    monkeypatch.setattr(add, "function", _fail_for_large)
    worker.run(burst=True)
    name = "tests.components.jobs.work.add"
    happened = ["enqueued", "enqueued", "started", "finished", "started", "failed", "dead"]
    assert counted == [(what, "default", name) for what in happened]


def _fail_for_large(a: int, b: int = 1) -> int:
    if a > 2**32:
        raise ValueError("too large")
    return a + b


def test_a_lost_lease_changes_nothing(source: RedisSource, engine: Engine) -> None:
    """Who was given up for lost cannot overwrite what the next one does, and a duplicate end is kept once."""
    job = add.dispatch(1)
    first = source.take(QUEUES, attempt_token("a" * 16, 1))
    assert first is not None
    assert source.lost("a" * 16, "crash", "killed") == [(job.id, "crash")]
    second = source.take(QUEUES, attempt_token("b" * 16, 1))
    assert second is not None
    for outcome in (Finished(1), Dead("E", "no"), Released()):
        assert source.settle(first, outcome) == (False, None)
    assert status(job.id) == "started"
    assert source.settle(second, Finished(2)) == (True, None)
    assert source.settle(second, Finished(2)) == (False, None)
    assert (job.return_value(), len(job.results())) == (2, 1)


def test_an_end_that_is_not_too_late(source: RedisSource) -> None:
    """A job that was given up for lost and ends before anybody has begun it again does not run again."""
    job = add.dispatch(1)
    first = source.take(QUEUES, attempt_token("a" * 16, 1))
    assert first is not None
    source.lost("a" * 16, "crash", "killed")
    assert source.settle(first, Finished(1))[0]
    assert source.take(QUEUES, attempt_token("b" * 16, 1)) is None
    assert status(job.id) == "finished"


def test_leases(source: RedisSource, engine: Engine) -> None:
    """A lease that is prolonged lasts; one that is not ends, and its job runs again, once however many ask."""
    source._lease = 0.5
    source._hold = 0.0
    job = add.dispatch(1)
    token = attempt_token("a" * 16, 1)
    source.take(QUEUES, token)
    for _ in range(3):
        time.sleep(0.3)
        assert source.beat([token]) == [(job.id, token)]
        assert source.look_after() == []
    time.sleep(0.6)
    assert (source.look_after(), source.look_after()) == ([(job.id, "crash")], [])
    assert prod.jobs.queue("default").job_ids == [job.id]


def test_poison_is_dead_after_three_crashes(source: RedisSource) -> None:
    """A job that costs its third process is dead, visible with its reason, and told once."""
    job = add.dispatch(1)
    became = []
    for turn in range(3):
        assert source.take(QUEUES, attempt_token("a" * 16, turn)) is not None
        became += source.lost("a" * 16, "crash", "Its process was killed.")
    assert [one for _, one in became] == ["crash", "crash", "dead"]
    assert prod.jobs.queue("default").failed_job_registry.get_job_ids(cleanup=False) == [job.id]
    result = job.latest_result()
    assert result is not None
    assert result.exc_string == "Its process was killed."
    assert [(one.job.id, one.reason) for one in source.tell()] == [(job.id, "Its process was killed.")]
    assert list(source.tell()) == []


def test_idempotent_jobs_run_once(worker: Worker, source: RedisSource, engine: Engine) -> None:
    """A second delivery of a finished idempotent dispatch runs nothing, also when its record had gone."""
    client = engine.redis.client("jobs")
    job = add.dispatch(1)
    client.hset(job.key, "idempotent", 1)
    record = client.hgetall(job.key)
    worker.run(burst=True)
    assert len(job.results()) == 1
    client.delete(job.key)
    client.hset(job.key, mapping=record)
    client.rpush(prod.jobs.queue("default").key, job.id)
    worker.run(burst=True)
    assert len(job.results()) == 1
    assert status(job.id) == "finished"


def test_recycling(worker: Worker) -> None:
    """A worker ends after so many jobs, between two of them, and says by its code that another should come."""
    for number in range(4):
        add.dispatch(number)
    assert worker.run(limits=Limits(jobs=3)) == 76
    assert prod.jobs.queue("default").count == 1


def test_recycling_by_memory_and_age(engine: Engine, source: RedisSource) -> None:
    """A worker that holds too much or is too old ends after its job, never before its first."""
    for limits in (Limits(memory=1), Limits(seconds=0.001)):
        board = Board(1)
        worker = Worker(engine, source, dict.fromkeys(QUEUES, 0), board, board.slots[0], new_worker_token())
        add.dispatch(1)
        add.dispatch(2)
        assert worker.run(limits=limits) == 76
        assert prod.jobs.queue("default").count == 1
        engine.redis.client("jobs").delete(prod.jobs.queue("default").key)


def test_paused_queues(engine: Engine, source: RedisSource) -> None:
    """Nothing is taken from a queue that is paused; the others go on."""
    board = Board(1)
    worker = Worker(engine, source, dict.fromkeys(QUEUES, 0), board, board.slots[0], new_worker_token())
    paused, open_ = add.dispatch(1), add.on("emails").dispatch(2)
    board.closed = 0b10
    worker.run(burst=True)
    assert (status(paused.id), status(open_.id)) == ("queued", "finished")


def test_weights(engine: Engine, source: RedisSource) -> None:
    """With weights each queue comes first as often as its weight says."""
    board = Board(1)
    worker = Worker(engine, source, {"emails": 3, "default": 1}, board, board.slots[0], new_worker_token())
    firsts = [worker._open_queues()[0] for _ in range(4000)]
    assert 0.7 < firsts.count("emails") / len(firsts) < 0.8


def test_a_lost_answer(worker: Worker, source: RedisSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose delivery was lost on the way is given back at once, and counts no crash."""
    job = add.dispatch(1)
    take = source.take
    failures = iter([SourceAway("lost")])

    def take_and_lose(queues: Any, token: str) -> Delivery | None:
        found = take(queues, token)
        for failure in failures:
            raise failure
        return found

    monkeypatch.setattr(source, "take", take_and_lose)
    worker.run(burst=True)
    assert (status(job.id), prod.jobs.fetch(job.id).crashes) == ("finished", 0)  # type: ignore[attr-defined]


def test_dependent_jobs(app: Flask, worker: Worker) -> None:
    """Jobs that RQ made dependent on another run after it."""
    first = add.dispatch(1)
    second = prod.jobs.queue("default").enqueue(add, 2, depends_on=first)
    assert second.get_status().value == "deferred"
    worker.run(burst=True)
    assert (status(first.id), status(second.id)) == ("finished", "finished")


def test_concurrency_by_key(app: Flask, worker: Worker) -> None:
    """RQ's RateLimit holds: of jobs with the same key so many are queued or run, and the others follow."""
    queue = prod.jobs.queue("default")
    jobs = [queue.enqueue(add, number, rate_limit=RateLimit("bank", 1)) for number in range(3)]
    assert [status(job.id) for job in jobs] == ["queued", "rate_limited", "rate_limited"]
    worker.run(burst=True)
    assert {status(job.id) for job in jobs} == {"finished"}


def test_limit(app: Flask, worker: Worker, source: RedisSource, engine: Engine) -> None:
    """So many jobs of a limit run at a time, however they came to their queue; the oldest follows at each end."""
    limited = add.limited("bank", 2)
    jobs = [limited.dispatch(number, b=1) for number in range(4)]
    free = add.dispatch(9)
    taken = [source.take(QUEUES, token) for token in ("aa01", "aa02", "aa03", "aa04")]
    running = [delivery for delivery in taken if delivery is not None]
    assert [delivery.job.id for delivery in running] == [jobs[0].id, jobs[1].id, free.id]
    assert engine.limits() == [LimitState("bank", 2, 2, 2)]
    command = app.extensions["prod"].contributions["jobs"].commands[0]
    assert "limit bank: 2 of 2 slots taken, 2 jobs held back" in app.test_cli_runner().invoke(command).output

    assert source.settle(running[0], Again(0.0, "once more"))[0]
    assert source.settle(running[1], Finished())[0]
    again = source.take(QUEUES, "aa05")
    assert again is not None
    assert again.job.id == jobs[0].id
    assert prod.jobs.cancel(jobs[3].id) == "rate_limited"
    assert source.lost("aa05", "released", "") == [(jobs[0].id, "released")]
    worker.run(burst=True)
    assert [status(job.id) for job in jobs] == ["finished", "finished", "finished", "canceled"]
    assert [(limit.taken, limit.held) for limit in engine.limits()] in ([(0, 0)], [])


def test_limit_after_a_wait(app: Flask, worker: Worker, source: RedisSource, engine: Engine) -> None:
    """A job that waits for its next attempt leaves its slot to others, and needs one again when it is due."""
    first, second = (add.retry(1).limited("bank", 1).dispatch(number) for number in range(2))
    running = source.take(QUEUES, "aa01")
    assert running is not None
    assert source.settle(running, Again(1.0, "later"))[0]
    other = source.take(QUEUES, "aa02")
    assert other is not None
    assert (other.job.id, status(first.id)) == (second.id, "scheduled")
    engine.redis.client("jobs").zadd(engine.queue().scheduled_job_registry.key, {first.id: 1})
    source.look_after()
    assert (source.take(QUEUES, "aa03"), status(first.id)) == (None, "rate_limited")
    source.settle(other, Finished())
    worker.run(burst=True)
    assert status(first.id) == "finished"


@pytest.mark.parametrize("limit", [0, ("bank", 0), ("two words", 1)])
def test_limit_that_cannot_be(limit: Any) -> None:
    """A limit that lets none run, or whose key is no name, is refused where it is written."""
    with pytest.raises(ValueError, match="limit"):
        prod.job(limit=limit)(add.function)


def test_seen_twice_is_not_stuck(engine: Engine) -> None:
    """A job that is in passing each time somebody looks, with an end in between, is not taken for a stuck one."""
    queue, client = engine.queue("default"), engine.redis.client("jobs")
    housekeeper = Housekeeper(engine, client, "tester")
    housekeeper._patience = 0.3
    for _ in range(2):
        client.rpush(queue.intermediate_queue_key, "passing")
        housekeeper.clean(["default"])
        client.delete(queue.intermediate_queue_key)
        housekeeper.clean(["default"])
        time.sleep(0.4)
    assert queue.job_ids == []


def test_the_event_has_the_exception(worker: Worker, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of a dead job carries the exception, so that its error report has a stack."""
    told: list[Any] = []
    monkeypatch.setattr(engine, "_emit", told.append)
    monkeypatch.setattr(add, "function", _fail_for_large)
    add.dispatch(2**40)
    worker.run(burst=True)
    (event,) = told
    assert isinstance(event.error, ValueError)
    assert event.error.__traceback__ is not None
