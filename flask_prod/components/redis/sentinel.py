"""A Sentinel deployment: who the primary is, asked seldom, and connections that follow it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

_SILENCE = 0.5
"""Seconds for which the answer "nobody knows" holds: threads that wait for it do not ask one after the other."""


class Finder:
    """Knows where the primary is, and asks redis-py's Sentinel when it does not.

    *patience* is what each sentinel gets to connect, and again to answer, in seconds.
    """

    def __init__(
        self, hosts: Sequence[tuple[str, int]], service: str, options: dict[str, Any], patience: float
    ) -> None:
        self._service = service
        self._hosts = tuple(hosts)
        self._options = options
        self._patience = patience
        self.renew()

    def renew(self) -> None:
        """Begin anew, in a child: a lock and connections of its own."""
        self._lock = threading.Lock()
        self._known: tuple[str, int] | None = None
        self._unknown_until = 0.0
        limits = {"socket_connect_timeout": self._patience, "socket_timeout": self._patience}
        options = {**self._options, **limits, "retry": Retry(NoBackoff(), 0)}
        self._sentinel = Sentinel(self._hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]

    def address(self) -> tuple[str, int]:
        """Return host and port of the primary; redis.TimeoutError when no sentinel knows one."""
        known = self._known
        if known is not None:
            return known
        with self._lock:
            if self._known is None:
                self._known = self._ask()
            return self._known

    def forget(self) -> None:
        """Ask again for the next connection: who was the primary did not answer, or is one no more."""
        self._known = None

    def has_moved(self) -> bool:
        """Ask whether the primary is another by now; False when nobody can say. Not for the request path."""
        known = self._known
        try:
            with self._lock:
                self._known = self._ask()
        except redis.TimeoutError:
            return False
        return known is not None and known != self._known

    def close(self) -> None:
        """Close the connections to the sentinels."""
        for client in self._sentinel.sentinels:
            client.connection_pool.disconnect()

    def _ask(self) -> tuple[str, int]:
        if monotonic() < self._unknown_until:
            raise redis.TimeoutError("No sentinel knew the primary a moment ago")
        try:
            host, port = self._sentinel.discover_master(self._service)  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            self._unknown_until = monotonic() + _SILENCE
            # Not as a ConnectionError: asking all of them once more would cost a request as much again.
            raise redis.TimeoutError("No sentinel knows the primary") from None
        return host, int(port)


class PrimaryConnection(Connection):
    """A connection to whoever is the primary when it connects."""

    def __init__(self, *, finder: Finder, **options: Any) -> None:
        self._finder = finder
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        self.host, self.port = self._finder.address()
        try:
            return super()._connect()  # type: ignore[no-untyped-call]
        except OSError:
            self._finder.forget()
            raise

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read an answer as redis-py does; one that says "not the primary" ends the connection."""
        try:
            return super().read_response(*args, **options)
        except redis.ReadOnlyError:
            self._finder.forget()
            self.disconnect()  # type: ignore[no-untyped-call]
            raise


class EncryptedPrimaryConnection(PrimaryConnection, SSLConnection):
    """The same with TLS."""
