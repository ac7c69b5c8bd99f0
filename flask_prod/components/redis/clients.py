"""Redis clients by purpose: how long each may wait, and how often it tries again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import BlockingConnectionPool, parse_url
from redis.retry import Retry

from .lean import LeanClient, LeanPool
from .settings import RedisSettings, plain_url

PURPOSES = ("request", "jobs", "blocking", "listen")

_SILENT: Mapping[str, Any] = (
    {"driver_info": None} if hasattr(redis, "DriverInfo") else {"lib_name": None, "lib_version": None}
)
"""Leave out CLIENT SETINFO: two round trips that every new connection would pay, inside the time limits."""


def build_client(settings: RedisSettings, purpose: str) -> redis.Redis:
    """Return a client for one purpose; ValueError for a purpose that does not exist.

    "request" gives up after the time limits of the settings, and has `ask` for commands that are ready to be
    sent. "jobs" is for accepting work: no second try, since the first may have been accepted, 200 ms to connect,
    3 s to answer. "blocking" is for workers that wait for work: it has no read limit and keeps trying to
    come back. "listen" is for threads that hear what others publish, and come back by themselves.
    """
    options = {
        **_address(settings),
        **_SILENT,
        "protocol": 2,
        "socket_keepalive": True,
        **_limits(settings, purpose),
    }
    if options.get("connection_class") is redis.UnixDomainSocketConnection:
        del options["socket_keepalive"]
    if purpose == "request":
        lean = LeanPool(max_connections=settings.pool_size, **options)  # type: ignore[no-untyped-call]
        return LeanClient(lean, settings.max_retries, settings.read_timeout)
    pool = BlockingConnectionPool(max_connections=settings.pool_size, **options)  # type: ignore[no-untyped-call]
    return redis.Redis(connection_pool=pool)


def misfit(settings: RedisSettings) -> str:
    """Return what is wrong with the options in the address, empty when nothing is; connects to nothing."""
    pool = build_client(settings, "request").connection_pool
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, OSError, redis.RedisError) as error:
        return str(error)
    return ""


def renew(client: redis.Redis) -> None:
    """Give a client that came through a fork connections of its own; the parent's stay open in the parent."""
    client.connection_pool.reset()


def _address(settings: RedisSettings) -> dict[str, Any]:
    options = dict(parse_url(plain_url(settings.url)))  # type: ignore[no-untyped-call]
    if settings.password:
        options["password"] = settings.password.reveal()
    if settings.db is not None:
        options["db"] = settings.db
    return options


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
    if purpose == "listen":
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
