"""`prod.cache`: Flask-Caching's own object with safe semantics, one back end per application."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from flask import Flask, current_app
from flask_caching.jinja2ext import JINJA_CACHE_ATTR_NAME, CacheExtension
from flask_caching.utils import function_namespace

from flask_prod.core.errors import NotInstalled, SetupFinished

from .arguments import Arguments, Tags
from .backend import SafeBackend, Timeout
from .calls import MemoizedCall, Options
from .pages import CachedCall
from .service import Service, seconds

if TYPE_CHECKING:
    from flask_caching import _CachedFunction, _MemoizedFunction
    from sqlalchemy import Executable
    from sqlalchemy.orm import Session

    from .rows import Rows

P = ParamSpec("P")
R = TypeVar("R")


class CacheFace(Service):
    """A cache whose entries nobody gets who should not: see docs/cache.md for what is never stored.

    All decorators and methods of Flask-Caching work as documented there. `cached` also takes `ttl`, `query`, `key`
    and `vary`.
    """

    def __init__(self) -> None:
        self._latest: weakref.ref[Flask] | None = None
        super().__init__()

    def init_app(self, app: Flask, config: dict[str, Any] | None = None) -> None:
        """Refuse: the kit has done it, with the application's settings."""
        raise SetupFinished("prod.cache is installed by the kit: leave out cache.init_app(app).")

    def install(self, app: Flask, backend: SafeBackend) -> None:
        """Give *app* its back end, and its templates the `{% cache %}` tag."""
        app.extensions.setdefault("cache", {})[self] = backend
        setattr(app.jinja_env, JINJA_CACHE_ATTR_NAME, self)
        app.jinja_env.add_extension(CacheExtension)
        self._latest = weakref.ref(app)

    @property
    def backend(self) -> SafeBackend:
        """The back end of the current application; NotInstalled where there is none."""
        backend = self.app.extensions.get("cache", {}).get(self)
        if backend is None:
            raise NotInstalled("cache is left out of this application's kit: see only= and without= of ProdKit.")
        return cast(SafeBackend, backend)

    @property
    def cache(self) -> Any:
        """The back end, under the name that Flask-Caching gives it."""
        return self.backend

    # Flask-Caching keeps these on the object that several applications share; here they belong to each of them.

    @property
    def app(self) -> Flask:
        """The current application, outside of a context the one installed last."""
        if current_app:
            return cast(Flask, current_app._get_current_object())  # type: ignore[attr-defined]
        app = self._latest() if self._latest else None
        if app is None:
            raise NotInstalled("The cache needs an application: use it in a request or `with app.app_context():`.")
        return app

    @app.setter
    def app(self, _value: object) -> None:
        """Ignore what the library would set."""

    @property  # type: ignore[override]  # the library declares only the first value, None
    def source_check(self) -> bool:
        """Whether the source of a function is part of its keys: CACHE_SOURCE_CHECK."""
        return self.backend.library.source_check

    @source_check.setter
    def source_check(self, _value: object) -> None:
        """Ignore what the library's constructor sets."""

    @property
    def hash_method(self) -> Callable[..., Any]:
        """What keys of memoized functions are made with: CACHE_HASH_METHOD."""
        return self.backend.library.hash_method if current_app else hashlib.sha256

    @hash_method.setter
    def hash_method(self, _value: object) -> None:
        """Ignore what the library's constructor sets."""

    @property
    def enable_signals(self) -> bool:
        """Whether hits and misses are sent as signals: CACHE_ENABLE_SIGNALS."""
        return self.backend.library.enable_signals

    @enable_signals.setter
    def enable_signals(self, _value: object) -> None:
        """Ignore what the library's constructor sets."""

    def cached(  # noqa: PLR0913  # the library's arguments and ours
        self,
        timeout: int | timedelta | str | None = None,
        key_prefix: str | Callable[[], str] = "view/%s",
        unless: Callable[..., Any] | None = None,
        forced_update: Callable[..., Any] | None = None,
        is_stale: Callable[..., Any] | None = None,
        response_filter: Callable[..., Any] | None = None,
        query_string: bool = False,
        hash_method: Callable[..., Any] | None = None,
        cache_none: bool = False,
        make_cache_key: Callable[..., Any] | None = None,
        source_check: bool | None = None,
        response_hit_indication: bool | None = False,
        *,
        ttl: Timeout = None,
        query: Iterable[str] | None = None,
        key: str | Callable[..., str] | None = None,
        vary: Sequence[str] = (),
        tags: Tags = (),
        stale: Timeout = None,
        stale_on_error: Timeout = None,
        negative: Timeout = None,
        public: bool = False,
        statuses: Iterable[int] = (200,),
    ) -> Callable[[Callable[P, R]], _CachedFunction[P, R]]:
        """Keep what a view or a function returns; the first twelve arguments are Flask-Caching's.

        A page is kept by scheme, host, path and query, for GET and HEAD, and shared only between callers who
        cannot be told apart. `ttl` is the time to live: seconds, `5m`, or a timedelta. `query` names the
        parameters that count; others are ignored. `vary` names request headers that count; with `Cookie` or
        `Authorization` among them, the page is kept for each caller. `key` replaces all of that: whoever is given
        the same key shares the page. A function that is no view is kept by its arguments.

        `invalidate` forgets all that carries one of `tags`: names, with arguments as in `product:{id}`, or a
        function of the arguments that returns names. For `stale` after its end one caller computes a result anew
        while the others have the old one; for `stale_on_error` the old one is served when that fails. None is
        kept for `negative`, else not at all.

        A `public` page is the same for everybody, signed in or not: a hit is answered before Flask is entered, so
        that no before_request, after_request or teardown function of the application runs. Limits, HTTPS, headers,
        metrics and logs are as ever. `statuses` are those of answers that may be stored.
        """
        # query_string and hash_method have nothing left to decide: the query is always part of a page's key, since
        # without it the library serves page 1 for page 2, and keys of pages are hashed one way.
        options = Options(
            key_prefix=key_prefix,
            make_key=make_cache_key or (key if callable(key) else None),
            by_arguments=key_prefix == "view/%s",
            unless=unless,
            forced_update=forced_update,
            is_stale=is_stale,
            response_filter=response_filter,
            cache_none=cache_none,
            query=None if query is None else tuple(query),
            vary=tuple(vary),
            indicate=bool(response_hit_indication),
            source_check=source_check,
            tags=tags,
            stale=seconds(stale),
            stale_on_error=seconds(stale_on_error),
            negative=seconds(negative),
            public=public,
            statuses=tuple(statuses),
        )
        lifetime = seconds(timeout if ttl is None else ttl)
        if not isinstance(key, str):
            return lambda function: CachedCall(self, function, options, lifetime).decorated

        def by_template(function: Callable[P, R]) -> _CachedFunction[P, R]:
            make_key = Arguments(function).template(key)
            call = CachedCall(self, function, replace(options, make_key=make_key), lifetime)
            return cast("_CachedFunction[P, R]", call.decorated)

        return by_template

    def query(
        self,
        statement: Executable,
        ttl: Timeout = None,
        tags: Iterable[str] = (),
        *,
        key: str = "",
        session: Session | None = None,
    ) -> Rows:
        """Return the rows of a query of SQLAlchemy's, from the cache until a commit changes one of its tables.

        Without *session* the query is the current context's, `prod.db.session`. *key* is what else the rows depend
        on: a tenant that the connection knows, but neither statement nor address. Objects come as their columns.
        """
        from .queries import Asked, session_of_app

        asked = Asked(statement, seconds(ttl), tuple(tags), key)
        queries = self.backend.queries
        return queries.fetch(session or session_of_app(), asked, followed=session is None)

    def memoize(  # noqa: PLR0913  # the library's arguments
        self,
        timeout: int | timedelta | str | None = None,
        make_name: Callable[..., str] | None = None,
        unless: Callable[..., bool] | None = None,
        forced_update: Callable[..., bool] | None = None,
        is_stale: Callable[..., bool] | None = None,
        response_filter: Callable[..., Any] | None = None,
        hash_method: Callable[..., Any] | None = None,
        cache_none: bool = False,
        source_check: bool | None = None,
        args_to_ignore: list[str] | None = None,
        *,
        ttl: Timeout = None,
        tags: Tags = (),
        stale: Timeout = None,
        stale_on_error: Timeout = None,
        negative: Timeout = None,
    ) -> Callable[[Callable[P, R]], _MemoizedFunction[P, R]]:
        """Keep what a function returns for each set of arguments; `delete_memoized` forgets it.

        The first ten arguments are Flask-Caching's, the others those of `cached`.
        """
        options = Options(
            unless=unless,
            forced_update=forced_update,
            is_stale=is_stale,
            response_filter=response_filter,
            cache_none=cache_none,
            source_check=source_check,
            ignored=tuple(args_to_ignore or ()),
            tags=tags,
            stale=seconds(stale),
            stale_on_error=seconds(stale_on_error),
            negative=seconds(negative),
        )
        lifetime = seconds(timeout if ttl is None else ttl)

        def decorate(function: Callable[P, R]) -> _MemoizedFunction[P, R]:
            call = MemoizedCall(self, function, options, lifetime)
            memoized = call.decorated
            make_key = self._memoize_make_cache_key(make_name, hash_method, source_check, args_to_ignore)
            ours = not any((make_name, hash_method, source_check, args_to_ignore))
            memoized.make_cache_key = call.key_maker(make_key) if ours else make_key
            memoized.delete_memoized = lambda: self.delete_memoized(memoized)
            return cast("_MemoizedFunction[P, R]", memoized)

        return decorate

    def _memoize_version(  # noqa: PLR0913  # overrides the library's
        self,
        f: Callable[..., Any],
        args: Any | None = None,
        kwargs: dict[str, Any] | None = None,
        reset: bool = False,
        delete: bool = False,
        refresh: bool = False,
        timeout: int | None = 0,
        args_to_ignore: list[str] | None = None,
    ) -> tuple[str, str] | tuple[str, None]:
        """Return a function's name and version; *reset* and *delete* take the version away.

        Here a version is nothing but the tags that all results carry: they are found in the same round trip, and
        of callers at once none finds a version that another one has just replaced.
        """
        names = self._names_of(f, args, args_to_ignore or ())
        if reset or delete:
            self.backend.invalidate(self._memvname(names[-1]))
            return names[0], None
        return names[0], ""

    def memoized_names(self, f: Callable[..., Any], args: Any, ignored: Iterable[str]) -> tuple[str, ...]:
        """Return the tags that `delete_memoized` invalidates: of the function, and of its instance."""
        return tuple(self._memvname(name) for name in self._names_of(f, args, ignored))

    def _names_of(self, f: Callable[..., Any], args: Any, ignored: Iterable[str]) -> list[str]:
        name, instance = function_namespace(f, args=args)
        return [name] if instance is None or "self" in ignored else [name, instance]
