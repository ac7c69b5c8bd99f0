"""What is left of a service that was stopped: nothing, however often it is started and stopped."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import tempfile
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from flask import Flask

from flask_prod import ProdKit
from flask_prod.server.child import living_members
from flask_prod.server.rehearsal import own_memory
from tests.faults.load import SHORT
from tests.servers import HOST, Gunicorn, Postgres, Valkey, alive, wait_for

pytestmark = pytest.mark.faults

TIMES = 3 if SHORT else 100
KINDS = ("gthread", "gevent", "sync")
SOURCE = """
from flask import Flask
from sqlalchemy import text
from flask_prod import ProdKit

prod = ProdKit()

@prod.job
def work(number):
    return number

def create_app():
    app = Flask("shop")
    prod.init_app(app)

    @app.get("/")
    @prod.cache.cached(ttl="1s", public=True)
    def home():
        return "hello"

    @app.get("/work")
    def busy():
        prod.db.session.execute(text("SELECT 1"))
        prod.db.session.commit()
        work.dispatch(1)
        return "done"

    return app
"""


def surroundings(valkey: Valkey, url: str) -> dict[str, str]:
    """Return the settings of a service with all rooms on."""
    return {
        "ENVIRONMENT": "test", "REDIS_URL": valkey.url, "DATABASE_URL": url, "RATE_LIMIT_PUBLIC": "100000",
        "CACHE_BACKEND": "tiered", "SHUTDOWN_SECONDS": "5", "LOG_LEVEL": "WARNING",
    }  # fmt: skip


def visit(server: Gunicorn) -> None:
    """Let both workers use database, Redis, cache, queue and probes."""
    for _ in range(4):
        for path in ("/", "/work", "/health", "/metrics"):
            assert server.get(path).status < 400, server.stderr


def clients(valkey: Valkey) -> int:
    """Return how many connections Valkey has beside the one that asks."""
    with socket.create_connection((HOST, valkey.port), 2) as connection:
        connection.sendall(b"CLIENT LIST\r\n")
        time.sleep(0.05)
        return connection.recv(1 << 20).count(b" addr=") - 1


def sessions(postgres: Postgres) -> int:
    """Return how many clients PostgreSQL has beside the one that asks."""
    import psycopg

    with psycopg.connect(postgres.dsn, connect_timeout=5) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchone()
    return int(row[0]) if row else -1


def live_and_die(server: Gunicorn) -> None:
    """Start a server, use it, stop it, and look for processes, listener and shared memory."""
    server.start()
    visit(server)
    workers, memory = server.worker_pids(), own_memory(server.pid)
    assert memory
    server.term()
    assert server.wait(10) == 0, server.stderr

    assert not living_members(server.pid)
    assert not [pid for pid in workers if alive(pid)]
    assert not [folder for folder in memory if folder.exists()]
    assert "Traceback" not in server.stderr + server.stdout, server.stderr + server.stdout
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((HOST, server.port), 1)


def files(folder: Path) -> set[str]:
    """Return every file and directory below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def held(folder: Path) -> Iterator[str]:
    """Yield the files below a folder that somebody holds a lock on."""
    for path in folder.rglob("*.lock"):
        with open(path, "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield str(path)


@pytest.mark.timeout(1800)
def test_nothing_is_left_of_a_server(
    valkey: Valkey, shared_postgres: Postgres, postgres_url: str, tmp_path: Path
) -> None:
    """Started, used and stopped: no process, listener, connection, lock, shared memory or temporary file stays."""
    own = tmp_path / "temporary"
    own.mkdir()
    env = {**surroundings(valkey, postgres_url), "TMPDIR": str(own)}
    connected, in_session = clients(valkey), sessions(shared_postgres)
    server = Gunicorn(
        source=SOURCE, config="python:flask_prod.server.gunicorn_conf", env=env, ready="/health/live"
    )  # fmt: skip
    with closing(server):
        for number in range(TIMES):
            server.args = ("--workers", "2", "--worker-class", KINDS[number % 3], "--log-level", "warning")
            live_and_die(server)
            wait_for(lambda: clients(valkey) == connected, 3, "Valkey to be left alone")
            wait_for(lambda: sessions(shared_postgres) == in_session, 3, "PostgreSQL to be left alone")
            assert list(held(own)) == []
    # RUN_DIR stays, with a few small files of fixed names, which nobody holds.
    (run_dir,) = own.iterdir()
    assert run_dir.name.startswith(f"flask-prod-{os.getuid()}-")
    assert len(files(own)) < 15, files(own)


def descriptors() -> Counter[str]:
    """Return the open files of this process by kind or path."""
    found: Counter[str] = Counter()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[os.readlink(path).partition("[")[0]] += 1
    return found


def once(env: dict[str, str], root: Path) -> weakref.ref[Flask]:
    """Build an application with all rooms, use it, and close it, as a worker does in its life."""
    prod = ProdKit()
    app = Flask("shop", root_path=str(root), instance_path=str(root / "instance"))
    app.config.update(env)

    @app.get("/")
    @prod.cache.cached(ttl="1s", public=True)  # type: ignore[untyped-decorator, unused-ignore]
    def home() -> str:
        return "hello"

    prod.init_app(app)
    state = app.extensions["prod"]
    state.lifecycle.start()
    client = app.test_client()
    for path in ("/", "/health", "/health/ready", "/metrics"):
        assert client.get(path).status_code < 500
    with app.app_context():
        from sqlalchemy import text

        prod.db.session.execute(text("SELECT 1"))
    state.lifecycle.close()
    return weakref.ref(app)


def test_nothing_is_left_in_a_process(valkey: Valkey, postgres_url: str, tmp_path: Path) -> None:
    """An application that was closed leaves no thread, socket, open or temporary file, nor itself in memory."""
    env = surroundings(valkey, postgres_url)
    once(env, tmp_path)  # what is imported for the first time stays, as do its files
    gc.collect()
    threads, opened = set(threading.enumerate()), descriptors()
    shared, temporary = own_memory(os.getpid()), set(os.listdir(tempfile.gettempdir()))
    for _ in range(TIMES):
        app = once(env, tmp_path)
        gc.collect()

        assert app() is None
        left = [thread.name for thread in set(threading.enumerate()) - threads]
        assert left == []
        assert descriptors() - opened == Counter()
    assert own_memory(os.getpid()) <= shared
    assert set(os.listdir(tempfile.gettempdir())) <= temporary
