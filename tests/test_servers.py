"""The suite's own tools: what they start runs, misbehaves on demand, and is gone afterwards."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest
import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import servers
from tests.apps import MakeApp, StartFaultProxy, StartGunicorn

NO_RETRY = Retry(NoBackoff(), 0)

APP = """
import os
from flask import Flask
def create_app():
    app = Flask(__name__)
    @app.get("/")
    def home():
        return {"pid": os.getpid(), "colour": os.environ.get("COLOUR", "")}
    return app
"""


def test_valkey_answers_freezes_and_comes_back(valkey: servers.Valkey) -> None:
    """A paused server accepts and stays silent; a resumed one goes on; a killed one starts on the same port."""
    client = redis.Redis.from_url(valkey.url, socket_timeout=0.2, retry=NO_RETRY)
    with client:
        client.set("stock", 1)
        valkey.pause()
        with pytest.raises(redis.TimeoutError):
            client.get("stock")
        valkey.resume()
        assert client.get("stock") == b"1"
        valkey.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("stock")
        valkey.start()
        assert client.get("stock") is None


def test_valkey_with_aof_keeps_its_data() -> None:
    """With aof=True what was written is there after a restart."""
    with servers.Valkey(aof=True) as server:
        assert server.command("SET", "stock", "1") == b"+OK"
        server.stop()
        server.start()
        assert server.command("EXISTS", "stock") == b":1"


@pytest.mark.parametrize("turn", [1, 2])
def test_redis_url_is_empty(redis_url: str, turn: int) -> None:
    """Whatever an earlier test wrote is gone."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", turn)


@pytest.mark.parametrize("turn", [1, 2])
def test_postgres_url_is_fresh(postgres_url: str, turn: int) -> None:
    """Every test gets a database of its own."""
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE stock (id int)")


def test_gunicorn_serves_and_stops(gunicorn: StartGunicorn) -> None:
    """Workers answer over HTTP with the given environment, TERM ends all with code 0."""
    server = gunicorn(source=APP, args=["--workers", "2"], env={"COLOUR": "red"})
    servers.wait_for(lambda: len(server.worker_pids()) == 2, 10, "two workers")  # one answers before the other
    workers = server.worker_pids()

    answer = server.get("/")
    server.term()

    assert answer.json["colour"] == "red"
    assert answer.json["pid"] in workers
    assert server.wait(10) == 0
    assert not any(servers.alive(pid) for pid in workers)


def test_gunicorn_that_cannot_start_says_why(gunicorn: StartGunicorn) -> None:
    """The output of a server that ends at once is part of the error."""
    with pytest.raises(RuntimeError, match="no such thing"):
        gunicorn(source="raise RuntimeError('no such thing')")


def test_sink_keeps_requests_and_misbehaves(http_sink: servers.HttpSink) -> None:
    """Bodies arrive unpacked; the mode decides the answer."""
    packed = gzip.compress(b'{"a": 1}')
    request = urllib.request.Request(http_sink.url + "/api", packed, {"Content-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=2) as response:
        assert response.status == 200
    assert http_sink.wait_for(1)[0].json == {"a": 1}

    http_sink.mode = "hang"
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(http_sink.url, timeout=0.2)


def test_fault_proxy_swallows(valkey: servers.Valkey, fault_proxy: StartFaultProxy) -> None:
    """A black hole in front of a healthy server looks like a silent server."""
    proxy = fault_proxy(valkey.port)
    with redis.Redis(port=proxy.port, socket_timeout=0.2, retry=NO_RETRY) as client:
        assert client.ping()
        proxy.set("blackhole")
        with pytest.raises(redis.TimeoutError):
            client.ping()
    assert proxy.status()["swallowed"] > 0


def test_server_dies_with_its_parent(tmp_path: Path) -> None:
    """When the process that runs the suite is killed with -9, its servers go too, and the next run tidies."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests import servers\n"
        "server = servers.Valkey().start()\n"
        "print(server.pid, server.folder, flush=True)\n"
        "sys.stdin.read()\n"
    )
    root = str(Path(__file__).parent.parent)
    env = {**os.environ, "TMPDIR": str(servers.TEMP)}
    command = [sys.executable, "-c", code, root]
    parent = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        servers.remove_abandoned()
        pid, folder = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
        parent.wait(5)

    servers.wait_for(lambda: not servers.alive(int(pid)), 5, "the end of the server")
    servers.remove_abandoned()
    assert not Path(os.fsdecode(folder)).exists()


def test_make_app_builds_a_shop_in_test(make_app: MakeApp) -> None:
    """The application is called shop, runs as test, and takes settings by keyword."""
    app: Flask = make_app(only=(), SERVICE_VERSION="7")

    assert app.name == "shop"
    assert app.extensions["prod"].service.environment == "test"
    assert app.extensions["prod"].service.service_version == "7"


def test_environment_of_the_developer_is_hidden() -> None:
    """No variable of the shell that started the suite can become a setting."""
    assert "SECRET_KEY" not in os.environ
    assert "REDIS_URL" not in os.environ


def test_free_port_is_free() -> None:
    """A port that is handed out can be bound at once."""
    with socket.create_server((servers.HOST, servers.free_port())):
        pass


LEAKS = {
    "thread": "import threading; threading.Thread(target=lambda: stop.wait(1.5)).start()",
    "process": "import subprocess; keep.append(subprocess.Popen(['sleep', '0.1']))",
    "temporary file": "import tempfile, os; os.close(tempfile.mkstemp()[0])",
}


@pytest.mark.parametrize("kind", LEAKS)
def test_leak_fails_the_test_that_left_it(kind: str, tmp_path: Path) -> None:
    """A stray thread, process or temporary file is an error that names it."""
    body = f"import threading\nkeep, stop = [], threading.Event()\ndef test_leaks():\n    {LEAKS[kind]}\n"
    (tmp_path / "test_leak.py").write_text(body)
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import clean_environment, nothing_left_behind, scratch\n"
    )
    root = Path(__file__).parent.parent
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(tmp_path / "base"),
    ]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1, done.stdout
    assert "left behind" in done.stdout
    assert kind in done.stdout or kind.capitalize() in done.stdout
