"""Checks of external services: from an address in the settings to the protocol's cheapest question."""

from __future__ import annotations

import datetime
import http.client
import socket
import ssl
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from flask_prod import ConfigError
from flask_prod.components.health import bson
from flask_prod.components.health.external import NamedUrl, plans, problems
from flask_prod.components.health.wire import Nonsense
from flask_prod.core.component import Finding
from tests.apps import MakeApp
from tests.servers import HttpSink, free_port

from . import talkers
from .talkers import Talk, saying, talker

TOKEN = "a-long-token-for-tests"


def ask(address: str) -> Finding | None:
    """Ask one address within 0.4 s."""
    (plan,) = plans([NamedUrl(f"it={address}")], 0.4, 5.0)
    return plan.check.probe()


def status(address: str) -> str:
    """Ask as the engine does: an error of the kinds that connections have is a failure."""
    try:
        found = ask(address)
    except (OSError, Nonsense, http.client.HTTPException):
        return "fail"
    return "" if found is None else found.status


@pytest.mark.parametrize(
    ("scheme", "talk", "data"),
    [
        ("kafka", talkers.kafka, {"apis": 4}),
        ("mongodb", talkers.mongodb, {"writable": True, "wire": 21}),
        ("amqp", talkers.rabbitmq, {"protocol": "0-9"}),
        ("smtp", talkers.smtp, {}),
        ("tcp", lambda connection: None, {}),
        ("clickhouse", saying(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nOk.\n"), {}),
    ],
)
def test_protocols(scheme: str, talk: Talk, data: dict[str, Any]) -> None:
    """Each protocol's question is framed as its server wants it, and the answer understood."""
    with talker(talk) as port:
        assert ask(f"{scheme}://user:hunter22@127.0.0.1:{port}") == Finding(data=data)


@pytest.mark.parametrize("scheme", ["kafka", "mongodb", "amqp", "smtp", "clickhouse", "http"])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 64,
        b"\x7f\xff\xff\xff" + b"x" * 60,
        b"HTTP/1.1 500 no\r\n\r\n",
        b"AMQP\0\0\x01\0",
        struct.pack("<iiii", 40, 9, 1, 2013) + bytes(5) + b"\xff\xff\xff\x7f" + bytes(15),
        struct.pack(">iihi", 14, 1, 0, 999) + bytes(4),
    ],
)
def test_nonsense(scheme: str, answer: bytes) -> None:
    """What does not speak the protocol has failed, soon and without harm."""
    began = time.monotonic()
    with talker(saying(answer)) as port:
        assert status(f"{scheme}://127.0.0.1:{port}") == "fail"
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("scheme", ["http", "tcp", "kafka", "mongodb", "amqp", "smtp", "clickhouse"])
def test_closed(scheme: str) -> None:
    """A port on which nobody listens is refused."""
    with pytest.raises(OSError, match="refused"):
        ask(f"{scheme}://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("scheme", ["http", "kafka", "mongodb", "amqp", "smtp"])
def test_silence(scheme: str) -> None:
    """Who accepts and says nothing has failed within the time limit."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            ask(f"{scheme}://127.0.0.1:{server.getsockname()[1]}")
        assert 0.3 < time.monotonic() - began < 10


def test_http(http_sink: HttpSink) -> None:
    """A web address is asked with what it names, and its fragment, which is ours, never sent."""
    address = f"http://user:hunter22@127.0.0.1:{http_sink.port}/ping?deep=1#critical&timeout=1s"
    assert ask(address) == Finding(data={"code": 200})
    (request,) = http_sink.requests
    assert request.path == "/ping?deep=1"
    assert request.headers["authorization"] == "Basic dXNlcjpodW50ZXIyMg=="

    for mode, status in ((301, "warn"), (404, "fail"), (503, "fail")):
        http_sink.mode = mode
        found = ask(address)
        assert found is not None
        assert found.status == status
    assert len(http_sink.requests) == 4  # a redirect is not followed


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By TLS only a certificate that holds for the name is accepted."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with talker(talkers.kafka, context) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(f"kafkas://localhost:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert ask(f"kafkas://localhost:{port}") == Finding(data={"apis": 4})
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(f"tls://127.0.0.1:{port}")


def test_end_of_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the certificate that https or tls shows is told, and set in the gauge by the check's name."""
    authority = trustme.CA()
    ends = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", not_after=ends).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    told: list[tuple[float, tuple[str, ...]]] = []
    with talker(saying(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), context) as port:
        addresses = [NamedUrl(f"{scheme}-proxy={scheme}://localhost:{port}") for scheme in ("https", "tls")]
        found = [plan.check.probe() for plan in plans(addresses, 2, 5.0, Gauge(told))]

    assert told == [(ends.timestamp(), ("https-proxy",)), (ends.timestamp(), ("tls-proxy",))]
    assert found == [
        Finding(data={"code": 200, "certificate_ends": ends.timestamp()}),
        Finding(data={"certificate_ends": ends.timestamp()}),
    ]


class Gauge:
    """Notes what it is set to."""

    def __init__(self, told: list[tuple[float, tuple[str, ...]]]) -> None:
        self._told = told

    def set(self, value: float, *labels: str) -> None:
        self._told.append((value, labels))


def test_dns() -> None:
    """A name is resolved; one that does not exist has failed."""
    found = ask("dns://localhost")
    assert found is not None
    assert found.data["addresses"]
    with pytest.raises(OSError, match=r"."):
        ask("dns://no-such-host.invalid")


def test_options() -> None:
    """What follows the hash says how the check is run; the others have the settings' times."""
    first, second = plans(
        [
            NamedUrl("a=tcp://h:1#critical&ready&timeout=500ms&interval=1m&group=x&group=y"),
            NamedUrl("b=tcp://h:2"),
        ],
        2.0,
        5.0,
    )

    assert (first.check.critical, first.check.ready, first.timeout, first.interval) == (True, True, 0.5, 60.0)
    assert first.groups == {"x", "y"}
    assert (second.check.critical, second.check.ready, second.timeout, second.interval) == (False, False, 2.0, 5.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://host/", "entry 1 must be written name=address"),
        ("live=https://host/", "'live' must be written name=address"),
        ("it=ftp://host/", "must begin with one of"),
        ("it=https:///ping", "has no host"),
        ("it=tcp://host", "needs a port"),
        ("it=tcp://host:x", "is not an address"),
        ("it=tcp://host:1#soon", "has an option that is none of"),
        ("it=tcp://host:1#timeout=soon", "needs a duration"),
        ("it=tcp://host:1#group=a/b", "needs a group's name"),
    ],
)
def test_problems(text: str, words: str) -> None:
    """What cannot work is told at the start, without the address."""
    (problem,) = problems([NamedUrl(text)])

    assert words in problem
    assert problem.startswith("HEALTH_CHECKS")


def test_in_an_application(make_app: MakeApp, http_sink: HttpSink) -> None:
    """The setting makes checks of their own names; an address is shown nowhere with its password."""
    app = make_app(
        only=("health",),
        HEALTH_CHECKS=f"pay=http://user:hunter22@127.0.0.1:{http_sink.port}/, gone=tcp://127.0.0.1:{free_port()}#group=out",
        HEALTH_TOKEN=TOKEN,
    )
    told = app.test_client().get("/health", headers={"Authorization": f"Bearer {TOKEN}"})
    shown = next(row.shown for row in app.extensions["prod"].settings.rows if row.key == "HEALTH_CHECKS")

    assert told.get_json()["status"] == "degraded"
    assert {name: one["status"] for name, one in told.get_json()["checks"].items()} == {
        "pay": "ok",
        "gone": "fail",
    }
    assert app.test_client().get("/health/groups/out").text == "degraded"
    assert "hunter22" not in told.text + shown
    assert shown.startswith(f"pay=http://***@127.0.0.1:{http_sink.port}/, gone=tcp://127.0.0.1:")
    with pytest.raises(ConfigError, match="names 'a' twice"):
        make_app(only=("health",), HEALTH_CHECKS="a=tcp://h:1,a=tcp://h:2")


@given(
    st.dictionaries(st.from_regex(r"[a-z$]{1,9}", fullmatch=True), st.integers(-(2**31), 2**31 - 1) | st.text())
)
def test_bson(document: dict[str, int | str]) -> None:
    """A document of numbers and texts comes back as it went."""
    assert bson.decode(bson.encode(document)) == document


@given(st.binary(max_size=200))
def test_bson_of_nonsense(data: bytes) -> None:
    """Bytes that are no document are an error of a kind that is expected, and end soon."""
    with suppress(ValueError, IndexError, struct.error):
        bson.decode(data)
