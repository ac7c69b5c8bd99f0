"""The job that does nothing: sent to every queue, by way of the outbox, and done by real workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod.cli.group import prod as command
from flask_prod.components.jobs.engine import Engine
from flask_prod.components.jobs.operations.ping import NobodyCame, ping_queues
from tests.apps import MakeApp
from tests.components.jobs.outbox.test_outbox import engine_of, kit_with_database, outbox_of
from tests.servers import Process

from ..work import prod

SHOP = """
from flask import Flask
from flask_prod import ProdKit

prod = ProdKit(only=("jobs", "database"))

@prod.job(queue="emails")
def send():
    pass

def create_app():
    app = Flask("shop")
    prod.init_app(app)
    return app
"""


@pytest.mark.deploy
def test_every_queue_answers(make_app: MakeApp, tmp_path: Path) -> None:
    """A worker brings back a job of each of its queues from the database; tests/deploy has those through Redis."""
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'jobs.db'}",
        "JOBS_OUTBOX": "always",
        "ENVIRONMENT": "test",
    }
    app = make_app(kit=kit_with_database(), **settings)
    outbox_of(app).create()
    (tmp_path / "app.py").write_text(SHOP)
    worker = Process(tmp_path)
    worker.launch(
        [sys.executable, "-m", "flask", "--app", "app:create_app", "prod", "worker"],
        {**os.environ, **settings}, tmp_path,
    )  # fmt: skip
    try:
        found = ping_queues(engine_of(app), 20)
    finally:
        worker.finish()

    assert set(found) == {"emails", "default"}


def test_nobody_serves(engine: Engine) -> None:
    """Without a worker the queues from which nothing came back are named."""
    with pytest.raises(NobodyCame, match=r"a job of emails, default within 0\.1 s"):
        ping_queues(engine, 0.1)


def test_command(app: Flask) -> None:
    """The command ends with 1 and one sentence when nobody comes."""
    info = ScriptInfo(create_app=lambda: app)

    done = CliRunner().invoke(command, ["jobs", "ping", "--queue", "emails", "--timeout", "0.1"], obj=info)

    assert done.exit_code == 1
    assert done.output == "Error: no worker has done a job of emails within 0.1 s: is there a worker?\n"


def test_listed_nowhere(engine: Engine) -> None:
    """Nobody's list of jobs has it: an application without jobs stays one."""
    assert not any("ping" in name for name in prod.jobs.names())
    assert engine.tasks.get("flask_prod.components.jobs.operations.ping.ping") is not None
