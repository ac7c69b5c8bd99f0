"""The line of an ordinary request, written without building what is written: most of it was written before.

What a path, a client and the service look like in JSON is kept, and the second of the clock too. A request with
more to say than usual (an error, notes, a strange method) takes the long way, which gives the same line.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor
from time import gmtime, strftime, time
from typing import TypeAlias

from flask_prod.core.record import RequestRecord
from flask_prod.core.redaction import shorten

LEVELS = ("debug", "info", "warning", "error")
"""Those of request lines."""

Place: TypeAlias = tuple[str | None, int, str, str]
"""Route, status and method of an answer, and how they look in its line, up to its duration."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_DIGITS = tuple(f"{number:03d}" for number in range(1000))
_MOST, _LONGEST = 4096, 256
"""A cache is emptied when it is full, and long texts stay out: about 2 MB at most, whatever clients send."""


class QuickLines:
    """Writes request lines as `as_json` does; *quote* gives a text in JSON, *shown* a record's path for people."""

    def __init__(
        self, service: tuple[str, str, str], quote: Callable[[str], str], shown: Callable[[RequestRecord], str]
    ) -> None:
        name, version, environment = map(quote, service)
        about = f'","event":"request","service":{name},"version":{version},"environment":{environment}'
        self._levels = {level: f'Z","level":"{level}{about},"request_id":"' for level in LEVELS}
        self._quote = quote
        self._shown = shown
        self._second = (0.0, "")
        self._places: dict[str, Place] = {}
        self._texts: dict[str, str] = {}
        self._sizes: dict[int, str] = {}

    def line(self, record: RequestRecord, level: str, slow: bool) -> bytes | None:
        """Return the line of *record*; None for a request that takes the long way."""
        request_id = record.request_id
        if record.error is not None or record.extra or record.method not in _METHODS or not request_id.isalnum():
            return None
        now = time()
        began, text = self._second
        if not 0.0 <= now - began < 1.0:
            began, text = self._second = _second(now)
        micros = floor((now - began) * 1e6)  # small numbers all along: large ones are slow
        place = self._places.get(record.path)
        if place is None or place[0] is not record.route or place[1] != record.status or place[2] != record.method:
            place = self._place(record)
        client = self._texts.get(record.client) or self._text(record.client)
        size = self._sizes.get(record.bytes_sent) or self._size(record.bytes_sent)
        taken = floor(record.duration * 1e6)
        tells = record.trace_id or record.user_id or slow or record.db_queries
        more = self._more(record, slow) if tells else ""
        return (
            f"{text}{_DIGITS[micros // 1000]}{_DIGITS[micros % 1000]}{self._levels[level]}{request_id}{place[3]}"
            f'{taken // 1000}.{_DIGITS[taken % 1000]}{size}{client},"outcome":"{record.outcome}"{more}}}\n'
        ).encode()

    def _place(self, record: RequestRecord) -> Place:
        """Write what an answer from this path has beside its times; the next one there mostly is of its kind."""
        route = "null" if record.route is None else self._quote(record.route)
        status, method = record.status, record.method
        where = f'"route":{route},"path":{self._quote(self._shown(record))}'
        head = f'","method":"{method}",{where},"status":{status},"duration_ms":'
        place: Place = (record.route, status, method, head)
        if len(record.path) <= _LONGEST:
            if len(self._places) >= _MOST:
                self._places = {}
            self._places[record.path] = place
        return place

    def _size(self, size: int) -> str:
        if len(self._sizes) >= _MOST:
            self._sizes = {}
        text = self._sizes[size] = f',"bytes":{size},"client":'
        return text

    def _text(self, text: str) -> str:
        quoted = self._quote(shorten(text, _LONGEST))
        if len(text) <= _LONGEST:
            if len(self._texts) >= _MOST:
                self._texts = {}
            self._texts[text] = quoted
        return quoted

    def _more(self, record: RequestRecord, slow: bool) -> str:
        more = f',"user_id":{self._text(str(record.user_id))}' if record.user_id else ""
        if record.trace_id:
            more += f',"trace_id":{self._quote(record.trace_id)}'
        if record.span_id:
            more += f',"span_id":{self._quote(record.span_id)}'
        if slow:
            more += ',"slow":true'
        if record.db_queries:
            taken = int(record.db_seconds * 1e6)
            more += f',"db_queries":{record.db_queries},"db_ms":{taken // 1000}.{_DIGITS[taken % 1000]}'
        return more


def _second(now: float) -> tuple[float, str]:
    second = int(now)
    return float(second), strftime('{"timestamp":"%Y-%m-%dT%H:%M:%S.', gmtime(second))
