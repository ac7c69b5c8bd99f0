"""What --online says of a real Redis and a real PostgreSQL, and that it has nothing to say of good ones."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from time import time
from typing import Any

import pytest
import trustme
from flask import Flask

from flask_prod import ProdKit
from flask_prod.components.jobs.delivery.source import Presence
from flask_prod.components.jobs.outbox.overview import note_presence
from flask_prod.components.jobs.outbox.table import Outbox
from flask_prod.review import Report, Subject, engine
from flask_prod.review.rules import RULES, servers, sums
from tests.pgtls import TlsFront
from tests.review.well import COMMON, subject_of
from tests.servers import Postgres, Valkey, free_port

ABOUT = ("P421", "P422", "P423", "P425", "P426", "P427", "P428", "P429", "P430", "P431", "B10")
PASSWORD = "hJ4wX8sNc6Qy1KfD"
QUEUE = "site:production:mail"


def nothing(_subject: Subject) -> None:
    """Leave everything as it is."""


def asked(folder: Path, first: Callable[[Subject], object] = nothing, **config: Any) -> Report:
    """Ask an application with one job what its servers say; *first* changes something there."""
    app = Flask("site", root_path=str(folder))
    app.config.from_mapping({**COMMON, "REDIS_URL": "", "DATABASE_URL": "", "DATABASE_TLS": None, **config})
    prod = ProdKit()
    prod.job(queue="mail")(lambda: None)
    prod.init_app(app)
    with subject_of(app, folder) as subject:
        first(subject)
        return engine.review(
            subject, RULES, more=lambda one: sums(one, online=True), online=True, only=ABOUT
        )  # fmt: skip


def found(folder: Path, first: Callable[[Subject], object] = nothing, **config: Any) -> dict[str, str]:
    """Return what was found, by id."""
    return {one.id: one.evidence for one in asked(folder, first, **config).findings}


def test_redis(valkey: Valkey, tmp_path: Path) -> None:
    """A missing password, a policy that evicts, no persistence and no worker are found; then nothing is."""
    assert found(tmp_path, REDIS_URL=valkey.url) == {
        "P425": "the server's user `default` is on and has no password",
        "P427": "jobs are on it, appendonly is no and nothing is saved",
        "P430": "no worker serves mail",
    }

    valkey.command("CONFIG", "SET", "maxmemory", "100mb")
    valkey.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    valkey.command("CONFIG", "SET", "save", "3600 1")
    again = found(tmp_path, REDIS_URL=valkey.url)
    assert set(again) == {"P425", "P426", "P430"}
    assert again["P426"] == "jobs are on it, maxmemory is 104857600 and its policy is allkeys-lru"

    valkey.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    valkey.command("SADD", f"rq:workers:{QUEUE}", "rq:worker:one")
    valkey.command("HSET", "rq:worker:one", "state", "idle")
    valkey.command("CONFIG", "SET", "requirepass", PASSWORD)
    assert found(tmp_path, REDIS_URL=valkey.url, REDIS_PASSWORD=PASSWORD) == {}

    refused = found(tmp_path, REDIS_URL=valkey.url)
    assert set(refused) == {"P422"}


def test_redis_tells_little(valkey: Valkey, tmp_path: Path) -> None:
    """An account that may not ask how the server is set up gets no finding that nobody can prove."""
    valkey.command("ACL", "SETUSER", "default", "-config", "-acl", "-info")

    assert set(found(tmp_path, REDIS_URL=valkey.url)) == {"P430"}


def test_jobs_in_a_table(tmp_path: Path) -> None:
    """A table of jobs that is not there is found; then that nobody takes jobs from it; then nothing."""
    config: dict[str, Any] = {"DATABASE_URL": f"sqlite:///{tmp_path}/jobs.db", "JOBS_OUTBOX": "always"}

    def table(subject: Subject) -> Outbox:
        made: Outbox = servers._engine(subject).backend.outbox()
        return made

    assert set(found(tmp_path, **config)) == {"P431"}
    assert found(tmp_path, lambda one: table(one).create(), **config) == {"P430": "no worker serves mail"}
    there = [Presence("one", 1, time(), "idle", 0, 0, 0.0)]
    assert (
        found(tmp_path, lambda one: note_presence(table(one), "x", ["mail"], there, time() + 60), **config) == {}
    )


@pytest.fixture
def shop(shared_postgres: Postgres) -> Iterator[str]:
    """Give the path of a database whose owner may do nothing else."""
    with shared_postgres.database() as url:
        name = url.rpartition("/")[2]
        shared_postgres.execute(f"CREATE ROLE {name}_owner LOGIN")
        try:
            shared_postgres.execute(f"ALTER DATABASE {name} OWNER TO {name}_owner")
            yield name
        finally:
            shared_postgres.execute(f"ALTER DATABASE {name} OWNER TO postgres")
            shared_postgres.execute(f"DROP ROLE {name}_owner")


def test_postgresql(shared_postgres: Postgres, shop: str, tmp_path: Path) -> None:
    """A superuser, a connection without TLS and too many connections are found; a careful owner has no finding."""
    at = f"db.example.com:{shared_postgres.port}/{shop}?hostaddr=127.0.0.1"
    pools: dict[str, Any] = {"DATABASE_MAX_OPEN_CONNS": 40, "WEB_CONCURRENCY": 3}
    bad = found(tmp_path, DATABASE_URL=f"postgresql+psycopg://postgres@{at}", DATABASE_TLS="prefer", **pools)

    assert "the server allows 117" in bad.pop("B10")
    assert bad == {
        "P428": "the server at db.example.com was reached without TLS",
        "P429": "the account of the connection is a superuser",
    }

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("db.example.com").configure_cert(context)
    with TlsFront(shared_postgres.port, context) as front:
        at = f"{shop}_owner@db.example.com:{front.port}/{shop}?hostaddr=127.0.0.1"
        good = found(
            tmp_path, DATABASE_URL=f"postgresql+psycopg://{at}", DATABASE_TLS="verify-full",
            DATABASE_TLS_CA=str(tmp_path / "ca.pem"),
        )  # fmt: skip

    assert front.encrypted
    assert good == {}


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that are away are two findings; what nobody could ask them is none, and is asked once."""
    ask, times = servers._ask_redis, count()
    monkeypatch.setattr(servers, "_ask_redis", lambda subject: (next(times), ask(subject))[1])
    port = free_port()
    report = asked(
        tmp_path,
        REDIS_URL=f"redis://127.0.0.1:{port}/0",
        JOBS_OUTBOX="always",
        DATABASE_URL=f"postgresql+psycopg://me@127.0.0.1:{port}/x",
    )

    assert [one.id for one in report.findings] == ["P421", "P422"]
    assert next(times) == 1
