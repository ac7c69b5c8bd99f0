"""What stands between a caller and a decorated function: look up, compute once, judge, store."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from flask import current_app
from flask_caching.signals import cache_memoize_hit, cache_memoize_miss, cache_view_hit, cache_view_miss
from flask_caching.utils import join_generator
from werkzeug.wrappers import Response

from .absent import MISSING
from .backend import SafeBackend, Timeout

if TYPE_CHECKING:
    from .handle import CacheFace

logger = logging.getLogger(__name__)

Key = Callable[..., str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of a decorator; what they mean stands at `CacheFace.cached`."""

    key_prefix: str | Key = "view/%s"
    make_key: Key | None = None
    unless: Callable[..., Any] | None = None
    forced_update: Callable[..., Any] | None = None
    is_stale: Callable[..., Any] | None = None
    response_filter: Callable[..., Any] | None = None
    cache_none: bool = False
    query: tuple[str, ...] | None = None
    vary: tuple[str, ...] = ()
    indicate: bool = False
    source_check: bool | None = None


class Call:
    """A function whose results are kept; what pages and plain values have in common."""

    def __init__(self, cache: CacheFace, function: Callable[..., Any], options: Options, timeout: Timeout) -> None:
        self.cache = cache
        self.function = function
        self.options = options
        self.decorated = self._decorate(timeout)

    def _decorate(self, timeout: Timeout) -> Any:
        @functools.wraps(self.function)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            if self.cache._bypass_cache(self.options.unless, self.function, *args, **kwargs):
                return self.uncached(args, kwargs)
            return self.run(args, kwargs)

        function = cast(Any, decorated)
        function.uncached = self.function
        function.cache_timeout = timeout
        return function

    def run(self, args: Any, kwargs: Any) -> Any:
        """Answer one call."""
        raise NotImplementedError

    def uncached(self, args: Any, kwargs: Any) -> Any:
        """Call the function itself, a coroutine function too."""
        function = current_app.ensure_sync(self.function) if current_app else self.function
        return function(*args, **kwargs)

    def through(self, key: str, args: Any, kwargs: Any) -> Any:
        """Return the value under *key*, computed by one caller where it is not there."""
        backend = self.cache.backend
        landings = backend.flights.landings
        forced = self.cache._forced_update(self.options.forced_update, *args, **kwargs)
        value = MISSING if forced else self.fresh(backend.look_up(key), args, kwargs)
        self.tell(key, value is not MISSING, args, kwargs)
        if value is not MISSING:
            return value
        if forced:
            return self.compute(backend, key, args, kwargs)[0]
        return backend.fly(
            key,
            lambda: self.compute(backend, key, args, kwargs),
            lambda data: backend.read_value(key, data),
            lambda: self.fresh(backend.look_up(key), args, kwargs),
            landings,
        )

    def fresh(self, value: Any, args: Any, kwargs: Any) -> Any:
        """Return *value*, MISSING if the function's options say that it does not count."""
        if value is None and not self.options.cache_none:
            return MISSING
        if value is not MISSING and self.cache._is_stale(self.options.is_stale, value, *args, **kwargs):
            return MISSING
        return value

    def compute(self, backend: SafeBackend, key: str, args: Any, kwargs: Any) -> tuple[Any, bytes | None]:
        """Call the function and store what it gave; the bytes are None if that was not possible."""
        value = self.uncached(args, kwargs)
        if inspect.isgenerator(value):
            value = join_generator(value)
        if isinstance(value, Response):
            backend.counters.refused.inc("response")
            return value, None
        if not self.wanted(value):
            return value, None
        try:
            data = backend.store_value(key, value, self.decorated.cache_timeout)
        except TypeError as error:
            self.unfit(backend, error)
            return value, None
        return value, data

    def wanted(self, value: Any) -> bool:
        """Tell whether the options let *value* be stored."""
        if value is None and not self.options.cache_none:
            return False
        return self.options.response_filter is None or bool(self.options.response_filter(value))

    def tell(self, key: str, found: bool, args: Any, kwargs: Any) -> None:
        """Send the library's signals, where CACHE_ENABLE_SIGNALS is set."""
        if self.cache.enable_signals:
            signal = cache_view_hit if found else cache_view_miss
            signal.send(cache=self.cache, cache_key=key, args=args, kwargs=kwargs)

    def unfit(self, backend: SafeBackend, error: TypeError) -> None:
        """Say that a value cannot be cached: raise in development, in production go on without and log it once."""
        backend.counters.refused.inc("type")
        if backend.strict or current_app.debug or current_app.testing:
            raise error
        if self.function not in backend.unfit:
            backend.unfit.add(self.function)
            logger.error("%s is not cached: %s", self.function.__qualname__, error)


class MemoizedCall(Call):
    """`@memoize`: a value per set of arguments, under a version that `delete_memoized` takes away."""

    def run(self, args: Any, kwargs: Any) -> Any:
        """Answer one call."""
        key = self.decorated.make_cache_key(self.decorated, *args, **kwargs)
        return self.through(key, args, kwargs)

    def tell(self, key: str, found: bool, args: Any, kwargs: Any) -> None:
        """Send the library's signals for memoized functions."""
        if self.cache.enable_signals:
            signal = cache_memoize_hit if found else cache_memoize_miss
            signal.send(cache=self.cache, cache_key=key, f=self.function, args=args, kwargs=kwargs)
