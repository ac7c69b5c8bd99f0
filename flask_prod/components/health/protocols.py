"""The cheapest question of each protocol, asked without the client libraries.

None signs in: whoever answers these questions lives, and a health check needs no rights.
"""

from __future__ import annotations

import base64
import http.client
import smtplib
import socket
import ssl
import struct
from collections.abc import Callable, Mapping
from typing import TypeAlias
from urllib.parse import SplitResult, unquote

from flask_prod.core.certificate import end_of
from flask_prod.core.component import Finding

from . import bson
from .wire import Nonsense, Wire

CERTIFICATE_ENDS = "certificate_ends"
"""In the data of a finding: when the certificate that was shown ends, in seconds since 1970."""

_SHORT = 16

Ask: TypeAlias = Callable[[SplitResult, float], Finding]


def http_get(url: SplitResult, seconds: float) -> Finding:
    """GET the address; below 300 is well. A redirect is told, never followed: what we send is for one host."""
    secure = url.scheme in ("https", "clickhouses")
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=seconds)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        connection.request("GET", target, headers={"User-Agent": "flask-prod-health", **_credentials(url)})
        until = _until(_shown(connection.sock))  # an answer may close the connection
        answer = connection.getresponse()  # its status is the answer; nobody waits for a body
    finally:
        connection.close()
    data = {"code": answer.status, **until}
    if answer.status < 300:
        return Finding(data=data)
    if answer.status < 400:
        return Finding("warn", f"answered {answer.status}: a redirect, which is not followed", data)
    return Finding("fail", f"answered {answer.status}", data)


def clickhouse(url: SplitResult, seconds: float) -> Finding:
    """GET /ping of a ClickHouse, which answers `Ok.`."""
    secure = url.scheme == "clickhouses"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port or (8443 if secure else 8123), timeout=seconds)
    try:
        connection.request("GET", "/ping", headers={"User-Agent": "flask-prod-health"})
        answer = connection.getresponse()
        body = answer.read(_SHORT)
    finally:
        connection.close()
    if answer.status != 200 or not body.startswith(b"Ok"):
        return Finding("fail", f"answered {answer.status} to /ping, which is not Ok")
    return Finding()


def tcp(url: SplitResult, seconds: float) -> Finding:
    """Connect, by `tls://` with a certificate that holds; say nothing."""
    with Wire(url.hostname or "", url.port or 0, seconds, tls=url.scheme == "tls") as wire:
        return Finding(data=_until(wire.certificate_ends))


def dns(url: SplitResult, _seconds: float) -> Finding:
    """Resolve a name as every library of this process does."""
    found = socket.getaddrinfo(url.hostname, None, type=socket.SOCK_STREAM)
    return Finding(data={"addresses": len({entry[4][0] for entry in found})})


def smtp(url: SplitResult, seconds: float) -> Finding:
    """EHLO and NOOP; nothing is sent."""
    secure = url.scheme == "smtps"
    host, port = url.hostname or "", url.port or (465 if secure else 25)
    if secure:
        context = ssl.create_default_context()
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, "health", timeout=seconds, context=context)
    else:
        server = smtplib.SMTP(host, port, "health", timeout=seconds)
    with server:
        for code, _ in (server.ehlo(), server.noop()):
            if code != 250:
                return Finding("fail", f"answered {code}")
    return Finding()


def kafka(url: SplitResult, seconds: float) -> Finding:
    """ApiVersions (key 18, version 0), which every broker since 0.10 answers before anybody signs in."""
    client = b"health"
    question = struct.pack(">hhih", 18, 0, 1, len(client)) + client
    with Wire(url.hostname or "", url.port or 9092, seconds, tls=url.scheme == "kafkas") as wire:
        wire.send(struct.pack(">i", len(question)) + question)
        (size,) = struct.unpack(">i", wire.exactly(4))
        if size < 10:
            raise Nonsense("no answer of a Kafka broker")
        answer = wire.exactly(size)
    correlation, error, count = struct.unpack_from(">ihi", answer)
    if correlation != 1 or not 0 <= count <= (size - 10) // 6:
        raise Nonsense("no answer of a Kafka broker")
    return Finding(data={"apis": count}) if error == 0 else Finding("fail", f"Kafka error {error}")


def mongodb(url: SplitResult, seconds: float) -> Finding:
    """`hello` by OP_MSG, which a server answers before anybody signs in."""
    body = struct.pack("<IB", 0, 0) + bson.encode({"hello": 1, "$db": "admin"})
    with Wire(url.hostname or "", url.port or 27017, seconds, tls=url.scheme == "mongodbs") as wire:
        wire.send(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
        size, _, answers, code = struct.unpack("<iiii", wire.exactly(16))
        if code != 2013 or answers != 1 or size < 26:
            raise Nonsense("no answer of a MongoDB server")
        answer = wire.exactly(size - 16)
    try:
        said = bson.decode(answer[5:])
    except (ValueError, IndexError, struct.error) as error:
        raise Nonsense("no answer of a MongoDB server") from error
    if said.get("ok") != 1:
        return Finding("fail", f"MongoDB error {said.get('code', '')}".strip())
    writable = said.get("isWritablePrimary") is True
    return Finding(data={"writable": writable, "wire": said.get("maxWireVersion", 0)})


def rabbitmq(url: SplitResult, seconds: float) -> Finding:
    """The header of AMQP 0-9-1, which a broker answers with Connection.Start."""
    secure = url.scheme == "amqps"
    with Wire(url.hostname or "", url.port or (5671 if secure else 5672), seconds, tls=secure) as wire:
        wire.send(b"AMQP\x00\x00\x09\x01")
        head = wire.exactly(8)
        if head[:4] == b"AMQP":
            return Finding("fail", f"speaks another AMQP: {head[5]}-{head[6]}-{head[7]}")
        kind, channel, size = struct.unpack_from(">BHI", head)
        if (kind, channel) != (1, 0) or size < 6:
            raise Nonsense("no answer of an AMQP broker")
        frame = head[7:] + wire.exactly(size)  # the rest of the method, and the end of its frame
    if struct.unpack_from(">HH", frame) != (10, 10) or frame[-1] != 0xCE:
        raise Nonsense("no answer of an AMQP broker")
    return Finding(data={"protocol": f"{frame[4]}-{frame[5]}"})


ASKS: Mapping[str, Ask] = {
    "http": http_get, "https": http_get, "tcp": tcp, "tls": tcp, "dns": dns, "smtp": smtp, "smtps": smtp,
    "kafka": kafka, "kafkas": kafka, "clickhouse": clickhouse, "clickhouses": clickhouse,
    "mongodb": mongodb, "mongodbs": mongodb, "amqp": rabbitmq, "amqps": rabbitmq,
}  # fmt: skip
"""Scheme of an address -> who asks it; a scheme that ends in s is the same by TLS."""


def _shown(connection: object) -> float | None:
    return end_of(connection.getpeercert()) if isinstance(connection, ssl.SSLSocket) else None


def _until(ends: float | None) -> dict[str, float]:
    return {} if ends is None else {CERTIFICATE_ENDS: ends}


def _credentials(url: SplitResult) -> dict[str, str]:
    if not url.username:
        return {}
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
