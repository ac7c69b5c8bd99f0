"""Python's `logging` for any number of applications: one handler on the root logger, no line twice."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from flask import current_app
from flask.logging import default_handler

from flask_prod.core.exchange import LOGGED
from flask_prod.core.kit import EXTENSION

from .engine import AppLog
from .structured import adopt_structlog, release_structlog

_SERVERS = ("gunicorn.error", "gunicorn.access")
"""Loggers that keep handlers of their own; their lines take our form."""


class RootHandler(logging.Handler):
    """Hands every log record to the application it belongs to, the last one installed if to none."""

    def __init__(self) -> None:
        super().__init__()
        self._logs: list[AppLog] = []
        self._replaced: list[logging.Handler] = []
        self._formatters: list[tuple[logging.Handler, logging.Formatter | None]] = []
        self._before = logging.WARNING
        self._ours = logging.WARNING
        self._werkzeug = AccessFilter()
        self._once = LoggedFilter()
        self._reopen: dict[AppLog, Callable[[], None]] = {}
        self._listener: _Listener | None = None
        self._adopted = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*; what cannot be written is dropped, as logging must not raise."""
        try:
            self.log_of_current().write_record(record)
        except Exception:
            self.handleError(record)

    def log_of_current(self) -> AppLog:
        """Return the log of the application whose context this is."""
        if current_app and EXTENSION in current_app.extensions:
            contribution = current_app.extensions[EXTENSION].contributions.get("logs")
            if contribution is not None and contribution.handle in self._logs:
                log: AppLog = contribution.handle
                return log
        return self._logs[-1]

    def join(self, log: AppLog, reopen: Callable[[], None]) -> None:
        """Begin to write for *log*, whose file *reopen* opens anew."""
        if not self._logs:
            self._take_over()
        self._logs.append(log)
        self._reopen[log] = reopen
        self.set_level()
        self.adopt()

    def adopt(self) -> None:
        """Take in what the application has brought along since: structlog, which is never imported from here."""
        self._adopted = adopt_structlog() or self._adopted

    def listen(self) -> None:
        """Reopen files on SIGUSR1, after what the server does then; only a main thread can."""
        if self._listener is None and threading.current_thread() is threading.main_thread():
            self._listener = _Listener(self.reopen_all)

    def reopen_all(self) -> None:
        """Open the files of all applications anew; called within a signal handler."""
        for reopen in tuple(self._reopen.values()):
            reopen()

    def leave(self, log: AppLog) -> None:
        """End writing for *log*; after the last one `logging` is as it was."""
        if log in self._logs:
            self._logs.remove(log)
            del self._reopen[log]
            if self._logs:
                self.set_level()
            else:
                self._give_back()

    def _take_over(self) -> None:
        root = logging.getLogger()
        self._before = root.level
        # What logging.basicConfig leaves on the root logger would write every line a second time.
        self._replaced = [h for h in root.handlers if _is_replaceable(h)]
        for handler in self._replaced:
            root.removeHandler(handler)
        root.addHandler(self)
        logging.getLogger("werkzeug").addFilter(self._werkzeug)
        for name in _SERVERS:
            logging.getLogger(name).addFilter(self._once)
            for handler in logging.getLogger(name).handlers:
                self._formatters.append((handler, handler.formatter))
                handler.setFormatter(BridgeFormatter(self))

    def _give_back(self) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        for handler in self._replaced:
            root.addHandler(handler)
        if root.level == self._ours:  # else somebody has set another since
            root.setLevel(self._before)
        logging.getLogger("werkzeug").removeFilter(self._werkzeug)
        for name in _SERVERS:
            logging.getLogger(name).removeFilter(self._once)
        for handler, formatter in self._formatters:
            handler.setFormatter(formatter)
        self._replaced, self._formatters = [], []
        if self._adopted:
            release_structlog()
        if self._listener is not None:
            self._listener.close()
        self._adopted, self._listener = False, None

    def set_level(self) -> None:
        """Let through what the most talkative application wants."""
        self._ours = min(log.level for log in self._logs)
        logging.getLogger().setLevel(self._ours)


class BridgeFormatter(logging.Formatter):
    """Gives the lines of a server's own handler our form."""

    def __init__(self, root: RootHandler) -> None:
        super().__init__()
        self._root = root

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as one line."""
        return self._root.log_of_current().encoded(record)


class ServerHandler(logging.Handler):
    """Writes a server's own lines, whole, without waiting for a reader."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record* as the formatter says it."""
        try:
            self._write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:
            self.handleError(record)


class AccessFilter(logging.Filter):
    """Keeps werkzeug's own request lines out; ours say the same and more."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether *record* is something else than a request line."""
        return not (record.levelno == logging.INFO and " - - [" in str(record.msg))


class LoggedFilter(logging.Filter):
    """Keeps out a server's line about an exception that the pass has logged already, with the request's id."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether *record* is news."""
        error = record.exc_info[1] if record.exc_info else None
        return error is None or not getattr(error, LOGGED, False)


def root_handler() -> RootHandler:
    """Return the handler of this process, which all its applications share."""
    present = (handler for handler in logging.getLogger().handlers if isinstance(handler, RootHandler))
    return next(present, None) or RootHandler()


def without_default_handler(logger: logging.Logger) -> None:
    """Take Flask's default handler from an application's logger: the root logger's writes the same line."""
    logger.removeHandler(default_handler)


class _Listener:
    """A handler of SIGUSR1 that calls the one before it first."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._before: Any = signal.getsignal(signal.SIGUSR1)
        with suppress(ValueError):  # not in the main interpreter
            signal.signal(signal.SIGUSR1, self._handle)

    def close(self) -> None:
        """Put the handler before back, unless another one came since."""
        if self._before is None or signal.getsignal(signal.SIGUSR1) != self._handle:
            return
        with suppress(ValueError):  # another thread closes
            signal.signal(signal.SIGUSR1, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if callable(self._before):
            self._before(number, frame)
        self._call()


def _is_replaceable(handler: logging.Handler) -> bool:
    """Tell whether an application's handler says the same: Python's own on a standard stream, or our server's."""
    if isinstance(handler, ServerHandler):
        return True
    streams = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return type(handler) is logging.StreamHandler and handler.stream in streams
