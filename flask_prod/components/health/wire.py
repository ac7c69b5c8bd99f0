"""A connection that asks one question: everything within one time limit, nothing larger than expected."""

from __future__ import annotations

import socket
import ssl
from time import monotonic
from typing import Self

from flask_prod.core.certificate import end_of

LARGEST = 64 * 1024
"""Bytes that an answer may have; those we ask for have a few hundred."""


class Nonsense(Exception):
    """What answered does not speak the protocol."""


class Wire:
    """One connection with *seconds* for all that is said on it."""

    def __init__(self, host: str, port: int, seconds: float, *, tls: bool = False) -> None:
        self._ends = monotonic() + seconds
        self._socket: socket.socket = socket.create_connection((host, port), seconds)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self._limit()
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=host)
        except BaseException:
            self._socket.close()
            raise

    @property
    def certificate_ends(self) -> float | None:
        """When the other side's certificate ends; None without TLS."""
        return end_of(self._socket.getpeercert()) if isinstance(self._socket, ssl.SSLSocket) else None

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._limit()
        self._socket.sendall(data)

    def exactly(self, count: int) -> bytes:
        """Return so many bytes; Nonsense when that is too much or the other side ends before."""
        if not 0 <= count <= LARGEST:
            raise Nonsense(f"an answer of {count} bytes")
        content = b""
        while len(content) < count:
            self._limit()
            more = self._socket.recv(count - len(content))
            if not more:
                raise Nonsense("the connection ended in the middle of an answer" if content else "no answer")
            content += more
        return content

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _limit(self) -> None:
        left = self._ends - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)
