"""Pages declared public, answered before Flask is entered: no routing, no context, no session, no view.

Which route a path has is learnt from the first request, which Flask routes. A hit is found here and nothing else:
whatever needs thought (a miss, a stale page, a caller with credentials) goes the long way, where pages.py decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING, Any

from flask_prod.core.record import RequestRecord

from . import rules
from .absent import MISSING
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

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_OF_A_304 = frozenset({"cache-control", "content-location", "etag", "expires", "vary", "date", "last-modified"})


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
        if route.mount != environ.get("SCRIPT_NAME", "") or (route.host is not None and route.host != record.host):
            return None
        if rules.credentials_in(environ) or (
            environ.get("QUERY_STRING") and rules.refuse_query(environ, route.query)
        ):
            return None
        entry = self._backend.store.get(rules.page_key(route.name, environ, route.vary, route.query), route.tags)
        if entry is None:
            return None
        now = time()
        if not entry.is_fresh(now) or route.order.is_due(entry, now) or (self.reload and wants_reload(environ)):
            return None
        page = self._backend.page_of(entry)
        if page is MISSING or not isinstance(page, Page):
            return None
        record.endpoint, record.route = route.endpoint, route.rule
        return _Answer(self, page, entry, now).send

    def sent(self, entry: Entry) -> None:
        """Count a hit that was sent."""
        self._backend.loader.count("hit", entry.tier)


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a view's decorator says of its pages, for one path."""

    name: str
    vary: tuple[str, ...]
    query: tuple[str, ...] | None
    tags: tuple[str, ...]
    order: Order


class _Answer:
    __slots__ = ("_entry", "_now", "_page", "_pages")

    def __init__(self, pages: EarlyPages, page: Page, entry: Entry, now: float) -> None:
        self._pages = pages
        self._page = page
        self._entry = entry
        self._now = now

    def send(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with the page, or say that the client has it."""
        page, entry, pages = self._page, self._entry, self._pages
        pages.sent(entry)
        own = [("Age", str(max(0, int(self._now - entry.created))))]
        if pages.tells_status:
            own.append(("Cache-Status", hit(entry.expires, self._now)))
        held: Any = environ.get("HTTP_IF_NONE_MATCH")
        if held and page.status == 200 and matches(held, dict(page.headers).get("ETag", "")):
            start_response("304 NOT MODIFIED", [*(h for h in page.headers if h[0].lower() in _OF_A_304), *own])
            return []
        body = page.body
        status = _STATUS_LINES.get(page.status) or f"{page.status} "
        start_response(status, [*page.headers, ("Content-Length", str(len(body))), *own])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
