"""How many connections a service may open to each of its servers: plain arithmetic, which needs no database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask_prod.core.values import Secret

from ..settings import DatabaseSettings
from ..tenants.names import PLACE

JOB = 2
"""Connections of a job worker: one of the job that it runs, one of its own."""

PRIMARY, REPLICA, TENANTS = "the primary", "each replica", "the tenants' server"

_PORTS = {"postgresql": 5432, "postgres": 5432, "mysql": 3306, "mariadb": 3306}


@dataclass(frozen=True, slots=True)
class Wish:
    """What all processes together may open on one server: numbers to multiply, each product with its words."""

    server: str
    products: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """The sum."""
        return sum(number for _, number in self.products)

    def __str__(self) -> str:
        return f"{' + '.join(words for words, _ in self.products)} = {self.total}"


def wishes(settings: DatabaseSettings, processes: int, job_workers: int = 0) -> tuple[Wish, ...]:
    """Return what so many web processes and job workers may open, server by server, the primary first."""
    return _wishes(lambda name: getattr(settings, name), processes, job_workers)


def wishes_of_values(values: Mapping[str, Any], processes: int, job_workers: int = 0) -> tuple[Wish, ...]:
    """Return the same by the settings' keys; none where there is no database room."""
    if "DATABASE_MAX_OPEN_CONNS" not in values:
        return ()
    default = DatabaseSettings()

    def get(name: str) -> Any:
        return values.get(f"DATABASE_{name.upper()}", getattr(default, name))

    return _wishes(get, processes, job_workers)


def _wishes(get: Callable[[str], Any], processes: int, job_workers: int) -> tuple[Wish, ...]:
    size, replicas = int(get("max_open_conns")), bool(get("replica_urls"))
    pools = [_product(processes, "web processes", size, "connections")]
    pools += [_product(job_workers, "job workers", min(size, JOB))] if job_workers else []
    if replicas:
        pools.append(_product(processes + job_workers, "that look at replicas", 1))
    found = [Wish(PRIMARY, tuple(pools)), *([Wish(REPLICA, tuple(pools))] if replicas else [])]
    if get("tenants") != "database" or _place(get("url"))[0] is None:
        return tuple(found)

    count, each = int(get("tenant_pools")), int(get("tenant_open_conns"))
    host, port = _place(get("tenant_url"))
    if host is not None and PLACE in host:  # a server for each of them
        return (*found, Wish(TENANTS, (_product(processes, "web processes", each, "connections"),)))
    of_tenants = (f"{processes} x {count} tenants x {each}", processes * count * each)
    if host is not None and (host, port) == _place(get("url")):
        return (Wish(PRIMARY, (*pools, of_tenants)), *found[1:])
    return (*found, Wish(TENANTS, (of_tenants,)))


def _product(count: int, of_what: str, each: int, what: str = "") -> tuple[str, int]:
    return f"{count} {of_what} x {each} {what}".rstrip(), count * each


def _place(address: object) -> tuple[str | None, int | None]:
    """Return host and port of an address; no host where there is no server, or none is known."""
    text = address.reveal() if isinstance(address, Secret) else str(address or "")
    try:
        parts = urlsplit(text)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    except ValueError:
        return None, None
