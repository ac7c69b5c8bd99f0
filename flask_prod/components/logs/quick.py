"""The line of an ordinary request, written without building what is written: most of it was written before.

What a path, a client and the service look like in JSON is kept, and the second of the clock too. A request with
more to say than usual (an error, notes, a strange method) takes the long way, which gives the same line.
"""

from __future__ import annotations

from collections.abc import Callable
from time import gmtime, strftime, time

from flask_prod.core.record import RequestRecord
from flask_prod.core.redaction import shorten

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
        self._service = f'","event":"request","service":{name},"version":{version},"environment":{environment}'
        self._quote = quote
        self._shown = shown
        self._second = (0.0, "")
        self._places: dict[str, tuple[str | None, str]] = {}
        self._texts: dict[str, str] = {}

    def line(self, record: RequestRecord, level: str, slow: bool) -> bytes | None:
        """Return the line of *record*; None for a request that takes the long way."""
        request_id = record.request_id
        if record.error is not None or record.extra or record.method not in _METHODS or not request_id.isalnum():
            return None
        now = time()
        began, text = self._second
        if not 0.0 <= now - began < 1.0:
            began, text = self._second = _second(now)
        micros = int((now - began) * 1e6)  # small numbers all along: large ones are slow
        place = self._places.get(record.path)
        if place is None or place[0] is not record.route:
            place = self._place(record)
        client = self._texts.get(record.client) or self._text(record.client)
        taken = int(record.duration * 1e6)
        tells = record.trace_id or record.user_id or slow or record.db_queries
        more = self._more(record, slow) if tells else ""
        return (
            f'{{"timestamp":"{text}{_DIGITS[micros // 1000]}{_DIGITS[micros % 1000]}Z","level":"{level}'
            f'{self._service},"request_id":"{request_id}","method":"{record.method}",{place[1]}{record.status}'
            f',"duration_ms":{taken // 1000}.{_DIGITS[taken % 1000]},"bytes":{record.bytes_sent},"client":{client}'
            f',"outcome":"{record.outcome}"{more}}}\n'
        ).encode()

    def _place(self, record: RequestRecord) -> tuple[str | None, str]:
        route = "null" if record.route is None else self._quote(record.route)
        place = record.route, f'"route":{route},"path":{self._quote(self._shown(record))},"status":'
        if len(record.path) <= _LONGEST:
            if len(self._places) >= _MOST:
                self._places = {}
            self._places[record.path] = place
        return place

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
    return float(second), strftime("%Y-%m-%dT%H:%M:%S.", gmtime(second))
