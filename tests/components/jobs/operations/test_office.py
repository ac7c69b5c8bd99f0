from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import pytest
from click.testing import Result
from flask import Flask
from rq.exceptions import NoSuchJobError

from flask_prod.components.jobs.engine import Engine
from flask_prod.components.jobs.operations.office import CannotBeDone
from tests.apps import MakeApp

from ..orders import Colour, paint, plain, shop, stepwise

Run = Callable[..., Result]


@pytest.fixture
def app(make_app: MakeApp, redis_url: str) -> Iterator[Flask]:
    """Give an application with these jobs, in its context."""
    app = make_app(kit=shop, REDIS_URL=redis_url, JOBS_WARN_AGE="5m", JOBS_WARN_WAITING=2, JOBS_WARN_DEAD=1)
    with app.app_context():
        yield app


@pytest.fixture
def run(app: Flask) -> Run:
    """Run `flask prod jobs` with these words."""
    command = next(c for c in app.extensions["prod"].contributions["jobs"].commands if c.name == "jobs")

    def run(*words: str) -> Result:
        return app.test_cli_runner().invoke(command, words)

    return run


def bury(engine: Engine, *ids: str) -> None:
    """Let jobs be dead as a worker leaves them."""
    client, queue = engine.redis.client("jobs"), engine.queue("default")
    for job_id in ids:
        client.lrem(queue.key, 0, job_id)
        client.zadd(queue.failed_job_registry.key, {job_id: 2**40})
        reason = "Traceback\n  line\nKeyError: 'x'\n"
        client.hset(f"rq:job:{job_id}", mapping={"status": "failed", "exc_info": reason, "crashes": 2})


def test_requeue(app: Flask, engine: Engine) -> None:
    """A dead job runs again with all its attempts; one that is not dead is refused by its state."""
    job = plain.retry(3).dispatch()
    bury(engine, job.id)
    engine.redis.client("jobs").hset(job.key, "retries_left", 0)
    engine.office.requeue(job.id)
    again = shop.jobs.fetch(job.id)
    assert (again.get_status().value, again.retries_left) == ("queued", 3)
    assert engine.office.show(job.id).crashes == 0
    assert engine.office.dead_ids() == []
    with pytest.raises(CannotBeDone, match=rf"{job.id}.* is queued"):
        engine.office.requeue(job.id)


def test_delete(app: Flask, engine: Engine) -> None:
    """A deleted job is in no list any more; one that runs is refused."""
    waiting, scheduled, running = plain.dispatch(), plain.delay(60).dispatch(), plain.dispatch()
    client = engine.redis.client("jobs")
    client.hset(running.key, "status", "started")
    for job in (waiting, scheduled):
        engine.office.delete(job.id)
        with pytest.raises(NoSuchJobError, match=job.id):
            engine.office.show(job.id)
    assert waiting.id not in engine.queue("default").job_ids
    with pytest.raises(CannotBeDone, match="runs; cancel it"):
        engine.office.delete(running.id)


@pytest.mark.parametrize("state", ["queued", "scheduled", "deferred"])
def test_cancel(app: Flask, engine: Engine, state: str) -> None:
    """A canceled job is taken from where it waits, and says so."""
    first = plain.dispatch()
    how = {"queued": plain.on("default"), "scheduled": plain.delay(60), "deferred": plain.after(first)}
    job = how[state].dispatch()
    assert shop.jobs.cancel(job.id) == state
    assert shop.jobs.fetch(job.id).is_canceled
    assert [one.id for one in engine.office.listing("canceled")] == [job.id]
    queue = engine.queue("default")
    places = (*queue.job_ids, *queue.scheduled_job_registry.get_job_ids(cleanup=False))
    assert job.id not in (*places, *queue.deferred_job_registry.get_job_ids())
    with pytest.raises(CannotBeDone, match="is canceled already"):
        shop.jobs.cancel(job.id)


def test_cancel_a_running_one(app: Flask, engine: Engine) -> None:
    """For a job that runs, its worker is asked."""
    job = plain.dispatch()
    engine.redis.client("jobs").hset(job.key, "status", "started")
    assert shop.jobs.cancel(job.id) == "started"
    assert engine.redis.client("jobs").smembers("shop:test:jobs:stops") == {job.id.encode()}


def test_progress(app: Flask, engine: Engine) -> None:
    """What a job says of its progress can be seen from outside while it runs; plain calls say nothing."""
    stepwise()
    job = stepwise.dispatch()
    shop.jobs.fetch(job.id).perform()
    shown = engine.office.show(job.id)
    assert (shown.progress, shown.message) == (0.4, "half")
    with pytest.raises(ValueError, match="fraction from 0 to 1, not 40"):
        shop.jobs.progress(40)


def test_progress_of_a_deleted_job(app: Flask, engine: Engine) -> None:
    """The progress of a job whose record is gone does not bring half a record back."""
    job = shop.jobs.fetch(stepwise.dispatch().id)
    engine.redis.client("jobs").delete(job.key)
    job.perform()
    assert not engine.redis.client("jobs").exists(job.key)


def test_reading_changes_nothing(app: Flask, engine: Engine, run: Run) -> None:
    """No view writes to Redis, also where RQ's own counts would clean up and run handlers."""
    client = engine.redis.client("jobs")
    job = plain.dispatch()
    bury(engine, plain.dispatch().id)
    client.zadd(engine.queue("default").started_job_registry.key, {"abandoned:1": 1})
    client.zadd(engine.queue("default").failed_job_registry.key, {"expired": 1})
    engine.overview()
    before = client.info("persistence")["rdb_changes_since_last_save"]
    views: Sequence[tuple[str, ...]] = (
        (), ("stats",), ("list",), ("dead",), ("show", job.id), ("schedule",), ("list", "--state", "running"),
    )  # fmt: skip
    for words in views:
        assert run(*words).exit_code == 0, words
    app.extensions["prod"].contributions["jobs"].checks[0].probe()
    engine.watch()
    assert client.info("persistence")["rdb_changes_since_last_save"] == before


def test_list_and_show(app: Flask, run: Run) -> None:
    """list finds jobs by state, queue and tag; show has all there is of one, arguments only when asked for."""
    job = paint.tagged("vip").dispatch(Colour.RED)
    plain.dispatch()
    assert job.id in run("list", "--queue", "paint").output
    assert len(json.loads(run("list", "--tag", "vip", "--json").output)) == 1
    assert run("list", "--state", "dead").output.strip() == "No job is dead."
    shown = run("show", job.id).output
    assert "orders.paint" in shown
    assert "wall, vip" in shown
    assert "'red'" not in shown
    assert "'red'" in run("show", job.id, "--arguments").output


def test_dead(app: Flask, engine: Engine, run: Run) -> None:
    """dead says why, show has the traceback, requeue and delete take ids or --all."""
    ids = [plain.dispatch().id for _ in range(3)]
    bury(engine, *ids)
    assert run("dead").output.count("KeyError: 'x'") == 3
    assert "Traceback\n" in run("show", ids[0]).output
    assert run("requeue", ids[0]).output == f"{ids[0]} runs again\n"
    assert run("delete", ids[1]).output == f"{ids[1]} is deleted\n"
    assert run("requeue", "--all", "--queue", "default").output == f"{ids[2]} runs again\n"
    assert run("requeue", "--all").output == "No job is dead.\n"


def test_dead_that_is_gone_holds_up_no_other(app: Flask, engine: Engine, run: Run) -> None:
    """A dead job whose record was evicted is forgotten by --all; one that refuses lets the others go on."""
    gone, dead, waiting, other = (plain.dispatch().id for _ in range(4))
    bury(engine, gone, dead, other)
    engine.redis.client("jobs").delete(engine.job_class.key_for(gone))

    named = run("requeue", waiting, dead)
    assert (named.exit_code, f"{dead} runs again" in named.output) == (1, True)
    everything = run("requeue", "--all")
    assert everything.exit_code == 0
    assert set(everything.output.splitlines()) == {
        f"{gone} is gone, and nothing is left of it",
        f"{other} runs again",
    }
    assert run("requeue", "--all").output == "No job is dead.\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("show", "nothing"), "There is no job 'nothing'"),
        (("cancel", "nothing"), "There is no job 'nothing'"),
        (("requeue", "nothing"), "There is no job 'nothing'"),
        (("pause", "nowhere"), "there is no queue 'nowhere'; known are default, paint"),
        (("list", "--queue", "nowhere"), "there is no queue 'nowhere'"),
        (("requeue",), "Name jobs by their ids, or give --all"),
        (("list", "--state", "lost"), "'lost' is not one of"),
    ],
)
def test_wrong_words(run: Run, words: tuple[str, ...], expected: str) -> None:
    """What is not known is refused by its name, without a stack."""
    result = run(*words)
    assert result.exit_code in (1, 2)
    assert expected in result.output
    assert "Traceback" not in result.output


def test_a_stranger(app: Flask, engine: Engine, run: Run) -> None:
    """A job of another service on the same Redis is not shown; rubbish among ours stops no list."""
    client = engine.redis.client("jobs")
    client.hset("rq:job:theirs", mapping={"origin": "bank:test:default", "data": "x", "created_at": ""})
    assert "There is no job 'theirs'" in run("show", "theirs").output
    queue = engine.queue("default")
    client.zadd(queue.failed_job_registry.key, {"a:b": 1, "rubbish": 2, "list": 3})
    client.hset("rq:job:rubbish", mapping={"created_at": "never"})
    client.rpush("rq:job:list", "x")
    assert run("dead").exit_code == 0
    client.rpush(queue.key, b"\xff\xfe")
    assert run("list").exit_code == 0
    assert run().exit_code == 0


def test_pause(app: Flask, engine: Engine, run: Run) -> None:
    """A paused queue says so in the table and the health check's words, until it is resumed."""
    plain.dispatch()
    run("pause", "default")
    assert engine.office.paused() == {"default"}
    assert "paused" in run().output
    run("resume", "default")
    assert engine.office.paused() == frozenset()
    assert "paused" not in run().output


def test_restart(engine: Engine, run: Run) -> None:
    """restart leaves word for all workers."""
    assert run("restart").exit_code == 0
    assert engine.redis.client("jobs").get("shop:test:jobs:restart")


def test_thresholds(app: Flask, engine: Engine) -> None:
    """The check warns of jobs that wait too long, are too many, or dead, by queue, number and setting."""
    client = engine.redis.client("jobs")
    old = plain.dispatch()
    for _ in range(2):
        plain.dispatch()
    client.hset(old.key, "enqueued_at", "2020-01-01T00:00:00.000000Z")
    bury(engine, *(paint.dispatch(Colour.RED).id for _ in range(2)))
    finding = app.extensions["prod"].contributions["jobs"].checks[0].probe()
    assert finding.status == "warn"
    for words in (
        "on default, and JOBS_WARN_AGE is 300 s",
        "3 jobs wait on default",
        "2 jobs are dead",
        "no worker",
    ):
        assert words in finding.detail


def test_oldest(app: Flask, engine: Engine) -> None:
    """The age of the oldest is that of a waiting job or of a scheduled one that is overdue."""
    assert [state.oldest for state in engine.overview()] == [0, 0]
    job = plain.dispatch()
    assert next(state.oldest for state in engine.overview() if state.queue == "default") < 5
    engine.redis.client("jobs").hset(job.key, "enqueued_at", "2020-01-01T00:00:00.000000Z")
    plain.priority("high").dispatch()
    assert next(state.oldest for state in engine.overview() if state.queue == "default") > 10**8
