"""Python's `logging` for any number of applications: one handler on the root logger, no line twice."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from flask import current_app
from flask.logging import default_handler

from flask_prod.core.kit import EXTENSION
from flask_prod.core.record import current_record

from .engine import AppLog

_SERVERS = ("gunicorn.error",)
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

    def join(self, log: AppLog) -> None:
        """Begin to write for *log*."""
        if not self._logs:
            self._take_over()
        self._logs.append(log)
        self._set_level()

    def leave(self, log: AppLog) -> None:
        """End writing for *log*; after the last one `logging` is as it was."""
        if log in self._logs:
            self._logs.remove(log)
            if self._logs:
                self._set_level()
            else:
                self._give_back()

    def _take_over(self) -> None:
        root = logging.getLogger()
        self._before = root.level
        # What logging.basicConfig leaves on the root logger would write every line a second time.
        self._replaced = [h for h in root.handlers if type(h) is logging.StreamHandler and _is_standard(h)]
        for handler in self._replaced:
            root.removeHandler(handler)
        root.addHandler(self)
        logging.getLogger("werkzeug").addFilter(self._werkzeug)
        for name in _SERVERS:
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
        for handler, formatter in self._formatters:
            handler.setFormatter(formatter)
        self._replaced, self._formatters = [], []

    def _set_level(self) -> None:
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


class AccessFilter(logging.Filter):
    """Keeps werkzeug's own request lines out; ours say the same and more."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether *record* is something else than a request line."""
        return not (record.levelno == logging.INFO and " - - [" in str(record.msg))


def root_handler() -> RootHandler:
    """Return the handler of this process, which all its applications share."""
    present = (handler for handler in logging.getLogger().handlers if isinstance(handler, RootHandler))
    return next(present, None) or RootHandler()


def without_default_handler(logger: logging.Logger) -> None:
    """Take Flask's default handler from an application's logger: the root logger's writes the same line."""
    logger.removeHandler(default_handler)


def structlog_context(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the current request's ids to a structlog event; a processor to put before the renderer."""
    record = current_record()
    if record is not None:
        event.setdefault("request_id", record.request_id)
        for name in ("user_id", "trace_id", "span_id"):
            if getattr(record, name):
                event.setdefault(name, getattr(record, name))
    return event


def _is_standard(handler: logging.Handler) -> bool:
    streams = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return getattr(handler, "stream", None) in streams
