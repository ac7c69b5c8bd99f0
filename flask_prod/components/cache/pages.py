"""`@cached`: look a page up, judge who may share it, compute it once, store it."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from typing import Any, cast

from flask import Request, current_app, has_request_context, make_response, url_for
from flask.globals import request_ctx
from flask.views import View
from flask_caching import CachedResponse
from flask_caching.utils import get_arg_names
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from flask_prod.core.record import current_record

from . import rules
from .absent import MISSING
from .backend import SafeBackend, Timeout
from .calls import Call
from .envelope import Page


class CachedCall(Call):
    """`@cached`: a page where the function answers a request, else a plain value under a fixed key."""

    def _decorate(self, timeout: Timeout) -> Any:
        function = super()._decorate(timeout)
        function.make_cache_key = self.make_root
        self._name = f"{self.function.__module__}.{self.function.__qualname__}"
        self._vary = frozenset(name.lower() for name in self.options.vary)
        prefix = self.options.key_prefix
        self._explicit = self.options.make_key or (prefix if callable(prefix) else None)
        self._by_path = isinstance(prefix, str) and "%s" in prefix
        return function

    def run(self, args: Any, kwargs: Any) -> Any:
        """Answer one call."""
        if not has_request_context():
            return self._without_request(args, kwargs)
        depth = self._depth(args)
        if depth is None and (self._explicit is not None or not self._by_path):
            return self.through(self._key(args, kwargs), args, kwargs)
        return self._page(depth == 0, args, kwargs)

    def make_root(self, *args: Any, use_request: bool = False, **kwargs: Any) -> str:
        """Return the key whose deletion forgets the result: of every query, host and variant of a page."""
        if self._explicit is not None or not self._by_path:
            return self._key(args, kwargs)
        path = kwargs.pop("path", None)
        kwargs.pop("query_args", None)
        if path is None and use_request:
            path = request_ctx.request.path
        if path is None:
            named = dict(zip(get_arg_names(self.function), args, strict=False))
            path = url_for(self.function.__name__, _external=False, **named, **kwargs)
        return str(cast(str, self.options.key_prefix) % path) + self._source()

    def _without_request(self, args: Any, kwargs: Any) -> Any:
        if self._by_path and self._explicit is None:
            return self.uncached(args, kwargs)
        return self.through(self._key(args, kwargs), args, kwargs)

    def _key(self, args: Any, kwargs: Any) -> str:
        if self.options.make_key is not None:
            return str(self.options.make_key(*args, **kwargs))
        prefix = self.options.key_prefix
        return (str(prefix()) if callable(prefix) else prefix) + self._source()

    def _source(self) -> str:
        check = self.options.source_check
        if not (self.cache.source_check if check is None else check):
            return ""
        return hashlib.sha256(inspect.getsource(self.function).encode()).hexdigest()

    def _depth(self, args: Any) -> int | None:
        """Return how many decorators lie around this one on the current view; None if it is not the view."""
        request = request_ctx.request
        if args and isinstance(args[0], View):
            return 1
        view = current_app.view_functions.get(request.endpoint or "")
        depth = 0
        while view is not None:
            if view is self.decorated:
                return depth
            view = getattr(view, "__wrapped__", None)
            depth += 1
        return None

    def _page(self, outermost: bool, args: Any, kwargs: Any) -> Any:
        request = request_ctx.request
        backend = self.cache.backend
        reason = self._refuse(request, backend)
        if reason:
            backend.counters.refused.inc(reason)
            return self.uncached(args, kwargs)

        root, key = self._page_keys(request, args, kwargs)
        landings = backend.flights.landings
        forced = self.cache._forced_update(self.options.forced_update, *args, **kwargs)
        found, stamp = backend.look_up_page(key, root)
        answer = MISSING if forced else self._revive(found, args, kwargs)
        self.tell(root, answer is not MISSING, args, kwargs)
        if answer is not MISSING:
            return self._indicated(answer)
        if request.method == "HEAD":
            return self.uncached(args, kwargs)  # a view may leave out the body
        stamp = stamp or backend.stamp(root, self.decorated.cache_timeout)

        def compute() -> tuple[Any, bytes | None]:
            return self._compute_page(_Place(backend, key, stamp, outermost), args, kwargs)

        if forced:
            return compute()[0]
        return backend.fly(
            key + stamp,
            compute,
            lambda data: self._revive(backend.read_page(key, data, stamp), args, kwargs),
            lambda: self._revive(backend.look_up_page(key, root)[0], args, kwargs),
            landings,
        )

    def _refuse(self, request: Request, backend: SafeBackend) -> str:
        if self._explicit is not None:
            return "" if request.method in ("GET", "HEAD") else "method"
        return rules.refuse_request(request, backend.cookies, self._vary, self.options.query)

    def _page_keys(self, request: Request, args: Any, kwargs: Any) -> tuple[str, str]:
        if self._explicit is not None:
            root = self._key(args, kwargs)
            return root, rules.explicit_key(self._name, root)
        root = self.make_root(use_request=True)
        return root, rules.page_key(self._name, request, self.options.vary, self.options.query)

    def _compute_page(self, place: _Place, args: Any, kwargs: Any) -> tuple[Any, bytes | None]:
        watch = rules.Watch(request_ctx.request, request_ctx._get_current_object())  # type: ignore[attr-defined]
        value = self.uncached(args, kwargs)
        wanted = self.wanted(value)
        if place.outermost:
            value = make_response(value)
        record = current_record()
        reason = watch.refuse(self._vary, record.nonce if record else None, self._explicit is not None)
        reason = reason or _refuse_value(value, self._vary)
        self._add_vary(value)
        if reason or not wanted:
            place.backend.counters.refused.inc(reason or "filter")
            return value, None
        return value, self._store(place, value)

    def _store(self, place: _Place, value: Any) -> bytes | None:
        timeout = self.decorated.cache_timeout
        if isinstance(value, CachedResponse):
            timeout = value.timeout or timeout
        if isinstance(value, Response):
            page = Page(place.stamp, value.status_code, rules.kept_headers(value), value.get_data())
            return place.backend.store_page(place.key, page, timeout)
        try:
            return place.backend.store_value(place.key, [place.stamp, value], timeout)
        except TypeError as error:
            self.unfit(place.backend, error)
            return None

    def _revive(self, found: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(found, Page):
            found = current_app.response_class(found.body, found.status, Headers(found.headers))
        return self.fresh(found, args, kwargs)

    def _add_vary(self, value: Any) -> None:
        if self.options.vary and isinstance(value, Response):
            value.vary.update(self.options.vary)

    def _indicated(self, answer: Any) -> Any:
        if self.options.indicate:
            answer = make_response(answer)
            answer.headers["hit_cache"] = "True"
        return answer


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page goes once it is computed."""

    backend: SafeBackend
    key: str
    stamp: str
    outermost: bool


def _refuse_value(value: Any, vary: frozenset[str]) -> str:
    """Judge what a view returned; decorators around it may expect exactly that, so it is not made a response."""
    if isinstance(value, Response):
        return rules.refuse_response(value, vary)
    if inspect.isgenerator(value) or hasattr(value, "__next__"):
        return "stream"
    return rules.refuse_tuple(value, vary) if isinstance(value, tuple) else ""
