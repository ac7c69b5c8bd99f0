"""What one application logs: its requests, the events of its rooms, and its code's own lines."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic, time
from typing import Any

from flask_prod.core.component import Event
from flask_prod.core.record import RequestRecord, current_record
from flask_prod.core.redaction import (
    forms_of,
    hide,
    redact,
    redact_text,
    secrets_held,
    secrets_of_path,
    secrets_sent,
    shorten,
    takes_secret,
)
from flask_prod.core.settings import ServiceSettings

from .lines import Format, LogLine, RequestLine, as_json, quote
from .quick import QuickLines
from .security import PREFIX, Sparing
from .settings import LogSettings

_DEBUG, _INFO = (logging.DEBUG, "debug"), (logging.INFO, "info")
_SLOW, _ERROR = (logging.WARNING, "warning"), (logging.ERROR, "error")
_LONGEST_PATH = 2048
_LONGEST_NAME = 256
_LONGEST_STACK = 16_384
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "fields"}


class AppLog:
    """Writes the lines of one application to one output."""

    def __init__(
        self,
        settings: LogSettings,
        service: ServiceSettings,
        encode: Format,
        write: Callable[[bytes], None],
        emit: Callable[[Event], None] | None = None,
    ) -> None:
        self.configured = self.level = settings.number
        self.emit = emit or self.on_event
        self.own: Callable[[], Iterable[str]] = tuple
        """Gives what the service itself keeps secret."""
        self.sparing = Sparing()
        self._chosen: Mapping[str, tuple[int, float]] = {}
        self._slow = _slow(settings)
        self._service = (service.service_name, service.service_version, service.environment)
        self._format = encode
        self._quick = QuickLines(self._service, quote, self._path) if encode is as_json else None
        self._write = write

    def observe(self, record: RequestRecord) -> None:
        """Write the line of a request that has ended."""
        slow = record.duration >= self._slow and not record.operational
        number, level = _SLOW if slow else _INFO
        if record.status >= 500 or record.outcome == "crashed":
            number, level = _ERROR
        elif record.operational:
            number, level = _DEBUG
        if number < self.level:
            return
        quick = self._quick.line(record, level, slow) if self._quick is not None else None
        self._write(quick or self._format(self._request_line(record, level, slow)))

    def _request_line(self, record: RequestRecord, level: str, slow: bool) -> RequestLine:
        """Return the line of a request with all that it may have to say."""
        line = RequestLine(
            datetime.now(UTC), level, "request", *self._service,
            record.request_id, record.method[:32], record.route, self._path(record), record.status,
            round(record.duration * 1000, 3), record.bytes_sent, shorten(record.client, _LONGEST_NAME),
            record.outcome, shorten(str(record.user_id or ""), _LONGEST_NAME), record.trace_id, record.span_id,
            slow,
        )  # fmt: skip
        if record.db_queries:
            line.db_queries, line.db_ms = record.db_queries, round(record.db_seconds * 1000, 3)
        if record.error is not None:
            line.error, line.error_at = _name(record.error), _place(record.error)
        if record.extra:
            line.fields = redact(record.extra)
        return line

    def on_event(self, event: Event) -> None:
        """Write the line of an event under its dotted name; of security events so many a minute."""
        if logging.getLevelNamesMapping().get(event.severity.upper(), logging.INFO) < self.level:
            return
        if event.name.startswith(PREFIX):
            taken, held_back = self.sparing.takes(event.name, monotonic())
            self.tell_held_back(held_back)
            if not taken:
                return
            event = replace(event, fields={**self._whence(), **event.fields})
        self.announce(event)

    def announce(self, event: Event) -> None:
        """Write the line of an event, whatever the level."""
        line = self._line(datetime.now(UTC), event.severity, event.message, "flask_prod")
        line.event = event.name
        if event.fields:
            line.fields = redact(event.fields)
        self._write(self._format(line))

    def tell_held_back(self, held_back: Mapping[str, int]) -> None:
        """Say how many security events of the last minute have no line."""
        for name, count in held_back.items():
            message = f"{count} more {name} in the last minute are not in the log."
            self.announce(Event("prod.log.held_back", message, "warning", {"event": name, "count": count}))

    def missing(self, count: int) -> bytes:
        """Return the line that says how many lines found no room."""
        message = f"{count} log lines are missing here: what reads the log was too slow, or its disk full."
        line = self._line(datetime.now(UTC), "warning", message, "flask_prod")
        line.event, line.fields = "prod.log.lines_dropped", {"count": count}
        return self._format(line)

    def adopt(self, settings: LogSettings) -> None:
        """Take over a changed level, unless another one was ordered for a while, and what counts as slow."""
        self.configured, self._slow = settings.number, _slow(settings)
        self.choose(self._chosen)

    def choose(self, levels: Mapping[str, tuple[int, float]]) -> None:
        """Obey *levels* (logger -> number, until when) instead of LOG_LEVEL; the empty name is for all."""
        self._chosen = levels
        self.level = self._level_of("") if levels else self.configured

    def write_record(self, entry: logging.LogRecord) -> None:
        """Write what someone's code said by way of `logging`."""
        if entry.levelno >= (self._level_of(entry.name) if self._chosen else self.level):
            self._write(self._format(self.line_of(entry)))

    def _level_of(self, name: str) -> int:
        """Return the level chosen for a logger or the nearest one above it; the end is kept here too.

        A job's process has no thread that would take an order back.
        """
        now = time()
        while True:
            number, until = self._chosen.get(name, (0, 0.0))
            if now < until:
                return number
            if not name:
                return self.configured
            name = name.rpartition(".")[0]

    def line_of(self, entry: logging.LogRecord) -> LogLine:
        """Return a log record as a line, with the current request's ids."""
        moment = datetime.fromtimestamp(entry.created, UTC)
        line = self._line(moment, entry.levelname.lower(), _message(entry), entry.name)
        fields = _fields(entry)
        if str(fields.get("event", "")).startswith("prod."):  # of a process without an application
            line.event = str(fields["event"])
            fields = {key: value for key, value in fields.items() if key != "event"}
        if fields:
            line.fields = redact(fields)
        if entry.exc_info and entry.exc_info[1] is not None:
            self._add_error(line, entry.exc_info[1])
        return line

    def encoded(self, entry: logging.LogRecord) -> str:
        """Return a log record as text without its newline, for handlers of others."""
        return self._format(self.line_of(entry)).decode().rstrip("\n")

    def _line(self, moment: datetime, level: str, message: str, name: str) -> LogLine:
        line = LogLine(
            moment, level, redact_text(shorten(message)), shorten(str(name), _LONGEST_NAME), *self._service
        )
        record = current_record()
        if record is not None:
            if record.route is not None and takes_secret(record.route):  # `request.path` is often logged
                in_path = secrets_of_path(record.environ.get("werkzeug.request"))
                line.message = hide(line.message, forms_of(in_path))
            line.request_id, line.user_id = record.request_id, shorten(str(record.user_id or ""), _LONGEST_NAME)
            line.trace_id, line.span_id = record.trace_id, record.span_id
            if record.method == "JOB" and record.extra:
                job, job_id = record.extra.get("job", ""), record.extra.get("job_id", "")
                line.job, line.job_id = shorten(str(job), _LONGEST_NAME), shorten(str(job_id), _LONGEST_NAME)
        return line

    def _add_error(self, line: LogLine, error: BaseException) -> None:
        """Add the stack, its end if it is long, without secrets of the service, the request and the variables."""
        record = current_record()
        sent = secrets_sent(record.environ) if record is not None else ()
        forms = forms_of({*self.own(), *sent, *secrets_held(error)})
        stack = "".join(traceback.format_exception(error))[-_LONGEST_STACK:]
        line.error = _name(error)
        line.stack = redact_text(hide(stack, forms))
        line.message = hide(line.message, forms)

    def _whence(self) -> dict[str, object]:
        """Return where the current request comes from and goes to."""
        record = current_record()
        if record is None:
            return {}
        return {"client": record.client, "method": record.method[:32], "path": shorten(self._path(record), 200)}

    def _path(self, record: RequestRecord) -> str:
        """Return the path as it may be shown: `/reset/<token>` rather than the token that stood there."""
        route, path = record.route, record.path
        if route is not None and takes_secret(route):
            return route
        path = _readable(path)
        if len(path) > _LONGEST_PATH:
            path = shorten(path, _LONGEST_PATH)
        return path if route is not None else redact_text(path)


def _readable(path: str) -> str:
    """Return a path of WSGI, whose letters stand for bytes, as text."""
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def _name(error: BaseException) -> str:
    return shorten(type(error).__name__, _LONGEST_NAME)


def _place(error: BaseException) -> str:
    """Return where *error* was raised: `shop/orders.py:12 in checkout`."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    if not frames:
        return ""
    parts = frames[-1].filename.replace("\\", "/").split("/")
    return f"{'/'.join(parts[-2:])}:{frames[-1].lineno} in {frames[-1].name}"


def _message(entry: logging.LogRecord) -> str:
    try:
        return entry.getMessage()
    except Exception:  # arguments that do not fit the message are no reason to lose it
        return f"{entry.msg} {entry.args}"


def _fields(entry: logging.LogRecord) -> Mapping[str, Any]:
    extra = {key: value for key, value in entry.__dict__.items() if key not in _STANDARD}
    fields = getattr(entry, "fields", None)
    return {**extra, **fields} if isinstance(fields, Mapping) else extra


def _slow(settings: LogSettings) -> float:
    return settings.slow_request or float("inf")
