"""What other rooms hold of Redis: clients by purpose, keys in a namespace, and calls behind the breaker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import redis

from flask_prod.core.component import Event
from flask_prod.core.errors import NotInstalled, Unavailable
from flask_prod.core.ports import GaugePort

from .clients import build_client, renew
from .engine import Breaker
from .settings import RedisSettings

ResultT = TypeVar("ResultT")

_SILENCE = 60.0
"""At most one degraded and one recovered event per so many seconds: a flapping server must not flood the log."""

_BROKEN = (redis.RedisError, OSError, ValueError)
"""What a call may end with: ValueError is how redis-py shows bytes that are no answer at all."""

_REFUSALS = (
    redis.OutOfMemoryError,
    redis.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.NoPermissionError,
)
"""Answers about the state of the server, not about one key; reads may well go on working."""

_REFUSING = ("MISCONF", "NOREPLICAS", "BUSY ", "NOAUTH")
"""The same, where redis-py has no class of its own."""


class RedisHandle:
    """One application's way to Redis; fulfils `core.ports.RedisPort`."""

    def __init__(
        self,
        settings: RedisSettings,
        namespace: str,
        gauge: GaugePort,
        emit: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._prefix = namespace + ":"
        self._probe_key = self.key("redis", "probe")
        self._gauge = gauge
        self._emit = emit
        self._lock = threading.Lock()
        self._clients: dict[str, redis.Redis] = {}
        self.breaker = Breaker(on_change=self._changed)
        self._cause = ""
        self._opened_at = 0.0
        self._told = False
        self._told_at = -_SILENCE

    @property
    def configured(self) -> bool:
        """True when there is a REDIS_URL."""
        return bool(self._settings.url)

    @property
    def degraded(self) -> bool:
        """True while the circuit breaker keeps requests away from the server."""
        return self.breaker.opened

    @property
    def cause(self) -> str:
        """What went wrong last, as the name of an error; empty when nothing has."""
        return self._cause

    def key(self, *parts: str) -> str:
        """Return a key in this service's namespace: `shop:production:limit:...`."""
        return self._prefix + ":".join(parts)

    def client(self, purpose: str = "request") -> redis.Redis:
        """Return the client for a purpose, made on first use; NotInstalled without a REDIS_URL."""
        client = self._clients.get(purpose)
        return client if client is not None else self._build(purpose)

    def attempt(self, call: Callable[[redis.Redis], ResultT]) -> ResultT:
        """Run *call* with the request client; Unavailable when the breaker is open or the server fails.

        A ValueError of *call* counts as an answer that makes no sense.
        """
        breaker = self.breaker
        if breaker.opened:
            return self._probe(call)
        try:
            result = call(self.client())
        except _BROKEN as error:
            self._note(error)
            raise Unavailable(f"Redis failed: {type(error).__name__}") from error
        if breaker.failures:
            breaker.succeed()
        return result

    def ping(self) -> None:
        """Ask whether the server is there and takes writes; Unavailable when not."""
        self.attempt(lambda client: client.set(self._probe_key, "1", px=1000))

    def start(self) -> None:
        """Connect once per process, so that no request finds out what can be known now."""
        self._gauge.set(0.0, "redis")
        if not self.configured:
            return
        try:
            self.ping()
        except Unavailable:
            self.breaker.trip()

    def after_fork(self) -> None:
        """Begin anew in a child: connections of its own, a closed breaker."""
        self._lock = threading.Lock()
        self.breaker.reset()
        self._told = False
        for client in self._clients.values():
            renew(client)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            clients = tuple(self._clients.values())
        for client in clients:
            client.connection_pool.disconnect()

    def _build(self, purpose: str) -> redis.Redis:
        if not self.configured:
            raise NotInstalled("There is no REDIS_URL; set it to redis://host:6379/0 to use Redis.")
        with self._lock:
            if purpose not in self._clients:
                self._clients[purpose] = build_client(self._settings, purpose)
            return self._clients[purpose]

    def _probe(self, call: Callable[[redis.Redis], ResultT]) -> ResultT:
        """Try once per second while open: a write of our own, then the call; both must succeed.

        The write tells a server that only reads (out of memory, a replica) from one that works.
        """
        if not self.breaker.admit():
            raise Unavailable(f"Redis is left alone for a moment: {self._cause}")
        answered = False
        try:
            client = self.client()
            client.set(self._probe_key, "1", px=1000)
            result = call(client)
            answered = True
        except _BROKEN as error:
            self._cause = type(error).__name__
            raise Unavailable(f"Redis failed: {self._cause}") from error
        finally:
            self.breaker.end_probe(answered)
            if not answered and not self._told:
                self._tell_degraded()
        return result

    def _note(self, error: Exception) -> None:
        self._cause = type(error).__name__
        if isinstance(error, _REFUSALS) or str(error).startswith(_REFUSING):
            self.breaker.refuse()
        else:
            self.breaker.fail()

    def _changed(self, _state: str) -> None:
        """Show a change of state: at once in the gauge, at most once a minute in events."""
        if self.breaker.opened:
            self._gauge.set(1.0, "redis")
            self._opened_at = time.monotonic()
            self._tell_degraded()
            return
        self._gauge.set(0.0, "redis")
        if self._told:
            self._told = False
            seconds = round(time.monotonic() - self._opened_at, 1)
            message = f"Redis answers again after {seconds} s."
            self._emit(Event("prod.redis.recovered", message, "info", {"seconds": seconds}))

    def _tell_degraded(self) -> None:
        """Tell of an outage, unless one was told of in the last minute; then a later probe tells."""
        now = time.monotonic()
        if now - self._told_at < _SILENCE:
            return
        self._told, self._told_at = True, now
        message = (
            f"Redis does not answer ({self._cause}): the service goes on without it and asks again every second."
        )
        fields = {"cause": self._cause, "address": self._settings.url.shown()}
        self._emit(Event("prod.redis.degraded", message, "error", fields))
