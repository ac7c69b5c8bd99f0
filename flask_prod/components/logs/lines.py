"""One event, one line: what a line holds, and how it stays one whatever bytes come in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from flask_prod.core.redaction import redact

_HOSTILE = re.compile(
    # Delete and the C1 controls, invisible and direction-changing characters, both line separators.
    "[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


class RequestLine(msgspec.Struct, omit_defaults=True):
    """One request, written when its body is closed."""

    timestamp: datetime
    """When the request ended, in UTC (RFC 3339)."""
    level: str
    """info; warning when slow, error from status 500 on or after a crash, debug for probes and scrapes."""
    event: str
    """Always `request`."""
    service: str
    """SERVICE_NAME, or the application's name."""
    version: str
    """SERVICE_VERSION."""
    environment: str
    """ENVIRONMENT."""
    request_id: str
    """What the answer carries as X-Request-ID."""
    method: str
    """The method as it was sent, 32 characters of it at most."""
    route: str | None
    """The rule that matched, such as `/product/<int:id>`; null when none did."""
    path: str
    """The path without its query; the rule instead where that takes a secret (`/reset/<token>`)."""
    status: int
    """The status of the answer; 0 when none was begun."""
    duration_ms: float
    """Milliseconds from the first step of the pass to the end of the body."""
    bytes: int
    """Bytes of the answer's body."""
    client: str
    """The address of the client, as TRUSTED_PROXIES makes it known."""
    outcome: str
    """ok, aborted (the client left before the end) or crashed (an exception ended it)."""
    user_id: str = ""
    """Who asked, if the application said so (`prod.set_user`)."""
    trace_id: str = ""
    """The trace of this request (W3C trace context)."""
    span_id: str = ""
    """The request's own span in that trace."""
    slow: bool = False
    """True when the request took longer than LOG_SLOW_REQUEST."""
    db_queries: int = 0
    """How many queries the request made; those that failed count too."""
    db_ms: float = 0.0
    """Milliseconds that these queries took."""
    error: str = ""
    """The class of the exception behind a 5xx answer."""
    error_at: str = ""
    """Where that was raised: `shop/orders.py:12 in checkout`."""
    fields: Any = None
    """What `record.note(...)` added, secrets starred out."""


class LogLine(msgspec.Struct, omit_defaults=True):
    """What code had to say: the application's own lines, those of libraries and servers, and events."""

    timestamp: datetime
    """When it was said, in UTC (RFC 3339)."""
    level: str
    """debug, info, warning, error or critical."""
    message: str
    """The words, secrets starred out."""
    logger: str
    """The name of the logger; `flask_prod` for events."""
    service: str
    """SERVICE_NAME, or the application's name."""
    version: str
    """SERVICE_VERSION."""
    environment: str
    """ENVIRONMENT."""
    event: str = ""
    """The stable dotted name of an event; other lines have none."""
    request_id: str = ""
    """The request during which it was said; in a job, the request that dispatched it, else the job's own id."""
    trace_id: str = ""
    """The trace of that request."""
    span_id: str = ""
    """The span during which it was said."""
    user_id: str = ""
    """Who asked, if the application said so."""
    job: str = ""
    """The name of the background job during which it was said."""
    job_id: str = ""
    """The id of that job."""
    error: str = ""
    """The class of the exception that was logged."""
    stack: str = ""
    """Its traceback, at most 16,384 characters from the end, secrets starred out."""
    fields: Any = None
    """What was passed by keyword or `extra`, secrets starred out."""


Line: TypeAlias = RequestLine | LogLine
Format: TypeAlias = Callable[[Line], bytes]

_encode = msgspec.json.Encoder().encode
_WITH_ID = frozenset({"warning", "error", "critical"})
"""Levels whose lines carry the request's id in the console form too: an error page shows it."""


def as_json(line: Line) -> bytes:
    """Return *line* as one line of JSON without any control byte."""
    try:
        encoded = _encode(line)
    except (TypeError, ValueError):  # half a surrogate pair, or a value that JSON has no word for
        encoded = _encode(_plain(msgspec.structs.asdict(line)))
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded + b"\n"
    return _HOSTILE.sub(_as_escape, encoded.decode()).encode() + b"\n"


def quote(text: str) -> str:
    """Return *text* as JSON has it in a line."""
    try:
        encoded = _encode(text)
    except (TypeError, ValueError):
        encoded = _encode(_plain(text))
    return _HOSTILE.sub(_as_escape, encoded.decode())


def as_console(line: Line) -> bytes:
    """Return *line* for people: one line, and below it an error's stack, indented, if there is one."""
    moment = line.timestamp.strftime("%H:%M:%S.%f")[:-3]
    words = _request_words(line) if isinstance(line, RequestLine) else _log_words(line)
    if line.request_id and line.level in _WITH_ID:
        words = (*words, f"request_id={line.request_id}")
    text = " ".join((moment, f"{line.level.upper():<8}", *(printable(word) for word in words if word)))
    if isinstance(line, LogLine) and line.stack:
        text += "".join(f"\n    | {printable(row)}" for row in line.stack.rstrip().splitlines())
    return text.encode("utf-8", "backslashreplace") + b"\n"


FORMATS: Mapping[str, Format] = {"json": as_json, "console": as_console}
"""LOG_FORMAT -> how a line is written."""


def printable(text: str) -> str:
    """Return *text* with everything escaped that could move a cursor, break a line or hide."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _request_words(line: RequestLine) -> tuple[str, ...]:
    outcome = "" if line.outcome == "ok" else line.outcome
    numbers = f"{line.status} {line.duration_ms:.1f}ms {line.bytes}B"
    asked = f"{line.db_queries} queries in {line.db_ms:.1f}ms" if line.db_queries else ""
    return (line.method, line.path, numbers, asked, outcome, line.error, line.error_at, _pairs(line.fields))


def _log_words(line: LogLine) -> tuple[str, ...]:
    return (f"{line.event or line.logger}:", line.message, _pairs(line.fields))


def _pairs(fields: object) -> str:
    return " ".join(f"{key}={value}" for key, value in fields.items()) if isinstance(fields, Mapping) else ""


def _plain(value: Any) -> Any:
    """Return *value* as what JSON can say, letters that are none spelt out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | datetime) else _plain(redact(value))


def _as_escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"
