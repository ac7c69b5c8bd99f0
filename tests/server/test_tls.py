"""https by gunicorn itself: versions, a renewed certificate, and what is said of files that are wrong."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from flask_prod.server import tls
from flask_prod.server.web_settings import ServerSettings
from tests.apps import MakeApp
from tests.servers import HOST, Gunicorn, wait_for

MODULE = "python:flask_prod.server.gunicorn_conf"
SHOP = """
from flask import Flask, request

def create_app():
    app = Flask("shop")
    app.add_url_rule("/", "home", lambda: request.scheme)
    return app
"""


class Https(Gunicorn):
    """A gunicorn that is ready when it shakes hands."""

    authority: trustme.CA

    def _answers(self) -> bool:
        if not self.running:
            return super()._answers()
        try:
            return bool(self.shake_hands()[0])
        except OSError:
            return False

    def shake_hands(self, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[str, bytes]:
        """Return version and certificate."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.maximum_version = newest
        with (
            socket.create_connection((HOST, self.port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            version, certificate = str(secure.version()), secure.getpeercert(True) or b""
            secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while data := secure.recv(4096):
                answer += data
            assert answer.endswith(b"https")
            return version, certificate


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def put(authority: trustme.CA, folder: Path, **options: object) -> dict[str, str]:
    """Write a certificate and its key; return the settings that name them."""
    issued = authority.issue_cert("localhost", **options)  # type: ignore[arg-type]  # a test's own words
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return {"TLS_ENABLED": "1", "TLS_CERT_FILE": str(chain), "TLS_KEY_FILE": str(key)}


def serving(authority: trustme.CA, tmp_path: Path, *args: str, **env: str) -> Https:
    server = Https(source=SHOP, config=MODULE, args=args, env={**put(authority, tmp_path), **env})
    server.authority = authority
    return server


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_https(authority: trustme.CA, tmp_path: Path, worker_class: str) -> None:
    """Each worker class speaks TLS 1.2 and 1.3, and takes up a renewed certificate at SIGHUP."""
    with serving(authority, tmp_path, "-w", "1", WEB_WORKER_CLASS=worker_class) as server:
        version, certificate = server.shake_hands()
        assert version == "TLSv1.3"
        assert server.shake_hands(ssl.TLSVersion.TLSv1_2)[0] == "TLSv1.2"

        put(authority, tmp_path)
        assert server.shake_hands()[1] == certificate  # the new one is taken up as a whole, when told
        server.signal(signal.SIGHUP)
        wait_for(lambda: server.shake_hands()[1] != certificate, 20, "the new certificate")


def test_oldest_version(authority: trustme.CA, tmp_path: Path) -> None:
    """TLS_MIN_VERSION=1.3 refuses 1.2."""
    with serving(authority, tmp_path, "-w", "1", TLS_MIN_VERSION="1.3") as server:
        assert server.shake_hands()[0] == "TLSv1.3"
        with pytest.raises(ssl.SSLError):
            server.shake_hands(ssl.TLSVersion.TLSv1_2)


def test_problems(authority: trustme.CA, tmp_path: Path) -> None:
    """What is wrong with the files is one sentence that names the setting."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    mine, other = put(authority, first), put(authority, second)
    chain, key = mine["TLS_CERT_FILE"], mine["TLS_KEY_FILE"]

    assert list(tls.problems(chain, key)) == []
    assert list(tls.problems(chain, other["TLS_KEY_FILE"])) == [
        "TLS_KEY_FILE is not the key of the certificate in TLS_CERT_FILE."
    ]
    assert "cannot be read: No such file" in next(tls.problems("/nowhere.pem", key))
    assert [text.split()[0] for text in tls.problems("", "")] == ["TLS_CERT_FILE", "TLS_KEY_FILE"]
    assert "both in PEM" in next(tls.problems(os.devnull, key))


def test_start_with_the_wrong_key(authority: trustme.CA, tmp_path: Path) -> None:
    """gunicorn ends with the sentence, without a traceback."""
    (tmp_path / "other").mkdir()
    other = put(authority, tmp_path / "other")
    with pytest.raises(RuntimeError, match="is not the key of the certificate") as caught:
        serving(authority, tmp_path, TLS_KEY_FILE=other["TLS_KEY_FILE"]).__enter__()

    assert "Traceback" not in str(caught.value)


def test_certificate_that_ends(authority: trustme.CA, tmp_path: Path) -> None:
    """A certificate near or past its end is worth a warning, no refusal: the old one went on as well."""
    now = datetime.datetime.now(datetime.UTC)

    def said(days: float) -> list[str]:
        files = put(authority, tmp_path, not_after=now + datetime.timedelta(days=days))
        return list(
            tls.warnings(
                ServerSettings(
                    tls_enabled=True, tls_cert_file=files["TLS_CERT_FILE"], tls_key_file=files["TLS_KEY_FILE"]
                )
            )
        )

    assert said(30) == []
    assert "expires in 3" in said(3.9)[0]
    assert "has expired" in said(-1)[0]


def test_end_is_shown(make_app: MakeApp, authority: trustme.CA, tmp_path: Path) -> None:
    """The metrics of the application that a worker serves say when the certificate ends; without https nothing."""
    ends = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    files = put(authority, tmp_path, not_after=ends)
    app = make_app(only=("metrics",))
    settings = ServerSettings(
        tls_enabled=True, tls_cert_file=files["TLS_CERT_FILE"], tls_key_file=files["TLS_KEY_FILE"]
    )
    name = "flask_prod_certificate_expiry_timestamp_seconds"

    tls.show(SimpleNamespace(wsgi=app), ServerSettings())
    assert name not in app.test_client().get("/metrics").text
    tls.show(SimpleNamespace(wsgi=app), settings)
    tls.show(SimpleNamespace(wsgi=None), settings)  # another framework's application
    (line,) = [one for one in app.test_client().get("/metrics").text.splitlines() if one.startswith(name)]
    assert line.startswith(name + '{certificate="served"}')
    assert float(line.split()[-1]) == ends.timestamp()
