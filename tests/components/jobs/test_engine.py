from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from rq.job import Job, JobStatus
from rq.queue import Queue

from flask_prod import ProdKit
from flask_prod.components.jobs import JsonSerializer
from flask_prod.components.jobs.dispatch.job import NotRegistered
from flask_prod.components.jobs.engine import Engine
from flask_prod.core.errors import ConfigError, Unavailable
from tests import servers
from tests.apps import MakeApp, StartFaultProxy

from .work import add, prod, send_mail


def jobs_of(app: Flask) -> Engine:
    engine: Engine = app.extensions["prod"].contributions["jobs"].handle
    return engine


def test_a_plain_rq_job(app: Flask, engine: Engine) -> None:
    """RQ's own classes, given our serializer, see the job as theirs."""
    when = datetime(2026, 3, 1, tzinfo=UTC)
    sent = send_mail.dispatch(7, when=when)
    connection = engine.redis.client("jobs")
    seen = Job.fetch(sent.id, connection=connection, serializer=JsonSerializer)

    assert seen.func_name == "tests.components.jobs.work.send_mail"
    assert (seen.args, seen.kwargs) == ([7], {"when": when})
    assert seen.get_status() == JobStatus.QUEUED
    assert Queue("shop:test:emails", connection=connection).job_ids == [sent.id]
    assert "shop:test:emails" in [queue.name for queue in Queue.all(connection)]
    assert seen.failure_ttl == 14 * 86400


def test_arguments_are_not_described(app: Flask) -> None:
    """RQ describes a job by its arguments; ours go by their name, so that no log line shows a secret."""
    assert send_mail.dispatch(7, token="hunter2").description == "tests.components.jobs.work.send_mail"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda job: job.dispatch(), r"work\.add: missing a required argument: 'a'"),
        (lambda job: job.dispatch(1, c=2), r"work\.add: got an unexpected keyword argument 'c'"),
        (lambda job: job.dispatch(a=object()), r"work\.add: argument 'a' must be int, not object"),
        (lambda job: job.dispatch(1, b="2"), r"work\.add: argument 'b' must be int, not str"),
        (lambda job: send_mail.dispatch(1, cc={1}), r"work\.send_mail: argument 'extra': set cannot be stored"),
    ],
)
def test_wrong_arguments(app: Flask, engine: Engine, call: Callable[[Any], object], words: str) -> None:
    """Arguments that do not fit are told at dispatch, by function and argument; nothing is queued."""
    with pytest.raises(TypeError, match=words):
        call(add)
    assert [state.waiting for state in engine.overview()] == [0, 0]


def test_one_round_trip(app: Flask, engine: Engine) -> None:
    """A dispatch is one command, and a second delivery of the same one changes nothing."""
    add.dispatch(1)
    client = engine.redis.client("request")
    before = client.info("commandstats")
    job = add.dispatch(2)
    after = client.info("commandstats")

    assert after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"] == 1
    assert client.llen("rq:queue:shop:test:default") == 2
    assert client.hget(job.key, "status") == b"queued"


def test_no_redis_configured(make_app: MakeApp) -> None:
    """Without a REDIS_URL, dispatch says which setting is missing and what brings a Redis."""
    with (
        make_app(kit=prod).app_context(),
        pytest.raises(Unavailable, match=r"REDIS_URL.*flask prod up") as caught,
    ):
        add.dispatch(1)
    assert "not accepted" in str(caught.value)


def timed_dispatch() -> float:
    began = time.perf_counter()
    with pytest.raises(Unavailable):
        add.dispatch(1)
    return time.perf_counter() - began


@pytest.mark.alone
def test_redis_down(make_app: MakeApp, valkey: servers.Valkey) -> None:
    """Dispatch to a Redis that is not there fails within 250 ms, the first time and later."""
    with make_app(kit=prod, REDIS_URL=valkey.url).app_context():
        add.dispatch(1)
        valkey.kill()
        times = [timed_dispatch() for _ in range(5)]
    assert max(times) < 0.25


@pytest.mark.alone
def test_redis_frozen(make_app: MakeApp, valkey: servers.Valkey) -> None:
    """Dispatch to a Redis that accepts connections and does not answer fails within 250 ms."""
    with make_app(kit=prod, REDIS_URL=valkey.url).app_context():
        add.dispatch(1)
        valkey.pause()
        times = [timed_dispatch() for _ in range(5)]
        valkey.resume()
    assert max(times) < 0.25


@pytest.mark.alone
def test_redis_behind_a_black_hole(
    make_app: MakeApp, valkey: servers.Valkey, fault_proxy: StartFaultProxy
) -> None:
    """Dispatch through a network that swallows everything fails within 250 ms."""
    proxy = fault_proxy(valkey.port)
    with make_app(kit=prod, REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0").app_context():
        add.dispatch(1)
        proxy.set("blackhole")
        times = [timed_dispatch() for _ in range(5)]
    assert max(times) < 0.25


def test_two_services(make_app: MakeApp, redis_url: str) -> None:
    """Two services on one Redis do not see one another's jobs, nor do two environments of one service."""
    apps = [
        make_app(kit=ProdKit(only=("jobs",)), REDIS_URL=redis_url, SERVICE_NAME=name, ENVIRONMENT=environment)
        for name, environment in (("shop", "test"), ("bank", "test"), ("shop", "development"))
    ]
    jobs_of(apps[0]).tasks.add(add)
    with apps[0].app_context():
        add.dispatch(1)
    assert [[state.waiting for state in jobs_of(app).overview()] for app in apps] == [[1], [0], [0]]


def test_only_registered_functions(app: Flask) -> None:
    """RQ's own enqueue takes registered jobs and nothing else."""
    queue = prod.jobs.queue("default")
    assert queue.enqueue(add, 1, b=2).func_name == "tests.components.jobs.work.add"
    with pytest.raises(NotRegistered, match=r"@prod\.job"):
        queue.enqueue("os.system", "true")
    with pytest.raises(TypeError, match="on_failure"):
        queue.enqueue(add, 1, on_failure=print)


def test_request_id_travels(app: Flask) -> None:
    """A job remembers the request that dispatched it."""
    app.add_url_rule("/", view_func=lambda: add.dispatch(1).id)
    response = app.test_client().get("/")
    job = prod.jobs.fetch(response.text)
    assert job.meta["request_id"] == response.headers["X-Request-ID"]


def test_due_jobs_are_moved_once(app: Flask, engine: Engine) -> None:
    """A scheduled job is moved to its queue when its time has come, by however many workers ask."""
    add.delay(0).dispatch(1)
    add.delay(600).dispatch(2)
    time.sleep(1.1)
    queue, client = engine.queue("default"), engine.redis.client("jobs")
    for _ in range(2):
        engine.enqueue_due([queue], client)
    assert (queue.count, queue.scheduled_job_registry.get_job_count(cleanup=False)) == (1, 1)
    assert queue.jobs[0].get_status() == JobStatus.QUEUED


def test_comma_in_the_service_name(make_app: MakeApp) -> None:
    """A service name that RQ's records of a worker could not hold is refused at start."""
    with pytest.raises(ConfigError, match="SERVICE_NAME must have no comma"):
        make_app(kit=ProdKit(only=("jobs",)), SERVICE_NAME="a,b")


def test_settings(make_app: MakeApp) -> None:
    """Settings that make no sense are refused at start, all at once."""
    with pytest.raises(ConfigError) as caught:
        make_app(kit=ProdKit(only=("jobs",)), JOBS_QUEUES="a:b", JOBS_WORKERS=0, JOBS_DEFAULT_TIMEOUT="0s")
    text = str(caught.value)
    assert "JOBS_WORKERS must be" in text
    assert "JOBS_DEFAULT_TIMEOUT must be" in text
