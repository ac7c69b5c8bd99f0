"""The lines of one request as a story that people read: when, who said it, what, and where to look further."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from .lines import printable
from .search import Found, Search

_COLOURS = {"warning": "yellow", "error": "red", "critical": "red", "debug": "bright_black"}
_WIDTH = 8


def draw(search: Search) -> Iterator[str]:
    """Yield the story, line by line."""
    lines = search.in_order()
    began = lines[0].moment
    yield from _head(lines)
    for line in lines:
        offset = (line.moment - began).total_seconds()
        yield from _row(line, f"+{offset * 1000:.1f} ms" if offset < 10 else f"+{offset:.1f} s")
    yield ""
    yield from _further(lines)


def _head(lines: list[Found]) -> Iterator[str]:
    first = lines[0]
    ids = {name: _values(lines, name) for name in ("request_id", "trace_id", "user_id")}
    yield click.style(f"Request {_words(ids['request_id'] or ['?'])}", bold=True)
    service = " ".join(str(first.content.get(name, "")) for name in ("service", "version", "environment"))
    yield f"  {printable(service)}, from {first.moment:%Y-%m-%d %H:%M:%S.%f} UTC"
    for name in ("trace_id", "user_id"):
        if ids[name]:
            yield f"  {name} {_words(ids[name])}"
    yield ""


def _row(line: Found, offset: str) -> Iterator[str]:
    content = line.content
    level = str(content.get("level", ""))
    kind = kind_of(content)
    colour = _COLOURS.get(level)
    mark = click.style(f"{printable(level).upper():<{_WIDTH}}", fg=colour)
    indent = "  " if kind == "job" else ""
    yield f"{offset:>12}  {mark} {indent}{click.style(f'{kind:<8}', bold=True)} {_said(content)}"
    stack = str(content.get("stack", "")).rstrip()
    if stack:
        yield from (f"{'':>{14 + _WIDTH}} | {printable(row)}" for row in stack.split("\n"))


def kind_of(content: Mapping[str, Any]) -> str:
    """Return what a line is: request, job, sql, event or log."""
    event, logger = str(content.get("event", "")), str(content.get("logger", ""))
    fields = content.get("fields")
    if event == "request":
        return "request"
    if content.get("job_id") or (isinstance(fields, Mapping) and fields.get("job_id")):
        return "job"
    if logger.startswith("sqlalchemy") or "statement" in (fields if isinstance(fields, Mapping) else ()):
        return "sql"
    return "event" if event else "log"


def _said(content: Mapping[str, Any]) -> str:
    words = _request_words(content) if content.get("event") == "request" else _log_words(content)
    fields = content.get("fields")
    pairs = [f"{key}={value}" for key, value in fields.items()] if isinstance(fields, Mapping) else []
    return " ".join(printable(str(word)) for word in (*words, *pairs) if word not in (None, ""))


def _request_words(content: Mapping[str, Any]) -> tuple[object, ...]:
    get = content.get
    numbers = (get("status"), f"{get('duration_ms')} ms", f"{get('bytes')} B", "from", get("client"))
    outcome = "" if get("outcome") == "ok" else get("outcome")
    asked = f"{get('db_queries')} queries in {get('db_ms', 0)} ms" if get("db_queries") else ""
    return (get("method"), get("path"), *numbers, asked, outcome, get("error"), get("error_at"))


def _log_words(content: Mapping[str, Any]) -> tuple[object, ...]:
    job = f"[{content['job']}]" if content.get("job") else ""
    return (f"{content.get('event') or content.get('logger')}:", job, content.get("message"))


def _further(lines: list[Found]) -> Iterator[str]:
    requests, traces = _values(lines, "request_id"), _values(lines, "trace_id")
    yield "Look further:"
    for trace in traces:
        yield f"  tracing: search for the trace {printable(trace)}; it is there if it was sampled"
    for request in requests:
        yield f"  Sentry:  search for request_id:{printable(request)}"
    if traces and requests:
        yield f"  logs:    flask prod trace {printable(traces[0])} finds other requests of the same trace"


def _values(lines: list[Found], name: str) -> list[str]:
    """Return the values of one field in the order of their appearance."""
    return list(dict.fromkeys(str(line.content[name]) for line in lines if line.content.get(name)))


def _words(values: list[str]) -> str:
    return ", ".join(printable(value) for value in values)
