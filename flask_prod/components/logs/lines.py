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
    """What is remembered of a request; `duration_ms` is milliseconds, `bytes` the body's length."""

    timestamp: datetime
    level: str
    event: str
    service: str
    version: str
    environment: str
    request_id: str
    method: str
    route: str | None
    path: str
    status: int
    duration_ms: float
    bytes: int
    client: str
    outcome: str
    user_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    slow: bool = False
    error: str = ""
    error_at: str = ""
    fields: Any = None


class LogLine(msgspec.Struct, omit_defaults=True):
    """What someone's code had to say; `event` is the stable name of a kit's event."""

    timestamp: datetime
    level: str
    message: str
    logger: str
    service: str
    version: str
    environment: str
    event: str = ""
    request_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    user_id: str = ""
    error: str = ""
    stack: str = ""
    fields: Any = None


Line: TypeAlias = RequestLine | LogLine
Format: TypeAlias = Callable[[Line], bytes]

_encode = msgspec.json.Encoder().encode


def as_json(line: Line) -> bytes:
    """Return *line* as one line of JSON without any control byte."""
    try:
        encoded = _encode(line)
    except (TypeError, ValueError):  # half a surrogate pair, or a value that JSON has no word for
        encoded = _encode(_plain(msgspec.structs.asdict(line)))
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded + b"\n"
    return _HOSTILE.sub(_as_escape, encoded.decode()).encode() + b"\n"


def as_console(line: Line) -> bytes:
    """Return *line* for people: one line, and below it an error's stack, indented, if there is one."""
    moment = line.timestamp.strftime("%H:%M:%S.%f")[:-3]
    words = _request_words(line) if isinstance(line, RequestLine) else _log_words(line)
    text = " ".join((moment, f"{line.level.upper():<8}", *(printable(word) for word in words if word)))
    if isinstance(line, LogLine) and line.stack:
        text += "".join(f"\n    | {printable(row)}" for row in line.stack.rstrip().splitlines())
    return text.encode("utf-8", "backslashreplace") + b"\n"


def printable(text: str) -> str:
    """Return *text* with everything escaped that could move a cursor, break a line or hide."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _request_words(line: RequestLine) -> tuple[str, ...]:
    outcome = "" if line.outcome == "ok" else line.outcome
    numbers = f"{line.status} {line.duration_ms:.1f}ms {line.bytes}B"
    return (line.method, line.path, numbers, outcome, line.error, line.error_at, _pairs(line.fields))


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
