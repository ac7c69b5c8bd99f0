"""The lines of gunicorn itself in the form of the application's, from the master's first to its last.

What else writes to the error stream of a server takes the same form: Python's warnings, and exceptions that nobody
caught, in the main thread, in other threads and where Python cannot raise them.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from gunicorn.glogging import Logger

from flask_prod.components.logs.bridge import ServerHandler
from flask_prod.components.logs.engine import AppLog
from flask_prod.components.logs.lines import FORMATS
from flask_prod.components.logs.output import Output
from flask_prod.components.logs.settings import LogSettings
from flask_prod.core.errors import ConfigError
from flask_prod.core.settings import Section, ServiceSettings, Source, key_names, read_settings
from flask_prod.core.sources import find_sources

uncaught = logging.getLogger("uncaught")

_SECTIONS: tuple[type[Section], ...] = (ServiceSettings, LogSettings)


class ServiceLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger, whose lines are JSON (or whatever LOG_FORMAT says) and never wait for a reader."""

    def __init__(self, cfg: Any) -> None:
        self._outputs: dict[int, Output] = {}
        super().__init__(cfg)

    def setup(self, cfg: Any) -> None:
        """Take up gunicorn's settings and our form; called again after SIGHUP."""
        name = str(getattr(cfg, "default_proc_name", "") or "gunicorn").partition(":")[0]
        self._formatter = ServiceFormatter(name)
        super().setup(cfg)
        self._take_the_rest()

    def _set_handler(self, log: logging.Logger, output: str | None, fmt: Any, stream: Any = None) -> None:
        """Write to *output* in our form; the standard streams without waiting."""
        super()._set_handler(log, output, fmt, stream)
        handler = self._get_gunicorn_handler(log)
        if handler is not None and output == "-":
            log.removeHandler(handler)
            handler = self._handler(2 if stream is None else 1)
            handler._gunicorn = True  # how gunicorn knows its own
            log.addHandler(handler)
        if handler is not None:
            handler.setFormatter(self._formatter)

    def _take_the_rest(self) -> None:
        """Give our form to what is logged before there is an application, to warnings, to what nobody caught."""
        root = logging.getLogger()
        for handler in [handler for handler in root.handlers if isinstance(handler, ServerHandler)]:
            root.removeHandler(handler)
        if not root.handlers:
            root.addHandler(self._handler(2))
        logging.captureWarnings(True)
        sys.excepthook = _on_uncaught
        threading.excepthook = _on_uncaught_in_thread
        sys.unraisablehook = _on_unraisable

    def _handler(self, descriptor: int) -> Any:
        output = self._outputs.get(descriptor)
        if output is None:
            output = self._outputs[descriptor] = Output(descriptor, _nothing)
        output.notice = self._formatter.missing
        handler = ServerHandler(output.write)
        handler.setFormatter(self._formatter)
        return handler


class ServiceFormatter(logging.Formatter):
    """Says a record as the application would, before there is one and after it has gone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        service, settings = read(name)
        log = AppLog(settings, service, FORMATS[settings.format], _nothing)
        self._encoded, self.missing = log.encoded, log.missing

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as one line."""
        return self._encoded(record)


def read(name: str) -> tuple[ServiceSettings, LogSettings]:
    """Return who this service is and how it logs, as far as that is known without the application."""
    names = {key for kind in _SECTIONS for field in kind.__struct_fields__ for key in key_names(kind, field)}
    try:
        found = find_sources({}, Path.cwd(), remote=None)
        sources = [Source(s.name, {key: value for key, value in s.values.items() if key in names}) for s in found]
        settings = read_settings(_SECTIONS, sources)
    except ConfigError:  # the application says what is wrong, and all of it
        return ServiceSettings(service_name=name), LogSettings()
    service = settings.section(ServiceSettings)
    if not service.service_name:
        service = msgspec.structs.replace(service, service_name=name)
    return service, settings.section(LogSettings)


def _on_uncaught(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    uncaught.critical("Nobody caught %s", kind.__name__, exc_info=(kind, error, stack))


def _on_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    name = args.thread.name if args.thread is not None else "?"
    found = (args.exc_type, args.exc_value, args.exc_traceback)
    uncaught.error("Nobody caught %s in thread %s", args.exc_type.__name__, name, exc_info=found)


def _on_unraisable(args: Any) -> None:
    # Not the object itself, whose __repr__ may be what is broken.
    where = f"{args.err_msg or 'Exception ignored in'} {type(args.object).__name__}"
    found = (args.exc_type, args.exc_value, args.exc_traceback)
    uncaught.error("%s", where, exc_info=found if args.exc_value is not None else None)


def _nothing(*_: object) -> None:
    """Count nothing and write nothing: there is no application yet to do that for."""
