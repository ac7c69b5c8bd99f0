"""`@cached`: look a page up, judge who may share it, compute it once, store it."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import replace
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
from .entry import Entry
from .envelope import Page
from .loader import Made, Want


class CachedCall(Call):
    """`@cached`: a page where the function answers a request, else a plain value under a fixed key."""

    def _decorate(self, timeout: Timeout) -> Any:
        function = super()._decorate(timeout)
        function.make_cache_key = self.make_root
        self._vary = frozenset(name.lower() for name in self.options.vary)
        prefix = self.options.key_prefix
        self._explicit = self.options.make_key or (prefix if callable(prefix) else None)
        self._by_path = isinstance(prefix, str) and "%s" in prefix
        self._takes_arguments = self.options.by_arguments and bool(inspect.signature(self.function).parameters)
        self._key_of_arguments = self.cache._memoize_make_cache_key()
        return function

    def run(self, args: Any, kwargs: Any) -> Any:
        """Answer one call."""
        if not has_request_context():
            return self._without_request(args, kwargs)
        depth = self._depth(args)
        if depth is None and self._is_function_call(args, kwargs):
            return self.through(self._arguments_key(args, kwargs), args, kwargs)
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
            if not self._takes_arguments:
                return self.uncached(args, kwargs)
            return self.through(self._arguments_key(args, kwargs), args, kwargs)
        return self.through(self._key(args, kwargs), args, kwargs)

    def _is_function_call(self, args: Any, kwargs: Any) -> bool:
        """Tell whether this is no view: what a view is given is what the address says, by name."""
        if not self._takes_arguments or self._explicit is not None or not self._by_path:
            return False
        return bool(args) or kwargs != (request_ctx.request.view_args or {})

    def _arguments_key(self, args: Any, kwargs: Any) -> str:
        """Return a key per set of arguments, however they are passed, as `memoize` does."""
        return "call:" + str(self._key_of_arguments(self.function, *args, **kwargs))

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
        ran = False

        def read(entry: Entry) -> Any:
            return self._revive(backend.page_of(entry), args, kwargs)

        def make() -> tuple[Any, Made | None]:
            nonlocal ran
            ran = True
            self.tell(root, False, args, kwargs)
            return self._compute_page(backend, outermost, args, kwargs)

        want = Want(key, (root, *self.tags(args, kwargs)), self._order(backend), make, read)
        if request.method == "HEAD":
            return self._head(backend, want, args, kwargs)
        answer = backend.obtain(want, self._forced(args, kwargs))
        if ran:
            return answer
        self.tell(root, True, args, kwargs)
        return self._indicated(answer)

    def _head(self, backend: SafeBackend, want: Want, args: Any, kwargs: Any) -> Any:
        """Answer from the cache, and never fill it: a view may leave out the body."""
        entry = backend.loader.fresh(want)
        found = MISSING if entry is None else want.read(entry)
        return self.uncached(args, kwargs) if found is MISSING else self._indicated(found)

    def _refuse(self, request: Request, backend: SafeBackend) -> str:
        if self._explicit is not None:
            return "" if request.method in ("GET", "HEAD") else "method"
        return rules.refuse_request(request, backend.cookies, self._vary, self.options.query)

    def _page_keys(self, request: Request, args: Any, kwargs: Any) -> tuple[str, str]:
        if self._explicit is not None:
            root = self._key(args, kwargs)
            return root, rules.explicit_key(self.name, root)
        root = self.make_root(use_request=True)
        return root, rules.page_key(self.name, request, self.options.vary, self.options.query)

    def _compute_page(
        self, backend: SafeBackend, outermost: bool, args: Any, kwargs: Any
    ) -> tuple[Any, Made | None]:
        watch = rules.Watch(request_ctx.request, request_ctx._get_current_object())  # type: ignore[attr-defined]
        value = self.uncached(args, kwargs)
        wanted = self.wanted(value)
        if outermost:
            value = make_response(value)
        record = current_record()
        reason = watch.refuse(self._vary, record.nonce if record else None, self._explicit is not None)
        reason = reason or _refuse_value(value, self._vary)
        self._add_vary(value)
        if reason or not wanted:
            backend.counters.refused.inc(reason or "filter")
            return value, None
        return value, self._made_page(backend, value)

    def _made_page(self, backend: SafeBackend, value: Any) -> Made | None:
        if not isinstance(value, Response):
            return self.made(backend, value)
        made = backend.made_page(Page(value.status_code, rules.kept_headers(value), value.get_data()))
        if made is not None and isinstance(value, CachedResponse) and value.timeout:
            return replace(made, ttl=backend.seconds(value.timeout))
        return made

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


def _refuse_value(value: Any, vary: frozenset[str]) -> str:
    """Judge what a view returned; decorators around it may expect exactly that, so it is not made a response."""
    if isinstance(value, Response):
        return rules.refuse_response(value, vary)
    if inspect.isgenerator(value) or hasattr(value, "__next__"):
        return "stream"
    return rules.refuse_tuple(value, vary) if isinstance(value, tuple) else ""
