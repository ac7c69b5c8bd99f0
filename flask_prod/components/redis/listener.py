"""A connection that listens in a thread of its own, and says when it may have missed something."""

from __future__ import annotations

import logging
import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

import redis

logger = logging.getLogger(__name__)

BOUND = 2.0
"""Seconds after which a listener that heard nothing, not even the answer to its own question, is deaf."""

_BEAT = 0.5
"""Seconds of silence after which it asks whether anybody is there."""

_PAUSE = (0.2, 0.6)
"""Seconds between two tries to come back; drawn at random, so that many processes do not come together."""

_INVALIDATIONS = b"__redis__:invalidate"
_BROKEN = (redis.RedisError, OSError, ValueError)


class Listener:
    """Calls *on_message* with what comes, and *on_lost* whenever something may have been missed.

    *on_lost* is called when the connection is lost, and again when the next one is in place, just before `live`
    becomes true: who then forgets what was kept in between has missed nothing. Both are called in this
    listener's thread; what they raise is logged.
    """

    def __init__(
        self,
        open_connection: Callable[[], Any],
        subscribe: Callable[[Any], None],
        on_message: Callable[[bytes | None], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._open = open_connection
        self._subscribe = subscribe
        self._on_message = on_message
        self._on_lost = on_lost
        self._heard = 0.0
        self._connection: Any = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flask-prod-redis-listener", daemon=True)
        self._thread.start()

    @property
    def live(self) -> bool:
        """True while messages come: the server was heard less than `BOUND` (2) seconds ago."""
        return monotonic() - self._heard < BOUND

    def stop(self) -> None:
        """End the thread and close the connection; calls nothing any more."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            _wake(connection)
        if self._thread is not threading.current_thread():
            self._thread.join(BOUND)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except _BROKEN as error:
                logger.debug("a listener lost Redis: %s", type(error).__name__)
            finally:
                self._lose()
            self._stopping.wait(random.uniform(*_PAUSE))  # noqa: S311  # no secret

    def _listen(self) -> None:
        connection = self._connection = self._open()
        connection.connect()
        self._subscribe(connection)
        if self._stopping.is_set():
            return
        self._call(self._on_lost)
        self._heard = monotonic()
        asked = False
        while not self._stopping.is_set():
            if connection.can_read(_BEAT):
                self._take(connection.read_response())
                asked = False
            elif monotonic() - self._heard > BOUND:
                raise redis.TimeoutError("Redis is silent")
            elif not asked:
                connection.send_command("PING", check_health=False)
                asked = True

    def _lose(self) -> None:
        lost, self._heard = self._heard, 0.0
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
        if lost and not self._stopping.is_set():
            self._call(self._on_lost)

    def _take(self, answer: Any) -> None:
        self._heard = monotonic()
        if not isinstance(answer, list) or len(answer) != 3 or answer[0] != b"message":
            return  # the answer to our own question
        what = answer[2]
        # Invalidations come as a list of keys; nothing in place of the list means all keys.
        for one in what if isinstance(what, list) else (what,):
            self._call(partial(self._on_message, one))

    def _call(self, call: Callable[[], None]) -> None:
        if self._stopping.is_set():
            return
        try:
            call()
        except Exception:
            logger.exception("a listener's own function failed")


def to_channel(name: str) -> Callable[[Any], None]:
    """Return what makes a connection hear one channel."""

    def subscribe(connection: Any) -> None:
        connection.send_command("SUBSCRIBE", name, check_health=False)
        connection.read_response()

    return subscribe


def to_changes(*prefixes: str) -> Callable[[Any], None]:
    """Return what makes a connection hear every change of keys that begin in one of these ways."""

    def subscribe(connection: Any) -> None:
        connection.send_command("CLIENT", "ID", check_health=False)
        mine = connection.read_response()
        words = [word for prefix in prefixes for word in ("PREFIX", prefix)]
        connection.send_command("CLIENT", "TRACKING", "ON", "REDIRECT", mine, "BCAST", *words, check_health=False)
        connection.read_response()
        connection.send_command("SUBSCRIBE", _INVALIDATIONS, check_health=False)
        connection.read_response()

    return subscribe


def _wake(connection: Any) -> None:
    """End the wait of a thread that reads from this connection."""
    sock = connection._sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
