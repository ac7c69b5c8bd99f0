"""The connections to one replica, which can be cut: nobody waits for ever for a server that hangs."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any
from weakref import WeakSet

from sqlalchemy import Engine, event

from .engine import Replica

_EVERY = 0.25
_GOODBYE = 0.5


class Lines:
    """Knows the open connections of engines that lead to one server."""

    def __init__(self) -> None:
        self._open: WeakSet[Any] = WeakSet()

    def follow(self, engine: Engine) -> Engine:
        """Know the connections of *engine* from now on, if their driver shows the socket, as psycopg does."""
        event.listen(engine, "connect", self._opened)
        return engine

    def forget(self) -> None:
        """Know none: those of a parent process are not ours to cut."""
        self._open = WeakSet()

    def cut(self) -> None:
        """End all connections: who waits for an answer gets an error at once."""
        for one in list(self._open):
            # The other thread stays the owner of its socket; the copy is ours to close.
            with suppress(Exception), socket.socket(fileno=os.dup(one.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _opened(self, connection: Any, _record: object) -> None:
        if hasattr(connection, "fileno"):
            self._open.add(connection)


class Guard:
    """Cuts the lines of replicas that have fallen silent, and has the news told, in a thread that cannot hang."""

    def __init__(self, guarded: Sequence[tuple[Replica, Lines]], tell: Callable[[], None]) -> None:
        self._guarded = guarded
        self._tell = tell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flask-prod-replicas", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(_GOODBYE)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY):
            now = monotonic()
            for replica, lines in self._guarded:
                if replica.believed_until and now >= replica.believed_until:
                    lines.cut()
            self._tell()
