"""`@cached`: look a page up, judge who may share it, compute it once, store it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from time import time
from typing import Any, cast

from flask import after_this_request, current_app, has_request_context, make_response, url_for
from flask.globals import request_ctx
from flask.views import View
from flask_caching import CachedResponse
from flask_caching.utils import get_arg_names
from werkzeug.datastructures import Headers
from werkzeug.exceptions import GatewayTimeout, HTTPException
from werkzeug.wrappers import Response

from flask_prod.core.record import current_record

from . import rules
from .absent import MISSING
from .backend import SafeBackend, Timeout
from .calls import Call, Options
from .conditions import etag_of, forbids_storing, lifetime, must_revalidate, only_stored, wants_reload
from .early import Learnt
from .entry import Entry
from .envelope import Page
from .loader import Made, Want
from .status import Visit

_NEVER_STORED = frozenset({206, 304, 401, 403, 407, 429, *range(100, 200), *range(500, 600)})


class CachedCall(Call):
    """`@cached`: a page where the function answers a request, else a plain value under a fixed key."""

    def _decorate(self, timeout: Timeout) -> Any:
        function = super()._decorate(timeout)
        function.make_cache_key = self.make_root
        prefix = self.options.key_prefix
        self._explicit = self.options.make_key or (prefix if callable(prefix) else None)
        self._by_path = isinstance(prefix, str) and "%s" in prefix
        self._takes_arguments = self.options.by_arguments and bool(inspect.signature(self.function).parameters)
        self._key_of_arguments = self.cache._memoize_make_cache_key(source_check=self.options.source_check)
        self._declare()
        return function

    def _declare(self) -> None:
        """Say who shares the pages; ValueError for what contradicts itself."""
        options = self.options
        self.shared = rules.Shared(
            options.vary, options.query, explicit=self._explicit is not None, public=options.public
        )
        self._vary_names = rules.environ_names(options.vary)
        problem = _contradiction(options, self.shared)
        if problem:
            raise ValueError(f"@cached on {self.name}: {problem}")
        asked = (options.unless, options.forced_update, options.is_stale, options.indicate)
        self._early = options.public and self._by_path and not any(asked)

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
        check = self.options.source_check
        plain = not (self.cache.source_check if check is None else check)
        key = self.arguments.key(args, kwargs) if plain else None
        return key or "call:" + str(self._key_of_arguments(self.function, *args, **kwargs))

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
        environ = request_ctx.request.environ
        backend = self.cache.backend
        visit = Visit(time(), outermost, backend.pages.tells_status, environ.get("HTTP_IF_NONE_MATCH", ""))
        after_this_request(visit.finish)
        reason = self._refuse(environ, backend)
        if reason and not (reason == "cookie" and self.options.public):
            visit.bypassed, visit.reason = True, reason
            backend.counters.refused.inc(reason)
            return self.uncached(args, kwargs)

        root, key = self._page_keys(environ, args, kwargs)

        def read(entry: Entry) -> Any:
            visit.seen = entry
            return self._revive(backend.page_of(entry), entry, args, kwargs)

        def make() -> tuple[Any, Made | None]:
            visit.ran = True
            self.tell(root, False, args, kwargs)
            return self._compute_page(backend, visit, args, kwargs)

        want = Want(key, (root, *self.tags(args, kwargs)), self._order(backend), make, read)
        looking = reason or _only_looking(environ)
        if looking:
            answer = self._look(backend, visit, want, looking, lambda: self.uncached(args, kwargs))
        else:
            visit.forced = self._forced(args, kwargs) or (backend.pages.reload and wants_reload(environ))
            answer = backend.obtain(want, visit.forced)
        if visit.ran or visit.bypassed:
            return answer
        self.tell(root, True, args, kwargs)
        self._learn(backend, visit, want)
        return self._indicated(answer)

    def _look(self, backend: SafeBackend, visit: Visit, want: Want, why: str, uncached: Callable[[], Any]) -> Any:
        """Answer from the cache and never fill it, nor let anybody wait for what this request computes."""
        entry = backend.loader.fresh(want)
        found = MISSING if entry is None else want.read(entry)
        if found is not MISSING:
            return found
        visit.bypassed, visit.reason = True, why
        if why == "only-if-cached":
            raise GatewayTimeout("There is no stored answer to this request, and it asked for no other.")
        if why != "head":
            backend.counters.refused.inc(why)
        return uncached()

    def _refuse(self, environ: rules.Environ, backend: SafeBackend) -> str:
        if self._explicit is not None:
            return "" if environ["REQUEST_METHOD"] in ("GET", "HEAD") else "method"
        return rules.refuse_request(environ, backend.cookies, self.shared.vary, self.options.query)

    def _page_keys(self, environ: rules.Environ, args: Any, kwargs: Any) -> tuple[str, str]:
        if self._explicit is not None:
            root = self._key(args, kwargs)
            return root, rules.explicit_key(self.name, root)
        root = self.make_root(use_request=True)
        return root, rules.page_key(self.name, environ, self._vary_names, self.options.query)

    def _compute_page(self, backend: SafeBackend, visit: Visit, args: Any, kwargs: Any) -> tuple[Any, Made | None]:
        watch = rules.Watch(request_ctx.request, request_ctx._get_current_object())  # type: ignore[attr-defined]
        value = self._called(visit.whole, args, kwargs)
        wanted = self.wanted(value)
        if visit.whole:
            value = make_response(value)
        record = current_record()
        reason = watch.refuse(self.shared, record.nonce if record else None)
        reason = reason or self._refuse_value(value)
        self._add_vary(value)
        if reason or not wanted:
            visit.reason = reason or "filter"
            backend.counters.refused.inc(visit.reason)
            return value, None
        made = self._made_page(backend, watch, value)
        visit.stored = made is not None
        visit.reason = "" if visit.stored else "size"
        return value, made

    def _called(self, whole: bool, args: Any, kwargs: Any) -> Any:
        """Call the view; an error whose status may be stored becomes the response that it would become anyway."""
        try:
            return self.uncached(args, kwargs)
        except HTTPException as error:
            if not whole or error.code not in self.options.statuses:
                raise
            return make_response(current_app.handle_user_exception(error))

    def _made_page(self, backend: SafeBackend, watch: rules.Watch, value: Any) -> Made | None:
        if not isinstance(value, Response):
            return self.made(backend, value)
        headers = value.headers
        limit = lifetime(headers)
        headers.setdefault("Cache-Control", "public, no-cache" if self.options.public else "no-cache")
        headers.setdefault("ETag", etag_of(value.get_data()))
        session = watch.session
        if session is not None and session.accessed:
            value.vary.add("Cookie")  # as Flask itself adds it, to the first answer only
        kept = rules.kept_headers(value, request_ctx.request.environ)
        made = backend.made_page(Page(value.status_code, kept, value.get_data()))
        ttl = self._order(backend).ttl
        if isinstance(value, CachedResponse) and value.timeout:
            ttl = backend.seconds(value.timeout)
        if made is None:
            return None
        return replace(made, ttl=ttl if limit is None else min(ttl or limit, limit))

    def _learn(self, backend: SafeBackend, visit: Visit, want: Want) -> None:
        """Let the next request for this path be answered before Flask is entered."""
        record = current_record()
        if not (self._early and visit.whole and record is not None) or self.cache.enable_signals:
            return
        learnt = Learnt(self.name, self._vary_names, self.options.query, want.tags, want.order)
        backend.pages.learn(record, learnt)

    def _refuse_value(self, value: Any) -> str:
        """Judge what a view returned; decorators around it may expect just that, so it is not made a response."""
        if isinstance(value, Response):
            return rules.refuse_response(value, self.shared.vary, self.options.statuses)
        if inspect.isgenerator(value) or hasattr(value, "__next__"):
            return "stream"
        return rules.refuse_tuple(value, self.shared.vary) if isinstance(value, tuple) else ""

    def _revive(self, found: Any, entry: Entry, args: Any, kwargs: Any) -> Any:
        if isinstance(found, Page):
            headers = Headers(found.headers)
            if not entry.is_fresh(time()) and must_revalidate(headers):
                return MISSING
            found = current_app.response_class(found.body, found.status, headers)
        return self.fresh(found, args, kwargs)

    def _add_vary(self, value: Any) -> None:
        if self.options.vary and isinstance(value, Response):
            value.vary.update(self.options.vary)

    def _indicated(self, answer: Any) -> Any:
        if self.options.indicate:
            answer = make_response(answer)
            answer.headers["hit_cache"] = "True"
        return answer


def _contradiction(options: Options, shared: rules.Shared) -> str:
    """Return what is wrong with the arguments of a decorator, in a sentence; empty if nothing is."""
    if "*" in shared.vary:
        return "vary=['*'] says that no two requests may share a page. Leave @cached away."
    personal = sorted(shared.vary & {"cookie", "authorization", "proxy-authorization"})
    if options.public and personal:
        return f"a public page is the same for everybody, so it cannot vary by {personal[0]}."
    if options.public and shared.explicit:
        return "a public page has no key= of your own: the key would need the request, which hits never make."
    never = sorted(set(options.statuses) & _NEVER_STORED)
    return f"an answer with status {never[0]} is for one caller and never stored." if never else ""


def _only_looking(environ: rules.Environ) -> str:
    """Return why this request is answered from the cache at most, empty when it may fill it.

    A view may leave out the body for HEAD. Whoever forbids storing must not keep the others waiting for nothing.
    """
    if environ["REQUEST_METHOD"] == "HEAD":
        return "head"
    if only_stored(environ):
        return "only-if-cached"
    return "request" if forbids_storing(environ) else ""
