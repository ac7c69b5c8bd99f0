"""`flask prod health`, of this process and of a running service."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_prod import ProdKit
from flask_prod.cli import prod
from flask_prod.components.health import HealthFace
from flask_prod.core.component import Finding
from tests.apps import MakeApp, StartGunicorn
from tests.servers import HttpSink

from .shop import SOURCE

TOKEN = "a-long-token-for-tests"


def run(*words: str, app: Flask | None = None) -> Result:
    """Run `flask prod health` on *app*."""
    info = ScriptInfo(create_app=(lambda: app) if app else None)
    return CliRunner().invoke(prod, ["health", *words], obj=info)


def test_healthy(make_app: MakeApp) -> None:
    """All well: exit code 0, a line and a table."""
    kit = ProdKit(only=("health",))
    face: HealthFace = kit.get("health")
    face.check("payments")(lambda: Finding("ok", "3 queues"))
    result = run(app=make_app(kit=kit, SERVICE_VERSION="1.2"))

    assert result.exit_code == 0
    first, header, row = result.output.splitlines()
    assert first == "healthy  shop 1.2 test"
    assert header.split() == ["CHECK", "STATUS", "LATENCY", "SINCE", "DETAIL"]
    assert row.split()[:2] == ["payments", "ok"]
    assert row.endswith("3 queues")


@pytest.mark.parametrize(("critical", "state"), [(False, "degraded"), (True, "unhealthy")])
def test_not_healthy(make_app: MakeApp, critical: bool, state: str) -> None:
    """Degraded and unhealthy both exit with 1, and the table says why."""
    kit = ProdKit(only=("health",))
    face: HealthFace = kit.get("health")
    face.check("payments", critical=critical)(lambda: Finding("fail", "closed"))
    result = run(app=make_app(kit=kit))

    assert result.exit_code == 1
    assert result.output.startswith(state)
    assert "closed" in result.output


def test_json(make_app: MakeApp) -> None:
    """--json is what a token gets over HTTP."""
    kit = ProdKit(only=("health",))
    face: HealthFace = kit.get("health")
    face.check("payments")(lambda: None)
    app = make_app(kit=kit, HEALTH_TOKEN=TOKEN)
    found = json.loads(run("--json", app=app).output)
    told = app.test_client().get("/health", headers={"Authorization": f"Bearer {TOKEN}"}).get_json()

    assert found.keys() == told.keys()
    assert found["checks"]["payments"].keys() == told["checks"]["payments"].keys()


def test_room_left_out(make_app: MakeApp) -> None:
    """Without the health room there is a clear answer."""
    result = run(app=make_app(only=("proxy",)))

    assert result.exit_code == 1
    assert "leaves the health room out" in result.output


def test_running_service(gunicorn: StartGunicorn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running service tells strangers a word, and details to the HEALTH_TOKEN of the environment or --token."""
    env = {"ENVIRONMENT": "test", "HEALTH_TOKEN": TOKEN}
    server = gunicorn(source=SOURCE, env=env, ready="/health/live")
    bare = run("--url", server.url)
    wrong = run("--url", server.url, "--token", "wrong")
    given = run("--url", server.url.removeprefix("http://"), "--token", TOKEN)
    monkeypatch.setenv("HEALTH_TOKEN", TOKEN)
    found = run("--url", f"{server.url}/health", "--json")

    assert (bare.exit_code, bare.output.splitlines()[0]) == (0, "healthy")
    assert "HEALTH_TOKEN" in bare.output
    assert wrong.output == bare.output
    assert "payments" in given.output
    assert json.loads(found.output)["checks"]["payments"]["status"] == "ok"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1", "cannot be reached: Connection refused"),
        ("http://no-such-host.invalid", "cannot be reached"),
        ("ftp://127.0.0.1", "is not an address"),
        ("http://127.0.0.1:99999999", "is not an address"),
        ("http://[::1", "is not an address"),
        ("http://user:hunter2@127.0.0.1:1", "cannot be reached"),
    ],
)
def test_unreachable(url: str, words: str) -> None:
    """A service that cannot be reached, and an address that is none, are told in one line with exit code 1."""
    result = run("--url", url, "--timeout", "2")

    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize(("mode", "body"), [("ok", b"{}"), (200, b"<h1>\x1b[31mhello"), (301, b""), (404, b"no")])
def test_not_a_health_report(http_sink: HttpSink, mode: str | int, body: bytes) -> None:
    """Whatever else answers is told apart from a health report, and cannot write to the terminal."""
    http_sink.mode, http_sink.answer = mode, body
    result = run("--url", http_sink.url)

    assert result.exit_code == 1
    assert "not a health report" in result.output
    assert "\x1b" not in result.output


def test_hanging_service(http_sink: HttpSink) -> None:
    """A service that does not answer is given up after --timeout."""
    http_sink.mode = "hang"
    result = run("--url", http_sink.url, "--timeout", "0.3")

    assert result.exit_code == 1
    assert "timed out" in result.output


def test_hostile_details(http_sink: HttpSink) -> None:
    """Escapes in a remote answer do not reach the terminal; odd values do not break the table."""
    http_sink.answer = json.dumps(
        {"status": "degraded", "service": "\x1b]0;x\x07", "checks": {"a\nb": {"status": "\x1b[2J", "since": 3}}}
    ).encode()
    result = run("--url", http_sink.url)

    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert len(result.output.splitlines()) == 3


def test_watch(monkeypatch: pytest.MonkeyPatch, make_app: MakeApp) -> None:
    """Not on a terminal --watch prints a line per change, and Ctrl-C ends it without a trace."""
    kit = ProdKit(only=("health",))
    face: HealthFace = kit.get("health")
    answers = [Finding(), Finding(), Finding("fail", "closed"), Finding("fail", "closed"), Finding()]
    face.check("payments", critical=False, interval=0)(lambda: answers.pop(0))
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if not answers:
            raise KeyboardInterrupt

    monkeypatch.setattr("flask_prod.cli.health.time.sleep", sleep)
    result = run("--watch", app=make_app(kit=kit))

    assert result.exit_code == 0
    assert [line.split(" ", 1)[1] for line in result.output.splitlines()] == [
        "healthy", "degraded payments fail (closed)", "healthy",
    ]  # fmt: skip
    assert set(looks) == {2.0}


def test_watch_a_service_that_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that cannot be reached now is watched on, and its return is a line."""
    left = [1, 1]

    def sleep(_seconds: float) -> None:
        left.pop()
        if not left:
            raise KeyboardInterrupt

    monkeypatch.setattr("flask_prod.cli.health.time.sleep", sleep)
    result = run("--watch", "--url", "http://127.0.0.1:1")

    assert result.exit_code == 0
    assert len(result.output.splitlines()) == 1
    assert "unreachable service fail" in result.output


def test_watch_on_a_terminal(gunicorn: StartGunicorn) -> None:
    """On a terminal the table is redrawn in place; Ctrl-C ends with exit code 0."""
    server = gunicorn(source=SOURCE, env={"ENVIRONMENT": "test", "HEALTH_TOKEN": TOKEN}, ready="/health/live")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flask", "prod", "health", "--watch", "--url", server.url, "--token", TOKEN]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=server.folder) as process:
        os.close(theirs)
        shown = b""
        while shown.count(b"\x1b[H\x1b[2J") < 2 and len(shown) < 100_000:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        code = process.wait(10)
    os.close(ours)

    assert code == 0
    assert b"payments" in shown
    assert b"Ctrl-C ends" in shown
