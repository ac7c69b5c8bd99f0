from __future__ import annotations

import json
import os
import pickle
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rq.job import JobStatus
from rq.worker import Worker

from tests.servers import HttpSink, Valkey, alive, children, wait_for

from .worker_shop import Shop


@pytest.fixture
def shop(tmp_path: Path, redis_url: str) -> Iterator[Shop]:
    """Give an application with jobs and no worker yet."""
    with Shop(tmp_path, redis_url) as shop:
        yield shop


def status(shop: Shop, job_id: str) -> str:
    return str(shop.engine.fetch(job_id).get_status().value)


def reason(shop: Shop, job_id: str) -> str:
    """Return why a job failed."""
    result = shop.engine.fetch(job_id).latest_result()
    return str(result and result.exc_string)


def plant(shop: Shop, job_id: str, queue: str = "default", **fields: Any) -> None:
    """Put a job into Redis by hand, as somebody would who can write there."""
    hash_ = {
        "created_at": "2026-01-01T00:00:00.000000Z",
        "origin": f"shop:test:{queue}",
        "status": "queued",
        **fields,
    }
    shop.redis.hset(f"rq:job:{job_id}", mapping=hash_)
    shop.redis.rpush(f"rq:queue:shop:test:{queue}", job_id)


def test_runs_in_an_application_context(shop: Shop) -> None:
    """A job runs in a child, in a context of its application that is closed after it, with the request's id."""
    view = shop.module.context.dispatch
    shop.app.add_url_rule("/", view_func=lambda: view().id)
    response = shop.app.test_client().get("/")
    worker = shop.start()
    [[name, request_id, job_id, pid]] = shop.wait_for_marks("context")
    [[closed]] = shop.wait_for_marks("closed")

    assert (name, job_id) == ("shop", response.text)
    assert request_id == response.headers["X-Request-ID"]
    assert pid == closed
    assert pid != str(worker.pid)
    wait_for(lambda: "finished in" in worker.stderr, 5, "the log line")


def test_each_job_has_its_own_context(shop: Shop) -> None:
    """Every job gets a context, and every context is closed."""
    for _ in range(3):
        shop.dispatch("context")
    shop.start("--burst").wait(20)
    assert [pid for *_, pid in shop.marks("context")] == [pid for [pid] in shop.marks("closed")]


def test_result(shop: Shop) -> None:
    """What a job returns can be read by whoever dispatched it, for JOBS_RESULT_TTL."""
    job = shop.dispatch("note", "a", 1)
    shop.start("--burst").wait(20)
    assert job.return_value() == ["a", 1]
    assert 500 < shop.redis.ttl(job.key) <= 600


def test_retry_with_interval(shop: Shop) -> None:
    """A failed job is tried again after its interval, with no scheduler process; its handler is not called."""
    job = shop.dispatch("flaky", 2)
    began = time.monotonic()
    shop.start()
    shop.wait_for_marks("flaky", 3)
    wait_for(lambda: status(shop, job.id) == "finished", 5, "the end")
    assert time.monotonic() - began > 2
    assert shop.marks("flaky") == [["2"], ["1"], ["0"]]
    assert shop.marks("given-up") == []


def test_last_attempt(shop: Shop) -> None:
    """The failure handler is called once, after the last attempt; the job is kept with its traceback."""
    job = shop.dispatch("flaky", 3)
    shop.start()
    wait_for(lambda: status(shop, job.id) == "failed", 15, "the failure")
    [[job_id, app, _]] = shop.wait_for_marks("given-up")
    assert (job_id, app) == (job.id, "shop")
    assert "ValueError: not yet" in reason(shop, job.id)
    assert [state.failed for state in shop.engine.overview() if state.queue == "default"] == [1]


def test_crash_of_the_child(shop: Shop) -> None:
    """A job that kills its process three times is dead, told once, with its reason; all others go on (T21)."""
    crashed, noted = shop.dispatch("crash"), shop.dispatch("note", "after")
    shop.start()
    shop.wait_for_marks("note")
    assert [job_id for job_id, *_ in shop.wait_for_marks("given-up")] == [crashed.id]
    assert (status(shop, crashed.id), shop.marks("crash")) == ("failed", [[]] * 3)
    assert "SIGKILL" in reason(shop, crashed.id)
    wait_for(lambda: status(shop, noted.id) == "finished", 5, "the next job")


def test_kill_worker_and_child(shop: Shop) -> None:
    """A job whose worker and child were killed with -9 runs again on another worker within 30 s."""
    job = shop.dispatch("slow", 4)
    first = shop.start()
    shop.wait_for_marks("begin")
    shop.kill(first)
    began = time.monotonic()
    shop.start()
    shop.wait_for_marks("begin", 2, 30)
    assert time.monotonic() - began < 30
    wait_for(lambda: status(shop, job.id) == "finished", 10, "the end")
    assert len(shop.marks("end")) == 1


def test_kill_worker_alone(shop: Shop) -> None:
    """A child does not outlive its worker, so its job does not run twice at once."""
    shop.dispatch("slow", 4)
    first = shop.start()
    shop.wait_for_marks("begin")
    horse = shop.horse(first)
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: not alive(horse), 2, "the end of the child")
    shop.start()
    shop.wait_for_marks("end", 1, 30)
    assert len(shop.marks("begin")) == 2


def test_killed_without_retries(shop: Shop) -> None:
    """A job without retries runs again after its machine was lost: that was no failure of its own."""
    with shop.app.app_context():
        job = shop.module.slow.retry(0).dispatch(3)
    first = shop.start()
    shop.wait_for_marks("begin")
    shop.kill(first)
    shop.start()
    wait_for(lambda: status(shop, job.id) == "finished", 30, "the end")
    assert (len(shop.marks("begin")), shop.marks("given-up")) == (2, [])
    assert shop.engine.fetch(job.id).crashes == 1  # type: ignore[attr-defined]


def test_killed_between_taking_and_beginning(shop: Shop) -> None:
    """A job that was taken from its queue and never begun is queued again."""
    job = shop.dispatch("note", "rescued")
    queue = shop.engine.queue("default")
    shop.redis.lmove(queue.key, queue.intermediate_queue_key)
    shop.redis.rpush(queue.intermediate_queue_key, "gone")
    shop.start()
    shop.wait_for_marks("note", 1, 30)
    wait_for(lambda: status(shop, job.id) == "finished", 5, "the end")
    wait_for(lambda: shop.redis.llen(queue.intermediate_queue_key) == 0, 10, "an empty list")


def test_warm_stop(shop: Shop) -> None:
    """SIGTERM lets the running job end and takes no other; the exit code is 0."""
    running, waiting = shop.dispatch("slow", 3), shop.dispatch("note", "later")
    worker = shop.start()
    shop.wait_for_marks("begin")
    worker.send(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert (len(shop.marks("end")), status(shop, running.id)) == (1, "finished")
    assert (shop.marks("note"), status(shop, waiting.id)) == ([], "queued")


def test_cold_stop(shop: Shop) -> None:
    """A second SIGTERM ends the job at once and puts it first in its queue; the exit code is 0."""
    running, waiting = shop.dispatch("slow", 20), shop.dispatch("note", "later")
    worker = shop.start()
    shop.wait_for_marks("begin")
    worker.send(signal.SIGTERM)
    time.sleep(1.2)
    worker.send(signal.SIGTERM)
    assert worker.wait(12) == 0
    assert shop.engine.queue("default").job_ids == [running.id, waiting.id]
    job = shop.engine.fetch(running.id)
    interrupted = getattr(job, "interrupted", None)
    assert (job.get_status(), interrupted, job.retries_left) == (JobStatus.QUEUED, 1, 2)
    assert shop.engine.queue("default").started_job_registry.get_job_ids(cleanup=False) == []


@pytest.mark.alone
def test_stop_has_an_end(tmp_path: Path, redis_url: str) -> None:
    """A job that does not end within SHUTDOWN_SECONDS is put back in time, with one signal."""
    with Shop(tmp_path, redis_url, SHUTDOWN_SECONDS="4") as shop:
        job = shop.dispatch("slow", 60)
        worker = shop.start()
        shop.wait_for_marks("begin")
        began = time.monotonic()
        worker.send(signal.SIGTERM)
        assert worker.wait(10) == 0
        assert time.monotonic() - began < 4
        assert shop.engine.queue("default").job_ids == [job.id]


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_stop(shop: Shop, number: signal.Signals) -> None:
    """An idle worker ends within two seconds of a signal, with 0, and is gone from Redis."""
    worker = shop.start()
    time.sleep(0.5)
    began = time.monotonic()
    worker.send(number)
    assert worker.wait(5) == 0
    assert time.monotonic() - began < 2
    assert shop.redis.scard("rq:workers") == 0


def test_signals_reach_programs(shop: Shop) -> None:
    """SIGTERM to every process of a service ends no job; programs that a job starts can be ended as ever."""
    shop.dispatch("slow", 2)
    worker = shop.start()
    shop.wait_for_marks("begin")
    os.kill(shop.horse(worker), signal.SIGTERM)
    shop.wait_for_marks("end")
    assert len(shop.marks("begin")) == 1
    shop.dispatch("program")
    assert shop.wait_for_marks("program") == [["-15"]]


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_planted_pickle(shop: Shop) -> None:
    """Pickles planted as payload, meta or result never run; the job fails with a reason."""
    trace = shop.folder / "owned"
    bomb = pickle.dumps(Bomb(trace))
    plant(shop, "bomb", data=zlib.compress(bomb))
    call = b'["shop.note", null, ["alive"], {}]'
    plant(shop, "fuse", data=zlib.compress(call), meta=bomb, result=bomb)
    shop.start("--burst").wait(20)
    assert shop.marks("note") == [["alive"]]
    assert status(shop, "bomb") == "failed"
    assert "DeserializationError" in reason(shop, "bomb")
    assert not trace.exists()


def test_a_planted_name(shop: Shop) -> None:
    """A job named os.system never runs, nor do callbacks found in Redis, nor any import."""
    trace = shop.folder / "owned"
    call = f'["os.system", null, ["touch {trace}"], {{}}]'.encode()
    plant(shop, "named", data=zlib.compress(call))
    instance = f'["__format__", "{{}}", ["touch {trace}"], {{}}]'.encode()
    plant(shop, "instance", data=zlib.compress(instance))
    call = b'["shop.note", null, ["alive"], {}]'
    callbacks = dict.fromkeys(("success_callback_name", "failure_callback_name"), "antigravity.main")
    plant(shop, "callback", data=zlib.compress(call), **callbacks)
    worker = shop.start("--burst")
    worker.wait(20)
    assert not trace.exists()
    assert shop.marks("note") == [["alive"]]
    assert status(shop, "callback") == "finished"
    for job_id in ("named", "instance"):
        assert status(shop, job_id) == "failed"
        assert "is not registered with @prod.job" in reason(shop, job_id)


def test_unreadable_records(shop: Shop) -> None:
    """Records that RQ cannot read stop neither the worker nor the queue; they end among the failed ones."""
    plant(shop, "bad-status", data=b"[]", status="owned")
    plant(shop, "bad-timeout", data=b"[]", timeout="soon")
    plant(shop, "empty", data=b"")
    shop.redis.rpush("rq:queue:shop:test:default", "gone")
    shop.redis.set("rq:job:string", "x")
    shop.redis.rpush("rq:queue:shop:test:default", "string")
    shop.dispatch("note", "alive")
    worker = shop.start("--burst")
    assert worker.wait(20) == 0
    assert shop.marks("note") == [["alive"]]
    failed = shop.engine.queue("default").failed_job_registry.get_job_ids(cleanup=False)
    assert {"bad-status", "bad-timeout", "empty", "string"} <= set(failed)


def test_queues_in_order(shop: Shop) -> None:
    """One worker serves several queues, the most urgent first, and leaves nothing between taken and begun."""
    for word in ("a", "b"):
        shop.dispatch("note", word)
        shop.dispatch("urgent", word)
    shop.start("--queues", "high,default", "--burst").wait(20)
    lines = (shop.folder / "marks").read_text().split("\n")
    words = [line.split()[0] for line in lines if line.startswith(("note", "urgent"))]
    assert words == ["urgent", "urgent", "note", "note"]
    assert shop.redis.keys("*intermediate*") == []


@pytest.mark.alone
def test_waiting_on_the_second_queue(shop: Shop) -> None:
    """A job for the less urgent queue of an idle worker begins within half a second."""
    shop.start("--queues", "high,default")
    time.sleep(1)
    began = time.monotonic()
    shop.dispatch("note", "x")
    shop.wait_for_marks("note")
    assert time.monotonic() - began < 0.5


def test_two_services(tmp_path: Path, redis_url: str) -> None:
    """Workers of two services on one Redis run their own service's jobs only."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        Shop(tmp_path / "a", redis_url, SERVICE_NAME="a") as first,
        Shop(tmp_path / "b", redis_url, SERVICE_NAME="b") as second,
    ):
        first.dispatch("note", "for-a")
        second.start("--burst").wait(20)
        assert (first.marks("note"), second.marks("note")) == ([], [])
        first.start("--burst").wait(20)
        assert first.marks("note") == [["for-a"]]


def test_rq_sees_its_worker(shop: Shop) -> None:
    """RQ's own tools see the worker, its queues and its heartbeat, which ends three beats after its death."""
    worker = shop.start()
    [seen] = Worker.all(connection=shop.redis)
    assert seen.queue_names() == ["shop:test:high", "shop:test:default"]
    assert {seen.pid} == children(worker.pid)
    assert [state.workers for state in shop.engine.overview()] == [1, 1]
    wait_for(lambda: shop.redis.ttl(seen.key) <= 3, 5, "the first heartbeat")
    shop.kill(worker)
    wait_for(lambda: not shop.redis.exists(seen.key), 5, "the end of the heartbeat")
    assert [state.workers for state in shop.engine.overview()] == [0, 0]


def test_several_processes(shop: Shop) -> None:
    """--processes runs so many workers; one that is killed is replaced, and one SIGTERM ends all with 0."""
    supervisor = shop.start("--processes", "2")
    workers = wait_for(lambda: len(children(supervisor.pid)) == 2 and children(supervisor.pid), 10, "two workers")
    os.kill(min(workers), signal.SIGKILL)
    wait_for(lambda: len(children(supervisor.pid) - {min(workers)}) == 2, 10, "another worker")
    for word in "abcd":
        shop.dispatch("note", word)
    shop.wait_for_marks("note", 4)
    supervisor.send(signal.SIGTERM)
    assert supervisor.wait(10) == 0
    assert not any(alive(pid) for pid in workers)


def test_killed_supervisor(shop: Shop) -> None:
    """Workers whose supervisor was killed with -9 end on their own."""
    supervisor = shop.start("--processes", "2")
    workers = wait_for(lambda: len(children(supervisor.pid)) == 2 and children(supervisor.pid), 10, "two workers")
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in workers), 10, "the end of the workers")


def test_redis_restarts(tmp_path: Path, start_valkey: Callable[..., Valkey]) -> None:
    """A worker outlives a Redis that is away and comes back empty: it is known there again, by its name."""
    valkey = start_valkey()
    with Shop(tmp_path, valkey.url) as shop:
        worker = shop.start()
        name = shop.redis.smembers("rq:workers")
        wait_for(lambda: shop.redis.hget(next(iter(name)), "state") == b"idle", 5, "an idle worker")
        valkey.kill()
        time.sleep(2)
        valkey.start()
        wait_for(lambda: shop.redis.smembers("rq:workers") == name, 15, "the worker's return")
        shop.dispatch("note", "after")
        shop.wait_for_marks("note")
        assert worker.running
        assert "Traceback" not in worker.stderr


def test_redis_restarts_during_a_job(tmp_path: Path, start_valkey: Callable[..., Valkey]) -> None:
    """A job that runs while Redis is away for a moment is not begun again, and the worker goes on."""
    valkey = start_valkey(aof=True)
    with Shop(tmp_path, valkey.url) as shop:
        job = shop.dispatch("slow", 8)
        worker = shop.start()
        shop.wait_for_marks("begin")
        time.sleep(1.2)
        valkey.kill()
        time.sleep(2.5)
        valkey.start()
        shop.wait_for_marks("end")
        wait_for(lambda: status(shop, job.id) == "finished", 10, "the end")
        shop.dispatch("note", "after")
        shop.wait_for_marks("note", 1, 20)
        assert (worker.running, len(shop.marks("begin"))) == (True, 1)


def test_stop_without_redis(tmp_path: Path, start_valkey: Callable[..., Valkey]) -> None:
    """A worker that waits for Redis stops when told to, with 0."""
    valkey = start_valkey()
    with Shop(tmp_path, valkey.url) as shop:
        worker = shop.start()
        valkey.kill()
        wait_for(lambda: "away" in worker.stderr, 10, "the warning")
        worker.send(signal.SIGTERM)
        assert worker.wait(10) == 0


def test_the_whole_kit(tmp_path: Path, redis_url: str, http_sink: HttpSink) -> None:
    """With every room, a job's last failure is logged with the request's id and reported before the child ends."""
    settings = {"SENTRY_DSN": http_sink.dsn, "LOG_LEVEL": "INFO", "DATABASE_URL": "sqlite://"}
    with Shop(tmp_path, redis_url, rooms=None, **settings) as shop:
        view = shop.module.broken.dispatch
        shop.app.add_url_rule("/", view_func=lambda: view().id)
        response = shop.app.test_client().get("/")
        worker = shop.start("--burst")
        assert worker.wait(30) == 0
        lines = [json.loads(line) for line in (worker.stdout + worker.stderr).splitlines() if line.startswith("{")]

        assert status(shop, response.text) == "failed"
        [failed] = [line for line in lines if line.get("event") == "prod.job.failed"]
        assert failed["request_id"] == response.headers["X-Request-ID"]
        assert failed["fields"] == {
            "job": "shop.broken",
            "queue": "default",
            "id": response.text,
            "error": "ValueError",
        }
        [attempt] = [line for line in lines if line.get("error") == "ValueError"]
        assert "no good" in attempt["stack"]
        assert any(b"shop.broken" in request.body for request in http_sink.wait_for(1))


def test_no_redis_url(shop: Shop) -> None:
    """Without a REDIS_URL the command ends at once and says what to set."""
    worker = shop.start(REDIS_URL="")
    assert worker.wait(10) == 1
    assert "REDIS_URL" in worker.stderr
    assert "flask prod up" in worker.stderr


def test_help(shop: Shop) -> None:
    """--help shows examples."""
    worker = shop.start("--help")
    assert worker.wait(10) == 0
    assert "flask prod worker --queues high,default --processes 4" in worker.stdout
