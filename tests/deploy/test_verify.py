"""`flask prod deploy verify` against a real service: each thing that is wrong is found, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from flask.cli import ScriptInfo

from flask_prod.cli.group import prod
from tests.deploy.served import create_app
from tests.servers import HOST, Gunicorn, HttpSink, Process, Valkey

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parents[2]
KIT = "python:flask_prod.server.gunicorn_conf"


@dataclass
class Place:
    """A deployed service with its worker."""

    service: Gunicorn
    worker: Process
    meddle: Path
    settings: Mapping[str, str]

    def verify(self, *args: str, url: str = "", **others: str) -> tuple[int, dict[str, tuple[str, str]]]:
        """Run the command and return its exit code, and status and detail of each check."""
        app = create_app(**{**self.settings, **others})
        try:
            command = ["deploy", "verify", url or self.service.url, "--json", *args]
            done = CliRunner().invoke(prod, command, obj=ScriptInfo(create_app=lambda: app))
        finally:
            app.extensions["prod"].lifecycle.close()
        assert done.output.startswith("{"), done.output
        found = json.loads(done.output)
        assert found["ok"] is (done.exit_code == 0)
        return done.exit_code, {one["name"]: (one["status"], one["detail"]) for one in found["checks"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Run the service, and a worker, as they would run behind a proxy."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "meddle").mkdir()
    with Valkey() as valkey:
        settings = {
            "ENVIRONMENT": "production", "SERVICE_NAME": "served", "SERVICE_VERSION": "1.2.3",
            "SECRET_KEY": "0123456789abcdef" * 4, "HEALTH_TOKEN": "h" * 40, "METRICS_TOKEN": "m" * 40,
            "REDIS_URL": valkey.url, "TRUSTED_PROXIES": "1", "RATE_LIMIT_PUBLIC": "10000",
            "ALLOWED_HOSTS": f"served.example.com, {HOST}",
            "RUN_DIR": str(folder / "run"), "JOBS_QUEUES": "mails, default",
        }  # fmt: skip
        env = {**settings, "MEDDLE": str(folder / "meddle"), "ENV_FILE": "/dev/null", "SECRETS_DIR": "/dev/null"}
        app = "tests.deploy.served:create_app()"
        worker = Process(folder)
        with Gunicorn(
            app, config=KIT, args=["-w", "1", "--threads", "4"], env=env, ready="/health/live"
        ) as service:
            command = [sys.executable, "-m", "flask", "--app", app, "prod", "worker"]
            worker.launch(command, service.env, ROOT)
            try:
                yield Place(service, worker, folder / "meddle", settings)
            finally:
                worker.finish()


def test_good_service(place: Place) -> None:
    """All is well with a good service, and every check was made but those that have no subject here."""
    code, found = place.verify("--cert-days", "1")

    assert code == 0, found
    skipped = {name for name, (status, _) in found.items() if status == "skip"}
    assert skipped == {"tls"}
    assert {status for status, _ in found.values()} == {"ok", "skip"}, found
    assert found["version"] == ("ok", "1.2.3 is served")
    assert found["cookies"] == ("ok", "session: flags are set")
    assert found["routes"] == ("ok", "2 routes answer below 500")
    assert "mails in" in found["jobs"][1]


@pytest.mark.parametrize(
    ("wrong", "check", "words"),
    [
        ("slow", "load", "are allowed"),
        ("broken", "routes", "/greeting 500"),
        ("open", "metrics", "open to strangers"),
        ("bare", "headers", "X-Frame-Options is missing"),
        ("shared", "cors", "may be read by https://stranger.invalid"),
        ("loose", "cookies", "session lacks HttpOnly, SameSite"),
    ],
)
def test_wrong_service(place: Place, wrong: str, check: str, words: str) -> None:
    """What is wrong with a release is found, named, and fails the command."""
    (place.meddle / wrong).touch()
    try:
        code, found = place.verify("--p95", "200ms", "--requests", "12")
    finally:
        (place.meddle / wrong).unlink()

    assert code == 1
    assert found[check][0] == "fail"
    assert words in found[check][1]


def test_wrong_version(place: Place) -> None:
    """A release that did not come through is named beside the one that serves."""
    code, found = place.verify("--version", "1.3.0", "--no-jobs")

    assert code == 1
    assert found["version"] == ("fail", "1.2.3 is served, 1.3.0 was deployed")
    assert [name for name, (status, _) in found.items() if status == "fail"] == ["version"]


def test_wrong_tokens(place: Place) -> None:
    """Tokens that the service does not have prove nothing, and fail."""
    code, found = place.verify("--no-jobs", HEALTH_TOKEN="x" * 40, METRICS_TOKEN="y" * 40)

    assert code == 1
    assert {name for name, (status, _) in found.items() if status == "fail"} == {"health", "version", "metrics"}


def test_wrong_name(place: Place) -> None:
    """A name that the service does not answer to makes every answer worthless, and is said."""
    code, found = place.verify("--no-jobs", "--host", "served.example.org")
    good_code, _ = place.verify("--no-jobs", "--host", "served.example.com")

    assert (code, good_code) == (1, 0)
    assert found["routes"] == ("fail", "every route answers 400: is the name (--host) one of ALLOWED_HOSTS?")


def test_dead_worker(place: Place) -> None:
    """A worker that is frozen is found by the job that does not come back."""
    place.worker.send(signal.SIGSTOP)
    workers = Path(f"/proc/{place.worker.pid}/task/{place.worker.pid}/children").read_text().split()
    _signal(workers, signal.SIGSTOP)
    try:
        code, found = place.verify("--jobs-timeout", "1s")
    finally:
        _signal(workers, signal.SIGCONT)
        place.worker.send(signal.SIGCONT)

    assert code == 1
    assert found["jobs"][0] == "fail"
    assert "no worker has done a job of mails, default within 1 s" in found["jobs"][1]


def test_nobody_there(place: Place) -> None:
    """Where nobody answers, that is said once, and nothing else is tried."""
    code, found = place.verify(url=f"http://{HOST}:9")

    assert code == 1
    assert found["reached"][0] == "fail"
    assert {status for name, (status, _) in found.items() if name != "reached"} == {"skip"}


def test_certificate(place: Place, tmp_path: Path) -> None:
    """A certificate in its last days fails; nothing else does, by https."""
    trusted, cert, key = _certificate(tmp_path, days=5.5)
    args = ["-w", "1", "--certfile", str(cert), "--keyfile", str(key)]
    with _Secure(place.service.app, config=KIT, args=args, env=place.service.env) as service:
        words = ("--ca", str(trusted), "--no-jobs", "--http", place.service.url)
        url = f"https://{HOST}:{service.port}"
        good_code, good = place.verify(*words, "--cert-days", "2", url=url)
        code, late = place.verify(*words, url=url)

    assert good_code == 0, good
    assert good["tls"] == ("ok", "TLSv1.3, the certificate is good for 5 days")
    assert code == 1
    assert [name for name, (status, _) in late.items() if status == "fail"] == ["tls"]
    assert "expires in 5 days" in late["tls"][1]


def test_expired_certificate(place: Place, tmp_path: Path) -> None:
    """An expired certificate is named, and nothing is sent to whoever shows it."""
    trusted, cert, key = _certificate(tmp_path, days=-1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with HttpSink() as sink:
        server = sink._server
        assert server is not None
        server.socket = context.wrap_socket(server.socket, server_side=True)
        code, found = place.verify("--ca", str(trusted), "--no-jobs", url=f"https://{HOST}:{sink.port}")

    assert code == 1
    assert "certificate has expired" in found["tls"][1]
    assert found["routes"][0] == "skip"
    assert sink.requests == []


class _Secure(Gunicorn):
    """gunicorn by https, which is up when its worker listens."""

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 1).close()
        except OSError:
            return False
        return len(self.worker_pids()) > 0


def _certificate(folder: Path, days: float) -> tuple[Path, Path, Path]:
    """Write a certificate that is good for so many days yet; return its authority, itself and its key."""
    authority, now = trustme.CA(), datetime.now(UTC)
    own = authority.issue_cert(HOST, not_before=now - timedelta(days=90), not_after=now + timedelta(days=days))
    trusted, cert, key = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
    authority.cert_pem.write_to_path(str(trusted))
    own.cert_chain_pems[0].write_to_path(str(cert))
    own.private_key_pem.write_to_path(str(key))
    return trusted, cert, key


def _signal(pids: list[str], number: int) -> None:
    for pid in pids:
        os.kill(int(pid), number)
