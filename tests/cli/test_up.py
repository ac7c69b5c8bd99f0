"""`flask prod up` with real gunicorn, real Valkey, real signals."""

from __future__ import annotations

import http.client
import os
import pty
import re
import signal
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from flask_prod.cli.up import check_port
from flask_prod.core.errors import ConfigError
from tests.servers import alive, wait_for

from .shop import Shop, descendants, gone


def get(port: int, path: str = "/") -> str:
    """Send GET, and return the body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def test_whole_life(shop: Shop) -> None:
    """Everything starts, in order and told by one line; one SIGTERM ends it all with 0 within five seconds."""
    with shop.up("--workers", "2") as up:
        output = up.wait_for_line("Ready at")
        up.wait_for_line("working")
        # gunicorn and its two workers, the worker, Valkey: one web worker answers before the other is there.
        wait_for(lambda: len(up.family()) == 5, what="the whole family")
        family = up.family()
        body = get(shop.port)
        up.process.send(signal.SIGTERM)
        began = time.monotonic()
        code = up.process.wait(10)

        assert time.monotonic() - began < 5
        assert (code, body) == (0, "hello")
        assert re.search(
            rf"Ready at http://127.0.0.1:{shop.port} \(web 2 workers, worker 1, valkey 127.0.0.1:\d+\)", output
        )
        assert (shop.folder / "prepared").read_text() == "x"
        assert (shop.folder / ".flask-prod" / ".gitignore").read_text() == "*\n"
        assert gone(family)
        assert {line.partition("|")[0].strip() for line in up.process.stdout.splitlines()} == {
            "prepare", "prod", "web", "worker",
        }  # fmt: skip
        assert "Traceback" not in up.process.stdout + up.process.stderr


def test_ctrl_c_in_a_terminal(shop: Shop) -> None:
    """A real Ctrl-C, which the terminal sends to the whole foreground group, ends it once and cleanly."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(shop.folder)
        os.execve(sys.executable, [sys.executable, "-m", "flask", "prod", "up"], shop.env)
    output = _Reader(terminal)
    try:
        wait_for(lambda: "Ready at" in output.text and "working" in output.text, 20, "the start")
        family = descendants(pid)
        os.write(terminal, b"\x03")
        began = time.monotonic()
        ended = wait_for(lambda: os.waitpid(pid, os.WNOHANG)[1:] if not alive(pid) else None, 10, "the end")
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        output.close()

    assert time.monotonic() - began < 5
    assert os.waitstatus_to_exitcode(ended[0]) == 0
    assert gone(family)
    assert "KeyboardInterrupt" not in output.text
    assert "Traceback" not in output.text
    assert output.text.count("Handling signal") == output.text.count("Handling signal: term") == 1
    assert "Aborted" not in output.text
    assert "\x1b[" in output.text


class _Reader:
    """Reads a terminal in the background until it is closed."""

    def __init__(self, terminal: int) -> None:
        self.text = ""
        self._terminal = terminal
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._terminal, 65536):
                self.text += data.decode(errors="replace")

    def close(self) -> None:
        """Stop reading."""
        self._thread.join(5)
        os.close(self._terminal)


@pytest.mark.parametrize("words", [("gunicorn",), ("flask", "worker"), ("valkey-server",)])
def test_killed_child(shop: Shop, words: tuple[str, ...]) -> None:
    """A child that is killed with -9 is started again and said so, and the service goes on."""
    with shop.up("--workers", "1") as up:
        up.wait_for_line("Ready at")
        up.wait_for_line("working")
        victim = up.child(*words)
        os.kill(victim, signal.SIGKILL)
        up.wait_for_line("starting it again in 0.5 s")
        wait_for(lambda: _child(up, words) not in (None, victim), 10, "the new child")
        wait_for(lambda: _answers(shop.port), 10, "the web server")
        family = up.family()
        up.process.send(signal.SIGINT)

        assert up.process.wait(10) == 0
        assert gone(family)


def _child(up: object, words: tuple[str, ...]) -> int | None:
    with suppress(LookupError, OSError):
        return up.child(*words)  # type: ignore[attr-defined, no-any-return]
    return None


def _answers(port: int) -> bool:
    with suppress(OSError, http.client.HTTPException):
        return get(port) == "hello"
    return False


def test_killed_supervisor(shop: Shop) -> None:
    """When the supervisor itself is killed with -9, nothing stays behind."""
    with shop.up() as up:
        up.wait_for_line("Ready at")
        up.wait_for_line("working")
        family = up.family()
        up.process.send(signal.SIGKILL)
        up.process.wait(5)

        wait_for(lambda: gone(family), 10, "the end of all children")


@pytest.mark.alone
def test_second_ctrl_c(shop: Shop) -> None:
    """While a request holds up the end, a second Ctrl-C ends everything at once."""
    with shop.up("--workers", "1") as up:
        up.wait_for_line("Ready at")
        family = up.family()
        with socket.create_connection(("127.0.0.1", shop.port)) as busy:
            busy.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.3)
            up.process.send(signal.SIGINT)
            time.sleep(0.5)
            assert up.process.running
            up.process.send(signal.SIGINT)
            began = time.monotonic()
            code = up.process.wait(5)

        assert time.monotonic() - began < 1.5
        assert code == 130
        assert gone(family)


def test_stuck_request(shop: Shop) -> None:
    """A request that does not end holds up one Ctrl-C for less than five seconds."""
    with shop.up("--workers", "1") as up:
        up.wait_for_line("Ready at")
        family = up.family()
        with socket.create_connection(("127.0.0.1", shop.port)) as busy:
            busy.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.3)
            up.process.send(signal.SIGINT)
            began = time.monotonic()
            code = up.process.wait(10)

        assert time.monotonic() - began < 5
        assert code == 0
        assert gone(family)


def test_port_in_use(shop: Shop) -> None:
    """A port in use is told before anything starts, with what to do."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", shop.port))
        other.listen()
        result = shop.flask("up")

    assert result.returncode == 1
    assert f"PORT {shop.port} is in use" in result.stderr
    assert f"--port {shop.port + 1}" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (shop.folder / ".flask-prod").exists()
    assert not (shop.folder / "prepared").exists()


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_bad_host(host: str) -> None:
    """An address that is not this machine's is told by its options."""
    with pytest.raises(ConfigError, match="--host"):
        check_port(host, 8000)


def test_failing_migration(shop: Shop) -> None:
    """A migration that fails stops the start with its message, and nothing is left."""
    (shop.folder / "migration-broken").touch()
    result = shop.flask("up")

    assert result.returncode == 1
    assert "`flask prepare` failed: RuntimeError: table orders exists" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert "gunicorn" not in result.stdout


def test_broken_application(shop: Shop) -> None:
    """An application that cannot start says why, once, and nothing is left."""
    shop.env["HEALTH_TIMEOUT"] = "soon"
    result = shop.flask("up", "--no-redis")

    assert result.returncode == 1
    assert result.stdout.count("HEALTH_TIMEOUT must be a duration") == 1


def test_broken_gunicorn_config(shop: Shop) -> None:
    """A web server that cannot start is tried three times, then all ends with 1."""
    (shop.folder / "gunicorn.conf.py").write_text("raise RuntimeError('oh')")
    result = shop.flask("up", "--no-redis", "--no-worker")

    assert result.returncode == 1
    assert "web has ended 3 times (exit code 1) before all was ready" in result.stdout


def test_options(shop: Shop) -> None:
    """--no-worker, --no-redis, --port and --workers do what they say."""
    shop.env["PORT"] = "1"
    with shop.up("--no-worker", "--no-redis", "--workers", "1", "--port", str(shop.port)) as up:
        output = up.wait_for_line("Ready at")

        assert f"Ready at http://127.0.0.1:{shop.port} (web 1 worker)" in output
        assert len(up.family()) == 2
        assert not (shop.folder / ".flask-prod").exists()


def test_redis_url(shop: Shop, redis_url: str) -> None:
    """With a REDIS_URL no Valkey is started, and the children have it."""
    shop.env["REDIS_URL"] = redis_url
    with shop.up("--workers", "1") as up:
        up.wait_for_line("Ready at")
        output = up.wait_for_line("working")

        assert redis_url in output
        assert "valkey " not in output


def test_data_that_cannot_be_written(shop: Shop) -> None:
    """A data folder that cannot be made is told with what to do."""
    (shop.folder / "file").write_text("")
    result = shop.flask("up", "--data", "file/below")

    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "--data" in result.stderr


def test_output_nobody_reads(shop: Shop) -> None:
    """When the reader of the output has left (`| head`), all ends instead of running on unseen."""
    import subprocess

    command = [sys.executable, "-m", "flask", "prod", "up", "--no-redis"]
    with subprocess.Popen(command, cwd=shop.folder, env=shop.env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()

        assert process.wait(15) == 0


@pytest.mark.alone
def test_start_is_quick(shop: Shop) -> None:
    """`up` itself does not load the application: its own modules are imported within a second of a core."""
    import subprocess

    code = "import sys, time; t = time.process_time(); import flask_prod.cli.up; print(time.process_time() - t);"
    code += (
        "print([name for name in ('sqlalchemy', 'rq', 'gunicorn', 'sentry_sdk', 'redis') if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    seconds, modules = shown.stdout.splitlines()

    assert float(seconds) < 1
    assert modules == "[]"
