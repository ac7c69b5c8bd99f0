"""Pages declared public, answered before Flask is entered: no routing, no context, no session, no view.

Which route a path has is learnt from the first request, which Flask routes. A hit is found here and nothing else:
whatever needs thought (a miss, a stale page, a caller with credentials) goes the long way, where pages.py decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from math import floor
from time import time
from typing import TYPE_CHECKING, TypeAlias

from flask_prod.core.component import Pairs
from flask_prod.core.early import Ready
from flask_prod.core.record import RequestRecord

from . import rules
from .conditions import matches, wants_reload
from .entry import Entry
from .envelope import Page
from .status import hit

if TYPE_CHECKING:
    from flask import Flask

    from .backend import SafeBackend
    from .loader import Order
    from .settings import CacheSettings

_MOST_PATHS = 4096
"""Paths that are known; with more, all are learnt anew."""

_MOST_KEYS = 8192
_LONGEST = 512
"""Pages whose keys are known, and the longest of their paths, hosts and queries: 8 MB at most."""

_MOST_HELD = 256
_LARGEST_HELD = 65_536
"""Pages that are kept ready to be sent, and their largest: 16 MB at most."""

_CREDENTIALS = tuple(rules.CREDENTIALS)
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_OF_A_304 = frozenset(
    {"age", "cache-control", "cache-status", "content-location", "etag", "expires", "last-modified", "vary"}
)


@dataclass(frozen=True, slots=True)
class Route:
    """How the pages of one path are found, and what a hit is counted under."""

    name: str
    endpoint: str
    rule: str
    mount: str
    host: str | None
    vary: tuple[str, ...]
    query: tuple[str, ...] | None
    tags: tuple[str, ...]
    order: Order


Asked: TypeAlias = tuple[str | None, ...]
"""What tells one page from another where no header is named in `vary`."""

Known: TypeAlias = tuple[Route, str, str]
"""A page's route, its key, and where it is held, with its method."""


class EarlyPages:
    """The public pages of one application."""

    tells_status: bool = True
    """Whether answers carry Cache-Status: CACHE_STATUS."""

    reload: bool = False
    """Whether clients may ask for a new answer: CACHE_CLIENT_RELOAD."""

    by_host: bool = False
    """Whether a path alone does not tell its route."""

    def __init__(self, backend: SafeBackend) -> None:
        self._backend = backend
        self._routes: dict[tuple[str, str], Route] = {}
        self._keys: dict[Asked, Known] = {}
        self._held: dict[str, Held] = {}
        self._counts: dict[str, Callable[[], None]] = {}

    def learn(self, record: RequestRecord, call: Learnt) -> None:
        """Remember the route of the request's path."""
        key = (record.path, record.method)
        known = self._routes.get(key)
        host = record.host if self.by_host else None
        mount = record.environ.get("SCRIPT_NAME", "")
        if known is not None and known.mount == mount and known.host == host and known.order is call.order:
            return
        if record.endpoint is None or record.route is None:
            return
        full = len(self._routes) >= _MOST_PATHS
        if full:
            self._routes.clear()
        if full or known is not None:
            self._keys.clear()  # those of the path's old route are among them
        self._routes[key] = Route(
            call.name, record.endpoint, record.route, mount, host, call.vary, call.query, call.tags, call.order
        )

    def set_up(self, app: Flask, settings: CacheSettings) -> None:
        """Take what one application decides."""
        self.tells_status = settings.status
        self.reload = settings.client_reload
        self.by_host = app.url_map.host_matching or app.subdomain_matching

    def find(self, record: RequestRecord) -> tuple[Ready, Pairs] | None:
        """Return the page if everybody may have it and it is there and fresh, and its headers that are new."""
        environ = record.environ
        get = environ.get
        asked: Asked = (
            record.path, record.method, environ["wsgi.url_scheme"], get("HTTP_HOST"), get("QUERY_STRING"),
            get("SCRIPT_NAME"),
        )  # fmt: skip
        known = self._keys.get(asked) or self._know(asked, record)
        if known is None or not environ.keys().isdisjoint(_CREDENTIALS):
            return None
        route, key, place = known
        entry = self._backend.store.get(key, route.tags)
        if entry is None or (self.reload and wants_reload(environ)):
            return None
        now = time()
        held = self._held.get(place)
        if held is None or held.entry is not entry:
            held = self._hold(place, route, entry)
        if held is None or (now >= held.end and (not entry.is_fresh(now) or route.order.is_due(entry, now))):
            return None
        record.endpoint, record.route = route.endpoint, route.rule
        more = held.more if held.since <= now < held.until else self._age(held, now)
        if "HTTP_IF_NONE_MATCH" in environ and held.unchanged is not None:
            return (held.unchanged if matches(environ["HTTP_IF_NONE_MATCH"], held.etag) else held.page), more
        return held.page, more

    def _age(self, held: Held, now: float) -> Pairs:
        """Write the headers that say how old the page is and what is left of its time; good for some time."""
        entry = held.entry
        age = now - entry.created
        held.since, held.until = now, now + 1.0 - age % 1.0
        held.more = (("Age", str(max(0, floor(age)))),)
        if self.tells_status:
            held.more += (("Cache-Status", hit(entry.expires, now)),)
            left = entry.expires - now
            if entry.expires:
                held.until = min(held.until, now + left % 1.0) if left > 1.0 else now
        return held.more

    def _know(self, asked: Asked, record: RequestRecord) -> Known | None:
        """Return the route, the page's key, and where it is held; None for no public page.

        It is kept where nothing but *asked* decides.
        """
        route = self._routes.get((record.path, record.method))
        if route is None or record.environ.get("SCRIPT_NAME", "") != route.mount:
            return None
        if route.host is not None and route.host != record.host:
            return None
        environ = record.environ
        if environ.get("QUERY_STRING") and rules.refuse_query(environ, route.query):
            return None
        key = rules.page_key(route.name, environ, route.vary, route.query)
        known = route, key, f"{record.method} {key}"
        if not route.vary and environ.get("HTTP_HOST") and sum(map(len, filter(None, asked))) <= _LONGEST:
            if len(self._keys) >= _MOST_KEYS:
                self._keys.clear()
            self._keys[asked] = known
        return known

    def _hold(self, place: str, route: Route, entry: Entry) -> Held | None:
        """Make ready to send what an entry holds; None if that is no page."""
        page = self._backend.page_of(entry)
        if not isinstance(page, Page):
            return None
        headers = (*page.headers, ("Content-Length", str(len(page.body))))
        etag = dict(headers).get("ETag", "") if page.status == HTTPStatus.OK else ""
        # Until then there is nothing to think about; `is_due` draws lots after it.
        end = entry.expires - 20 * entry.cost * route.order.early if entry.expires else float("inf")
        body = b"" if place.startswith("HEAD ") else page.body
        ready = self._ready(page.status, headers, body, entry)
        unchanged = None
        if etag:
            kept = tuple(pair for pair in headers if pair[0].lower() in _OF_A_304)
            unchanged = self._ready(HTTPStatus.NOT_MODIFIED, kept, b"", entry)
        held = Held(entry, ready, unchanged, etag, end, (), 0.0, 0.0)
        if len(page.body) <= _LARGEST_HELD:
            if len(self._held) >= _MOST_HELD:
                self._held.clear()
            self._held[place] = held
        return held

    def _ready(self, status: int, headers: Pairs, body: bytes, entry: Entry) -> Ready:
        more = ("age", "cache-status") if self.tells_status else ("age",)
        answered = frozenset((*(name.lower() for name, _ in headers), *more))
        content_type = next((value for name, value in headers if name.lower() == "content-type"), "")
        line = _STATUS_LINES.get(status) or f"{status} "
        return Ready(line, headers, body, status, answered, content_type, self._count_of(entry.tier))

    def _count_of(self, tier: str) -> Callable[[], None]:
        """Return what counts a hit in *tier*."""
        count = self._counts.get(tier)
        if count is None:
            count = self._counts[tier] = self._backend.loader.counting("hit", tier)
        return count


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a view's decorator says of its pages, for one path."""

    name: str
    vary: tuple[str, ...]
    query: tuple[str, ...] | None
    tags: tuple[str, ...]
    order: Order


@dataclass(slots=True)
class Held:
    """A page ready to be sent, kept beside the memory's entry: read once, sent often."""

    entry: Entry
    page: Ready
    unchanged: Ready | None
    """What a client is told that has the page."""

    etag: str
    end: float
    more: Pairs
    """Its age and what is left of its time, as headers say it between two moments."""

    since: float
    until: float
