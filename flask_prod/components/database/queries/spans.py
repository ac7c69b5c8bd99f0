"""Each statement as a span: what it does to which table, its text without values, never its parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import URL

from flask_prod.core.ports import NO_SPAN, SpanPort, Tracer
from flask_prod.core.redaction import redact_text, shorten

_SPAN = "_flask_prod_span"
_LONGEST = 2048
"""Characters of a statement in its span."""

_MOST_READ = 8192
"""Characters of a statement that are looked at: a row of a thousand values has the same beginning."""

_SYSTEMS = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
"""Names of OpenTelemetry's conventions where they are not SQLAlchemy's."""

_WORD = re.compile(r"[\s(]*(\w+)")
_TABLE = re.compile(
    r"\b(?:FROM|INTO|UPDATE|TABLE)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+|ONLY\s+)?([\w.\"`\[\]]{1,128})", re.IGNORECASE
)
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|--[^\n]*", re.DOTALL)
_VALUE = re.compile(
    r"\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z)"  # PostgreSQL's text between dollars
    r"|'(?:[^']|'')*(?:'|\Z)"
    r"|(?<![\w.$:%])[-+]?(?:0x[0-9a-f]+|\d[\d.]*(?:e[-+]?\d+)?)\b",
    re.DOTALL | re.IGNORECASE,
)
_DOUBLE_QUOTED = re.compile(r'"(?:[^"]|"")*(?:"|\Z)')


class Statements:
    """Opens and ends the span of each statement of one engine."""

    def __init__(self, url: URL, tracer: Tracer) -> None:
        self._tracer = tracer
        self._place = place_of(url)
        self._texts_in_double_quotes = url.get_backend_name() in ("mysql", "mariadb")

    def begin(self, statement: str, context: Any) -> None:
        """Open a span; an unsampled request goes on at once."""
        if self._tracer.span("SQL", "client", self._place) is NO_SPAN:
            return
        told = describe(statement, self._texts_in_double_quotes)
        block = self._tracer.span(told["name"], "client", {**self._place, **told["attributes"]})
        setattr(context, _SPAN, (block, block.__enter__()))

    def end(self, context: Any, error: BaseException | None) -> None:
        """End it, with the kind of *error*: the message of a driver repeats what was to be stored."""
        opened: tuple[AbstractContextManager[SpanPort], SpanPort] | None = getattr(context, _SPAN, None)
        if opened is None:
            return
        delattr(context, _SPAN)
        block, span = opened
        if error is not None:
            span.set("error.type", type(error).__name__)
        block.__exit__(None, None, None)


def place_of(url: URL) -> dict[str, str | int]:
    """Return where statements go, without user and password; a file's path is nobody's business either."""
    backend = url.get_backend_name()
    place: dict[str, str | int] = {"db.system.name": _SYSTEMS.get(backend, backend)}
    if backend != "sqlite" and url.database:
        place["db.namespace"] = url.database
    if url.host:
        place["server.address"] = url.host
    if url.port:
        place["server.port"] = url.port
    return place


def describe(statement: str, texts_in_double_quotes: bool = False) -> Mapping[str, Any]:
    """Return name and attributes of a statement's span; statements repeat, so short ones are remembered."""
    if len(statement) > _MOST_READ:
        return _describe(statement[:_MOST_READ], texts_in_double_quotes)
    return _remembered(statement, texts_in_double_quotes)


def _describe(statement: str, texts_in_double_quotes: bool) -> Mapping[str, Any]:
    shown = sanitized(statement, texts_in_double_quotes)
    word = _WORD.match(shown or statement)
    operation = word[1].upper()[:32] if word is not None else "SQL"
    attributes = {"db.operation.name": operation}
    table = _TABLE.search(shown)
    if table is not None:
        attributes["db.collection.name"] = re.sub(r'["`\[\]]', "", table[1])
    if shown:
        attributes["db.query.text"] = shown
    name = f"{operation} {attributes['db.collection.name']}" if table is not None else operation
    return MappingProxyType({"name": name, "attributes": attributes})


_remembered = lru_cache(maxsize=512)(_describe)


def sanitized(statement: str, texts_in_double_quotes: bool = False) -> str:
    """Return a statement with `?` for each value that stands in it; empty where that cannot be told for sure.

    That is where a text ends depends on the server's settings, or on what is a comment.
    """
    quoted = "'" in statement or (texts_in_double_quotes and '"' in statement)
    comments = "--" in statement or "/*" in statement or (texts_in_double_quotes and "#" in statement)
    if "\\" in statement or (quoted and comments):
        return ""
    text = _VALUE.sub("?", _COMMENT.sub(" ", statement))
    if texts_in_double_quotes:
        text = _DOUBLE_QUOTED.sub("?", text)
    return shorten(redact_text(" ".join(text.split())), _LONGEST)
