from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod import ProdKit
from flask_prod.core.component import Finding
from flask_prod.core.errors import ConfigError, Unavailable
from flask_prod.server.worker import worker as worker_command
from tests import servers
from tests.apps import MakeApp

from .outbox.test_outbox import engine_of, kit_with_database, outbox_of
from .work import add, prod


def look(app: Flask) -> Finding:
    finding = app.extensions["prod"].contributions["jobs"].checks[0].probe()
    assert isinstance(finding, Finding)
    return finding


def test_check_without_workers(app: Flask) -> None:
    """The check warns when jobs wait and no worker lives, and only then."""
    assert look(app).status == "ok"
    add.dispatch(1)
    finding = look(app)
    assert finding.status == "warn"
    assert "flask prod worker" in finding.detail
    assert finding.data["waiting"] == {"emails": 0, "default": 1}


def test_check_counts_due_jobs(app: Flask) -> None:
    """A scheduled job whose time has come counts as waiting: without a worker nobody moves it."""
    add.delay(600).dispatch(1)
    assert look(app).status == "ok"
    add.delay(0).dispatch(1)
    time.sleep(1.1)
    assert look(app).status == "warn"


def test_check_without_redis(make_app: MakeApp) -> None:
    """Without a REDIS_URL the check warns where there are jobs, and is content where there are none."""
    assert look(make_app(kit=prod)).status == "warn"
    assert look(make_app(kit=ProdKit(only=("jobs",)))).status == "ok"


CLUSTER = "redis+cluster://127.0.0.1:1,127.0.0.1:2"


def test_cluster_is_refused_at_start(make_app: MakeApp) -> None:
    """An application whose jobs would lie in a Redis cluster does not start, and is told what to do."""
    with pytest.raises(ConfigError, match="JOBS_BACKEND=database"):
        make_app(kit=prod, REDIS_URL=CLUSTER)


def test_cluster_without_jobs(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """A cluster is fine where no job is registered; one that comes later is told by dispatch, check and worker."""
    kit = ProdKit(only=("jobs",))
    app = make_app(kit=kit, REDIS_URL=CLUSTER)
    assert look(app).status == "ok"
    late = kit.job(queue="emails")(add.function)

    with app.app_context(), pytest.raises(Unavailable, match="Redis cluster"):
        late.dispatch(1, 2)
    assert "Redis cluster" in look(app).detail
    app.extensions["prod"].contributions["jobs"].start()
    assert "Redis cluster" in caplog.text
    worker = app.test_cli_runner().invoke(worker_command, obj=ScriptInfo(create_app=lambda: app))
    assert (worker.exit_code, "Redis cluster" in worker.output) == (1, True)


def test_cluster_beside_the_database(make_app: MakeApp, tmp_path: Path) -> None:
    """With JOBS_BACKEND=database, jobs need nothing of the cluster that other rooms use."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/shop.db", "JOBS_BACKEND": "database"}
    app = make_app(kit=kit_with_database(), REDIS_URL=CLUSTER, **settings)
    outbox_of(app).create()

    with app.app_context():
        add.dispatch(1, 2)
        taken = engine_of(app).backend.source(engine_of(app), "me", ("default",)).take(("default",), "aa01")

    assert taken is not None
    assert taken.job.args == [1, 2]


def test_check_does_not_hang(make_app: MakeApp, valkey: servers.Valkey) -> None:
    """A frozen Redis fails the check within half a second."""
    app = make_app(kit=ProdKit(only=("jobs", "health")), REDIS_URL=valkey.url)
    valkey.pause()
    began = time.perf_counter()
    result = app.extensions["prod"].contributions["health"].handle.report()
    seconds = time.perf_counter() - began
    valkey.resume()
    assert seconds < 1
    assert "jobs" in str(result)


def test_the_command(app: Flask) -> None:
    """`flask prod jobs` lists the queues with their counts, as a table or as JSON."""
    add.dispatch(1)
    runner = app.test_cli_runner()
    command = next(c for c in app.extensions["prod"].contributions["jobs"].commands if c.name == "jobs")
    table = runner.invoke(command)
    assert table.exit_code == 0
    assert table.output.splitlines()[0].split() == [
        "queue", "waiting", "oldest", "scheduled", "deferred", "running", "failed", "workers",
    ]  # fmt: skip
    assert "default" in table.output
    rows = json.loads(runner.invoke(command, ["--json"]).output)
    assert {row["queue"]: row["waiting"] for row in rows} == {"emails": 0, "default": 1}


def test_the_command_without_redis(make_app: MakeApp, valkey: servers.Valkey) -> None:
    """Without a Redis, or with one that is away, the command says so and exits with 1."""
    for url in ("", valkey.url):
        valkey.kill()
        app = make_app(kit=prod, REDIS_URL=url)
        command = app.extensions["prod"].contributions["jobs"].commands[0]
        result = app.test_cli_runner().invoke(command)
        assert result.exit_code == 1
        assert "Redis" in result.output or "REDIS_URL" in result.output
