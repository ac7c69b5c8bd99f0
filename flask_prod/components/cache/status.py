"""The `Cache-Status` header (RFC 9211): was the answer stored, or why not."""

from __future__ import annotations

from dataclasses import dataclass
from time import time

from werkzeug.wrappers import Response

from .conditions import matches
from .entry import Entry

HEADER = "Cache-Status"
_NAME = "flask-prod"


def hit(expires: float, now: float) -> str:
    """Return what is said of a stored answer; a time to live below zero means that it was served stale."""
    if not expires:
        return f"{_NAME}; hit"
    left = int(expires - now)
    return f"{_NAME}; hit; ttl={left}" if expires > now else f"{_NAME}; hit; ttl={min(left, -1)}; detail=stale"


@dataclass(slots=True)
class Visit:
    """What the cache did for one request; `finish` tells it to the client.

    `reason` is why the answer is not stored, or was not looked up when `bypassed`. `seen` is the entry that was
    found last, `ran` whether this request's view was called.
    """

    began: float
    whole: bool
    told: bool
    if_none_match: str = ""
    bypassed: bool = False
    forced: bool = False
    ran: bool = False
    reason: str = ""
    stored: bool = False
    seen: Entry | None = None

    def finish(self, response: Response) -> Response:
        """Add Age and Cache-Status, and answer 304 to a client that has this very page."""
        headers = response.headers
        entry = None if self.ran or self.bypassed else self.seen
        if entry is not None and entry.created:
            headers["Age"] = str(max(0, int(time() - entry.created)))
        if self.told and HEADER not in headers:
            headers[HEADER] = self.text(entry)
        etag = headers.get("ETag")
        if self.whole and etag and response.status_code == 200 and self._is_held(etag):
            response.status_code = 304
            response.set_data(b"")
            headers.pop("Content-Length", None)
        return response

    def _is_held(self, etag: str) -> bool:
        return bool(self.if_none_match) and matches(self.if_none_match, etag)

    def text(self, entry: Entry | None) -> str:
        """Return the header's value."""
        if self.bypassed:
            return f"{_NAME}; fwd={'method' if self.reason == 'method' else 'bypass'}; detail={self.reason}"
        if entry is not None:
            if entry.created >= self.began:
                return f"{_NAME}; fwd=uri-miss; collapsed; stored"
            return hit(entry.expires, time())
        why = "request" if self.forced else "stale" if self.seen is not None else "uri-miss"
        said = f"{_NAME}; fwd={why}"
        if self.stored:
            return f"{said}; stored"
        return f"{said}; detail={self.reason}" if self.reason else said
