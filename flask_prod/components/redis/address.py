"""REDIS_URL in all its forms: one server, a Sentinel deployment, a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import RedisSettings

SINGLE = "single"
SENTINEL = "sentinel"
CLUSTER = "cluster"

_SCHEME = re.compile(r"(?:redis|valkey)(s?)(?:\+(sentinel|cluster))?://", re.IGNORECASE | re.ASCII)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d+))?", re.ASCII)
_PORTS = {SENTINEL: 26379, CLUSTER: 6379}
_OF_SENTINEL = "sentinel_"


@dataclass(frozen=True)
class Address:
    """Where Redis is; `options` are redis-py's for a connection, `sentinel` those that differ for a sentinel."""

    kind: str
    options: dict[str, Any]
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel: dict[str, Any] = field(default_factory=dict)


def parse(text: str) -> Address:
    """Return what an address says; ValueError when it cannot be understood, without quoting it."""
    text = text.strip()
    found = _SCHEME.match(text)
    if found is None or found[2] is None:
        return Address(SINGLE, _options(_plain(text, found)))
    rest, _, query = text[found.end() :].partition("?")
    place, _, path = rest.partition("/")
    if "@" in path:
        raise ValueError("a slash in the password")
    user, at, names = place.rpartition("@")
    kind = found[2].lower()
    hosts = tuple(_host(name, _PORTS[kind]) for name in names.split(","))
    service, db = _path(kind, path)
    options = _options(f"redis{found[1].lower()}://{user}{at}host/{db}?{query}")
    sentinel = {
        name.removeprefix(_OF_SENTINEL): options.pop(name)
        for name in list(options)
        if name.startswith(_OF_SENTINEL)
    }
    for name in ("host", "port"):
        options.pop(name, None)
    return Address(kind, options, hosts, service, sentinel)


def resolve(settings: RedisSettings) -> Address:
    """Return the address with what other settings say about it: user, password, database, certificates."""
    address = parse(settings.url.reveal())
    options = dict(address.options)
    if settings.username:
        options["username"] = settings.username
    if settings.password:
        options["password"] = settings.password.reveal()
    if settings.db is not None:
        options["db"] = settings.db
    if is_encrypted(address):
        options |= _certificates(settings)
    if address.kind == CLUSTER:
        options.pop("db", None)  # a cluster has one database, and redis-py no argument for it
    return Address(address.kind, options, address.hosts, address.service, address.sentinel)


def is_encrypted(address: Address) -> bool:
    """Tell whether connections use TLS."""
    from redis.connection import SSLConnection

    return address.options.get("connection_class") is SSLConnection


def shown(settings: RedisSettings) -> str:
    """Return the address as a log may have it: hosts and service, neither user nor password."""
    try:
        address = parse(settings.url.reveal())
    except ValueError:
        return settings.url.shown()
    if address.kind == SINGLE:
        return settings.url.shown()
    hosts = ",".join(f"{host}:{port}" for host, port in address.hosts)
    return f"{address.kind} {hosts}" + (f" {address.service}" if address.service else "")


def _certificates(settings: RedisSettings) -> dict[str, Any]:
    """Return redis-py's names for our files; the certificate authority may be the text of its file."""
    found: dict[str, Any] = {}
    if settings.tls_ca:
        found["ssl_ca_data" if "-----BEGIN" in settings.tls_ca else "ssl_ca_certs"] = settings.tls_ca
    if settings.tls_cert:
        found["ssl_certfile"] = settings.tls_cert
    if settings.tls_key:
        found["ssl_keyfile"] = settings.tls_key
    return found


def _plain(text: str, found: re.Match[str] | None) -> str:
    """Return an address of one server as redis-py writes it: Valkey speaks the same protocol."""
    return text if found is None else f"redis{found[1].lower()}://{text[found.end() :]}"


def _options(text: str) -> dict[str, Any]:
    from redis.connection import parse_url

    return dict(parse_url(text))  # type: ignore[no-untyped-call]


def _host(name: str, default: int) -> tuple[str, int]:
    found = _HOST.fullmatch(name.strip())
    if found is None:
        raise ValueError("a host that is none")
    port = int(found[2] or default)
    if not 0 < port < 65536:
        raise ValueError("a port that is none")
    return found[1].strip("[]"), port


def _path(kind: str, path: str) -> tuple[str, str]:
    """Return the name of the service and the number of the database."""
    parts = path.strip("/").split("/") if path.strip("/") else []
    if kind == CLUSTER:
        if parts not in ([], ["0"]):
            raise ValueError("a cluster has database 0 only")
        return "", "0"
    if not 1 <= len(parts) <= 2:
        raise ValueError("the name of the service is missing")
    return parts[0], parts[1] if len(parts) == 2 else "0"
