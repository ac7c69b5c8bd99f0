"""What one application logs: its requests, the events of its rooms, and its code's own lines."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from flask_prod.core.component import Event
from flask_prod.core.record import RequestRecord, current_record
from flask_prod.core.redaction import (
    forms_of,
    hide,
    is_sensitive,
    redact,
    redact_text,
    secrets_held,
    secrets_sent,
    shorten,
)
from flask_prod.core.settings import ServiceSettings

from .lines import Format, LogLine, RequestLine
from .settings import LogSettings

_DEBUG, _INFO = (logging.DEBUG, "debug"), (logging.INFO, "info")
_SLOW, _ERROR = (logging.WARNING, "warning"), (logging.ERROR, "error")
_LONGEST_PATH = 2048
_LONGEST_STACK = 16_384
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "fields"}


class AppLog:
    """Writes the lines of one application to one output."""

    def __init__(
        self, settings: LogSettings, service: ServiceSettings, encode: Format, write: Callable[[bytes], None]
    ) -> None:
        self.level = settings.number
        self._slow = settings.slow_request or float("inf")
        self._service = (service.service_name, service.service_version, service.environment)
        self._format = encode
        self._write = write
        self._hidden: dict[str, bool] = {}

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
        line = RequestLine(
            datetime.now(UTC), level, "request", *self._service,
            record.request_id, record.method[:32], record.route, self._path(record), record.status,
            round(record.duration * 1000, 3), record.bytes_sent, record.client, record.outcome,
            record.user_id or "", record.trace_id, record.span_id, slow,
        )  # fmt: skip
        if record.error is not None:
            line.error, line.error_at = type(record.error).__name__, _place(record.error)
        if record.extra:
            line.fields = redact(record.extra)
        self._write(self._format(line))

    def on_event(self, event: Event) -> None:
        """Write the line of an event under its dotted name."""
        number = logging.getLevelNamesMapping().get(event.severity.upper(), logging.INFO)
        if number < self.level:
            return
        line = self._line(datetime.now(UTC), event.severity, event.message, "flask_prod")
        line.event = event.name
        if event.fields:
            line.fields = redact(event.fields)
        self._write(self._format(line))

    def write_record(self, entry: logging.LogRecord) -> None:
        """Write what someone's code said by way of `logging`."""
        if entry.levelno >= self.level:
            self._write(self._format(self.line_of(entry)))

    def line_of(self, entry: logging.LogRecord) -> LogLine:
        """Return a log record as a line, with the current request's ids."""
        moment = datetime.fromtimestamp(entry.created, UTC)
        line = self._line(moment, entry.levelname.lower(), _message(entry), entry.name)
        fields = _fields(entry)
        if fields:
            line.fields = redact(fields)
        if entry.exc_info and entry.exc_info[1] is not None:
            self._add_error(line, entry.exc_info[1])
        return line

    def encoded(self, entry: logging.LogRecord) -> str:
        """Return a log record as text without its newline, for handlers of others."""
        return self._format(self.line_of(entry)).decode().rstrip("\n")

    def _line(self, moment: datetime, level: str, message: str, name: str) -> LogLine:
        line = LogLine(moment, level, redact_text(shorten(message)), name, *self._service)
        record = current_record()
        if record is not None:
            line.request_id, line.user_id = record.request_id, record.user_id or ""
            line.trace_id, line.span_id = record.trace_id, record.span_id
        return line

    def _add_error(self, line: LogLine, error: BaseException) -> None:
        """Add the stack, its end if it is long, without secrets that the request sent or variables hold."""
        record = current_record()
        sent = secrets_sent(record.environ) if record is not None else ()
        forms = forms_of({*sent, *secrets_held(error)})
        stack = "".join(traceback.format_exception(error))[-_LONGEST_STACK:]
        line.error = type(error).__name__
        line.stack = redact_text(hide(stack, forms))
        line.message = hide(line.message, forms)

    def _path(self, record: RequestRecord) -> str:
        """Return the path as it may be shown: `/reset/<token>` rather than the token that stood there."""
        route, path = record.route, record.path
        if route is not None:
            hidden = self._hidden.get(route)
            if hidden is None:
                hidden = self._hidden[route] = any(is_sensitive(part) for part in route.split("<")[1:])
            if hidden:
                return route
        if not path.isascii():
            path = path.encode("latin-1", "replace").decode("utf-8", "replace")
        if len(path) > _LONGEST_PATH:
            path = shorten(path, _LONGEST_PATH)
        return path if route is not None else redact_text(path)


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
