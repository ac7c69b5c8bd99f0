"""The library's scopes: where plain `sentry_sdk` calls leave tags, and how these end with a request.

A request has scopes only if somebody uses them, or if it is sampled. What was set before the first request is
the base that each begins with.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentry_sdk import Client


class Scopes:
    """Looks after the two scopes of the thread or task that serves a request."""

    __slots__ = ("_base", "_current", "_isolation")

    def __init__(self, with_base: bool) -> None:
        """Remember what is set now as what every request begins with, unless a request may have set it."""
        from sentry_sdk import scope

        self._isolation: ContextVar[Any] = scope._isolation_scope
        self._current: ContextVar[Any] = scope._current_scope
        # Importing the library makes two scopes; unless the start-up put something in, requests do without.
        # Forked, so that what a request adds to a scope of the start-up stays out of the copy.
        found = (self._isolation.get(), self._current.get())
        self._base = [one.fork() if with_base and is_filled(one) else None for one in found]
        if with_base:
            self.reset()

    @property
    def used(self) -> bool:
        """True when this thread or task has scopes that a request left, or is about to leave."""
        return self._isolation.get() is not None or self._current.get() is not None

    def reset(self) -> None:
        """End tags and breadcrumbs with the request that set them, as the library's middleware does by forking."""
        for variable, base in zip((self._isolation, self._current), self._base, strict=True):
            variable.set(base and base.fork())

    def begin(self, client: Client) -> Any:
        """Give a sampled request scopes of its own; return the current one."""
        from sentry_sdk.scope import Scope, ScopeType

        made = []
        for variable, base, kind in zip(
            (self._isolation, self._current), self._base, (ScopeType.ISOLATION, ScopeType.CURRENT), strict=True
        ):
            scope = base.fork() if base is not None else Scope(ty=kind)
            scope.client = client
            variable.set(scope)
            made.append(scope)
        return made[1]

    def are_plain(self) -> bool:
        """Tell whether nobody has put anything into the scopes of this request, or into those of all."""
        from sentry_sdk import get_global_scope
        from sentry_sdk.scope import global_event_processors

        scopes = (get_global_scope(), self._isolation.get(), self._current.get())
        return not global_event_processors and not any(is_filled(scope) for scope in scopes)


def is_filled(scope: Any) -> bool:
    """Tell whether somebody has put anything into *scope*."""
    return any(getattr(scope, part, None) for part in _PARTS)


_PARTS = (
    "_tags", "_extras", "_contexts", "_user", "_breadcrumbs", "_attachments", "_event_processors",
    "_error_processors", "_level", "_fingerprint", "_flags",
)  # fmt: skip
