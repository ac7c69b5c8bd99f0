"""What stands between a caller and a decorated function: look up, compute once, judge, store."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from flask import current_app
from flask_caching.signals import cache_memoize_hit, cache_memoize_miss, cache_view_hit, cache_view_miss
from flask_caching.utils import join_generator
from werkzeug.wrappers import Response

from .absent import MISSING
from .arguments import Arguments, Tags
from .backend import SafeBackend, Timeout
from .entry import Entry
from .loader import Made, Order, Want

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
    public: bool = False
    statuses: tuple[int, ...] = (200,)
    by_arguments: bool = False
    ignored: tuple[str, ...] = ()
    tags: Tags = ()
    stale: float | None = None
    stale_on_error: float | None = None
    negative: float | None = None


class Call:
    """A function whose results are kept; what pages and plain values have in common."""

    def __init__(self, cache: CacheFace, function: Callable[..., Any], options: Options, timeout: Timeout) -> None:
        self.cache = cache
        self.function = function
        self.options = options
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.arguments = Arguments(function)
        self._tags = self.arguments.tags(options.tags)
        self._quick = options.forced_update is None and options.is_stale is None
        self._known: tuple[SafeBackend, Timeout, Order] | None = None
        self.keeps_none = options.cache_none or options.negative is not None
        self.decorated = self._decorate(timeout)

    def _decorate(self, timeout: Timeout) -> Any:
        unless = self.options.unless

        @functools.wraps(self.function)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            if unless is not None and self.cache._bypass_cache(unless, self.function, *args, **kwargs):
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

    def order(self, backend: SafeBackend) -> Order:
        """Return how results are kept: what the decorator says, else the application's settings."""
        ours, options = backend.order, self.options
        timeout = self.decorated.cache_timeout
        if timeout is None and options.stale is None and options.stale_on_error is None:
            return ours
        return replace(
            ours,
            ttl=backend.seconds(timeout),
            stale=ours.stale if options.stale is None else options.stale,
            stale_on_error=ours.stale_on_error if options.stale_on_error is None else options.stale_on_error,
        )

    def tags(self, args: Any, kwargs: Any) -> tuple[str, ...]:
        """Return the tags of one call's result."""
        return self._tags(args, kwargs)

    def through(self, key: str, args: Any, kwargs: Any) -> Any:
        """Return the value under *key*, computed by one caller where it is not there."""
        backend = self.cache.backend
        order = self._order(backend)
        signals = backend.library.enable_signals
        if self._quick and not signals:
            value = backend.peek(key, order)
            if value is not MISSING and (value is not None or self.keeps_none):
                return value

        def read(entry: Entry) -> Any:
            return self.fresh(backend.value_of(entry), args, kwargs)

        def make() -> tuple[Any, Made | None]:
            return self.compute(backend, args, kwargs)

        want = Want(key, self.tags(args, kwargs), order, make, read)
        if not signals:
            return backend.obtain(want, self._forced(args, kwargs))
        return self.told(backend, key, want, args, kwargs)

    def told(self, backend: SafeBackend, key: str, want: Want, args: Any, kwargs: Any) -> Any:
        """Obtain, and send the library's signals: a hit is what was not computed by this caller."""
        ran = False

        def make() -> tuple[Any, Made | None]:
            nonlocal ran
            ran = True
            self.tell(key, False, args, kwargs)
            return want.make()

        result = backend.obtain(replace(want, make=make), self._forced(args, kwargs))
        if not ran:
            self.tell(key, True, args, kwargs)
        return result

    def fresh(self, value: Any, args: Any, kwargs: Any) -> Any:
        """Return *value*, MISSING if the function's options say that it does not count."""
        if value is None and not self.keeps_none:
            return MISSING
        if value is not MISSING and self.cache._is_stale(self.options.is_stale, value, *args, **kwargs):
            return MISSING
        return value

    def compute(self, backend: SafeBackend, args: Any, kwargs: Any) -> tuple[Any, Made | None]:
        """Call the function, and say what is stored of what it gave; None if that is not possible."""
        value = self.uncached(args, kwargs)
        if inspect.isgenerator(value):
            value = join_generator(value)
        if isinstance(value, Response):
            backend.counters.refused.inc("response")
            return value, None
        return value, self.made(backend, value) if self.wanted(value) else None

    def made(self, backend: SafeBackend, value: Any) -> Made | None:
        """Return what is stored of a value; None where it cannot be, see `unfit`."""
        try:
            made = backend.made(value)
        except TypeError as error:
            self.unfit(backend, error)
            return None
        if value is None and made is not None and self.options.negative is not None:
            return replace(made, ttl=self.options.negative)
        return made

    def wanted(self, value: Any) -> bool:
        """Tell whether the options let *value* be stored."""
        if value is None and not self.keeps_none:
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

    def _forced(self, args: Any, kwargs: Any) -> bool:
        if self.options.forced_update is None:
            return False
        return bool(self.cache._forced_update(self.options.forced_update, *args, **kwargs))

    def _order(self, backend: SafeBackend) -> Order:
        """Return `order`, made once per application and time to live."""
        timeout = self.decorated.cache_timeout
        known = self._known
        if known is None or known[0] is not backend or known[1] != timeout:
            known = self._known = (backend, timeout, self.order(backend))
        return known[2]


class MemoizedCall(Call):
    """`@memoize`: a value per set of arguments, under tags that `delete_memoized` invalidates."""

    def run(self, args: Any, kwargs: Any) -> Any:
        """Answer one call."""
        return self.through(self.decorated.make_cache_key(self.decorated, *args, **kwargs), args, kwargs)

    def tags(self, args: Any, kwargs: Any) -> tuple[str, ...]:
        """Return the tags of one call's result, and those that `delete_memoized` invalidates."""
        names = self.cache.memoized_names(self.decorated, args, self.options.ignored)
        return (*names, *super().tags(args, kwargs))

    def key_maker(self, make: Callable[..., str]) -> Callable[..., str]:
        """Return a quicker way to keys of functions with plain arguments; others take the library's way."""
        plain = self.arguments.key

        def make_cache_key(f: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
            if not self.cache.source_check:
                key = plain(args, kwargs)
                if key is not None:
                    return f"memo:{key}"
            return make(f, *args, **kwargs)

        return make_cache_key

    def tell(self, key: str, found: bool, args: Any, kwargs: Any) -> None:
        """Send the library's signals for memoized functions."""
        if self.cache.enable_signals:
            signal = cache_memoize_hit if found else cache_memoize_miss
            signal.send(cache=self.cache, cache_key=key, f=self.function, args=args, kwargs=kwargs)
