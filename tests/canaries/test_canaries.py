"""A service with everything on, secrets in every input, faults all around: nothing secret comes out."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import redis

from tests.servers import Gunicorn, HttpSink, Process, Valkey, wait_for

from .search import canaries, hits, unpacked

ROOT = Path(__file__).parents[2]
HTML, JSON = {"Accept": "text/html"}, {"Accept": "application/json"}


class Leaky:
    """The leaky application on gunicorn, its worker, and all that they talk to."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.planted = canaries()
        self.bodies: list[bytes] = []
        self.sentry = stack.enter_context(HttpSink())
        self.otlp = stack.enter_context(HttpSink(answer=b""))
        self.valkey = stack.enter_context(Valkey())
        self.valkey.command("CONFIG", "SET", "requirepass", self.planted["redis"])
        self.folder = folder
        self.env = self._env()
        self.web = stack.enter_context(
            Gunicorn("tests.canaries.leaky:create_app()", args=("-w", "2", "-k", "gthread"),
                     config="python:flask_prod.server.gunicorn_conf", env=self.env, ready="/health/live")
        )  # fmt: skip
        self.worker = Process(folder)
        stack.callback(self.worker.finish)

    def _env(self) -> dict[str, str]:
        planted = self.planted
        return {
            "ENVIRONMENT": "production",
            "SERVICE_NAME": "leaky",
            "SECURITY_FORCE_HTTPS": "false",
            "LOG_LEVEL": "DEBUG",
            "SECRET_KEY": planted["secret_key"],
            "METRICS_TOKEN": planted["metrics"],
            "HEALTH_TOKEN": planted["health"],
            "REDIS_URL": f"redis://:{planted['redis']}@127.0.0.1:{self.valkey.port}/0",
            "DATABASE_URL": f"postgresql+psycopg://shop:{planted['database']}@127.0.0.1:9/shop",
            "SENTRY_DSN": self.sentry.dsn.replace("public", planted["dsn"]),
            "SENTRY_TRACES_SAMPLE_RATE": "1",
            "TRACING_ENABLED": "true",
            "TRACING_SAMPLING_RATE": "1",
            "OTLP_ENDPOINT": self.otlp.url,
            "OTLP_HEADERS": f"authorization=Bearer {planted['otlp']}",
        }

    def work(self) -> None:
        """Start a job worker."""
        command = [sys.executable, "-m", "flask", "--app", "tests.canaries.leaky", "prod", "worker"]
        self.worker.launch(command, {**os.environ, **self.env, "PYTHONPATH": str(ROOT)}, self.folder)

    def command(self, *words: str) -> bytes:
        """Return all that a command of `flask prod` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "tests.canaries.leaky", "prod", *words],
            capture_output=True, timeout=60, cwd=self.folder,
            env={**os.environ, **self.env, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return done.stdout + done.stderr

    def send(self) -> None:
        """Send every secret by every way in, once as a browser and once as a program."""
        planted = self.planted
        form = urlencode({"password": planted["password"], "card": planted["card"]}).encode()
        typed = {"Content-Type": "application/x-www-form-urlencoded"}
        secret = {
            "Authorization": f"Bearer {planted['bearer']}",
            "X-Api-Key": planted["api_key"],
            "Cookie": f"session={planted['session']}",
        }
        basic = base64.b64encode(f"anna:{planted['password']}".encode()).decode()
        payment = {"number": planted["card"], "api_key": planted["api_key"], "cvv": "123"}
        order = json.dumps({"user": {"password": planted["password"]}, "payment": payment}).encode()
        for accept in (HTML, JSON):
            for path in ("/form", "/parsed", "/sql", "/said", "/dispatched", "/streamed"):
                self._post(path, form, {**typed, **accept})
            self._post("/body", order, {"Content-Type": "application/json", **accept, **secret})
            self._post("/parsed", order, {"Content-Type": "application/json", **accept})
            for path in ("/query", "/chained"):
                self._post(f"{path}?access_token={planted['token']}&page=2", b"", {**accept, **secret})
            for path in ("/header", "/cookie", "/outgoing", "/cached"):
                self._post(path, None, {**accept, **secret})
            for path in ("/header", "/parsed"):
                self._post(path, None, {**accept, "Authorization": f"Basic {basic}", "X-Api-Key": "none"})
            for hook in ("", "before", "after", "teardown"):
                self._post(f"/reset/{planted['reset']}?fail={hook}", None, accept)
            self._post(f"/nowhere?password={quote(planted['password'])}", None, {**accept, **secret})
            self._post("/metrics", None, {"Authorization": f"Bearer wrong{planted['metrics']}"})

    def _post(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        try:
            answer = self.web.request("GET" if body is None else "POST", path, body, headers)
        except OSError:
            return
        except Exception as error:
            self.bodies.append(repr(getattr(error, "partial", error)).encode())
            return
        shown = b"" if path == "/cached" else answer.body  # it greets its reader by design
        self.bodies.append(str(answer.headers).encode() + shown)

    def outputs(self) -> dict[str, bytes]:
        """Return all that the service has shown to anybody."""
        token = {"Authorization": f"Bearer {self.planted['health']}"}
        scrape = self.web.get("/metrics", {"Authorization": f"Bearer {self.planted['metrics']}"})
        assert scrape.status == 200
        return {
            "pages": b"\n".join(self.bodies),
            "log": (self.web.stdout + self.web.stderr).encode(),
            "worker's log": (self.worker.stdout + self.worker.stderr).encode(),
            "metrics": scrape.body,
            "health": self.web.get("/health", token).body,
            "error reports": self.reports(),
            "traces": b"\n".join(unpacked(request.body) for request in self.otlp.requests),
            "config": self.command("config") + self.command("config", "--json"),
            "settings": self.command("settings"),
            "jobs": self.command("jobs", "list") + self.command("jobs"),
            "flask prod health": self.command("health"),
            "cache": self._stored(),
        }

    def reports(self) -> bytes:
        """Return what Sentry was sent, without the key by which it knows its own project."""
        told = b"\n".join(unpacked(request.body) for request in self.sentry.requests)
        return told.replace(b'"public_key":"%s"' % self.planted["dsn"].encode(), b"")

    def _stored(self) -> bytes:
        """Return what lies in Redis, without the jobs: their arguments have to lie there."""
        client = redis.Redis(port=self.valkey.port, password=self.planted["redis"])
        with client:
            found = [key for key in client.scan_iter(count=1000) if not key.startswith(b"rq:")]
            return b"\n".join([*found, *(client.dump(key) or b"" for key in found)])


@pytest.fixture
def leaky(tmp_path: Path) -> Iterator[Leaky]:
    """Run the leaky application."""
    with ExitStack() as stack:
        yield Leaky(tmp_path, stack)


def test_no_canary_comes_out(leaky: Leaky) -> None:
    """A dozen secrets in every input, with the database away, a failing job and a Redis that dies: 0 hits."""
    leaky.work()
    leaky.send()
    wait_for(lambda: leaky.worker.stderr.count("cannot") or "charge" in leaky.worker.stdout, 20, "the job")
    leaky.sentry.wait_for(3, 15)
    outputs = leaky.outputs()
    leaky.valkey.kill()
    leaky.send()
    leaky.web.term()
    leaky.web.wait(30)
    after = {
        "pages": b"\n".join(leaky.bodies),
        "log": (leaky.web.stdout + leaky.web.stderr).encode(),
        "error reports": leaky.reports(),
        "traces": b"\n".join(unpacked(request.body) for request in leaky.otlp.requests),
    }
    for where, words in {
        "log": b"cannot reach",
        "error reports": b"sign-in failed",
        "pages": b"request_id",
        "traces": b"exception.stacktrace",
    }.items():
        assert words in after[where], f"{where} is not what was to be searched"
    found = hits(leaky.planted, outputs) + hits(leaky.planted, {f"{k} (Redis away)": v for k, v in after.items()})
    assert not found, "\n".join(found)


def test_the_search_finds_every_form() -> None:
    """The search itself sees a secret in plain text, quoted, escaped and in base64 at any place."""
    planted = canaries()
    for name, secret in planted.items():
        raw = secret.encode()
        for text in (raw, quote(raw).encode(), json.dumps(secret).encode(), repr(secret).encode()):
            assert hits({name: secret}, {"there": b"before " + text + b" after"})
        for padding in range(3):
            assert hits({name: secret}, {"there": base64.b64encode(b"x" * padding + raw + b"rest")})
        assert not hits({name: secret}, {"there": b"nothing to see"})
