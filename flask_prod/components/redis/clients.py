"""Redis clients by purpose: how long each may wait, and how often it tries again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from flask_prod.core.errors import NotInstalled

from .address import CLUSTER, SENTINEL, Address, is_encrypted, resolve
from .cluster import ClusterClient
from .lean import LeanClient
from .pools import CountingPool, LeanPool
from .sentinel import EncryptedPrimaryConnection, Finder, PrimaryConnection
from .settings import RedisSettings

PURPOSES = ("request", "jobs", "blocking", "locks", "listen")

_SILENT: Mapping[str, Any] = (
    {"driver_info": None} if hasattr(redis, "DriverInfo") else {"lib_name": None, "lib_version": None}
)
"""Leave out CLIENT SETINFO: two round trips that every new connection would pay, inside the time limits."""

_SINGLE_ONLY = ("jobs", "blocking")
"""What RQ is used with: its scripts touch keys of several slots."""


def build_client(
    settings: RedisSettings, purpose: str, on_node: Callable[[str, bool], None] = lambda name, opened: None
) -> Any:
    """Return a client for one purpose; ValueError for a purpose that does not exist.

    "request" gives up after the time limits of the settings, and has `ask` for commands that are ready to be
    sent. "jobs" is for accepting work: no second try, since the first may have been accepted, 200 ms to connect,
    3 s to answer. "blocking" is for workers that wait for work: it has no read limit and keeps trying to
    come back. "locks" is for work that one process of many does (cron, checks): 500 ms to connect, 1 s to answer.
    "listen" is for threads that hear what others publish, and come back by themselves.

    For a cluster the client connects now, and raises what redis-py raises when no node answers.
    """
    limits = _limits(settings, purpose)
    address = resolve(settings)
    options = {**address.options, **_SILENT, "protocol": 2, "socket_keepalive": True, **limits}
    if address.kind == CLUSTER:
        return _cluster(settings, purpose, address, options, on_node)
    if options.get("connection_class") is redis.UnixDomainSocketConnection:
        del options["socket_keepalive"]
    if address.kind == SENTINEL:
        options |= _primary(address, limits["socket_connect_timeout"])
    if purpose == "request":
        lean = LeanPool(max_connections=settings.pool_size, **options)  # type: ignore[no-untyped-call]
        return LeanClient(lean, settings.max_retries, settings.read_timeout)
    pool = CountingPool(max_connections=settings.pool_size, **options)  # type: ignore[no-untyped-call]
    return redis.Redis(connection_pool=pool)


def misfit(settings: RedisSettings) -> str:
    """Return what is wrong with the options in the address, empty when nothing is; connects to nothing."""
    address = resolve(settings)
    options = {**address.options, **_SILENT, "protocol": 2}
    kind = options.pop("connection_class", redis.Connection)
    try:
        kind(**options)
    except (TypeError, ValueError, OSError, redis.RedisError) as error:
        return str(error)
    return ""


def renew(client: Any) -> bool:
    """Give a client that came through a fork connections of its own; the parent's stay open in the parent.

    False when it must be built anew.
    """
    if isinstance(client, ClusterClient):
        return False
    finder = finder_of(client)
    if finder is not None:
        finder.renew()
    client.connection_pool.reset()
    return True


def close(client: Any) -> None:
    """Close every connection of a client."""
    if isinstance(client, ClusterClient):
        client.close_all()
        return
    client.connection_pool.disconnect()
    finder = finder_of(client)
    if finder is not None:
        finder.close()


def finder_of(client: Any) -> Finder | None:
    """Return what finds the primary for this client; None where there are no sentinels."""
    pool = getattr(client, "connection_pool", None)
    finder: Finder | None = pool.connection_kwargs.get("finder") if pool is not None else None
    return finder


def any_pool(client: Any) -> Any:
    """Return the pool of a client, for a cluster that of any node: channels reach all of them."""
    if isinstance(client, ClusterClient):
        node = client.get_random_node()  # type: ignore[no-untyped-call]
        return client.get_redis_connection(node).connection_pool
    return client.connection_pool


def _primary(address: Address, patience: float) -> dict[str, Any]:
    """Return the options by which a connection finds the primary.

    The sentinels share the user's certificates, and have a user and a password of their own. Each gets half of
    the time that a connection gets, so that two that are away leave time for the third.
    """
    shared = {key: value for key, value in address.options.items() if key.startswith("ssl_")}
    encrypted = is_encrypted(address)
    options = {**shared, **address.sentinel, **_SILENT, "protocol": 2, **({"ssl": True} if encrypted else {})}
    return {
        "connection_class": EncryptedPrimaryConnection if encrypted else PrimaryConnection,
        "finder": Finder(address.hosts, address.service, options, patience / 2),
    }


def _cluster(
    settings: RedisSettings,
    purpose: str,
    address: Address,
    options: dict[str, Any],
    on_node: Callable[[str, bool], None],
) -> ClusterClient:
    if purpose in _SINGLE_ONLY:
        raise NotInstalled(
            "Jobs need one Redis server or a Sentinel deployment: RQ's scripts do not work in a cluster."
        )
    encrypted = is_encrypted(address)
    for name in ("retry", "timeout", "connection_class"):
        options.pop(name, None)
    if encrypted:
        options["ssl"] = True
    return ClusterClient(address.hosts, {**options, "max_connections": settings.pool_size}, on_node)


def _limits(settings: RedisSettings, purpose: str) -> dict[str, Any]:
    """Return time limits in seconds; `timeout` is the wait for a free connection."""
    if purpose == "request":
        return {
            "timeout": settings.connect_timeout,
            "socket_connect_timeout": settings.connect_timeout,
            "socket_timeout": settings.read_timeout,
            # ConnectionError alone: a timeout has already cost what a request may wait.
            "retry": Retry(NoBackoff(), settings.max_retries, (redis.ConnectionError,)),
        }
    if purpose == "jobs":
        return {
            "timeout": 0.2,
            "socket_connect_timeout": 0.2,
            "socket_timeout": 3.0,
            "retry": Retry(NoBackoff(), 0),
        }
    if purpose in ("locks", "listen"):
        return {
            "timeout": 1.0,
            "socket_connect_timeout": 0.5,
            "socket_timeout": 1.0,
            "retry": Retry(NoBackoff(), 0),
        }
    if purpose == "blocking":
        return {
            "timeout": 20.0,
            "socket_connect_timeout": 5.0,
            "socket_timeout": None,
            # As redis-py itself does for clients that are built from host and port.
            "retry": Retry(ExponentialWithJitterBackoff(base=1, cap=10), 10),
        }
    raise ValueError(f"There is no Redis client for {purpose!r}; there are {', '.join(PURPOSES)}.")
