"""Pages declared public, answered before Flask is entered: no routing, no context, no session, no view.

Which route a path has is learnt from the first request, which Flask routes. A hit is found here and nothing else:
whatever needs thought (a miss, a stale page, a caller with credentials) goes the long way, where pages.py decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING, Any

from flask_prod.core.record import RequestRecord

from . import rules
from .conditions import matches, wants_reload
from .entry import Entry
from .envelope import Page
from .status import hit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask import Flask

    from .backend import SafeBackend
    from .loader import Order
    from .settings import CacheSettings

_MOST_PATHS = 4096
"""Paths that are known; with more, all are learnt anew."""

_MOST_KEYS = 64
"""Keys that are known of a path: its hosts, queries and variants."""

_MOST_HELD = 256
_LARGEST_HELD = 65_536
"""Pages that are kept ready to be sent, and their largest: 16 MB at most."""

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
    keys: dict[tuple[Any, ...], str] = field(default_factory=dict, compare=False)


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
        self._held: dict[str, Held] = {}

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
        if len(self._routes) >= _MOST_PATHS:
            self._routes.clear()
        self._routes[key] = Route(
            call.name, record.endpoint, record.route, mount, host, call.vary, call.query, call.tags, call.order
        )

    def set_up(self, app: Flask, settings: CacheSettings) -> None:
        """Take what one application decides."""
        self.tells_status = settings.status
        self.reload = settings.client_reload
        self.by_host = app.url_map.host_matching or app.subdomain_matching

    def find(self, record: RequestRecord) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]] | None:
        """Return what answers the request if everybody may have its page and the page is there and fresh."""
        route = self._routes.get((record.path, record.method))
        if route is None:
            return None
        environ = record.environ
        if environ.get("SCRIPT_NAME", "") != route.mount or not environ.keys().isdisjoint(rules.CREDENTIALS):
            return None
        if route.host is not None and route.host != record.host:
            return None
        key = self._key(route, record)
        entry = self._backend.store.get(key, route.tags) if key else None
        if entry is None or (self.reload and wants_reload(environ)):
            return None
        now = time()
        held = self._held.get(key)
        if held is None or held.entry is not entry:
            held = self._hold(key, route, entry)
        if held is None or (now >= held.end and (not entry.is_fresh(now) or route.order.is_due(entry, now))):
            return None
        record.endpoint, record.route = route.endpoint, route.rule
        return partial(self._send, held, now)

    def _key(self, route: Route, record: RequestRecord) -> str:
        """Return the page's key, empty for a query that keeps the request from the cache; most are known."""
        environ = record.environ
        query = environ.get("QUERY_STRING", "")
        host = environ.get("HTTP_HOST") or (environ["SERVER_NAME"], environ["SERVER_PORT"])
        asked: Any = (environ["wsgi.url_scheme"], host, query)
        if route.vary:
            asked = (*asked, *(environ.get(name, "") for name in route.vary))
        key = route.keys.get(asked)
        if key is None:
            if query and rules.refuse_query(environ, route.query):
                return ""
            if len(route.keys) >= _MOST_KEYS:
                route.keys.clear()
            key = route.keys[asked] = rules.page_key(route.name, environ, route.vary, route.query)
        return key

    def _hold(self, key: str, route: Route, entry: Entry) -> Held | None:
        """Make ready to send what an entry holds; None if that is no page."""
        page = self._backend.page_of(entry)
        if not isinstance(page, Page):
            return None
        line = _STATUS_LINES.get(page.status) or f"{page.status} "
        headers = (*page.headers, ("Content-Length", str(len(page.body))))
        etag = dict(headers).get("ETag", "") if page.status == HTTPStatus.OK else ""
        # Until then there is nothing to think about; `is_due` draws lots after it.
        end = entry.expires - 20 * entry.cost * route.order.early if entry.expires else float("inf")
        held = Held(entry, line, headers, page.body, etag, end)
        if len(page.body) <= _LARGEST_HELD:
            if len(self._held) >= _MOST_HELD:
                self._held.clear()
            self._held[key] = held
        return held

    def _send(
        self, held: Held, now: float, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer with the page, or say that the client has it."""
        entry = held.entry
        self._backend.loader.count("hit", entry.tier)
        age = int(now - entry.created)
        headers = [*held.headers, ("Age", str(age) if age > 0 else "0")]
        if self.tells_status:
            headers.append(("Cache-Status", hit(entry.expires, now)))
        wanted: Any = environ.get("HTTP_IF_NONE_MATCH")
        if wanted and held.etag and matches(wanted, held.etag):
            start_response("304 NOT MODIFIED", [pair for pair in headers if pair[0].lower() in _OF_A_304])
            return []
        start_response(held.line, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [held.body]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a view's decorator says of its pages, for one path."""

    name: str
    vary: tuple[str, ...]
    query: tuple[str, ...] | None
    tags: tuple[str, ...]
    order: Order


@dataclass(frozen=True, slots=True)
class Held:
    """A page ready to be sent, kept beside the memory's entry: read once, sent often."""

    entry: Entry
    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    etag: str
    end: float
