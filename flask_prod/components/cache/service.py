"""What `prod.cache` has that Flask-Caching does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from flask_caching import Cache

from flask_prod.core.values import parse_duration

from .backend import SafeBackend, Timeout
from .calls import Options
from .remember import RememberedCall
from .warming import Warming, Warmth

if TYPE_CHECKING:
    from .handle import CacheFace

R = TypeVar("R")


class Service(Cache):
    """Flask-Caching's object, with tags, numbers, and results that are computed once."""

    def __init__(self) -> None:
        self.warmth: list[Warmth] = []
        super().__init__()

    @property
    def backend(self) -> SafeBackend:
        """The back end of the current application."""
        raise NotImplementedError

    def remember(  # noqa: PLR0913  # the first three are needed, the others chosen by name
        self,
        key: str,
        ttl: Timeout,
        fn: Callable[[], R],
        *,
        tags: Iterable[str] = (),
        stale: Timeout = None,
        stale_on_error: Timeout = None,
        negative: Timeout = None,
    ) -> R:
        """Return the value under *key*, computed by *fn* where it is not there; the options are those of `cached`.

        Of callers at once, in whatever process, one computes.
        """
        options = Options(stale=seconds(stale), stale_on_error=seconds(stale_on_error), negative=seconds(negative))
        return cast(
            R, RememberedCall(cast("CacheFace", self), fn, options, seconds(ttl), tuple(tags)).through(key, (), {})
        )

    def invalidate(self, *tags: str) -> bool:
        """Forget every entry with one of *tags*, in all processes; False if that has to wait for Redis.

        It costs the same for one entry and for a million; docs/cache.md says when others see it.
        """
        return self.backend.invalidate(*tags)

    def delete_pattern(self, pattern: str) -> int:
        """Forget the keys that match, with `*` and `?`, and return how many there were; reads all keys (SCAN)."""
        return self.backend.delete_pattern(pattern)

    def increment(self, key: str, by: int = 1, ttl: Timeout = 0) -> int | None:
        """Add to the number under *key*, which starts at 0, and return it; None while Redis is away.

        Of callers at once each gets a number of its own. A new one lives for *ttl*, 0 is for ever. TypeError if
        there is something else under the key.
        """
        return self.backend.increment(key, by, ttl)

    def ttl(self, key: str) -> float | None:
        """Return for how many seconds *key* is fresh, infinity for ever, None if there is nothing."""
        return self.backend.ttl(key)

    @overload
    def warm(self, function: Callable[[], R], /) -> Callable[[], R]: ...

    @overload
    def warm(self, *, every: Timeout = None, name: str = "") -> Callable[[Callable[[], R]], Callable[[], R]]: ...

    def warm(self, function: Callable[[], R] | None = None, *, every: Timeout = None, name: str = "") -> Any:
        """Register a function that fills the cache: `@prod.cache.warm(every="10m")`.

        It runs in an application context, in a thread of its own: after the start and then *every* so often, in
        one process of all that share the cache; and by `flask prod cache warm`. What it calls is computed anew
        if it would end before the next time.
        """
        return Warming.register(self.warmth, function, seconds(every), name)


def seconds(timeout: Timeout) -> float | None:
    """Return a time to live in seconds; None if there is none."""
    return None if timeout is None else parse_duration(timeout)
