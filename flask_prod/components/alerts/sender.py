"""Messages to people, by threads of their own: a channel that hangs delays no request, no exit, no other one."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from flask_prod.core.ports import CounterPort
from flask_prod.core.values import Secret

logger = logging.getLogger("flask_prod.alerts")

_WAITING = 20
"""Messages that may wait for one channel; more are dropped and counted."""

_PAUSES = (2.0, 10.0, 60.0)
"""Seconds before each new attempt at a message that could not be sent."""

_TALKATIVE = ("apprise", "urllib3.connectionpool", "urllib3.util.retry")
"""Loggers that name addresses: apprise those it cannot read, urllib3 at DEBUG the path, Slack's token."""


@dataclass(frozen=True, slots=True)
class Message:
    """What people read; `kind` is apprise's: info, success, warning or failure."""

    title: str
    body: str
    kind: str = "failure"


class Notify(Protocol):
    """What sends a message by one channel; false or an exception when it could not."""

    def __call__(self, message: Message) -> bool:
        """Send it."""


def open_channel(address: Secret) -> Notify:
    """Return what sends by apprise; it is imported by the first message, which takes a quarter of a second."""
    found: Any = None

    def notify(message: Message) -> bool:
        nonlocal found
        if found is None:
            import apprise

            found = apprise.Apprise.instantiate(address.reveal())
            if found is None:
                raise ValueError("apprise does not know such an address")
        return bool(found.notify(body=message.body, title=message.title, notify_type=message.kind))

    return notify


class Channel:
    """One address with its queue and thread, which is started by its first message."""

    def __init__(self, address: Secret, counted: CounterPort, notify: Notify | None = None) -> None:
        self.shown = f"{address.reveal().partition('://')[0]} ({address.fingerprint})"
        self._notify = notify or open_channel(address)
        self._counted = counted
        self._away = False
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: the parent's thread and what waits for it are the parent's."""
        self._waiting: queue.Queue[Message | None] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def put(self, message: Message) -> None:
        """Leave *message* to be sent; never waits."""
        with self._lock:
            if self._stopping.is_set():
                return
            if self._thread is None:
                self._thread = quiet_thread(self._run)
                self._thread.start()
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._counted.inc("dropped")

    def end(self) -> None:
        """Take no more messages and give up on those that failed; `join` waits for what is being sent."""
        with self._lock:
            self._stopping.set()
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return

    def join(self, until: float) -> None:
        """Wait for the messages under way until *until* (`time.monotonic`)."""
        if self._thread is not None:
            self._thread.join(max(0.0, until - monotonic()))

    def try_once(self, message: Message) -> str:
        """Send *message* at once and return why it could not be, empty when it was."""
        try:
            return "" if self._notify(message) else "the channel did not take it"
        except ImportError:
            return "apprise is not installed"
        except Exception as error:  # whatever a channel's library raises
            return str(error) if type(error) is ValueError else type(error).__name__

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            for pause in (*_PAUSES, None):
                problem = self.try_once(message)
                self._tell(problem)
                if not problem or pause is None or self._stopping.wait(pause):
                    break
            self._counted.inc("failed" if problem else "sent")

    def _tell(self, problem: str) -> None:
        """Log the first failure of a row, and the end of it."""
        if problem and not self._away:
            logger.error("Alerts by %s do not arrive: %s.", self.shown, problem)
        elif not problem and self._away:
            logger.warning("Alerts by %s arrive again.", self.shown)
        self._away = bool(problem)


class Sender:
    """All channels of one application."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.channels = tuple(channels)

    def send(self, message: Message) -> None:
        """Leave *message* to every channel; never waits, never raises."""
        for channel in self.channels:
            channel.put(message)

    def after_fork(self) -> None:
        """Renew every channel in a forked child."""
        for channel in self.channels:
            channel.after_fork()

    def close(self, seconds: float = 1.0) -> None:
        """Send what waits, for *seconds* at most over all channels."""
        until = monotonic() + seconds
        for channel in self.channels:
            channel.end()
        for channel in self.channels:
            channel.join(until)


class Quiet(logging.Filter):
    """Keeps the libraries' own lines of our threads out of the log: they name addresses."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether *record* comes from somewhere else."""
        return record.threadName != _thread_name()


def hush() -> Callable[[], None]:
    """Put the filter in place; return what takes it away."""
    quiet = Quiet()
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(quiet)

    def speak() -> None:
        for name in _TALKATIVE:
            logging.getLogger(name).removeFilter(quiet)

    return speak


def quiet_thread(call: Callable[[], None]) -> threading.Thread:
    """Return a thread that sends, of which `hush` keeps the libraries' lines out of the log."""
    return threading.Thread(target=call, name=_thread_name(), daemon=True)


def _thread_name() -> str:
    return f"flask-prod-alerts-{os.getpid()}"
