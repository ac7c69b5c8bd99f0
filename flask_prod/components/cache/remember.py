"""`prod.cache.remember`: a value under a key of the caller's, computed by a function given with each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .backend import Timeout
from .calls import Call, Options

if TYPE_CHECKING:
    from .handle import CacheFace


class RememberedCall(Call):
    """One call; nothing is decorated, and nothing looked up about the function, which is another one each time."""

    def __init__(
        self,
        cache: CacheFace,
        function: Callable[[], Any],
        options: Options,
        timeout: Timeout,
        tags: tuple[str, ...],
    ) -> None:
        self.cache = cache
        self.function = function
        self.options = options
        self.keeps_none = options.negative is not None
        self.decorated = _Plain(timeout)
        self._fixed = tags
        self._known = None
        self._quick = True

    def tags(self, args: Any, kwargs: Any) -> tuple[str, ...]:
        """Return those that were given."""
        return self._fixed


class _Plain:
    def __init__(self, timeout: Timeout) -> None:
        self.cache_timeout = timeout
